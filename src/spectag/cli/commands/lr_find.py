"""spectag lr-find."""

from pathlib import Path

from spectag.cli.app import training_packages
from spectag.cli.options import Json, Output
from spectag.cli.recipe_options import NO_DATA_OPTIONS, NO_RECIPE_OPTIONS, DataGroup, RecipeGroup, check_data_files
from spectag.cli.terminal import print_json, progress_display


def lr_find_command(
    manifest: Path,
    /,
    *,
    output: Output,
    recipe: RecipeGroup = NO_RECIPE_OPTIONS,
    data: DataGroup = NO_DATA_OPTIONS,
    json_output: Json = False,
) -> None:
    """Find a learning rate for fine-tuning.

    Fine-tunes for a hundred steps while the learning rate rises, and suggests the rate at which the loss falls
    fastest. Nothing is kept of the training. The default mode is finetune.

    Parameters
    ----------
    manifest
        Table of clips and labels, or a folder with one sub-folder per label.
    output
        Figure of the loss curve: .png, .jpg, .pdf or .svg.
    json_output
        Print the rates, the losses and the suggestion as JSON.
    """
    from spectag.system.figures import check_figure_path, save_figure
    from spectag.training.tuning.figures import draw_rate_curve

    check_figure_path(output)
    check_data_files(data)
    with training_packages("finetune", "fine-tuning"):
        from spectag.training.tuning.learning_rate_finder import find_learning_rate
    settings = recipe.read(default_mode="finetune")
    with progress_display() as (progress, log), recipe.named_in_errors():
        curve = find_learning_rate(manifest, settings, data=data, progress=progress, log=log)
    save_figure(draw_rate_curve(curve, title=f"{manifest.name}, {settings.backbone}"), output)
    if json_output:
        print_json(curve.to_dict())
    elif curve.suggestion is None:
        print(f"no suggestion: the loss does not fall at any learning rate\nfigure: {output}")
    else:
        print(f"learning rate: {curve.suggestion:.1e} (the loss falls fastest around it)\nfigure: {output}")
