"""spectag review."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.options import Flag, Json, OptionalOutput, Workers
from spectag.cli.terminal import (
    new_table,
    print_json,
    print_skipped,
    progress_display,
    shell_command,
    stdout_console,
)

if TYPE_CHECKING:
    from spectag.curation.label_review import Finding, Review
    from spectag.reporting.review_folder import ReviewFiles

_N_SHOWN = 20
_PLURALS = {
    "near duplicate": "near-duplicates",
    "no doubt": "without a doubt",
    "silent": "silent",
    "clipped": "clipped",
}


def review_command(
    model: str,
    manifest: Path,
    /,
    *,
    output: OptionalOutput = None,
    corrections: Path | None = None,
    accept_above: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1))] = None,
    reviewer: str | None = None,
    method: Literal["self-confidence", "cleanlab"] = "self-confidence",
    labels_only: Flag = False,
    max_shown: Annotated[int, Parameter(validator=Number(gte=0))] = 100,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Find labels that are probably wrong, and review them.

    Near-duplicates, silent clips and clipped clips are listed, too. Use a model that was trained with folds on these
    clips, or that was not trained on them.

    Parameters
    ----------
    model
        Folder of a model, or the name of a pretrained one.
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Folder for review.csv (all clips, ranked) and review.html (a page to listen and decide).
    corrections
        Corrections from earlier reviews. Clips with confirmed labels are left out.
    accept_above
        Accept suggestions with at least this certainty, such as 0.95: write them to OUTPUT/corrections.csv.
    reviewer
        Your name, for the accepted suggestions.
    method
        Rank by spectag's own measure, or by cleanlab's multi-label scores (pip install 'spectag[review]').
    labels_only
        Do not look for near-duplicates, silent and clipped clips. This is faster.
    max_shown
        Number of findings on the page.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    group_column
        Column of the groups: clips with equal values come from one recording, site or recordist.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    workers
        Number of cores. By default all, or one for a few clips.
    json_output
        Print all findings as JSON.
    """
    from spectag.curation.label_review import check_corrections_target, review
    from spectag.data.corrections import read_corrections
    from spectag.data.manifest import read_manifest
    from spectag.models.nearby_models import check_model_first
    from spectag.models.pretrained import load
    from spectag.reporting.review_folder import CORRECTIONS_FILE, write_review_folder
    from spectag.system.output import check_output_folder

    check_model_first("review", model, [manifest])
    if accept_above is not None:
        if output is None or not (reviewer or "").strip():
            raise CycloptsError(msg="--accept-above writes corrections.csv: add -o FOLDER and --reviewer NAME")
        check_corrections_target(output / CORRECTIONS_FILE, corrections)
    if output is not None:
        check_output_folder(output)
    data_options: dict[str, Any] = {
        "audio_dir": audio_dir,
        "group_column": group_column,
        "label_column": label_column,
        "label_separator": label_separator,
    }
    clips = read_manifest(manifest, **data_options)  # before a model is downloaded
    if corrections is not None:
        read_corrections(corrections)
    with progress_display() as (progress, log):
        tagger = load(model, progress=progress, log=log)
        found = review(
            tagger,
            clips,
            method=method,
            labels_only=labels_only,
            corrections=corrections,
            workers=workers,
            progress=progress,
            log=log,
        )
        if output is not None:
            files = write_review_folder(
                found,
                output,
                tagger,
                accept_above=accept_above,
                reviewer=reviewer or "",
                corrections=corrections,
                max_shown=max_shown,
                progress=progress,
            )
    if found.origins.get("train"):
        _warn(found, manifest)
    if json_output:
        print_json(found.to_dict())
    else:
        _print_findings(found)
        if output is not None:
            _print_next_steps(files, manifest, has_issues=_has_issues(found), **data_options)
    return print_skipped([reason for _, reason in found.skipped])


def _warn(found: "Review", manifest: Path) -> None:
    from rich.console import Console

    n_train, n_clips = found.origins["train"], sum(found.origins.values())
    warning = (
        f"WARNING: {n_train:,} of the {n_clips:,} clips are checked with a model that was trained on them, "
        "so it agrees even with wrong labels. Train with folds to get out-of-fold predictions: "
        f"{shell_command('spectag', 'train', manifest, '-o', 'MODEL', folds=5)}"
    )
    Console(stderr=True, highlight=False).print(warning, style="bold red", markup=False, soft_wrap=True)


def _has_issues(found: "Review") -> bool:
    return any(finding.kind != "no doubt" for finding in found.findings)


def _print_next_steps(files: "ReviewFiles", manifest: Path, *, has_issues: bool, **data_options: object) -> None:
    print(f"\nall clips, ranked: {files.table}")
    if not has_issues:
        return  # there is nothing to decide
    print(f"page for your decisions: {files.page}")
    when = f"then save the page's corrections.csv in {files.corrections.parent}, and train"
    if files.n_accepted is not None:
        print(f"{files.n_accepted} suggestions accepted: {files.corrections}")
        when = "then" if files.n_accepted else when
    words = ("spectag", "train", manifest, "-o", "MODEL")
    print(f"{when}: {shell_command(*words, corrections=files.corrections, **data_options)}")


def _print_findings(found: "Review") -> None:
    """Print the number of findings of each kind, and the first findings."""
    from rich.text import Text

    console = stdout_console()
    plurals = {kind: _PLURALS.get(kind, f"{kind}s") for kind in found.counts}
    counts = ", ".join(f"{n:,} {plurals[kind] if n > 1 else kind}" for kind, n in found.counts.items() if n)
    console.print(Text.assemble((str(found.manifest.source), "bold"), f": {counts}"), soft_wrap=True)
    if found.n_confirmed:
        print(f"left out: {found.n_confirmed:,} with confirmed labels")
    findings = [finding for finding in found.findings if finding.kind != "no doubt"]
    if not findings:
        print("no issues found")
        return
    columns = ("", "clip", "labels → suggested labels", "P(wrong)", "certainty")
    table = new_table(*columns, right=("", *columns[3:]))
    for finding in findings[:_N_SHOWN]:
        table.add_row(*_cells(finding))
    console.print("", table)
    if len(findings) > _N_SHOWN:
        print(f"and {len(findings) - _N_SHOWN:,} more")


def _cells(finding: "Finding") -> list[str]:
    """A row of the table: rank, clip, issue, probability that the labels are wrong, certainty of the suggestion."""
    if finding.label is None:
        return [str(finding.rank), finding.clip.name, f"{finding.kind}: {finding.note}", "", ""]
    given, suggested = (", ".join(labels) or "no label" for labels in (finding.clip.labels, finding.suggested))
    row = str(finding.rank), finding.clip.name, f"{given} → {suggested}"
    return [*row, f"{finding.score:.3f}", f"{finding.certainty:.3f}"]
