"""`import spectag`: light, and each command is one function with the same words."""

import importlib
import inspect
import subprocess
import sys

import pytest

import spectag
from helpers.bundles import make_bundle
from spectag.cli.app import app

PUBLIC = sorted(spectag.__all__)


def python(script):
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_nothing_but_ourselves():
    heavy = {"numpy", "pydantic", "onnxruntime", "scipy", "soundfile", "rich", "cyclopts", "torch"}
    assert python(f"import sys, spectag; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(spectag, name))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'spectag' has no attribute 'tagg'"):
        _ = spectag.tagg
    with pytest.raises(ImportError):
        importlib.import_module("spectag.tagg")


@pytest.mark.parametrize("name", ["augment", "demo", "prepare", "show", "split", "train", "tune"])
def test_command_and_function_have_the_same_words(name):
    of_function = set(inspect.signature(getattr(spectag, name)).parameters) - {"progress", "say", "on_epoch"}
    of_command = set(inspect.signature(app[name].default_command).parameters) - {"json_output"}
    settings = {"settings", "mel", "image", "augment", "loss", "finetune", "noisy_labels", "settings_file"}
    other = {
        "augment": ({"config", "n_clips"}, {"augment", "clips"}),
        "demo": ({"folder"}, {"output"}),
        "split": (set(), {"output"}),  # the function gives what the command writes
        "train": (set(), settings),
        "tune": (set(), settings),
    }
    only_function, only_command = other.get(name, (set(), set()))
    assert of_function - only_function == of_command - only_command


def test_load_gives_a_tagger(tmp_path):
    assert isinstance(spectag.load(make_bundle(tmp_path / "model")), spectag.Tagger)
