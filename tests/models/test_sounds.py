"""Taggers accept files and arrays, one or many: the same sound gives the same numbers, and errors say what to do."""

import threading
from functools import partial

import fsspec
import numpy as np
import pytest
import soundfile

from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.spectrogram_image import write_png
from spectag.config.base import ImageConfig, WindowConfig
from spectag.errors import AudioError, BundleError, ConfigError
from spectag.models.bundle import CARD_FILE
from spectag.models.tagger import Tagger
from spectag.tagging.parallel import tag

RATE = MEL.sample_rate
THRESHOLDS = (2e-4, 0.4, 0.004)  # which each tone reaches, and no other tone


@pytest.fixture
def model(tmp_path):
    info = make_info(window=WindowConfig(max_clip_seconds=2.0), thresholds=THRESHOLDS)
    return Tagger(make_bundle(tmp_path / "modell für töne", info))


@pytest.fixture
def files(tmp_path):
    """Two sounds and, between them, a file that is none."""
    for name, label, seconds in (("a b.wav", "low", 1.0), ("ü.wav", "high", 5.5)):
        write_audio(tmp_path / name, tone(label, seconds), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF but no sound")
    return [tmp_path / name for name in ("a b.wav", "broken.wav", "ü.wav")]


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("rate", [RATE, 44_100])
@pytest.mark.parametrize("seconds", [0.7, 5.3])  # one part, and three
def test_array_gives_the_numbers_of_the_file(model, tmp_path, rng, dtype, n_channels, rate, seconds):
    noise = rng.uniform(-0.3, 0.3, (round(seconds * rate), n_channels)) * [[1.0, 0.2][:n_channels]]
    noise[:, 0] += tone("low", seconds, rate)
    array = noise.astype(dtype) if dtype.startswith("f") else (noise * np.iinfo(dtype).max).astype(dtype)
    subtype = {"int16": "PCM_16", "int32": "PCM_32", "float32": "FLOAT", "float64": "DOUBLE"}[dtype]
    path = tmp_path / "a.wav"
    soundfile.write(path, array, rate, subtype=subtype)
    array = array[:, 0] if n_channels == 1 else array
    of_array, of_file = model.tag(array, sample_rate=rate), model.tag(path)
    assert np.array_equal(of_array.probabilities, of_file.probabilities)
    assert of_array.end_seconds == of_file.end_seconds
    assert (of_array.path, of_file.path) == (None, path)
    assert np.array_equal(model.embed(array, rate), model.embed(path))
    assert np.array_equal(model.embed(array, rate, window=0.5), model.embed(path, window=0.5))
    assert model.segments(array, rate).detections == model.segments(path).detections
    of_windows = [tags.probabilities for tags in model.tag_windows(array, 0.5, sample_rate=rate)]
    assert np.array_equal(of_windows, [tags.probabilities for tags in model.tag_windows(path, 0.5)])


def test_result_of_soundfile_can_be_given_as_it_is(model, files):
    assert np.array_equal(model.tag(*soundfile.read(files[0])).probabilities, model.tag(str(files[0])).probabilities)


@pytest.mark.parametrize("channel", ["mix", "loudest", 2])
def test_channel_of_an_array_is_that_of_the_tagger(model, channel):
    stereo = np.stack([tone("low", 1.0), 2 * tone("high", 1.0)], axis=1)
    tags = model.with_channel(channel).tag(stereo, RATE)
    assert [label for label, _ in tags] == (["high", "low"] if channel == "mix" else ["high"])


def test_many_sounds_give_results_and_errors_in_order(model, files):
    results = list(model.tag_many([*files, tone("middle", 1.0), np.full(RATE, np.nan)], sample_rate=RATE))
    assert [type(result).__name__ for result in results] == ["Tags", "AudioError", "Tags", "Tags", "AudioError"]
    assert [results[index][0].label for index in (0, 2, 3)] == ["low", "high", "middle"]
    assert str(files[1]) in str(results[1])
    assert str(results[4]).startswith("sound 4: the sample at 0 s is nan")


def test_many_sounds_give_the_numbers_of_the_command_and_of_single_sounds(model, files):
    of_many = [result.probabilities for result in model.tag_many([files[0], files[2]])]
    of_command = [tagged.timeline.probabilities[0] for tagged in tag(model, [files[0], files[2]])]
    assert np.array_equal(of_many, of_command)
    assert np.array_equal(of_many, [model.tag(files[0]).probabilities, model.tag(files[2]).probabilities])


def test_pairs_have_their_own_sample_rate(model):
    pairs = [(tone("low", 1.0, rate), rate) for rate in (8_000, 16_000, 44_100)]
    assert [tags[0].label for tags in model.tag_many(pairs)] == ["low"] * 3


def test_folder_gives_its_sounds(model, files):
    (files[0].parent / "sub").mkdir()
    write_audio(files[0].parent / "sub" / "c.wav", tone("low", 1.0), RATE)
    names = [getattr(result, "path", None) for result in model.tag_many(str(files[0].parent))]
    assert names == [files[0], None, files[0].parent / "sub" / "c.wav", files[2]]


def test_sounds_are_taken_when_they_are_needed(model):
    """A generator of a million arrays must not be in memory at once."""
    taken = []

    def sounds():
        for number in range(1_000):
            taken.append(number)
            yield tone("low", 0.1)

    results = model.tag_many(sounds(), RATE, workers=2)
    next(results)
    assert len(taken) < 20
    n_threads = threading.active_count()
    results.close()
    assert threading.active_count() < n_threads


def test_url_is_the_path_of_its_tags(model, files):
    """The temporary copy of the file is gone when a person reads the result."""
    fsspec.filesystem("memory").pipe("/sounds/a.wav", files[0].read_bytes())
    url = "memory://sounds/a.wav"
    tags, [of_many], segments = model.tag(url), model.tag_many([url]), model.segments(url)
    assert tags.path == of_many.path == segments.path == next(model.tag_windows(url, 0.5)).path == url
    assert tags.name == url
    assert np.array_equal(tags.probabilities, model.tag(files[0]).probabilities)
    assert '<img src="data:image/jpeg' in tags._repr_html_()


def test_progress_counts_the_sounds(model, files):
    steps = []
    list(model.tag_many(files, progress=lambda *values: steps.append(values)))
    assert steps == [("tagging", 1, 3), ("tagging", 2, 3), ("tagging", 3, 3)]


def test_progress_of_segments_counts_the_seconds(model, files):
    steps = []
    model.segments(files[2], progress=lambda *values: steps.append(values))
    assert steps[-1] == ("seconds", 6, 6)
    assert [n_done for _, n_done, _ in steps] == sorted(n_done for _, n_done, _ in steps)


def test_damaged_model_is_an_error_not_a_result(model, files):
    (model.folder / "model.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        list(model.tag_many([files[0]]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.tag(np.zeros(9)), "no sample rate of its own; add it, such as sample_rate=48_000"),
        (lambda model: model.tag("a.wav", 48_000), "a file has its own sample rate; leave out sample_rate=48000"),
        (lambda model: list(model.tag_many([np.zeros(9)])), "sound 0: an array has no sample rate of its own"),
        (lambda model: list(model.tag_many(np.zeros(9), RATE)), r"use tag for a single sound, or put it in a list"),
        (lambda model: list(model.tag_many(7)), "expected paths or arrays, such as a list, got int"),
        (lambda model: list(model.tag_many("no/folder")), "no/folder: no such file or folder"),
        (lambda model: model.tag(None), "need a path, or samples"),
    ],
)
def test_wrong_call_is_an_audio_error_with_a_way_out(model, call, message):
    with pytest.raises(AudioError, match=message):
        call(model)


