"""The command line: what it prints, where, and its exit status."""

import contextlib
import csv
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import spectag
from helpers.bundles import LABELS, make_bundle, make_info, tone
from helpers.command import Done, run_without, start, write_manifest, write_tones
from helpers.configs import read_config
from spectag.audio.files import audio_info, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.cli import main
from spectag.cli.commands.train import _score_table
from spectag.config.base import ImageConfig, MelConfig, to_toml
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.scoring.scores import score_predictions
from spectag.training.bundle_writer import FoldScore

SCRATCH = Recipe(
    backbone="scratch",
    mel=MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=32, f_max=8000.0),
    folds=2,
)


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "daten")


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "ein Modell")


@pytest.fixture
def sounds(tmp_path):
    write_tones(tmp_path / "sounds", 6)
    return tmp_path / "sounds"


# ------------------------------------------------------------------------------------------------ entry points


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_is_the_version_of_the_package(run, flag):
    assert run(flag).out.strip() == importlib.metadata.version("spectag")


def test_python_m_spectag_runs_the_command():
    process = start("split", "gone.csv")
    assert process.communicate()[1] == "spectag: gone.csv: no such file or folder\n"
    assert process.returncode == 1


# ------------------------------------------------------------------------------------------------ wrong usage


def test_paths_with_spaces_are_recognised_without_quotes(run, tmp_path, monkeypatch):
    (tmp_path / "my model").mkdir()
    (tmp_path / "a b.csv").touch()
    monkeypatch.chdir(tmp_path)
    done = run("tag", "my", "model", "a.wav")
    assert (done.status, done.err) == (2, "spectag: my: a path with spaces needs quotes: 'my model'\n")
    done = run("inspect", "a", "b.csv")
    assert (done.status, done.err) == (
        2,
        "spectag: unexpected argument: 'b.csv'; a path with spaces needs quotes: 'a b.csv'\n",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--corrections", "gone.csv"], "gone.csv: no such file; save corrections.csv from the page"),
        (["--noisy", "nosy.csv"], "--noisy nosy.csv: no such file or folder; did you mean 'noisy.csv'?"),
    ],
)
@pytest.mark.parametrize("command", ["train", "tune", "lr-find"])
def test_missing_tables_are_an_error_before_torch_is_imported(run, tmp_path, monkeypatch, command, options, words):
    (tmp_path / "noisy.csv").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    done = run(command, "labels.csv", "-o", "out.png", *options)
    assert done.status == 1
    assert words in done.err


