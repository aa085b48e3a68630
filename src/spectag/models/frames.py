"""The frames of a sound: a network gives a probability for each of them from blocks of the log_mel that overlap."""

import itertools
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from spectag.array_types import Float32Array, FloatArray, Waveform
from spectag.audio.files import resample
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
from spectag.models.onnx_file import check_frames, check_frames_file
from spectag.models.timeline import Timeline


@dataclass(frozen=True)
class FrameBlock(Window):
    """A part of a sound that the network of frames gets at once, and which of its frames are used."""

    edges: FloatArray
    """Start of each used frame, and end of the last one, in seconds, (n_frames + 1,)."""
    n_before: int
    """Frames before the first used one."""
    surrounded: Waveform
    """The part with the sound before and after it that its log_mel needs."""
    n_dropped: int
    """Frames of the log_mel of `surrounded` before that of the part."""
    n_log_mel: int
    """Frames of the log_mel of the part."""

    @property
    def n_frames(self) -> int:
        """The number of used frames."""
        return len(self.edges) - 1

    def log_mel(self, front_end: FrontEnd) -> Float32Array:
        """The input (1, n_mels, n) of the network."""
        log_mel = front_end.input_of_waveform(self.surrounded)
        return log_mel[:, :, self.n_dropped : self.n_dropped + self.n_log_mel]


