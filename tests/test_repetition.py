"""The same seed gives the same bytes, and every way to tag a sound gives the same probabilities."""

import csv
import importlib.util
import json

import numpy as np
import onnxruntime
import pytest
import soundfile
from benchmarks.kills import FINETUNE, RATE, SMALL, differences, make_sounds, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.bundles import LABELS, MEL, make_bundle, tone
from helpers.command import start, write_tones
from spectag import Tagger
from spectag.audio.files import write_audio
from spectag.audio.mel import compute_log_mel
from spectag.config.base import MelConfig, WindowConfig
from spectag.errors import AudioError
from spectag.models.bundle import INFO_FILE, ONNX_FILE

ACROSS_BATCH_SIZES = 1e-5
"""Largest difference in probability between a clip alone and in a batch: onnxruntime adds in another order."""
DIGITS = 4
"""Digits of a probability in the tables of spectag tag, except those of the formats wide."""


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repetition") / "data"
    make_sounds(folder)
    return folder


def assert_same(found, expected):
    """The same files with the same bytes, apart from the locks of the processes that use the cache."""
    found, expected = (
        {name: content for name, content in files.items() if "/in-use/" not in name} for files in (found, expected)
    )
    assert differences(found, expected) == []


# ------------------------------------------------------------------------------------------------------- the same seed


def test_same_seed_gives_the_same_split_and_another_seed_another(sounds, run, tmp_path):
    tables = []
    for number, seed in enumerate((3, 3, 4)):
        path = tmp_path / f"{number}.csv"
        assert run("split", sounds / "clips.csv", "--folds", "3", "--seed", seed, "-o", path).status == 0
        tables.append(path.read_bytes())
    assert tables[0] == tables[1] != tables[2]


@pytest.mark.slow
@pytest.mark.parametrize("options", [f"--folds 2 {SMALL}", FINETUNE], ids=["frozen", "fine-tuned"])
def test_same_seed_gives_the_same_model_even_with_an_empty_cache(sounds, run, tmp_path, monkeypatch, options):
    """Not compared are the columns clips_per_second and seconds_left of epochs.csv."""
    for name in ("first", "second"):
        monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / name / "cache"))
        done = run("train", sounds / "clips.csv", "-o", tmp_path / name / "model", "--seed", "5", *options.split())
        assert done.status == 0, done.err
    assert_same(tree(tmp_path / "second"), tree(tmp_path / "first"))


@pytest.mark.slow
def test_another_seed_gives_another_fine_tuned_model(sounds, run, tmp_path):
    for seed in (0, 1):
        run("train", sounds / "clips.csv", "-o", tmp_path / str(seed), "--seed", seed, *FINETUNE.split())
    first, second = ((tmp_path / str(seed) / "weights.safetensors").read_bytes() for seed in (0, 1))
    assert first != second


# ------------------------------------------------------------------------------------------- workers, batches, engines


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("repetition") / "model")


@pytest.mark.parametrize(
    "arguments",
    [
        "tag {model} {sounds} --window 0.1 --format csv,jsonl,parquet,wide,raven,audacity -o {out}/tags",
        pytest.param("index {sounds} --model {model} --window 0.1 -o {out}/index", marks=pytest.mark.slow),
        pytest.param("evaluate {model} {manifest} --no-report -o {out}/evaluation", marks=pytest.mark.slow),
        pytest.param("prepare {manifest} --backbone scratch --cache {out}/cache", marks=pytest.mark.slow),
    ],
    ids=lambda arguments: arguments.split()[0],
)
def test_number_of_workers_does_not_change_a_byte(model, run, tmp_path, arguments):
    write_tones(tmp_path / "sounds", 9)
    rows = [f"{path.name},{path.name.split()[0]}" for path in sorted((tmp_path / "sounds").iterdir())]
    (tmp_path / "sounds.csv").write_text("\n".join(["fname,labels", *rows]), encoding="utf-8")
    names = {"model": model, "sounds": tmp_path / "sounds", "manifest": tmp_path / "sounds.csv"}
    for workers in (1, 3):
        out = tmp_path / str(workers)
        words = [word.format(out=out, **names) for word in arguments.split()]
        if words[0] in ("evaluate", "prepare"):
            words += ["--audio-dir", str(tmp_path / "sounds")]
        assert run(*words, "-j", workers).status == 0
    assert_same(tree(tmp_path / "3"), tree(tmp_path / "1"))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
@pytest.mark.filterwarnings("ignore:::ray")
def test_ray_and_local_engine_write_the_same_bytes(model, tmp_path):
    write_tones(tmp_path / "sounds", 5)
    for engine in ("local", "ray"):
        done = start(
            "tag", model, tmp_path / "sounds", "--engine", engine, "--format", "wide,csv", "-o", tmp_path / engine
        )
        _, err = done.communicate()
        assert done.returncode == 0, err
    assert_same(tree(tmp_path / "ray"), tree(tmp_path / "local"))


# --------------------------------------------------------------------------------------------- the same probabilities


def direct_inputs(bundle, path):
    """The input of model.onnx, as docs/reference/bundle.md describes it: with front_end of spectag.json."""
    mel = MelConfig(**json.loads((bundle / INFO_FILE).read_text(encoding="utf-8"))["front_end"]["mel"])
    waveform, sample_rate = soundfile.read(path, dtype="float32")
    assert sample_rate == mel.sample_rate
    return compute_log_mel(waveform, mel)[None, None]


