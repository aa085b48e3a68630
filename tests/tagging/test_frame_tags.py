"""Segments from frames: the same from Python, from the command, from a server and from its page."""

import base64
import csv
import io
import json
import tomllib

import numpy as np
import pytest
from starlette.testclient import TestClient

from helpers.bundles import LABELS, tone
from helpers.frames import FRAMES, make_frames_bundle, make_frames_info
from spectag.audio.files import write_audio
from spectag.audio.sound_statistics import SoundStatistics
from spectag.config.base import SegmentConfig, WindowConfig
from spectag.config.serving import ServeSettings
from spectag.config.tagging import FORMAT_NAMES, TagSettings
from spectag.models.novelty import NoveltyInfo
from spectag.models.tagger import Tagger
from spectag.models.timeline import count_label_segments, find_segments
from spectag.models.training_sounds import TrainingSounds
from spectag.serving import create_app
from spectag.tagging.events import windows_to_tag
from spectag.tagging.parallel import tag

RATE = 16_000
PORT = 8126


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    training = TrainingSounds.of([SoundStatistics(-20.0, 6_000.0)] * 3, [5.0] * 3)
    info = make_frames_info(novelty=NoveltyInfo(n_held_out=3), training_sounds=training)
    return make_frames_bundle(tmp_path_factory.mktemp("models") / "model", info)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A recording of 29 s with tones and noise, and a short clip."""
    folder, rng = tmp_path_factory.mktemp("sounds"), np.random.default_rng(1)
    parts = []
    for number in range(10):
        gap = 0.003 * rng.normal(size=round(rng.uniform(0.3, 2.5) * RATE))
        parts += [gap, rng.uniform(0.02, 1) * tone(LABELS[number % 3], rng.uniform(0.1, 2.5))]
    write_audio(folder / "long.wav", np.concatenate(parts).astype(np.float32), RATE)
    write_audio(folder / "short.wav", tone("low", 2.0), RATE)
    return folder


@pytest.fixture(scope="module")
def long(sounds):
    return sounds / "long.wav"


@pytest.fixture(scope="module")
def client(model):
    app = create_app(model, ServeSettings(), workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False) as client:
        yield client


def rows_of(text):
    rows = csv.DictReader(io.StringIO(text))
    return [(row["start"], row["end"], row["label"], row["probability"]) for row in rows]


def as_rows(segments):
    return [
        (f"{one.start_seconds:.3f}", f"{one.end_seconds:.3f}", one.label, f"{one.probability:.6f}") for one in segments
    ]


SETTINGS = {
    "defaults": {},
    "smoothing": {"smooth_windows": 25},
    "hysteresis": {"hysteresis": 0.9, "max_gap_seconds": 0.5},
    "held": {"min_windows": 12, "min_duration_seconds": 0.3},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_python_the_command_the_server_and_the_page_find_the_same_segments(model, long, run, client, settings):
    expected = as_rows(Tagger(model).segments(long, settings=SegmentConfig(**settings)))
    assert len(expected) > 5
    options = [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", value)]
    assert rows_of(run("tag", model, long, "--segments", *options).out) == expected

    query = "&".join(f"{name}={value}" for name, value in settings.items())
    answer = client.post(f"/v1/segments?{query}", files={"file": ("a.wav", long.read_bytes())}).json()
    of_server = [(each["start"], each["end"], tag["label"]) for each in answer["results"] for tag in each["tags"]]
    assert [(f"{start:.3f}", f"{end:.3f}", label) for start, end, label in of_server] == [row[:3] for row in expected]

    if not {"hysteresis", "max_gap_seconds", "min_windows"} & settings.keys():  # which the page does not have
        sent = client.post("/views/tag/sounds", files={"file": ("a.wav", long.read_bytes())}).json()
        client.post(f"/views/tag/sounds/{sent['id']}/probabilities")
        table = client.post("/views/tag/table", json={"sounds": [sent["id"]], "format": "csv", **settings})
        assert rows_of(table.text) == expected


def test_page_gets_the_probabilities_of_frames_and_how_to_join_them(model, long, client):
    sent = client.post("/views/tag/sounds", files={"file": ("a.wav", long.read_bytes())}).json()
    answer = client.post(f"/views/tag/sounds/{sent['id']}/probabilities").json()
    timeline = Tagger(model).segments(long).timeline
    values = np.frombuffer(base64.b64decode(answer["probabilities"]), "<f4").reshape(3, -1)
    np.testing.assert_array_equal(values.T, timeline.probabilities[:, [LABELS.index(one) for one in answer["labels"]]])
    np.testing.assert_array_equal(answer["starts"], timeline.starts)
    assert answer["frames"] == {"closed": FRAMES.closed_frames, "smoothed": FRAMES.smooth_frames, "hysteresis": 0.5}


def test_long_recordings_have_segments_of_frames_and_short_ones_are_clips(model, sounds, run):
    tagger = Tagger(model)
    options = ("--min-confidence", "0.05")
    rows = list(csv.DictReader(io.StringIO(run("tag", model, sounds / "long.wav", sounds / "short.wav", *options).out)))
    of_long = [row for row in rows if row["file"].endswith("long.wav")]
    expected = as_rows(tagger.segments(sounds / "long.wav", min_confidence=0.05))
    assert [(row["start"], row["label"]) for row in of_long] == [row[:3:2] for row in expected]
    of_short = csv.DictReader(io.StringIO(run("tag", model, sounds / "short.wav", "--min-confidence", "0").out))
    found = {row["label"]: (row["start"], row["end"], float(row["probability"])) for row in of_short}
    expected = {label: ("0.000", "2.000", round(value, 6)) for label, value in tagger.tag(sounds / "short.wav").top(3)}
    assert found == expected


@pytest.mark.parametrize("name", sorted({*FORMAT_NAMES} - {"submission", "wide", "wide-parquet", "multi-hot"}))
def test_every_format_of_segments_is_written_from_frames(model, long, run, tmp_path, name):
    done = run("tag", model, long, "--segments", "--format", name, "-o", tmp_path / "out/")
    assert done.status == 0, done.err
    tables = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.stem != "status"]
    assert max(path.stat().st_size for path in tables) > 100


@pytest.mark.parametrize("name", ["wide", "wide-parquet"])
def test_page_writes_a_row_for_each_frame_into_wide_tables(model, long, client, name):
    sent = client.post("/views/tag/sounds", files={"file": ("a.wav", long.read_bytes())}).json()
    client.post(f"/views/tag/sounds/{sent['id']}/probabilities")
    answer = client.post("/views/tag/table", json={"sounds": [sent["id"]], "format": name})
    assert answer.status_code == 200, answer.text
    if name == "wide":
        timeline = Tagger(model).segments(long).timeline
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        values = np.array([[np.float32(row[label]) for label in LABELS] for row in rows])
        np.testing.assert_array_equal(values, timeline.probabilities)


def test_run_with_a_journal_writes_the_table_of_one_without_and_says_what_was_done(model, sounds, run, tmp_path):
    printed = run("tag", model, sounds, "--segments", "--hysteresis", "0.6").out
    assert run("tag", model, sounds, "--segments", "--hysteresis", "0.6", "-o", tmp_path / "out/").status == 0
    assert (tmp_path / "out" / "tags.csv").read_text() == printed
    parameters = (tmp_path / "out" / "parameters.toml").read_text()
    assert (
        "# segments from frames of 0.08 s: gaps shorter than 13 frames filled, median of 9, hysteresis 0.6"
        in parameters
    )
    stored = tomllib.loads(parameters)
    assert (stored["segments"], stored["hysteresis"], "window" in stored) == (True, 0.6, False)
    again = run("tag", model, sounds, "--config", tmp_path / "out" / "parameters.toml")
    assert again.out == printed


def test_explicit_window_of_the_command_is_truthfully_stored(model, long, run, tmp_path):
    options = ("--window", "1.5", "--overlap", "1", "--segments", "-o", tmp_path / "out/")
    assert run("tag", model, long, *options).status == 0
    parameters = (tmp_path / "out" / "parameters.toml").read_text()
    assert "frames" not in parameters
    stored = tomllib.loads(parameters)
    assert (stored["window"], stored["overlap"], stored["hysteresis"]) == (1.5, 1.0, 0.7)


def test_novelty_of_a_segment_is_that_of_excerpts_of_the_recording(model, long, run):
    tagger = Tagger(model)
    rows = json.loads(run("tag", model, long, "--segments", "--format", "json").out)
    [file] = tag(tagger, [str(long)], window=tagger.segment_window)
    assert len(np.unique(file.timeline.novelty)) >= 2
    assert {round(row["novelty"], 3) for row in rows} <= {round(float(value), 3) for value in file.timeline.novelty}
    assert file.duration_seconds == file.timeline.ends[-1]


@pytest.mark.parametrize("window", [None, WindowConfig(window_seconds=1.5, overlap_seconds=1.0)])
def test_dataframe_of_segments_has_the_novelty_of_the_table(model, long, run, window):
    options = () if window is None else ("--window", window.window_seconds, "--overlap", window.overlap_seconds)
    rows = list(csv.DictReader(io.StringIO(run("tag", model, long, "--segments", *options).out)))
    found = Tagger(model).segments(long, window=window).to_dataframe()
    assert list(found.columns) == list(rows[0])
    assert [f"{value:.3f}" for value in found["novelty"]] == [row["novelty"] for row in rows]
    assert len(set(found["novelty"])) > 1


def test_prior_hides_a_label_that_is_almost_certain(model, run, tmp_path):
    write_audio(tmp_path / "loud.wav", np.clip(20 * tone("low", 6.0), -1, 1), RATE)
    (tmp_path / "prior.csv").write_text("label,prior\nlow,1e-6\n")
    detected = rows_of(run("tag", model, tmp_path / "loud.wav", "--segments").out)
    assert max(float(probability) for *_, label, probability in detected if label == "low") > 0.9998
    done = run("tag", model, tmp_path / "loud.wav", "--segments", "--prior", tmp_path / "prior.csv")
    assert "low" not in {label for _, _, label, _ in rows_of(done.out)}


def test_workers_tag_frames_as_one_process_does(model, sounds, tmp_path):
    files = [str(sounds / name) for name in ("long.wav", "short.wav")]
    settings = TagSettings(segments=True)
    found = [
        list(tag(Tagger(model), files, window=windows_to_tag(Tagger(model), settings), workers=workers))
        for workers in (1, 2)
    ]
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first.timeline.probabilities, second.timeline.probabilities)


def test_segments_are_counted_as_they_are_found(model, long):
    tagger, config = Tagger(model), TagSettings()
    timeline = tagger.segments(long).timeline
    grid = np.array([0.1, 0.3, 0.5, 0.9], np.float32)
    for label in range(3):
        expected = [
            sum(one.label_index == label for one in find_segments(timeline, np.full(3, limit), config))
            for limit in grid
        ]
        assert count_label_segments(timeline, label, grid, config).tolist() == expected
