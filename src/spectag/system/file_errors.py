"""What an error says about the file that was being processed, in runs over many files."""

import errno
import logging
import os
import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from spectag.errors import AudioError, DataError, MissingExtraError, SpectagError

_OF_ONE_FILE = (AudioError, DataError, MissingExtraError)
_OF_THE_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Full disk, too many open files, no memory: the next file would fail, too."""
_MAX_SIBLINGS = 10_000
"""Files of a folder to compare with a missing one."""
_logger = logging.getLogger("spectag")


def similar_file(path: Path) -> str:
    """For the end of an error message about a missing file: "; did you mean 'bark.wav'?", or ""."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, _MAX_SIBLINGS)]
    except OSError:
        return ""
    by_suffix = sorted(names, key=lambda name: Path(name).suffix == path.suffix)  # those with the same suffix count
    stems = {Path(name).stem.casefold(): name for name in by_suffix}
    closest = get_close_matches(path.stem.casefold(), stems, n=1)
    return f"; did you mean {stems[closest[0]]!r}?" if closest else ""


def path_with_spaces(words: Sequence[str]) -> str | None:
    """The path of a file or folder that is these words, or the first of them, with spaces between; None if none is."""
    joined = (" ".join(words[:n_words]) for n_words in range(2, len(words) + 1))
    return next((path for path in joined if Path(path).exists()), None)


def reason_of(error: OSError) -> str:
    """What went wrong, without the names of files. `shutil` joins the errors of many files: the first one counts."""
    if isinstance(error, shutil.Error) and error.args and error.args[0]:
        return str(error.args[0][0][2]).partition(": ")[0]
    return error.strerror or str(error)


def skip_reason(file: str | Path, error: Exception) -> str:
    """Why a run leaves out a file, in one line. Call it where an exception of one file is caught.

    An exception that nobody expected is logged with its traceback (logger `spectag`, level INFO), so that one file
    does not end the run.

    Raises
    ------
    Exception
        The error itself, if it concerns the whole run: a damaged model, a full disk, too little memory.

    Examples
    --------
    >>> skip_reason("a.wav", ValueError("bad header"))
    'a.wav: unexpected ValueError: bad header'
    """
    if isinstance(error, _OF_ONE_FILE):
        return str(error)
    if isinstance(error, SpectagError | MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE):
        raise error
    if isinstance(error, OSError) and error.strerror:
        return f"{file}: the file can't be read: {error.strerror}"
    lines = str(error).strip().splitlines()
    reason = f"{file}: unexpected {type(error).__name__}" + (f": {lines[0]}" if lines else "")
    _logger.info(reason, exc_info=error)
    return reason
