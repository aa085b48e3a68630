"""A review names what was made wrong, and the loop from doubt to decision to the next review ends."""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from helpers.bundles import LABELS, make_bundle, tone
from helpers.command import run_without
from spectag.audio.files import write_audio
from spectag.curation.label_review import accepted, review, write_review
from spectag.data.corrections import Correction, append_corrections, read_corrections
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError
from spectag.models.out_of_fold import PREDICTIONS_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger

N_CLIPS = 24
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def write_clips(folder, labels=None, n_clips=N_CLIPS, more=(), kinds=LABELS):
    """Sounds of low, middle and high pitch by turns, and a table that says so but for `labels`."""
    rows = []
    for number in range(n_clips):
        true = kinds[number % len(kinds)]
        write_audio(folder / f"{number:02}.wav", tone(true, 0.4 + number / 200) * np.float32(0.8), 16_000)
        rows.append([f"{number:02}.wav", (labels or {}).get(number, true)])
    for name, wave, label in more:
        write_audio(folder / name, wave, 16_000)
        rows.append([name, label])
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["fname", "labels"], *rows])
    return folder / "clips.csv"


def doubted(found):
    return {one.clip.fname: (one.kind, one.suggested) for one in found.findings if one.label and one.kind != "no doubt"}


# ------------------------------------------------------------------------------------------- labels


def test_swapped_labels_come_first_with_what_they_were(tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 11: "middle"})
    found = review(tagger, manifest, labels_only=True)
    assert [one.rank for one in found.findings] == list(range(1, N_CLIPS + 1))
    assert doubted(found) == {"04.wav": ("swapped label", ("middle",)), "11.wav": ("swapped label", ("high",))}
    assert {one.clip.fname for one in found.findings[:2]} == {"04.wav", "11.wav"}
    first = next(one for one in found.findings if one.clip.fname == "04.wav")
    assert (first.label, first.likely[0][0]) == ("low", "middle")
    assert first.probability < 0.5
    assert min(first.score, first.certainty) > 0.9


def test_where_clips_have_several_labels_missing_and_wrong_ones_are_told_apart(tmp_path, tagger):
    truth = (np.arange(N_CLIPS)[:, None] >> np.arange(3)) % 2 == 1  # all combinations of the three, none included
    labels = {row: ",".join(np.array(LABELS)[hot]) for row, hot in enumerate(truth)}
    assert (labels[5], labels[2], labels[0]) == ("low,high", "middle", "")
    manifest = write_clips(tmp_path, labels | {5: "low", 2: "middle,high", 8: "low"})
    held_out(tagger, manifest, truth)
    found = review(tagger, manifest, labels_only=True)
    assert doubted(found) == {
        "05.wav": ("missing label", ("low", "high")),
        "02.wav": ("wrong label", ("middle",)),
        "08.wav": ("wrong label", ()),
    }
    assert {one.clip.fname: one.label for one in found.findings[:3]} == {
        "05.wav": "high",
        "02.wav": "high",
        "08.wav": "low",
    }


def test_labels_that_are_right_leave_nothing_in_doubt(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path), labels_only=True)
    assert doubted(found) == {}
    assert found.counts["no doubt"] == N_CLIPS
    assert all(set(one.suggested) == set(one.clip.labels) for one in found.findings)


def test_a_label_that_the_tagger_does_not_know_is_told_and_kept(tmp_path, tagger):
    told = []
    found = review(tagger, write_clips(tmp_path, {4: "low,wind", 5: "high,wind"}), labels_only=True, log=told.append)
    assert told[0] == "the tagger does not know wind: these labels are not judged"
    assert doubted(found)["04.wav"][1] == ("middle", "wind")
    assert "05.wav" not in doubted(found)


def test_a_misspelt_label_is_an_error_that_names_the_right_one(tmp_path, tagger):
    with pytest.raises(DataError, match=r"does not know the label 'middel'; did you mean 'middle'\? Mend the manifest"):
        review(tagger, write_clips(tmp_path, {4: "middel"}))


def test_only_labels_of_the_manifest_are_suggested(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path, dict.fromkeys(range(2, N_CLIPS, 3), "low")), labels_only=True)
    assert {label for one in found.findings for label in one.suggested} <= {"low", "middle"}


