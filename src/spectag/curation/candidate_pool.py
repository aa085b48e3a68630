"""The clips to choose from, as a tagger hears them, and which of them are labelled."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
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
from spectag.system.paths import common_folder, divided, location_of, parts_of
from spectag.system.progress import Progress
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import Span, TaggedFile, accepted_suffixes, chunked, in_order, tag_chunks

LONG_SECONDS = 60.0  # a longer recording is no clip to label as a whole

_TABLES = {".csv", ".tsv", ".txt"}
_FEATURES_TOGETHER = 10_000  # clips whose features find the axes of the vectors; those of further clips are not kept


@dataclass(frozen=True, eq=False)
class Pool:
    """Recordings, or the clips of a manifest."""

    folder: str
    """What `fnames` are relative to."""
    files: tuple[str, ...]
    """Paths, or addresses such as s3://bucket/a.wav."""
    fnames: tuple[str, ...]
    stretches: tuple[Span, ...] | None
    """Of a manifest's clips; None: whole recordings."""

    @classmethod
    def find(cls, paths: Sequence[str | Path], tagger: Tagger, *, audio_dir: str | Path | None = None) -> "Pool":
        """What is in folders, files, patterns and addresses, or in a manifest.

        Raises
        ------
        AudioError
            If there are no files.
        DataError
            As `read_manifest`.
        """
        is_single = len(paths) == 1
        if is_single and Path(paths[0]).suffix.lower() in _TABLES and Path(paths[0]).is_file():
            return cls._of_manifest(read_manifest(paths[0], audio_dir=audio_dir))
        files = tuple(find_files(paths, accepted_suffixes(tagger)))
        is_folder = is_single and Path(paths[0]).is_dir()
        root = parts_of(str(paths[0])) if is_folder else common_folder(files)
        fnames = tuple("/".join(divided(file, root)[1]) for file in files)
        return cls(str(paths[0]) if is_folder else location_of(root), files, fnames, None)

    @classmethod
    def _of_manifest(cls, manifest: Manifest) -> "Pool":
        clips = manifest.clips
        folders = {_folder_of(clip) for clip in clips if not Path(clip.fname).is_absolute()}
        return cls(
            folder=str(folders.pop() if len(folders) == 1 else manifest.source.parent),
            files=tuple(str(clip.path) for clip in clips),
            fnames=tuple(clip.fname for clip in clips),
            stretches=tuple((clip.start_seconds, clip.end_seconds) for clip in clips),
        )

    @property
    def audio_dir(self) -> str | None:
        """The folder, if it is one of this machine."""
        return self.folder if Path(self.folder).is_dir() else None


def _folder_of(clip: Clip) -> Path:
    """Where the name of a manifest's clip leads to its file: not always beside the manifest."""
    return clip.path.parents[len(PurePosixPath(clip.fname.replace("\\", "/")).parts) - 1]


@dataclass(frozen=True, eq=False)
class EmbeddedPool:
    """What a tagger makes of a pool's clips, a row for each that can be read, and of labelled clips elsewhere."""

    files: tuple[str, ...]
    fnames: tuple[str, ...]
    stretches: tuple[Span, ...]
    probabilities: Float32Array
    """(n_clips, n_labels)"""
    vectors: Float32Array
    """Unit vectors (n_clips, n_dimensions): the more alike two clips are, the greater is their dot product."""
    elsewhere: tuple[Clip, ...]
    """The labelled clips that are none of the pool's and can be read."""
    vectors_elsewhere: Float32Array
    """(n_elsewhere, n_dimensions)"""
    n_long: int
    """Recordings that are more than a clip."""
    skipped: tuple[str, ...]
    """Why files can't be read."""

    def clip(self, row: int) -> Clip:
        """The clip at a row."""
        start, end = self.stretches[row]
        return Clip(Path(self.files[row]), self.fnames[row], (), start_seconds=start, end_seconds=end)

    def labelled(self, known: Iterable[Clip], keys: Iterable[str], *, progress: Progress) -> BoolArray:
        """Which rows are labelled: share a moment with a clip that is known, or have the content of a key.

        Shape (n_clips,). The content of a recording as a whole stands for all stretches of it. Where there are keys,
        all files are read once more.
        """
        taken: dict[str, list[Span]] = {}
        for clip in known:
            taken.setdefault(_place(clip.path), []).append((clip.start_seconds, clip.end_seconds))
        rows = zip(self.files, self.stretches, strict=True)
        found = [any(_overlap(stretch, other) for other in taken.get(_place(file), ())) for file, stretch in rows]
        if all_keys := set(keys):
            for row in range(len(found)):
                found[row] = found[row] or self._has_key(row, all_keys)
                progress("looking for labelled clips", row + 1, len(found))
        return np.array(found, np.bool_)

    def _has_key(self, row: int, keys: set[str]) -> bool:
        clip = self.clip(row)
        return clip_key(clip) in keys or clip_key(Clip(clip.path, clip.fname, ())) in keys


def _place(file: str | Path) -> str:
    return location_of(parts_of(str(file)))


def _overlap(one: Span, other: Span) -> bool:
    ends = [np.inf if end is None else end for _, end in (one, other)]
    return max(one[0], other[0]) < min(ends)


