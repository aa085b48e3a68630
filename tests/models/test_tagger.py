import json
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit

from helpers.bundles import (
    LABELS,
    MEL,
    MEL_32K,
    make_bundle,
    make_ensemble,
    make_ensemble_info,
    make_info,
    tone,
    write_network,
)
from spectag.audio import front_end as front_end_module
from spectag.audio.files import audio_info, read_audio, resample, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image, write_png
from spectag.config.base import ImageConfig, WindowConfig
from spectag.data.labels import LabelSet
from spectag.errors import AudioError, BundleError, ConfigError, DataError
from spectag.models import network_session
from spectag.models import tagger_networks as networks_module
from spectag.models.bundle import INFO_FILE, ONNX_FILE, WindowThresholds
from spectag.models.network_session import open_session
from spectag.models.novelty import NoveltyInfo
from spectag.models.tagger import Tagger
from spectag.models.tags import Tag, Tags
from spectag.models.timeline import pool_logits
from spectag.scoring.calibration import Calibration
from spectag.scoring.calibration_curves import linear_curve

RATE = MEL.sample_rate


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "modell für töne"))


@pytest.fixture
def image_tagger(tmp_path):
    info = make_info(front_end=FrontEnd(mel=MEL, image=ImageConfig()))
    return Tagger(make_bundle(tmp_path / "images", info))


def write(path, waveform, sample_rate=RATE):
    write_audio(path, waveform, sample_rate)
    return path


def make_tags(probabilities, thresholds):
    labels = LabelSet(tuple("abcdefgh"[: len(probabilities)]))
    return Tags(None, 0.0, 1.0, labels, np.array(probabilities, np.float32), np.array(thresholds, np.float32))


# ------------------------------------------------------------------------------------------------ whole recordings


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_sound_gets_its_label(tagger, tmp_path, label, sample_rate):
    tags = tagger.tag(write(tmp_path / "tön 1.wav", tone(label, 0.5, sample_rate), sample_rate))
    assert tags.top(1)[0].label == label
    assert tags.path == tmp_path / "tön 1.wav"
    assert (tags.start_seconds, tags.end_seconds) == (0.0, 0.5)


def test_probabilities_of_a_file_equal_those_of_its_waveform_at_any_rate(tagger, tmp_path):
    path = write(tmp_path / "a.wav", tone("middle", 0.7, 44_100), 44_100)
    waveform, sample_rate = read_audio(path)
    probabilities = tagger.tag(path).probabilities
    assert probabilities.dtype == np.float32
    assert np.array_equal(probabilities, tagger.probabilities(waveform, sample_rate))
    assert np.array_equal(probabilities, tagger.probabilities(resample(waveform, 44_100, RATE), RATE))


def test_recording_up_to_the_maximum_length_is_tagged_as_a_whole(tmp_path, rng):
    waveform = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    path = write(tmp_path / "a.wav", waveform)
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    assert np.array_equal(tagger.tag(path).probabilities, tagger.probabilities(read_audio(path)[0], RATE))


def test_longer_recording_gets_the_mean_odds_of_its_parts(tmp_path):
    """The last part ends with the recording; half of its overlap counts for each of the two parts."""
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    path = write(tmp_path / "a.wav", np.concatenate([tone("low", 1.0), tone("middle", 1.0), tone("high", 0.5)]))
    waveform = read_audio(path)[0]
    parts = [waveform[:RATE], waveform[RATE : 2 * RATE], waveform[-RATE:]]
    odds = np.exp([tagger.outputs(part, RATE).logits.astype(float) for part in parts])
    mean = np.average(odds, axis=0, weights=[1.0, 0.75, 0.75])
    tags = tagger.tag(path)
    assert tags.probabilities == pytest.approx(mean / (1 + mean), abs=1e-6)
    assert tags.probabilities.dtype == np.float32
    assert (tags.start_seconds, tags.end_seconds) == (0.0, 2.5)
    assert np.array_equal(tagger.probabilities(waveform, RATE), tags.probabilities)


