"""Label review: wrong labels and audio issues are found, and corrections end the loop."""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from helpers.bundles import LABELS, make_bundle, tone
from helpers.command import run_without
from spectag.audio.files import write_audio
from spectag.curation import near_duplicates
from spectag.curation.label_review import accept_suggestions, review, write_review
from spectag.data.corrections import Correction, append_corrections, read_corrections
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.tagger import Tagger

N_CLIPS = 24
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def write_clips(folder, labels=None, n_clips=N_CLIPS, more=(), kinds=LABELS):
    """Sounds of alternating low, middle and high pitch, and a table of their labels; `labels` replaces some of them."""
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


def label_issues(found):
    return {
        finding.clip.fname: (finding.kind, finding.suggested)
        for finding in found.findings
        if finding.label and finding.kind != "no doubt"
    }


# ------------------------------------------------------------------------------------------- labels


def test_swapped_labels_rank_first_with_the_true_labels_suggested(tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 11: "middle"})
    found = review(tagger, manifest, labels_only=True)
    assert [finding.rank for finding in found.findings] == list(range(1, N_CLIPS + 1))
    assert label_issues(found) == {"04.wav": ("swapped label", ("middle",)), "11.wav": ("swapped label", ("high",))}
    assert {finding.clip.fname for finding in found.findings[:2]} == {"04.wav", "11.wav"}
    first = next(finding for finding in found.findings if finding.clip.fname == "04.wav")
    assert (first.label, first.label_probabilities[0][0]) == ("low", "middle")
    assert first.probability < 0.5
    assert min(first.score, first.certainty) > 0.9


def test_swapped_labels_are_no_missing_labels_where_other_clips_have_no_label(tmp_path, tagger):
    noise = np.random.default_rng(0).normal(0, 0.01, (4, 8_000)).astype(np.float32)
    more = [(f"noise {number}.wav", wave, "") for number, wave in enumerate(noise)]
    manifest = write_clips(tmp_path, {4: "low", 11: "middle", 3: ""}, more=more)
    truth = np.eye(3, dtype=bool)[np.arange(N_CLIPS) % 3]
    write_predictions(tagger, manifest, np.concatenate([truth, np.zeros((4, 3), bool)]))
    assert label_issues(review(tagger, manifest, labels_only=True)) == {
        "04.wav": ("swapped label", ("middle",)),
        "11.wav": ("swapped label", ("high",)),
        "03.wav": ("missing label", ("low",)),
    }


def test_missing_and_wrong_labels_of_multi_label_clips_are_distinguished(tmp_path, tagger):
    truth = (np.arange(N_CLIPS)[:, None] >> np.arange(3)) % 2 == 1  # all combinations of the three, none included
    labels = {row: ",".join(np.array(LABELS)[hot]) for row, hot in enumerate(truth)}
    assert (labels[5], labels[2], labels[0]) == ("low,high", "middle", "")
    manifest = write_clips(tmp_path, labels | {5: "low", 2: "middle,high", 8: "low"})
    write_predictions(tagger, manifest, truth)
    found = review(tagger, manifest, labels_only=True)
    assert label_issues(found) == {
        "05.wav": ("missing label", ("low", "high")),
        "02.wav": ("wrong label", ("middle",)),
        "08.wav": ("wrong label", ()),
    }
    assert {finding.clip.fname: finding.label for finding in found.findings[:3]} == {
        "05.wav": "high",
        "02.wav": "high",
        "08.wav": "low",
    }


def test_right_labels_give_no_findings(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path), labels_only=True)
    assert label_issues(found) == {}
    assert found.counts["no doubt"] == N_CLIPS
    assert all(set(finding.suggested) == set(finding.clip.labels) for finding in found.findings)


def test_label_that_the_model_does_not_know_is_logged_and_kept(tmp_path, tagger):
    lines = []
    found = review(tagger, write_clips(tmp_path, {4: "low,wind", 5: "high,wind"}), labels_only=True, log=lines.append)
    assert lines[0] == "the model does not know these labels, which are not checked: wind"
    assert label_issues(found)["04.wav"][1] == ("middle", "wind")
    assert "05.wav" not in label_issues(found)


