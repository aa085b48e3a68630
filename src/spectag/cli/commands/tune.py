"""spectag tune."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spectag.cli.app import SKIPPED_SOME
from spectag.cli.options import ImageOptions, Json, MelOptions, Workers
from spectag.cli.recipe_options import AugmentOptions, FinetuneOptions, LossOptions, NoisyOptions, recipe_of
from spectag.cli.terminal import name_skipped, shown_work
from spectag.config.recipe import Seconds, TrainSettings
from spectag.errors import MissingExtraError

if TYPE_CHECKING:
    from spectag.training.tuning.study import Study, Trial

_N_SHOWN = 10


class SearchSettings(TrainSettings):
    """Settings around which is searched."""

    budget: Seconds | None = Field(None, gt=0)
    """Time for all trials, such as 30m, those of earlier runs of the study included. A trial that would not fit is not
    begun."""


def tune_command(
    manifest: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    trials: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    over: str = "mel,augment,head,learning_rate",
    recipe: str | None = None,
    noisy: Path | None = None,
    settings: Annotated[SearchSettings | None, Parameter(name="*")] = None,
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
    json_output: Json = False,
) -> int:
    """Search for the settings that held-out clips like best, within --budget or --trials.

    A setting that is given stays as it is; what is not given may be searched over. Killed, and started again with the
    same command, the search goes on.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        Folder of the study: its trials.csv, study.png, and best.toml to train with.
    trials
        Trainings of the study, those of earlier runs included. The first is the recipe as it is given.
    over
        What to search over: some of mel, augment, head and learning_rate.
    recipe
        A recipe that comes with spectag, or a TOML file, to search around. Flags win over it.
    noisy
        A second manifest, of clips whose labels may be wrong.
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
    json_output
        Print the trials as JSON.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # on shared cores, threads that wait by spinning block others
    try:
        from spectag.training.tuning.study import tune
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "tune", "tuning") from error
    tables = {"mel": mel, "image": image, "augment": augment, "loss": loss, "finetune": finetune}
    whole = recipe_of(recipe, settings_file, settings, tables | {"noisy_labels": noisy_labels})
    with shown_work() as (progress, log):
        study = tune(
            manifest,
            output,
            whole,
            trials=trials,
            over=[name.strip() for name in over.split(",") if name.strip()],
            noisy=noisy,
            cache=cache,
            audio_dir=audio_dir,
            group_column=group_column,
            corrections=corrections,
            workers=workers,
            progress=progress,
            log=log,
        )
    name_skipped([reason for _, reason in study.skipped])
    if json_output:
        print(json.dumps(study.to_dict(), indent=2, ensure_ascii=False))
    else:
        given = {
            "--noisy": noisy,
            "--audio-dir": audio_dir,
            "--group-column": group_column,
            "--corrections": corrections,
        }
        _print(study, _to_train(manifest, study, given), Console(file=sys.stdout, highlight=False))
    return SKIPPED_SOME if study.skipped else 0


def _to_train(manifest: Path, study: "Study", given: dict[str, Path | str | None]) -> str:
    from spectag.training.tuning.study import BEST_TOML

    others = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    return shlex.join(
        ["spectag", "train", str(manifest), "-o", "model", "--recipe", str(study.folder / BEST_TOML), *others]
    )


def _print(study: "Study", command: str, console: Console) -> None:
    from spectag.training.tuning.study import FIGURE, in_words

    def row(trial: "Trial", name: str) -> list[str]:
        settings = (f"{setting} {in_words(value)}" for setting, value in trial.settings.items())
        return [name, f"{trial.lwlrap:.4f}", f"{trial.seconds:.1f}", escape(", ".join(settings))]

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("trial", "lwlrap", "seconds", "settings"):
        table.add_column(column, justify="right" if column in ("lwlrap", "seconds") else "left")
    table.columns[0].no_wrap = True
    table.add_row(*row(study.trials[0], "0 (as given)"))
    for trial in study.ranked[:_N_SHOWN]:
        if trial.number:
            table.add_row(*row(trial, str(trial.number)), style="bold" if trial == study.best else None)
    console.print(table)
    n_unscored = len(study.trials) - len(study.ranked)
    if n_unscored:
        console.print(f"without a score: {n_unscored} of {len(study.trials)} trials; trials.csv says why")
    console.print(f"figure: {study.folder / FIGURE}", markup=False, soft_wrap=True)
    console.print(f"to train with the best: {command}", markup=False, soft_wrap=True)