@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_excerpt_in_parts_is_tagged_like_a_file_of_its_own(tmp_path, rate):
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    waveform = np.concatenate([tone("low", 1.25, rate), tone("high", 1.25, rate)])
    path = write(tmp_path / "a.wav", waveform, rate)
    tags = tagger.tag(path, start_seconds=0.5, end_seconds=2.0)
    own = tagger.tag(write(tmp_path / "own.wav", read_audio(path, start_seconds=0.5, end_seconds=2.0)[0], rate))
    assert np.array_equal(tags.probabilities, own.probabilities)
    assert (tags.start_seconds, tags.end_seconds) == (0.5, 2.0)


def test_parts_are_pooled_before_calibration(tmp_path):
    """As in training: the calibration is fitted on logits of whole clips."""
    curves = (linear_curve(0.1, 1.0), linear_curve(0.2, -1.0), linear_curve(1.0, 0.0))
    calibration = Calibration(method="platt", curves=curves)
    info = make_info(window=WindowConfig(max_clip_seconds=1.0), calibration=calibration)
    tagger = Tagger(make_bundle(tmp_path / "m", info))
    parts = [tone("low", 1.0), tone("middle", 1.0)]
    outputs = tagger.outputs(np.concatenate(parts), RATE)
    expected = pool_logits([tagger.outputs(part, RATE).logits for part in parts], [1.0, 1.0])
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-5)
    assert outputs.probabilities == pytest.approx(expit(expected * [0.1, 0.2, 1.0] + [1.0, -1.0, 0.0]), abs=1e-6)


def test_last_moment_is_tagged_with_the_part_before_it(tmp_path):
    """Not as a part of its own, for which a network may predict anything."""
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    path = write(tmp_path / "a.wav", np.concatenate([tone("low", 1.0), tone("high", 0.01)]))
    with tagger.open_windows(path) as parts:
        assert [(part.start_seconds, part.end_seconds) for part in parts] == [(0.0, 1.0), (0.01, 1.01)]
    assert tagger.tag(path).top(1)[0].label == "low"


def test_threads_open_a_network_only_once(tagger, monkeypatch):
    opened = []

    def open_slowly(path, *, n_threads, device):
        opened.append(path)
        time.sleep(0.05)  # so that the other threads need it, too
        return open_session(path, n_threads=n_threads, device=device)

    monkeypatch.setattr(network_session, "open_session", open_slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tagger.probabilities, [np.zeros(RATE, np.float32)] * 4, [RATE] * 4))
    assert len(opened) == 1


def test_probabilities_do_not_depend_on_the_number_of_threads(tagger, rng):
    waveform = rng.standard_normal(3 * RATE).astype(np.float32)
    several = Tagger(tagger.folder, n_threads=3)
    assert several.probabilities(waveform, RATE) == pytest.approx(tagger.probabilities(waveform, RATE), abs=1e-6)


@pytest.mark.parametrize("n_samples", [1, 2, 100])
def test_very_short_sounds_are_tagged(tagger, tmp_path, n_samples):
    path = write(tmp_path / "a.wav", np.full(n_samples, 0.5, np.float32), 48_000)
    assert np.isfinite(tagger.tag(path).probabilities).all()


# ------------------------------------------------------------------------------------------------ windows


