"""Suggestions of a tagger that needs no training: what is labelled never comes again, and a copy comes once."""

import csv
import json
import shutil

import numpy as np
import pytest

import spectag.curation.candidate_pool
from helpers.bundles import LABELS, make_bundle, make_info, tone
from helpers.command import write_tones
from spectag.audio.files import write_audio
from spectag.curation.active_learning import COLUMNS, suggest, write_suggestions
from spectag.data.clips import Clip
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import AudioError, ConfigError, DataError
from spectag.models.out_of_fold import PREDICTIONS_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger


def noise(seed, seconds=0.6, sample_rate=16_000):
    """A sound unlike that of another seed: a tone of its own among others that fade, in noise."""
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


def let_it_have_learnt(model, clips):
    """Let the tagger have been trained on clips that were never held out."""
    held_out = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(clip.fname for clip in clips),
        stretches=tuple((clip.start_seconds, clip.end_seconds) for clip in clips),
        folds=("",) * len(clips),
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(clip_key(clip) for clip in clips),
        y_true=np.array([[label in clip.labels for label in LABELS] for clip in clips]),
        logits=np.full((len(clips), 3), np.nan),
    )
    write_out_of_fold(model / PREDICTIONS_FILE, held_out)


def test_the_first_few_suggestions_are_the_suggestion_of_a_few(model, pool):
    many = suggest(model, pool, 12)
    assert len(set(names(many))) == 12
    assert [clip.rank for clip in many] == list(range(1, 13))
    assert suggest(model, pool, 5).clips == many[:5]
    assert suggest(model, pool, 12) == many


def test_labelled_clips_never_come_whether_a_manifest_or_the_tagger_knows_them(model, pool, tmp_path):
    first = names(suggest(model, pool, 10))
    (tmp_path / "labelled.csv").write_text(
        "\n".join(["fname,labels", *(f"{name},low" for name in first)]), encoding="utf-8"
    )
    said = []
    by_manifest = suggest(model, pool, 30, labelled=tmp_path / "labelled.csv", log=said.append)
    assert said[0] == "10 of 30 clips are labelled already"
    assert sorted(names(by_manifest)) == sorted(set(names(suggest(model, pool, 30))) - set(first))
    let_it_have_learnt(model, read_manifest(tmp_path / "labelled.csv", audio_dir=pool).clips)
    assert suggest(model, pool, 30) == by_manifest


def test_what_was_learnt_is_known_by_its_content_under_another_name(model, pool, tmp_path):
    shutil.move(pool / "ort 0" / "00.wav", pool / "umbenannt.wav")
    let_it_have_learnt(model, [Clip(pool / "umbenannt.wav", "x.wav", ("low",))])
    assert "umbenannt.wav" not in names(suggest(model, pool, 30))


def test_labelled_clips_elsewhere_cover_what_sounds_like_them(model, pool, tmp_path):
    first = suggest(model, pool, 1)[0]
    write_audio(tmp_path / "louder.wav", 1.5 * noise(int(first.fname[-6:-4])), 16_000)
    (tmp_path / "labelled.csv").write_text("fname,labels\nlouder.wav,low\n", encoding="utf-8")
    assert first.fname not in names(suggest(model, pool, 30, labelled=[tmp_path / "labelled.csv"]))


def test_copies_come_once_also_louder_with_noise_or_cut_off(model, pool, rng):
    sound = noise(7)
    write_audio(pool / "copy.wav", sound, 16_000)
    write_audio(pool / "quiet.wav", 0.3 * sound, 16_000)
    write_audio(pool / "cut.wav", sound[1600:], 16_000)
    write_audio(pool / "noisy.wav", sound + rng.normal(scale=0.01, size=len(sound)).astype(np.float32), 16_000)
    said = []
    found = names(suggest(model, pool, 100, log=said.append))
    assert len({"copy.wav", "quiet.wav", "cut.wav", "noisy.wav", "ort 1/07.wav"} & set(found)) == 1
    assert len(found) < 34
    assert said[-1] == f"{len(found)} suggestions: the other clips are nearly the same as these or as labelled ones"


def test_one_clip_and_clips_that_are_all_the_same(model, tmp_path):
    for number in range(25):
        (tmp_path / "same").mkdir(exist_ok=True)
        write_audio(tmp_path / "same" / f"{number}.wav", tone("low", 0.5), 16_000)
    assert names(suggest(model, tmp_path / "same" / "3.wav", 5)) == ["3.wav"]
    assert names(suggest(model, tmp_path / "same", 5)) == ["0.wav"]


