"""spectag serve."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import Flag, Workers
from spectag.config.serving import ServeSettings
from spectag.errors import MissingExtraError


def serve_command(
    model: str | None = None,
    /,
    *,
    project: Path | None = None,
    settings: Annotated[ServeSettings | None, Parameter(name="*", negative_iterable=())] = None,
    workers: Workers = None,
    no_browser: Flag = False,
) -> None:
    """Serve a model, as a page in the browser and over HTTP.

    On the page you drop sounds, see and hear the detections, set thresholds and download tables. With a project, you
    also train, check and improve the model. Programs POST a sound to /v1/tag, /v1/segments or /v1/embed. The
    probabilities are those of spectag tag. /openapi.json describes everything. Ctrl-C ends the server.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
        By default that of the project; without a project, the page asks what to open.
    project
        Folder of a project, with the model in all its versions, jobs and decisions. A new one is created if it does not
        exist; MODEL is then its first version. With MODEL, a project that exists gets it as its next version.
    workers
        Processes that compute answers. By default one per core, or one if the networks run on another device.
    no_browser
        Do not open the page in the browser. It is opened only if the command runs in a terminal.
    """
    try:
        from spectag.serving import serve
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "spectag serve") from error
    browser = not no_browser and sys.stdin is not None and sys.stdin.isatty()
    serve(
        model,
        settings,
        project=project,
        workers=workers,
        browser=browser,
        log=lambda line: print(line, file=sys.stderr, flush=True),
    )
