"""A bundle at work. Its network, made by hand, hears which third of the mel bands is loud."""

import json
import pickle
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
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
from spectag.errors import AudioError, BundleError, DataError
from spectag.models import tagger as runtime
from spectag.models.bundle import INFO_FILE, ONNX_FILE
from spectag.models.tagger import Tag, Tagger, Tags, open_session

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


def tags_of(probabilities, thresholds):
    labels = LabelSet(tuple("abcdefgh"[: len(probabilities)]))
    return Tags(None, 0.0, 1.0, labels, np.array(probabilities, np.float32), np.array(thresholds, np.float32))


# ------------------------------------------------------------------------------------------------ whole recordings


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_sound_is_tagged_with_its_own_label(tagger, tmp_path, label, sample_rate):
    tags = tagger.tag(write(tmp_path / "tön 1.wav", tone(label, 0.5, sample_rate), sample_rate))
    assert tags.top(1)[0].label == label
    assert tags.path == tmp_path / "tön 1.wav"
    assert (tags.start_seconds, tags.end_seconds) == (0.0, 0.5)


def test_probabilities_of_a_file_are_those_of_its_waveform_at_either_rate(tagger, tmp_path):
    path = write(tmp_path / "a.wav", tone("middle", 0.7, 44_100), 44_100)
    waveform, sample_rate = read_audio(path)
    found = tagger.tag(path).probabilities
    assert found.dtype == np.float32
    assert np.array_equal(found, tagger.probabilities(waveform, sample_rate))
    assert np.array_equal(found, tagger.probabilities(resample(waveform, 44_100, RATE), RATE))


def test_recording_up_to_the_longest_clip_is_seen_as_a_whole(tmp_path, rng):
    waveform = (0.1 * rng.standard_normal(RATE)).astype(np.float32)
    path = write(tmp_path / "a.wav", waveform)
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    assert np.array_equal(tagger.tag(path).probabilities, tagger.probabilities(read_audio(path)[0], RATE))


def test_longer_recording_has_the_mean_of_its_parts_by_their_lengths(tmp_path):
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    parts = [tone("low", 1.0), tone("middle", 1.0), tone("high", 0.25)]
    path = write(tmp_path / "a.wav", np.concatenate(parts))
    waveform = read_audio(path)[0]
    seen = [tagger.probabilities(part, RATE) for part in np.split(waveform, [RATE, 2 * RATE])]
    tags = tagger.tag(path)
    assert tags.probabilities == pytest.approx((seen[0] + seen[1] + 0.25 * seen[2]) / 2.25, abs=1e-6)
    assert tags.probabilities.dtype == np.float32
    assert (tags.start_seconds, tags.end_seconds) == (0.0, 2.25)


def test_last_moment_of_a_long_recording_does_not_outweigh_the_rest(tmp_path):
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.0))))
    path = write(tmp_path / "a.wav", np.concatenate([tone("low", 1.0), tone("high", 0.01)]))
    assert tagger.tag(path).probabilities == pytest.approx(tagger.probabilities(tone("low", 1.0), RATE), abs=0.02)


def test_network_is_opened_once_however_many_threads_ask_for_it(tagger, monkeypatch):
    opened = []

    def open_slowly(path, *, n_threads):
        opened.append(path)
        time.sleep(0.05)  # so that the others ask meanwhile
        return open_session(path, n_threads=n_threads)

    monkeypatch.setattr(runtime, "open_session", open_slowly)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tagger.probabilities, [np.zeros(RATE, np.float32)] * 4, [RATE] * 4))
    assert len(opened) == 1


def test_probabilities_do_not_depend_on_the_number_of_threads(tagger, rng):
    waveform = rng.standard_normal(3 * RATE).astype(np.float32)
    several = Tagger(tagger.folder, n_threads=3)
    assert several.probabilities(waveform, RATE) == pytest.approx(tagger.probabilities(waveform, RATE), abs=1e-6)


@pytest.mark.parametrize("n_samples", [1, 2, 100])
def test_few_samples_are_tagged_too(tagger, tmp_path, n_samples):
    path = write(tmp_path / "a.wav", np.full(n_samples, 0.5, np.float32), 48_000)
    assert np.isfinite(tagger.tag(path).probabilities).all()