def test_missing_list_of_labels_is_an_error_before_the_model_is_opened(run, tmp_path, monkeypatch):
    (tmp_path / "birds.txt").touch()
    monkeypatch.chdir(tmp_path)
    done = run("tag", "m", "a.wav", "--labels", "brids.txt")
    assert (done.status, done.err) == (1, "spectag: --labels brids.txt: no such file; did you mean 'birds.txt'?\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tga"], "unknown command 'tga'; did you mean 'tag'? The commands: demo, "),
        (["train", "a.csv", "-o", "m", "--bakbone", "scratch"], "Unknown option: --bakbone. Did you mean --backbone?"),
        (["train", "a.csv", "-o", "m", "--mel.n-mel", "3"], "Unknown option: --mel.n-mel. Did you mean --mel.n-mels?"),
        (["train"], "spectag train needs MANIFEST; see spectag train --help"),
        (["train", "a.csv"], "spectag train needs --output; see spectag train --help"),
        (["tag", "model"], "spectag tag needs PATHS, or a list of them by --files-from; see spectag tag --help"),
        (["train", "a.csv", "-o"], "-o requires an argument"),
        (["split", "a.csv", "b.csv"], "unexpected argument: 'b.csv'"),
        (["train", "a.csv", "-o", "m", "--epochs", "0"], "--epochs: expected a number greater than 0 (got 0)"),
        (["train", "a.csv", "-o", "m", "--mel.n-mels", "no"], "--mel.n-mels: expected a whole number (got 'no')"),
        (
            ["train", "a.csv", "-o", "m", "--optimizer", "addam"],
            "--optimizer: expected 'lbfgs', 'adam', 'adamw'",
        ),
        (["train", "a.csv", "-o", "m", "--mel.f-max", "1"], "need f_min < f_max <= sample_rate / 2 = 16000 Hz"),
        (["train", "a.csv", "-o", "m", "--folds", "1"], "--folds: expected a number greater than or equal to 2 ("),
        (["tag", "m", "a.wav", "--top", "0"], "--top: expected a number greater than or equal to 1 (got 0)"),
        (["tag", "m", "a.wav", "--threshold", "1.5"], 'Invalid value "1.5" for --threshold. Must be <= 1.'),
        (["tag", "m", "a.wav", "--threshold", "nan"], 'Invalid value "nan" for --threshold.'),
        (["tag", "m", "a.wav", "--window", "0"], "--window: expected a number greater than 0 (got 0)"),
        (["tag", "m", "a.wav", "--workers", "0"], 'Invalid value "0" for --workers. Must be >= 1.'),
        (
            ["tag", "m", "a.wav", "--format", "csv,ravn"],
            "unknown format 'ravn'; did you mean 'raven'? The formats are csv, tsv",
        ),
        (["tag", "m", "a.wav", "--address", "auto"], "add --engine ray"),
        (["tag", "m", "a.wav", "--shard", "1/2"], "need a journal; add -o"),
        (["tag", "m", "a.wav", "--template", "t.csv", "--shard", "1/2", "-o", "s.csv"], "leave out --shard"),
        (["tag", "m", "a.wav", "--overlap", "1"], "--overlap 1 needs --window"),
        (
            ["tag", "m", "a.wav", "--window", "1", "--hysteresis", "0.5"],
            "--hysteresis: only for segments; add --segments",
        ),
        (["tag", "m", "a.wav", "--segments", "--top", "1"], "so --top has no effect"),
        (["tag", "m", "a.wav", "--window", "1", "--overlap", "1"], "need overlap < window, got 1 s and 1 s"),
        (["tag", "m", "a.wav", "--window", "inf"], "--window: expected a finite number (got 'inf')"),
        (["tag", "m", "a.wav", "--format", "submission"], "--format submission needs --template"),
        (
            ["tag", "m", "a.wav", "--template", "t.csv", "--format", "csv"],
            "--template is for --format submission",
        ),
        (
            ["tag", "m", "a.wav", "--template", "t.csv", "--top", "3"],
            "so --top has no effect; leave it out, or use --format csv",
        ),
        (["tag", "m", "a.wav", "--template", "t.csv", "--window", "1"], "use --window only with --clip-level"),
        (["split", "a.csv", "--folds", "1"], 'Invalid value "1" for --folds. Must be >= 2.'),
        (
            ["split", "a.csv", "--validation-fraction", "1"],
            'Invalid value "1.0" for --validation-fraction. Must be < 1.',
        ),
        (
            ["train", "a.csv", "-o", "m", "--seed", "-1"],
            "--seed: expected a number greater than or equal to 0 (got -1)",
        ),
        (["demo", "--seed", "-1"], 'Invalid value "-1" for --seed. Must be >= 0.'),
    ],
)
def test_wrong_usage_is_reported_in_one_line_with_status_2(run, arguments, words):
    done = run(*arguments)
    assert done.status == 2
    assert done.out == ""
    assert words in done.err
    assert done.err.startswith("spectag: ")
    assert done.err.count("\n") == 1


def test_errors_are_reported_in_one_line_with_status_1(run, manifest, tmp_path):
    train = ("train", manifest, "-o", tmp_path / "m")
    for arguments, words in (
        (("tag", tmp_path / "modle", tmp_path), "modle: not a tagger"),
        ((*train, "--backbone", "mn04_audioste"), "unknown backbone 'mn04_audioste'; did you mean 'mn04_audioset'?"),
        (("prepare", manifest, "--backbone", "scrach"), "unknown backbone 'scrach'; did you mean 'scratch'?"),
        (("split", manifest, "--folds", "13"), "can't split 12 groups of clips into 13 folds"),
        (("split", manifest, "--group-column", "fnam"), "fnam"),
        (("inspect", tmp_path / "missing.csv"), "missing.csv: no such file or folder"),
        (("show", manifest, "-o", tmp_path / "x.bmp"), "x.bmp"),
    ):
        done = run(*arguments)
        assert (done.status, done.out) == (1, "")
        assert words in done.err
        assert done.err.startswith("spectag: ")
        assert done.err.count("\n") == 1


