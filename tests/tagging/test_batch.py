"""Tagging many files into tables: in order, complete, and the same bytes however often the run was stopped."""

import csv
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import numpy_helper
from scipy.special import expit, logit

from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from helpers.command import python, run_without, start, write_tones
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.cli.commands.tag import _why_no_label
from spectag.config.tagging import TagSettings
from spectag.data.labels import LabelSet
from spectag.errors import ConfigError, DataError
from spectag.models.bundle import DataInfo
from spectag.models.novelty import NoveltyInfo
from spectag.models.tagger import Tagger
from spectag.models.training_sounds import Spread, TrainingSounds
from spectag.tagging import batch
from spectag.tagging.batch import tag_to_tables
from spectag.tagging.chosen_labels import ChosenLabels
from spectag.tagging.events import windows_to_tag
from spectag.tagging.input_files import find_files, no_files_in_list
from spectag.tagging.parallel import tag_chunk, tag_chunks

FORMATS = "csv,jsonl,wide,raven,raven-combined,audacity,kaleidoscope"


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "ein Modell")


@pytest.fixture
def sounds(tmp_path):
    write_tones(tmp_path / "sounds", 9)
    (tmp_path / "sounds" / "leer, groß.wav").write_bytes(b"")
    (tmp_path / "sounds" / "text.wav").write_text("no sound, but long enough for a decoder to try")
    return tmp_path / "sounds"


def write_absurd_sound(path):
    """A second of silence, with one sample whose power is infinite in float32."""
    waveform = np.zeros(16_000, np.float32)
    waveform[4_000] = 1e20
    soundfile.write(path, waveform, 16_000, subtype="FLOAT")


