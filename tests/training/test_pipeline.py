"""From a manifest to a model that tags, on synthetic sounds and on images of them."""

import csv
import json
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.model_selection import train_test_split

from helpers.bundles import make_bundle
from helpers.configs import read_config
from spectag.audio.files import read_audio, write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image
from spectag.audio.synthesis import KINDS
from spectag.cli.commands.train import print_result
from spectag.config.backbones import resolve_mel
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.demo_data import make_demo_data
from spectag.data.manifest import read_manifest
from spectag.errors import BundleError, ConfigError, DataError
from spectag.evaluation.predictions import predict_out_of_fold
from spectag.models.bundle import read_info
from spectag.models.tagger import Tagger
from spectag.scoring.bootstrap import Estimate
from spectag.scoring.calibration import probabilities_of
from spectag.scoring.scores import score_predictions
from spectag.training.heads.learning_curve import LearningCurve
from spectag.training.inputs import image_transforms
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.networks.network import FeatureExtractor, TaggerNetwork, build_head
from spectag.training.pipeline import first_fine_tuning, score_recipe, train
from spectag.training.setup.callbacks import Callbacks

MEL = resolve_mel("scratch", MelConfig(sample_rate=16_000, n_fft=512, hop_length=320, n_mels=32, f_max=8000))
FROZEN = {"backbone": "scratch", "mel": MEL}
IMAGE = ImageConfig(height=64, width=64)
BLOG = {
    "backbone": "scratch",
    "features": "last",
    "head": "layer_norm",
    "optimizer": "adam",
    "learning_rate": 0.01,
    "epochs": 4,
    "validation_fraction": 0.25,
    "validation_split": "random",
    "seed": 42,
    "image": IMAGE,
}


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """The cache of all tests, also for fixtures of the module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_demo_data(tmp_path_factory.mktemp("demo"), n_curated=40, n_noisy=0, n_test=4)


@pytest.fixture(scope="module")
def result(data, tmp_path_factory):
    return train(data.train_curated, tmp_path_factory.mktemp("frozen") / "model", Recipe(**FROZEN))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """Four sounds of each of three kinds, each sound of one label: a folder, and rows of a table."""
    folder = tmp_path_factory.mktemp("sounds ü")
    rng = np.random.default_rng(0)
    rows = []
    for label in list(KINDS)[:3]:
        for number in range(4):
            fname = f"{label} {number}.wav"
            write_audio(folder / fname, KINDS[label](rng, 0.7 + 0.3 * number, 16_000), 16_000)
            rows.append({"fname": fname, "labels": label, "fold": str(number % 2)})
    return folder, rows


@pytest.fixture
def table(tmp_path, sounds):
    """Copies the sounds and writes a CSV of some rows."""
    folder, rows = sounds
    shutil.copytree(folder, tmp_path / "data")

    def write(rows=rows, columns=("fname", "labels")):
        path = tmp_path / "data" / "train.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        return path

    write.rows = rows
    return write


@pytest.fixture(scope="module")
def images(tmp_path_factory, data):
    """PNGs of the demo's clips, and a multi-hot CSV of their labels."""
    folder = tmp_path_factory.mktemp("images")
    manifest = read_manifest(data.train_curated)
    names = [f"{clip.path.stem}.png" for clip in manifest.clips]
    for clip, name in zip(manifest.clips, names, strict=True):
        waveform, _ = read_audio(clip.path, sample_rate=MEL.sample_rate)
        pixels, _ = log_mel_to_image(compute_log_mel(waveform, MEL), IMAGE)
        Image.fromarray(pixels).save(folder / name)
    with (folder / "train_curated_image_labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["fname", *manifest.labels.names])
        writer.writerows([name, *row.astype(int)] for name, row in zip(names, manifest.multi_hot(), strict=True))
    return folder / "train_curated_image_labels.csv"


@pytest.fixture(scope="module")
def blog(images, tmp_path_factory):
    return train(images, tmp_path_factory.mktemp("blog") / "model", Recipe(**BLOG))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def torch_probabilities(bundle, recipe, inputs):
    """Probabilities (n_labels,) from the bundle's weights in torch, without its ONNX file."""
    info = read_info(bundle)
    extractor = FeatureExtractor(build_backbone(recipe.backbone, pretrained=False), recipe.features)
    with torch.inference_mode():
        n_features = extractor(torch.from_numpy(inputs[None])).shape[1]
        head = build_head(recipe.head, n_features, len(info.labels))
        windows = info.backbone.clip_windows and info.backbone.clip_windows.in_frames(info.front_end)
        tagger = TaggerNetwork(extractor, head, windows).eval()
        tagger.load_state_dict(load_file(bundle / "weights.safetensors"))
        logits = tagger(torch.from_numpy(inputs[None]))[0].numpy()
    return probabilities_of(logits, info.calibration)


def test_held_out_clips_are_tagged_better_than_by_chance(result):
    assert result.scores.n_clips == 40
    assert result.scores.lwlrap > 0.7
    assert result.scores.overall["roc_auc"].value > 0.75
    assert len(result.folds) == 5
    assert sum(fold.n_clips for fold in result.folds) == 40
    assert np.isfinite(result.predictions).all()


def test_bundle_is_complete_and_agrees_with_the_result(result, data):
    assert set(contents(result.bundle)) == {
        *("spectag.json", "model.onnx", "weights.safetensors", "predictions.csv", "recipe.toml", "README.md")
    }
    info = read_info(result.bundle)
    assert info.labels == read_manifest(data.train_curated).labels.names
    assert info.onnx_difference == result.onnx_difference < 1e-4
    assert info.metrics["lwlrap"] == pytest.approx(result.scores.lwlrap)
    assert info.metrics["folds"] == [asdict(fold) for fold in result.folds]
    assert info.data.n_clips == 40
    n_clips = read_manifest(data.train_curated).multi_hot().sum(axis=0)
    assert info.thresholds_fitted == tuple((n_clips >= 3).tolist())
    assert all(0 < threshold < 1 for threshold in info.thresholds)
    assert info.novelty.n_held_out == info.training_sounds.n_clips == 40


def test_model_gives_the_probabilities_of_torch_for_new_sounds(result, data):
    tagger = Tagger(result.bundle)
    for path in sorted(data.test.glob("*.wav")):
        waveform, _ = read_audio(path, sample_rate=MEL.sample_rate)
        expected = torch_probabilities(result.bundle, Recipe(**FROZEN), compute_log_mel(waveform, MEL)[None])
        np.testing.assert_allclose(tagger.tag(path).probabilities, expected, atol=1e-4)


def test_result_is_json(result):
    assert json.loads(json.dumps(result.to_dict()))["scores"]["lwlrap"] == result.scores.lwlrap


def test_learning_curve_is_in_the_result_and_printed_in_one_line(result, capsys):
    curve = result.learning_curve
    assert (len(curve.scores), curve.fractions[-1]) == (3, 1)
    assert result.to_dict()["learning_curve"]["fractions"] == curve.fractions
    print_result(replace(result, learning_curve=LearningCurve((0.25, 0.5, 1.0), (0.6, 0.8, 0.9))))
    line = "learning curve before calibration: lwlrap 0.600 with 25%, 0.800 with 50%, 0.900 with all recordings; "
    assert f"{line}with twice as many expect about 0.950\n" in capsys.readouterr().out


def test_the_weakest_labels_are_printed_with_their_average_precision(result, capsys):
    names = read_info(result.bundle).labels
    values = [0.5, 0.25, 0.75, float("nan"), *[1.0] * (len(names) - 4)][: len(names)]
    per_label = {**result.scores.per_label, "average_precision": tuple(map(Estimate, values))}
    print_result(replace(result, scores=replace(result.scores, per_label=per_label)))
    printed = f"weakest labels, with their average precision: {names[1]} 0.250, {names[0]} 0.500"
    assert printed in capsys.readouterr().out


def test_equally_weak_labels_are_in_the_order_of_the_alphabet_and_counted(result, capsys):
    names = sorted(read_info(result.bundle).labels)
    values = dict(zip(names, [0.4999, 0.5001, 0.5, 0.5], strict=False))
    values |= dict.fromkeys(names[4:], 0.50001)
    precisions = tuple(Estimate(values[name]) for name in read_info(result.bundle).labels)
    per_label = {**result.scores.per_label, "average_precision": precisions}
    print_result(replace(result, scores=replace(result.scores, per_label=per_label)))
    shown = ", ".join(f"{name} 0.500" for name in names[:3])
    assert f"precision: {shown}, and {len(names) - 3} more with 0.500\n" in capsys.readouterr().out


def test_model_that_will_be_replaced_is_named_before_any_work(table):
    manifest, lines = table([{"fname": "gone.wav", "labels": "a"}]), []
    model = make_bundle(manifest.parent / "model")
    with pytest.raises(DataError, match=r"gone\.wav"):
        train(manifest, model, Recipe(**FROZEN), log=lines.append)
    assert re.match(r".*model: there is a model already \(3 labels.*\); it is replaced when this training is", lines[0])
    assert "To keep it, stop, and choose another folder for -o" in lines[0]


@pytest.mark.slow
def test_training_again_gives_the_same_files_bit_for_bit(result, data, tmp_path):
    again = train(data.train_curated, tmp_path / "model", Recipe(**FROZEN))
    np.testing.assert_array_equal(again.predictions, result.predictions)
    first = contents(result.bundle)
    assert {name for name, text in contents(again.bundle).items() if text != first[name]} == set()


def test_unreadable_clip_is_skipped_and_listed(table):
    path = table([*table.rows, {"fname": "empty.wav", "labels": "New"}])
    (path.parent / "empty.wav").write_bytes(b"")
    result = train(path, path.parent / "model", Recipe(**FROZEN))
    assert [(clip.fname, "empty.wav" in reason) for clip, reason in result.skipped] == [("empty.wav", True)]
    assert len(result.predictions) == 12
    info = read_info(result.bundle)
    assert dict(zip(info.labels, info.data.n_clips_per_label, strict=True))["New"] == 0
    assert result.to_dict()["skipped"][0]["fname"] == "empty.wav"


@pytest.mark.parametrize("n_clips", [1, 2])
def test_one_or_two_clips_a_label_train_without_folds(table, n_clips):
    rows = [row for i, row in enumerate(table.rows) if i % 4 < n_clips]
    lines = []
    path = table(rows)
    result = train(path, path.parent / "model", Recipe(**FROZEN), log=lines.append)
    assert (result.scores, result.folds) == (None, ())
    assert np.isnan(result.predictions).all()
    info = read_info(result.bundle)
    assert (info.thresholds, info.thresholds_fitted) == ((0.5,) * 3, (False,) * 3)
    assert info.novelty is None
    assert any("thresholds are not fitted" in line for line in lines)
    [warning] = (line for line in lines if "fewer than 3 recordings" in line)
    assert warning.startswith("each of the 3 labels has fewer than 3 recordings; ")
    assert len(warning) < 150
    assert result.learning_curve is None
    tagger = Tagger(result.bundle)
    for row in rows:
        assert tagger.tag(path.parent / row["fname"]).top(1)[0].label == row["labels"]


@pytest.mark.slow
def test_one_clip_with_a_label_and_one_without_train(table):
    path = table([table.rows[0], table.rows[-1] | {"labels": ""}])
    result = train(path, path.parent / "model", Recipe(**FROZEN))
    assert read_info(result.bundle).labels == (table.rows[0]["labels"],)


@pytest.mark.slow
def test_manifest_folds_are_used(table):
    path = table(columns=("fname", "labels", "fold"))
    result = train(path, path.parent / "model", Recipe(**FROZEN, folds="given"))
    assert [(fold.name, fold.n_clips) for fold in result.folds] == [("0", 6), ("1", 6)]
    assert all(fold.top1_accuracy is not None for fold in result.folds)
    assert result.scores.top1_accuracy == pytest.approx(np.mean([fold.top1_accuracy for fold in result.folds]))


@pytest.mark.slow
def test_noisy_clips_are_recorded_as_training_clips(table, tmp_path):
    path = table(columns=("fname", "labels", "fold"))
    noisy = tmp_path / "noisy" / "doubtful.csv"
    for i in range(3):
        write_audio(noisy.with_name(f"{i}.wav"), np.sin(np.arange(8000) / (i + 3)).astype(np.float32), 16_000)
    label = table.rows[0]["labels"]
    noisy.write_text("fname,labels\n" + "".join(f"{i}.wav,{label}\n" for i in range(3)), encoding="utf-8")
    result = train(path, path.parent / "model", Recipe(**FROZEN, folds="given"), data=DataOptions(noisy=noisy))
    assert len(result.predictions) == len(table.rows)
    predictions = predict_out_of_fold(Tagger(result.bundle), read_manifest(noisy))
    assert set(predictions.origins) == {"train"}


def test_progress_reports_log_mels_features_and_heads(data, tmp_path):
    steps = set()
    callbacks = Callbacks(progress=lambda name, *_: steps.add(name))
    manifest = read_manifest(data.train_curated)
    score_recipe(manifest, None, Recipe(**FROZEN), callbacks, DataOptions(cache=tmp_path / "c", workers=1), tmp_path)
    assert steps >= {"log-mels", "features by scratch", "shared audio", "heads"}


def test_clips_without_labels_are_negative_examples(table, tmp_path):
    label = table.rows[0]["labels"]
    manifest = read_manifest(table([{**row, "labels": label if row["labels"] == label else ""} for row in table.rows]))
    assert manifest.labels.names == (label,)
    result = score_recipe(manifest, None, Recipe(**FROZEN), Callbacks(), DataOptions(workers=1), tmp_path)
    assert result.scores.overall["roc_auc"].value > 0.8


def test_output_folder_of_another_kind_is_refused_before_any_work(table, tmp_path):
    path = table()
    with pytest.raises(BundleError, match="data: the folder is not empty and not a spectag model"):
        train(path, path.parent, Recipe(**FROZEN), data=DataOptions(cache=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_table_without_any_label_is_refused(table):
    path = table([{**row, "labels": ""} for row in table.rows])
    with pytest.raises(DataError, match=r"train\.csv: no clip has a label"):
        train(path, path.parent / "model", Recipe(**FROZEN))


def write_noise(folder, labels):
    """A manifest of half a second of noise for each of these labels."""
    rng = np.random.default_rng(3)
    for number in range(len(labels)):
        write_audio(folder / f"{number}.wav", rng.normal(0, 0.1, 8_000), 16_000)
    rows = [f"{number}.wav,{names}" for number, names in enumerate(labels)]
    (folder / "noise.csv").write_text("\n".join(["fname,labels", *rows]), encoding="utf-8")
    return folder / "noise.csv"


def test_presence_of_one_label_is_scored_by_average_precision(tmp_path, capsys):
    """The label is dealt to noise by chance, so no score may be perfect; lwlrap of one label is always 1."""
    result = train(write_noise(tmp_path, ["owl", ""] * 8), tmp_path / "model", Recipe(**FROZEN, folds=4))
    assert np.isnan(result.scores.lwlrap)
    assert 0 < result.scores.main_score < 1
    assert result.to_dict()["folds"][0]["lwlrap"] is None
    assert read_info(tmp_path / "model").metrics["lwlrap"] is None
    print_result(result)
    out = capsys.readouterr().out
    assert "mAP" in out
    assert f"{result.scores.main_score:.4f}" in out
    assert "lwlrap" not in out + (tmp_path / "model" / "README.md").read_text(encoding="utf-8")


def test_map_beside_lwlrap_falls_with_false_alarms_on_clips_without_labels(result, capsys):
    n_labels, scores = len(read_info(result.bundle).labels), []
    y_true = np.vstack([np.eye(n_labels, dtype=bool)] * 2 + [np.zeros((8, n_labels), bool)])
    for level in (0.1, 0.9):
        probabilities = np.where(y_true, 0.7, 0.2)
        probabilities[-8:] = level
        scores.append(score_predictions(y_true, probabilities, range(len(y_true))))
        print_result(replace(result, scores=scores[-1], folds=()), has_negatives=True)
        out = capsys.readouterr().out
        [last] = [line.split() for line in out.splitlines() if line.strip().startswith("all held out")]
        assert last[-2:] == ["1.0000", f"{scores[-1].overall['mean_average_precision'].value:.4f}"]
        assert out.count("lwlrap ranks labels within labelled clips only") == 1
    quiet, alarmed = (score.overall["mean_average_precision"].value for score in scores)
    assert quiet == 1
    assert alarmed < 0.7
    print_result(result)
    assert "within labelled clips" not in capsys.readouterr().out


def test_labels_with_few_recordings_are_named(tmp_path):
    """Two clips of one group are one recording."""
    path = write_noise(tmp_path, ["owl"] * 2 + ["rain"] * 3 + ["wind"] * 5 + ["snow"] + [""] * 4)
    manifest = read_manifest(path)
    clips = [replace(clip, group="site" if "rain" in clip.labels else None) for clip in manifest.clips]
    lines = []
    train(replace(manifest, clips=tuple(clips)), tmp_path / "model", Recipe(**FROZEN), log=lines.append)
    [warning] = (line for line in lines if "fewer than 3 recordings" in line)
    assert warning.startswith("labels with fewer than 3 recordings: owl (2), rain (1), snow (1); ")
    assert "spectag suggest" in warning


def test_label_that_every_clip_has_is_refused_or_named(tmp_path):
    with pytest.raises(DataError, match=r"noise\.csv: all 6 clips have owl.*add clips without it"):
        train(write_noise(tmp_path, ["owl"] * 6), tmp_path / "model", Recipe(**FROZEN))
    messages = []
    manifest = write_noise(tmp_path, ['"owl,rain"', "owl"] * 3)
    train(manifest, tmp_path / "model", Recipe(**FROZEN, folds="none"), log=messages.append)
    assert any(message.startswith("WARNING: all 6 clips have owl: ") for message in messages)


def test_label_that_is_unknown_everywhere_is_not_one_that_every_clip_has(tmp_path):
    manifest = write_noise(tmp_path, ["owl", "rain"] * 3)
    rows = [f"{number}.wav,{number % 2},{1 - number % 2}," for number in range(6)]
    manifest.write_text("\n".join(["fname,rain,owl,snow", *rows]), encoding="utf-8")
    messages = []
    train(manifest, tmp_path / "model", Recipe(**FROZEN, folds="none"), log=messages.append)
    assert not any("all 6 clips have" in message for message in messages)


def test_images_and_a_multi_hot_csv_train_as_in_the_blog_post(blog, images):
    held_out = train_test_split(np.arange(40), test_size=0.25, random_state=42)[1]
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(blog.predictions).any(axis=1)), np.sort(held_out))
    assert [fold.n_clips for fold in blog.folds] == [10]
    assert [epoch.epoch for epoch in blog.epochs] == [1, 2, 3, 4]
    assert blog.epochs[-1].train_loss < blog.epochs[0].train_loss
    assert blog.epochs[-1].valid_lwlrap == pytest.approx(blog.scores.lwlrap)
    with (blog.bundle / "epochs.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["valid_loss"]) for row in rows] == [epoch.valid_loss for epoch in blog.epochs]
    info = read_info(blog.bundle)
    assert (info.front_end.mel, info.front_end.image) == (None, IMAGE)
    assert (info.backbone.features, info.backbone.head) == ("last", "layer_norm")


def test_model_for_images_gives_the_probabilities_of_torch_and_refuses_sounds(blog, images, data):
    tagger = Tagger(blog.bundle)
    path = min(images.parent.glob("*.png"))
    pixels = np.asarray(Image.open(path), np.float32)[None] / 255
    expected = torch_probabilities(blog.bundle, Recipe(**BLOG), pixels)
    np.testing.assert_allclose(tagger.tag(path).probabilities, expected, atol=1e-4)
    with pytest.raises(DataError, match=r"trained on images with unknown mel settings"):
        tagger.tag(min(data.test.glob("*.wav")))


def test_unchanged_images_train_the_same_head_whether_features_are_cached_or_computed_in_every_epoch(
    images, tmp_path, monkeypatch
):
    """RandomCrop without padding changes nothing, and the order of the clips has no effect if all are in one step."""
    monkeypatch.setattr(image_transforms, "_PADDING", 0)
    recipe, messages = BLOG | {"batch_size": 40}, []
    cached = train(images, tmp_path / "cached", Recipe(**recipe))
    again = train(images, tmp_path / "again", Recipe(**recipe, augment={"image": "random_crop"}), log=messages.append)
    assert [epoch.valid_loss for epoch in again.epochs] == pytest.approx([epoch.valid_loss for epoch in cached.epochs])
    np.testing.assert_allclose(again.predictions, cached.predictions, atol=1e-5)
    first, second = (load_file(folder / "weights.safetensors") for folder in (cached.bundle, again.bundle))
    for name, values in first.items():
        torch.testing.assert_close(second[name], values, rtol=1e-4, atol=1e-5)
    assert any("processes every clip in every epoch" in message for message in messages)


@pytest.mark.slow
@pytest.mark.parametrize("image", ["random_crop", "rand_augment", "trivial_augment_wide"])
def test_transforms_of_the_blog_post_train_the_head_of_a_frozen_network(blog, images, tmp_path, image):
    result = train(images, tmp_path / "model", Recipe(**BLOG, augment={"image": image}))
    first, second = (load_file(folder / "weights.safetensors") for folder in (blog.bundle, result.bundle))
    is_equal = {name: torch.equal(values, second[name]) for name, values in first.items()}
    assert is_equal == {name: name.startswith("extractor.") for name in first}
    assert read_config(result.bundle / "recipe.toml", Recipe).mode == "frozen"


@pytest.mark.slow
def test_model_for_images_with_known_mel_settings_tags_sounds_too(images, data, tmp_path):
    recipe = Recipe(**BLOG | {"epochs": 1, "mel": MEL})
    tagger = Tagger(train(images, tmp_path / "model", recipe).bundle)
    clip = read_manifest(data.train_curated).clips[0]
    of_image = tagger.tag(images.parent / f"{clip.path.stem}.png").probabilities
    np.testing.assert_allclose(tagger.tag(clip.path).probabilities, of_image, atol=1e-5)


@pytest.mark.slow
def test_colour_images_are_used_unchanged(tmp_path, rng):
    for number in range(6):
        pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        pixels[..., number % 2] = 0
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    recipe = Recipe(
        backbone="timm/test_resnet", pretrained=False, image=ImageConfig(colormap="magma", height=32, width=32)
    )
    result = train(tmp_path, tmp_path.parent / "model of colours", recipe)
    assert read_info(result.bundle).front_end.n_channels == 3
    assert Tagger(result.bundle).tag(tmp_path / "a" / "0.png").top(1)[0].label == "a"


@pytest.mark.slow
def test_training_starts_from_an_earlier_bundle(blog, images, tmp_path):
    recipe = Recipe(**BLOG | {"init": blog.bundle, "epochs": 1, "optimizer": "sgd", "learning_rate": 1e-12})
    result = train(images, tmp_path / "model", recipe)
    assert result.epochs[0].valid_loss == pytest.approx(blog.epochs[-1].valid_loss, abs=1e-6)
    first, second = (load_file(folder / "weights.safetensors") for folder in (blog.bundle, result.bundle))
    torch.testing.assert_close(first, second)


def test_initial_model_with_other_labels_is_refused(blog, images, tmp_path):
    renamed = images.with_name("renamed.csv")
    renamed.write_text(images.read_text(encoding="utf-8").replace("Bell", "Gong"), encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"model: training cannot start from this model: its labels differ: Bell, Gong"
    ):
        train(renamed, tmp_path / "model", Recipe(**BLOG, init=blog.bundle))


@pytest.mark.parametrize("change", [{"features": "all"}, {"head": "linear"}], ids=str)
def test_initial_model_of_another_architecture_is_refused(blog, images, tmp_path, change):
    with pytest.raises(
        ConfigError, match="training cannot start from this model: it has backbone scratch, features last"
    ):
        train(images, tmp_path / "model", Recipe(**BLOG | change, init=blog.bundle))


def test_missing_initial_model_is_named(images, tmp_path):
    with pytest.raises(BundleError, match="nothing: not a tagger"):
        train(images, tmp_path / "model", Recipe(**BLOG, init=tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read: No such file"),
        (b"", "not the file that belongs to this model"),
        (b"cut short, as a copy may be", "not the file that belongs to this model"),
    ],
)
def test_initial_model_with_damaged_weights_is_named(blog, images, tmp_path, content, what):
    earlier = tmp_path / "earlier"
    shutil.copytree(blog.bundle, earlier)
    (earlier / "weights.safetensors").unlink()
    if content is not None:
        (earlier / "weights.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=rf"weights\.safetensors: {what}"):
        train(images, tmp_path / "model", Recipe(**BLOG, init=earlier))


@pytest.mark.slow
def test_epochs_with_folds_hold_out_each_clip_once_and_end_with_all_clips(table):
    path = table(columns=("fname", "labels", "fold"))
    recipe = Recipe(**FROZEN, optimizer="adamw", epochs=2, folds="given")
    lines = []
    result = train(path, path.parent / "model", recipe, log=lines.append)
    assert np.isfinite(result.predictions).all()
    epochs = [(epoch.part, epoch.epoch, epoch.valid_loss is None) for epoch in result.epochs]
    assert epochs == [(name, n, name == "all clips") for name in ("fold 0", "fold 1", "all clips") for n in (1, 2)]
    assert [line for line in lines if line in ("fold 0", "fold 1", "all clips")] == ["fold 0", "fold 1", "all clips"]


@pytest.mark.slow
def test_weights_of_two_members_are_fitted_on_held_out_clips(table):
    path = table()
    members = ({"features": "all"}, {"features": "last"})
    lines = []
    result = train(path, path.parent / "model", Recipe(**FROZEN, members=members, folds=2), log=lines.append)
    assert [member.name for member in result.members] == ["scratch frozen", "scratch frozen 2"]
    first = result.members[0]
    assert first.ensemble_score == first.score
    assert first.metric == "lwlrap"
    assert result.members[1].ensemble_score == pytest.approx(result.scores.lwlrap)
    in_use = [member for member in result.members if member.weight]
    assert len(read_info(result.bundle).members) == (len(in_use) if len(in_use) > 1 else 0)
    assert any(line.startswith("weights: scratch frozen ") for line in lines)
    row = table.rows[0]
    tagged = Tagger(result.bundle).tag(path.parent / row["fname"])
    assert tagged.top(1)[0].label == row["labels"]


TUNED = {**FROZEN, "mode": "finetune", "epochs": 1, "batch_size": 4, "finetune": {"crop_seconds": 0.5}}


def test_float16_without_a_gpu_is_refused_before_any_work(table, tmp_path):
    path = table()
    recipe = Recipe(**TUNED | {"finetune": {"precision": "float16"}})
    with pytest.raises(ConfigError, match=r"finetune\.precision = float16 needs a GPU"):
        train(path, path.parent / "model", recipe, data=DataOptions(cache=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_tensorboard_without_epochs_is_refused_before_any_work(table, tmp_path):
    path, options = table(), DataOptions(cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match="TensorBoard shows epochs; leave out --tensorboard, use an optimizer other"):
        train(path, path.parent / "model", Recipe(**FROZEN), tensorboard=tmp_path / "logs", data=options)
    assert not list(tmp_path.glob("[cl]*"))


def test_budget_that_is_too_short_for_any_member_is_an_error(table):
    path = table()
    with pytest.raises(ConfigError, match=r"budget = 0.05 s is too short to train any member; increase it"):
        train(path, path.parent / "model", Recipe(**TUNED, budget=0.05))


@pytest.mark.slow
def test_members_that_do_not_fit_the_budget_are_left_out(table):
    path = table()
    members = ({}, {**TUNED, "mel": MEL.model_dump()})
    lines = []
    recipe = Recipe(**FROZEN, members=members, folds=2, budget=0.05)
    result = train(path, path.parent / "model", recipe, log=lines.append)
    assert [member.name for member in result.members] == ["scratch frozen"]
    assert "scratch fine-tuned: left out, because the time is too short for it" in lines


def test_first_fine_tuning_is_the_first_fold_of_the_first_fine_tuned_member(table):
    """As `train` would start it: with the clips of the first fold held out."""
    manifest = read_manifest(table(columns=("fname", "labels", "fold")))
    members = ({}, {**TUNED, "mel": MEL.model_dump(), "batch_size": 5})
    recipe = Recipe(**FROZEN, members=members, folds="given")
    training = first_fine_tuning(manifest, None, recipe, Callbacks(), DataOptions(workers=1))
    assert training.batches.n_clips == 6
    assert training.batches.n_steps == 2
    assert len(list(training.losses_at([1e-4, 1e-3, 1e-2]))) == 3


def test_without_a_fine_tuned_member_there_is_no_first_fine_tuning(table):
    with pytest.raises(ConfigError, match=r"this recipe fine-tunes no network \(.*\); set --mode finetune"):
        first_fine_tuning(read_manifest(table()), None, Recipe(**FROZEN), Callbacks(), DataOptions(workers=1))
