"""Matplotlib figures without a display, saved whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.system.atomic_files import unfinished_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_FIGURE_SUFFIXES = {".png", ".jpg", ".pdf", ".svg"}


LINE_COLOR = "#721f81"  # from the same map


TITLE_LENGTH = 32  # characters in a line above a tile


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as .png, .jpg, .pdf or .svg; whole or not at all.

    Raises
    ------
    ConfigError
        If the suffix is another.
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
    """Refuse a figure that can't be drawn in the end, before any work is done.

    Raises
    ------
    ConfigError
        If its suffix is none of a figure's.
    MissingExtraError
        If matplotlib is not installed.
    """
    if path.suffix.lower() not in _FIGURE_SUFFIXES:
        raise ConfigError(f"{path}: a figure is one of {', '.join(sorted(_FIGURE_SUFFIXES))}; change the suffix")
    _figure_class()


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of so many inches."""
    return _figure_class()(figsize=(width, height), layout="constrained")


def _figure_class() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "plots", "drawing a figure") from error
    return Figure


def middle_cut(text: str, length: int) -> str:
    """A text without its middle where it is longer than that."""
    if len(text) <= length:
        return text
    n_end = length // 3
    return f"{text[: length - n_end - 1]}…{text[-n_end:]}"
