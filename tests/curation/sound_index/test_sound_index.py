"""The sound index: its content, updates, and search results."""

import os
import shutil
import sqlite3
import threading
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

import spectag
from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from helpers.command import write_tones
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.base import WindowConfig
from spectag.curation.embedding import nearest_neighbors, unit_vectors
from spectag.curation.sound_index import ann_graph as graph
from spectag.curation.sound_index import building, searching, vectors
from spectag.curation.sound_index.building import build_index
from spectag.curation.sound_index.database import IndexDatabase
from spectag.curation.sound_index.filters import SearchFilter
from spectag.curation.sound_index.metadata import IndexInfo, write_index_info
from spectag.curation.sound_index.recording_dates import RecordingDate, date_in, recording_date
from spectag.curation.sound_index.searching import SoundIndex
from spectag.curation.sound_index.vectors import read_vectors
from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.models.timeline import Timeline
from spectag.system.atomic_files import sha256_of
from spectag.system.progress import silent

SECOND = WindowConfig(window_seconds=1.0)


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "ein Modell")


@pytest.fixture
def sounds(tmp_path):
    """Twelve tones of about 0.3 s, of three labels in turn."""
    write_tones(tmp_path / "Töne", 12)
    return tmp_path / "Töne"


def add_tone(folder, name, label, seconds=0.3):
    folder.mkdir(exist_ok=True)
    write_audio(folder / name, tone(label, seconds), 16_000)
    return folder / name


def names(found):
    return [Path(result.file).name for result in found]


def labels_of(found):
    return [Path(result.file).name.split()[0] for result in found]


def all_vectors(index):
    """File, start and vector of each window that can be found."""
    database = IndexDatabase(Path(index))
    rows = read_vectors(database.folder, database.state)
    vectors_by_window = {}
    for entry in database.entries():
        for position, (start, _) in enumerate(database.windows(entry.number)):
            vectors_by_window[entry.name, start] = np.array(rows[entry.first_row + position])
    database.close()
    return vectors_by_window


def test_sounds_with_the_same_pitch_are_most_similar(model, sounds, tmp_path):
    with spectag.index(sounds, tmp_path / "index", model=model) as index:
        assert (index.n_files, len(index), index.skipped) == (12, 12, ())
        for label in LABELS:
            new = add_tone(tmp_path / "new", f"{label}.wav", label, 0.5)
            found = index.search(new, n=4)
            assert labels_of(found) == [label] * 4
            similarities = [result.similarity for result in found]
            assert similarities == sorted(similarities, reverse=True)
            assert similarities[0] > 0.9


def test_labels_and_probabilities_equal_those_of_tagging(sounds, tmp_path):
    thresholds = (5e-4, 0.5, 0.5)
    model = make_bundle(tmp_path / "model", make_info(thresholds=thresholds))
    build_index([sounds], tmp_path / "index", model=model)
    found = spectag.search(tmp_path / "index", "low 00.wav", n=99)
    tagger = spectag.load(model)
    assert {tuple(tag.label for tag in result.labels) for result in found} == {("low",), ("middle",), ()}
    for result in found:
        expected = tagger.tag(result.file).above_threshold()
        probabilities = [tag.probability for tag in expected]
        assert [tag.label for tag in result.labels] == [tag.label for tag in expected]
        assert [tag.probability for tag in result.labels] == pytest.approx(probabilities, abs=1e-6)