# ------------------------------------------------------------------------------------------------ windows


def test_windows_follow_each_other_to_the_end_and_each_hears_its_own_stretch(tagger, tmp_path):
    path = write(tmp_path / "a.wav", np.concatenate([tone(label, 0.5) for label in LABELS] + [tone("low", 0.3)]))
    windows = list(tagger.tag_windows(path, WindowConfig(window_seconds=0.5)))
    assert [(tags.start_seconds, tags.end_seconds) for tags in windows] == [
        (0.0, 0.5),
        (0.5, 1.0),
        (1.0, 1.5),
        (pytest.approx(1.3), pytest.approx(1.8)),  # as long as the others, and ending with the recording
    ]
    assert [tags.top(1)[0].label for tags in windows] == [*LABELS, "low"]
    waveform = read_audio(path)[0]
    for tags in windows:
        stretch = waveform[round(tags.start_seconds * RATE) : round(tags.end_seconds * RATE)]
        assert np.array_equal(tags.probabilities, tagger.probabilities(stretch, RATE))


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
@pytest.mark.parametrize("n_samples", [1, 7_999, 8_000, 8_001, 20_011])
@pytest.mark.parametrize(("window", "overlap"), [(0.5, 0.0), (0.5, 0.3), (0.3, 0.299), (9.0, 1.0)])
def test_windows_of_any_length_and_overlap_reach_the_end(tagger, tmp_path, sample_rate, n_samples, window, overlap):
    path = write(tmp_path / "a.wav", np.full(n_samples, 0.1, np.float32), sample_rate)
    config = WindowConfig(window_seconds=window, overlap_seconds=overlap)
    windows = list(tagger.tag_windows(path, config))
    starts = [tags.start_seconds for tags in windows]
    assert starts[0] == 0
    assert np.diff(starts)[:-1] == pytest.approx(window - overlap, abs=1 / sample_rate)
    assert (np.diff(starts)[-1:] <= window - overlap + 1 / sample_rate).all()
    assert windows[-1].end_seconds == pytest.approx(n_samples / sample_rate)
    lengths = [tags.end_seconds - tags.start_seconds for tags in windows]
    assert lengths == pytest.approx([min(window, n_samples / sample_rate)] * len(windows), abs=1 / sample_rate)


def test_windows_end_where_the_sound_ends_and_not_where_its_header_says(tagger, tmp_path):
    path = write(tmp_path / "a.mp3", tone("high", 4.0))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 8])  # 1.5 s of 4 s
    assert audio_info(path).duration_seconds > 3
    windows = list(tagger.tag_windows(path, WindowConfig(window_seconds=1.0)))
    there = len(read_audio(path)[0]) / RATE
    assert 1 < there < 1.6
    assert [tags.start_seconds for tags in windows] == [0.0, pytest.approx(there - 1.0)]
    assert [tags.top(1)[0].label for tags in windows] == ["high", "high"]


def test_window_needs_a_length(tagger, tmp_path):
    with pytest.raises(ValueError, match="need the length of a window"):
        next(tagger.tag_windows(tmp_path / "a.wav", WindowConfig()))


# ------------------------------------------------------------------------------------------------ tags


def test_top_tags_come_by_probability_and_equals_by_their_place():
    tags = tags_of([0.25, 0.75, 0.25, 1.0], [0.5] * 4)
    assert tags.top(3) == [Tag("d", 1.0), Tag("b", 0.75), Tag("a", 0.25)]
    assert [tag.label for tag in tags.top(10)] == ["d", "b", "a", "c"]
    assert tags.top(0) == []


def test_heard_is_what_reaches_its_own_threshold_most_probable_first():
    tags = tags_of([0.25, 0.75, 0.5, 0.5], [0.2, 0.8, 0.5, 0.51])
    assert [tag.label for tag in tags.heard()] == ["c", "a"]


