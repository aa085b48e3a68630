"""What a recipe needs of the packages that are not always installed."""

from spectag.config.backbones import backbone_spec
from spectag.config.network_cards import is_card
from spectag.config.recipe import Recipe
from spectag.errors import ConfigError, MissingExtraError
from spectag.models.published_graph import has_published_graph
from spectag.training.setup.distributed import n_launched


def has_published_network(recipe: Recipe) -> bool:
    """Whether the features of a recipe are those of a published network whose graph is part of the package."""
    return recipe.pretrained and recipe.init is None and has_published_graph(recipe.backbone)


def has_pretrained_weights(recipe: Recipe) -> bool:
    """Whether the network starts from trained weights and batch normalisation statistics."""
    return recipe.init is not None or (recipe.pretrained and recipe.backbone != "scratch")


def check_requirements(recipe: Recipe, name: str | None = None) -> None:
    """Check that the backbones of a recipe exist, and that PyTorch is installed if it needs it.

    Parameters
    ----------
    recipe : Recipe
    name : str, optional
        What the error says needs PyTorch; by default, the setting that does.

    Raises
    ------
    ConfigError
        If a backbone is unknown.
    MissingExtraError
        If PyTorch is not installed.
    """
    for member in recipe.member_recipes():
        backbone_spec(member.backbone)
        _check_card(member)
    purpose = purpose_of_torch(recipe)
    if purpose is None:
        return
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "finetune", name or purpose) from error


def purpose_of_torch(recipe: Recipe) -> str | None:
    """What a recipe needs PyTorch for, such as fine-tuning; None if it needs none."""
    return next(filter(None, map(_purpose_of_member, recipe.member_recipes())), None)


def _check_card(recipe: Recipe) -> None:
    """Raise a ConfigError if a recipe wants what the network of a card cannot do."""
    if not is_card(recipe.backbone):
        return
    wrong = {
        "mode = finetune": recipe.mode == "finetune",
        "pretrained = false": not recipe.pretrained,
        "n_mixed_clips": recipe.n_mixed_clips > 0,
        "init": recipe.init is not None,
    }
    if unusable := [name for name, is_set in wrong.items() if is_set]:
        raise ConfigError(
            f"{recipe.backbone}: the network of a card stays as it is, and only a head is trained, so it does not go "
            f"with {', '.join(unusable)}; leave it out, or use another backbone"
        )


def _purpose_of_member(recipe: Recipe) -> str | None:
    """What a member of a recipe needs PyTorch for; None if it needs none."""
    if recipe.mode == "finetune":
        return "fine-tuning"
    if not has_published_graph(recipe.backbone) and not is_card(recipe.backbone):
        return f"the backbone {recipe.backbone}"
    if not recipe.pretrained:
        return f"{recipe.backbone} without pretrained weights"
    if recipe.optimizer != "lbfgs":
        return f"the optimizer {recipe.optimizer}"
    if recipe.n_mixed_clips:
        return "n_mixed_clips"
    return "training in several processes" if n_launched() > 1 else None
