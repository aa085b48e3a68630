"""Trainings on networks of transformers, and their models, which need neither torch nor transformers."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.numpy import load_file

import spectag
from helpers.claps import feature_settings, write_clap
from helpers.command import run_without, write_manifest
from helpers.hub_server import HubServer
from helpers.transformers_networks import RATE, save_network
from spectag.audio.files import read_audio
from spectag.config import transformers_networks
from spectag.config.backbones import backbone_spec
from spectag.config.base import MelConfig
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.errors import ConfigError, MissingExtraError, WeightsError
from spectag.models.bundle import read_info
from spectag.models.pretrained import load
from spectag.training.heads.name_prior import name_prior
from spectag.training.members import member
from spectag.training.networks.backbones.build import build_backbone
from spectag.training.setup.requirements import check_requirements

NOT_INSTALLED = ("torch", "transformers", "huggingface_hub", "safetensors")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest(tmp_path_factory.mktemp("data"), n_clips=9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, manifest):
    """A model on the features of an AST, and the library's network and feature extractor."""
    folder = tmp_path_factory.mktemp("ast")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(folder / "cache"))
        network, extractor = save_network(folder / "small-ast", "ast")
        recipe = Recipe(backbone=f"hf:{folder / 'small-ast'}", features="last", folds=3)
        result = spectag.train(manifest, folder / "model", recipe)
    assert result.onnx_difference < 1e-4
    shutil.rmtree(folder / "small-ast")
    return folder / "model", network, extractor


def test_embedding_of_a_model_is_the_pooled_output_of_the_library(trained, manifest):
    bundle, network, extractor = trained
    model = load(bundle)
    for clip in read_manifest(manifest).clips[:3]:
        waveform, _ = read_audio(clip.path, sample_rate=RATE)
        with torch.inference_mode():
            inputs = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
            expected = network.audio_spectrogram_transformer(**inputs).pooler_output[0]
        np.testing.assert_allclose(model.embed(clip.path), expected, atol=1e-4)


def test_model_names_its_network_and_says_the_hash_of_its_weights(trained):
    backbone = read_info(trained[0]).backbone
    assert backbone.name == "hf:small-ast"
    assert len(backbone.weights_sha256) == 64
    assert backbone.licence == "see its model card"


