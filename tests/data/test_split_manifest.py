"""Splitting a manifest, and writing it so that it can be read from its new folder."""

import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from helpers.shared_recordings import write_clips
from spectag.audio.files import write_audio
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.split_manifest import split, write_holdout, write_split
from spectag.errors import DataError


def write_manifest(folder, rows, header="fname,labels", name="clips"):
    """Write a manifest, and its sounds in the folder with its name."""
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
    def facts(manifest):
        return [
            (clip.path.resolve(), clip.labels, clip.group, clip.start_seconds, clip.end_seconds)
            for clip in manifest.clips
        ]

    return facts(first) == facts(second)


def test_every_label_is_in_all_five_folds(table):
    result = split(table)
    assert sorted(set(result.folds)) == ["1", "2", "3", "4", "5"]
    assert result.balance.folds == ("1", "2", "3", "4", "5")
    assert np.array_equal(result.balance.counts, np.full((5, 3), 2))
    assert result.balance.worst == 0


def test_balance_counts_the_clips_of_the_folds_also_with_more_than_ten_folds(table):
    result = split(table, folds=12)
    y_true, folds = result.manifest.multi_hot(), np.array(result.folds)
    assert result.balance.folds == tuple(str(number) for number in range(1, 13))
    for fold, counts in zip(result.balance.folds, result.balance.counts, strict=True):
        assert np.array_equal(counts, y_true[folds == fold].sum(axis=0))


def test_held_out_clips_are_in_the_fold_valid(table):
    result = split(table, validation_fraction=0.2)
    assert result.balance.folds == ("train", "valid")
    assert result.folds.count("valid") == 6
    assert result.balance.counts.tolist() == [[8, 8, 8], [2, 2, 2]]


def test_seed_determines_the_split(table):
    assert split(table, seed=1).folds == split(table, seed=1).folds != split(table, seed=2).folds


def test_groups_stay_together(tmp_path):
    rows = [f"{number}.wav,{'ab'[number % 2]},{number // 4}" for number in range(40)]
    table = write_manifest(tmp_path, rows, header="fname,labels,person")
    result = split(table, group_column="person")
    folds_of_group = {}
    for clip, part in zip(result.manifest.clips, result.folds, strict=True):
        folds_of_group.setdefault(clip.group, set()).add(part)
    assert len(folds_of_group) == 10
    assert all(len(folds) == 1 for folds in folds_of_group.values())


@pytest.mark.parametrize("place", [".", "clips", "neu/tiefer", ".."])
def test_written_table_can_be_read_from_any_folder(table, place):
    """The sounds can be in the folder with the manifest's name, which is not searched for a table with another name."""
    result = split(table, folds=3)
    path = table.parent / place / "folds.csv"
    write_split(path, result)
    again = read_manifest(path)
    assert again.folds == result.folds
    assert same_clips(again, result.manifest)


def test_file_names_are_kept_if_the_sounds_are_found(tmp_path):
    table = write_manifest(tmp_path, [f"../clips/{number}.wav,a" for number in range(4)])
    write_split(tmp_path / "clips" / "folds.csv", split(table, folds=2))
    with (tmp_path / "clips" / "folds.csv").open(newline="") as file:
        assert [row["fname"] for row in csv.DictReader(file)] == [f"../clips/{number}.wav" for number in range(4)]


def test_written_table_can_be_read_through_a_linked_folder(table, tmp_path):
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    result = split(table, folds=2)
    write_split(tmp_path / "link" / "folds.csv", result)
    assert same_clips(read_manifest(tmp_path / "link" / "folds.csv"), result.manifest)


def test_written_table_can_be_read_if_the_manifest_had_a_relative_path(table, monkeypatch):
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
    assert [result.folds[row] for row in range(0, 8, 2)] == [result.folds[row] for row in range(1, 8, 2)]


def test_labels_with_commas_are_written_as_multi_hot(tmp_path):
    """AudioSet has such labels."""
    rows = [f"{number}.wav,{number % 2},{int(number % 3 == 0)}" for number in range(12)]
    table = write_manifest(tmp_path, rows, header='fname,"Male speech, man speaking",Dog')
    result = split(table, folds=2)
    write_split(tmp_path / "folds.csv", result)
    again = read_manifest(tmp_path / "folds.csv")
    assert again.labels.names == ("Male speech, man speaking", "Dog")
    assert again.folds == result.folds
    assert same_clips(again, result.manifest)


