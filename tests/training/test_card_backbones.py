"""Trainings with the networks of network cards as backbones."""

import numpy as np
import onnx
import onnxruntime
import pytest

import spectag
from helpers.card_networks import (
    LABELS,
    MEL,
    RATE,
    batchless_network,
    log_mel_network,
    run_network,
    waveform_card,
    write_card,
)
from helpers.command import write_manifest
from helpers.file_server import FileServer
from spectag.audio.files import read_audio
from spectag.config.network_cards import open_card
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError
from spectag.models.card_files import front_end_of
from spectag.models.clip_windows import FrameWindows
from spectag.models.onnx_file import check_onnx_file
from spectag.models.pretrained import load
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.inputs.feature_store import FeatureStore
from spectag.training.members.member import front_end_for, open_inputs
from spectag.training.networks.onnx_composition import write_network
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.requirements import check_requirements

KINDS = ("waveform", "fixed waveform", "batchless", "log_mel", "fixed log_mel")


def make_card(folder, kind):
    if kind == "batchless":
        length = {"min_seconds": 0.1, "max_seconds": 0.2}
        return write_card(
            folder,
            batchless_network(),
            input={"kind": "waveform", "sample_rate": RATE} | length,
            outputs={"frames": "frames"},
        )
    if "waveform" in kind:
        return waveform_card(folder, fixed="fixed" in kind, has_labels=False)
    is_fixed = "fixed" in kind
    return write_card(
        folder,
        log_mel_network(n_frames=21 if is_fixed else "time"),
        input={"kind": "log_mel", "mel": MEL} | ({"n_frames": 21} if is_fixed else {}),
        outputs={"frames": "frames", "embedding": "embedding"},
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("data"), n_clips=9)


def test_download_of_a_network_for_training_has_progress(tmp_path, manifest, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    card = waveform_card(tmp_path / "net", has_labels=False)
    server = FileServer((tmp_path / "net" / "net.onnx").read_bytes())
    card.write_text(card.read_text(encoding="utf-8").replace("net.onnx", server.url), encoding="utf-8")
    recipe, clips, steps = Recipe(backbone=str(card)), read_manifest(manifest), []
    callbacks = Callbacks(progress=lambda step, *_: steps.append(step))
    try:
        open_inputs(clips, None, recipe, front_end_for(recipe, clips), tmp_path / "cache", callbacks, workers=1)
    finally:
        server.close()
    assert "downloading" in steps[0]


@pytest.mark.parametrize("kind", KINDS)
def test_trained_model_tags_with_the_features_of_its_training(tmp_path, manifest, kind):
    card = make_card(tmp_path / "net", kind)
    recipe = Recipe(backbone=str(card), folds=3)
    result = spectag.train(manifest, tmp_path / "model", recipe)
    assert result.scores is not None
    assert result.onnx_difference < 1e-4
    model = load(tmp_path / "model")
    assert model.labels.names == tuple(sorted(LABELS))
    clips = read_manifest(manifest)
    inputs = open_inputs(clips, None, recipe, front_end_for(recipe, clips), tmp_path / "cache", Callbacks(), workers=1)
    features = inputs.store.of_clips(inputs.clips, progress=Callbacks().progress)
    for clip, in_training in zip(clips.clips, features, strict=True):
        np.testing.assert_allclose(model.embed(clip.path), in_training, atol=1e-4)


def test_model_is_the_network_and_the_head_and_needs_no_card(tmp_path, manifest):
    card = make_card(tmp_path / "net", "fixed waveform")
    spectag.train(manifest, tmp_path / "model", Recipe(backbone=str(card), folds=3, calibration="none"))
    waveform = read_audio(read_manifest(manifest).clips[0].path, sample_rate=RATE)[0][:4_800]
    waveform = np.pad(waveform, (0, 4_800 - len(waveform)))
    [embedding] = run_network(tmp_path / "net", waveform[None], "embedding")
    card.unlink()
    (tmp_path / "net" / "net.onnx").unlink()
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    features, logits = session.run(["features", "logits"], {"inputs": waveform[None, None, None]})
    np.testing.assert_allclose(features, embedding, atol=1e-5)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in _initializers(tmp_path / "model")}
    head = {name.removeprefix("head/"): values for name, values in weights.items() if name.startswith("head/")}
    expected = ((embedding - head["center"]) * head["scale"]) @ head["weight"].T + head["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert load(tmp_path / "model").tag(waveform, RATE).probabilities.shape == (3,)


def _initializers(bundle):
    return onnx.load(bundle / "model.onnx").graph.initializer


def test_features_are_cached_and_computed_again_after_a_change_of_the_card(tmp_path, manifest):
    clips = read_manifest(manifest)

    def store(card):
        recipe = Recipe(backbone=str(card))
        return FeatureStore(tmp_path / "cache", recipe, front_end_for(recipe, clips))

    card = make_card(tmp_path / "net", "waveform")
    first = store(card)
    assert store(card).folder == first.folder
    assert store(waveform_card(tmp_path / "net", has_labels=False, outputs={"frames": "frames"})).folder != first.folder


def test_network_of_a_card_works_in_the_loop_over_windows(tmp_path):
    card = make_card(tmp_path / "net", "log_mel")
    recipe = Recipe(backbone=str(card))
    store = FeatureStore(tmp_path, recipe, front_end_of(open_card(card).card))
    example = np.random.default_rng(0).normal(size=(1, MEL["n_mels"], 300)).astype(np.float32)
    head = HeadWeights.zeros("linear", sum(store.group_sizes(example)), 3)
    graph = store.features_graph(example, store.network.weights)
    write_network(graph, head, tmp_path / "model.onnx", windows=FrameWindows(100, 50, 0.5))
    check_onnx_file(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.run(["logits"], {"inputs": example[None]})[0].shape == (1, 3)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "finetune"}, "mode = finetune"),
        ({"pretrained": False}, "pretrained = false"),
        ({"n_mixed_clips": 10}, "n_mixed_clips"),
    ],
)
def test_network_of_a_card_stays_as_it_is(tmp_path, settings, reason):
    card = make_card(tmp_path, "waveform")
    with pytest.raises(ConfigError, match=f"only a head is trained, so it does not go with {reason}"):
        check_requirements(Recipe(backbone=str(card), **settings))


