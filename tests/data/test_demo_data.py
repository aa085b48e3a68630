import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from spectag.audio.files import write_audio
from spectag.audio.synthesis import KINDS, make_demo_scene
from spectag.data.demo_data import make_demo_data
from spectag.data.manifest import read_manifest
from spectag.errors import DataError

SIZES = {"n_curated": 12, "n_noisy": 6, "n_test": 5}


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """The bytes of every visible file."""
    visible = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in visible}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), seed=3, **SIZES)


def test_folder_has_the_layout_of_fsdkaggle2019(data):
    names = contents(data.folder)
    for folder, size in (("train_curated", 12), ("train_noisy", 6), ("test", 5)):
        assert len([name for name in names if name.startswith(f"{folder}/") and name.endswith(".wav")]) == size
    assert {name for name in names if "/" not in name} == {
        "demo_data.json",
        "train_curated.csv",
        "train_noisy.csv",
        "sample_submission.csv",
        "test_answers.csv",
    }
    assert all(path.is_file() for path in (data.train_curated, data.train_noisy, data.sample_submission))
    assert not list(data.folder.glob(".work-*"))


def test_clips_are_16_bit_mono_wav_of_1_to_5_seconds_at_44100_hz(data):
    for path in data.folder.rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.channels, info.samplerate) == ("WAV", "PCM_16", 1, 44_100)
        assert 1 <= info.duration <= 5
        assert len(path.stem) == 8
        int(path.stem, 16)


def test_tables_name_each_clip_once_and_only_known_labels(data):
    for table in (data.train_curated, data.train_noisy):
        rows = rows_of(table)
        assert {row["fname"] for row in rows} == {path.name for path in table.with_suffix("").iterdir()}
        for row in rows:
            labels = row["labels"].split(",")
            assert 1 <= len(labels) <= 3
            assert labels == sorted(set(labels))
            assert set(labels) <= set(KINDS)


def test_submission_has_a_column_of_zeros_per_label_and_the_answers_the_same_rows(data):
    submission, answers = rows_of(data.sample_submission), rows_of(data.test_answers)
    assert list(submission[0]) == list(answers[0]) == ["fname", *data.labels]
    assert [row["fname"] for row in submission] == [row["fname"] for row in answers]
    assert {row["fname"] for row in submission} == {path.name for path in data.test.iterdir()}
    assert {row[label] for row in submission for label in data.labels} == {"0"}
    assert all(1 <= sum(int(row[label]) for label in data.labels) <= 3 for row in answers)


def test_manifests_are_read_without_an_audio_folder(data):
    manifest = read_manifest(data.train_curated)
    assert len(manifest.clips) == 12
    assert all(clip.path.is_file() for clip in manifest.clips)
    answers = read_manifest(data.test_answers, audio_dir=data.test)
    assert [clip.path.parent for clip in answers.clips] == [data.test] * 5


def test_noisy_labels_are_wrong_with_probability_04(tmp_path, monkeypatch):
    monkeypatch.setattr("spectag.data.demo_data.write_audio", lambda path, waveform, sample_rate: path.touch())
    true_labels = []

    def remember(rng, *, labels, sample_rate):
        true_labels.append(labels)
        return make_demo_scene(rng, labels=labels, duration_seconds=0.001, sample_rate=sample_rate)

    monkeypatch.setattr("spectag.data.demo_data.make_demo_scene", remember)
    data = make_demo_data(tmp_path, n_curated=0, n_noisy=400, n_test=0)
    table_labels = [row["labels"].split(",") for row in rows_of(data.train_noisy)]
    assert [len(labels) for labels in table_labels] == [len(labels) for labels in true_labels]
    wrong = [
        label for labels, truth in zip(table_labels, true_labels, strict=True) for label in set(labels) - set(truth)
    ]
    assert len(wrong) / sum(map(len, table_labels)) == pytest.approx(0.4, abs=0.06)
    assert set(wrong) == set(KINDS)