def test_windows_cover_the_recording_and_each_gets_its_own_probabilities(tagger, tmp_path):
    path = write(tmp_path / "a.wav", np.concatenate([tone(label, 0.5) for label in LABELS] + [tone("low", 0.3)]))
    windows = list(tagger.tag_windows(path, WindowConfig(window_seconds=0.5)))
    assert [(tags.start_seconds, tags.end_seconds) for tags in windows] == [
        (0.0, 0.5),
        (0.5, 1.0),
        (1.0, 1.5),
        (pytest.approx(1.3), pytest.approx(1.8)),  # as long as the others, up to the end of the recording
    ]
    assert [tags.top(1)[0].label for tags in windows] == [*LABELS, "low"]
    waveform = read_audio(path)[0]
    for tags in windows:
        excerpt = waveform[round(tags.start_seconds * RATE) : round(tags.end_seconds * RATE)]
        assert np.array_equal(tags.probabilities, tagger.probabilities(excerpt, RATE))


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("n_samples", [1, 7_999, 8_000, 8_001, 20_011])
@pytest.mark.parametrize(("window", "overlap"), [(0.5, 0.0), (0.5, 0.3), (0.3, 0.299), (9.0, 1.0)])
def test_windows_miss_at_most_a_tenth_of_a_step(tagger, tmp_path, sample_rate, n_samples, window, overlap):
    path = write(tmp_path / "a.wav", np.full(n_samples, 0.1, np.float32), sample_rate)
    config = WindowConfig(window_seconds=window, overlap_seconds=overlap)
    windows = list(tagger.tag_windows(path, config))
    starts = [tags.start_seconds for tags in windows]
    assert starts[0] == 0
    assert np.diff(starts)[:-1] == pytest.approx(window - overlap, abs=1 / sample_rate)
    assert (np.diff(starts)[-1:] <= window - overlap + 1 / sample_rate).all()
    missed = n_samples / sample_rate - windows[-1].end_seconds
    assert 0 <= missed < max(0.1 * (window - overlap), 1e-9)
    lengths = [tags.end_seconds - tags.start_seconds for tags in windows]
    assert lengths == pytest.approx([min(window, n_samples / sample_rate)] * len(windows), abs=1 / sample_rate)


def test_windows_end_with_the_sound_even_if_its_header_is_wrong(tagger, tmp_path):
    path = write(tmp_path / "a.mp3", tone("high", 4.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 8])  # 1.5 s of 4 s
    assert audio_info(path).duration_seconds > 3
    windows = list(tagger.tag_windows(path, WindowConfig(window_seconds=1.0)))
    duration = len(read_audio(path)[0]) / RATE
    assert 1 < duration < 1.6
    assert [tags.start_seconds for tags in windows] == [0.0, pytest.approx(duration - 1.0)]
    assert [tags.top(1)[0].label for tags in windows] == ["high", "high"]


def test_window_needs_a_length(tagger, tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(ConfigError, match="need the length of a window"):
        next(tagger.tag_windows(path, WindowConfig()))
    for function in (tagger.segments, tagger.embed):
        with pytest.raises(ConfigError, match="need the length of a window"):
            function(path, window=WindowConfig())


# ------------------------------------------------------------------------------------------------ tags


def test_top_tags_are_sorted_by_probability_then_by_label_order():
    tags = make_tags([0.25, 0.75, 0.25, 1.0], [0.5] * 4)
    assert tags.top(3) == [Tag("d", 1.0), Tag("b", 0.75), Tag("a", 0.25)]
    assert [tag.label for tag in tags.top(10)] == ["d", "b", "a", "c"]
    assert tags.top(0) == []


def test_labels_above_their_thresholds_are_sorted_by_probability():
    tags = make_tags([0.25, 0.75, 0.5, 0.5], [0.2, 0.8, 0.5, 0.51])
    assert [tag.label for tag in tags.above_threshold()] == ["c", "a"]


def test_one_threshold_can_be_used_for_all_labels():
    tags = make_tags([0.25, 0.75, 0.5, 0.5], [0.2, 0.8, 0.5, 0.51])
    assert [tag.label for tag in tags.above_threshold(0.5)] == ["b", "c", "d"]
    assert tags.above_threshold(0.9) == []
    assert len(tags.above_threshold(0.0)) == 4


# ------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("label", LABELS)
def test_sound_and_its_png_get_the_same_tags(image_tagger, tmp_path, label):
    sound = write(tmp_path / "a.wav", tone(label, 0.5))
    image, (low, high) = log_mel_to_image(compute_log_mel(read_audio(sound)[0], MEL), ImageConfig())
    write_png(tmp_path / "a.PNG", image, low=low, high=high)
    image_tags = image_tagger.tag(tmp_path / "a.PNG")
    assert np.array_equal(image_tags.probabilities, image_tagger.tag(sound).probabilities)
    assert image_tags.top(1)[0].label == label
    assert (image_tags.start_seconds, image_tags.end_seconds) == (0.0, None)


def test_tagger_for_other_images_cannot_tag_sounds(tmp_path):
    info = make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24, width=30)))
    tagger = Tagger(make_bundle(tmp_path / "m", info))
    with pytest.raises(DataError, match="can tag images but not sounds"):
        tagger.tag(write(tmp_path / "a.wav", tone("low", 0.5)))