# ------------------------------------------------------------------------------------------------ train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A manifest, the model that `spectag train` made from it, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained")
    manifest = write_manifest(folder / "daten")
    (folder / "daten" / "clips" / "low 99.wav").write_bytes(b"")
    with manifest.open("a") as file:
        file.write("\nlow 99.wav,low")
    settings = folder / "settings.toml"
    settings.write_text(to_toml(SCRATCH), encoding="utf-8")
    arguments = ["train", manifest, "-o", folder / "model", "--cache", folder / "cache", "--config", settings]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in [*arguments, "--json", "-j", "1"]])
    return manifest, folder / "model", Done(status, out.getvalue(), err.getvalue())


def test_train_prints_scores_as_json_to_stdout_and_progress_to_stderr(trained):
    _, model, done = trained
    result = json.loads(done.out)
    assert result["bundle"] == str(model)
    assert 0 < result["scores"]["lwlrap"] <= 1
    assert [fold["n_clips"] for fold in result["folds"]] == [6, 6]
    assert "spectrogram cache: 12 spectrograms computed" in done.err
    assert "features by scratch: 12/12" in done.err


def test_train_names_skipped_clips_and_exits_with_status_3(trained):
    _, _, done = trained
    assert done.status == 3
    assert json.loads(done.out)["skipped"][0]["fname"] == "low 99.wav"
    assert re.search(r"^skipped: .*low 99\.wav: the file is empty \(0 bytes\)$", done.err, re.MULTILINE)


def test_train_stores_the_recipe_that_it_used(trained):
    _, model, _ = trained
    assert read_config(model / "recipe.toml", Recipe) == SCRATCH


@pytest.mark.slow
def test_training_from_python_gives_the_same_model(trained, tmp_path):
    manifest, model, _ = trained
    spectag.train(manifest, tmp_path / "model", SCRATCH, data=spectag.DataOptions(cache=tmp_path / "cache", workers=1))
    of_command, of_python = spectag.load(model), spectag.load(tmp_path / "model")
    for path in sorted((manifest.parent / "clips").glob("*0*.wav")):
        assert of_python.tag(path).probabilities == pytest.approx(of_command.tag(path).probabilities, abs=1e-6)


def test_table_of_scores_has_a_row_for_each_fold(trained, run, tmp_path):
    manifest, model, _ = trained
    done = run("train", manifest, "-o", tmp_path / "m", "--config", model / "recipe.toml")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["held", "out", "clips", "lwlrap", "top-1", "accuracy"]
    assert [row[:2] for row in rows[1:5]] == [["fold", "1"], ["fold", "2"], ["mean", "of"], ["all", "held"]]
    assert rows[5][:4] == ["95", "%", "interval", "of"]
    assert rows[6][:2] == ["learning", "curve"]
    assert rows[-1] == ["model:", str(tmp_path / "m")]
    assert all(row[0] == "weakest" for row in rows[7:-1])


def test_train_says_what_to_do_next(trained):
    manifest, model, done = trained
    lines = [line.strip() for line in done.err.splitlines()]
    start = lines.index(f"next: {shlex.join(['spectag', 'tag', str(model), 'FOLDER', '-o', 'tags.csv'])}")
    assert lines[start + 1] == shlex.join(["spectag", "evaluate", str(model), str(manifest), "-o", "evaluation"])


def test_train_reports_an_error_in_the_table_before_it_imports_torch(tmp_path):
    (tmp_path / "clips.csv").write_text("fname,labels\nmissing.wav,dog\n", encoding="utf-8")
    done = run_without(["torch"], "train", tmp_path / "clips.csv", "-o", tmp_path / "m")
    assert done.status != 0
    assert "missing.wav" in done.err
    assert "torch" not in done.err