def rows_of(path):
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """The bytes of all files in a folder, by their paths in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_output_folder_has_all_tables_status_and_settings_but_no_journal(run, model, sounds, tmp_path):
    done = run("tag", model, sounds, "-o", tmp_path / "out", "--format", FORMATS, "--window", "0.1")
    assert done.status == 3
    assert done.out == ""
    assert {name.split("/")[0] for name in contents(tmp_path / "out")} == {
        "tags.csv",
        "tags.jsonl",
        "tags.wide.csv",
        "tags.selections.txt",
        "tags.kaleidoscope.csv",
        "raven",
        "audacity",
        "status.csv",
        "parameters.toml",
    }
    assert len(list((tmp_path / "out" / "raven").iterdir())) == 9
    assert "9 files tagged, 2 skipped" in done.err
    assert "times real time" in done.err


def test_status_table_has_a_row_for_every_file_in_order(run, model, sounds, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text(f"{sounds / 'text.wav'}\n{sounds / 'low 00.wav'}\ngone.wav\n{sounds}\n", encoding="utf-8")
    done = run("tag", model, "--files-from", listed, "-o", tmp_path / "out", "--top", "1")
    assert done.status == 3
    rows = rows_of(tmp_path / "out" / "status.csv")
    assert [Path(row["file"]).name for row in rows][:3] == ["text.wav", "low 00.wav", "gone.wav"]
    assert len(rows) == 12
    status = {Path(row["file"]).name: row for row in rows}
    assert status["low 00.wav"] == {
        "file": str(sounds / "low 00.wav"),
        "status": "done",
        "reason": "",
        "seconds": "0.300",
        "expected_seconds": "",
        "labels": "3 of 3",
        "notes": "very short (0.30 s)",
    }
    assert status["leer, groß.wav"]["status"] == "skipped"
    assert "0 bytes" in status["leer, groß.wav"]["reason"]
    for row in rows:  # the path is in the first column
        assert row["file"] not in row["reason"]
    assert f"skipped: {sounds / 'leer, groß.wav'}: " in done.err
    assert [Path(row["file"]).name for row in rows_of(tmp_path / "out" / "tags.csv")][:1] == ["low 00.wav"]


def test_truncated_silent_and_inverse_sounds_are_noted(run, model, tmp_path):
    folder = tmp_path / "sounds"
    write_tones(folder, 1)
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 16_000).astype(np.float32)
    soundfile.write(folder / "cut.wav", noise, 16_000)
    os.truncate(folder / "cut.wav", 44 + 2 * 4_000)
    soundfile.write(folder / "inverse.wav", np.stack([noise, -noise], axis=1), 16_000)
    soundfile.write(folder / "silent.wav", 0 * noise, 16_000)
    done = run("tag", model, folder, "-o", tmp_path / "out", "--top", "1")
    assert done.status == 0
    status = {Path(row["file"]).name: row for row in rows_of(tmp_path / "out" / "status.csv")}
    assert [status["cut.wav"][name] for name in ("status", "seconds", "expected_seconds")] == [
        "truncated",
        "0.250",
        "1.000",
    ]
    assert status["cut.wav"]["notes"] == "truncated (its header announces 1.000 s); very short (0.25 s)"
    assert status["inverse.wav"]["status"] == "done"
    cancelled = "the channels cancel each other in their mean; use --channel loudest"
    assert status["inverse.wav"]["notes"] == cancelled
    assert status["silent.wav"]["notes"] == "silent (peak below -60 dBFS)"
    assert f"note: {folder / 'inverse.wav'}: {cancelled}" in done.err
    assert "cut.wav: truncated (its header announces 1.000 s)" in run("tag", model, folder / "cut.wav").err


def test_absurd_sound_and_a_model_that_gives_nan_are_not_noted_as_done(run, model, sounds, tmp_path):
    write_absurd_sound(sounds / "absurd.wav")
    (tmp_path / "nan").mkdir()
    write_tones(tmp_path / "nan" / "sounds", 2)
    done = run("tag", model, sounds, "-o", tmp_path / "tags.csv")
    assert done.status == 3
    assert "absurd.wav: the sample at 0.25 s is 1e+20; samples are expected in [-1, 1]" in done.err
    network = onnx.load(model / "model.onnx")
    [weights] = [tensor for tensor in network.graph.initializer if tensor.name == "weights"]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(np.nan), "weights"))
    onnx.save(network, model / "model.onnx")
    done = run("tag", model, tmp_path / "nan" / "sounds", "-o", tmp_path / "nan" / "out", "--window", 0.1)
    assert done.status == 3
    status = rows_of(tmp_path / "nan" / "out" / "status.csv")
    assert {row["status"] for row in status} == {"skipped"}
    assert all("the probabilities from 0 s on are not finite" in row["reason"] for row in status)


def test_interrupted_run_resumes_and_writes_the_same_bytes(model, sounds, tmp_path):
    tagger, files = Tagger(model), find_files([sounds], {".wav"})
    settings = TagSettings(format=FORMATS, window=0.1)
    tag_to_tables(tagger, files, settings, output=str(tmp_path / "whole"))

    tagged = []

    def interrupted_engine(chunks):
        for chunk in chunks:
            if len(tagged) == 4:
                raise KeyboardInterrupt
            tagged.extend(chunk.files)
            yield chunk, tag_chunk(tagger, windows_to_tag(tagger, settings), 1, chunk)

    output = str(tmp_path / "resumed")
    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(tagger, files, settings, output=output, engine=interrupted_engine)
    assert {Path(name).parent.name for name in contents(tmp_path / "resumed")} == {".journal"}
    lines = []
    report = tag_to_tables(tagger, files, settings, output=output, log=lines.append)
    n_tagged = len([file for file in tagged if Path(file).name not in ("leer, groß.wav", "text.wav")])
    assert report.n_resumed == n_tagged
    assert lines == [f"resuming an earlier run, which tagged {n_tagged} of the 11 files"]
    assert contents(tmp_path / "resumed") == contents(tmp_path / "whole")


def test_resumed_run_uses_worker_processes(model, sounds, tmp_path, monkeypatch):
    """Because a file may have crashed the run before."""
    isolated = []

    def recorded_tag_chunks(*arguments, isolate_crashes, **options):
        isolated.append(isolate_crashes)
        return tag_chunks(*arguments, isolate_crashes=isolate_crashes, **options)

    monkeypatch.setattr(batch, "tag_chunks", recorded_tag_chunks)
    files = find_files([sounds], {".wav"})
    output = str(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(batch, "_write_status", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tag_to_tables(Tagger(model), files, TagSettings(), output=output)
    tag_to_tables(Tagger(model), files, TagSettings(), output=output)
    tag_to_tables(Tagger(model), files, TagSettings(), output=output)
    assert isolated == [False, True, False]


def interrupt(*_):
    raise KeyboardInterrupt


def test_order_in_which_chunks_finish_does_not_change_the_tables(model, sounds, tmp_path):
    tagger, files = Tagger(model), find_files([sounds], {".wav"})
    settings = TagSettings(format=FORMATS, window=0.1)

    def backward_engine(chunks):
        for chunk in reversed(chunks):
            yield chunk, tag_chunk(tagger, windows_to_tag(tagger, settings), 1, chunk)

    for folder, engine in (("a", None), ("b", backward_engine)):
        tag_to_tables(tagger, files, settings, output=str(tmp_path / folder), engine=engine)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize("moment", [0.5, 0.8])
def test_killed_command_resumes_and_writes_the_same_bytes(model, tmp_path, moment):
    write_tones(tmp_path / "long", 60, seconds=5.0)
    options = ("--window", "0.05", "--format", "csv,wide", "-j", "2")
    command = ("tag", model, tmp_path / "long", *options, "-o")
    process = start(*command, tmp_path / "killed")
    journal = tmp_path / "killed" / ".journal"
    until = time.monotonic() + 30
    while not list(journal.glob("*.sqlite")) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for folder in ("killed", "whole"):
        process = start(*command, tmp_path / folder)
        process.communicate()
        assert process.returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_changed_file_is_tagged_again(model, sounds, tmp_path):
    tagger, files = Tagger(model), find_files([sounds], {".wav"})
    settings = TagSettings(top=1)
    output = str(tmp_path / "out")

    def engine_interrupted_at_the_end(chunks):
        for chunk in chunks:
            yield chunk, tag_chunk(tagger, windows_to_tag(tagger, settings), 1, chunk)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(tagger, files, settings, output=output, engine=engine_interrupted_at_the_end)
    write_audio(sounds / "leer, groß.wav", tone("high", 0.3), 16_000)
    report = tag_to_tables(tagger, files, settings, output=output)
    assert report.n_resumed == len(files) - 2
    assert [Path(reason.split(":")[0]).name for reason in report.skip_reasons] == ["text.wav"]
    assert "leer, groß.wav" in {Path(row["file"]).name for row in rows_of(tmp_path / "out" / "tags.csv")}


def test_run_resumes_with_another_format_but_not_with_other_windows(model, sounds, tmp_path):
    tagger, files = Tagger(model), find_files([sounds], {".wav"})
    output = str(tmp_path / "out")

    def interrupted_engine(chunks):
        yield chunks[0], tag_chunk(tagger, None, 1, chunks[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(tagger, files, TagSettings(), output=output, engine=interrupted_engine)
    settings = TagSettings(min_confidence=0.2, format="jsonl")
    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(tagger, files, settings, output=output, engine=interrupted_engine)
    report = tag_to_tables(tagger, files, settings, output=output)
    assert report.n_resumed == 2
    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(tagger, files, TagSettings(), output=output, engine=interrupted_engine)
    assert tag_to_tables(tagger, files, TagSettings(window=0.1), output=output).n_resumed == 0


def test_another_model_does_not_resume(model, sounds, tmp_path):
    files = find_files([sounds], {".wav"})
    output = str(tmp_path / "out")

    def interrupted_engine(chunks):
        yield chunks[-1], tag_chunk(Tagger(model), None, 1, chunks[-1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(Tagger(model), files, TagSettings(), output=output, engine=interrupted_engine)
    loud = make_info(front_end=FrontEnd(mel=MEL.model_copy(update={"mean": 0.0})))
    other = Tagger(make_bundle(tmp_path / "other", loud))
    assert tag_to_tables(other, files, TagSettings(), output=output).n_resumed == 0


def test_rewritten_file_of_the_same_size_is_tagged_again(model, tmp_path):
    path = tmp_path / "a.wav"
    output = str(tmp_path / "out")

    def interrupted_engine(chunks):
        yield chunks[0], tag_chunk(Tagger(model), None, 1, chunks[0])
        raise KeyboardInterrupt

    write_audio(path, tone("low", 0.5), 16_000)
    with pytest.raises(KeyboardInterrupt):
        tag_to_tables(Tagger(model), [path], TagSettings(), output=output, engine=interrupted_engine)
    write_audio(path, tone("high", 0.5), 16_000)
    os.utime(path, ns=(0, 0))
    assert tag_to_tables(Tagger(model), [path], TagSettings(), output=output).n_resumed == 0


def test_partial_files_of_a_killed_run_are_removed(model, sounds, tmp_path):
    settings = TagSettings(format="csv,raven", window=0.1)
    output = str(tmp_path / "out")
    partial = [".tags.123.csv", ".status.9.csv", "raven/.low 00.Table.1.selections.77.txt", ".parameters.5.toml"]
    kept = ["notes.txt", ".tags.csv.bak", ".tagsx.1.csv"]
    (tmp_path / "out" / "raven").mkdir(parents=True)
    for name in partial + kept:
        (tmp_path / "out" / name).write_text("")
    tag_to_tables(Tagger(model), [sounds], settings, output=output)
    remaining = contents(tmp_path / "out")
    assert not set(partial) & set(remaining)
    assert set(kept) < set(remaining)


def test_full_disk_loses_no_tagged_file(model, sounds, tmp_path, monkeypatch):
    tagger, files = Tagger(model), find_files([sounds], {".wav"})
    output = str(tmp_path / "out")

    def raise_disk_full(*_, **__):
        raise DataError("tags.csv: cannot be written: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(batch, "write", raise_disk_full)
        with pytest.raises(DataError, match="No space left"):
            tag_to_tables(tagger, files, TagSettings(), output=output)
    assert tag_to_tables(tagger, files, TagSettings(), output=output).n_resumed == len(files) - 2


def test_shards_together_contain_all_files(run, model, sounds, tmp_path):
    assert run("tag", model, sounds, "-o", tmp_path / "whole", "--top", "1").status == 3
    for number in (1, 2, 3):
        run("tag", model, sounds, "-o", tmp_path / "out", "--top", "1", "--shard", f"{number}/3")
    rows = [row for number in (1, 2, 3) for row in rows_of(tmp_path / "out" / f"tags.{number}of3.csv")]
    assert sorted(rows, key=lambda row: row["file"]) == rows_of(tmp_path / "whole" / "tags.csv")
    status = [rows_of(tmp_path / "out" / f"status.{number}of3.csv") for number in (1, 2, 3)]
    assert [len(rows) for rows in status] == [4, 4, 3]


def test_parameters_file_reproduces_the_results(run, model, sounds, tmp_path):
    options = ("--format", "csv,jsonl", "--window", "0.2", "--overlap", "0.1", "--segments", "--hysteresis", "0.5")
    run("tag", model, sounds, "-o", tmp_path / "a", *options, "--min-confidence", "0.3")
    run("tag", model, sounds, "-o", tmp_path / "b", "--config", tmp_path / "a" / "parameters.toml")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.slow
def test_list_is_read_from_stdin(model, sounds):
    process = start("tag", model, "--files-from", "-", "--top", "1", stdin=subprocess.PIPE)
    out, _ = process.communicate(f"{sounds / 'low 00.wav'}\n{sounds / 'high 02.wav'}\n")
    assert process.returncode == 0
    assert [Path(row["file"]).name for row in csv.DictReader(out.splitlines())] == ["low 00.wav", "high 02.wav"]


@pytest.mark.parametrize("output", [(), ("-o", "submission.csv")])
def test_submission_with_an_unreadable_clip_is_not_written(run, model, sounds, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("fname,low\nlow 00.wav,0\ntext.wav,0\n")
    done = run("tag", model, sounds, "--template", "t.csv", *output)
    assert (done.status, done.out) == (1, "")
    assert "1 of its 2 clips cannot be tagged" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs file names made of any bytes")
def test_file_with_an_undecodable_name_is_tagged(run, model, tmp_path):
    (tmp_path / "sounds").mkdir()
    write_audio(tmp_path / "a.wav", tone("middle", 0.5), 16_000)
    (tmp_path / "a.wav").rename(tmp_path / "sounds" / os.fsdecode(b"lat\xe9in.wav"))
    done = run("tag", model, tmp_path / "sounds", "-o", tmp_path / "out", "--format", "csv,wide,raven,parquet")
    assert (done.status, done.out) == (0, "")
    assert "lat\\udce9in.wav,0.000,0.500,middle" in (tmp_path / "out" / "tags.csv").read_text()
    assert "1 file tagged" in done.err


def test_output_must_not_replace_the_list_of_files(run, model, tmp_path):
    (tmp_path / "list.csv").write_text("a.wav\n")
    done = run("tag", model, "--files-from", tmp_path / "list.csv", "-o", tmp_path / "list.csv")
    assert done.status == 2
    assert "the table would replace the list" in done.err
    assert (tmp_path / "list.csv").read_text() == "a.wav\n"


def test_empty_list_is_an_error(run, model, tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    done = run("tag", model, "--files-from", tmp_path / "list.txt")
    expected = "contains no file; expected the path of a sound, a folder or a pattern in each line\n"
    assert done == (1, "", f"spectag: {tmp_path / 'list.txt'}: the list {expected}")
    assert no_files_in_list("-") == f"--files-from -: stdin {expected}".rstrip()


def test_parameters_of_segments_can_be_used_with_another_format(run, model, sounds, tmp_path):
    run("tag", model, sounds, "-o", tmp_path / "a", "--format", "csv,raven")
    options = ("--config", tmp_path / "a" / "parameters.toml", "--format", "csv")
    assert run("tag", model, sounds, "-o", tmp_path / "b", *options).status == 3
    assert (tmp_path / "b" / "tags.csv").read_bytes() == (tmp_path / "a" / "tags.csv").read_bytes()


@pytest.mark.parametrize("options", [(), ("--threshold", "0.4"), ("--top", "1"), ("--window", "0.1")])
def test_multi_hot_table_and_csv_of_a_run_have_the_same_tags(run, model, sounds, tmp_path, options):
    run("tag", model, sounds, "-o", tmp_path / "out", "--format", "csv,multi-hot", *options)
    tags = {(row["file"], float(row["start"]), row["label"]) for row in rows_of(tmp_path / "out" / "tags.csv")}
    table = rows_of(tmp_path / "out" / "tags.multi-hot.csv")
    ones = {(row["file"], float(row["start_time"]), name) for row in table for name in LABELS if row[name] == "1"}
    assert {row[name] for row in table for name in LABELS} <= {"0", "1"}
    assert ones == tags
    assert tags


def test_threshold_is_another_name_for_min_confidence(run, model, sounds):
    assert run("tag", model, sounds, "--threshold", "0.2") == run("tag", model, sounds, "--min-confidence", "0.2")
    both = run("tag", model, sounds, "--threshold", "0.2", "--min-confidence", "0.2")
    assert both.status == 2
    assert "give one of them" in both.err


def test_pooled_windows_give_a_row_for_each_recording(run, model, tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, np.concatenate([tone(label, 0.5) for label in LABELS]), 16_000)
    options = ("--window", "0.5", "--format", "wide")
    windows = [
        [float(value) for value in list(row.values())[3:]]
        for row in csv.DictReader(run("tag", model, path, *options).out.splitlines())
    ]
    mean = expit(np.log(np.mean(np.exp(logit(windows)), axis=0)))
    for clip_level, expected in (("max", np.max(windows, axis=0)), ("mean", mean)):
        (row,) = csv.DictReader(run("tag", model, path, *options, "--clip-level", clip_level).out.splitlines())
        assert [float(row[label]) for label in LABELS] == pytest.approx(expected, abs=1e-6)
        assert (row["start_time"], row["end_time"]) == ("0.0", "1.5")


@pytest.fixture
def model_of_short_clips(tmp_path):
    spread = Spread(low=1.0, median=1.0, high=1.0)
    sounds = TrainingSounds(n_clips=9, level_dbfs=spread, bandwidth_hz=spread, duration_seconds=spread)
    return make_bundle(tmp_path / "short clips", make_info(training_sounds=sounds))


def write_a_clip_and_a_recording(folder):
    """A clip of two seconds, and a recording of eight with the same tone from the third to the fifth second."""
    folder.mkdir()
    write_audio(folder / "clip.wav", tone("middle", 2.0), 16_000)
    high, middle = 0.1 * tone("high", 3.0), tone("middle", 2.0)
    write_audio(folder / "recording.wav", np.concatenate([high, middle, high]), 16_000)
    return folder


def test_recording_longer_than_two_training_clips_is_reported_in_segments(run, model_of_short_clips, tmp_path):
    folder = write_a_clip_and_a_recording(tmp_path / "sounds")
    done = run("tag", model_of_short_clips, folder)
    rows = [row for row in csv.DictReader(done.out.splitlines()) if row["label"] == "middle"]
    assert [Path(row["file"]).name for row in rows] == ["clip.wav", "recording.wav"]
    assert (rows[0]["start"], rows[0]["end"]) == ("0.000", "2.000")
    assert float(rows[1]["start"]) == pytest.approx(3, abs=0.75)
    assert float(rows[1]["end"]) == pytest.approx(5, abs=0.75)
    assert "reported in segments, because longer than 2 s (twice the training clips): 1 of 2 files" in done.err


def test_clips_and_recordings_are_in_one_table_also_after_a_stop(run, model_of_short_clips, tmp_path, monkeypatch):
    folder = write_a_clip_and_a_recording(tmp_path / "sounds")
    run("tag", model_of_short_clips, folder, "-o", tmp_path / "at once", "--format", "csv,jsonl")
    lines = [json.loads(line) for line in (tmp_path / "at once" / "tags.jsonl").read_text().splitlines()]
    assert (lines[0]["start"], lines[0]["end"]) == (0.0, 2.0)
    assert len(lines) > 1
    assert all(line["end"] - line["start"] < 8 and len(line["tags"]) == 1 for line in lines[1:])
    tagger, settings = Tagger(model_of_short_clips), TagSettings(format="csv,jsonl")
    with monkeypatch.context() as patch:
        patch.setattr(batch, "_write_status", interrupt)
        with pytest.raises(KeyboardInterrupt):
            tag_to_tables(tagger, [folder], settings, output=str(tmp_path / "resumed"))
    done = run("tag", model_of_short_clips, folder, "-o", tmp_path / "resumed", "--format", "csv,jsonl")
    assert "2 tagged by an earlier run" in done.err
    assert contents(tmp_path / "resumed") == contents(tmp_path / "at once")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "wide"], "because --format wide needs one row for each: 1 of 2 files; --window 5"),
        (["--top", "1"], "because --top needs one row for each: 1 of 2 files; --window 5"),
        (["--top", "1", "--window", "1"], ""),
        (["--clip-level", "mean"], ""),
        ([], ""),
    ],
)
def test_long_recordings_that_are_averaged_are_counted(run, model_of_short_clips, tmp_path, options, words):
    done = run("tag", model_of_short_clips, write_a_clip_and_a_recording(tmp_path / "sounds"), *options)
    assert words in done.err
    assert ("averaged over their whole length" in done.err) == bool(words)


def test_clip_level_gives_one_row_for_each_recording(run, model_of_short_clips, tmp_path):
    folder = write_a_clip_and_a_recording(tmp_path / "sounds")
    tagger = Tagger(model_of_short_clips)
    command = ("tag", model_of_short_clips, folder, "--min-confidence", "0")
    tables = {how: list(csv.DictReader(run(*command, "--clip-level", how).out.splitlines())) for how in ("max", "mean")}
    for rows in tables.values():
        assert [(row["start"], row["end"]) for row in rows] == [("0.000", "2.000")] * 3 + [("0.000", "8.000")] * 3
    for row in tables["mean"]:  # as in training and evaluation
        tags = tagger.tag(row["file"])
        probability = tags.probabilities[tags.labels.index(row["label"])]
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-6)
    [greatest] = [row for row in tables["max"][3:] if row["label"] == "middle"]
    expected = tagger.probabilities(tone("middle", 1.0), 16_000)[1]
    assert float(greatest["probability"]) == pytest.approx(expected, abs=0.01)


def test_only_chosen_labels_are_reported(run, model, sounds, tmp_path):
    (tmp_path / "Einige Wörter.txt").write_text('middle\n"high"\n\n', encoding="utf-8-sig")
    (tmp_path / "not.txt").write_text("high")
    command = ("tag", model, sounds, "--format", "csv,wide,multi-hot", "--labels", tmp_path / "Einige Wörter.txt")
    run(*command, "--top", 3, "-o", tmp_path / "two")
    run(*command, "--top", 3, "--not-labels", tmp_path / "not.txt", "-o", tmp_path / "one")
    for name, labels in (("two", ["middle", "high"]), ("one", ["middle"])):
        folder = tmp_path / name
        assert {row["label"] for row in rows_of(folder / "tags.csv")} == set(labels)
        assert len(rows_of(folder / "tags.csv")) == len(labels) * 9
        assert list(rows_of(folder / "tags.wide.csv")[0])[3:] == labels
        assert list(rows_of(folder / "tags.multi-hot.csv")[0])[3:] == labels
        assert {row["labels"] for row in rows_of(folder / "status.csv")} == {f"{len(labels)} of 3"}


def test_probabilities_do_not_depend_on_the_chosen_labels(run, model, sounds, tmp_path):
    (tmp_path / "some.txt").write_text("middle")
    some = run("tag", model, sounds, "--min-confidence", 0, "--labels", tmp_path / "some.txt").out.splitlines()
    everything = run("tag", model, sounds, "--min-confidence", 0).out.splitlines()
    assert some == [everything[0], *(row for row in everything if ",middle," in row)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("low\nmidle", "labels.txt, line 2: unknown label 'midle'; did you mean 'middle'? 3 labels are known"),
        ("low, high", "labels.txt, line 1: 2 labels (low, high); write each on a line of its own"),
        ("", "no label is left to report"),
    ],
)
def test_wrong_list_of_labels_is_an_error_before_anything_is_tagged(run, model, sounds, tmp_path, content, words):
    (tmp_path / "labels.txt").write_text(content)
    done = run("tag", model, sounds, "--labels", tmp_path / "labels.txt", "-o", tmp_path / "out")
    assert done.status == 1
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_labels_with_commas_need_no_quotes_in_a_list(tmp_path):
    known = LabelSet(("Chicken, rooster", "Dog", 'a "quoted", word'))
    (tmp_path / "a.txt").write_text('Chicken, rooster\na "quoted", word\n')
    assert ChosenLabels.read(known, tmp_path / "a.txt", None).labels.names == (known.names[0], known.names[2])
    (tmp_path / "b.txt").write_text('"Chicken, rooster"\r\n')
    assert str(ChosenLabels.read(known, tmp_path / "b.txt", None)) == "1 of 3"


def test_segments_join_adjacent_windows(run, model, tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, np.concatenate([tone("middle", 1.0), tone("low", 1.0), tone("middle", 1.5)]), 16_000)
    rows = list(csv.DictReader(run("tag", model, path, "--window", "0.5", "--segments").out.splitlines()))
    assert [(row["label"], float(row["start"]), float(row["end"])) for row in rows] == [
        ("middle", 0, 1),
        ("middle", 2, 3.5),
    ]


def test_raven_and_audacity_tables_of_one_recording_go_to_stdout(run, model, tmp_path):
    path = tmp_path / "a.wav"
    write_audio(path, tone("middle", 1.0), 16_000)
    track = run("tag", model, path, "--window", "0.5", "--format", "audacity").out
    assert track == "0.000000\t1.000000\tmiddle\n"
    selections = run("tag", model, path, "--window", "0.5", "--format", "raven").out.splitlines()
    assert len(selections) == 2
    run("tag", model, path, "--window", "0.5", "--format", "audacity", "-o", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == track


def test_single_audacity_track_for_several_recordings_is_an_error(run, model, sounds, tmp_path):
    done = run("tag", model, sounds, "--format", "audacity", "--window", "0.5", "-o", tmp_path / "a.txt")
    assert done.status == 1
    assert "an Audacity track holds one recording, got 11; give a folder as -o" in done.err
    assert "tagging: 11/11" not in done.err
    assert not (tmp_path / "a.txt").exists()


def test_urls_are_read_and_written(run, model, sounds, tmp_path):
    pytest.importorskip("fsspec")
    done = run("tag", model, f"file://{sounds}", "-o", f"file://{tmp_path}/remote", "--top", "1")
    assert done.status == 3
    run("tag", model, sounds, "-o", tmp_path / "local", "--top", "1")
    remote, local = rows_of(tmp_path / "remote" / "tags.csv"), rows_of(tmp_path / "local" / "tags.csv")
    assert [{**row, "file": Path(row["file"]).name} for row in remote] == [
        {**row, "file": Path(row["file"]).name} for row in local
    ]
    assert remote[0]["file"].startswith("file://")


def test_profile_shows_the_time_of_each_stage(run, model, sounds):
    err = run("tag", model, sounds, "--profile").err
    for stage in ("reading", "resampling", "log-mel", "network", "all"):
        assert stage in err


def test_parquet_without_pyarrow_names_the_extra_before_any_work(model, sounds, tmp_path):
    done = run_without(["pyarrow"], "tag", model, sounds, "-o", tmp_path / "a.parquet")
    assert done.status == 1
    assert "pip install 'spectag[parquet]'" in done.err
    assert "11/11" not in done.err


@pytest.mark.slow
def test_probabilities_do_not_depend_on_the_number_of_workers(run, model, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "s").mkdir()
    for number in range(5):
        sound = rng.uniform(-0.3, 0.3, 30_000 * (number + 1)).astype(np.float32)
        write_audio(tmp_path / "s" / f"{number}.wav", sound, 44_100)
    outputs = {
        run("tag", model, tmp_path / "s", "--window", "0.3", "--format", "wide", "-j", workers).out for workers in "123"
    }
    assert len(outputs) == 1


@pytest.mark.slow
def test_long_recording_does_not_fill_the_memory(model, tmp_path):
    """An hour and a half of float32 at 48 kHz would be a gigabyte."""
    pytest.importorskip("resource")
    path = tmp_path / "long.flac"
    with soundfile.SoundFile(path, "w", samplerate=48_000, channels=1) as file:
        for _ in range(90):
            file.write(np.zeros(60 * 48_000, np.float32))
    script = f"""
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "spectag", "tag", {str(model)!r}, {str(path)!r}, "--window", "30"], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""  # the peak memory of a process includes that of its parent at the start, so the parent is a small process
    *_, kilobytes = python(script).out.split()
    assert int(kilobytes) < 500_000