def test_image_of_a_wrong_size_is_an_error(image_tagger, tmp_path):
    write_png(tmp_path / "a.png", np.zeros((10, 30), np.uint8), low=0, high=1)
    with pytest.raises(BundleError, match=r"model\.onnx: cannot process an input of shape \(1, 10, 30\): .+"):
        image_tagger.tag(tmp_path / "a.png")


def test_tagger_for_sounds_cannot_tag_images(tagger, tmp_path):
    with pytest.raises(DataError, match=r"a\.png: this tagger takes log-mel spectrograms, not images"):
        tagger.tag(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------ ensembles

FRONT_ENDS = (FrontEnd(mel=MEL), FrontEnd(mel=MEL_32K), FrontEnd(mel=MEL))
WEIGHTS, BIAS = (0.5, 0.25, 0.125), -0.75


@pytest.fixture
def ensemble(tmp_path):
    return Tagger(make_ensemble(tmp_path / "drei für töne", make_ensemble_info(FRONT_ENDS, WEIGHTS, BIAS)))


def combined(tagger, waveform, sample_rate):
    """The probabilities of an ensemble, computed network by network."""
    return combined_at_rates(tagger, lambda rate: resample(waveform, sample_rate, rate))


def combined_at_rates(tagger, waveform_at):
    weights = [member.weight for member in tagger.info.members]
    return expit(np.dot(weights, logits_of_networks(tagger, waveform_at)) + tagger.info.bias)


def logits_of_networks(tagger, waveform_at):
    logits = []
    for member in tagger.info.members:
        session = open_session(tagger.folder / member.folder / ONNX_FILE, n_threads=1)
        inputs = member.front_end.input_of_waveform(waveform_at(member.front_end.mel.sample_rate))
        logits.append(session.run(["logits"], {"inputs": inputs[None]})[0][0].astype(np.float64))
    return logits


@pytest.mark.parametrize("sample_rate", [16_000, 32_000, 44_100])
def test_ensemble_with_different_front_ends_combines_its_networks(ensemble, tmp_path, sample_rate):
    path = write(tmp_path / "a.wav", tone("middle", 0.7, sample_rate), sample_rate)
    waveform, sample_rate = read_audio(path)
    tags = ensemble.tag(path)
    assert tags.probabilities == pytest.approx(combined(ensemble, waveform, sample_rate), abs=1e-6)
    assert tags.top(1)[0].label == "middle"
    assert tags.probabilities.dtype == np.float32
    assert np.array_equal(tags.probabilities, ensemble.probabilities(waveform, sample_rate))


def test_ensemble_is_exact_even_if_the_probabilities_of_its_networks_are_0_or_1(tmp_path):
    front_ends = [FrontEnd(mel=MEL.model_copy(update={"mean": mean, "std": 0.1})) for mean in (-60.0, -50.0)]
    single = Tagger(make_bundle(tmp_path / "single", make_info(front_end=front_ends[0])))
    assert set(single.probabilities(tone("low", 0.5), RATE)) == {0.0, 1.0}
    tagger = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(front_ends, (0.0005, 0.0003), 0.5)))
    expected = combined(tagger, tone("low", 0.5), RATE)
    assert 0.01 < expected.min() < expected.max() < 0.99
    assert tagger.probabilities(tone("low", 0.5), RATE) == pytest.approx(expected, abs=1e-6)


