"""Recordings and windows, as several commands take them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cyclopts import CycloptsError

if TYPE_CHECKING:
    from spectag.config.base import WindowConfig


def listed_recordings(recordings: Sequence[str] | None, files_from: str | None, *, command: str) -> list[str]:
    """The recordings in the list of --files-from; none without a list. Without any recordings, wrong usage."""
    from spectag.tagging.input_files import read_list

    if recordings is None and files_from is None:
        raise CycloptsError(
            msg=f"spectag {command} needs RECORDINGS or --files-from LIST; see spectag {command} --help"
        )
    return list(read_list(files_from)) if files_from else []


def window_of_options(
    window: float | None, overlap: float | None, *, command: str, default: float | None = None
) -> "WindowConfig | None":
    """The windows that --window and --overlap describe; with an overlap alone, those of the default length in seconds.

    None without both: as the command decides.
    """
    from spectag.config.base import WindowConfig, check_window_options, parse_config

    if window is None and overlap is not None:
        window = default
    try:
        check_window_options(window, overlap)
    except ValueError as error:
        raise CycloptsError(msg=str(error)) from error
    if window is None:
        return None
    seconds = {"window_seconds": window, "overlap_seconds": overlap or 0.0}
    return parse_config(seconds, WindowConfig, source=f"spectag {command}")