def test_misspelt_label_is_an_error_with_a_suggestion(tmp_path, tagger):
    with pytest.raises(
        DataError, match=r"does not know the label 'middel'; did you mean 'middle'\? Correct the manifest"
    ):
        review(tagger, write_clips(tmp_path, {4: "middel"}))


def test_suggested_labels_are_labels_of_the_manifest(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path, dict.fromkeys(range(2, N_CLIPS, 3), "low")), labels_only=True)
    assert {label for finding in found.findings for label in finding.suggested} <= {"low", "middle"}


def test_model_and_manifest_without_a_common_label_are_an_error(tmp_path, tagger):
    manifest = write_clips(tmp_path, dict.fromkeys(range(N_CLIPS), "wind"))
    with pytest.raises(
        DataError, match=r"clips.csv: none of its 1 labels is one of the 3 labels of .*model, such as low"
    ):
        review(tagger, manifest)


def alternating(n_kinds=3):
    return np.arange(3) == (np.arange(N_CLIPS) % n_kinds)[:, None]


def write_predictions(tagger, manifest, truth, has_prediction=None):
    """Write the out-of-fold predictions of a training. Clips where `has_prediction` is false have none."""
    clips = read_manifest(manifest).clips
    has_prediction = np.ones(len(clips), bool) if has_prediction is None else has_prediction
    logits = np.where(truth, 4.0, -4.0) + np.random.default_rng(0).normal(0, 0.5, truth.shape)
    logits[~has_prediction] = np.nan
    given = np.array([[label in clip.labels for label in LABELS] for clip in clips])
    record = OutOfFoldPredictions(
        labels=LabelSet(LABELS),
        fnames=tuple(clip.fname for clip in clips),
        spans=((0.0, None),) * len(clips),
        folds=tuple(str(i % 4) if has_prediction[i] else "" for i in range(len(clips))),
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(str(clip_key(clip)) for clip in clips),
        y_true=given,
        logits=logits,
    )
    write_out_of_fold(tagger.folder / OUT_OF_FOLD_FILE, record)