def test_scores_of_many_folds_are_shown_as_their_mean():
    scores = score_predictions(np.eye(2, dtype=bool)[[0, 1] * 5], np.eye(2)[[0, 1] * 5], range(10))
    lines = {}
    for n_folds in (2, 40):
        table = _score_table(scores, [FoldScore(str(n), 1, n / 40, 1.0) for n in range(n_folds)])
        lines[n_folds] = [str(cell) for cell in table.columns[0].cells]
    assert lines[2] == ["fold 0", "fold 1", "mean of 2 folds", "all held out"]
    assert lines[40] == ["mean of 40 folds", "all held out"]


def test_tags_of_the_command_equal_those_of_python(trained, run, tmp_path):
    manifest, model, _ = trained
    template = tmp_path / "t.csv"
    names = [clip.fname for clip in read_manifest(manifest).clips[:4]]
    template.write_text("\n".join(["fname,high,low,middle", *(f"{name},0,0,0" for name in names)]))
    done = run("tag", model, manifest.parent / "clips", "--template", template)
    rows = list(csv.reader(io.StringIO(done.out)))
    assert rows[0] == ["fname", "high", "low", "middle"]
    tagger = spectag.load(model)
    for row, name in zip(rows[1:], names, strict=True):
        assert row[0] == name
        expected = tagger.tag(manifest.parent / "clips" / name).probabilities
        assert np.array_equal(np.array(row[1:], np.float32), expected)


@pytest.mark.parametrize(
    ("arguments", "purpose"), [(["train", "TABLE", "-o", "m"], "training"), (["demo", "-o", "d"], "the demo")]
)
def test_training_without_onnx_names_the_extra(arguments, purpose, manifest):
    done = run_without(["onnx"], *(manifest if word == "TABLE" else word for word in arguments))
    assert done == (1, "", f"spectag: {purpose} needs the package onnx: pip install 'spectag[train]'\n")


