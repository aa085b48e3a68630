"""A tagger at work: probabilities of sounds, computed by onnxruntime without PyTorch."""

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, FloatArray, Waveform
from spectag.audio.files import open_excerpt, resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.sound_statistics import SoundStatistics, measure_sound
from spectag.audio.windows import Window, WindowCutter, WindowStream
from spectag.config.base import Channel, WindowConfig
from spectag.data.labels import LabelSet
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import BundleError, DataError
from spectag.models.bundle import ONNX_FILE, BundleInfo, check_network_file, read_info
from spectag.models.onnx_file import check_inputs_and_outputs, check_onnx_file
from spectag.models.timeline import cell_seconds, pool_logits
from spectag.scoring.blending import EnsembleWeights
from spectag.scoring.calibration import probabilities_of
from spectag.system.stopwatch import Stopwatch
from spectag.system.worker_pool import keep_freed_memory, n_usable_cores


@dataclass(frozen=True)
class Tag:
    """A label and its probability."""

    label: str
    probability: float


@dataclass(frozen=True)
class Tags:
    """The predictions of a tagger for a recording, or for a window of it.

    `probabilities` and `thresholds` have shape (n_labels,). `end_seconds` is None for an image.
    """

    path: str | Path
    start_seconds: float
    end_seconds: float | None
    labels: LabelSet
    probabilities: Float32Array
    thresholds: Float32Array
    novelty: float | None = None
    """How much the sound differs from the training sounds: above 1 more than 97 % of them. None if it is unknown."""

    def top(self, n: int) -> list[Tag]:
        """The n most probable labels, most probable first."""
        order = np.argsort(-self.probabilities, kind="stable")[:n]
        return [Tag(self.labels.names[index], float(self.probabilities[index])) for index in order]

    def above_threshold(self, threshold: float | None = None) -> list[Tag]:
        """The labels at or above their thresholds (or one threshold for all), most probable first."""
        limits = self.thresholds if threshold is None else np.full_like(self.thresholds, threshold)
        detected = set(np.flatnonzero(self.probabilities >= limits))
        return [tag for tag in self.top(len(self.labels)) if self.labels.index(tag.label) in detected]


@dataclass(frozen=True)
class TaggerOutputs:
    """The outputs of a tagger for a sound: probabilities and logits (n_labels,), and features (n_features,).

    Probabilities are calibrated, if the tagger is; logits never are. Of several networks, the features are those of
    the first; there are none (0,) if they were not requested.
    """

    probabilities: Float32Array
    logits: Float32Array
    features: Float32Array
    network_logits: Float32Array
    """The logits of each network, (n_networks, n_labels)."""
    novelty: float | None = None
    """None if no network of the tagger computes it."""


def not_finite(path: str | Path, start_seconds: float) -> str:
    """Why a file cannot be tagged whose probabilities, in the window from this time on, are NaN."""
    return (
        f"{path}: the probabilities from {start_seconds:g} s on are not finite; check the file, or the model if this "
        "happens with every file"
    )


_LEAST_GIGABYTES, _GIGABYTES_PER_CORE = 4.0, 1.5
"""A minute of sound needs 1.2 GB with the largest published network, mn40, and each core may be at another minute."""


def max_network_gigabytes() -> float:
    """Memory that all networks of a process may use together: 4 GB, or 1.5 GB per core if this is more."""
    return max(_LEAST_GIGABYTES, _GIGABYTES_PER_CORE * n_usable_cores())


@lru_cache(maxsize=1)
def _limit_memory() -> None:
    """Make onnxruntime take the memory of all sessions from one pool, so that no network can fill the machine's."""
    import onnxruntime

    on_cpu = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    max_bytes = int(max_network_gigabytes() * 2**30)
    onnxruntime.create_and_register_allocator(on_cpu, onnxruntime.OrtArenaCfg({"max_mem": max_bytes}))