def test_model_works_without_torch_and_transformers(trained, manifest, tmp_path):
    bundle, recording = trained[0], read_manifest(manifest).clips[0].path
    commands = [
        ("tag", bundle, recording, "--format", "csv", "-o", tmp_path / "tags.csv"),
        ("tag", bundle, recording, "--window", 0.2, "--format", "json", "-o", tmp_path / "windows.json"),
        ("embed", recording, "--model", bundle, "-o", tmp_path / "embeddings.npz"),
        ("export", bundle, "-o", tmp_path / "exported.onnx"),
        ("calibrate", bundle, manifest, "-o", tmp_path / "calibrated"),
    ]
    for command in commands:
        done = run_without(NOT_INSTALLED, *command)
        assert done.status == 0, done
    with (tmp_path / "tags.csv").open(encoding="utf-8") as file:
        assert list(csv.DictReader(file))
    assert json.loads((tmp_path / "windows.json").read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ast", "clap", "whisper"])
def test_fine_tuning_changes_the_network_and_its_model_is_equal_to_it(tmp_path, manifest, kind):
    save_network(tmp_path / "net", kind) if kind != "clap" else write_clap(tmp_path / "net", truncation="fusion")
    settings = {"epochs": 2, "batch_size": 3, "learning_rate": 1e-3, "folds": "none", "finetune": {"crop_seconds": 0.2}}
    recipe = Recipe(backbone=f"hf:{tmp_path / 'net'}", mode="finetune", augment={"spec_augment": 0.5}, **settings)
    assert spectag.train(manifest, tmp_path / "model", recipe).onnx_difference < 1e-4
    before = build_backbone(recipe.backbone).state_dict()
    after = load_file(tmp_path / "model" / "weights.safetensors")
    changed = {
        name for name, values in before.items() if not np.array_equal(values, after[f"extractor.backbone.{name}"])
    }
    assert not any(name.startswith("extraction") for name in changed)
    assert any("layers.0" in name for name in changed)
    assert any("layers.1" in name for name in changed)
    assert load(tmp_path / "model").tag(read_manifest(manifest).clips[0].path).probabilities.shape == (3,)


@pytest.mark.slow
def test_clap_knows_labels_by_their_names_and_by_descriptions(tmp_path, manifest, monkeypatch):
    write_clap(tmp_path / "net")
    lines, priors, labels = [], [], read_manifest(manifest).labels.names
    monkeypatch.setattr(member, "name_prior", lambda *given: priors.append(name_prior(*given)) or priors[-1])
    recipe = Recipe(backbone=f"hf:{tmp_path / 'net'}", label_map={labels[0]: ("rain on a window",)})
    result = spectag.train(manifest, tmp_path / "model", recipe, log=lines.append)
    assert result.onnx_difference < 1e-4
    assert any("knows" in line and "by name" in line for line in lines)
    assert priors[0].names == {labels[0]: ("rain on a window",), **{label: (label,) for label in labels[1:]}}
    priors.clear()
    spectag.train(manifest, tmp_path / "without", Recipe(backbone=recipe.backbone, name_prior=False))
    assert priors == []


def test_network_of_the_hub_is_that_of_one_commit_and_without_pickles(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    save_network(tmp_path / "net", "wav2vec2")
    files = {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    files |= {"pytorch_model.bin": b"a pickle", "modeling.py": b"import os", "onnx/config.json": b"{}"}
    files["README.md"] = b"---\nlicense: cc-by-4.0\ndatasets:\n- speech_commands\n---\nA network."
    server = HubServer()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    try:
        commit = server.add("somebody/net", files)
        spec = backbone_spec("hf:somebody/net")
        assert not any("safetensors" in request for request in server.requests)  # settings first
        backbone = build_backbone("hf:somebody/net")
    finally:
        server.close()
    assert (spec.name, spec.licence, spec.pretrained_on) == (
        f"hf:somebody/net@{commit}",
        "cc-by-4.0",
        "speech_commands",
    )
    assert not [request for request in server.requests if request.endswith((".bin", ".py", "onnx/config.json"))]
    in_folder = build_backbone(f"hf:{tmp_path / 'net'}").state_dict()
    for name, values in backbone.state_dict().items():
        torch.testing.assert_close(values, in_folder[name])


def test_network_that_is_not_in_the_cache_needs_a_connection(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expected = (
        r"^hf:somebody/else: no folder somebody/else here, and it cannot be downloaded from the Hugging Face Hub: "
        r"no connection; check the name, which is ORG/NAME such as \S+, [^\n]+ or give a folder .*$"
    )
    with pytest.raises(WeightsError, match=expected):
        backbone_spec("hf:somebody/else")


def test_missing_library_is_one_line_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(transformers_networks, "find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"^the backbone hf:a/b needs .* pip install 'spectag\[transformers\]'$"
    ):
        check_requirements(Recipe(backbone="hf:a/b"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder, and not a name on the Hugging Face Hub"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "no feature extractor in its"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("[]"), "has no settings"),
        (
            lambda folder: set_extractor(folder, feature_extractor_type="OtherExtractor"),
            "OtherExtractor'; spectag knows",
        ),
        (lambda folder: set_extractor(folder, max_length="long"), "settings of its feature extractor are not numbers"),
        (lambda folder: set_extractor(folder, max_length=10**9), "max_seconds"),
    ],
)
def test_network_that_cannot_be_used_is_refused_with_its_name(tmp_path, change, reason):
    save_network(tmp_path / "net", "ast")
    change(tmp_path / "net")
    with pytest.raises(ConfigError, match=rf"^hf:{tmp_path / 'net'}: .*{reason}"):
        backbone_spec(f"hf:{tmp_path / 'net'}")


def set_extractor(folder, **values):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_file_that_lacks_weights_of_the_encoder_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_network(tmp_path, "ast")
    weights = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in weights if "layers.1" in name or "layer.1" in name)
    save_file({name: values for name, values in weights.items() if name != lost}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"^hf:{tmp_path.name}: .*: 1 are missing, such as .*layer"):
        build_backbone(f"hf:{tmp_path}")


def test_pickled_weights_are_never_opened(tmp_path):
    network, _ = save_network(tmp_path, "ast")
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=rf"^hf:{tmp_path.name}: .*safetensors.*; save_pretrained writes"):
        build_backbone(f"hf:{tmp_path}")


def test_folder_may_be_in_the_home_folder(tmp_path, monkeypatch):
    save_network(tmp_path / "net", "wav2vec2")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert backbone_spec("hf:~/net").name == "hf:net"


def test_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    save_network(tmp_path, "wav2vec2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="not a name on the Hugging Face Hub"):
        backbone_spec("hf:")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"padding": "mirror"}, "padding"), ({"frequency_max": 9_000}, "f_max"), ({"hop_length": 7}, "hop_length")],
)
def test_clap_with_wrong_settings_is_refused_with_what_is_wrong(tmp_path, settings, reason):
    (tmp_path / "config.json").write_text('{"model_type": "clap"}')
    extractor = {"feature_extractor_type": "ClapFeatureExtractor", **feature_settings(), **settings}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(extractor))
    with pytest.raises(ConfigError, match=rf"^hf:{tmp_path}: .*{reason}"):
        backbone_spec(f"hf:{tmp_path}")


def test_other_mel_settings_are_refused(tmp_path, manifest):
    save_network(tmp_path, "wav2vec2")
    recipe = Recipe(backbone=f"hf:{tmp_path}", mel=MelConfig(n_mels=40))
    with pytest.raises(ConfigError, match=r"the mel settings of backbone hf:.* are fixed"):
        spectag.train(manifest, tmp_path / "model", recipe)
