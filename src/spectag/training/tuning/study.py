"""Many trainings around a recipe, to find the settings that held-out clips like best (Optuna, the extra `tune`).

A study lives in one folder and goes on from there, however it ended. What is known of it lies in Optuna's journal, a
text file to which each event adds a line: it asks for no server, and a kill costs at most the line being written.
"""

import csv
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w
from filelock import FileLock, Timeout

from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import manifest_of, read_manifest
from spectag.errors import ConfigError, DataError, MissingExtraError
from spectag.system.epoch_log import Epoch, OnEpoch, is_epoch_step
from spectag.system.figures import save_figure
from spectag.system.output import written
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.training.pipeline import HeldOutScore, held_out_score
from spectag.training.tuning.figures import study_figure
from spectag.training.tuning.search_space import (
    GROUPS,
    Choice,
    Range,
    SearchSpace,
    Value,
    as_it_was_set,
    search_space,
    value_of,
    with_values,
)

if TYPE_CHECKING:
    import optuna
    from matplotlib.figure import Figure

JOURNAL, TRIALS_CSV, BEST_TOML, FIGURE = "study.journal", "trials.csv", "best.toml", "study.png"

_NAME = "spectag tune"
_MOST_REPEATS = 100
"""Proposals in a row that were tried before, until the search is taken to be over."""
_STOPPED_ONCE = "the run was stopped; these settings are tried again"
_STOPPED_TWICE = "the run was stopped here twice, maybe by these settings"
_UNPRUNED_TRIALS = 4
_UNPRUNED_SHARE = 1 / 3
"""Of the epochs, in which no trial is stopped: the learning rate is still rising in some."""


@dataclass(frozen=True)
class Trial:
    """One training of the search.

    `lwlrap` is that of held-out clips, None unless the trial is complete; `reason` says why it is not. A trial is
    pruned when its epochs promise little, failed when its settings do not go together, and stopped when the whole run
    was. `settings` holds those that are searched over. The first trial, number 0, is the recipe as it was given.
    """

    number: int
    state: Literal["complete", "pruned", "failed", "stopped"]
    lwlrap: float | None
    seconds: float
    settings: dict[str, Value]
    reason: str = ""


