"""spectag inspect."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import ChannelOption, Folds, Json, Workers
from spectag.cli.terminal import print_json, progress_display, stdout_console

if TYPE_CHECKING:
    from rich.columns import Columns
    from rich.table import Table

    from spectag.data.inspection import Inspection, SharedPair

_N_EXAMPLES = 3


def inspect_command(
    manifest: Path,
    /,
    *,
    folds: Folds = None,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: Path | None = None,
    channel: ChannelOption = "mix",
    find_shared_audio: bool = True,
    compare_with: list[Path] | None = None,
    cache: Path | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Check a manifest: labels, durations, faults, shared audio, leaks.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    folds
        Also report the labels that are too rare for this many folds.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    group_column
        Manifest column of groups, such as recordist or site. A group never spans two folds.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    corrections
        Label corrections from spectag review. The manifest itself is not changed.
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1.
    find_shared_audio
        Look for clips that contain the same part of a recording, also mixed with other sounds, re-encoded, or up to 2 %
        faster or slower. The time grows with the square of the number of clips.
    compare_with
        Other manifests beside their sounds, such as that of the test clips: report which of their clips share audio
        with these.
    cache
        Folder for the fingerprints of the sounds. By default in the user's cache folder.
    workers
        Number of processes. By default one per core.
    json_output
        Print everything as JSON.
    """
    from spectag.data.inspection import inspect

    with progress_display() as (progress, _):
        inspection = inspect(
            manifest,
            audio_dir=audio_dir,
            group_column=group_column,
            label_column=label_column,
            label_separator=label_separator,
            folds=folds,
            corrections=corrections,
            channel=channel,
            find_shared_audio=find_shared_audio,
            compare_with=compare_with or (),
            cache=cache,
            workers=workers,
            progress=progress,
        )
    if json_output:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection)
    return SKIPPED_SOME if inspection.unreadable else 0


def print_inspection(inspection: "Inspection") -> None:
    """Print the labels, figures and problems of a manifest as tables."""
    from rich.text import Text

    console = stdout_console()
    kind = "file" if inspection.n_files == 1 else "files"
    counts = (
        f": {inspection.n_clips:,} clips in {inspection.n_files:,} {kind}, {len(inspection.clips_per_label)} labels"
    )
    console.print(Text.assemble((str(inspection.source), "bold"), counts), soft_wrap=True)
    for table in (_label_counts(inspection), _figures(inspection), _problems(inspection)):
        console.print("", table)


def _label_counts(inspection: "Inspection") -> "Columns":
    """The number of clips of each label, in as many columns as fit."""
    from rich.columns import Columns

    width = max((len(f"{n_clips:,}") for n_clips in inspection.clips_per_label.values()), default=1)
    cells = [f"{n_clips:>{width},} {label}" for label, n_clips in inspection.clips_per_label.items()]
    return Columns(cells, column_first=True, padding=(0, 3))


def _figures(inspection: "Inspection") -> "Table":
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    for row in _figure_rows(inspection):
        table.add_row(*row)
    return table


