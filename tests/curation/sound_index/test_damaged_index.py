"""Damaged indexes, and those of strangers: a foreseen error, or a result."""

import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import spectag
from helpers.bundles import make_bundle
from helpers.command import write_tones
from spectag.curation.embedding import Embedding
from spectag.curation.sound_index.building import build_index
from spectag.curation.sound_index.database import DATABASE
from spectag.curation.sound_index.searching import SoundIndex
from spectag.errors import DataError

QUERY = "low 00.wav"


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    write_tones(folder / "sounds", 12)
    build_index([folder / "sounds"], folder / "index", model=make_bundle(folder / "model"))
    return folder / "index"


@pytest.fixture
def copy(index, tmp_path):
    return Path(shutil.copytree(index, tmp_path / "index"))


def search(folder):
    """The names found, or the message of a foreseen error."""
    try:
        found = spectag.search(folder, QUERY, n=5, same_file=True)
    except DataError as error:
        return str(error)
    return [Path(result.file).name for result in found]


def damaged_versions(content, rng):
    """Cut at every 1/50, and with some bits changed in every 1/50."""
    for part in range(50):
        start, end = len(content) * part // 50, len(content) * (part + 1) // 50
        yield content[:start]
        changed = bytearray(content)
        for position in rng.integers(start, max(end, start + 1), size=5):
            changed[position % len(content)] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


@pytest.mark.parametrize("name", [DATABASE, "index.json", "vectors-1.f32"])
def test_file_damaged_in_any_region_gives_a_foreseen_error_or_a_result(copy, rng, name):
    content = (copy / name).read_bytes()
    outcomes = []
    for damaged in damaged_versions(content, rng):
        (copy / name).write_bytes(damaged)
        outcomes.append(search(copy))
    messages = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert len(messages) >= 45  # at least if it is cut
    assert not any("\n" in message for message in messages)


def change(folder, *statements):
    with sqlite3.connect(folder / DATABASE) as database:
        for statement in statements:
            database.execute(statement)
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET n_vectors = -1",
        "UPDATE state SET n_vectors = 1000000000000000000",
        "UPDATE state SET n_dimensions = 'many'",
        "UPDATE state SET n_dimensions = NULL",
        "DELETE FROM state",
        "UPDATE file SET name = number",
        "UPDATE file SET n_windows = 'x'",
        "UPDATE file SET first_row = -5",
        "UPDATE file SET recorded = 1e300",
        "UPDATE file SET recorded = 'today'",
        "UPDATE span SET starts = 'now'",
        "UPDATE span SET starts = 9e999",
        "DELETE FROM span",
        "INSERT OR REPLACE INTO detection SELECT 99, number, 0, 0.9 FROM file",
        "INSERT OR REPLACE INTO detection SELECT -1, number, 0, 0.9 FROM file",
        "INSERT OR REPLACE INTO detection SELECT 0, number, 0, 'high' FROM file",
    ],
)
def test_values_that_an_index_never_has_are_a_foreseen_error(copy, statement):
    change(copy, statement)
    message = search(copy)
    assert isinstance(message, str)
    assert f"{DATABASE}: the database is damaged" in message or "vectors" in message


@pytest.mark.parametrize(
    "statements",
    [
        [
            "DROP TABLE file",
            "CREATE VIEW file AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
        ],
        ["CREATE TRIGGER t AFTER DELETE ON state BEGIN DELETE FROM file; END"],
        ["DROP TABLE span"],
        ["ALTER TABLE file ADD COLUMN more"],
    ],
    ids=["endless view", "trigger", "table missing", "column added"],
)
def test_database_with_other_tables_is_refused_before_it_is_queried(copy, statements):
    change(copy, *statements)
    with pytest.raises(DataError, match="its tables are not those of an index"):
        SoundIndex(copy)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a zip",
        Embedding(np.zeros(3, np.float32), np.ones(4, np.float32), None).to_bytes(),
        Embedding(np.zeros(3, np.float32), np.full(3, np.nan, np.float32), None).to_bytes(),
        Embedding(np.zeros(3, object), np.ones(3, np.float32), None).to_bytes(),
        Embedding(np.zeros(3, np.float32), np.ones(3, np.float32), np.zeros((2, 2), np.float32)).to_bytes(),
    ],
)
def test_embedding_that_is_damaged_or_a_pickle_is_refused(data):
    with pytest.raises(ValueError, match="not an embedding"):
        Embedding.from_bytes(data)


def test_vectors_that_are_not_numbers_are_found_last(copy):
    vectors = np.fromfile(copy / "vectors-1.f32", "<f4").reshape(12, -1)
    vectors[5:] = np.nan
    (copy / "vectors-1.f32").write_bytes(vectors.tobytes())
    assert len(search(copy)) == 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", [DATABASE, "index.json", "vectors-1.f32"])
def test_pipe_instead_of_a_file_is_refused_instead_of_waiting(copy, name):
    (copy / name).unlink()
    os.mkfifo(copy / name)
    assert isinstance(search(copy), str)