def test_tagger_and_manifest_without_a_common_label_are_refused(tmp_path, tagger):
    manifest = write_clips(tmp_path, dict.fromkeys(range(N_CLIPS), "wind"))
    with pytest.raises(
        DataError, match=r"clips.csv: none of its 1 labels is one of the 3 that .*model knows, such as low"
    ):
        review(tagger, manifest)


def by_turns(n_kinds=3):
    return np.arange(3) == (np.arange(N_CLIPS) % n_kinds)[:, None]


def held_out(tagger, manifest, truth, seen=None):
    """What training leaves: each clip with what networks said, and `seen` false where all of them learnt from it."""
    clips = read_manifest(manifest).clips
    seen = np.ones(N_CLIPS, bool) if seen is None else seen
    logits = np.where(truth, 4.0, -4.0) + np.random.default_rng(0).normal(0, 0.5, truth.shape)
    logits[~seen] = np.nan
    given = np.array([[label in clip.labels for label in LABELS] for clip in clips])
    record = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(clip.fname for clip in clips),
        stretches=((0.0, None),) * len(clips),
        folds=tuple(str(i % 4) if seen[i] else "" for i in range(len(clips))),
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(str(clip_key(clip)) for clip in clips),
        y_true=given,
        logits=logits,
    )
    write_out_of_fold(tagger.folder / PREDICTIONS_FILE, record)


