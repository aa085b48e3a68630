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
from spectag.models.out_of_fold import OUT_OF_FOLD_FILE, OutOfFoldPredictions, write_out_of_fold
from spectag.models.pretrained import load
from spectag.models.training_sounds import Spread, TrainingSounds
from spectag.scoring.metrics import lwlrap
from spectag.scoring.scores import score_predictions

LABELS = ("high", "low", "middle")


def write_clips(folder, rows, columns="fname,labels"):
    """A manifest; each sound is a tone of its first label, or of the lowest label."""
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


def make_manifest(folder, n_clips=60, columns="fname,labels", extra=lambda number: ""):
    """A manifest with one label per clip, and the truth."""
    rows = [f"{number:02}.wav,{LABELS[number % 3]}{extra(number)}" for number in range(n_clips)]
    return write_clips(folder, rows, columns), np.eye(3, dtype=bool)[np.arange(n_clips) % 3]


def make_scores(y_true, skill, rng):
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


def test_perfect_tagger_has_perfect_scores(tagger, clips):
    evaluation = evaluate(tagger, clips)
    [model] = evaluation.models
    assert model.name == "model"
    for metric in ("lwlrap", "roc_auc", "top1_accuracy"):
        perfect = pytest.approx((1, 0.7575, 1), abs=1e-4)  # Wilson's interval for 12 of 12
        assert dataclasses.astuple(model.overall[metric]) == perfect
    assert model.overall["mean_average_precision"].value == 1
    assert model.overall["d_prime"].value == math.inf
    assert model.labels.names == ("low", "middle", "high"), "the order of the tagger"
    assert model.n_clips_per_label.tolist() == [4, 4, 4]
    assert evaluation.n_groups == 12
    assert model.notes[0] == "model: 12 clips, all not used in training"


