"""Which clips contain the same part of a recording, found by their landmark fingerprints."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import FloatArray, IntArray
from spectag.audio.fingerprints import FRAME_SECONDS, HASH_BITS, Fingerprint, landmarks
from spectag.system.progress import Progress, silent
from spectag.system.worker_pool import map_unordered, n_usable_cores

SPEEDS = (1.0, 0.99, 1.01, 0.98, 1.02)
"""Speeds at which a query is compared. Up to 0.5 % between them, most landmarks remain."""

COMPARISON_VERSION = 1
"""Increased when other pairs are found for the same fingerprints."""

_MIN_SCORE = 12.0  # benchmarks/shared_audio.py: below 1 false pair in 10,000
_MIN_EXCESS = 4.0  # of equal landmarks over chance, from which on the peaks are compared too
_MIN_EXCESS_OTHER_SPEED = 7.0
_PEAK_WEIGHT = 0.27  # per standard deviation of the number of equal peaks

_BACKGROUND = 25  # frames around an offset whose equal landmarks are chance, or due to a hum
_NEAR = 18  # frames and frequencies around an offset in which peaks are compared

_CLIP_BITS = 18
_FRAME_BITS = 64 - HASH_BITS - _CLIP_BITS
_PLACE_BITS = _CLIP_BITS + _FRAME_BITS
_FIRST_FRAME = 1 << _FRAME_BITS - 1  # frame 0 of each clip; offsets can be negative
_MAX_EQUAL = 4096  # landmarks with one hash; more are too frequent to say something, and would fill the memory
_QUERY_FRAMES = round(60 / FRAME_SECONDS)  # a long query is compared part by part
_QUERIES_PER_WORKER = 200  # compared in about the time that a worker process takes to start


@dataclass(frozen=True, eq=False)
class SharedAudio:
    """Pairs of clips that share audio, in ascending order."""

    pairs: IntArray
    """Shape (n_pairs, 2): indices of two clips. Within one set of clips, the first index is the lower one."""
    n_matches: IntArray
    """Shape (n_pairs,): number of equal landmarks at one time offset."""
    offsets_seconds: FloatArray
    """Shape (n_pairs,): the shared audio is this much later in the first clip than in the second one."""


@dataclass(frozen=True)
class Match:
    """A clip of an index that contains a part of the query."""

    clip: int
    n_matches: int
    """Number of equal landmarks at one time offset."""
    offset_seconds: float
    """Where the query starts in the clip; negative if the clip starts later than the query."""


class FingerprintIndex:
    """The landmarks of many clips, ordered by hash.

    Parameters
    ----------
    fingerprints
        Of each clip, at most 262,144. None, for a clip that can't be read, shares nothing. Landmarks after 18 hours of
        a clip do not count.
    """

    def __init__(self, fingerprints: Sequence[Fingerprint | None]) -> None:
        if len(fingerprints) > 1 << _CLIP_BITS:
            raise ValueError(f"need at most {1 << _CLIP_BITS} clips, got {len(fingerprints)}")
        self.fingerprints = tuple(fingerprints)
        self._set_keys(_sorted_keys(self.fingerprints))

    def _set_keys(self, keys: NDArray[np.uint64]) -> None:
        self._keys = keys
        """A hash, a clip and a frame in one number each, in ascending order."""
        first_keys = np.arange(1 << HASH_BITS, dtype=np.uint64) << np.uint64(_PLACE_BITS)
        self._starts = np.append(np.searchsorted(keys, first_keys), len(keys))
        """The first row of each hash in the keys."""
        self.n_frames = np.array([_n_frames(fingerprint) for fingerprint in self.fingerprints], np.int64)

    def keep_in(self, file: Path) -> None:
        """Keep the keys in a file. Worker processes that get this index then share its memory."""
        np.save(file, self._keys)
        self._keys = np.load(file, mmap_mode="r")

    def __getstate__(self) -> tuple[tuple[Fingerprint | None, ...], NDArray[np.uint64] | str]:
        """The fingerprints, and the keys or the file that they are in."""
        return self.fingerprints, str(self._keys.filename) if isinstance(self._keys, np.memmap) else self._keys

    def __setstate__(self, state: tuple[tuple[Fingerprint | None, ...], NDArray[np.uint64] | str]) -> None:
        self.fingerprints, keys = state
        self._set_keys(np.load(keys, mmap_mode="r") if isinstance(keys, str) else keys)

    def matches(self, query: Fingerprint, *, speeds: Sequence[float] = SPEEDS, first_clip: int = 0) -> list[Match]:
        """The clips from `first_clip` on that share audio with the query, ordered by clip."""
        best: dict[int, tuple[float, Match]] = {}
        for begin in range(0, _n_frames(query), _QUERY_FRAMES):
            rows = slice(*np.searchsorted(query.frames, (begin, begin + _QUERY_FRAMES)))
            part = Fingerprint(query.frames[rows] - np.int32(begin), query.bins[rows])
            for speed in speeds:
                columns = [column.tolist() for column in self._candidates(part, speed, first_clip)]
                for clip, offset, n_matches, excess in zip(*columns, strict=True):
                    is_better = clip not in best or excess > best[clip][0]
                    if is_better and self._shares_audio(part, clip, offset, excess, speed):
                        best[clip] = excess, Match(clip, n_matches, (offset - begin / speed) * FRAME_SECONDS)
        return [match for _, (_, match) in sorted(best.items())]

    def _shares_audio(self, query: Fingerprint, clip: int, offset: int, excess: float, speed: float) -> bool:
        """Whether a candidate shares audio with the query. If it is weak, the peaks must be equal too."""
        if excess >= _MIN_SCORE:
            return True
        fingerprint = self.fingerprints[clip]
        assert fingerprint is not None
        n_equal = equal_peaks(query, fingerprint, offset, speed=speed)
        return bool(excess * np.exp(_PEAK_WEIGHT * n_equal) >= _MIN_SCORE)

    def _candidates(
        self, query: Fingerprint, speed: float, first_clip: int
    ) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        """Clips, offsets in frames, numbers of equal landmarks, and how far these are above chance."""
        marks = landmarks(query, speed=speed)
        hashes = marks.hashes.astype(np.int64)
        begin, n_equal = self._starts[hashes], self._starts[hashes + 1] - self._starts[hashes]
        n_equal[n_equal > _MAX_EQUAL] = 0
        rows = np.repeat(begin - np.cumsum(n_equal) + n_equal, n_equal) + np.arange(n_equal.sum())
        places = (self._keys[rows] & np.uint64((1 << _PLACE_BITS) - 1)).view(np.int64) - np.repeat(
            marks.frames, n_equal
        )
        places = places[places >= first_clip << _FRAME_BITS]
        places.sort()
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        counts = np.diff(starts, append=len(places))
        is_next = np.diff(places[starts]) == 1  # a peak may move by one frame
        counts = counts + np.append(counts[1:] * is_next, 0) + np.insert(counts[:-1] * is_next, 0, 0)
        totals = np.bincount(places >> _FRAME_BITS, minlength=len(self.fingerprints))
        min_excess = _MIN_EXCESS if speed == 1 else _MIN_EXCESS_OTHER_SPEED
        found, counts = places[starts[counts >= min_excess]], counts[counts >= min_excess]
        clips = found >> _FRAME_BITS
        begin, end = (np.searchsorted(places, found + shift) for shift in (-_BACKGROUND, _BACKGROUND + 1))
        overall = 6 * totals[clips] / (self.n_frames[clips] + _n_frames(query) + 1)  # in 3 frames, at the full overlap
        nearby = 3 * (end - begin - counts) / (2 * _BACKGROUND - 2)
        chance = np.maximum(overall, nearby)
        excess = (counts - chance) / np.sqrt(1 + chance)
        order = np.lexsort([-excess, clips])
        best = order[np.diff(clips[order], prepend=-1) > 0]
        best = best[excess[best] >= min_excess]
        offsets = (found[best] & (1 << _FRAME_BITS) - 1) - _FIRST_FRAME
        return clips[best], offsets, counts[best], excess[best]


def find_matches(query: Fingerprint, index: FingerprintIndex, *, speeds: Sequence[float] = SPEEDS) -> list[Match]:
    """The clips of an index that share audio with the query, those with the most equal landmarks first.

    Parameters
    ----------
    query : Fingerprint
    index : FingerprintIndex
    speeds
        Speeds of the query that are tried. The offset is in seconds of the clip.
    """
    return sorted(index.matches(query, speeds=speeds), key=lambda match: -match.n_matches)


def find_shared_audio(
    fingerprints: Sequence[Fingerprint | None],
    *,
    speeds: Sequence[float] = SPEEDS,
    workers: int | None = None,
    progress: Progress = silent,
) -> SharedAudio:
    """The pairs of clips that share audio.

    Parameters
    ----------
    fingerprints
        Of each clip. None, for a clip that can't be read, shares nothing.
    speeds
        Speeds at which clips are compared. The time is proportional to their number.
    workers : int, optional
        Number of processes. By default one per core, or fewer if there are few clips.
    progress : Progress
        Called with the number of clips that are compared with all others.

    Raises
    ------
    WorkerDiedError
        If a worker process was killed.
    """
    return _shared(fingerprints, FingerprintIndex(fingerprints), speeds, workers, progress, within=True)


def find_shared_between(
    first: Sequence[Fingerprint | None],
    second: Sequence[Fingerprint | None],
    *,
    speeds: Sequence[float] = SPEEDS,
    workers: int | None = None,
    progress: Progress = silent,
) -> SharedAudio:
    """The pairs of a clip of the first set and a clip of the second set that share audio.

    Parameters
    ----------
    first, second
        Fingerprints of each clip. None, for a clip that can't be read, shares nothing.
    speeds, workers, progress
        As for `find_shared_audio`.
    """
    return _shared(first, FingerprintIndex(second), speeds, workers, progress, within=False)


def communities(n_clips: int, shared: SharedAudio, *, resolution: float = 3.0, seed: int = 0) -> IntArray:
    """Community number of each clip, shape (n_clips,): clips that share much audio, directly or through others.

    Where clips are mixtures of several recordings, nearly all clips are connected. Communities cut this graph where few
    pairs are (Louvain method). A clip that shares nothing is a community of its own. Communities are numbered in the
    order of their first clips.

    Parameters
    ----------
    n_clips : int
    shared : SharedAudio
        From `find_shared_audio` for these clips.
    resolution : float
        Higher values give more and smaller communities.
    seed : int
        The same seed gives the same communities.

    References
    ----------
    Blondel et al., "Fast unfolding of communities in large networks", 2008.
    """
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(n_clips))
    graph.add_edges_from(shared.pairs.tolist())
    parts = networkx.community.louvain_communities(graph, resolution=resolution, seed=seed)
    numbers = np.zeros(n_clips, np.int64)
    for number, part in enumerate(sorted(parts, key=min)):
        numbers[list(part)] = number
    return numbers


def equal_peaks(first: Fingerprint, second: Fingerprint, offset: int, *, speed: float = 1.0) -> float:
    """How many peaks two clips have in common at an offset, in standard deviations above what is usual near it.

    Parameters
    ----------
    first, second : Fingerprint
    offset : int
        Frame of the second clip at which the first one starts.
    speed : float
        Of the first clip.

    Notes
    -----
    The peaks are counted again with other frequencies, which happens by chance where both clips have an onset, and at
    other times, which happens where both have a tone. The smaller of the two excesses counts.
    """
    frames = np.rint(first.frames / speed).astype(np.int64) + offset
    begin, end = (np.searchsorted(second.frames, frames + shift) for shift in (-_NEAR, _NEAR + 1))
    n_near = end - begin
    rows = np.repeat(begin - np.cumsum(n_near) + n_near, n_near) + np.arange(n_near.sum())
    apart = second.frames[rows] - np.repeat(frames, n_near) + _NEAR
    difference = second.bins[rows] - np.repeat(np.rint(first.bins * speed).astype(np.int64), n_near) + _NEAR
    is_near = (difference >= 0) & (difference <= 2 * _NEAR)
    size = 2 * _NEAR + 1
    counts = np.bincount(apart[is_near] * size + difference[is_near], minlength=size**2).reshape(size, size)
    middle = slice(_NEAR - 1, _NEAR + 2)  # peaks may move by one frame and one bin
    n_equal = counts[middle, middle].sum()
    excesses = []
    for profile in (counts[middle].sum(axis=0), counts[:, middle].sum(axis=1)):
        elsewhere = np.concatenate([profile[: _NEAR - 3], profile[_NEAR + 4 :]]).reshape(-1, 3).sum(axis=1)
        excesses.append((n_equal - elsewhere.mean()) / np.sqrt(elsewhere.mean() + elsewhere.var() + 2))
    return float(min(excesses))


def _shared(
    queries: Sequence[Fingerprint | None],
    index: FingerprintIndex,
    speeds: Sequence[float],
    workers: int | None,
    progress: Progress,
    *,
    within: bool,
) -> SharedAudio:
    """The matches of each query; within one set, each pair once and no clip with itself."""
    parts: dict[int, SharedAudio] = {}
    items = [(number, query) for number, query in enumerate(queries) if query is not None]
    n_workers = workers or min(n_usable_cores(), 1 + len(items) // _QUERIES_PER_WORKER)
    with ExitStack() as stack:
        if n_workers > 1:  # otherwise there is no folder that a kill could leave
            folder = stack.enter_context(TemporaryDirectory(prefix="spectag-", ignore_cleanup_errors=True))
            index.keep_in(Path(folder, "keys.npy"))
        match = partial(_matches, index, speeds, within)
        results = stack.enter_context(closing(map_unordered(match, items, n_workers=n_workers)))
        for n_done, ((number, _), part) in enumerate(results, start=1):
            parts[number] = part
            progress("shared audio", n_done, len(items))
    ordered = [_as_arrays(0, []), *(parts[number] for number in sorted(parts))]
    return SharedAudio(
        np.concatenate([part.pairs for part in ordered]),
        np.concatenate([part.n_matches for part in ordered]),
        np.concatenate([part.offsets_seconds for part in ordered]),
    )


def _matches(
    index: FingerprintIndex, speeds: Sequence[float], within: bool, item: tuple[int, Fingerprint]
) -> SharedAudio:
    number, query = item
    return _as_arrays(number, index.matches(query, speeds=speeds, first_clip=number + 1 if within else 0))


def _as_arrays(number: int, matches: Sequence[Match]) -> SharedAudio:
    """The matches of a query. Excerpts of one recording give many pairs, and arrays need least memory."""
    return SharedAudio(
        np.array([(number, match.clip) for match in matches], np.int64).reshape(-1, 2),
        np.array([match.n_matches for match in matches], np.int64),
        np.array([0.0 - match.offset_seconds for match in matches], np.float64),
    )


def _n_frames(fingerprint: Fingerprint | None) -> int:
    return int(fingerprint.frames[-1]) + 1 if fingerprint else 0


def _sorted_keys(fingerprints: Sequence[Fingerprint | None]) -> NDArray[np.uint64]:
    keys = [np.empty(0, np.uint64)]
    for number, fingerprint in enumerate(fingerprints):
        if fingerprint:
            marks = landmarks(fingerprint)
            is_early = marks.frames < _FIRST_FRAME
            places = (number << _FRAME_BITS) + _FIRST_FRAME + marks.frames[is_early]
            keys.append(marks.hashes[is_early] << np.uint64(_PLACE_BITS) | places.astype(np.uint64))
    sorted_keys = np.concatenate(keys)
    sorted_keys.sort()
    return sorted_keys
