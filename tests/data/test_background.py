"""Background recordings as clips without labels."""

import numpy as np
import pytest

from spectag.audio.files import write_audio
from spectag.data import background
from spectag.data.background import with_background
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.errors import DataError

RATE = 8000


def write_noise(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, np.random.default_rng(0).normal(0, 0.1, round(seconds * RATE)).astype(np.float32), RATE)
    return path


def make_manifest(folder, seconds=(2.0, 2.0, 5.0), folds=None):
    """Clips of one label with these lengths."""
    folds = folds or [None] * len(seconds)
    clips = tuple(
        Clip(write_noise(folder / f"{number}.wav", length), f"{number}.wav", ("Dog",), fold)
        for number, (length, fold) in enumerate(zip(seconds, folds, strict=True))
    )
    return Manifest(folder / "labels.csv", clips, LabelSet(("Dog",)))


def added(manifest, folder, **options):
    """Name, start and end of each background clip."""
    clips = with_background(manifest, folder, **options).clips[len(manifest.clips) :]
    assert not any(clip.labels or clip.unknown for clip in clips)
    return [(clip.fname, clip.start_seconds, clip.end_seconds) for clip in clips]


def test_long_recording_is_cut_into_clips_of_the_median_length_and_a_short_one_is_one(tmp_path):
    manifest = make_manifest(tmp_path / "clips")  # the median clip has 2 s
    write_noise(tmp_path / "quiet/rain/long.wav", 7)
    write_noise(tmp_path / "quiet/short.wav", 3)
    log = []
    assert added(manifest, tmp_path / "quiet", log=log.append) == [
        ("quiet/rain/long.wav", 0.0, 2.0),
        ("quiet/rain/long.wav", 2.0, 4.0),
        ("quiet/rain/long.wav", 4.0, 6.0),  # the last second is not used
        ("quiet/short.wav", 0.0, None),
    ]
    assert log == ["background: 4 clips of up to 2 s from 2 recordings"]


def test_excerpts_of_a_manifest_have_their_own_length(tmp_path):
    clip = Clip(write_noise(tmp_path / "a.wav", 9), "a.wav", ("Dog",), start_seconds=4.0, end_seconds=5.5)
    write_noise(tmp_path / "quiet/a.wav", 4)
    manifest = Manifest(tmp_path / "labels.csv", (clip,), LabelSet(("Dog",)))
    assert [times for _, *times in added(manifest, tmp_path / "quiet")] == [[0.0, 1.5], [1.5, 3.0]]


def test_too_many_clips_are_thinned_out_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "MIN_BACKGROUND_CLIPS", 5)
    for name in ("a", "b"):
        write_noise(tmp_path / f"quiet/{name}.wav", 10)
    clips = added(make_manifest(tmp_path / "clips"), tmp_path / "quiet")
    assert [(name, start) for name, start, _ in clips] == [
        ("quiet/a.wav", 0.0),
        ("quiet/a.wav", 4.0),
        ("quiet/a.wav", 8.0),  # 4.5 of 0 to 9 is rounded to the even number
        ("quiet/b.wav", 4.0),
        ("quiet/b.wav", 8.0),
    ]


def test_recordings_get_folds_only_if_all_clips_have_one_and_stay_whole(tmp_path):
    for number in range(6):
        write_noise(tmp_path / f"quiet/{number}.wav", 4.0)
    without = make_manifest(tmp_path / "clips", [2.0] * 3, ["1", "2", None])
    assert {clip.fold for clip in with_background(without, tmp_path / "quiet").clips[3:]} == {None}
    manifest = make_manifest(tmp_path / "clips", [2.0] * 3, ["1", "1", "2"])
    clips = with_background(manifest, tmp_path / "quiet").clips[3:]
    folds_of = {clip.fname: set() for clip in clips}
    for clip in clips:
        folds_of[clip.fname].add(clip.fold)
    assert sorted(map(sorted, folds_of.values())) == [["1"]] * 4 + [["2"]] * 2  # two thirds, as of the clips


def test_what_cannot_be_read_is_a_clip_so_that_training_reports_it(tmp_path):
    (tmp_path / "quiet").mkdir()
    (tmp_path / "quiet/damaged.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"none of its 1 recordings can be read: .*damaged\.wav"):
        added(make_manifest(tmp_path / "clips"), tmp_path / "quiet")
    write_noise(tmp_path / "quiet/good.wav", 1.0)
    assert {name for name, _, _ in added(make_manifest(tmp_path / "clips"), tmp_path / "quiet")} == {
        "quiet/damaged.wav",
        "quiet/good.wav",
    }


def test_errors_say_what_is_wrong_with_the_folder(tmp_path):
    manifest = make_manifest(tmp_path / "clips")
    (tmp_path / "quiet").mkdir()
    with pytest.raises(DataError, match=r"background .*quite: no such folder; did you mean 'quiet'\?"):
        with_background(manifest, tmp_path / "quite")
    with pytest.raises(
        DataError, match="quiet: no sounds in this folder; expected recordings without any of the labels"
    ):
        with_background(manifest, tmp_path / "quiet")
    with pytest.raises(DataError, match=r"3 of its sounds have labels in .*labels.csv: .*0.wav"):
        with_background(manifest, tmp_path / "clips")
    images = Manifest(tmp_path / "images", (Clip(tmp_path / "a.png", "a.png", ("Dog",)),), LabelSet(("Dog",)))
    with pytest.raises(DataError, match=r"images contains images, which cannot be compared with sounds"):
        with_background(images, tmp_path / "clips")