def open_session(path: str | Path, *, n_threads: int, limits_memory: bool = True) -> Any:
    """An onnxruntime session on the CPU. All that limit their memory share `max_network_gigabytes`."""
    import onnxruntime

    keep_freed_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    if limits_memory:
        _limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        # with its fallback, onnxruntime prints some errors to stdout and tries the same again
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # onnxruntime's errors have no common class
        raise BundleError(f"{path}: onnxruntime cannot open it: {str(error).splitlines()[0]}") from error


@lru_cache(maxsize=1)
def _run_options() -> Any:
    """Options that keep onnxruntime from computing outputs that are not requested."""
    from onnxruntime import RunOptions

    options = RunOptions()
    options.only_execute_path_to_fetches = True
    options.log_severity_level = _FATAL
    return options


_FATAL = 4  # onnxruntime's log level; it raises its errors as well
_OPENING = threading.Lock()  # otherwise each thread might open its own session


class _Network:
    """A model.onnx and its feature extraction. It is opened and compared with spectag.json at its first use."""

    def __init__(self, bundle: Path, info: BundleInfo, index: int, n_threads: int) -> None:
        self.name = f"{info.members[index].folder}/{ONNX_FILE}" if info.members else ONNX_FILE
        self.path = bundle / self.name
        self.front_end = info.members[index].front_end if info.members else info.front_end
        self.n_threads = n_threads
        self._bundle, self._info = bundle, info
        self._outputs = {"logits" if info.members else "probabilities"}
        if info.novelty is not None and info.novelty.network == index:
            self._outputs.add("novelty")

    @cached_property
    def session(self) -> Any:
        check_network_file(self._bundle, self._info, self.name)
        check_onnx_file(self.path)
        session = open_session(self.path, n_threads=self.n_threads)
        check_inputs_and_outputs(self.path, session, self.front_end, len(self._info.labels), self._outputs)
        return session

    def __call__(self, inputs: Float32Array, *outputs: str) -> list[Float32Array]:
        """The outputs (n_labels,) or (n_features,) with these names, for one input (channels, height, width)."""
        with _OPENING:
            session = self.session
        try:
            return [output[0] for output in session.run(outputs, {"inputs": inputs[None]}, _run_options())]
        except Exception as error:  # onnxruntime's errors have no common class
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if "Available memory" in reason:
                reason = f"the networks need more than {max_network_gigabytes():g} GB of memory; use shorter windows"
            raise BundleError(f"{self.path}: cannot process an input of shape {inputs.shape}: {reason}") from error


