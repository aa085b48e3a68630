"""Options of the command line and of --config files reach training and the other commands."""

import importlib

import pytest
import tomli_w

import spectag
from helpers.command import write_manifest
from helpers.configs import read_config
from helpers.paths import PROJECT
from spectag.audio.spectrogram_image import read_png
from spectag.config.base import ImageConfig, MelConfig, to_toml
from spectag.config.recipe import Recipe
from spectag.errors import DataError

MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=32, f_max=8000.0)
SCRATCH = Recipe(backbone="scratch", mel=MEL, folds=2)

CHANGED = {
    "mode": "finetune",
    "backbone": "efficientnet_lite0",
    "pretrained": False,
    "features": "last",
    "head": "layer_norm",
    "optimizer": "sgd",
    "weight_decay": 0.125,
    "learning_rate": 1e-05,
    "momentum": 0.5,
    "epochs": 3,
    "batch_size": 7,
    "folds": "none",
    "validation_fraction": 0.25,
    "validation_split": "random",
    "find_shared_audio": False,
    "init": "früher",
    "calibration": "platt",
    "seed": 5,
    "channel": 2,
    "mel": {
        "sample_rate": 44_100,
        "n_fft": 2560,
        "win_length": 2000,
        "hop_length": 300,
        "window": "hann_symmetric",
        "pad_mode": "reflect",
        "pre_emphasis": 0.97,
        "n_mels": 64,
        "f_min": 0.0,
        "f_max": 22_050.0,
        "mel_scale": "htk",
        "mel_norm": "none",
        "log": "ln",
        "amin": 1e-5,
        "ref": "max",
        "top_db": "none",
        "mean": -4.5,
        "std": 5.0,
    },
    "image": {"colormap": "magma", "height": 224, "width": 112, "low": -80.0, "high": 0.5},
    "final_model": "ensemble",
    "budget": 90.0,
    "augment": {
        "mix": 0.25,
        "mix_db": 3.0,
        "mixup": 0.5,
        "mixup_alpha": 0.5,
        "gain_db": 1.0,
        "roll": 0.5,
        "spec_augment": 0.5,
        "n_masks": 1,
        "time_mask": 0.25,
        "band_mask": 0.25,
        "warp": 0.5,
        "warp_range": 0.25,
        "resized_crop": 0.5,
        "resized_crop_scale": 0.5,
        "background": "Lärm",
        "background_fraction": 0.25,
        "background_db": 3.0,
        "image": "rand_augment",
        "disable_last_fraction": 0.5,
    },
    "loss": {
        "kind": "focal",
        "gamma": 1.0,
        "gamma_positive": 1.0,
        "gamma_negative": 2.0,
        "margin": 0.25,
        "beta": 0.5,
        "q": 0.5,
        "label_smoothing": 0.125,
        "class_weights": "balanced",
    },
    "finetune": {
        "linear_probe_first": False,
        "unfreeze": 3,
        "layer_decay": 0.5,
        "head_lr_multiplier": 2.0,
        "schedule": "one_cycle",
        "warmup_fraction": 0.25,
        "weight_averaging": "swa",
        "ema_decay": 0.5,
        "clip_norm": "none",
        "batch_norm": "trained",
        "crop_seconds": 2.0,
        "short_clips": "wrap",
        "precision": "bfloat16",
        "compile": True,
        "patience": 3,
        "checkpoint_steps": 7,
    },
    "noisy_labels": {"method": "select", "per_label": 3, "weight": 0.5, "loss": "lq", "separate_head": True},
}
"""A value other than the default for every setting, without those that only frozen networks and ensembles have."""

OPTIONS = CHANGED | {
    "backbone": "scratch",
    "pretrained": True,
    "features": "all",
    "head": "linear",
    "optimizer": "adam",
    "weight_decay": "none",
    "learning_rate": 0.5,
    "momentum": 0.25,
    "epochs": 9,
    "batch_size": 8,
    "folds": "auto",
    "validation_fraction": 0.5,
    "validation_split": "stratified",
    "find_shared_audio": True,
    "init": "anderswo",
    "calibration": "isotonic",
    "seed": 6,
    "mel": MelConfig(sample_rate=48_000, ref=2.0).model_dump(),
    "image": {"colormap": "grey", "height": 3, "width": 4, "low": -9.0, "high": 9.0},
    "final_model": "refit",
    "budget": 5.0,
    "augment": CHANGED["augment"] | {"mix": 0.125, "background": "Wind"},
    "loss": CHANGED["loss"] | {"kind": "lsep"},
    "finetune": CHANGED["finetune"] | {"linear_probe_first": True, "unfreeze": "all", "clip_norm": 2.0},
    "noisy_labels": CHANGED["noisy_labels"] | {"separate_head": False},
}