# ------------------------------------------------------------------------------------------------ novelty and shift


@pytest.fixture
def model_with_novelty(tmp_path):
    spread = Spread(low=-20, median=-15, high=-10)
    training = TrainingSounds(
        n_clips=9,
        level_dbfs=spread,
        bandwidth_hz=Spread(low=100, median=200, high=300),
        duration_seconds=Spread(low=0.1, median=0.2, high=0.3),
    )
    info = make_info(novelty=NoveltyInfo(n_held_out=9), training_sounds=training)
    return make_bundle(tmp_path / "with novelty", info)


def test_tables_have_novelty_and_other_formats_stay_as_they_are(run, model, model_with_novelty, sounds, tmp_path):
    for name, folder in (("without", model), ("with", model_with_novelty)):
        assert run("tag", folder, sounds, "-o", tmp_path / name, "--format", FORMATS, "--no-segments").status == 3
    without, with_novelty = contents(tmp_path / "without"), contents(tmp_path / "with")
    differing = {name for name in without if without[name] != with_novelty[name]}
    assert differing == {"tags.csv", "tags.jsonl", "parameters.toml"}  # the last one names the model
    rows = rows_of(tmp_path / "with" / "tags.csv")
    assert [*rows[0]] == ["file", "start", "end", "label", "probability", "novelty"]
    assert [list(row.values())[:5] for row in rows] == [
        list(row.values()) for row in rows_of(tmp_path / "without" / "tags.csv")
    ]
    tagger = Tagger(model_with_novelty)
    for row in rows:
        assert float(row["novelty"]) == pytest.approx(tagger.tag(row["file"]).novelty, abs=1e-3)


