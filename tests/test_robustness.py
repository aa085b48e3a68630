"""Three hundred damaged files, pipes, devices and sparse giants, tagged by the command together with good files.

benchmarks/robustness.py does the same with ten thousand.
"""

import csv
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.bundles import LABELS, make_bundle, tone
from helpers.damaged_files import (
    DAMAGES,
    OTHER_FAMILIES,
    available_families,
    chunks_of,
    make_damaged_file,
    sound,
    suffix_of,
    write_sparse_giant,
)
from spectag.audio.files import audio_info, open_stream, write_audio

pytestmark = pytest.mark.skipif(os.name == "nt", reason="makes pipes, sockets and links to devices")
N_INPUTS = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and three good sounds."""
    folder = tmp_path_factory.mktemp("robustness")
    make_bundle(folder / "model")
    (folder / "sounds").mkdir()
    for number, label in enumerate(LABELS):
        write_audio(folder / "sounds" / f"000{number}5 good.wav", tone(label, 1.0), 16_000)
    return folder


@pytest.fixture(scope="module")
def good_rows(folder):
    """The rows of the good sounds without the others."""
    done = tag(folder)
    assert done.returncode == 0
    return table(folder)


@pytest.fixture(scope="module")
def tagged(folder, good_rows):
    """The damaged files, and the command that has tagged all."""
    inputs = [make_damaged_file(folder / "sounds", number) for number in range(N_INPUTS)]
    return inputs, tag(folder)


def tag(folder):
    command = [sys.executable, "-m", "spectag", "tag", "model", "sounds", "-o", "out", "--format", "wide"]
    environment = os.environ | {"TMPDIR": str(folder / "tmp"), "SPECTAG_CACHE": str(folder / "cache")}
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return {Path(row["file"]).name: row for row in csv.DictReader(file)}


def table(folder):
    """The rows of the table of probabilities by file name."""
    (path,) = (path for path in (folder / "out").glob("*.csv") if path.name != "status.csv")
    return rows_of(path)


def test_inputs_are_of_many_families_and_repeat(tmp_path):
    assert len(available_families()) >= 28
    for number in range(0, 200, 7):
        paths = [make_damaged_file(tmp_path, number).path]
        (tmp_path / "again").mkdir(exist_ok=True)
        paths.append(make_damaged_file(tmp_path / "again", number).path)
        if paths[0].is_file() and paths[0].stat().st_size < 1 << 30:
            assert paths[0].read_bytes() == paths[1].read_bytes()
    n_families = len(available_families()) + len(OTHER_FAMILIES)
    numbers = range(0, len(DAMAGES) * n_families, n_families)
    assert {make_damaged_file(tmp_path, number).damage for number in numbers} == set(DAMAGES)
    for family in available_families():
        assert b"".join(chunks_of(sound(family, 0))) == sound(family, 0)


def test_command_ends_without_noise_and_leaves_nothing(folder, tagged):
    _, done = tagged
    assert done.returncode == 3
    assert done.stdout == ""
    known = ("tagging", "skipped: ", "note: ", "no label detected")
    summary, written, next_step, *others = [line for line in done.stderr.splitlines() if not line.startswith(known)]
    assert summary.partition(",")[0].endswith("files tagged")
    assert written.startswith("tags: ")
    assert next_step.startswith("next: spectag ")
    assert all(line.startswith("      spectag ") for line in others)
    assert list((folder / "tmp").iterdir()) == []


def test_every_input_has_a_status_and_every_refused_one_a_reason(folder, tagged):
    inputs, _ = tagged
    statuses = rows_of(folder / "out" / "status.csv")
    assert {damaged.damage for damaged in inputs} >= set(DAMAGES)
    assert {damaged.family for damaged in inputs} == {*available_families(), *OTHER_FAMILIES}
    for damaged in inputs:
        if damaged.damage == "link to a folder":
            continue
        status = statuses[damaged.path.name]
        assert status["status"] in ("done", "truncated", "skipped"), damaged
        assert (status["status"] == "skipped") == (status["reason"] != ""), (damaged, status)
        assert "unexpected " not in status["reason"], status
        assert "\n" not in status["reason"], status
    assert {status["status"] for status in statuses.values()} == {"done", "truncated", "skipped"}


def test_probabilities_are_finite_and_those_of_good_files_are_the_same_as_without_the_others(folder, tagged, good_rows):
    rows = table(folder)
    assert len(good_rows) == len(LABELS)
    assert {name: rows[name] for name in good_rows} == good_rows
    assert all(math.isfinite(float(row[label])) for row in rows.values() for label in LABELS)


@pytest.mark.parametrize("family", ["wav PCM_16", "opus", "eac3", "webm opus"])
def test_zeros_after_a_sound_are_not_searched_up_to_the_end_of_a_giant_file(tmp_path, monkeypatch, family):
    monkeypatch.setattr("spectag.audio.av_decoder._MAX_BYTES_WITHOUT_SOUND", 1 << 22)
    if family not in available_families():
        pytest.skip(f"no encoder for {family}")
    path = tmp_path / f"a{suffix_of(family)}"
    write_sparse_giant(path, family)
    begin = time.monotonic()
    assert audio_info(path).duration_seconds == pytest.approx(1.3, abs=0.1)
    with open_stream(path) as stream:
        assert sum(map(len, stream.blocks)) / stream.sample_rate == pytest.approx(1.3, abs=0.1)
    assert time.monotonic() - begin < 60  # a second; minutes if all was read


def test_container_whose_packets_have_no_times_is_not_shorter_than_nothing(tmp_path, monkeypatch):
    if "mkv with video" not in available_families():
        pytest.skip("no encoder for mkv with video")
    path = tmp_path / "a.mkv"
    path.write_bytes(sound("mkv with video", 0))
    monkeypatch.setattr("spectag.audio.av_decoder.AvDecoder._packets", lambda _: iter(()))
    monkeypatch.setattr("spectag.audio.av_decoder.AvDecoder._declared_seconds", lambda _: None)
    assert audio_info(path).n_samples == 0
