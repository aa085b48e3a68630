"""Every number in every config has an upper limit: configs come with models, and models from strangers."""

import importlib
import pkgutil
import types
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Le, Lt
from pydantic import ValidationError

import spectag
from helpers.bundles import make_info
from spectag.audio.front_end import FrontEnd
from spectag.config.base import Config, ImageConfig, MelConfig, WindowConfig
from spectag.models.limits import MAX_LABELS
from spectag.scoring.calibration import Calibration


def all_configs():
    """Every subclass of Config in the package, outside of torch's packages."""
    for module in pkgutil.walk_packages(spectag.__path__, "spectag."):
        if not module.name.startswith(("spectag.training", "spectag.__main__")):
            importlib.import_module(module.name)
    found, waiting = [], [Config]
    while waiting:
        children = waiting.pop().__subclasses__()
        found += [child for child in children if child.__module__.startswith("spectag.")]
        waiting += children
    return sorted(set(found), key=lambda config: config.__name__)


def has_limit(metadata):
    return any(isinstance(item, (Le, Lt)) for constraint in metadata for item in parts(constraint))


def parts(constraint):
    return getattr(constraint, "metadata", None) or [constraint]


def unlimited_numbers(annotation, metadata):
    """The numeric types in an annotation that have no upper limit."""
    if get_origin(annotation) is Annotated:
        kind, *more = get_args(annotation)
        yield from unlimited_numbers(kind, [*metadata, *more])
    elif get_origin(annotation) in (Union, types.UnionType, tuple):
        inner = metadata if get_origin(annotation) is not tuple else []
        for kind in get_args(annotation):
            if kind is not Ellipsis:
                yield from unlimited_numbers(kind, inner)
    elif annotation in (int, float) and not has_limit(metadata):
        yield annotation


FIELDS = [(config, name) for config in all_configs() for name in config.model_fields]


@pytest.mark.parametrize(("config", "name"), FIELDS, ids=[f"{config.__name__}.{name}" for config, name in FIELDS])
def test_number_has_an_upper_limit(config, name):
    field = config.model_fields[name]
    assert not list(unlimited_numbers(field.annotation, field.metadata))


def test_all_configs_are_found():
    names = {config.__name__ for config in all_configs()}
    assert {"MelConfig", "BundleInfo", "CalibrationCurve", "IndexInfo", "Recipe", "ListenSettings"} <= names


def test_walk_finds_numbers_without_a_limit():
    assert list(unlimited_numbers(Annotated[int, Le(3)] | Literal["all"] | None, [])) == []
    assert list(unlimited_numbers(tuple[float, ...] | None, [])) == [float]
    assert list(unlimited_numbers(tuple[Annotated[float, Lt(1)], ...], [])) == []


@pytest.mark.parametrize(
    ("mel", "window"),
    [
        ({"hop_length": 1}, {"max_clip_seconds": 600.0}),
        ({"n_mels": 4_096, "hop_length": 16}, {}),
        ({}, {"max_clip_seconds": 600_000.0}),
        ({}, {"max_clip_seconds": 1.0, "window_seconds": 600_000.0}),
    ],
)
def test_settings_whose_input_would_not_fit_into_memory_are_refused(mel, window):
    with pytest.raises(ValidationError, match="the input of the network would have"):
        make_info(front_end=FrontEnd(mel=MelConfig(**mel)), window=WindowConfig(**window))


def test_images_that_would_not_fit_into_memory_are_refused():
    image = ImageConfig(height=16_384, width=16_384)
    with pytest.raises(ValidationError, match="the input of the network would have"):
        make_info(front_end=FrontEnd(mel=None, image=image))


def test_curves_that_would_not_fit_into_memory_are_refused():
    line = {"points": [[0.0, 0.0]], "slope_below": 1.0, "slope_above": 1.0}
    long = line | {"points": [[float(x), float(x)] for x in range(50_000)]}
    with pytest.raises(ValidationError, match="1001 curves of up to 50000 points are more than"):
        Calibration.model_validate({"method": "isotonic", "curves": [long, *[line] * 1_000]})


def test_too_many_labels_are_refused():
    labels = tuple(map(str, range(MAX_LABELS + 1)))
    with pytest.raises(ValidationError, match="at most 100000 items"):
        make_info(labels=labels)
