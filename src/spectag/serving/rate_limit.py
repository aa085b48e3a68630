"""How many requests each client may send in a minute."""

import math
import time
from collections import OrderedDict
from http import HTTPStatus

from spectag.serving.problems import ProblemError

_MINUTE = 60.0
_MAX_CLIENTS = 10_000  # that are remembered, those that asked last


class RateLimit:
    """Refuses the requests of a client beyond a number in a minute, by a token bucket.

    Parameters
    ----------
    per_minute : int or None
        None: any number.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # requests left, and since when

    def check(self, client: str, now: float | None = None) -> None:
        """Count a request. A ProblemError (429) if the client has sent too many."""
        if self._per_minute is None:
            return
        now = time.monotonic() if now is None else now
        per_second = self._per_minute / _MINUTE
        left, since = self._buckets.pop(client, (float(self._per_minute), now))
        left = min(float(self._per_minute), left + (now - since) * per_second)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        if left < 1:
            seconds = math.ceil((1 - left) / per_second)
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"more than {self._per_minute:,} requests in a minute; try again in {seconds} s",
                {"Retry-After": str(seconds)},
            )
