"""Label review: a ranked list of the clips whose labels are most likely wrong, and of clips with audio issues."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from spectag.array_types import BoolArray, Float32Array, FloatArray, IntArray
from spectag.audio.sound_faults import FULL_SCALE, SILENT_PEAK_DB
from spectag.curation.label_errors import LabelNoise, label_posterior
from spectag.curation.near_duplicates import find_near_duplicates
from spectag.data.clips import Clip, Manifest, labels_contradict
from spectag.data.corrections import (
    Correction,
    Corrections,
    append_corrections,
    apply_corrections,
    correction_key,
    join_labels,
    read_corrections,
)
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.inspection import inspect
from spectag.data.manifest import ManifestInput, as_manifest
from spectag.data.readers.delimited_text import abbreviate
from spectag.data.readers.rows import format_times
from spectag.data.shared_audio import find_shared_audio
from spectag.errors import DataError, MissingExtraError, did_you_mean
from spectag.evaluation.predictions import Predictions, predict_out_of_fold
from spectag.models.pretrained import open_tagger
from spectag.models.tagger import Tagger
from spectag.system.output import csv_writer, open_output
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.system.short_texts import short_repr

IssueKind = Literal[
    "swapped label", "wrong label", "missing label", "silent", "near duplicate", "clipped", "no doubt"
]  # if a clip has two issues of equal rank, the first kind is shown
RankingMethod = Literal["self-confidence", "cleanlab"]

LABEL_ISSUES: tuple[IssueKind, ...] = ("swapped label", "wrong label", "missing label")
AUDIO_ISSUES: tuple[IssueKind, ...] = ("silent", "near duplicate", "clipped")
REVIEW_COLUMNS = (
    *("rank", "kind", "fname", "start", "end", "labels", "label", "probability", "suggested", "score", "certainty"),
    "note",
)

_MIN_PROBABILITY = 1e-7  # float32 can't represent probabilities closer to 1
_MIN_CLIPS = 3  # of a label, so that out-of-fold networks can predict it
_N_CANDIDATES = 6  # most probable labels that are stored for each clip


@dataclass(frozen=True)
class Finding:
    """A clip, and what may be wrong with it."""

    rank: int
    kind: IssueKind
    clip: Clip
    label: str | None
    """The doubtful label: given and likely wrong, or not given and likely true. None for audio issues."""
    probability: float | None
    """The model's probability of this label."""
    suggested: tuple[str, ...]
    """The most likely labels of the clip."""
    score: float | None
    """The probability that the labels are wrong; for near-duplicates, the correlation."""
    certainty: float | None
    """The probability that all suggested labels are right."""
    note: str = ""
    label_probabilities: tuple[tuple[str, float], ...] = ()
    """The most probable labels, and the given and suggested ones, each with the model's probability."""
    original: Clip | None = None
    """The clip that a near-duplicate is the same recording as."""

    def to_dict(self) -> dict[str, Any]:
        """The finding for JSON, without `label_probabilities` and `original`."""
        clip = {"fname": self.clip.fname, "start": self.clip.start_seconds, "end": self.clip.end_seconds}
        left_out = ("clip", "label_probabilities", "original")
        values = {"rank": self.rank, "kind": self.kind, **clip, "labels": self.clip.labels, **asdict(self)}
        return {name: value for name, value in values.items() if name not in left_out}


