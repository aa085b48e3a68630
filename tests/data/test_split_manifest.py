"""A manifest dealt into folds, and written so that it can be read again from where it lies."""

import csv

import numpy as np
import pytest

from spectag.audio.files import write_audio
from spectag.data.manifest import read_manifest
from spectag.data.split_manifest import split, write_split
from spectag.errors import DataError


def write_manifest(folder, rows, header="fname,labels", name="clips"):
    """A manifest and its sounds, in the folder of its name."""
    (folder / name).mkdir(parents=True)
    for row in rows:
        path = folder / name / row.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        write_audio(path, np.full(80, 0.1, np.float32), 8000)
    table = folder / f"{name}.csv"
    table.write_text("\n".join([header, *rows]), encoding="utf-8")
    return table


@pytest.fixture
def table(tmp_path):
    return write_manifest(
        tmp_path / "daten", [f"{label} {number}.wav,{label}" for label in "abc" for number in range(10)]
    )


def same_clips(first, second):
    def told(manifest):
        return [
            (clip.path.resolve(), clip.labels, clip.group, clip.start_seconds, clip.end_seconds)
            for clip in manifest.clips
        ]

    return told(first) == told(second)


def test_every_clip_is_in_one_of_five_folds_and_every_label_in_all(table):
    result = split(table)
    assert sorted(set(result.parts)) == ["1", "2", "3", "4", "5"]
    assert result.balance.parts == ("1", "2", "3", "4", "5")
    assert np.array_equal(result.balance.counts, np.full((5, 3), 2))
    assert result.balance.worst == 0


def test_balance_counts_what_is_in_the_parts_also_with_ten_folds_and_more(table):
    result = split(table, folds=12)
    y_true, parts = result.manifest.multi_hot(), np.array(result.parts)
    assert result.balance.parts == tuple(str(number) for number in range(1, 13))
    for part, counts in zip(result.balance.parts, result.balance.counts, strict=True):
        assert np.array_equal(counts, y_true[parts == part].sum(axis=0))


def test_share_is_held_out_under_the_name_valid(table):
    result = split(table, validation_fraction=0.2)
    assert result.balance.parts == ("train", "valid")
    assert result.parts.count("valid") == 6
    assert result.balance.counts.tolist() == [[8, 8, 8], [2, 2, 2]]


def test_seed_gives_other_folds_and_the_same_seed_the_same(table):
    assert split(table, seed=1).parts == split(table, seed=1).parts != split(table, seed=2).parts


def test_groups_stay_together(tmp_path):
    rows = [f"{number}.wav,{'ab'[number % 2]},{number // 4}" for number in range(40)]
    table = write_manifest(tmp_path, rows, header="fname,labels,person")
    result = split(table, group_column="person")
    folds_of_group = {}
    for clip, part in zip(result.manifest.clips, result.parts, strict=True):
        folds_of_group.setdefault(clip.group, set()).add(part)
    assert len(folds_of_group) == 10
    assert all(len(folds) == 1 for folds in folds_of_group.values())


@pytest.mark.parametrize("place", [".", "clips", "neu/tiefer", ".."])
def test_written_table_reads_back_with_its_folds_from_wherever_it_lies(table, place):
    """A table beside the manifest, under another name, once lost the sounds in the folder of the manifest's name."""
    result = split(table, folds=3)
    path = table.parent / place / "folds.csv"
    write_split(path, result)
    again = read_manifest(path)
    assert again.folds == result.parts
    assert same_clips(again, result.manifest)


def test_names_stay_as_they_are_where_the_sounds_are_found_by_them(tmp_path):
    table = write_manifest(tmp_path, [f"../clips/{number}.wav,a" for number in range(4)])
    write_split(tmp_path / "clips" / "folds.csv", split(table, folds=2))
    with (tmp_path / "clips" / "folds.csv").open(newline="") as file:
        assert [row["fname"] for row in csv.DictReader(file)] == [f"../clips/{number}.wav" for number in range(4)]


