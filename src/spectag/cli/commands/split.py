"""spectag split."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.cli.options import ChannelOption, Folds, Json, OptionalOutput, Seed, Workers
from spectag.cli.terminal import new_table, progress_display, stdout_console

if TYPE_CHECKING:
    from spectag.data.split_manifest import Split


def split_command(
    manifest: Path,
    /,
    *,
    output: OptionalOutput = None,
    folds: Folds = None,
    validation_fraction: Annotated[float | None, Parameter(validator=Number(gt=0, lt=1))] = None,
    test_size: Annotated[float | None, Parameter(validator=Number(gt=0, lt=1))] = None,
    seed: Annotated[Seed, Parameter(name=["--seed", "--random-state"])] = 0,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    corrections: Path | None = None,
    find_shared_audio: bool = False,
    channel: ChannelOption = "mix",
    cache: Path | None = None,
    workers: Workers = None,
    json_output: Json = False,
) -> None:
    """Split a manifest into balanced folds or a validation set.

    Each label is spread evenly over the folds. Clips of one recording, and of one group, stay together.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Write the manifest with a column fold to this CSV. By default only the balance is printed. With --test-size, the
        folder for the two tables, by default that of the manifest.
    folds
        Number of folds. (default: 5)
    validation_fraction
        Instead of folds, hold out this fraction of the clips.
    test_size
        Hold out this fraction at random, as scikit-learn's train_test_split with --random-state, and write the tables
        NAME_trainset.csv and NAME_validset.csv. Groups may be separated.
    seed
        Another seed gives other folds, as well balanced.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    group_column
        Manifest column of groups, such as recordist or site. A group never spans two folds.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    corrections
        Label corrections from spectag review. The CSV gets the corrected labels.
    find_shared_audio
        Also keep clips together that contain the same part of a recording. This reads all sounds.
    channel
        With --find-shared-audio, how several channels become one: their mean (mix), the loudest one of the first ten
        minutes (loudest), or the one with this number, from 1.
    cache
        Folder for the fingerprints of the sounds. By default in the user's cache folder.
    workers
        Processes that compute fingerprints. By default one per core.
    json_output
        Print the folds and the balance as JSON.
    """
    from spectag.data.split_manifest import split, write_holdout, write_split

    with progress_display() as (progress, _):
        result = split(
            manifest,
            audio_dir=audio_dir,
            group_column=group_column,
            label_column=label_column,
            label_separator=label_separator,
            folds=folds,
            validation_fraction=validation_fraction,
            test_size=test_size,
            seed=seed,
            corrections=corrections,
            find_shared_audio=find_shared_audio,
            channel=channel,
            cache=cache,
            workers=workers,
            progress=progress,
        )
    tables: tuple[Path, ...] = ()
    if test_size is not None:
        tables = write_holdout(output or manifest.parent, result)
    elif output is not None:
        write_split(output, result)
    if json_output:
        rows = zip(result.manifest.clips, result.folds, strict=True)
        clips = [{"fname": clip.fname, "fold": fold} for clip, fold in rows]
        print(json.dumps({"clips": clips, "balance": result.balance.to_dict()}, ensure_ascii=False))
    else:
        _print(result)
        for table in tables:
            print(table)


def _print(result: "Split") -> None:
    balance = result.balance
    columns = [f"fold {fold}" if fold.isdigit() else fold for fold in balance.folds]
    table = new_table("clips with", *columns, right=columns)
    for label, counts in zip(result.manifest.labels.names, balance.counts.T, strict=True):
        table.add_row(label, *map(str, counts))
    table.add_row("all", *map(str, balance.sizes), style="bold")
    stdout_console().print(table)
    print(
        f"\ndeviation from the ideal fraction of a label's clips: worst {balance.worst:.1%}, mean {balance.mean:.1%} "
        f"(a random split of the same groups: worst {balance.random_worst:.1%}, mean {balance.random_mean:.1%})"
    )
    if result.sharing is not None:
        print(f"{result.sharing}; {result.n_sharing_between_folds} of them share audio with clips of other folds")
    if result.n_separated_groups:
        print(
            f"{result.n_separated_groups} recordings or groups are on both sides, so scores on the validation clips "
            "are too high; --validation-fraction keeps them together"
        )