def test_clips_that_were_learnt_from_are_judged_by_networks_that_did_not_see_them(tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low"})
    held_out(tagger, manifest, by_turns())
    found = review(tagger, manifest, labels_only=True)
    assert found.origins == {"held out": N_CLIPS}
    assert doubted(found) == {"04.wav": ("swapped label", ("middle",))}


@pytest.mark.parametrize(("called_high", "group"), [([4], None), ([4, 10], None), ([4, 10, 12], "yard")])
def test_labels_with_too_few_clips_to_be_learnt_are_not_judged(tmp_path, tagger, called_high, group):
    path = write_clips(tmp_path, dict.fromkeys(called_high, "high") | {5: "low"}, kinds=("low", "middle"))
    held_out(tagger, path, by_turns(2))
    manifest = read_manifest(path)
    clips = tuple(replace(clip, group=group if clip.labels == ("high",) else None) for clip in manifest.clips)
    told = []
    found = review(tagger, replace(manifest, clips=clips), labels_only=True, log=told.append)
    assert doubted(found) == {"05.wav": ("swapped label", ("middle",))}  # and none that is called high
    assert "not judged, for fewer than 3 clips or a single recording: high" in told


def test_who_learnt_from_all_clips_is_warned_loudly_and_told_the_way_out(run, tmp_path, tagger):
    manifest = write_clips(tmp_path)
    held_out(tagger, manifest, by_turns(), seen=np.arange(N_CLIPS) > 4)
    done = run("review", tagger.folder, manifest, "--labels-only", "-o", tmp_path / "out", "-j", 1)
    assert "WARNING: the tagger learnt from 5 of the 24 clips" in done.err
    assert f"spectag train {manifest} -o MODEL --folds 5" in done.err.replace("\n", "")
    assert "WARNING" in (tmp_path / "out" / "review.html").read_text(encoding="utf-8")


def test_cleanlab_ranks_by_its_own_scores(tmp_path, tagger):
    cleanlab = pytest.importorskip("cleanlab.multilabel_classification")
    found = review(tagger, write_clips(tmp_path, {4: "low", 11: "middle"}), method="cleanlab", labels_only=True)
    assert {one.clip.fname for one in found.findings[:2]} == {"04.wav", "11.wav"}
    places = {name: place for place, name in enumerate(LABELS)}
    given = [[places[label] for label in one.clip.labels] for one in found.findings]
    probabilities = np.array([[dict(one.likely)[label] for label in LABELS] for one in found.findings])
    expected = 1 - cleanlab.get_label_quality_scores(given, probabilities)
    np.testing.assert_allclose([one.score for one in found.findings], expected, atol=1e-5)


def test_cleanlab_that_is_not_installed_is_named_before_any_work(tmp_path, tagger):
    done = run_without({"cleanlab"}, "review", tagger.folder, "gone.csv", "--method", "cleanlab")
    assert done.status == 1
    assert "review by the method cleanlab needs the package cleanlab: pip install 'spectag[review]'" in done.err


# ------------------------------------------------------------------------------------------- sounds


@pytest.fixture
def with_faults(tmp_path):
    rng = np.random.default_rng(1)
    rain = rng.normal(0, 0.1, 8000).astype(np.float32)
    return write_clips(
        tmp_path,
        more=[
            ("silent.wav", np.zeros(8000, np.float32), "low"),
            ("clipped.wav", np.sign(tone("low", 0.5)) * np.float32(1), "low"),
            ("rain.wav", rain, "middle"),
            ("rain again.wav", rain[400:] * np.float32(0.5), "high"),
        ],
    )


def test_silent_clipped_and_doubled_clips_are_named_after_the_labels(tmp_path, tagger, with_faults):
    found = review(tagger, with_faults, workers=1)
    faults = {one.clip.fname: (one.kind, one.note) for one in found.findings if one.label is None}
    assert faults["silent.wav"] == ("silent", "no sample reaches -60 dBFS")
    assert faults["clipped.wav"][0] == "clipped"
    assert "of the samples at full scale" in faults["clipped.wav"][1]
    assert faults["rain again.wav"] == ("near duplicate", "the same recording as rain.wav, which has middle")
    kinds = [one.kind for one in found.findings]
    assert kinds.index("silent") > max((i for i, kind in enumerate(kinds) if kind.endswith("label")), default=-1)
    assert kinds.index("no doubt") > kinds.index("clipped")
    assert [one.clip.fname for one in found.findings].count("silent.wav") == 1


def test_near_duplicates_in_two_folds_are_told(tmp_path, tagger, with_faults):
    manifest = read_manifest(with_faults)
    clips = tuple(replace(clip, fold=str(i % 2), labels=("low",)) for i, clip in enumerate(manifest.clips))
    found = review(tagger, replace(manifest, clips=clips), workers=1)
    notes = [one.note for one in found.findings if one.kind == "near duplicate"]
    assert "the same recording as rain.wav; they are in two folds, 1 and 0" in notes


def test_a_clip_that_can_not_be_read_is_named_and_the_exit_status_tells(run, tmp_path, tagger):
    manifest = write_clips(tmp_path, more=[("empty.wav", tone("low", 0.1), "low")])
    (tmp_path / "empty.wav").write_bytes(b"")
    done = run("review", tagger.folder, manifest, "--labels-only", "-j", 1)
    assert done.status == 3
    assert "skipped: " in done.err
    assert "empty.wav: the file is empty (0 bytes)" in done.err


# ------------------------------------------------------------------------------------------- the loop


def test_what_was_kept_is_not_asked_again_and_what_was_corrected_only_if_still_doubted(tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 7: "high", 11: "middle"})
    append_corrections(
        tmp_path / "corrections.csv",
        [
            Correction("Ada", NOON, "04.wav", ("low",), ("low",), why="it is"),
            Correction("Ada", NOON, "07.wav", ("high",), ("middle",)),
            Correction("Ada", NOON, "11.wav", ("middle",), ("low",)),
        ],
    )
    found = review(tagger, manifest, corrections=tmp_path / "corrections.csv", labels_only=True)
    assert doubted(found) == {"11.wav": ("swapped label", ("high",))}
    assert "04.wav" not in {one.clip.fname for one in found.findings}
    assert (found.n_kept, len(found.findings)) == (1, N_CLIPS - 1)


def test_faults_of_clips_that_were_looked_at_are_not_shown_again(tmp_path, tagger, with_faults):
    append_corrections(
        tmp_path / "corrections.csv",
        [
            Correction("Ada", NOON, "silent.wav", ("low",), ()),
            Correction("Ada", NOON, "clipped.wav", ("low",), ("low",)),
        ],
    )
    found = review(tagger, with_faults, corrections=tmp_path / "corrections.csv", workers=1)
    assert {one.kind for one in found.findings if one.label is None} <= {"near duplicate"}


def test_suggestions_that_are_certain_enough_become_corrections(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path, {4: "low", 11: "middle"}), labels_only=True)
    rows = accepted(found, 0.9, who="Ada", when=NOON)
    assert {(row.fname, row.before, row.after) for row in rows} == {
        ("04.wav", ("low",), ("middle",)),
        ("11.wav", ("middle",), ("high",)),
    }
    assert {row.why[:34] for row in rows} == {"accepted as suggested, certainty 0"} or all(row.why for row in rows)
    assert accepted(found, 1.0, who="Ada", when=NOON) == []


