"""Clips of detections: exact samples, names, samples of detections, tables of other programs, and going on."""

import csv
import json

import numpy as np
import pytest
import soundfile

import spectag
from spectag.config.findings import ClipSettings
from spectag.data.detections import read_detections
from spectag.errors import ConfigError, DataError
from spectag.findings import clips

RATE = 8000


def write_recording(path, seconds=20, *, channels=1, subtype="PCM_16", rate=RATE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (int(seconds * rate), channels))
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def write_tags(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "start", "end", "label", "probability"])
        writer.writerows(rows)
    return path


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.parent != folder)


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("suffix", "subtype", "dtype"),
    [
        (".wav", "PCM_16", "int16"),
        (".wav", "PCM_24", "int32"),
        (".wav", "FLOAT", "float32"),
        (".wav", "DOUBLE", "float64"),
        (".wav", "PCM_U8", "int16"),
        (".wav", "ULAW", "int16"),
        (".flac", "PCM_16", "int16"),
        (".flac", "PCM_24", "int32"),
        (".aiff", "PCM_24", "int32"),
    ],
)
def test_clip_has_the_samples_of_the_recording_in_its_rate_and_bit_depth(tmp_path, suffix, subtype, dtype):
    path = write_recording(tmp_path / f"Bär 3{suffix}", channels=2, subtype=subtype)
    tags = write_tags(tmp_path / "tags.csv", [(path.name, "5.0", "7.5", "Dog", "0.835")])
    result = clips(tags, tmp_path / "clips")
    [name] = names(tmp_path / "clips")
    assert name == f"Dog/0.835_Bär 3_5.0s-7.5s{'.flac' if suffix == '.flac' else '.wav'}"
    whole, _ = soundfile.read(path, dtype=dtype)
    clip, rate = soundfile.read(tmp_path / "clips" / name, dtype=dtype)
    np.testing.assert_array_equal(clip, whole[4 * RATE : int(8.5 * RATE)])
    assert rate == RATE
    assert soundfile.info(tmp_path / "clips" / name).subtype == subtype
    assert result.counts == {"Dog": 1}


def test_clip_ends_where_the_recording_does_and_never_starts_before_it(tmp_path):
    path = write_recording(tmp_path / "a.wav", 10)
    tags = write_tags(tmp_path / "tags.csv", [("a.wav", "0.5", "2", "Dog", "0.9"), ("a.wav", "9", "10", "Dog", "0.8")])
    clips(tags, tmp_path / "clips")
    lengths = {name: soundfile.info(tmp_path / "clips" / name).frames for name in names(tmp_path / "clips")}
    assert lengths == {"Dog/0.900_a_0.5s-2.0s.wav": 3 * RATE, "Dog/0.800_a_9.0s-10.0s.wav": 2 * RATE}
    assert path.exists()


def test_clips_csv_is_a_manifest_with_all_labels_that_were_detected_within_the_clip(tmp_path):
    write_recording(tmp_path / "a.wav")
    rows = [
        ("a.wav", "5", "6", "Dog", "0.9"),
        ("a.wav", "6.5", "8", "Cat, big", "0.7"),
        ("a.wav", "15", "16", "Dog", "0.6"),
    ]
    result = clips(write_tags(tmp_path / "tags.csv", rows), tmp_path / "clips")
    found = {(row["detected"], row["detected_from"]): row for row in rows_of(result.manifest)}
    assert found["Dog", "5.000"]["labels"] == "['Cat, big', 'Dog']"
    assert found["Dog", "15.000"]["labels"] == "['Dog']"
    assert found["Dog", "5.000"]["recording"] == "a.wav"
    assert float(found["Dog", "5.000"]["from_seconds"]) == 4
    manifest = spectag.read_manifest(result.manifest)
    assert {clip.labels for clip in manifest.clips} == {("Cat, big", "Dog"), ("Dog",)}
    assert set(manifest.groups) == {"a.wav"}
    assert all(clip.start_seconds == 0 and clip.end_seconds is None for clip in manifest.clips)


