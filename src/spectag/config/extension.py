"""Settings of a training that extends a published model: they must leave its network as it is."""

from collections.abc import Mapping
from typing import Any

from spectag.config.backbones import PUBLISHED
from spectag.errors import did_you_mean

_NEEDED = {
    "mode": "frozen",
    "pretrained": True,
    "features": "all",
    "head": "linear",
    "init": None,
    "image": None,
    "members": (),
}


def backbone_to_extend(model: object) -> str | None:
    """The backbone of a published model; None for any other value."""
    published = PUBLISHED.get(model) if isinstance(model, str) else None
    return None if published is None else published.backbone


def check_extended(model: str, settings: Mapping[str, Any]) -> None:
    """Check that a model with these settings can have the labels of a published one.

    Raises
    ------
    ValueError
        If there is no such published model, or the settings lead to other features than those of its network.
    """
    backbone = backbone_to_extend(model)
    if backbone is None:
        hint = did_you_mean(model, PUBLISHED) or "."
        raise ValueError(f"extend = {model}: no published model{hint} They are {', '.join(PUBLISHED)}")
    needed = {"backbone": backbone, **_NEEDED}
    if wrong := [name for name, value in needed.items() if settings[name] != value]:
        values = ", ".join(f"{name} = {_text(needed[name])}" for name in wrong)
        raise ValueError(
            f"extend = {model}: its labels need the features of its own network; set {values}, or leave extend out"
        )
    if settings["final_model"] == "ensemble":
        raise ValueError(f"extend = {model}: one network is needed; set final_model = refit or average")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value) if value else "none"
