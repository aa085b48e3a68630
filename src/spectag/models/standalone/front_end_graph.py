"""The feature extraction as ONNX nodes: a waveform → log_mel → input of a network, as `FrontEnd` computes it.

The spectrum is computed in float64, so that no frame needs the second computation of `spectag.audio.mel`. The operator
STFT is then hardly slower than in float32, and three times as fast in browsers as a convolution with the Fourier basis,
whose weights (4 to 17 MB) would be larger than those of a small network: see docs/how-to/export-a-model.md.
"""

import math

import numpy as np
from onnx import TensorProto

from spectag.array_types import Float32Array
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import analysis_window, mel_filter_bank
from spectag.audio.spectrogram_image import log_mel_to_image
from spectag.config.base import ImageConfig, MelConfig
from spectag.models.standalone.graph_builder import GraphBuilder

_CLIP_AXES = [1, 2]  # of a log_mel (batch, n_mels, n_frames)
_SMALLEST_RANGE = 1e-4
"""Of an image, in the unit of its logarithm: less is the rounding of a constant, because a runtime may compute the
logarithms of equal values differently, several at a time and one by one."""


def add_front_end(graph: GraphBuilder, waveform: str, front_end: FrontEnd) -> str:
    """Add the nodes from a waveform (batch, n_samples) to the input of a network (batch, channels, height, width)."""
    assert front_end.mel is not None
    if front_end.min_samples is not None:
        waveform = _add_least_length(graph, waveform, front_end.min_samples, front_end.padding)
    if front_end.input == "waveform":
        return graph("Unsqueeze", waveform, [1, 2])
    log_mel = add_log_mel(graph, waveform, front_end.mel)
    if front_end.image is None:
        return graph("Unsqueeze", log_mel, [1])
    return _add_image(graph, log_mel, front_end.image, front_end.mel)


def _add_least_length(graph: GraphBuilder, waveform: str, min_samples: int, padding: str) -> str:
    """A waveform of at least `min_samples`: followed by silence, or repeated, or both."""
    n_samples = graph("Shape", waveform, start=1, end=2)
    if padding == "repeat":
        n_needed = graph("Squeeze", graph("Max", n_samples, [min_samples]))
        positions = graph("Mod", graph("Range", 0, n_needed, 1), n_samples)
        return graph("Gather", waveform, positions, axis=1)
    if padding == "repeat_whole":
        n_whole = graph("Max", graph("Div", [min_samples], n_samples), [1])
        waveform = graph("Tile", waveform, graph("Concat", [1], n_whole, axis=0))
        n_samples = graph("Mul", n_samples, n_whole)
    n_missing = graph("Max", graph("Sub", [min_samples], n_samples), [0])
    return graph("Pad", waveform, graph("Concat", [0, 0, 0], n_missing, axis=0))


def add_log_mel(graph: GraphBuilder, waveform: str, config: MelConfig) -> str:
    """Add the nodes from a waveform (batch, n_samples) to a log_mel (batch, n_mels, n_frames)."""
    if config.pre_emphasis:
        waveform = _add_pre_emphasis(graph, waveform, config.pre_emphasis)
    padded = graph("Cast", _add_padding(graph, waveform, config), to=TensorProto.DOUBLE)
    spectrum = graph(
        "STFT", graph("Unsqueeze", padded, [2]), config.hop_length, analysis_window(config), config.n_fft, onesided=1
    )
    spectrum = graph("Cast", spectrum, to=TensorProto.FLOAT)
    squares = graph.add("Split", graph("Mul", spectrum, spectrum), n_outputs=2, axis=3, num_outputs=2)
    power = graph("Squeeze", graph("Add", *squares), [3])  # ReduceSumSquare is five times as slow
    mel_power = graph("MatMul", power, mel_filter_bank(config).T)
    return _add_logarithm(graph, graph("Transpose", mel_power, perm=[0, 2, 1]), config)


def _add_pre_emphasis(graph: GraphBuilder, waveform: str, coefficient: float) -> str:
    n_missing = graph("Max", graph("Sub", [2], graph("Shape", waveform, start=1, end=2)), [0])
    at_least_two = graph("Pad", waveform, graph("Concat", [0, 0, 0], n_missing, axis=0))
    samples = graph("Slice", at_least_two, [1], [np.iinfo(np.int64).max], [1])
    samples_before = graph("Slice", at_least_two, [0], [-1], [1])
    return graph("Sub", samples, graph("Mul", samples_before, np.float32(coefficient)))


def _add_padding(graph: GraphBuilder, waveform: str, config: MelConfig) -> str:
    n_pad = config.n_fft // 2
    if config.pad_mode == "constant":
        return graph("Pad", waveform, [0, n_pad, 0, n_pad])
    # by index, because Pad cannot mirror a clip that is shorter than the padding
    n_samples = graph("Squeeze", graph("Shape", waveform, start=1, end=2))
    period = graph("Max", graph("Mul", graph("Sub", n_samples, 1), 2), 1)  # there and back; 1 for a single sample
    sides = []
    for positions in (np.arange(-n_pad, 0), graph("Add", np.arange(n_pad), n_samples)):
        forward = graph("Mod", positions, period)
        sides.append(graph("Gather", waveform, graph("Min", forward, graph("Sub", period, forward)), axis=1))
    return graph("Concat", sides[0], waveform, sides[1], axis=1)


