"""spectag train."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import ImageOptions, Json, MelOptions, Workers
from spectag.cli.recipe_options import AugmentOptions, FinetuneOptions, LossOptions, NoisyOptions, recipe_of
from spectag.cli.terminal import name_skipped, shown_training
from spectag.config.recipe import TrainSettings
from spectag.errors import MissingExtraError
from spectag.system.epoch_log import checkpoints_of

if TYPE_CHECKING:
    from spectag.scoring.scores import Scores
    from spectag.training.pipeline import TrainResult


def train_command(
    manifest: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    recipe: str | None = None,
    noisy: Path | None = None,
    resume: bool = False,
    settings: Annotated[TrainSettings | None, Parameter(name="*")] = None,
    mel: MelOptions = None,
    image: ImageOptions = None,
    augment: AugmentOptions = None,
    loss: LossOptions = None,
    finetune: FinetuneOptions = None,
    noisy_labels: NoisyOptions = None,
    settings_file: Annotated[Path | None, Parameter(show=False)] = None,
    cache: Path | None = None,
    audio_dir: Path | None = None,
    group_column: str | None = None,
    corrections: Path | None = None,
    workers: Workers = None,
    tensorboard: Path | None = None,
    json_output: Json = False,
) -> int:
    """Train a tagger on a manifest.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        Folder of the tagger; an earlier tagger there is replaced when the new one is whole.
    recipe
        A recipe that comes with spectag (quick, best, blog or fsdkaggle2019), or a TOML file. Flags win over it.
    noisy
        A second manifest, of clips whose labels may be wrong; where the tagger doubts them, they count less.
    resume
        Go on with fine-tuning that was killed, to the same weights.
    settings_file
        What --config names.
    bank
        Folder where spectrograms and features are kept. By default in the user's cache.
    audio_dir
        Where sounds (or images) are that lie neither beside the manifest nor in the folder of its name.
    group_column
        Column whose equal values never come on two sides of a fold, such as the recordist's.
    corrections
        Corrections of the labels, as spectag review makes them. The manifest itself stays as it is.
    workers
        Processes that make spectrograms. By default one for each core.
    tensorboard
        Folder of TensorBoard's. Gets the curves of every training by epochs, under the tagger's name.
    json_output
        Print the scores as JSON.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on shared cores, threads that wait by spinning block others
    try:
        from spectag.training.pipeline import train
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "training") from error
    tables = {"mel": mel, "image": image, "augment": augment, "loss": loss, "finetune": finetune}
    whole = recipe_of(recipe, settings_file, settings, tables | {"noisy_labels": noisy_labels})
    with shown_training() as (progress, log, on_epoch), _hint_at_resume(output):
        result = train(
            manifest,
            output,
            whole,
            noisy=noisy,
            resume=resume,
            cache=cache,
            audio_dir=audio_dir,
            group_column=group_column,
            corrections=corrections,
            workers=workers,
            tensorboard=tensorboard,
            progress=progress,
            log=log,
            on_epoch=on_epoch,
        )
    if os.environ.get("RANK", "0") != "0":
        return 0  # one of several processes tells
    _draw_epochs(result)
    name_skipped([reason for _, reason in result.skipped])
    if json_output:
        print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))
    else:
        print_result(result, Console(file=sys.stdout, highlight=False))
    return SKIPPED_SOME if result.skipped else 0


def _draw_epochs(result: "TrainResult") -> None:
    """Put the learning curves into the tagger's folder."""
    if not result.epochs:
        return
    from spectag.system.figures import save_figure
    from spectag.training.bundle_writer import CURVES_FILE
    from spectag.training.curves import draw_learning_curves

    try:
        figure = draw_learning_curves(result.epochs, title=result.bundle.name)
    except MissingExtraError as error:
        print(f"no picture of the learning curves: {error}", file=sys.stderr)
    else:
        save_figure(figure, result.bundle / CURVES_FILE)


@contextmanager
def _hint_at_resume(output: Path) -> Iterator[None]:
    """Where fine-tuning is stopped by Ctrl-C, say how it goes on."""
    try:
        yield
    except KeyboardInterrupt:
        if checkpoints_of(output).exists():
            print("the same command with --resume goes on where fine-tuning stands", file=sys.stderr)
        raise


def print_result(result: "TrainResult", console: Console) -> None:
    """Scores fold by fold and over all held-out clips, and where the tagger lies."""
    if result.scores is not None:
        low, high = result.scores.intervals["lwlrap"]
        console.print(_score_table(result, result.scores))
        console.print(f"95 % interval of lwlrap: {low:.4f} to {high:.4f}")
    console.print(f"tagger: {result.bundle}", markup=False, soft_wrap=True)


def _score_table(result: "TrainResult", scores: "Scores") -> Table:
    rows: list[tuple[str, str, float | None, float | None]] = [
        (f"fold {fold.name}", str(fold.n_clips), fold.lwlrap, fold.top1_accuracy) for fold in result.folds
    ]
    if len(rows) > 1:
        accuracies = [fold.top1_accuracy for fold in result.folds]
        rows.append(("mean of folds", "", _mean([fold.lwlrap for fold in result.folds]), _mean(accuracies)))
    else:
        rows = []
    rows.append(("all held out", str(scores.n_clips), scores.lwlrap, scores.top1_accuracy))
    names = ["held out", "clips", "lwlrap", "top-1 accuracy"][: 3 if scores.top1_accuracy is None else 4]
    table = Table(box=None, padding=(0, 3, 0, 0))
    for name in names:
        table.add_column(name, justify="left" if name == "held out" else "right")
    for part, n_clips, *values in rows:
        table.add_row(*[part, n_clips, *map(_number, values)][: len(names)])

    return table


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
