"""Tagging many files: in order, on several cores, with every file that can't be read named."""

import numpy as np
import pytest
import soundfile

from made_bundle import LABELS, MEL, make_bundle, make_info, tone
from spectag.audio import write_audio
from spectag.bundle import ONNX_FILE
from spectag.config import ImageConfig, WindowConfig
from spectag.errors import AudioError, BundleError
from spectag.front_end import FrontEnd
from spectag.image import write_png
from spectag.runtime import Tagger
from spectag.tag import find_files, tag


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def write_tones(folder, n_files, seconds=0.2):
    folder.mkdir()
    paths = [folder / f"{number:02} {LABELS[number % 3]}.wav" for number in range(n_files)]
    for number, path in enumerate(paths):
        write_audio(path, tone(LABELS[number % 3], seconds), 16_000)
    return paths


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_files_come_back_in_their_order_each_with_its_own_tags(tagger, tmp_path, workers):
    paths = write_tones(tmp_path / "sounds", 7)
    write_audio(paths[0], tone("low", 20.0), 16_000)  # the first one takes longest
    tagged = list(tag(tagger, paths, workers=workers))
    assert [file.path for file in tagged] == paths
    assert [file.tags[0].top(1)[0].label for file in tagged] == [LABELS[number % 3] for number in range(7)]
    alone = [tagger.tag(path).probabilities for path in paths]
    assert all(np.array_equal(file.tags[0].probabilities, own) for file, own in zip(tagged, alone, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_file_that_can_not_be_read_is_named_and_the_rest_is_tagged(tagger, tmp_path, workers):
    paths = write_tones(tmp_path / "sounds", 3)
    paths[1].write_bytes(b"")
    tagged = list(tag(tagger, [*paths, tmp_path / "gone.wav", tmp_path], workers=workers))
    assert [len(file.tags) for file in tagged] == [1, 0, 1, 0, 0]
    assert [file.reason is None for file in tagged] == [True, False, True, False, False]
    assert "01 middle.wav: the file is empty (0 bytes)" in tagged[1].reason
    assert "gone.wav" in tagged[3].reason
    assert "got a folder" in tagged[4].reason


def test_odd_sounds_are_tagged_too(tagger, tmp_path, rng):
    stereo = rng.uniform(-0.1, 0.1, (96_000, 2))
    soundfile.write(tmp_path / "Zweispur, 96 kHz – größer.flac", stereo, 96_000)
    write_audio(tmp_path / "30 ms.wav", tone("high", 0.03), 16_000)
    write_audio(tmp_path / "one sample.wav", np.array([0.5], np.float32), 8_000)
    tagged = list(tag(tagger, find_files(tagger, [tmp_path])))
    assert [file.path.name for file in tagged] == ["30 ms.wav", "Zweispur, 96 kHz – größer.flac", "one sample.wav"]
    assert all(file.reason is None and np.isfinite(file.tags[0].probabilities).all() for file in tagged)
    assert tagged[0].tags[0].top(1)[0].label == "high"


def test_windows_follow_in_order_of_time(tagger, tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, np.concatenate([tone(label, 0.5) for label in LABELS]), 16_000)
    window = WindowConfig(window_seconds=0.5, overlap_seconds=0.25)
    (tagged,) = tag(tagger, [path], window=window)
    assert [tags.start_seconds for tags in tagged.tags] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [tags.top(1)[0].label for tags in tagged.tags[::2]] == list(LABELS)


def test_window_config_without_a_length_means_whole_recordings(tagger, tmp_path):
    (path,) = write_tones(tmp_path / "sounds", 1)
    (tagged,) = tag(tagger, [path], window=WindowConfig())
    assert [(tags.start_seconds, tags.end_seconds) for tags in tagged.tags] == [(0.0, 0.2)]


def test_paths_may_be_strings(tagger, tmp_path):
    (path,) = write_tones(tmp_path / "sounds", 1)
    (tagged,) = tag(tagger, [str(path)])
    assert tagged.path == path


def test_nothing_to_tag_gives_nothing(tagger):
    assert list(tag(tagger, [])) == []


def test_progress_tells_every_file_from_none_to_all(tagger, tmp_path):
    steps = []
    list(tag(tagger, write_tones(tmp_path / "sounds", 3), progress=lambda *step: steps.append(step)))
    assert steps == [("tagging", done, 3) for done in range(4)]


def test_tagger_that_was_trained_anew_in_its_place_is_the_one_that_tags(tmp_path):
    """One was kept by the path of its folder, so that a notebook went on tagging with the tagger before."""
    (path,) = write_tones(tmp_path / "sounds", 1)
    (old,) = tag(Tagger(make_bundle(tmp_path / "model")), [path])
    (tmp_path / "model").rename(tmp_path / "old")
    loud = MEL.model_copy(update={"mean": 0.0})
    new = Tagger(make_bundle(tmp_path / "model", make_info(front_end=FrontEnd(mel=loud))))
    (anew,) = tag(new, [path])
    assert np.array_equal(anew.tags[0].probabilities, new.tag(path).probabilities)
    assert not np.array_equal(anew.tags[0].probabilities, old.tags[0].probabilities)


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_tagger_is_an_error_and_not_a_fault_of_every_file(tagger, tmp_path, workers):
    (tagger.folder / ONNX_FILE).write_bytes(b"no network")
    with pytest.raises(BundleError, match=r"model\.onnx: can't be opened"):
        list(tag(tagger, write_tones(tmp_path / "sounds", 2), workers=workers))


# ------------------------------------------------------------------------------------------------ which files


@pytest.fixture
def mixed_folder(tmp_path):
    folder = tmp_path / "gemischt"
    write_tones(folder, 1)
    write_png(folder / "b.png", np.zeros((24, 5), np.uint8), low=0.0, high=1.0)
    (folder / "notes.txt").write_text("")
    return folder


@pytest.mark.parametrize(
    ("front_end", "expected"),
    [
        (FrontEnd(mel=MEL), ["00 low.wav"]),
        (FrontEnd(mel=MEL, image=ImageConfig()), ["00 low.wav", "b.png"]),
        (FrontEnd(mel=None, image=ImageConfig(height=24, width=5)), ["b.png"]),
    ],
)
def test_folder_gives_what_the_tagger_can_take(tmp_path, mixed_folder, front_end, expected):
    tagger = Tagger(make_bundle(tmp_path / "model", make_info(front_end=front_end)))
    assert [path.name for path in find_files(tagger, [mixed_folder])] == expected


def test_folder_with_nothing_for_the_tagger_is_told(tagger, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match=r"empty: no sound found; looked for files that end in .*\.wav"):
        find_files(tagger, [tmp_path / "empty"])


def test_image_given_to_a_tagger_of_sounds_is_named(tagger, mixed_folder):
    (tagged,) = tag(tagger, find_files(tagger, [mixed_folder / "b.png"]))
    assert "b.png: this tagger hears log_mels, not images" in tagged.reason
