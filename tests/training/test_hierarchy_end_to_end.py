"""A hierarchy from training to evaluation."""

import numpy as np

from helpers.bundles import LABELS
from helpers.command import write_tones
from spectag.config.base import MelConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.evaluation import calibrate, evaluate
from spectag.models.bundle import read_info
from spectag.models.out_of_fold import read_out_of_fold
from spectag.training.pipeline import train

MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=320, n_mels=32, f_max=8000)


def test_a_parent_is_trained_and_evaluated_on_the_clips_of_its_children(tmp_path):
    names = write_tones(tmp_path / "clips", 18)
    rows = [f"{name},{LABELS[number % 3]}" for number, name in enumerate(names)]
    table, tree = tmp_path / "clips.csv", tmp_path / "tree.csv"
    table.write_text("\n".join(["fname,labels", *rows]), encoding="utf-8")
    tree.write_text(f"child,parent\n{LABELS[0]},deep\n{LABELS[1]},deep\n", encoding="utf-8")
    recipe = Recipe(backbone="scratch", mel=MEL, folds=3, find_shared_audio=False)
    train(table, tmp_path / "model", recipe, data=DataOptions(hierarchy=tree))
    info = read_info(tmp_path / "model")
    labels = info.labels
    assert set(labels) == {*LABELS, "deep"}
    assert info.parents == {LABELS[0]: ("deep",), LABELS[1]: ("deep",)}
    y_true = read_out_of_fold(tmp_path / "model").y_true
    deep = y_true[:, labels.index("deep")]
    np.testing.assert_array_equal(deep, y_true[:, labels.index(LABELS[0])] | y_true[:, labels.index(LABELS[1])])
    assert deep.sum() == 12
    messages = []
    evaluation = evaluate(tmp_path / "model", table, hierarchy=tree, n_resamples=0, log=messages.append)
    assert not any("other labels than in training" in message for message in messages)
    [model] = evaluation.models
    assert model.predictions.y_true[:, labels.index("deep")].sum() == 12
    evaluation = evaluate(tmp_path / "model", table, n_resamples=0, log=messages.append)
    assert evaluation.models[0].predictions.y_true[:, labels.index("deep")].sum() == 12  # the model knows the parents
    assert "the labels above others are added to 12 clips, as in the training of the model" in messages
    calibrate(tmp_path / "model", manifest=table, log=messages.append)
    assert not any("other labels than in training" in message for message in messages)