def _figure_rows(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    counts = sorted(inspection.clips_per_label.values())
    if counts:
        yield "clips per label", f"{counts[0]:,} to {counts[-1]:,}"
    yield "labels per clip", _counts({f"{n}": count for n, count in inspection.labels_per_clip.items()})
    if inspection.unknown_per_label:
        n_unknown = sum(inspection.unknown_per_label.values())
        yield "unknown labels", f"{n_unknown:,} ({_counts(inspection.unknown_per_label)})"
    if inspection.weights is not None:
        yield "weights", "{:g} to {:g}".format(*inspection.weights)
    if inspection.n_groups < inspection.n_clips:
        yield "groups", f"{inspection.n_groups:,}"
    if inspection.clips_per_fold:
        yield "folds", _counts(inspection.clips_per_fold)
    if (durations := inspection.durations) is not None:
        extent = f"{durations.min_seconds:.2f} to {durations.max_seconds:.2f} s"
        averages = f"median {durations.median_seconds:.2f} s, mean {durations.mean_seconds:.2f} s"
        yield "duration", f"{extent}, {averages}, total {durations.total_hours:.2f} h"
    if inspection.sample_rates:
        yield "sample rate", _counts({f"{rate:,} Hz": count for rate, count in inspection.sample_rates.items()})
        yield "channels", _counts({f"{n}": count for n, count in inspection.channels.items()})
    for shared in inspection.shared_audio:
        among = f"{shared.n_others:,} clips of {shared.other}" if shared.other else "another clip"
        yield "shared audio", f"{shared.n_clips:,} of {inspection.n_clips:,} clips share audio with {among}"
    if inspection.image_sizes:
        yield "image size", _counts(inspection.image_sizes)


def _counts(counts: dict[str, int], n_shown: int = 12) -> str:
    shown = [f"{name}: {count:,}" for name, count in list(counts.items())[:n_shown]]
    return ", ".join(shown) + (f" and {len(counts) - n_shown} more" if len(counts) > n_shown else "")


def _problems(inspection: "Inspection") -> "Table":
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("check", ratio=2)
    table.add_column("found", justify="right")
    table.add_column("examples", ratio=3, overflow="fold")
    for name, problems in _problem_rows(inspection):
        examples = "\n".join([*problems[:_N_EXAMPLES], *(["..."] if len(problems) > _N_EXAMPLES else [])])
        table.add_row(name, f"{len(problems):,}", examples, style="yellow" if problems else "green")
    return table


def _problem_rows(inspection: "Inspection") -> Iterator[tuple[str, list[str]]]:
    from spectag.audio.sound_faults import CLIPPED_FRACTION, SILENT_PEAK_DB, VERY_SHORT_SECONDS

    yield "unreadable", [f"{name}: {reason}" for name, reason in inspection.unreadable.items()]
    if not inspection.holds_images:
        yield f"silent (peak below {SILENT_PEAK_DB:g} dBFS)", list(inspection.silent)
        clipped = [f"{name}: {fraction:.1%}" for name, fraction in inspection.clipped.items()]
        yield f"clipped (over {CLIPPED_FRACTION:.1%} at full scale)", clipped
        yield "channels that cancel each other in their mean (use --channel loudest)", list(inspection.channels_cancel)
        truncated = [
            name if seconds is None else f"{name}: its header announces {seconds:.2f} s"
            for name, seconds in inspection.truncated.items()
        ]
        yield "truncated (only a part can be read)", truncated
        very_short = [f"{name}: {seconds:.2f} s" for name, seconds in inspection.very_short.items()]
        yield f"very short (below {VERY_SHORT_SECONDS:g} s)", very_short
        yield "clips that end after their file", list(inspection.past_end)
    yield "clips without labels", list(inspection.without_labels)
    duplicates = [(same, " = ".join(same.clips)) for same in inspection.duplicates]
    yield "exact duplicates", [clips for _, clips in duplicates]
    yield "  with differing labels", [clips for same, clips in duplicates if same.labels_differ]
    if inspection.clips_per_fold:
        yield "  across folds", [clips for same, clips in duplicates if same.across_folds]
    for shared in inspection.shared_audio:
        suffix = f" with {shared.other}" if shared.other else ""
        yield f"pairs of clips that share audio{suffix}", [_shared_pair(pair) for pair in shared.pairs]
        if inspection.clips_per_fold and not shared.other:
            yield "  across folds", [_shared_pair(pair) for pair in shared.pairs if pair.across_folds]
    if inspection.clips_per_fold:
        leaks = [f"{leak.group}: {_in_folds(leak.clips_per_fold)}" for leak in inspection.leaks]
        yield "groups in several folds", leaks
    if inspection.n_folds:
        rare = [f"{label.label}: {label.n_groups} groups, {label.n_clips} clips" for label in inspection.rare_labels]
        yield f"labels too rare for {inspection.n_folds} folds", rare


def _shared_pair(pair: "SharedPair") -> str:
    return f"{pair.clip} = {pair.other} ({pair.offset_seconds:+.2f} s)"


def _in_folds(clips_per_fold: dict[str, int]) -> str:
    return ", ".join(f"{count} in fold {fold}" for fold, count in clips_per_fold.items())
