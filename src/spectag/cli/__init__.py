"""The command line: parse, one call, print. Each command lies in the module of its name."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from spectag.errors import SpectagError

FAILED, STOPPED, SKIPPED_SOME = 1, 130, 3

app = App(
    name="spectag",
    help="Make taggers for sounds: a folder of recordings and a table of labels in, a tagger out.",
    help_epilogue=(
        "Begin with: spectag demo. Exit status: 0 all well, 1 an error, 2 wrong usage, 3 done but some files skipped."
    ),
    version=lambda: _version(),
)
for _name, _help in (
    ("demo", "Make a small set of sounds, train on it, and tag with it: the first run."),
    ("inspect", "Show a manifest's labels, durations, faults, duplicates and leaks."),
    ("split", "Deal a manifest's clips into folds, balanced by label, each recording in one."),
    ("prepare", "Make the spectrograms of a manifest's clips, once."),
    ("train", "Train a tagger on a manifest."),
    ("tag", "Tag recordings."),
    ("show", "Draw a sound, or a collage of a manifest's clips."),
):
    app.command(f"spectag.cli.{_name}:{_name}_command", name=_name, help=_help)


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> Any:
    """Run a command.

    Parameters
    ----------
    config
        Settings of the command from a TOML file; flags go before them.
    """
    if config is not None:
        _use_settings(config)
    return app(tokens, result_action="return_value", exit_on_error=False, print_error=False)


def _use_settings(path: Path) -> None:
    from cyclopts.config import Toml

    from spectag.config import read_config
    from spectag.recipe import Recipe

    read_config(path, Recipe)  # tells of a misspelt setting, which the command may not know
    app.config = (Toml(path, use_commands_as_keys=False, allow_unknown=True),)


def _version() -> str:
    from importlib.metadata import version

    return version("spectag")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    try:
        status = app.meta(
            sys.argv[1:] if arguments is None else arguments,
            result_action="return_value",
            exit_on_error=False,
            print_error=False,
        )
    except CycloptsError as error:
        return _fail(_in_one_line(error), status=2)
    except SpectagError as error:
        return _fail(str(error), status=FAILED)
    except KeyboardInterrupt:
        return _fail("stopped; the same command goes on from here", status=STOPPED)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = None
        return FAILED
    return status if isinstance(status, int) else 0


def _fail(message: str, *, status: int) -> int:
    print(f"spectag: {message}", file=sys.stderr)
    return status


def _in_one_line(error: CycloptsError) -> str:
    """A usage error without pydantic's pointers to its own pages."""
    from pydantic import ValidationError

    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return "; ".join(problem["msg"].removeprefix("Value error, ") for problem in cause.errors())
    return " ".join(str(error).split())