class Tagger:
    """A trained model that is ready to tag: one network, or an ensemble of several.

    Parameters
    ----------
    bundle : str or Path
        The folder that `spectag train` wrote.
    n_threads : int
        Threads of the network. Probabilities do not depend on it.
    channel : "mix", "loudest" or int, optional
        How several channels of a sound become one. By default as in training.

    Raises
    ------
    BundleError
        If the folder does not contain a tagger, or a damaged one.

    Examples
    --------
    >>> tagger = spectag.load("model")  # doctest: +SKIP
    >>> tagger.tag("a.wav").top(3)  # doctest: +SKIP
    """

    def __init__(self, bundle: str | Path, *, n_threads: int = 1, channel: Channel | None = None) -> None:
        self.folder = Path(bundle)
        self.info: BundleInfo = read_info(self.folder)
        self.labels: LabelSet = self.info.label_set
        self.thresholds: Float32Array = np.array(self.info.thresholds, np.float32)
        self.n_threads = n_threads
        self.channel: Channel = self.front_end.channel if channel is None else channel
        self._ensemble_weights = EnsembleWeights(tuple(member.weight for member in self.info.members), self.info.bias)
        self._networks = [
            _Network(self.folder, self.info, index, n_threads) for index in range(len(self.info.members) or 1)
        ]
        for network in self._networks:
            if self.info.members and not network.path.is_file():
                raise BundleError(
                    f"{network.path}: file is missing; the tagger needs all of its {len(self._networks)} networks, so "
                    "copy the complete folder"
                )

    def __repr__(self) -> str:
        """The folder, the number of labels and the backbone."""
        return f"Tagger({str(self.folder)!r}: {len(self.labels)} labels, {self.info.backbone.name})"

    def with_channel(self, channel: Channel | None) -> "Tagger":
        """The same tagger for another channel of the sounds; None: as it is."""
        if channel is None or channel == self.channel:
            return self
        return Tagger(self.folder, n_threads=self.n_threads, channel=channel)

    def open(self) -> "Tagger":
        """Open the networks now instead of at their first use: after this, their files are no longer needed."""
        for network in self._networks:
            _ = network.session
        return self

    @property
    def front_end(self) -> FrontEnd:
        """How a sound becomes the input of the network; of several networks, the first one's."""
        return self.info.front_end

    @property
    def n_networks(self) -> int:
        """The number of networks: 1, or several of an ensemble."""
        return len(self._networks)

    @cached_property
    def front_ends(self) -> tuple[FrontEnd, ...]:
        """The different front ends of the networks, `front_end` first."""
        return tuple(dict.fromkeys(network.front_end for network in self._networks))

    @cached_property
    def sample_rates(self) -> tuple[int, ...]:
        """The sample rates of the networks' inputs, in Hz."""
        return tuple(dict.fromkeys(front_end.sample_rate for front_end in self.front_ends))

    @cached_property
    def clock(self) -> Stopwatch:
        """Measures the time of each stage of tagging."""
        return Stopwatch()

    @property
    def has_novelty(self) -> bool:
        """Whether it computes the novelty of sounds."""
        return self.info.novelty is not None

    def probabilities(self, waveform: Waveform, sample_rate: int) -> Float32Array:
        """Probabilities (n_labels,) of a waveform (n_samples,) as a whole, like those of `tag`."""
        parts = self._parts(waveform, sample_rate)
        if len(parts) == 1:
            return self.probabilities_of_window(parts[0])
        return self._outputs_of_parts(parts, features=False)[0].probabilities

    def probabilities_of_window(self, window: Window) -> Float32Array:
        """Probabilities (n_labels,) of a window from `open_windows`."""
        return self._probabilities(self._inputs(window.waveforms))

    def probabilities_of_image(self, path: Path) -> Float32Array:
        """Probabilities (n_labels,) of an image file."""
        return self._probabilities(self._inputs_of_image(path))

    def outputs(self, waveform: Waveform, sample_rate: int) -> TaggerOutputs:
        """Probabilities, logits and features of a waveform (n_samples,) as a whole, like those of `tag`."""
        return self._outputs_of_parts(self._parts(waveform, sample_rate), features=True)[0]

    def outputs_of_window(self, window: Window, *, features: bool = True) -> TaggerOutputs:
        """Probabilities, logits and, if wanted, features of a window from `open_windows`."""
        return self._outputs(self._inputs(window.waveforms), features=features)

    def outputs_of_image(self, path: Path, *, features: bool = True) -> TaggerOutputs:
        """Probabilities, logits and, if wanted, features of an image file."""
        return self._outputs(self._inputs_of_image(path), features=features)

    def outputs_of_clip(
        self, parts: Sequence[TaggerOutputs], starts: Sequence[float] | FloatArray, ends: Sequence[float] | FloatArray
    ) -> TaggerOutputs:
        """The outputs for a whole clip, from those of its parts and their starts and ends in seconds.

        The logits of each network are pooled (`pool_logits`), then combined and calibrated. Features are the mean of
        the parts; novelty is the smallest of the parts, because a tag may come from any of them. A single part is the
        clip.
        """
        if len(parts) == 1:
            return parts[0]
        seconds = cell_seconds(starts, ends)
        network_logits = pool_logits([part.network_logits for part in parts], seconds)
        features = np.average([part.features for part in parts], axis=0, weights=seconds).astype(np.float32)
        logits = self._combined(list(network_logits))
        novelties = [part.novelty for part in parts if part.novelty is not None]
        return TaggerOutputs(
            self._calibrated(logits),
            logits.astype(np.float32),
            features,
            network_logits.astype(np.float32),
            min(novelties, default=None),
        )

    def measure_window(self, window: Window) -> SoundStatistics | None:
        """Level and bandwidth of a window, to compare them with `info.training_sounds`; None without these."""
        if self.info.training_sounds is None:
            return None
        with self.clock.timed("shift check"):
            return measure_sound(window.waveforms[self.sample_rates[0]], self.sample_rates[0])

    def logits_of_inputs(self, inputs: Mapping[FrontEnd, Float32Array]) -> Float32Array:
        """Uncalibrated logits (n_labels,) of the inputs (channels, height, width) of all `front_ends`."""
        return self._logits(inputs).astype(np.float32)

    def _parts(self, waveform: Waveform, sample_rate: int) -> list[Window]:
        """The parts that the networks take of a waveform (n_samples,)."""
        if len(waveform) <= round(self.info.window.max_clip_seconds * sample_rate):
            at_all_rates = {rate: resample(waveform, sample_rate, rate) for rate in self.sample_rates}
            return [Window(0.0, len(waveform) / sample_rate, at_all_rates)]
        max_seconds = self.info.window.max_clip_seconds
        return list(WindowCutter(sample_rate, self.sample_rates, window_seconds=max_seconds).cut([waveform]))

    def _outputs_of_parts(self, parts: Iterable[Window], *, features: bool) -> tuple[TaggerOutputs, float]:
        """The outputs for a whole clip, and its length in seconds."""
        outputs, starts, ends = [], [], []
        for part in parts:
            outputs.append(self.outputs_of_window(part, features=features))
            starts.append(part.start_seconds)
            ends.append(part.end_seconds)
        return self.outputs_of_clip(outputs, starts, ends), ends[-1]

    def _inputs(self, waveforms: Mapping[int, Waveform]) -> dict[FrontEnd, Float32Array]:
        """The input of each front end, from the waveforms at all sample rates."""
        with self.clock.timed("log-mel"):
            return {
                front_end: front_end.input_of_waveform(waveforms[front_end.sample_rate])
                for front_end in self.front_ends
            }

    def _inputs_of_image(self, path: Path) -> dict[FrontEnd, Float32Array]:
        n_without_images = sum(network.front_end.image is None for network in self._networks)
        if 0 < n_without_images < len(self._networks):
            raise DataError(
                f"{path}: {n_without_images} of the {len(self._networks)} networks of this tagger need log_mels, not "
                "images; give the sound file"
            )
        return {front_end: front_end.input_of_image(path) for front_end in self.front_ends}

    def _logits(self, inputs: Mapping[FrontEnd, Float32Array]) -> NDArray[np.floating]:
        """Logits (n_labels,) of all networks together."""
        return self._combined([network(inputs[network.front_end], "logits")[0] for network in self._networks])

    def _combined(self, network_logits: list[NDArray[np.floating]]) -> NDArray[np.floating]:
        return self._ensemble_weights(network_logits) if self.info.members else network_logits[0]

    def _probabilities(self, inputs: Mapping[FrontEnd, Float32Array]) -> Float32Array:
        with self.clock.timed("network"):
            if not self.info.members:
                return self._networks[0](inputs[self.front_end], "probabilities")[0]
            return self._calibrated(self._logits(inputs))

    def _outputs(self, inputs: Mapping[FrontEnd, Float32Array], *, features: bool) -> TaggerOutputs:
        with self.clock.timed("network"):
            names = ["logits", "features"] if features else ["logits"]
            if not self.info.members:
                names.append("probabilities")
            outputs = []
            for index, network in enumerate(self._networks):
                has_novelty = self.info.novelty is not None and self.info.novelty.network == index
                own_names = [*names, "novelty"] if has_novelty else names
                outputs.append(dict(zip(own_names, network(inputs[network.front_end], *own_names), strict=True)))
            novelties = [float(output["novelty"]) for output in outputs if "novelty" in output]
            network_logits = [output["logits"] for output in outputs]
            logits = self._combined(network_logits)
            probabilities = self._calibrated(logits) if self.info.members else outputs[0]["probabilities"]
            return TaggerOutputs(
                probabilities,
                logits.astype(np.float32),
                outputs[0].get("features", np.empty(0, np.float32)),
                np.stack(network_logits),
                next(iter(novelties), None),
            )

    def _calibrated(self, logits: NDArray[np.floating]) -> Float32Array:
        """Probabilities of an ensemble, or of a clip in parts. Otherwise model.onnx computes them itself."""
        return probabilities_of(logits, self.info.calibration).astype(np.float32)

    def tag(self, path: str | Path, *, start_seconds: float = 0.0, end_seconds: float | None = None) -> Tags:
        """The predictions for a whole recording, or for an image if the tagger was trained on images.

        A recording longer than `max_clip_seconds` of the bundle (60) is predicted in parts of that length, the last of
        which ends with the recording. Their logits are pooled (`pool_logits`) and then calibrated, as in training.

        Parameters
        ----------
        path : str or Path
        start_seconds, end_seconds : float
            The excerpt to tag; by default the whole recording.

        Raises
        ------
        AudioError, DataError
            If the file cannot be read, or its probabilities are not finite.
        """
        path = Path(path)
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return self._tags(path, 0.0, None, self.outputs_of_image(path, features=False))
        with self.open_windows(path, start_seconds=start_seconds, end_seconds=end_seconds) as parts:
            outputs, duration = self._outputs_of_parts(parts, features=False)
        return self._tags(path, start_seconds, start_seconds + duration, outputs)

    def tag_windows(self, path: str | Path, window: WindowConfig) -> Iterator[Tags]:
        """The predictions for each window of a recording, in order. Memory use does not depend on its length.

        The last window ends with the recording and is as long as the others, so it may overlap the one before it more
        than the others do. A recording shorter than a window is one window.

        Raises
        ------
        AudioError
            If the file cannot be read.
        ValueError
            If `window` has no length.
        """
        if window.window_seconds is None:
            raise ValueError("need the length of a window, got window_seconds=None")
        with self.open_windows(path, window) as windows:
            for part in windows:
                outputs = self.outputs_of_window(part, features=False)
                yield self._tags(Path(path), part.start_seconds, part.end_seconds, outputs, window)

    @contextmanager
    def open_windows(
        self,
        path: str | Path,
        window: WindowConfig | None = None,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Generator[WindowStream]:
        """The windows of a recording, decoded and resampled one after the other; without `window`, its parts.

        With start and end, only this excerpt is read, and times count from its start.

        Raises
        ------
        AudioError
            If the file cannot be read: at once, or when the windows reach the damage.
        DataError
            If the tagger accepts only images.
        """
        seconds, overlap = (window.window_seconds, window.overlap_seconds) if window else (None, 0.0)
        with open_excerpt(path, start_seconds, end_seconds, channel=self.channel) as sound:
            cutter = WindowCutter(
                sound.sample_rate,
                self.sample_rates,
                window_seconds=seconds or self.info.window.max_clip_seconds,
                overlap_seconds=overlap if seconds else 0.0,
            )
            windows = cutter.cut(self.clock.timed_items("reading", sound.blocks))
            yield WindowStream(self.clock.timed_items("resampling", windows), sound.faults)

    def thresholds_for(self, window: WindowConfig | None) -> Float32Array:
        """The thresholds (n_labels,) for windows of this length; None: for whole recordings."""
        of_windows = self.info.window_thresholds
        if window is None or window.window_seconds is None or of_windows is None:
            return self.thresholds
        is_short = window.window_seconds < of_windows.below_seconds
        return np.array(of_windows.thresholds, np.float32) if is_short else self.thresholds

    def _tags(
        self, path: Path, start: float, end: float | None, outputs: TaggerOutputs, window: WindowConfig | None = None
    ) -> Tags:
        if not np.isfinite(outputs.probabilities).all():
            raise DataError(not_finite(path, start))
        return Tags(path, start, end, self.labels, outputs.probabilities, self.thresholds_for(window), outputs.novelty)