def test_each_front_end_and_each_sample_rate_is_computed_once(tmp_path, monkeypatch):
    other = FrontEnd(mel=MEL.model_copy(update={"n_mels": 12}))
    ensemble = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info((*FRONT_ENDS, other), (*WEIGHTS, 0.5))))
    calls = {"log_mel": 0, "rate": []}
    compute_log_mel, resample = front_end_module.compute_log_mel, networks_module.resample

    def count_log_mels(*args):
        calls["log_mel"] += 1
        return compute_log_mel(*args)

    def count_rates(waveform, from_rate, to_rate):
        calls["rate"].append(to_rate)
        return resample(waveform, from_rate, to_rate)

    monkeypatch.setattr(front_end_module, "compute_log_mel", count_log_mels)
    monkeypatch.setattr(networks_module, "resample", count_rates)
    ensemble.probabilities(tone("low", 0.3, 44_100), 44_100)
    assert calls == {"log_mel": 3, "rate": [16_000, 32_000]}


def test_ensemble_tags_longer_recordings_in_parts(tmp_path):
    info = make_ensemble_info(FRONT_ENDS, WEIGHTS, BIAS).model_copy(
        update={"window": WindowConfig(max_clip_seconds=1.0)}
    )
    tagger = Tagger(make_ensemble(tmp_path / "m", info))
    path = write(tmp_path / "a.wav", np.concatenate([tone("low", 1.0), tone("high", 1.0)]))
    waveform = read_audio(path)[0]
    parts = [logits_of_networks(tagger, partial(resample, part, RATE)) for part in np.split(waveform, 2)]
    expected = expit(np.dot(WEIGHTS, pool_logits(parts, [1.0, 1.0])) + BIAS)
    assert tagger.tag(path).probabilities == pytest.approx(expected, abs=1e-6)


def test_windows_are_tagged_by_all_networks(ensemble, tmp_path):
    path = write(tmp_path / "a.wav", np.concatenate([tone(label, 0.5) for label in LABELS]))
    windows = list(ensemble.tag_windows(path, WindowConfig(window_seconds=0.5)))
    assert [tags.top(1)[0].label for tags in windows] == list(LABELS)
    whole = {rate: resample(read_audio(path)[0], RATE, rate) for rate in (RATE, 2 * RATE)}
    for number, tags in enumerate(windows):
        parts = {rate: np.split(waveform, 3)[number] for rate, waveform in whole.items()}
        assert tags.probabilities == pytest.approx(combined_at_rates(ensemble, parts.get), abs=1e-6)


def test_front_end_of_an_ensemble_is_that_of_its_first_network(ensemble):
    assert ensemble.front_end == FRONT_ENDS[0]
    assert ensemble.front_ends == FRONT_ENDS[:2]


def test_logits_of_inputs_are_those_of_the_waveform(ensemble):
    waveform = tone("low", 0.5, 2 * RATE)
    inputs = {
        front_end: front_end.input_of_waveform(resample(waveform, 2 * RATE, front_end.sample_rate))
        for front_end in ensemble.front_ends
    }
    logits = ensemble.logits_of_inputs(inputs)
    assert expit(logits) == pytest.approx(combined(ensemble, waveform, 2 * RATE), abs=1e-6)
    assert np.array_equal(logits, ensemble.outputs(waveform, 2 * RATE).logits)


def test_ensemble_for_images_tags_images(tmp_path):
    front_ends = [FrontEnd(mel=MEL, image=ImageConfig(height=height)) for height in (24, 48)]
    tagger = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(front_ends, (0.5, 0.25))))
    sound = write(tmp_path / "a.wav", tone("high", 0.5))
    image, (low, high) = log_mel_to_image(compute_log_mel(read_audio(sound)[0], MEL), ImageConfig())
    write_png(tmp_path / "a.png", image, low=low, high=high)
    image_tags = tagger.tag(tmp_path / "a.png")
    assert image_tags.top(1)[0].label == "high"
    assert image_tags.probabilities == pytest.approx(tagger.tag(sound).probabilities, abs=1e-2)  # resized twice


