"""spectag tune."""

from pathlib import Path
from typing import TYPE_CHECKING

from spectag.cli.app import training_packages
from spectag.cli.options import Count, Json, Output
from spectag.cli.recipe_options import NO_DATA_OPTIONS, NO_RECIPE_OPTIONS, DataGroup, RecipeGroup, check_data_files
from spectag.cli.terminal import new_table, print_json, print_skipped, progress_display, shell_command, stdout_console
from spectag.config.data_options import DataOptions

if TYPE_CHECKING:
    from spectag.training.tuning.study import Study

_N_SHOWN = 10


def tune_command(
    manifest: Path,
    /,
    *,
    output: Output,
    trials: Count | None = None,
    over: str = "mel,augment,head,learning_rate",
    recipe: RecipeGroup = NO_RECIPE_OPTIONS,
    data: DataGroup = NO_DATA_OPTIONS,
    json_output: Json = False,
) -> int:
    """Search for the best training settings.

    Give --budget, the time for all trials, or --trials. Settings that you give stay fixed; the search varies the
    others. To continue an interrupted search, run the same command again. The budget includes earlier runs.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Folder for the study: trials.csv, study.png, and best.toml to train with.
    trials
        Number of trainings, including those of earlier runs. The first one uses the recipe unchanged.
    over
        Settings to vary: a comma-separated list of mel, augment, head and learning_rate.
    json_output
        Print the trials as JSON.
    """
    check_data_files(data)
    with training_packages("tune", "tuning"):
        from spectag.training.tuning.study import tune
    with progress_display() as (progress, log), recipe.named_in_errors():
        study = tune(
            manifest,
            output,
            recipe.read(),
            trials=trials,
            over=[name.strip() for name in over.split(",") if name.strip()],
            data=data,
            progress=progress,
            log=log,
        )
    if json_output:
        print_json(study.to_dict())
    else:
        _print(study, _train_command(manifest, study, data))
    return print_skipped([reason for _, reason in study.skipped])


_DATA_OPTIONS = (
    *("noisy", "background", "audio_dir", "group_column", "label_column", "label_separator", "corrections"),
    "hierarchy",
)


def _train_command(manifest: Path, study: "Study", data: DataOptions) -> str:
    """The command that trains with the best settings."""
    from spectag.training.tuning.study import BEST_TOML

    data_options = {name: getattr(data, name) for name in _DATA_OPTIONS}
    return shell_command("spectag", "train", manifest, "-o", "model", recipe=study.folder / BEST_TOML, **data_options)


def _print(study: "Study", command: str) -> None:
    from spectag.training.tuning.study import FIGURE
    from spectag.training.tuning.study_storage import format_value

    table = new_table("trial", study.metric, "seconds", "settings", right=(study.metric, "seconds"))
    table.columns[0].no_wrap = True
    for trial in [study.trials[0], *(trial for trial in study.ranked[:_N_SHOWN] if trial.number)]:
        name = str(trial.number or "0 (recipe)")
        settings = ", ".join(f"{setting} {format_value(value)}" for setting, value in trial.settings.items())
        style = "bold" if trial.number and trial == study.best else None
        table.add_row(name, f"{trial.score:.4f}", f"{trial.seconds:.1f}", settings, style=style)
    stdout_console().print(table)
    if n_unscored := len(study.trials) - len(study.ranked):
        print(f"without a score: {n_unscored} of {len(study.trials)} trials; see trials.csv for the reasons")
    print(f"figure: {study.folder / FIGURE}\nto train with the best settings: {command}")
