"""spectag index."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from spectag.cli.options import DeviceOption, Length, Names, OptionalChannel, Output, Seconds, Workers
from spectag.cli.recording_options import listed_recordings, window_of_options
from spectag.cli.terminal import (
    format_duration,
    print_message,
    print_next_steps,
    print_skipped,
    progress_display,
    shell_command,
)

if TYPE_CHECKING:
    from spectag.curation.sound_index.building import IndexReport


def index_command(
    recordings: Names = None,
    /,
    *,
    output: Output,
    model: str | None = None,
    window: Length = None,
    overlap: Seconds = None,
    channel: OptionalChannel = None,
    files_from: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    engine: Literal["auto", "exact", "usearch"] | None = None,
    workers: Workers = None,
    device: DeviceOption = "auto",
) -> int:
    """Build a search index of recordings.

    Run the same command again to update the index: only new and changed files are read, and files that are gone are
    removed. An interrupted run resumes in the same way.

    Parameters
    ----------
    recordings
        Sound files; folders, which are searched for sound files; patterns such as 'rec/**/*.wav'; or URLs such
        as s3://bucket/folder.
    output
        Folder of the index.
    model
        Folder of a model from spectag train, the name of a published model, or hf:user/name. By default
        audioset-mn04, or the model that built the existing index. With clap, search takes words, too.
    window
        Compare excerpts of this length. (default: 10)
    overlap
        Overlap of consecutive excerpts. (default: 0)
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1. By default as in the training of the model.
    files_from
        Read the file names from this list, one per line; - reads stdin.
    engine
        Search exactly, or with a graph (usearch), which is faster for millions of excerpts. auto takes usearch
        from 200,000 excerpts on, if it is installed. (default: auto)
    workers
        Number of cores to use. By default all, or one for a few files.
    device
        Where the networks run. auto takes cuda or directml if it is installed and works, otherwise the CPU.
    """
    from spectag.audio.sound_faults import truncation_warning
    from spectag.curation.sound_index.building import DEFAULT_WINDOW, build_index
    from spectag.curation.sound_index.metadata import read_index_info

    listed = listed_recordings(recordings, files_from, command="index")
    length = DEFAULT_WINDOW.window_seconds
    with progress_display() as (progress, log):
        report = build_index(
            recordings or (),
            output,
            listed=listed,
            model=model,
            window=window_of_options(window, overlap, command="index", default=length),
            channel=channel,
            engine=engine,
            workers=workers,
            device=device,
            progress=progress,
            log=log,
        )
    status = print_skipped(report.reasons)
    if report.truncated:
        print(truncation_warning(report.truncated), file=sys.stderr)
    _print_report(report, output)
    query = "glass breaking on tiles" if read_index_info(output).has_words else "CALL.wav"
    print_next_steps(shell_command("spectag", "search", output, query))
    return status


def _print_report(report: "IndexReport", output: Path) -> None:
    n_new = report.n_files - report.n_unchanged - len(report.reasons)
    others = {"unchanged": report.n_unchanged, "removed": report.n_removed, "skipped": len(report.reasons)}
    counts = [
        f"{n_new:,} {'file' if n_new == 1 else 'files'} indexed ({format_duration(report.sound_seconds)} of sound)",
        *(f"{n:,} {change}" for change, n in others.items() if n),
    ]
    print_message(f"{', '.join(counts)}: {report.n_windows:,} windows in {output}")
