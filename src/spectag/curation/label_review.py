"""Which labels of a manifest are most likely wrong or missing, and which of its sounds are at fault: a list, ranked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from spectag.array_types import BoolArray, Float32Array, FloatArray
from spectag.curation.label_errors import LabelNoise, LabelPosterior, label_posterior
from spectag.curation.near_duplicates import find_near_duplicates
from spectag.data.clips import Clip, Manifest
from spectag.data.corrections import Correction, apply_corrections, join_labels, key_of, read_corrections
from spectag.data.inspection import FULL_SCALE, SILENT_PEAK_DB, inspect
from spectag.data.manifest import read_manifest
from spectag.data.readers.delimited_text import some_of
from spectag.errors import DataError, MissingExtraError, did_you_mean
from spectag.evaluation.predictions import Predictions, predict_out_of_fold
from spectag.models.tagger import Tagger
from spectag.system.output import csv_writer, written
from spectag.system.progress import Log, Progress, no_log, silent

Kind = Literal[
    "swapped label", "wrong label", "missing label", "silent", "near duplicate", "clipped", "no doubt"
]  # of two that say the same of a clip, the first is shown
Method = Literal["self-confidence", "cleanlab"]

DOUBTS: tuple[Kind, ...] = ("swapped label", "wrong label", "missing label")
FAULTS: tuple[Kind, ...] = ("silent", "near duplicate", "clipped")
COLUMNS = ("rank", "kind", "fname", "start", "end", "labels", "label", "probability", "suggested", "score", "certainty")

_SUREST = 1e-7  # a float32 can't tell probabilities nearer to 0 and 1
_FEWEST_CLIPS = 3  # of a label, to be judged by networks that learnt it from the others
_N_LIKELY = 6  # labels to choose from


@dataclass(frozen=True)
class Finding:
    """A clip, and what may be wrong with it."""

    rank: int
    kind: Kind
    clip: Clip
    label: str | None
    """The label in doubt: given and likely wrong, or likely true and not given. None of faults of the sound."""
    probability: float | None
    """What the tagger says of this label."""
    suggested: tuple[str, ...]
    """What the clip's labels likely are."""
    score: float | None
    """Of labels, the probability that they are wrong; of near-duplicates, how alike they are, up to 1."""
    certainty: float | None
    """The probability that the suggested labels are right, all of them."""
    note: str = ""
    likely: tuple[tuple[str, float], ...] = ()
    """The most probable labels by the tagger, and those given and suggested, each with its probability."""

    def to_dict(self) -> dict[str, Any]:
        """All that can be told in JSON."""
        clip = {"fname": self.clip.fname, "start": self.clip.start_seconds, "end": self.clip.end_seconds}
        told = {name: value for name, value in asdict(self).items() if name not in ("rank", "kind", "clip", "likely")}
        return {"rank": self.rank, "kind": self.kind, **clip, "labels": self.clip.labels, **told}