@short_repr
@dataclass(frozen=True, eq=False)
class Review:
    """The result of `review`."""

    manifest: Manifest
    findings: tuple[Finding, ...]
    """One for each clip that was not reviewed before: label issues, most certain first; audio issues; no doubt."""
    noise: LabelNoise
    origins: dict[str, int]
    """Number of clips by the origin of their predictions."""
    n_confirmed: int
    """Clips that are left out because a reviewer confirmed their labels."""
    skipped: tuple[tuple[Clip, str], ...]
    """Clips that can't be read, each with the reason."""
    predictions: Predictions | None = None
    """What the findings are based on: probabilities, novelty and, unless only labels were checked, features."""

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind."""
        kinds = [finding.kind for finding in self.findings]
        return {kind: kinds.count(kind) for kind in get_args(IssueKind)}

    def without(self, corrections: Collection[Correction]) -> "Review":
        """The review without the findings of corrected clips. The other findings keep their ranks."""
        keys = {row.key for row in corrections}
        return replace(self, findings=tuple(row for row in self.findings if correction_key(row.clip) not in keys))

    def to_dict(self) -> dict[str, Any]:
        """The review for JSON."""
        return {
            "manifest": str(self.manifest.source),
            "counts": self.counts,
            "reviewed_before": self.n_confirmed,
            "label_noise": {"missed": self.noise.missed, "false": self.noise.false},
            "origins": self.origins,
            "findings": [finding.to_dict() for finding in self.findings],
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
        }


@shows_progress
def review(
    model: str | Path | Tagger,
    manifest: ManifestInput,
    *,
    method: RankingMethod = "self-confidence",
    labels_only: bool = False,
    corrections: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Review:
    """Rank a manifest's clips by how likely their labels are wrong; find near-duplicates, silent and clipped clips.

    Parameters
    ----------
    model : str, Path or Tagger
        A model that was trained with folds on these clips, so that they are checked with out-of-fold predictions; or a
        model that was not trained on them.
    manifest : path, DataFrame or Manifest
    method : "self-confidence" or "cleanlab"
        Rank by the probability that a label is wrong (see `label_errors`), or by the multi-label scores of cleanlab
        (extra `review`). The suggested labels are the same.
    labels_only : bool
        Do not look for near-duplicates, silent and clipped clips, which takes longer than checking the labels.
    corrections : path, optional
        Corrections to apply first. Clips with confirmed labels are left out. Corrected clips are included if their new
        labels are doubtful.
    audio_dir, group_column
        As for `read_manifest`.
    workers : int, optional
        Number of cores. By default all, or one for few clips.
    progress, log
        Called with the progress of the work, and with notes on the predictions.

    Raises
    ------
    DataError
        If the manifest or the corrections can't be read, model and manifest have no label in common, or no clip can be
        read.
    MissingExtraError
        If the method is "cleanlab", and cleanlab is not installed.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021.
    """
    if method == "cleanlab":
        _import_cleanlab()  # fails before any work
    tagger = open_tagger(model, progress=progress, log=log)
    manifest = as_manifest(manifest, audio_dir=audio_dir, group_column=group_column)
    last_corrections = {}
    if corrections is not None:
        table = read_corrections(corrections)
        manifest = apply_corrections(manifest, table)
        last_corrections = table.last()
    confirmed = {key for key, row in last_corrections.items() if not row.changes}
    columns = _common_labels(tagger, manifest, log)
    features = not labels_only
    predictions = predict_out_of_fold(tagger, manifest, features=features, workers=workers, progress=progress, log=log)
    reliable = _reliable_labels(predictions, manifest, columns, log)
    label_findings, noise = _check_labels(predictions, columns, reliable, method)
    audio_findings = [] if labels_only else list(_check_audio(manifest, predictions, workers, progress))
    audio_findings = [found for found in audio_findings if correction_key(found.clip) not in last_corrections]
    unconfirmed = [found for found in label_findings if correction_key(found.clip) not in confirmed]
    findings = _one_of_each_clip(unconfirmed, audio_findings)
    findings.sort(key=lambda finding: 0 if finding.kind in LABEL_ISSUES else 1 if finding.kind in AUDIO_ISSUES else 2)
    return Review(
        manifest=manifest,
        findings=tuple(replace(finding, rank=rank) for rank, finding in enumerate(findings, start=1)),
        noise=noise,
        origins=dict(Counter(predictions.origins)),
        n_confirmed=len(confirmed),
        skipped=predictions.skipped,
        predictions=predictions,
    )


def _one_of_each_clip(label_findings: Sequence[Finding], audio_findings: Sequence[Finding]) -> list[Finding]:
    """The findings, one of each clip: its first audio issue replaces "no doubt", and is added to the note otherwise.

    The labels of a silent clip are not checked.
    """
    first_issues: dict[Any, Finding] = {}
    for finding in audio_findings:
        first_issues.setdefault(correction_key(finding.clip), finding)
    findings = []
    for finding in label_findings:
        issue = first_issues.get(correction_key(finding.clip))
        if issue is None:
            findings.append(finding)
        elif finding.kind in LABEL_ISSUES and issue.kind != "silent":
            note = "; ".join(filter(None, (finding.note, issue.note)))
            findings.append(replace(finding, note=note, original=issue.original))
            del first_issues[correction_key(finding.clip)]
    return [*findings, *first_issues.values()]


def _common_labels(tagger: Tagger, manifest: Manifest, log: Log) -> IntArray:
    """The columns of the model's labels that the manifest has."""
    in_manifest = set(manifest.labels.names)
    columns = [column for column, name in enumerate(tagger.labels.names) if name in in_manifest]
    if not columns:
        raise DataError(
            f"{manifest.source}: none of its {len(in_manifest)} labels is one of the {len(tagger.labels)} labels of "
            f"{tagger.folder}, such as {abbreviate(list(tagger.labels.names), 3)}; train a model on the manifest first"
        )
    unknown = sorted(in_manifest - set(tagger.labels.names))
    for label in unknown:
        if hint := did_you_mean(label, tagger.labels.names):
            raise DataError(
                f"{manifest.source}: the model does not know the label {label!r}{hint} Correct the manifest first, or "
                "train a model on it: otherwise such clips would be checked as clips without the label"
            )
    if unknown:
        log(f"the model does not know these labels, which are not checked: {abbreviate(unknown)}")
    return np.array(columns, np.int64)


