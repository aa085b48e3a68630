"""Where the results of a run are written."""

from pathlib import Path

import pytest

from spectag.errors import ConfigError
from spectag.tagging.input_files import Shard
from spectag.tagging.output_paths import format_of, is_file, output_paths


def test_folder_gets_a_table_for_each_format_and_the_status(tmp_path):
    paths = output_paths(
        str(tmp_path / "my output"), ["csv", "raven", "wide", "multi-hot", "raven-combined", "submission"]
    )
    assert {name: Path(table).name for name, table in paths.tables.items()} == {
        "csv": "tags.csv",
        "raven": "raven",
        "wide": "tags.wide.csv",
        "multi-hot": "tags.multi-hot.csv",
        "raven-combined": "tags.selections.txt",
        "submission": "submission.csv",
    }
    assert paths.status == str(tmp_path / "my output" / "status.csv")
    assert paths.parameters == str(tmp_path / "my output" / "parameters.toml")
    assert paths.journal == tmp_path / "my output" / ".journal"
    assert paths.in_folder


def test_no_two_tables_share_a_name(tmp_path):
    from spectag.tagging.formats.dispatch import FORMATS

    paths = output_paths(str(tmp_path), list(FORMATS))
    all_paths = [*paths.tables.values(), paths.status, paths.parameters, str(paths.journal)]
    assert len(set(all_paths)) == len(FORMATS) + 3


def test_status_of_a_single_table_is_named_after_it():
    paths = output_paths("out/a b.c.csv", ["csv"])
    assert paths.tables == {"csv": "out/a b.c.csv"}
    assert (paths.status, paths.parameters) == ("out/a b.c.status.csv", "out/a b.c.parameters.toml")
    assert paths.journal == Path("out/.a b.c.csv.journal")
    assert not paths.in_folder
    assert output_paths("tags.csv", ["csv"]).tables == {"csv": "tags.csv"}


@pytest.mark.parametrize("output", ["a.wav", "folder/b.FLAC", "c.png", "s3://bucket/d.mp3"])
def test_output_named_like_a_recording_is_an_error(output):
    with pytest.raises(ConfigError, match=r"is the suffix of a recording; give a table \(tags\.csv\) or a folder"):
        output_paths(output, ["csv"])


@pytest.mark.parametrize("output", ["/dev/stdout", "/dev/fd/3"])
def test_standard_output_as_a_file_is_an_error_that_says_what_to_do(output):
    with pytest.raises(ConfigError, match=rf"^-o {output}: results go to files, .*; leave out -o to print them$"):
        output_paths(output, ["csv"])


def test_existing_folder_may_be_named_like_a_recording(tmp_path):
    (tmp_path / "2024.wav").mkdir()
    assert output_paths(str(tmp_path / "2024.wav"), ["csv"]).in_folder


def test_every_name_contains_the_shard():
    paths = output_paths("out", ["csv", "raven"], Shard(2, 8))
    assert paths.tables == {"csv": "out/tags.2of8.csv", "raven": "out/raven.2of8"}
    assert (paths.status, paths.parameters) == ("out/status.2of8.csv", "out/parameters.2of8.toml")
    assert paths.journal == Path("out/.journal.2of8")
    single = output_paths("tags.csv", ["csv"], Shard(2, 8))
    assert single.tables == {"csv": "tags.2of8.csv"}
    assert single.journal == Path(".tags.2of8.csv.journal")


def test_journal_of_a_url_is_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path))
    folder, other = output_paths("s3://bucket/out", ["csv"]), output_paths("s3://bucket/other", ["csv"])
    assert folder.tables == {"csv": "s3://bucket/out/tags.csv"}
    assert folder.status == "s3://bucket/out/status.csv"
    assert folder.journal.parent == other.journal.parent == tmp_path / "journals"
    assert folder.journal != other.journal
    assert output_paths("s3://bucket/out/a.csv", ["csv"]).tables == {"csv": "s3://bucket/out/a.csv"}
    assert output_paths("s3://bucket/out/a.csv", ["csv"]).status == "s3://bucket/out/a.status.csv"


@pytest.mark.parametrize(
    ("output", "expected"),
    [("tags.csv", True), ("T.PARQUET", True), ("x.txt", True), ("out", False), ("results.v2", False), ("out/", False)],
)
def test_suffix_distinguishes_a_table_from_a_folder(output, expected):
    assert is_file(output) == expected


def test_existing_folder_may_have_the_suffix_of_a_table(tmp_path):
    (tmp_path / "odd.csv").mkdir()
    (tmp_path / "table").write_text("")
    assert not is_file(str(tmp_path / "odd.csv"))
    assert is_file(str(tmp_path / "table"))


def test_several_formats_in_one_file_are_an_error():
    with pytest.raises(ConfigError, match=r"-o a\.csv: 2 formats \(csv, raven\) need a folder"):
        output_paths("a.csv", ["csv", "raven"])


def test_suffix_decides_the_format():
    names = (None, "a.csv", "a.JSONL", "b.parquet", "out", "results.v2", "2024.05", "out.xlsx/")
    assert [format_of(name) for name in names] == ["csv", "csv", "jsonl", "parquet", "csv", "csv", "csv", "csv"]
    assert [format_of(f"tags.{name}") for name in ("tsv", "xlsx", "json")] == ["tsv", "xlsx", "json"]


@pytest.mark.parametrize("output", ["t.TXT", "s3://bucket/t.txt"])
def test_suffix_of_several_formats_needs_a_format(output):
    with pytest.raises(ConfigError, match=r"use \.csv, \.tsv, .* or \.xlsx, or choose one with --format: csv, tsv"):
        format_of(output)
    assert not output_paths(output, ["raven"]).in_folder


@pytest.mark.parametrize("output", ["tags.xls", "out/tags.ods", "s3://bucket/tags.html"])
def test_unknown_suffix_is_an_error_and_no_folder(output):
    expected = r"is not a suffix of tables; use \.csv, .*\.parquet or \.xlsx, or add / if it is the name of a folder"
    for check in (format_of, lambda name: output_paths(name, ["csv"])):
        with pytest.raises(ConfigError, match=expected):
            check(output)


def test_folder_may_have_any_suffix_if_it_exists_or_ends_with_a_slash(tmp_path):
    (tmp_path / "rec.old").mkdir()
    for output in (str(tmp_path / "rec.old"), "new.old/", "s3://my.bucket", "s3://bucket/a.b/"):
        assert output_paths(output, ["csv"]).in_folder
