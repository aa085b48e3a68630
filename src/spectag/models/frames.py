"""The frames of a sound: a network gives a probability for each of them from blocks of the log_mel that overlap."""

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Float32Array, FloatArray, Waveform
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import n_frames
from spectag.audio.resampled_stream import resampled_blocks
from spectag.audio.windows import Window
from spectag.config.base import MelConfig
from spectag.config.devices import Device
from spectag.errors import BundleError
from spectag.models.bundle import BundleInfo, check_network_file
from spectag.models.frames_info import FRAMES_FILE, FramesInfo
from spectag.models.network_session import NetworkSession, open_session
from spectag.models.onnx_file import check_onnx_file
from spectag.models.timeline import Timeline


@dataclass(frozen=True)
class FrameBlock(Window):
    """A part of a sound whose frames are computed together. Its waveform is without what surrounds it."""

    edges: FloatArray
    """Start of each frame, and end of the last one, in seconds, (n_frames + 1,)."""
    surrounded: Waveform
    """The part with the sound before and after it that its log_mel and the network need."""
    n_dropped: int
    """Frames of its log_mel that are wrong, because something is missing before them."""
    n_context: int
    """Frames of its log_mel that the network sees before the part."""
    n_own_log_mel: int
    """Frames of its log_mel in the part itself."""
    n_log_mel: int
    """Frames of its log_mel that the network gets."""

    def log_mel(self, front_end: FrontEnd) -> Float32Array:
        """The input (1, n_mels, n) of the network: the part and its context."""
        log_mel = front_end.input_of_waveform(self.surrounded)
        return log_mel[:, :, self.n_dropped : self.n_dropped + self.n_log_mel]