def _reliable_labels(predictions: Predictions, manifest: Manifest, columns: IntArray, log: Log) -> BoolArray:
    """The labels that networks can predict for clips that they were not trained on, of shape (n_labels,).

    A model that was not trained on the manifest can predict all its labels. In cross-validation, a label needs several
    clips from several groups.
    """
    if set(predictions.origins) <= {"unseen"}:
        return np.ones(len(columns), np.bool_)
    group_of_clip = dict(zip(manifest.clips, manifest.groups, strict=True))
    groups = np.array([group_of_clip[clip] for clip in predictions.clips])
    given = predictions.y_true[:, columns]
    reliable = np.array([column.sum() >= _MIN_CLIPS and len(set(groups[column])) > 1 for column in given.T], np.bool_)
    rare = [predictions.labels.names[column] for column in columns[~reliable]]
    if rare:
        log(f"not checked, because they have fewer than {_MIN_CLIPS} clips or a single recording: {abbreviate(rare)}")
    return reliable


def _check_labels(
    predictions: Predictions, columns: IntArray, reliable: BoolArray, method: RankingMethod
) -> tuple[list[Finding], LabelNoise]:
    """A finding for each clip, the most doubtful first, including clips without doubt; and the label noise."""
    given, unknown = predictions.y_true[:, columns], predictions.unknown[:, columns]
    uncalibrated = predictions.uncalibrated[:, columns].astype(np.float64)
    logits = logit(np.clip(uncalibrated, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY))
    posterior = label_posterior(logits, predictions.targets[:, columns], reliable)
    if method == "self-confidence":
        ranking = posterior.error_log_odds(given)
        scores = expit(ranking)
    else:
        ranking = scores = 1 - _cleanlab_quality(np.where(unknown, 0.0, uncalibrated), given)
    names = np.array(predictions.labels.names)[columns]
    probabilities = predictions.probabilities[:, columns]
    certainty, most_likely = posterior.certainty, posterior.most_likely
    findings = []
    for row in np.argsort(-ranking, kind="stable"):
        clip = predictions.clips[row]
        kind, doubtful = _issue(given[row], most_likely[row], posterior.log_odds[row])
        suggested = (*map(str, names[most_likely[row]]), *(label for label in clip.labels if label not in names))
        findings.append(
            Finding(
                rank=0,
                kind=kind,
                clip=clip,
                label=str(names[doubtful]),
                probability=float(probabilities[row, doubtful]),
                suggested=clip.labels if set(suggested) == set(clip.labels) else suggested,
                score=float(scores[row]),
                certainty=float(certainty[row]),
                note="the model was trained on this clip" if predictions.origins[row] == "train" else "",
                label_probabilities=_label_probabilities(names, probabilities[row], given[row] | most_likely[row]),
            )
        )
    return findings, posterior.noise


def _issue(given: BoolArray, most_likely: BoolArray, log_odds: FloatArray) -> tuple[IssueKind, int]:
    """What is likely wrong with a clip's labels, and the index of the most doubtful label."""
    removed, added = given & ~most_likely, most_likely & ~given
    if removed.any():
        return "swapped label" if added.any() else "wrong label", int(np.where(removed, log_odds, np.inf).argmin())
    if added.any():
        return "missing label", int(np.where(added, log_odds, -np.inf).argmax())
    return "no doubt", int(np.where(given, log_odds, -log_odds).argmin())


def _label_probabilities(
    names: NDArray[np.str_], probabilities: Float32Array, included: BoolArray
) -> tuple[tuple[str, float], ...]:
    """The most probable and the included labels with their probabilities, in descending order."""
    order = np.argsort(-probabilities, kind="stable")
    chosen = set(order[:_N_CANDIDATES]) | set(np.flatnonzero(included))
    return tuple((str(names[label]), float(probabilities[label])) for label in order if label in chosen)


def _import_cleanlab() -> Any:
    try:
        from cleanlab import multilabel_classification
    except ModuleNotFoundError as error:
        raise MissingExtraError("cleanlab", "review", "review by the method cleanlab") from error
    return multilabel_classification


def _cleanlab_quality(probabilities: FloatArray, given: BoolArray) -> FloatArray:
    """cleanlab's label quality (n_clips,); it is low if the labels are likely wrong."""
    labels = [np.flatnonzero(row).tolist() for row in given]
    return np.asarray(_import_cleanlab().get_label_quality_scores(labels, probabilities), np.float64)


