"""HTTP connections with limits that uvicorn does not have: their number, and the time for the head of a request.

A client that sends its request a byte at a time, sends none, or does not read its answer would keep a connection for
ever. None of this needs the token, because it comes before the guard.
"""

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from spectag.serving.problems import problem_response

_MAX_CONNECTIONS = 500
_HEAD_SECONDS = 10.0  # from the first byte, or from the connection, to the end of the headers
_READ_SECONDS = 120.0  # for a client to read the next part of its answer


class LimitedProtocol(H11Protocol):
    """A connection that is closed when the head of a request, or the reading of an answer, takes too long."""

    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse a connection above the limit (503)."""
        super().connection_made(transport)
        if len(self.connections) > _MAX_CONNECTIONS:
            detail = f"{_MAX_CONNECTIONS} connections are open already; try again later"
            transport.write(_raw_answer(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": "1"}))
            transport.close()
        else:
            self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        if self.cycle is None or self.cycle.response_complete:
            self._stop_read_timer()  # a client that sends its next request has read the answer
        super().data_received(data)
        if self.transport.get_protocol() is not self:
            return  # it is a WebSocket now
        if self.transport.is_closing() or (self.cycle is not None and not self.cycle.response_complete):
            self._stop_head_timer()
        else:  # a part of a head, or what is left of a body after its answer
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_head_timer()
        self._stop_read_timer()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        """Hand the connection on."""
        self._stop_head_timer()
        super().handle_websocket_upgrade(event)

    def pause_writing(self) -> None:
        """Give the client time to read what has been sent of an answer, before more of it is sent."""
        super().pause_writing()
        self._start_read_timer()

    def resume_writing(self) -> None:
        """Send more of an answer."""
        super().resume_writing()
        self._stop_read_timer()

    def on_response_complete(self) -> None:
        """Give the client time to read the end of the answer."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._start_read_timer()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self.transport.write(_raw_answer(HTTPStatus.BAD_REQUEST, msg))
        self.transport.close()

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self._end_slow_head)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_slow_head(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            detail = f"the request took longer than {_HEAD_SECONDS:g} s"
            self.transport.write(_raw_answer(HTTPStatus.REQUEST_TIMEOUT, detail))
            self.transport.close()

    def _start_read_timer(self) -> None:
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(_READ_SECONDS, self._end_slow_reader)

    def _stop_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _end_slow_reader(self) -> None:
        self._read_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()


def _raw_answer(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> bytes:
    """A problem as the bytes of an HTTP answer, after which the connection is closed."""
    response = problem_response(status, detail, {"Connection": "close", **(headers or {})})
    lines = [f"HTTP/1.1 {int(status)} {status.phrase}".encode(), *(b": ".join(pair) for pair in response.raw_headers)]
    return b"\r\n".join([*lines, b"", bytes(response.body)])