class FrameCutter:
    """Cuts a sound into blocks of frames while it is read. Their number does not change the memory that is needed.

    The last block is up to one and a half as long as the others, so that no block is short unless the sound is. The
    log_mel of a block equals that of the whole sound.

    Parameters
    ----------
    sample_rate : int
        Of the sound, in Hz.
    mel : MelConfig
    frames : FramesInfo
    """

    def __init__(self, sample_rate: int, mel: MelConfig, frames: FramesInfo) -> None:
        self.sample_rate = sample_rate
        self.n_samples = 0
        """Received so far."""
        self._mel, self._frames = mel, frames
        self._step = frames.block - 2 * frames.context
        self._margin = -(-(mel.n_fft // 2 + 1) // mel.hop_length)  # log_mel frames that an edge of the sound changes
        self._least_rest = max(self._step // 2, frames.context + self._margin + 1)
        self._sound, self._first = np.empty(0, np.float32), 0
        """The samples that are still needed, and the number of the first."""

    def cut(self, blocks: Iterable[Waveform]) -> Iterator[FrameBlock]:
        """Yield the blocks of a sound, given as mono blocks (n_samples,) of any size."""
        begin = 0  # of the next block, in frames of the log_mel
        for samples in resampled_blocks(self._counted(blocks), self.sample_rate, self._mel.sample_rate):
            self._sound = np.concatenate([self._sound, samples])
            while self._end >= (begin + self._step + self._least_rest) * self._mel.hop_length:
                yield self._block(begin, begin + self._step, is_last=False)
                begin += self._step
        if self._end:
            yield self._block(begin, n_frames(self._end, self._mel), is_last=True)

    def _counted(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        for block in blocks:
            self.n_samples += len(block)
            yield block

    @property
    def _end(self) -> int:
        return self._first + len(self._sound)

    def _block(self, begin: int, end: int, *, is_last: bool) -> FrameBlock:
        """The block of the frames of the log_mel from `begin` to `end`."""
        hop, rate = self._mel.hop_length, self._mel.sample_rate
        n_context, n_after = min(self._frames.context, begin), 0 if is_last else self._frames.context
        first = max(0, begin - n_context - self._margin)
        self._drop_before(first * hop)
        stop = self._end if is_last else (end + n_after + self._margin) * hop + 1
        surrounded = self._sound[: stop - self._first]
        own = slice(begin * hop - self._first, None if is_last else end * hop - self._first)
        return FrameBlock(
            start_seconds=begin * hop / rate,
            end_seconds=(self._end if is_last else end * hop) / rate,
            waveforms={rate: surrounded[own]},
            edges=self._edges(begin, end, is_last=is_last),
            surrounded=surrounded,
            n_dropped=begin - n_context - first,
            n_context=n_context,
            n_own_log_mel=end - begin,
            n_log_mel=n_context + end - begin + n_after,
        )

    def _edges(self, begin: int, end: int, *, is_last: bool) -> FloatArray:
        step = self._frames.hop_length
        halves = 2 * np.arange(begin // step, -(-end // step) + 1) - 1  # of a frame: whole numbers round only once
        edges = np.maximum(halves, 0) * (step * self._mel.hop_length) / (2 * self._mel.sample_rate)
        if is_last:
            edges[-1] = self.n_samples / self.sample_rate
        return edges

    def _drop_before(self, sample: int) -> None:
        if sample > self._first:
            self._sound, self._first = self._sound[sample - self._first :], sample


class FrameNetwork(NetworkSession):
    """The frames.onnx of a bundle. It is opened and checked at its first use.

    Raises
    ------
    BundleError
        If the file is missing, at once; or if it is damaged, at its first use.
    """

    def __init__(self, bundle: Path, info: BundleInfo, frames: FramesInfo, n_threads: int, device: Device) -> None:
        super().__init__(bundle, info, 0, n_threads, device)
        self.name, self.path = FRAMES_FILE, bundle / FRAMES_FILE
        self._frames = frames
        if not self.path.is_file():
            raise BundleError(
                f"{self.path}: file is missing; the tagger needs it for segments, so copy the whole folder"
            )

    @cached_property
    def session(self) -> Any:
        """The onnxruntime session."""
        check_network_file(self._bundle, self._info, FRAMES_FILE)
        check_onnx_file(self.path)
        return open_session(self.path, n_threads=self.n_threads, device=self.device)

    def probabilities(self, log_mel: Float32Array) -> Float32Array:
        """Probabilities (n_frames, n_labels) of a log_mel (1, n_mels, n); frames have `hop_length` frames of it.

        If there is no whole number of frames, the last frame of the log_mel is repeated.
        """
        n_missing = -log_mel.shape[-1] % self._frames.hop_length
        if n_missing:
            log_mel = np.pad(log_mel, ((0, 0), (0, 0), (0, n_missing)), mode="edge")
        (probabilities,) = self(log_mel, "probabilities")
        expected = log_mel.shape[-1] // self._frames.hop_length, len(self._info.labels)
        if probabilities.shape != expected:
            raise BundleError(
                f"{self.path}: expected probabilities of shape {expected}, got {probabilities.shape}; spectag.json "
                "belongs to another network"
            )
        return probabilities

    def of_block(self, block: FrameBlock, log_mel: Float32Array) -> NDArray[np.float16]:
        """Probabilities (n_frames, n_labels) of the frames of a block, without its context."""
        first = block.n_context // self._frames.hop_length
        return self.probabilities(log_mel)[first : first + len(block.edges) - 1].astype(np.float16)


@dataclass(frozen=True)
class FrameOutputs:
    """The outputs for the frames of a block."""

    edges: FloatArray
    """Start of each frame, and end of the last one, in seconds, (n_frames + 1,)."""
    probabilities: NDArray[np.float16]
    """Of shape (n_frames, n_labels)."""
    novelty: Float32Array | None
    """Of shape (n_frames,): that of the excerpt, about as long as a training clip, in which a frame lies."""


def novelty_of_frames(
    n_frames_in_block: int, n_excerpts: int, novelty_of: Callable[[float, float], float]
) -> Float32Array:
    """The novelty of each frame of a block: that of the excerpt in which it lies; all excerpts have about one length.

    Parameters
    ----------
    n_frames_in_block, n_excerpts : int
    novelty_of : callable
        Novelty of an excerpt, given its start and end as fractions of the block.
    """
    n_excerpts = max(1, min(n_excerpts, n_frames_in_block))
    bounds = np.round(np.linspace(0, n_frames_in_block, n_excerpts + 1)).astype(int)
    pairs = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
    values = [novelty_of(begin / n_frames_in_block, end / n_frames_in_block) for begin, end in pairs]
    return np.repeat(np.array(values, np.float32), np.diff(bounds))


class FrameCollector:
    """Collects the frames of a sound, block by block."""

    def __init__(self, frames: FramesInfo) -> None:
        self._frames = frames
        self._edges = array("d", [0.0])
        self._probabilities = bytearray()  # grows in place: 100 MB for a day with 50 labels
        self._novelty = array("f")

    def add(self, outputs: FrameOutputs) -> float | None:
        """Add the outputs of the next block. Returns the start of the first frame that is not finite, if any."""
        self._edges[-1] = outputs.edges[0]
        self._edges.extend(outputs.edges[1:].tolist())
        self._probabilities += outputs.probabilities.tobytes()
        if outputs.novelty is not None:
            self._novelty.extend(outputs.novelty.tolist())
        is_finite = np.isfinite(outputs.probabilities).all(axis=1)
        return None if is_finite.all() else float(outputs.edges[int(np.argmin(is_finite))])

    def timeline(self) -> Timeline:
        """The timeline of all frames."""
        edges = np.array(self._edges)
        return Timeline(
            edges[:-1],
            edges[1:],
            np.frombuffer(self._probabilities, np.float16).reshape(len(edges) - 1, -1),
            np.array(self._novelty, np.float32) if self._novelty else None,
            self._frames,
        )


def n_excerpts_of_clip_length(block: Window, clip_seconds: float) -> int:
    """In how many excerpts about as long as a training clip a block is divided."""
    return max(1, math.floor((block.end_seconds - block.start_seconds) / clip_seconds + 0.5))
