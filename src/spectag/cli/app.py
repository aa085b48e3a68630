"""The command line: parse, one call, print. Each command is a module of `commands`."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnusedCliTokensError,
)

from spectag.cli.commands import COMMANDS
from spectag.cli.help import HELP_FLAGS, command_list, command_page
from spectag.errors import MissingExtraError, did_you_mean
from spectag.system.file_errors import path_with_spaces

MISUSED, SKIPPED_SOME = 2, 3

app = App(name="spectag", help_flags=[], version_flags=["--version", "-V"], group_parameters="Options")
app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False  # entry.main prints a message
for _group in COMMANDS.values():
    for _name in _group:
        _module = _name.replace("-", "_")
        _object = "app" if _name in ("cache", "models") else f"{_module}_command"  # these have sub-commands
        app.command(f"spectag.cli.commands.{_module}:{_object}", name=_name)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config: Path | None = None,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], negative="")] = False,
) -> Any:
    """Run a command with the options of a TOML file, if there is one, and those of the command line."""
    from spectag.cli.terminal import set_quiet

    set_quiet(quiet)
    app.config = () if config is None else (_settings(config, command=tokens[0] if tokens else ""),)
    return app(tokens, result_action="return_value", exit_on_error=False, print_error=False)


@contextmanager
def training_packages(extra: str, purpose: str) -> Iterator[None]:
    """Import what needs torch. A package that is not installed is an error that names the extra to install."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down other processes
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", extra, purpose) from error


def _settings(path: Path, *, command: str) -> Any:
    """The settings of a TOML file or a named recipe, for options of the command that are not on the command line."""
    from cyclopts.config import Dict

    from spectag.config.base import parse_config, read_toml
    from spectag.config.recipe import Recipe, recipe_file

    path = path if path.suffix else recipe_file(str(path))
    values = read_toml(path)
    options = _option_names(command) - Recipe.model_fields.keys()
    of_command = {name: value for name, value in values.items() if name in options}
    of_recipe = {name: value for name, value in values.items() if name not in options}
    recipe = parse_config(of_recipe, Recipe, source=str(path))  # reports a misspelt setting, for every command
    if "settings_file" in options:  # the command reads the recipe itself
        return Dict({command: of_command | {"settings_file": str(path)}}, source=str(path))
    settings = of_command | {name: value for name, value in of_recipe.items() if getattr(recipe, name) is not None}
    if isinstance(recipe.folds, str):
        settings.pop("folds", None)  # auto, given and none are for training only
    return Dict({command: settings}, source=str(path), allow_unknown=True)


def _option_names(command: str) -> set[str]:
    """The names of a command's options, as they are written in a TOML file."""
    if command not in list(app):
        return set()
    arguments = app[command].assemble_argument_collection(parse_docstring=False)
    return {name.removeprefix("--").replace("-", "_") for argument in arguments for name in argument.names}


def run(tokens: list[str]) -> int:
    """Run a command, or print a help page, and return the exit status. Wrong usage is reported in one line."""
    try:
        if tokens[:1] == ["--install-completion"]:
            from spectag.cli.completion import install_completion

            install_completion(app, tokens[1:])
            return 0
        page = _help_page(tokens)
        if page is not None:
            print(page)
            return 0
        status = app.meta(tokens, result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"spectag: {_in_one_line(error)}", file=sys.stderr)
        return MISUSED
    return status if isinstance(status, int) else 0


def _help_page(tokens: list[str]) -> str | None:
    """The help page that the arguments request; None if they request none."""
    options = tokens[: tokens.index("--")] if "--" in tokens else tokens
    if tokens and not set(HELP_FLAGS).intersection(options):
        return None
    words = [token for token in options if not token.startswith("-")]
    if not words:
        return command_list()
    command, chain = app, list[str]()
    for word in words:
        if word in command:
            command = command[word]
            chain.append(word)
    return command_page(command, tuple(chain), show_all="--help-all" in options) if chain else None


def _in_one_line(error: CycloptsError) -> str:
    """What is wrong with the usage. Messages that cyclopts writes for programmers are replaced."""
    from pydantic import ValidationError

    from spectag.config.base import decimal_point_hint

    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        name, commands = error.unused_tokens[0], [name for group in COMMANDS.values() for name in group]
        if not error.command_chain:
            return f"unknown command {name!r}{did_you_mean(name, commands) or '.'} The commands: {', '.join(commands)}"
    if isinstance(error, UnusedCliTokensError):
        tokens, unused = error.root_input_tokens or [], error.unused_tokens or []
        paths = (path_with_spaces(tokens[number:]) for number, word in enumerate(tokens) if not Path(word).exists())
        meant = next((path for path in paths if path and any(word in path.split(" ") for word in unused)), None)
        hint = f"; a path with spaces needs quotes: {shlex.quote(meant)}" if meant else _model_hint(error, tokens)
        return f"unexpected argument: {' '.join(map(repr, unused))}{hint}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.keyword is None:
        command = " ".join(["spectag", *(error.command_chain or ())])
        return f"{command} needs {error.argument.name}; see {command} --help"
    if isinstance(error.__cause__, ValidationError) and error.argument is not None:
        return "; ".join(_explanation(error.argument.name, problem) for problem in error.__cause__.errors())
    token = error.token if isinstance(error, CoercionError) else None
    hint = "" if token is None else decimal_point_hint(token.value)
    text = " ".join(str(error).split())
    return f"{text.removesuffix('.')}{hint}" if hint else text


def _model_hint(error: CycloptsError, tokens: list[str]) -> str:
    """What to do if a command got a model that has no argument for one."""
    from spectag.models.nearby_models import is_model

    name = " ".join(error.command_chain or ())
    command = app[name].default_command if len(error.command_chain or ()) == 1 else None
    parameters = {} if command is None else signature(command).parameters
    if not parameters or next(iter(parameters)) == "model":
        return ""
    model = next((word for word in tokens if not word.startswith("-") and word not in app and is_model(word)), None)
    if model is None:
        return ""
    remedy = f"give it as --model {shlex.quote(model)}" if "model" in parameters else "leave it out"
    return f"; {model} is a model, and spectag {name} has no argument for it: {remedy}"


def _explanation(prefix: str, problem: Any) -> str:
    """What is wrong with an option of a settings class: --mel of --mel.n-mels, * of options without a prefix."""
    from spectag.config.base import plain_reason

    if problem["type"] == "value_error":  # raised by our own validators, which name the option
        return plain_reason(problem)
    name = "".join(problem["loc"][:1]).replace("_", "-")
    option = f"--{name}" if prefix == "*" else ".".join(filter(None, [prefix, name]))
    return f"{option}: {plain_reason(problem)}"