def test_one_threshold_may_stand_for_all():
    tags = tags_of([0.25, 0.75, 0.5, 0.5], [0.2, 0.8, 0.5, 0.51])
    assert [tag.label for tag in tags.heard(0.5)] == ["b", "c", "d"]
    assert tags.heard(0.9) == []
    assert len(tags.heard(0.0)) == 4


# ------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize("label", LABELS)
def test_sound_and_its_png_have_the_same_tags(image_tagger, tmp_path, label):
    sound = write(tmp_path / "a.wav", tone(label, 0.5))
    image, (low, high) = log_mel_to_image(compute_log_mel(read_audio(sound)[0], MEL), ImageConfig())
    write_png(tmp_path / "a.PNG", image, low=low, high=high)
    of_image = image_tagger.tag(tmp_path / "a.PNG")
    assert np.array_equal(of_image.probabilities, image_tagger.tag(sound).probabilities)
    assert of_image.top(1)[0].label == label
    assert (of_image.start_seconds, of_image.end_seconds) == (0.0, None)


def test_tagger_of_strange_images_can_not_hear(tmp_path):
    info = make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24, width=30)))
    tagger = Tagger(make_bundle(tmp_path / "m", info))
    with pytest.raises(DataError, match="can tag such images but not sounds"):
        tagger.tag(write(tmp_path / "a.wav", tone("low", 0.5)))


def test_image_of_another_size_than_the_network_takes_is_told(image_tagger, tmp_path):
    write_png(tmp_path / "a.png", np.zeros((10, 30), np.uint8), low=0, high=1)
    with pytest.raises(BundleError, match=r"model\.onnx: takes no input of shape \(1, 10, 30\): .+"):
        image_tagger.tag(tmp_path / "a.png")


def test_tagger_of_sounds_does_not_take_images(tagger, tmp_path):
    with pytest.raises(DataError, match=r"a\.png: this tagger hears log_mels, not images"):
        tagger.tag(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------ several networks

FRONT_ENDS = (FrontEnd(mel=MEL), FrontEnd(mel=MEL_32K), FrontEnd(mel=MEL))
WEIGHTS, BIAS = (0.5, 0.25, 0.125), -0.75


@pytest.fixture
def ensemble(tmp_path):
    return Tagger(make_ensemble(tmp_path / "drei für töne", make_ensemble_info(FRONT_ENDS, WEIGHTS, BIAS)))


def blended(tagger, waveform, sample_rate):
    """What the networks say, asked one by one."""
    return blended_at_rates(tagger, lambda rate: resample(waveform, sample_rate, rate))


def blended_at_rates(tagger, waveform_at):
    total = tagger.info.bias
    for member in tagger.info.members:
        session = open_session(tagger.folder / member.folder / ONNX_FILE, n_threads=1)
        inputs = member.front_end.input_of_waveform(waveform_at(member.front_end.mel.sample_rate))
        total = total + member.weight * session.run(["logits"], {"inputs": inputs[None]})[0][0].astype(np.float64)
    return expit(total)


@pytest.mark.parametrize("sample_rate", [16_000, 32_000, 44_100])
def test_networks_of_different_front_ends_answer_as_their_blend(ensemble, tmp_path, sample_rate):
    path = write(tmp_path / "a.wav", tone("middle", 0.7, sample_rate), sample_rate)
    waveform, sample_rate = read_audio(path)
    tags = ensemble.tag(path)
    assert tags.probabilities == pytest.approx(blended(ensemble, waveform, sample_rate), abs=1e-6)
    assert tags.top(1)[0].label == "middle"
    assert tags.probabilities.dtype == np.float32
    assert np.array_equal(tags.probabilities, ensemble.probabilities(waveform, sample_rate))


def test_blend_does_not_suffer_where_each_networks_probabilities_are_0_or_1(tmp_path):
    front_ends = [FrontEnd(mel=MEL.model_copy(update={"mean": mean, "std": 0.1})) for mean in (-60.0, -50.0)]
    single = Tagger(make_bundle(tmp_path / "single", make_info(front_end=front_ends[0])))
    assert set(single.probabilities(tone("low", 0.5), RATE)) == {0.0, 1.0}
    tagger = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(front_ends, (0.0005, 0.0003), 0.5)))
    expected = blended(tagger, tone("low", 0.5), RATE)
    assert 0.01 < expected.min() < expected.max() < 0.99
    assert tagger.probabilities(tone("low", 0.5), RATE) == pytest.approx(expected, abs=1e-6)


