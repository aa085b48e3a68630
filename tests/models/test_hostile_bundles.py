"""Bundles of strangers are refused in one line; benchmarks/hostile_bundles.py also measures time and memory."""

import pytest

from helpers.bundles import tone
from helpers.hostile_bundles import (
    HARMLESS,
    KINDS,
    NETWORK_KINDS,
    make_hostile_bundle,
    make_hostile_frames_bundle,
)
from spectag.errors import BundleError
from spectag.models.tagger import Tagger

SLOW = {"many_small_values", "large_json", "many_nodes", "nested_json", "random_network", "many_labels"}


def each(kinds):
    return [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in kinds]


def check_is_refused_in_one_line_or_harmless(kind, make, use):
    for seed in range(3):
        bundle = make(kind, seed)
        try:
            use(bundle)
        except BundleError as error:
            message = str(error)
        else:
            message = None
        assert message is not None or kind in HARMLESS
        assert message is None or ("\n" not in message and len(message) < 600)


@pytest.mark.parametrize("kind", each(KINDS))
def test_hostile_bundle_is_refused_in_one_line_or_harmless(tmp_path, kind):
    check_is_refused_in_one_line_or_harmless(
        kind,
        lambda kind, seed: make_hostile_bundle(kind, seed, tmp_path / f"model {seed}"),
        lambda bundle: Tagger(bundle).probabilities(tone("low", 0.5), 16_000),
    )


@pytest.mark.parametrize("kind", each(NETWORK_KINDS))
def test_hostile_network_of_frames_is_refused_in_one_line_or_harmless(tmp_path, kind):
    check_is_refused_in_one_line_or_harmless(
        kind,
        lambda kind, seed: make_hostile_frames_bundle(kind, seed, tmp_path / f"model {seed}"),
        lambda bundle: Tagger(bundle).segments(tone("low", 0.5), 16_000),
    )