def test_same_seed_gives_the_same_bytes_and_another_seed_other_sounds(data, tmp_path):
    again = make_demo_data(tmp_path / "again", seed=3, **SIZES)
    assert contents(again.folder) == contents(data.folder)
    other = make_demo_data(tmp_path / "other", seed=4, **SIZES)
    assert not {name for name in contents(other.folder) if name.endswith(".wav")} & set(contents(data.folder))


def test_complete_data_set_is_not_written_again(data, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in data.folder.rglob("*")}
    monkeypatch.setattr("spectag.data.demo_data.write_audio", None)
    calls = []
    assert make_demo_data(data.folder, seed=3, **SIZES, progress=lambda *done: calls.append(done)) == data
    assert {path: path.stat().st_mtime_ns for path in data.folder.rglob("*")} == before
    assert {(n_done, n_total) for _, n_done, n_total in calls} == {(23, 23)}


def test_interrupted_run_is_completed_with_the_same_files(data, tmp_path):
    def stop_at_10(step, n_done, n_total):
        if n_done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_data(tmp_path / "demo", seed=3, **SIZES, progress=stop_at_10)
    assert len(list((tmp_path / "demo").rglob("*.wav"))) == 10  # tables are not counted
    assert not list((tmp_path / "demo").glob(".work-*"))
    calls = []
    make_demo_data(tmp_path / "demo", seed=3, **SIZES, progress=lambda *done: calls.append(done))
    assert contents(tmp_path / "demo") == contents(data.folder)
    assert calls[0] == ("making sounds", 10, 23)
    assert calls[-1] == ("making sounds", 23, 23)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_run_is_completed_without_unfinished_files(data, tmp_path):
    folder = tmp_path / "demo"
    code = f"from spectag.data.demo_data import make_demo_data; make_demo_data({str(folder)!r}, seed=3, **{SIZES})"
    process = subprocess.Popen([sys.executable, "-c", code])
    while process.poll() is None and len(list(folder.rglob("*.wav"))) < 5:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    make_demo_data(folder, seed=3, **SIZES)
    assert contents(folder) == contents(data.folder)
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} <= {".lock"}


def test_deleted_clip_is_written_again(data, tmp_path):
    folder = make_demo_data(tmp_path, seed=3, **SIZES).folder
    next(folder.rglob("*.wav")).unlink()
    data_csv = folder / "train_curated.csv"
    data_csv.unlink()
    make_demo_data(folder, seed=3, **SIZES)
    assert contents(folder) == contents(data.folder)


def test_other_folder_is_not_overwritten(tmp_path):
    write_audio(tmp_path / "my only copy.wav", np.zeros(10, np.float32), 44_100)
    with pytest.raises(DataError, match=r"contains my only copy\.wav, which is not part of the demo; name"):
        make_demo_data(tmp_path, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["my only copy.wav"]


@pytest.mark.parametrize("changed", [{"seed": 4}, {"n_test": 6}])
def test_demo_data_of_another_seed_or_size_is_not_overwritten(data, changed):
    before = contents(data.folder)
    with pytest.raises(DataError, match=r'contains other demo data: .*"seed": 3.*not .*name a new folder, or delete'):
        make_demo_data(data.folder, **{"seed": 3, **SIZES, **changed})
    assert contents(data.folder) == before


def test_unusable_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: need a folder for the demo's sounds, got a file"):
        make_demo_data(tmp_path / "file", **SIZES)
    with pytest.raises(DataError, match="the demo's sounds can't be written: Not a directory"):
        make_demo_data(tmp_path / "file" / "demo", **SIZES)


def test_folder_with_spaces_umlauts_and_parents_is_created(tmp_path):
    data = make_demo_data(str(tmp_path / "neue Ordner" / "Geräusche 1"), n_curated=1, n_noisy=0, n_test=1)
    assert len(rows_of(data.train_curated)) == 1
    assert rows_of(data.train_noisy) == []


def test_negative_sizes_are_errors(tmp_path):
    with pytest.raises(ValueError, match="seed and sizes must be 0 or more, got 0, -1, 40, 60"):
        make_demo_data(tmp_path, n_curated=-1)
