"""Bundles of strangers are refused in one line; benchmarks/hostile_bundles.py also measures time and memory."""

import pytest

from helpers.bundles import tone
from helpers.hostile_bundles import HARMLESS, KINDS, make_hostile_bundle
from spectag.errors import BundleError
from spectag.models.tagger import Tagger

SLOW = {"many_small_values", "large_json", "many_nodes", "nested_json", "random_network", "many_labels"}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=pytest.mark.slow) if k in SLOW else k for k in KINDS])
def test_hostile_bundle_is_refused_in_one_line_or_harmless(tmp_path, kind):
    for seed in range(3):
        bundle = make_hostile_bundle(kind, seed, tmp_path / f"model {seed}")
        try:
            Tagger(bundle).probabilities(tone("low", 0.5), 16_000)
        except BundleError as error:
            message = str(error)
        else:
            message = None
        assert message is not None or kind in HARMLESS
        assert message is None or ("\n" not in message and len(message) < 600)
