"""Numbers for Prometheus: requests by path and status, their time, and the state of the workers."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_KNOWN = frozenset({"/v1/tag", "/v1/segments", "/v1/embed", "/v1/search", "/v1/labels", "/v1/model"})


class Metrics:
    """Counts the requests that pass through it.

    Parameters
    ----------
    app : ASGI application
    gauges : dict of str to callable
        Further numbers, by the words that describe them.
    """

    def __init__(self, gauges: dict[tuple[str, str], Callable[[], float]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "spectag_requests", "Requests by path and status.", ("path", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "spectag_request_seconds", "Time of requests by path.", ("path",), registry=self._registry
        )
        for (name, description), function in gauges.items():
            Gauge(f"spectag_{name}", description, registry=self._registry).set_function(function)

    def text(self) -> bytes:
        """The numbers in Prometheus's format."""
        return generate_latest(self._registry)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, with its requests counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            path = scope["path"] if scope["path"] in _KNOWN else "other"  # a client may ask for any number of paths
            status, begin = 500, time.perf_counter()

            async def send_noting_status(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, send_noting_status)
            finally:
                self._requests.labels(path, str(status)).inc()
                self._seconds.labels(path).observe(time.perf_counter() - begin)

        return counted