def test_each_front_end_works_once_and_each_rate_is_made_once(tmp_path, monkeypatch):
    other = FrontEnd(mel=MEL.model_copy(update={"n_mels": 12}))
    ensemble = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info((*FRONT_ENDS, other), (*WEIGHTS, 0.5))))
    made = {"log_mel": 0, "rate": []}
    compute, change = front_end_module.compute_log_mel, runtime.resample

    def count_log_mels(*args):
        made["log_mel"] += 1
        return compute(*args)

    def count_rates(waveform, from_rate, to_rate):
        made["rate"].append(to_rate)
        return change(waveform, from_rate, to_rate)

    monkeypatch.setattr(front_end_module, "compute_log_mel", count_log_mels)
    monkeypatch.setattr(runtime, "resample", count_rates)
    ensemble.probabilities(tone("low", 0.3, 44_100), 44_100)
    assert made == {"log_mel": 3, "rate": [16_000, 32_000]}


def test_longer_recording_has_the_mean_of_its_parts_by_several_networks_too(tmp_path):
    info = make_ensemble_info(FRONT_ENDS, WEIGHTS, BIAS).model_copy(
        update={"window": WindowConfig(max_clip_seconds=1.0)}
    )
    tagger = Tagger(make_ensemble(tmp_path / "m", info))
    path = write(tmp_path / "a.wav", np.concatenate([tone("low", 1.0), tone("high", 0.5)]))
    waveform = read_audio(path)[0]
    expected = (blended(tagger, waveform[:RATE], RATE) + 0.5 * blended(tagger, waveform[RATE:], RATE)) / 1.5
    assert tagger.tag(path).probabilities == pytest.approx(expected, abs=1e-6)


def test_windows_are_heard_by_all_networks(ensemble, tmp_path):
    path = write(tmp_path / "a.wav", np.concatenate([tone(label, 0.5) for label in LABELS]))
    windows = list(ensemble.tag_windows(path, WindowConfig(window_seconds=0.5)))
    assert [tags.top(1)[0].label for tags in windows] == list(LABELS)
    whole = {rate: resample(read_audio(path)[0], RATE, rate) for rate in (RATE, 2 * RATE)}
    for number, tags in enumerate(windows):
        parts = {rate: np.split(waveform, 3)[number] for rate, waveform in whole.items()}
        assert tags.probabilities == pytest.approx(blended_at_rates(ensemble, parts.get), abs=1e-6)


def test_front_end_of_several_networks_is_the_first_ones(ensemble):
    assert ensemble.front_end == FRONT_ENDS[0]
    assert ensemble.front_ends == FRONT_ENDS[:2]


def test_an_input_is_for_all_networks_or_for_none(ensemble, tmp_path):
    alike = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(FRONT_ENDS[::2], (0.5, 0.25))))
    inputs = alike.front_end.input_of_waveform(tone("low", 0.5))
    expected = blended(alike, tone("low", 0.5), RATE)
    assert alike.probabilities_of_input(inputs) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(BundleError, match="hear by 2 different front ends, so no one input is for all"):
        ensemble.probabilities_of_input(inputs)


def test_networks_of_images_tag_images(tmp_path):
    front_ends = [FrontEnd(mel=MEL, image=ImageConfig(height=height)) for height in (24, 48)]
    tagger = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(front_ends, (0.5, 0.25))))
    sound = write(tmp_path / "a.wav", tone("high", 0.5))
    image, (low, high) = log_mel_to_image(compute_log_mel(read_audio(sound)[0], MEL), ImageConfig())
    write_png(tmp_path / "a.png", image, low=low, high=high)
    of_image = tagger.tag(tmp_path / "a.png")
    assert of_image.top(1)[0].label == "high"
    assert of_image.probabilities == pytest.approx(tagger.tag(sound).probabilities, abs=1e-2)  # stretched twice