@pytest.mark.parametrize(
    ("options", "purpose"),
    [
        (["--mode", "finetune"], "fine-tuning"),
        (["--recipe", "best"], "--recipe best"),
        (["--recipe", "best", "--seed", "1"], "--recipe best"),
        (["--recipe", "quick", "--backbone", "convnext_tiny"], "the backbone convnext_tiny"),
        (["--n-mixed-clips", "9"], "n_mixed_clips"),
        (["--backbone", "convnext_tiny"], "the backbone convnext_tiny"),
        (["--backbone", "timm/resnet18"], "the backbone timm/resnet18"),
        (["--no-pretrained"], "mn04_audioset without pretrained weights"),
        (["--optimizer", "adam"], "the optimizer adam"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_needs_torch_says_so_before_anything_is_read(options, purpose, manifest, tmp_path):
    done = run_without(["torch"], "train", manifest, "-o", tmp_path / "model", *options)
    assert done == (1, "", f"spectag: {purpose} needs PyTorch: pip install 'spectag[finetune]'\n")


@pytest.mark.parametrize("options", [[], ["--mode", "finetune"]], ids=["frozen", "finetune"])
def test_misspelt_backbone_is_named_even_without_torch(options, manifest, tmp_path):
    done = run_without(["torch"], "train", manifest, "-o", tmp_path / "m", "--backbone", "mn04_audiset", *options)
    assert done.status == 1
    assert done.err.startswith("spectag: unknown backbone 'mn04_audiset'; did you mean 'mn04_audioset'? docs/")
    assert "torch" not in done.err


# ------------------------------------------------------------------------------------------------ manifests


def test_prepare_prints_the_cache_folder_and_a_second_run_has_nothing_to_do(run, manifest, tmp_path):
    command = ("prepare", manifest, "--cache", tmp_path / "cache", "--backbone", "scratch")
    first = run(*command)
    assert first.status == 0
    assert Path(first.out.strip()).parent == tmp_path / "cache"
    assert "12 spectrograms computed" in first.err
    train = ["train", manifest, "-o", "model", "--backbone", "scratch", "--cache", tmp_path / "cache"]
    assert first.err.splitlines()[-1] == f"next: {shlex.join(map(str, ['spectag', *train]))}"
    second = run(*command)
    assert second.out == first.out
    assert "nothing to do: 12 spectrograms are cached" in second.err


def test_prepare_with_images_prints_the_path_of_their_table(run, manifest, tmp_path):
    (manifest.parent / "clips" / "low 00.wav").write_bytes(b"")
    done = run(
        "prepare", manifest, "--cache", tmp_path / "cache", "--backbone", "scratch", "--png", tmp_path / "bilder"
    )
    assert done.status == 3
    assert done.out == f"{tmp_path / 'bilder' / 'clips_image_labels.csv'}\n"
    assert "skipped: " in done.err
    assert f"next: {shlex.join(['spectag', 'train', done.out.strip(), '-o', 'model'])}\n" in done.err
    assert read_manifest(done.out.strip()).multi_hot().sum() == 11


def test_split_prints_the_balance_and_writes_the_folds(run, manifest, tmp_path):
    done = run("split", manifest, "--folds", "4", "-o", tmp_path / "neu" / "folds.csv")
    assert (done.status, done.err) == (0, "")
    rows = [line.split() for line in done.out.splitlines()]
    assert rows[0] == ["clips", "with", "fold", "1", "fold", "2", "fold", "3", "fold", "4"]
    assert rows[1:5] == [
        [name, *count] for name, count in zip([*sorted(LABELS), "all"], ["1111"] * 3 + ["3333"], strict=True)
    ]
    assert "a random split of the same groups" in " ".join(done.out.split())
    assert set(read_manifest(tmp_path / "neu" / "folds.csv").folds) == {"1", "2", "3", "4"}


def test_split_json_contains_every_clip_and_the_balance(run, manifest):
    result = json.loads(run("split", manifest, "--validation-fraction", "0.25", "--json").out)
    assert [clip["fold"] for clip in result["clips"]].count("valid") == 3
    assert result["balance"]["folds"] == ["train", "valid"]
    assert result["balance"]["counts"] == [[3, 3, 3], [1, 1, 1]]


def test_inspect_json_names_unreadable_files_and_exits_with_status_3(run, manifest):
    assert run("inspect", manifest).status == 0
    (manifest.parent / "clips" / "low 00.wav").write_bytes(b"")
    done = run("inspect", manifest, "--json")
    assert done.status == 3
    result = json.loads(done.out)
    assert result["n_clips"] == 12
    assert list(result["unreadable"]) == ["low 00.wav"]


def test_inspect_prints_counts_and_faults(run, manifest):
    done = run("inspect", manifest, "--folds", "5")
    assert "12 clips in 12 files, 3 labels" in done.out
    assert re.search(r"labels too rare for 5 folds\s+│\s+3", done.out)
    assert done.err.splitlines()[-1] == "inspect: 12/12"


def test_show_prints_the_path_of_the_figure(run, manifest, tmp_path):
    figure = tmp_path / "neu" / "x.png"
    done = run("show", manifest, "-o", figure, "--grid", "2x2")
    assert (done.status, done.out) == (0, f"{figure}\n")
    assert figure.stat().st_size > 10_000


def test_soundscapes_have_the_requested_length_and_a_table_of_their_sounds(run, manifest, tmp_path):
    folder = tmp_path / "gemischt"
    options = ("--recordings", "2", "--seconds", "20", "--sounds-per-minute", "30", "--shortest-seconds", "0.1")
    done = run("soundscapes", manifest, "-o", folder, *options, "--sample-rate", "16000")
    assert (done.status, done.out) == (0, f"{folder / 'truth.csv'}\n")
    assert {audio_info(path).duration_seconds for path in folder.glob("*.wav")} == {20.0}
    rows = list(csv.DictReader((folder / "truth.csv").read_text().splitlines()))
    assert len(rows) > 2
    assert {row["label"] for row in rows} <= set(LABELS)
    assert all(0 <= float(row["start"]) < float(row["end"]) <= 20 for row in rows)


def test_silent_background_is_an_error(run, manifest, tmp_path):
    write_audio(tmp_path / "still.wav", np.zeros(8_000, np.float32), 8_000)
    done = run("soundscapes", manifest, "-o", tmp_path / "mixed", "--background", tmp_path / "still.wav")
    assert done.status == 1
    assert done.err.startswith(f"spectag: {tmp_path / 'still.wav'}: the recording is silent")


# ------------------------------------------------------------------------------------------------ tag


def test_tag_writes_csv_to_stdout_and_progress_to_stderr(run, model, sounds):
    done = run("tag", model, sounds, "--top", "1")
    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert done.status == 0
    assert [row["file"] for row in rows] == [str(path) for path in sorted(sounds.iterdir())]
    assert [row["label"] for row in rows] == [path.name.split()[0] for path in sorted(sounds.iterdir())]
    assert "tagging: 6/6" in done.err.splitlines()


def test_tags_are_in_the_order_of_the_arguments(run, model, sounds):
    paths = sorted(sounds.iterdir(), reverse=True)
    for workers in ("1", "2"):
        done = run("tag", model, *paths, "--top", "1", "-j", workers)
        assert [row["file"] for row in csv.DictReader(io.StringIO(done.out))] == list(map(str, paths))


def test_threshold_option_replaces_the_thresholds_of_the_model(run, model, tmp_path):
    write_audio(tmp_path / "a.wav", tone("low", 0.3) + tone("middle", 0.3), 16_000)
    found = {tag.label: tag.probability for tag in spectag.load(model).tag(tmp_path / "a.wav").top(3)}

    def labels(*options):
        return [
            row["label"] for row in csv.DictReader(io.StringIO(run("tag", model, tmp_path / "a.wav", *options).out))
        ]

    by_probability = sorted(found, key=lambda label: -found[label])
    thresholds = dict(zip(LABELS, (0.5, 0.4, 0.6), strict=True))
    assert labels() == [label for label in by_probability if found[label] >= thresholds[label]]
    assert labels("--threshold", "0") == by_probability
    assert labels("--threshold", "1") == []
    assert labels("--top", "2") == by_probability[:2]


def test_format_follows_the_suffix_of_the_output(run, model, sounds, tmp_path):
    assert run("tag", model, sounds, "-o", tmp_path / "a.JSONL").out == ""
    records = [json.loads(line) for line in (tmp_path / "a.JSONL").read_text().splitlines()]
    assert [record["file"] for record in records] == [str(path) for path in sorted(sounds.iterdir())]
    run("tag", model, sounds, "-o", tmp_path / "a.jsonl", "--format", "csv")
    assert (tmp_path / "a.jsonl").read_text().startswith("file,start,end,label,probability\n")


def test_windows_overlap_by_the_requested_seconds(run, model, tmp_path):
    write_audio(tmp_path / "a.wav", np.concatenate([tone(label, 0.5) for label in LABELS]), 16_000)
    done = run(
        "tag", model, tmp_path / "a.wav", "--window", "0.5", "--overlap", "0.25", "--top", "1", "--format", "jsonl"
    )
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [(record["start"], record["end"]) for record in records] == [
        (start, start + 0.5) for start in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    assert [record["tags"][0]["label"] for record in records[::2]] == list(LABELS)


def test_unreadable_files_are_named_and_the_others_tagged_with_status_3(run, model, sounds, tmp_path):
    names = ["leer, groß.wav", "text.wav"]
    (sounds / names[0]).write_bytes(b"")
    (sounds / names[1]).write_text("no sound")
    done = run("tag", model, sounds, "--top", "1", "-o", tmp_path / "tags.csv")
    assert done.status == 3
    assert len((tmp_path / "tags.csv").read_text().splitlines()) == 1 + 6
    assert [line for line in done.err.splitlines() if line.startswith("skipped: ")] == [
        f"skipped: {sounds / names[0]}: the file is empty (0 bytes)",
        next(line for line in done.err.splitlines() if "text.wav" in line),
    ]


def test_each_of_many_unreadable_files_is_named(run, model, sounds):
    for number in range(25):
        (sounds / f"x{number}.wav").write_bytes(b"")
    skipped = [line for line in run("tag", model, sounds).err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 25
    assert all(any(f"x{number}.wav: " in line for line in skipped) for number in range(25))


def test_files_without_a_detected_label_are_counted_on_stderr(run, model, sounds):
    n_files = len(list(sounds.glob("*.wav")))
    assert f"no label detected in {n_files} of {n_files} files" in run("tag", model, sounds, "--threshold", "1").err
    assert "no label detected" not in run("tag", model, sounds, "--top", "1").err


def test_image_is_skipped_by_a_model_for_sounds(run, model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    done = run("tag", model, tmp_path / "a.png")
    assert done.status == 3
    assert "a.png: this tagger takes log-mel spectrograms, not images; give it the sound file" in done.err


def test_misspelt_path_is_an_error_before_any_work(run, model, tmp_path):
    done = run("tag", model, tmp_path / "gone.wav", "-o", tmp_path / "tags.csv")
    assert done == (1, "", f"spectag: {tmp_path / 'gone.wav'}: no such file or folder\n")
    assert not (tmp_path / "tags.csv").exists()


def test_submission_fills_the_template(run, model, sounds, tmp_path):
    template = tmp_path / "sample_submission.csv"
    names = sorted((path.name for path in sounds.iterdir()), reverse=True)[:4]
    template.write_text("\n".join(["fname,high,low", *(f"{name},0,0" for name in names)]), encoding="utf-8-sig")
    output = tmp_path / "submission.csv"
    done = run("tag", model, sounds, "--format", "submission", "--template", template, "-o", output)
    assert (done.status, done.out) == (0, "")
    assert "tagging: 4/4" in done.err  # and not the files that the template does not name
    rows = list(csv.reader(io.StringIO(output.read_text())))
    assert rows[0] == ["fname", "high", "low"]
    assert [row[0] for row in rows[1:]] == names
    tagger = spectag.load(model)
    for row in rows[1:]:
        expected = tagger.tag(sounds / row[0]).probabilities
        assert [np.float32(value) for value in row[1:]] == [expected[2], expected[0]]


def test_incomplete_submission_is_not_written(run, model, sounds, tmp_path):
    template, output = tmp_path / "t.csv", tmp_path / "submission.csv"
    for rows, words in (
        (["fname,high", "low 00.wav,0", "gone.wav,0"], "1 of its 2 clips are missing, such as gone.wav"),
        (["fname,hihg", "low 00.wav,0"], "t.csv, line 1: unknown label 'hihg'; did you mean 'high'?"),
        (["fname,high", "low 00.wav,0", "leer.wav,0"], "leer.wav: the file is empty (0 bytes)"),
    ):
        (sounds / "leer.wav").write_bytes(b"")
        template.write_text("\n".join(rows))
        done = run("tag", model, sounds, "--template", template, "-o", output)
        assert done.status == 1
        assert words in done.err
        assert not output.exists()


def test_model_for_images_tags_a_folder_of_images(run, manifest, tmp_path):
    images = tmp_path / "bilder"
    run(
        "prepare",
        manifest,
        "--cache",
        tmp_path / "cache",
        "--backbone",
        "scratch",
        "--mel.n-mels",
        "24",
        "--png",
        images,
    )
    info = make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24, width=20)))
    done = run("tag", make_bundle(tmp_path / "model", info), images, "--format", "jsonl")
    assert done.status == 0
    assert len(done.out.splitlines()) == 12


def test_tagging_does_not_need_the_training_packages(model, sounds):
    packages = ["torch", "torchvision", "timm", "onnx", "safetensors", "matplotlib"]
    done = run_without(packages, "tag", model, sounds, "--top", "1")
    assert done.status == 0
    assert len(done.out.splitlines()) == 7


def test_config_file_sets_options_of_tag(run, model, sounds, tmp_path):
    (tmp_path / "tag.toml").write_text("top = 1\nwindow = 0.1\n", encoding="utf-8")
    by_file = run("tag", model, sounds, "--config", tmp_path / "tag.toml")
    by_flags = run("tag", model, sounds, "--top", "1", "--window", "0.1")
    assert by_file.out == by_flags.out != run("tag", model, sounds, "--top", "1").out
    (tmp_path / "tag.toml").write_text("tpo = 1\n", encoding="utf-8")
    refused = run("tag", model, sounds, "--config", tmp_path / "tag.toml")
    assert refused.status == 1
    assert "tag.toml: tpo: unknown setting" in refused.err


@pytest.mark.skipif(os.name == "nt", reason="closes streams by their numbers")
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&-"])
def test_closed_stream_does_not_change_the_table(tmp_path, closed):
    make_bundle(tmp_path / "model")
    write_audio(tmp_path / "a.wav", tone("low", 1.0), 16_000)
    command = f"{shlex.quote(sys.executable)} -m spectag tag model a.wav --top 1 {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 2
