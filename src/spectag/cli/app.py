"""The command line: parse, one call, print. Each command lies in the module of its name."""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from spectag.errors import SpectagError

FAILED, MISUSED, SKIPPED_SOME, STOPPED = 1, 2, 3, 130

app = App(
    name="spectag",
    help="Make taggers for sounds: a folder of recordings and a table of labels in, a tagger out.",
    help_epilogue=(
        "Begin with: spectag demo. Exit status: 0 all well, 1 an error, 2 wrong usage, 3 done but some files skipped."
    ),
    version=lambda: _version(),
)
app.suppress_keyboard_interrupt = app.meta.suppress_keyboard_interrupt = False  # main tells of it
for _name, _help in (
    ("demo", "Make a small set of sounds, train on it, and tag with it: the first run."),
    ("inspect", "Show a manifest's labels, durations, faults, duplicates and leaks."),
    ("split", "Deal a manifest's clips into folds, balanced by label, each recording in one."),
    ("prepare", "Make the spectrograms of a manifest's clips, once."),
    ("soundscapes", "Mix recordings of a manifest's clips at known places, to test how well a tagger tells time."),
    ("augment", "Show what augmentation does to a manifest's clips, as pictures and sounds."),
    ("train", "Train a tagger on a manifest."),
    ("tune", "Search for the settings that held-out clips like best."),
    ("lr-find", "Find the learning rate to fine-tune with, and draw the curve that shows it."),
    ("evaluate", "Tell how good a tagger is, with intervals, and write a report."),
    ("calibrate", "Fit a tagger's probabilities and thresholds to held-out clips anew, or set thresholds."),
    ("review", "Name the clips and labels that are most likely wrong, and take corrections."),
    ("suggest", "Choose the clips that are worth labelling next."),
    ("tag", "Tag recordings."),
    ("listen", "Tag a microphone, or sound from another program, while it goes on."),
    ("index", "Index a folder's sounds, to be searched."),
    ("search", "Find the sounds of an index that are most like others."),
    ("explain", "Draw where in time and frequency a tagger hears its labels."),
    ("show", "Draw a sound, or a collage of a manifest's clips."),
):
    _module = _name.replace("-", "_")
    app.command(f"spectag.cli.commands.{_module}:{_module}_command", name=_name, help=_help)
app.command("spectag.cli.commands.models:app", name="models", help="List the published taggers, or download them.")


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> Any:
    """Run a command.

    Parameters
    ----------
    config
        Take settings from a TOML file, such as a tagger's recipe.toml; flags win over it.
    """
    app.config = () if config is None else (_settings(config, command=tokens[0] if tokens else ""),)
    return app(tokens, result_action="return_value", exit_on_error=False, print_error=False)


def _settings(path: Path, *, command: str) -> Any:
    """The settings of a TOML file, for those options of the command that are not given as flags."""
    from cyclopts.config import Dict

    from spectag.config.base import parse_config, read_toml
    from spectag.config.recipe import Recipe

    values = read_toml(path)
    options = _options_of(command) - Recipe.model_fields.keys()
    own = {name: value for name, value in values.items() if name in options}
    others = {name: value for name, value in values.items() if name not in options}
    recipe = parse_config(others, Recipe, source=str(path))  # tells of a misspelt setting, also of another command
    if "settings_file" in options:  # it reads the settings itself
        return Dict({command: own | {"settings_file": str(path)}}, source=str(path))
    given = own | {name: value for name, value in others.items() if getattr(recipe, name) is not None}
    if isinstance(recipe.folds, str):
        given.pop("folds", None)  # auto, given and none are words of training
    return Dict({command: given}, source=str(path), allow_unknown=True)


def _options_of(command: str) -> set[str]:
    """The names of a command's own options, as they stand in a file."""
    if command not in list(app):
        return set()
    arguments = app[command].assemble_argument_collection()
    return {name.removeprefix("--").replace("-", "_") for argument in arguments for name in argument.names}


def _version() -> str:
    from importlib.metadata import version

    return version("spectag")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold what no encoding knows
    try:
        status = app.meta(
            sys.argv[1:] if arguments is None else arguments,
            result_action="return_value",
            exit_on_error=False,
            print_error=False,
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return _fail(_in_one_line(error), status=MISUSED)
    except SpectagError as error:
        return _fail(str(error), status=FAILED)
    except KeyboardInterrupt:
        return _fail("stopped; nothing half-written is left, and the same command may be given again", status=STOPPED)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        sys.stdout = None
        return FAILED
    except OSError as error:  # such as a full disk
        sys.stdout = None
        return _fail(f"{error.filename or 'output'}: {error.strerror or error}", status=FAILED)
    return status if isinstance(status, int) else 0


def _fail(message: str, *, status: int) -> int:
    print(f"spectag: {message}", file=sys.stderr)
    return status


def _in_one_line(error: CycloptsError) -> str:
    """What is wrong with the usage, in our words where the parser's are meant for programmers."""
    from pydantic import ValidationError

    if isinstance(error, UnusedCliTokensError):
        return f"not expected: {' '.join(map(repr, error.unused_tokens or ()))}"
    if isinstance(error, MissingArgumentError) and error.argument is not None and error.keyword is None:
        command = " ".join(["spectag", *(error.command_chain or ())])
        return f"{command} needs {error.argument.name}; see {command} --help"
    if isinstance(error.__cause__, ValidationError) and error.argument is not None:
        return "; ".join(_explanation(error.argument.name, problem) for problem in error.__cause__.errors())
    return " ".join(str(error).split())


def _explanation(group: str, problem: Any) -> str:
    """What is wrong with an option of a group: --mel of --mel.n-mels, * of those without a prefix."""
    if problem["type"] == "value_error":  # one of ours, which tells what came
        return str(problem["msg"]).removeprefix("Value error, ")
    name = "".join(problem["loc"][:1]).replace("_", "-")
    option = f"--{name}" if group == "*" else ".".join(filter(None, [group, name]))
    return f"{option}: {problem['msg']} (got {problem['input']!r})"
