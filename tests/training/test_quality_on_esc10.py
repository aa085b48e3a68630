"""Minimum accuracy of frozen training on the 400 recordings of ESC-10."""

import numpy as np
import pytest

from helpers.paths import SHARED
from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import resolve_mel
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.models.bundle import read_info
from spectag.models.tagger import Tagger
from spectag.scoring.metrics import top1_accuracy
from spectag.system.progress import no_log, silent
from spectag.training.heads.logistic import DEFAULT_WEIGHT_DECAY, fit_heads
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.pipeline import train

MANIFEST = SHARED / "data" / "esc10" / "esc10.csv"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MANIFEST.exists(), reason="needs ../shared/data/esc10"),
]
needs_mn04 = pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
N_DRAWS = 10


@pytest.fixture(autouse=True)
def published_weights(monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("bank")


@pytest.mark.parametrize(
    ("backbone", "floor"),
    [pytest.param("mn04_audioset", 0.985, marks=needs_mn04), ("efficientnet_lite0", 0.905)],
)
def test_accuracy_over_the_manifest_folds_is_above_its_floor(tmp_path, cache, backbone, floor):
    recipe = Recipe(backbone=backbone, folds="given")
    result = train(MANIFEST, tmp_path / "model", recipe, data=DataOptions(cache=cache))
    assert [(fold.name, fold.n_clips) for fold in result.folds] == [(name, 80) for name in "12345"]
    assert np.mean([fold.top1_accuracy for fold in result.folds]) >= floor
    assert result.onnx_difference < 1e-4
    assert all(read_info(result.bundle).thresholds_fitted)
    clip = read_manifest(MANIFEST).clips[0]
    assert Tagger(result.bundle).tag(clip.path).top(1)[0].label == clip.labels[0]


@needs_mn04
def test_two_recordings_per_label_are_enough_for_a_good_model(cache):
    """0.960 was measured over 20 draws."""
    manifest, features, group_sizes = features_by_mn04(cache)
    y_true, sources = manifest.multi_hot(), np.array(manifest.groups)
    accuracies = []
    for seed in range(N_DRAWS):
        chosen = draw_clips(y_true, sources, np.random.default_rng(seed))
        head = fit_heads(features[chosen], y_true[chosen], group_sizes, [DEFAULT_WEIGHT_DECAY])[0]
        strange = ~np.isin(sources, sources[chosen])
        accuracies.append(top1_accuracy(y_true[strange], head.logits(features[strange])))
    assert np.mean(accuracies) >= 0.93, accuracies


def features_by_mn04(cache):
    recipe = Recipe(backbone="mn04_audioset")
    front_end = FrontEnd(mel=resolve_mel(recipe.backbone, None))
    manifest = read_manifest(MANIFEST, group_column="source")
    clips = open_clips(manifest, front_end, cache, workers=None, progress=silent, log=no_log)
    store = FeatureStore(cache, recipe, front_end)
    return manifest, store.compute(clips.keys, clips.inputs, progress=silent), store.group_sizes(clips.inputs(0))


def draw_clips(y_true, sources, rng):
    """One clip of each of two recordings of each label."""
    return [
        rng.choice(np.flatnonzero(has_label & (sources == source)))
        for has_label in y_true.T
        for source in rng.permutation(np.unique(sources[has_label]))[:2]
    ]
