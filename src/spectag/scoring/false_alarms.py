"""False alarms per hour, in recordings without any of the labels."""

import math
import re

from pydantic import Field
from scipy.special import chdtri

from spectag.array_types import IntArray
from spectag.config.base import Config
from spectag.errors import ConfigError

_HOURS = {
    "min": 1 / 60,
    "minute": 1 / 60,
    "h": 1.0,
    "hour": 1.0,
    "d": 24.0,
    "day": 24.0,
    "week": 168.0,
}
_RATE = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?)\s*/\s*([a-z]+)\s*")


class AlarmRate(Config):
    """How many false alarms of a label are accepted."""

    per_hour: float = Field(gt=0, le=1e6)
    text: str
    """As it was written."""
    confidence: float = Field(0.9, gt=0, lt=1)
    """How sure it is that the true rate is not higher, if false alarms are independent."""

    @classmethod
    def parse(cls, text: str, confidence: float = 0.9) -> "AlarmRate":
        """Read 1/h, 0.5/hour, 5/day or 2/week.

        Raises
        ------
        ConfigError
            If it is none of these.

        Examples
        --------
        >>> AlarmRate.parse("12/day").per_hour
        0.5
        """
        found = _RATE.fullmatch(text)
        unit = "" if found is None else found[2].removesuffix("s") or found[2]
        if found is None or unit not in _HOURS:
            raise ConfigError(
                f"--false-alarms {text}: expected a number for a time, such as 1/h, 0.5/h, 5/day or 2/week (units: "
                "min, h, day, week)"
            )
        per_hour = float(found[1]) / _HOURS[unit]
        if not 0 < per_hour <= 1e6:
            raise ConfigError(f"--false-alarms {text}: no finite recording can show this; expected a rate such as 1/h")
        return cls(per_hour=per_hour, text=text.strip(), confidence=confidence)

    @property
    def hours_needed(self) -> float:
        """Hours of background without a single alarm that show this rate; at 95 % confidence, 3 divided by it."""
        return -math.log(1 - self.confidence) / self.per_hour

    def lowest_index(self, n_alarms: IntArray, hours: float) -> int | None:
        """Which threshold is the lowest one that has no more alarms; None: none of them.

        They are tested from the highest down, until one fails (fixed-sequence testing), so that the choice among many
        does not reduce the confidence.

        Parameters
        ----------
        n_alarms : int array of shape (n_thresholds,)
            In the background, at each threshold, from the lowest to the highest.
        hours : float
            Length of the background.
        """
        chosen = None
        for index in range(len(n_alarms) - 1, -1, -1):
            if rate_bound(int(n_alarms[index]), hours, self.confidence) > self.per_hour:
                break
            chosen = index
        return chosen


def rate_bound(n_alarms: int, hours: float, confidence: float) -> float:
    """The rate in alarms per hour that is not exceeded with this confidence (Garwood 1936).

    Examples
    --------
    >>> round(rate_bound(0, 1.0, 0.95), 2)  # the rule of three
    3.0
    """
    return float(chdtri(2 * (n_alarms + 1), 1 - confidence)) / 2 / hours
