"""One ONNX file, from a waveform to probabilities, gives what the model gives."""

import json
import math
import subprocess
import sys
import textwrap
import warnings
import wave
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import spectag
from docs.pages import blocks
from helpers.bundles import MEL, MEL_32K, make_bundle, make_ensemble, make_ensemble_info, make_info, tone
from helpers.command import run_without
from helpers.paths import PROJECT, SHARED
from spectag import ImageConfig, MelConfig, SpectagError, Tagger, WindowConfig
from spectag.audio import FrontEnd, read_audio
from spectag.config.backbones import AUDIOSET_MEL, IMAGE_MEL
from spectag.errors import BundleError, ConfigError
from spectag.models.bundle import ONNX_FILE, WindowThresholds, write_info
from spectag.models.clip_windows import ClipWindows
from spectag.models.novelty import NoveltyInfo
from spectag.models.standalone import exporting
from spectag.models.standalone.exporting import export
from spectag.models.standalone.front_end_graph import add_front_end
from spectag.models.standalone.graph_builder import GraphBuilder
from spectag.models.standalone.network_graph import store_weights_as_float16
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import CalibrationCurve, linear_curve
from spectag.training.networks.onnx_windows import loop_over_windows

RATE = MEL.sample_rate
ESC10 = SHARED / "data" / "esc10"
PARTS = WindowConfig(max_clip_seconds=1.0)
NOVELTY = NoveltyInfo(n_held_out=3)
WINDOWS = ClipWindows(seconds=0.3, hop_seconds=0.15)
CALIBRATION = Calibration(
    method="isotonic",
    curves=(
        CalibrationCurve(points=((-1.0, -2.0), (0.5, -1.0), (2.0, 4.0)), slope_below=0.5, slope_above=3.0),
        linear_curve(1.5, 0.25),
        linear_curve(0.5, -1.0),
    ),
)
KALDI = MelConfig(**{**AUDIOSET_MEL.model_dump(), "sample_rate": RATE, "n_mels": 24, "f_max": 8000.0})
OTHER_MEL = MelConfig(**{**MEL.model_dump(), "n_fft": 1000, "n_mels": 48})


def plain(folder: Path) -> Path:
    return make_bundle(folder, make_info(window=PARTS))


def with_novelty(folder: Path) -> Path:
    return make_bundle(folder, make_info(window=PARTS, novelty=NOVELTY))


def like_kaldi(folder: Path) -> Path:
    return make_bundle(folder, make_info(window=PARTS, front_end=FrontEnd(mel=KALDI)))


def on_images(folder: Path) -> Path:
    front_end = FrontEnd(mel=MEL, image=ImageConfig(height=24, width=50))
    return make_bundle(folder, make_info(window=PARTS, front_end=front_end))


def with_windows(folder: Path, clip_windows: ClipWindows = WINDOWS) -> Path:
    backbone = make_info().backbone.model_copy(update={"clip_windows": clip_windows})
    info = make_info(window=PARTS, backbone=backbone, novelty=NOVELTY)
    make_bundle(folder, info)
    network = onnx.load(folder / ONNX_FILE)
    looped = loop_over_windows(without_novelty(network), clip_windows.in_frames(info.front_end))
    add_novelty(looped, network)
    onnx.save(looped, folder / ONNX_FILE)
    write_info(folder, info)
    return folder


def without_novelty(network: onnx.ModelProto) -> onnx.ModelProto:
    """The network with the three outputs that the loop over windows expects."""
    copy = onnx.ModelProto()
    copy.CopyFrom(network)
    copy.graph.output.remove(copy.graph.output[-1])
    return copy


def add_novelty(looped: onnx.ModelProto, network: onnx.ModelProto) -> None:
    """Novelty of the features of the whole clip, as in training: outside of the loop."""
    looped.graph.node.extend(network.graph.node[-3:])
    looped.graph.initializer.extend(value for value in network.graph.initializer if value.name in ("band_axis", "two"))
    looped.graph.output.append(network.graph.output[-1])


