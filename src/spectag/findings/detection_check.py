"""Check a sample of detections by ear, on a page that a local server shows."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from spectag.config.findings import CheckSettings
from spectag.errors import MissingExtraError
from spectag.findings.check_session import CheckResult, open_check
from spectag.models.tagger import Tagger
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent


@shows_progress
def check(
    model: str | Path | Tagger,
    detections: str | Path,
    output: str | Path,
    settings: CheckSettings | None = None,
    *,
    labels: str | Path | None = None,
    min_probability: float | None = None,
    max_probability: float | None = None,
    audio_dir: str | Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    site_from: str | None = None,
    reviewer: str = "",
    page: bool = True,
    browser: bool = True,
    port: int | None = None,
    training_clips: bool = False,
    workers: int | None = None,
    show_address: Callable[[str], None] | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> CheckResult:
    """Draw a sample of detections, and check it by ear on a page in the browser.

    The page is shown by a server on this computer until the function is interrupted (Ctrl-C). Each decision is on disk
    before the page shows it as saved. Another call with the same output continues with its sample and decisions, and
    with its settings where none are given.

    Parameters
    ----------
    model : path, name or Tagger
        The model that made the detections.
    detections : path
        A table that `read_detections` reads.
    output : path
        Folder for sample.csv, decisions.csv, check.json and protocol.md.
    settings : CheckSettings, optional
    labels : path, optional
        A file with the labels to check, one in each line. By default all.
    min_probability, max_probability : float, optional
        Detections below the first, or at or above the second, are left out.
    audio_dir, label_column, label_separator
        As for `read_detections`.
    site_from : str, optional
        As for `place_of`.
    reviewer : str
        Name of who decides; it can be changed on the page.
    page : bool
        Show the page. Otherwise only draw the sample, and write the protocol.
    browser : bool
        Open the page in the browser.
    port : int, optional
        Port of the server, on 127.0.0.1. By default one that is free.
    training_clips : bool
        Also cut the decided detections out of their recordings, for `spectag train`, into the folder clips.
    workers : int, optional
        Processes that cut clips; by default one per core.
    show_address : callable, optional
        Gets the address of the page. By default it is a message of the log.
    progress : Progress
    log : Log

    Returns
    -------
    CheckResult

    Raises
    ------
    DataError
        If the table or a file in the output is not understood, its recordings are not found, or the output can't be
        written.
    ConfigError
        If the output has a sample of other detections or with settings other than the given ones, or is used by another
        process.
    MissingExtraError
        If the packages of the page are not installed.
    """
    if page:
        check_page_packages()
    with open_check(
        model,
        detections,
        Path(output),
        settings or CheckSettings(),
        labels=labels,
        min_probability=min_probability,
        max_probability=max_probability,
        audio_dir=audio_dir,
        label_column=label_column,
        label_separator=label_separator,
        site_from=site_from,
        progress=progress,
        log=log,
    ) as session:
        if page:
            show = show_address or (lambda address: log(f"page: {address}"))
            session.serve(show, port=port, browser=browser, reviewer=reviewer)
        return session.finish(training_clips=training_clips, workers=workers, progress=progress)


def check_page_packages() -> None:
    """Raise a MissingExtraError if the packages of the page are not installed."""
    for package in ("starlette", "uvicorn"):
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(package, "serve", "the page of spectag check") from error