def test_written_table_reads_back_through_a_linked_folder(table, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    result = split(table, folds=2)
    write_split(tmp_path / "link" / "folds.csv", result)
    assert same_clips(read_manifest(tmp_path / "link" / "folds.csv"), result.manifest)


def test_written_table_reads_back_when_the_manifest_was_named_from_another_folder(table, monkeypatch):
    monkeypatch.chdir(table.parent)
    result = split("clips.csv", folds=2)
    write_split(table.parent / "a" / "folds.csv", result)
    monkeypatch.chdir("/")
    assert same_clips(read_manifest(table.parent / "a" / "folds.csv"), read_manifest(table))


def test_times_and_groups_are_kept(tmp_path):
    rows = [f"{number}.wav,a,{start},{start + 0.005},g{number}" for number in range(4) for start in (0, 0.005)]
    table = write_manifest(tmp_path, rows, header="fname,labels,start,end,group")
    result = split(table, folds=2)
    write_split(tmp_path / "folds.csv", result)
    assert same_clips(read_manifest(tmp_path / "folds.csv"), result.manifest)
    assert [result.parts[row] for row in range(0, 8, 2)] == [result.parts[row] for row in range(1, 8, 2)]


def test_labels_that_hold_commas_get_columns_of_their_own(tmp_path):
    """As AudioSet's do."""
    rows = [f"{number}.wav,{number % 2},{int(number % 3 == 0)}" for number in range(12)]
    table = write_manifest(tmp_path, rows, header='fname,"Male speech, man speaking",Dog')
    result = split(table, folds=2)
    write_split(tmp_path / "folds.csv", result)
    again = read_manifest(tmp_path / "folds.csv")
    assert again.labels.names == ("Male speech, man speaking", "Dog")
    assert again.folds == result.parts
    assert same_clips(again, result.manifest)


def test_folder_per_label_becomes_a_table(tmp_path):
    for label in ("Hund (groß)", "Zug"):
        for number in range(4):
            (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
            write_audio(tmp_path / "clips" / label / f"{number}.wav", np.full(80, 0.1, np.float32), 8000)
    result = split(tmp_path / "clips", folds=2)
    write_split(tmp_path / "folds.csv", result)
    assert same_clips(read_manifest(tmp_path / "folds.csv"), result.manifest)


def test_table_that_can_not_be_written_is_told(table):
    with pytest.raises(DataError, match="can't be written: there is a folder of this name"):
        write_split(table.parent, split(table))
    assert {path.name for path in table.parent.iterdir()} == {"clips", "clips.csv"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 3, "validation_fraction": 0.2}, "folds and validation_fraction ask for different things"),
        ({"folds": 31}, "can't make 31 folds of 30 groups"),
        ({"folds": 1}, "needs at least 2 of them, got 1"),
        ({"folds": 0}, "needs at least 2 of them, got 0"),
        ({"validation_fraction": 1.0}, "above 0 and below 1, got 1"),
        ({"group_column": "persn"}, "persn"),
    ],
)
def test_split_that_can_not_be_made_is_told(table, options, message):
    with pytest.raises(DataError, match=message):
        split(table, **options)


def test_further_columns_are_kept_also_when_the_manifest_itself_is_replaced(tmp_path):
    rows = [f"{number}.wav,a,Zoë,Notiz {number}" for number in range(4)]
    table = write_manifest(tmp_path, rows, header="fname,labels,recordist,notes")
    write_split(table, split(table, folds=2))
    with table.open(newline="", encoding="utf-8") as file:
        kept = [(row["fname"], row["recordist"], row["notes"]) for row in csv.DictReader(file)]
    assert kept == [(f"clips/{number}.wav", "Zoë", f"Notiz {number}") for number in range(4)]
    assert set(read_manifest(table).folds) == {"1", "2"}


def test_columns_that_only_might_have_meant_something_are_kept_too(tmp_path):
    """`path` would be the name of the sound, were there no `fname`; it was once dropped."""
    rows = [f"{number}.wav,a,somewhere/{number}" for number in range(4)]
    table = write_manifest(tmp_path, rows, header="fname,labels,path")
    write_split(table, split(table, folds=2))
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"somewhere/{number}" for number in range(4)]
    assert len(read_manifest(table).clips) == 4
