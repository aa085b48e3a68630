"""Write reference/cli.md: every command and option of spectag.

Run `python docs/write_cli_reference.py` after a change of a command. A test compares the file with the commands.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

from spectag.cli.app import app
from spectag.cli.commands import COMMANDS
from spectag.cli.help import Option, command_options

PAGE = Path(__file__).parent / "reference" / "cli.md"

_INTRODUCTION = """\
# Commands and options

<!-- Written by docs/write_cli_reference.py. Change the help texts in the code, then run the script again. -->

`spectag COMMAND --help` shows the main options of a command and an example. `spectag COMMAND --help-all` shows all
options. `spectag -V` or `spectag --version` prints the version. `spectag --install-completion` lets bash, zsh or fish
complete commands, options and files; give the name of the shell if it is not the one that you use.

Every command accepts `--config FILE`: it reads options from a TOML file, such as a model's `recipe.toml`, or from a
recipe of spectag, such as `blog`. Options on the command line override it. `--quiet` (`-q`) shows neither progress nor
messages, only results, warnings and errors.

Results go to stdout or to `-o`. Progress and warnings go to stderr. With `--json`, results are JSON. The
[exit status](output-files.md#exit-status) shows whether files were skipped.
"""


def reference() -> str:
    """The page, in Markdown."""
    lines = [_INTRODUCTION]
    for group, commands in COMMANDS.items():
        lines += [f"## {group}", ""]
        for name, command in commands.items():
            example = f"    spectag {name} {command.example}".rstrip()
            lines += [*_section(app[name], name, level=3), "For example:", "", example, ""]
            for subcommand in app[name]:
                if not subcommand.startswith("-"):
                    lines += _section(app[name][subcommand], f"{name} {subcommand}", level=4)
    return "\n".join(lines).rstrip() + "\n"


def _section(command: App, name: str, *, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} spectag {name}", "", _description(command), "")
    options = list(command_options(command))
    positional = [option for option in options if option.is_positional]
    if positional:
        yield from _table("argument", positional)
    for group in dict.fromkeys(option.group for option in options if not option.is_positional):
        if group != "Options":
            yield from (f"*{group}*", "")
        yield from _table(
            "option", [option for option in options if not option.is_positional and option.group == group]
        )


def _description(command: App) -> str:
    """The docstring of the command up to its parameters."""
    return (inspect.getdoc(command.default_command) or "").partition("\n\nParameters\n")[0]


def _table(title: str, options: list[Option]) -> Iterator[str]:
    yield from (f"| {title} | meaning |", "|---|---|")
    for option in options:
        yield f"| `{_escaped(option.heading)}` | {_escaped(option.text)} |"
    yield ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"wrote {PAGE}")
