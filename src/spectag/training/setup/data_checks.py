"""Checks of the training data before anything is trained."""

from pathlib import Path

import numpy as np

from spectag.array_types import FloatArray
from spectag.config.backbones import backbone_spec
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet
from spectag.data.readers.delimited_text import abbreviate
from spectag.errors import ConfigError, DataError
from spectag.models.bundle import read_info
from spectag.system.progress import Log


def check_negatives(y_true: FloatArray, manifest: Manifest, log: Log) -> None:
    """Refuse clips that all have all labels, and warn about labels that every clip has where it is known."""
    has_negatives = (y_true == 0).any(axis=0)
    names = [manifest.labels.names[label] for label in np.flatnonzero(~has_negatives & (y_true == 1).any(axis=0))]
    if_known = " where it is known" if np.isnan(y_true).any() else ""
    if not has_negatives.any():
        raise DataError(
            f"{manifest.source}: all {len(y_true)} clips have {abbreviate(names)}{if_known}, so a model would report "
            "it for every sound, and for silence; add clips without it: other sounds, background noise, silence"
        )
    if names:
        log(
            f"WARNING: all {len(y_true)} clips have {abbreviate(names)}{if_known}: the model will report it for every "
            "sound; add clips without it"
        )


def check_init(bundle: Path, recipe: Recipe, labels: LabelSet) -> None:
    """Refuse an initial bundle with another architecture, head or labels."""
    info = read_info(bundle)
    found = (info.backbone.name, info.backbone.features, info.backbone.head)
    needed = (backbone_spec(recipe.backbone).name, recipe.features, recipe.head)
    problem = f"{bundle}: training cannot start from this model"
    if info.members:
        raise ConfigError(f"{problem}: it is an ensemble; use a model with one network")
    if found != needed:
        text = "backbone {}, features {}, head {}"
        raise ConfigError(f"{problem}: it has {text.format(*found)}; this training has {text.format(*needed)}")
    if info.labels != labels.names:
        different = sorted(set(info.labels) ^ set(labels.names))
        raise ConfigError(f"{problem}: its labels differ: {abbreviate(different) if different else 'another order'}")
