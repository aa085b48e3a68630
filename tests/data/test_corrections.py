"""Corrections: laid over a manifest, checked against it, and taken away again without a trace."""

import csv
import io
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
HEADER = "who,when,fname,start,end,before,after,why\n"
LABELS = ("Bark", "Knock", "Rain", "Run, fast")


def manifest_of(*labels):
    clips = tuple(Clip(Path(f"{i}.wav"), f"{i}.wav", own, line=i + 2) for i, own in enumerate(labels))
    return Manifest(Path("clips.csv"), clips, LabelSet(LABELS))


def correction(place, before, after, *, minutes=0, line=2, **more):
    when = NOON + timedelta(minutes=minutes)
    return Correction("Ada", when, f"{place}.wav", before, after, line=line, **more)


def applied(manifest, *rows):
    in_order = tuple(sorted(rows, key=lambda row: row.when))
    return apply_corrections(manifest, Corrections(Path("corrections.csv"), in_order))


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


# ------------------------------------------------------------------------------------------- laid over


def test_a_correction_replaces_the_labels_of_its_clip_and_of_no_other():
    manifest = manifest_of(("Bark",), ("Rain",), ("Knock",))
    corrected = applied(manifest, correction(1, ("Rain",), ("Bark", "Knock")))
    assert [clip.labels for clip in corrected.clips] == [("Bark",), ("Bark", "Knock"), ("Knock",)]
    assert [clip.labels for clip in manifest.clips] == [("Bark",), ("Rain",), ("Knock",)]


def test_no_label_is_a_correction_too():
    assert applied(manifest_of(("Bark",), ("Bark",)), correction(0, ("Bark",), ())).clips[0].labels == ()


def test_of_two_corrections_the_later_one_counts_whatever_their_order_in_the_file(tmp_path):
    table = write(
        tmp_path / "c.csv",
        HEADER
        + "Bo,2026-05-01T16:00:00+02:00,0.wav,,,Rain,Knock,\n"  # 14:00 in UTC
        + "Ada,2026-05-01T13:30:00+00:00,0.wav,,,Bark,Rain,\n",
    )
    corrected = apply_corrections(manifest_of(("Bark",), ("Rain",), ("Bark",)), read_corrections(table))
    assert corrected.clips[0].labels == ("Knock",)


def test_the_order_of_labels_is_no_difference_and_a_kept_clip_stays_the_very_same():
    manifest = manifest_of(("Rain", "Bark"))
    kept = applied(manifest, correction(0, ("Bark", "Rain"), ("Bark", "Rain")))
    assert kept == manifest
    assert not correction(0, ("Bark", "Rain"), ("Rain", "Bark")).changes


def test_a_label_that_loses_its_last_clip_is_none_any_more_but_one_that_never_had_a_clip_stays():
    corrected = applied(manifest_of(("Bark",), ("Knock",)), correction(0, ("Bark",), ("Knock",)))
    assert corrected.labels.names == ("Knock", "Rain", "Run, fast")


def test_parts_of_a_recording_are_told_apart_by_their_times(tmp_path):
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
def test_corrections_taken_back_leave_the_manifest_as_it_was_and_those_of_the_first_minutes_are_a_beginning(own, steps):
    manifest = manifest_of(*own)
    now, rows = list(own), []
    for minutes, (place, after) in enumerate(steps):
        if place < len(own):
            rows.append(correction(place, now[place], after, minutes=minutes))
            now[place] = after
    corrected = applied(manifest, *rows)
    assert [set(clip.labels) for clip in corrected.clips] == [set(labels) for labels in now]
    assert applied(manifest, *rows[:0]) == manifest
    back = [correction(place, now[place], labels, minutes=99) for place, labels in enumerate(own)]
    assert applied(manifest, *rows, *back) == manifest


