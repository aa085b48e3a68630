"""Search for the settings with the best held-out lwlrap, by many trainings around a recipe (Optuna, extra `tune`).

A study is a folder, and can be resumed after any stop. Optuna's journal, a text file with one line per event, keeps its
state: it needs no server, and a kill costs at most the last line.
"""

import csv
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tomli_w

from spectag.config.data_options import DataOptions
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip
from spectag.data.manifest import ManifestInput
from spectag.errors import ConfigError, DataError
from spectag.scoring.metrics import decides_lwlrap
from spectag.system.epoch_log import Epoch, OnEpoch, is_epoch_step
from spectag.system.figures import save_figure
from spectag.system.output import open_output
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.system.short_texts import short_repr
from spectag.training.pipeline import RecipeScore, read_training_data, score_recipe
from spectag.training.setup.callbacks import Callbacks
from spectag.training.tuning.figures import study_figure
from spectag.training.tuning.search_space import (
    GROUPS,
    Range,
    SearchSpace,
    SettingChoice,
    Value,
    at_an_end,
    explicit_settings,
    search_space,
    value_of,
    with_values,
)
from spectag.training.tuning.study_storage import format_value, import_optuna, open_study, study_identity

if TYPE_CHECKING:
    import optuna

TRIALS_CSV, BEST_TOML, FIGURE = "trials.csv", "best.toml", "study.png"

_MAX_REPEATS = 100
"""Consecutive proposals of settings that were tried before, after which the search ends."""
_STOPPED_ONCE = "the run was stopped; these settings are tried again"
_STOPPED_TWICE = "the run was stopped here twice, perhaps because of these settings"


@dataclass(frozen=True)
class Trial:
    """One training of the study.

    `score` is that of held-out clips (see `Study.metric`), None unless the trial is complete; `reason` explains why it
    is not. A trial is pruned if its first epochs are below the median, failed if its settings do not work, and stopped
    if the whole run was stopped. `settings` are the searched ones. The first trial, number 0, is the unchanged recipe.
    """

    number: int
    state: Literal["complete", "pruned", "failed", "stopped"]
    score: float | None
    seconds: float
    settings: dict[str, Value]
    reason: str = ""


@short_repr
@dataclass(frozen=True)
class Study:
    """The result of a study: all trials in their order, the best trial, and its complete recipe.

    `metric` is lwlrap, or mAP where lwlrap is not defined. `ended` explains why the search ended. `skipped` are clips
    that cannot be read, each with the reason.
    """

    folder: Path
    trials: tuple[Trial, ...]
    best: Trial
    recipe: Recipe
    ended: str
    metric: str
    skipped: tuple[tuple[Clip, str], ...] = ()

    @property
    def ranked(self) -> list[Trial]:
        """The complete trials, best first; the earlier one first if equal."""
        return sorted((trial for trial in self.trials if trial.score is not None), key=_rank)

    def to_dict(self) -> dict[str, Any]:
        """The same, for JSON."""
        return {
            "folder": str(self.folder),
            "best": asdict(self.best),
            "recipe": str(self.folder / BEST_TOML),
            "trials": [asdict(trial) for trial in self.trials],
            "ended": self.ended,
            "metric": self.metric,
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
        }


def _rank(trial: Trial) -> tuple[float, int]:
    return -(trial.score or 0.0), trial.number