def test_training_clips_are_checked_with_out_of_fold_predictions(tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low"})
    write_predictions(tagger, manifest, alternating())
    found = review(tagger, manifest, labels_only=True)
    assert found.origins == {"out_of_fold": N_CLIPS}
    assert label_issues(found) == {"04.wav": ("swapped label", ("middle",))}


@pytest.mark.parametrize(("called_high", "group"), [([4], None), ([4, 10], None), ([4, 10, 12], "yard")])
def test_labels_with_too_few_clips_are_not_checked(tmp_path, tagger, called_high, group):
    path = write_clips(tmp_path, dict.fromkeys(called_high, "high") | {5: "low"}, kinds=("low", "middle"))
    write_predictions(tagger, path, alternating(2))
    manifest = read_manifest(path)
    clips = tuple(replace(clip, group=group if clip.labels == ("high",) else None) for clip in manifest.clips)
    lines = []
    found = review(tagger, replace(manifest, clips=clips), labels_only=True, log=lines.append)
    assert label_issues(found) == {"05.wav": ("swapped label", ("middle",))}  # and none that is called high
    assert "not checked, because they have fewer than 3 clips or a single recording: high" in lines


def test_model_trained_on_the_clips_causes_a_warning_with_a_command(run, tmp_path, tagger):
    manifest = write_clips(tmp_path)
    write_predictions(tagger, manifest, alternating(), has_prediction=np.arange(N_CLIPS) > 4)
    done = run("review", tagger.folder, manifest, "--labels-only", "-o", tmp_path / "out", "-j", 1)
    assert "WARNING: 5 of the 24 clips are checked with a model that was trained on them" in done.err
    assert f"spectag train {manifest} -o MODEL --folds 5" in done.err.replace("\n", "")
    assert "WARNING" in (tmp_path / "out" / "review.html").read_text(encoding="utf-8")


def test_cleanlab_ranks_by_its_own_scores(tmp_path, tagger):
    cleanlab = pytest.importorskip("cleanlab.multilabel_classification")
    found = review(tagger, write_clips(tmp_path, {4: "low", 11: "middle"}), method="cleanlab", labels_only=True)
    assert {finding.clip.fname for finding in found.findings[:2]} == {"04.wav", "11.wav"}
    columns = {name: column for column, name in enumerate(LABELS)}
    given = [[columns[label] for label in finding.clip.labels] for finding in found.findings]
    by_label = [dict(finding.label_probabilities) for finding in found.findings]
    probabilities = np.array([[row[label] for label in LABELS] for row in by_label])
    expected = 1 - cleanlab.get_label_quality_scores(given, probabilities)
    np.testing.assert_allclose([finding.score for finding in found.findings], expected, atol=1e-5)


def test_missing_cleanlab_is_an_error_before_any_work(tmp_path, tagger):
    clips = tmp_path / "clips"
    (clips / "low").mkdir(parents=True)
    write_audio(clips / "low" / "a.wav", np.zeros(8000, np.float32), 8000)
    done = run_without({"cleanlab"}, "review", tagger.folder, clips, "--method", "cleanlab")
    assert done.status == 1
    assert "review by the method cleanlab needs the package cleanlab: pip install 'spectag[review]'" in done.err


# ------------------------------------------------------------------------------------------- audio issues


@pytest.fixture
def manifest_with_audio_issues(tmp_path):
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


def test_silent_clipped_and_duplicate_clips_are_listed_after_label_issues(tmp_path, tagger, manifest_with_audio_issues):
    found = review(tagger, manifest_with_audio_issues, workers=1)
    issues = {finding.clip.fname: (finding.kind, finding.note) for finding in found.findings if finding.label is None}
    assert issues["silent.wav"] == ("silent", "no sample reaches -60 dBFS")
    assert issues["clipped.wav"][0] == "clipped"
    assert "of the samples at full scale" in issues["clipped.wav"][1]
    assert issues["rain again.wav"] == ("near duplicate", "the same recording as rain.wav, which has middle")
    originals = {finding.clip.fname: finding.original.fname for finding in found.findings if finding.original}
    assert originals["rain again.wav"] == "rain.wav"
    assert found.predictions.clips == read_manifest(manifest_with_audio_issues).clips
    kinds = [finding.kind for finding in found.findings]
    assert kinds.index("silent") > max((i for i, kind in enumerate(kinds) if kind.endswith("label")), default=-1)
    assert kinds.index("no doubt") > kinds.index("clipped")
    assert len({finding.clip for finding in found.findings}) == len(found.findings) == N_CLIPS + 4


def test_counts_of_the_command_and_of_the_page_add_up_to_the_clips_that_can_be_read(run, tmp_path, tagger):
    clipped = np.sign(tone("low", 0.5)) * np.float32(1)
    manifest = write_clips(tmp_path, {4: "low"}, more=[("clipped.wav", clipped, "low")])
    (tmp_path / "broken.wav").touch()
    with manifest.open("a", encoding="utf-8") as file:
        file.write("broken.wav,low\n")
    done = run("review", tagger.folder, manifest, "-o", tmp_path / "review", "-j", 1)
    counts = done.out.splitlines()[0].removeprefix(f"{manifest}: ")
    assert sum(int(part.split()[0]) for part in counts.split(", ")) == N_CLIPS + 1
    page = " ".join((tmp_path / "review/review.html").read_text("utf-8").split())
    assert f"of {N_CLIPS + 1} clips may have wrong labels" in page
    assert "1 clip cannot be read" in page


def test_an_unknown_label_is_no_difference_between_near_duplicates(tagger, manifest_with_audio_issues):
    manifest = read_manifest(manifest_with_audio_issues)
    clips = [
        replace(clip, labels=(), unknown=("middle",)) if clip.fname == "rain again.wav" else clip
        for clip in manifest.clips
    ]
    found = review(tagger, replace(manifest, clips=tuple(clips)), workers=1)
    [note] = [finding.note for finding in found.findings if finding.clip.fname == "rain again.wav" and finding.note]
    assert note == "the same recording as rain.wav"


def test_duplicate_that_the_network_does_not_see_as_similar_is_found_by_its_fingerprint(
    tagger, manifest_with_audio_issues, monkeypatch
):
    def itself(queries, vectors, n):
        return np.arange(len(queries))[:, None], np.ones((len(queries), 1))

    monkeypatch.setattr(near_duplicates, "nearest_neighbors", itself)
    found = review(tagger, manifest_with_audio_issues, workers=1)
    notes = {finding.clip.fname: finding.note for finding in found.findings if finding.kind == "near duplicate"}
    assert notes["rain again.wav"] == "the same recording as rain.wav, which has middle"


def test_near_duplicates_in_two_folds_have_a_note(tmp_path, tagger, manifest_with_audio_issues):
    manifest = read_manifest(manifest_with_audio_issues)
    clips = tuple(replace(clip, fold=str(i % 2), labels=("low",)) for i, clip in enumerate(manifest.clips))
    found = review(tagger, replace(manifest, clips=clips), workers=1)
    notes = [finding.note for finding in found.findings if finding.kind == "near duplicate"]
    assert "the same recording as rain.wav; they are in two folds, 1 and 0" in notes


def test_unreadable_clip_is_reported_and_changes_the_exit_status(run, tmp_path, tagger):
    manifest = write_clips(tmp_path, more=[("empty.wav", tone("low", 0.1), "low")])
    (tmp_path / "empty.wav").write_bytes(b"")
    done = run("review", tagger.folder, manifest, "--labels-only", "-j", 1)
    assert done.status == 3
    assert "skipped: " in done.err
    assert "empty.wav: the file is empty (0 bytes)" in done.err


# ------------------------------------------------------------------------------------------- corrections


def test_confirmed_clips_are_left_out_and_corrected_clips_are_checked_again(tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 7: "high", 11: "middle"})
    append_corrections(
        tmp_path / "corrections.csv",
        [
            Correction("Ada", NOON, "04.wav", ("low",), ("low",), comment="it is"),
            Correction("Ada", NOON, "07.wav", ("high",), ("middle",)),
            Correction("Ada", NOON, "11.wav", ("middle",), ("low",)),
        ],
    )
    found = review(tagger, manifest, corrections=tmp_path / "corrections.csv", labels_only=True)
    assert label_issues(found) == {"11.wav": ("swapped label", ("high",))}
    assert "04.wav" not in {finding.clip.fname for finding in found.findings}
    assert (found.n_confirmed, len(found.findings)) == (1, N_CLIPS - 1)