def _add_logarithm(graph: GraphBuilder, mel_power: str, config: MelConfig) -> str:
    amin = np.float32(config.amin)
    if config.log == "db":
        decibel, scale = 1.0, 10 / math.log(10)
        floored = graph("Max", mel_power, amin)
    else:
        decibel, scale = math.log(10) / 10, 1.0
        floored = graph("Add", mel_power, amin)
    log_mel = graph("Mul", graph("Log", floored), np.float32(scale))
    if config.ref == "max":
        greatest = graph("Max", graph("ReduceMax", mel_power, _CLIP_AXES), amin)
        log_mel = graph("Sub", log_mel, graph("Mul", graph("Log", greatest), np.float32(scale)))
    else:
        log_mel = graph("Sub", log_mel, np.float32(scale * math.log(max(config.ref, config.amin))))
    if config.top_db is not None:
        lowest = graph("Sub", graph("ReduceMax", log_mel, _CLIP_AXES), np.float32(config.top_db * decibel))
        log_mel = graph("Max", log_mel, lowest)
    return graph("Div", graph("Sub", log_mel, np.float32(config.mean)), np.float32(config.std))


def _add_image(graph: GraphBuilder, log_mel: str, config: ImageConfig, mel: MelConfig) -> str:
    """Add the nodes from a log_mel to an 8-bit image of it (batch, channels, height, width), from 0 to 1."""
    low, high = _add_range(graph, log_mel, config, smallest=_SMALLEST_RANGE / mel.std)
    values = graph("Slice", log_mel, [-1], [-mel.n_mels - 1], [1], [-1])  # the highest band becomes the first row
    if config.width is not None:
        n_frames = graph("Squeeze", graph("Shape", log_mel, start=2, end=3))
        to_columns = _add_resize_matrix(graph, n_frames, config.width)
        values = graph("MatMul", values, graph("Transpose", to_columns, perm=[1, 0]))
    if config.height not in (None, mel.n_mels):
        values = graph("MatMul", _add_resize_matrix(graph, graph.constant(mel.n_mels), config.height), values)
    per_color = graph("Div", np.float32(255), graph("Sub", high, low))
    pixels = graph("Round", graph("Mul", graph("Sub", values, low), per_color))
    pixels = graph("Clip", pixels, np.float32(0), np.float32(255))
    if config.colormap == "grey":
        return graph("Div", graph("Unsqueeze", pixels, [1]), np.float32(255))
    colors = graph("Gather", _color_table(config.colormap), graph("Cast", pixels, to=TensorProto.INT64), axis=0)
    return graph("Transpose", colors, perm=[0, 3, 1, 2])


def _add_range(graph: GraphBuilder, log_mel: str, config: ImageConfig, *, smallest: float) -> tuple[str, str]:
    """The log_mel that is black and the one that is white. A range of width 0, as in silence, becomes 1 wide."""
    low = graph("ReduceMin", log_mel, _CLIP_AXES) if config.low is None else _constant(graph, config.low)
    high = graph("ReduceMax", log_mel, _CLIP_AXES) if config.high is None else _constant(graph, config.high)
    is_wide = graph("Greater", graph("Sub", high, low), np.float32(smallest))
    if config.high is None:
        return low, graph("Where", is_wide, high, graph("Add", low, np.float32(1)))
    return graph("Where", is_wide, low, graph("Sub", high, np.float32(1))), high


def _constant(graph: GraphBuilder, value: float) -> str:
    return graph.constant(np.full((1, 1, 1), value, np.float32))


def _add_resize_matrix(graph: GraphBuilder, n_old: str, n_new: int) -> str:
    """Weights (n_new, n_old) of Pillow's bilinear interpolation, which averages if an image shrinks."""
    step = graph("Div", graph("Cast", n_old, to=TensorProto.DOUBLE), np.float64(n_new))
    width = graph("Max", step, np.float64(1))  # of the triangle of weights, to one side
    centers = graph("Mul", np.arange(n_new)[:, None] + 0.5, step)
    pixels = graph("Cast", graph("Range", 0, n_old, 1), to=TensorProto.DOUBLE)
    distances = graph("Abs", graph("Sub", graph("Add", pixels, np.float64(0.5)), centers))
    triangle = graph("Max", graph("Sub", np.float64(1), graph("Div", distances, width)), np.float64(0))
    weights = graph("Div", triangle, graph("ReduceSum", triangle, [1]))
    return graph("Cast", weights, to=TensorProto.FLOAT)


def _color_table(colormap: str) -> Float32Array:
    """The 256 colours of a colour map, of shape (256, 3), from 0 to 1."""
    ramp = np.arange(256, dtype=np.float32)[None]
    image, _ = log_mel_to_image(ramp, ImageConfig(colormap=colormap, low=0.0, high=255.0))
    return np.asarray(image[0] / 255, np.float32)
