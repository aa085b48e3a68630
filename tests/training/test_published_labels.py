"""Training that extends a published model: own labels and published ones, in one pass through one network."""

import csv

import numpy as np
import pytest

from helpers.paths import SHARED
from spectag.audio.files import write_audio
from spectag.config.base import SegmentConfig
from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.labels import LabelSet
from spectag.errors import ConfigError
from spectag.evaluation.evaluation import evaluate
from spectag.evaluation.recalibration import calibrate
from spectag.models.model_labels import model_labels
from spectag.models.out_of_fold import read_out_of_fold
from spectag.models.pretrained import THRESHOLD, audioset_labels, load
from spectag.models.standalone.exporting import export
from spectag.models.tagger import Tagger
from spectag.training.heads.head_weights import HeadWeights
from spectag.training.networks.feature_network import LinearClassifier
from spectag.training.pipeline import train
from spectag.training.published_labels import PublishedLabels, with_classifier

needs_mn04 = pytest.mark.skipif(not (SHARED / "weights").exists(), reason="needs ../shared/weights")
RATE = 32_000
OWN = ("My horn", "rain")  # AudioSet has Rain


def test_own_labels_replace_published_ones_of_the_same_spelling():
    published = PublishedLabels.beside(
        LabelSet(("rain", "DOG", "Baby_cry, infant cry", "Bark of an oak")), "audioset-mn04"
    )
    assert published.replaced == ("Baby cry, infant cry", "Dog", "Rain")
    assert set(published.names) == set(audioset_labels()) - set(published.replaced)
    assert "Bark" in published.names  # another spelling
    assert [audioset_labels()[column] for column in published.columns] == list(published.names)
    with pytest.raises(ConfigError, match="the own labels replace all of its labels; leave it out"):
        PublishedLabels.beside(LabelSet(audioset_labels()), "audioset-mn04")


def test_head_with_a_classifier_has_the_logits_of_both(rng):
    """The classifier sees the last features as they are, also one that the head ignores, because it is constant."""
    scale = np.array([0.5, 2.0, 0.0, 3.0, 0.0], np.float32)
    head = HeadWeights(
        "linear",
        {
            "center": rng.normal(size=5).astype(np.float32),
            "scale": scale,
            "linear.weight": rng.normal(size=(2, 5)).astype(np.float32),
            "linear.bias": rng.normal(size=2).astype(np.float32),
        },
    )
    classifier = LinearClassifier(rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=4).astype(np.float32))
    features = rng.normal(size=(20, 5)).astype(np.float32)
    columns = np.array([0, 3])
    logits = with_classifier(head, classifier, columns).logits(features)
    np.testing.assert_allclose(logits[:, :2], head.logits(features), atol=1e-6)
    published = features[:, -3:] @ classifier.weight.T + classifier.bias
    np.testing.assert_allclose(logits[:, 2:], published[:, columns], atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extend": "audioset-mn4"}, r"extend = audioset-mn4: no published model; did you mean 'audioset-mn40'\?"),
        ({"extend": "audioset-mn04", "backbone": "mn10_audioset"}, "set backbone = mn04_audioset, or leave extend out"),
        ({"extend": "audioset-mn04", "mode": "finetune"}, "set mode = frozen, or leave"),
        ({"extend": "audioset-mn04", "features": "last"}, "set features = all, or leave"),
        ({"extend": "audioset-mn04", "final_model": "ensemble"}, "set final_model = refit or average"),
        ({"extend": "audioset-mn04", "members": [{"seed": 1}, {"seed": 2}]}, "members"),
    ],
)
def test_settings_with_which_the_networks_would_differ_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**settings)


def test_backbone_is_that_of_the_extended_model_unless_it_is_set():
    assert Recipe(extend="audioset-mn10").backbone == "mn10_audioset"
    assert Recipe.model_validate(Recipe(extend="audioset-mn10").model_dump()).extend == "audioset-mn10"


def sound(label, rng, seconds=3.0):
    times = np.arange(round(seconds * RATE)) / RATE
    if label == "rain":
        return (rng.normal(0, 0.1, len(times))).astype(np.float32)
    pitch = rng.uniform(300, 350)
    return (0.2 * sum(np.sin(2 * np.pi * pitch * n * times) / n for n in range(1, 6))).astype(np.float32)


