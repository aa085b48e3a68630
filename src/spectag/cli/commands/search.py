"""spectag search."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter

from spectag.cli.options import Flag, Json, Names, Number, OptionalChannel, Seconds
from spectag.cli.terminal import FILE_WIDTH, new_table, print_json, print_skipped, progress_display, stdout_console
from spectag.system.output import check_output_folder

if TYPE_CHECKING:
    from spectag.curation.sound_index.fingerprint_search import ExcerptMatch
    from spectag.curation.sound_index.searching import SearchResult


def search_command(
    index: Path,
    queries: list[str],
    /,
    *,
    fingerprint: Flag = False,
    number: Number = 10,
    start: Seconds = None,
    after: str | None = None,
    before: str | None = None,
    label: Names = None,
    not_label: Names = None,
    within: Annotated[list[str] | None, Parameter(name="--in", negative="")] = None,
    same_file: Flag = False,
    one_per_file: Flag = False,
    model: str | None = None,
    channel: OptionalChannel = None,
    output: Annotated[str | None, Parameter(name=["--output", "-o"])] = None,
    clips_folder: Annotated[Path | None, Parameter(name="--clips")] = None,
    json_output: Json = False,
) -> int:
    """Find similar sounds, also by words, or the source of an excerpt.

    Similarity is 1 for identical sounds and about 0 for unrelated sounds. Words are less similar to sounds.

    Parameters
    ----------
    index
        Folder of the index, from spectag index. With --fingerprint, it may also be a folder of recordings.
    queries
        Sound files, or names of recordings in the index; in an index of CLAP also descriptions such as "glass breaking
        on tiles". Several queries are averaged. With --fingerprint, only sound files, which are searched one by one.
    fingerprint
        Find the recordings that contain the query itself or a part of it, also re-encoded, at another level, or mixed
        with other sounds, and where it starts in them. Needs no model.
    number
        Number of results; with --fingerprint, for each query.
    start
        Search for the excerpt of the query that starts here, instead of the whole query.
    after
        Only recordings from this time on: 2024-05-01 or 2024-05-01T05:30.
    before
        Only recordings before this time.
    label
        Only excerpts in which this label was detected. Repeatable: one of these labels.
    not_label
        Only excerpts in which this label was not detected. Repeatable.
    within
        Only files in this folder, or with this name: north, 'north/*.flac'. Repeatable.
    same_file
        Also return other excerpts of the query's own recording.
    one_per_file
        Return each recording once, with its most similar excerpt.
    model
        The model that built the index, if it has moved.
    channel
        With --fingerprint, how several channels become one: their mean (mix), the loudest one of the first ten minutes
        (loudest), or the channel of this number. By default that of the index, or the mean.
    output
        CSV to write. By default a table is printed.
    clips_folder
        Folder for the found excerpts, which are cut out of their recordings, with a manifest. With --fingerprint, as
        much of a recording as the query lasts.
    json_output
        Print the results as JSON.
    """
    if fingerprint:
        others = {
            "--start": start is not None,
            "--after": after is not None,
            "--before": before is not None,
            "--label": label,
            "--not-label": not_label,
            "--in": within,
            "--same-file": same_file,
            "--one-per-file": one_per_file,
            "--model": model is not None,
        }
        if unusable := [option for option, is_given in others.items() if is_given]:
            raise CycloptsError(msg=f"--fingerprint can't be combined with {', '.join(unusable)}")
        return _search_fingerprints(index, queries, number, channel, output, clips_folder, json_output=json_output)
    if channel is not None:
        raise CycloptsError(msg="--channel needs --fingerprint; a search by similarity has the channel of its index")
    from spectag.curation.sound_index.api import search
    from spectag.curation.sound_index.output import result_to_dict, write_results

    _check_outputs(output, clips_folder)
    results = search(
        index,
        queries,
        n=number,
        start=start,
        after=_date("--after", after),
        before=_date("--before", before),
        label=label or (),
        not_label=not_label or (),
        within=within or (),
        same_file=same_file,
        one_per_file=one_per_file,
        model=model,
    )
    results = [replace(result, file=_relative_path(result.file)) for result in results]
    if output is not None:
        write_results(results, output)
        _print_written(len(results), output)
    if json_output:
        print_json([result_to_dict(result) for result in results])
    elif output is None:
        _print(results)
    if not results:
        print("nothing found: no other recording meets all conditions", file=sys.stderr)
    return _cut(results, queries, clips_folder)


def _check_outputs(output: str | None, clips: Path | None, columns: Sequence[str] | None = None) -> None:
    """Raise a ConfigError, before the search, if its results cannot be written there."""
    from spectag.curation.sound_index.output import SEARCH_COLUMNS, check_results_file

    if output is not None:
        check_results_file(output, columns or SEARCH_COLUMNS)
    if clips is not None:
        check_output_folder(clips, "--clips")


def _cut(results: "Sequence[SearchResult] | Sequence[ExcerptMatch]", queries: list[str], clips: Path | None) -> int:
    """Cut the results out of their recordings, if wanted; return the exit status."""
    if clips is None or not results:
        return 0
    from spectag.findings.search_clips import cut_search_results

    with progress_display() as (progress, _):
        cut = cut_search_results(results, queries, clips, progress=progress)
    n_clips = sum(cut.counts.values())
    print(f"{n_clips:,} {'clip' if n_clips == 1 else 'clips'}, listed in {cut.manifest}", file=sys.stderr)
    return print_skipped(cut.skipped)


def _search_fingerprints(
    recordings: Path,
    excerpts: list[str],
    number: int,
    channel: OptionalChannel,
    output: str | None,
    clips: Path | None,
    *,
    json_output: bool,
) -> int:
    from spectag.curation.sound_index.fingerprint_search import search_fingerprints
    from spectag.curation.sound_index.output import MATCH_COLUMNS, match_to_dict, write_matches

    _check_outputs(output, clips, MATCH_COLUMNS)
    with progress_display() as (progress, log):
        found = search_fingerprints(recordings, excerpts, n=number, channel=channel, progress=progress, log=log)
    matches = [replace(match, file=_relative_path(match.file)) for match in found.matches]
    if output is not None:
        write_matches(matches, output)
        _print_written(len(matches), output)
    if json_output:
        print_json([match_to_dict(match) for match in matches])
    elif output is None:
        _print_matches(matches)
    for excerpt in excerpts:
        if all(match.excerpt != excerpt for match in matches):
            print(f"{excerpt}: no other recording contains a part of it", file=sys.stderr)
    return max(_cut(matches, excerpts, clips), print_skipped(found.skipped))


def _print_written(n_results: int, output: str) -> None:
    results = "1 result" if n_results == 1 else f"{n_results:,} results"
    print(f"{results} written to {output}", file=sys.stderr)


def _date(option: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise CycloptsError(msg=f"{option} {text}: expected a date such as 2024-05-01 or 2024-05-01T05:30") from error
    if date.tzinfo is not None:
        raise CycloptsError(msg=f"{option} {text}: dates are in the recorder's local time; leave out the time zone")
    return date


def _print(results: "Sequence[SearchResult]") -> None:
    table = new_table("similarity", "file", "seconds", "labels", "recorded", right=["similarity"])
    table.show_header = bool(results)
    for result in results:
        end = "" if result.end_seconds is None else f"–{result.end_seconds:.1f}"
        labels = ", ".join(tag.label for tag in result.labels)
        seconds = f"{result.start_seconds:.1f}{end}"
        table.add_row(f"{result.similarity:.3f}", result.file, seconds, labels, _recording_time(result))
    stdout_console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)
    if any(result.recorded is not None and result.recorded.source == "file" for result in results):
        print(
            "dates in brackets: neither the recording nor its name has a date, so this is when the file was changed",
            file=sys.stderr,
        )


def _print_matches(matches: "Sequence[ExcerptMatch]") -> None:
    table = new_table("excerpt", "file", "starts at", "equal landmarks", right=["starts at", "equal landmarks"])
    table.show_header = bool(matches)
    for match in matches:
        start = f"{match.start_seconds:z.2f} s"
        table.add_row(match.excerpt, match.file, start, f"{match.n_matches:,}")
    stdout_console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(table)


def _recording_time(result: "SearchResult") -> str:
    if result.recorded is None:
        return ""
    text = f"{result.recorded.time:%Y-%m-%d %H:%M:%S}"
    return f"({text})" if result.recorded.source == "file" else text


def _relative_path(file: str) -> str:
    """The path relative to the working directory, if the file is below it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file
