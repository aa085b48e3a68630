import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import spectag
from helpers.card_networks import (
    LABELS,
    MEL,
    RATE,
    WINDOW,
    batchless_network,
    log_mel_network,
    run_network,
    waveform_card,
    waveform_network,
    write_card,
)
from helpers.command import write_tones
from spectag.audio.front_end import FrontEnd
from spectag.config.listening import ListenSettings
from spectag.config.network_cards import open_card
from spectag.config.tagging import TagSettings
from spectag.errors import BundleError, ConfigError, DataError, WeightsError
from spectag.models.card_files import front_end_of
from spectag.models.card_models import card_bundle
from spectag.models.limits import check_input_size
from spectag.models.pretrained import load, tagger_folder
from spectag.models.tagger import Tagger
from spectag.models.timeline import pool_logits
from spectag.reporting.attribution import attribute
from spectag.tagging.events import windows_to_tag

SOUND = (0.1 * np.random.default_rng(1).standard_normal(2 * RATE)).astype(np.float32)


def test_card_with_labels_tags_as_its_network_does(tmp_path):
    tagger = load(waveform_card(tmp_path))
    assert tagger.labels.names == LABELS
    [probabilities, embedding] = run_network(tmp_path, SOUND[None], "probabilities", "embedding")
    np.testing.assert_allclose(tagger.probabilities(SOUND, RATE), probabilities[0], atol=1e-5)
    np.testing.assert_allclose(tagger.embed(SOUND, RATE), embedding[0], atol=1e-5)
    assert "Somebody, A Network, 2025" in tagger.card


def test_model_of_a_card_is_built_once_and_again_after_a_change(tmp_path):
    path = waveform_card(tmp_path)
    folder = card_bundle(path)
    built_at = (folder / "model.onnx").stat().st_mtime_ns
    assert tagger_folder(path) == folder
    assert (folder / "model.onnx").stat().st_mtime_ns == built_at
    assert card_bundle(waveform_card(tmp_path, threshold=0.2)) != folder


def test_sound_longer_than_a_fixed_input_is_tagged_in_parts_and_pooled(tmp_path):
    tagger = load(waveform_card(tmp_path, fixed=True))
    two_parts = SOUND[: 2 * WINDOW]
    logits = [run_network(tmp_path, part[None], "logits")[0][0] for part in (two_parts[:WINDOW], two_parts[WINDOW:])]
    expected = pool_logits(logits, [0.3, 0.3])
    np.testing.assert_allclose(tagger.outputs(two_parts, RATE).logits, expected, atol=1e-4)
    [tags] = tagger.tag_windows(two_parts, 0.6, sample_rate=RATE)
    np.testing.assert_allclose(tags.probabilities, 1 / (1 + np.exp(-expected)), atol=1e-4)


def test_sound_shorter_than_a_fixed_input_is_followed_by_silence(tmp_path):
    tagger = load(waveform_card(tmp_path, fixed=True))
    padded = np.pad(SOUND[:1_000], (0, WINDOW - 1_000))
    [expected] = run_network(tmp_path, padded[None], "probabilities")
    np.testing.assert_allclose(tagger.probabilities(SOUND[:1_000], RATE), expected[0], atol=1e-5)


@pytest.mark.parametrize("padding", ["repeat", "repeat_whole"])
def test_sound_shorter_than_a_fixed_input_can_be_repeated_also_in_the_exported_file(tmp_path, padding):
    settings = {"kind": "waveform", "sample_rate": RATE, "window_seconds": WINDOW / RATE, "padding": padding}
    path = waveform_card(tmp_path, fixed=True, input=settings)
    rest = SOUND[:800] if padding == "repeat" else np.zeros(800)
    repeated = np.concatenate([*[SOUND[:1_000]] * 4, rest])
    [expected] = run_network(tmp_path, repeated[None], "probabilities")
    np.testing.assert_allclose(load(path).probabilities(SOUND[:1_000], RATE), expected[0], atol=1e-5)
    assert spectag.export(path, tmp_path / "exported.onnx").largest_difference < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "exported.onnx")
    [found] = session.run(["probabilities"], {"waveform": SOUND[None, :1_000]})
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_default_windows_are_as_long_as_a_fixed_input(tmp_path):
    (tmp_path / "labels.txt").write_text("low\nmiddle\nhigh\n", encoding="utf-8")
    path = write_card(
        tmp_path,
        waveform_network(n_samples=5 * RATE),
        input={"kind": "waveform", "sample_rate": RATE, "window_seconds": 5.0},
        outputs={"logits": "logits"},
        labels={"source": {"file": "labels.txt"}},
    )
    window = windows_to_tag(load(path), TagSettings(segments=True))
    assert window is not None
    assert window.window_seconds == 5.0


@pytest.mark.parametrize("kind", ["fixed waveform", "waveform", "batchless", "log_mel", "fixed log_mel"])
def test_exported_model_equals_the_card(tmp_path, kind):
    (tmp_path / "labels.txt").write_text("low\nmiddle\nhigh\n", encoding="utf-8")
    labels = {"source": {"file": "labels.txt"}}
    mel = {"kind": "log_mel", "mel": MEL}
    if kind == "batchless":
        path = write_card(
            tmp_path,
            batchless_network(),
            input={"kind": "waveform", "sample_rate": RATE, "min_seconds": 0.1, "max_seconds": 1.0},
            outputs={"probabilities": 0, "frames": 1},
            labels=labels,
        )
    elif "waveform" in kind:
        path = waveform_card(tmp_path, fixed="fixed" in kind)
    else:
        n_frames = 51 if "fixed" in kind else "time"
        fixed = {"n_frames": 51} if "fixed" in kind else {}
        outputs = {"logits": "logits", "frames": "frames"}
        path = write_card(
            tmp_path, log_mel_network(n_frames=n_frames), input=mel | fixed, outputs=outputs, labels=labels
        )
    exported = spectag.export(path, tmp_path / "exported.onnx")
    assert exported.largest_difference < 1e-4
    assert (exported.inputs["waveform"][0] == 1) == (kind == "batchless")