def test_folder_per_label_becomes_a_table(tmp_path):
    for label in ("Hund (groß)", "Zug"):
        for number in range(4):
            (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
            write_audio(tmp_path / "clips" / label / f"{number}.wav", np.full(80, 0.1, np.float32), 8000)
    result = split(tmp_path / "clips", folds=2)
    write_split(tmp_path / "folds.csv", result)
    assert same_clips(read_manifest(tmp_path / "folds.csv"), result.manifest)


def test_unwritable_table_is_an_error(table):
    with pytest.raises(DataError, match="can't be written: a folder has this name"):
        write_split(table.parent, split(table))
    assert {path.name for path in table.parent.iterdir()} == {"clips", "clips.csv"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 3, "validation_fraction": 0.2}, "folds and validation_fraction exclude each other"),
        ({"test_size": 0.5, "validation_fraction": 0.2}, "validation_fraction and test_size exclude each other"),
        ({"test_size": 1.0}, "above 0 and below 1, got 1"),
        ({"folds": 31}, "can't split 30 groups of clips into 31 folds"),
        ({"folds": 1}, "needs at least 2 folds, got 1"),
        ({"folds": 0}, "needs at least 2 folds, got 0"),
        ({"validation_fraction": 1.0}, "above 0 and below 1, got 1"),
        ({"group_column": "persn"}, "persn"),
    ],
)
def test_impossible_split_is_an_error(table, options, message):
    with pytest.raises(DataError, match=message):
        split(table, **options)


def test_extra_columns_are_kept_also_when_the_manifest_is_replaced(tmp_path):
    rows = [f"{number}.wav,a,Zoë,Notiz {number}" for number in range(4)]
    table = write_manifest(tmp_path, rows, header="fname,labels,recordist,notes")
    write_split(table, split(table, folds=2))
    with table.open(newline="", encoding="utf-8") as file:
        kept = [(row["fname"], row["recordist"], row["notes"]) for row in csv.DictReader(file)]
    assert kept == [(f"clips/{number}.wav", "Zoë", f"Notiz {number}") for number in range(4)]
    assert set(read_manifest(table).folds) == {"1", "2"}


def test_unused_alias_columns_are_kept(tmp_path):
    """`path` is an alias of `fname` that is not used here, so it must be kept as an extra column."""
    rows = [f"{number}.wav,a,somewhere/{number}" for number in range(4)]
    table = write_manifest(tmp_path, rows, header="fname,labels,path")
    write_split(table, split(table, folds=2))
    with table.open(newline="", encoding="utf-8") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [f"somewhere/{number}" for number in range(4)]
    assert len(read_manifest(table).clips) == 4


# --------------------------------------------------------------------------------- rows of train_test_split

ONE_FIELD = ("fname,recordist,labels,start,note", ['{}.wav,Zoë,"a,b",0.001,"said ""x"", {}"', "{}.wav,,c,,"])
MULTI_HOT = ("fname,Bark,Keys_jangling,Applause", ["{}.wav,0,1,1", "{}.wav,1,0,0", "{}.wav,0,0,0"])


def table_beside_its_sounds(folder, header, patterns, *, n_clips=23, name="train_curated_image_labels"):
    rows = [patterns[number % len(patterns)].format(number, number) for number in range(n_clips)]
    for number in range(n_clips):
        write_audio(folder / f"{number}.wav", np.full(80, 0.1, np.float32), 8000)
    table = folder / f"{name}.csv"
    table.write_text("\n".join([header, *rows]), encoding="utf-8")
    return table


@pytest.mark.parametrize(("header", "patterns"), [ONE_FIELD, MULTI_HOT])
@pytest.mark.parametrize(("test_size", "seed"), [(0.25, 42), (0.1, 0), (0.5, 7)])
def test_tables_are_identical_to_those_of_pandas_and_scikit_learn(tmp_path, header, patterns, test_size, seed):
    table = table_beside_its_sounds(tmp_path, header, patterns)
    written = write_holdout(tmp_path, split(table, test_size=test_size, seed=seed))
    expected = train_test_split(pd.read_csv(table, dtype=str), test_size=test_size, random_state=seed)
    assert [path.read_text(encoding="utf-8") for path in written] == [
        part.to_csv(index=False, lineterminator="\n") for part in expected
    ]


def test_command_writes_the_two_tables_beside_the_manifest_and_prints_their_paths(run, tmp_path):
    table = table_beside_its_sounds(tmp_path, *MULTI_HOT)
    done = run("split", table, "--random-state", 42, "--test-size", 0.25)
    train, valid = (tmp_path / f"train_curated_image_{name}set.csv" for name in ("train", "valid"))
    assert done.out.splitlines()[-2:] == [str(train), str(valid)]
    rows = train_test_split(range(23), test_size=0.25, random_state=42)
    for path, expected in zip((train, valid), rows, strict=True):
        assert [clip.fname for clip in read_manifest(path).clips] == [f"{row}.wav" for row in expected]


def test_recordings_on_both_sides_of_a_random_split_are_counted(run, tmp_path):
    """Of 50 recordings with four excerpts each, a fraction of 1 - 0.75**4 - 0.25**4 is expected on both sides: 34."""
    rows = [f"{number // 4}.wav,a,{number % 4}" for number in range(200)]
    table = write_manifest(tmp_path, rows, header="fname,labels,start")
    result = split(table, test_size=0.25, seed=1)
    sides = [{result.folds[4 * recording + part] for part in range(4)} for recording in range(50)]
    assert result.n_separated_groups == sides.count({"train", "valid"}) == pytest.approx(34, abs=8)
    assert split(table, validation_fraction=0.25, seed=1).n_separated_groups == 0
    message = f"{result.n_separated_groups} recordings or groups are on both sides"
    assert message in run("split", table, "--test-size", 0.25, "--seed", 1).out
    assert "on both sides" not in run("split", table, "--validation-fraction", 0.25).out


