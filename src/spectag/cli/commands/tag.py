"""spectag tag."""

import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import Workers
from spectag.cli.terminal import duration, name_skipped, print_profile, shown_work
from spectag.config.base import parse_config
from spectag.config.tagging import TagSettings
from spectag.errors import AudioError

if TYPE_CHECKING:
    from spectag.config.base import WindowConfig
    from spectag.models.tagger import Tagger
    from spectag.tagging.batch import Engine, TaggingReport

_N_NAMED = 20  # skipped files on the screen, where a status table names them all


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
    profile: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Tag recordings of any length and number.

    Without --top and --min-confidence the labels are given whose probability reaches the tagger's own threshold for
    them. With -o a run keeps a journal: stopped or killed, it goes on when the same command is given again.

    Parameters
    ----------
    model
        Folder of a tagger that spectag train made, or the name of a published one: see spectag models.
    paths
        Sound files; folders, which are searched for them; patterns such as 'rec/**/*.wav'; addresses such as
        s3://bucket/folder.
    output
        A table to write, such as tags.csv, or a folder for tables, status.csv and parameters.toml. By default stdout.
    files_from
        A list of files, one a line; - reads it from stdin.
    shard
        Do a part of the files: 1/8 is the first of eight jobs, whose results are named after it.
    engine
        Where the work is done: on the cores of this machine, or on a Ray cluster.
    address
        Of the Ray cluster, such as auto. By default one is started here for the time of the run.
    workers
        Cores to use. By default all, or one for a few files.
    profile
        Tell what the time goes into.
    """
    from spectag.models.pretrained import tagger_folder
    from spectag.models.tagger import Tagger
    from spectag.tagging.batch import tag_to_files, tag_to_stdout
    from spectag.tagging.formats.submission import Template
    from spectag.tagging.input_files import Shard, find_files, read_list
    from spectag.tagging.output_paths import results
    from spectag.tagging.parallel import accepted_suffixes

    settings = _chosen(settings or TagSettings(), output, threshold)
    _check_usage(settings, paths, files_from, output, shard, engine, address)
    part = None if shard is None else Shard.parse(shard)
    begin = time.monotonic()
    with shown_work(results_to_stdout=output is None) as (progress, log):
        tagger = Tagger(tagger_folder(model, progress=progress, log=log))
        files = find_files(paths or (), accepted_suffixes(tagger), listed=read_list(files_from) if files_from else ())
        rows = None if settings.template is None else Template.read(settings.template, tagger.labels)
        if not files:
            raise AudioError(f"{files_from}: the list names no file")
        files = files if rows is None else rows.files(files)
        files = files if part is None else part.of(files)
        if output is None:
            report = tag_to_stdout(tagger, files, settings=settings, template=rows, workers=workers, progress=progress)
        else:
            places = results(output, settings.formats, part)
            report = tag_to_files(
                tagger,
                files,
                places,
                settings=settings,
                template=rows,
                engine=_ray(tagger, settings.windows, address, workers) if engine == "ray" else None,
                workers=workers,
                progress=progress,
                log=log,
            )
    _tell(report, None if output is None else places.status, seconds=time.monotonic() - begin)
    if profile:
        print_profile(report.stage_seconds, report.sound_seconds)
    return SKIPPED_SOME if report.reasons else 0


def _check_usage(
    settings: TagSettings,
    paths: list[str] | None,
    files_from: str | None,
    output: str | None,
    shard: str | None,
    engine: str,
    address: str | None,
) -> None:
    """Tell what is missing, and what does not go together."""
    if paths is None and files_from is None:
        raise CycloptsError(msg="spectag tag needs PATHS, or a list of them by --files-from; see spectag tag --help")
    if engine == "local" and address is not None:
        raise CycloptsError(msg=f"--address {address} is that of a Ray cluster; give --engine ray with it")
    if output is None and (engine != "local" or shard is not None):
        raise CycloptsError(msg="--engine ray and --shard are for runs that keep a journal; give -o with them")
    if files_from is not None and output is not None and Path(files_from) == Path(output):
        raise CycloptsError(msg=f"--files-from and -o are both {output}; the table would replace the list")
    if settings.template is not None and shard is not None:
        raise CycloptsError(msg="a submission holds all clips; leave out --shard")


def _chosen(settings: TagSettings, output: str | None, threshold: float | None) -> TagSettings:
    """The settings with --threshold in them, and with the format that the output's suffix stands for."""
    from spectag.tagging.output_paths import format_of

    changes: dict[str, Any] = {}
    if settings.format is None and settings.template is None:
        changes["format"] = format_of(output)
    if threshold is not None:
        if settings.min_confidence is not None:
            raise CycloptsError(msg="--threshold is another word for --min-confidence; give one of them")
        changes["min_confidence"] = threshold
    return parse_config(settings.model_dump(exclude_unset=True) | changes, TagSettings, source="spectag tag")


def _ray(tagger: "Tagger", window: "WindowConfig | None", address: str | None, workers: int | None) -> "Engine":
    from spectag.tagging.ray_engine import tag_on_ray

    return partial(tag_on_ray, tagger, window, address=address, n_workers=workers)


def _tell(report: "TaggingReport", status: str | None, *, seconds: float) -> None:
    n_named = len(report.reasons) if status is None else _N_NAMED
    name_skipped(report.reasons[:n_named])
    if len(report.reasons) > n_named:
        print(f"skipped: {len(report.reasons) - n_named:,} more files, which {status} names", file=sys.stderr)
    if report.n_silent:
        print(
            f"nothing heard in {report.n_silent:,} of {report.n_files:,} files: no label reaches its threshold there; "
            "--top 1 shows the nearest",
            file=sys.stderr,
        )
    if status is not None:
        n_tagged = report.n_files - report.n_known - len(report.reasons)
        skipped = f", {len(report.reasons):,} skipped" if report.reasons else ""
        known = f", {report.n_known:,} done before" if report.n_known else ""
        sound = f"{duration(report.sound_seconds)} of sound in {duration(seconds)}"
        faster = f"{report.sound_seconds / seconds:,.0f} times real time"
        print(
            f"{n_tagged:,} {'file' if n_tagged == 1 else 'files'} tagged{skipped}{known}: {sound}, {faster}",
            file=sys.stderr,
        )
