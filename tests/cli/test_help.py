"""Help pages: what they contain, how long they are, and how little they import."""

import importlib
import re

import pytest

from helpers.command import python
from spectag.cli.app import app
from spectag.cli.commands import COMMANDS
from spectag.cli.help import command_options

HELP_OF = {name: command for commands in COMMANDS.values() for name, command in commands.items()}
NAMES = list(HELP_OF)


@pytest.fixture(autouse=True)
def _terminal_of_100_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")


def options_shown(page):
    return set(re.findall(r"(?:^| |, )(--?[a-z][\w.-]*|-)(?=[ ,\n])", page + "\n"))


def test_list_of_commands_is_in_the_groups_of_the_design(run):
    done = run("--help")
    assert done.status == 0
    groups = [line for line in done.out.splitlines() if re.fullmatch(r"[A-Z][a-z ]+", line)]
    assert groups == ["First run", "Data", "Train", "Tag", "Findings", "Evaluate", "Curate"]
    shown = re.findall(r"^  ([a-z-]+) +(.+)$", done.out, re.MULTILINE)
    assert shown == [(name, command.summary) for name, command in HELP_OF.items()]
    assert "Start with: spectag demo" in done.out


def test_no_arguments_and_the_short_flag_print_the_list_of_commands(run):
    assert run() == run("-h") == run("--help")


def test_list_has_every_command_that_is_registered():
    assert {name for name in app if not name.startswith("-")} == set(NAMES)


def test_list_fits_80_columns(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run("--help").out.splitlines())) <= 80


@pytest.mark.parametrize("command", NAMES)
def test_docstring_of_a_command_starts_with_its_summary(command):
    function = app[command].default_command
    assert function.__doc__.splitlines()[0] == HELP_OF[command].summary


@pytest.mark.parametrize("command", NAMES)
def test_every_option_is_explained_in_help_all(run, command):
    done = run(command, "--help-all")
    assert (done.status, done.err) == (0, "")
    options = list(command_options(app[command]))
    assert [option.names for option in options if not option.text] == []
    names = {name for option in options if not option.is_positional for name in option.names}
    assert options_shown(done.out) >= names
    assert max(map(len, done.out.splitlines())) <= 100


@pytest.mark.parametrize("command", NAMES)
def test_short_page_has_an_example_and_ends_with_config(run, command):
    page = run(command, "--help").out
    assert f"Example: spectag {command}" in page
    rows = re.findall(r"^  (-.*)$", page, re.MULTILINE)
    assert rows[-1].startswith("--config FILE")
    assert len(rows) <= 15


@pytest.mark.parametrize("command", NAMES)
def test_short_page_shows_the_options_that_are_required(run, command):
    required = [option for option in command_options(app[command]) if option.is_required]
    page = run(command, "--help").out
    assert [option.heading for option in required if option.heading not in page] == []


@pytest.mark.parametrize("command", NAMES)
def test_help_names_no_source_file(run, command):
    assert re.findall(r"\b\w+\.(?:py|md|toml\.py)\b|\bdocs/|\bbenchmarks/", run(command, "--help-all").out) == []


def test_help_of_train_fits_60_lines(run):
    page = run("train", "--help").out
    assert len(page.splitlines()) <= 60
    assert "spectag train --help-all shows all" in page


def test_options_are_grouped_in_help_all(run):
    page = run("train", "--help-all").out
    groups = [line.split(" (")[0] for line in page.splitlines() if re.match(r"[A-Z0-9]", line)]
    for group in ("Options", "Training", "Feature extraction", "Augmentation", "Loss", "Fine-tuning", "Data"):
        assert group in groups
    assert page.index("--mel.n-mels") > page.index("\nFeature extraction")


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("train", "--budget DURATION"),
        ("train", "--mode frozen|finetune"),
        ("train", "--folds NUMBER|auto|given|none"),
        ("train", "Usage: spectag train MANIFEST --output PATH [OPTIONS]"),
        ("tag", "Usage: spectag tag MODEL [PATHS...] [OPTIONS]"),
        ("tag", "--window SECONDS"),
        ("soundscapes", "--sample-rate HZ"),
        ("calibrate", "--set LABEL=THRESHOLD"),
    ],
)
def test_values_are_shown_by_words_for_their_kind(run, command, text):
    assert text in run(command, "--help").out


def test_help_of_a_subcommand(run):
    assert "Usage: spectag models download NAMES..." in run("models", "download", "--help").out
    assert re.search(r"^Commands\n  download +\w", run("models", "--help").out, re.MULTILINE)


def test_help_flag_after_other_options_prints_the_same_page(run):
    assert run("train", "a.csv", "-o", "m", "--help") == run("train", "--help")
    assert run("--config", "recipe.toml", "train", "-h") == run("train", "--help")


def test_help_of_an_unknown_command_is_an_error(run):
    done = run("trian", "--help")
    assert (done.status, done.out) == (2, "")
    assert "unknown command 'trian'; did you mean 'train'? The commands: demo, " in done.err


@pytest.mark.parametrize("arguments", [[], *([name] for name in NAMES), ["models", "download"]], ids=" ".join)
def test_help_imports_only_cli_config_and_system(arguments):
    """Also quick: neither numpy nor rich; the list of commands does not even need pydantic."""
    script = f"""
import sys
from spectag.cli import main
main([*{arguments}, "--help"])
print("\\nmodules", *sys.modules)
"""
    modules = python(script).out.splitlines()[-1].split()[1:]
    packages = {name.split(".")[1] for name in modules if name.startswith("spectag.")}
    assert packages <= {"cli", "config", "system", "errors", "array_types"}
    slow = {"numpy", "torch", "rich", "onnxruntime", "scipy", "pandas"} | ({"pydantic"} if not arguments else set())
    assert not slow & set(modules)


def test_every_main_option_exists():
    for name, command in HELP_OF.items():
        known = {text.removeprefix("--") for option in command_options(app[name]) for text in option.names}
        assert set(command.main_options.split()) <= known, name


def test_command_modules_are_named_like_the_commands():
    for name in NAMES:
        assert importlib.import_module(f"spectag.cli.commands.{name.replace('-', '_')}")