def test_scores_of_a_table_lie_in_their_intervals(tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    probabilities = make_scores(y_true, 0.3, rng)
    [model] = evaluate(write_table(tmp_path / "p.csv", fnames(), probabilities), manifest).models
    expected = score_predictions(y_true, probabilities, fnames())
    for metric in ("lwlrap", "mean_average_precision", "roc_auc", "d_prime", "top1_accuracy"):
        estimate = model.overall[metric]
        assert estimate.value == pytest.approx(expected.overall[metric].value, abs=1e-6)
        assert estimate.low < estimate.value < estimate.high
    precision = [estimate.value for estimate in expected.per_label["average_precision"]]
    for label in range(3):
        assert model.per_label["average_precision"][label].value == pytest.approx(precision[label], abs=1e-6)
    assert model.worst_labels == [LABELS[label] for label in np.argsort(precision)]


def test_precision_and_recall_use_the_thresholds_of_each_clip(tagger, clips):
    manifest = read_manifest(clips)
    [model] = evaluate(tagger, manifest).models
    predictions = model.predictions
    hits = (predictions.detected & predictions.y_true).sum()
    assert model.overall["precision_micro"].value == pytest.approx(hits / predictions.detected.sum())
    assert model.overall["recall_micro"].value == pytest.approx(hits / predictions.y_true.sum())
    assert model.thresholds == pytest.approx([0.5, 0.4, 0.6])


def test_model_does_not_differ_from_itself(tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    table = write_table(tmp_path / "p.csv", fnames(), make_scores(y_true, 0.3, rng))
    evaluation = evaluate(table, manifest, compare=[table])
    [comparison] = evaluation.comparisons
    assert [model.name for model in evaluation.models] == ["p.csv", "p.csv (2)"]
    for result in comparison.differences.values():
        assert result.difference.value == 0
        if not math.isnan(result.difference.low):
            assert result.difference.low < 0 < result.difference.high, "they may differ on other clips"
            assert result.p_value == 1
    assert comparison.sentence.startswith("p.csv and p.csv (2) have the same lwlrap: lwlrap")


def test_clear_gain_is_reported_in_either_order(tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    good = write_table(tmp_path / "good.csv", fnames(), make_scores(y_true, 0.5, rng))
    bad = write_table(tmp_path / "bad.csv", fnames(), make_scores(y_true, 0.1, rng))
    gain = evaluate(good, manifest, compare=[bad]).comparisons[0]
    loss = evaluate(bad, manifest, compare=[good]).comparisons[0]
    result = gain.differences["lwlrap"]
    assert result.difference.value == pytest.approx(result.first - result.other)
    assert 0 < result.difference.low < result.difference.value < result.difference.high
    assert result.p_value < 0.01
    assert loss.differences["lwlrap"].difference.value == pytest.approx(-result.difference.value)
    assert loss.differences["lwlrap"].p_value == result.p_value
    for comparison in (gain, loss):
        assert comparison.sentence.startswith("good.csv is better than bad.csv: lwlrap")
        assert "on the same 60 clips and 3 labels" in comparison.sentence


def test_gain_that_may_be_chance_is_not_called_clear(tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    tables = [write_table(tmp_path / f"{name}.csv", fnames(), make_scores(y_true, 0.3, rng)) for name in "ab"]
    [comparison] = evaluate(tables[0], manifest, compare=[tables[1]]).comparisons
    assert comparison.differences["lwlrap"].p_value > 0.05
    assert comparison.sentence.startswith("No clear difference between a.csv and b.csv: ")
    assert comparison.sentence.endswith("It may be due to chance.")


def test_models_are_compared_on_common_clips_and_labels(tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    first = write_table(tmp_path / "first.csv", fnames(), make_scores(y_true, 0.3, rng))
    probabilities = make_scores(y_true, 0.3, rng)[:40, [1, 0]]
    other = write_table(tmp_path / "other.csv", fnames()[:40], probabilities, ("low", "high"))
    evaluation = evaluate(first, manifest, compare=[other])
    [comparison] = evaluation.comparisons
    assert (comparison.n_clips, comparison.labels, comparison.n_labels_left_out) == (40, ("high", "low"), 1)
    expected = lwlrap(y_true[:40, [1, 0]], probabilities)
    assert comparison.differences["lwlrap"].other == pytest.approx(expected, abs=1e-6)
    assert "other.csv is scored on 2 of the 3 labels: those that it knows, such as low" in evaluation.models[1].notes
    assert len(evaluation.models[1].skipped) == 20


def test_models_without_a_common_clip_cannot_be_compared(tmp_path):
    manifest, y_true = make_manifest(tmp_path, n_clips=6)
    first = write_table(tmp_path / "first.csv", fnames()[:3], y_true[:3].astype(int))
    other = write_table(tmp_path / "other.csv", fnames()[3:6], y_true[3:].astype(int))
    with pytest.raises(
        DataError, match=r"cannot compare first.csv and other.csv: they are not scored on a common clip"
    ):
        evaluate(first, manifest, compare=[other])


def test_unknown_labels_are_reported_before_anything_is_tagged(tagger, tmp_path):
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,lwo"])
    for sound in manifest.parent.glob("*.wav"):
        sound.write_bytes(b"damaged")  # tagging would fail with another error
    with pytest.raises(DataError, match="does not know 1 of the 2 labels: lwo"):
        evaluate(tagger, manifest)


def test_unknown_labels_are_an_error_or_left_out(tagger, tmp_path):
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,high", 'c.wav,"middle,lwo"'])
    with pytest.raises(DataError, match=r"clips.csv: model does not know 1 of the 4 labels: lwo; did you mean 'low'\?"):
        evaluate(tagger, manifest)
    [model] = evaluate(tagger, manifest, common_labels=True).models
    assert model.labels.names == ("low", "middle", "high")
    assert "model is scored on 3 of the 4 labels: those that it knows, such as low" in model.notes


def test_published_tagger_is_scored_on_common_labels(tmp_path):
    data = DataInfo(name="AudioSet", n_clips=None, n_clips_per_label=None, fingerprint=None)
    published = make_bundle(tmp_path / "published", make_info(data=data))
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,high", "c.wav,Bark"])
    assert evaluate(published, manifest).models[0].labels.names == ("low", "high")
    unknown = write_clips(tmp_path / "unknown", ["a.wav,Bark"])
    with pytest.raises(DataError, match=r"published knows none of the 1 labels \(Bark\)"):
        evaluate(published, unknown)


def store_training_clips(tagger, manifest, *, n_held_out, is_right):
    """Write the table of training clips, with out-of-fold predictions for some of them."""
    clips = read_manifest(manifest).clips
    labels = load(tagger).labels
    names = np.array(labels.names)
    y_true = np.array([[name in clip.labels for name in names] for clip in clips])
    logits = np.where(y_true == is_right, 3.0, -3.0) + np.arange(len(clips))[:, None] / 100
    logits[n_held_out:] = np.nan
    folds = tuple(str(number % 3) if number < n_held_out else "" for number in range(len(clips)))
    held_out = OutOfFoldPredictions(
        labels=LabelSet(labels.names),
        fnames=tuple(clip.fname for clip in clips),
        spans=((0.0, None),) * len(clips),
        folds=folds,
        groups=tuple(clip.fname for clip in clips),
        keys=tuple(str(clip_key(clip)) for clip in clips),
        y_true=y_true,
        logits=logits,
    )
    write_out_of_fold(tagger / OUT_OF_FOLD_FILE, held_out)


def test_training_clips_are_scored_out_of_fold_or_left_out(tagger, clips):
    store_training_clips(tagger, clips, n_held_out=9, is_right=False)
    [model] = evaluate(tagger, clips).models
    assert model.n_by_origin == {"out_of_fold": 9, "train": 3}
    assert model.n_left_out == 3
    assert len(model.predictions.clips) == 9
    assert model.overall["lwlrap"].value < 0.5, "the out-of-fold predictions are wrong"
    assert model.notes[0] == (
        "model: 9 clips, all scored with out-of-fold predictions; 3 training clips without out-of-fold predictions are "
        "left out"
    )


def test_training_clips_alone_are_scored_with_a_warning(tagger, clips):
    store_training_clips(tagger, clips, n_held_out=0, is_right=True)
    [model] = evaluate(tagger, clips).models
    assert model.overall["lwlrap"].value == 1
    assert model.n_left_out == 0
    assert model.notes[0].startswith("WARNING: model was trained on all 12 clips, so these scores are too optimistic")


def test_tagger_without_stored_training_clips_gets_a_note(tagger, clips):
    [model] = evaluate(tagger, clips).models
    assert "it is unknown whether it was trained on these clips" in model.notes[1]


def test_evaluation_says_that_its_scores_hold_for_whole_clips(tagger, clips, tmp_path):
    [model] = evaluate(tagger, clips).models
    assert model.notes[-1] == "the scores hold for whole clips, as from spectag tag --clip-level mean"
    spread = Spread(low=0.1, median=0.1, high=0.1)
    sounds = TrainingSounds(n_clips=9, level_dbfs=spread, bandwidth_hz=spread, duration_seconds=spread)
    [model] = evaluate(make_bundle(tmp_path / "short", make_info(training_sounds=sounds)), clips).models
    n_long = sum(duration > 0.2 for duration in model.predictions.durations)
    assert 0 < n_long < 12
    assert f"spectag tag reports the {n_long} longer than 0.2 s in segments instead" in model.notes[-1]


def slice_sizes(evaluation):
    return {(slice_.by, slice_.value): slice_.n_clips for slice_ in evaluation.slices}


def test_clips_of_practically_the_same_length_are_not_sliced_by_duration(tmp_path, rng):
    names = [f"{number:02}.wav" for number in range(12)]
    for name, n_samples in zip(names, [7936, *[8000] * 10, 8016], strict=True):  # 0.496 to 0.501 s
        write_audio(tmp_path / name, np.zeros(n_samples), 16_000)
    manifest = write_clips(tmp_path, [f"{name},{LABELS[number % 3]}" for number, name in enumerate(names)])
    table = write_table(tmp_path / "p.csv", names, rng.random((12, 3)))
    assert "duration" not in {name for name, _ in slice_sizes(evaluate(table, manifest))}


def test_clips_are_sliced_by_all_their_properties(tmp_path, rng):
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
    assert slice_sizes(evaluation) == {
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
    south = next(slice_ for slice_ in evaluation.slices if slice_.value == "Süd")
    in_south = np.arange(60) % 3 == 0
    predictions = evaluation.models[0].predictions
    expected = lwlrap(predictions.y_true[in_south], predictions.probabilities[in_south])
    assert south.overall["lwlrap"].value == pytest.approx(expected)
    assert south.overall["lwlrap"].low < expected < south.overall["lwlrap"].high


def test_unknown_column_is_an_error_that_suggests_the_closest(tmp_path):
    manifest, y_true = make_manifest(
        tmp_path, n_clips=3, columns="fname,labels,recordist", extra=lambda number: f",p{number}"
    )
    table = write_table(tmp_path / "p.csv", fnames(3), y_true.astype(int))
    with pytest.raises(DataError, match=r"no column 'recorder' to slice by; did you mean 'recordist'\?"):
        evaluate(table, manifest, by=["recorder"])


def test_folders_that_equal_the_labels_are_not_slices(tagger, tmp_path):
    for label in LABELS:
        (tmp_path / "sounds" / label).mkdir(parents=True)
        write_audio(tmp_path / "sounds" / label / "a.wav", tone(label, 0.2), 16_000)
    assert not [slice_ for slice_ in evaluate(tagger, tmp_path / "sounds").slices if slice_.by == "folder"]


def test_clips_of_a_single_recording_have_scores_without_intervals(tagger, tmp_path):
    manifest = write_clips(tmp_path, ["a.wav,low,x", "b.wav,high,x"], "fname,labels,group")
    evaluation = evaluate(tagger, manifest)
    assert evaluation.n_groups == 1
    assert evaluation.models[0].overall["lwlrap"].value == 1
    assert math.isnan(evaluation.models[0].overall["lwlrap"].low)


def test_intervals_depend_only_on_the_seed(tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    table = write_table(tmp_path / "p.csv", fnames(), make_scores(y_true, 0.3, rng))
    first, again, other = (evaluate(table, manifest, seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again
    assert first["overall"]["roc_auc"]["value"] == other["overall"]["roc_auc"]["value"]
    assert first["overall"]["roc_auc"] != other["overall"]["roc_auc"]


def test_invalid_confidence_is_refused(tagger, clips):
    with pytest.raises(ConfigError, match=r"a confidence between 0 and 1, got 1000 and 95"):
        evaluate(tagger, clips, confidence=95)


def test_files_contain_the_results(tagger, clips, tmp_path):
    evaluation = evaluate(tagger, clips)
    write_evaluation(evaluation, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"metrics.json", "per_label.csv", "slices.csv", "predictions.parquet"}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics == evaluation.to_dict()
    assert metrics["overall"]["lwlrap"] == {"value": 1, "low": pytest.approx(0.7575, abs=1e-4), "high": 1}
    assert metrics["overall"]["d_prime"]["value"] is None, "JSON has no infinity"
    assert metrics["per_label"]["middle"]["threshold"] == pytest.approx(0.4)
    assert metrics["per_label"]["middle"]["n_clips"] == 4
    assert (metrics["confidence"], metrics["n_resamples"], metrics["seed"]) == (0.95, 1000, 0)
    assert metrics["manifest"]["name"] == "clips.csv"
    assert not metrics["calibration"]["is_calibrated"]
    header, *rows = (tmp_path / "out" / "per_label.csv").read_text(encoding="utf-8").splitlines()
    assert header.startswith("label,n_clips,lwlrap,lwlrap_low,lwlrap_high,average_precision,")
    assert header.endswith(",threshold,ece")
    assert [row.split(",")[:5] for row in rows] == [
        [label, "4", "1", "0.510109", "1"] for label in ("low", "middle", "high")
    ]
    table = parquet.read_table(tmp_path / "out" / "predictions.parquet")
    assert table.column_names[:8] == [
        *("fname", "start", "end", "fold", "origin", "labels", "unknown_labels", "duration"),
    ]
    assert table.column("labels").to_pylist()[0] == ["high"]
    first = table.column("fname").to_pylist()[0]
    expected = load(tagger).tag(clips.parent / first).probabilities
    assert [table.column(label)[0].as_py() for label in ("low", "middle", "high")] == pytest.approx(expected.tolist())


def test_parquet_tells_unknown_labels_from_false_ones(tagger, clips, tmp_path):
    header, first, *others = clips.read_text(encoding="utf-8").splitlines()
    name, label, fold = first.split(",")
    assert label == "high"
    rows = [f"{header},unknown", f'{name},high,{fold},"low,middle"', *(f"{row}," for row in others)]
    table = clips.with_name("unknown.csv")
    table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    evaluation = evaluate(tagger, table)
    write_evaluation(evaluation, tmp_path / "out")
    written = parquet.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    assert {row["fname"]: row["unknown_labels"] for row in written} == {
        row["fname"]: ["low", "middle"] if row["fname"] == name else [] for row in written
    }
    again = evaluate(tmp_path / "out" / "predictions.parquet", table)
    assert again.models[0].labels == evaluation.models[0].labels
    assert again.models[0].overall["lwlrap"] == evaluation.models[0].overall["lwlrap"]


def test_written_parquet_can_be_evaluated(tagger, clips, tmp_path):
    first = evaluate(tagger, clips)
    write_evaluation(first, tmp_path / "out")
    again = evaluate(tmp_path / "out" / "predictions.parquet", clips)
    assert again.models[0].overall["lwlrap"] == first.models[0].overall["lwlrap"]
    assert again.models[0].labels == first.models[0].labels


def test_fingerprint_depends_on_labels_but_not_on_order(tmp_path):
    def fingerprint(rows):
        manifest = write_clips(tmp_path, rows)
        table = write_table(tmp_path / "p.csv", ["a.wav", "b.wav"], np.eye(3)[:2])
        return evaluate(table, manifest).to_dict()["manifest"]["fingerprint"]

    original = fingerprint(["a.wav,low", "b.wav,high"])
    assert fingerprint(["b.wav,high", "a.wav,low"]) == original
    assert fingerprint(["a.wav,low", "b.wav,low"]) != original


def test_tables_with_the_same_file_name_get_different_names(tmp_path):
    manifest, y_true = make_manifest(tmp_path / "clips", n_clips=6)
    tables = []
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
        tables.append(write_table(tmp_path / folder / "p.csv", fnames(6), y_true.astype(int)))
    evaluation = evaluate(tables[0], manifest, compare=[tables[1]])
    assert [model.name for model in evaluation.models] == ["new/p.csv", "old/p.csv"]


def test_command_prints_scores_worst_labels_and_notes(run, tagger, clips):
    done = run("evaluate", tagger, clips, "--resamples", 50, "--by", "fold")
    assert done.status == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["score", "model", "95", "%", "interval"]
    assert lines[1].split() == ["lwlrap", "1.0000", "0.7575", "to", "1.0000"]
    assert "model: 12 clips, all not used in training" in lines
    assert "95 % intervals: 50 bootstrap resamples of 12 recordings" in lines
    assert "no intervals of means over labels: too few recordings per label" in lines
    assert any(line.startswith("worst labels") for line in lines)
    assert any(line.startswith("fold: 0") for line in lines)


def test_command_writes_files_and_lists_skipped_clips(run, tagger, tmp_path):
    manifest = write_clips(tmp_path / "clips", ["a.wav,low", "b.wav,high", "c.wav,middle"])
    (tmp_path / "clips" / "c.wav").write_bytes(b"")
    done = run("evaluate", tagger, manifest, "-o", tmp_path / "out", "--no-report", "--json")
    assert done.status == 3
    assert "skipped: " in done.err
    assert "c.wav" in done.err
    assert json.loads(done.out) == json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert json.loads(done.out)["skipped"][0]["fname"] == "c.wav"
    assert not (tmp_path / "out" / "report.html").exists()


def test_command_compares_two_models(run, tmp_path, rng):
    manifest, y_true = make_manifest(tmp_path)
    good = write_table(tmp_path / "good.csv", fnames(), make_scores(y_true, 0.5, rng))
    bad = write_table(tmp_path / "bad.csv", fnames(), make_scores(y_true, 0.1, rng))
    done = run("evaluate", good, manifest, "--compare", bad, "-o", tmp_path / "out", "--no-report")
    assert "good.csv is better than bad.csv" in done.out
    header, first, *_ = (tmp_path / "out" / "comparisons.csv").read_text(encoding="utf-8").splitlines()
    expected = (
        "first,other,n_clips,n_labels,metric,score_first,score_other,difference,difference_low,difference_high,p_value"
    )
    assert header == expected
    assert first.startswith("good.csv,bad.csv,60,3,lwlrap,")


def test_wrong_arguments_are_an_error_before_tagging(run, tagger, clips):
    done = run("evaluate", tagger, clips, "--by", "flod")
    assert (done.status, done.err) == (
        1,
        f"spectag: {clips}: no column 'flod' to slice by; did you mean 'fold'? The columns are fold, folder\n",
    )
    done = run("evaluate", tagger, clips, "-o", clips)
    assert (done.status, done.err) == (1, f"spectag: -o {clips}: this is a file; give a folder\n")
    done = run("evaluate", tagger, clips, "-o", tagger)
    assert done.err == f"spectag: -o {tagger}: this is the folder of a model; give another folder\n"
    (clips.parent / "table.xlsx").write_bytes(b"PK")
    done = run("evaluate", clips.parent / "table.xlsx", clips)
    assert "table.xlsx: cannot read the file format of a spreadsheet program; save the table as CSV" in done.err


def test_report_is_written_beside_the_files(run, tagger, clips, tmp_path):
    done = run("evaluate", tagger, clips, "-o", tmp_path / "out", "--resamples", 20)
    assert done.status == 0
    assert "<html" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    run("evaluate", tagger, clips, "-o", tmp_path / "out", "--resamples", 20, "--no-report")
    assert not (tmp_path / "out" / "report.html").exists()  # it would belong to another evaluation


def test_without_pyarrow_predictions_are_a_csv_that_can_be_evaluated_again(tagger, clips, tmp_path, run):
    folder, options = tmp_path / "out", ("--resamples", 20, "--no-report")
    run("evaluate", tagger, clips, "-o", folder, *options)
    expected = evaluate(folder / "predictions.parquet", clips)
    done = run_without({"pyarrow"}, "evaluate", tagger, clips, "-o", folder, *options)
    assert done.status == 0, done.err
    assert not (folder / "predictions.parquet").exists()  # it would belong to another evaluation
    again = evaluate(folder / "predictions.csv", clips)
    found, wanted = (table.models[0].predictions.probabilities for table in (again, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    run("evaluate", tagger, clips, "-o", folder, *options)
    assert not (folder / "predictions.csv").exists()


def test_evaluation_does_not_import_torch_or_matplotlib():
    done = python("""
import sys, spectag.evaluation
assert not {"torch", "matplotlib", "pyarrow"} & set(sys.modules)
""")
    assert done.status == 0, done.err
