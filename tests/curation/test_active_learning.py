"""Suggestions of clips to label: labelled clips are never suggested, and copies are suggested once."""

import csv
import json
import shutil

import numpy as np
import pytest

import spectag.curation.candidate_pool
from helpers.bundles import LABELS, make_bundle, make_info, tone
from helpers.command import write_tones
from spectag.audio.files import write_audio
from spectag.curation.active_learning import SUGGESTION_COLUMNS, reasons_to_label, suggest, write_suggestions
from spectag.curation.facility_location import Selection, margin_uncertainty
from spectag.data.clips import Clip
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import AudioError, ConfigError, DataError
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger
from spectag.models.tags import Tag


def noise(seed, seconds=0.6, sample_rate=16_000):
    """A sound that differs from those of other seeds: random tones in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    pitches = rng.uniform(100, 7000, size=4)
    tones = (rng.uniform(0.02, 0.2, size=(4, 1)) * np.sin(2 * np.pi * pitches[:, None] * t)).sum(axis=0)
    return (tones + rng.normal(scale=0.01, size=len(t))).astype(np.float32)


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model")


@pytest.fixture
def pool(tmp_path):
    """Thirty sounds, in sub-folders."""
    for number in range(30):
        folder = tmp_path / "aufnahmen ü" / f"ort {number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        write_audio(folder / f"{number:02}.wav", noise(number), 16_000)
    return tmp_path / "aufnahmen ü"


def names(suggestions):
    return [clip.fname for clip in suggestions]


def record_training_clips(model, clips):
    """Write the record of a training on these clips, without out-of-fold predictions."""
    record = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(clip.fname for clip in clips),
        spans=tuple((clip.start_seconds, clip.end_seconds) for clip in clips),
        folds=("",) * len(clips),
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(clip_key(clip) for clip in clips),
        y_true=np.array([[label in clip.labels for label in LABELS] for clip in clips]),
        logits=np.full((len(clips), 3), np.nan),
    )
    write_out_of_fold(model / OUT_OF_FOLD_FILE, record)


def test_first_suggestions_do_not_depend_on_their_number(model, pool):
    many = suggest(model, pool, 12)
    assert len(set(names(many))) == 12
    assert [clip.rank for clip in many] == list(range(1, 13))
    assert suggest(model, pool, 5).clips == many[:5]
    assert suggest(model, pool, 12) == many


def test_labelled_clips_of_manifests_and_of_the_training_are_not_suggested(model, pool, tmp_path):
    first = names(suggest(model, pool, 10))
    (tmp_path / "labelled.csv").write_text(
        "\n".join(["fname,labels", *(f"{name},low" for name in first)]), encoding="utf-8"
    )
    lines = []
    by_manifest = suggest(model, pool, 30, labelled=tmp_path / "labelled.csv", log=lines.append)
    assert lines[0] == "10 of 30 clips are labelled already"
    assert sorted(names(by_manifest)) == sorted(set(names(suggest(model, pool, 30))) - set(first))
    record_training_clips(model, read_manifest(tmp_path / "labelled.csv", audio_dir=pool).clips)
    assert suggest(model, pool, 30) == by_manifest


def test_renamed_training_clips_are_recognised_by_their_content(model, pool, tmp_path):
    shutil.move(pool / "ort 0" / "00.wav", pool / "umbenannt.wav")
    record_training_clips(model, [Clip(pool / "umbenannt.wav", "x.wav", ("low",))])
    assert "umbenannt.wav" not in names(suggest(model, pool, 30))


def test_clips_similar_to_labelled_clips_elsewhere_are_not_suggested(model, pool, tmp_path):
    first = suggest(model, pool, 1)[0]
    write_audio(tmp_path / "louder.wav", 1.5 * noise(int(first.fname[-6:-4])), 16_000)
    (tmp_path / "labelled.csv").write_text("fname,labels\nlouder.wav,low\n", encoding="utf-8")
    assert first.fname not in names(suggest(model, pool, 30, labelled=[tmp_path / "labelled.csv"]))


def test_near_duplicates_are_suggested_once(model, pool, rng):
    sound = noise(7)
    write_audio(pool / "copy.wav", sound, 16_000)
    write_audio(pool / "quiet.wav", 0.3 * sound, 16_000)
    write_audio(pool / "cut.wav", sound[1600:], 16_000)
    write_audio(pool / "noisy.wav", sound + rng.normal(scale=0.01, size=len(sound)).astype(np.float32), 16_000)
    lines = []
    found = names(suggest(model, pool, 100, log=lines.append))
    assert len({"copy.wav", "quiet.wav", "cut.wav", "noisy.wav", "ort 1/07.wav"} & set(found)) == 1
    assert len(found) < 34
    assert lines[-1] == f"{len(found)} suggestions: the other clips are near-duplicates of these or of labelled clips"


def test_single_clip_and_identical_clips_give_one_suggestion(model, tmp_path):
    for number in range(25):
        (tmp_path / "same").mkdir(exist_ok=True)
        write_audio(tmp_path / "same" / f"{number}.wav", tone("low", 0.5), 16_000)
    assert names(suggest(model, tmp_path / "same" / "3.wav", 5)) == ["3.wav"]
    assert names(suggest(model, tmp_path / "same", 5)) == ["0.wav"]


def test_few_clips_are_all_suggested(model, tmp_path):
    tones = write_tones(tmp_path / "few", 3)
    assert sorted(names(suggest(model, tmp_path / "few"))) == sorted(tones)


def test_nothing_left_to_suggest_is_an_error(model, pool, tmp_path):
    rows = [f"{path.relative_to(pool)},low" for path in pool.rglob("*.wav")]
    (tmp_path / "all.csv").write_text("\n".join(["fname,labels", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match="nothing is left to suggest: all 30 clips are labelled"):
        suggest(model, pool, labelled=tmp_path / "all.csv")


def test_windows_that_overlap_labelled_clips_are_not_suggested(model, tmp_path):
    (tmp_path / "long").mkdir()
    write_audio(tmp_path / "long" / "day.wav", np.concatenate([noise(seed, 1.0) for seed in range(8)]), 16_000)
    lines = []
    everything = suggest(model, tmp_path / "long", window=1.0, log=lines.append)
    assert sorted((clip.start_seconds, clip.end_seconds) for clip in everything) == [(i, i + 1) for i in range(8)]
    (tmp_path / "labelled.csv").write_text("fname,start,end,labels\nday.wav,2.5,4.0,low\n", encoding="utf-8")
    rest = suggest(model, tmp_path / "long", window=1.0, labelled=tmp_path / "labelled.csv")
    assert sorted(clip.start_seconds for clip in rest) == [0, 1, 4, 5, 6, 7]
    record_training_clips(
        model, [Clip(tmp_path / "long" / "day.wav", "", ("low",), start_seconds=1.0, end_seconds=2.0)]
    )
    assert sorted(clip.start_seconds for clip in suggest(model, tmp_path / "long", window=1.0)) == [0, *range(2, 8)]


def test_windows_of_training_recordings_are_not_suggested(model, tmp_path):
    (tmp_path / "two").mkdir()
    write_audio(tmp_path / "two" / "training.wav", noise(1, 2.0), 16_000)
    write_audio(tmp_path / "two" / "new.wav", np.concatenate([noise(2, 1.4), noise(3, 0.9333)]), 16_000)
    record_training_clips(model, [Clip(tmp_path / "two" / "training.wav", "", ("low",))])
    found = suggest(model, tmp_path / "two", window=1.0)
    assert {clip.fname for clip in found} == {"new.wav"}
    last = max(found, key=lambda clip: clip.start_seconds)
    assert (last.start_seconds, last.end_seconds) == (
        1.333,
        2.333,
    )  # rounded as in the table


def test_clip_without_detections_is_certain_if_labelled_clips_can_have_no_label(model, pool, tmp_path):
    thin = np.sin(2 * np.pi * 1500 * np.arange(9600) / 16_000)  # one band of a third alone is loud
    write_audio(pool / "thin.wav", 0.3 * thin.astype(np.float32), 16_000)
    (tmp_path / "negative.csv").write_text("fname,labels\nort 0/00.wav,\n", encoding="utf-8")
    (tmp_path / "unknown.csv").write_text("fname,labels,unknown\nort 0/00.wav,,low\n", encoding="utf-8")
    without, with_negative, with_unknown = (
        {clip.fname: clip.uncertainty for clip in suggest(model, pool, 40, labelled=paths)}["thin.wav"]
        for paths in ((), tmp_path / "negative.csv", tmp_path / "unknown.csv")
    )
    assert without == with_unknown > 0.9 > 0.1 > with_negative


def test_long_recordings_are_logged(model, tmp_path):
    (tmp_path / "long").mkdir()
    write_audio(tmp_path / "long" / "day.wav", noise(1, 61.0), 16_000)
    lines = []
    assert names(suggest(model, tmp_path / "long", log=lines.append)) == ["day.wav"]
    assert lines == ["1 recordings are longer than 60 s; use a window to get shorter clips"]


def test_clips_of_a_manifest_keep_their_names_and_times(model, tmp_path):
    write_audio(tmp_path / "all.wav", np.concatenate([tone(label, 1.0) for label in LABELS]), 16_000)
    rows = ["fname,labels,start,end", *(f"all.wav,{label},{i},{i + 1}" for i, label in enumerate(LABELS))]
    (tmp_path / "pool.csv").write_text("\n".join(rows), encoding="utf-8")
    found = suggest(model, tmp_path / "pool.csv")
    assert {clip.start_seconds: clip.suggested for clip in found} == {i: (name,) for i, name in enumerate(LABELS)}
    assert found.folder == str(tmp_path)
    with pytest.raises(DataError, match="leave out the window"):
        suggest(model, tmp_path / "pool.csv", window=1.0)


@pytest.mark.parametrize("folder", ["pool", "elsewhere"])
def test_suggested_clips_of_a_manifest_can_be_read_from_their_folder(model, tmp_path, folder):
    for number in range(3):
        sound = tmp_path / folder / "Ort 1" / f"{number}.wav"
        sound.parent.mkdir(parents=True, exist_ok=True)
        write_audio(sound, noise(number), 16_000)
    rows = ["fname,labels", *(f"Ort 1\\{number}.wav,low" for number in range(3))]
    (tmp_path / "pool.csv").write_text("\n".join(rows), encoding="utf-8")
    found = suggest(model, tmp_path / "pool.csv", audio_dir=tmp_path / "elsewhere" if folder == "elsewhere" else None)
    assert found.folder == str(tmp_path / folder)
    (tmp_path / "next.csv").write_text("fname,labels\n" + found[0].fname + ",low\n", encoding="utf-8")
    assert str(read_manifest(tmp_path / "next.csv", audio_dir=found.folder).clips[0].path) == found[0].file


def test_folder_of_clips_in_several_folders_is_that_of_the_manifest(model, tmp_path):
    (tmp_path / "pool").mkdir()
    write_audio(tmp_path / "a.wav", noise(0), 16_000)
    write_audio(tmp_path / "pool" / "b.wav", noise(1), 16_000)
    write_audio(tmp_path / "c.wav", noise(2), 16_000)
    rows = ["fname,labels", "a.wav,low", "b.wav,low", f"{tmp_path / 'c.wav'},low"]
    (tmp_path / "pool.csv").write_text("\n".join(rows), encoding="utf-8")
    assert suggest(model, tmp_path / "pool.csv").folder == str(tmp_path)


def test_probability_is_that_of_the_first_suggested_label(model, tmp_path):
    (tmp_path / "clips").mkdir()
    write_audio(tmp_path / "clips" / "a.wav", (2 * tone("low", 1.0) + tone("high", 1.0)) / 3, 16_000)
    tagger = Tagger(model)
    tags = tagger.tag(tmp_path / "clips" / "a.wav")
    first, second = tags.top(2)
    thresholds = np.ones(3, np.float32)
    thresholds[tagger.labels.index(second.label)] = second.probability / 2
    tagger.thresholds = thresholds
    [clip] = suggest(tagger, tmp_path / "clips")
    assert (clip.suggested, clip.probability) == ((second.label,), pytest.approx(second.probability))
    assert first.probability > second.probability


def test_pretrained_model_gives_no_uncertainty(tmp_path, pool):
    info = make_info()
    data = info.data.model_copy(update={"n_clips": None, "n_clips_per_label": None, "fingerprint": None})
    published = make_bundle(tmp_path / "published", info.model_copy(update={"data": data}))
    assert {clip.uncertainty for clip in suggest(published, pool, 5)} == {None}
    assert all(clip.uncertainty is not None for clip in suggest(make_bundle(tmp_path / "trained"), pool, 5))


def test_features_of_many_clips_are_embedded_incrementally(model, pool, monkeypatch):
    together = suggest(model, pool, 30)
    monkeypatch.setattr(spectag.curation.candidate_pool, "_MAX_FEATURE_ROWS", 12)
    piecewise = suggest(model, pool, 30, seed=3)
    assert {clip.fname: clip.probability for clip in piecewise}.items() <= {
        path.relative_to(pool).as_posix(): float(Tagger(model).tag(path).probabilities.max())
        for path in pool.rglob("*.wav")
    }.items()
    assert suggest(model, pool, 30, seed=3) == piecewise
    assert len(set(names(piecewise)[:10]) & set(names(together)[:10])) >= 4  # chance: 3.3


def test_screen_and_table_name_the_reasons_alike(run, model, pool, tmp_path):
    done = run("suggest", model, pool, "-n", 2, "-o", tmp_path / "next.csv")
    assert done.out.splitlines()[0].split() == ["rank", "clip", "suggested", "probability", "why"]
    assert (tmp_path / "next.csv").read_text(encoding="utf-8").splitlines()[0].endswith(",why")


def test_reasons_include_the_number_of_represented_clips(model, tmp_path):
    (tmp_path / "clips").mkdir()
    between = (tone("low", 0.6) + tone("middle", 0.6)) / 2
    for number in range(12):
        write_audio(tmp_path / "clips" / f"low {number}.wav", tone("low", 0.5 + number / 50), 16_000)
    write_audio(tmp_path / "clips" / "between.wav", between, 16_000)
    found = {clip.fname: clip for clip in suggest(model, tmp_path / "clips")}
    assert "represents" in next(clip.why for name, clip in found.items() if name.startswith("low"))
    assert all(0 <= clip.uncertainty <= 1 for clip in found.values())


@pytest.mark.parametrize(
    ("probabilities", "similarity", "n_represented", "reasons"),
    [
        ((0.5, 0.4), 0.9, 1, "unsure between Dog and Rooster"),
        ((0.9, 0.6), 0.9, 1, "unsure whether it is Dog, Rooster or both"),
        ((0.6, 0.1), 0.9, 7, "unsure of Dog; represents 7 clips"),
        ((0.2, 0.05), 0.1, 1, "unlike anything labelled; nothing detected, Dog is most probable"),
        ((0.004, 0.003), 0.9, 1, "nothing detected, Dog is most probable"),
        ((0.99, 0.0), np.nan, 3, "represents 3 clips"),
        ((0.99, 0.0), 0.9, 1, "unlike the clips before it"),
    ],
)
def test_reasons_are_text(probabilities, similarity, n_represented, reasons):
    tags = [Tag(name, value) for name, value in zip(("Dog", "Rooster"), probabilities, strict=True)]
    uncertainty = float(margin_uncertainty([probabilities])[0])
    selection = Selection(0, n_represented, similarity)
    assert reasons_to_label(selection, uncertainty, tags, n_detected=sum(map((0.5).__le__, probabilities))) == reasons


def test_number_of_suggestions_must_be_positive(model, pool):
    with pytest.raises(ValueError, match="n >= 1, got 0"):
        suggest(model, pool, 0)


@pytest.mark.parametrize("seconds", [0.0, np.inf])
def test_window_must_have_a_length(model, pool, seconds):
    with pytest.raises(ConfigError, match="window"):
        suggest(model, pool, window=seconds)


def test_table_is_a_manifest_after_labels_are_filled_in(model, pool, tmp_path):
    found = suggest(model, pool, 4)
    write_suggestions(tmp_path / "next.csv", found)
    with (tmp_path / "next.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == SUGGESTION_COLUMNS
    assert [row["labels"] for row in rows] == [""] * 4
    assert all(row["suggested"] for row in rows)  # so a line without a suggestion was reviewed
    for row in rows:
        row["labels"] = row["suggested"]
    with (tmp_path / "next.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, SUGGESTION_COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    manifest = read_manifest(tmp_path / "next.csv", audio_dir=found.folder)
    assert [str(clip.path) for clip in manifest.clips] == [clip.file for clip in found]
    assert [clip.labels for clip in manifest.clips] == [clip.suggested for clip in found]


def test_command_writes_a_table_and_reports_skipped_files(run, model, pool, tmp_path):
    (pool / "leer.wav").write_bytes(b"")
    done = run("suggest", model, pool, "-n", 25, "-o", tmp_path / "next.csv")
    assert done.status == 3
    assert "skipped: " in done.err
    assert "leer.wav" in done.err
    assert f"--audio-dir '{pool}'" in done.err
    with (tmp_path / "next.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [name in done.out for name in (rows[0]["fname"], rows[19]["fname"], rows[20]["fname"])] == [
        True,
        True,
        False,
    ]


def test_table_with_labels_is_not_overwritten(run, model, pool, tmp_path):
    output = tmp_path / "next.csv"
    for text in (None, "fname;labels\na.wav;\n"):  # without labels
        if text is not None:
            output.write_text(text, encoding="utf-8")
        assert run("suggest", model, pool, "-n", 2, "-o", output).status == 0
    output.write_text("fname;labels\na.wav;Dog\n", encoding="utf-8")
    done = run("suggest", model, pool, "-n", 2, "-o", output)
    assert (done.status, output.read_text(encoding="utf-8")) == (1, "fname;labels\na.wav;Dog\n")
    assert "the file contains labels, which would be lost" in done.err
    assert "this is a folder" in run("suggest", model, pool, "-o", tmp_path).err


def test_command_prints_json(run, model, pool):
    done = run("suggest", model, pool, "-n", 3, "--json")
    result = json.loads(done.out)
    assert done.status == 0
    assert result["folder"] == str(pool)
    assert [clip["fname"] for clip in result["clips"]] == names(suggest(model, pool, 3))
    assert result["clips"][0]["end_seconds"] is None


def test_file_names_are_relative_to_the_common_folder(run, model, pool):
    found = suggest(model, [f"{pool}/ort 1/*.wav", pool / "ort 2" / "02.wav"], 3)
    assert found.folder == str(pool)
    assert all(name.startswith(("ort 1/", "ort 2/")) for name in names(found))


def test_no_readable_files_are_an_error(run, model, tmp_path):
    (tmp_path / "kaputt").mkdir()
    (tmp_path / "kaputt" / "a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match="none of the 1 files can be read"):
        suggest(model, tmp_path / "kaputt")
    (tmp_path / "leer").mkdir()
    with pytest.raises(AudioError, match="no sound found"):
        suggest(model, tmp_path / "leer")
    assert run("suggest", model, tmp_path / "fehlt").status == 1
    assert run("suggest", model).status == 2


def test_table_without_labels_is_not_a_manifest(model, pool, tmp_path):
    write_suggestions(tmp_path / "next.csv", suggest(model, pool, 4))
    with pytest.raises(DataError, match=r"next\.csv, line 2: not labelled yet"):
        read_manifest(tmp_path / "next.csv", audio_dir=pool)
    rows = ["fname,labels,suggested,why", "ort 0/00.wav,low,high,x", "ort 1/01.wav,,,x"]
    (tmp_path / "filled.csv").write_text("\n".join(rows), encoding="utf-8")
    assert [clip.labels for clip in read_manifest(tmp_path / "filled.csv", audio_dir=pool).clips] == [("low",), ()]