def test_audio_issues_of_reviewed_clips_are_left_out(tmp_path, tagger, manifest_with_audio_issues):
    append_corrections(
        tmp_path / "corrections.csv",
        [
            Correction("Ada", NOON, "silent.wav", ("low",), ()),
            Correction("Ada", NOON, "clipped.wav", ("low",), ("low",)),
        ],
    )
    found = review(tagger, manifest_with_audio_issues, corrections=tmp_path / "corrections.csv", workers=1)
    assert {finding.kind for finding in found.findings if finding.label is None} <= {"near duplicate"}


def test_certain_suggestions_become_corrections(tmp_path, tagger):
    found = review(tagger, write_clips(tmp_path, {4: "low", 11: "middle"}), labels_only=True)
    rows = accept_suggestions(found, 0.9, reviewer="Ada", time=NOON)
    assert {(row.fname, row.old_labels, row.new_labels) for row in rows} == {
        ("04.wav", ("low",), ("middle",)),
        ("11.wav", ("middle",), ("high",)),
    }
    assert all(row.comment.startswith("accepted as suggested, certainty ") for row in rows)
    assert accept_suggestions(found, 1.0, reviewer="Ada", time=NOON) == []


def test_accepted_suggestions_end_the_review(run, tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 11: "middle"})
    before = manifest.read_bytes()
    out = tmp_path / "out"
    first = ("review", tagger.folder, manifest, "-o", out, "--labels-only", "-j", 1)
    done = run(*first, "--accept-above", 0.9, "--reviewer", "Ada")
    assert done.status == 0
    assert "2 swapped labels" in done.out
    assert "low → middle" in done.out
    assert f"2 suggestions accepted: {out / 'corrections.csv'}" in done.out
    assert f"spectag train {manifest} -o MODEL --corrections {out / 'corrections.csv'}" in done.out
    assert {row.fname for row in read_corrections(out / "corrections.csv").rows} == {"04.wav", "11.wav"}
    again = run(*first, "--accept-above", 0.9, "--reviewer", "Ada")
    assert again.status == 1
    assert "the file contains corrections, which have to be applied first; add --corrections" in again.err
    last = run(*first, "--corrections", out / "corrections.csv", "--accept-above", 0.9, "--reviewer", "Ada", "--json")
    assert json.loads(last.out)["counts"]["no doubt"] == N_CLIPS
    assert len(read_corrections(out / "corrections.csv").rows) == 2
    assert manifest.read_bytes() == before


