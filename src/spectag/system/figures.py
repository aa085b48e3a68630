"""Matplotlib figures: created without a display, saved complete or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.system.atomic_files import unfinished_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FIGURE_SUFFIXES = {".png", ".jpg", ".pdf", ".svg"}
LINE_COLOR = "#721f81"  # from the colour map of the spectrograms
OKABE_ITO = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"
"""Okabe and Ito's colours for colour-blind readers, without yellow, which is too pale for lines."""
TITLE_LENGTH = 32  # characters in a line above a panel


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Save a figure as .png, .jpg, .pdf or .svg.

    Raises
    ------
    ConfigError
        If the suffix is another one.
    DataError
        If the file can't be written.
    """
    path = Path(path)
    check_figure_path(path)
    try:
        with unfinished_file(path) as unfinished:
            figure.savefig(unfinished, format=path.suffix[1:].lower(), dpi=150)
    except OSError as error:
        raise DataError(f"{path}: the figure can't be written: {error.strerror or error}") from error


def check_figure_path(path: Path) -> None:
    """Check that a figure can be saved here, before any other work starts.

    Raises
    ------
    ConfigError
        If the suffix is not one of a figure.
    MissingExtraError
        If matplotlib is not installed.
    """
    if path.suffix.lower() not in _FIGURE_SUFFIXES:
        raise ConfigError(f"{path}: a figure is one of {', '.join(sorted(_FIGURE_SUFFIXES))}; change the suffix")
    _figure_class()


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure; width and height are in inches."""
    return _figure_class()(figsize=(width, height), layout="constrained")


def _figure_class() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plots", "drawing a figure") from error
    return Figure


def shorten_middle(text: str, length: int) -> str:
    """The text, with an ellipsis for its middle if it has more than `length` characters."""
    if len(text) <= length:
        return text
    n_end = length // 3
    return f"{text[: length - n_end - 1]}…{text[-n_end:]}"