def test_mel_settings_of_a_card_are_fixed(tmp_path, manifest):
    card = make_card(tmp_path, "log_mel")
    with pytest.raises(ConfigError, match=r"the mel settings of backbone .* are fixed"):
        spectag.train(manifest, tmp_path / "model", Recipe(backbone=str(card), mel=spectag.MelConfig(n_mels=30)))


def test_members_of_an_ensemble_need_the_same_longest_input(tmp_path, manifest):
    cards = [make_card(tmp_path / kind, kind) for kind in ("waveform", "fixed waveform")]
    recipe = Recipe(members=[{"backbone": str(card)} for card in cards], folds=3)
    with pytest.raises(ConfigError, match="the networks of an ensemble need the same longest input"):
        spectag.train(manifest, tmp_path / "model", recipe)


def test_ensemble_of_two_cards_is_trained(tmp_path, manifest):
    cards = [make_card(tmp_path / kind, kind) for kind in ("waveform", "log_mel")]
    recipe = Recipe(members=[{"backbone": str(card)} for card in cards], folds=3)
    assert spectag.train(manifest, tmp_path / "model", recipe).scores is not None


def test_model_of_a_waveform_network_is_evaluated_calibrated_indexed_and_searched(tmp_path, manifest):
    card = make_card(tmp_path / "net", "fixed waveform")
    spectag.train(manifest, tmp_path / "model", Recipe(backbone=str(card), folds=3))
    sounds = manifest.parent / "clips"
    evaluation = spectag.evaluate(tmp_path / "model", manifest, n_resamples=0)
    assert len(evaluation.models[0].predictions.clips) == 9
    spectag.calibrate(tmp_path / "model", manifest=manifest, output=tmp_path / "calibrated")
    assert load(tmp_path / "calibrated").info.front_end.input == "waveform"
    spectag.index(sounds, tmp_path / "index", model=tmp_path / "model")
    query = sorted(sounds.iterdir())[0]
    assert spectag.search(tmp_path / "index", query)[0].similarity > 0.99
