"""Help pages in plain text: the list of commands, and the main options or all options of one command.

cyclopts' own pages need rich and parse the source of every settings class several times, which takes a second.
"""

import inspect
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, cast, get_args, get_origin

from cyclopts import App, Group

from spectag.cli.commands import COMMANDS
from spectag.config.field_docs import field_docs

if TYPE_CHECKING:
    from cyclopts.argument import Argument

HELP_FLAGS = ("--help", "-h", "--help-all")

_DEFAULT_GROUP = "Options"
_CLOSING_LINES = """\
Start with: spectag demo
spectag COMMAND --help shows the main options of a command, --help-all all of
them. --quiet (-q) hides progress and messages. spectag --version (-V) prints
the version. spectag --install-completion lets bash, zsh or fish complete words.

Exit status: 0 success, 1 error, 2 wrong usage, 3 finished but some files were
skipped."""
_MIN_WIDTH, _MAX_WIDTH = 60, 100
_NAMES_WIDTH = 32
_LONGEST_CHOICES = 20  # a longer list of choices stands in the text

_NAMES_BY_METAVAR = {
    "COLUMN": "by group_column",
    "DATE": "after before",
    "DURATION": "budget",
    "FILE": "checked corrections files_from hierarchy label_map labels not_labels prior template",
    "FOLDER": "audio_dir cache clips_folder folder png project tensorboard",
    "FORMATS": "format",
    "FRACTION": "accept_above confidence hysteresis min_confidence precision recall test_size threshold width",
    "HZ": "f_max f_min rate sample_rate",
    "K/N": "shard",
    "LABEL": "label not_label",
    "LABEL=THRESHOLD": "set_by_hand",
    "MANIFEST": "labelled noisy",
    "MODEL": "compare init model",
    "NAME": "backbone extend reviewer",
    "NAME|FILE": "names recipe",
    "NAMES": "over",
    "NUMBER|NAME": "microphone",
    "PATH": "background output",
    "PATTERN": "within",
    "POWER": "amin",
    "RATE": "false_alarms",
    "ROWSxCOLUMNS": "grid",
    "SAMPLES": "hop_length n_fft win_length",
    "SECONDS": "end overlap seconds start window",
}
_METAVARS = {name: metavar for metavar, names in _NAMES_BY_METAVAR.items() for name in names.split()}
_METAVARS_BY_ENDING = {"_seconds": "SECONDS", "_db": "DB", "_fraction": "FRACTION"}
_METAVARS_BY_TYPE = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


@dataclass(frozen=True)
class Option:
    """An option or argument of a command, as its help page shows it."""

    names: tuple[str, ...]
    metavar: str
    text: str
    group: str
    is_required: bool = False
    is_positional: bool = False

    @property
    def heading(self) -> str:
        """Short names first, then long names, then the type word."""
        names = sorted(self.names, key=lambda name: name.startswith("--"))
        return ", ".join(names) + (self.metavar if self.is_positional else f" {self.metavar}".rstrip())


_CONFIG_TEXT = (
    "Read options from a TOML file, such as a model's recipe.toml, or from a recipe of spectag. Options on the command "
    "line override it."
)
_CONFIG = Option(("--config",), "FILE", _CONFIG_TEXT, _DEFAULT_GROUP)
_QUIET_TEXT = "Show neither progress nor messages, only results, warnings and errors."
_QUIET = Option(("--quiet", "-q"), "", _QUIET_TEXT, _DEFAULT_GROUP)


def command_list() -> str:
    """The page of `spectag --help`."""
    lines = ["Usage: spectag COMMAND [OPTIONS]", "", "Train and use taggers for sounds.", ""]
    for group, commands in COMMANDS.items():
        lines += [group, *(f"  {name:<13}{command.summary}" for name, command in commands.items()), ""]
    return "\n".join([*lines, _CLOSING_LINES])


def command_page(command: App, chain: tuple[str, ...], *, show_all: bool) -> str:
    """The page of a command: usage, description, an example, and its main options or all of them.

    Parameters
    ----------
    command : App
        The command, or a sub-command.
    chain : names
        Its name, after those of the commands that it belongs to.
    """
    every_option = list(command_options(command))
    arguments = [option for option in every_option if option.is_positional]
    options = [*(option for option in every_option if not option.is_positional), _QUIET, _CONFIG]
    lines = [_usage(chain, arguments, options), ""]
    for paragraph in _docstring(command)[0].split("\n\n"):
        lines += [*textwrap.wrap(paragraph, _width()), ""]
    in_list = next((commands[chain[-1]] for commands in COMMANDS.values() if chain[-1] in commands), None)
    if in_list:
        lines += [f"Example: spectag {chain[-1]} {in_list.example}".rstrip(), ""]
    lines += _section("Arguments", arguments)
    if in_list and in_list.main_options and not show_all:
        by_name = {name.removeprefix("--"): option for option in options for name in option.names}
        lines += _section(_DEFAULT_GROUP, [by_name[name] for name in [*in_list.main_options.split(), "config"]])
        lines += [f"spectag {' '.join(chain)} --help-all shows all {len(options)} options."]
    else:
        options = options if show_all else [option for option in options if option is not _QUIET]
        for group in dict.fromkeys([_DEFAULT_GROUP, *(option.group for option in options)]):
            lines += _section(group, [option for option in options if option.group == group])
    if subcommands := [name for name in command if not name.startswith("-")]:
        lines += ["Commands", *(f"  {name:<13}{command[name].help.splitlines()[0]}" for name in subcommands)]
    return "\n".join(lines).rstrip().replace("`", "")  # marks code in docstrings


