"""Tagging many files: in order, on several cores, with a reason for every file that cannot be read."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from spectag.audio.files import read_audio, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.spectrogram_image import write_png
from spectag.config.base import ImageConfig, LongRecordingWindows, WindowConfig
from spectag.errors import AudioError, BundleError, ConfigError
from spectag.models.bundle import ONNX_FILE
from spectag.models.tagger import Tagger
from spectag.models.timeline import pool_logits
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import Chunk, accepted_suffixes, chunked, tag, tag_chunk, tag_chunks


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def top_label(tagged):
    return LABELS[tagged.timeline.probabilities[0].argmax()]


def write_tones(folder, n_files, seconds=0.2):
    folder.mkdir()
    paths = [folder / f"{number:02} {LABELS[number % 3]}.wav" for number in range(n_files)]
    for number, path in enumerate(paths):
        write_audio(path, tone(LABELS[number % 3], seconds), 16_000)
    return paths


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_results_come_in_the_order_of_the_files(tagger, tmp_path, workers):
    paths = write_tones(tmp_path / "sounds", 7)
    write_audio(paths[0], tone("low", 20.0), 16_000)  # the first one takes longest
    tagged = list(tag(tagger, paths, workers=workers))
    assert [file.file for file in tagged] == list(map(str, paths))
    assert [top_label(file) for file in tagged] == [LABELS[number % 3] for number in range(7)]
    expected = [tagger.tag(path).probabilities for path in paths]
    assert np.array_equal([file.timeline.probabilities[0] for file in tagged], expected)


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_file_gets_a_reason_and_the_rest_is_tagged(tagger, tmp_path, workers):
    paths = write_tones(tmp_path / "sounds", 3)
    paths[1].write_bytes(b"")
    tagged = list(tag(tagger, [*paths, tmp_path / "gone.wav"], workers=workers))
    assert [file.timeline is None for file in tagged] == [False, True, False, True]
    assert [file.reason is None for file in tagged] == [True, False, True, False]
    assert "01 middle.wav: the file is empty (0 bytes)" in tagged[1].reason
    assert "gone.wav" in tagged[3].reason


class NanTagger(Tagger):
    """A tagger whose network gives NaN for the parts in the second half of a minute."""

    def outputs_of_window(self, window, *, features=True):
        outputs = super().outputs_of_window(window, features=features)
        return (
            replace(outputs, probabilities=outputs.probabilities * np.nan) if window.start_seconds >= 0.5 else outputs
        )

    def probabilities_of_window(self, window):
        return self.outputs_of_window(window).probabilities


@pytest.mark.parametrize("window", [None, WindowConfig(window_seconds=0.25)], ids=["whole", "windows"])
def test_file_whose_probabilities_are_not_finite_is_skipped_and_named(tmp_path, window):
    info = make_info(window=WindowConfig(max_clip_seconds=0.25))
    paths = write_tones(tmp_path / "sounds", 2, seconds=0.4)
    write_audio(paths[1], tone("low", 0.8), 16_000)
    good, bad = tag(NanTagger(make_bundle(tmp_path / "m", info)), paths, window=window, workers=1)
    assert good.reason is None
    assert np.isfinite(good.timeline.probabilities).all()
    assert bad.timeline is None
    assert bad.reason.startswith(f"{paths[1]}: the probabilities from 0.5 s on are not finite")


def test_clip_in_parts_has_the_pooled_logits_and_mean_features_of_its_parts(tmp_path):
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=0.5))))
    path = tmp_path / "a.wav"
    write_audio(path, np.concatenate([tone("low", 0.5), tone("high", 0.5)]), 16_000)
    waveform, rate = read_audio(path)
    first, second = tagger.outputs(waveform[: rate // 2], rate), tagger.outputs(waveform[rate // 2 :], rate)
    [tagged] = tag(tagger, path, features=True)
    expected = pool_logits([first.logits, second.logits], [0.5, 0.5])
    assert tagged.network_outputs.logits[0] == pytest.approx(expected, abs=1e-4)
    assert tagged.network_outputs.features[0] == pytest.approx((first.features + second.features) / 2, abs=1e-4)
    assert np.array_equal(tagged.timeline.probabilities[0], tagger.tag(path).probabilities)
    assert (tagged.timeline.starts.tolist(), tagged.timeline.ends.tolist()) == ([0.0], [1.0])


@pytest.mark.parametrize(("n_samples", "n_windows"), [(32_000, 1), (32_001, 4)])
def test_only_recordings_longer_than_a_clip_have_windows(tmp_path, n_samples, n_windows):
    tagger = Tagger(make_bundle(tmp_path / "m", make_info(window=WindowConfig(max_clip_seconds=1.5))))
    path = tmp_path / "a.wav"
    write_audio(path, tone("low", 3.0)[:n_samples], 16_000)
    window = LongRecordingWindows(window_seconds=0.5, longer_than_seconds=2.0)
    [tagged] = tag(tagger, path, window=window)
    assert len(tagged.timeline.starts) == n_windows
    assert tagged.duration_seconds == n_samples / 16_000
    if n_windows == 1:
        assert np.array_equal(tagged.timeline.probabilities[0], tagger.tag(path).probabilities)


@pytest.mark.parametrize(("window", "end"), [(None, 1.001), (WindowConfig(window_seconds=1.0), 1.0)])
def test_length_of_a_recording_includes_the_rest_that_no_window_contains(tagger, tmp_path, window, end):
    write_audio(tmp_path / "a.wav", tone("low", 1.001), 16_000)
    [tagged] = tag(tagger, tmp_path / "a.wav", window=window)
    assert tagged.timeline.ends.tolist() == [end]
    assert tagged.duration_seconds == pytest.approx(1.001)


def test_unusual_sounds_are_tagged(tagger, tmp_path, rng):
    stereo = rng.uniform(-0.1, 0.1, (96_000, 2))
    soundfile.write(tmp_path / "Zweispur, 96 kHz – größer.flac", stereo, 96_000)
    write_audio(tmp_path / "30 ms.wav", tone("high", 0.03), 16_000)
    write_audio(tmp_path / "one sample.wav", np.array([0.5], np.float32), 8_000)
    tagged = list(tag(tagger, find_files([tmp_path], accepted_suffixes(tagger))))
    names = [Path(file.file).name for file in tagged]
    assert names == ["30 ms.wav", "Zweispur, 96 kHz – größer.flac", "one sample.wav"]
    assert all(file.reason is None and np.isfinite(file.timeline.probabilities).all() for file in tagged)
    assert top_label(tagged[0]) == "high"


def test_windows_come_in_order_of_time(tagger, tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, np.concatenate([tone(label, 0.5) for label in LABELS]), 16_000)
    window = WindowConfig(window_seconds=0.5, overlap_seconds=0.25)
    (tagged,) = tag(tagger, [path], window=window)
    assert list(tagged.timeline.starts) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert tagged.duration_seconds == 1.5
    assert [LABELS[number] for number in tagged.timeline.probabilities.argmax(axis=1)[::2]] == list(LABELS)
    expected = list(tagger.tag_windows(path, window))
    assert np.array_equal(tagged.timeline.probabilities, [tags.probabilities for tags in expected])


def test_window_may_be_its_length_in_seconds(tagger, tmp_path):
    (path,) = write_tones(tmp_path / "sounds", 1, seconds=2.0)
    (by_number,), (by_config,) = (tag(tagger, [path], window=w) for w in (0.5, WindowConfig(window_seconds=0.5)))
    assert by_number.timeline.starts.tolist() == by_config.timeline.starts.tolist() == [0.0, 0.5, 1.0, 1.5]
    with pytest.raises(ConfigError, match="window: window_seconds: expected a number greater than 0"):
        next(tag(tagger, [path], window=0))


def test_window_without_a_length_means_whole_recordings(tagger, tmp_path):
    (path,) = write_tones(tmp_path / "sounds", 1)
    (tagged,) = tag(tagger, [path], window=WindowConfig())
    assert (list(tagged.timeline.starts), list(tagged.timeline.ends)) == ([0.0], [0.2])


def test_one_path_or_string_is_accepted(tagger, tmp_path):
    (path,) = write_tones(tmp_path / "sounds", 1)
    for files in ([str(path)], str(path), path):
        (tagged,) = tag(tagger, files)
        assert tagged.file == str(path)


def test_folders_and_patterns_stand_for_their_files_as_in_the_command(tagger, tmp_path):
    paths = write_tones(tmp_path / "sounds", 3)
    (tmp_path / "sounds" / "notes.txt").write_text("not a sound")
    (tmp_path / "nothing").mkdir()
    expected = [*map(str, paths)]
    assert [file.file for file in tag(tagger, tmp_path / "sounds")] == expected
    names = [paths[2], tmp_path / "sounds", str(tmp_path / "*" / "0*low.wav")]
    assert [file.file for file in tag(tagger, names)] == [expected[2], *expected, expected[0]]
    for missing in (tmp_path / "nothing", tmp_path / "*.flac"):
        with pytest.raises(AudioError):
            list(tag(tagger, missing))


def test_no_files_give_no_results(tagger):
    assert list(tag(tagger, [])) == []


def test_progress_counts_every_file(tagger, tmp_path):
    steps = []
    list(tag(tagger, write_tones(tmp_path / "sounds", 3), progress=lambda *step: steps.append(step)))
    assert steps == [("tagging", done, 3) for done in range(4)]


def test_model_that_replaced_another_in_its_folder_is_used(tmp_path):
    """A cache by folder once made a notebook go on with the old model."""
    (path,) = write_tones(tmp_path / "sounds", 1)
    (old,) = tag(Tagger(make_bundle(tmp_path / "model")), [path])
    (tmp_path / "model").rename(tmp_path / "old")
    loud = MEL.model_copy(update={"mean": 0.0})
    new = Tagger(make_bundle(tmp_path / "model", make_info(front_end=FrontEnd(mel=loud))))
    (again,) = tag(new, [path])
    assert np.array_equal(again.timeline.probabilities[0], new.tag(path).probabilities)
    assert not np.array_equal(again.timeline.probabilities, old.timeline.probabilities)


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_model_is_an_error_not_a_reason_to_skip_files(tagger, tmp_path, workers):
    (tagger.folder / ONNX_FILE).write_bytes(b"no network")
    with pytest.raises(BundleError, match=r"model\.onnx: not an ONNX file, or damaged"):
        list(tag(tagger, write_tones(tmp_path / "sounds", 2), workers=workers))


def test_image_is_skipped_by_a_model_of_sounds(tagger, tmp_path):
    write_png(tmp_path / "b.png", np.zeros((24, 5), np.uint8), low=0.0, high=1.0)
    (tagged,) = tag(tagger, [tmp_path / "b.png"])
    assert "b.png: this tagger takes log-mel spectrograms, not images" in tagged.reason


def test_tags_of_an_image_have_no_end(tmp_path):
    info = make_info(front_end=FrontEnd(mel=MEL, image=ImageConfig()))
    tagger = Tagger(make_bundle(tmp_path / "images", info))
    write_png(tmp_path / "b.png", np.zeros((24, 5), np.uint8), low=0.0, high=1.0)
    (tagged,) = tag(tagger, [tmp_path / "b.png"])
    assert np.isnan(tagged.timeline.ends).all()
    assert tagged.duration_seconds is None
    assert tagger.tag(tmp_path / "b.png").end_seconds is None


@pytest.mark.parametrize(
    ("front_end", "expected"),
    [
        (FrontEnd(mel=MEL), (True, False)),
        (FrontEnd(mel=MEL, image=ImageConfig()), (True, True)),
        (FrontEnd(mel=None, image=ImageConfig(height=24, width=5)), (False, True)),
    ],
)
def test_model_accepts_sounds_images_or_both(tmp_path, front_end, expected):
    suffixes = accepted_suffixes(Tagger(make_bundle(tmp_path / "model", make_info(front_end=front_end))))
    assert (".wav" in suffixes, ".png" in suffixes) == expected


# ------------------------------------------------------------------------------------------------ chunks


@pytest.mark.parametrize("n_threads", [1, 3])
def test_windows_of_different_files_are_not_mixed_up(tagger, tmp_path, n_threads):
    paths = write_tones(tmp_path / "sounds", 6, seconds=1.1)
    paths.insert(3, tmp_path / "gone.wav")
    window = WindowConfig(window_seconds=0.25)
    chunk = tag_chunk(tagger, window, n_threads, Chunk(0, tuple(map(str, paths))))
    for path, tagged in zip(paths, chunk.files, strict=True):
        if path.name == "gone.wav":
            assert tagged.timeline is None
            continue
        expected = [tags.probabilities for tags in tagger.tag_windows(path, window)]
        assert np.array_equal(tagged.timeline.probabilities, expected)
    assert {"reading", "resampling", "log-mel", "network"} <= set(chunk.seconds)


def test_truncated_file_is_tagged_up_to_the_cut(tagger, tmp_path):
    path = tmp_path / "a.flac"
    write_audio(path, np.random.default_rng(0).uniform(-1, 1, 640_000).astype(np.float32), 16_000)
    path.write_bytes(path.read_bytes()[:400_000])
    (tagged,) = tag(tagger, [path], window=WindowConfig(window_seconds=0.5))
    assert tagged.reason is None
    assert tagged.duration_seconds == pytest.approx(12.5, abs=1)


def test_chunks_contain_all_files_in_order_and_are_small(tmp_path):
    files = []
    for number in range(100):
        files.append(str(tmp_path / f"{number}.wav"))
        Path(files[-1]).write_bytes(b"")
    chunks = chunked([*files, "gone.wav"], workers=2)
    assert [file for chunk in chunks for file in chunk.files] == [*files, "gone.wav"]
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    assert max(len(chunk.files) for chunk in chunks) == 12
    assert chunked([]) == []


def test_each_large_file_is_a_chunk_of_its_own(monkeypatch):
    monkeypatch.setitem(chunked.__globals__, "file_size", lambda file: 40_000_000)
    assert [chunk.files for chunk in chunked(list("abcdefgh") * 3, workers=1)][:2] == [("a",), ("b",)]


def test_progress_within_a_single_long_recording_counts_minutes(tagger, tmp_path):
    path = tmp_path / "long.wav"
    write_audio(path, np.zeros(690 * 1_000, np.float32), 1_000)
    steps = []
    list(tag(tagger, [path], window=WindowConfig(window_seconds=60.0), progress=lambda *step: steps.append(step)))
    assert steps == [("tagging", 0, 1), *(("minutes", minute, 12) for minute in range(1, 12)), ("tagging", 1, 1)]


class CrashingTagger(Tagger):
    """A tagger whose process is killed by one file, as decoders have done."""

    def open_windows(self, path, window=None, **span):
        if Path(path).name == "crashing.wav":
            signal.raise_signal(signal.SIGKILL)
        return super().open_windows(path, window, **span)


@pytest.mark.slow
def test_only_the_file_that_crashes_its_process_is_skipped(tagger, tmp_path, monkeypatch):
    monkeypatch.setitem(tag_chunks.__globals__, "Tagger", CrashingTagger)
    paths = write_tones(tmp_path / "sounds", 40)
    crashing = paths[20].rename(paths[20].with_name("crashing.wav"))
    paths[20] = crashing
    tagged = list(tag(tagger, paths, workers=2))
    assert [file.file for file in tagged] == list(map(str, paths))
    assert [file.file for file in tagged if file.timeline is None] == [str(crashing)]
    assert tagged[20].reason == f"{crashing}: the process that read it died (SIGKILL)"


def test_isolated_crash_skips_one_of_few_files(tagger, tmp_path, monkeypatch):
    monkeypatch.setitem(tag_chunks.__globals__, "Tagger", CrashingTagger)
    paths = write_tones(tmp_path / "sounds", 3)
    crashing = paths[1].rename(paths[1].with_name("crashing.wav"))
    chunks = chunked([str(paths[0]), str(crashing), str(paths[2])])
    results = sorted(
        tag_chunks(tagger, chunks, None, workers=1, isolate_crashes=True), key=lambda result: result[0].number
    )
    files = [file for _, tagged in results for file in tagged.files]
    assert [file.timeline is None for file in files] == [False, True, False]
