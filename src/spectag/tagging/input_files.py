"""The files to tag: found in folders, patterns, lists and URLs, in a fixed order, each once."""

import glob
import shlex
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import NamedTuple

from spectag.audio.files import find_audio
from spectag.errors import AudioError, ConfigError, DataError
from spectag.system.file_errors import path_with_spaces, similar_file
from spectag.system.progress import Log, no_log
from spectag.system.storage import find_in_url, is_url


class Shard(NamedTuple):
    """The files of one of several jobs: every `n_shards`-th file, beginning with the `number`-th."""

    number: int
    """From 1."""
    n_shards: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read 2/8 as the second of eight; raise a ConfigError for anything else."""
        number, _, n_shards = text.partition("/")
        if not (number.isdecimal() and n_shards.isdecimal() and 1 <= int(number) <= int(n_shards)):
            raise ConfigError(f"--shard {text}: expected i/n, such as 1/8 for the first of eight jobs")
        return cls(int(number), int(n_shards))

    def __str__(self) -> str:
        return f"{self.number}of{self.n_shards}"

    def select(self, files: Sequence[str]) -> list[str]:
        """The files of this shard."""
        return list(files[self.number - 1 :: self.n_shards])


def _words_of_a_path(words: Sequence[str]) -> str | None:
    """The first words up to a suffix, if they may be one path without quotes: none of them exists."""
    first = words[0]
    if is_url(first) or glob.has_magic(first) or Path(first).suffix or similar_file(Path(first)):
        return None
    end = next((number for number, word in enumerate(words, start=1) if Path(word).suffix), len(words))
    return " ".join(words[:end]) if end > 1 and not any(Path(word).exists() for word in words[:end]) else None


def find_files(
    paths: Iterable[str | Path], suffixes: Collection[str], *, listed: Iterable[str] = (), log: Log = no_log
) -> list[str]:
    """The files to tag, each once, in the order in which they are given.

    Parameters
    ----------
    paths : iterable of str or Path
        Files; folders, which are searched with all their sub-folders; patterns such as `rec/**/*.wav`; URLs such
        as s3://bucket/folder. Folders and patterns give the files with one of the suffixes, sorted.
    suffixes : collection of str
        Such as .wav, in lower case. A file that is given by its name may have any suffix.
    listed : iterable of str
        More files, folders, patterns and URLs, such as the lines of a list. A missing one is kept, so that the run
        reports it as skipped: a list may be out of date.
    log : Log
        Called with the number of files in each folder of `paths` that have other suffixes.

    Raises
    ------
    AudioError
        If one of the paths does not exist or contains no matching file.
    """
    found: list[str] = []
    words = list(map(str, paths))
    for number, path in enumerate(words):
        if not is_url(path) and not Path(path).exists() and (meant := path_with_spaces(words[number:])):
            raise AudioError(f"{path}: no such file or folder; a path with spaces needs quotes: {shlex.quote(meant)}")
        if may_be := _words_of_a_path(words[number:]):
            raise AudioError(
                f"{path}: no such file or folder; if this is a part of a path with spaces, put it in quotes: "
                f"{shlex.quote(may_be)}"
            )
        found += _files_of(path, suffixes, log)
    for line in listed:
        # a request for each of a million files would take hours
        is_url_of_file = is_url(line) and not glob.has_magic(line) and line.lower().endswith(tuple(suffixes))
        try:
            found += [line] if is_url_of_file else _files_of(line, suffixes)
        except (AudioError, OSError):  # OSError: a name too long for the disk, a folder without read permission
            found.append(line)
    return list(dict.fromkeys(found))


def expand_folders(names: Sequence[str], suffixes: Collection[str]) -> list[str]:
    """The names, with the files in each folder, and those that match each pattern, in its place.

    Raises
    ------
    AudioError
        If a folder or a pattern has no matching file.
    """
    found: list[str] = []
    for name in names:
        path = Path(name)
        is_file = path.suffix.lower() in suffixes and not glob.has_magic(name)
        if is_file or is_url(name) or not (path.is_dir() or (glob.has_magic(name) and not path.exists())):
            found.append(name)
        else:
            found += find_files([name], suffixes)
    return found


def _files_of(path: str, suffixes: Collection[str], log: Log = no_log) -> Iterable[str]:
    if is_url(path):
        return find_in_url(path, suffixes)
    if not glob.has_magic(path) or Path(path).exists():
        return map(str, find_audio([path], suffixes=suffixes, log=log))
    names = glob.iglob(path, recursive=True)  # noqa: PTH207 - Path.glob accepts no absolute pattern
    matches = sorted(name for name in names if Path(name).suffix.lower() in suffixes)
    if not matches:
        raise AudioError(f"{path}: no sound matches this pattern; ** is any folders, * any part of a name")
    return matches


def no_files_in_list(path: str) -> str:
    """That a list for `read_list` has only empty lines, and what was expected."""
    source = "--files-from -: stdin" if path == "-" else f"{path}: the list"
    return f"{source} contains no file; expected the path of a sound, a folder or a pattern in each line"


def read_list(path: str) -> Iterator[str]:
    """The lines of a file, or of stdin if the path is -, without empty ones.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    errors = "surrogateescape"  # a file name may have bytes that no encoding knows
    if path == "-" and isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors=errors)
    try:
        with nullcontext(sys.stdin) if path == "-" else Path(path).open(encoding="utf-8-sig", errors=errors) as file:
            yield from (line.rstrip("\r\n") for line in file if line.strip())
    except OSError as error:
        raise DataError(f"{path}: cannot read the list of files: {error.strerror}") from error