def test_the_loop_ends_without_a_browser(run, tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 11: "middle"})
    before = manifest.read_bytes()
    out = tmp_path / "out"
    first = ("review", tagger.folder, manifest, "-o", out, "--labels-only", "-j", 1)
    done = run(*first, "--accept", 0.9, "--who", "Ada")
    assert done.status == 0
    assert "2 swapped labels" in done.out
    assert "low → middle" in done.out
    assert f"suggestions taken: 2, into {out / 'corrections.csv'}" in done.out
    assert f"spectag train {manifest} -o MODEL --corrections {out / 'corrections.csv'}" in done.out
    assert {row.fname for row in read_corrections(out / "corrections.csv").rows} == {"04.wav", "11.wav"}
    again = run(*first, "--accept", 0.9, "--who", "Ada")
    assert again.status == 1
    assert "holds decisions already, and more are added on top of them; give it with --corrections" in again.err
    last = run(*first, "--corrections", out / "corrections.csv", "--accept", 0.9, "--who", "Ada", "--json")
    assert json.loads(last.out)["counts"]["no doubt"] == N_CLIPS
    assert len(read_corrections(out / "corrections.csv").rows) == 2
    assert manifest.read_bytes() == before


def test_accepting_elsewhere_takes_the_earlier_rows_along(run, tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 11: "middle"})
    append_corrections(tmp_path / "mine.csv", [Correction("Bo", NOON, "04.wav", ("low",), ("high",))])
    done = run(
        *("review", tagger.folder, manifest, "-o", tmp_path / "out", "--corrections", tmp_path / "mine.csv"),
        *("--accept", 0.9, "--who", "Ada", "--labels-only", "-j", 1),
    )
    assert done.status == 0
    rows = read_corrections(tmp_path / "out" / "corrections.csv").rows
    assert [(row.who, row.fname, row.after) for row in rows[:1]] == [("Bo", "04.wav", ("high",))]
    assert {(row.fname, row.after) for row in rows[1:]} == {("04.wav", ("middle",)), ("11.wav", ("high",))}
    assert len(read_corrections(tmp_path / "mine.csv").rows) == 1
    corrected = read_manifest(manifest, corrections=tmp_path / "out" / "corrections.csv")
    assert [clip.labels for clip in corrected.clips][4::7] == [("middle",), ("high",), ("low",)]


@pytest.mark.parametrize(
    "options", [("--accept", 0.9), ("--accept", 0.9, "-o", "out"), ("--accept", 0.9, "--who", "Ada")]
)
def test_accepting_needs_a_folder_and_a_name(run, options):
    done = run("review", "model", "clips.csv", *options)
    assert done.status == 2
    assert "--accept writes corrections.csv: give -o for its folder, and --who for your name" in done.err


# ------------------------------------------------------------------------------------------- what is written


def test_the_table_has_every_clip_in_the_order_of_doubt(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path, {4: "low"}), labels_only=True)
    write_review(tmp_path / "review.csv", found)
    with (tmp_path / "review.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] | {"probability": "", "score": "", "certainty": ""} == {
        "rank": "1",
        "kind": "swapped label",
        "fname": "04.wav",
        "start": "",
        "end": "",
        "labels": "low",
        "label": "low",
        "probability": "",
        "suggested": "middle",
        "score": "",
        "certainty": "",
        "note": "",
    }
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert len({row["fname"] for row in rows}) == N_CLIPS


def test_json_holds_all_findings(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path, {4: "low"}), "--json", "--labels-only", "-j", 1)
    told = json.loads(done.out)
    assert told["counts"]["swapped label"] == 1
    assert told["findings"][0]["fname"] == "04.wav"
    assert told["findings"][0]["suggested"] == ["middle"]
    assert len(told["findings"]) == N_CLIPS


def test_a_manifest_without_a_fault_says_so(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path), "--labels-only", "-j", 1)
    assert done.out == f"{tmp_path / 'clips.csv'}: 24 without a doubt\nnothing is in doubt\n"


def test_one_clip_is_reviewed_too(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path, {0: "high"}, n_clips=1), "-j", 1)
    assert done.status == 0
