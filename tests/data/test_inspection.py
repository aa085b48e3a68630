"""The inspection finds each problem that a manifest has, and no other."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from helpers.paths import SHARED
from spectag.cli.commands.inspect import print_inspection
from spectag.data.clips import Manifest
from spectag.data.inspection import Duplicates, Leak, RareLabel, SharedPair, inspect
from spectag.data.manifest import read_manifest
from spectag.errors import DataError

RATE = 8000


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def noise(rng: np.random.Generator, seconds: float = 0.5) -> np.ndarray:
    """Values that 16 bits represent exactly, so that wav and flac have the same samples."""
    return np.round(rng.normal(0, 0.1, round(seconds * RATE)).clip(-0.9, 0.9) * 32768) / 32768


def manifest_of(folder: Path, sounds: dict[str, np.ndarray], table: str) -> Manifest:
    for name, samples in sounds.items():
        soundfile.write(folder / name, samples, RATE)
    (folder / "clips.csv").write_text(table, encoding="utf-8")
    return read_manifest(folder / "clips.csv")


def test_truncated_clips_and_channels_that_cancel_are_found(tmp_path, rng, capsys):
    samples = noise(rng)
    soundfile.write(tmp_path / "c.wav", np.stack([samples, -samples], axis=1), RATE)
    table = "fname,labels\na.wav,x\nb.wav,y\nc.wav,y"
    manifest = manifest_of(tmp_path, {"a.wav": noise(rng), "b.wav": noise(rng)}, table)
    (tmp_path / "b.wav").write_bytes((tmp_path / "b.wav").read_bytes()[: 44 + 2000])
    inspection = inspect(manifest, find_shared_audio=False)
    assert inspection.truncated == {"b.wav": 0.5}
    assert inspection.channels_cancel == ("c.wav",)
    print_inspection(inspection)
    assert "its header announces 0.50 s" in " ".join(capsys.readouterr().out.split())


def test_labels_lengths_rates_and_channels_are_counted(tmp_path, rng):
    soundfile.write(tmp_path / "stereo.wav", rng.normal(0, 0.1, (22_050, 2)), 22_050)
    manifest = manifest_of(
        tmp_path,
        {"a.wav": noise(rng, 0.5), "b.wav": noise(rng, 2)},
        'fname,labels\na.wav,Bark\nb.wav,"Bark,Run"\nstereo.wav,\n',
    )
    inspection = inspect(manifest)
    assert (inspection.n_clips, inspection.n_files) == (3, 3)
    assert inspection.clips_per_label == {"Bark": 2, "Run": 1}
    assert inspection.labels_per_clip == {0: 1, 1: 1, 2: 1}
    assert inspection.without_labels == ("stereo.wav",)
    assert inspection.sample_rates == {8000: 2, 22_050: 1}
    assert inspection.channels == {1: 2, 2: 1}
    assert inspection.durations is not None
    assert inspection.durations.min_seconds == 0.5
    assert inspection.durations.median_seconds == 1
    assert inspection.durations.max_seconds == 2
    assert inspection.durations.mean_seconds == pytest.approx(3.5 / 3)
    assert inspection.durations.total_hours == pytest.approx(3.5 / 3600)
    assert not inspection.unreadable
    assert not inspection.silent
    assert not inspection.clipped
    assert not inspection.duplicates


def test_silent_and_clipped_clips_are_found(tmp_path, rng):
    t = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 440 * t)
    once = noise(rng, 1)
    once[100] = 1.0
    sounds = {
        "zeros.wav": np.zeros(RATE),
        "below.wav": 0.0009 * tone,  # -60.9 dBFS
        "above.wav": 0.0011 * tone,  # -59.2 dBFS
        "loud.wav": 0.99 * tone,
        "once.wav": once,  # a peak at full scale is no clipping
        "clipped.wav": np.clip(2 * tone, -1, 1),  # two thirds of the time beyond sin(30 degrees)
    }
    inspection = inspect(manifest_of(tmp_path, sounds, "fname,labels\n" + "".join(f"{name},x\n" for name in sounds)))
    assert inspection.silent == ("zeros.wav", "below.wav")
    assert list(inspection.clipped) == ["clipped.wav"]
    assert inspection.clipped["clipped.wav"] == pytest.approx(2 / 3, abs=0.02)


def test_unreadable_files_are_listed_with_the_reason(tmp_path, rng):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is no sound" * 9)
    manifest = manifest_of(tmp_path, {"a.wav": noise(rng)}, "fname,labels\nempty.wav,x\na.wav,x\ntext.wav,x\n")
    inspection = inspect(manifest)
    assert list(inspection.unreadable) == ["empty.wav", "text.wav"]
    assert "0 bytes" in inspection.unreadable["empty.wav"]
    assert str(tmp_path) not in inspection.unreadable["empty.wav"]
    assert inspection.sample_rates == {RATE: 1}


def test_manifest_without_readable_clips_can_be_inspected(tmp_path):
    (tmp_path / "empty.wav").touch()
    inspection = inspect(manifest_of(tmp_path, {}, "fname,labels\nempty.wav,x\n"))
    assert inspection.durations is None
    assert list(inspection.unreadable) == ["empty.wav"]


def test_duplicates_are_found_in_different_formats(tmp_path, rng):
    same, other = noise(rng), noise(rng)
    manifest = manifest_of(
        tmp_path,
        {"a.wav": same, "b.flac": same, "c.wav": same, "d.wav": other, "e.wav": other, "f.wav": noise(rng)},
        "fname,labels,fold\na.wav,x,1\nb.flac,y,1\nc.wav,x,2\nd.wav,y,1\ne.wav,y,1\nf.wav,y,2\n",
    )
    assert inspect(manifest).duplicates == (
        Duplicates(("a.wav", "b.flac", "c.wav"), across_folds=True, labels_differ=True),
        Duplicates(("d.wav", "e.wav"), across_folds=False, labels_differ=False),
    )


def test_an_unknown_label_is_no_difference_between_duplicates_and_no_negative(tmp_path, rng):
    same, other = noise(rng), noise(rng)
    sounds = {"a.wav": same, "b.wav": same, "c.wav": other, "d.wav": other, "e.wav": noise(rng)}
    table = "fname,x,y\na.wav,1,0\nb.wav,,0\nc.wav,1,0\nd.wav,0,\ne.wav,0,0\n"
    inspection = inspect(manifest_of(tmp_path, sounds, table), find_shared_audio=False)
    assert [(same.clips, same.labels_differ) for same in inspection.duplicates] == [
        (("a.wav", "b.wav"), False),
        (("c.wav", "d.wav"), True),
    ]
    assert inspection.without_labels == ("e.wav",)


def test_groups_and_recordings_in_two_folds_are_leaks(tmp_path, rng):
    manifest = manifest_of(
        tmp_path,
        {"a.wav": noise(rng), "b.wav": noise(rng), "c.wav": noise(rng, 3), "d.wav": noise(rng)},
        "fname,labels,fold,group,start,end\n"
        "a.wav,x,1,yard,,\nb.wav,x,2,yard,,\nc.wav,x,1,,0,1\nc.wav,x,1,,1,2\nc.wav,x,2,,2,3\nd.wav,x,2,,,\n",
    )
    assert inspect(manifest).leaks == (
        Leak("yard", {"1": 1, "2": 1}),
        Leak(str(tmp_path / "c.wav"), {"1": 2, "2": 1}),
    )


def test_rare_labels_are_counted_by_groups(tmp_path, rng):
    manifest = manifest_of(
        tmp_path,
        {f"{name}.wav": noise(rng) for name in "abcde"},
        'fname,labels,group\na.wav,"x,y",1\nb.wav,"x,y",1\nc.wav,x,2\nd.wav,"x,z",3\ne.wav,"x,z",4\n',
    )
    assert inspect(manifest).rare_labels == ()
    assert inspect(manifest).n_folds is None
    assert inspect(manifest, folds=2).rare_labels == (RareLabel("y", n_clips=2, n_groups=1),)
    assert inspect(manifest, folds=5).rare_labels == (
        RareLabel("x", n_clips=5, n_groups=4),
        RareLabel("y", n_clips=2, n_groups=1),
        RareLabel("z", n_clips=2, n_groups=2),
    )


def test_number_of_folds_defaults_to_that_of_the_manifest(tmp_path, rng):
    manifest = manifest_of(
        tmp_path, {"a.wav": noise(rng), "b.wav": noise(rng)}, "fname,labels,fold\na.wav,x,train\nb.wav,y,val\n"
    )
    inspection = inspect(manifest)
    assert inspection.clips_per_fold == {"train": 1, "val": 1}
    assert inspection.n_folds == 2
    assert [rare.label for rare in inspection.rare_labels] == ["x", "y"]


def test_clip_is_measured_within_its_times_and_reported_if_its_file_ends_earlier(tmp_path, rng):
    half_silent = np.concatenate([np.zeros(RATE), noise(rng, 1)])
    manifest = manifest_of(
        tmp_path,
        {"a.wav": half_silent},
        "fname,labels,start,end\na.wav,x,0,1\na.wav,x,1,2.01\na.wav,x,1.5,2.5\na.wav,x,3,4\n",
    )
    inspection = inspect(manifest)
    assert inspection.silent == ("a.wav (0-1 s)",)
    assert inspection.past_end == ("a.wav (1.5-2.5 s)",)
    assert list(inspection.unreadable) == ["a.wav (3-4 s)"]
    assert inspection.n_files == 1


def test_clips_below_half_a_second_are_very_short(tmp_path, rng):
    sounds = {"a.wav": noise(rng, 0.03), "b.wav": noise(rng, 0.5), "c.wav": noise(rng, 2)}
    inspection = inspect(manifest_of(tmp_path, sounds, "fname,labels\na.wav,x\nb.wav,x\nc.wav,x\n"))
    assert inspection.very_short == {"a.wav": pytest.approx(0.03, abs=1e-3)}


def test_reading_in_blocks_gives_the_same_measurements(tmp_path, rng, monkeypatch):
    manifest = manifest_of(
        tmp_path,
        {"a.wav": noise(rng, 3.3), "b.flac": noise(rng, 0.1)},
        "fname,labels,start,end\na.wav,x,,\na.wav,x,0.7,2.9\nb.flac,x,,\n",
    )
    whole = inspect(manifest, workers=1)
    monkeypatch.setattr("spectag.data.inspection._BLOCK_SECONDS", 0.5)
    assert inspect(manifest, workers=1) == whole


def test_several_processes_give_the_same_result_and_report_progress(tmp_path, rng):
    sounds = {f"{number}.wav": noise(rng, 0.1) for number in range(9)}
    (tmp_path / "empty.wav").touch()
    table = "fname,labels\nempty.wav,x\n" + "".join(f"{name},x\n" for name in sounds)
    manifest = manifest_of(tmp_path, sounds, table)
    calls: list[tuple[str, int, int]] = []
    inspection = inspect(manifest, find_shared_audio=False, workers=2, progress=lambda *call: calls.append(call))
    assert inspection == inspect(manifest, find_shared_audio=False, workers=1)
    assert calls == [("inspect", done, 10) for done in range(11)]


def test_images_are_inspected(tmp_path, rng):
    for folder in ("Bark", "Run"):
        (tmp_path / folder).mkdir()
    picture = Image.fromarray(rng.integers(0, 255, (128, 90), np.uint8))
    picture.save(tmp_path / "Bark" / "a.png")
    picture.save(tmp_path / "Run" / "b.png")
    (tmp_path / "Run" / "c.png").write_bytes(b"\x89PNG")
    inspection = inspect(read_manifest(tmp_path))
    assert inspection.holds_images
    assert inspection.image_sizes == {"90 x 128": 2}
    assert inspection.unreadable == {"Run/c.png": "the file is not an image"}
    assert inspection.duplicates == (Duplicates(("Bark/a.png", "Run/b.png"), False, labels_differ=True),)
    assert inspection.durations is None


def test_mix_of_images_and_sounds_is_an_error(tmp_path, rng):
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    manifest = manifest_of(tmp_path, {"a.wav": noise(rng)}, "fname,labels\na.wav,x\nb.png,x\n")
    with pytest.raises(DataError, match="1 of 2 clips are images"):
        inspect(manifest)


def test_inspection_can_be_json(tmp_path, rng):
    manifest = manifest_of(tmp_path, {"a.wav": noise(rng)}, "fname,labels,fold\na.wav,x,1\n")
    result = json.loads(json.dumps(inspect(manifest).to_dict()))
    assert result["source"] == str(tmp_path / "clips.csv")
    assert result["clips_per_label"] == {"x": 1}
    assert result["durations"]["max_seconds"] == 0.5
    assert result["rare_labels"] == []


@pytest.mark.parametrize("width", [80, 120])
def test_output_fits_the_width_of_the_terminal(tmp_path, rng, width, capsys, monkeypatch):
    (tmp_path / "leer [bold].wav").touch()
    same = noise(rng)
    manifest = manifest_of(
        tmp_path,
        {"Möwe [1].wav": same, "b.wav": same, "stumm.wav": np.zeros(99)},
        "fname,labels,fold,group\nleer [bold].wav,x,1,\nMöwe [1].wav,Möwe,1,yard\nb.wav,x,2,yard\nstumm.wav,,2,\n",
    )
    monkeypatch.setenv("COLUMNS", str(width))
    print_inspection(inspect(manifest))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= width  # the first holds the path, which must stay whole to be copied
    text = " ".join(" ".join(lines).split())
    assert "4 clips in 4 files, 2 labels" in text
    for found in ("leer [bold].wav", "Möwe [1].wav = b.wav", "stumm.wav", "yard: 1 in fold 1, 1 in fold 2", "2 folds"):
        assert found in text


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/esc10")
def test_esc10_keeps_its_sources_within_its_folds():
    manifest = read_manifest(SHARED / "data" / "esc10" / "esc10.csv", group_column="source")
    few = Manifest(manifest.source, manifest.clips[::10], manifest.labels)
    inspection = inspect(few, workers=1)
    assert not inspection.unreadable
    assert not inspection.leaks
    assert not inspection.duplicates
    assert inspection.sample_rates == {44_100: 40}


def test_clips_that_share_audio_are_found_in_the_manifest_and_in_another_one(tmp_path, rng):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    first, second = rng.normal(0, 0.1, (2, 5 * RATE))
    train = manifest_of(
        tmp_path / "train",
        {"a.wav": first, "b.wav": first[2 * RATE :] / 2, "c.wav": rng.normal(0, 0.1, 3 * RATE), "d.wav": second},
        "fname,labels,fold\na.wav,x,1\nb.wav,x,2\nc.wav,x,1\nd.wav,x,1\n",
    )
    mixture = second[RATE:] + rng.normal(0, 0.1, 4 * RATE)
    test = manifest_of(tmp_path / "test", {"e.wav": mixture}, "fname,labels\ne.wav,x\n")
    inspection = inspect(train, compare_with=[test], cache=tmp_path / "cache")
    within, between = inspection.shared_audio
    assert (within.n_clips, within.other) == (2, None)
    assert within.pairs == (SharedPair("a.wav", "b.wav", 2.0, across_folds=True),)
    assert (between.n_clips, between.n_others, between.other) == (1, 1, str(test.source))
    assert between.pairs == (SharedPair("d.wav", "e.wav", 1.0, across_folds=False),)
    assert inspect(train, find_shared_audio=False).shared_audio == ()


def test_parts_of_one_file_and_clips_of_one_group_are_not_reported_as_sharing_audio(tmp_path, rng):
    sound = rng.normal(0, 0.1, 4 * RATE)
    manifest = manifest_of(
        tmp_path,
        {"a.wav": sound, "b.wav": sound},
        "fname,labels,group,start,end\na.wav,x,yard,0,3\na.wav,x,yard,1,4\nb.wav,x,yard,0,4\n",
    )
    assert [shared.pairs for shared in inspect(manifest, cache=tmp_path / "cache").shared_audio] == [()]


def test_unknown_labels_and_weights_are_counted(tmp_path, rng, capsys):
    sounds = {f"{name}.wav": noise(rng) for name in "abc"}
    table = "fname,weight,Bark,Run,Owl\na.wav,0.5,1,,0\nb.wav,,0,,1\nc.wav,2,,1,0\n"
    inspection = inspect(manifest_of(tmp_path, sounds, table), find_shared_audio=False)
    assert inspection.clips_per_label == {"Bark": 1, "Run": 1, "Owl": 1}
    assert inspection.unknown_per_label == {"Bark": 1, "Run": 2}
    assert inspection.weights == (0.5, 2.0)
    print_inspection(inspection)
    out = capsys.readouterr().out
    assert "unknown labels   3 (Bark: 1, Run: 2)" in out
    assert "weights          0.5 to 2" in out


def test_manifest_without_unknown_labels_and_weights_says_nothing_of_them(tmp_path, rng, capsys):
    inspection = inspect(manifest_of(tmp_path, {"a.wav": noise(rng)}, "fname,labels\na.wav,x\n"))
    assert (inspection.unknown_per_label, inspection.weights) == ({}, None)
    print_inspection(inspection)
    out = capsys.readouterr().out
    assert "unknown labels" not in out
    assert "weights  " not in out
