"""The head of frames: which labels are on when, trained on recordings that are mixed from the training clips.

A clip's labels hold for the whole clip. So some of the clips are mixed to recordings, in which the times of all sounds
are known, and a logistic regression learns from the frames of a frozen network which labels are on. Its thresholds are
those with the best scores of events and segments in recordings of clips that another head was not trained on.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx
from scipy.ndimage import grey_closing
from scipy.special import expit, logit

from spectag.array_types import FloatArray, IntArray
from spectag.audio.front_end import FrontEnd
from spectag.config.base import MelConfig, SegmentConfig
from spectag.data.spectrograms.clip_inputs import ClipInputs
from spectag.errors import DataError
from spectag.models.frames_info import FramesInfo
from spectag.models.out_of_fold import cross_fitting_folds
from spectag.models.timeline import Timeline, find_segments, median_filtered
from spectag.scoring.event_scores import DetectionCounts, SoundEvents, count_events, count_segments
from spectag.system.worker_pool import n_usable_cores
from spectag.training.heads.frame_scenes import NOT_TRAINED, FrameScene, Truth, choose_clips, make_frame_scenes
from spectag.training.heads.logistic import LinearHead, PrincipalAxes, fit_logistic_heads
from spectag.training.networks.feature_network import FeatureNetwork
from spectag.training.networks.frame_graph import FrameGraph
from spectag.training.setup.callbacks import Callbacks
from spectag.training.setup.cross_validation import CrossValidation

_WEIGHT_DECAY, _N_AXES, _ROW_STEP = 1e-4, 800, 2  # on ESC-10, all 1,760 axes and all rows give the same scores
_THRESHOLDS = np.linspace(0.05, 0.95, 19)
_SHARED_WEIGHT = 2.0  # of the mean of all labels in the choice of a label's threshold, relative to its own events
_LEAST_DISTANCE = 1e-4  # of a threshold from 0 and 1, before it is converted to a logit


@dataclass(frozen=True, eq=False)
class FrameModel:
    """A network of frames with its head, and the thresholds (n_labels,) of its probabilities."""

    graph: FrameGraph
    head: LinearHead
    thresholds: FloatArray

    @property
    def info(self) -> FramesInfo:
        """For spectag.json."""
        return self.graph.info

    def onnx(self, window_thresholds: FloatArray) -> onnx.ModelProto:
        """The network of frames, with probabilities to which the thresholds (n_labels,) of windows apply.

        Logits are scaled and shifted so that the threshold of frames becomes that of windows, and that the probability
        at which a segment ends, `hysteresis` times the threshold, does so, too.
        """
        own, new = (
            np.clip(values, _LEAST_DISTANCE, 1 - _LEAST_DISTANCE) for values in (self.thresholds, window_thresholds)
        )
        end = self.info.hysteresis
        scale = np.ones(len(own))
        if 0 < end < 1:
            scale = (logit(new) - logit(end * new)) / (logit(own) - logit(end * own))
        return self.graph.with_head(self.head, scale, logit(new) - scale * logit(own))


def fit_frames(
    network: FeatureNetwork,
    front_end: FrontEnd,
    clips: ClipInputs,
    cross_validation: CrossValidation,
    seed: int,
    callbacks: Callbacks,
) -> FrameModel | None:
    """The network of frames of a frozen network that `has_stages`; None if the clips do not allow it, which is logged.

    Raises
    ------
    AudioError
        If a clip can no longer be read.
    """
    assert front_end.mel is not None
    manifest, parts = clips.manifest, _parts(cross_validation)
    chosen = choose_clips(manifest, parts, clips.seconds, np.random.default_rng(seed))
    if chosen is None or len({part for part in chosen.parts if part >= 0}) < 2:
        callbacks.log("segments are found from windows: too few short clips to learn when a sound starts and ends")
        return None
    graph = FrameGraph(network.name, network.weights, front_end.mel.n_mels)
    try:
        scenes = make_frame_scenes(manifest, parts, chosen, graph, front_end, seed=seed, progress=callbacks.progress)
    except DataError:
        callbacks.log("segments are found from windows: no clip is audible")
        return None
    return _fit(graph, scenes, chosen.truths, manifest.labels.names, front_end.mel)


def _parts(cross_validation: CrossValidation) -> IntArray:
    """The part of each clip, (n_clips,): parts are held out together, folds or groups of recordings."""
    is_used, parts = cross_validation.trainings[-1].train, cross_validation.parts
    if len(cross_validation.folds) == 1:  # its held-out clips are not trained on
        groups = cross_validation.groups
        parts = cross_fitting_folds([str(row) for row in range(len(parts))] if groups is None else groups)
    return np.where(is_used, parts, NOT_TRAINED)


def _fit(
    graph: FrameGraph, scenes: Sequence[FrameScene], truths: Mapping[str, Truth], labels: Sequence[str], mel: MelConfig
) -> FrameModel:
    """The head that is trained on all recordings, with thresholds by heads that are trained without a part."""
    features = np.concatenate([scene.features[::_ROW_STEP] for scene in scenes])
    targets = np.concatenate([scene.targets[::_ROW_STEP] for scene in scenes])
    parts = np.concatenate([np.full(len(scene.features[::_ROW_STEP]), scene.part) for scene in scenes])
    axes = PrincipalAxes.largest(features, graph.group_sizes, _N_AXES)

    def head_without(part: int | None) -> LinearHead:
        used = np.ones(len(parts), bool) if part is None else parts != part
        return fit_logistic_heads(axes.of_rows(used), targets[used], [_WEIGHT_DECAY])[0]

    held_out = sorted({part for part in parts.tolist() if part >= 0})
    with ThreadPoolExecutor(n_usable_cores()) as pool:
        final, *of_parts = pool.map(head_without, [None, *held_out])
    heads = dict(zip(held_out, of_parts, strict=True))
    scored = [scene for scene in scenes if scene.part in heads]
    probabilities = [expit(heads[scene.part].logits(scene.features)) for scene in scored]
    return FrameModel(graph, final, _best_thresholds(scored, probabilities, truths, labels, graph.info, mel))


def _best_thresholds(
    scenes: Sequence[FrameScene],
    probabilities: Sequence[FloatArray],
    truths: Mapping[str, Truth],
    labels: Sequence[str],
    info: FramesInfo,
    mel: MelConfig,
) -> FloatArray:
    """For each label, the threshold with the best mean F1 of events and segments, shrunk to that of all labels."""
    truth = _true_events(scenes, truths, labels)
    timelines = [_smoothed(values, info, mel) for values in probabilities]
    config = SegmentConfig(smooth_windows=1, hysteresis=info.hysteresis)
    scores = []
    for threshold in _THRESHOLDS:
        limits = np.full(len(labels), threshold, np.float32)
        segments = [find_segments(timeline, limits, config) for timeline in timelines]
        detected = _events(
            (number, segment.start_seconds, segment.end_seconds, segment.label_index)
            for number, of_scene in enumerate(segments)
            for segment in of_scene
        )
        scores.append(_mean_f1(truth, detected, (len(scenes), len(labels))))
    padded = np.pad(scores, ((1, 1), (0, 0)), mode="edge")
    return np.asarray(_THRESHOLDS[(padded[:-2] + padded[1:-1] + padded[2:]).argmax(axis=0)])


def _true_events(scenes: Sequence[FrameScene], truths: Mapping[str, Truth], labels: Sequence[str]) -> SoundEvents:
    columns = {label: column for column, label in enumerate(labels)}
    rows = (
        (number, event.start_seconds, event.end_seconds, columns[name])
        for number, scene in enumerate(scenes)
        for event in scene.events
        for name in truths[event.label].on
    )
    return _events(rows).merged()


def _events(rows: Iterable[tuple[int, float, float, int]]) -> SoundEvents:
    """Events from the recording, start, end and label of each."""
    recordings, starts, ends, labels = np.array([*rows], np.float64).reshape(-1, 4).T
    return SoundEvents(recordings.astype(int), starts, ends, labels.astype(int))


def _mean_f1(truth: SoundEvents, detected: SoundEvents, shape: tuple[int, int]) -> FloatArray:
    """The mean of three F1 scores of each label, (n_labels,)."""
    counts = (
        count_events(truth, detected, shape, collar_seconds=0.2, offset_fraction=0.2),
        count_events(truth, detected, shape, collar_seconds=1.0, offset_fraction=0.2),
        count_segments(truth, detected, shape),
    )
    return np.asarray(np.mean([_shrunk_f1(count) for count in counts], axis=0))


def _smoothed(probabilities: FloatArray, info: FramesInfo, mel: MelConfig) -> Timeline:
    closed = grey_closing(probabilities.astype(np.float32), (info.closed_frames, 1), mode="nearest")
    seconds = info.frame_seconds(mel)
    middles = seconds * np.arange(len(closed), dtype=np.float64)
    return Timeline((middles - seconds / 2).clip(0), middles + seconds / 2, median_filtered(closed, info.smooth_frames))


def _shrunk_f1(counts: DetectionCounts) -> FloatArray:
    """The F1 of each label, (n_labels,), as if it had as many sounds like those of all labels as well."""
    of_labels = counts.of_recordings()
    correct, n_true, detected = (
        values + _SHARED_WEIGHT * values.mean()
        for values in (of_labels.n_correct, of_labels.n_true, of_labels.n_detected)
    )
    return DetectionCounts(correct, n_true, detected).f1