def hear(
    tagger: Tagger,
    pool: Pool,
    known: Sequence[Clip],
    windows: WindowConfig | None,
    *,
    workers: int | None,
    progress: Progress,
    rng: np.random.Generator,
) -> EmbeddedPool:
    """Hear a pool's clips, or the windows of its recordings, and the known clips that are not among them.

    Features are turned into vectors as they come, so that memory holds those of 10,000 clips at most: the first that
    are heard, which are drawn by `rng` where there are more.

    Raises
    ------
    DataError
        If none of the pool's files can be read.
    """
    numbers = np.arange(len(pool.files))
    if len(numbers) > _FEATURES_TOGETHER:
        rng.shuffle(numbers)
    stretches = None if pool.stretches is None else [pool.stretches[number] for number in numbers]
    answers = _tagged(tagger, [pool.files[number] for number in numbers], stretches, windows, workers, progress)
    vectors = _Vectors()
    owners: list[int] = []  # the number of each row's file
    times: list[Span] = []
    probabilities: list[Float32Array] = []
    skipped: list[str] = []
    n_long = 0
    for number, answer in zip(numbers.tolist(), answers, strict=True):
        if answer.timeline is None or answer.network_outputs is None:
            skipped.append(str(answer.reason))
            continue
        n_long += (answer.duration_seconds or 0) > LONG_SECONDS and windows is None and stretches is None
        whole = (0.0, None) if pool.stretches is None else pool.stretches[number]
        starts, ends = answer.timeline.starts.round(3).tolist(), answer.timeline.ends.round(3).tolist()
        times += [whole] if windows is None else zip(starts, ends, strict=True)
        owners += [number] * len(starts)
        probabilities.append(answer.timeline.probabilities)
        vectors.add(answer.network_outputs.features)
    if not owners:
        raise DataError(f"{pool.folder}: none of the {len(numbers):,} files can be read: {skipped[0]}")
    order = np.argsort(owners, kind="stable")
    files, stretches = [pool.files[owners[row]] for row in order], [times[row] for row in order]
    elsewhere = []
    for clip, answer in _heard_elsewhere(tagger, known, files, stretches, workers, progress):
        if answer.network_outputs is None:
            skipped.append(str(answer.reason))
        else:
            elsewhere.append(clip)
            vectors.add(answer.network_outputs.features)
    all_vectors = vectors.all()
    return EmbeddedPool(
        files=tuple(files),
        fnames=tuple(pool.fnames[owners[row]] for row in order),
        stretches=tuple(stretches),
        probabilities=np.concatenate(probabilities)[order],
        vectors=all_vectors[order],
        elsewhere=tuple(elsewhere),
        vectors_elsewhere=all_vectors[len(order) :],
        n_long=n_long,
        skipped=tuple(skipped),
    )


def _tagged(
    tagger: Tagger,
    files: Sequence[str],
    stretches: Sequence[Span] | None,
    windows: WindowConfig | None,
    workers: int | None,
    progress: Progress,
) -> Iterator[TaggedFile]:
    n_done = 0
    progress("tagging", 0, len(files))
    chunks = chunked(files, workers, stretches)
    with closing(tag_chunks(tagger, chunks, windows, features=True, workers=workers)) as answers:
        for chunk in in_order(answers):
            n_done += len(chunk.files)
            progress("tagging", n_done, len(files))
            yield from chunk.files


def _heard_elsewhere(
    tagger: Tagger,
    known: Iterable[Clip],
    files: Sequence[str],
    stretches: Sequence[Span],
    workers: int | None,
    progress: Progress,
) -> Iterator[tuple[Clip, TaggedFile]]:
    """The known clips that are not just one of the pool's, heard."""
    there = set(zip(map(_place, files), stretches, strict=True))
    clips = [clip for clip in known if (_place(clip.path), (clip.start_seconds, clip.end_seconds)) not in there]
    if not clips:
        return
    times = [(clip.start_seconds, clip.end_seconds) for clip in clips]
    yield from zip(
        clips, _tagged(tagger, [str(clip.path) for clip in clips], times, None, workers, progress), strict=True
    )


class _Vectors:
    """Turns features into vectors as they come; those of the first clips together, which find the axes."""

    def __init__(self) -> None:
        self._embedding: Embedding | None = None
        self._waiting: list[Float32Array] = []
        self._n_waiting = 0
        self._vectors: list[Float32Array] = []

    def add(self, features: Float32Array) -> None:
        """Take the features (n_clips, n_features) of the next clips."""
        self._waiting.append(features)
        self._n_waiting += len(features)
        if self._embedding is not None or self._n_waiting >= _FEATURES_TOGETHER:
            self._embed()

    def _embed(self) -> None:
        features = np.concatenate(self._waiting)
        self._embedding = self._embedding or Embedding.fit(features)
        self._vectors.append(self._embedding(features))
        self._waiting, self._n_waiting = [], 0

    def all(self) -> Float32Array:
        """The vectors of all clips, in the order in which they came."""
        if self._waiting:
            self._embed()
        return np.concatenate(self._vectors)