@pytest.fixture
def recipe_of(run, monkeypatch):
    """Runs `spectag train` with options, and returns the recipe that reaches training."""
    module = importlib.import_module("spectag.training.pipeline")
    recipes = []

    def record(manifest, output, recipe, **options):
        recipes.append(recipe)
        raise DataError("recorded")

    monkeypatch.setattr(module, "train", record)
    monkeypatch.setattr("spectag.data.manifest.read_manifest", lambda path, **_: path)

    def call(*arguments):
        done = run("train", "a.csv", "-o", "m", *arguments)
        assert done.err == "spectag: recorded\n"
        return recipes.pop()

    return call


def as_options(values, prefix="--"):
    for key, value in values.items():
        name = f"{prefix}{key.replace('_', '-')}"
        if isinstance(value, dict):
            yield from as_options(value, f"{name}.")
        elif isinstance(value, bool):
            yield name if value else f"{prefix}no-{key.replace('_', '-')}"
        else:
            yield f"{name}={'none' if value is None else value}"


def write_settings(path, values):
    path.write_text(tomli_w.dumps(values), encoding="utf-8")
    return path


def test_every_setting_of_a_file_reaches_training(recipe_of, tmp_path):
    expected, default = Recipe.model_validate(CHANGED), Recipe(mel=MelConfig(), image=ImageConfig())
    tables = ("mel", "image", "augment", "loss", "finetune", "noisy_labels")
    pairs = [(expected, default)] + [(getattr(expected, table), getattr(default, table)) for table in tables]
    for changed, unchanged in pairs:
        same = {key for key in type(unchanged).model_fields if getattr(changed, key) == getattr(unchanged, key)}
        only_frozen = {"n_mixed_clips", "classifier", "name_prior", "label_map", "clip_windows", "extend"}
        assert same <= only_frozen | {"members", "leave_out"}, (
            f"in CHANGED, give {same} values other than their defaults"
        )
    assert recipe_of("--config", write_settings(tmp_path / "r.toml", CHANGED)) == expected


def test_every_setting_has_an_option_that_overrides_the_file(recipe_of, tmp_path):
    expected = Recipe.model_validate(OPTIONS)
    assert recipe_of(*as_options(OPTIONS)) == expected
    assert recipe_of("--config", write_settings(tmp_path / "r.toml", CHANGED), *as_options(OPTIONS)) == expected


def test_option_changes_one_setting_and_keeps_the_others_of_the_file(recipe_of, tmp_path):
    path = write_settings(tmp_path / "r.toml", CHANGED)
    recipe = recipe_of("--epochs", "9", "--mel.n-mels=32", "--config", path)
    expected = Recipe.model_validate(CHANGED)
    assert recipe == expected.model_copy(update={"epochs": 9, "mel": expected.mel.model_copy(update={"n_mels": 32})})


def test_settings_of_one_call_do_not_affect_the_next(recipe_of, tmp_path):
    recipe_of("--config", write_settings(tmp_path / "r.toml", CHANGED))
    assert recipe_of() == Recipe()


def test_mel_settings_record_which_are_set_so_that_the_backbone_decides_the_rest(recipe_of, tmp_path):
    path = write_settings(tmp_path / "r.toml", {"mel": {"n_mels": 64, "win_length": "none"}})
    assert recipe_of("--config", path).mel.model_fields_set == {"n_mels", "win_length"}
    assert recipe_of("--mel.top-db", "none").mel.model_fields_set == {"top_db"}


@pytest.mark.parametrize("recipe", [Recipe(), SCRATCH, Recipe.model_validate(CHANGED)])
def test_recipe_that_a_run_writes_reads_back_as_an_equal_recipe(recipe_of, tmp_path, recipe):
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert recipe_of("--config", tmp_path / "recipe.toml") == recipe


def test_word_none_is_accepted_for_every_optional_setting(recipe_of, tmp_path):
    """mel = "none" was once rejected because it is not a table."""
    nothing = dict.fromkeys(("weight_decay", "validation_fraction", "init", "mel", "image"), "none")
    assert recipe_of("--config", write_settings(tmp_path / "r.toml", nothing)) == Recipe()


def test_recipes_of_the_project_reach_training_unchanged(recipe_of):
    for path in PROJECT.glob("configs/*.toml"):
        assert recipe_of("--config", path) == read_config(path, Recipe)


def test_members_and_leave_out_are_read_from_a_file(recipe_of, tmp_path):
    values = {
        "leave_out": ["a", "b.wav"],
        "members": [{"n_mixed_clips": 5}, {"mode": "finetune", "augment": {"spec_augment": 0.5}}],
    }
    path = write_settings(tmp_path / "r.toml", values)
    assert recipe_of("--config", path) == recipe_of("--recipe", path) == Recipe.model_validate(values)


