"""spectag inspect."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import Json, Workers
from spectag.cli.terminal import print_json, progress_display, stdout_console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from spectag.data.inspection import Inspection

_N_EXAMPLES = 3


def inspect_command(
    manifest: Path,
    /,
    *,
    folds: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    corrections: Path | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Check a manifest: labels, durations, faults, duplicates, leaks.

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
    corrections
        Label corrections from spectag review. The manifest itself is not changed.
    workers
        Number of processes. By default one per core.
    json_output
        Print everything as JSON.
    """
    from spectag.data.inspection import inspect
    from spectag.data.manifest import read_manifest

    clips = read_manifest(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    with progress_display() as (progress, _):
        inspection = inspect(clips, folds=folds, workers=workers, progress=progress)
    if json_output:
        print_json(inspection.to_dict())
    else:
        print_inspection(inspection, stdout_console())
    return SKIPPED_SOME if inspection.unreadable else 0


def print_inspection(inspection: "Inspection", console: "Console") -> None:
    """Print the labels, figures and problems of a manifest as tables."""
    from rich.markup import escape

    kind = "images" if inspection.holds_images else "sounds"
    console.print(
        f"[bold]{escape(str(inspection.source))}[/bold]: {inspection.n_clips:,} clips in {inspection.n_files:,} {kind}"
        f", {len(inspection.clips_per_label)} labels",
        highlight=False,
        soft_wrap=True,
    )
    for table in (_label_counts(inspection), _figures(inspection), _problems(inspection)):
        console.print()
        console.print(table)


def _label_counts(inspection: "Inspection") -> "RenderableType":
    """The number of clips of each label, in as many columns as fit."""
    from rich.columns import Columns
    from rich.markup import escape

    width = max((len(f"{n_clips:,}") for n_clips in inspection.clips_per_label.values()), default=1)
    cells = [f"{n_clips:>{width},} {escape(label)}" for label, n_clips in inspection.clips_per_label.items()]
    return Columns(cells, column_first=True, padding=(0, 3))


def _figures(inspection: "Inspection") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for name, value in _figure_rows(inspection):
        table.add_row(name, escape(value))
    return table


def _figure_rows(inspection: "Inspection") -> Iterator[tuple[str, str]]:
    counts = sorted(inspection.clips_per_label.values())
    if counts:
        yield "clips per label", f"{counts[0]:,} to {counts[-1]:,}"
    yield "labels per clip", _counts({f"{n}": count for n, count in inspection.labels_per_clip.items()})
    if inspection.n_groups < inspection.n_clips:
        yield "groups", f"{inspection.n_groups:,}"
    if inspection.clips_per_fold:
        yield "folds", _counts(inspection.clips_per_fold)
    if (durations := inspection.durations) is not None:
        yield (
            "duration",
            f"{durations.min_seconds:.2f} to {durations.max_seconds:.2f} s, median {durations.median_seconds:.2f} s, "
            f"mean {durations.mean_seconds:.2f} s, total {durations.total_hours:.2f} h",
        )
    if inspection.sample_rates:
        yield "sample rate", _counts({f"{rate:,} Hz": count for rate, count in inspection.sample_rates.items()})
        yield "channels", _counts({f"{n}": count for n, count in inspection.channels.items()})
    if inspection.image_sizes:
        yield "image size", _counts(inspection.image_sizes)


def _counts(counts: dict[str, int], n_shown: int = 12) -> str:
    shown = [f"{name}: {count:,}" for name, count in list(counts.items())[:n_shown]]
    return ", ".join(shown) + (f" and {len(counts) - n_shown} more" if len(counts) > n_shown else "")


def _problems(inspection: "Inspection") -> "Table":
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("check", ratio=2)
    table.add_column("found", justify="right")
    table.add_column("examples", ratio=3, overflow="fold")
    for name, problems in _problem_rows(inspection):
        table.add_row(
            name,
            f"{len(problems):,}",
            "\n".join(map(escape, problems[:_N_EXAMPLES])) + ("\n..." if len(problems) > _N_EXAMPLES else ""),
            style="yellow" if problems else "green",
        )
    return table


def _problem_rows(inspection: "Inspection") -> Iterator[tuple[str, list[str]]]:
    from spectag.data.inspection import CLIPPED_FRACTION, SILENT_PEAK_DB

    yield "unreadable", [f"{name}: {reason}" for name, reason in inspection.unreadable.items()]
    if not inspection.holds_images:
        yield f"silent (peak below {SILENT_PEAK_DB:g} dBFS)", list(inspection.silent)
        yield (
            f"clipped (over {CLIPPED_FRACTION:.1%} at full scale)",
            [f"{name}: {fraction:.1%}" for name, fraction in inspection.clipped.items()],
        )
        yield "clips that end after their file", list(inspection.past_end)
    yield "clips without labels", list(inspection.without_labels)
    yield "exact duplicates", [_same(same.clips) for same in inspection.duplicates]
    yield "  with differing labels", [_same(same.clips) for same in inspection.duplicates if same.labels_differ]
    if inspection.clips_per_fold:
        yield "  across folds", [_same(same.clips) for same in inspection.duplicates if same.across_folds]
        yield (
            "groups in several folds",
            [f"{leak.group}: {_in_folds(leak.clips_per_fold)}" for leak in inspection.leaks],
        )
    if inspection.n_folds:
        yield (
            f"labels too rare for {inspection.n_folds} folds",
            [f"{rare.label}: {rare.n_groups} groups, {rare.n_clips} clips" for rare in inspection.rare_labels],
        )


def _same(clips: Collection[str]) -> str:
    return " = ".join(clips)


def _in_folds(clips_per_fold: dict[str, int]) -> str:
    return ", ".join(f"{count} in fold {fold}" for fold, count in clips_per_fold.items())