def test_network_of_dynamic_integers_is_exported_for_one_sound_at_once(tmp_path):
    path, model = waveform_card(tmp_path), onnx.load(tmp_path / "net.onnx")
    scaled = helper.make_node("DynamicQuantizeLinear", ["embedding"], ["integers", "scale", "zero"])
    back = helper.make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"])
    [number] = [number for number, node in enumerate(model.graph.node) if node.op_type == "Gemm"]
    model.graph.node[number].input[0] = "rounded"
    model.graph.node.insert(number, back)
    model.graph.node.insert(number, scaled)
    onnx.save(model, tmp_path / "net.onnx")
    exported = spectag.export(path, tmp_path / "exported.onnx")
    assert exported.inputs["waveform"][0] == 1
    assert exported.largest_difference < 0.01


def test_card_without_labels_is_only_a_backbone(tmp_path):
    with pytest.raises(ConfigError, match=r"this network has no labels.*spectag train labels.csv --backbone"):
        load(waveform_card(tmp_path, has_labels=False))


def test_card_without_labels_embeds_and_indexes_sounds(tmp_path):
    write_tones(tmp_path / "sounds", 4)
    path = waveform_card(tmp_path / "net", has_labels=False, outputs={"embedding": "embedding"})
    embeddings = spectag.embed(tmp_path / "sounds", model=path)
    assert embeddings.features.shape == (4, 6)
    index = spectag.index(tmp_path / "sounds", tmp_path / "index", model=path)
    copy = shutil.copy(embeddings.files[0], tmp_path / "copy.wav")
    assert index.search(copy)[0].similarity > 0.99
    tagger = Tagger(card_bundle(path, needs_labels=False))
    assert tagger.tag(SOUND, RATE).above_threshold() == []
    [embedding] = run_network(tmp_path / "net", SOUND[None], "embedding")
    np.testing.assert_allclose(tagger.embed(SOUND, RATE), embedding[0], atol=1e-5)


def test_wrong_number_of_labels_leaves_no_model_behind(tmp_path):
    path = waveform_card(tmp_path)
    (tmp_path / "labels.txt").write_text("low\nhigh\n", encoding="utf-8")
    with pytest.raises(BundleError, match="3 outputs for labels, but 2 labels"):
        card_bundle(path)


def test_waveform_models_cannot_be_explained_but_log_mel_models_can(tmp_path):
    with pytest.raises(DataError, match="takes the waveform itself"):
        attribute(load(waveform_card(tmp_path / "a")), SOUND, RATE, ["low"])
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "labels.txt").write_text("low\nmiddle\nhigh\n", encoding="utf-8")
    path = write_card(
        tmp_path / "b",
        log_mel_network(n_frames=101),
        input={"kind": "log_mel", "mel": MEL, "n_frames": 101},
        outputs={"logits": "logits"},
        labels={"source": {"file": "labels.txt"}},
    )
    assert np.isfinite(attribute(load(path), SOUND[:8_000], RATE, ["low"], n_passes=4).maps).all()


def test_spectag_json_of_other_models_stays_as_it_was(tmp_path):
    plain = FrontEnd(mel=spectag.MelConfig())
    assert plain.model_dump().keys() == {"mel", "image", "channel"}
    of_card = front_end_of(open_card(waveform_card(tmp_path, fixed=True)).card)
    assert FrontEnd.model_validate(of_card.model_dump(mode="json")) == of_card


def test_live_sound_is_tagged_in_windows_of_a_fixed_input(tmp_path):
    fixed, free = load(waveform_card(tmp_path / "a", fixed=True)), load(waveform_card(tmp_path / "b"))
    assert ListenSettings().windows(fixed.info.window).window_seconds == 0.3
    assert ListenSettings().windows(free.info.window).window_seconds == 1.5


def test_explain_refuses_a_waveform_model_before_it_reads_the_recording(tmp_path):
    with pytest.raises(DataError, match="takes the waveform itself"):
        spectag.explain(waveform_card(tmp_path), tmp_path / "missing.wav")


def test_unverified_card_is_announced_when_it_is_used(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    messages = []
    with pytest.raises(WeightsError):
        card_bundle("yamnet", log=messages.append)
    assert messages == [
        "yamnet is an unverified network card: nobody has compared the network with the original yet; "
        "spectag models check yamnet runs it"
    ]


def test_huge_inputs_of_a_strangers_model_are_refused():
    front_end = FrontEnd(mel=spectag.MelConfig(hop_length=1), min_samples=200_000_000)
    with pytest.raises(ValueError, match="the input of the network would have"):
        check_input_size(front_end, spectag.WindowConfig())
    with pytest.raises(ValueError, match="min_samples 9 is above max_samples 5"):
        FrontEnd(mel=spectag.MelConfig(), min_samples=9, max_samples=5)
