"""Which clips contain the same part of a recording, found by their landmark fingerprints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import FloatArray, IntArray
from spectag.audio.fingerprints import FRAME_SECONDS, Fingerprint
from spectag.system.progress import Progress, silent

_MIN_MATCHES = 15  # equal landmarks at one offset
_MAX_OFFSET = 1 << 31  # frames


@dataclass(frozen=True, eq=False)
class SharedAudio:
    """Pairs of clips that share audio, in ascending order."""

    pairs: IntArray
    """Shape (n_pairs, 2): indices of two clips. Within one set of clips, the first index is the lower one."""
    n_matches: IntArray
    """Shape (n_pairs,): number of equal landmarks at one time offset."""
    offsets_seconds: FloatArray
    """Shape (n_pairs,): the shared audio is at this many seconds later in the first clip than in the second."""


@dataclass(frozen=True, eq=False)
class FingerprintIndex:
    """The landmarks of many clips, ordered by hash."""

    hashes: NDArray[np.uint32]
    """Shape (n_landmarks,)."""
    clips: NDArray[np.int32]
    """Shape (n_landmarks,)."""
    frames: NDArray[np.int32]
    """Shape (n_landmarks,)."""
    n_clips: int

    @classmethod
    def of(cls, fingerprints: Sequence[Fingerprint | None]) -> "FingerprintIndex":
        """The index of clips by position. None, for a clip that can't be read, has no landmarks."""
        present = [(clip, fingerprint) for clip, fingerprint in enumerate(fingerprints) if fingerprint is not None]
        hashes = np.concatenate([np.empty(0, np.uint32), *(fingerprint.hashes for _, fingerprint in present)])
        frames = np.concatenate([np.empty(0, np.int32), *(fingerprint.frames for _, fingerprint in present)])
        numbers = np.array([clip for clip, _ in present], np.int32)
        clips = np.repeat(numbers, [len(fingerprint) for _, fingerprint in present])
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], clips[order], frames[order], len(fingerprints))


@dataclass(frozen=True)
class Match:
    """A clip of an index that contains a part of the query."""

    clip: int
    n_matches: int
    """Number of equal landmarks at one time offset."""
    offset_seconds: float
    """Where the query starts in the clip; negative if the clip starts later than the query."""


def find_matches(query: Fingerprint, index: FingerprintIndex) -> tuple[Match, ...]:
    """The clips that share audio with the query, those with the most equal landmarks first.

    Parameters
    ----------
    query : Fingerprint
    index : FingerprintIndex
    """
    order = sorted(zip(*map(np.ndarray.tolist, _matches(query, index)), strict=True), key=lambda match: -match[1])
    return tuple(Match(clip, n_matches, offset * FRAME_SECONDS) for clip, n_matches, offset in order)


def find_shared_audio(fingerprints: Sequence[Fingerprint | None], *, progress: Progress = silent) -> SharedAudio:
    """The pairs of clips that share audio.

    Parameters
    ----------
    fingerprints
        Of each clip. None, for a clip that can't be read, shares nothing.
    progress : Progress
        Called with the number of clips that are compared with all others.
    """
    index = FingerprintIndex.of(fingerprints)
    return _find_pairs(fingerprints, index, progress, within=True)


def find_shared_between(
    first: Sequence[Fingerprint | None], second: Sequence[Fingerprint | None], *, progress: Progress = silent
) -> SharedAudio:
    """The pairs of a clip of the first set and a clip of the second set that share audio.

    Parameters
    ----------
    first, second
        Fingerprints of each clip. None, for a clip that can't be read, shares nothing.
    progress : Progress
        Called with the number of clips of the first set that are compared with the second set.
    """
    return _find_pairs(first, FingerprintIndex.of(second), progress)


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


def _find_pairs(
    queries: Sequence[Fingerprint | None], index: FingerprintIndex, progress: Progress, *, within: bool = False
) -> SharedAudio:
    """The matches of each query, in order; within one set, each pair once and no clip with itself."""
    pairs: list[IntArray] = [np.empty((0, 2), np.int64)]
    n_matches: list[IntArray] = [np.empty(0, np.int64)]
    offsets: list[FloatArray] = [np.empty(0)]
    for number, query in enumerate(queries):
        if query is not None:
            clips, counts, frames = _matches(query, index)
            new = clips > number if within else np.ones(len(clips), bool)
            pairs.append(np.column_stack([np.full(new.sum(), number), clips[new]]))
            n_matches.append(counts[new])
            offsets.append(-frames[new] * FRAME_SECONDS)
        progress("shared audio", number + 1, len(queries))
    return SharedAudio(np.concatenate(pairs), np.concatenate(n_matches), np.concatenate(offsets))


def _matches(query: Fingerprint, index: FingerprintIndex) -> tuple[IntArray, IntArray, IntArray]:
    """The clips that share audio with the query, the number of equal landmarks, and the offset in frames."""
    begin, end = (np.searchsorted(index.hashes, query.hashes, side) for side in ("left", "right"))
    n_equal = end - begin
    rows = np.repeat(end - np.cumsum(n_equal), n_equal) + np.arange(n_equal.sum())
    clips = index.clips[rows].astype(np.int64)
    offsets = index.frames[rows].astype(np.int64) - np.repeat(query.frames, n_equal)
    is_candidate = np.bincount(clips, minlength=index.n_clips)[clips] >= _MIN_MATCHES
    clips, offsets = clips[is_candidate], offsets[is_candidate]
    keys, counts = np.unique(clips << 32 | offsets + _MAX_OFFSET, return_counts=True)
    keys, counts = keys[counts >= _MIN_MATCHES], counts[counts >= _MIN_MATCHES]
    order = np.lexsort([-counts, keys >> 32])
    best = order[np.diff(keys[order] >> 32, prepend=-1) > 0]
    return keys[best] >> 32, counts[best], (keys[best] & 0xFFFFFFFF) - _MAX_OFFSET
