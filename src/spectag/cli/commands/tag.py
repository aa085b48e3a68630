"""spectag tag."""

import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import DeviceOption, Flag, Workers
from spectag.cli.terminal import (
    format_duration,
    print_message,
    print_next_steps,
    print_profile,
    print_skipped,
    progress_display,
    shell_command,
)
from spectag.config.base import parse_config
from spectag.config.tagging import TagSettings
from spectag.errors import ConfigError
from spectag.system.file_errors import path_with_spaces, similar_file
from spectag.system.output import quote_commas

if TYPE_CHECKING:
    from spectag.tagging.batch import TaggingReport

_FILES = ("labels", "not-labels", "prior", "deployments")  # options that name a file
_CHOICES_OF_TAGS = ("labels", "not_labels", "words", "names", "min_confidence", "max_novelty", "prior", "channel")
_MAX_NOTES_SHOWN = 5
_MIN_SECONDS_FOR_SPEED = 1.0  # of sound: for less, the speed is that of starting
_MAX_PATHS_SHOWN = 3  # in a command to copy
_LEAST_PROBABILITY_TO_REPORT = 0.05  # for a threshold below it, --min-confidence reports mostly wrong labels
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
    device: DeviceOption = "auto",
    profile: Flag = False,
) -> int:
    """Tag recordings of any length and number.

    A label is reported when its probability reaches the model's threshold for that label, unless you give --top or
    --min-confidence. With -o, a run that was stopped or killed resumes when you run the same command again.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), hf:user/name, or CLAP
        with words: clap:"dog barking, rain on a window" (see spectag models clap).
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
    device
        Where the networks run. auto takes cuda or directml if it is installed and works, otherwise the CPU.
    profile
        Print how much time each stage takes.
    """
    if paths is None and files_from is None:
        raise CycloptsError(msg="spectag tag needs PATHS, or a list of them by --files-from; see spectag tag --help")
    if engine == "local" and address is not None:
        raise CycloptsError(msg=f"--address {address} is the address of a Ray cluster; add --engine ray")
    if output is None and (engine != "local" or shard is not None):
        raise CycloptsError(msg="--engine ray and --shard need a journal; add -o")
    if files_from is not None and output is not None and Path(files_from) == Path(output):
        raise CycloptsError(msg=f"--files-from and -o are both {output}; the table would replace the list")
    settings = _with_format_and_threshold(settings or TagSettings(), output, threshold)
    if settings.template is not None and shard is not None:
        raise CycloptsError(msg="a submission contains all clips; leave out --shard")
    from spectag.models.clap_words import is_clap_name
    from spectag.models.nearby_models import check_model_first
    from spectag.models.pretrained import load
    from spectag.tagging.batch import check_novelty, tag_to_tables
    from spectag.tagging.events import windows_to_tag
    from spectag.tagging.input_files import Shard
    from spectag.tagging.output_paths import tables_of_other_formats
    from spectag.tagging.ray_engine import tag_on_ray

    if not is_clap_name(model) and not Path(model).exists() and (meant := path_with_spaces([model, *(paths or ())])):
        raise CycloptsError(msg=f"{model}: a path with spaces needs quotes: {shlex.quote(meant)}")
    check_model_first("tag", model, paths or ())
    files = {f"--{name}": getattr(settings, name.replace("-", "_")) for name in _FILES}
    for option, path in files.items():
        if path is not None and not path.exists():
            content = "; it takes a file with one label in each line" if "labels" in option else ""
            raise ConfigError(f"{option} {path}: no such file{similar_file(path) or content}")
    one_shard = None if shard is None else Shard.parse(shard)
    old_tables = [] if output is None else tables_of_other_formats(output, settings.formats, one_shard)
    replaced = output is not None and any(path.is_file() for path in (Path(output), Path(output, "status.csv")))
    begin = time.monotonic()
    with progress_display(results_to_stdout=output is None) as (progress, log):
        tagger = load(model, channel=settings.channel, device=device, progress=progress, log=log)
        check_novelty(tagger, settings, model)
        ray = partial(tag_on_ray, tagger, windows_to_tag(tagger, settings), address=address, n_workers=workers)
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
    _print_report(report, settings, seconds=time.monotonic() - begin)
    if report.status is not None and report.n_read:
        earlier = " (the tags of an earlier run are replaced)" if replaced else ""
        print_message(f"tags: {output}{earlier}   status of each file: {report.status}")
        if old_tables:
            verb = "is" if len(old_tables) == 1 else "are"
            print_message(
                f"note: {', '.join(old_tables)} {verb} of an earlier run, not of this one, and may have other tags; "
                "delete what you do not need, or add these formats to --format"
            )
        _print_next_steps(model, paths or (), settings)
    if profile:
        print_profile(report.stage_seconds, report.sound_seconds)
    return SKIPPED_SOME if report.skip_reasons else 0


