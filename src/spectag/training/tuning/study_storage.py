"""A study in its folder: Optuna's journal, a lock for one process at a time, and a check of what the study is about."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.errors import ConfigError, MissingExtraError
from spectag.system.output import open_output
from spectag.training.tuning.search_space import SearchSpace, Value, explicit_settings, flatten

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"

_STUDY_NAME = "spectag tune"
_N_STARTUP_TRIALS = 4
"""Trials that are never pruned."""
_WARMUP_FRACTION = 1 / 3
"""Fraction of the epochs in which no trial is pruned, because the learning rate of some is still rising."""


def import_optuna() -> Any:
    """The module optuna.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "tune", "tuning") from error
    return optuna


@contextmanager
def open_study(folder: Path, identity: dict[str, Any], *, n_epochs: int) -> Iterator["optuna.Study"]:
    """The study in a folder, created if there is none.

    Raises
    ------
    ConfigError
        If another process uses it, its journal is damaged, or it is a study of something else.
    """
    optuna = import_optuna()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another process is using the study there; wait for it, or choose another folder for -o"
        ) from error
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        journal = folder / JOURNAL
        _repair(journal)
        backend = optuna.storages.journal.JournalFileBackend(
            str(journal), optuna.storages.journal.JournalFileOpenLock(str(journal))
        )
        pruner = optuna.pruners.MedianPruner(_N_STARTUP_TRIALS, n_warmup_steps=round(n_epochs * _WARMUP_FRACTION))
        try:
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=_STUDY_NAME,
                pruner=pruner,
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{journal}: cannot read the study: {error}; delete the file, or choose another folder for -o"
            ) from error
        _check_identity(folder, study, identity)
        yield study
    finally:
        optuna.logging.set_verbosity(verbosity)
        lock.release()


def _repair(journal: Path) -> None:
    """Remove an incomplete last line, and the lock, that a killed process has left."""
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
    if journal.exists():
        complete, newline, rest = journal.read_bytes().rpartition(b"\n")
        if rest:
            with open_output(journal) as file:
                file.write((complete + newline).decode())


def study_identity(manifests: Sequence[Manifest | None], recipe: Recipe, space: SearchSpace) -> dict[str, Any]:
    """What a study is about, for JSON: clips (by name and size) with labels, settings, and the search space."""
    digest = hashlib.blake2b(digest_size=16)
    for manifest in manifests:
        for clip in manifest.clips if manifest else ():
            size = clip.path.stat().st_size
            times = clip.start_seconds, clip.end_seconds
            facts = (clip.fname, size, clip.labels, clip.fold, clip.group, *times, clip.unknown, clip.weight)
            digest.update(repr(facts).encode())
        digest.update(b"end")
    settings = {name: {"kind": type(domain).__name__, **asdict(domain)} for name, domain in space.settings.items()}
    identity = {"clips": digest.hexdigest(), "recipe": explicit_settings(recipe), "space": settings}
    return dict(json.loads(json.dumps(identity)))


def _check_identity(folder: Path, study: "optuna.Study", identity: dict[str, Any]) -> None:
    found = study.user_attrs.get("identity")
    if found is None:
        study.set_user_attr("identity", identity)
    elif found != identity:
        problem = "has other clips, labels or folds"
        if found["clips"] == identity["clips"]:
            problem = f"has other settings: {_differences(found['recipe'], identity['recipe'])}"
            if found["recipe"] == identity["recipe"]:
                problem = f"searches over {', '.join(found['space'])}, with the ranges of the version that started it"
        raise ConfigError(
            f"{folder}: the study there {problem}; run the command that started it, or choose another folder for -o"
        )


def _differences(found: dict[str, Any], current: dict[str, Any]) -> str:
    before, now = flatten(found), flatten(current)

    def text(settings: Mapping[str, Any], name: str) -> str:
        return format_value(settings[name]) if name in settings else "not set"

    return "; ".join(
        f"{name} {text(before, name)}, here {text(now, name)}"
        for name in sorted(before.keys() | now.keys())
        if (name in before, before.get(name)) != (name in now, now.get(name))
    )


def format_value(value: Value) -> str:
    """The value of a setting as text, as in tables and TOML."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