def ensemble(folder: Path) -> Path:
    front_ends = [FrontEnd(mel=MEL), FrontEnd(mel=OTHER_MEL), FrontEnd(mel=MEL)]
    info = make_ensemble_info(front_ends, [0.5, 1.5, -0.25], bias=0.3)
    novelty = NoveltyInfo(network=1, n_held_out=3)
    return make_ensemble(
        folder, info.model_copy(update={"calibration": CALIBRATION, "window": PARTS, "novelty": novelty})
    )


BUNDLES = (plain, with_novelty, like_kaldi, on_images, with_windows, ensemble)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The bundle, the exported file and a session, by the function that makes the bundle."""
    made = {}

    def get(make, **options):
        key = make, *options.items()
        if key not in made:
            folder = tmp_path_factory.mktemp("export")
            bundle = make(folder / "model")
            path = folder / "model.onnx"
            export(bundle, path, **options)
            made[key] = Tagger(bundle), path, session(path)
        return made[key]

    return get


def session(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(opened, waveforms):
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(None, {"waveform": np.asarray(waveforms, np.float32)}), strict=True))


def sound(n_samples: int, seed: int = 0) -> np.ndarray:
    """Noise with a tone that gets louder."""
    rng, times = np.random.default_rng(seed), np.arange(n_samples) / RATE
    return (0.1 * rng.standard_normal(n_samples) + 0.2 * times * np.sin(2 * np.pi * 700 * times)).astype(np.float32)


def check_equal(tagger, opened, waveform):
    found, expected = run(opened, waveform[None]), tagger.outputs(waveform, tagger.front_end.sample_rate)
    np.testing.assert_allclose(found["probabilities"][0], expected.probabilities, rtol=0, atol=2e-6)
    np.testing.assert_allclose(found["embedding"][0], expected.features, rtol=1e-4, atol=1e-4)
    assert ("novelty" in found) == (expected.novelty is not None)
    if expected.novelty is not None:
        np.testing.assert_allclose(found["novelty"], [expected.novelty], rtol=1e-4, atol=1e-4)


# -------------------------------------------------------------------------------------------------- the same answers


@pytest.mark.parametrize("seconds", [0.1, 0.3, 1.0, 1.001, 2.0, 2.7, 4.3])
@pytest.mark.parametrize("make", BUNDLES)
def test_file_gives_what_the_model_gives_at_any_length(exported, make, seconds):
    tagger, _, opened = exported(make)
    check_equal(tagger, opened, sound(round(seconds * RATE)))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n_samples=st.one_of(st.integers(1, 700), st.integers(1, 3 * RATE)))
def test_any_number_of_samples_is_possible(exported, n_samples):
    for make in (like_kaldi, ensemble):
        tagger, _, opened = exported(make)
        check_equal(tagger, opened, sound(n_samples))


@pytest.mark.parametrize("make", BUNDLES)
@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(RATE, np.float32),
        1e-6 * sound(RATE),
        np.clip(50 * sound(RATE), -1, 1),
        np.full(RATE, 0.7, np.float32) + 1e-5 * sound(RATE),
        tone("low", 0.5),
    ],
    ids=["silence", "quiet", "clipped", "offset", "tone"],
)
def test_silent_quiet_and_loud_sounds_give_what_the_model_gives(exported, make, waveform):
    tagger, _, opened = exported(make)
    check_equal(tagger, opened, waveform)


@pytest.mark.parametrize("make", BUNDLES)
@pytest.mark.parametrize("n_samples", [3000, 3 * RATE])
def test_a_batch_gives_what_its_waveforms_give_one_by_one(exported, make, n_samples):
    _, _, opened = exported(make)
    waveforms = np.stack([sound(n_samples), 1e-3 * sound(n_samples, seed=1), np.zeros(n_samples, np.float32)])
    together = run(opened, waveforms)
    for name, values in together.items():
        singles = [run(opened, waveform[None])[name][0] for waveform in waveforms]
        np.testing.assert_allclose(values, singles, rtol=1e-5, atol=1e-5)


FRONT_ENDS = {
    "librosa": FrontEnd(mel=MelConfig()),
    "kaldi": FrontEnd(mel=AUDIOSET_MEL),
    "imagenet": FrontEnd(mel=IMAGE_MEL),
    "odd": FrontEnd(
        mel=MelConfig(sample_rate=16_000, n_fft=513, win_length=400, hop_length=100, f_max=8000.0, pad_mode="reflect")
    ),
    "ref": FrontEnd(mel=MelConfig(ref=0.5, amin=1e-6, log="ln", top_db=40.0, mean=-3.0, std=2.0)),
    "grey image": FrontEnd(mel=IMAGE_MEL, image=ImageConfig(height=100, width=64)),
    "wide image": FrontEnd(mel=MelConfig(), image=ImageConfig(width=500, low=-90.0, high=-20.0)),
    "colour": FrontEnd(mel=MelConfig(), image=ImageConfig(colormap="magma", height=200, high=-20.0)),
}


@pytest.mark.parametrize("front_end", FRONT_ENDS.values(), ids=list(FRONT_ENDS))
def test_feature_extraction_equals_that_of_python(front_end):
    graph = GraphBuilder()
    graph.name_output(add_front_end(graph, "waveform", front_end), "inputs")
    info = helper.make_tensor_value_info
    ends = [info("waveform", TensorProto.FLOAT, ["batch", "n"])], [info("inputs", TensorProto.FLOAT, [None] * 4)]
    model = helper.make_model(
        helper.make_graph(graph.nodes, "front end", *ends, graph.initializers),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=8,
    )
    opened = session(model.SerializeToString())
    for waveform in (sound(1), sound(2), sound(700), sound(20_000), 1e-7 * sound(9000), np.zeros(32_000, np.float32)):
        [inputs] = opened.run(None, {"waveform": np.stack([waveform, waveform[::-1]])})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # empty mel bands
            expected = front_end.input_of_waveform(waveform)
        assert inputs.shape[1:] == expected.shape
        difference = np.abs(inputs[0] - expected)
        if front_end.image is None:
            assert difference.max() < 1e-3  # of decibels, where a band is far below the others
        else:  # a value close to the middle of two grey levels may be rounded to the other one
            assert difference.max() < 0.05
            assert (difference > 1e-6).mean() < 1e-3


@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
@pytest.mark.skipif(not ESC10.exists(), reason="needs ../shared/data/esc10")
def test_published_model_gives_the_same_for_real_clips_of_up_to_30_s(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
    spectag.export("audioset-mn04", tmp_path / "model.onnx")
    opened, tagger = session(tmp_path / "model.onnx"), spectag.load("audioset-mn04")
    files = sorted(ESC10.glob("*/*.ogg"))[::67]
    clips = [read_audio(file, sample_rate=32_000)[0] for file in files]
    together = np.concatenate(clips)
    for seconds in (0.3, 1.0, 2.5, 5.0):
        for clip in clips:
            compare_probabilities(tagger, opened, clip[: round(seconds * 32_000)])
    for seconds in (10.0, 12.3, 30.0):
        compare_probabilities(tagger, opened, together[: round(seconds * 32_000)])


def compare_probabilities(tagger, opened, waveform):
    [found] = opened.run(["probabilities"], {"waveform": waveform[None]})
    assert np.abs(found[0] - tagger.probabilities(waveform, 32_000)).max() < 1e-5


# ------------------------------------------------------------------------------------------------------- the options


@pytest.mark.parametrize("make", BUNDLES)
@pytest.mark.parametrize("seconds", [0.25, 0.5, 1.0])
def test_a_fixed_length_gives_the_same_without_a_loop(exported, make, seconds):
    tagger, path, opened = exported(make, max_seconds=seconds)
    assert opened.get_inputs()[0].shape == [1, round(seconds * RATE)]
    assert opened.get_modelmeta().custom_metadata_map["samples"] == str(round(seconds * RATE))
    assert not {node.op_type for node in onnx.load(path).graph.node} & {"Loop", "If", "Scan"}
    check_equal(tagger, opened, sound(round(seconds * RATE)))
    with pytest.raises(Exception, match="invalid dimensions"):
        run(opened, [sound(2000)])


@pytest.mark.parametrize("max_seconds", [None, 1.0])
def test_windows_count_only_for_the_labels_that_have_them(exported, tmp_path, max_seconds):
    for_one = with_windows(tmp_path / "model", WINDOWS.model_copy(update={"n_labels": 1}))
    export(for_one, tmp_path / "model.onnx", max_seconds=max_seconds)
    waveform = np.concatenate([tone("low", 0.5), tone("high", 0.5)])
    found = run(session(tmp_path / "model.onnx"), waveform[None])["probabilities"][0]
    expected = Tagger(for_one).probabilities(waveform, RATE)
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    of_all = exported(with_windows)[0].probabilities(waveform, RATE)
    assert found[0] == pytest.approx(of_all[0], rel=1e-3)
    assert found[2] < 0.2 * of_all[2]  # the tone fills a window, but only half of the clip


@pytest.mark.parametrize("max_seconds", [0.00001, 1.5, math.inf, math.nan, -math.inf])
def test_a_fixed_length_above_that_of_a_part_is_an_error(tmp_path, max_seconds):
    with pytest.raises(ConfigError, match=r"max_seconds must be from .* to 1, got .* parts of 1 s"):
        export(plain(tmp_path / "model"), tmp_path / "model.onnx", max_seconds=max_seconds)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("make", [with_windows, ensemble])
def test_opset_18_gives_the_same(exported, make):
    tagger, path, opened = exported(make, opset=18)
    assert [opset.version for opset in onnx.load(path).opset_import] == [18]
    check_equal(tagger, opened, sound(2 * RATE + 100))


@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
def test_published_model_in_opset_18_has_no_attributes_of_later_opsets(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
    exported = export("audioset-mn04", tmp_path / "model.onnx", opset=18, fp16=True)
    assert exported.opset == 18
    onnx.checker.check_model(tmp_path / "model.onnx")


@pytest.mark.parametrize("opset", [17, 1000])
def test_impossible_opset_is_an_error(tmp_path, opset):
    with pytest.raises(ConfigError, match=rf"opset must be .*18.* got {opset}"):
        export(plain(tmp_path / "model"), tmp_path / "model.onnx", opset=opset)


def float16_of(values: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "network1/weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", len(values)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", values.shape[1]])],
        [numpy_helper.from_array(values, "network1/weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    store_weights_as_float16(model, "network")
    return model


def test_float16_halves_the_weights_and_rounds_them(rng):
    values = rng.standard_normal((40, 50)).astype(np.float32)
    model = float16_of(values)
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT16
    [found] = session(model.SerializeToString()).run(None, {"x": np.eye(40, dtype=np.float32)})
    np.testing.assert_array_equal(found, values.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("scale", [1e6, 1e-9])
def test_weights_that_float16_cannot_hold_stay_float32(rng, scale):
    model = float16_of((scale * rng.standard_normal((40, 50))).astype(np.float32))
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT
    assert len(model.graph.node) == 1


@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
def test_float16_makes_the_file_half_as_large(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
    full, half = (export("audioset-mn04", tmp_path / f"{fp16}.onnx", fp16=fp16) for fp16 in (False, True))
    assert half.n_bytes < 0.6 * full.n_bytes
    assert full.largest_difference < 1e-5 < half.largest_difference < 0.01


# -------------------------------------------------------------------------------------------------- the file as such


def test_metadata_says_what_a_program_needs(tmp_path):
    thresholds = WindowThresholds(below_seconds=2.25, thresholds=(0.1, 0.2, 0.3))
    info = make_info(labels=("Bär", "b", "c"), window_thresholds=thresholds)
    export(make_bundle(tmp_path / "Mödel", info), tmp_path / "model.onnx")
    metadata = session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    values = {key: json.loads(metadata[key]) for key in ("labels", "thresholds", "window_thresholds", "calibrated")}
    assert values == {
        "labels": ["Bär", "b", "c"],
        "thresholds": [0.5, 0.4, 0.6],
        "window_thresholds": {"below_seconds": 2.25, "thresholds": [0.1, 0.2, 0.3]},
        "calibrated": False,
    }
    assert (metadata["name"], metadata["sample_rate"], metadata["licence"]) == ("Mödel", "16000", "none")
    assert (metadata["channel"], metadata["max_clip_seconds"]) == ("mix", "60.0")
    assert metadata["spectag_version"] == "0.1.0"
    assert json.loads(metadata["backbones"]) == ["by hand"]


def test_axes_and_outputs_have_names(exported):
    _, path, opened = exported(with_windows)
    assert [(value.name, value.shape) for value in opened.get_inputs()] == [("waveform", ["batch", "samples"])]
    assert [(value.name, value.shape) for value in opened.get_outputs()] == [
        ("probabilities", ["batch", 3]),
        ("embedding", ["batch", 24]),
        ("novelty", ["batch"]),
    ]
    assert {node.domain for node in onnx.load(path).graph.node} == {""}


def test_the_same_model_gives_the_same_bytes(exported, tmp_path):
    tagger, path, _ = exported(ensemble)
    export(tagger.folder, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


# ------------------------------------------------------------------------------------------------------- the errors


def test_networks_of_different_sample_rates_are_an_error(tmp_path):
    bundle = make_ensemble(
        tmp_path / "model", make_ensemble_info([FrontEnd(mel=MEL), FrontEnd(mel=MEL_32K)], [0.5, 0.5])
    )
    with pytest.raises(BundleError, match=r"sounds at 16000 and 32000 Hz, but the file has one input.*mel.sample_rate"):
        export(bundle, tmp_path / "model.onnx")


def test_a_model_of_images_alone_is_an_error(tmp_path):
    bundle = make_bundle(tmp_path / "model", make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24))))
    with pytest.raises(BundleError, match="trained on images with unknown mel settings"):
        export(bundle, tmp_path / "model.onnx")


@pytest.mark.parametrize("fp16", [False, True])
def test_a_file_above_the_limit_of_onnx_is_not_written(tmp_path, monkeypatch, fp16):
    monkeypatch.setattr(onnx.checker, "MAXIMUM_PROTOBUF", 1000)
    with pytest.raises(BundleError, match=r"model.onnx: not written, because .* more than the 2 GB") as raised:
        export(plain(tmp_path / "model"), tmp_path / "model.onnx", fp16=fp16)
    assert ("--fp16" in str(raised.value)) == (not fp16)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_that_differs_from_the_model_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(BundleError, match=r"model.onnx: not written, because its probabilities differ .* by \d"):
        export(plain(tmp_path / "model"), tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_existing_folder_is_not_overwritten(tmp_path):
    with pytest.raises(SpectagError, match="is a folder, but the exported model is one file"):
        export(plain(tmp_path / "model"), tmp_path / "model")


def test_without_the_package_onnx_the_error_names_the_extra(tmp_path):
    done = run_without(["onnx"], "export", plain(tmp_path / "model"), "-o", tmp_path / "model.onnx")
    assert done.status == 1
    assert done.err.strip().endswith("spectag: exporting a model needs the package onnx: pip install 'spectag[export]'")


# ------------------------------------------------------------------------------------------------------ the command


def test_command_prints_size_inputs_outputs_difference_and_an_example(run, tmp_path):
    done = run("export", with_windows(tmp_path / "model"), "-o", tmp_path / "new folder" / "mödel.onnx")
    assert done.status == 0, done.err
    n_bytes = (tmp_path / "new folder" / "mödel.onnx").stat().st_size
    assert f"mödel.onnx: {n_bytes / 1e6:.1f} MB, opset 18" in done.out
    assert "input   waveform       float32 (batch, samples), mono at 16000 Hz" in done.out
    assert "output  novelty        float32 (batch)" in done.out
    assert "largest difference in probability from the model: " in done.out
    assert "on sounds of 0.3, 1, 3.3, 10, 1.03 s" in done.out


def test_command_prints_json(run, tmp_path):
    done = run("export", plain(tmp_path / "model"), "-o", tmp_path / "model.onnx", "--max-seconds", 1, "--json")
    values = json.loads(done.out)
    assert values["inputs"] == {"waveform": [1, 16_000]}
    assert values["outputs"] == {"probabilities": [1, 3], "embedding": [1, 24]}
    assert values["checked_seconds"] == [1.0]
    assert values["largest_difference"] < 1e-5


@pytest.mark.parametrize("channel", ["mix", "loudest", 1, 2])
def test_metadata_and_example_have_the_channel_of_the_tagger(tmp_path, channel):
    tagger = Tagger(plain(tmp_path / "model"), channel=channel)
    exported = export(tagger, tmp_path / "model.onnx")
    metadata = session(tmp_path / "model.onnx").get_modelmeta().custom_metadata_map
    assert (metadata["channel"], exported.channel) == (str(channel), channel)
    left = 0.4 + 0.1 * tone("high", 0.5)  # an offset does not make a channel loud
    soundfile.write(tmp_path / "sound.wav", np.stack([left, 0.8 * tone("low", 0.5)], axis=1), RATE, subtype="PCM_16")
    assert f"# channel {channel}" in exported.example()
    done = subprocess.run(
        [sys.executable, "-c", exported.example()], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in done.stdout.splitlines()}
    expected = {tag.label: tag.probability for tag in tagger.tag(tmp_path / "sound.wav").top(3)}
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("options", [(), ("--max-seconds", "0.5")])
def test_printed_example_runs_with_onnxruntime_and_numpy_alone(run, tmp_path, options):
    done = run("export", plain(tmp_path / "model"), "-o", tmp_path / "model.onnx", *options)
    code = done.out.partition("alone:\n\n")[2]
    assert len(code.strip().splitlines()) <= 17
    waveform = np.round(tone("high", 0.5) * 32768).astype(np.int16)
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(waveform.tobytes())
    script = "import sys\nsys.modules.update(dict.fromkeys(['spectag', 'scipy', 'torch', 'onnx']))\n" + code
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    expected = Tagger(tmp_path / "model").tag(tmp_path / "sound.wav").top(3)
    assert [line.rpartition(" ")[0] for line in printed] == [tag.label for tag in expected]
    assert [float(line.rpartition(" ")[2]) for line in printed] == pytest.approx(
        [tag.probability for tag in expected], abs=1e-6
    )


@pytest.mark.parametrize(("rate", "n_bytes"), [(RATE // 2, 2), (RATE, 3)])
def test_printed_example_stops_at_a_sound_with_another_sample_rate_or_sample_size(tmp_path, rate, n_bytes):
    exported = export(plain(tmp_path / "model"), tmp_path / "model.onnx")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, n_bytes, rate, 0, "NONE", ""))
        file.writeframes(bytes(n_bytes * rate))
    done = subprocess.run(
        [sys.executable, "-c", exported.example()], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"sound.wav has {rate} Hz and {8 * n_bytes} bits, but {RATE} Hz and 16 bits are needed" in done.stderr
    assert f"ffmpeg -i sound.wav -ar {RATE} -c:a pcm_s16le converted.wav" in done.stderr
    assert "Traceback" not in done.stderr


def test_example_of_the_guide_resamples_as_the_model_does(tmp_path):
    """The first example in Python of the guide, with a sound at 22.05 kHz."""
    guide = PROJECT / "docs" / "how-to" / "export-a-model.md"
    code = next(block.code for block in blocks(guide) if block.language == "python")
    export(plain(tmp_path / "model"), tmp_path / "model.onnx")
    sound = tmp_path / "field" / "scene_0001.wav"
    sound.parent.mkdir()
    soundfile.write(sound, 0.5 * np.sin(2 * np.pi * 1500 * np.arange(22_050) / 22_050), 22_050)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in done.stdout.splitlines()}
    expected = {tag.label: tag.probability for tag in Tagger(tmp_path / "model").tag(sound).top(3)}
    assert found == pytest.approx(expected, abs=1e-5)


def test_torch_is_not_imported(tmp_path):
    script = f"""
        import sys, spectag
        spectag.export({str(plain(tmp_path / "model"))!r}, {str(tmp_path / "model.onnx")!r})
        print("torch" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
