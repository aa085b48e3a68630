"""spectag relabel."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import CycloptsError, Parameter

from spectag.cli.options import Json, OptionalOutput
from spectag.cli.terminal import new_table, print_json, print_message, stdout_console

if TYPE_CHECKING:
    from spectag.data.relabelling import Relabelling

_N_SHOWN = 5  # names


def relabel_command(
    manifest: Path,
    /,
    *,
    output: OptionalOutput = None,
    label_map: Annotated[Path | None, Parameter(name="--map")] = None,
    hierarchy: Path | None = None,
    audio_dir: Path | None = None,
    label_column: str | None = None,
    label_separator: str | None = None,
    json_output: Json = False,
) -> None:
    """Merge, rename, drop or nest the labels of a manifest.

    Prints the clips of each label before and after. Without -o, nothing is written. The new table keeps the other
    columns. Tables of annotations and of spectag tag can be relabelled, too.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        The new table.
    label_map
        CSV with the columns old and new, and optionally parent. A label without a new name is dropped; several new
        names are separated by commas. Labels that are not in it stay. Or ucs: the CatIDs of the Universal Category
        System for sound effects, for labels of AudioSet.
    hierarchy
        CSV with the columns child and parent, or AudioSet's ontology.json. Clips get all labels above theirs.
    audio_dir
        Folder of the sounds, if they are not beside the manifest.
    label_column
        Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own.
    label_separator
        What separates the labels in a field, such as ';'. By default a comma.
    json_output
        Print what changed as JSON.
    """
    if label_map is None and hierarchy is None:
        raise CycloptsError(msg="nothing to change; give --map, a table of old and new labels, or --hierarchy")
    if output is not None and output.exists() and manifest.exists() and output.samefile(manifest):
        raise CycloptsError(msg=f"-o {output} is the manifest itself; choose another name")
    from spectag.data.relabelling import relabel

    result = relabel(
        manifest,
        label_map,
        output,
        hierarchy=hierarchy,
        audio_dir=audio_dir,
        label_column=label_column,
        label_separator=label_separator,
    )
    if json_output:
        print_json(result.to_dict())
    else:
        _print(result)


def _print(result: "Relabelling") -> None:
    from spectag.data.readers.delimited_text import abbreviate

    table = new_table("label", "before", "after", "becomes", right=("before", "after"))
    for label in sorted({*result.before, *result.after}):
        before, after = result.before.get(label), result.after.get(label)
        names = result.new_names.get(label, (label,))
        becomes = "" if names == (label,) else abbreviate(names) if names else "(dropped)"
        table.add_row(label, "" if before is None else f"{before:,}", "" if after is None else f"{after:,}", becomes)
    stdout_console().print(table)
    print(f"{result.n_clips:,} clips, {len(result.before):,} labels before, {len(result.after):,} after")
    if n_lost := len(result.without_labels):
        clips = "clip has" if n_lost == 1 else "clips have"
        print_message(f"{n_lost:,} {clips} no label any more: {abbreviate(result.without_labels, _N_SHOWN)}")
    for label, hint in result.unknown.items():
        print_message(f"WARNING: no clip has {label!r}, which is in the map{hint}")
    if result.output is not None:
        print(f"written to {result.output}")
