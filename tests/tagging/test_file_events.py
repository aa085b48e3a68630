"""What is told of a tagged recording: windows, all of them pooled, or segments."""

import numpy as np
import pytest

from helpers.bundles import LABELS, make_bundle
from spectag.config.tagging import TagSettings
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline
from spectag.tagging.events import detected_events
from spectag.tagging.parallel import TaggedFile


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model"))


def events_of(tagger, *, column, **settings):
    """Events of a recording of four seconds, whose first label has these probabilities, and whose others have none."""
    probabilities = np.zeros((4, len(LABELS)), np.float32)
    probabilities[:, 0] = column
    timeline = Timeline(np.arange(4.0), np.arange(1.0, 5.0), probabilities)
    events = detected_events(TaggedFile("a.wav", timeline), timeline, tagger, TagSettings(**settings)).events
    return [(event.start_seconds, event.end_seconds, round(event.probability, 6)) for event in events]


def test_least_probability_takes_the_place_of_the_thresholds_of_windows_and_of_segments(tagger):
    column = (0.05, 0.05, 0.01, 0.05)
    assert tagger.thresholds[0] > 0.05
    assert events_of(tagger, column=column, window=1.0) == []
    assert events_of(tagger, column=column, window=1.0, segments=True) == []
    assert events_of(tagger, column=column, window=1.0, min_confidence=0.04) == [
        (0.0, 1.0, 0.05),
        (1.0, 2.0, 0.05),
        (3.0, 4.0, 0.05),
    ]
    assert events_of(tagger, column=column, window=1.0, segments=True, min_confidence=0.04) == [
        (0.0, 2.0, 0.05),
        (3.0, 4.0, 0.05),
    ]


@pytest.mark.parametrize(("pool", "expected"), [("max", 0.8), ("mean", 0.35)])
def test_pooled_windows_are_one(tagger, pool, expected):
    found = events_of(tagger, column=(0.8, 0.2, 0.2, 0.2), window=1.0, pool=pool, min_confidence=0.1)
    assert found == [(0.0, 4.0, expected)]
