"""Recipes: which settings go together, and that they can be written down and used again."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.catalogue import backbone_spec, front_end_of
from spectag.config import MelConfig, parse_config, read_config, to_toml
from spectag.errors import ConfigError
from spectag.recipe import Recipe

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


def parse(**values):
    return parse_config(values, Recipe, source="here")


def read_back(recipe):
    return parse_config(tomllib.loads(to_toml(recipe)), Recipe, source="here")


SOLVED = st.fixed_dictionaries(
    {"optimizer": st.just("lbfgs"), "head": st.just("linear"), "weight_decay": st.none() | st.floats(1e-9, 10)}
)
BY_EPOCHS = st.fixed_dictionaries(
    {
        "optimizer": st.sampled_from(["adam", "adamw", "sgd"]),
        "head": st.sampled_from(["linear", "layer_norm"]),
        "weight_decay": st.none() | st.floats(0, 10),
        "init": st.none() | st.sampled_from(["model", "/a b/modèle"]).map(Path),
        "learning_rate": st.floats(1e-9, 10),
        "momentum": st.floats(0, 0.99),
        "epochs": st.integers(1, 1000),
        "batch_size": st.integers(1, 4096),
    }
)
FOLDS = st.fixed_dictionaries({"folds": st.integers(2, 20) | st.sampled_from(["auto", "given", "none"])})
SHARE = st.fixed_dictionaries(
    {
        "valid_share": st.floats(0.01, 0.99),
        "valid_rows": st.sampled_from(["stratified", "random"]),
        "folds": st.sampled_from(["auto", "none"]),
    }
)
OTHERS = st.fixed_dictionaries(
    {
        "backbone": st.sampled_from(["mn04_audioset", "timm/resnet18", "none"]),
        "pretrained": st.booleans(),
        "features": st.sampled_from(["all", "last"]),
        "seed": st.integers(0, 2**32 - 1),
        "mel": st.none() | st.just({"f_max": 14_000.0, "top_db": None}),
        "image": st.none() | st.just({"colormap": "magma", "height": 224, "low": None}),
    }
)


@given(fitting=SOLVED | BY_EPOCHS, held_out=FOLDS | SHARE, others=OTHERS)
def test_recipe_survives_dict_and_toml(fitting, held_out, others):
    if fitting.get("init") and held_out["folds"] != "none":
        held_out = {"valid_share": 0.25}
    recipe = Recipe(**fitting, **held_out, **others)
    assert Recipe(**recipe.model_dump()) == recipe
    assert read_back(recipe) == recipe


def test_default_recipe_names_a_backbone_that_there_is():
    assert backbone_spec(Recipe().backbone).name == Recipe().backbone


def test_recipe_read_again_leaves_to_the_backbone_what_it_left_to_it_before():
    recipe = Recipe(backbone="efficientnet_lite0", mel=MelConfig(f_max=14_000.0))
    again = front_end_of(recipe.backbone, read_back(recipe).mel)
    assert again == front_end_of(recipe.backbone, recipe.mel)
    assert again.n_mels == backbone_spec("efficientnet_lite0").mel.n_mels


@pytest.mark.parametrize("folds", ["auto", "given", "none", 5])
def test_every_word_for_folds_is_taken(folds):
    assert parse(folds=folds).folds == folds


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"head": "layer_norm"},
            "optimizer lbfgs solves the linear head only, not head layer_norm; take adam or sgd",
        ),
        ({"init": "model"}, "optimizer lbfgs ends at the same head wherever it begins, so init would do nothing"),
        ({"optimizer": "adam", "init": "model"}, "init begins with a head that has seen the clips of every fold"),
        ({"epochs": 3, "batch_size": 8}, "optimizer lbfgs solves the head to the end, so epochs, batch_size would do"),
        ({"weight_decay": 0}, "optimizer lbfgs needs a weight_decay above 0"),
        ({"valid_rows": "random"}, r"valid_rows = random needs valid_share, such as 0\.25"),
        ({"valid_share": 0.25, "folds": 5}, "valid_share and folds = 5 ask for different things; leave one out"),
        ({"valid_share": 0.25, "folds": "given"}, "valid_share and folds = given ask for different things"),
        ({"folds": 1}, "folds must be 2 or more, got 1; folds = none trains without"),
        ({"folds": -3}, "folds must be 2 or more, got -3"),
        ({"folds": "all"}, "folds: .*'auto', 'given' or 'none'"),
        ({"valid_share": 1.0}, "valid_share: .*less than 1"),
        ({"valid_share": 0}, "valid_share: .*greater than 0"),
        ({"optimizer": "adma"}, "optimizer: .*'lbfgs', 'adam', 'adamw' or 'sgd'.*got 'adma'"),
        ({"weight_decay": -1}, "weight_decay: .*greater than or equal to 0"),
        ({"learning_rate": 0}, "learning_rate: .*greater than 0"),
        ({"epochs": 0}, "epochs: .*greater than 0"),
        ({"mel": {"n_mels": 0}}, r"mel\.n_mels: .*greater than 0"),
        ({"mel": {"f_max": 20_000.0}}, "mel: need f_min < f_max <= sample_rate / 2 = 16000 Hz"),
        ({"bakbone": "scratch"}, r"bakbone: unknown setting; did you mean 'backbone'\?"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_with_the_reason(values, message):
    with pytest.raises(ConfigError, match=f"^here: {message}"):
        parse(**values)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_configs_that_come_with_the_project_are_recipes_of_known_backbones(path):
    recipe = read_config(path, Recipe)
    assert front_end_of(recipe.backbone, recipe.mel).n_mels > 0
