"""What is in the cache folder, and how to make it smaller.

Processes that use the cache hold a lock in its folder `in-use`, see `spectag.system.cache`. Nothing is deleted while
another process holds one. The limit of the size is in the file `limit`; it applies when the last process that uses the
cache ends.

The folder may be one of the user's with files of his own, also in folders such as `models`. So a file belongs to the
cache only if it has a name that spectag gives.
"""

import os
import re
import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from spectag.errors import ConfigError, did_you_mean
from spectag.system.atomic_files import unfinished_file
from spectag.system.cache import CACHE_VARIABLE, cache_folder, only_user

KINDS = {
    "spectrograms": "log-mel spectrograms of clips",
    "features": "features of clips, from networks that are not trained",
    "fingerprints": "acoustic fingerprints of clips, to find shared recordings",
    "networks": "networks as ONNX files, to compute features",
    "models": "published models",
    "weights": "downloaded weights",
    "hub": "models from the Hugging Face Hub",
    "clap": "CLAP, to tag and search with words",
    "journals": "results of unfinished spectag tag runs that write to a URL",
}
"""The kinds of files, with what they are."""
_COMPUTED = "spectrograms", "features", "fingerprints", "networks"
"""Kinds that the limit applies to: they come back without a connection."""
_FOLDERS = "spectrograms", "onnx", "models", "weights", "hub", "clap", "journals"
_WORK = r"\.lock|\.work-[0-9a-f]{32}/.+"
_DATABASE = r"\.sqlite(-journal|-wal|-shm)?"
_MODEL = r"(audioset-(dy)?mn[0-9]{2}(-[a-z]+[0-9]*)?|card-[a-z0-9._-]+-[0-9a-f]{16}|clap-[0-9a-f]{16})"
_EFFICIENTAT = r"(dy)?mn[0-9]{2}_as(_[a-z]+(_[0-9]+)?)?(_mAP_[0-9]{3})?\.pt"
_WEIGHTS = rf"({_EFFICIENTAT}|card-[a-z0-9._-]+-[0-9a-f]{{16}}\.(onnx|csv|txt))"
_NAMES = {  # of the files of each kind, below the cache folder
    "spectrograms": rf"spectrograms/[0-9a-f]{{16}}/({_WORK}|mel\.toml|index\.jsonl|[0-9a-f]{{2}}/[0-9a-f]{{32}}\.npy)",
    "features": rf"spectrograms/features/[^/]+-[0-9a-f]{{16}}/({_WORK}|[0-9a-f]{{2}}/[0-9a-f]{{32}}[\w.-]*\.npy)",
    "fingerprints": rf"spectrograms/fingerprints-[0-9]+(-[a-z0-9]+)?{_DATABASE}",
    "networks": rf"onnx/({_WORK}|[^/]+-[0-9a-f]{{16}}-(all|last)-[0-9x]+-[^/]+\.onnx)",
    "models": (
        rf"models/(\.{_MODEL}\.lock"
        rf"|\.?{_MODEL}/(model\.onnx|README\.md|spectag\.json|\.spectag\.[0-9]+\.json))"
    ),
    "weights": (
        rf"weights/({_WEIGHTS}(\.sha256|\.part|\.part-version)?"
        rf"|\.{_WEIGHTS}(\.lock|\.[0-9]+\.sha256))"
    ),
    "hub": r"hub/(commits/[^/]+/[^/]+@[^/]*|(\.locks/)?(?P<repository>models--[^/]+)/.+)",
    "clap": (
        r"clap/(\.lock|\.?model/(clap\.toml|(audio|text)\.onnx|tokenizer\.json)(\.part|\.part-version)?"
        r"|work/(download|exported)/.+)"
    ),
    "journals": rf"journals/[0-9a-f]{{16}}\.[^/]+/(lock|[0-9a-f]+{_DATABASE})",
}
_NAME = {kind: re.compile(pattern) for kind, pattern in _NAMES.items()}
_SIDE_FILE = re.compile(r"\.sqlite-(journal|wal|shm)$")
_UNFINISHED = ".part", ".part-version", ".incomplete"
_LIMIT_FILE = "limit"
_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(B|kB|MB|GB|TB|)", re.IGNORECASE)


@dataclass(frozen=True)
class CachedFile:
    """A file in the cache. A symbolic link counts as itself."""

    path: Path
    kind: str
    n_bytes: int
    used_at: float
    """When it was last read or written, in seconds since 1970, as far as the file system knows."""


@dataclass(frozen=True)
class KindUsage:
    """The files of a kind."""

    kind: str
    n_files: int
    n_bytes: int


def cached_files() -> Iterator[CachedFile]:
    """All files of the cache that belong to a kind."""
    root = cache_folder()
    repositories = _hub_repositories(root)
    for top in _FOLDERS:
        for folder, _, names in os.walk(root / top):
            below = Path(folder).relative_to(root).as_posix()
            for name in names:
                kind = _kind(f"{below}/{name}", repositories)
                if kind is not None:
                    with suppress(OSError):  # a run has replaced it, or this user may not see it
                        status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - there are very many
                        used_at = max(status.st_atime, status.st_mtime)
                        yield CachedFile(Path(folder, name), kind, status.st_size, used_at)


def _hub_repositories(root: Path) -> set[str]:
    """The folders of models that spectag has downloaded: those of other programs may be beside them."""
    commits = root.glob("hub/commits/*/*@*")
    return {f"models--{path.parent.name}--{path.name.partition('@')[0]}" for path in commits}


def _kind(name: str, repositories: set[str]) -> str | None:
    """The kind of the file with a name below the cache folder; None if it is not one of spectag's."""
    for kind, pattern in _NAME.items():
        if match := pattern.fullmatch(name):
            repository = match.groupdict().get("repository")
            return kind if repository is None or repository in repositories else None
    return None