@pytest.mark.parametrize("order", [1, -1])
def test_ensemble_with_networks_for_sounds_cannot_tag_images(tmp_path, order):
    front_ends = [FrontEnd(mel=MEL, image=ImageConfig()), *FRONT_ENDS[:2]][::order]
    tagger = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(front_ends, WEIGHTS)))
    write_png(tmp_path / "a.png", np.zeros((24, 30), np.uint8), low=0, high=1)
    with pytest.raises(DataError, match=r"a\.png: 2 of the 3 networks of this tagger need log_mels, not images; give"):
        tagger.tag(tmp_path / "a.png")


def test_ensemble_for_sounds_cannot_tag_images(ensemble, tmp_path):
    with pytest.raises(DataError, match=r"a\.png: this tagger takes log-mel spectrograms, not images"):
        ensemble.tag(tmp_path / "a.png")


@pytest.mark.parametrize("missing", ["members/2", "members/3/model.onnx"])
def test_missing_network_is_an_error_when_the_bundle_is_opened(ensemble, missing):
    path = ensemble.folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BundleError, match=rf"{missing}.*: file is missing; the tagger needs all of its 3 networks"):
        Tagger(ensemble.folder)


def test_ensemble_can_be_sent_to_another_process(ensemble):
    expected = ensemble.probabilities(tone("low", 0.5), RATE)
    copied = pickle.loads(pickle.dumps(Tagger(ensemble.folder)))
    assert np.array_equal(copied.probabilities(tone("low", 0.5), RATE), expected)


def test_network_without_logits_can_tag(tagger, tmp_path):
    old = shutil.copytree(tagger.folder, tmp_path / "old")
    write_network(old / ONNX_FILE, top_is_low=True, with_logits=False)
    assert "members" not in json.loads((old / INFO_FILE).read_text(encoding="utf-8"))
    probabilities = Tagger(old).probabilities(tone("low", 0.5), RATE)
    assert np.array_equal(probabilities, tagger.probabilities(tone("low", 0.5), RATE))


# ------------------------------------------------------------------------------------------------ novelty


def with_novelty(folder, **changes):
    """A tagger whose single network computes novelty."""
    return Tagger(make_bundle(folder, make_info(novelty=NoveltyInfo(n_held_out=3), **changes)))


def novelty_of(tagger, waveform):
    """The novelty that the network of `make_bundle` computes."""
    outputs = tagger.outputs(waveform, RATE)
    return abs(outputs.features.max() - 2)


def test_tagger_without_novelty_has_none(tagger, tmp_path):
    assert not tagger.has_novelty
    assert tagger.tag(write(tmp_path / "a.wav", tone("low", 0.5))).novelty is None
    assert tagger.outputs(tone("low", 0.5), RATE).novelty is None


def test_tags_of_recordings_and_windows_have_their_novelty(tmp_path):
    tagger = with_novelty(tmp_path / "model")
    waveform = np.concatenate([tone("low", 1.0), tone("high", 1.0)])
    path = write(tmp_path / "a.wav", waveform)
    assert tagger.has_novelty
    assert tagger.tag(path).novelty == pytest.approx(novelty_of(tagger, read_audio(path, sample_rate=RATE)[0]))
    windows = list(tagger.tag_windows(path, WindowConfig(window_seconds=1.0)))
    expected = [novelty_of(tagger, half) for half in np.split(read_audio(path, sample_rate=RATE)[0], 2)]
    assert [window.novelty for window in windows] == pytest.approx(expected)


def test_recording_in_parts_has_the_smallest_novelty(tmp_path):
    tagger = with_novelty(tmp_path / "model", window=WindowConfig(max_clip_seconds=1.0))
    waveform = np.concatenate([tone("low", 1.0), 1e-3 * tone("high", 1.0)])
    novelty = [novelty_of(tagger, half) for half in np.split(waveform, 2)]
    assert tagger.outputs(waveform, RATE).novelty == pytest.approx(min(novelty))


