"""A tagger at work: probabilities of sounds, computed by onnxruntime without PyTorch."""

import math
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectag.array_types import Float32Array, FloatArray, Waveform
from spectag.audio.files import AudioStream, audio_info, open_excerpt, resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.sound_arrays import SoundArray, SoundInput, sound_source
from spectag.audio.sound_statistics import SoundStatistics, measure_sound
from spectag.audio.windows import LEAST_NEW, Window, WindowCutter, WindowStream, is_longer
from spectag.config.base import (
    Channel,
    LongRecordingWindows,
    SegmentConfig,
    SegmentFrames,
    WindowConfig,
    parse_config,
    window_config,
)
from spectag.config.devices import Device
from spectag.config.tagging import SEGMENT_FRAMES, TagSettings, segment_window
from spectag.data.labels import LabelSet
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.errors import AudioError, BundleError, ConfigError, DataError
from spectag.models.bundle import CARD_FILE, BundleInfo, read_info
from spectag.models.frames import (
    FrameBlock,
    FrameCollector,
    FrameCutter,
    FrameNetwork,
    FrameOutputs,
    novelty_of_frames,
)
from spectag.models.model_card import render_card
from spectag.models.network_session import NetworkSession, accelerators_for
from spectag.models.sound_list import SoundItem, listed_sounds
from spectag.models.tags import Detection, Segments, Tags
from spectag.models.timeline import Timeline, cell_seconds, find_segments, pool_logits
from spectag.scoring.blending import EnsembleWeights
from spectag.scoring.calibration import probabilities_of
from spectag.system.file_errors import skip_reason
from spectag.system.progress import Progress, shown_progress, silent
from spectag.system.stopwatch import Stopwatch
from spectag.system.storage import is_url
from spectag.system.threads import map_ahead
from spectag.system.worker_pool import check_n_workers, n_usable_cores


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


