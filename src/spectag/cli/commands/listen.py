"""spectag listen."""

import json
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from io import BufferedIOBase
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import CycloptsError, Parameter

from spectag.cli.options import Count, DeviceOption, Flag, Json
from spectag.cli.terminal import print_json, progress_display
from spectag.config.listening import Encoding, ListenSettings
from spectag.system.streams import is_missing

if TYPE_CHECKING:
    from spectag.tagging.listening import LabelEvent


def listen_command(
    model: str | None = None,
    /,
    *,
    stdin: Annotated[bool, Parameter(name="-", negative="", show_default=False)] = False,
    settings: Annotated[ListenSettings | None, Parameter(name="*")] = None,
    rate: Count | None = None,
    channels: Count | None = None,
    channel: Count | Literal["mix"] | None = None,
    encoding: Encoding | None = None,
    microphone: str | None = None,
    list_microphones: Flag = False,
    device: DeviceOption = "auto",
    json_output: Json = False,
) -> None:
    """Tag live sound from a microphone or stdin.

    Prints the onset and the offset of each label.

    Parameters
    ----------
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    stdin
        Read raw sound that another program writes to stdin. By default a microphone is recorded.
    rate
        Sample rate in Hz. By default that of the microphone; for stdin, that of the model.
    channels
        Number of channels. By default 1.
    channel
        Use their mean (mix), or the channel with this number, from 1. By default as in training, if there are so many
        channels, and mix for a model that was trained on the loudest channel.
    encoding
        Sample format of stdin, by its ffmpeg name. By default s16le.
    microphone
        Its number, or a part of its name. By default the default microphone of the system.
    list_microphones
        List the microphones of this machine.
    device
        Where the networks run. auto takes cuda or directml if it is installed and works, otherwise the CPU.
    json_output
        Print JSON Lines.
    """
    if list_microphones:
        _print_microphones(as_json=json_output)
        return
    if model is None:
        raise CycloptsError(msg="spectag listen needs MODEL; see spectag listen --help")
    _check_usage(stdin=stdin, rate=rate, encoding=encoding, microphone=microphone)
    from spectag.audio.live_stream import LiveStream, read_raw
    from spectag.audio.microphone import open_microphone
    from spectag.models.pretrained import load
    from spectag.tagging.listening import listen, stopped_by_signals

    with progress_display() as (progress, log):
        tagger = load(model, device=device, progress=progress, log=log)
    opened: AbstractContextManager[LiveStream]
    n_channels = channels or 1
    number = _channel_number(channel, tagger.channel, n_channels)
    if stdin:
        raw = sys.stdin.buffer
        assert isinstance(raw, BufferedIOBase)
        rate, encoding = rate or tagger.sample_rates[0], encoding or "s16le"
        opened = nullcontext(
            read_raw(raw, sample_rate=rate, n_channels=n_channels, channel=number, encoding=encoding, log=_print_log)
        )
    else:
        opened = open_microphone(microphone, sample_rate=rate, n_channels=n_channels, channel=number, log=_print_log)
    n_events = 0
    with opened as source, stopped_by_signals(source) as stream:
        _print_log(f"listening to {source.name} at {source.sample_rate:,} Hz; press Ctrl-C to stop")
        if not json_output:
            _print_log("time, on or off, probability, latency, label")
        for event in listen(tagger, stream, settings, log=_print_log):
            print(_json_line(event) if json_output else _text_line(event), flush=True)
            n_events += 1
    if n_events == 0:
        _print_log("no label detected: none reached its threshold; set a lower one with --min-confidence")


def _channel_number(channel: int | str | None, trained_on: int | str, n_channels: int) -> int | None:
    """The channel to use, counted from 1; None: the mean."""
    if isinstance(channel, int) and channel > n_channels:
        raise CycloptsError(msg=f"--channel {channel}: there are {n_channels} channels; add --channels {channel}")
    number = trained_on if channel is None else channel
    return number if isinstance(number, int) and number <= n_channels else None


def _check_usage(*, stdin: bool, rate: int | None, encoding: Encoding | None, microphone: str | None) -> None:
    """Raise a CycloptsError if two arguments exclude each other, or stdin is not a pipe."""
    if not stdin:
        if encoding is not None:
            raise CycloptsError(msg=f"--encoding {encoding} is for raw sound on stdin; add - to read it")
        return
    if microphone is not None:
        raise CycloptsError(msg=f"--microphone {microphone} is recorded, and - reads stdin; leave one out")
    if is_missing("stdin") or sys.stdin.isatty():
        from spectag.audio.live_stream import ffmpeg_command

        example = ffmpeg_command(rate or 32_000)
        raise CycloptsError(msg=f"- reads raw sound that another program writes to stdin; for example: {example}")


def _text_line(event: "LabelEvent") -> str:
    minutes, seconds = divmod(event.time_seconds, 60)
    clock = f"{int(minutes) // 60}:{int(minutes) % 60:02}:{seconds:05.2f}"
    latency = f"{1000 * event.latency_seconds:,.0f} ms"
    return f"{clock}  {'on ' if event.is_onset else 'off'}  {event.probability:.2f}  {latency:>7}  {event.label}"


def _json_line(event: "LabelEvent") -> str:
    record = {
        "time": round(event.time_seconds, 3),
        "label": event.label,
        "on": event.is_onset,
        "probability": round(event.probability, 6),
        "latency_seconds": round(event.latency_seconds, 4),
    }
    return json.dumps(record, ensure_ascii=False)


def _print_microphones(*, as_json: bool) -> None:
    from spectag.audio.microphone import microphones

    devices = microphones()
    if as_json:
        print_json([asdict(device) for device in devices])
        return
    if not devices:
        _print_log("this machine has no microphone")
    for device in devices:
        mark = "*" if device.is_default else " "
        print(f"{mark} {device.number:3}  {device.name}  ({device.n_channels} channels, {device.sample_rate:,} Hz)")


def _print_log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
