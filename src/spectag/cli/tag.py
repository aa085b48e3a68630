"""spectag tag."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from spectag.audio import find_audio
from spectag.cli import SKIPPED_SOME
from spectag.cli.screen import name_skipped, shown_work
from spectag.config import WindowConfig
from spectag.errors import ConfigError
from spectag.runtime import IMAGE_SUFFIXES, Tagger
from spectag.tables import Choice, Template, only_named, write_csv, write_jsonl, write_submission, written
from spectag.tag import TaggedFile, tag


def tag_command(
    model: Path,
    paths: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    table_format: Annotated[Literal["csv", "jsonl", "submission"] | None, Parameter(name="--format")] = None,
    template: Path | None = None,
    window: float | None = None,
    overlap: float = 0.0,
    top: int | None = None,
    threshold: float | None = None,
    workers: Annotated[int | None, Parameter(name=["--workers", "-j"])] = None,
) -> int:
    """Tag recordings.

    Without --top and --threshold the labels are given whose probability reaches the tagger's own threshold for them.

    Parameters
    ----------
    model
        Folder of a tagger that spectag train made.
    paths
        Sound files, and folders that are searched for them.
    output
        File to write, whole or not at all. By default stdout.
    table_format
        csv: a line for each tag. jsonl: a JSON object for each recording or window. submission: the rows and columns
        of --template. By default as the output's suffix says, else csv.
    template
        A competition's sample_submission.csv.
    window
        Tag each stretch of this many seconds. By default recordings are tagged as a whole.
    overlap
        Seconds that a window shares with the one before it.
    top
        Give this many labels, the most probable ones.
    threshold
        Give the labels of at least this probability, from 0 to 1.
    workers
        Processes. By default one for each core, or none but this for a few files.
    """
    chosen = table_format or ("jsonl" if output is not None and output.suffix == ".jsonl" else "csv")
    _check(chosen, template, top, threshold)
    windows = WindowConfig(window_seconds=window, overlap_seconds=overlap) if window is not None or overlap else None
    tagger = Tagger(model)
    rows = Template.read(template, tagger.labels) if template is not None else None
    files = find_audio(paths) if not _are_images(paths) else paths
    if rows is not None:
        files = list(only_named(files, rows))
    skipped: list[str] = []

    def good_ones(tagged: Iterator[TaggedFile]) -> Iterator[TaggedFile]:
        for file in tagged:
            if file.reason is not None:
                skipped.append(file.reason)
            yield file

    with shown_work() as (progress, _), written(output) as out:
        tagged = good_ones(tag(tagger, files, window=windows, workers=workers, progress=progress))
        if rows is not None:
            write_submission(tagged, rows, out)
        else:
            write = write_jsonl if chosen == "jsonl" else write_csv
            write(tagged, Choice(top, threshold), out)
    name_skipped(skipped)
    return SKIPPED_SOME if skipped else 0


def _check(table_format: str, template: Path | None, top: int | None, threshold: float | None) -> None:
    if (table_format == "submission") != (template is not None):
        raise ConfigError("--format submission and --template sample_submission.csv go together; one is missing")
    if table_format == "submission" and (top is not None or threshold is not None):
        raise ConfigError("a submission has the probabilities of all labels; leave out --top and --threshold")
    if top is not None and top < 1:
        raise ConfigError(f"--top must be 1 or more, got {top}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold is a probability from 0 to 1, got {threshold:g}")


def _are_images(paths: list[Path]) -> bool:
    return all(path.suffix.lower() in IMAGE_SUFFIXES for path in paths)