# ------------------------------------------------------------------------------------------- checked


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (
            [correction(0, ("Rain",), ("Knock",), line=7)],
            r"corrections.csv, line 7: 0.wav is corrected from 'Rain' to 'Knock', but clips.csv now says 'Bark'. Look "
            r"at the clip again; then take the row out, or write 'Bark' into before",
        ),
        (
            [correction(0, (), ("Bark",))],
            r"line 2: 0.wav is corrected from no label to 'Bark', but clips.csv says so already. Take the row out",
        ),
        (
            [correction(0, ("Bark",), ("Rain",)), correction(0, ("Bark",), ("Knock",), minutes=1, line=3)],
            r"line 3: 0.wav is corrected from 'Bark' to 'Knock', but line 2, which is earlier, made it 'Rain'. Take "
            r"one of the two rows out, or write 'Rain' into before",
        ),
        (
            [correction(0, ("Bark",), ("Bakr",))],
            r"line 2: 0.wav gets the label 'Bakr', which is none of the 4 in clips.csv; did you mean 'Bark'\?.* first",
        ),
        (
            [correction(3, (), ())],
            r"line 2: clips.csv has no clip 3.wav; did you mean '[01].wav'\? Change the row, or",
        ),
        (
            [correction(0, ("Bark",), (), start_seconds=1.5)],
            r"line 2: clips.csv has no clip 0.wav \(from 1.5 s\); it has 0.wav. Change the row, or take it out",
        ),
    ],
)
def test_a_correction_that_does_not_fit_is_named_with_what_to_do(rows, words):
    with pytest.raises(DataError, match=words):
        applied(manifest_of(("Bark",), ("Rain",)), *rows)


def test_a_name_that_two_clips_have_is_not_guessed():
    clip = Clip(Path("a/x.wav"), "x.wav", ("Bark",))
    manifest = Manifest(Path("folder"), (clip, Clip(Path("b/x.wav"), "x.wav", ("Bark",))), LabelSet(LABELS))
    with pytest.raises(DataError, match=r"line 2: x.wav may be any of 2 clips of folder; give them names"):
        applied(manifest, Correction("Ada", NOON, "x.wav", ("Bark",), (), line=2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "who,fname,before\n",
            r"c.csv: no column when, after; expected who, when, .* The columns are who, fname, before",
        ),
        (
            HEADER + "Ada,2026-05-01,a.wav,,,Bark,Rain,\n",
            r"line 2: when is '2026-05-01'; expected a time with its zone",
        ),
        (HEADER + "Ada,yesterday,a.wav,,,Bark,Rain,\n", r"line 2: when is 'yesterday'; expected a time with its zone"),
        (
            HEADER + ",2026-05-01T12:00:00Z,a.wav,,,Bark,Rain,\n",
            r"line 2: who is empty; expected the name of the person",
        ),
        (
            HEADER + "Ada,2026-05-01T12:00:00Z,,,,Bark,Rain,\n",
            r"line 2: fname is empty; expected the name of the sound",
        ),
        (HEADER + "Ada,2026-05-01T12:00:00Z,a.wav,x,,Bark,,\n", r"line 2: start is 'x'; expected seconds, 0 or more"),
        ("", r"c.csv: the table is empty"),
    ],
)
def test_a_row_that_is_not_complete_is_named(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        read_corrections(write(tmp_path / "c.csv", text))


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone.csv: no such file; decide on the page"):
        read_corrections(tmp_path / "gone.csv")


# ------------------------------------------------------------------------------------------- read and written


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8", ","), ("utf-8-sig", ";"), ("cp1252", ";"), ("utf-16", "\t")]
)
def test_tables_of_spreadsheet_programs_are_understood(tmp_path, encoding, delimiter):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(["Who", "When", "Fname", "Before", "After", "Why"])
    writer.writerow(["Zoë", "2026-05-01T14:30:00+02:00", "Bär.wav", "Bark, Knock", "Rain", "gehört; zweimal"])
    (row,) = read_corrections(write(tmp_path / "c.csv", out.getvalue(), encoding)).rows
    assert (row.who, row.fname, row.before, row.after) == ("Zoë", "Bär.wav", ("Bark", "Knock"), ("Rain",))
    assert (row.why, row.line) == ("gehört; zweimal", 2)
    assert row.when == datetime(2026, 5, 1, 12, 30, tzinfo=UTC)


names = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1).map(str.strip).filter(bool)


@given(st.lists(names, unique=True, max_size=4))
def test_labels_come_out_of_a_field_as_they_went_in_whatever_they_are_called(labels):
    assert split_labels(join_labels(labels)) == tuple(labels)


def test_labels_that_a_person_wrote_are_read():
    assert split_labels(" Bark,Knock , ,Bark") == ("Bark", "Knock")
    assert split_labels('"Run, fast", Rain') == ("Run, fast", "Rain")
    assert split_labels("") == ()


def test_rows_are_added_to_what_is_there_and_columns_of_ones_own_are_kept(tmp_path):
    table = write(
        tmp_path / "c.csv",
        "\ufefffname;who;when;start;end;before;after;why;checked by\r\n"
        "Bär.wav;Zoë;2026-05-01T12:00:00Z;;;Bark;Rain;laut;Bo",
        "utf-8",
    )
    before = table.read_text(encoding="utf-8-sig")
    added = Correction("Ada", NOON, "b.wav", ("Run, fast",), (), 0.1, 2.5, "so; it is")
    append_corrections(table, [added])
    text = table.read_bytes().decode()
    assert text.startswith(before.replace("\n", "\r\n"))
    old, new = read_corrections(table).rows
    assert (old.who, old.line) == ("Zoë", 2)
    assert (new.fname, new.before, new.after, new.start_seconds, new.end_seconds, new.why) == (
        "b.wav",
        ("Run, fast",),
        (),
        0.1,
        2.5,
        "so; it is",
    )
    assert "Bo" in text


def test_a_new_table_is_begun_and_equals_what_was_put_in(tmp_path):
    rows = (
        correction(0, ("Bark",), ("Rain", "Run, fast"), why='"so"\nit is'),
        correction(1, (), (), minutes=1, line=4),
    )
    append_corrections(tmp_path / "new" / "c.csv", rows)
    assert read_corrections(tmp_path / "new" / "c.csv").rows == rows


def test_a_file_that_is_no_table_of_corrections_is_left_alone(tmp_path):
    table = write(tmp_path / "notes.csv", "fname,labels\na.wav,Bark\n")
    with pytest.raises(DataError, match="no column who, when, before, after"):
        append_corrections(table, [correction(0, ("Bark",), ("Rain",))])
    assert table.read_text(encoding="utf-8") == "fname,labels\na.wav,Bark\n"


def test_how_many_clips_are_changed_is_told_in_words():
    rows = (correction(0, ("Bark",), ("Rain",)), correction(1, ("Rain",), ("Rain",)))
    assert Corrections(Path("c.csv"), rows).in_words() == (
        "corrections: 1 clip has other labels; 1 more were looked at and left as they were"
    )


# ------------------------------------------------------------------------------------------- on the command line


def test_inspect_and_split_take_corrections_and_leave_the_manifest_alone(run, tmp_path):
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


def test_a_correction_that_does_not_fit_is_a_line_and_no_traceback(run, tmp_path):
    manifest = write_manifest(tmp_path, n_clips=3)
    table = write(tmp_path / "c.csv", HEADER + "Ada,2026-05-01T12:00:00Z,low 00.wav,,,middle,high,\n")
    done = run("inspect", manifest, "--corrections", table)
    assert done.status == 1
    assert done.err.startswith(f"spectag: {table}, line 2: low 00.wav is corrected from 'middle' to 'high', but")


@pytest.mark.parametrize("command", ["train", "tune", "lr-find", "split", "inspect"])
def test_commands_that_read_labels_have_the_option(run, command):
    assert "--corrections" in run(command, "--help").out
