"""The prior from the classifier of a backbone: names, scale and errors."""

import numpy as np
import pytest

from spectag.data.labels import LabelSet
from spectag.errors import ConfigError
from spectag.training.heads.discriminant import fit_discriminant_heads
from spectag.training.heads.logistic import PrincipalAxes
from spectag.training.heads.name_prior import Classifier, name_prior

NAMES = ["Bark", "Rain", "Waves, surf", "Music"]


@pytest.fixture
def classifier(rng):
    return Classifier(NAMES, rng.normal(size=(6, 4)), rng.normal(size=4), {"sea waves": ("Waves, surf",)})


def labels(*names):
    return LabelSet(names)


def test_labels_get_the_logits_of_their_names(classifier, rng):
    prior = name_prior(classifier, labels("Dog_barking", "Rain", "Sea_waves", "Zither"))
    assert prior.names == {"Dog_barking": ("Bark",), "Rain": ("Rain",), "Sea_waves": ("Waves, surf",)}
    assert str(prior) == 'Dog_barking ← Bark; Rain ← Rain; Sea_waves ← "Waves, surf"'
    features = rng.normal(size=(5, 6))
    expected = features @ classifier.weights + classifier.bias
    np.testing.assert_allclose((features @ prior.weights + prior.bias)[:, :3], expected[:, :3])
    assert prior.has_name.tolist() == [True, True, True, False]


def test_several_names_of_a_label_are_averaged_and_an_empty_entry_means_none(classifier, rng):
    prior = name_prior(classifier, labels("Dog_barking", "Rain"), {"Dog_barking": ("Music", "Bark"), "Rain": ()})
    features = rng.normal(size=(5, 6))
    logits = features @ classifier.weights + classifier.bias
    np.testing.assert_allclose(features @ prior.weights[:, 0] + prior.bias[0], (logits[:, 0] + logits[:, 3]) / 2)
    assert prior.has_name.tolist() == [True, False]


def test_no_known_name_gives_no_prior(classifier):
    assert name_prior(classifier, labels("Zither", "Kazoo")) is None


@pytest.mark.parametrize(
    ("label_map", "words"),
    [
        ({"Rian": ("Rain",)}, "label_map: unknown label Rian.*'Rain'"),
        ({"Rain": ("Rian",)}, "unknown name Rian.*'Rain'"),
    ],
)
def test_unknown_label_or_name_in_the_label_map_is_named(classifier, label_map, words):
    with pytest.raises(ConfigError, match=words):
        name_prior(classifier, labels("Rain"), label_map)


@pytest.fixture
def training(rng):
    features = rng.normal(size=(40, 6)).astype(np.float32)
    features[:, 2] = 1.5
    return PrincipalAxes.of(features, [6]), features


def test_head_has_the_scale_of_the_other_head_and_ignores_constant_features(classifier, training):
    axes, features = training
    expected = features @ classifier.weights[:, 1]
    y_true = np.column_stack([expected > np.median(expected), expected > np.quantile(expected, 0.7)])
    (like,) = fit_discriminant_heads(axes, y_true, [0.9])
    logits = name_prior(classifier, labels("Rain", "Zither")).head(axes, y_true, like).logits(features)
    assert np.corrcoef(logits[:, 0], expected)[0, 1] == pytest.approx(1)
    assert logits[:, 0].mean() == pytest.approx(0, abs=1e-6)
    assert logits[:, 0].std() == pytest.approx(like.logits(features).std(), rel=1e-5)
    assert not logits[:, 1].any()


def test_name_that_means_the_opposite_is_not_used(classifier, training):
    axes, features = training
    rain = features @ classifier.weights[:, 1] > np.median(features @ classifier.weights[:, 1])
    y_true = np.column_stack([rain, ~rain])
    (like,) = fit_discriminant_heads(axes, y_true, [0.9])
    prior = name_prior(classifier, labels("Rain", "Dry"), {"Dry": ("Rain",)})
    logits = prior.head(axes, y_true, like).logits(features)
    assert logits[:, 0].any()
    assert not logits[:, 1].any()


def test_inputs_of_a_layer_are_the_last_features(rng):
    weight, bias, features = rng.random((3, 4), np.float32), rng.random(3, np.float32), rng.random((5, 10))
    classifier = Classifier.of_last_features(weight, bias, 10, ["a", "b", "c"], {})
    np.testing.assert_allclose(features @ classifier.weights + classifier.bias, features[:, -4:] @ weight.T + bias)
