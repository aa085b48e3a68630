"""spectag review."""

import json
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import Json, Workers
from spectag.cli.terminal import name_skipped, shown_work
from spectag.errors import DataError

if TYPE_CHECKING:
    from spectag.curation.label_review import Finding, Review
    from spectag.data.corrections import Correction

CSV_FILE, PAGE_FILE, CORRECTIONS_FILE = "review.csv", "review.html", "corrections.csv"
_N_SHOWN = 20


def review_command(
    model: str,
    manifest: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    corrections: Path | None = None,
    accept: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None,
    who: str | None = None,
    method: Literal["self-confidence", "cleanlab"] = "self-confidence",
    labels_only: Annotated[bool, Parameter(negative="")] = False,
    shown: Annotated[int, Parameter(validator=Number(gte=0))] = 100,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Name the clips and labels that are most likely wrong, ranked, and take corrections.

    Also named are near-duplicates, silent and clipped clips. The tagger should have been trained with folds on these
    clips, or never have seen them: what it learnt, it believes.

    Parameters
    ----------
    model
        Folder of a tagger, or the name of a published one.
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        Folder for review.csv (all clips, ranked) and review.html (a page on which to listen and decide).
    corrections
        Corrections that were made before. What was decided in them is not asked again.
    accept
        Take the suggestions that are at least this certain, such as 0.95, and write them into corrections.csv of the
        output.
    who
        Your name, for the corrections that are written.
    method
        What the ranking is by: spectag's own measure, or cleanlab's multi-label scores (pip install 'spectag[review]').
    labels_only
        Don't look for near-duplicates, silent and clipped clips: that takes longer than the labels.
    shown
        Findings on the page.
    audio_dir
        Where sounds are that lie neither beside the manifest nor in the folder of its name.
    group_column
        Column whose equal values are of one recording, such as the recordist's.
    workers
        Cores to use. By default all, or one for a few clips.
    json_output
        Print all findings as JSON.
    """
    from spectag.curation.label_review import accepted, review, write_review
    from spectag.data.corrections import Corrections, append_corrections, read_corrections
    from spectag.models.pretrained import tagger_folder
    from spectag.models.tagger import Tagger
    from spectag.reporting.label_review_page import write_review_page

    _check_usage(output, corrections, accept, who)
    earlier = None if corrections is None else read_corrections(corrections)
    with shown_work() as (progress, log):
        tagger = Tagger(tagger_folder(model, progress=progress, log=log))
        found = review(
            tagger,
            manifest,
            method=method,
            labels_only=labels_only,
            corrections=corrections,
            audio_dir=audio_dir,
            group_column=group_column,
            workers=workers,
            progress=progress,
            log=log,
        )
        rows: Sequence[Correction] = ()
        if output is not None:
            write_review(output / CSV_FILE, found)
            if accept is not None and who is not None:
                rows = accepted(found, accept, who=who, when=datetime.now().astimezone())
                target = output / CORRECTIONS_FILE
                before = () if earlier is None or target.exists() else earlier.rows
                append_corrections(target, [*before, *rows])
                earlier = Corrections(target, (*(earlier.rows if earlier else ()), *rows))
            page = write_review_page(
                found.without(rows), output / PAGE_FILE, tagger, n_shown=shown, earlier=earlier, progress=progress
            )
    name_skipped([reason for _, reason in found.skipped])
    if found.origins.get("learnt"):
        Console(stderr=True, highlight=False).print(_warning(found, manifest), style="bold red", soft_wrap=True)
    if json_output:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return SKIPPED_SOME if found.skipped else 0
    console = Console(file=sys.stdout, highlight=False)
    print_review(found, console)
    if output is not None:
        console.print(
            f"\nall clips, ranked: {output / CSV_FILE}\nto listen and decide: {page}", markup=False, soft_wrap=True
        )
        if accept is not None:
            console.print(
                f"suggestions taken: {len(rows)}, into {output / CORRECTIONS_FILE}", markup=False, soft_wrap=True
            )
        when = f"then, with the page's corrections.csv put into {output}" if not rows else "then"
        command = _next_command(manifest, output, audio_dir, group_column)
        console.print(f"{when}: {command}", markup=False, soft_wrap=True)
    return SKIPPED_SOME if found.skipped else 0


def _check_usage(output: Path | None, corrections: Path | None, accept: float | None, who: str | None) -> None:
    if accept is None:
        return
    if output is None or not (who or "").strip():
        raise CycloptsError(msg="--accept writes corrections.csv: give -o for its folder, and --who for your name")
    target = output / CORRECTIONS_FILE
    if target.exists() and (corrections is None or corrections.resolve() != target.resolve()):
        raise DataError(
            f"{target}: holds decisions already, and more are added on top of them; give it with --corrections {target}"
        )


def _warning(found: "Review", manifest: Path) -> str:
    n_learnt, n_clips = found.origins["learnt"], sum(found.origins.values())
    return (
        f"WARNING: the tagger learnt from {n_learnt:,} of the {n_clips:,} clips with the labels that are judged here, "
        "and so believes even wrong ones. Train it with folds, so that networks judge that did not see the clip: "
        f"spectag train {shlex.quote(str(manifest))} -o MODEL --folds 5"
    )


def _next_command(manifest: Path, output: Path, audio_dir: Path | None, group_column: str | None) -> str:
    words = ["spectag", "train", str(manifest), "-o", "MODEL", "--corrections", str(output / CORRECTIONS_FILE)]
    for name, value in (("--audio-dir", audio_dir), ("--group-column", group_column)):
        words += [] if value is None else [name, str(value)]
    return shlex.join(words)


def print_review(found: "Review", console: Console) -> None:
    """Print how much of each kind was found, and the first findings."""
    counts = ", ".join(f"{n:,} {_PLURALS[kind] if n != 1 else kind}" for kind, n in found.counts.items() if n)
    console.print(f"[bold]{escape(str(found.manifest.source))}[/bold]: {counts}", soft_wrap=True)
    if found.n_kept:
        console.print(f"left out: {found.n_kept:,} that somebody looked at and found right")
    first = [finding for finding in found.findings if finding.kind != "no doubt"]
    if not first:
        console.print("nothing is in doubt")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "clip", "labels, and what they likely are", "wrong", "certain"):
        table.add_column(name, justify="right" if name in ("", "wrong", "certain") else "left", overflow="fold")
    for finding in first[:_N_SHOWN]:
        table.add_row(*map(escape, _cells(finding)))
    console.print()
    console.print(table)
    if len(first) > _N_SHOWN:
        console.print(f"and {len(first) - _N_SHOWN:,} more")


def _cells(finding: "Finding") -> list[str]:
    """What a row tells: of labels how likely they are wrong and the suggestion right, of sounds what is the matter."""
    if finding.label is None:
        return [str(finding.rank), finding.clip.name, f"{finding.kind}: {finding.note}", "", ""]
    given, likely = (", ".join(labels) or "no label" for labels in (finding.clip.labels, finding.suggested))
    numbers = f"{finding.score:.3f}", f"{finding.certainty:.3f}"
    return [str(finding.rank), finding.clip.name, f"{given} → {likely}", *numbers]


_PLURALS = {
    "swapped label": "swapped labels",
    "wrong label": "wrong labels",
    "missing label": "missing labels",
    "silent": "silent",
    "near duplicate": "near-duplicates",
    "clipped": "clipped",
    "no doubt": "without a doubt",
}