def run_network(bundle, inputs):
    session = onnxruntime.InferenceSession(bundle / ONNX_FILE, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"inputs": inputs})[0]


def check_every_way(bundle, folder, names, run):
    """Python, the command in its formats, a waveform, and onnxruntime by itself, one by one and in a batch of 16."""
    tagger = Tagger(bundle)
    labels = tagger.labels.names
    expected = np.stack([tagger.tag(folder / name).probabilities for name in names])

    by_waveform = [tagger.probabilities(*soundfile.read(folder / name, dtype="float32")) for name in names]
    np.testing.assert_array_equal(by_waveform, expected)

    inputs = np.concatenate([direct_inputs(bundle, folder / name) for name in names])
    one_by_one = [run_network(bundle, inputs[index : index + 1])[0] for index in range(len(names))]
    np.testing.assert_array_equal(one_by_one, expected)
    batch = run_network(bundle, np.resize(inputs, (16, *inputs.shape[1:])))
    np.testing.assert_allclose(batch[: len(names)], expected, rtol=0, atol=ACROSS_BATCH_SIZES)

    paths = [folder / name for name in names]
    wide = list(csv.DictReader(run("tag", bundle, *paths, "--format", "wide").out.splitlines()))
    np.testing.assert_array_equal([[np.float32(row[label]) for label in labels] for row in wide], expected)
    table = csv.DictReader(run("tag", bundle, *paths, "--top", len(labels)).out.splitlines())
    by_command = {(row["file"], row["label"]): float(row["probability"]) for row in table}
    for path, probabilities in zip(paths, expected, strict=True):
        for label, probability in zip(labels, probabilities, strict=True):
            assert by_command[str(path), label] == pytest.approx(probability, abs=0.5 * 10**-DIGITS + 1e-9)


def test_python_command_and_onnxruntime_give_the_same_probabilities(model, run, tmp_path):
    for label in LABELS:
        write_audio(tmp_path / f"{label}.wav", tone(label, 0.5), MEL.sample_rate)
    check_every_way(model, tmp_path, [f"{label}.wav" for label in LABELS], run)


@pytest.mark.slow
def test_a_trained_model_gives_the_same_probabilities_in_every_way(sounds, run, tmp_path):
    trained = tmp_path / "model"
    assert run("train", sounds / "clips.csv", "-o", trained, "--folds", "2", *SMALL.split()).status == 0
    times = np.arange(RATE) / RATE
    for number in range(3):
        write_audio(tmp_path / f"{number}.wav", 0.3 * np.sin(900 * 2**number * times).astype(np.float32), RATE)
    check_every_way(trained, tmp_path, [f"{number}.wav" for number in range(3)], run)


# -------------------------------------------------------------------------------------------------------- any sound

AMPLITUDES = (0.0, 1e-45, 1e-40, 1.2e-38, 1e-20, 1e-6, 0.1, 1.0)
"""From silence and denormal numbers to full scale."""


@st.composite
def recordings(draw):
    """Sample rate, samples of shape (n_samples, n_channels), and the encoding of the file."""
    rate = draw(st.one_of(st.integers(100, 400_000), st.sampled_from([100, 8000, 44_100, 192_000, 400_000])))
    n_channels = draw(st.integers(1, 6))
    n_samples = draw(st.one_of(st.integers(1, 40), st.integers(1, 3 * min(rate, 50_000)), st.just(3 * rate)))
    amplitudes = draw(st.lists(st.sampled_from(AMPLITUDES), min_size=n_channels, max_size=n_channels))
    kind = draw(st.sampled_from(["noise", "square", "impulse", "constant"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    samples = {
        "noise": rng.uniform(-1, 1, (n_samples, n_channels)),
        "square": np.where(np.arange(n_samples)[:, None] // 7 % 2, 1.0, -1.0).repeat(n_channels, axis=1),
        "impulse": (np.arange(n_samples) == n_samples // 2)[:, None].repeat(n_channels, axis=1).astype(float),
        "constant": np.ones((n_samples, n_channels)),
    }[kind]
    return rate, (samples * amplitudes).astype(np.float32), draw(st.sampled_from(["FLOAT", "PCM_16", "DOUBLE"]))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(recording=recordings(), window=st.sampled_from([0.01, 0.5, 10.0]))
def test_any_rate_length_channels_and_amplitude_give_finite_probabilities_or_an_error_that_names_the_file(
    model, tmp_path, recording, window
):
    rate, samples, subtype = recording
    path = tmp_path / "sound.wav"
    soundfile.write(path, samples, rate, subtype=subtype)
    tagger = Tagger(model)
    message = None
    try:
        whole = tagger.tag(path).probabilities[None]
        windows = [tags.probabilities for tags in tagger.tag_windows(path, WindowConfig(window_seconds=window))]
    except AudioError as error:
        message = str(error)
    if message is not None:
        assert str(path) in message
        assert "\n" not in message
        return
    for probabilities in (whole, np.stack(windows)):
        assert probabilities.shape[1:] == (len(LABELS),)
        assert np.isfinite(probabilities).all()
        assert ((probabilities >= 0) & (probabilities <= 1)).all()
    n_in_window = np.ceil(window * rate)  # a window of 1.5 samples has two
    assert len(windows) == 1 or len(windows) >= len(samples) / n_in_window - 1