def command_options(command: App) -> Iterator[Option]:
    """The arguments and options of a command, in the order of their declaration."""
    texts = _docstring(command)[1]
    for argument in command.assemble_argument_collection(parse_docstring=False):
        if not argument.keys:  # those of settings classes follow from these
            yield from _options(argument, texts)


def _options(argument: "Argument", texts: dict[str, str]) -> Iterator[Option]:
    if argument.children:
        [settings] = [leaf for leaf in _leaf_types(argument.hint) if isinstance(leaf, type)]
        for child in argument.children:
            yield from _options(child, field_docs(settings))
    elif argument.show:
        name = argument.field_info.name
        is_positional = argument.index is not None
        [group, *_] = cast("tuple[Group, ...]", argument.parameter.group)
        yield Option(
            names=argument.names,
            metavar=_metavar(argument, is_positional),
            text=" ".join(filter(None, [texts.get(name, ""), *_notes(argument, is_positional)])),
            group=str(group.name),
            is_required=argument.required,
            is_positional=is_positional,
        )


def _notes(argument: "Argument", is_positional: bool) -> Iterator[str]:
    """Choices, default value, and whether the option is required."""
    choices = argument.get_choices() or ()
    if choices and len("|".join(choices)) > _LONGEST_CHOICES:
        yield f"One of {', '.join(choices)}."
    default = argument.field_info.default
    if argument.required and not is_positional:
        yield "(required)"
    elif argument.show_default and default is True:
        yield "(default: on)"
    elif argument.show_default and not isinstance(default, bool) and default != ():
        yield f"(default: {default:g})" if isinstance(default, float) else f"(default: {default})"


def _metavar(argument: "Argument", is_positional: bool) -> str:
    """What stands for the value, such as DURATION or frozen|finetune; empty for a flag; ... for several arguments."""
    if is_positional:
        return "..." if argument.token_count()[1] else ""
    types = list(_leaf_types(argument.hint))
    if bool in types:
        return ""
    choices = "|".join(argument.get_choices() or ())
    if choices:
        numbers = ["NUMBER"] if {int, float} & set(types) else []
        return "|".join([*numbers, choices if len(choices) <= _LONGEST_CHOICES else "NAME"])
    name = argument.field_info.name
    by_ending = (metavar for ending, metavar in _METAVARS_BY_ENDING.items() if name.endswith(ending))
    return _METAVARS.get(name) or next(by_ending, None) or _METAVARS_BY_TYPE.get(types[0], "VALUE")


def _leaf_types(hint: Any) -> Iterator[Any]:
    """The types of a hint without None, Annotated, and lists around them."""
    if get_origin(hint) in (Union, UnionType):
        for part in get_args(hint):
            yield from _leaf_types(part)
    elif get_origin(hint) in (list, tuple) or hasattr(hint, "__metadata__"):
        yield from _leaf_types(get_args(hint)[0])
    elif hint is not NoneType:
        yield str if get_origin(hint) is Literal else hint


def _usage(chain: tuple[str, ...], arguments: list[Option], options: list[Option]) -> str:
    words = ["Usage: spectag", *chain]
    words += [option.heading if option.is_required else f"[{option.heading}]" for option in arguments]
    words += [f"{option.names[0]} {option.metavar}" for option in options if option.is_required]
    return " ".join([*words, "[OPTIONS]"])


def _section(title: str, options: list[Option]) -> list[str]:
    if not options:
        return []
    names_width = min(_NAMES_WIDTH, 4 + max(len(option.heading) for option in options))
    lines, indent = [title], " " * names_width
    for option in options:
        heading = f"  {option.heading}"
        if len(heading) + 2 > names_width:
            lines.append(heading)
            heading = ""
        heading = heading.ljust(names_width)
        lines += textwrap.wrap(option.text, _width(), initial_indent=heading, subsequent_indent=indent)
    return [*lines, ""]


def _width() -> int:
    return max(_MIN_WIDTH, min(_MAX_WIDTH, shutil.get_terminal_size().columns))


def _docstring(command: App) -> tuple[str, dict[str, str]]:
    """The description of a command in its docstring, and the text about each of its parameters."""
    docstring = inspect.getdoc(command.default_command) or ""
    description, _, parameters = docstring.partition("\n\nParameters\n----------\n")
    texts = re.findall(r"^(\w+)\n((?: +.*\n?)+)", parameters, re.MULTILINE)
    return description, {name: " ".join(text.split()) for name, text in texts}
