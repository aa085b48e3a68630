"""The standard streams of the process: missing ones replaced, and messages that never end a run."""

import codecs
import io
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_MISSING: set[str] = set()
_NAME_OF_STREAM = re.compile(r"(-o|--[a-z-]+=)?(/dev/std(?:out|err)|(?:/dev/fd|/proc/self/fd)/[12])")


class _LossyFile(io.FileIO):
    """A file whose write errors are ignored, such as those of a full disk or a pipe without a reader."""

    def write(self, data: "ReadableBuffer") -> int:
        try:
            n_written = super().write(data)
        except OSError:
            n_written = None
        return memoryview(data).nbytes if n_written is None else n_written  # None: a full pipe that does not wait


class _MissingOutput(io.TextIOWrapper):
    """Stands for a stdout that a launcher has closed. It knows whether anything was lost."""

    is_used = False

    def write(self, text: str) -> int:
        self.is_used = True
        return super().write(text)


def prepare_streams() -> None:
    """Make the standard streams usable, however the process was started.

    - Streams that a launcher has closed are connected to the null device. Otherwise the next file that is opened, such
      as a table, would get the number of the stream, and so all messages.
    - Messages to stderr are lost if they cannot be written.
    - stdout shows characters that its encoding does not have as \\u2603, and undecodable bytes of names as \\udcff.

    Streams that are not those of the process, as in a notebook, stay as they are.
    """
    _replace_missing_streams()
    if sys.stderr is sys.__stderr__ and isinstance(sys.stderr, io.TextIOWrapper):
        with suppress(OSError, ValueError):
            raw = io.BufferedWriter(_LossyFile(sys.stderr.fileno(), "w", closefd=False))
            sys.stderr = io.TextIOWrapper(raw, sys.stderr.encoding, "backslashreplace", line_buffering=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
        with suppress(OSError, ValueError):
            os.set_blocking(sys.stdout.fileno(), True)  # some launchers pass pipes that do not wait for their reader


def mute_libraries() -> None:
    """Drop what C libraries write to stdout and stderr, also in child processes. Call it before `prepare_streams`.

    libmpg123 writes several lines to stderr for each damaged frame of an mp3, and libsndfile writes to stdout, between
    the results, about a damaged file of a MIDI sampler. Neither can be turned off. `sys.stdout` and `sys.stderr` still
    write to where they did, and `with_own_streams` names it.
    """
    _replace_missing_streams()  # else a copy of another stream would get their number
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or name in _MISSING:
            continue
        with suppress(OSError):
            own = io.BufferedWriter(io.FileIO(os.dup(stream.fileno()), "w"))
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            is_by_line = stream.line_buffering or stream.write_through
            stream = io.TextIOWrapper(own, stream.encoding, stream.errors, line_buffering=is_by_line)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def with_own_streams(word: str) -> str:
    """A word of the command line such as /dev/stdout, with the number that stdout or stderr now has.

    After `mute_libraries`, /dev/stdout would be the null device. All other words stay as they are.
    """
    match = _NAME_OF_STREAM.fullmatch(word)
    if match is None:
        return word
    option, path = match.groups(default="")
    stream = sys.stdout if path.endswith(("out", "1")) else sys.stderr
    try:
        return f"{option}/dev/fd/{stream.fileno()}"
    except (OSError, ValueError):  # a stream that is not one of the process has no number
        return word


def restart_with_utf8() -> None:
    """Start this program again with names of files in UTF-8, if Python takes them to be ASCII.

    Python does so in the locale C if the environment forbids UTF-8 (PYTHONUTF8=0). Then no other name could be opened.
    """
    if os.name == "posix" and sys.executable and codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # nosec B606 - this program again


def is_missing(name: str) -> bool:
    """Whether the process was started without this stream: stdin, stdout or stderr."""
    return name in _MISSING


def lost_output() -> bool:
    """Whether something was written to stdout, although the process was started without it."""
    return isinstance(sys.stdout, _MissingOutput) and sys.stdout.is_used


def drop_output() -> None:
    """After an error, write what is not written to stdout yet, or forget it: Python would try again at its exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):  # a stream that is not one of the process has no number
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)


def _replace_missing_streams() -> None:
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, _null_stream(mode))
            _MISSING.add(name)


def _null_stream(mode: str) -> io.TextIOWrapper:
    """The null device, open until the process ends, also for child processes."""
    null = Path(os.devnull).open(f"{mode}b")  # noqa: SIM115
    os.set_inheritable(null.fileno(), True)
    return _MissingOutput(null, "utf-8") if mode == "w" else io.TextIOWrapper(null, "utf-8")