@pytest.mark.parametrize("window", ["long", -1.0, 0, float("nan")])
def test_wrong_window_is_a_config_error(model, window):
    with pytest.raises(ConfigError, match="window_seconds"):
        model.embed(np.zeros(RATE), RATE, window=window)


@pytest.mark.parametrize("least", [5, -0.1, float("nan"), "high"])
def test_wrong_minimum_confidence_of_segments_is_a_config_error(model, least):
    with pytest.raises(ConfigError, match="segments: min_confidence: expected a"):
        model.segments(np.zeros(RATE), RATE, min_confidence=least)


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_a_config_error(model, files, workers):
    message = f"workers must be 1 or more, got {workers}; leave it out to use all cores"
    for function in (model.tag_many, partial(tag, model)):
        with pytest.raises(ConfigError, match=message):
            list(function(files, workers=workers))


def test_segments_are_those_of_the_command(model, tmp_path, run):
    sound = np.concatenate([tone("low", 3.0), tone("high", 2.0), tone("low", 2.0)])
    write_audio(tmp_path / "day.wav", sound, RATE)
    segments = model.segments(tmp_path / "day.wav")
    done = run("tag", model.folder, tmp_path / "day.wav", "--segments")
    rows = [line.split(",") for line in done.out.splitlines()[1:]]
    assert [(label, f"{start:.3f}", f"{end:.3f}", f"{value:.6f}") for label, start, end, value in segments] == [
        (label, start, end, value) for _, start, end, label, value in rows
    ]
    assert [label for label, *_ in segments] == ["low", "high", "low"]
    assert segments.to_dataframe().file.tolist() == [str(tmp_path / "day.wav")] * 3


def test_segments_with_a_minimum_confidence_have_it(model):
    sound = np.concatenate([tone("low", 3.0), tone("high", 3.0), tone("middle", 3.0)])
    found = [{label for label, *_ in model.segments(sound, RATE, min_confidence=least)} for least in (1e-4, 0.01, 0.5)]
    assert found == [{"low", "middle", "high"}, {"middle", "high"}, {"middle"}]


def test_features_are_the_network_output_of_the_whole_sound_or_of_each_window(model, files):
    features = model.embed(files[0])
    assert features.shape == (MEL.n_mels,)
    assert np.array_equal(features, model.outputs(soundfile.read(files[0], dtype="float32")[0], RATE).features)
    assert model.embed(files[2], window=1.0).shape == (6, MEL.n_mels)
    assert model.embed(files[2], window=WindowConfig(window_seconds=1.0, overlap_seconds=0.5)).shape == (10, MEL.n_mels)


def test_image_gives_tags_and_features(tmp_path):
    info = make_info(front_end=FrontEnd(mel=MEL, image=ImageConfig()))
    model = Tagger(make_bundle(tmp_path / "images", info))
    image = np.zeros((MEL.n_mels, 40), np.uint8)
    image[-3:] = 255
    write_png(tmp_path / "a.png", image, low=0, high=1)
    [tags] = model.tag_many([tmp_path / "a.png"])
    assert tags.top(1)[0].label == "low"
    assert tags.end_seconds is None
    assert "img" not in tags._repr_html_()
    assert model.embed(tmp_path / "a.png").shape == (MEL.n_mels,)


def test_model_describes_itself(model):
    assert list(model.labels) == list(LABELS)
    assert "low" in model.labels
    assert model.labels[1] == "middle"
    assert model.sample_rate == RATE
    assert repr(model.labels) == "LabelSet('low', 'middle', 'high')"
    assert "A tagger for 3 kinds of sound" in model.card
    (model.folder / CARD_FILE).write_text("# Meine Töne\n", encoding="utf-8")
    assert model.card == "# Meine Töne\n"