class FrameCutter:
    """Cuts a sound into the blocks of `FramesInfo.blocks` while it is read. A rest of a frame is one, too.

    The memory does not depend on the length of the sound. The log_mel of a block equals that part of the log_mel of the
    whole sound.

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
        self._margin = -(-(mel.n_fft // 2 + 1) // mel.hop_length)  # log_mel frames that an edge of the sound changes
        self._sound, self._first = np.empty(0, np.float32), 0
        """The samples that are still needed, and the number of the first."""
        self._n_used = 0
        """Frames of the log_mel that are used in blocks so far."""

    def cut(self, blocks: Iterable[Waveform]) -> Iterator[FrameBlock]:
        """Yield the blocks of a sound, given as mono blocks (n_samples,) of any size."""
        for samples in resampled_blocks(self._counted(blocks), self.sample_rate, self._mel.sample_rate):
            self._sound = np.concatenate([self._sound, samples])
            yield from self._blocks_before(-(-self._end // self._mel.hop_length) - self._margin)
        if self._end:
            n_log_mel = n_frames(self._end, self._mel)
            yield from self._blocks_before(n_log_mel)
            first = max(0, n_log_mel + -n_log_mel % self._frames.hop_length - self._frames.block)
            yield self._block(first, n_log_mel, n_log_mel, is_last=True)

    def _blocks_before(self, end: int) -> Iterator[FrameBlock]:
        """The next blocks that end before this frame of the log_mel."""
        size, context = self._frames.block, self._frames.context
        while (first := max(0, self._n_used - context)) + size < end:
            yield self._block(first, first + size, first + size - context, is_last=False)
            self._n_used = first + size - context

    def _counted(self, blocks: Iterable[Waveform]) -> Iterator[Waveform]:
        for block in blocks:
            self.n_samples += len(block)
            yield block

    @property
    def _end(self) -> int:
        return self._first + len(self._sound)

    def _block(self, first: int, last: int, end: int, *, is_last: bool) -> FrameBlock:
        """A block from `first` to `last`, which is used up to `end`: all in frames of the log_mel."""
        hop, rate = self._mel.hop_length, self._mel.sample_rate
        start = max(0, first - self._margin)
        self._drop_before(start * hop)  # and not more: the last block may begin shortly after the one before it
        stop = min(self._end, (last + self._margin) * hop + 1)
        surrounded = self._sound[: stop - self._first]
        end_of_block = min(self._end, last * hop)
        return FrameBlock(
            start_seconds=first * hop / rate,
            end_seconds=end_of_block / rate,
            waveforms={rate: self._sound[first * hop - self._first : end_of_block - self._first]},
            edges=self._edges(self._n_used, end, is_last=is_last),
            n_before=(self._n_used - first) // self._frames.hop_length,
            surrounded=surrounded,
            n_dropped=first - start,
            n_log_mel=last - first,
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
        check_frames_file(self.path)
        session = open_session(self.path, n_threads=self.n_threads, device=self.device)
        check_frames(self.path, session, self.front_end, len(self._info.labels))
        return session

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

    def of_block(self, block: FrameBlock, log_mel: Float32Array) -> Float32Array:
        """Probabilities (n_frames, n_labels) of the used frames of a block."""
        return self.probabilities(log_mel)[block.n_before : block.n_before + block.n_frames]


@dataclass(frozen=True)
class FrameOutputs:
    """The outputs for the used frames of a block."""

    edges: FloatArray
    """Start of each frame, and end of the last one, in seconds, (n_frames + 1,)."""
    probabilities: Float32Array
    """Of shape (n_frames, n_labels)."""
    novelty: Float32Array | None
    """Of shape (n_frames,): that of the excerpt, about as long as a training clip, in which a frame lies."""


def novelty_of_frames(
    block: FrameBlock, clip_seconds: float, novelty_of: Callable[[float, float], float]
) -> Float32Array:
    """The novelty of each used frame of a block (n_frames,): that of the excerpt in which it lies.

    All excerpts have about the length of a training clip. A part that is shorter, such as the end of a sound, has that
    of a clip that ends with it.

    Parameters
    ----------
    block : FrameBlock
    clip_seconds : float
    novelty_of : callable
        Novelty of an excerpt, given its start and end in seconds from the start of the block.
    """
    used = block.edges[-1] - block.edges[0]
    n_excerpts = max(1, min(math.floor(used / clip_seconds + 0.5), block.n_frames))
    bounds = np.round(np.linspace(0, block.n_frames, n_excerpts + 1)).astype(int)
    values = []
    for begin, end in itertools.pairwise(block.edges[bounds] - block.start_seconds):
        values.append(novelty_of(max(0.0, min(begin, end - clip_seconds)) if n_excerpts == 1 else begin, end))
    return np.repeat(np.array(values, np.float32), np.diff(bounds))


def novelty_in_block(
    block: FrameBlock, log_mel: Float32Array, front_end: FrontEnd, network: NetworkSession
) -> Callable[[float, float], float]:
    """The novelty of excerpts of a block, by a network of clips, as `novelty_of_frames` needs it.

    Parameters
    ----------
    block : FrameBlock
    log_mel : float array of shape (1, n_mels, n)
        That of the block with `front_end`. Networks with another front end get their own.
    front_end : FrontEnd
    network : NetworkSession
    """
    (waveform,), rate, n_columns = block.waveforms.values(), front_end.sample_rate, log_mel.shape[-1]

    def novelty_of(start: float, end: float) -> float:
        first, last = round(start * rate), round(end * rate)
        if network.front_end == front_end:
            columns = [round(sample * n_columns / len(waveform)) for sample in (first, last)]
            begin = min(columns[0], n_columns - 1)
            inputs = log_mel[:, :, begin : max(begin + 1, columns[1])]
        else:
            excerpt = resample(waveform[first:last], rate, network.front_end.sample_rate)
            inputs = network.front_end.input_of_waveform(excerpt)
        return float(network(inputs, "novelty")[0])

    return novelty_of


class FrameCollector:
    """Collects the frames of a sound, block by block."""

    def __init__(self, frames: FramesInfo) -> None:
        self._frames = frames
        self._edges = array("d", [0.0])
        self._probabilities = bytearray()  # grows in place: 220 MB for a day with 50 labels
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
            np.frombuffer(self._probabilities, np.float32).reshape(len(edges) - 1, -1),
            np.array(self._novelty, np.float32) if self._novelty else None,
            self._frames,
        )