def test_modes_choose_the_most_probable_or_spread_over_recordings_and_scores(tmp_path):
    rows = []
    for recording in range(4):
        write_recording(tmp_path / f"{recording}.wav", 100, seed=recording)
        n_sounds = 30 if recording == 0 else 5
        rows += [(f"{recording}.wav", 3 * n, 3 * n + 1, "Dog", 0.99 - 0.03 * n) for n in range(n_sounds)]
    detections = read_detections(write_tags(tmp_path / "tags.csv", rows)).detections

    def chosen(mode):
        settings = ClipSettings(per_label=8, mode=mode)
        result = clips(detections, tmp_path / mode, settings)
        return [(row["recording"], float(row["probability"])) for row in rows_of(result.manifest)]

    assert min(probability for _, probability in chosen("top")) == pytest.approx(0.96)
    assert sorted(recording for recording, _ in chosen("balanced")) == sorted(2 * [f"{n}.wav" for n in range(4)])
    spread = chosen("spread")
    assert len({int(10 * probability) for _, probability in spread}) >= 5
    assert {recording for recording, _ in spread} == {f"{n}.wav" for n in range(4)}
    assert chosen("random") == chosen("random")


def test_top_without_probabilities_is_an_error_that_names_the_other_modes(tmp_path):
    write_recording(tmp_path / "a.wav")
    track = tmp_path / "a.txt"
    track.write_text("1\t2\tDog\n3\t4\tDog\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"Dog have no probability.*random, balanced or spread"):
        clips(track, tmp_path / "clips", ClipSettings(per_label=1))
    assert clips(track, tmp_path / "clips", ClipSettings(per_label=1, mode="random")).counts == {"Dog": 1}


def test_limits_of_probability_and_a_dry_run_that_writes_nothing(tmp_path):
    write_recording(tmp_path / "a.wav")
    rows = [("a.wav", n, n + 1, "Dog", n / 10) for n in range(10)]
    tags = write_tags(tmp_path / "tags.csv", rows)
    options = {"min_probability": 0.3, "max_probability": 0.6}
    planned = clips(tags, tmp_path / "clips", ClipSettings(pad=0), dry_run=True, **options)
    assert (planned.counts, planned.n_detections) == ({"Dog": 3}, 3)
    assert not (tmp_path / "clips").exists()
    result = clips(tags, tmp_path / "clips", ClipSettings(pad=0), **options)
    assert [row["detected_from"] for row in rows_of(result.manifest)] == ["3.000", "4.000", "5.000"]
    assert planned.n_bytes == pytest.approx(result.n_bytes, rel=0.02)


def test_second_run_keeps_the_clips_and_other_settings_are_an_error(tmp_path):
    write_recording(tmp_path / "a.wav")
    tags = write_tags(tmp_path / "tags.csv", [("a.wav", 1, 2, "Dog", 0.9), ("a.wav", 4, 5, "Dog", 0.8)])
    first = clips(tags, tmp_path / "clips")
    content = first.manifest.read_bytes()
    times = {name: (tmp_path / "clips" / name).stat().st_mtime_ns for name in names(tmp_path / "clips")}
    (tmp_path / "clips" / next(iter(times))).unlink()
    assert clips(tags, tmp_path / "clips").manifest.read_bytes() == content
    kept = list(times)[1]
    assert (tmp_path / "clips" / kept).stat().st_mtime_ns == times[kept]
    message = r"clips of other detections, or with other settings \(clips.toml\); choose another folder"
    with pytest.raises(ConfigError, match=message):
        clips(tags, tmp_path / "clips", ClipSettings(pad=3))
    write_tags(tags, [("a.wav", 1.04, 2, "Dog", 0.9), ("a.wav", 4, 5, "Dog", 0.8)])  # the same names
    with pytest.raises(ConfigError, match=message):
        clips(tags, tmp_path / "clips")


def test_labels_of_a_clip_include_those_outside_of_the_limits_of_probability(tmp_path):
    write_recording(tmp_path / "a.wav")
    rows = [("a.wav", 5, 6, "Dog", 0.4), ("a.wav", 5, 6, "Cat", 0.95)]
    result = clips(
        write_tags(tmp_path / "tags.csv", rows), tmp_path / "clips", min_probability=0.3, max_probability=0.5
    )
    assert [row["labels"] for row in rows_of(result.manifest)] == ["['Cat', 'Dog']"]


def test_sound_that_ended_before_the_clip_is_no_label_of_it_although_a_longer_one_still_lasts(tmp_path):
    write_recording(tmp_path / "a.wav")
    rows = [("a.wav", 0, 19, "Rain", 0.9), ("a.wav", 2, 3, "Cat", 0.9), ("a.wav", 10, 11, "Dog", 0.9)]
    result = clips(write_tags(tmp_path / "tags.csv", rows), tmp_path / "clips")
    assert [row["labels"] for row in rows_of(result.manifest) if row["detected"] == "Dog"] == ["['Dog', 'Rain']"]


def test_site_pattern_is_checked_before_anything_is_written(tmp_path):
    write_recording(tmp_path / "a.wav")
    tags = write_tags(tmp_path / "tags.csv", [("a.wav", 5, 6, "Dog", 0.4)])
    with pytest.raises(ConfigError, match=r"site_from: '\(\(' is not a regular expression"):
        clips(tags, tmp_path / "clips", ClipSettings(mode="spread"), site_from="((")
    with pytest.raises(ConfigError, match="site_from has no effect with the mode top"):
        clips(tags, tmp_path / "clips", site_from="a")
    assert not (tmp_path / "clips").exists()


def test_long_names_in_any_script_fit_into_a_file_name(tmp_path):
    path = write_recording(tmp_path / f"{'音' * 70}.wav")
    tags = write_tags(tmp_path / "tags.csv", [(path.name, 5, 6, "犬" * 100, 0.4)])
    result = clips(tags, tmp_path / "clips")
    assert (result.skipped, result.counts) == ((), {"犬" * 100: 1})


def test_estimate_of_a_lossy_recording_is_that_of_wav_files(tmp_path):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 44_100 * 20)
    soundfile.write(tmp_path / "a.mp3", samples, 44_100)
    tags = write_tags(tmp_path / "tags.csv", [("a.mp3", 5, 9, "Dog", 0.9)])
    planned = clips(tags, tmp_path / "clips", dry_run=True)
    assert planned.n_bytes == pytest.approx(clips(tags, tmp_path / "clips").n_bytes, rel=0.01)