@pytest.mark.parametrize("order", [1, -1])
def test_an_image_is_not_for_networks_some_of_which_hear(tmp_path, order):
    front_ends = [FrontEnd(mel=MEL, image=ImageConfig()), *FRONT_ENDS[:2]][::order]
    tagger = Tagger(make_ensemble(tmp_path / "m", make_ensemble_info(front_ends, WEIGHTS)))
    write_png(tmp_path / "a.png", np.zeros((24, 30), np.uint8), low=0, high=1)
    with pytest.raises(DataError, match=r"a\.png: 2 of this tagger's 3 networks hear log_mels, not images; give it"):
        tagger.tag(tmp_path / "a.png")


def test_networks_that_all_hear_do_not_take_images(ensemble, tmp_path):
    with pytest.raises(DataError, match=r"a\.png: this tagger hears log_mels, not images"):
        ensemble.tag(tmp_path / "a.png")


@pytest.mark.parametrize("gone", ["members/2", "members/3/model.onnx"])
def test_network_that_is_missing_is_named_when_the_bundle_is_opened(ensemble, gone):
    path = ensemble.folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(BundleError, match=rf"{gone}.*: is missing; the tagger answers by all its 3 networks or not at"):
        Tagger(ensemble.folder)


def test_a_bundle_of_several_networks_goes_to_another_process(ensemble):
    expected = ensemble.probabilities(tone("low", 0.5), RATE)
    copied = pickle.loads(pickle.dumps(Tagger(ensemble.folder)))
    assert np.array_equal(copied.probabilities(tone("low", 0.5), RATE), expected)


def test_a_network_made_before_there_were_ensembles_tags_as_it_did(tagger, tmp_path):
    old = shutil.copytree(tagger.folder, tmp_path / "old")
    write_network(old / ONNX_FILE, top_is_low=True, with_logits=False)
    assert "members" not in json.loads((old / INFO_FILE).read_text(encoding="utf-8"))
    found = Tagger(old).probabilities(tone("low", 0.5), RATE)
    assert np.array_equal(found, tagger.probabilities(tone("low", 0.5), RATE))


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("content", [b"", b"no sound"])
def test_file_that_is_no_sound_is_told_by_name(tagger, tmp_path, content):
    (tmp_path / "a b.wav").write_bytes(content)
    with pytest.raises(AudioError, match=r"a b\.wav"):
        tagger.tag(tmp_path / "a b.wav")
    with pytest.raises(AudioError, match=r"a b\.wav"):
        list(tagger.tag_windows(tmp_path / "a b.wav", WindowConfig(window_seconds=1.0)))


def test_sound_without_samples_is_told_in_windows_too(tagger, tmp_path):
    path = write(tmp_path / "a.wav", np.empty(0, np.float32))
    with pytest.raises(AudioError, match="holds no samples"):
        tagger.tag(path)
    with pytest.raises(AudioError, match="holds no samples"):
        list(tagger.tag_windows(path, WindowConfig(window_seconds=1.0)))


def test_bundle_that_is_absent_or_too_new_is_told(tmp_path):
    with pytest.raises(BundleError, match=r"gone: not a tagger"):
        Tagger(tmp_path / "gone")
    info_file = make_bundle(tmp_path / "new") / INFO_FILE
    info_file.write_text(json.dumps(json.loads(info_file.read_text()) | {"format_version": 9}))
    with pytest.raises(BundleError, match="format version 9"):
        Tagger(tmp_path / "new")


@pytest.mark.parametrize("content", [None, b"", b"no network"])
def test_network_that_is_missing_or_damaged_is_told_in_one_line(tagger, content):
    path = tagger.folder / ONNX_FILE
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx: can't be opened by onnxruntime: .+") as error:
        tagger.probabilities(tone("low", 0.5), RATE)
    assert "\n" not in str(error.value)


def test_tagger_tells_which_one_it_is(tagger):
    assert repr(tagger).startswith("Tagger(")
    assert "modell für töne" in repr(tagger)
    assert "3 labels" in repr(tagger)
