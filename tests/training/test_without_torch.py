"""Frozen training, and all that works with its models, without PyTorch and without other optional packages."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.card_networks import waveform_card
from helpers.command import write_manifest
from spectag.audio.files import write_audio
from spectag.models.pretrained import load

NOT_INSTALLED = (
    *("torch", "timm", "torchvision", "accelerate", "onnxscript", "tensorboard"),
    *("pyarrow", "pandas", "sklearn", "cleanlab", "optuna"),
)


def run_all(*commands):
    """Run several commands in one process without the packages; stop at the first that fails."""
    script = f"""
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {NOT_INSTALLED}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, NotInstalled())
from spectag.cli import main
for command in {[[*map(str, command)] for command in commands]}:
    if status := main(command):
        sys.exit(f"{{command}} ended with status {{status}}")
assert not set({NOT_INSTALLED}) & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def sounds_and_model(folder):
    """A manifest, and a model that was trained on it without the packages."""
    manifest, model = write_manifest(folder / "Töne", n_clips=12), folder / "model ü"
    run_all(["train", manifest, "-o", model, "--backbone", "efficientnet_lite0", "--folds", 2, "--workers", 1])
    return manifest, model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield sounds_and_model(tmp_path_factory.mktemp("without torch"))


def test_model_is_complete_and_names_no_torch(trained):
    manifest, model = trained
    info = json.loads((model / "spectag.json").read_text(encoding="utf-8"))
    assert "torch" not in info["versions"]
    assert info["onnx_difference"] < 1e-4
    assert info["backbone"]["name"] == "efficientnet_lite0"
    tags = load(model).tag(next((manifest.parent / "clips").glob("low*.wav")))
    assert tags.top(1)[0].label == "low"


def test_weights_are_those_of_the_network_of_torch(trained):
    from spectag.training.networks.backbones.build import build_backbone
    from spectag.training.networks.network import FeatureExtractor

    saved = load_file(trained[1] / "weights.safetensors")
    expected = FeatureExtractor(build_backbone("efficientnet_lite0"), "all").state_dict()
    of_head = {name for name in saved if name.startswith("head.")}
    assert set(saved) - of_head == {f"extractor.{name}" for name in expected}
    for name, values in expected.items():
        np.testing.assert_array_equal(saved[f"extractor.{name}"], values.numpy())


def test_commands_work_without_torch(trained, tmp_path):
    manifest, model = trained
    clips, new = manifest.parent / "clips", tmp_path / "new"
    new.mkdir()
    for number, noise in enumerate(np.random.default_rng(0).normal(0, 0.1, (4, 16_000)).astype(np.float32)):
        write_audio(new / f"{number}.wav", noise, 16_000)
    run_all(
        ["tag", model, clips, "-o", tmp_path / "tags.csv"],
        ["evaluate", model, manifest, "-o", tmp_path / "evaluation", "--resamples", 20, "--no-report"],
        ["review", model, manifest, "-o", tmp_path / "review"],
        ["suggest", model, new, "-n", 2, "-o", tmp_path / "suggested.csv"],
        ["calibrate", model, "-o", tmp_path / "calibrated"],
    )
    with (tmp_path / "tags.csv").open(encoding="utf-8", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"low", "middle", "high"}
    assert (tmp_path / "evaluation" / "predictions.csv").is_file()
    assert (tmp_path / "review" / "review.html").is_file()
    assert len((tmp_path / "suggested.csv").read_text(encoding="utf-8").splitlines()) == 3
    assert (tmp_path / "calibrated" / "model.onnx").is_file()


@pytest.mark.slow
def test_demo_works_without_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    done = run_all(["demo", "-o", tmp_path / "demo"])
    assert done.stdout.startswith("lwlrap 0.9")


def test_network_of_a_card_is_trained_and_tags_without_torch(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    card, manifest = waveform_card(tmp_path / "net"), write_manifest(tmp_path / "sounds", n_clips=6)
    run_all(
        ["train", manifest, "-o", tmp_path / "model", "--backbone", card, "--folds", 2, "--workers", 1],
        ["models", "add", card],
        ["tag", "my-net", tmp_path / "sounds", "--workers", 1],
        ["tag", tmp_path / "model", tmp_path / "sounds", "--workers", 1],
    )