def test_max_novelty_leaves_out_tags_and_says_how_many(run, model_with_novelty, sounds, tmp_path):
    run("tag", model_with_novelty, sounds, "-o", tmp_path / "all.csv")
    rows = rows_of(tmp_path / "all.csv")
    limit = float(np.median([float(row["novelty"]) for row in rows]))
    done = run("tag", model_with_novelty, sounds, "-o", tmp_path / "some.csv", "--max-novelty", limit)
    kept = [row for row in rows if float(row["novelty"]) <= limit]
    assert 0 < len(kept) < len(rows)
    assert rows_of(tmp_path / "some.csv") == kept
    assert len(rows) - len(kept) == 1
    assert "left out 1 tag because of its novelty (--max-novelty); 1 of 9 files lost all their tags" in done.err
    none = run("tag", model_with_novelty, sounds, "--max-novelty", 1e-6)
    assert f"left out {len(rows)} tags because of their novelty (--max-novelty); " in none.err
    assert "left out" not in run("tag", model_with_novelty, sounds, "--max-novelty", 1000).err


def test_max_novelty_needs_a_model_with_novelty(run, model, sounds):
    done = run("tag", model, sounds, "--max-novelty", 1)
    assert done.status == 1
    assert f"--max-novelty 1: {model} has no novelty, because no clips were held out in training, and" in done.err


