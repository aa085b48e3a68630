"""The clips to choose from: their predictions and embedding vectors, and which of them are labelled already."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from spectag.array_types import BoolArray, Float32Array
from spectag.config.base import WindowConfig
from spectag.curation.embedding import Embedding
from spectag.data.clips import Clip, Manifest
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import clip_key
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.system.paths import common_folder, join_parts, split_below, split_location
from spectag.system.progress import Progress
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import Span, TaggedFile, accepted_suffixes, tag

LONG_SECONDS = 60.0  # a longer recording should be labelled in windows

_TABLE_SUFFIXES = {".csv", ".tsv", ".txt"}
_MAX_FEATURE_ROWS = 10_000  # clips whose features are kept to fit the embedding


@dataclass(frozen=True, eq=False)
class Pool:
    """Recordings, or the clips of a manifest."""

    folder: str
    """The folder that `fnames` are relative to."""
    files: tuple[str, ...]
    """Paths, or URLs such as s3://bucket/a.wav."""
    fnames: tuple[str, ...]
    spans: tuple[Span, ...] | None
    """Start and end of each clip of a manifest; None: whole recordings."""

    @classmethod
    def find(cls, paths: Sequence[str | Path], tagger: Tagger, *, audio_dir: str | Path | None = None) -> "Pool":
        """Find the files of folders, paths, patterns and URLs, or the clips of a manifest.

        Raises
        ------
        AudioError
            If there are no files.
        DataError
            As `read_manifest`.
        """
        is_single = len(paths) == 1
        if is_single and Path(paths[0]).suffix.lower() in _TABLE_SUFFIXES and Path(paths[0]).is_file():
            return cls._of_manifest(read_manifest(paths[0], audio_dir=audio_dir))
        files = tuple(find_files(paths, accepted_suffixes(tagger)))
        is_folder = is_single and Path(paths[0]).is_dir()
        root = split_location(str(paths[0])) if is_folder else common_folder(files)
        fnames = tuple("/".join(split_below(file, root)[1]) for file in files)
        return cls(str(paths[0]) if is_folder else join_parts(root), files, fnames, None)

    @classmethod
    def _of_manifest(cls, manifest: Manifest) -> "Pool":
        clips = manifest.clips
        folders = {_root_folder(clip) for clip in clips if not Path(clip.fname).is_absolute()}
        return cls(
            folder=str(folders.pop() if len(folders) == 1 else manifest.source.parent),
            files=tuple(str(clip.path) for clip in clips),
            fnames=tuple(clip.fname for clip in clips),
            spans=tuple(map(_span, clips)),
        )

    @property
    def audio_dir(self) -> str | None:
        """The folder, if it is on this machine."""
        return self.folder if Path(self.folder).is_dir() else None


def _root_folder(clip: Clip) -> Path:
    """The folder that a clip's name is relative to, which is not always the folder of the manifest."""
    return clip.path.parents[len(PurePosixPath(clip.fname.replace("\\", "/")).parts) - 1]


@dataclass(frozen=True, eq=False)
class EmbeddedPool:
    """The readable clips of a pool with their predictions and vectors, and the vectors of labelled clips elsewhere."""

    files: tuple[str, ...]
    fnames: tuple[str, ...]
    spans: tuple[Span, ...]
    probabilities: Float32Array
    """(n_clips, n_labels); of a tagger that extends a published model, only those of its own labels."""
    vectors: Float32Array
    """Unit vectors (n_clips, n_dimensions). The dot product of two vectors is the similarity of the clips."""
    labelled_elsewhere: tuple[Clip, ...]
    """The readable labelled clips that are not in the pool."""
    vectors_elsewhere: Float32Array
    """Their unit vectors, (n_labelled_elsewhere, n_dimensions)."""
    n_long: int
    """Number of recordings that are too long to be labelled as a whole."""
    skipped: tuple[str, ...]
    """Why files can't be read."""

    def clip(self, row: int) -> Clip:
        """The clip of a row."""
        start, end = self.spans[row]
        return Clip(Path(self.files[row]), self.fnames[row], (), start_seconds=start, end_seconds=end)

    def labelled(self, labelled_clips: Iterable[Clip], keys: Iterable[str], *, progress: Progress) -> BoolArray:
        """Which rows are labelled: they overlap a labelled clip, or their content key is one of `keys`.

        Shape (n_clips,). The key of a whole recording stands for all its windows. If there are keys, all files are
        read again.
        """
        labelled_spans: dict[str, list[Span]] = {}
        for clip in labelled_clips:
            labelled_spans.setdefault(_location(clip.path), []).append(_span(clip))
        result = [
            any(_overlap(span, other) for other in labelled_spans.get(_location(file), ()))
            for file, span in zip(self.files, self.spans, strict=True)
        ]
        if all_keys := set(keys):
            for row in range(len(result)):
                result[row] = result[row] or self._has_key(row, all_keys)
                progress("looking for labelled clips", row + 1, len(result))
        return np.array(result, np.bool_)

    def _has_key(self, row: int, keys: set[str]) -> bool:
        clip = self.clip(row)
        return clip_key(clip) in keys or clip_key(Clip(clip.path, clip.fname, ())) in keys


