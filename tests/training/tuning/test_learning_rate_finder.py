"""The learning-rate finder: its arithmetic, and a search on synthetic sounds."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.command import run_without
from spectag.audio.files import write_audio
from spectag.audio.synthesis import KINDS
from spectag.config.base import MelConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError
from spectag.training.pipeline import first_fine_tuning
from spectag.training.setup.callbacks import Callbacks
from spectag.training.tuning import learning_rate_finder as rate_finder
from spectag.training.tuning.learning_rate_finder import (
    RateCurve,
    find_learning_rate,
    smooth,
    suggest_rate,
    until_divergence,
)

RATES = np.geomspace(1e-6, 1, 100)
MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=512, n_mels=16, f_max=8000.0)
SETTINGS = {
    "mode": "finetune",
    "backbone": "scratch",
    "features": "last",
    "head": "layer_norm",
    "mel": MEL,
    "batch_size": 4,
    "finetune": {"linear_probe_first": False, "crop_seconds": 0.3},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    rng = np.random.default_rng(0)
    rows = ["fname,labels"]
    for label in list(KINDS)[:2]:
        for number in range(4):
            write_audio(folder / f"{label} {number}.wav", KINDS[label](rng, 0.4, 16_000), 16_000)
            rows.append(f"{label} {number}.wav,{label}")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


# ------------------------------------------------------------------------------------------------ arithmetic


def test_moving_average_is_bias_corrected():
    # 1, then (0.9 · 0.1 · 1 + 0.1 · 0) / (1 - 0.9²) = 0.09 / 0.19, then (0.081 + 0.1 · 2) / (1 - 0.9³) = 0.281 / 0.271
    assert smooth(np.array([1.0, 0.0, 2.0])) == pytest.approx([1.0, 0.09 / 0.19, 0.281 / 0.271])


@given(st.floats(1e-6, 1e6), st.integers(1, 200))
def test_moving_average_of_a_constant_is_the_constant(loss, n_steps):
    assert smooth(np.full(n_steps, loss)) == pytest.approx(np.full(n_steps, loss))


def test_search_ends_when_the_average_is_above_four_times_its_lowest():
    losses = [1.0] * 30 + [20.0] * 30
    kept = until_divergence(losses)
    average = smooth(np.array(losses))
    assert len(kept) == 1 + int(np.flatnonzero(average > 4)[0])
    assert 30 < len(kept) < 35


@pytest.mark.parametrize("end", [np.nan, np.inf])
def test_search_ends_before_a_loss_that_is_not_finite(end):
    assert until_divergence([1.0, 0.5, end, 0.25]).tolist() == [1.0, 0.5]


def test_search_that_never_diverges_runs_to_the_end():
    assert len(until_divergence([1.0] * 100)) == 100


@pytest.mark.parametrize("steepest", [1e-5, 1e-3, 1e-2])
def test_suggestion_is_where_a_falling_curve_is_steepest(steepest):
    falling = 1 / (1 + (RATES / steepest) ** 2)  # steepest at this rate, on a logarithmic scale
    assert suggest_rate(RATES, falling) == pytest.approx(steepest, rel=0.15)  # neighbours are 15 % apart


def test_one_easy_batch_does_not_change_the_suggestion():
    """The fall from one step to the next is greatest there, at 2e-6."""
    curve = 1 / (1 + (RATES / 1e-3) ** 2)
    curve[5] -= 0.2
    assert np.argmin(np.diff(curve)) == 4
    assert suggest_rate(RATES, curve) == pytest.approx(1e-3, rel=0.15)


@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_suggestion_does_not_depend_on_the_scale_of_the_loss(scale, offset):
    curve = 1 / (1 + (RATES / RATES[50]) ** 2)
    assert suggest_rate(RATES, scale * curve + offset) == RATES[50]


@pytest.mark.parametrize("n_rates", [0, 1, 5, 100])
def test_no_suggestion_if_the_loss_never_falls_or_the_curve_is_too_short(n_rates):
    assert suggest_rate(RATES[:n_rates], np.arange(float(n_rates))) is None


@pytest.mark.parametrize(
    ("steepest", "is_reported"), [(1e-8, True), (1e-4, False), (1e3, True)], ids=["below", "inside", "above"]
)
def test_steepest_descent_at_the_end_of_the_rates_is_reported(monkeypatch, steepest, is_reported):
    training = SimpleNamespace(losses_at=lambda rates: (1 / (1 + (rate / steepest) ** 0.5) for rate in rates))
    monkeypatch.setattr(rate_finder, "read_training_data", lambda *_: (None, None))
    monkeypatch.setattr(rate_finder, "first_fine_tuning", lambda *_: training)
    lines = []
    curve = find_learning_rate("clips.csv", Recipe(), log=lines.append)
    assert curve.suggestion is not None
    assert [line.startswith("the loss falls fastest at an end") for line in lines] == [True] * is_reported


# ------------------------------------------------------------------------------------------------ on sounds


def test_search_tries_rising_rates_and_ignores_the_recipes_rate(manifest, tmp_path):
    options = DataOptions(cache=tmp_path / "cache")
    curves = [
        find_learning_rate(manifest, Recipe(**SETTINGS, learning_rate=rate), n_steps=20, data=options)
        for rate in (1e-3, 0.5)
    ]
    first, other = curves
    assert first.rates[0] == pytest.approx(1e-6)
    assert np.diff(np.log(first.rates)) == pytest.approx(np.full(len(first.rates) - 1, np.log(1e6) / 19))
    assert first.losses.shape == first.smoothed.shape == first.rates.shape
    assert first.losses[:10] == pytest.approx(other.losses[:10], rel=1e-4)


def test_every_step_has_its_rate_and_the_head_keeps_its_multiplier(manifest, tmp_path):
    settings = SETTINGS | {"finetune": SETTINGS["finetune"] | {"head_lr_multiplier": 3.0, "layer_decay": 1.0}}
    training = first_fine_tuning(
        read_manifest(manifest), None, Recipe(**settings), Callbacks(), DataOptions(cache=tmp_path / "cache", workers=1)
    )
    step, seen = training._train_step, []

    def spy(batch):
        seen.append({group["lr"] for group in training.optimizer.param_groups})
        step(batch)

    training._train_step = spy
    losses = list(training.losses_at([1e-6, 1e-3, 0.01]))
    assert len(losses) == 3
    assert [sorted(rates) for rates in seen] == [pytest.approx([rate, 3 * rate]) for rate in (1e-6, 1e-3, 0.01)]


def test_frozen_network_is_refused(manifest):
    with pytest.raises(ConfigError, match=r"lbfgs has no learning rate.*; set --mode finetune"):
        find_learning_rate(manifest, Recipe(backbone="scratch"))


def test_too_few_steps_are_refused(manifest):
    with pytest.raises(ValueError, match="n_steps must be 20 or more, got 19"):
        find_learning_rate(manifest, Recipe(**SETTINGS), n_steps=19)


def settings_as_flags():
    return (
        *("--backbone", "scratch", "--features", "last", "--head", "layer_norm", "--batch-size", "4"),
        *("--mel.sample-rate", "16000", "--mel.n-fft", "512", "--mel.hop-length", "512", "--mel.n-mels", "16"),
        *("--mel.f-max", "8000", "--finetune.crop-seconds", "0.3", "--finetune.no-linear-probe-first"),
    )


def test_command_draws_the_curve_and_gives_it_as_json(run, manifest, tmp_path):
    done = run("lr-find", manifest, "-o", tmp_path / "curve.png", "--json", *settings_as_flags())
    assert done.status == 0
    curve = json.loads(done.out)
    assert len(curve["rates"]) == len(curve["losses"]) == len(curve["smoothed"]) > 20
    assert curve["suggestion"] in curve["rates"]
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png"}  # nothing else is left


@pytest.mark.parametrize(
    ("suggestion", "words"),
    [
        (0.00123, "learning rate: 1.2e-03 (the loss falls fastest around it)"),
        (None, "no suggestion: the loss does not fall at any learning rate"),
    ],
)
def test_command_prints_the_suggestion_and_the_figure_path(run, tmp_path, monkeypatch, suggestion, words):
    calls = []

    def find(manifest, recipe, **_):
        calls.append((manifest, recipe.mode, recipe.batch_size))
        return RateCurve(RATES, np.ones(100), np.ones(100), suggestion)

    monkeypatch.setattr(rate_finder, "find_learning_rate", find)
    done = run("lr-find", "a.csv", "-o", tmp_path / "curve.svg", "--batch-size", "7")
    assert done.out.splitlines() == [words, f"figure: {tmp_path / 'curve.svg'}"]
    assert calls == [(Path("a.csv"), "finetune", 7)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--mode", "frozen"), "set --mode finetune"),
        (("--optimizer", "lbfgs"), "optimizer lbfgs is for frozen networks; fine-tune with adamw"),
        (("--recipe", "quick"), "optimizer lbfgs is for frozen networks; fine-tune with adamw"),
    ],
)
def test_command_refuses_lbfgs(run, manifest, tmp_path, options, words):
    done = run("lr-find", manifest, "-o", tmp_path / "curve.png", "--backbone", "scratch", *options)
    assert done.status in (1, 2)
    assert words in done.err
    assert done.err.count("\n") == 1


def test_figure_of_another_format_is_refused_before_any_work(run, manifest, tmp_path):
    done = run("lr-find", manifest, "-o", tmp_path / "curve.txt", *settings_as_flags())
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "curve.txt: a figure is one of .jpg, .pdf, .png, .svg" in done.err


def test_missing_matplotlib_is_reported_before_any_work(manifest, tmp_path):
    done = run_without({"matplotlib"}, "lr-find", manifest, "-o", tmp_path / "curve.png", *settings_as_flags())
    assert (done.status, done.err) == (
        1,
        "spectag: drawing a figure needs the package matplotlib: pip install 'spectag[plots]'\n",
    )