@dataclass(frozen=True)
class Study:
    """What a search has found: all its trials in their order, the best of them, and its whole recipe.

    `ended` says why the search has ended. `skipped` are clips that can't be read, each with the reason.
    """

    folder: Path
    trials: tuple[Trial, ...]
    best: Trial
    recipe: Recipe
    ended: str
    skipped: tuple[tuple[Clip, str], ...] = ()

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials, best first; of equals the earlier one."""
        return sorted((trial for trial in self.trials if trial.lwlrap is not None), key=_descending)

    def to_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return {
            "folder": str(self.folder),
            "best": asdict(self.best),
            "recipe": str(self.folder / BEST_TOML),
            "trials": [asdict(trial) for trial in self.trials],
            "ended": self.ended,
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
        }


def tune(
    manifest: str | Path | Manifest,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    trials: int | None = None,
    over: Sequence[str] = GROUPS,
    noisy: str | Path | Manifest | None = None,
    cache: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    corrections: str | Path | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Study:
    """Search for the settings with the best held-out lwlrap, around a recipe, within a time or a number of trials.

    The first trial is the recipe itself. All trials hold out the same clips. In the folder, `trials.csv` and
    `best.toml` are new after each trial, and `study.png` at the end.

    Parameters
    ----------
    manifest, noisy, bank, audio_dir, group_column, corrections, workers, progress, say
        As in `train`.
    output : path
        Folder of the study. A study that is there goes on.
    recipe : Recipe, optional
        What is set in it stays; what is not may be searched over. Its budget is the time for all trials, earlier runs
        of the study included: a trial that takes as long as the others must fit, else it is not begun.
    trials : int, optional
        Trials of the study, those of earlier runs included.
    over : names, by default all
        Of mel, augment, head and learning_rate: what kinds of settings to search over.

    Raises
    ------
    ConfigError
        If neither a budget nor a number of trials is given, there is nothing to search over, or the folder holds a
        study of other clips or settings, or one that another run works on.
    MissingExtraError
        If Optuna is not installed.
    SpectagError
        If training by the recipe itself fails. A later trial that fails by its settings is only noted.

    References
    ----------
    Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011, for how settings are proposed (TPE).
    """
    recipe = recipe or Recipe()
    budget = recipe.budget
    if budget is None and trials is None:
        raise ConfigError("a search needs an end: give --budget, such as 30m, or --trials, such as 50")
    recipe = with_values(recipe, {})
    _optuna()
    manifest = manifest_of(manifest, audio_dir=audio_dir, group_column=group_column, corrections=corrections)
    if noisy is not None and not isinstance(noisy, Manifest):
        noisy = read_manifest(noisy, labels=manifest.labels)
    space = search_space(recipe, over, holds_images=manifest.holds_images)
    for note in space.notes:
        log(note)
    log(f"searching over {', '.join(space.settings)}")
    of = _identity((manifest, noisy), recipe, space)

    def rehearse(recipe: Recipe, checkpoints: Path, on_epoch: OnEpoch, news: Log) -> HeldOutScore:
        return held_out_score(
            manifest,
            recipe,
            checkpoints=checkpoints,
            noisy=noisy,
            resume=True,
            cache=cache,
            workers=workers,
            progress=_without_epochs(progress),
            log=news,
            on_epoch=on_epoch,
        )

    with _opened(Path(output), of, n_epochs=recipe.epochs) as study:
        result = _Search(study, Path(output), recipe, space, rehearse, progress, log).run(budget, trials)
    save_figure(_figure(result, tuple(space.settings)), Path(output) / FIGURE)
    return result


_Rehearse = Callable[[Recipe, Path, OnEpoch, Log], HeldOutScore]


class _Search:
    """One run of a study."""

    def __init__(
        self,
        study: "optuna.Study",
        folder: Path,
        recipe: Recipe,
        space: SearchSpace,
        rehearse: _Rehearse,
        progress: Progress,
        log: Log,
    ) -> None:
        optuna = _optuna()
        self.study, self.folder, self.recipe, self.space = study, folder, recipe, space
        self.rehearse, self.progress, self.log = rehearse, progress, log
        self.started = time.monotonic()
        # A run that goes on would else propose what the run before it proposed first.
        seed = (recipe.seed + len(study.get_trials(deepcopy=False))) % 2**32
        self.by_scores = optuna.samplers.TPESampler(seed=seed)
        self.by_chance = optuna.samplers.RandomSampler(seed=seed)
        self.distributions = {name: _distribution(domain) for name, domain in space.settings.items()}
        self.skipped: tuple[tuple[Clip, str], ...] = ()

    @property
    def trials(self) -> list[Trial]:
        """Those that have ended, but for proposals that had been tried before."""
        known = self.study.get_trials(deepcopy=False)
        return [_read(trial) for trial in known if trial.state.is_finished() and "twin" not in trial.user_attrs]

    def run(self, budget: float | None, n_trials: int | None) -> Study:
        """Try settings until there is no time, no trial or nothing new left."""
        spent_before = sum(trial.seconds for trial in self.trials)
        self._close_stopped()
        if not self.trials:
            self._try_the_recipe_itself()
        ended = ""
        while not ended:
            self._write()
            spent = spent_before + time.monotonic() - self.started
            ended = _end(self.trials, spent, budget, n_trials) or self._try_next()
        self.log(ended)
        return self._result(ended)

    def _close_stopped(self) -> None:
        """The settings of a trial that a kill has left behind get a second chance, and no third."""
        optuna = _optuna()
        for trial in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            if "again" in trial.user_attrs:
                shutil.rmtree(self._checkpoints(trial.user_attrs["again"]), ignore_errors=True)
            else:
                self.study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _try_the_recipe_itself(self) -> None:
        started = time.monotonic()
        epochs = _Epochs(self.progress, lambda *_: None)
        score = self._rehearsed(self.recipe, 0, epochs, self.log)
        settings = {name: value_of(self.recipe, name) for name in self.space.settings}
        params = {name: value for name, value in settings.items() if value in self.space.settings[name]}
        self.study.add_trial(
            _optuna().trial.create_trial(
                params=params,
                distributions={name: self.distributions[name] for name in params},
                value=score,
                intermediate_values=epochs.scores,
                user_attrs={
                    "settings": settings,
                    "state": "complete",
                    "reason": "",
                    "seconds": time.monotonic() - started,
                },
            )
        )
        self._tell()

    def _try_next(self) -> str:
        """Try new settings, or say that there are none."""
        optuna = _optuna()
        trial = self._propose()
        if trial is None:
            return f"the last {_MOST_REPEATS} proposals had all been tried before: there is hardly anything new to try"
        started = time.monotonic()
        settings, first = self._rounded(trial.params), trial.user_attrs.get("again")
        if_stopped = _STOPPED_ONCE if first is None else _STOPPED_TWICE
        _note(trial, settings=settings, state="stopped", reason=if_stopped, seconds=0.0)
        epochs = _Epochs(self.progress, lambda step, score: _report(trial, step, score))
        score, state, reason = None, optuna.trial.TrialState.COMPLETE, ""
        try:
            recipe = with_values(self.recipe, settings)
            score = self._rehearsed(recipe, trial.number if first is None else first, epochs, no_log)
        except optuna.TrialPruned as pruned:
            state, reason = optuna.trial.TrialState.PRUNED, str(pruned)
        except (ConfigError, DataError) as error:  # others, such as a full disk, would meet every trial
            state, reason = optuna.trial.TrialState.FAIL, str(error)
        name = {"FAIL": "failed"}.get(state.name, state.name.lower())
        _note(trial, state=name, reason=reason, seconds=time.monotonic() - started)
        self.study.tell(trial, score, state=state)
        self._tell()
        return ""

    def _propose(self) -> "optuna.Trial | None":
        """Settings that were not tried before, or only by a trial that was stopped."""
        tried = [trial.settings for trial in self.trials]
        for attempt in range(_MOST_REPEATS):
            self.study.sampler = self.by_chance if attempt else self.by_scores
            trial = self.study.ask(self.distributions)
            if "again" in trial.user_attrs or self._rounded(trial.params) not in tried:
                return trial
            trial.set_user_attr("twin", True)
            self.study.tell(trial, state=_optuna().trial.TrialState.FAIL)
        return None

    def _rehearsed(self, recipe: Recipe, number: int, on_epoch: OnEpoch, log: Log) -> float:
        """Held-out lwlrap of a recipe. What fine-tuning has kept stays only if the whole run is stopped."""
        checkpoints = self._checkpoints(number)
        try:
            result = self.rehearse(recipe, checkpoints, on_epoch, log)
        except Exception:
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise
        shutil.rmtree(checkpoints, ignore_errors=True)
        self.skipped = result.skipped
        return result.scores.lwlrap

    def _checkpoints(self, number: int) -> Path:
        return self.folder / f".trial-{number}"

    def _rounded(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Settings to three digits, in which they can be read and written."""
        return {
            name: float(f"{value:.3g}") if isinstance(self.space.settings[name], Range) else value
            for name, value in params.items()
        }

    def _tell(self) -> None:
        trial = self.trials[-1]
        best = min((trial for trial in self.trials if trial.lwlrap is not None), key=_descending)
        settings = ", ".join(f"{name} {in_words(value)}" for name, value in trial.settings.items())
        if trial.number == 0:
            settings = f"the recipe as given ({settings})"
        outcome = trial.reason if trial.lwlrap is None else f"lwlrap {trial.lwlrap:.4f} (best {best.lwlrap:.4f})"
        self.log(f"trial {trial.number}: {outcome}, {trial.seconds:.1f} s: {settings}")

    def _result(self, ended: str) -> Study:
        trials = tuple(self.trials)
        best = min((trial for trial in trials if trial.lwlrap is not None), key=_descending)
        recipe = with_values(self.recipe, best.settings) if best.number else self.recipe
        return Study(self.folder, trials, best, recipe, ended, self.skipped)

    def _write(self) -> None:
        """The table and the best recipe, as they are now."""
        result = self._result("")
        with written(self.folder / TRIALS_CSV) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["number", "state", "lwlrap", "seconds", *self.space.settings, "reason"])
            for trial in result.trials:
                score = "" if trial.lwlrap is None else f"{trial.lwlrap:.6f}"
                settings = [
                    in_words(trial.settings[name]) if name in trial.settings else "" for name in self.space.settings
                ]
                writer.writerow([trial.number, trial.state, score, f"{trial.seconds:.1f}", *settings, trial.reason])
        with written(self.folder / BEST_TOML) as file:
            file.write(_best_toml(result))