class Trained:
    """A model with own labels only, the same one that extends a published model, and the published model."""

    def __init__(self, folder):
        rng = np.random.default_rng(0)
        for number in range(8):
            write_audio(folder / f"{number}.wav", sound(OWN[number % 2], rng), RATE)
        self.manifest = folder / "labels.csv"
        rows = [[f"{number}.wav", OWN[number % 2]] for number in range(8)]
        with self.manifest.open("w", newline="") as file:
            csv.writer(file).writerows([["fname", "labels"], *rows])
        self.log = []
        data = DataOptions(cache=folder / "cache")
        self.plain = Tagger(train(self.manifest, folder / "plain", Recipe(), data=data).bundle)
        recipe = Recipe(extend="audioset-mn04")
        result = train(self.manifest, folder / "extended", recipe, data=data, log=self.log.append)
        self.scores, self.extended = result.scores, Tagger(result.bundle)
        self.published = load("audioset-mn04")
        self.new = {label: sound(label, rng) for label in OWN}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
        yield Trained(tmp_path_factory.mktemp("extended"))


@needs_mn04
def test_probabilities_are_those_of_both_models(trained):
    assert trained.extended.labels.names[:2] == OWN
    others = trained.extended.labels.names[2:]
    assert "Rain" not in others
    assert len(others) == 526
    for waveform in trained.new.values():
        together, alone = trained.extended.tag(waveform, RATE), trained.plain.tag(waveform, RATE)
        published = trained.published.tag(waveform, RATE)
        assert [together[label] for label in OWN] == pytest.approx([alone[label] for label in OWN], abs=1e-5)
        assert [together[label] for label in others] == pytest.approx([published[label] for label in others], abs=1e-4)
        windows = [
            list(model.tag_windows(waveform, 1.5, sample_rate=RATE)) for model in (trained.extended, trained.published)
        ]
        for window, expected in zip(*windows, strict=True):
            assert [window[label] for label in others] == pytest.approx([expected[label] for label in others], abs=1e-4)
    found = trained.extended.segments(trained.new["My horn"], RATE, settings=SegmentConfig(smooth_windows=1))
    assert "My horn" in {detection.label for detection in found}


@needs_mn04
def test_thresholds_scores_and_novelty_are_those_of_each_model(trained):
    info, alone = trained.extended.info, trained.plain.info
    assert (info.thresholds[:2], set(info.thresholds[2:])) == (alone.thresholds, {THRESHOLD})
    assert info.thresholds_fitted[2:] == (False,) * 526
    assert info.metrics["lwlrap"] == alone.metrics["lwlrap"]
    assert read_out_of_fold(trained.extended.folder).labels.names == OWN
    assert alone.novelty is not None
    assert info.novelty is None  # of the own training clips, while other sounds are known, too
    labels = model_labels(trained.extended.folder)
    assert [label.n_clips for label in labels[:3]] == [4, 4, None]
    assert any("526 labels of audioset-mn04, without Rain, which own labels replace" in line for line in trained.log)
    assert "## Labels of audioset-mn04\n\n526 further labels" in trained.extended.card


@needs_mn04
def test_evaluation_and_calibration_are_about_the_own_labels(trained, tmp_path):
    [evaluation] = evaluate(trained.extended, trained.manifest).models
    assert evaluation.labels.names == OWN
    assert set(evaluation.predictions.origins) == {"out_of_fold"}
    [alone] = evaluate(trained.plain, trained.manifest).models
    np.testing.assert_allclose(evaluation.predictions.probabilities, alone.predictions.probabilities, atol=1e-6)
    assert any(
        "526 of its labels are those of audioset-mn04, which have no out-of-fold" in note for note in evaluation.notes
    )
    result = calibrate(trained.extended.folder, thresholds={"Speech": 0.4}, method="platt", output=tmp_path / "new")
    new, waveform = Tagger(result.written_to), trained.new["rain"]
    others = [label for label in new.labels.names[2:] if label != "Speech"]
    assert dict(zip(new.labels.names, new.info.thresholds, strict=True))["Speech"] == 0.4
    before, after = trained.extended.tag(waveform, RATE), new.tag(waveform, RATE)
    assert [after[label] for label in others] == pytest.approx([before[label] for label in others], abs=1e-6)


@needs_mn04
def test_exported_file_has_all_labels(trained, tmp_path):
    import onnxruntime

    export(trained.extended.folder, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    waveform = trained.new["My horn"]
    [probabilities] = session.run(["probabilities"], {"waveform": waveform[None]})
    np.testing.assert_allclose(probabilities[0], trained.extended.tag(waveform, RATE).probabilities, atol=1e-4)