def test_ensemble_takes_novelty_from_the_network_that_has_it(tmp_path):
    front_ends = [FrontEnd(mel=MEL), FrontEnd(mel=MEL_32K)]
    novelties = []
    for network in (0, 1):
        novelty = NoveltyInfo(network=network, n_held_out=3)
        info = make_ensemble_info(front_ends, [0.5, 0.5]).model_copy(update={"novelty": novelty})
        tagger = Tagger(make_ensemble(tmp_path / f"model {network}", info))
        outputs = tagger.outputs(tone("low", 0.5), RATE)
        novelties.append(outputs.novelty)
    of_first = abs(outputs.features.max() - 2)  # features are those of the first network
    assert novelties[0] == pytest.approx(of_first)
    assert novelties[1] != pytest.approx(of_first)


def test_novelty_needs_a_network(tmp_path):
    with pytest.raises(ValueError, match=r"novelty\.network must be below 1, got 1"):
        make_info(novelty=NoveltyInfo(network=1, n_held_out=3))


# ------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("content", [b"", b"not a sound"])
def test_file_that_is_not_a_sound_is_an_error(tagger, tmp_path, content):
    (tmp_path / "a b.wav").write_bytes(content)
    with pytest.raises(AudioError, match=r"a b\.wav"):
        tagger.tag(tmp_path / "a b.wav")
    with pytest.raises(AudioError, match=r"a b\.wav"):
        list(tagger.tag_windows(tmp_path / "a b.wav", WindowConfig(window_seconds=1.0)))


def test_sound_without_samples_is_an_error(tagger, tmp_path):
    path = write(tmp_path / "a.wav", np.empty(0, np.float32))
    with pytest.raises(AudioError, match="has no samples"):
        tagger.tag(path)
    with pytest.raises(AudioError, match="has no samples"):
        list(tagger.tag_windows(path, WindowConfig(window_seconds=1.0)))


def test_missing_or_too_new_bundle_is_an_error(tmp_path):
    with pytest.raises(BundleError, match=r"gone: not a tagger"):
        Tagger(tmp_path / "gone")
    info_file = make_bundle(tmp_path / "new") / INFO_FILE
    info_file.write_text(json.dumps(json.loads(info_file.read_text()) | {"format_version": 9}))
    with pytest.raises(BundleError, match="format version 9"):
        Tagger(tmp_path / "new")


@pytest.mark.parametrize("content", [None, b"", b"not a network"])
def test_missing_or_damaged_network_is_an_error_of_one_line(tagger, content):
    path = tagger.folder / ONNX_FILE
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx: (cannot be read|not an ONNX file, or damaged): .+") as error:
        tagger.probabilities(tone("low", 0.5), RATE)
    assert "\n" not in str(error.value)


def test_repr_contains_folder_and_labels(tagger):
    assert repr(tagger).startswith("Tagger(")
    assert "modell für töne" in repr(tagger)
    assert "3 labels" in repr(tagger)


def test_thresholds_of_windows_are_for_windows_only(tmp_path):
    windows = WindowThresholds(below_seconds=1.0, thresholds=(0.1, 0.2, 0.3))
    tagger = Tagger(make_bundle(tmp_path / "model", make_info(window_thresholds=windows)))
    path = write(tmp_path / "a.wav", tone("low", 2.0))
    of_windows = np.array(windows.thresholds, np.float32)
    for seconds, expected in ((0.5, of_windows), (1.0, tagger.thresholds)):
        for tags in tagger.tag_windows(path, WindowConfig(window_seconds=seconds)):
            np.testing.assert_array_equal(tags.thresholds, expected)
    np.testing.assert_array_equal(tagger.tag(path).thresholds, tagger.thresholds)
    np.testing.assert_array_equal(tagger.thresholds_for(WindowConfig()), tagger.thresholds)


def test_each_label_needs_a_threshold_of_windows():
    with pytest.raises(ValidationError, match="need a threshold of windows for each of 3 labels, got 1"):
        make_info(window_thresholds=WindowThresholds(below_seconds=1.0, thresholds=(0.1,)))


def test_error_of_onnxruntime_without_a_text_is_named_by_its_class(tmp_path, monkeypatch):
    def fail(*_arguments, **_options):
        raise RuntimeError

    model = make_bundle(tmp_path / "model")
    monkeypatch.setattr("onnxruntime.InferenceSession", fail)
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot open it: RuntimeError"):
        Tagger(model).open()
