"""spectag index and spectag search."""

import csv
import json
import shlex
import shutil

import numpy as np
import pytest
import soundfile

from helpers.bundles import make_bundle, make_info, tone
from helpers.command import run_without, write_tones
from spectag.audio.files import write_audio


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "ein Modell", make_info(thresholds=(5e-4, 0.5, 0.005)))


@pytest.fixture
def sounds(tmp_path):
    names = write_tones(tmp_path / "Töne" / "nord", 9)
    (tmp_path / "Töne" / "süd").mkdir()
    for day, name in enumerate(names[:6], start=1):
        shutil.copy(
            tmp_path / "Töne" / "nord" / name, tmp_path / "Töne" / "süd" / f"{name[:-7]}_2024050{day}_053000.wav"
        )
    return tmp_path / "Töne"


@pytest.fixture
def index(run, model, sounds, tmp_path):
    assert run("index", sounds, "-o", tmp_path / "index", "--model", model).status == 0
    return tmp_path / "index"


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_index_prints_a_summary(run, model, sounds, tmp_path):
    done = run("index", sounds, "-o", tmp_path / "index", "--model", model)
    assert (done.status, done.out) == (0, "")
    *_, summary, next_step = done.err.splitlines()
    assert summary == f"15 files indexed (4.6 s of sound): 15 windows in {tmp_path / 'index'}"
    assert next_step == f"next: {shlex.join(['spectag', 'search', str(tmp_path / 'index'), 'CALL.wav'])}"
    (sounds / "nord" / "low 00.wav").unlink()
    (sounds / "leer, groß.wav").write_bytes(b"")
    write_audio(sounds / "neu.wav", tone("low", 25), 16_000)
    done = run("index", sounds, "-o", tmp_path / "index")
    assert done.status == 3
    assert f"skipped: {sounds / 'leer, groß.wav'}: the file is empty" in done.err
    last = f"1 file indexed (25 s of sound), 14 unchanged, 1 removed, 1 skipped: 17 windows in {tmp_path / 'index'}"
    assert done.err.splitlines()[-2] == last


def test_table_shows_the_most_similar_first_with_times_labels_and_dates(run, index, sounds):
    done = run("search", index, sounds / "nord" / "middle 01.wav", "-n", 2)
    header, first, second = done.out.splitlines()
    assert header.split() == ["similarity", "file", "seconds", "labels", "recorded"]
    assert first.split()[0] == "1.000"
    assert "middle_20240502_053000.wav" in first
    assert first.rstrip().endswith("middle  2024-05-02 05:30:00")
    assert "0.0–0.3" in first
    assert second.rstrip().endswith(")")
    assert "dates in brackets" in done.err


def test_csv_and_json_contain_the_same(run, index, sounds, tmp_path):
    done = run("search", index, "nord/low 00.wav", "-n", 4, "-o", tmp_path / "aus" / "found.csv", "--json")
    rows, records = rows_of(tmp_path / "aus" / "found.csv"), json.loads(done.out)
    assert len(rows) == len(records) == 4
    for row, record in zip(rows, records, strict=True):
        assert float(row["similarity"]) == record["similarity"]
        assert row["file"] == record["file"]
        assert [float(row["start"]), float(row["end"])] == pytest.approx([record["start"], record["end"]], abs=1e-3)
        assert row["labels"] == ",".join(tag["label"] for tag in record["labels"])
        assert (row["recorded"], row["date_from"]) == (record["recorded"], record["date_from"])
    assert rows[0]["date_from"] == "name"
    assert rows[0]["recorded"] == "2024-05-01T05:30:00"
    assert rows[0]["labels"] == "low"


@pytest.mark.parametrize("query", [["nord/low 00.wav"], ["Töne/nord/low 00.wav", "--fingerprint"]])
def test_written_results_are_counted_and_have_the_paths_of_the_screen(run, index, sounds, tmp_path, monkeypatch, query):
    write_audio(sounds / "nord" / "low 00.wav", noise(4), 16_000)
    write_audio(sounds / "kopie.wav", noise(4), 16_000)
    monkeypatch.chdir(tmp_path)
    folder = sounds if "--fingerprint" in query else index
    printed = run("search", folder, *query, "-n", 1)
    done = run("search", folder, *query, "-n", 1, "-o", "found.csv")
    assert done.err.splitlines()[-1] == "1 result written to found.csv"
    (row,) = rows_of(tmp_path / "found.csv")
    assert row["file"].startswith("Töne/")
    assert row["file"] in printed.out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--after", "2024-05-02", "--before", "2024-05-05T05:30", "--in", "süd"], {"middle_2", "high_3", "low_4"}),
        (["--in", "süd", "--label", "low"], {"low_1", "low_4"}),
        (["--in", "süd", "--label", "low", "--label", "high"], {"low_1", "high_3", "low_4", "high_6"}),
        (["--in", "süd/*", "--not-label", "low", "--not-label", "high"], {"middle_2", "middle_5"}),
        (["--in", "nord", "--in", "low_*", "--before", "2024-06-01"], {"low_1", "low_4"}),
    ],
)
def test_filters_restrict_the_results(run, index, options, expected):
    done = run("search", index, "nord/low 00.wav", "-n", 99, "--json", *options)
    found = {result["file"].split("/")[-1].replace("_2024050", "_")[:-11] for result in json.loads(done.out)}
    assert found == expected


