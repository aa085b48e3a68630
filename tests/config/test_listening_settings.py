"""Settings of listening."""

import pytest

from spectag.config.base import WindowConfig
from spectag.config.listening import ListenSettings


def test_default_windows_are_those_of_the_model_or_of_segments():
    whole, trained_on = WindowConfig(), WindowConfig(window_seconds=5.0)
    assert ListenSettings().windows(trained_on) == WindowConfig(window_seconds=5.0, overlap_seconds=4.5)
    assert ListenSettings(window=0.6).windows(trained_on) == WindowConfig(window_seconds=0.6, overlap_seconds=0.3)
    assert ListenSettings(window=3.0, overlap=0.0).windows(trained_on) == WindowConfig(window_seconds=3.0)
    of_segments = ListenSettings().windows(whole)
    assert of_segments.window_seconds - of_segments.overlap_seconds == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"overlap": 1.0}, "--overlap 1 needs --window"),
        ({"window": 1.0, "overlap": 1.0}, "need overlap < window, got 1 s and 1 s"),
        ({"smooth_windows": 2}, "smooth_windows\n  Input should be an odd number"),
    ],
)
def test_contradictory_settings_are_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        ListenSettings(**values)