def test_damaged_recording_is_named_and_the_others_are_cut(tmp_path):
    write_recording(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    rows = [("a.wav", 1, 2, "Dog", 0.9), ("b.wav", 1, 2, "Dog", 0.9), ("a.wav", 30, 31, "Dog", 0.9)]
    result = clips(write_tags(tmp_path / "tags.csv", rows), tmp_path / "clips")
    assert result.counts == {"Dog": 1}
    assert len(result.skipped) == 2
    assert any("b.wav" in reason for reason in result.skipped)
    assert any("starts at 30 s, but the recording has 20.000 s" in reason for reason in result.skipped)


def test_labels_that_are_no_file_names_get_folders_of_their_own(tmp_path):
    write_recording(tmp_path / "a.wav")
    labels = ["a/b", "a:b", "..", "CON", "x" * 300]
    rows = [("a.wav", n, n + 1, label, 0.5) for n, label in enumerate(labels)]
    result = clips(write_tags(tmp_path / "tags.csv", rows), tmp_path / "clips")
    folders = {path.name for path in (tmp_path / "clips").iterdir() if path.is_dir()}
    assert folders == {"a_b", "a_b (2)", "_", "_CON", "x" * 80}
    assert {row["detected"] for row in rows_of(result.manifest)} == set(labels)


def test_other_rate_and_format(tmp_path):
    path = write_recording(tmp_path / "a.wav", subtype="FLOAT")
    tags = write_tags(tmp_path / "tags.csv", [(path.name, 1, 2, "Dog", 0.9)])
    clips(tags, tmp_path / "clips", ClipSettings(format="flac", sample_rate=16_000, pad=0))
    info = soundfile.info(tmp_path / "clips" / names(tmp_path / "clips")[0])
    assert (info.samplerate, info.frames, info.format, info.subtype) == (16_000, 16_000, "FLAC", "PCM_24")


TAGS = {"file": "rec.wav", "start": 1, "end": 2, "tags": [{"label": "Dog", "probability": 0.75}]}
BIRDNET = "Start (s),End (s),Scientific name,Common name,Confidence\n1.0,2.0,Canis,Dog,0.75\n"
RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCommon Name\tConfidence\n"
    "1\tSpectrogram 1\t1\t1.0\t2.0\t0\t8000\tDog\t0.75\n"
)
KALEIDOSCOPE = "INDIR,FOLDER,IN FILE,OFFSET,DURATION,TOP1MATCH,TOP1DIST\n,,rec.wav,1.0,1.0,Dog,0.25\n"