def test_tables_in_another_folder_find_their_sounds(table, tmp_path):
    result = split(table, test_size=0.3)
    paths = write_holdout(tmp_path / "neu", result)
    assert [path.name for path in paths] == ["clips_trainset.csv", "clips_validset.csv"]
    for path, rows in zip(paths, train_test_split(range(30), test_size=0.3, random_state=0), strict=True):
        expected = [result.manifest.clips[row] for row in rows]
        assert [(clip.path.resolve(), clip.labels) for clip in read_manifest(path).clips] == [
            (clip.path.resolve(), clip.labels) for clip in expected
        ]


def test_labels_with_commas_are_kept_in_a_column_of_labels(tmp_path):
    """AudioSet has such labels."""
    patterns = ['{}.wav,"""Chicken, rooster"",Dog"', '{}.wav,"""Chicken, rooster"""', "{}.wav,Dog", "{}.wav,"]
    table = table_beside_its_sounds(tmp_path, "fname,labels", patterns)
    labels = {clip.fname: clip.labels for clip in read_manifest(table).clips}
    paths = write_holdout(tmp_path, split(table, test_size=0.25))
    assert {clip.fname: clip.labels for path in paths for clip in read_manifest(path).clips} == labels
    assert set(labels.values()) == {("Chicken, rooster", "Dog"), ("Chicken, rooster",), ("Dog",), ()}


@pytest.mark.parametrize(("header", "patterns"), [ONE_FIELD, MULTI_HOT])
def test_tables_contain_the_corrected_labels(tmp_path, header, patterns):
    table = table_beside_its_sounds(tmp_path, header, patterns)
    manifest = read_manifest(table)
    clips = tuple(replace(clip, labels=("Neu",)) if clip.fname == "3.wav" else clip for clip in manifest.clips)
    corrected = replace(manifest, clips=clips, labels=LabelSet((*manifest.labels.names, "Neu")))
    paths = write_holdout(tmp_path, split(corrected, test_size=0.25))
    labels = {clip.fname: clip.labels for path in paths for clip in read_manifest(path).clips}
    assert labels == {clip.fname: clip.labels for clip in clips}


def test_a_folder_of_each_label_is_split_into_two_tables(tmp_path):
    for number in range(8):
        write_audio(tmp_path / "sounds" / "ab"[number % 2] / f"{number}.wav", np.full(80, 0.1, np.float32), 8000)
    result = split(tmp_path / "sounds", test_size=0.25)
    train, valid = (read_manifest(path) for path in write_holdout(tmp_path, result))
    assert (len(train.clips), len(valid.clips)) == (6, 2)
    assert {(clip.path, clip.labels) for clip in (*train.clips, *valid.clips)} == {
        (clip.path, clip.labels) for clip in result.manifest.clips
    }


def test_excerpts_of_one_recording_are_in_one_fold_if_shared_audio_is_searched_for(tmp_path, rng):
    table, contents = write_clips(tmp_path, rng, n_clips=40, n_recordings=30, n_sounds=(1,))
    result = split(table, find_shared_audio=True, cache=tmp_path, workers=1)
    folds_of = {int(content[0]): set() for content in contents}
    for content, fold in zip(contents, result.folds, strict=True):
        folds_of[int(content[0])].add(fold)
    assert len(folds_of) < 40
    assert all(len(folds) == 1 for folds in folds_of.values())
    assert result.n_sharing_between_folds == 0
    assert [clip.group for clip in result.manifest.clips] == [None] * 40


def test_clips_that_share_audio_between_folds_are_counted(tmp_path, rng):
    table, _ = write_clips(tmp_path, rng, n_clips=8, n_recordings=1, n_sounds=(1,))
    result = split(table, folds=4, find_shared_audio=True, cache=tmp_path, workers=1)
    assert result.n_sharing_between_folds == 8


def test_shared_audio_and_a_random_split_exclude_each_other(table):
    with pytest.raises(DataError, match="a split by test_size is random, so find_shared_audio has no effect"):
        split(table, test_size=0.25, find_shared_audio=True)


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("fname,labels,Unknown,weight", ["1.wav,a,b,0.5", "2.wav,b,,", "3.wav,a,,2", "4.wav,b,a,"]),
        ("fname,weight,a,b", ["1.wav,0.5,1,", "2.wav,,0,1", "3.wav,2,1,0", "4.wav,,,1"]),
    ],
)
def test_weights_and_unknown_labels_are_kept(tmp_path, header, rows):
    table = write_manifest(tmp_path, rows, header)
    expected = read_manifest(table)
    write_split(tmp_path / "folds.csv", split(table, folds=2))
    parts = [read_manifest(path) for path in write_holdout(tmp_path, split(table, test_size=0.5))]
    for clips in (read_manifest(tmp_path / "folds.csv").clips, parts[0].clips + parts[1].clips):
        assert {(clip.path.name, clip.labels, clip.unknown, clip.weight) for clip in clips} == {
            (clip.path.name, clip.labels, clip.unknown, clip.weight) for clip in expected.clips
        }