@pytest.mark.parametrize(
    ("changes", "recipe", "reason"),
    [
        ({"data": DataInfo(name="AudioSet", n_clips=None, n_clips_per_label=None, fingerprint=None)}, "", "published"),
        ({"metrics": {"lwlrap": 0.9}}, 'mode = "finetune"', "it is fine-tuned"),
        ({"metrics": {"lwlrap": 0.9}}, "", "it was trained without it"),
    ],
)
def test_missing_novelty_has_one_reason_and_the_name_that_the_user_gave(tmp_path, changes, recipe, reason):
    tagger = Tagger(make_bundle(tmp_path / "cached 123", make_info(**changes)))
    (tagger.folder / "recipe.toml").write_text(recipe)
    with pytest.raises(ConfigError, match=rf"my name has no novelty, because .*{reason}") as error:
        batch.check_novelty(tagger, TagSettings(max_novelty=1), "my name")
    assert "cached" not in str(error.value)


def test_files_without_labels_are_counted_among_those_that_could_be_read(run, model, sounds):
    done = run("tag", model, sounds, "--min-confidence", 1)
    assert "no label detected in 9 of 9 files, because none reaches its threshold; the most" in done.err
    done = run("tag", model, sounds, "--segments", "--min-windows", 1000)
    assert "in 9 of 9 files, because none reaches its threshold for long enough; a smaller --min-windows" in done.err


