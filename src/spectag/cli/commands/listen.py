"""spectag listen."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BufferedIOBase
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import CycloptsError, Parameter
from cyclopts.validators import Number

from spectag.cli.options import Json
from spectag.cli.terminal import shown_work
from spectag.config.listening import Encoding, ListenSettings

if TYPE_CHECKING:
    from spectag.audio.live_stream import Block, LiveSound
    from spectag.models.tagger import Tagger
    from spectag.tagging.listening import LabelEvent

_COLUMNS = "time in the sound, on or off, probability, latency, label"

Count = Annotated[int | None, Parameter(validator=Number(gte=1))]


def listen_command(
    model: str | None = None,
    /,
    *,
    stdin: Annotated[bool, Parameter(name="-", negative="", show_default=False)] = False,
    settings: Annotated[ListenSettings | None, Parameter(name="*")] = None,
    rate: Count = None,
    channels: Count = None,
    encoding: Encoding | None = None,
    device: str | None = None,
    list_devices: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    json_output: Json = False,
) -> None:
    """Tell when labels go on and off in what a microphone hears, or in raw sound on stdin.

    Parameters
    ----------
    model
        Folder of a tagger that spectag train made, or the name of a published one: see spectag models.
    stdin
        Hear raw sound that another program writes to stdin. By default a microphone is heard.
    rate
        Samples a second. By default the microphone's own; on stdin, what the tagger hears at.
    channels
        How many there are, whose mean is heard. By default 1.
    encoding
        How the samples on stdin are written, by ffmpeg's names. By default s16le.
    device
        The microphone: its number, or a part of its name. By default the system's own choice.
    list_devices
        Show the microphones that are here.
    json_output
        Print JSON lines.
    """
    if list_devices:
        _print_microphones(as_json=json_output)
        return
    if model is None:
        raise CycloptsError(msg="spectag listen needs MODEL; see spectag listen --help")
    from spectag.audio.live_stream import ffmpeg_line
    from spectag.models.pretrained import tagger_folder
    from spectag.models.tagger import Tagger
    from spectag.tagging.listening import listen

    if stdin:
        _check_stdin(device, ffmpeg_line(rate or 32_000))
    elif encoding is not None:
        raise CycloptsError(msg=f"--encoding {encoding} is that of raw sound on stdin; give - with it")
    with shown_work() as (progress, log):
        tagger = Tagger(tagger_folder(model, progress=progress, log=log))
    is_silent = True
    with (
        _opened(tagger, rate, channels or 1, encoding, device, is_raw=stdin) as sound,
        _ended_by_signals(sound) as heard,
    ):
        _log(f"listening to {sound.name} at {sound.sample_rate:,} Hz; Ctrl-C ends")
        if not json_output:
            _log(_COLUMNS)
        for change in listen(tagger, heard, settings, log=_log):
            print(_record(change) if json_output else _line(change), flush=True)
            is_silent = False
    if is_silent:
        _log("nothing heard: no label reached its threshold; --min-confidence sets another")


def _check_stdin(device: str | None, example: str) -> None:
    if device is not None:
        raise CycloptsError(msg=f"--device {device} is a microphone, and - is stdin; leave one out")
    if sys.stdin is None or sys.stdin.isatty():
        raise CycloptsError(msg=f"- hears raw sound that another program writes to stdin; for example: {example}")


@contextmanager
def _opened(
    tagger: "Tagger", rate: int | None, channels: int, encoding: Encoding | None, device: str | None, *, is_raw: bool
) -> Iterator["LiveSound"]:
    """The sound to listen to."""
    if is_raw:
        from spectag.audio.live_stream import read_raw

        stream = sys.stdin.buffer
        assert isinstance(stream, BufferedIOBase)
        rate = rate or tagger.sample_rates[0]
        yield read_raw(stream, sample_rate=rate, n_channels=channels, encoding=encoding or "s16le", log=_log)
    else:
        from spectag.audio.microphone import open_microphone

        with open_microphone(device, sample_rate=rate, n_channels=channels, log=_log) as sound:
            yield sound


@contextmanager
def _ended_by_signals(sound: "LiveSound") -> Iterator["LiveSound"]:
    """The same sound, which Ctrl-C or SIGTERM ends: between two blocks, so nothing is torn apart."""
    is_ended = is_waiting = False

    def end(_signal: int, _frame: Any) -> None:
        nonlocal is_ended
        is_pressed_again, is_ended = is_ended, True
        if is_waiting or is_pressed_again:
            raise KeyboardInterrupt

    def blocks() -> "Iterator[Block]":
        nonlocal is_waiting
        try:
            while True:
                is_waiting = True
                block = None if is_ended else next(sound.blocks, None)
                is_waiting = False
                if block is None:
                    return
                yield block
        except KeyboardInterrupt:
            return

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield replace(sound, blocks=blocks())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(change: "LabelEvent") -> str:
    minutes, seconds = divmod(change.time_seconds, 60)
    clock = f"{int(minutes) // 60}:{int(minutes) % 60:02}:{seconds:05.2f}"
    latency = f"{1000 * change.latency_seconds:,.0f} ms"
    return f"{clock}  {'on ' if change.is_on else 'off'}  {change.probability:.2f}  {latency:>7}  {change.label}"


def _record(change: "LabelEvent") -> str:
    """The same as JSON."""
    record = {
        "time": round(change.time_seconds, 3),
        "label": change.label,
        "on": change.is_on,
        "probability": round(change.probability, 6),
        "latency_seconds": round(change.latency_seconds, 4),
    }
    return json.dumps(record, ensure_ascii=False)


def _print_microphones(*, as_json: bool) -> None:
    from spectag.audio.microphone import microphones

    found = microphones()
    if as_json:
        print(json.dumps([microphone.to_dict() for microphone in found], indent=2, ensure_ascii=False))
        return
    if not found:
        _log("no microphone is here")
    for one in found:
        mark = "*" if one.is_default else " "
        print(f"{mark} {one.number:3}  {one.name}  ({one.n_channels} channels, {one.sample_rate:,} Hz)")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
