"""The recipes of the Train view: those of spectag, with what people set on the page."""

from pathlib import Path

import pytest

from spectag.config.recipe import Recipe
from spectag.errors import ConfigError
from spectag.serving import train_recipes
from spectag.serving.train_recipes import RECIPES, TrainQuery, described_recipes, is_fast, recipe_of


def test_all_recipes_of_spectag_are_offered_with_an_explanation():
    configs = Path(__file__).parents[2] / "configs"
    assert set(RECIPES) == {path.stem for path in configs.glob("*.toml")}
    texts = (Path(train_recipes.__file__).parent / "static" / "strings.js").read_text(encoding="utf-8")
    recipes = texts[texts.index("  train: {") :]
    assert all(f"      {name}: " in recipes for name in RECIPES)


def test_settings_of_the_page_are_those_of_the_recipe():
    recipe = recipe_of(TrainQuery(recipe="best", folds=3, seed=7, budget_minutes=30), None)
    assert (recipe.folds, recipe.seed, recipe.budget) == (3, 7, 1800)
    assert len(recipe.members) == 3
    assert recipe_of(TrainQuery(recipe="quick"), None).backbone == "mn04_audioset"
    assert recipe_of(TrainQuery(recipe="blog", folds=5), None).validation_fraction is None


def test_without_a_name_the_recipe_is_that_of_the_parent(tmp_path):
    (tmp_path / "recipe.toml").write_text('classifier = "logistic"\n', encoding="utf-8")
    assert recipe_of(TrainQuery(), tmp_path).classifier == "logistic"
    assert recipe_of(TrainQuery(), tmp_path / "published") == recipe_of(TrainQuery(recipe="quick"), None)


def test_unknown_recipe_is_refused_also_if_a_file_has_its_name(tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no recipe 'mine'; expected one of quick, best"):
        recipe_of(TrainQuery(recipe="mine"), None)


def test_only_heads_of_frozen_networks_are_refitted_in_seconds():
    assert is_fast(Recipe())
    assert not is_fast(recipe_of(TrainQuery(recipe="best"), None))
    assert not is_fast(recipe_of(TrainQuery(recipe="blog"), None))


def test_recipes_that_need_pytorch_say_how_to_install_it(monkeypatch):
    monkeypatch.setattr(train_recipes, "find_spec", lambda _: None)
    missing = {recipe["name"]: recipe["missing"] for recipe in described_recipes()}
    assert missing["quick"] is None
    assert "pip install 'spectag[finetune]'" in missing["best"]
