"""Near-duplicates: clips of the same recording in another format, sample rate, level or cut.

A network's features give the few most similar clips of each clip, and fingerprints those that share the most audio with
it. Whether two of them are the same recording is decided by their samples: aligned at the best lag, they are nearly
proportional. Features alone are not enough. To a network, rain from two places is more similar than a whole bark and
the same bark without its beginning. Two mixtures that share one sound have equal landmarks, too, but other labels.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft

from spectag.array_types import FloatArray
from spectag.audio.files import read_audio
from spectag.curation.embedding import Embedding, nearest_neighbors
from spectag.data.clips import Clip
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.shared_audio import SharedAudio
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, silent
from spectag.system.worker_pool import map_unordered, n_usable_cores

MIN_CORRELATION = 0.8
"""From this correlation on, two clips are the same recording. On ESC-10, copies as mp3 or ogg of low quality, at
16 kHz, clipped or with noise 20 dB below reach at least 0.95, different recordings of a label at most 0.69
(benchmarks/near_duplicates.py)."""

_N_NEIGHBOURS = 3
_N_CANDIDATES = 20  # closest clips, among which the neighbours from other files are found
_SAMPLE_RATE = 8_000  # Hz
_MAX_SECONDS = 30.0  # compared, from the beginning of the clip
_MIN_OVERLAP = 0.5  # of the shorter clip
_MIN_ENERGY = 0.25  # of each clip, in the overlap; otherwise silence would be compared with silence
_CLIPS_PER_WORKER = 50
_N_CACHED_CLIPS = 64


@dataclass(frozen=True)
class NearDuplicate:
    """A clip that is the same recording as an earlier clip, both by index."""

    clip: int
    original: int
    correlation: float


def find_near_duplicates(
    clips: Sequence[Clip],
    features: ArrayLike,
    shared: SharedAudio | None = None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[NearDuplicate, ...]:
    """The clips that are the same recording as an earlier clip, each with the earlier clip of the highest correlation.

    Images, and parts of the same file, are not compared.

    Parameters
    ----------
    clips : sequence of Clip
    features : float array of shape (n_clips, n_features)
        Features of a network. Each clip is compared with the three closest ones.
    shared : SharedAudio, optional
        Pairs of clips that share audio. Each clip is also compared with at least three of those with which it shares
        most.
    workers : int, optional
        Number of processes. By default one per core, or fewer if there are few clips.
    progress : Progress
        Called after each clip.
    """
    n_clips = len(clips)
    if n_clips < 2 or any(clip.path.suffix.lower() in IMAGE_SUFFIXES for clip in clips):
        return ()
    best: dict[int, NearDuplicate] = {}
    n_workers = workers or min(n_usable_cores(), 1 + n_clips // _CLIPS_PER_WORKER)
    progress("near-duplicates", 0, n_clips)
    results = map_unordered(_correlations, _candidates(clips, features, shared), n_workers=n_workers)
    for n_done, (((index, _), *others), correlations) in enumerate(results, start=1):
        for (other, _), correlation in zip(others, correlations, strict=True):
            pair = NearDuplicate(max(index, other), min(index, other), correlation)
            if correlation >= MIN_CORRELATION:
                best[pair.clip] = max(best.get(pair.clip, pair), pair, key=lambda row: (row.correlation, -row.original))
        progress("near-duplicates", n_done, n_clips)
    return tuple(best[index] for index in sorted(best))


def _candidates(
    clips: Sequence[Clip], features: ArrayLike, shared: SharedAudio | None
) -> Iterator[list[tuple[int, Clip]]]:
    """Each clip and its neighbours from other files, by index. Mutual neighbours are listed once."""
    vectors = Embedding.fit(features)(features)
    closest, _ = nearest_neighbors(vectors, vectors, _N_CANDIDATES)
    neighbours = [
        set([row for row in rows if clips[row].path != clip.path][:_N_NEIGHBOURS])
        for clip, rows in zip(clips, closest.tolist(), strict=True)
    ]
    n_sharing: Counter[int] = Counter()
    pairs = [] if shared is None else shared.pairs[np.argsort(-shared.n_matches, kind="stable")].tolist()
    for first, second in pairs:
        is_needed = min(n_sharing[first], n_sharing[second]) < _N_NEIGHBOURS
        if is_needed and clips[first].path != clips[second].path:
            neighbours[first].add(second)
            n_sharing.update((first, second))
    for index, clip in enumerate(clips):
        others = sorted(other for other in neighbours[index] if other > index or index not in neighbours[other])
        yield [(index, clip), *((other, clips[other]) for other in others)]


def _correlations(candidates: list[tuple[int, Clip]]) -> list[float]:
    """The correlation of the first clip with each of the others."""
    (_, clip), *others = candidates
    return [correlation(comparison_waveform(clip), comparison_waveform(other)) for _, other in others]


@lru_cache(_N_CACHED_CLIPS)
def comparison_waveform(clip: Clip) -> FloatArray:
    """The clip's first 30 s at 8 kHz, without the mean, shape (n_samples,); empty if the clip can't be read."""
    limit = clip.start_seconds + _MAX_SECONDS
    end = limit if clip.end_seconds is None else min(clip.end_seconds, limit)
    try:
        waveform, _ = read_audio(clip.path, start_seconds=clip.start_seconds, end_seconds=end, sample_rate=_SAMPLE_RATE)
    except Exception as error:
        skip_reason(clip.path, error)  # raises it again if it concerns the whole run
        return np.zeros(0)
    samples = waveform.astype(np.float64)
    return np.asarray(samples - samples.mean())


def correlation(first: FloatArray, second: FloatArray) -> float:
    """The maximum correlation of two waveforms over all lags; 0 if one is silent. The sign is ignored.

    Only lags count at which the waveforms overlap by at least half of the shorter one, and a quarter of the energy of
    each one is in the overlap.

    Parameters
    ----------
    first, second : float arrays of shape (n_samples,)
        With the same sample rate. Their lengths and levels may differ.
    """
    if not (first.any() and second.any()):
        return 0.0
    n_fft = next_fast_len(len(first) + len(second) - 1, real=True)
    products = irfft(rfft(first, n_fft) * rfft(second[::-1], n_fft), n_fft)[: len(first) + len(second) - 1]
    lags = np.arange(1 - len(second), len(first))  # the position of sample 0 of the second waveform in the first
    begin, end = np.maximum(lags, 0), np.minimum(len(first), lags + len(second))
    cumulative_first, cumulative_second = (np.concatenate([[0.0], np.cumsum(wave**2)]) for wave in (first, second))
    energy_first = cumulative_first[end] - cumulative_first[begin]
    energy_second = cumulative_second[end - lags] - cumulative_second[begin - lags]
    valid = (
        (end - begin >= _MIN_OVERLAP * min(len(first), len(second)))
        & (energy_first >= _MIN_ENERGY * cumulative_first[-1])
        & (energy_second >= _MIN_ENERGY * cumulative_second[-1])
    )
    if not valid.any():
        return 0.0
    return float((np.abs(products[valid]) / np.sqrt(energy_first[valid] * energy_second[valid])).max())
