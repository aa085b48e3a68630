"""The windows of a clip cover it, and short clips have none."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spectag.audio.front_end import FrontEnd
from spectag.config.backbones import AUDIOSET_MEL
from spectag.config.base import ImageConfig
from spectag.models.clip_windows import ClipWindows, FrameWindows


@given(n_frames=st.integers(1, 2000), length=st.integers(1, 300), hop=st.integers(1, 300))
def test_windows_cover_a_clip_that_has_any_and_stay_inside(n_frames, length, hop):
    hop = min(hop, length)
    starts = FrameWindows(length, hop, 0.5).starts(n_frames)
    if n_frames < length + hop:
        assert starts == []
        return
    covered = {frame for start in starts for frame in range(start, start + length)}
    assert covered == set(range(n_frames))
    assert starts == sorted(set(starts))


def test_windows_of_segments_are_not_divided_further():
    """A sound of 1.5 s has one frame more than a window: with windows, it would take three times as long."""
    windows = ClipWindows().in_frames(FrontEnd(mel=AUDIOSET_MEL))
    assert windows == FrameWindows(150, 75, 0.5)
    assert windows.starts(151) == windows.starts(200) == []
    assert windows.starts(500) == [0, 75, 150, 225, 300, 350]


def test_images_have_no_windows():
    front_end = FrontEnd(mel=AUDIOSET_MEL, image=ImageConfig(height=224, width=224))
    assert ClipWindows().in_frames(front_end) is None


def test_a_short_sound_raises_its_label_and_none_lowers_a_label():
    whole, windows = np.array([-2.0, 1.0]), np.array([[4.0, -1.0], [-3.0, 0.0]])
    np.testing.assert_array_equal(FrameWindows(150, 75, 0.5).pool(whole, windows), [1.0, 1.0])
    np.testing.assert_array_equal(FrameWindows(150, 75, 0.25).pool(whole, windows), [-0.5, 1.0])
    np.testing.assert_array_equal(FrameWindows(150, 75, 0.5).pool(whole, np.empty((0, 2))), whole)
    np.testing.assert_array_equal(FrameWindows(150, 75, 0.5, n_labels=1).pool(whole, windows), [1.0, whole[1]])


def test_weight_is_a_fraction():
    with pytest.raises(ValidationError, match="weight"):
        ClipWindows(weight=1.5)