@pytest.mark.parametrize(
    ("name", "text", "probability"),
    [
        ("tags.csv", "file,start,end,label,probability\nrec.wav,1.0,2.0,Dog,0.75\n", 0.75),
        ("tags.jsonl", json.dumps(TAGS), 0.75),
        ("rec.BirdNET.results.csv", BIRDNET, 0.75),
        ("rec.Table.1.selections.txt", RAVEN, 0.75),
        ("k.csv", KALEIDOSCOPE, 0.75),
        ("rec.txt", "1.0\t2.0\tDog\n", None),
        ("opso.csv", "file,start_time,end_time,Dog,Cat\nrec.wav,1.0,2.0,0.75,0.1\n", 0.75),
    ],
)
def test_tables_of_spectag_and_of_other_programs_are_read(tmp_path, name, text, probability):
    write_recording(tmp_path / "rec.wav")
    (tmp_path / name).write_text(text, encoding="utf-8")
    [detection] = read_detections(tmp_path / name, min_probability=0.5).detections
    assert (detection.path, detection.start_seconds, detection.end_seconds) == (tmp_path / "rec.wav", 1.0, 2.0)
    assert detection.label == "Dog"
    assert detection.probability == (None if probability is None else pytest.approx(probability))


def test_table_of_probabilities_asks_for_a_minimum(tmp_path):
    write_recording(tmp_path / "rec.wav")
    (tmp_path / "opso.csv").write_text("file,start_time,end_time,Dog\nrec.wav,1,2,0.7\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a probability for each of 1 labels in each window.*--min 0.5"):
        read_detections(tmp_path / "opso.csv")


def test_one_recording_below_two_spellings_of_a_folder_is_found(tmp_path, monkeypatch):
    write_recording(tmp_path / "rec" / "deep" / "a.wav")
    write_tags(
        tmp_path / "rec" / "tags.csv", [("a.wav", 1, 2, "Dog", 0.9), ("/elsewhere/deep/a.wav", 3, 4, "Dog", 0.9)]
    )
    monkeypatch.chdir(tmp_path)
    table = read_detections("rec/tags.csv", audio_dir=tmp_path / "rec")
    assert table.recordings == ((tmp_path / "rec" / "deep" / "a.wav").resolve(),)


def test_missing_recordings_and_a_probability_that_is_none_are_reported(tmp_path):
    tags = write_tags(tmp_path / "tags.csv", [("gone.wav", 1, 2, "Dog", 0.9)])
    with pytest.raises(DataError, match=r"1 recordings are not found, such as gone.wav.*--audio-dir"):
        read_detections(tags)
    write_recording(tmp_path / "gone.wav")
    write_tags(tags, [("gone.wav", 1, 2, "Dog", "high")])
    with pytest.raises(DataError, match=r"tags.csv, line 2: the probability is 'high'; expected a number"):
        read_detections(tags)


def test_command_prints_counts_and_names_what_was_skipped(tmp_path, run):
    write_recording(tmp_path / "a.wav")
    (tmp_path / "b.wav").write_bytes(b"")
    rows = [("a.wav", 1, 2, "Dog", 0.9), ("b.wav", 1, 2, "Cat", 0.9), ("a.wav", 4, 5, "Cat", 0.2)]
    tags = write_tags(tmp_path / "tags.csv", rows)
    done = run("clips", tags, "-o", tmp_path / "clips", "--min", 0.5, "--dry-run")
    assert "1 clips of 2 detections, about" in done.out  # the empty file cannot be cut
    assert not (tmp_path / "clips").exists()
    done = run("clips", tags, "-o", tmp_path / "clips", "--min", 0.5)
    assert done.status == 3
    assert "1 clips of 2 detections" in done.out
    assert str(tmp_path / "clips" / "clips.csv") in done.out
    assert "b.wav: the file is empty (0 bytes)" in done.err


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_clip_that_is_encoded_in_memory_equals_one_that_is_not(tmp_path, monkeypatch, suffix):
    path = write_recording(tmp_path / f"a{suffix}", channels=2)
    tags = write_tags(tmp_path / "tags.csv", [(path.name, "5.0", "7.5", "Dog", "0.8")])
    clips(tags, tmp_path / "memory", workers=1)
    monkeypatch.setattr("spectag.findings.excerpts._MAX_IN_MEMORY", 0)
    clips(tags, tmp_path / "file", workers=1)
    [in_memory], [in_file] = ([*(tmp_path / name).glob("*/*")] for name in ("memory", "file"))
    assert in_memory.read_bytes() == in_file.read_bytes()
