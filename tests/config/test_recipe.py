"""Recipes: validation, members, options, and writing and reading."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.configs import read_config
from helpers.paths import PROJECT
from spectag.config.backbones import backbone_spec, resolve_mel
from spectag.config.base import MelConfig, parse_config, to_toml
from spectag.config.recipe import Recipe, apply_flags, merge_settings, recipe_file
from spectag.config.training import AugmentConfig, FinetuneConfig, LossConfig, NoisyConfig
from spectag.errors import ConfigError

CONFIGS = sorted((PROJECT / "configs").glob("*.toml"))


def parse(**values):
    return parse_config(values, Recipe, source="here")


def read_back(recipe):
    return parse_config(tomllib.loads(to_toml(recipe)), Recipe, source="here")


def any_of(**settings):
    """Any subset of the settings."""
    return st.fixed_dictionaries({}, optional=settings)


AUGMENT = any_of(
    mix=st.floats(0, 1),
    warp_range=st.floats(0.01, 0.99),
    n_masks=st.integers(1, 9),
    image=st.sampled_from(["none", "random_crop", "rand_augment"]),
    background=st.none() | st.just(Path("/a b/bruit")),
)
LOSS = any_of(kind=st.sampled_from(["bce", "lsep", "lq"]), gamma=st.floats(0, 9), class_weights=st.just("balanced"))
FINETUNE = any_of(
    unfreeze=st.just("all") | st.integers(0, 30),
    clip_norm=st.none() | st.floats(0.1, 9),
    crop_seconds=st.none() | st.floats(0.1, 9),
    weight_averaging=st.sampled_from(["ema", "swa", "none"]),
    patience=st.none() | st.integers(1, 9),
    compile=st.booleans(),
)
NOISY = any_of(method=st.sampled_from(["select", "relabel"]), per_label=st.none() | st.integers(1, 99))

STEPS = {
    "head": st.sampled_from(["linear", "layer_norm"]),
    "learning_rate": st.floats(1e-9, 10),
    "momentum": st.floats(0, 0.99),
    "epochs": st.integers(1, 1000),
    "batch_size": st.integers(1, 4096),
    "loss": LOSS,
}
INIT = {"init": st.none() | st.sampled_from(["model", "/a b/modèle"]).map(Path)}
MIXED = st.just({}) | st.fixed_dictionaries({"n_mixed_clips": st.integers(1, 9999), "augment": AUGMENT})
LBFGS = st.fixed_dictionaries(
    {"optimizer": st.just("lbfgs"), "head": st.just("linear"), "weight_decay": st.none() | st.floats(1e-9, 10)}
)
IMAGES = st.fixed_dictionaries({"augment": any_of(image=st.sampled_from(["random_crop", "trivial_augment_wide"]))})
GRADIENT = st.fixed_dictionaries(
    STEPS | {"optimizer": st.sampled_from(["adam", "adamw", "sgd"]), "weight_decay": st.none() | st.floats(0, 10)}
)
FROZEN = st.builds(lambda fitting, mixed: {"mode": "frozen"} | fitting | mixed, LBFGS | GRADIENT, MIXED) | st.builds(
    lambda fitting, images: {"mode": "frozen"} | fitting | images, GRADIENT, IMAGES
)
FINETUNED = st.fixed_dictionaries(
    {"mode": st.just("finetune")},
    optional=STEPS
    | {
        "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
        "weight_decay": st.none() | st.just("none") | st.floats(0, 10),
        "augment": AUGMENT,
        "finetune": FINETUNE,
    },
)
FOLDS = st.fixed_dictionaries({"folds": st.integers(2, 20) | st.sampled_from(["auto", "given", "none"])})
HOLDOUT = st.fixed_dictionaries(
    {
        "validation_fraction": st.floats(0.01, 0.99),
        "validation_split": st.sampled_from(["stratified", "random"]),
        "folds": st.sampled_from(["auto", "none"]),
    }
)
OTHERS = st.fixed_dictionaries(
    {
        "backbone": st.sampled_from(["mn04_audioset", "timm/resnet18", "none"]),
        "pretrained": st.booleans(),
        "features": st.sampled_from(["all", "last"]),
        "seed": st.integers(0, 2**32 - 1),
        "final_model": st.sampled_from(["refit", "average", "ensemble"]),
        "budget": st.none() | st.floats(1, 1e6) | st.integers(1, 999).map(lambda minutes: f"{minutes}m"),
        "mel": st.none() | st.just({"f_max": 14_000.0, "top_db": None}),
        "image": st.none() | st.just({"colormap": "magma", "height": 224, "low": None}),
        "noisy_labels": NOISY,
        "leave_out": st.lists(st.sampled_from(["f76181c4", "a b.wav"]), max_size=2),
    }
)
MEMBERS = st.lists(
    st.builds(
        lambda training, others: training | others,
        FROZEN | FINETUNED,
        any_of(
            backbone=st.just("scratch"),
            seed=st.integers(0, 9),
            mel=st.just({"n_mels": 64}),
            final_model=st.just("ensemble"),
        ),
    ),
    max_size=3,
)


@given(training=FROZEN | FINETUNED, validation=FOLDS | HOLDOUT, others=OTHERS, init=st.fixed_dictionaries(INIT))
def test_recipe_is_equal_after_dict_and_toml(training, validation, others, init):
    if init["init"] and training.get("optimizer") != "lbfgs":
        training = training | init
        validation = validation if validation["folds"] == "none" else {"validation_fraction": 0.25}
    recipe = Recipe(**training, **validation, **others)
    assert Recipe(**recipe.model_dump()) == recipe
    assert read_back(recipe) == recipe


@given(shared=FROZEN | FINETUNED, members=MEMBERS, validation=FOLDS | HOLDOUT, others=OTHERS)
def test_recipe_with_members_is_equal_after_toml(shared, members, validation, others):
    shared.pop("head", None)  # lbfgs supports one head only
    members = [{name: value for name, value in member.items() if name != "head"} for member in members]
    recipe = Recipe(**shared, **validation, **others, members=members)
    again = read_back(recipe)
    assert again == recipe
    assert again.member_recipes() == recipe.member_recipes()
    assert Recipe(**recipe.model_dump()) == recipe


def test_default_backbone_exists():
    assert backbone_spec(Recipe().backbone).name == Recipe().backbone


def test_unset_mel_settings_stay_unset_after_toml():
    recipe = Recipe(backbone="efficientnet_lite0", mel=MelConfig(f_max=14_000.0))
    again = resolve_mel(recipe.backbone, read_back(recipe).mel)
    assert again == resolve_mel(recipe.backbone, recipe.mel)
    assert again.n_mels == backbone_spec("efficientnet_lite0").mel.n_mels


@pytest.mark.parametrize("folds", ["auto", "given", "none", 5])
def test_all_values_of_folds_are_valid(folds):
    assert parse(folds=folds).folds == folds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"head": "layer_norm"},
            "optimizer lbfgs is for the linear head, got head layer_norm; use adam or sgd",
        ),
        ({"init": "model"}, "optimizer lbfgs finds the same head from any start, so init has no effect"),
        ({"optimizer": "adam", "init": "model"}, "the head of init was trained on the clips of every fold"),
        ({"epochs": 3, "batch_size": 8}, "epochs, batch_size: no effect on optimizer lbfgs; use adam or sgd"),
        ({"weight_decay": 0}, "optimizer lbfgs needs a weight_decay above 0"),
        ({"weight_decay": 0.1, "classifier": "lda"}, "weight_decay has no effect on classifier lda, only on logistic"),
        ({"optimizer": "adam", "classifier": "logistic"}, "classifier: no effect on optimizer adam, only on lbfgs"),
        ({"mode": "finetune", "name_prior": False}, "name_prior: no effect on optimizer adamw, only on lbfgs"),
        ({"validation_split": "random"}, r"validation_split = random needs validation_fraction, such as 0\.25"),
        (
            {"validation_fraction": 0.25, "folds": 5},
            "validation_fraction and folds = 5 contradict each other; leave one out",
        ),
        (
            {"validation_fraction": 0.25, "folds": "given"},
            "validation_fraction and folds = given contradict each other",
        ),
        ({"folds": 1}, r"folds: .*greater than or equal to 2 \(got 1\), or: .*'none'"),
        ({"folds": -3}, "folds: .*greater than or equal to 2 .*got -3"),
        ({"folds": "all"}, "folds: .*'auto', 'given' or 'none'"),
        ({"validation_fraction": 1.0}, "validation_fraction: .*less than 1"),
        ({"validation_fraction": 0}, "validation_fraction: .*greater than 0"),
        ({"optimizer": "adma"}, "optimizer: .*'lbfgs', 'adam', 'adamw' or 'sgd'.*got 'adma'"),
        ({"weight_decay": -1}, "weight_decay: .*greater than or equal to 0"),
        ({"learning_rate": 0}, "learning_rate: .*greater than 0"),
        ({"epochs": 0}, "epochs: .*greater than 0"),
        ({"mel": {"n_mels": 0}}, r"mel\.n_mels: .*greater than 0"),
        ({"mel": {"f_max": 20_000.0}}, "mel: need f_min < f_max <= sample_rate / 2 = 16000 Hz"),
        ({"bakbone": "scratch"}, r"bakbone: unknown setting; did you mean 'backbone'\?"),
        ({"mode": "fine-tune"}, "mode: .*'frozen' or 'finetune'.*got 'fine-tune'"),
        ({"mode": "finetune", "optimizer": "lbfgs"}, "optimizer lbfgs is for frozen networks; fine-tune"),
        (
            {"mode": "finetune", "n_mixed_clips": 10},
            r"n_mixed_clips is for frozen networks; augment\.mix",
        ),
        ({"mode": "finetune", "init": "model"}, "the head of init was trained on the clips of every fold"),
        ({"n_mixed_clips": -1}, "n_mixed_clips: .*greater than or equal to 0"),
        ({"final_model": "all"}, "final_model: .*'refit', 'average' or 'ensemble'"),
        (
            {"finetune": {"warmup_fraction": 0.2}},
            "finetune settings have no effect .*; add --mode finetune",
        ),
        (
            {"augment": {"mix": 0.2}},
            "augment settings need mixed clips in a frozen network; add --n-mixed-clips",
        ),
        ({"loss": {"kind": "lsep"}}, "optimizer lbfgs supports the loss bce only; use adam or --mode finetune"),
        ({"finetune": {"unfreeze": -1}}, r"finetune\.unfreeze: .*greater than or equal to 0.*, or: .*'all'"),
        (
            {"augment": {"image": "random_crop"}},
            "augment settings .* only augment.image has an effect, with --optimizer adam",
        ),
        ({"optimizer": "sgd", "augment": {"image": "random_crop", "mix": 0}}, "augment settings .* only augment.image"),
        ({"finetune": {"layer_decay": 1.5}}, r"finetune\.layer_decay: .*less than or equal to 1"),
        ({"augment": {"mixx": 1}}, r"augment\.mixx: unknown setting; did you mean 'mix'\?"),
        ({"noisy_labels": {"weight": 0}}, r"noisy_labels\.weight: .*greater than 0"),
        ({"loss": {"q": float("nan")}}, r"loss\.q: .*finite number"),
    ],
)
def test_contradicting_settings_raise_an_error_with_the_reason(values, message):
    with pytest.raises(ConfigError, match=f"^here: {message}"):
        parse(**values)


# ------------------------------------------------------------------------------------------------ modes


@pytest.mark.parametrize(
    ("values", "classifier"),
    [
        ({"weight_decay": 0.1}, "logistic"),
        ({"weight_decay": None}, "auto"),
        ({"weight_decay": "none"}, "auto"),
        ({"weight_decay": 0.1, "optimizer": "adam"}, "auto"),
        ({"weight_decay": 0.1, "mode": "finetune"}, "auto"),
    ],
)
def test_weight_decay_of_lbfgs_implies_logistic_regression(values, classifier):
    recipe = parse(**values)
    assert recipe.classifier == read_back(recipe).classifier == classifier


def test_each_member_is_logistic_regression_if_weight_decay_has_an_effect_on_it():
    members = ({}, {"classifier": "lda"}, {"optimizer": "adam"})
    recipes = parse(weight_decay=0.1, members=members).member_recipes()
    assert [(member.classifier, member.weight_decay) for member in recipes] == [
        ("logistic", 0.1),
        ("lda", None),
        ("auto", 0.1),
    ]


@pytest.mark.parametrize("unset", [{}, {"weight_decay": None}, {"weight_decay": "none"}], ids=str)
def test_fine_tuning_has_its_own_defaults(unset):
    recipe = parse(mode="finetune", **unset)
    assert (recipe.optimizer, recipe.batch_size, recipe.weight_decay, recipe.final_model) == (
        "adamw",
        32,
        1e-4,
        "average",
    )


def test_settings_override_the_defaults_of_fine_tuning():
    recipe = parse(mode="finetune", optimizer="sgd", batch_size=64, weight_decay=0, final_model="refit")
    assert (recipe.optimizer, recipe.batch_size, recipe.weight_decay, recipe.final_model) == ("sgd", 64, 0, "refit")


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1h0m5s", 3605),
        ("1.5h", 5400),
        ("45", 45),
        (45, 45),
        (0.5, 0.5),
        (" 30m ", 1800),
        ("none", None),
        (None, None),
    ],
)
def test_budget_is_parsed_as_a_duration(duration, seconds):
    assert parse(budget=duration).budget == seconds


@pytest.mark.parametrize("duration", ["30x", "", "m", "1h30", "30m1h", "-5m", "1,5h", "half an hour"])
def test_invalid_budget_raises_an_error_with_examples(duration):
    with pytest.raises(ConfigError, match=r"^here: budget: expected a duration such as 90s, 30m or 1h30m, got '"):
        parse(budget=duration)


@pytest.mark.parametrize("duration", [0, "0m", -3])
def test_budget_must_be_positive(duration):
    with pytest.raises(ConfigError, match=r"^here: budget: .*greater than 0"):
        parse(budget=duration)


# ------------------------------------------------------------------------------------------------ members


def test_recipe_without_members_is_its_own_only_member():
    recipe = Recipe(seed=3)
    assert recipe.member_recipes() == (recipe,)


def test_members_override_shared_settings_and_single_keys_of_tables():
    first, second = parse(
        features="last",
        folds=3,
        mode="finetune",
        augment={"mix": 0.25, "warp": 0.5},
        mel={"n_mels": 64, "f_max": 8000.0},
        members=[{"seed": 1, "augment": {"warp": 0.75}, "mel": {"n_mels": 32}}, {"features": "all"}],
    ).member_recipes()
    assert (first.features, second.features) == ("last", "all")
    assert (first.seed, second.seed) == (1, 0)
    assert first.folds == second.folds == 3
    assert first.augment == AugmentConfig(mix=0.25, warp=0.75)
    assert second.augment == AugmentConfig(mix=0.25, warp=0.5)
    assert first.mel.model_dump(exclude_unset=True) == {"n_mels": 32, "f_max": 8000.0}
    assert not first.members


@pytest.mark.parametrize("shared", ["frozen", "finetune"])
def test_members_have_the_defaults_of_their_own_mode(shared):
    frozen, fine_tuned = parse(mode=shared, members=[{"mode": "frozen"}, {"mode": "finetune"}]).member_recipes()
    assert frozen == Recipe()
    assert fine_tuned == Recipe(mode="finetune")


def test_members_inherit_the_shared_settings_that_have_an_effect_on_them():
    lbfgs, adam, fine_tuned, mixed = parse(
        epochs=3,
        batch_size=16,
        finetune={"warmup_fraction": 0.2},
        loss={"kind": "focal"},
        augment={"mix": 0.25},
        members=[{}, {"optimizer": "adam"}, {"mode": "finetune"}, {"n_mixed_clips": 9}],
    ).member_recipes()
    assert lbfgs == Recipe()
    assert adam == Recipe(optimizer="adam", epochs=3, batch_size=16, loss=LossConfig(kind="focal"))
    assert fine_tuned == Recipe(
        mode="finetune",
        epochs=3,
        batch_size=16,
        finetune=FinetuneConfig(warmup_fraction=0.2),
        loss=LossConfig(kind="focal"),
        augment=AugmentConfig(mix=0.25),
    )
    assert mixed == Recipe(n_mixed_clips=9, augment=AugmentConfig(mix=0.25))


def test_only_frozen_members_inherit_n_mixed_clips():
    frozen, fine_tuned = parse(n_mixed_clips=7, members=[{}, {"mode": "finetune"}]).member_recipes()
    assert (frozen.n_mixed_clips, fine_tuned.n_mixed_clips) == (7, 0)


def test_members_from_python_equal_members_from_a_file():
    member = {"mode": "finetune", "weight_decay": None, "augment": AugmentConfig(background=Path("bruit"), warp=0.5)}
    recipe = Recipe(members=(member,), noisy_labels=NoisyConfig(per_label=3))
    again = read_back(recipe)
    assert again == recipe
    (only,) = again.member_recipes()
    assert only.augment == AugmentConfig(background=Path("bruit"), warp=0.5)
    assert only.noisy_labels.per_label == 3


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ({"folds": 3}, "folds can't differ between members; set it for all"),
        ({"budget": "3m", "init": "x"}, "budget, init can't differ between members"),
        ({"members": []}, "members can't differ between members"),
        ({"leave_out": ["a"]}, "leave_out can't differ between members"),
        ({"bakbone": "scratch"}, r"bakbone: unknown setting; did you mean 'backbone'\?"),
        ({"epochs": 3}, "epochs: no effect on optimizer lbfgs"),
        ({"augment": {"mix": 2}}, r"augment\.mix: .*less than or equal to 1"),
        ({"finetune": {"warmup_fraction": 0.2}}, "finetune settings have no effect on a frozen network"),
        ({"mode": "finetune", "n_mixed_clips": 3}, "n_mixed_clips is for frozen networks"),
    ],
)
def test_invalid_member_raises_an_error_with_its_number(member, message):
    with pytest.raises(ConfigError, match=f"^here: member 2: {message}"):
        parse(members=[{}, member])


def test_merged_settings_override_single_keys_of_tables():
    shared = {"a": 1, "t": {"x": 1, "y": 2}, "u": {"z": 3}}
    own = {"a": 2, "t": {"y": 3}, "v": {"w": 4}}
    assert merge_settings(shared, own) == {"a": 2, "t": {"x": 1, "y": 3}, "u": {"z": 3}, "v": {"w": 4}}
    assert shared["t"] == {"x": 1, "y": 2}


# ------------------------------------------------------------------------------------------------ files


def test_recipe_is_found_by_name_and_by_path(tmp_path):
    assert read_config(recipe_file("quick"), Recipe) == Recipe()
    path = tmp_path / "own.toml"
    path.write_text("seed = 3")
    assert recipe_file(str(path)) == path


def test_blog_recipe_has_the_batch_size_and_the_plain_sgd_of_the_post():
    """PyTorch's SGD has no momentum and no weight decay unless they are set."""
    recipe = read_config(recipe_file("blog"), Recipe)
    assert (recipe.batch_size, recipe.momentum, recipe.weight_decay) == (32, 0, None)