def test_of_a_few_clips_all_come_though_nobody_can_tell_what_sounds_have_in_common(model, tmp_path):
    tones = write_tones(tmp_path / "few", 3)
    assert sorted(names(suggest(model, tmp_path / "few"))) == sorted(tones)


def test_nothing_left_is_told(model, pool, tmp_path):
    rows = [f"{path.relative_to(pool)},low" for path in pool.rglob("*.wav")]
    (tmp_path / "all.csv").write_text("\n".join(["fname,labels", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match="nothing is left to suggest: all 30 clips are labelled"):
        suggest(model, pool, labelled=tmp_path / "all.csv")


def test_windows_of_long_recordings_are_suggested_but_none_that_overlaps_what_is_labelled(model, tmp_path):
    (tmp_path / "long").mkdir()
    write_audio(tmp_path / "long" / "day.wav", np.concatenate([noise(seed, 1.0) for seed in range(8)]), 16_000)
    said = []
    everything = suggest(model, tmp_path / "long", window=1.0, log=said.append)
    assert sorted((clip.start_seconds, clip.end_seconds) for clip in everything) == [(i, i + 1) for i in range(8)]
    (tmp_path / "labelled.csv").write_text("fname,start,end,labels\nday.wav,2.5,4.0,low\n", encoding="utf-8")
    rest = suggest(model, tmp_path / "long", window=1.0, labelled=tmp_path / "labelled.csv")
    assert sorted(clip.start_seconds for clip in rest) == [0, 1, 4, 5, 6, 7]
    let_it_have_learnt(model, [Clip(tmp_path / "long" / "day.wav", "", ("low",), start_seconds=1.0, end_seconds=2.0)])
    assert sorted(clip.start_seconds for clip in suggest(model, tmp_path / "long", window=1.0)) == [0, *range(2, 8)]


def test_of_a_recording_that_was_learnt_from_as_a_whole_no_window_comes(model, tmp_path):
    (tmp_path / "two").mkdir()
    write_audio(tmp_path / "two" / "learnt.wav", noise(1, 2.0), 16_000)
    write_audio(tmp_path / "two" / "new.wav", np.concatenate([noise(2, 1.4), noise(3, 0.9333)]), 16_000)
    let_it_have_learnt(model, [Clip(tmp_path / "two" / "learnt.wav", "", ("low",))])
    found = suggest(model, tmp_path / "two", window=1.0)
    assert {clip.fname for clip in found} == {"new.wav"}
    last = max(found, key=lambda clip: clip.start_seconds)
    assert (last.start_seconds, last.end_seconds) == (1.333, 2.333)  # a table's times: read again, they are the same


def test_where_labelled_clips_have_no_label_a_clip_in_which_nothing_is_heard_is_clear(model, pool, tmp_path):
    thin = np.sin(2 * np.pi * 1500 * np.arange(9600) / 16_000)  # one band of a third alone is loud
    write_audio(pool / "thin.wav", 0.3 * thin.astype(np.float32), 16_000)
    (tmp_path / "labelled.csv").write_text("fname,labels\nort 0/00.wav,\n", encoding="utf-8")
    without, with_empty = (
        {clip.fname: clip.uncertainty for clip in suggest(model, pool, 40, labelled=paths)}["thin.wav"]
        for paths in ((), tmp_path / "labelled.csv")
    )
    assert without > 0.9 > 0.1 > with_empty


def test_a_recording_too_long_to_label_as_a_whole_is_told_of(model, tmp_path):
    (tmp_path / "long").mkdir()
    write_audio(tmp_path / "long" / "day.wav", noise(1, 61.0), 16_000)
    said = []
    assert names(suggest(model, tmp_path / "long", log=said.append)) == ["day.wav"]
    assert said == ["1 recordings last more than 60 s; a window suggests stretches of them"]


def test_the_clips_of_a_manifest_keep_their_names_and_stretches(model, tmp_path):
    write_audio(tmp_path / "all.wav", np.concatenate([tone(label, 1.0) for label in LABELS]), 16_000)
    rows = ["fname,labels,start,end", *(f"all.wav,{label},{i},{i + 1}" for i, label in enumerate(LABELS))]
    (tmp_path / "pool.csv").write_text("\n".join(rows), encoding="utf-8")
    found = suggest(model, tmp_path / "pool.csv")
    assert {clip.start_seconds: clip.suggested for clip in found} == {i: (name,) for i, name in enumerate(LABELS)}
    assert found.folder == str(tmp_path)
    with pytest.raises(DataError, match="leave out the window"):
        suggest(model, tmp_path / "pool.csv", window=1.0)


@pytest.mark.parametrize("folder", ["pool", "elsewhere"])
def test_clips_of_a_manifest_are_found_again_from_the_folder_that_holds_them(model, tmp_path, folder):
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


def test_clips_of_a_manifest_that_lie_here_and_there_keep_the_manifests_folder(model, tmp_path):
    (tmp_path / "pool").mkdir()
    write_audio(tmp_path / "a.wav", noise(0), 16_000)
    write_audio(tmp_path / "pool" / "b.wav", noise(1), 16_000)
    write_audio(tmp_path / "c.wav", noise(2), 16_000)
    rows = ["fname,labels", "a.wav,low", "b.wav,low", f"{tmp_path / 'c.wav'},low"]
    (tmp_path / "pool.csv").write_text("\n".join(rows), encoding="utf-8")
    assert suggest(model, tmp_path / "pool.csv").folder == str(tmp_path)


def test_the_probability_is_that_of_the_first_label_that_is_suggested(model, tmp_path):
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


def test_a_published_tagger_gives_no_uncertainty_for_its_labels_are_not_ours(tmp_path, pool):
    info = make_info()
    data = info.data.model_copy(update={"n_clips": None, "n_clips_per_label": None, "fingerprint": None})
    published = make_bundle(tmp_path / "published", info.model_copy(update={"data": data}))
    assert {clip.uncertainty for clip in suggest(published, pool, 5)} == {None}
    assert all(clip.uncertainty is not None for clip in suggest(make_bundle(tmp_path / "own"), pool, 5))


def test_features_of_many_clips_become_vectors_as_they_come_whatever_their_order(model, pool, monkeypatch):
    together = suggest(model, pool, 30)
    monkeypatch.setattr(spectag.curation.candidate_pool, "_FEATURES_TOGETHER", 12)
    piecewise = suggest(model, pool, 30, seed=3)
    assert {clip.fname: clip.probability for clip in piecewise}.items() <= {
        path.relative_to(pool).as_posix(): float(Tagger(model).tag(path).probabilities.max())
        for path in pool.rglob("*.wav")
    }.items()
    assert suggest(model, pool, 30, seed=3) == piecewise
    assert len(set(names(piecewise)[:10]) & set(names(together)[:10])) >= 4  # chance: 3.3


def test_reasons_tell_of_doubt_novelty_and_what_a_clip_stands_for(model, tmp_path):
    (tmp_path / "clips").mkdir()
    between = (tone("low", 0.6) + tone("middle", 0.6)) / 2
    for number in range(12):
        write_audio(tmp_path / "clips" / f"low {number}.wav", tone("low", 0.5 + number / 50), 16_000)
    write_audio(tmp_path / "clips" / "between.wav", between, 16_000)
    found = {clip.fname: clip for clip in suggest(model, tmp_path / "clips")}
    assert "stands for" in next(clip.why for name, clip in found.items() if name.startswith("low"))
    assert all(0 <= clip.uncertainty <= 1 for clip in found.values())


@pytest.mark.parametrize(
    ("probabilities", "likeness", "stands_for", "why"),
    [
        ((0.5, 0.4), 0.9, 1, "unsure between Dog and Rooster"),
        ((0.6, 0.1), 0.9, 7, "unsure of Dog; stands for 7 clips"),
        ((0.2, 0.05), 0.1, 1, "unlike anything labelled; nothing heard, Dog is nearest"),
        ((0.004, 0.003), 0.9, 1, "nothing heard, Dog is nearest"),
        ((0.99, 0.0), np.nan, 3, "stands for 3 clips"),
        ((0.99, 0.0), 0.9, 1, "unlike the clips before it"),
    ],
)
def test_reasons_in_words(probabilities, likeness, stands_for, why):
    from spectag.curation.active_learning import _why
    from spectag.curation.facility_location import Selection, doubts
    from spectag.models.tagger import Tag

    tags = [Tag(name, value) for name, value in zip(("Dog", "Rooster"), probabilities, strict=True)]
    doubt = float(doubts([probabilities])[0])
    assert _why(Selection(0, stands_for, likeness), doubt, tags, is_heard=probabilities[0] >= 0.5) == why


def test_fewer_than_one_suggestion_is_refused(model, pool):
    with pytest.raises(ValueError, match="n >= 1, got 0"):
        suggest(model, pool, 0)


@pytest.mark.parametrize("seconds", [0.0, np.inf])
def test_a_window_needs_a_length(model, pool, seconds):
    with pytest.raises(ConfigError, match="window"):
        suggest(model, pool, window=seconds)


def test_the_table_is_a_manifest_once_it_is_filled_in(model, pool, tmp_path):
    found = suggest(model, pool, 4)
    write_suggestions(tmp_path / "next.csv", found)
    with (tmp_path / "next.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["labels"] for row in rows] == [""] * 4
    assert all(row["suggested"] for row in rows)  # so a line that is empty there, too, was looked at
    for row in rows:
        row["labels"] = row["suggested"]
    with (tmp_path / "next.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    manifest = read_manifest(tmp_path / "next.csv", audio_dir=found.folder)
    assert [str(clip.path) for clip in manifest.clips] == [clip.file for clip in found]
    assert [clip.labels for clip in manifest.clips] == [clip.suggested for clip in found]


def test_the_command_writes_a_table_shows_the_first_and_names_what_it_skipped(run, model, pool, tmp_path):
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


def test_labels_that_are_filled_in_are_not_written_over(run, model, pool, tmp_path):
    output = tmp_path / "next.csv"
    for text in (None, "fname;labels\na.wav;\n"):  # nobody's work
        if text is not None:
            output.write_text(text, encoding="utf-8")
        assert run("suggest", model, pool, "-n", 2, "-o", output).status == 0
    output.write_text("fname;labels\na.wav;Dog\n", encoding="utf-8")
    done = run("suggest", model, pool, "-n", 2, "-o", output)
    assert (done.status, output.read_text(encoding="utf-8")) == (1, "fname;labels\na.wav;Dog\n")
    assert "has labels filled in, which would be lost" in done.err
    assert "is a folder" in run("suggest", model, pool, "-o", tmp_path).err


def test_the_command_gives_json(run, model, pool):
    done = run("suggest", model, pool, "-n", 3, "--json")
    told = json.loads(done.out)
    assert done.status == 0
    assert told["folder"] == str(pool)
    assert [clip["fname"] for clip in told["clips"]] == names(suggest(model, pool, 3))
    assert told["clips"][0]["end_seconds"] is None


def test_files_and_patterns_are_named_from_the_folder_that_holds_all(run, model, pool):
    found = suggest(model, [f"{pool}/ort 1/*.wav", pool / "ort 2" / "02.wav"], 3)
    assert found.folder == str(pool)
    assert all(name.startswith(("ort 1/", "ort 2/")) for name in names(found))


def test_nothing_to_choose_from_is_an_error(run, model, tmp_path):
    (tmp_path / "kaputt").mkdir()
    (tmp_path / "kaputt" / "a.wav").write_bytes(b"no sound")
    with pytest.raises(DataError, match="none of the 1 files can be read"):
        suggest(model, tmp_path / "kaputt")
    (tmp_path / "leer").mkdir()
    with pytest.raises(AudioError, match="no sound found"):
        suggest(model, tmp_path / "leer")
    assert run("suggest", model, tmp_path / "fehlt").status == 1
    assert run("suggest", model).status == 2


def test_a_table_that_is_not_filled_in_is_not_taken_for_a_finished_one(model, pool, tmp_path):
    write_suggestions(tmp_path / "next.csv", suggest(model, pool, 4))
    with pytest.raises(DataError, match=r"next\.csv, line 2: not labelled yet"):
        read_manifest(tmp_path / "next.csv", audio_dir=pool)
    rows = ["fname,labels,suggested,why", "ort 0/00.wav,low,high,x", "ort 1/01.wav,,,x"]
    (tmp_path / "filled.csv").write_text("\n".join(rows), encoding="utf-8")
    assert [clip.labels for clip in read_manifest(tmp_path / "filled.csv", audio_dir=pool).clips] == [("low",), ()]