def test_hint_for_files_without_labels_names_a_label_that_it_makes_appear(run, model, sounds):
    done = run("tag", model, sounds, "--min-confidence", 1)
    hint = re.search(r"most probable one is (\w+) with [\d.e-]+: --min-confidence ([\d.e-]+) reports it", done.err)
    assert f",{hint[1]}," in run("tag", model, sounds, "--min-confidence", hint[2]).out


@pytest.mark.parametrize(
    ("probability", "hint"), [(0.00099, ""), (0.049, ""), (0.06, ": --min-confidence 0.054 reports it")]
)
def test_no_threshold_is_suggested_that_would_report_mostly_wrong_labels(probability, hint):
    report = batch.TaggingReport(1, most_probable=(probability, "Dog"))
    expected = f"reaches its threshold; the most probable one is Dog with {probability:.2g}{hint}"
    assert _why_no_label(report, TagSettings()) == expected


def test_options_that_take_a_file_of_labels_say_so(run, model, sounds):
    done = run("tag", model, sounds, "--labels", "Dog")
    assert "--labels Dog: no such file; it takes a file with one label in each line" in done.err
    assert "one label" not in run("tag", model, sounds, "--deployments", "Dog").err


@pytest.mark.parametrize("option", ["--min-confidence", "--threshold"])
def test_decimal_comma_is_an_error_that_shows_the_decimal_point(run, model, sounds, option):
    done = run("tag", model, sounds, option, "0,2")
    assert done.status == 2
    assert "; write a decimal point: 0.2" in done.err


