"""Groups of clips that share audio, for folds, where the manifest does not say which clips belong together."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spectag.array_types import BoolArray, IntArray
from spectag.data.clips import Manifest, connected_groups
from spectag.data.shared_audio import SharedAudio, communities

RESOLUTION = 3.0
"""Of the communities. It is doubled until there are as many communities as wanted."""
_MAX_RESOLUTION = 400.0
_MAX_JOINED = 0.1
"""Largest fraction of the clips in a group of clips that share audio; half a fold, if there are five."""
_MAX_JOINED_OF_FEW = 3  # clips, as long as they are not more than a fifth of all clips


@dataclass(frozen=True, eq=False)
class SharingClips:
    """The clips of a manifest that share audio although they have different groups and files."""

    manifest: Manifest
    shared: SharedAudio

    @classmethod
    def of(cls, manifest: Manifest, shared: SharedAudio) -> "SharingClips":
        """The clips that share audio, without pairs within one group or file."""
        groups = _numbers(manifest)
        rows = groups[shared.pairs[:, 0]] != groups[shared.pairs[:, 1]]
        return cls(manifest, SharedAudio(shared.pairs[rows], shared.n_matches[rows], shared.offsets_seconds[rows]))

    @property
    def pairs(self) -> IntArray:
        """Shape (n_pairs, 2): indices of two clips."""
        return self.shared.pairs

    def __str__(self) -> str:
        n_clips = len(self.manifest.clips)
        n_sharing = len(np.unique(self.pairs))
        n_others = 2 * len(self.pairs) / max(n_sharing, 1)
        others = "one other clip" if n_others == 1 else f"{n_others:.1f} other clips on average"
        return f"{n_sharing} of {n_clips} clips share audio, each with {others}"

    def sharing_with(self, rows: BoolArray) -> BoolArray:
        """Which clips share audio with the clips at these rows, (n_clips,)."""
        return first_sharing(self.pairs, rows, len(rows)) | first_sharing(self.pairs[:, ::-1], rows, len(rows))

    def joined(self) -> Manifest | None:
        """The manifest with all clips in one group that share audio, directly or through others.

        None if a group would be too large for folds, as where most clips are mixtures of several recordings.
        """
        joined = regrouped(self.manifest, self._connected())
        return joined if _largest_group(joined) <= self._max_joined() else None

    def together(self, n_folds: int, *, seed: int) -> Manifest:
        """The manifest with groups that keep clips together that share audio; those that share much, if most do."""
        return self.joined() or self.in_communities(n_folds, seed=seed)

    def in_communities(self, n_wanted: int, *, seed: int) -> Manifest:
        """The manifest with communities of clips that share much audio as groups; groups are kept together.

        There are at least `n_wanted` communities if there are as many groups. If there are fewer groups, they are not
        all separated, because clips that share audio would then count as different recordings.
        """
        groups = _numbers(self.manifest)
        n_groups = int(groups.max()) + 1
        between = SharedAudio(np.unique(np.sort(groups[self.pairs], axis=1), axis=0), np.empty(0, int), np.empty(0))
        n_min, n_together = (n_wanted, n_wanted) if n_wanted <= n_groups else (n_groups // 2, 2)
        resolution = RESOLUTION
        numbers = communities(n_groups, between, resolution=resolution, seed=seed)
        while numbers.max() + 1 < n_min and resolution <= _MAX_RESOLUTION:
            resolution *= 2
            numbers = communities(n_groups, between, resolution=resolution, seed=seed)
        connected = np.empty(n_groups, np.int64)
        connected[groups] = self._connected()
        return regrouped(self.manifest, _together_again(numbers, connected, n_together)[groups])

    def _connected(self) -> IntArray:
        """A number for each clip, equal for clips that share audio, directly or through others, and in groups."""
        groups = _numbers(self.manifest)
        n_groups = int(groups.max()) + 1
        graph = coo_array((np.ones(len(self.pairs), np.bool_), groups[self.pairs].T), shape=(n_groups, n_groups))
        return np.asarray(connected_components(graph, directed=False)[1], np.int64)[groups]

    def _max_joined(self) -> float:
        """The most clips in a group of clips that share audio."""
        n_clips = len(self.manifest.clips)
        return max(_MAX_JOINED * n_clips, min(_MAX_JOINED_OF_FEW, n_clips // 5), _largest_group(self.manifest))


def first_sharing(pairs: IntArray, rows: BoolArray, n_clips: int) -> BoolArray:
    """Which of `n_clips` clips are the first clip of a pair whose second clip is at one of these rows, (n_clips,)."""
    shares = np.zeros(n_clips, np.bool_)
    shares[pairs[rows[pairs[:, 1]], 0]] = True
    return shares


def regrouped(manifest: Manifest, numbers: IntArray) -> Manifest:
    """The manifest with these groups, each named after the group or the file of its first clip."""
    groups = manifest.groups
    _, first_rows, indices = np.unique(numbers, return_index=True, return_inverse=True)
    names = [groups[row] for row in first_rows[indices]]
    clips = (replace(clip, group=name) for clip, name in zip(manifest.clips, names, strict=True))
    return replace(manifest, clips=tuple(clips))


def _together_again(numbers: IntArray, connected: IntArray, n_least: int) -> IntArray:
    """Communities without the separation of connected items that are all alone, as long as `n_least` remain.

    In small graphs, the communities separate even items that are all connected with each other.
    """
    numbers, n_communities = numbers.copy(), len(np.unique(numbers))
    sizes = np.bincount(connected)
    for number in np.argsort(sizes, kind="stable")[(sizes <= 1).sum() :]:
        rows, size = connected == number, sizes[number]
        if len(np.unique(numbers[rows])) == size <= n_communities - n_least + 1:
            numbers[rows] = numbers[rows][0]
            n_communities -= size - 1
    return numbers


def _largest_group(manifest: Manifest) -> int:
    return max(Counter(manifest.groups).values())


def _numbers(manifest: Manifest) -> IntArray:
    """The group of each clip as a number."""
    return connected_groups([sorted(clip.origins) for clip in manifest.clips])
