"""spectag suggest."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from spectag.cli.options import Json, Length, Number, OptionalOutput, Seed, Workers
from spectag.cli.terminal import new_table, print_json, print_skipped, progress_display, shell_command, stdout_console

if TYPE_CHECKING:
    from spectag.curation.active_learning import Suggestions

_N_SHOWN = 20  # clips on the screen
_N_LABELS = 2  # suggested labels of each


def suggest_command(
    model: str,
    paths: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    number: Number = 50,
    output: OptionalOutput = None,
    labelled: Annotated[list[Path] | None, Parameter(negative="")] = None,
    window: Length = None,
    audio_dir: Path | None = None,
    seed: Seed = 0,
    workers: Workers = None,
    json_output: Json = False,
) -> int:
    """Choose the clips to label next.

    The most useful clip comes first, so label as many as you have time for. Clips that are labelled already, and
    their near-duplicates, are not suggested.

    Parameters
    ----------
    model
        Folder of a model trained on the labels so far. To start, use a published model such as audioset-mn04:
        it selects clips that are typical of many others and differ from each other.
    paths
        Recordings: folders, files, patterns such as 'rec/**/*.wav', or a manifest.
    number
        Number of clips to suggest.
    output
        CSV to write. Once you fill in its column labels, it is a manifest.
    labelled
        Manifest of clips that are labelled already. Repeatable. The model's training clips are known without
        it.
    window
        Suggest excerpts of this length instead of whole recordings.
    audio_dir
        Folder of the sounds of the manifests, if they are not beside them.
    seed
        Another seed may choose other clips if there are more than 10,000.
    workers
        Number of cores to use. By default all, or one for a few files.
    json_output
        Print the suggestions as JSON.
    """
    from spectag.curation.active_learning import check_suggestions_file, suggest, write_suggestions
    from spectag.models.nearby_models import check_model_first

    if output is not None:
        check_suggestions_file(output)
    check_model_first("suggest", model, paths)
    with progress_display() as (progress, log):
        suggestions = suggest(
            model,
            paths,
            number,
            labelled=labelled or (),
            window=window,
            audio_dir=audio_dir,
            seed=seed,
            workers=workers,
            progress=progress,
            log=log,
        )
    if output is not None:
        write_suggestions(output, suggestions)
    if json_output:
        clips = [asdict(clip) for clip in suggestions]
        print_json({"folder": suggestions.folder, "clips": clips, "skipped": suggestions.skipped})
    else:
        _print(suggestions, output)
    return print_skipped(suggestions.skipped)


def _print(suggestions: "Suggestions", output: Path | None) -> None:
    table = new_table("rank", "clip", "suggested", "probability", "why", right=("rank", "probability"))
    for clip in suggestions[:_N_SHOWN]:
        excerpt = "" if clip.end_seconds is None else f" ({clip.start_seconds:g}-{clip.end_seconds:g} s)"
        labels = ", ".join(clip.suggested[:_N_LABELS]) + (", ..." if len(clip.suggested) > _N_LABELS else "")
        table.add_row(str(clip.rank), clip.fname + excerpt, labels, f"{clip.probability:.2f}", clip.why)
    stdout_console().print(table)
    if output is not None:
        is_beside = output.parent.resolve() == Path(suggestions.folder).resolve()
        command = shell_command("spectag", "inspect", output, audio_dir=None if is_beside else suggestions.folder)
        next_step = f"fill in the column labels to use it as a manifest: {command}"
        print(f"{len(suggestions)} clips to label in {output}; {next_step}", file=sys.stderr)
    elif len(suggestions) > _N_SHOWN:
        print(f"and {len(suggestions) - _N_SHOWN} more; -o next.csv writes all {len(suggestions)}", file=sys.stderr)
