"""spectag split."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectag.cli.options import Json, Seed

if TYPE_CHECKING:
    from spectag.data.split_manifest import Split


def split_command(
    manifest: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"])] = None,
    folds: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
    validation_fraction: Annotated[float | None, Parameter(validator=Number(gt=0, lt=1))] = None,
    seed: Seed = 0,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    corrections: Path | None = None,
    json_output: Json = False,
) -> int:
    """Deal a manifest's clips into folds, balanced by label, each recording in one.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        CSV to write: the manifest with the column fold. Without it only the balance is shown.
    folds
        Number of folds. [default: 5]
    validation_fraction
        Instead of folds, hold out this share of the clips.
    seed
        Another seed gives other folds, as well balanced.
    audio_dir
        Where sounds are that lie neither beside the manifest nor in the folder of its name.
    group_column
        Column whose equal values never come on two sides, such as the recordist's.
    corrections
        Corrections of the labels, as spectag review makes them. The CSV that is written has the corrected labels.
    json_output
        Print parts and balance as JSON.
    """
    from spectag.data.split_manifest import split, write_split

    result = split(
        manifest,
        folds=folds,
        validation_fraction=validation_fraction,
        seed=seed,
        audio_dir=audio_dir,
        group_column=group_column,
        corrections=corrections,
    )
    if output is not None:
        write_split(output, result)
    if json_output:
        parts = zip(result.manifest.clips, result.parts, strict=True)
        clips = [{"fname": clip.fname, "fold": part} for clip, part in parts]
        print(json.dumps({"clips": clips, "balance": result.balance.to_dict()}, ensure_ascii=False))
    else:
        _print(result, Console(file=sys.stdout, highlight=False))
    return 0


def _print(result: "Split", console: Console) -> None:
    balance = result.balance
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("clips with", no_wrap=True)
    for part in balance.parts:
        table.add_column(f"fold {part}" if part.isdigit() else part, justify="right")
    for label, counts in zip(result.manifest.labels.names, balance.counts.T, strict=True):
        table.add_row(escape(label), *map(str, counts))
    table.add_row("all", *map(str, balance.sizes), style="bold")
    console.print(table)
    console.print(
        f"\noff the ideal share, of a label's clips: worst {balance.worst:.1%}, mean {balance.mean:.1%} "
        f"(a random split of the same groups: worst {balance.random_worst:.1%}, mean {balance.random_mean:.1%})",
        soft_wrap=True,
    )