def test_similarities_are_dot_products_of_the_stored_vectors(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    kept = all_vectors(tmp_path / "index")
    query = str(sounds / "low 00.wav")
    for result in spectag.search(tmp_path / "index", query, n=99):
        expected = kept[query, 0.0] @ kept[result.file, result.start_seconds]
        assert result.similarity == pytest.approx(expected, abs=1e-5)


def test_update_embeds_only_new_and_changed_files_and_removes_missing_ones(model, sounds, tmp_path):
    first = build_index([sounds], tmp_path / "index", model=model)
    assert (first.n_files, first.n_unchanged, first.n_removed, first.n_windows) == (12, 0, 0, 12)
    again = build_index([sounds], tmp_path / "index")
    assert (again.n_unchanged, again.sound_seconds) == (12, 0.0)
    add_tone(sounds, "low 99.wav", "low")
    write_audio(sounds / "high 02.wav", tone("middle", 0.7), 16_000)
    (sounds / "middle 01.wav").unlink()
    later = build_index([sounds], tmp_path / "index")
    assert (later.n_files, later.n_unchanged, later.n_removed, later.n_windows) == (12, 10, 1, 12)
    assert later.sound_seconds == pytest.approx(1.0, abs=0.01)
    fresh = build_index([sounds], tmp_path / "fresh", model=model)
    assert fresh.n_windows == 12
    kept, expected = all_vectors(tmp_path / "index"), all_vectors(tmp_path / "fresh")
    assert kept.keys() == expected.keys()
    assert all(kept[key] == pytest.approx(expected[key], abs=1e-5) for key in kept)


def test_update_of_one_folder_keeps_files_of_other_folders(model, tmp_path):
    first, second = tmp_path / "one", tmp_path / "other"
    add_tone(first, "low.wav", "low")
    for label in LABELS:
        add_tone(second, f"{label}.wav", label)
    build_index([first], tmp_path / "index", model=model)
    report = build_index([second], tmp_path / "index")
    assert (report.n_files, report.n_removed, report.n_windows) == (3, 0, 4)
    shutil.move(first, tmp_path / "moved")
    assert build_index([second], tmp_path / "index").n_removed == 0
    assert build_index([str(second / "m*.wav")], tmp_path / "index").n_removed == 0
    (second / "low.wav").unlink()
    assert build_index([str(second / "*.wav")], tmp_path / "index").n_removed == 1


def test_unreadable_files_are_reported_and_tried_again(model, sounds, tmp_path):
    (sounds / "leer.wav").write_bytes(b"")
    (sounds / "text.wav").write_text("no sound, and long enough to be looked at by a decoder")
    report = build_index([sounds], tmp_path / "index", model=model)
    assert report.n_windows == 12
    assert sorted(Path(reason.split(": ")[0]).name for reason in report.reasons) == ["leer.wav", "text.wav"]
    add_tone(sounds, "leer.wav", "low")
    report = build_index([sounds], tmp_path / "index")
    assert (report.n_windows, report.n_unchanged, len(report.reasons)) == (13, 12, 1)


def test_file_that_becomes_unreadable_is_removed(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    (sounds / "low 00.wav").write_bytes(b"")
    report = build_index([sounds], tmp_path / "index")
    assert (len(report.reasons), report.n_windows) == (1, 11)


class Killed(BaseException):
    """An exception that the package does not catch."""


def stop_after(monkeypatch, n_files):
    """Stop the next run after this number of files."""
    real, added = vectors.VectorWriter.add, []

    def add(writer, number, features):
        if len(added) == n_files:
            raise Killed
        added.append(number)
        real(writer, number, features)

    monkeypatch.setattr(vectors.VectorWriter, "add", add)
    monkeypatch.setattr(vectors, "_SECONDS_BETWEEN_COMMITS", 0.0)


def tag_in_this_process(monkeypatch):
    """Do not start the processes that isolate crashes after an interrupted run."""
    real = building.tag_chunks
    monkeypatch.setattr(building, "tag_chunks", lambda *a, isolate_crashes, **options: real(*a, **options))


@pytest.mark.parametrize("rows_to_fit", [5_000, 6])
@pytest.mark.parametrize("n_done", [0, 3, 9])
def test_interrupted_run_continues_and_builds_the_same_index(model, sounds, tmp_path, monkeypatch, rows_to_fit, n_done):
    monkeypatch.setattr(vectors, "ROWS_TO_FIT", rows_to_fit)
    if n_done != 3:
        tag_in_this_process(monkeypatch)
    build_index([sounds], tmp_path / "whole", model=model, workers=1)
    with monkeypatch.context() as patch:
        stop_after(patch, n_done)
        with pytest.raises(Killed):
            build_index([sounds], tmp_path / "index", model=model, workers=1)
    report = build_index([sounds], tmp_path / "index", workers=1)
    assert (report.n_unchanged, report.n_windows) == (n_done, 12)
    kept, expected = all_vectors(tmp_path / "index"), all_vectors(tmp_path / "whole")
    assert kept.keys() == expected.keys()
    vector_files = {path.name: path.read_bytes() for path in (tmp_path / "index").glob("*.f32")}
    assert vector_files == {path.name: path.read_bytes() for path in (tmp_path / "whole").glob("*.f32")}


def test_interrupted_update_does_not_change_search_results(model, sounds, tmp_path, monkeypatch):
    build_index([sounds], tmp_path / "index", model=model)
    before = spectag.search(tmp_path / "index", sounds / "low 00.wav", n=20)
    add_tone(sounds, "low 98.wav", "low")
    add_tone(sounds, "low 99.wav", "low")
    stop_after(monkeypatch, 1)
    with pytest.raises(Killed):
        build_index([sounds], tmp_path / "index", workers=1)
    assert spectag.search(tmp_path / "index", sounds / "low 00.wav", n=20) == before


def test_uncommitted_vectors_are_overwritten(model, sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "ROWS_TO_FIT", 6)
    build_index([sounds], tmp_path / "index", model=model)
    (file,) = (tmp_path / "index").glob("vectors-*")
    with file.open("ab") as file_object:
        file_object.write(b"written by a killed run")
    add_tone(sounds, "low 99.wav", "low")
    build_index([sounds], tmp_path / "index")
    assert spectag.search(tmp_path / "index", sounds / "low 99.wav", n=1)[0].similarity > 0.9
    assert all(
        np.linalg.norm(result) == pytest.approx(1, abs=1e-5) for result in all_vectors(tmp_path / "index").values()
    )


def test_embedding_of_many_sounds_is_final_and_features_are_deleted(model, sounds, tmp_path, monkeypatch):
    monkeypatch.setattr(vectors, "ROWS_TO_FIT", 6)
    build_index([sounds], tmp_path / "index", model=model)
    before = all_vectors(tmp_path / "index")
    database = IndexDatabase(tmp_path / "index")
    assert (database.state.is_settled, database.n_stored_features()) == (True, 0)
    database.close()
    for number in range(5):
        add_tone(sounds, f"high 2{number}.wav", "high")
    build_index([sounds], tmp_path / "index")
    after = all_vectors(tmp_path / "index")
    assert len(after) == 17
    assert all(np.array_equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("rows_to_fit", [5_000, 6])
def test_vectors_of_removed_files_are_not_found_and_finally_deleted(model, sounds, tmp_path, monkeypatch, rows_to_fit):
    monkeypatch.setattr(vectors, "ROWS_TO_FIT", rows_to_fit)
    build_index([sounds], tmp_path / "index", model=model)
    for file in sorted(sounds.iterdir())[::2]:
        file.unlink()
        build_index([sounds], tmp_path / "index")
        left = {path.name for path in sounds.iterdir()}
        query = tmp_path / "Töne" / sorted(left)[0]
        assert set(names(spectag.search(tmp_path / "index", query, n=99))) == left - {query.name}
    (file,) = (tmp_path / "index").glob("vectors-*")
    database = IndexDatabase(tmp_path / "index")
    assert database.state.n_vectors < 9
    assert file.stat().st_size == 4 * database.state.n_vectors * database.state.n_dimensions
    database.close()


def test_empty_index_is_an_error(model, tmp_path):
    add_tone(tmp_path / "one", "low.wav", "low")
    build_index([tmp_path / "one"], tmp_path / "index", model=model)
    (tmp_path / "one" / "low.wav").write_bytes(b"")
    assert build_index([tmp_path / "one"], tmp_path / "index").n_windows == 0
    with pytest.raises(DataError, match="the index contains no sounds yet"):
        spectag.search(tmp_path / "index", "low.wav")


def test_search_returns_the_matching_window_of_a_long_recording(model, tmp_path):
    silence = np.random.default_rng(0).standard_normal(16_000 * 3).astype(np.float32) / 1e4
    parts = [tone("low", 3), silence, tone("high", 3), silence]
    (tmp_path / "rec").mkdir()
    write_audio(tmp_path / "rec" / "long.wav", np.concatenate(parts), 16_000)
    for label in LABELS:
        add_tone(tmp_path / "rec", f"{label}.wav", label)
    with spectag.index(tmp_path / "rec", tmp_path / "index", model=model, window=SECOND) as index:
        assert len(index) == 12 + 3
        found = index.search(tmp_path / "rec" / "high.wav", n=3)
        assert names(found) == ["long.wav"] * 3
        assert sorted((result.start_seconds, result.end_seconds) for result in found) == [(6, 7), (7, 8), (8, 9)]
        assert names(index.search("long.wav", start=1.5, n=1)) == ["low.wav"]
        assert names(index.search("long.wav", start=7, n=1)) == ["high.wav"]
        with pytest.raises(DataError, match=r"long.wav: there is no window at 12 s, because .* ends at 12 s"):
            index.search("long.wav", start=12)
        found = index.search("long.wav", start=7.2, same_file=True, n=2)
        assert [(result.file.endswith("long.wav"), result.start_seconds) for result in found] != [(True, 7.0)]
        assert {result.start_seconds for result in index.search("long.wav", start=7, same_file=True, n=3)} == {0, 6, 8}
        assert sorted(names(index.search("high.wav", n=9, one_per_file=True))) == ["long.wav", "low.wav", "middle.wav"]


def test_excerpt_of_a_file_outside_the_index_can_be_the_query(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model, window=SECOND)
    (tmp_path / "new").mkdir()
    write_audio(tmp_path / "new" / "both.wav", np.concatenate([tone("low", 2), tone("high", 2)]), 16_000)
    for start, label in [(0.0, "low"), (2.5, "high")]:
        found = spectag.search(tmp_path / "index", tmp_path / "new" / "both.wav", start=start, n=2)
        assert labels_of(found) == [label] * 2


def test_recording_of_the_query_is_left_out(model, tmp_path):
    add_tone(tmp_path / "one", "low.wav", "low")
    build_index([tmp_path / "one"], tmp_path / "index", model=model)
    assert spectag.search(tmp_path / "index", "low.wav") == []


def test_several_queries_are_averaged(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    kept = all_vectors(tmp_path / "index")
    examples = [str(sounds / "low 00.wav"), str(sounds / "middle 01.wav")]
    mean = unit_vectors((kept[examples[0], 0.0] + kept[examples[1], 0.0])[None])[0]
    found = spectag.search(tmp_path / "index", examples, n=99)
    assert len(found) == 10
    assert [result.similarity for result in found] == pytest.approx(
        sorted((float(mean @ kept[key]) for key in kept if key[0] not in examples), reverse=True), abs=1e-5
    )


def test_query_in_the_index_needs_no_model_and_can_be_the_end_of_a_path(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    shutil.rmtree(model)
    by_name = spectag.search(tmp_path / "index", "low 00.wav", n=3)
    assert by_name == spectag.search(tmp_path / "index", "Töne/low 00.wav", n=3)
    assert labels_of(by_name) == ["low"] * 3
    with pytest.raises(DataError, match=r"no file with this name in the index; did you mean 'high 11.wav'\?"):
        spectag.search(tmp_path / "index", "hig 11.wav")
    shutil.copytree(sounds, tmp_path / "copies")
    with pytest.raises(spectag.SpectagError, match="not a tagger"):
        spectag.search(tmp_path / "index", tmp_path / "copies" / "low 00.wav")


def test_ambiguous_query_is_an_error(model, tmp_path):
    for folder in ("north", "south"):
        add_tone(tmp_path / folder, "a.wav", "low")
    build_index([tmp_path / "north", tmp_path / "south"], tmp_path / "index", model=model)
    with pytest.raises(DataError, match=r"2 files of the index match: .*north.*south.*; use a longer part"):
        spectag.search(tmp_path / "index", "a.wav")
    assert names(spectag.search(tmp_path / "index", "north/a.wav")) == ["a.wav"]


def test_changed_query_is_embedded_again(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    write_audio(sounds / "low 00.wav", tone("high", 0.4), 16_000)
    found = spectag.search(tmp_path / "index", sounds / "low 00.wav", n=4)
    assert labels_of(found) == ["high"] * 4


def test_another_model_is_an_error_for_search_and_update(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    other_mel = MEL.model_copy(update={"mean": -60.0})
    other = make_bundle(tmp_path / "other", make_info(front_end=FrontEnd(mel=other_mel)))
    new = add_tone(tmp_path / "new", "low.wav", "low")
    with pytest.raises(DataError, match=r"the index was made with the model .*ein Modell.*other"):
        spectag.search(tmp_path / "index", new, model=other)
    with pytest.raises(DataError, match="the index was made with the model"):
        build_index([sounds], tmp_path / "index", model=other)
    shutil.rmtree(model)
    shutil.move(other, model)
    with pytest.raises(DataError, match=r"differ from those of .*ein Modell"):
        spectag.search(tmp_path / "index", new)


def test_moved_model_is_accepted(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    shutil.move(model, tmp_path / "moved")
    new = add_tone(tmp_path / "new", "low.wav", "low")
    assert labels_of(spectag.search(tmp_path / "index", new, model=tmp_path / "moved", n=2)) == ["low"] * 2
    assert build_index([sounds], tmp_path / "index", model=tmp_path / "moved").n_unchanged == 12
    assert labels_of(spectag.search(tmp_path / "index", new, n=2)) == ["low"] * 2


def test_update_with_other_labels_is_an_error(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    other = make_bundle(tmp_path / "other", make_info(labels=("a", "b", "c")))
    with pytest.raises(DataError, match="a model with other labels"):
        build_index([sounds], tmp_path / "index", model=other)


def test_update_with_other_windows_is_an_error(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model, window=SECOND)
    with pytest.raises(ConfigError, match=r"has windows of 1 s, not of 5 s with an overlap of 2 s"):
        build_index([sounds], tmp_path / "index", window=WindowConfig(window_seconds=5, overlap_seconds=2))
    assert build_index([sounds], tmp_path / "index", window=SECOND).n_unchanged == 12


def test_folder_with_other_files_is_not_overwritten(model, sounds):
    with pytest.raises(ConfigError, match="the folder contains files, but no index"):
        build_index([sounds], sounds, model=model)


def test_missing_or_damaged_index_is_an_error(tmp_path, model, sounds):
    with pytest.raises(DataError, match=r"nothing: not an index.*spectag index -o"):
        SoundIndex(tmp_path / "nothing")
    build_index([sounds], tmp_path / "index", model=model)
    info = tmp_path / "index" / "index.json"
    good = info.read_text()
    info.write_text(good.replace('"format_version": 3', '"format_version": 9'))
    with pytest.raises(DataError, match=r"format version 9, but this version of spectag reads version 3"):
        SoundIndex(tmp_path / "index")
    info.write_text(good.replace('"engine": "auto"', '"engine": "magic"'))
    with pytest.raises(DataError, match=r"damaged at engine"):
        SoundIndex(tmp_path / "index")
    info.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        SoundIndex(tmp_path / "index")
    info.write_text(good)
    (tmp_path / "index" / "index.sqlite").write_text("no database at all, " * 100)
    with pytest.raises(DataError, match=r"index.sqlite: the database is damaged: .*index the recordings again"):
        SoundIndex(tmp_path / "index")


def test_two_concurrent_updates_are_an_error(model, sounds, tmp_path):
    build_index([sounds], tmp_path / "index", model=model)
    with FileLock(tmp_path / "index" / "lock"), pytest.raises(DataError, match="another process is updating"):
        build_index([sounds], tmp_path / "index")


def test_open_index_finds_added_sounds(model, sounds, tmp_path):
    with spectag.index(sounds, tmp_path / "index", model=model) as index:
        assert "low 99.wav" not in names(index.search("low 00.wav", n=99))
        add_tone(sounds, "low 99.wav", "low")
        build_index([sounds], tmp_path / "index")
        assert "low 99.wav" in names(index.search("low 00.wav", n=99))
        assert len(index) == 13


def test_several_threads_can_search(model, sounds, tmp_path):
    with spectag.index(sounds, tmp_path / "index", model=model) as index:
        expected = index.search("low 00.wav", n=5)
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(index.search("low 00.wav", n=5))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [expected] * 4


def test_invalid_arguments_are_errors(model, sounds, tmp_path):
    with spectag.index(sounds, tmp_path / "index", model=model) as index:
        with pytest.raises(ValueError, match="n=0"):
            index.search("low 00.wav", n=0)
        with pytest.raises(ValueError, match="0 queries"):
            index.search([])
        with pytest.raises(DataError, match=r"unknown label 'Low'; did you mean 'low'\?"):
            index.search("low 00.wav", label="Low")
        with pytest.raises(DataError, match=r"west: no file of the index matches"):
            index.search("low 00.wav", within="west")


def test_date_in_a_name_is_by_the_clock_of_the_recorder():
    assert date_in("S20210205T035946+1000") == datetime(2021, 2, 5, 3, 59, 46)
    assert date_in("20240501") is None


def test_date_of_a_file_without_date_in_its_name_is_its_modification_time(tmp_path):
    (tmp_path / "owl.wav").touch()
    when = datetime(2023, 3, 4, 5, 6, 7)
    os.utime(tmp_path / "owl.wav", (when.timestamp(), when.timestamp()))
    assert recording_date(str(tmp_path / "owl.wav")) == RecordingDate(when, "file")
    assert recording_date(str(tmp_path / "20240501.wav")) is None  # its time is not known
    assert recording_date(str(tmp_path / "none.wav")) is None
    assert recording_date("s3://bucket/owl.wav") is None
    assert recording_date("s3://bucket/20240501_053000.wav") == RecordingDate(datetime(2024, 5, 1, 5, 30), "name")


def test_date_of_a_window_includes_its_start(model, tmp_path):
    add_tone(tmp_path / "rec", "20240501_235958.wav", "low", 4)
    add_tone(tmp_path / "rec", "20240601_000000.wav", "low", 1)
    build_index([tmp_path / "rec"], tmp_path / "index", model=model, window=SECOND)
    found = spectag.search(tmp_path / "index", "20240601_000000.wav", n=9, after=datetime(2024, 5, 2))
    assert sorted((result.start_seconds, result.recorded.time) for result in found) == [
        (2.0, datetime(2024, 5, 2)),
        (3.0, datetime(2024, 5, 2, 0, 0, 1)),
    ]
    found = spectag.search(tmp_path / "index", "20240601_000000.wav", n=9, before=datetime(2024, 5, 2))
    assert sorted(result.start_seconds for result in found) == [0.0, 1.0]


FIRST_DAY = datetime(2024, 1, 1)
N_FILES, N_WINDOWS = 40, 5


def make_random_index(folder, rng, *, n_in_graph=0):
    """An index of random vectors, with a recording per day in the folders 0 to 3. The last recording has no date."""
    folder.mkdir()
    database = IndexDatabase(folder)
    write_index_info(folder, IndexInfo(model="none", labels=LABELS, window=SECOND, engine="exact", probe=(1, 1)))
    rows = unit_vectors(rng.standard_normal((N_FILES * N_WINDOWS, 6)))
    starts = np.arange(N_WINDOWS, dtype=np.float64)
    for number in range(N_FILES):
        day = RecordingDate(FIRST_DAY + timedelta(days=number), "name") if number < N_FILES - 1 else None
        timeline = Timeline(starts, starts + 1, rng.random((N_WINDOWS, 3), np.float32))
        entry = database.add(f"/archive/{number % 4}/{number}.wav", "", day, timeline, np.full(3, 0.5, np.float32))
        database.set_first_row(entry, number * N_WINDOWS)
    database.state = database.state._replace(generation=1, n_vectors=len(rows), n_dimensions=6, is_settled=True)
    (folder / database.state.vectors_file).write_bytes(rows.tobytes())
    if n_in_graph:
        path = folder / database.state._replace(n_in_graph=n_in_graph).graph_file
        graph.write_graph(path, rows[:n_in_graph], workers=1, progress=silent)
        database.use_graph(n_in_graph, 512)
    database.commit()
    return database, rows


class Archive:
    """An index of random vectors; all its windows, in order; and their vectors."""

    def __init__(self, index, windows, rows, *, is_exact):
        self.index, self.windows, self.rows, self.is_exact = index, windows, rows, is_exact


@pytest.fixture(scope="module", params=["exact", "usearch", "usearch of half"])
def archive(request, tmp_path_factory):
    if request.param != "exact":
        pytest.importorskip("usearch")
    n_in_graph = {"exact": 0, "usearch": N_FILES * N_WINDOWS, "usearch of half": N_FILES * N_WINDOWS // 2}[
        request.param
    ]
    folder = tmp_path_factory.mktemp("archive") / "index"
    database, rows = make_random_index(folder, np.random.default_rng(1), n_in_graph=n_in_graph)
    windows = [database.row(number) for number in range(len(rows))]
    database.close()
    with SoundIndex(folder) as index:
        yield Archive(index, windows, rows, is_exact=not n_in_graph)


subsets = st.lists(st.sampled_from(LABELS), max_size=2, unique=True)
days = st.none() | st.integers(-1, N_FILES + 1)


@settings(max_examples=60)
@given(
    query=st.integers(0, N_FILES - 1),
    start=st.none() | st.integers(0, N_WINDOWS - 1),
    after=days,
    before=days,
    label=subsets,
    not_label=subsets,
    within=st.none() | st.sampled_from(["0", "archive/1", "*/2/*", "3/1*.wav", "/archive/1"]),
    same_file=st.booleans(),
    one_per_file=st.booleans(),
    n=st.integers(1, 12),
    few=st.sampled_from([0, 30, 1000]),
    most=st.sampled_from([150, 4096]),  # candidates of the graph, which is approximate
)
def test_filters_give_the_same_results_as_a_loop_over_all_windows(
    archive, query, start, after, before, label, not_label, within, same_file, one_per_file, n, few, most
):
    index, windows, rows = archive.index, archive.windows, archive.rows
    after, before = (None if day is None else FIRST_DAY + timedelta(days=day) for day in (after, before))
    query_rows = range(query * N_WINDOWS, (query + 1) * N_WINDOWS) if start is None else [query * N_WINDOWS + start]
    vector = unit_vectors(rows[list(query_rows)].mean(axis=0, keepdims=True))
    expected, files = [], set()
    for number in nearest_neighbors(vector, rows, len(rows))[0][0].tolist():
        row = windows[number]
        detected = {LABELS[label] for label, _ in row.detections}
        folder, name = row.file.split("/")[2:]
        inside = {"0": folder == "0", "*/2/*": folder == "2", "3/1*.wav": folder == "3" and name[0] == "1"}
        date = row.recorded and row.recorded.time
        if (
            (after is None or (date and date >= after))
            and (before is None or (date and date < before))
            and (not label or detected.intersection(label))
            and not detected.intersection(not_label)
            and (within is None or inside.get(within, folder == "1"))
            and (number not in query_rows if same_file else number // N_WINDOWS != query)
            and not (one_per_file and row.file in files)
        ):
            files.add(row.file)
            expected.append((row.file, row.start_seconds))
    with pytest.MonkeyPatch.context() as patch:
        if archive.is_exact:
            patch.setattr(searching, "_MIN_NEIGHBOURS", 1)
        patch.setattr(searching, "_MAX_EXACT_ROWS", few)
        patch.setattr(searching, "MAX_CANDIDATES", most)
        found = index.search(
            f"{query % 4}/{query}.wav",
            n=n,
            start=start,
            after=after,
            before=before,
            label=label,
            not_label=not_label,
            within=() if within is None else within,
            same_file=same_file,
            one_per_file=one_per_file,
        )
    assert [(result.file, result.start_seconds) for result in found] == expected[:n]


def test_filter_among_some_rows_is_a_subset_of_the_filter_of_all_rows(tmp_path, rng):
    database, rows = make_random_index(tmp_path / "index", rng)
    search_filter = SearchFilter(
        after=FIRST_DAY + timedelta(days=3), labels=(0, 2), not_labels=(1,), files=tuple(range(1, 30))
    )
    everywhere = database.filter_rows(search_filter)
    sample = rng.permutation(len(rows))[:70]
    assert 0 < len(everywhere) < len(rows)
    assert database.filter_rows(search_filter, among=sample).tolist() == sorted(set(everywhere) & set(sample))
    assert len(database.filter_rows(search_filter, limit=4)) == 5
    database.close()


def test_graph_finds_nearly_all_closest_vectors(tmp_path):
    pytest.importorskip("usearch")
    rng = np.random.default_rng(0)
    rows = unit_vectors(rng.standard_normal((3000, 16)))
    path = tmp_path / "g.usearch"
    calls = []
    expansion = graph.write_graph(path, rows[:1000], workers=1, progress=lambda *step: calls.append(step))
    assert expansion in graph._EXPANSIONS
    assert calls[-1] == ("graph", 1000, 1000)
    more = {"known": path, "expansion": expansion}
    graph.write_graph(tmp_path / "h.usearch", rows, workers=1, progress=silent, **more)
    queries = unit_vectors(rng.standard_normal((50, 16)))
    exact, _ = nearest_neighbors(queries, rows, 10)
    full_graph = graph.Graph(tmp_path / "h.usearch", sha256_of(tmp_path / "h.usearch"))
    found = [
        nearest_neighbors(query[None], rows, 10, rows=full_graph.candidates(query, 50, expansion=expansion))[0][0]
        for query in queries
    ]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, exact, strict=True)])
    assert recall > 0.97


def test_graph_with_low_recall_is_not_used(model, sounds, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    rows = unit_vectors(np.random.default_rng(0).standard_normal((300, 16)))
    with monkeypatch.context() as patch:
        patch.setattr(graph, "_candidates", lambda index, vector, n, expansion: np.arange(n))
        assert graph.write_graph(tmp_path / "g.usearch", rows, workers=1, progress=silent) == 0
    monkeypatch.setattr(graph, "_MIN_RECALL", 1.1)
    build_index([sounds], tmp_path / "index", model=model, engine="usearch")
    monkeypatch.setattr(graph.Graph, "candidates", None)
    assert labels_of(spectag.search(tmp_path / "index", "low 00.wav", n=3)) == ["low"] * 3


def test_graph_with_high_recall_is_used(model, sounds, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    build_index([sounds], tmp_path / "index", model=model, engine="usearch")
    calls = []
    monkeypatch.setattr(graph.Graph, "candidates", lambda *_, **options: calls.append(options) or np.arange(12))
    assert labels_of(spectag.search(tmp_path / "index", "low 00.wav", n=3)) == ["low"] * 3
    assert calls[0]["expansion"] in graph._EXPANSIONS


def test_usearch_is_taken_when_it_is_calls_for_and_grows_with_the_index(model, sounds, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    monkeypatch.setattr(vectors, "ROWS_TO_FIT", 6)
    build_index([sounds], tmp_path / "index", model=model, engine="usearch")
    (first,) = (tmp_path / "index").glob("graph-*")
    add_tone(sounds, "low 99.wav", "low")
    build_index([sounds], tmp_path / "index")
    (second,) = (tmp_path / "index").glob("graph-*")
    assert first.name != second.name
    with SoundIndex(tmp_path / "index") as index:
        assert names(index.search("low 00.wav", n=20)) == names(
            sorted(index.search("low 00.wav", n=20), key=lambda result: -result.similarity)
        )
        assert len(index.search("low 00.wav", n=20)) == 12
    build_index([sounds], tmp_path / "index", engine="exact")
    assert not list((tmp_path / "index").glob("graph-*"))


def test_graph_is_built_automatically_for_many_windows(model, sounds, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    build_index([sounds], tmp_path / "index", model=model)
    assert not list((tmp_path / "index").glob("graph-*"))
    monkeypatch.setattr(building, "ROWS_FOR_GRAPH", 10)
    build_index([sounds], tmp_path / "index")
    assert list((tmp_path / "index").glob("graph-*"))


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.99])
def test_damaged_graph_is_an_error_until_it_is_made_again(model, sounds, tmp_path, position):
    pytest.importorskip("usearch")
    build_index([sounds], tmp_path / "index", model=model, engine="usearch")
    (file,) = (tmp_path / "index").glob("graph-*")
    content = bytearray(file.read_bytes())
    content[int(position * len(content))] ^= 1
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"graph.*usearch: the graph is damaged; delete this file"):
        spectag.search(tmp_path / "index", "low 00.wav")
    build_index([sounds], tmp_path / "index")
    assert labels_of(spectag.search(tmp_path / "index", "low 00.wav", n=3)) == ["low"] * 3


def test_index_without_its_graph_compares_all_vectors(model, sounds, tmp_path):
    pytest.importorskip("usearch")
    build_index([sounds], tmp_path / "index", model=model, engine="usearch")
    (file,) = (tmp_path / "index").glob("graph-*")
    file.unlink()
    assert labels_of(spectag.search(tmp_path / "index", "low 00.wav", n=3)) == ["low"] * 3


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_damaged_vectors_are_an_error(model, sounds, tmp_path, damage):
    build_index([sounds], tmp_path / "index", model=model)
    (file,) = (tmp_path / "index").glob("vectors-*")
    damage(file)
    with pytest.raises(DataError, match=r"vectors are missing or damaged; delete .*index"):
        spectag.search(tmp_path / "index", "low 00.wav")


def test_search_without_usearch_compares_all_vectors(model, sounds, tmp_path, monkeypatch):
    pytest.importorskip("usearch")
    build_index([sounds], tmp_path / "index", model=model, engine="usearch")
    expected = spectag.search(tmp_path / "index", "low 00.wav")
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    assert spectag.search(tmp_path / "index", "low 00.wav") == expected
    with pytest.raises(MissingExtraError, match=r"usearch: pip install 'spectag\[search\]'"):
        build_index([sounds], tmp_path / "index")
    with pytest.raises(MissingExtraError, match="usearch"):
        build_index([sounds], tmp_path / "other", model=model, engine="usearch")
    monkeypatch.setattr(building, "ROWS_FOR_GRAPH", 10)
    assert build_index([sounds], tmp_path / "third", model=model).n_windows == 12


def test_closed_index_can_not_be_used(model, sounds, tmp_path):
    index = spectag.index(sounds, tmp_path / "index", model=model)
    assert repr(index) == f"SoundIndex('{tmp_path / 'index'}': 12 files, 12 windows)"
    index.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        len(index)
