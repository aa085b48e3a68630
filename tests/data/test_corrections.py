"""Corrections: applied to a manifest, checked against it, and reverted."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.command import write_manifest
from spectag.data.clips import Clip, Manifest
from spectag.data.corrections import (
    Correction,
    Corrections,
    append_corrections,
    apply_corrections,
    join_labels,
    read_corrections,
)
from spectag.data.labels import LabelSet, split_labels
from spectag.data.manifest import read_manifest
from spectag.errors import DataError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HEADER = "reviewer,time,fname,start,end,old_labels,new_labels,comment\n"
LABELS = ("Bark", "Knock", "Rain", "Run, fast")


def make_manifest(*labels):
    clips = tuple(Clip(Path(f"{i}.wav"), f"{i}.wav", clip_labels, line=i + 2) for i, clip_labels in enumerate(labels))
    return Manifest(Path("clips.csv"), clips, LabelSet(LABELS))


def correction(index, old_labels, new_labels, *, minutes=0, line=2, **more):
    time = NOON + timedelta(minutes=minutes)
    return Correction("Ada", time, f"{index}.wav", old_labels, new_labels, line=line, **more)


def applied(manifest, *rows):
    in_order = tuple(sorted(rows, key=lambda row: row.time))
    return apply_corrections(manifest, Corrections(Path("corrections.csv"), in_order))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


# ------------------------------------------------------------------------------------------- applied


def test_correction_replaces_the_labels_of_one_clip_only():
    manifest = make_manifest(("Bark",), ("Rain",), ("Knock",))
    corrected = applied(manifest, correction(1, ("Rain",), ("Bark", "Knock")))
    assert [clip.labels for clip in corrected.clips] == [("Bark",), ("Bark", "Knock"), ("Knock",)]
    assert [clip.labels for clip in manifest.clips] == [("Bark",), ("Rain",), ("Knock",)]


def test_correction_can_remove_all_labels():
    assert applied(make_manifest(("Bark",), ("Bark",)), correction(0, ("Bark",), ())).clips[0].labels == ()


def test_later_correction_counts_in_any_file_order(tmp_path):
    table = write(
        tmp_path / "c.csv",
        HEADER
        + "Bo,2026-05-01T16:00:00+02:00,0.wav,,,Rain,Knock,\n"  # 14:00 in UTC
        + "Ada,2026-05-01T13:30:00+00:00,0.wav,,,Bark,Rain,\n",
    )
    corrected = apply_corrections(make_manifest(("Bark",), ("Rain",), ("Bark",)), read_corrections(table))
    assert corrected.clips[0].labels == ("Knock",)


def test_confirmed_clip_is_unchanged_in_any_label_order():
    manifest = make_manifest(("Rain", "Bark"))
    kept = applied(manifest, correction(0, ("Bark", "Rain"), ("Bark", "Rain")))
    assert kept == manifest
    assert not correction(0, ("Bark", "Rain"), ("Rain", "Bark")).changes


def test_an_unknown_label_stays_unknown_unless_the_clip_gets_it():
    manifest = make_manifest(("Bark",), ("Rain",))
    manifest = replace(manifest, clips=tuple(replace(clip, unknown=("Knock", "Run, fast")) for clip in manifest.clips))
    corrected = applied(manifest, correction(1, ("Rain",), ("Knock",)))
    assert [clip.unknown for clip in corrected.clips] == [("Knock", "Run, fast"), ("Run, fast",)]


def test_label_that_loses_its_last_clip_is_removed():
    corrected = applied(make_manifest(("Bark",), ("Knock",)), correction(0, ("Bark",), ("Knock",)))
    assert corrected.labels.names == ("Knock", "Rain", "Run, fast")


def test_clips_of_one_recording_are_identified_by_their_times(tmp_path):
    (tmp_path / "a.wav").touch()
    (tmp_path / "clips.csv").write_text(
        "fname,labels,start,end\na.wav,Bark,0,1.5\na.wav,Bark,1.5,\na.wav,Rain,0.25,1.5\n", encoding="utf-8"
    )
    table = write(tmp_path / "c.csv", HEADER + 'Ada,2026-05-01T12:00:00Z,a.wav,"1,5",,Bark,Rain,\n')
    corrected = read_manifest(tmp_path / "clips.csv", corrections=table)
    assert [clip.labels for clip in corrected.clips] == [("Bark",), ("Rain",), ("Rain",)]


label_sets = st.sets(st.sampled_from(LABELS)).map(lambda labels: tuple(sorted(labels)))


@settings(max_examples=60)
@given(st.lists(label_sets, min_size=1, max_size=5), st.lists(st.tuples(st.integers(0, 4), label_sets), max_size=8))
def test_reverted_corrections_restore_the_manifest(original, steps):
    manifest = make_manifest(*original)
    current, rows = list(original), []
    for minutes, (index, new_labels) in enumerate(steps):
        if index < len(original):
            rows.append(correction(index, current[index], new_labels, minutes=minutes))
            current[index] = new_labels
    corrected = applied(manifest, *rows)
    assert [set(clip.labels) for clip in corrected.clips] == [set(labels) for labels in current]
    assert applied(manifest, *rows[:0]) == manifest
    back = [correction(index, current[index], labels, minutes=99) for index, labels in enumerate(original)]
    assert applied(manifest, *rows, *back) == manifest


# ------------------------------------------------------------------------------------------- checked


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [correction(0, ("Rain",), ("Knock",), line=7)],
            r"corrections.csv, line 7: 0.wav is corrected from 'Rain' to 'Knock', but its labels in clips.csv "
            r"are 'Bark'. Review the clip again; then delete the row, or change old_labels to 'Bark'",
        ),
        (
            [correction(0, (), ("Bark",))],
            r"line 2: 0.wav is corrected from no label to 'Bark', but clips.csv already has these labels. "
            "Delete the row",
        ),
        (
            [correction(0, ("Bark",), ("Rain",)), correction(0, ("Bark",), ("Knock",), minutes=1, line=3)],
            r"line 3: 0.wav is corrected from 'Bark' to 'Knock', but the earlier row in line 2 changed it to "
            r"'Rain'. Delete one of the two rows, or change old_labels to 'Rain'",
        ),
        (
            [correction(0, ("Bark",), ("Bakr",))],
            r"line 2: the new label 'Bakr' of 0.wav is none of the 4 labels of clips.csv; did you "
            r"mean 'Bark'\?.* first",
        ),
        (
            [correction(3, (), ())],
            r"line 2: clips.csv has no clip 3.wav; did you mean '[01].wav'\? Change or delete the row",
        ),
        (
            [correction(0, ("Bark",), (), start_seconds=1.5)],
            r"line 2: clips.csv has no clip 0.wav \(from 1.5 s\); its clips of this file are 0.wav. "
            "Change or delete the row",
        ),
    ],
)
def test_conflicting_correction_is_an_error_with_advice(rows, message):
    with pytest.raises(DataError, match=message):
        applied(make_manifest(("Bark",), ("Rain",)), *rows)


def test_ambiguous_clip_name_is_an_error():
    clip = Clip(Path("a/x.wav"), "x.wav", ("Bark",))
    manifest = Manifest(Path("folder"), (clip, Clip(Path("b/x.wav"), "x.wav", ("Bark",))), LabelSet(LABELS))
    with pytest.raises(DataError, match=r"line 2: x.wav matches 2 clips of folder; give the clips unique names"):
        applied(manifest, Correction("Ada", NOON, "x.wav", ("Bark",), (), line=2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "reviewer,fname,old_labels\n",
            r"c.csv: no column time, new_labels; expected reviewer, time, .* The columns are reviewer, "
            "fname, old_labels",
        ),
        (
            HEADER + "Ada,2026-05-01,a.wav,,,Bark,Rain,\n",
            r"line 2: time is '2026-05-01'; expected a time with its time zone",
        ),
        (
            HEADER + "Ada,yesterday,a.wav,,,Bark,Rain,\n",
            r"line 2: time is 'yesterday'; expected a time with",
        ),
        (
            HEADER + ",2026-05-01T12:00:00Z,a.wav,,,Bark,Rain,\n",
            r"line 2: reviewer is empty; expected the reviewer's name",
        ),
        (
            HEADER + "Ada,2026-05-01T12:00:00Z,,,,Bark,Rain,\n",
            r"line 2: fname is empty; expected a file name",
        ),
        (HEADER + "Ada,2026-05-01T12:00:00Z,a.wav,x,,Bark,,\n", r"line 2: start is 'x'; expected seconds, 0 or more"),
        ("", r"c.csv: the table is empty"),
    ],
)
def test_incomplete_row_is_an_error(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_corrections(write(tmp_path / "c.csv", text))


def test_missing_table_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv: no such file; save corrections.csv from the page"):
        read_corrections(tmp_path / "gone.csv")


# ------------------------------------------------------------------------------------------- read and written


@pytest.mark.filterwarnings("ignore:.*is read as Windows-1252")
@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("cp1252", ";"), ("utf-16", "\t")]
)
def test_tables_of_spreadsheet_programs_are_read(tmp_path, encoding, delimiter):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(["Reviewer", "Time", "Fname", "Old_labels", "New_labels", "Comment"])
    writer.writerow(["Zoë", "2026-05-01T14:30:00+02:00", "Bär.wav", "Bark, Knock", "Rain", "gehört; zweimal"])
    (row,) = read_corrections(write(tmp_path / "c.csv", out.getvalue(), encoding)).rows
    assert (row.reviewer, row.fname, row.old_labels, row.new_labels) == ("Zoë", "Bär.wav", ("Bark", "Knock"), ("Rain",))
    assert (row.comment, row.line) == ("gehört; zweimal", 2)
    assert row.time == datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


names = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).map(str.strip).filter(bool)


@given(st.lists(names, unique=True, max_size=4))
def test_any_labels_survive_joining_and_splitting(labels):
    assert split_labels(join_labels(labels)) == tuple(labels)


def test_handwritten_labels_are_read():
    assert split_labels(" Bark,Knock , ,Bark") == ("Bark", "Knock")
    assert split_labels('"Run, fast", Rain') == ("Run, fast", "Rain")
    assert split_labels("") == ()


def test_appending_keeps_rows_and_extra_columns(tmp_path):
    table = write(
        tmp_path / "c.csv",
        "\ufefffname;reviewer;time;start;end;old_labels;new_labels;comment;checked by\r\n"
        "Bär.wav;Zoë;2026-05-01T12:00:00Z;;;Bark;Rain;laut;Bo",
        "utf-8",
    )
    before = table.read_text(encoding="utf-8-sig")
    added = Correction("Ada", NOON, "b.wav", ("Run, fast",), (), 0.1, 2.5, "so; it is")
    append_corrections(table, [added])
    text = table.read_bytes().decode()
    assert text.startswith(before.replace("\n", "\r\n"))
    old, new = read_corrections(table).rows
    assert (old.reviewer, old.line) == ("Zoë", 2)
    assert (new.fname, new.old_labels, new.new_labels, new.start_seconds, new.end_seconds, new.comment) == (
        "b.wav",
        ("Run, fast",),
        (),
        0.1,
        2.5,
        "so; it is",
    )
    assert "Bo" in text


def test_new_table_contains_the_appended_corrections(tmp_path):
    rows = (
        correction(0, ("Bark",), ("Rain", "Run, fast"), comment='"so"\nit is'),
        correction(1, (), (), minutes=1, line=4),
    )
    append_corrections(tmp_path / "new" / "c.csv", rows)
    assert read_corrections(tmp_path / "new" / "c.csv").rows == rows


def test_other_file_is_not_overwritten(tmp_path):
    table = write(tmp_path / "notes.csv", "fname,labels\na.wav,Bark\n")
    with pytest.raises(DataError, match="no column reviewer, time, old_labels, new_labels"):
        append_corrections(table, [correction(0, ("Bark",), ("Rain",))])
    assert table.read_text(encoding="utf-8") == "fname,labels\na.wav,Bark\n"


def test_summary_counts_changed_and_confirmed_clips():
    rows = (correction(0, ("Bark",), ("Rain",)), correction(1, ("Rain",), ("Rain",)))
    assert Corrections(Path("c.csv"), rows).summary() == (
        "corrections: 1 clip has new labels; 1 more were reviewed and confirmed"
    )


# ------------------------------------------------------------------------------------------- on the command line


def test_inspect_and_split_apply_corrections_without_changing_the_manifest(run, tmp_path):
    manifest = write_manifest(tmp_path, n_clips=6)
    text = manifest.read_bytes()
    table = write(tmp_path / "c.csv", HEADER + "Ada,2026-05-01T12:00:00Z,low 00.wav,,,low,high,\n")
    done = run("inspect", manifest, "--corrections", table, "--json", "-j", 1)
    assert '"high": 3' in done.out
    assert '"low": 1' in done.out
    done = run("split", manifest, "--corrections", table, "--folds", 2, "-o", tmp_path / "folds.csv")
    assert done.status == 0
    assert "clips/low 00.wav,1,high" in (tmp_path / "folds.csv").read_text(encoding="utf-8").replace(",2,", ",1,")
    assert manifest.read_bytes() == text


def test_conflicting_correction_is_reported_in_one_line(run, tmp_path):
    manifest = write_manifest(tmp_path, n_clips=3)
    table = write(tmp_path / "c.csv", HEADER + "Ada,2026-05-01T12:00:00Z,low 00.wav,,,middle,high,\n")
    done = run("inspect", manifest, "--corrections", table)
    assert done.status == 1
    assert done.err.startswith(f"spectag: {table}, line 2: low 00.wav is corrected from 'middle' to 'high', but")


@pytest.mark.parametrize("command", ["train", "tune", "lr-find", "split", "inspect"])
def test_commands_that_read_labels_have_the_option_corrections(run, command):
    assert "--corrections" in run(command, "--help").out


@pytest.mark.parametrize("label", ["NA", "None", "nocall", "Dog, barking"])
def test_joined_labels_are_read_as_labels_by_manifests(tmp_path, label):
    (tmp_path / "a.wav").touch()
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["fname", "labels"], ["a.wav", join_labels([label])]])
    assert read_manifest(tmp_path / "m.csv").clips[0].labels == (label,)
