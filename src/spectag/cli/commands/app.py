"""spectag app."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import Workers
from spectag.config.base import parse_config
from spectag.config.serving import ServeSettings
from spectag.errors import MissingExtraError


def app_command(
    project: Path | None = None,
    /,
    *,
    folder: Annotated[list[Path] | None, Parameter(negative="")] = None,
    workers: Workers = None,
) -> None:
    """Open the page in a window of its own.

    You need no terminal for anything else: on the page you create and open projects, and tag sounds. spectag ends when
    you close the window. The window is one of pywebview if that is installed, or else of Chrome, Chromium or Edge;
    without them, the page opens in the browser. Other users of the computer can't reach the page.

    Parameters
    ----------
    project
        Folder of a project to open. By default the page asks what to open.
    folder
        Folder in which the page may choose sounds, tables, models and projects, beside that of the project; can be
        repeated. By default your home folder and external disks.
    workers
        Processes that compute answers. By default one per core.
    """
    try:
        from spectag.serving.app_window import open_app
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "spectag app") from error
    settings = parse_config({"folder": folder or []}, ServeSettings, source="--folder")
    open_app(project, settings, workers=workers, log=lambda line: print(line, file=sys.stderr, flush=True))
