"""Embeddings of many recordings: the features of a network, for clustering, search and classifiers of your own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from spectag.array_types import Float32Array, FloatArray
from spectag.config.base import Channel, WindowConfig
from spectag.config.devices import Device
from spectag.errors import AudioError, ConfigError
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.system.dataframes import to_dataframe
from spectag.system.output import open_binary_output, unicode_text
from spectag.system.parquet import load_pyarrow
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.tagging.input_files import find_files
from spectag.tagging.parallel import TaggedFile, accepted_suffixes, tag

DEFAULT_MODEL = "audioset-mn04"
_SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True, eq=False, repr=False)
class Embeddings:
    """The features of recordings, or of their windows: a row for each."""

    model: str
    """The folder or the name of the model."""
    files: tuple[str, ...]
    """The recording of each row."""
    start_seconds: FloatArray
    """(n_rows,)"""
    end_seconds: FloatArray
    """(n_rows,); NaN for an image."""
    features: Float32Array
    """(n_rows, n_features)"""
    skipped: tuple[str, ...] = ()
    """Why recordings have no rows, one reason for each."""

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        """The numbers of rows, recordings and features."""
        n_rows, n_features = self.features.shape
        skipped = f", {len(self.skipped):,} skipped" if self.skipped else ""
        recordings = f"{len(set(self.files)):,} recordings{skipped}"
        return f"Embeddings({n_rows:,} x {n_features:,} features of {recordings} by {self.model})"

    def to_dataframe(self) -> Any:
        """A row for each recording or window: file, start, end (seconds) and features, an array (n_features,).

        It is a DataFrame of pandas, or of polars if only polars is installed.
        """
        return to_dataframe(self._columns() | {"features": list(self.features)})

    def write(self, path: str | Path) -> None:
        """Write all rows to a file, which appears complete or not at all.

        .npz has the arrays files, start, end, features and the name of the model, for `numpy.load`. .parquet has the
        columns file, start, end and features, a list of float32.

        Raises
        ------
        ConfigError
            If the suffix is neither of the two.
        DataError
            If the file can't be written.
        MissingExtraError
            If pyarrow is not installed, for .parquet.
        """
        suffix = check_embeddings_path(path)
        if suffix == ".npz":
            files, start, end = self._columns().values()
            with open_binary_output(path) as out:
                np.savez(out, files=files, start=start, end=end, features=self.features, model=self.model)
            return
        arrow, parquet = load_pyarrow()
        rows = arrow.FixedSizeListArray.from_arrays(self.features.ravel(), max(1, self.features.shape[1]))
        columns = self._columns()
        times = {name: arrow.array(columns[name], arrow.float64()) for name in ("start", "end")}
        with open_binary_output(path) as out:
            parquet.write_table(arrow.table({"file": columns["file"], **times, "features": rows}), out)

    def _columns(self) -> dict[str, Any]:
        files = [unicode_text(file) for file in self.files]
        return {"file": files, "start": self.start_seconds, "end": self.end_seconds}


def check_embeddings_path(path: str | Path) -> str:
    """The suffix of a file for embeddings, if it is one that can be written.

    Raises
    ------
    ConfigError
        If it is another one.
    MissingExtraError
        If pyarrow is not installed, for .parquet.
    """
    suffix = PurePath(path).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ConfigError(f"{path}: need a file that ends in {' or '.join(_SUFFIXES)}, got {suffix or 'no suffix'}")
    if suffix == ".parquet":
        load_pyarrow()
    return suffix


@shows_progress
def embed(
    recordings: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    model: str | Path | Tagger = DEFAULT_MODEL,
    window: WindowConfig | float | None = None,
    channel: Channel | None = None,
    listed: Iterable[str] = (),
    workers: int | None = None,
    device: Device = "auto",
    progress: Progress = silent,
    log: Log = no_log,
) -> Embeddings:
    """The features of recordings, computed on all cores: those of `Tagger.embed`, a row for each recording or window.

    Parameters
    ----------
    recordings : str, Path, or a sequence of them
        Files; folders, which are searched with all their sub-folders; patterns such as 'rec/**/*.wav'; URLs.
    output : str or Path, optional
        A file for the embeddings: .npz or .parquet, see `Embeddings.write`.
    model : str, Path or Tagger
        Folder of a model, the name of a published one, or an open one.
    window : WindowConfig or float, optional
        A row for each window: their length in seconds, or length and overlap. By default one for each recording.
    channel : "mix", "loudest" or int, optional
        How several channels become one. By default as in the training of the model.
    listed : iterable of str
        More files, of which missing ones are skipped.
    workers : int, optional
        Number of cores to use. By default all of them, or one for a few files.
    device : str
        Where the networks run, as in `load`; of an open model, the device with which it was opened.
    progress, log
        `progress=True` shows a progress bar; or functions that receive the number of recordings, and messages.

    Raises
    ------
    AudioError
        If a path does not exist, or no recording can be read. Single ones that cannot be read are in `skipped`.
    ConfigError, DataError, MissingExtraError
        If the output cannot be written. A wrong suffix is found before the work.
    ConfigError
        If `window` or `workers` is not above 0.
    BundleError, WeightsError
        If the model cannot be opened.

    Examples
    --------
    >>> embeddings = spectag.embed("recordings", "embeddings.npz")  # doctest: +SKIP
    >>> embeddings.features.shape  # doctest: +SKIP
    (300, 2304)
    """
    if output is not None:
        check_embeddings_path(output)
    name = str(model.folder if isinstance(model, Tagger) else model)
    if not isinstance(model, Tagger):
        model = Tagger(tagger_folder(model, needs_labels=False, progress=progress, log=log), device=device)
    tagger = model.with_channel(channel).check_device()
    paths = [recordings] if isinstance(recordings, str | Path) else recordings
    files = find_files(paths, accepted_suffixes(tagger), listed=listed, log=log)
    tagged = list(tag(tagger, files, window=window, features=True, workers=workers, progress=progress))
    embeddings = _collected(name, tagged)
    if output is not None:
        embeddings.write(output)
    return embeddings


def _collected(model: str, tagged_files: Sequence[TaggedFile]) -> Embeddings:
    skipped = tuple(tagged.reason for tagged in tagged_files if tagged.reason is not None)
    read = [
        (tagged.file, tagged.timeline, tagged.network_outputs.features)
        for tagged in tagged_files
        if tagged.timeline is not None and tagged.network_outputs is not None
    ]
    if not read:
        raise AudioError(f"none of the {len(tagged_files)} recordings can be read: {skipped[0] if skipped else 'none'}")
    return Embeddings(
        model,
        tuple(file for file, timeline, _ in read for _ in timeline.starts),
        np.concatenate([timeline.starts for _, timeline, _ in read]),
        np.concatenate([timeline.ends for _, timeline, _ in read]),
        np.concatenate([features for *_, features in read]),
        skipped,
    )