@dataclass(frozen=True, eq=False)
class Review:
    """What was found in a manifest.

    `findings` are ranked: labels in doubt, surest first; then faults of sounds; then the clips without a doubt, so that
    each clip that was not settled before is in the ranking. `n_kept` were looked at before and found right.
    """

    manifest: Manifest
    findings: tuple[Finding, ...]
    noise: LabelNoise
    origins: dict[str, int]
    n_kept: int
    skipped: tuple[tuple[Clip, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind."""
        counts = Counter(finding.kind for finding in self.findings)
        return {kind: counts[kind] for kind in (*DOUBTS, *FAULTS, "no doubt")}

    def without(self, decided: Sequence[Correction]) -> "Review":
        """The same without the findings of clips that were decided meanwhile, the others keeping their ranks."""
        keys = {row.key for row in decided}
        return replace(self, findings=tuple(one for one in self.findings if key_of(one.clip) not in keys))

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {
            "manifest": str(self.manifest.source),
            "counts": self.counts,
            "reviewed_before": self.n_kept,
            "label_noise": {"missed": self.noise.missed, "false": self.noise.false},
            "origins": self.origins,
            "findings": [finding.to_dict() for finding in self.findings],
            "skipped": [{"fname": clip.fname, "reason": reason} for clip, reason in self.skipped],
        }


def review(
    tagger: Tagger,
    manifest: str | Path | Manifest,
    *,
    method: Method = "self-confidence",
    labels_only: bool = False,
    corrections: str | Path | None = None,
    audio_dir: str | Path | None = None,
    group_column: str | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> Review:
    """Rank a manifest's clips by how likely their labels are wrong, and find near-duplicates, silent and clipped clips.

    Parameters
    ----------
    tagger : Tagger
        One that was trained with folds on these clips, so that each is judged by networks that did not learn from it;
        or one that never saw them.
    manifest : path or Manifest
    method : "self-confidence" or "cleanlab"
        What doubts are ranked by: the probability that a label is wrong (see `label_doubts`), or cleanlab's multi-label
        scores (the extra `review`). Suggestions are the same.
    labels_only : bool
        Do not look for near-duplicates, silent and clipped clips, which takes longer than the labels.
    corrections : path, optional
        Corrections of the manifest, laid over it. Clips that were looked at and left as they were are not shown again;
        those that were corrected are if their new labels are doubted.
    audio_dir, group_column
        As in `read_manifest`.
    workers : int, optional
        Cores to use; by default all, or one for few clips.
    progress, say
        Told how far the work is, and what the judgement stands on.

    Raises
    ------
    DataError
        If the manifest or the corrections can't be read, tagger and manifest have no label in common, or no clip can
        be read.
    MissingExtraError
        If cleanlab is asked for and not installed.

    References
    ----------
    Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 70, 2021.
    """
    if method == "cleanlab":
        _cleanlab()  # before any work
    if not isinstance(manifest, Manifest):
        manifest = read_manifest(manifest, audio_dir=audio_dir, group_column=group_column)
    settled: set[Any] = set()
    touched: set[Any] = set()
    if corrections is not None:
        decided = read_corrections(corrections)
        manifest = apply_corrections(manifest, decided)
        touched = set(decided.last())
        settled = {key for key, row in decided.last().items() if not row.changes}
    columns = _common_labels(tagger, manifest, log)
    predictions = predict_out_of_fold(
        tagger, manifest, features=not labels_only, workers=workers, progress=progress, log=log
    )
    findings, noise = _judged(predictions, columns, _known_well(predictions, manifest, columns, log), method)
    faults = [] if labels_only else list(_faults(manifest, predictions, workers, progress))
    is_silent = {key_of(fault.clip) for fault in faults if fault.kind == "silent"}  # of them the tagger knows nothing
    open_findings = [
        *(finding for finding in findings if key_of(finding.clip) not in settled | is_silent),
        *(fault for fault in faults if key_of(fault.clip) not in touched),
    ]
    return Review(
        manifest=manifest,
        findings=tuple(replace(finding, rank=rank) for rank, finding in enumerate(_ordered(open_findings), start=1)),
        noise=noise,
        origins=dict(Counter(predictions.origins)),
        n_kept=len(settled),
        skipped=predictions.skipped,
    )


def _common_labels(tagger: Tagger, manifest: Manifest, log: Log) -> NDArray[np.intp]:
    """The columns of the tagger's labels that the manifest has."""
    known = set(manifest.labels.names)
    columns = [place for place, name in enumerate(tagger.labels.names) if name in known]
    if not columns:
        raise DataError(
            f"{manifest.source}: none of its {len(known)} labels is one of the {len(tagger.labels)} that "
            f"{tagger.folder} knows, such as {some_of(list(tagger.labels.names), 3)}; train a tagger on it first"
        )
    unknown = sorted(known - set(tagger.labels.names))
    for label in unknown:
        if hint := did_you_mean(label, tagger.labels.names):
            raise DataError(
                f"{manifest.source}: the tagger does not know the label {label!r}{hint} Mend the manifest first, or "
                "train a tagger on it: such a clip would count as one without its label"
            )
    if unknown:
        log(f"the tagger does not know {some_of(unknown)}: these labels are not judged")
    return np.array(columns, np.intp)


def _known_well(predictions: Predictions, manifest: Manifest, columns: NDArray[np.intp], log: Log) -> BoolArray:
    """The labels of which networks can know something that did not learn from a clip, of shape (n_labels,).

    A tagger that never saw the manifest knows its own labels. One that was trained on it does not, in a part of the
    clips, if there are too few in the others.
    """
    if set(predictions.origins) <= {"new"}:
        return np.ones(len(columns), np.bool_)
    group_of = dict(zip(manifest.clips, manifest.groups, strict=True))
    groups = np.array([group_of[clip] for clip in predictions.clips])
    given = predictions.y_true[:, columns]
    known = np.array([column.sum() >= _FEWEST_CLIPS and len(set(groups[column])) > 1 for column in given.T], np.bool_)
    rare = [predictions.labels.names[column] for column in columns[~known]]
    if rare:
        log(f"not judged, for fewer than {_FEWEST_CLIPS} clips or a single recording: {some_of(rare)}")
    return known


def _judged(
    predictions: Predictions, columns: NDArray[np.intp], known_well: BoolArray, method: Method
) -> tuple[list[Finding], LabelNoise]:
    """A finding for each clip, doubted or not."""
    given = predictions.y_true[:, columns]
    plain = predictions.uncalibrated[:, columns].astype(np.float64)
    believed = label_posterior(logit(np.clip(plain, _SUREST, 1 - _SUREST)), given, known_well)
    doubts = believed.doubts(given)
    scores = expit(doubts) if method == "self-confidence" else 1 - _cleanlab_quality(plain, given)
    order = np.argsort(-doubts if method == "self-confidence" else -scores, kind="stable")
    names = np.array(predictions.labels.names)[columns]
    known = set(names.tolist())
    told = predictions.probabilities[:, columns]
    certainty, likeliest = believed.certainty, believed.likeliest
    findings = []
    for row in order:
        clip = predictions.clips[row]
        others = tuple(label for label in clip.labels if label not in known)
        kind, place = _kind(given[row], likeliest[row], believed, row)
        suggested = tuple(names[likeliest[row]]) + others
        findings.append(
            Finding(
                rank=0,
                kind=kind,
                clip=clip,
                label=str(names[place]),
                probability=float(told[row, place]),
                suggested=clip.labels if set(suggested) == set(clip.labels) else tuple(map(str, suggested)),
                score=float(scores[row]),
                certainty=float(certainty[row]),
                note="the tagger learnt from this clip" if predictions.origins[row] == "learnt" else "",
                likely=_likely(names, told[row], given[row] | likeliest[row]),
            )
        )
    return findings, believed.noise


def _kind(given: BoolArray, likeliest: BoolArray, believed: LabelPosterior, row: int) -> tuple[Kind, int]:
    """What is likely wrong, and the place of the label that is most in doubt."""
    log_odds = believed.log_odds[row]
    removed, added = given & ~likeliest, likeliest & ~given
    if removed.any():
        return "swapped label" if added.any() else "wrong label", int(np.where(removed, log_odds, np.inf).argmin())
    if added.any():
        return "missing label", int(np.where(added, log_odds, -np.inf).argmax())
    return "no doubt", int(np.where(given, log_odds, -log_odds).argmin())


def _likely(names: NDArray[np.str_], probabilities: Float32Array, shown: BoolArray) -> tuple[tuple[str, float], ...]:
    order = np.argsort(-probabilities, kind="stable")
    chosen = set(order[:_N_LIKELY]) | set(np.flatnonzero(shown))
    return tuple((str(names[place]), float(probabilities[place])) for place in order if place in chosen)


def _cleanlab() -> Any:
    try:
        from cleanlab import multilabel_classification
    except ModuleNotFoundError as error:
        raise MissingExtraError("cleanlab", "review", "review by the method cleanlab") from error
    return multilabel_classification


def _cleanlab_quality(probabilities: FloatArray, given: BoolArray) -> FloatArray:
    """cleanlab's label quality (n_clips,), low where labels are likely wrong."""
    labels = [np.flatnonzero(row).tolist() for row in given]
    return np.asarray(_cleanlab().get_label_quality_scores(labels, probabilities), np.float64)


def _faults(manifest: Manifest, predictions: Predictions, workers: int | None, progress: Progress) -> Iterator[Finding]:
    """What is wrong with the sounds themselves: silent ones, near-duplicates and clipped ones, each worst first."""
    inspection = inspect(replace(manifest, clips=predictions.clips), workers=workers, progress=progress)
    by_name = {clip.name: clip for clip in predictions.clips}
    for name in inspection.silent:
        yield _fault("silent", by_name[name], f"no sample reaches {SILENT_PEAK_DB:g} dBFS", suggested=())
    assert predictions.features is not None
    pairs = find_near_duplicates(predictions.clips, predictions.features, workers=workers, progress=progress)
    told = [
        (_pair_note(predictions.clips[pair.clip], predictions.clips[pair.original]), pair.correlation, pair.clip)
        for pair in pairs
    ]
    for (_, note), correlation, row in sorted(told, key=lambda one: (-one[0][0], -one[1], one[2])):
        yield _fault("near duplicate", predictions.clips[row], note, score=correlation)
    for name, share in sorted(inspection.clipped.items(), key=lambda item: -item[1]):
        note = f"{share:.1%} of the samples at full scale ({FULL_SCALE:.5f}) or beyond"
        yield _fault("clipped", by_name[name], note)


def _pair_note(clip: Clip, original: Clip) -> tuple[int, str]:
    """How bad it is that two clips are one recording, and in words."""
    note = f"the same recording as {original.name}"
    differ = set(clip.labels) != set(original.labels)
    if differ:
        note += f", which has {', '.join(original.labels) or 'no label'}"
    leaks = clip.fold is not None and clip.fold != original.fold
    if leaks:
        note += f"; they are in two folds, {clip.fold} and {original.fold}"
    return 2 * differ + leaks, note


def _fault(
    kind: Kind, clip: Clip, note: str, *, score: float | None = None, suggested: tuple[str, ...] | None = None
) -> Finding:
    return Finding(0, kind, clip, None, None, clip.labels if suggested is None else suggested, score, None, note)


def _ordered(findings: Sequence[Finding]) -> list[Finding]:
    """Doubts, faults and the rest, each in the order in which they come."""
    parts = {kind: part for part, kinds in enumerate((DOUBTS, FAULTS, ("no doubt",))) for kind in kinds}
    return sorted(findings, key=lambda finding: parts[finding.kind])


def write_review(path: str | Path, found: Review) -> None:
    """Write the findings as a CSV, ranked.

    Raises
    ------
    DataError
        If it can't be written.
    """
    with written(path) as file:
        write_row = csv_writer(file)
        write_row([*COLUMNS, "note"])
        for finding in found.findings:
            clip = finding.clip
            end = "" if clip.end_seconds is None else f"{clip.end_seconds!r}"
            numbers = ("" if value is None else f"{value:.4f}" for value in (finding.score, finding.certainty))
            write_row(
                [
                    str(finding.rank),
                    finding.kind,
                    clip.fname,
                    f"{clip.start_seconds!r}" if clip.start_seconds else "",
                    end,
                    join_labels(clip.labels),
                    finding.label or "",
                    "" if finding.probability is None else f"{finding.probability:.4f}",
                    join_labels(finding.suggested),
                    *numbers,
                    finding.note,
                ]
            )


def accepted(found: Review, at_least: float, *, who: str, when: datetime) -> list[Correction]:
    """The suggestions that are certain enough, as corrections.

    Parameters
    ----------
    found : Review
    at_least : float
        Least probability that all labels of the suggestion are right.
    who : str
        Who takes the suggestions.
    when : datetime
        With its zone.
    """
    return [
        Correction(
            who=who,
            when=when,
            fname=finding.clip.fname,
            before=finding.clip.labels,
            after=finding.suggested,
            start_seconds=finding.clip.start_seconds,
            end_seconds=finding.clip.end_seconds,
            why=f"accepted as suggested, certainty {finding.certainty:.3f}",
        )
        for finding in found.findings
        if finding.kind in DOUBTS and finding.certainty is not None and finding.certainty >= at_least
    ]