def test_second_run_says_that_it_replaced_the_tags_and_suggests_no_format_that_it_wrote(run, model, sounds, tmp_path):
    first = run("tag", model, sounds, "-o", tmp_path / "out")
    second = run("tag", model, sounds, "-o", tmp_path / "out", "--format", "audacity")
    assert "replaced" not in first.err
    assert "(the tags of an earlier run are replaced)" in second.err
    assert "--format audacity" in first.err
    assert "--format audacity" not in second.err
    assert "next: spectag suggest" in second.err


def test_tables_of_an_earlier_run_in_other_formats_are_kept_and_named(run, model, sounds, tmp_path):
    first = run("tag", model, sounds, "-o", tmp_path / "out", "--format", "csv,jsonl,raven")
    second = run("tag", model, sounds, "-o", tmp_path / "out", "--format", "csv", "--top", "1")
    assert "of an earlier run, not of this one" not in first.err
    names = f"{tmp_path / 'out' / 'tags.jsonl'}, {tmp_path / 'out' / 'raven'}"
    assert f"note: {names} are of an earlier run, not of this one" in second.err
    assert (tmp_path / "out" / "tags.jsonl").is_file()


def test_folder_with_tables_of_somebody_else_is_no_earlier_run(run, model, sounds, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tags.jsonl").write_text("mine\n")
    assert "earlier run" not in run("tag", model, sounds, "-o", tmp_path / "out").err


def test_next_command_reports_the_same_labels(run, model, sounds, tmp_path):
    done = run("tag", model, sounds, "-o", tmp_path / "out", "--words", "low", "--min-confidence", "0.3")
    assert "--format audacity -o audacity --words low --min-confidence 0.3\n" in done.err


def test_parameters_name_the_program_the_model_and_the_windows(run, model, sounds, tmp_path):
    run("tag", model, sounds, "-o", tmp_path / "out", "--window", "0.2", "--overlap", "0.1")
    text = (tmp_path / "out" / "parameters.toml").read_text(encoding="utf-8")
    digest = hashlib.sha256((model / "spectag.json").read_bytes()).hexdigest()
    assert f"# spectag {version('spectag')}\n" in text
    assert f" in {str(model)!r}, SHA-256 of its spectag.json: {digest}\n" in text
    assert "# windows of 0.2 s with an overlap of 0.1 s\n" in text


def test_tag_says_where_the_results_are_and_what_to_do_next(run, model, sounds, tmp_path):
    done = run("tag", model, sounds, "-o", tmp_path / "out")
    assert f"tags: {tmp_path / 'out'}   status of each file: {tmp_path / 'out' / 'status.csv'}" in done.err
    audacity = ["spectag", "tag", model, sounds, "--format", "audacity", "-o", "audacity"]
    assert f"next: {shlex.join(map(str, audacity))}\n" in done.err
    assert f"\n      {shlex.join(map(str, ['spectag', 'suggest', model, sounds, '-o', 'next.csv']))}\n" in done.err
    assert "next: " not in run("tag", model, sounds).err


def test_quiet_run_reports_only_errors(run, model, sounds, tmp_path):
    done = run("tag", model, sounds, "-o", tmp_path / "out", "--quiet")
    assert done.status == 3
    assert {line.split(":")[0] for line in done.err.splitlines()} == {"skipped"}
    assert run("tag", "-q", model, sounds).out == run("tag", model, sounds).out


def test_speed_is_left_out_for_less_than_a_second_of_sound(run, model, tmp_path):
    write_tones(tmp_path / "one", 1)
    write_tones(tmp_path / "four", 4)
    assert "real time" not in run("tag", model, tmp_path / "one", "-o", tmp_path / "1.csv").err
    assert "times real time" in run("tag", model, tmp_path / "four", "-o", tmp_path / "4.csv").err


def test_recordings_below_half_a_second_are_noted_as_very_short(run, model, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone("low", 0.03), 16_000)
    soundfile.write(tmp_path / "b.wav", tone("low", 0.5), 16_000)
    err = run("tag", model, tmp_path / "a.wav", tmp_path / "b.wav", "--top", 1).err
    assert [line for line in err.splitlines() if "note" in line] == [f"note: {tmp_path / 'a.wav'}: very short (0.03 s)"]


def test_max_novelty_has_no_effect_on_a_table_of_all_labels(run, model_with_novelty, sounds):
    done = run("tag", model_with_novelty, sounds, "--format", "wide", "--max-novelty", 1)
    assert done.status == 2
    assert "--max-novelty has no effect" in done.err


def write_quiet_tones(folder, n_files):
    """Sounds that are 60 dB quieter than others."""
    write_tones(folder, n_files)
    for path in folder.glob("*.wav"):
        waveform, rate = soundfile.read(path, dtype="float32")
        soundfile.write(path, waveform * 1e-3, rate, subtype="FLOAT")


@pytest.mark.parametrize("output", [[], ["-o", "tags.csv"]])
def test_different_recordings_cause_one_warning(run, model_with_novelty, tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    write_quiet_tones(tmp_path / "quiet", 10)
    done = run("tag", model_with_novelty, "quiet", "--workers", 1, *output)
    assert done.err.count("WARNING: the recordings differ from the training clips") == 1
    assert "dB quieter than the training clips" in done.err


def test_shift_is_found_by_worker_processes_too(run, model_with_novelty, tmp_path):
    write_quiet_tones(tmp_path / "quiet", 12)
    warnings = []
    for workers in (1, 2):
        done = run("tag", model_with_novelty, tmp_path / "quiet", "-o", tmp_path / "tags.csv", "--workers", workers)
        warnings.append([line for line in done.err.splitlines() if line.startswith(("WARNING", "  "))])
    assert warnings[0] == warnings[1]
    assert len(warnings[0]) > 1


def test_tags_get_the_names_of_a_table(run, model, sounds, tmp_path):
    plain = run("tag", model, sounds, "--min-confidence", 0.1)
    label = next(csv.DictReader(plain.out.splitlines()))["label"]
    names = tmp_path / "names.csv"
    names.write_text(f"old;new\n{label};Grüße\n", encoding="utf-8-sig")
    done = run("tag", model, sounds, "--min-confidence", 0.1, "--names", names)
    old, new = (list(csv.DictReader(text.splitlines())) for text in (plain.out, done.out))
    assert [row | {"label": "Grüße" if row["label"] == label else row["label"]} for row in old] == new
    done = run("tag", model, sounds, "--names", names, "--format", "wide")
    assert (done.status, "--format wide has the labels of the model; leave --names out" in done.err) == (2, True)
    names.write_text("old,new\nNobody,Somebody\n")
    assert "no new name for any of the labels" in run("tag", model, sounds, "--names", names).err
