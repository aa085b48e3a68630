"""Results print as at most three lines, however much is in them."""

import dataclasses

import numpy as np
import pytest

from spectag.models.timeline import Timeline
from spectag.system.short_texts import MAX_CHARACTERS, short_repr


@short_repr
@dataclasses.dataclass(frozen=True)
class Result:
    values: object
    skipped: tuple[str, ...] = ()
    note: str | None = None
    hidden: int = dataclasses.field(default=0, repr=False)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (Result(np.zeros((7, 2))), "Result(values=<float64 (7, 2)>, skipped=())"),
        (Result(1, tuple("abcd"), "note"), "Result(values=1, skipped=<4 items>, note='note')"),
        (Result({"a": 1}, ("b",)), "Result(values={'a': 1}, skipped=('b',))"),
        (Result("x\n y"), "Result(values='x\\n y', skipped=())"),
    ],
)
def test_fields_are_short(result, text):
    assert repr(result) == text


def test_text_is_never_longer_than_three_lines():
    fields = [(f"field_{number}", str) for number in range(50)]
    many = short_repr(dataclasses.make_dataclass("Many", fields))(*["x" * 100] * 50)
    assert len(repr(many)) == MAX_CHARACTERS
    assert repr(many).startswith("Many(field_0='xxx")
    assert "\n" not in repr(many)


def test_timeline_of_a_day_is_short():
    day = Timeline(np.arange(86_400.0), np.arange(86_400.0) + 1, np.zeros((86_400, 3), np.float32))
    expected = "starts=<float64 (86400,)>, ends=<float64 (86400,)>, probabilities=<float32 (86400, 3)>"
    assert repr(day) == f"Timeline({expected})"