def test_new_table_of_corrections_begins_with_the_given_corrections(run, tmp_path, tagger):
    manifest = write_clips(tmp_path, {4: "low", 11: "middle"})
    append_corrections(tmp_path / "mine.csv", [Correction("Bo", NOON, "04.wav", ("low",), ("high",))])
    done = run(
        *("review", tagger.folder, manifest, "-o", tmp_path / "out", "--corrections", tmp_path / "mine.csv"),
        *("--accept-above", 0.9, "--reviewer", "Ada", "--labels-only", "-j", 1),
    )
    assert done.status == 0
    rows = read_corrections(tmp_path / "out" / "corrections.csv").rows
    assert [(row.reviewer, row.fname, row.new_labels) for row in rows[:1]] == [("Bo", "04.wav", ("high",))]
    assert {(row.fname, row.new_labels) for row in rows[1:]} == {("04.wav", ("middle",)), ("11.wav", ("high",))}
    assert len(read_corrections(tmp_path / "mine.csv").rows) == 1
    corrected = read_manifest(manifest, corrections=tmp_path / "out" / "corrections.csv")
    assert [clip.labels for clip in corrected.clips][4::7] == [("middle",), ("high",), ("low",)]


@pytest.mark.parametrize(
    "options",
    [("--accept-above", 0.9), ("--accept-above", 0.9, "-o", "out"), ("--accept-above", 0.9, "--reviewer", "Ada")],
)
def test_accept_above_needs_an_output_folder_and_a_reviewer(run, options):
    done = run("review", "model", "clips.csv", *options)
    assert done.status == 2
    assert "--accept-above writes corrections.csv: add -o FOLDER and --reviewer NAME" in done.err


# ------------------------------------------------------------------------------------------- output


def test_table_lists_every_clip_in_descending_order_of_score(tmp_path, tagger):
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


def test_json_contains_all_findings(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path, {4: "low"}), "--json", "--labels-only", "-j", 1)
    result = json.loads(done.out)
    assert result["counts"]["swapped label"] == 1
    assert result["findings"][0]["fname"] == "04.wav"
    assert result["findings"][0]["suggested"] == ["middle"]
    assert len(result["findings"]) == N_CLIPS


def test_manifest_without_issues_prints_so(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path), "--labels-only", "-j", 1)
    assert done.out == f"{tmp_path / 'clips.csv'}: 24 without a doubt\nno issues found\n"


def test_nothing_is_to_be_decided_where_no_issue_is_found(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path), "--labels-only", "-o", tmp_path / "review", "-j", 1)
    assert done.out.endswith(f"no issues found\n\nall clips, ranked: {tmp_path / 'review' / 'review.csv'}\n")


def test_single_clip_can_be_reviewed(run, tmp_path, tagger):
    done = run("review", tagger.folder, write_clips(tmp_path, {0: "high"}, n_clips=1), "-j", 1)
    assert done.status == 0