_TOLERATED_SECONDS = 0.01  # of a window that is longer than the network's input


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
    device : "auto", "cpu", "cuda", "coreml", "directml" or "openvino"
        Where the networks run. auto takes cuda or directml if the installed onnxruntime has it and it opens the
        network, otherwise the CPU. A DeviceWarning says what runs on the CPU though another device was to be used.

    Raises
    ------
    BundleError
        If the folder does not contain a tagger, or a damaged one.
    ConfigError
        If the installed onnxruntime does not have the device. At the first use, if it cannot run the network on it.

    Examples
    --------
    >>> model = spectag.load("model")  # doctest: +SKIP
    >>> model.tag("a.wav")  # doctest: +SKIP
    Tags(a.wav, 0 to 5 s: Dog 0.98, Bark 0.91)
    """

    def __init__(
        self, bundle: str | Path, *, n_threads: int = 1, channel: Channel | None = None, device: Device = "auto"
    ) -> None:
        if device != "auto":
            accelerators_for(device)  # an error now and not later
        self.folder = Path(bundle)
        self.info: BundleInfo = read_info(self.folder)
        self.labels: LabelSet = self.info.label_set
        self.thresholds: Float32Array = np.array(self.info.thresholds, np.float32)
        self.n_threads, self.device = n_threads, device
        self.channel: Channel = self.front_end.channel if channel is None else channel
        self._ensemble_weights = EnsembleWeights(tuple(member.weight for member in self.info.members), self.info.bias)
        self._networks = [
            NetworkSession(self.folder, self.info, index, n_threads, device)
            for index in range(len(self.info.members) or 1)
        ]
        for network in self._networks:
            if self.info.members and not network.path.is_file():
                raise BundleError(
                    f"{network.path}: file is missing; the tagger needs all of its {len(self._networks)} networks, so "
                    "copy the complete folder"
                )
        frames = self.info.frames
        self._frame_network = (
            None if frames is None else FrameNetwork(self.folder, self.info, frames, n_threads, device)
        )

    def __repr__(self) -> str:
        """The folder, the number of labels and the backbone."""
        return f"Tagger({str(self.folder)!r}: {len(self.labels)} labels, {self.info.backbone.name})"

    def __fspath__(self) -> str:
        """The folder, so that functions that take the path of a model also take an open one."""
        return str(self.folder)

    @property
    def card(self) -> str:
        """The model card: what the model knows, how good it is, and its licences, as Markdown."""
        path = self.folder / CARD_FILE
        return path.read_text(encoding="utf-8") if path.is_file() else render_card(self.info, self.folder.name)

    def with_channel(self, channel: Channel | None) -> "Tagger":
        """The same tagger for another channel of the sounds; None: as it is."""
        if channel is None or channel == self.channel:
            return self
        return Tagger(self.folder, n_threads=self.n_threads, channel=channel, device=self.device)

    def open(self) -> "Tagger":
        """Open the networks now instead of at their first use: after this, their files are no longer needed."""
        for network in (*self._networks, self._frame_network):
            _ = network and network.session
        return self

    def check_device(self) -> "Tagger":
        """Open the networks now if an accelerator was asked for: a ConfigError then comes before any other work."""
        return self if self.device in ("auto", "cpu") else self.open()

    @property
    def runs_on(self) -> str:
        """The device on which its networks run; with an accelerator, they are opened to know it."""
        devices = {network.runs_on for network in self._networks} if accelerators_for(self.device) else {"cpu"}
        return next(iter(devices - {"cpu"}), "cpu")

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

    @property
    def sample_rate(self) -> int:
        """The sample rate of the network's input in Hz; of several networks, the first one's. Sounds may have any."""
        return self.front_end.sample_rate

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

    @property
    def segment_window(self) -> WindowConfig:
        """What it finds segments from by default: its frames, or windows if it has none."""
        return segment_window(self.shortest_seconds) if self.info.frames is None else SEGMENT_FRAMES

    def probabilities(self, waveform: Waveform, sample_rate: int) -> Float32Array:
        """Probabilities (n_labels,) of a waveform (n_samples,) as a whole, like those of `tag`."""
        parts = self._parts(waveform, sample_rate)
        if len(parts) == 1:
            return self.probabilities_of_window(parts[0])
        return self._outputs_of_parts(parts, features=False)[0].probabilities

    def probabilities_of_window(self, window: Window) -> Float32Array:
        """Probabilities (n_labels,) of a window from `open_windows`."""
        if self._is_too_long(window):
            return self.outputs_of_window(window, features=False).probabilities
        return self._probabilities(self._inputs(window.waveforms))

    def probabilities_of_image(self, path: Path) -> Float32Array:
        """Probabilities (n_labels,) of an image file."""
        return self._probabilities(self._inputs_of_image(path))

    def outputs(self, waveform: Waveform, sample_rate: int) -> TaggerOutputs:
        """Probabilities, logits and features of a waveform (n_samples,) as a whole, like those of `tag`."""
        return self._outputs_of_parts(self._parts(waveform, sample_rate), features=True)[0]

    def outputs_of_window(self, window: Window, *, features: bool = True) -> TaggerOutputs:
        """Probabilities, logits and, if wanted, features of a window from `open_windows`.

        A window that is longer than the input of a network is processed in parts, as a clip is.
        """
        if not self._is_too_long(window):
            return self._outputs(self._inputs(window.waveforms), features=features)
        parts = window.parts(self._longest_seconds)
        outputs = [self._outputs(self._inputs(part.waveforms), features=features) for part in parts]
        return self.outputs_of_clip(
            outputs, [part.start_seconds for part in parts], [part.end_seconds for part in parts]
        )

    def _is_too_long(self, window: Window) -> bool:
        return window.end_seconds - window.start_seconds > self._longest_seconds + _TOLERATED_SECONDS

    @cached_property
    def _longest_seconds(self) -> float:
        """The longest sound that all networks take at once; infinite if none has a limit."""
        limits = [front_end for front_end in self.front_ends if front_end.max_samples is not None]
        return min((front_end.part_seconds for front_end in limits), default=math.inf)

    @property
    def shortest_seconds(self) -> float:
        """The shortest sound that no network needs to extend by silence; 0 if none does."""
        limits = [front_end for front_end in self.front_ends if front_end.min_samples is not None]
        return max(((each.min_samples or 0) / each.sample_rate for each in limits), default=0.0)

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

    def outputs_of_block(self, block: Window, *, novelty: bool = True) -> FrameOutputs:
        """Probabilities and, if wanted and known, novelty of the frames of a `FrameBlock` from `open_windows`."""
        assert isinstance(block, FrameBlock)
        assert self._frame_network is not None
        with self.clock.timed("log-mel"):
            log_mel = block.log_mel(self.front_end)
        with self.clock.timed("network"):
            probabilities = self._frame_network.of_block(block, log_mel)
            novelties = self._novelty_of_frames(block, log_mel) if novelty and self.has_novelty else None
        return FrameOutputs(block.edges, probabilities, novelties)

    def _novelty_of_frames(self, block: FrameBlock, log_mel: Float32Array) -> Float32Array:
        """The novelty of each used frame: that of the excerpt, about as long as a training clip, in which it lies."""
        assert self.info.novelty is not None
        network, (waveform,) = self._networks[self.info.novelty.network], block.waveforms.values()
        per_sample = log_mel.shape[-1] / len(waveform)

        def novelty_of(start: float, end: float) -> float:
            first, last = round(start * self.sample_rate), round(end * self.sample_rate)
            if network.front_end == self.front_end:
                column = min(round(first * per_sample), log_mel.shape[-1] - 1)
                inputs = log_mel[:, :, column : max(column + 1, round(last * per_sample))]
            else:
                excerpt = resample(waveform[first:last], self.sample_rate, network.front_end.sample_rate)
                inputs = network.front_end.input_of_waveform(excerpt)
            return float(network(inputs, "novelty")[0])

        return novelty_of_frames(block, self.info.clip_seconds, novelty_of)

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
        cutter = WindowCutter(sample_rate, self.sample_rates, window_seconds=max_seconds, least_new=0.0)
        return list(cutter.cut([waveform]))

    def _outputs_of_parts(
        self, parts: Iterable[Window], *, features: bool, n_threads: int = 1
    ) -> tuple[TaggerOutputs, float]:
        """The outputs for a whole clip, and its length in seconds."""
        outputs, starts, ends = self._outputs_of_windows(parts, features=features, n_threads=n_threads)
        return self.outputs_of_clip(outputs, starts, ends), ends[-1]

    def _outputs_of_windows(
        self, windows: Iterable[Window], *, features: bool, n_threads: int
    ) -> tuple[list[TaggerOutputs], list[float], list[float]]:
        """The outputs of each window, and the starts and ends of the windows in seconds."""
        starts, ends = [], []

        def counted() -> Iterator[Window]:
            for window in windows:
                starts.append(window.start_seconds)
                ends.append(window.end_seconds)
                yield window

        function = partial(self.outputs_of_window, features=features)
        if n_threads == 1:
            return list(map(function, counted())), starts, ends
        with closing(map_ahead(function, counted(), n_threads=n_threads)) as outputs:
            return list(outputs), starts, ends

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

    def tag(
        self,
        sound: SoundInput,
        sample_rate: float | None = None,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Tags:
        """The predictions for a whole sound, or for an image if the tagger was trained on images.

        A sound longer than `max_clip_seconds` of the bundle (60) is predicted in parts of that length, the last of
        which ends with the sound. Their logits are pooled (`pool_logits`) and then calibrated, as in training.

        Parameters
        ----------
        sound : path, URL or array
            A file; or samples of shape (n_samples,) or (n_samples, n_channels): floats in [-1, 1], or int16, int32,
            int8 or uint8, which are scaled. Lists, and tensors on the CPU, are arrays.
        sample_rate : number, optional
            Of an array, in Hz. The sound is resampled.
        start_seconds, end_seconds : float
            The excerpt to tag; by default the whole sound.

        Raises
        ------
        AudioError, DataError
            If the sound cannot be read, or its probabilities are not finite.
        """
        with sound_source(sound, sample_rate) as source:
            tags = self._tag(source, start_seconds, end_seconds, n_threads=n_usable_cores())
        return replace(tags, path=sound) if is_url(sound) else tags

    def _tag(
        self,
        source: Path | SoundArray,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        *,
        n_threads: int = 1,
    ) -> Tags:
        if is_image(source):
            return self._tags(source, 0.0, None, self.outputs_of_image(source, features=False))
        with self.open_windows(source, start_seconds=start_seconds, end_seconds=end_seconds) as parts:
            outputs, duration = self._outputs_of_parts(parts, features=False, n_threads=n_threads)
        return self._tags(source, start_seconds, start_seconds + duration, outputs)

    def tag_many(
        self,
        sounds: str | Path | Iterable[SoundInput | tuple[ArrayLike, float]],
        sample_rate: float | None = None,
        *,
        workers: int | None = None,
        progress: Progress | bool = False,
    ) -> Iterator[Tags | AudioError]:
        """Tag many sounds on all cores, and yield the results in their order as soon as they are there.

        A sound that cannot be tagged gives an `AudioError` in its place, which says why.

        Parameters
        ----------
        sounds : iterable of paths, URLs and arrays, or a folder
            As for `tag`, also pairs of an array and its sample rate. They are taken when they are needed. A folder
            gives its sound files, sorted by path.
        sample_rate : number, optional
            Of the arrays, in Hz.
        workers : int, optional
            Number of cores to use. By default all of them.
        progress : bool or Progress
            True shows a progress bar; or a function that is called with the number of tagged sounds.

        Raises
        ------
        AudioError
            If an array has no sample rate, or the folder does not exist.
        BundleError
            If the model is damaged.
        ConfigError
            If `workers` is not above 0.

        Examples
        --------
        >>> for tags in model.tag_many(["a.wav", "b.wav"], progress=True):  # doctest: +SKIP
        ...     print(tags)
        """
        check_n_workers(workers)
        items, n_items = listed_sounds(sounds, sample_rate)
        with (
            shown_progress(progress) as report,
            closing(map_ahead(self._tag_or_error, items, n_threads=workers or n_usable_cores())) as results,
        ):
            for n_done, result in enumerate(results, start=1):
                report("tagging", n_done, max(n_done, n_items))
                yield result

    def _tag_or_error(self, item: SoundItem) -> Tags | AudioError:
        try:
            with sound_source(item.sound, item.sample_rate, name=item.name) as source:
                tags = self._tag(source)
            return replace(tags, path=item.name) if is_url(item.sound) else tags
        except AudioError as error:
            return error
        except Exception as error:
            reason = AudioError(skip_reason(item.name, error))
            reason.__cause__ = error
            return reason

    def tag_windows(
        self, sound: SoundInput, window: WindowConfig | float, *, sample_rate: float | None = None
    ) -> Iterator[Tags]:
        """The predictions for each window of a sound, in order. Memory use does not depend on its length.

        The last window ends with the recording and is as long as the others, so it may overlap the one before it more
        than the others do; it is left out if less than a tenth of a step in it is new. A recording shorter than a
        window is one window.

        Parameters
        ----------
        sound, sample_rate
            As for `tag`.
        window : WindowConfig or float
            The length of a window in seconds, or length and overlap.

        Raises
        ------
        AudioError
            If the sound cannot be read.
        ConfigError
            If `window` has no length above 0.
        """
        window = _windows_of_a_length(window)
        with sound_source(sound, sample_rate) as source, self.open_windows(source, window) as windows:
            for part in windows:
                outputs = self.outputs_of_window(part, features=False)
                tags = self._tags(source, part.start_seconds, part.end_seconds, outputs, window)
                yield replace(tags, path=sound) if is_url(sound) else tags

    def segments(
        self,
        sound: SoundInput,
        sample_rate: float | None = None,
        *,
        window: WindowConfig | float | None = None,
        min_confidence: float | None = None,
        settings: SegmentConfig | None = None,
        progress: Progress | bool = False,
    ) -> Segments:
        """The segments of a sound in which labels are on, as `spectag tag --segments` reports them.

        Parameters
        ----------
        sound, sample_rate
            As for `tag`.
        window : WindowConfig or float, optional
            The windows that are tagged, and then joined. By default the frames of the model, which are 80 ms long; if
            it has none, windows of 1.5 s with an overlap of 1 s.
        min_confidence : float, optional
            A probability from which every label is on. By default the thresholds of the model.
        settings : SegmentConfig, optional
            How windows or frames are joined.
        progress : bool or Progress
            True shows a progress bar; or a function that is called with the number of tagged seconds.

        Raises
        ------
        AudioError, DataError
            If the sound cannot be read, or its probabilities are not finite.
        ConfigError
            If `window` has no length above 0, or `min_confidence` is not from 0 to 1.
        """
        window = self.segment_window if window is None else _windows_of_a_length(window)
        least = parse_config({"min_confidence": min_confidence}, TagSettings, source="segments").min_confidence
        with (
            shown_progress(progress) as report,
            sound_source(sound, sample_rate) as source,
            self.open_windows(source, window) as windows,
        ):
            reported = _reported(windows, source, report)
            timeline = (self._timeline_of_frames if isinstance(window, SegmentFrames) else self._timeline)(
                source, reported
            )
        limits = self.thresholds_for(window)
        limits = limits if least is None else np.full_like(limits, least)
        detections = tuple(
            Detection(self.labels.names[found.label_index], found.start_seconds, found.end_seconds, found.probability)
            for found in find_segments(timeline, limits, settings or SegmentConfig())
        )
        path, name = (sound, sound) if is_url(sound) else (_path_of(source), _name_of(source))
        return Segments(path, self.labels, detections, timeline, name)

    def _timeline(self, source: Path | SoundArray, windows: Iterable[Window]) -> Timeline:
        """The probabilities of all windows, computed on all cores."""
        outputs, starts, ends = self._outputs_of_windows(windows, features=False, n_threads=n_usable_cores())
        probabilities = np.stack([output.probabilities for output in outputs])
        _check_finite(source, probabilities, starts)
        return Timeline(np.array(starts), np.array(ends), probabilities)

    def _timeline_of_frames(self, source: Path | SoundArray, blocks: Iterable[Window]) -> Timeline:
        """The probabilities of the frames of all blocks, computed on all cores."""
        assert self.info.frames is not None
        collector = FrameCollector(self.info.frames)
        compute = partial(self.outputs_of_block, novelty=False)
        with closing(map_ahead(compute, blocks, n_threads=n_usable_cores())) as outputs:
            for block in outputs:
                if (start := collector.add(block)) is not None:
                    raise DataError(not_finite(_name_of(source), start))
        return collector.timeline()

    def embed(
        self, sound: SoundInput, sample_rate: float | None = None, *, window: WindowConfig | float | None = None
    ) -> Float32Array:
        """The features (n_features,) of a sound: what the network has found before its head turns it into labels.

        They are the numbers that the search index and the search for near-duplicates compare, before these centre and
        scale them (`spectag.curation.embedding.Embedding`). A sound in parts has the mean of its parts; of several
        networks, the features are those of the first.

        Parameters
        ----------
        sound, sample_rate
            As for `tag`.
        window : WindowConfig or float, optional
            The length of windows in seconds, or length and overlap: the result has shape (n_windows, n_features).

        Raises
        ------
        AudioError, DataError
            If the sound cannot be read, or its features are not finite.
        ConfigError
            If `window` has no length above 0.
        """
        windows = None if window is None else _windows_of_a_length(window)
        with sound_source(sound, sample_rate) as source:
            if is_image(source):
                features, starts = [self.outputs_of_image(source).features], [0.0]
            else:
                features, starts = self._features(source, windows)
        _check_finite(source, np.stack(features), starts)
        return features[0] if window is None else np.stack(features)

    def _features(
        self, source: Path | SoundArray, window: WindowConfig | None
    ) -> tuple[list[Float32Array], list[float]]:
        """The features of each window, and the starts of the windows; without a window, of the sound as a whole."""
        with self.open_windows(source, window) as windows:
            outputs, starts, ends = self._outputs_of_windows(windows, features=True, n_threads=n_usable_cores())
        if window is None:
            outputs, starts = [self.outputs_of_clip(outputs, starts, ends)], starts[:1]
        return [output.features for output in outputs], starts

    @contextmanager
    def open_windows(
        self,
        sound: str | Path | SoundArray,
        window: WindowConfig | None = None,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
    ) -> Generator[WindowStream]:
        """The windows of a file or an array, decoded and resampled one after the other; without `window`, its parts.

        They start at `spectag.audio.windows.window_starts`. Parts cover a recording to its last sample. With
        `SegmentFrames`, they are blocks of frames (`FrameBlock`), for `outputs_of_block`.

        With start and end, only this excerpt is read, and times count from its start.

        Raises
        ------
        AudioError
            If the file cannot be read: at once, or when the windows reach the damage.
        DataError
            If the tagger accepts only images.
        """
        seconds, overlap = (window.window_seconds, window.overlap_seconds) if window else (None, 0.0)
        longer_than = window.longer_than_seconds if isinstance(window, LongRecordingWindows | SegmentFrames) else None
        with _open_sound(sound, start_seconds, end_seconds, self.channel) as stream:
            blocks = self.clock.timed_items("reading", stream.blocks)
            if longer_than is not None:
                is_long, blocks = is_longer(blocks, round(longer_than * stream.sample_rate))
                seconds = seconds if is_long else None
            if isinstance(window, SegmentFrames) and seconds:
                yield self._frame_blocks(stream, blocks)
                return
            cutter = WindowCutter(
                stream.sample_rate,
                self.sample_rates,
                window_seconds=seconds or self.info.window.max_clip_seconds,
                overlap_seconds=overlap if seconds else 0.0,
                least_new=LEAST_NEW if seconds else 0.0,
            )
            windows = self.clock.timed_items("resampling", cutter.cut(blocks))
            yield WindowStream(windows, stream.faults, cutter, is_whole=seconds is None)

    def _frame_blocks(self, stream: AudioStream, blocks: Iterator[Waveform]) -> WindowStream:
        if self.info.frames is None or self.front_end.mel is None:
            raise ConfigError(f"{self.folder}: this model has no frames; give the length of windows")
        cutter = FrameCutter(stream.sample_rate, self.front_end.mel, self.info.frames)
        cut = self.clock.timed_items("resampling", cutter.cut(blocks))
        return WindowStream(cut, stream.faults, cutter, is_whole=False)

    def thresholds_for(self, window: WindowConfig | None) -> Float32Array:
        """The thresholds (n_labels,) for windows of this length; None: for whole recordings."""
        of_windows = self.info.window_thresholds
        if window is None or window.window_seconds is None or of_windows is None:
            return self.thresholds
        is_short = window.window_seconds < of_windows.below_seconds
        return np.array(of_windows.thresholds, np.float32) if is_short else self.thresholds

    def _tags(
        self,
        source: Path | SoundArray,
        start: float,
        end: float | None,
        outputs: TaggerOutputs,
        window: WindowConfig | None = None,
    ) -> Tags:
        _check_finite(source, outputs.probabilities[None], [start])
        return Tags(
            _path_of(source),
            start,
            end,
            self.labels,
            outputs.probabilities,
            self.thresholds_for(window),
            outputs.novelty,
            source if isinstance(source, SoundArray) else None,
            self.channel,
        )


def is_image(source: Path | SoundArray) -> TypeGuard[Path]:
    """Whether a sound is an image of a spectrogram."""
    return isinstance(source, Path) and source.suffix.lower() in IMAGE_SUFFIXES


@contextmanager
def _open_sound(
    sound: str | Path | SoundArray, start_seconds: float, end_seconds: float | None, channel: Channel
) -> Iterator[AudioStream]:
    if isinstance(sound, SoundArray):
        yield sound.open(start_seconds, end_seconds, channel=channel)
        return
    with open_excerpt(sound, start_seconds, end_seconds, channel=channel) as stream:
        yield stream


def _path_of(source: Path | SoundArray) -> Path | None:
    return source if isinstance(source, Path) else None


def _name_of(source: Path | SoundArray) -> str:
    return source.name if isinstance(source, SoundArray) else str(source)


def _reported(windows: Iterable[Window], source: Path | SoundArray, progress: Progress) -> Iterator[Window]:
    """The windows; the progress gets the seconds of sound in them."""
    n_seconds = 0
    if progress is not silent:
        n_seconds = math.ceil((source if isinstance(source, SoundArray) else audio_info(source)).duration_seconds)
    for window in windows:
        yield window
        progress("seconds", min(round(window.end_seconds), n_seconds), n_seconds)


def _windows_of_a_length(window: WindowConfig | float) -> WindowConfig:
    windows = window_config(window)
    if windows.window_seconds is None:
        raise ConfigError("window: need the length of a window, got window_seconds=None; give it in seconds, such as 5")
    return windows


def _check_finite(source: Path | SoundArray, values: Float32Array, starts: Sequence[float]) -> None:
    """Raise a DataError if probabilities or features (n_windows, n) are NaN or infinite."""
    is_finite = np.isfinite(values).all(axis=1)
    if not is_finite.all():
        raise DataError(not_finite(_name_of(source), starts[int(np.argmin(is_finite))]))