def _print_next_steps(model: str, paths: Sequence[str], settings: TagSettings) -> None:
    """How to look at the same tags with the sound, and which clips to label for a better model."""
    recordings = paths if 0 < len(paths) <= _MAX_PATHS_SHOWN else ("RECORDINGS",)
    chosen = {name: getattr(settings, name) for name in _CHOICES_OF_TAGS}
    tracks = shell_command("spectag", "tag", model, *recordings, "--format", "audacity", "-o", "audacity", **chosen)
    print_next_steps(
        *([] if "audacity" in settings.formats else [tracks]),
        shell_command("spectag", "suggest", model, *recordings, "-o", "next.csv"),
    )


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
        print_message(f"note: {note}")
    n_more = len(report.notes) - _MAX_NOTES_SHOWN
    if n_more > 0:
        where = "; -o writes a table with all of them" if report.status is None else f", listed in {report.status}"
        files = "1 more file has such faults" if n_more == 1 else f"{n_more:,} more files have such faults"
        print_message(f"note: {files}{where}")


def _print_counts(report: "TaggingReport", settings: TagSettings) -> None:
    """Print how many files have no labels, and how many tags were left out."""
    n_read = f"{report.n_read:,} {'file' if report.n_read == 1 else 'files'}"
    if report.n_in_segments:
        print_message(
            f"reported in segments, because longer than {report.longest_clip_seconds:.3g} s (twice the training "
            f"clips): {report.n_in_segments:,} of {n_read}; --clip-level mean gives one row for each",
        )
    if report.n_averaged and settings.needs_rows_of_recordings:
        print_message(
            f"averaged over their whole length, though longer than {report.longest_clip_seconds:.3g} s (twice the "
            f"training clips), because {settings.needs_rows_of_recordings} needs one row for each: "
            f"{report.n_averaged:,} of {n_read}; --window 5 gives a row for every five seconds"
        )
    if report.n_without_labels:
        n_without = f"{report.n_without_labels:,} of {n_read}"
        print_message(f"no label detected in {n_without}, because none {_why_no_label(report, settings)}")
    for note in report.prior_notes:
        print_message(f"note: {note}")
    if report.n_hidden:
        tags = "1 tag or segment" if report.n_hidden == 1 else f"{report.n_hidden:,} tags or segments"
        print_message(f"hidden by --prior: {tags}, in {report.n_files_with_hidden:,} of {n_read}")
    if report.n_suppressed:
        tags = "1 tag because of its" if report.n_suppressed == 1 else f"{report.n_suppressed:,} tags because of their"
        n_lost = report.n_without_known_labels
        lost = f"; {n_lost:,} of {n_read} lost all their tags" if n_lost else ""
        print_message(f"left out {tags} novelty (--max-novelty){lost}")


def _why_no_label(report: "TaggingReport", settings: TagSettings) -> str:
    if settings.min_windows > 1 or settings.min_duration_seconds:
        return (
            "reaches its threshold for long enough; a smaller --min-windows or --min-duration-seconds reports shorter "
            "sounds"
        )
    probability, label = report.most_probable
    most_probable = f"reaches its threshold; the most probable one is {quote_commas(label)} with {probability:.2g}"
    if probability < _LEAST_PROBABILITY_TO_REPORT:
        return most_probable
    return f"{most_probable}: --min-confidence {0.9 * probability:.2g} reports it"


def _print_report(report: "TaggingReport", settings: TagSettings, *, seconds: float) -> None:
    n_skipped = len(report.skip_reasons)
    n_shown = n_skipped if report.status is None else min(n_skipped, _MAX_SKIPPED_SHOWN)
    print_skipped(report.skip_reasons[:n_shown])
    if n_skipped > n_shown:
        print(f"skipped: {n_skipped - n_shown:,} more files, listed in {report.status}", file=sys.stderr)
    _print_notes(report)
    _print_counts(report, settings)
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
        print_message(f"{report.n_tagged:,} {files} tagged{skipped}{resumed}: {sound}{speed}")
