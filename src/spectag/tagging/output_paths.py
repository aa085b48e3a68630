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
from spectag.system.cache import cache_folder
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
        raise ConfigError(
            f"-o {output}: {suffix.lower()} is the suffix of a recording; give a table, such as tags.csv, or a folder"
        )
    tag = f".{shard}" if shard else ""
    if not is_file(output):
        return OutputPaths(
            tables={name: join_location(output, _name_in_folder(name, tag)) for name in formats},
            status=join_location(output, f"status{tag}.csv"),
            parameters=join_location(output, f"parameters{tag}.toml"),
            journal=_journal(output, f".journal{tag}"),
            in_folder=True,
        )
    if len(formats) > 1:
        raise ConfigError(f"-o {output}: {len(formats)} formats ({', '.join(formats)}) need a folder; give one as -o")
    folder = output.rpartition("/")[0] if is_url(output) else str(Path(output).parent)
    stem = PurePath(output).stem + tag
    return OutputPaths(
        tables={formats[0]: join_location(folder, stem + suffix)},
        status=join_location(folder, f"{stem}.status.csv"),
        parameters=join_location(folder, f"{stem}.parameters.toml"),
        journal=_journal(folder, f".{stem}{suffix}.journal"),
        in_folder=False,
    )


def _name_in_folder(name: str, tag: str) -> str:
    table_format = FORMATS[name]
    return f"{name}{tag}" if table_format.write_recording else f"{table_format.stem}{tag}{table_format.suffix}"


def _journal(folder: str, name: str) -> Path:
    """Beside local results; for remote ones, in the cache folder, under a name made from their URL."""
    if not is_url(folder):
        return Path(folder, name)
    return cache_folder() / "journals" / (hashlib.sha256(folder.encode()).hexdigest()[:16] + name)
