import dataclasses
import json
import math

import numpy as np
import pyarrow.parquet as parquet
import pytest

from helpers.bundles import make_bundle, make_info, tone
from helpers.command import python, run_without
from spectag.audio.files import write_audio
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import ConfigError, DataError
from spectag.evaluation.evaluation import evaluate
from spectag.evaluation.output import write_evaluation
from spectag.models.bundle import DataInfo
from spectag.models.out_of_fold import PREDICTIONS_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.pretrained import load
from spectag.scoring.scores import score

LABELS = ("high", "low", "middle")


def write_clips(folder, rows, columns="fname,labels"):
    """A manifest; each of its sounds is a tone of its first label, or of the lowest."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, row in enumerate(rows):
        name, label = row.replace('"', "").split(",")[:2]
        if not (folder / name).exists():
            write_audio(folder / name, tone(label if label in LABELS else "low", 0.2 + number / 1000), 16_000)
    (folder / "clips.csv").write_text("\n".join([columns, *rows]) + "\n", encoding="utf-8")
    return folder / "clips.csv"


def write_table(path, fnames, scores, labels=LABELS):
    lines = [",".join([fname, *map(str, row)]) for fname, row in zip(fnames, np.asarray(scores).tolist(), strict=True)]
    path.write_text("\n".join([",".join(["fname", *labels]), *lines]), encoding="utf-8")
    return path


def many_clips(folder, n_clips=60, columns="fname,labels", more=lambda number: ""):
    """Clips whose labels take turns, and their truth."""
    rows = [f"{number:02}.wav,{LABELS[number % 3]}{more(number)}" for number in range(n_clips)]
    return write_clips(folder, rows, columns), np.eye(3, dtype=bool)[np.arange(n_clips) % 3]


def guesses(y_true, skill, rng):
    return np.round(np.clip(rng.random(y_true.shape) * (1 - skill) + skill * y_true, 0, 1), 4)


def fnames(n_clips=60):
    return [f"{number:02}.wav" for number in range(n_clips)]


@pytest.fixture
def clips(tmp_path):
    return write_clips(
        tmp_path / "clips",
        [f"{label} {number}.wav,{label},{number % 3}" for number in range(4) for label in LABELS],
        "fname,labels,fold",
    )


@pytest.fixture
def tagger(tmp_path):
    return make_bundle(tmp_path / "model")


def test_a_tagger_that_hears_everything_has_the_best_of_all_scores(tagger, clips):
    evaluation = evaluate(tagger, clips)
    [judged] = evaluation.models
    assert judged.name == "model"
    for metric in ("lwlrap", "mean_average_precision", "roc_auc", "top1_accuracy"):
        assert dataclasses.astuple(judged.overall[metric]) == (1, 1, 1)
    assert judged.overall["d_prime"].value == math.inf
    assert judged.labels.names == ("low", "middle", "high"), "the tagger's order"
    assert judged.n_clips_per_label.tolist() == [4, 4, 4]
    assert evaluation.n_groups == 12
    assert judged.notes[0] == "model: 12 clips, all new to it"


def test_scores_of_a_table_are_those_of_spectag_scores_and_lie_in_their_intervals(tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    said = guesses(y_true, 0.3, rng)
    [judged] = evaluate(write_table(tmp_path / "p.csv", fnames(), said), manifest).models
    expected = score(y_true, said)
    for metric in ("lwlrap", "mean_average_precision", "roc_auc", "d_prime", "top1_accuracy"):
        estimate = judged.overall[metric]
        assert estimate.value == pytest.approx(getattr(expected, metric), abs=1e-6)
        assert estimate.low < estimate.value < estimate.high
    for label in range(3):
        assert judged.per_label["average_precision"][label].value == pytest.approx(
            expected.per_label.average_precision[label], abs=1e-6
        )
    precision = expected.per_label.average_precision
    assert judged.worst_labels == [LABELS[label] for label in np.argsort(precision)]


def test_f1_follows_the_thresholds_of_each_clip(tagger, clips):
    manifest = read_manifest(clips)
    [judged] = evaluate(tagger, manifest).models
    said = judged.predictions
    given = said.probabilities >= said.thresholds
    hits = (given & said.y_true).sum()
    assert judged.overall["precision_micro"].value == pytest.approx(hits / given.sum())
    assert judged.overall["recall_micro"].value == pytest.approx(hits / said.y_true.sum())
    assert judged.thresholds == pytest.approx([0.5, 0.4, 0.6])


def test_a_model_against_itself_differs_by_nothing(tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    table = write_table(tmp_path / "p.csv", fnames(), guesses(y_true, 0.3, rng))
    evaluation = evaluate(table, manifest, compare=[table])
    [comparison] = evaluation.comparisons
    assert [one.name for one in evaluation.models] == ["p.csv", "p.csv (2)"]
    for found in comparison.differences.values():
        assert dataclasses.astuple(found.difference) == (0, 0, 0)
        assert found.p_value == 1
    assert comparison.sentence.startswith("p.csv and p.csv (2) have the same lwlrap on every resample: lwlrap")


def test_a_clear_gain_is_told_whichever_comes_first(tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    good = write_table(tmp_path / "good.csv", fnames(), guesses(y_true, 0.5, rng))
    bad = write_table(tmp_path / "bad.csv", fnames(), guesses(y_true, 0.1, rng))
    gain = evaluate(good, manifest, compare=[bad]).comparisons[0]
    loss = evaluate(bad, manifest, compare=[good]).comparisons[0]
    found = gain.differences["lwlrap"]
    assert found.difference.value == pytest.approx(found.first - found.other)
    assert 0 < found.difference.low < found.difference.value < found.difference.high
    assert found.p_value < 0.01
    assert loss.differences["lwlrap"].difference.value == pytest.approx(-found.difference.value)
    assert loss.differences["lwlrap"].p_value == found.p_value
    for comparison in (gain, loss):
        assert comparison.sentence.startswith("good.csv is better than bad.csv: lwlrap")
        assert "on the same 60 clips and 3 labels" in comparison.sentence


def test_a_gain_that_may_be_chance_is_called_so(tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    tables = [write_table(tmp_path / f"{name}.csv", fnames(), guesses(y_true, 0.3, rng)) for name in "ab"]
    [comparison] = evaluate(tables[0], manifest, compare=[tables[1]]).comparisons
    assert comparison.differences["lwlrap"].p_value > 0.05
    assert comparison.sentence.startswith("No real difference between a.csv and b.csv is seen")
    assert comparison.sentence.endswith("It may be chance.")


def test_models_are_compared_on_the_clips_and_labels_that_both_have(tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    first = write_table(tmp_path / "first.csv", fnames(), guesses(y_true, 0.3, rng))
    said = guesses(y_true, 0.3, rng)[:40, [1, 0]]
    other = write_table(tmp_path / "other.csv", fnames()[:40], said, ("low", "high"))
    evaluation = evaluate(first, manifest, compare=[other])
    [comparison] = evaluation.comparisons
    assert (comparison.n_clips, comparison.labels, comparison.n_labels_left_out) == (40, ("high", "low"), 1)
    expected = score(y_true[:40, [1, 0]], said).lwlrap
    assert comparison.differences["lwlrap"].other == pytest.approx(expected, abs=1e-6)
    assert "other.csv is judged by 2 of the 3 labels: those that it knows, such as low" in evaluation.models[1].notes
    assert len(evaluation.models[1].skipped) == 20


def test_models_without_a_clip_in_common_are_not_compared(tmp_path):
    manifest, y_true = many_clips(tmp_path, n_clips=6)
    first = write_table(tmp_path / "first.csv", fnames()[:3], y_true[:3].astype(int))
    other = write_table(tmp_path / "other.csv", fnames()[3:6], y_true[3:].astype(int))
    with pytest.raises(DataError, match=r"first.csv and other.csv can't be compared: there is no clip by which both"):
        evaluate(first, manifest, compare=[other])


def test_labels_that_the_tagger_does_not_know_are_refused_or_left_out(tagger, tmp_path):
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,high", 'c.wav,"middle,lwo"'])
    with pytest.raises(DataError, match=r"clips.csv: model does not know 1 of its 4 labels: lwo; did you mean 'low'\?"):
        evaluate(tagger, manifest)
    [judged] = evaluate(tagger, manifest, common_labels=True).models
    assert judged.labels.names == ("low", "middle", "high")
    assert "model is judged by 3 of the 4 labels: those that it knows, such as low" in judged.notes


def test_a_published_tagger_is_judged_by_the_labels_in_common(tmp_path):
    data = DataInfo(name="AudioSet", n_clips=None, n_clips_per_label=None, fingerprint=None)
    published = make_bundle(tmp_path / "published", make_info(data=data))
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,high", "c.wav,Bark"])
    assert evaluate(published, manifest).models[0].labels.names == ("low", "high")
    strange = write_clips(tmp_path / "strange", ["a.wav,Bark"])
    with pytest.raises(DataError, match="published knows none of its 1 labels, which are Bark"):
        evaluate(published, strange)


def trained_on(tagger, manifest, *, n_held_out, says):
    """Give a tagger the table of its training clips, some of which were held out."""
    clips = read_manifest(manifest).clips
    labels = load(tagger).labels
    names = np.array(labels.names)
    y_true = np.array([[name in clip.labels for name in names] for clip in clips])
    logits = np.where(y_true == says, 3.0, -3.0) + np.arange(len(clips))[:, None] / 100
    logits[n_held_out:] = np.nan
    folds = tuple(str(number % 3) if number < n_held_out else "" for number in range(len(clips)))
    held_out = OutOfFoldPredictions(
        labels=LabelSet(labels.names),
        fnames=tuple(clip.fname for clip in clips),
        stretches=((0.0, None),) * len(clips),
        folds=folds,
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(str(clip_key(clip)) for clip in clips),
        y_true=y_true,
        logits=logits,
    )
    write_out_of_fold(tagger / PREDICTIONS_FILE, held_out)


def test_clips_learnt_from_are_judged_held_out_or_left_out(tagger, clips):
    trained_on(tagger, clips, n_held_out=9, says=False)
    [judged] = evaluate(tagger, clips).models
    assert judged.n_by_origin == {"held out": 9, "learnt": 3}
    assert judged.n_left_out == 3
    assert len(judged.predictions.clips) == 9
    assert judged.overall["lwlrap"].value < 0.5, "the networks that did not see the clips were wrong"
    assert judged.notes == (
        "model: 9 clips, all judged by networks that were trained without them; 3 that it learnt from are left out, "
        "for they flatter it",
    )


def test_where_all_was_learnt_from_it_is_scored_with_a_warning(tagger, clips):
    trained_on(tagger, clips, n_held_out=0, says=True)
    [judged] = evaluate(tagger, clips).models
    assert judged.overall["lwlrap"].value == 1
    assert judged.n_left_out == 0
    assert judged.notes[0].startswith("WARNING: model learnt from all 12 clips, so these scores flatter it")


def test_a_tagger_without_its_training_clips_says_that_it_cannot_tell(tagger, clips):
    [judged] = evaluate(tagger, clips).models
    assert "it can't be told whether it learnt from these clips" in judged.notes[1]


def found(evaluation):
    return {(one.by, one.value): one.n_clips for one in evaluation.slices}


def test_slices_by_all_that_is_known_of_the_clips(tmp_path, rng):
    rows = []
    for number, site in enumerate(["Süd", "Nord", "Nord"] * 20):
        labels = f'"{LABELS[number % 3]}{",low" * (number % 3 == 0)}"'
        rows.append(f"{'ab'[number % 2]}/{number:02}.wav,{labels},{number % 3},{site},{number}")
    for row in rows:
        name = row.split(",")[0]
        write_audio(tmp_path / name, np.zeros(round(16_000 * 0.1 * (1 + int(name[2:4]) % 3))), 16_000)
    manifest = write_clips(tmp_path, rows, "fname,labels,fold,site,id")
    table = write_table(tmp_path / "p.csv", [row.split(",")[0] for row in rows], rng.random((60, 3)))
    evaluation = evaluate(table, manifest, by=["ID"])
    assert found(evaluation) == {
        ("duration", "up to 0.1 s"): 20,
        ("duration", "0.1 to 0.2 s"): 20,
        ("duration", "over 0.2 s"): 20,
        ("number of labels", "1 label"): 40,
        ("number of labels", "2 labels"): 20,
        ("fold", "0"): 20,
        ("fold", "1"): 20,
        ("fold", "2"): 20,
        ("folder", "a"): 30,
        ("folder", "b"): 30,
        ("site", "Nord"): 40,
        ("site", "Süd"): 20,
        ("ID", "up to 15"): 16,
        ("ID", "15 to 30"): 15,
        ("ID", "30 to 44"): 14,
        ("ID", "over 44"): 15,
    }
    south = next(one for one in evaluation.slices if one.value == "Süd")
    rows_of_south = np.arange(60) % 3 == 0
    judged = evaluation.models[0].predictions
    expected = score(judged.y_true[rows_of_south], judged.probabilities[rows_of_south])
    assert south.overall["lwlrap"].value == pytest.approx(expected.lwlrap)
    assert south.overall["lwlrap"].low < expected.lwlrap < south.overall["lwlrap"].high


def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path):
    manifest, y_true = many_clips(
        tmp_path, n_clips=3, columns="fname,labels,recordist", more=lambda number: f",p{number}"
    )
    table = write_table(tmp_path / "p.csv", fnames(3), y_true.astype(int))
    with pytest.raises(DataError, match=r"no column 'recorder' to slice by; did you mean 'recordist'\?"):
        evaluate(table, manifest, by=["recorder"])


def test_folders_that_are_the_labels_are_no_slices(tagger, tmp_path):
    for label in LABELS:
        (tmp_path / "sounds" / label).mkdir(parents=True)
        write_audio(tmp_path / "sounds" / label / "a.wav", tone(label, 0.2), 16_000)
    assert not [one for one in evaluate(tagger, tmp_path / "sounds").slices if one.by == "folder"]


def test_clips_of_one_recording_have_scores_without_intervals(tagger, tmp_path):
    manifest = write_clips(tmp_path, ["a.wav,low,x", "b.wav,high,x"], "fname,labels,group")
    evaluation = evaluate(tagger, manifest)
    assert evaluation.n_groups == 1
    assert evaluation.models[0].overall["lwlrap"].value == 1
    assert math.isnan(evaluation.models[0].overall["lwlrap"].low)


def test_intervals_depend_on_the_seed_alone(tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    table = write_table(tmp_path / "p.csv", fnames(), guesses(y_true, 0.3, rng))
    first, again, other = (evaluate(table, manifest, seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again
    assert first["overall"]["roc_auc"]["value"] == other["overall"]["roc_auc"]["value"]
    assert first["overall"]["roc_auc"] != other["overall"]["roc_auc"]


def test_a_confidence_that_is_none_is_refused(tagger, clips):
    with pytest.raises(ConfigError, match=r"a confidence between 0 and 1, got 1000 and 95"):
        evaluate(tagger, clips, confidence=95)


def test_the_files_hold_what_was_found(tagger, clips, tmp_path):
    evaluation = evaluate(tagger, clips)
    write_evaluation(evaluation, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"metrics.json", "per_label.csv", "slices.csv", "predictions.parquet"}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == evaluation.to_dict()
    assert metrics["overall"]["lwlrap"] == {"value": 1, "low": 1, "high": 1}
    assert metrics["overall"]["d_prime"]["value"] is None, "JSON knows no infinity"
    assert metrics["per_label"]["middle"]["threshold"] == pytest.approx(0.4)
    assert metrics["per_label"]["middle"]["n_clips"] == 4
    assert (metrics["confidence"], metrics["n_resamples"], metrics["seed"]) == (0.95, 1000, 0)
    assert metrics["manifest"]["name"] == "clips.csv"
    assert not metrics["calibration"]["is_calibrated"]
    header, *rows = (tmp_path / "out" / "per_label.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("label,n_clips,lwlrap,lwlrap_low,lwlrap_high,average_precision,")
    assert header.endswith(",threshold,ece")
    assert [row.split(",")[:5] for row in rows] == [[label, "4", "1", "1", "1"] for label in ("low", "middle", "high")]
    table = parquet.read_table(tmp_path / "out" / "predictions.parquet")
    assert table.column_names[:7] == ["fname", "start", "end", "fold", "origin", "labels", "duration"]
    assert table.column("labels").to_pylist()[0] == ["high"]
    first = table.column("fname").to_pylist()[0]
    expected = load(tagger).tag(clips.parent / first).probabilities
    assert [table.column(label)[0].as_py() for label in ("low", "middle", "high")] == pytest.approx(expected.tolist())


def test_the_parquet_that_was_written_can_be_evaluated_in_turn(tagger, clips, tmp_path):
    first = evaluate(tagger, clips)
    write_evaluation(first, tmp_path / "out")
    again = evaluate(tmp_path / "out" / "predictions.parquet", clips)
    assert again.models[0].overall["lwlrap"] == first.models[0].overall["lwlrap"]
    assert again.models[0].labels == first.models[0].labels


def test_the_fingerprint_changes_with_a_label_and_not_with_the_order(tmp_path):
    def fingerprint(rows):
        manifest = write_clips(tmp_path, rows)
        table = write_table(tmp_path / "p.csv", ["a.wav", "b.wav"], np.eye(3)[:2])
        return evaluate(table, manifest).to_dict()["manifest"]["fingerprint"]

    usual = fingerprint(["a.wav,low", "b.wav,high"])
    assert fingerprint(["b.wav,high", "a.wav,low"]) == usual
    assert fingerprint(["a.wav,low", "b.wav,low"]) != usual


def test_two_tables_of_one_name_are_told_apart(tmp_path):
    manifest, y_true = many_clips(tmp_path / "clips", n_clips=6)
    tables = []
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
        tables.append(write_table(tmp_path / folder / "p.csv", fnames(6), y_true.astype(int)))
    evaluation = evaluate(tables[0], manifest, compare=[tables[1]])
    assert [one.name for one in evaluation.models] == ["new/p.csv", "old/p.csv"]


def test_the_command_prints_scores_worst_labels_and_what_they_stand_on(run, tagger, clips):
    done = run("evaluate", tagger, clips, "--resamples", 50, "--by", "fold")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["score", "model", "95%", "interval"]
    assert lines[1].split() == ["lwlrap", "1.0000", "1.0000", "to", "1.0000"]
    assert "model: 12 clips, all new to it" in lines
    assert "95% intervals: 50 resamples of 12 recordings" in lines
    assert any(line.startswith("worst labels") for line in lines)
    assert any(line.startswith("fold: 0") for line in lines)


def test_the_command_writes_the_files_and_names_what_was_skipped(run, tagger, tmp_path):
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,high", "c.wav,middle"])
    (tmp_path / "clips" / "c.wav").write_bytes(b"")
    done = run("evaluate", tagger, manifest, "-o", tmp_path / "out", "--no-report", "--json")
    assert done.status == 3
    assert "skipped: " in done.err
    assert "c.wav" in done.err
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(done.out)["skipped"][0]["fname"] == "c.wav"
    assert not (tmp_path / "out" / "report.html").exists()


def test_the_command_tells_whether_a_gain_is_real(run, tmp_path, rng):
    manifest, y_true = many_clips(tmp_path)
    good = write_table(tmp_path / "good.csv", fnames(), guesses(y_true, 0.5, rng))
    bad = write_table(tmp_path / "bad.csv", fnames(), guesses(y_true, 0.1, rng))
    done = run("evaluate", good, manifest, "--compare", bad, "-o", tmp_path / "out", "--no-report")
    assert "good.csv is better than bad.csv" in done.out
    header, first, *_ = (tmp_path / "out" / "comparisons.csv").read_text(encoding="utf-8").splitlines()
    expected = "first,other,n_clips,n_labels,metric,of_first,of_other,difference,difference_low,difference_high,p_value"
    assert header == expected
    assert first.startswith("good.csv,bad.csv,60,3,lwlrap,")


def test_a_slip_is_told_before_anything_is_tagged(run, tagger, clips):
    done = run("evaluate", tagger, clips, "--by", "flod")
    assert (done.status, done.err) == (
        1,
        f"spectag: {clips}: no column 'flod' to slice by; did you mean 'fold'? It has fold, folder\n",
    )
    done = run("evaluate", tagger, clips, "-o", clips)
    assert (done.status, done.err) == (1, f"spectag: -o {clips}: this is a file; give a folder\n")
    done = run("evaluate", tagger, clips, "-o", tagger)
    assert done.err == f"spectag: -o {tagger}: is a tagger's folder, which holds nothing else; give another\n"
    (clips.parent / "said.xlsx").write_bytes(b"PK")
    done = run("evaluate", clips.parent / "said.xlsx", clips)
    assert "said.xlsx: a spreadsheet program's own file; save the table as CSV" in done.err


def test_the_report_lies_beside_the_files(run, tagger, clips, tmp_path):
    done = run("evaluate", tagger, clips, "-o", tmp_path / "out", "--resamples", 20)
    assert done.status == 0
    assert "<html" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    run("evaluate", tagger, clips, "-o", tmp_path / "out", "--resamples", 20, "--no-report")
    assert not (tmp_path / "out" / "report.html").exists()  # it would tell of another evaluation


def test_without_pyarrow_the_extra_is_named_and_scores_are_printed_all_the_same(tagger, clips, tmp_path):
    done = run_without({"pyarrow"}, "evaluate", tagger, clips, "-o", tmp_path / "out")
    assert (done.status, done.err.split(": ", 1)[1]) == (
        1,
        "writing predictions.parquet needs the package pyarrow: pip install 'spectag[evaluate]'\n",
    )
    assert run_without({"pyarrow"}, "evaluate", tagger, clips, "--resamples", "9").status == 0


def test_evaluation_loads_nothing_that_learns_or_draws():
    done = python("""
import sys, spectag.evaluation
assert not {"torch", "matplotlib", "pyarrow"} & set(sys.modules)
""")
    assert done.status == 0, done.err
