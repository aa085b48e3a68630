"""Make taggers for sounds: a folder of recordings and a table of labels in, a tagger out.

>>> import spectag
>>> tagger = spectag.load("model")  # doctest: +SKIP
>>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spectag.augment_page import augment
    from spectag.config import ImageConfig, MelConfig, WindowConfig
    from spectag.demo import demo
    from spectag.errors import SpectagError
    from spectag.evaluation import evaluate
    from spectag.explain import explain
    from spectag.inspection import inspect
    from spectag.manifest import read_manifest
    from spectag.plots import show
    from spectag.prepare import prepare
    from spectag.published import load
    from spectag.recalibrate import calibrate
    from spectag.recipe import Recipe
    from spectag.review import review
    from spectag.runtime import Tagger
    from spectag.sound_index import SoundIndex, index, search
    from spectag.split_manifest import split
    from spectag.suggest import suggest
    from spectag.tag import tag
    from spectag.train import train
    from spectag.tune import tune

_HOMES = {
    "ImageConfig": "config",
    "MelConfig": "config",
    "Recipe": "recipe",
    "SoundIndex": "sound_index",
    "SpectagError": "errors",
    "Tagger": "runtime",
    "WindowConfig": "config",
    "augment": "augment_page",
    "calibrate": "recalibrate",
    "demo": "demo",
    "evaluate": "evaluation",
    "explain": "explain",
    "index": "sound_index",
    "inspect": "inspection",
    "load": "published",
    "prepare": "prepare",
    "read_manifest": "manifest",
    "review": "review",
    "search": "sound_index",
    "show": "plots",
    "split": "split_manifest",
    "suggest": "suggest",
    "tag": "tag",
    "train": "train",
    "tune": "tune",
}

__all__ = [
    "ImageConfig",
    "MelConfig",
    "Recipe",
    "SoundIndex",
    "SpectagError",
    "Tagger",
    "WindowConfig",
    "augment",
    "calibrate",
    "demo",
    "evaluate",
    "explain",
    "index",
    "inspect",
    "load",
    "prepare",
    "read_manifest",
    "review",
    "search",
    "show",
    "split",
    "suggest",
    "tag",
    "train",
    "tune",
]


class _Package(ModuleType):
    """Python binds every imported module to its package; a module never hides the function of its name here."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    """Import what is asked for, when it is asked for: tagging needs no torch, and help needs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'spectag' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"spectag.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
