import pytest
from pydantic import ValidationError

from spectag.config.base import MelConfig
from spectag.models.frames_info import FramesInfo


def test_frames_of_the_published_networks_are_80_ms_long() -> None:
    assert FramesInfo().frame_seconds(MelConfig(sample_rate=32_000, hop_length=320)) == pytest.approx(0.08)


@pytest.mark.parametrize(
    "values",
    [{"block": 128}, {"block": 1_020}, {"context": 4}, {"hop_length": 7}, {"closed_frames": 2}, {"block": 10**9}],
)
def test_frames_that_do_not_fit_their_blocks_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        FramesInfo.model_validate(values)
