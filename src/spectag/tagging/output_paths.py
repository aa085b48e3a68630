"""Where a run writes: its tables, the status of every file, and the settings of the run.

-o FOLDER gets tags.csv (and the tables of other requested formats), status.csv and parameters.toml. -o FILE is one
table; the other files are named after it: for tags.csv, tags.status.csv and tags.parameters.toml.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import ConfigError
from spectag.system.atomic_files import remove_unfinished
from spectag.system.cache import writable_cache_folder
from spectag.system.storage import is_url, join_location
from spectag.tagging.formats.dispatch import FORMATS
from spectag.tagging.input_files import Shard

_FORMAT_OF_SUFFIX = {f".{name}": name for name in ("csv", "tsv", "xlsx", "json", "jsonl", "parquet")}
_FORMAT_OF_SUFFIX[".svl"] = "sonic-visualiser"
_TABLE_SUFFIXES = {".txt", *_FORMAT_OF_SUFFIX}  # the first needs a --format
_SUFFIXES = ".csv, .tsv, .json, .jsonl, .svl, .parquet or .xlsx"
_RECORDING_SUFFIXES = AUDIO_SUFFIXES | IMAGE_SUFFIXES  # never overwritten: `-o *.wav` is typed by mistake


@dataclass(frozen=True)
class OutputPaths:
    """Paths or URLs of a run's results."""

    tables: Mapping[str, str]
    """By format."""
    status: str
    parameters: str
    journal: Path
    """A folder that exists until the run is complete."""
    in_folder: bool
    """Whether the output is a folder, so that formats with a file for each recording can be written."""

    def remove_unfinished(self) -> None:
        """Remove the partial files of a killed run; only the holder of the journal may do so."""
        for location in (*self.tables.values(), self.status, self.parameters):
            if not is_url(location):
                remove_unfinished(Path(location))


def is_file(output: str) -> bool:
    """Whether an output is a single table, not a folder for all results."""
    if output.endswith(("/", os.sep)):
        return False
    if is_url(output):
        return PurePath(output).suffix.lower() in _TABLE_SUFFIXES
    path = Path(output)
    return not path.is_dir() and (path.is_file() or path.suffix.lower() in _TABLE_SUFFIXES)


def format_of(output: str | None) -> str:
    """The format that the suffix of an output means; csv for stdout (None) and for folders.

    Raises
    ------
    ConfigError
        If the suffix is that of another kind of file.
    """
    if output is None:
        return "csv"
    _check_suffix(output)
    suffix = PurePath(output).suffix.lower()
    if not is_file(output) or not suffix:
        return "csv"
    if suffix not in _FORMAT_OF_SUFFIX:
        raise ConfigError(
            f"-o {output}: the suffix {suffix} does not say which format; use {_SUFFIXES}, or choose one with "
            f"--format: {', '.join(FORMATS)}"
        )
    return _FORMAT_OF_SUFFIX[suffix]


def _check_suffix(output: str) -> None:
    """Raise a ConfigError if an output is named like a recording, or like a file of an unknown format."""
    suffix = PurePath(output).suffix
    if not suffix or (not is_url(output) and Path(output).is_dir()):
        return
    if suffix.lower() in _RECORDING_SUFFIXES:
        raise ConfigError(f"-o {output}: {suffix} is the suffix of a recording; give a table (tags.csv) or a folder")
    is_folder = output.endswith(("/", os.sep)) or not suffix[1:].isalpha()  # results.v2 and 2024.05 are folders
    is_bucket = is_url(output) and "/" not in output.partition("://")[2]
    if suffix.lower() not in _TABLE_SUFFIXES and not is_folder and not is_bucket:
        raise ConfigError(
            f"-o {output}: {suffix} is not a suffix of tables; use {_SUFFIXES}, or add / if it is the name of a folder"
        )


def output_paths(output: str, formats: Sequence[str], shard: Shard | None = None) -> OutputPaths:
    """The paths of a run's results, given -o and the formats. The names of a shard contain its number.

    Raises
    ------
    ConfigError
        If a single file is given for several formats, or the output is named like a file of another kind.
    """
    if output.startswith("/dev/"):
        raise ConfigError(f"-o {output}: results go to files, to continue after a stop; leave out -o to print them")
    _check_suffix(output)
    suffix = PurePath(output).suffix
    tag = f".{shard}" if shard else ""
    in_folder = not is_file(output)
    if in_folder:
        folder = output
        tables = [
            f"{name}{tag}" if FORMATS[name].write_recording else f"{FORMATS[name].stem}{tag}{FORMATS[name].suffix}"
            for name in formats
        ]
        status, parameters, journal = f"status{tag}.csv", f"parameters{tag}.toml", f".journal{tag}"
    elif len(formats) == 1:
        folder = output.rpartition("/")[0] if is_url(output) else str(Path(output).parent)
        stem = PurePath(output).stem + tag
        tables = [stem + suffix]
        status, parameters, journal = f"{stem}.status.csv", f"{stem}.parameters.toml", f".{stem}{suffix}.journal"
    else:
        raise ConfigError(f"-o {output}: {len(formats)} formats ({', '.join(formats)}) need a folder; give one as -o")
    return OutputPaths(
        tables={name: join_location(folder, table) for name, table in zip(formats, tables, strict=True)},
        status=join_location(folder, status),
        parameters=join_location(folder, parameters),
        journal=_journal(folder, journal),
        in_folder=in_folder,
    )


def tables_of_other_formats(output: str, formats: Sequence[str], shard: Shard | None = None) -> list[str]:
    """What an earlier run wrote into a local folder in formats that a run does not write; none without a status.csv.

    They may contain other tags than the tables of the run.
    """
    if is_url(output) or is_file(output):
        return []
    other = [name for name in FORMATS if name not in formats]
    paths = output_paths(output, other, shard)
    if not Path(paths.status).is_file():
        return []
    return [table for table in paths.tables.values() if Path(table).exists()]


def _journal(folder: str, name: str) -> Path:
    """Beside local results; for remote ones, in the cache folder, under a name made from their URL."""
    if not is_url(folder):
        return Path(folder, name)
    return writable_cache_folder() / "journals" / (hashlib.sha256(folder.encode()).hexdigest()[:16] + name)
