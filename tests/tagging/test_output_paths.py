"""Where a run's results go."""

from pathlib import Path

import pytest

from spectag.errors import ConfigError
from spectag.tagging.input_files import Shard
from spectag.tagging.output_paths import format_of, is_file, results


def test_folder_holds_a_table_for_each_format_and_the_status(tmp_path):
    places = results(str(tmp_path / "aus gabe"), ["csv", "raven", "wide", "raven-combined", "submission"])
    assert {name: Path(table).name for name, table in places.tables.items()} == {
        "csv": "tags.csv",
        "raven": "raven",
        "wide": "tags.wide.csv",
        "raven-combined": "tags.selections.txt",
        "submission": "submission.csv",
    }
    assert places.status == str(tmp_path / "aus gabe" / "status.csv")
    assert places.parameters == str(tmp_path / "aus gabe" / "parameters.toml")
    assert places.journal == tmp_path / "aus gabe" / ".journal"
    assert places.in_folder


def test_no_two_tables_share_a_name(tmp_path):
    from spectag.tagging.formats.dispatch import FORMATS

    places = results(str(tmp_path), [*FORMATS, "submission"])
    everything = [*places.tables.values(), places.status, places.parameters, str(places.journal)]
    assert len(set(everything)) == len(FORMATS) + 4


def test_file_has_its_status_beside_it_under_its_name():
    places = results("out/a b.c.csv", ["csv"])
    assert places.tables == {"csv": "out/a b.c.csv"}
    assert (places.status, places.parameters) == ("out/a b.c.status.csv", "out/a b.c.parameters.toml")
    assert places.journal == Path("out/.a b.c.csv.journal")
    assert not places.in_folder
    assert results("tags.csv", ["csv"]).tables == {"csv": "tags.csv"}


@pytest.mark.parametrize("output", ["a.wav", "folder/b.FLAC", "c.png", "s3://bucket/d.mp3"])
def test_recording_is_no_place_for_results(output):
    with pytest.raises(ConfigError, match=r"is that of a recording; give a table, such as tags\.csv"):
        results(output, ["csv"])


def test_folder_may_be_named_like_a_recording(tmp_path):
    (tmp_path / "2024.wav").mkdir()
    assert results(str(tmp_path / "2024.wav"), ["csv"]).in_folder


def test_shard_is_in_every_name():
    places = results("out", ["csv", "raven"], Shard(2, 8))
    assert places.tables == {"csv": "out/tags.2of8.csv", "raven": "out/raven.2of8"}
    assert (places.status, places.parameters) == ("out/status.2of8.csv", "out/parameters.2of8.toml")
    assert places.journal == Path("out/.journal.2of8")
    of_file = results("tags.csv", ["csv"], Shard(2, 8))
    assert of_file.tables == {"csv": "tags.2of8.csv"}
    assert of_file.journal == Path(".tags.2of8.csv.journal")


def test_address_has_its_journal_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path))
    folder, other = results("s3://bucket/out", ["csv"]), results("s3://bucket/other", ["csv"])
    assert folder.tables == {"csv": "s3://bucket/out/tags.csv"}
    assert folder.status == "s3://bucket/out/status.csv"
    assert folder.journal.parent == other.journal.parent == tmp_path / "journals"
    assert folder.journal != other.journal
    assert results("s3://bucket/out/a.csv", ["csv"]).tables == {"csv": "s3://bucket/out/a.csv"}
    assert results("s3://bucket/out/a.csv", ["csv"]).status == "s3://bucket/out/a.status.csv"


@pytest.mark.parametrize(
    ("output", "expected"),
    [("tags.csv", True), ("T.PARQUET", True), ("x.txt", True), ("out", False), ("results.v2", False), ("out/", False)],
)
def test_table_is_known_by_its_suffix(output, expected):
    assert is_file(output) == expected


def test_folder_that_is_there_is_a_folder_whatever_its_name(tmp_path):
    (tmp_path / "odd.csv").mkdir()
    (tmp_path / "table").write_text("")
    assert not is_file(str(tmp_path / "odd.csv"))
    assert is_file(str(tmp_path / "table"))


def test_several_formats_do_not_fit_into_a_file():
    with pytest.raises(ConfigError, match=r"-o a\.csv: 2 formats \(csv, raven\) need a folder"):
        results("a.csv", ["csv", "raven"])


def test_format_follows_the_suffix():
    assert [format_of(name) for name in (None, "a.csv", "a.JSONL", "b.parquet", "c.txt", "out")] == [
        "csv",
        "csv",
        "jsonl",
        "parquet",
        "csv",
        "csv",
    ]
