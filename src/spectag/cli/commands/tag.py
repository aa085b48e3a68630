"""spectag tag."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import Flag, Workers
from spectag.cli.terminal import format_duration, print_profile, print_skipped, progress_display
from spectag.config.base import parse_config
from spectag.config.tagging import TagSettings

if TYPE_CHECKING:
    from spectag.tagging.batch import TaggingReport

_MAX_NOTES_SHOWN = 5
_MIN_SECONDS_FOR_SPEED = 1.0  # of sound: for less, the speed is that of starting
_MAX_SKIPPED_SHOWN = 20  # on the screen, if a status table lists them all


def tag_command(
    model: str,
    paths: Annotated[list[str] | None, Parameter(negative="")] = None,
    /,
    *,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    settings: Annotated[TagSettings | None, Parameter(name="*")] = None,
    threshold: Annotated[float | None, Parameter(show=False, validator=Number(gte=0, lte=1))] = None,
    files_from: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    shard: str | None = None,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    workers: Workers = None,
    profile: Flag = False,
) -> int:
    """Tag recordings of any length and number.

    A label is reported when its probability reaches the model's threshold for that label, unless you give --top or
    --min-confidence. With -o, a run that was stopped or killed resumes when you run the same command again.

    Parameters
    ----------
    model
        Folder of a model from spectag train, or the name of a published one: see spectag models.
    paths
        Sound files; folders, which are searched for them; patterns such as 'rec/**/*.wav'; URLs such as
        s3://bucket/folder.
    output
        A table to write, such as tags.csv, or a folder for tables, status.csv and parameters.toml. By default stdout.
    files_from
        A list of files, one in each line; - reads it from stdin.
    shard
        Tag a part of the files: 1/8 is the first of eight jobs. The names of its results contain 1of8.
    engine
        Where to compute: on the cores of this machine, or on a Ray cluster.
    address
        Address of the Ray cluster, such as auto. By default a cluster is started on this machine for the run.
    workers
        Number of cores to use. By default all of them, or one for a few files.
    profile
        Print how much time each stage takes.
    """
    from spectag.models.pretrained import tagger_folder
    from spectag.models.tagger import Tagger
    from spectag.tagging.batch import check_novelty, tag_to_tables
    from spectag.tagging.input_files import Shard
    from spectag.tagging.ray_engine import tag_on_ray

    settings = _with_format_and_threshold(settings or TagSettings(), output, threshold)
    if paths is None and files_from is None:
        raise CycloptsError(msg="spectag tag needs PATHS, or a list of them by --files-from; see spectag tag --help")
    if engine == "local" and address is not None:
        raise CycloptsError(msg=f"--address {address} is the address of a Ray cluster; add --engine ray")
    if output is None and (engine != "local" or shard is not None):
        raise CycloptsError(msg="--engine ray and --shard need a journal; add -o")
    if files_from is not None and output is not None and Path(files_from) == Path(output):
        raise CycloptsError(msg=f"--files-from and -o are both {output}; the table would replace the list")
    if settings.template is not None and shard is not None:
        raise CycloptsError(msg="a submission contains all clips; leave out --shard")
    one_shard = None if shard is None else Shard.parse(shard)
    begin = time.monotonic()
    with progress_display(results_to_stdout=output is None) as (progress, log):
        tagger = Tagger(tagger_folder(model, progress=progress, log=log), channel=settings.channel)
        check_novelty(tagger, settings, model)
        ray = partial(tag_on_ray, tagger, settings.windows, address=address, n_workers=workers)
        report = tag_to_tables(
            tagger,
            paths or (),
            settings,
            files_from=files_from,
            output=output,
            shard=one_shard,
            engine=ray if engine == "ray" else None,
            workers=workers,
            progress=progress,
            log=log,
        )
    _print_report(report, seconds=time.monotonic() - begin)
    if profile:
        print_profile(report.stage_seconds, report.sound_seconds)
    return SKIPPED_SOME if report.skip_reasons else 0


def _with_format_and_threshold(settings: TagSettings, output: str | None, threshold: float | None) -> TagSettings:
    """The settings with the format of the output's suffix, unless one is set, and with --threshold."""
    from spectag.tagging.output_paths import format_of

    changes: dict[str, Any] = {}
    if settings.format is None and settings.template is None:
        changes["format"] = format_of(output)
    if threshold is not None:
        if settings.min_confidence is not None:
            raise CycloptsError(msg="--threshold is another name for --min-confidence; give one of them")
        changes["min_confidence"] = threshold
    return parse_config(settings.model_dump(exclude_unset=True) | changes, TagSettings, source="spectag tag")


def _print_notes(report: "TaggingReport") -> None:
    """Print what is wrong with recordings that were tagged."""
    for note in report.notes[:_MAX_NOTES_SHOWN]:
        print(f"note: {note}", file=sys.stderr)
    n_more = len(report.notes) - _MAX_NOTES_SHOWN
    if n_more > 0:
        where = "; -o writes a table with all of them" if report.status is None else f", listed in {report.status}"
        files = "1 more file has such faults" if n_more == 1 else f"{n_more:,} more files have such faults"
        print(f"note: {files}{where}", file=sys.stderr)


def _print_counts(report: "TaggingReport") -> None:
    """Print how many files have no labels, and how many tags were left out."""
    n_read = f"{report.n_read:,} {'file' if report.n_read == 1 else 'files'}"
    if report.n_without_labels:
        print(
            f"no label detected in {report.n_without_labels:,} of {n_read}, because none reaches its threshold; "
            "--top 1 shows the most probable one",
            file=sys.stderr,
        )
    if report.n_suppressed:
        tags = "1 tag because of its" if report.n_suppressed == 1 else f"{report.n_suppressed:,} tags because of their"
        n_lost = report.n_without_known_labels
        lost = f"; {n_lost:,} of {n_read} lost all their tags" if n_lost else ""
        print(f"left out {tags} novelty (--max-novelty){lost}", file=sys.stderr)


def _print_report(report: "TaggingReport", *, seconds: float) -> None:
    n_skipped = len(report.skip_reasons)
    n_shown = n_skipped if report.status is None else min(n_skipped, _MAX_SKIPPED_SHOWN)
    print_skipped(report.skip_reasons[:n_shown])
    if n_skipped > n_shown:
        print(f"skipped: {n_skipped - n_shown:,} more files, listed in {report.status}", file=sys.stderr)
    _print_notes(report)
    _print_counts(report)
    differences = [] if report.shift_check is None else report.shift_check.differences()
    if differences:
        print(
            "WARNING: the recordings differ from the training clips, so labels and probabilities may be wrong:",
            *differences,
            sep="\n  ",
            file=sys.stderr,
        )
    if report.status is not None:
        files = "file" if report.n_tagged == 1 else "files"
        skipped = f", {n_skipped:,} skipped" if n_skipped else ""
        resumed = f", {report.n_resumed:,} tagged by an earlier run" if report.n_resumed else ""
        sound = f"{format_duration(report.sound_seconds)} of sound in {format_duration(seconds)}"
        is_long = report.sound_seconds >= _MIN_SECONDS_FOR_SPEED
        speed = f", {report.sound_seconds / seconds:,.0f} times real time" if is_long else ""
        print(f"{report.n_tagged:,} {files} tagged{skipped}{resumed}: {sound}{speed}", file=sys.stderr)
