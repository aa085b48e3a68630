"""Where a run's results go: tables, the status of every file, and the settings that made them.

-o FOLDER holds tags.csv (and what other formats were asked for), status.csv and parameters.toml. -o FILE is one table;
the others are named after it: of tags.csv, tags.status.csv and tags.parameters.toml.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import cast

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import ConfigError
from spectag.system.atomic_files import remove_unfinished
from spectag.system.cache import cache_folder
from spectag.system.storage import is_address, joined
from spectag.tagging.formats.dispatch import FORMATS, FormatName
from spectag.tagging.input_files import Shard

_OF_SUFFIX: dict[str, str] = {".jsonl": "jsonl", ".parquet": "parquet"}
_RECORDINGS = AUDIO_SUFFIXES | IMAGE_SUFFIXES  # of which none is written over: -o *.wav is soon typed
_FILE_SUFFIXES = {".csv", ".tsv", ".txt", ".json", *_OF_SUFFIX}


@dataclass(frozen=True)
class OutputPaths:
    """Locations, which are paths or addresses as text."""

    tables: Mapping[str, str]
    status: str
    parameters: str
    journal: Path
    """A folder, which is there as long as the run is not done."""
    in_folder: bool
    """Whether formats of a file for each recording have a folder to go to."""

    def remove_unfinished(self) -> None:
        """Remove what a run left that was killed while it wrote; only one that holds the journal may do that."""
        for location in (*self.tables.values(), self.status, self.parameters):
            if not is_address(location):
                remove_unfinished(Path(location))


def is_file(output: str) -> bool:
    """Whether an output is one table, and not a folder for all results."""
    if is_address(output):
        return PurePath(output).suffix.lower() in _FILE_SUFFIXES
    path = Path(output)
    return not path.is_dir() and (path.is_file() or path.suffix.lower() in _FILE_SUFFIXES)


def format_of(output: str | None) -> str:
    """The format that the name of an output stands for."""
    return "csv" if output is None else _OF_SUFFIX.get(PurePath(output).suffix.lower(), "csv")


def results(output: str, formats: Sequence[str], shard: Shard | None = None) -> OutputPaths:
    """Where the results of a run go that was given an output: a shard's names tell its number.

    Raises
    ------
    ConfigError
        If several formats are to go into one file, or the output is named like a recording.
    """
    suffix = PurePath(output).suffix.lower()
    if suffix in _RECORDINGS and not Path(output).is_dir():
        raise ConfigError(f"-o {output}: {suffix} is that of a recording; give a table, such as tags.csv, or a folder")
    mark = f".{shard}" if shard else ""
    if not is_file(output):
        tables = {name: joined(output, _name_in_folder(name, mark)) for name in formats}
        status, parameters = joined(output, f"status{mark}.csv"), joined(output, f"parameters{mark}.toml")
        return OutputPaths(tables, status, parameters, _journal(output, f".journal{mark}"), in_folder=True)
    if len(formats) > 1:
        raise ConfigError(f"-o {output}: {len(formats)} formats ({', '.join(formats)}) need a folder; give one as -o")
    folder, _, name = output.rpartition("/") if is_address(output) else _split(output)
    stem, suffix = PurePath(name).stem + mark, PurePath(name).suffix

    def beside(name: str) -> str:
        return joined(folder, name) if folder else name

    return OutputPaths(
        tables={formats[0]: beside(stem + suffix)},
        status=beside(f"{stem}.status.csv"),
        parameters=beside(f"{stem}.parameters.toml"),
        journal=_journal(folder, f".{stem}{suffix}.journal"),
        in_folder=False,
    )


def _split(output: str) -> tuple[str, str, str]:
    path = Path(output)
    return str(path.parent), "/", path.name


def _name_in_folder(name: str, mark: str) -> str:
    if name == "submission":
        return f"submission{mark}.csv"
    of_format = FORMATS[cast("FormatName", name)]
    return f"{name}{mark}" if of_format.in_folder else f"tags{mark}{of_format.suffix}"


def _journal(folder: str, name: str) -> Path:
    """Beside local results; of remote ones, in the cache folder, under a name that is theirs."""
    if not is_address(folder):
        return Path(folder, name)
    return cache_folder() / "journals" / (hashlib.sha256(folder.encode()).hexdigest()[:16] + name)
