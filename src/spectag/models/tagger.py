"""A bundle at work: probabilities of sounds by onnxruntime, without torch."""

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, Waveform
from spectag.audio.files import resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.stream import open_stretch
from spectag.audio.windows import Window, cut
from spectag.config.base import WindowConfig
from spectag.data.labels import LabelSet
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import BundleError, DataError
from spectag.models.bundle import ONNX_FILE, BundleInfo, read_info
from spectag.models.timeline import Timeline, pooled
from spectag.scoring.blending import EnsembleWeights
from spectag.scoring.calibration import probabilities_of
from spectag.system.stopwatch import Stopwatch
from spectag.system.worker_pool import keep_freed_memory


@dataclass(frozen=True)
class Tag:
    """A label and how probable it is."""

    label: str
    probability: float


@dataclass(frozen=True)
class Tags:
    """What a tagger hears in a stretch of a recording.

    `probabilities` has shape (n_labels,); the stretch ends at the recording's end where `end_seconds` is later.
    """

    path: str | Path
    start_seconds: float
    end_seconds: float | None  # None: an image
    labels: LabelSet
    probabilities: Float32Array
    thresholds: Float32Array

    def top(self, n: int) -> list[Tag]:
        """The n most probable labels, most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [Tag(self.labels.names[i], float(self.probabilities[i])) for i in order]

    def heard(self, threshold: float | None = None) -> list[Tag]:
        """The labels at or above their thresholds (or one threshold for all), most probable first."""
        limits = self.thresholds if threshold is None else np.full_like(self.thresholds, threshold)
        above = set(np.flatnonzero(self.probabilities >= limits))
        return [tag for tag in self.top(len(self.labels)) if self.labels.index(tag.label) in above]


@dataclass(frozen=True)
class Answer:
    """All that a tagger makes of a sound: probabilities and logits (n_labels,), and features (n_features,).

    Probabilities are calibrated, if the tagger is; logits never are. The features of several networks are the first
    one's.
    """

    probabilities: Float32Array
    logits: Float32Array
    features: Float32Array


def open_session(path: str | Path, *, n_threads: int) -> Any:
    """An onnxruntime session on the CPU."""
    import onnxruntime

    keep_freed_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class
        raise BundleError(f"{path}: can't be opened by onnxruntime: {str(error).splitlines()[0]}") from error


@lru_cache(maxsize=1)
def _nothing_else() -> Any:
    """Keep onnxruntime from computing outputs that nobody asks for."""
    from onnxruntime import RunOptions

    options = RunOptions()
    options.only_execute_path_to_fetches = True
    return options


_OPENING = threading.Lock()  # or each thread that asks meanwhile would open a session of its own


class _Network:
    """A model.onnx and what it hears; opened when it is first asked."""

    def __init__(self, path: Path, front_end: FrontEnd, n_threads: int) -> None:
        self.path = path
        self.front_end = front_end
        self.n_threads = n_threads

    @cached_property
    def _session(self) -> Any:
        return open_session(self.path, n_threads=self.n_threads)

    def __call__(self, inputs: Float32Array, *outputs: str) -> list[Float32Array]:
        """The outputs (n_labels,) or (n_features,) of these names for one input (channels, height, width)."""
        with _OPENING:
            session = self._session
        try:
            return [output[0] for output in session.run(outputs, {"inputs": inputs[None]}, _nothing_else())]
        except Exception as error:  # onnxruntime's errors share no class
            reason = str(error).splitlines()[0]
            raise BundleError(f"{self.path}: takes no input of shape {inputs.shape}: {reason}") from error


class Tagger:
    """A bundle that is ready to tag: one network, or several that answer as one.

    Parameters
    ----------
    bundle : str or Path
        The folder that `spectag train` made.
    n_threads : int
        Threads of the network. Probabilities do not depend on it.

    Raises
    ------
    BundleError
        If the folder holds no tagger, or a damaged one.

    Examples
    --------
    >>> tagger = spectag.load("model")  # doctest: +SKIP
    >>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
    """

    def __init__(self, bundle: str | Path, *, n_threads: int = 1) -> None:
        self.folder = Path(bundle)
        self.info: BundleInfo = read_info(self.folder)
        self.labels: LabelSet = self.info.label_set
        self.thresholds: Float32Array = np.array(self.info.thresholds, np.float32)
        self.n_threads = n_threads
        self._blend = EnsembleWeights(tuple(member.weight for member in self.info.members), self.info.bias)
        self._networks = [
            _Network(self.folder / member.folder / ONNX_FILE, member.front_end, n_threads)
            for member in self.info.members
        ] or [_Network(self.folder / ONNX_FILE, self.info.front_end, n_threads)]
        if self.info.members:
            self._check_files()

    def _check_files(self) -> None:
        for network in self._networks:
            if not network.path.is_file():
                raise BundleError(
                    f"{network.path}: is missing; the tagger answers by all its {len(self._networks)} networks or not "
                    "at all, so copy its folder whole"
                )

    def __repr__(self) -> str:
        """Tell which tagger it is."""
        return f"Tagger({str(self.folder)!r}: {len(self.labels)} labels, {self.info.backbone.name})"

    def open(self) -> "Tagger":
        """Open the networks now, and not when they are first asked: their files are no longer needed then."""
        for network in self._networks:
            _ = network._session
        return self

    @property
    def front_end(self) -> FrontEnd:
        """How a sound becomes the network's input; of several networks, the first one's."""
        return self.info.front_end

    @cached_property
    def front_ends(self) -> tuple[FrontEnd, ...]:
        """The different front ends of the networks, `front_end` first."""
        return tuple(dict.fromkeys(network.front_end for network in self._networks))

    def probabilities_of_input(self, inputs: Float32Array) -> Float32Array:
        """Probabilities (n_labels,) of one input (channels, height, width).

        Raises
        ------
        BundleError
            If the network can't be opened, or does not take the input; or if there are several with different front
            ends, each of which needs an input of its own.
        """
        if len(self.front_ends) > 1:
            raise BundleError(
                f"{self.folder}: its networks hear by {len(self.front_ends)} different front ends, so no one input is "
                "for all; give it the waveform"
            )
        return self._probabilities_of_inputs({self.front_end: inputs})

    @cached_property
    def clock(self) -> Stopwatch:
        """What the time of tagging goes into."""
        return Stopwatch()

    @cached_property
    def sample_rates(self) -> tuple[int, ...]:
        """The rates in Hz at which the networks hear."""
        return tuple(dict.fromkeys(front_end.sample_rate for front_end in self.front_ends))

    def probabilities(self, waveform: Waveform, sample_rate: int) -> Float32Array:
        """Probabilities (n_labels,) of a waveform (n_samples,), seen as a whole."""
        return self._probabilities(self._at_all_rates(waveform, sample_rate))

    def probabilities_of_window(self, window: Window) -> Float32Array:
        """Probabilities (n_labels,) of a window that `open_windows` gave."""
        return self._probabilities(window.waveforms)

    def answer(self, waveform: Waveform, sample_rate: int) -> Answer:
        """Probabilities, logits and features of a waveform (n_samples,), seen as a whole."""
        return self._answer_of_waveforms(self._at_all_rates(waveform, sample_rate))

    def answer_of_window(self, window: Window) -> Answer:
        """Probabilities, logits and features of a window that `open_windows` gave."""
        return self._answer_of_waveforms(window.waveforms)

    def answer_of_image(self, path: Path) -> Answer:
        """Probabilities, logits and features of an image file."""
        return self._answer_of_inputs(self._inputs_of_image(path))

    def inputs_of_waveform(self, waveform: Waveform, sample_rate: int) -> dict[FrontEnd, Float32Array]:
        """The input (channels, height, width) that each front end makes of a waveform (n_samples,)."""
        return self._inputs(self._at_all_rates(waveform, sample_rate))

    def logits_of_inputs(self, inputs: Mapping[FrontEnd, Float32Array]) -> Float32Array:
        """Logits (n_labels,), not calibrated, of the inputs (channels, height, width) of all `front_ends`."""
        return self._blended_logits(inputs).astype(np.float32)

    def _blended_logits(self, inputs: Mapping[FrontEnd, Float32Array]) -> NDArray[np.floating]:
        """Logits (n_labels,) of all networks together."""
        logits = [network(inputs[network.front_end], "logits")[0] for network in self._networks]
        return self._blend(logits) if self.info.members else logits[0]

    def _at_all_rates(self, waveform: Waveform, sample_rate: int) -> dict[int, Waveform]:
        return {rate: resample(waveform, sample_rate, rate) for rate in self.sample_rates}

    def _inputs(self, waveforms: Mapping[int, Waveform]) -> dict[FrontEnd, Float32Array]:
        """The input that each front end makes of a sound, given at all rates."""
        with self.clock.timed("log-mel"):
            return {end: end.input_of_waveform(waveforms[end.sample_rate]) for end in self.front_ends}

    def _probabilities(self, waveforms: Mapping[int, Waveform]) -> Float32Array:
        inputs = self._inputs(waveforms)
        with self.clock.timed("network"):
            return self._probabilities_of_inputs(inputs)

    def _answer_of_waveforms(self, waveforms: Mapping[int, Waveform]) -> Answer:
        inputs = self._inputs(waveforms)
        with self.clock.timed("network"):
            return self._answer_of_inputs(inputs)

    def _probabilities_of_inputs(self, inputs: Mapping[FrontEnd, Float32Array]) -> Float32Array:
        """Probabilities (n_labels,) by all networks, given the input that each front end makes."""
        if not self.info.members:
            return self._networks[0](inputs[self.front_end], "probabilities")[0]
        return self._calibrated(self._blended_logits(inputs))

    def _answer_of_inputs(self, inputs: Mapping[FrontEnd, Float32Array]) -> Answer:
        if not self.info.members:
            return Answer(*self._networks[0](inputs[self.front_end], "probabilities", "logits", "features"))
        answers = [network(inputs[network.front_end], "logits", "features") for network in self._networks]
        blended = self._blend([logits for logits, _ in answers])
        features = answers[0][1]
        return Answer(self._calibrated(blended), blended.astype(np.float32), features)

    def _calibrated(self, logits: NDArray[np.floating]) -> Float32Array:
        """Probabilities of several networks' logits; a single one's model.onnx gives them itself."""
        return probabilities_of(logits, self.info.calibration).astype(np.float32)

    def tag(self, path: str | Path) -> Tags:
        """Tags of a whole recording, or of an image where the tagger was trained on images.

        A recording longer than the bundle's `max_clip_seconds` (60) is seen in parts of that length, and its
        probabilities are the mean of theirs, each part counting by its length.

        Raises
        ------
        AudioError, DataError
            If the file can't be read.
        """
        path = Path(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return self._tags(path, 0.0, None, self.probabilities_of_image(path))
        with self.open_windows(path) as windows:
            parts = [(part.start_seconds, part.end_seconds, self.probabilities_of_window(part)) for part in windows]
        starts, ends, probabilities = zip(*parts, strict=True)
        whole = pooled(Timeline(np.array(starts), np.array(ends), np.stack(probabilities)), "mean")
        return self._tags(path, 0.0, float(whole.ends[0]), whole.probabilities[0])

    def tag_windows(self, path: str | Path, window: WindowConfig) -> Iterator[Tags]:
        """Tags of each window of a recording, in order; a long recording is never in memory as a whole.

        The last window ends with the recording and is as long as the others, so it may overlap the one before it more
        than they do. A recording shorter than a window is one window.

        Raises
        ------
        AudioError
            If the file can't be read.
        ValueError
            If `window` has no length.
        """
        if window.window_seconds is None:
            raise ValueError("need the length of a window, got window_seconds=None")
        with self.open_windows(path, window) as windows:
            for part in windows:
                yield self._tags(Path(path), part.start_seconds, part.end_seconds, self.probabilities_of_window(part))

    @contextmanager
    def open_windows(
        self,
        path: str | Path,
        window: WindowConfig | None = None,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Generator[Iterator[Window]]:
        """The windows of a recording, decoded and resampled as they are drawn; of whole recordings, their parts.

        Of a stretch of it, times count from where the stretch begins.

        Raises
        ------
        AudioError
            If the file can't be read: at once, or when the windows come to where it is damaged.
        DataError
            If the tagger hears images alone.
        """
        seconds, overlap = (window.window_seconds, window.overlap_seconds) if window else (None, 0.0)
        with open_stretch(path, start_seconds, end_seconds) as sound:
            windows = cut(
                self.clock.draws("reading", sound.blocks),
                sound.sample_rate,
                self.sample_rates,
                window_seconds=seconds or self.info.window.max_clip_seconds,
                overlap_seconds=overlap if seconds else 0.0,
                keep_tail=seconds is None,
            )
            yield self.clock.draws("resampling", windows)

    def probabilities_of_image(self, path: Path) -> Float32Array:
        """Probabilities (n_labels,) of an image file."""
        return self._probabilities_of_inputs(self._inputs_of_image(path))

    def _inputs_of_image(self, path: Path) -> dict[FrontEnd, Float32Array]:
        n_deaf = sum(network.front_end.image is None for network in self._networks)
        if 0 < n_deaf < len(self._networks):
            raise DataError(
                f"{path}: {n_deaf} of this tagger's {len(self._networks)} networks hear log_mels, not images; give it "
                "the sound"
            )
        return {front_end: front_end.input_of_image(path) for front_end in self.front_ends}

    def tags_of(self, path: str | Path, timeline: Timeline) -> list[Tags]:
        """The tags of each window of a timeline, as `spectag.tagging.parallel` gives it of a file."""
        return [
            self._tags(path, float(start), None if np.isnan(end) else float(end), probabilities)
            for start, end, probabilities in zip(timeline.starts, timeline.ends, timeline.probabilities, strict=True)
        ]

    def _tags(self, path: str | Path, start: float, end: float | None, probabilities: Float32Array) -> Tags:
        return Tags(path, start, end, self.labels, probabilities, self.thresholds)
