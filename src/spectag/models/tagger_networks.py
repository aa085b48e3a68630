"""The networks of a tagger, and what they compute for windows, images and blocks of frames, without PyTorch."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, FloatArray, Waveform
from spectag.audio.files import resample
from spectag.audio.front_end import FrontEnd
from spectag.audio.sound_statistics import SoundStatistics, measure_sound
from spectag.audio.windows import Window, WindowCutter
from spectag.config.base import Channel
from spectag.config.devices import Device
from spectag.data.labels import LabelSet
from spectag.errors import BundleError, DataError
from spectag.models.bundle import BundleInfo, read_info
from spectag.models.frames import FrameBlock, FrameNetwork, FrameOutputs, novelty_in_block, novelty_of_frames
from spectag.models.network_session import NetworkSession, accelerators_for
from spectag.models.timeline import cell_seconds, pool_logits
from spectag.scoring.blending import EnsembleWeights
from spectag.scoring.calibration import probabilities_of
from spectag.system.stopwatch import Stopwatch
from spectag.system.threads import map_ahead

_TOLERATED_SECONDS = 0.01  # of a window that is longer than the network's input


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


class TaggerNetworks:
    """The networks of a tagger, which compute probabilities, features and novelty of parts of sounds.

    The parameters are those of `spectag.models.tagger.Tagger`.
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

    def open(self) -> Self:
        """Open the networks now instead of at their first use: after this, their files are no longer needed."""
        for network in (*self._networks, self._frame_network):
            _ = network and network.session
        return self

    def check_device(self) -> Self:
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

    def probabilities(self, waveform: Waveform, sample_rate: int) -> Float32Array:
        """Probabilities (n_labels,) of a waveform (n_samples,) as a whole, like those of `tag`."""
        parts = self._parts(waveform, sample_rate)
        if len(parts) == 1:
            return self.probabilities_of_window(parts[0])
        return self._outputs_of_parts(parts, features=False)[0].probabilities

    def probabilities_of_window(self, window: Window) -> Float32Array:
        """Probabilities (n_labels,) of a window from `Tagger.open_windows`."""
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
        """Probabilities, logits and, if wanted, features of a window from `Tagger.open_windows`.

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

    def outputs_of_block(self, block: Window) -> FrameOutputs:
        """Probabilities and, if known, novelty of the frames of a `FrameBlock` from `Tagger.open_windows`."""
        assert isinstance(block, FrameBlock)
        assert self._frame_network is not None
        with self.clock.timed("log-mel"):
            log_mel = block.log_mel(self.front_end)
        with self.clock.timed("network"):
            probabilities, novelty = self._frame_network.of_block(block, log_mel), None
            if self.info.novelty is not None:
                of_excerpt = novelty_in_block(block, log_mel, self.front_end, self._networks[self.info.novelty.network])
                novelty = novelty_of_frames(block, self.info.clip_seconds, of_excerpt)
        return FrameOutputs(block.edges, probabilities, novelty)

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
