"""What backbones reach and cost, as measured by benchmarks/backbones.py."""

import json
from dataclasses import dataclass
from importlib.resources import files

_FILE = "backbone_figures.json"


@dataclass(frozen=True)
class BackboneFigures:
    """Scores of frozen features with the default head on new recordings, and what tagging costs."""

    backbone: str
    scores: dict[str, tuple[float, float, float]]
    """Mean and the ends of its 95 % interval, by the name of the data set; above 0, up to 1 (best)."""
    real_time_factor: float
    """Seconds of sound that one core processes in a second."""
    memory_mb: float
    """Of a process that tags, at most."""
    model_mb: float
    """Of a model with ten labels."""
    licence: str


def measured_backbones() -> list[BackboneFigures]:
    """All backbones that were measured; those whose weights were not at hand are missing."""
    content = files("spectag.models").joinpath(_FILE).read_text(encoding="utf-8")
    return [BackboneFigures(**figures) for figures in json.loads(content)]