def test_several_queries_are_searched_together(run, index, sounds):
    done = run("search", index, "nord/low 00.wav", "nord/middle 01.wav", "-n", 8, "--json")
    found = [result["file"].split("/")[-1].split("_")[0].split()[0] for result in json.loads(done.out)]
    assert set(found) == {"low", "middle"}


def noise(seconds):
    return np.random.default_rng(5).normal(0, 0.1, round(16_000 * seconds)).astype(np.float32)


def test_fingerprint_search_prints_recording_and_start_and_needs_no_model(run, index, model, sounds, tmp_path):
    shutil.rmtree(model)
    write_audio(sounds / "süd" / "Rauschen.wav", noise(4), 16_000)
    write_audio(tmp_path / "excerpt.wav", noise(4)[16_000:48_000], 16_000)
    done = run("search", sounds, tmp_path / "excerpt.wav", "--fingerprint", "-o", tmp_path / "found.csv", "--json")
    (row,), (record,) = rows_of(tmp_path / "found.csv"), json.loads(done.out)
    assert done.status == 0
    assert row["file"] == record["file"] == str(sounds / "süd" / "Rauschen.wav")
    assert float(row["start"]) == record["start"] == pytest.approx(1.0, abs=0.02)
    assert int(row["n_matches"]) == record["n_matches"] > 20
    header, line = run("search", sounds, tmp_path / "excerpt.wav", "--fingerprint").out.splitlines()
    assert header.split() == ["excerpt", "file", "starts", "at", "equal", "landmarks"]
    assert line.split()[-3:] == ["1.00", "s", f"{record['n_matches']:,}"]
    done = run("search", index, tmp_path / "excerpt.wav", "--fingerprint")  # made without this recording
    assert (done.status, done.out.strip()) == (0, "")
    assert "excerpt.wav: no other recording contains a part of it" in done.err


def test_fingerprint_search_skips_unreadable_recordings_by_name(run, sounds, tmp_path):
    (sounds / "leer.wav").write_bytes(b"")
    write_audio(tmp_path / "excerpt.wav", noise(2), 16_000)
    done = run("search", sounds, tmp_path / "excerpt.wav", "--fingerprint")
    assert done.status == 3
    assert f"skipped: {sounds / 'leer.wav'}: the file is empty" in done.err


def test_fingerprint_search_accepts_only_sound_files_as_its_help_says(run, index):
    assert run("search", index, "nord/low 00.wav").status == 0
    assert run("search", index, "nord/low 00.wav", "--fingerprint").status == 1
    assert "With --fingerprint, only sound files" in " ".join(run("search", "--help").out.replace("│", " ").split())