def test_option_that_every_member_overrides_is_rejected(run, tmp_path):
    path = write_settings(tmp_path / "r.toml", {"members": [{"n_mixed_clips": 5}, {"features": "last"}]})
    done = run("train", "a.csv", "-o", "m", "--recipe", path, "--n-mixed-clips", "7", "--seed", "1")
    assert done.status == 1
    assert "each member of the recipe sets n_mixed_clips itself, so the option has no effect" in done.err


def test_unknown_recipe_is_reported_with_the_known_ones(run):
    done = run("train", "a.csv", "-o", "m", "--recipe", "bets")
    assert done.status == 1
    assert "no recipe 'bets'; did you mean 'best'?" in done.err
    assert "the recipes of spectag are best, blog, fsdkaggle2019, quick" in done.err


def test_table_with_the_name_of_a_command_reaches_both(recipe_of, run, tmp_path, monkeypatch):
    """cyclopts once took [augment] for the options of the command augment, and silently ignored it."""
    path = write_settings(tmp_path / "r.toml", {"mode": "finetune", "augment": {"spec_augment": 1.0}})
    assert recipe_of("--config", path).augment.spec_augment == 1.0
    module = importlib.import_module("spectag.reporting.augmentation_page")
    configs = []
    monkeypatch.setattr("spectag.data.manifest.read_manifest", lambda *_, **__: None)
    monkeypatch.setattr(module, "augment", lambda manifest, output, config, **_: configs.append(config) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("augment", "a.csv", "-o", tmp_path / "page.html", "--config", path)
    assert configs[0].spec_augment == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "epoch: unknown setting; did you mean 'epochs'?"),
        ("[mel]\nn_mel = 3", "mel.n_mel: unknown setting; did you mean 'n_mels'?"),
        ("[prepare]\nbackbone = 'scratch'", "prepare: unknown setting"),
        ("epochs = 'many'", "epochs: expected a whole number"),
        ("epochs = ", "not a TOML file"),
    ],
)
@pytest.mark.parametrize("command", ["train", "prepare", "split"])
def test_error_in_a_settings_file_names_the_file_and_the_key(run, tmp_path, command, text, words):
    (tmp_path / "r.toml").write_text(text)
    output = ("-o", "m") if command == "train" else ()
    done = run(command, "a.csv", *output, "--config", tmp_path / "r.toml")
    assert done.status == 1
    assert f"r.toml: {words}" in done.err


def test_missing_settings_file_is_reported(run, tmp_path):
    done = run("train", "a.csv", "-o", "m", "--config", tmp_path / "gone.toml")
    assert done == (1, "", f"spectag: {tmp_path / 'gone.toml'}: can't read the settings: No such file or directory\n")


def test_prepare_reads_mel_and_image_settings_from_the_file(run, manifest, tmp_path):
    image = ImageConfig(width=10, height=20)
    (tmp_path / "r.toml").write_text(to_toml(SCRATCH.model_copy(update={"image": image})), encoding="utf-8")
    settings = ("--config", tmp_path / "r.toml", "--cache", tmp_path / "bank")
    done = run("prepare", manifest, *settings, "--png", tmp_path / "png")
    expected = spectag.prepare(manifest, cache=tmp_path / "bank", backbone="scratch", mel=MEL)
    assert expected.report.n_new == 0
    assert done.status == 0
    assert run("prepare", manifest, *settings).out == f"{expected.cache}\n"
    assert read_png(tmp_path / "png" / "low 00.png").shape == (20, 10)


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "daten")


@pytest.mark.parametrize("command", [("split",), ("inspect",), ("show", "-o", "x.png"), ("prepare", "--cache", "b")])
@pytest.mark.parametrize("recipe", [Recipe(backbone="scratch"), SCRATCH])
def test_other_commands_accept_the_recipe_of_a_run(run, manifest, tmp_path, monkeypatch, command, recipe):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert run(command[0], manifest, *command[1:], "--config", "recipe.toml").status == 0


def test_recipe_of_the_project_can_be_read_by_its_name(run, manifest, tmp_path):
    """The images of the blog post in the size that its figures had."""
    images = ("--png", tmp_path / "png", "--image.height", 1478, "--image.width", 1984)
    done = run("prepare", manifest, "--config", "blog", "--cache", tmp_path / "bank", *images)
    assert done.out == f"{tmp_path / 'png' / 'clips_image_labels.csv'}\n"
    assert read_png(tmp_path / "png" / "low 00.png").shape == (1478, 1984, 3)
    assert "the recipes of spectag are best, blog" in run("prepare", manifest, "--config", "blogg").err
