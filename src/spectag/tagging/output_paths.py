"""Where a run writes: its tables, the status of every file, and the settings of the run.

-o FOLDER gets tags.csv (and the tables of other requested formats), status.csv and parameters.toml. -o FILE is one
table; the other files are named after it: for tags.csv, tags.status.csv and tags.parameters.toml.
"""

import hashlib
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

_FORMAT_OF_SUFFIX = {".jsonl": "jsonl", ".parquet": "parquet"}  # any other: csv
_TABLE_SUFFIXES = {".csv", ".tsv", ".txt", ".json", *_FORMAT_OF_SUFFIX}
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
    if is_url(output):
        return PurePath(output).suffix.lower() in _TABLE_SUFFIXES
    path = Path(output)
    return not path.is_dir() and (path.is_file() or path.suffix.lower() in _TABLE_SUFFIXES)


def format_of(output: str | None) -> str:
    """The format that the suffix of an output means; csv for stdout (None) and for unknown suffixes."""
    return "csv" if output is None else _FORMAT_OF_SUFFIX.get(PurePath(output).suffix.lower(), "csv")


def output_paths(output: str, formats: Sequence[str], shard: Shard | None = None) -> OutputPaths:
    """The paths of a run's results, given -o and the formats. The names of a shard contain its number.

    Raises
    ------
    ConfigError
        If a single file is given for several formats, or the output is named like a recording.
    """
    suffix = PurePath(output).suffix
    if suffix.lower() in _RECORDING_SUFFIXES and not Path(output).is_dir():
        raise ConfigError(f"-o {output}: {suffix} is the suffix of a recording; give a table (tags.csv) or a folder")
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


def _journal(folder: str, name: str) -> Path:
    """Beside local results; for remote ones, in the cache folder, under a name made from their URL."""
    if not is_url(folder):
        return Path(folder, name)
    return writable_cache_folder() / "journals" / (hashlib.sha256(folder.encode()).hexdigest()[:16] + name)