class _Epochs:
    """Hears of a training's epochs, and keeps their held-out lwlrap by step, counted on from part to part."""

    def __init__(self, progress: Progress, report: Callable[[int, float], None]) -> None:
        self.progress, self.report = progress, report
        self.parts: list[str] = []
        self.scores: dict[int, float] = {}

    def __call__(self, epoch: Epoch) -> None:
        if epoch.part not in self.parts:
            self.parts.append(epoch.part)
        n_epochs = epoch.n_epochs or epoch.epoch
        self.progress("epochs of this trial", epoch.epoch, n_epochs)
        if epoch.valid_lwlrap is not None:
            step = self.parts.index(epoch.part) * n_epochs + epoch.epoch
            self.scores[step] = epoch.valid_lwlrap
            self.report(step, epoch.valid_lwlrap)


def in_words(value: Value) -> str:
    """A setting's value as it stands in tables and in TOML."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _report(trial: "optuna.Trial", step: int, score: float) -> None:
    trial.report(score, step)
    if trial.should_prune():
        raise _optuna().TrialPruned(
            f"not learnt to the end: lwlrap {score:.4f} after {step} epochs is below the median"
        )


def _note(trial: "optuna.Trial", **facts: Any) -> None:
    for name, value in facts.items():
        trial.set_user_attr(name, value)


def _read(trial: "optuna.trial.FrozenTrial") -> Trial:
    facts = trial.user_attrs
    state = facts.get("state", "stopped")
    return Trial(
        trial.number,
        state,
        trial.value if state == "complete" else None,  # of a pruned trial Optuna takes the last epoch's
        facts.get("seconds", 0.0),
        facts.get("settings", {}),
        facts.get("reason", _STOPPED_ONCE),
    )


def _descending(trial: Trial) -> tuple[float, int]:
    return -(trial.lwlrap or 0.0), trial.number


def _end(trials: Sequence[Trial], spent: float, budget: float | None, n_trials: int | None) -> str:
    """Why no further trial is begun; "" if one is."""
    seconds = [trial.seconds for trial in trials if trial.state != "stopped"]
    if n_trials is not None and len(seconds) >= n_trials:
        return f"{len(seconds)} trials are done"
    if budget is None:
        return ""
    later = seconds[1:] or seconds  # the first one also made spectrograms and features for the others
    mean = sum(later) / len(later)
    if spent + mean > budget:
        return f"{spent:.0f} s of {budget:.0f} s are spent, and a trial takes {mean:.1f} s; give more to go on"
    return ""


def _identity(manifests: Sequence[Manifest | None], recipe: Recipe, space: SearchSpace) -> dict[str, Any]:
    """What a study is of: clips and labels, settings, and what is searched over. Sounds are known by name and size."""
    digest = hashlib.blake2b(digest_size=16)
    for manifest in manifests:
        for clip in manifest.clips if manifest else ():
            size = clip.path.stat().st_size
            told = (clip.fname, size, clip.labels, clip.fold, clip.group, clip.start_seconds, clip.end_seconds)
            digest.update(repr(told).encode())
        digest.update(b"end")
    settings = {name: {"kind": type(domain).__name__, **asdict(domain)} for name, domain in space.settings.items()}
    of = {"clips": digest.hexdigest(), "recipe": as_it_was_set(recipe), "over": settings}
    identity: dict[str, Any] = json.loads(json.dumps(of))
    return identity


@contextmanager
def _opened(folder: Path, of: dict[str, Any], *, n_epochs: int) -> Iterator["optuna.Study"]:
    """The study of a folder, for one process at a time; begun if there is none."""
    optuna = _optuna()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(f"{folder}: another run works on the study there; wait for it, or give another -o") from error
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        journal = folder / JOURNAL
        _mend(journal)
        backend = optuna.storages.journal.JournalFileBackend(
            str(journal), optuna.storages.journal.JournalFileOpenLock(str(journal))
        )
        pruner = optuna.pruners.MedianPruner(_UNPRUNED_TRIALS, n_warmup_steps=round(n_epochs * _UNPRUNED_SHARE))
        try:
            study = optuna.create_study(
                storage=optuna.storages.JournalStorage(backend),
                study_name=_NAME,
                pruner=pruner,
                direction="maximize",
                load_if_exists=True,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{journal}: can't be read as a study: {error}; delete it, or give another -o") from error
        _check_identity(folder, study, of)
        yield study
    finally:
        optuna.logging.set_verbosity(verbosity)
        lock.release()


def _mend(journal: Path) -> None:
    """Cut off a line that a kill has left half-written, and let go the lock that it held."""
    journal.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
    if journal.exists():
        whole = journal.read_bytes().rpartition(b"\n")
        if whole[2]:
            with written(journal) as file:
                file.write((whole[0] + whole[1]).decode())


def _check_identity(folder: Path, study: "optuna.Study", of: dict[str, Any]) -> None:
    theirs = study.user_attrs.get("of")
    if theirs is None:
        study.set_user_attr("of", of)
    elif theirs != of:
        problem = "has other clips, labels or folds"
        if theirs["clips"] == of["clips"]:
            problem = f"has other settings: {_differences(theirs['recipe'], of['recipe'])}"
            if theirs["recipe"] == of["recipe"]:
                problem = f"searches over {', '.join(theirs['over'])}, in the limits of the spectag that began it"
        raise ConfigError(f"{folder}: the study there {problem}; give the command that began it, or another -o")


def _differences(theirs: dict[str, Any], own: dict[str, Any]) -> str:
    before, now = _flat(theirs), _flat(own)
    words = [
        f"{name} {in_words(before[name]) if name in before else 'not given'}, here "
        f"{in_words(now[name]) if name in now else 'not given'}"
        for name in sorted(before.keys() | now.keys())
        if (name in before, before.get(name)) != (name in now, now.get(name))
    ]
    return "; ".join(words)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _best_toml(study: Study) -> str:
    given, best = study.trials[0], study.best
    return (
        f"# The best of {len(study.trials)} trials: held-out lwlrap {best.lwlrap:.4f} (trial {best.number}); "
        f"{given.lwlrap:.4f} before the search.\n"
        f"#\n#   spectag train MANIFEST -o MODEL --recipe {BEST_TOML}\n\n"
        f"{tomli_w.dumps(_without_null(as_it_was_set(study.recipe)))}"
    )


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """For TOML, which has no null."""
    return {
        name: _without_null(value) if isinstance(value, dict) else "none" if value is None else value
        for name, value in values.items()
    }


def _figure(study: Study, names: Sequence[str]) -> "Figure":
    scores = [float("nan") if trial.lwlrap is None else trial.lwlrap for trial in study.trials]
    return study_figure(scores, {name: [trial.settings.get(name) for trial in study.trials] for name in names})


def _distribution(domain: Range | Choice) -> "optuna.distributions.BaseDistribution":
    distributions = _optuna().distributions
    made: optuna.distributions.BaseDistribution
    if isinstance(domain, Range):
        made = distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
    else:
        made = distributions.CategoricalDistribution(domain.values)
    return made


def _without_epochs(progress: Progress) -> Progress:
    """The same, but for the batches of each epoch: there are too many epochs in a search."""

    def told(step: str, n_done: int, n_total: int) -> None:
        if not is_epoch_step(step):
            progress(step, n_done, n_total)

    return told


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "tune", "tuning") from error
    return optuna