def _check_audio(
    manifest: Manifest, predictions: Predictions, workers: int | None, progress: Progress
) -> Iterator[Finding]:
    """Silent clips, near-duplicates and clipped clips, each with the worst first."""
    inspection = inspect(
        replace(manifest, clips=predictions.clips), find_shared_audio=False, workers=workers, progress=progress
    )
    clip_by_name = {clip.name: clip for clip in predictions.clips}
    for name in inspection.silent:
        note = f"no sample reaches {SILENT_PEAK_DB:g} dBFS"
        yield replace(_audio_finding("silent", clip_by_name[name], note), suggested=())
    yield from _near_duplicates(predictions, workers, progress)
    for name, fraction in sorted(inspection.clipped.items(), key=lambda item: -item[1]):
        note = f"{fraction:.1%} of the samples at full scale ({FULL_SCALE:.5f}) or beyond"
        yield _audio_finding("clipped", clip_by_name[name], note)


def _near_duplicates(predictions: Predictions, workers: int | None, progress: Progress) -> Iterator[Finding]:
    """Near-duplicates: first those with different labels, then those in different folds, by correlation."""
    assert predictions.features is not None
    clips = predictions.clips
    ranked = []
    fingerprints = clip_fingerprints(clips, workers=workers, progress=progress)
    shared = find_shared_audio(fingerprints, speeds=(1.0,), workers=workers, progress=progress)
    for pair in find_near_duplicates(clips, predictions.features, shared, workers=workers, progress=progress):
        clip, original = clips[pair.clip], clips[pair.original]
        note = f"the same recording as {original.name}"
        labels_differ = labels_contradict([clip, original])
        if labels_differ:
            note += f", which has {', '.join(original.labels) or 'no label'}"
        leaks = clip.fold is not None and clip.fold != original.fold
        if leaks:
            note += f"; they are in two folds, {clip.fold} and {original.fold}"
        finding = replace(_audio_finding("near duplicate", clip, note), score=pair.correlation, original=original)
        ranked.append((-labels_differ, -leaks, -pair.correlation, pair.clip, finding))
    yield from (finding for *_, finding in sorted(ranked, key=lambda item: item[:-1]))


def _audio_finding(kind: IssueKind, clip: Clip, note: str) -> Finding:
    return Finding(0, kind, clip, None, None, suggested=clip.labels, score=None, certainty=None, note=note)


def write_review(path: str | Path, review: Review) -> None:
    """Write the ranked findings as a CSV.

    Raises
    ------
    DataError
        If the file can't be written.
    """
    with open_output(path) as file:
        write_row = csv_writer(file)
        write_row(REVIEW_COLUMNS)
        for finding in review.findings:
            clip = finding.clip
            numbers = finding.probability, finding.score, finding.certainty
            probability, score, certainty = ("" if number is None else f"{number:.4f}" for number in numbers)
            times, labels = format_times(clip.start_seconds, clip.end_seconds), join_labels(clip.labels)
            label = finding.label or "", probability, join_labels(finding.suggested)
            write_row(
                [str(finding.rank), finding.kind, clip.fname, *times, labels, *label, score, certainty, finding.note]
            )


def accept_suggestions(review: Review, min_certainty: float, *, reviewer: str, time: datetime) -> list[Correction]:
    """The suggestions with at least this certainty, as corrections.

    Parameters
    ----------
    review : Review
    min_certainty : float
        Minimum probability that all suggested labels are right.
    reviewer : str
        Who accepts the suggestions.
    time : datetime
        With a time zone.
    """
    return [
        Correction(
            reviewer=reviewer,
            time=time,
            fname=finding.clip.fname,
            old_labels=finding.clip.labels,
            new_labels=finding.suggested,
            start_seconds=finding.clip.start_seconds,
            end_seconds=finding.clip.end_seconds,
            comment=f"accepted as suggested, certainty {finding.certainty:.3f}",
        )
        for finding in review.findings
        if finding.kind in LABEL_ISSUES and finding.certainty is not None and finding.certainty >= min_certainty
    ]


def check_corrections_target(target: Path, corrections: Path | None) -> None:
    """Check, before any work, that accepted suggestions can be added to a table of corrections.

    Raises
    ------
    DataError
        If the table exists, but was not applied to the manifest (`corrections`).
    """
    if target.exists() and (corrections is None or corrections.resolve() != target.resolve()):
        raise DataError(
            f"{target}: the file contains corrections, which have to be applied first; add --corrections {target}"
        )


def with_accepted(target: Path, accepted: Sequence[Correction], previous: Corrections | None) -> Corrections:
    """The corrections that a table will contain after `save_accepted`."""
    return Corrections(target, (*(() if previous is None else previous.rows), *accepted))


def save_accepted(target: Path, accepted: Sequence[Correction], previous: Corrections | None) -> None:
    """Add accepted suggestions to a table of corrections. A new table begins with `previous`."""
    rows = accepted if target.exists() else with_accepted(target, accepted, previous).rows
    append_corrections(target, rows)
