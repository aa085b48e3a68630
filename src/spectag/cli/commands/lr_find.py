"""spectag lr-find."""

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import ImageOptions, Json, MelOptions, Workers
from spectag.cli.recipe_options import AugmentOptions, FinetuneOptions, LossOptions, NoisyOptions, recipe_of
from spectag.cli.terminal import shown_work
from spectag.config.recipe import TrainSettings
from spectag.errors import MissingExtraError


def lr_find_command(
    manifest: Path,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    recipe: str | None = None,
    noisy: Path | None = None,
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
    json_output: Json = False,
) -> int:
    """Find the learning rate to fine-tune with: take a hundred steps while it rises, and see when the loss falls.

    Options are those of train; the mode is finetune. Nothing is trained that would be kept.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with a sub-folder per label.
    output
        Picture of the curve: .png, .jpg, .pdf or .svg.
    recipe
        A recipe that comes with spectag (quick, best, blog or fsdkaggle2019), or a TOML file. Flags win over it.
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
        Print the rates, the losses and the suggestion as JSON.
    """
    from spectag.system.figures import check_figure_path, save_figure
    from spectag.training.tuning.figures import draw_rate_curve

    check_figure_path(output)
    try:
        from spectag.training.tuning.learning_rate_finder import find_learning_rate
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "fine-tuning") from error
    tables = {"mel": mel, "image": image, "augment": augment, "loss": loss, "finetune": finetune}
    whole = recipe_of(recipe, settings_file, settings, tables | {"noisy_labels": noisy_labels}, mode="finetune")
    with shown_work() as (progress, log):
        curve = find_learning_rate(
            manifest,
            whole,
            noisy=noisy,
            cache=cache,
            audio_dir=audio_dir,
            group_column=group_column,
            corrections=corrections,
            workers=workers,
            progress=progress,
            log=log,
        )
    save_figure(draw_rate_curve(curve, title=f"{manifest.name}, {whole.backbone}"), output)
    if json_output:
        print(json.dumps(curve.to_dict(), indent=2))
    elif curve.suggestion is None:
        print(f"no suggestion: the loss falls at no learning rate\npicture: {output}")
    else:
        print(f"learning rate: {curve.suggestion:.1e} (the loss falls fastest around it)\npicture: {output}")
    return 0