def test_empty_result_is_reported(run, index):
    done = run("search", index, "nord/low 00.wav", "--after", "2099-01-01")
    assert (done.status, done.out.strip()) == (0, "")
    assert "nothing found" in done.err
    assert run("search", index, "nord/low 00.wav", "--after", "2099-01-01", "--json").out == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["search", "INDEX", "nord/low 00.wav", "--after", "gestern"], 2, "--after gestern: expected a date such as"),
        (["search", "INDEX", "nord/low 00.wav", "--after", "2024-05-01T05:00Z"], 2, "leave out the time zone"),
        (["search", "INDEX", "nord/low 00.wav", "-n", "0"], 2, "-n"),
        (["search", "INDEX"], 2, "spectag search needs QUERIES"),
        (["search", "INDEX", "nord/low 00.wav", "--label", "Low"], 1, "unknown label 'Low'; did you mean 'low'?"),
        (["search", "INDEX", "nord/low 00.wav", "-o", "found.wav"], 1, ".wav is the suffix of a recording"),
        (["search", "INDEX", "nord/low 00.wav", "-o", __file__], 1, "contains something else, which would be lost"),
        (["search", "INDEX", "x.wav", "--fingerprint", "--label", "low", "--same-file"], 2, "--label, --same-file"),
        (["search", "INDEX", "none.wav", "--fingerprint"], 1, "none.wav"),
        (["search", "nowhere", "nord/low 00.wav"], 1, "nowhere: not an index: no such folder"),
        (["search", "INDEX", "none.wav"], 1, "none.wav: no such file, and no file with this name in the index"),
        (["search", "NOTHING", "none.wav"], 1, "not an index"),
        (["index", "-o", "INDEX"], 2, "spectag index needs RECORDINGS"),
        (["index", "SOUNDS", "-o", "INDEX", "--window", "2", "--overlap", "2"], 2, "need overlap < window"),
        (["index", "SOUNDS", "-o", "INDEX", "--window", "2"], 1, "has windows of 10 s, not of 2 s"),
        (["index", "NOTHING", "-o", "INDEX"], 1, "NOTHING"),
        (["index", "SOUNDS"], 2, "--output"),
    ],
)
def test_wrong_usage_is_reported_in_one_line(run, index, sounds, tmp_path, arguments, status, message):
    paths = {"INDEX": index, "SOUNDS": sounds, "NOTHING": tmp_path / "NOTHING"}
    done = run(*(paths.get(argument, argument) for argument in arguments))
    assert done.status == status
    assert message in done.err
    assert "Traceback" not in done.err


def test_list_of_files_is_indexed(run, model, sounds, tmp_path):
    (tmp_path / "list.txt").write_text(f"{sounds / 'nord' / 'low 00.wav'}\n{sounds / 'gone.wav'}\n", encoding="utf-8")
    done = run("index", "--files-from", tmp_path / "list.txt", "-o", tmp_path / "index", "--model", model)
    assert done.status == 3
    assert "gone.wav" in done.err
    assert "1 file indexed (0.3 s of sound), 1 skipped: 1 windows" in done.err


def test_help_and_search_need_neither_torch_nor_usearch(index):
    done = run_without(["torch", "usearch", "matplotlib", "pandas"], "search", index, "nord/low 00.wav", "-n", 1)
    assert (done.status, len(done.out.splitlines())) == (0, 2)
    assert run_without(["numpy", "scipy"], "search", "--help").status == 0
    assert run_without(["numpy", "scipy"], "index", "--help").status == 0


def test_results_are_cut_out_into_a_manifest_of_clips(run, index, sounds, tmp_path):
    query = "nord/low 00.wav"
    done = run("search", index, query, "-n", 3, "--clips", tmp_path / "found", "--json")
    records, rows = json.loads(done.out), rows_of(tmp_path / "found" / "clips.csv")
    assert (done.status, len(rows)) == (0, 3)
    assert done.err.splitlines()[-1] == f"3 clips, listed in {tmp_path / 'found' / 'clips.csv'}"
    found = {(row["recording"], float(row["probability"])) for row in rows}
    assert found == {(record["file"], max(record["similarity"], 0)) for record in records}
    assert {row["labels"] for row in rows} == {"['low 00']"}
    for row in rows:
        clip, rate = soundfile.read(tmp_path / "found" / row["fname"], dtype="int16")
        recording, _ = soundfile.read(row["recording"], dtype="int16")
        first, last = (round(float(row[name]) * rate) for name in ("from_seconds", "to_seconds"))
        np.testing.assert_array_equal(clip, recording[first:last])


def test_recordings_that_contain_an_excerpt_are_cut_where_they_do(run, tmp_path):
    sound = noise(6)
    write_audio(tmp_path / "field" / "day.wav", sound, 16_000)
    write_audio(tmp_path / "call.wav", sound[2 * 16_000 : 4 * 16_000], 16_000)
    done = run("search", tmp_path / "field", tmp_path / "call.wav", "--fingerprint", "--clips", tmp_path / "found")
    [row] = rows_of(tmp_path / "found" / "clips.csv")
    assert (done.status, row["detected"], row["probability"]) == (0, "call", "")
    assert [float(row["from_seconds"]), float(row["to_seconds"])] == pytest.approx([2, 4], abs=0.05)


def test_folder_for_clips_with_the_name_of_a_file_is_refused_before_the_search(run, index, tmp_path):
    done = run("search", index, "nord/low 00.wav", "--clips", tmp_path / "found.csv")
    assert (done.status, done.out) == (1, "")
    assert f"--clips {tmp_path / 'found.csv'}: the results are several files in a folder" in done.err
