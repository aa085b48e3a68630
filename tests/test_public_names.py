"""`import spectag`: it is quick, and every command has a public function with the same parameters."""

import dataclasses
import importlib
import inspect
import subprocess
import sys
from importlib.metadata import version

import pytest

import spectag
from helpers.bundles import LABELS, make_bundle, tone
from spectag.audio.files import write_audio
from spectag.cli.app import app
from spectag.cli.help import command_options
from spectag.training import find_learning_rate

PUBLIC = sorted(spectag.__all__)


def python(script):
    """What a fresh Python process prints."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_loads_no_other_library():
    heavy = {"numpy", "pydantic", "onnxruntime", "scipy", "soundfile", "rich", "cyclopts", "torch"}
    assert python(f"import sys, spectag; print(sorted({heavy} & set(sys.modules)))") == "[]"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_exists_and_is_documented(name):
    assert inspect.getdoc(getattr(spectag, name))


def test_version_is_that_of_the_package():
    assert spectag.__version__ == version("spectag")
    assert "__version__" in dir(spectag)


def test_help_of_the_package_fits_a_screen_and_imports_nothing_big():
    text = python("import spectag, sys; help(spectag); print('numpy' in sys.modules)")
    assert len(text.splitlines()) <= 45
    assert 'model.tag("street.ogg")' in "".join(text.splitlines()[:10])
    assert text.endswith("False")
    assert set(spectag.__all__) < set(dir(spectag))


def test_function_whose_packages_are_not_installed_names_the_extra():
    script = """
import sys
sys.modules["torch"] = None
import spectag
try:
    spectag.augment
except spectag.SpectagError as error:
    print(error)
"""
    assert python(script) == "spectag.augment needs PyTorch: pip install 'spectag[finetune]'"


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No spectag attribute tagg"):
        _ = spectag.tagg
    with pytest.raises(ImportError):
        importlib.import_module("spectag.tagg")


def parameters_of_command(name):
    return set(inspect.signature(app[name].default_command).parameters) - {"json_output"}


def parameters_of_function(name):
    return set(inspect.signature(getattr(spectag, name)).parameters) - {"progress", "log", "on_epoch"}


@pytest.mark.parametrize(
    "name", ["demo", "embed", "explain", "export", "inspect", "prepare", "relabel", "show", "split", "train", "tune"]
)
def test_command_and_function_have_the_same_parameters(name):
    only_function, only_command = {
        "demo": ({"folder"}, {"output"}),
        "embed": ({"listed"}, {"files_from", "overlap"}),
        "explain": ({"labels", "start_seconds", "end_seconds", "n_passes"}, {"label", "start", "end"}),
        "split": (set(), {"output"}),  # the function returns what the command writes
    }.get(name, (set(), set()))
    assert parameters_of_function(name) - parameters_of_command(name) == only_function
    assert parameters_of_command(name) - parameters_of_function(name) == only_command


def test_train_tune_and_lr_find_share_the_options_of_the_data():
    commands = [app[name].default_command for name in ("train", "tune", "lr-find")]
    for function in (*commands, spectag.train, spectag.tune, find_learning_rate):
        assert "data" in inspect.signature(function).parameters
    shown = [{name for option in command_options(app[name]) for name in option.names} for name in ("train", "tune")]
    for field in dataclasses.fields(spectag.DataOptions):
        assert all(f"--{field.name.replace('_', '-')}" in names for names in shown)


def test_load_gives_a_tagger_with_the_labels_of_its_bundle(tmp_path):
    tagger = spectag.load(make_bundle(tmp_path / "model"))
    assert isinstance(tagger, spectag.Tagger)
    assert tuple(tagger.labels.names) == tuple(LABELS)
    write_audio(tmp_path / "low.wav", tone("low", 0.5), 16_000)
    assert tagger.tag(tmp_path / "low.wav").top(1)[0].label == "low"


def test_functions_take_an_open_model_its_folder_or_its_name(tmp_path):
    """A name once was an AttributeError from inside `tag`, and an open model a TypeError from inside `calibrate`."""
    model = spectag.load(make_bundle(tmp_path / "model"))
    write_audio(tmp_path / "low.wav", tone("low", 0.5), 16_000)
    for given in (model, model.folder, str(model.folder)):
        [tagged] = spectag.tag(given, tmp_path / "low.wav")
        assert tagged.timeline is not None
        with pytest.raises(spectag.SpectagError, match="has no out-of-fold predictions"):
            spectag.calibrate(given, output=tmp_path / "out")
    with pytest.raises(spectag.SpectagError, match="not a tagger: no such folder"):
        list(spectag.tag("no-model", tmp_path / "low.wav"))
