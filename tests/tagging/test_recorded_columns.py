"""The columns recorded and site of the tables of `spectag tag`."""

import csv
import json
from datetime import datetime
from pathlib import Path

import pytest
from openpyxl import load_workbook

from helpers.bundles import make_bundle
from helpers.command import write_tones
from spectag.data.detections import read_detections


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model")


@pytest.fixture
def sounds(tmp_path):
    """Recordings of two sites with the same file names, and one without a time."""
    for site in ("Bach", "Moor"):
        write_tones(tmp_path / "card" / site, 1)
        (tmp_path / "card" / site / "low 00.wav").rename(tmp_path / "card" / site / "20240501_235959.wav")
    write_tones(tmp_path / "card" / "zuletzt", 1)
    return tmp_path / "card"


def rows_of(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_say_when_and_where_each_sound_was_recorded_only_if_asked(run, model, sounds, tmp_path):
    options = ("--window", "0.1", "--top", "1", "--format", "csv,jsonl,parquet,xlsx")
    assert run("tag", model, sounds, "-o", tmp_path / "out", *options, "--recorded").status == 0
    rows = rows_of(tmp_path / "out" / "tags.csv")
    assert list(rows[0])[:5] == ["file", "start", "end", "label", "probability"]
    assert list(rows[0])[-2:] == ["recorded", "site"]
    times = [(row["site"], row["recorded"]) for row in rows if row["start"] in ("0.000", "0.100")]
    assert times == [
        ("Bach", "2024-05-01T23:59:59"),
        ("Bach", "2024-05-01T23:59:59.100"),
        ("Moor", "2024-05-01T23:59:59"),
        ("Moor", "2024-05-01T23:59:59.100"),
        ("zuletzt", ""),
        ("zuletzt", ""),
    ]
    status = rows_of(tmp_path / "out" / "status.csv")
    assert (status[0]["recorded"], status[0]["site"]) == ("2024-05-01T23:59:59", "Bach")
    first = json.loads((tmp_path / "out" / "tags.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (first["recorded"], first["site"]) == ("2024-05-01T23:59:59", "Bach")
    sheet = list(load_workbook(tmp_path / "out" / "tags.xlsx").active.values)
    assert [row[-2:] for row in sheet[:2]] == [("recorded", "site"), ("2024-05-01T23:59:59", "Bach")]
    for name in ("tags.csv", "tags.jsonl", "tags.parquet"):
        places = read_detections(tmp_path / "out" / name).places
        assert [(place.site, place.start) for place in places.values()] == [
            ("Bach", datetime(2024, 5, 1, 23, 59, 59)),
            ("Moor", datetime(2024, 5, 1, 23, 59, 59)),
            ("zuletzt", None),
        ]
    assert run("tag", model, sounds, "-o", tmp_path / "plain.csv", "--top", "1").status == 0
    assert "site" not in (tmp_path / "plain.csv").read_text(encoding="utf-8").splitlines()[0]


def test_sites_come_from_the_table_of_deployments(run, model, sounds, tmp_path):
    deployments = tmp_path / "deployments.csv"
    deployments.write_text("site,recorder\n=Brook,Bach\n", encoding="utf-8")
    options = ("--deployments", deployments, "--site-from", r"card/(\w+)", "--top", "1")
    assert run("tag", model, sounds, "-o", tmp_path / "tags.csv", *options).status == 0
    assert {row["site"] for row in rows_of(tmp_path / "tags.csv")} == {"'=Brook", "Moor", "zuletzt"}
    assert "deployments.csv" in (tmp_path / "tags.parameters.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (("--site-from", "plot"), 1, "site_from: 'plot' is not found in"),
        (("--site-from", "("), 1, r"site_from: '(' is not a regular expression"),
        (("--deployments", "gone.csv"), 1, "--deployments gone.csv: no such file"),
        (
            ("--recorded", "--format", "raven"),
            2,
            "--recorded adds columns to csv, tsv, xlsx, json, jsonl, parquet, not",
        ),
    ],
)
def test_impossible_options_end_before_anything_is_tagged(run, model, sounds, tmp_path, options, status, message):
    done = run("tag", model, sounds, "-o", tmp_path / "out", *options)
    assert done.status == status
    assert message in done.err
    assert not (tmp_path / "out").exists()