@pytest.mark.parametrize("weight_decay", [None, 0.1])
def test_frozen_network_with_augmented_images_is_fine_tuned_without_unfreezing_a_stage(weight_decay):
    augment = {"image": "rand_augment"}
    values = {"optimizer": "sgd", "epochs": 7, "head": "layer_norm", "weight_decay": weight_decay, "augment": augment}
    (trained,) = parse(**values, mel={"n_mels": 32}, folds=3).member_recipes()
    assert (trained.mode, trained.finetune.unfreeze, trained.weight_decay) == ("finetune", 0, weight_decay or 0)
    assert (trained.optimizer, trained.epochs, trained.batch_size, trained.head) == ("sgd", 7, 64, "layer_norm")
    assert trained.augment == AugmentConfig(image="rand_augment", mix=0, gain_db=0, disable_last_fraction=0)
    assert (trained.final_model, trained.folds, trained.mel) == ("refit", 3, MelConfig(n_mels=32))
    assert trained.mel.model_fields_set == {"n_mels"}
    first, second = parse(members=[values, {"seed": 1}], mel={"n_mels": 32}).member_recipes()
    assert first.finetune == trained.finetune
    assert second.mode == "frozen"


def test_unknown_recipe_raises_an_error_that_lists_the_recipes():
    with pytest.raises(ConfigError, match=r"no recipe 'bets'; did you mean 'best'\?.* best, .*quick"):
        recipe_file("bets")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_recipes_of_the_project_are_valid(path):
    for recipe in read_config(path, Recipe).member_recipes():
        assert resolve_mel(recipe.backbone, recipe.mel).n_mels > 0


def test_flags_apply_to_every_member_on_which_they_have_an_effect():
    """Regression: a flag equal to the default of frozen mode did not reach a fine-tuned member."""
    file = {"members": [{"n_mixed_clips": 5}, {"mode": "finetune", "augment": {"warp": 0.5}}]}
    values = apply_flags(file, {"batch_size": 64, "seed": 3, "augment": {"mix": 0.25}, "finetune": {"patience": 2}})
    frozen, tuned = Recipe.model_validate(values).member_recipes()
    assert (frozen.batch_size, tuned.batch_size) == (64, 64)
    assert (frozen.seed, tuned.seed) == (3, 3)
    assert (frozen.augment.mix, tuned.augment.mix, tuned.augment.warp) == (0.25, 0.25, 0.5)
    assert tuned.finetune.patience == 2
    assert apply_flags({"epochs": 3}, {"seed": 1}) == {"epochs": 3, "seed": 1}
