"""The entry point of the command: streams and signals first, then the command line.

The command line itself is imported inside `main`, so that Ctrl-C during the imports is reported like any other.
"""

import gc
import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from spectag.errors import SpectagError
from spectag.system.garbage import GARBAGE_THRESHOLD
from spectag.system.stop_signals import Stopped, die_silently, is_one_of_several, stop_signals
from spectag.system.streams import (
    drop_output,
    lost_output,
    mute_libraries,
    prepare_streams,
    restart_with_utf8,
    with_own_streams,
)

_FAILED = 1
_WRITE_FILES = {"demo", "download", "prepare", "calibrate", "show", "explain"}  # commands, also without -o
_STOPPED = "stopped; no half-written file is left; you can run the same command again"
_LOST = "stdout is closed, so the results are lost; open it, or write them to a file with -o"
_NO_FOLDER = "the current folder was deleted; change to another one, and run the command again"
_OUT_OF_MEMORY = "out of memory; use fewer --workers, shorter recordings, or a machine with more memory"
_NO_THREADS = "the system allows no more threads or processes; use fewer --workers, or raise the limit (ulimit -u)"
_SCARCE = {  # words of errors that Python and torch raise if the system has too little of something
    "can't start new thread": _NO_THREADS,
    "failed to map segment": _OUT_OF_MEMORY,
    "can't allocate memory": _OUT_OF_MEMORY,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : list of str, optional
        By default those of the process, which then ends.
    """
    if arguments is None:
        restart_with_utf8()
        gc.set_threshold(GARBAGE_THRESHOLD)
        _quieten_libraries()
    prepare_streams()
    try:
        with stop_signals():
            status = _run(list(map(with_own_streams, sys.argv[1:]) if arguments is None else arguments))
    except Stopped as stop:
        status = _fail(_STOPPED, stop.exit_status)
    except KeyboardInterrupt:  # not from our handler, as in one of several training processes
        status = _fail(_STOPPED, 130)
    if arguments is None:
        die_silently()
        gc.freeze()  # otherwise the exit looks through all objects again, which takes longer than tagging a clip
    return status


def _run(tokens: list[str]) -> int:
    """The exit status of a command; what is foreseen to go wrong is one line on stderr."""
    try:
        from spectag.cli.app import run
        from spectag.system.threads import use_few_threads_if_needed

        use_few_threads_if_needed()
        status = run(tokens)
        sys.stdout.flush()
    except SpectagError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        drop_output()
        return _FAILED
    except OSError as error:  # such as a full disk
        drop_output()
        return _fail(_reason(error))
    except MemoryError:
        return _fail(_OUT_OF_MEMORY)
    except (RuntimeError, ImportError) as error:
        reasons = [reason for words, reason in _SCARCE.items() if words in str(error)]
        if not reasons:
            raise
        return _fail(reasons[0])
    return _fail(_LOST) if status == 0 and lost_output() and not _writes_files(tokens) else status


def _reason(error: OSError) -> str:
    """What happened to which file. Errors without a name are of stdout, or of the current folder if it is gone."""
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return f"a file is missing: {error.strerror or error}" if _has_current_folder() else _NO_FOLDER
    return f"{error.filename or 'output'}: {error.strerror or error}"


def _has_current_folder() -> bool:
    try:
        return Path.cwd().is_dir()
    except OSError:
        return False


def _writes_files(tokens: list[str]) -> bool:
    """Whether a command has other results than those on stdout."""
    return not _WRITE_FILES.isdisjoint(tokens[:2]) or any(token.startswith(("-o", "--output")) for token in tokens)


def _quieten_libraries() -> None:
    """Print warnings of spectag in one line, and those of other packages only if the user has asked for warnings."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home folder that cannot be written

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if Path(filename).is_relative_to(Path(__file__).parent.parent):
            print("WARNING:", " ".join(str(message).split()), file=sys.stderr)

    if not sys.warnoptions:
        warnings.showwarning = show
        if not is_one_of_several():  # NCCL and Gloo say there which process or network failed
            mute_libraries()


def _fail(message: str, status: int = _FAILED) -> int:
    print("spectag:", " ".join(message.splitlines()), file=sys.stderr)
    return status
