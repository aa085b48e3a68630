"""Clips that are the same recording twice: another format, rate or level, or cut at another place.

A network's features name the few clips that sound most alike; whether two of them are one recording, the sounds
themselves say: their samples, laid one over the other at the best place, are then nearly proportional. Features alone
would not do. Rain from two places is more alike to a network than one bark cut off at its beginning is to the whole.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.fft import irfft, next_fast_len, rfft

from spectag.array_types import FloatArray
from spectag.audio.files import read_audio
from spectag.curation.embedding import Embedding, nearest
from spectag.data.clips import Clip
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import SpectagError
from spectag.system.progress import Progress, silent
from spectag.system.worker_pool import map_unordered, n_usable_cores

LEAST_CORRELATION = 0.8
"""From which two clips are one recording. On ESC-10, copies as mp3 or ogg of low quality, at 16 kHz, clipped or with
noise 20 dB below reach 0.95 at least, different recordings of a label 0.69 at most (benchmarks/near_duplicates.py)."""

_N_NEIGHBOURS = 3
_MOST_LOOKED_AT = 20  # for neighbours from other files
_SAMPLE_RATE = 8_000  # Hz
_SECONDS = 30.0  # compared, from the beginning
_LEAST_OVERLAP = 0.5  # of the shorter clip
_LEAST_ENERGY = 0.25  # of each clip, in the overlap: or silence would lie on silence
_CLIPS_WORTH_A_WORKER = 50
_CACHED_CLIPS = 64


@dataclass(frozen=True)
class NearDuplicate:
    """A clip that sounds like an earlier one, both by their place."""

    clip: int
    original: int
    correlation: float


@dataclass(frozen=True)
class _Candidates:
    place: int
    clip: Clip
    others: tuple[tuple[int, Clip], ...]


def find_near_duplicates(
    clips: Sequence[Clip], features: ArrayLike, *, workers: int | None = None, progress: Progress = silent
) -> tuple[NearDuplicate, ...]:
    """The clips of which an earlier clip has the same sound, each with the one that is most alike.

    Parts of one file are not compared with each other, nor are images.

    Parameters
    ----------
    clips : sequence of Clip
    features : float array of shape (n_clips, n_features)
        A network's. Each clip is compared with the three that are nearest by them.
    workers : int, optional
        Number of processes; by default one per core, or one for few clips.
    progress : Progress
        Told of each clip.
    """
    n_clips = len(clips)
    if n_clips < 2 or any(clip.path.suffix.lower() in IMAGE_SUFFIXES for clip in clips):
        return ()
    found: dict[int, NearDuplicate] = {}
    n_workers = workers or min(n_usable_cores(), 1 + n_clips // _CLIPS_WORTH_A_WORKER)
    progress("near-duplicates", 0, n_clips)
    answers = map_unordered(_correlations, _candidates(clips, features), n_workers=n_workers)
    for n_done, (candidates, correlations) in enumerate(answers, start=1):
        for (other, _), correlation in zip(candidates.others, correlations, strict=True):
            pair = NearDuplicate(max(candidates.place, other), min(candidates.place, other), correlation)
            best = found.get(pair.clip)
            if correlation >= LEAST_CORRELATION and (best is None or _rank(pair) > _rank(best)):
                found[pair.clip] = pair
        progress("near-duplicates", n_done, n_clips)
    return tuple(found[place] for place in sorted(found))


def _rank(pair: NearDuplicate) -> tuple[float, int]:
    return pair.correlation, -pair.original


def _candidates(clips: Sequence[Clip], features: ArrayLike) -> Iterable[_Candidates]:
    """Each clip with its neighbours; of two that are neighbours of each other, the earlier one has the other."""
    vectors = Embedding.fit(features)(features)
    indices, _ = nearest(vectors, vectors, _MOST_LOOKED_AT)
    elsewhere = (
        [int(other) for other in row if clips[other].path != clips[place].path] for place, row in enumerate(indices)
    )
    near = [set(others[:_N_NEIGHBOURS]) for others in elsewhere]
    for place, clip in enumerate(clips):
        others = sorted(other for other in near[place] if other > place or place not in near[other])
        yield _Candidates(place, clip, tuple((other, clips[other]) for other in others))


def _correlations(candidates: _Candidates) -> list[float]:
    return [correlation(compared_sound(candidates.clip), compared_sound(other)) for _, other in candidates.others]


@lru_cache(_CACHED_CLIPS)
def compared_sound(clip: Clip) -> FloatArray:
    """The clip's samples at a low rate, without a constant part; none of one that can't be read."""
    last = clip.start_seconds + _SECONDS
    end = last if clip.end_seconds is None else min(clip.end_seconds, last)
    try:
        waveform, _ = read_audio(clip.path, start_seconds=clip.start_seconds, end_seconds=end, sample_rate=_SAMPLE_RATE)
    except SpectagError:
        return np.zeros(0)
    samples: FloatArray = waveform.astype(np.float64)
    samples -= samples.mean()
    return samples


def correlation(first: FloatArray, second: FloatArray) -> float:
    """The greatest correlation of two waveforms, one moved along the other; 0 where one is silent.

    They overlap by half the shorter one at least, and by a quarter of the energy of each. One may be upside down.

    Parameters
    ----------
    first, second : float arrays of shape (n_samples,)
        Of one sample rate; they may differ in length and level.
    """
    if not (first.any() and second.any()):
        return 0.0
    n_fft = next_fast_len(len(first) + len(second) - 1, real=True)
    products = irfft(rfft(first, n_fft) * rfft(second[::-1], n_fft), n_fft)[: len(first) + len(second) - 1]
    lags = np.arange(1 - len(second), len(first))  # sample 0 of the second lies on sample `lag` of the first
    begin, end = np.maximum(lags, 0), np.minimum(len(first), lags + len(second))
    first_energy, second_energy = (np.concatenate([[0.0], np.cumsum(wave**2)]) for wave in (first, second))
    of_first = first_energy[end] - first_energy[begin]
    of_second = second_energy[end - lags] - second_energy[begin - lags]
    compared = (
        (end - begin >= _LEAST_OVERLAP * min(len(first), len(second)))
        & (of_first >= _LEAST_ENERGY * first_energy[-1])
        & (of_second >= _LEAST_ENERGY * second_energy[-1])
    )
    if not compared.any():
        return 0.0
    return float((np.abs(products[compared]) / np.sqrt(of_first[compared] * of_second[compared])).max())