def _location(file: str | Path) -> str:
    return join_parts(split_location(str(file)))


def _span(clip: Clip) -> Span:
    return clip.start_seconds, clip.end_seconds


def _overlap(first: Span, second: Span) -> bool:
    ends = [np.inf if end is None else end for _, end in (first, second)]
    return max(first[0], second[0]) < min(ends)


def embed_pool(
    tagger: Tagger,
    pool: Pool,
    labelled_clips: Sequence[Clip],
    windows: WindowConfig | None,
    *,
    workers: int | None,
    progress: Progress,
    rng: np.random.Generator,
) -> EmbeddedPool:
    """Tag and embed the clips of a pool, or the windows of its recordings, and the labelled clips elsewhere.

    The embedding is fitted to the first 10,000 clips, in random order if there are more. The features of later clips
    are embedded at once, so memory holds the features of at most 10,000 clips.

    Raises
    ------
    DataError
        If no file of the pool can be read.
    """
    order = np.arange(len(pool.files))
    if len(order) > _MAX_FEATURE_ROWS:
        rng.shuffle(order)
    rows = _PoolRows(pool, windows)
    embedder = _IncrementalEmbedder()
    tag_features = partial(tag, tagger, features=True, workers=workers, progress=progress)
    spans = None if pool.spans is None else [pool.spans[number] for number in order]
    tagged_files = tag_features([pool.files[number] for number in order], window=windows, spans=spans)
    for number, tagged in zip(order.tolist(), tagged_files, strict=True):
        if (features := rows.add(number, tagged)) is not None:
            embedder.add(features)
    if not rows.numbers:
        raise DataError(f"{pool.folder}: none of the {len(order):,} files can be read: {rows.skipped[0]}")
    sorted_rows = np.argsort(rows.numbers, kind="stable")  # back to the order of the pool
    numbers = [rows.numbers[row] for row in sorted_rows]
    files, spans = [pool.files[number] for number in numbers], [rows.spans[row] for row in sorted_rows]
    in_pool = set(zip(map(_location, files), spans, strict=True))
    clips = [clip for clip in labelled_clips if (_location(clip.path), _span(clip)) not in in_pool]
    tagged_clips = tag_features([str(clip.path) for clip in clips], spans=list(map(_span, clips))) if clips else ()
    elsewhere = []
    for clip, tagged in zip(clips, tagged_clips, strict=True):
        if tagged.network_outputs is None:
            rows.skipped.append(str(tagged.reason))
        else:
            elsewhere.append(clip)
            embedder.add(tagged.network_outputs.features)
    vectors = embedder.vectors()
    return EmbeddedPool(
        files=tuple(files),
        fnames=tuple(pool.fnames[number] for number in numbers),
        spans=tuple(spans),
        probabilities=np.concatenate(rows.probabilities)[sorted_rows][:, : len(tagger.info.own_labels)],
        vectors=vectors[sorted_rows],
        labelled_elsewhere=tuple(elsewhere),
        vectors_elsewhere=vectors[len(sorted_rows) :],
        n_long=rows.n_long,
        skipped=tuple(rows.skipped),
    )


@dataclass
class _PoolRows:
    """The tagged clips of a pool so far, one row per clip or window."""

    pool: Pool
    windows: WindowConfig | None
    numbers: list[int] = field(default_factory=list)
    """Index of each row's file in the pool."""
    spans: list[Span] = field(default_factory=list)
    probabilities: list[Float32Array] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    n_long: int = 0

    def add(self, number: int, tagged: TaggedFile) -> Float32Array | None:
        """Add the rows of a file and return their features; None for a file that can't be read."""
        if tagged.timeline is None or tagged.network_outputs is None:
            self.skipped.append(str(tagged.reason))
            return None
        timeline = tagged.timeline
        if self.windows is not None:
            self.spans += zip(timeline.starts.round(3).tolist(), timeline.ends.round(3).tolist(), strict=True)
        elif self.pool.spans is not None:
            self.spans.append(self.pool.spans[number])
        else:
            self.spans.append((0.0, None))
            self.n_long += (tagged.duration_seconds or 0) > LONG_SECONDS
        self.numbers += [number] * len(timeline.starts)
        self.probabilities.append(timeline.probabilities)
        return tagged.network_outputs.features


class _IncrementalEmbedder:
    """Embeds features as they arrive. The features of the first clips are kept until the embedding can be fitted."""

    def __init__(self) -> None:
        self._embedding: Embedding | None = None
        self._waiting: list[Float32Array] = []
        self._n_waiting = 0
        self._vectors: list[Float32Array] = []

    def add(self, features: Float32Array) -> None:
        """Add the features (n_clips, n_features) of the next clips."""
        self._waiting.append(features)
        self._n_waiting += len(features)
        if self._embedding is not None or self._n_waiting >= _MAX_FEATURE_ROWS:
            self._embed()

    def _embed(self) -> None:
        features = np.concatenate(self._waiting)
        self._embedding = self._embedding or Embedding.fit(features)
        self._vectors.append(self._embedding(features))
        self._waiting, self._n_waiting = [], 0

    def vectors(self) -> Float32Array:
        """The vectors of all clips, in the order in which they were added."""
        if self._waiting:
            self._embed()
        return np.concatenate(self._vectors)
