"""Live tagging over a WebSocket: a client sends raw samples, the server sends the onsets and offsets of labels."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from spectag.audio.channels import one_channel
from spectag.audio.live_stream import Block, LiveStream, decode_pcm
from spectag.config.base import parse_config
from spectag.config.listening import Encoding, ListenSettings
from spectag.errors import AudioError, ConfigError, SpectagError
from spectag.models.tagger import Tagger
from spectag.serving.schemas import LiveQuery
from spectag.tagging.listening import LabelEvent, listen

_MAX_QUEUED = 8  # messages that wait to be tagged; then the client has to wait
_MAX_MESSAGE_SECONDS = 10.0
_MAX_IDLE_SECONDS = 60.0  # without a message
_MAX_REASON_BYTES = 120
_N_BYTES: dict[str, int] = {"s16le": 2, "s24le": 3, "s32le": 4, "f32le": 4}
_BAD_DATA, _POLICY, _TRY_LATER = 1003, 1008, 1013  # status of a closed WebSocket

_Message = tuple[bytes, float] | None
_Messages = asyncio.Queue[_Message]
ResultT = TypeVar("ResultT")


class StreamQuery(LiveQuery):  # type: ignore[misc, valid-type]
    """What a client says about its samples, and the settings of `spectag listen`."""

    sample_rate: int = Field(ge=100, le=384_000)
    channels: int = Field(1, ge=1, le=32)
    encoding: Encoding = "s16le"


def event_record(event: LabelEvent) -> dict[str, Any]:
    """An event as `spectag listen --json` prints it."""
    return {
        "time": round(event.time_seconds, 3),
        "label": event.label,
        "on": event.is_onset,
        "probability": round(event.probability, 6),
        "latency_seconds": round(event.latency_seconds, 4),
    }


class LiveStreams:
    """Serves live streams.

    Parameters
    ----------
    tagger : Tagger
    max_live : int
        Streams at the same time.
    max_minutes : float
        Longest stream.
    """

    def __init__(self, tagger: Tagger, max_live: int, max_minutes: float) -> None:
        self._tagger, self._max_live, self._max_minutes = tagger, max_live, max_minutes
        self._threads = ThreadPoolExecutor(max(1, max_live), "spectag live")
        self.n_live = 0
        """Streams that are being tagged."""

    async def serve(self, socket: WebSocket) -> None:
        """Tag the samples that a client sends until it closes the connection."""
        await socket.accept()
        if self.n_live >= self._max_live:
            await socket.close(_TRY_LATER, f"{self.n_live} streams are being tagged already; try again later")
            return
        try:
            query = parse_config(dict(socket.query_params), StreamQuery, source="the parameters")
            options = query.model_dump(include={*LiveQuery.model_fields}, exclude_none=True)
            settings = parse_config(options, ListenSettings, source="the parameters")
        except ConfigError as error:
            await socket.close(_POLICY, _reason(error))
            return
        self.n_live += 1
        try:
            end = await self._tag(socket, query, settings)
        finally:
            self.n_live -= 1
        if socket.client_state is WebSocketState.CONNECTED and socket.application_state is WebSocketState.CONNECTED:
            await socket.close(end.status, end.reason)

    async def _tag(self, socket: WebSocket, query: StreamQuery, settings: ListenSettings) -> "_End":
        """Tag a stream in a thread. Returns why it ended."""
        messages: _Messages = asyncio.Queue(_MAX_QUEUED)
        reader = asyncio.create_task(_receive(socket, messages, query, self._max_minutes))
        loop = asyncio.get_running_loop()

        def in_loop(coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
            return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

        def tag() -> None:
            stream = LiveStream(
                "stream", query.sample_rate, _blocks(lambda: in_loop(messages.get()), query), waits=True
            )
            for event in listen(self._tagger, stream, settings):
                in_loop(socket.send_json(event_record(event)))

        try:
            await loop.run_in_executor(self._threads, tag)
        except AudioError as error:
            return _End(_BAD_DATA, _reason(error))
        except (WebSocketDisconnect, RuntimeError, OSError):  # the client has left
            return _End()
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader
            _end(messages)
        return reader.result()


class _End(NamedTuple):
    """Why a stream ended: the status and the reason of the closed connection."""

    status: int = 1000
    reason: str = ""


def _reason(error: SpectagError) -> str:
    return str(error).encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


def _end(messages: _Messages) -> None:
    """Let a thread that still waits for messages end: those that wait are not tagged any more."""
    while not messages.empty():
        messages.get_nowait()
    messages.put_nowait(None)


async def _receive(socket: WebSocket, messages: _Messages, query: StreamQuery, max_minutes: float) -> _End:
    """Put the messages of a client into a queue with their times, and None at their end. Returns why they ended."""
    try:
        end = await _receive_samples(socket, messages, query, max_minutes)
    except (RuntimeError, OSError):  # the client has left
        end = _End()
    await messages.put(None)
    return end


async def _receive_samples(socket: WebSocket, messages: _Messages, query: StreamQuery, max_minutes: float) -> _End:
    frame = _N_BYTES[query.encoding] * query.channels
    most = frame * round(_MAX_MESSAGE_SECONDS * query.sample_rate)
    end_time = time.monotonic() + 60 * max_minutes
    while True:
        if time.monotonic() > end_time:
            return _End(_POLICY, f"the stream is longer than {max_minutes:g} minutes")
        try:
            async with asyncio.timeout(_MAX_IDLE_SECONDS):  # wait_for may swallow that the task is cancelled
                message = await socket.receive()
        except TimeoutError:
            return _End(_POLICY, f"no samples for {_MAX_IDLE_SECONDS:g} s")
        data = message.get("bytes")
        if message["type"] == "websocket.disconnect" or message.get("text") == "end":
            return _End()
        if data is None:
            return _End(_BAD_DATA, 'expected raw samples as binary messages, or the text "end"')
        if len(data) % frame or len(data) > most:
            why = f"expected messages of whole samples ({frame} bytes each), up to {_MAX_MESSAGE_SECONDS:g} s"
            return _End(_BAD_DATA, why)
        if data:
            await messages.put((data, time.monotonic()))


def _blocks(next_message: Callable[[], _Message], query: StreamQuery) -> Iterator[Block]:
    """The samples of the messages, up to their end."""
    while (message := next_message()) is not None:
        data, seconds = message
        samples = decode_pcm(data, query.encoding).reshape(-1, query.channels)
        if not np.isfinite(samples).all():
            raise AudioError("the stream has samples that are not finite")
        yield Block(one_channel(samples, None), seconds)