def cache_usage() -> list[KindUsage]:
    """The number and size of the files of each kind, also of those without a file."""
    sizes: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for file in cached_files():
        sizes[file.kind].append(file.n_bytes)
    return [KindUsage(kind, len(values), sum(values)) for kind, values in sizes.items()]


def clean_cache(kinds: Sequence[str] = ()) -> list[KindUsage]:
    """Delete the files of some kinds; by default of all that can be computed or downloaded again.

    Returns
    -------
    list of KindUsage
        What was deleted, kinds without a file left out.

    Raises
    ------
    ConfigError
        If there is no such kind, or another process uses the cache.
    OSError
        If a file cannot be deleted.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(
                f"{kind}: no such kind of files{did_you_mean(kind, KINDS) or '.'} Kinds: {', '.join(KINDS)}"
            )
    chosen = set(kinds or KINDS.keys() - {"journals"})
    with only_user(cache_folder()):
        usage = [item for item in cache_usage() if item.kind in chosen and item.n_files]
        _delete(file for file in cached_files() if file.kind in chosen)
    return usage


def _delete(files: Iterable[CachedFile]) -> None:
    """Delete files, and the folders that are then empty."""
    folders = set()
    for file in files:
        file.path.unlink(missing_ok=True)
        folders.add(file.path.parent)
    root = cache_folder()
    for folder in folders:
        for empty in (folder, *folder.parents):
            if empty == root or not _remove_if_empty(empty):
                break


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def link_cached_files(folder: Path) -> None:
    """Make the files of the cache available in another folder, by symbolic links; databases are copied.

    Those that cannot be linked or read are left out, and so are unfinished files and locks.
    """
    root = cache_folder().absolute()
    for file in cached_files():
        path = file.path.absolute()
        name = path.relative_to(root)
        is_hidden = any(part.startswith(".") for part in name.parts)
        is_for_others = file.kind == "journals" or path.suffix in _UNFINISHED or _SIDE_FILE.search(path.name)
        if is_hidden or is_for_others or not os.access(path, os.R_OK):
            continue
        with suppress(OSError, sqlite3.Error):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".sqlite":
                _copy_database(path, folder / name)
            elif name.parts[:2] == ("hub", "commits"):  # will be written again
                shutil.copyfile(path, folder / name)
            else:
                (folder / name).symlink_to(path)


def _copy_database(path: Path, copy: Path) -> None:
    """A copy that is consistent, although another process may write to the database."""
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database,
        closing(sqlite3.connect(copy)) as target,
    ):
        database.backup(target)


def parse_size(text: str) -> int:
    """Bytes from a size such as 5GB, 500 MB or 1.5TB.

    Raises
    ------
    ConfigError
        If it is not a size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text}: expected a size such as 500MB, 5GB or 1.5TB")
    units = {name.lower(): n_bytes for name, n_bytes in _UNITS.items()}
    return round(float(match[1]) * units[match[2].lower()])


def readable_size(n_bytes: float) -> str:
    """A size with a unit, such as 1.5 GB."""
    unit = next((unit for unit in ("TB", "GB", "MB", "kB") if n_bytes >= _UNITS[unit]), "B")
    return f"{n_bytes / _UNITS[unit]:.{0 if unit == 'B' else 1}f} {unit}"


def cache_limit() -> int | None:
    """The limit in bytes; None if there is none."""
    try:
        return int((cache_folder() / _LIMIT_FILE).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def set_cache_limit(max_bytes: int | None) -> list[KindUsage]:
    """Set or remove the limit of the cache, and apply it now unless another process uses the cache.

    Returns
    -------
    list of KindUsage
        What was deleted.

    Raises
    ------
    ConfigError
        If the cache folder has a file `limit` that is not spectag's.
    OSError
        If the cache cannot be written.
    """
    path = cache_folder() / _LIMIT_FILE
    if path.exists() and cache_limit() is None:
        raise ConfigError(
            f"{path}: not a limit that spectag wrote; rename it, or set {CACHE_VARIABLE} to another folder"
        )
    if max_bytes is None:
        path.unlink(missing_ok=True)
        return []
    with unfinished_file(path) as unfinished:
        unfinished.write_text(f"{max_bytes}\n", encoding="ascii")
    return apply_cache_limit()


def apply_cache_limit() -> list[KindUsage]:
    """Delete the files that were not used for the longest time, until all of their kinds are not larger than the limit.

    Only files that can be computed again without a connection count, and are deleted. Nothing is, if there is no limit,
    or if another process uses the cache.
    """
    limit = cache_limit()
    if limit is None:
        return []
    with suppress(ConfigError), only_user(cache_folder()):
        deleted = _oldest(limit)
        _delete(deleted)
        sizes = [(kind, [file.n_bytes for file in deleted if file.kind == kind]) for kind in _COMPUTED]
        return [KindUsage(kind, len(values), sum(values)) for kind, values in sizes if values]
    return []


def _oldest(limit: int) -> list[CachedFile]:
    """The computed files to delete. A database and its journal stay or go together: one alone is damaged."""
    groups = defaultdict(list)
    for file in cached_files():
        if file.kind in _COMPUTED:
            groups[_SIDE_FILE.sub(".sqlite", str(file.path))].append(file)
    excess = sum(file.n_bytes for files in groups.values() for file in files) - limit
    deleted: list[CachedFile] = []
    for files in sorted(groups.values(), key=lambda files: max(file.used_at for file in files)):
        if excess <= 0:
            break
        deleted += files
        excess -= sum(file.n_bytes for file in files)
    return deleted