@shows_progress
def tune(
    manifest: ManifestInput,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    trials: int | None = None,
    over: Sequence[str] = GROUPS,
    data: DataOptions | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Study:
    """Search for the settings with the best held-out lwlrap, around a recipe, within a time or a number of trials.

    The first trial is the recipe itself. All trials hold out the same clips. In the folder, `trials.csv` and
    `best.toml` are updated after each trial, and `study.png` at the end.

    Parameters
    ----------
    manifest, data, progress, log
        As in `train`.
    output : path
        Folder of the study. A study that is there is continued.
    recipe : Recipe, optional
        Settings that it sets are kept; others may be searched over. Its budget is the time for all trials, including
        earlier runs of the study: a trial starts only if a trial of mean duration fits.
    trials : int, optional
        Number of trials, including those of earlier runs.
    over : names, by default all
        Kinds of settings to search over: mel, augment, head and learning_rate.

    Raises
    ------
    ConfigError
        If there is neither a budget nor a number of trials, nothing to search over, or the folder has a study of other
        clips or settings, or one that another process is using.
    MissingExtraError
        If Optuna is not installed.
    SpectagError
        If training with the recipe itself fails. Later trials that fail because of their settings are only recorded.

    References
    ----------
    Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011, for the proposals (TPE).
    """
    recipe, options, output = recipe or Recipe(), data or DataOptions(), Path(output)
    budget = recipe.budget
    if budget is None and trials is None:
        raise ConfigError("a search needs a limit: set --budget, such as 30m, or --trials, such as 50")
    recipe = with_values(recipe, {})
    import_optuna()
    manifest, noisy = read_training_data(manifest, options, log)
    space = search_space(recipe, over, holds_images=manifest.holds_images)
    for note in space.notes:
        log(note)
    log(f"searching over {', '.join(space.settings)}")

    def score(recipe: Recipe, checkpoints: Path, on_epoch: OnEpoch, log: Log) -> RecipeScore:
        callbacks = Callbacks(_without_epoch_steps(progress), log, on_epoch)
        return score_recipe(manifest, noisy, recipe, callbacks, options, checkpoints)

    identity = study_identity((manifest, noisy), recipe, space)
    with open_study(output, identity, n_epochs=recipe.epochs) as study:
        metric = "lwlrap" if decides_lwlrap(manifest.targets()).any() else "mAP"
        result = _Search(study, output, recipe, space, score, progress, log, metric).run(budget, trials)
    scores = [float("nan") if trial.score is None else trial.score for trial in result.trials]
    settings = {name: [trial.settings.get(name) for trial in result.trials] for name in space.settings}
    save_figure(study_figure(scores, settings, result.metric), output / FIGURE)
    return result


_ScoreRecipe = Callable[[Recipe, Path, OnEpoch, Log], RecipeScore]


class _Search:
    """One run of a study.

    It uses Optuna's ask-and-tell interface: `study.optimize` would record a stopped trial as failed
    for good, and its callbacks would count repeated proposals.
    """

    def __init__(
        self,
        study: "optuna.Study",
        folder: Path,
        recipe: Recipe,
        space: SearchSpace,
        score: _ScoreRecipe,
        progress: Progress,
        log: Log,
        metric: str,
    ) -> None:
        optuna = import_optuna()
        self.study, self.folder, self.recipe, self.space = study, folder, recipe, space
        self.score, self.progress, self.log, self.metric = score, progress, log, metric
        self.started = time.monotonic()
        # a resumed run must not repeat the first proposals of the run before
        seed = (recipe.seed + len(study.get_trials(deepcopy=False))) % 2**32
        self.tpe_sampler = optuna.samplers.TPESampler(seed=seed)
        self.random_sampler = optuna.samplers.RandomSampler(seed=seed)
        self.distributions = {name: _distribution(domain) for name, domain in space.settings.items()}
        self.skipped: tuple[tuple[Clip, str], ...] = ()

    @property
    def trials(self) -> list[Trial]:
        """The finished trials, without proposals of settings that were tried before."""
        trials = self.study.get_trials(deepcopy=False)
        return [_read(trial) for trial in trials if trial.state.is_finished() and "duplicate" not in trial.user_attrs]

    def run(self, budget: float | None, n_trials: int | None) -> Study:
        """Try settings until the time, the number of trials or the new settings are used up."""
        spent_before = sum(trial.seconds for trial in self.trials)
        self._requeue_stopped()
        if not self.trials:
            self._try_recipe()
        ended = ""
        while not ended:
            self._write()
            spent = spent_before + time.monotonic() - self.started
            ended = _reason_to_end(self.trials, spent, budget, n_trials) or self._try_next()
        self.log(ended)
        result = self._result(ended)
        for name in at_an_end(self.recipe, self.space, result.best.settings) if result.best.number else ():
            self.log(
                f"{name} {format_value(result.best.settings[name])} is at the end of the values that were searched; a "
                "better one may lie beyond it"
            )
        return result

    def _requeue_stopped(self) -> None:
        """Give the settings of a trial that was stopped a second chance, but no third."""
        optuna = import_optuna()
        for trial in self.study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
            if "retry_of" in trial.user_attrs:
                shutil.rmtree(self._checkpoints(trial.user_attrs["retry_of"]), ignore_errors=True)
            else:
                self.study.enqueue_trial(trial.params, user_attrs={"retry_of": trial.number})
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def _try_recipe(self) -> None:
        started = time.monotonic()
        epochs = _EpochScores(self.progress, lambda *_: None)
        score = self._score(self.recipe, 0, epochs, self.log)
        settings = {name: value_of(self.recipe, name) for name in self.space.settings}
        params = {name: value for name, value in settings.items() if value in self.space.settings[name]}
        attributes = {"settings": settings, "state": "complete", "reason": "", "seconds": time.monotonic() - started}
        self.study.add_trial(
            import_optuna().trial.create_trial(
                params=params,
                distributions={name: self.distributions[name] for name in params},
                value=score,
                intermediate_values=epochs.scores,
                user_attrs=attributes,
            )
        )
        self._log_last()

    def _try_next(self) -> str:
        """Try new settings; a reason to end if there are none."""
        optuna = import_optuna()
        states = optuna.trial.TrialState
        trial = self._propose()
        if trial is None:
            return f"the last {_MAX_REPEATS} proposals had all been tried before: hardly any new settings are left"
        started = time.monotonic()
        settings, retry_of = self._rounded(trial.params), trial.user_attrs.get("retry_of")
        if_stopped = _STOPPED_ONCE if retry_of is None else _STOPPED_TWICE
        _set_attributes(trial, settings=settings, state="stopped", reason=if_stopped, seconds=0.0)
        epochs = _EpochScores(self.progress, lambda step, score: _report(trial, step, score))
        score, state, reason = None, states.COMPLETE, ""
        try:
            number = trial.number if retry_of is None else retry_of
            score = self._score(with_values(self.recipe, settings), number, epochs, no_log)
        except optuna.TrialPruned as pruned:
            state, reason = states.PRUNED, str(pruned)
        except (ConfigError, DataError) as error:  # other errors, such as a full disk, would affect every trial
            state, reason = states.FAIL, str(error)
        name = "failed" if state == states.FAIL else state.name.lower()
        _set_attributes(trial, state=name, reason=reason, seconds=time.monotonic() - started)
        self.study.tell(trial, score, state=state)
        self._log_last()
        return ""

    def _propose(self) -> "optuna.Trial | None":
        """Settings that were not tried before, or only by a stopped trial."""
        tried = [trial.settings for trial in self.trials]
        for attempt in range(_MAX_REPEATS):
            self.study.sampler = self.random_sampler if attempt else self.tpe_sampler
            trial = self.study.ask(self.distributions)
            if "retry_of" in trial.user_attrs or self._rounded(trial.params) not in tried:
                return trial
            trial.set_user_attr("duplicate", True)
            self.study.tell(trial, state=import_optuna().trial.TrialState.FAIL)
        return None

    def _score(self, recipe: Recipe, number: int, on_epoch: OnEpoch, log: Log) -> float:
        """Held-out score of a recipe. Checkpoints are kept only if the whole run is stopped."""
        checkpoints = self._checkpoints(number)
        try:
            result = self.score(recipe, checkpoints, on_epoch, log)
        except Exception:
            shutil.rmtree(checkpoints, ignore_errors=True)
            raise
        shutil.rmtree(checkpoints, ignore_errors=True)
        self.skipped = result.skipped
        return result.scores.main_score

    def _checkpoints(self, number: int) -> Path:
        return self.folder / f".trial-{number}"

    def _rounded(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Settings with three significant digits."""
        return {
            name: float(f"{value:.3g}") if isinstance(self.space.settings[name], Range) else value
            for name, value in params.items()
        }

    def _log_last(self) -> None:
        trial = self.trials[-1]
        settings = ", ".join(f"{name} {format_value(value)}" for name, value in trial.settings.items())
        if trial.number == 0:
            settings = f"unchanged recipe ({settings})"
        best = self._result("").best
        outcome = trial.reason if trial.score is None else f"{self.metric} {trial.score:.4f} (best {best.score:.4f})"
        self.log(f"trial {trial.number}: {outcome}, {trial.seconds:.1f} s: {settings}")

    def _result(self, ended: str) -> Study:
        trials = tuple(self.trials)
        best = min((trial for trial in trials if trial.score is not None), key=_rank)
        recipe = with_values(self.recipe, best.settings) if best.number else self.recipe
        return Study(self.folder, trials, best, recipe, ended, self.metric, self.skipped)

    def _write(self) -> None:
        """Write the trials so far as a table, and the best recipe so far."""
        result, names = self._result(""), list(self.space.settings)
        with open_output(self.folder / TRIALS_CSV) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["number", "state", "score", "seconds", *names, "reason"])
            for trial in result.trials:
                score = "" if trial.score is None else f"{trial.score:.6f}"
                settings = [format_value(trial.settings[name]) if name in trial.settings else "" for name in names]
                writer.writerow([trial.number, trial.state, score, f"{trial.seconds:.1f}", *settings, trial.reason])
        with open_output(self.folder / BEST_TOML) as file:
            file.write(_best_toml(result))


class _EpochScores:
    """Collects the held-out lwlrap of a training's epochs by step, which is counted on from fold to fold."""

    def __init__(self, progress: Progress, report: Callable[[int, float], None]) -> None:
        self.progress, self.report = progress, report
        self.trainings: list[str] = []
        self.scores: dict[int, float] = {}

    def __call__(self, epoch: Epoch) -> None:
        if epoch.part not in self.trainings:
            self.trainings.append(epoch.part)
        n_epochs = epoch.n_epochs or epoch.epoch
        self.progress("epochs of this trial", epoch.epoch, n_epochs)
        if epoch.valid_lwlrap is not None:
            step = self.trainings.index(epoch.part) * n_epochs + epoch.epoch
            self.scores[step] = epoch.valid_lwlrap
            self.report(step, epoch.valid_lwlrap)


def _report(trial: "optuna.Trial", step: int, score: float) -> None:
    trial.report(score, step)
    if trial.should_prune():
        raise import_optuna().TrialPruned(f"pruned: lwlrap {score:.4f} after {step} epochs is below the median")


def _set_attributes(trial: "optuna.Trial", **attributes: Any) -> None:
    for name, value in attributes.items():
        trial.set_user_attr(name, value)


def _read(trial: "optuna.trial.FrozenTrial") -> Trial:
    attributes = trial.user_attrs
    state = attributes.get("state", "stopped")
    return Trial(
        trial.number,
        state,
        trial.value if state == "complete" else None,  # the value of a pruned trial is that of its last epoch
        attributes.get("seconds", 0.0),
        attributes.get("settings", {}),
        attributes.get("reason", _STOPPED_ONCE),
    )


def _reason_to_end(trials: Sequence[Trial], spent: float, budget: float | None, n_trials: int | None) -> str:
    """Why no further trial is started; "" if one is."""
    seconds = [trial.seconds for trial in trials if trial.state != "stopped"]
    if n_trials is not None and len(seconds) >= n_trials:
        return f"{len(seconds)} trials are done"
    if budget is None:
        return ""
    later = seconds[1:] or seconds  # the first one also computed spectrograms and features for the others
    mean = sum(later) / len(later)
    if spent + mean > budget:
        return f"{spent:.0f} of {budget:.0f} s are used, and a trial takes {mean:.1f} s; increase the budget to go on"
    return ""


def _best_toml(study: Study) -> str:
    first, best = study.trials[0], study.best
    return (
        f"# The best of {len(study.trials)} trials: held-out {study.metric} {best.score:.4f} (trial {best.number}); "
        f"{first.score:.4f} before the search.\n"
        "# The best of many trials is partly lucky: score the model on clips that no trial has used.\n"
        f"#\n#   spectag train MANIFEST -o MODEL --recipe {BEST_TOML}\n\n"
        f"{tomli_w.dumps(_without_null(explicit_settings(study.recipe)))}"
    )


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values for TOML, which has no null."""
    return {
        name: _without_null(value) if isinstance(value, dict) else "none" if value is None else value
        for name, value in values.items()
    }


def _distribution(domain: Range | SettingChoice) -> Any:
    """Optuna's distribution of the values of a setting."""
    distributions = import_optuna().distributions
    if isinstance(domain, Range):
        return distributions.FloatDistribution(domain.low, domain.high, log=domain.log)
    return distributions.CategoricalDistribution(domain.values)


def _without_epoch_steps(progress: Progress) -> Progress:
    """The same progress without the batches of each epoch, as a study has too many epochs."""

    def filtered(step: str, n_done: int, n_total: int) -> None:
        if not is_epoch_step(step):
            progress(step, n_done, n_total)

    return filtered
