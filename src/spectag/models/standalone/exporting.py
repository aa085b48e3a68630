"""Export a model as one ONNX file that runs anywhere: from a waveform to probabilities, without spectag."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spectag.array_types import Waveform
from spectag.audio.channels import LOUDEST_SECONDS
from spectag.config.base import Channel
from spectag.errors import BundleError, ConfigError, MissingExtraError, first_line
from spectag.models.bundle import ONNX_FILE, BackboneInfo, BundleInfo
from spectag.models.network_session import open_session
from spectag.models.pretrained import open_tagger
from spectag.models.tagger import Tagger
from spectag.system.atomic_files import unfinished_file
from spectag.system.file_errors import reason_of
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent

if TYPE_CHECKING:
    from onnx import ModelProto

    from spectag.models.standalone.clip_graph import ClipNetwork

MIN_OPSET = 18
"""The first opset in which the axes of all reductions are inputs."""
MAX_DIFFERENCE = 1e-4
"""Largest difference in probability between the file and `Tagger.tag`."""
_MAX_ROUNDED_DIFFERENCE = 0.2
"""The same if values are rounded: to float16, or to 8-bit images or integers, where the last bit of a float matters."""
_CHECKED_SECONDS = (0.3, 1.0, 3.3, 10.0)
_LONGER_THAN_A_PART = 1.03
_EXAMPLE = """\
import json, wave
import numpy as np, onnxruntime

session = onnxruntime.InferenceSession({path!r})
metadata = session.get_modelmeta().custom_metadata_map
with wave.open("sound.wav") as file:{length}
    rate, n_bits = file.getframerate(), 8 * file.getsampwidth()
    if rate != int(metadata["sample_rate"]) or n_bits != 16:
        raise SystemExit(
            f"sound.wav has {{rate}} Hz and {{n_bits}} bits, but {sample_rate} Hz and 16 bits are needed"
            "; convert it: ffmpeg -i sound.wav -ar {sample_rate} -c:a pcm_s16le converted.wav"
        )
    samples = np.frombuffer(file.readframes(-1), np.int16).reshape(-1, file.getnchannels()) / 32768
samples = {mono}
[probabilities] = session.run(["probabilities"], {{"waveform": samples[None].astype(np.float32)}})
for index in np.argsort(-probabilities[0])[:5]:
    print(json.loads(metadata["labels"])[index], probabilities[0, index])
"""


@dataclass(frozen=True)
class ExportedModel:
    """An exported file, and how close its probabilities are to those of the model."""

    path: Path
    n_bytes: int
    opset: int
    sample_rate: int
    """Of the waveform, in Hz."""
    channel: Channel
    """Of sounds with several channels, the waveform that the file expects: as in the tagger."""
    inputs: dict[str, list[int | str]]
    """Shapes by name. A name in a shape stands for any size."""
    outputs: dict[str, list[int | str]]
    largest_difference: float
    """In probability, from `Tagger.tag`, on made-up sounds."""
    checked_seconds: tuple[float, ...]
    """Durations of these sounds."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"path": str(self.path)}

    def example(self) -> str:
        """Python code that tags a wav file, with onnxruntime and numpy alone."""
        n_samples = self.inputs["waveform"][1]
        length = f"  # of {n_samples} samples" if isinstance(n_samples, int) else ""
        mono = _mono_code(self.channel, self.sample_rate)
        return _EXAMPLE.format(path=str(self.path), sample_rate=self.sample_rate, length=length, mono=mono)


def _mono_code(channel: Channel, sample_rate: int) -> str:
    """Python code that makes one channel of `samples` (n_samples, n_channels), as spectag does."""
    if channel == "mix":
        return "samples.mean(axis=1)  # channel mix: the mean of all channels"
    if channel == "loudest":
        n_samples = round(LOUDEST_SECONDS * sample_rate)
        code = f"samples[:, samples[:{n_samples}].var(axis=0).argmax()]"
        return f"{code}  # channel loudest: of the first {LOUDEST_SECONDS / 60:g} minutes"
    return f"samples[:, {channel - 1}]  # channel {channel}, counted from 1"


@shows_progress
def export(
    model: str | Path | Tagger,
    output: str | Path,
    *,
    fp16: bool = False,
    opset: int | None = None,
    max_seconds: float | None = None,
    progress: Progress = silent,
    log: Log = no_log,
) -> ExportedModel:
    """Write a model as one ONNX file, from a waveform to calibrated probabilities.

    The input is `waveform` (batch, samples): mono, from -1 to 1, at the sample rate of the model. The outputs are
    `probabilities` (batch, n_labels), `embedding` (batch, n_features) and, if the model has it, `novelty` (batch,).
    Labels, thresholds and so on are in the metadata of the file. Afterwards the file is opened and compared with
    `Tagger.tag` on made-up sounds.

    Parameters
    ----------
    model : str, Path or Tagger
        Folder of a model from `spectag train`, the name of a published model, or an open one, whose `channel` the
        metadata then have.
    output : str or Path
        The file. It appears complete or not at all.
    fp16 : bool
        Store the weights as float16, which halves the file and changes probabilities slightly. The arithmetic stays in
        float32.
    opset : int, optional
        Version of ONNX's operators. By default that of the model.
    max_seconds : float, optional
        Fixed length of the waveform: the input has shape (1, samples), and the graph contains no loop.
    progress, log
        Called during the download, and with what happens.

    Raises
    ------
    ConfigError
        If the opset or the length is not possible with this model.
    BundleError
        If the model cannot be read or exported, or the file cannot be written, is larger than 2 GB or differs from the
        model.
    MissingExtraError
        If the package onnx is not installed.

    Examples
    --------
    >>> spectag.export("audioset-mn04", "model.onnx").largest_difference  # doctest: +SKIP
    3.2e-06
    """
    output = Path(output)
    if output.is_dir():
        raise BundleError(f"{output}: is a folder, but the exported model is one file; give a file such as model.onnx")
    if output.suffix.lower() != ".onnx":
        raise ConfigError(f"-o {output}: the file is an ONNX model; give it a name that ends in .onnx")
    tagger = open_tagger(model, device="cpu", progress=progress, log=log).open()
    n_samples = _check_options(tagger, opset, max_seconds)
    log(f"making the graph of {tagger.folder.name}")
    graph = _make_model(tagger, n_samples=n_samples, opset=opset, fp16=fp16)
    content = _checked_content(graph, output, fp16=fp16)
    try:
        with unfinished_file(output) as unfinished:
            unfinished.write_bytes(content)
            log("comparing the file with the model")
            difference, seconds = _compare(unfinished, tagger, n_samples, can_batch=_batch_size(graph) != 1)
            is_rounded = fp16 or _is_quantized(graph) or any(each.image is not None for each in tagger.front_ends)
            _check_difference(output, difference, _MAX_ROUNDED_DIFFERENCE if is_rounded else MAX_DIFFERENCE)
            n_bytes = unfinished.stat().st_size
    except OSError as error:
        raise BundleError(f"{output}: cannot be written: {reason_of(error)}; choose another path for -o") from error
    return ExportedModel(
        path=output,
        n_bytes=n_bytes,
        opset=graph.opset_import[0].version,
        sample_rate=tagger.front_end.sample_rate,
        channel=tagger.channel,
        inputs=_shapes(graph.graph.input),
        outputs=_shapes(graph.graph.output),
        largest_difference=difference,
        checked_seconds=seconds,
    )


def _check_options(tagger: Tagger, opset: int | None, max_seconds: float | None) -> int | None:
    """The fixed number of samples, if there is one."""
    if tagger.front_end.mel is None:
        raise BundleError(
            f"{tagger.folder}: was trained on images with unknown mel settings, so it cannot take a waveform; train it "
            "with the settings that made its images ([mel] in --config)"
        )
    if len(tagger.sample_rates) > 1:
        rates = " and ".join(map(str, tagger.sample_rates))
        raise BundleError(
            f"{tagger.folder}: its networks need sounds at {rates} Hz, but the file has one input; train all members "
            "with the same mel.sample_rate"
        )
    if opset is not None and opset < MIN_OPSET:
        raise ConfigError(f"opset must be {MIN_OPSET} or more, got {opset}; leave it out for that of the model")
    if max_seconds is None:
        return None
    longest, rate = tagger.info.window.max_clip_seconds, tagger.front_end.sample_rate
    n_samples = round(max_seconds * rate) if math.isfinite(max_seconds) else 0
    if not 1 <= n_samples <= round(longest * rate):
        raise ConfigError(
            f"max_seconds must be from {1 / rate:.2g} to {longest:g}, got {max_seconds:g}: the model tags longer "
            f"sounds in parts of {longest:g} s; cut them yourself, or leave max_seconds out"
        )
    return n_samples


def _make_model(tagger: Tagger, *, n_samples: int | None, opset: int | None, fp16: bool) -> "ModelProto":
    try:
        from onnx import helper

        from spectag.models.standalone.clip_graph import NETWORK_PREFIX, clip_graph
        from spectag.models.standalone.network_graph import store_weights_as_float16
    except ImportError as error:
        raise MissingExtraError("onnx", "export", "exporting a model") from error
    networks, opset = _networks(tagger, opset)
    graph = clip_graph(networks, tagger.info, n_samples=n_samples)
    operators = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=operators,
        ir_version=helper.find_min_ir_version_for(operators),
        producer_name="spectag",
        producer_version=version("spectag"),
    )
    if fp16:
        store_weights_as_float16(model, NETWORK_PREFIX)
    helper.set_model_props(model, _metadata(tagger, n_samples))
    return model


def _checked_content(model: "ModelProto", output: Path, *, fp16: bool) -> bytes:
    """The bytes of a valid model; a BundleError if they are more than ONNX allows."""
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # protobuf has no type hints
    from onnx import checker

    try:
        content: bytes = model.SerializeToString(deterministic=True)
        checker.check_model(content)
    except (EncodeError, ValueError) as error:
        smaller = "" if fp16 else "store the weights as float16 (--fp16), or "
        raise BundleError(
            f"{output}: not written, because it would have more than the 2 GB of an ONNX file; {smaller}train an "
            "ensemble of fewer or smaller networks"
        ) from error
    return content


def _networks(tagger: Tagger, opset: int | None) -> "tuple[list[ClipNetwork], int]":
    """The networks of a model, converted to one opset, and this opset."""
    import onnx

    from spectag.models.standalone.clip_graph import ClipNetwork

    info, members = tagger.info, tagger.info.members
    folders = [tagger.folder / member.folder for member in members] or [tagger.folder]
    models = [onnx.load(folder / ONNX_FILE) for folder in folders]
    opset = opset or max(MIN_OPSET, *map(_opset_of, models))
    converted = [_at_opset(model, opset, folder / ONNX_FILE) for model, folder in zip(models, folders, strict=True)]
    networks = [
        ClipNetwork(
            graph=model.graph,
            front_end=members[index].front_end if members else info.front_end,
            windows=backbone.clip_windows,
            weight=members[index].weight if members else 1.0,
            has_novelty=info.novelty is not None and info.novelty.network == index,
        )
        for index, (model, backbone) in enumerate(zip(converted, _backbones(info), strict=True))
    ]
    return networks, opset


def _opset_of(model: "ModelProto") -> int:
    return int(next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")))


def _at_opset(model: "ModelProto", opset: int, path: Path) -> "ModelProto":
    """The network with the operators of an opset."""
    if _opset_of(model) == opset:
        return model
    from onnx import checker, defs, version_converter

    from spectag.models.standalone.graph_builder import drop_newer_attributes

    if opset > defs.onnx_opset_version():
        raise ConfigError(
            f"opset must be from {MIN_OPSET} to {defs.onnx_opset_version()}, the last of the package onnx; got {opset}"
        )
    try:
        converted = version_converter.convert_version(model, opset)
        drop_newer_attributes(converted.graph, opset)
        checker.check_model(converted)
    except Exception as error:  # the converter raises errors of any class
        reason = first_line(error)
        raise ConfigError(
            f"{path}: cannot be converted from opset {_opset_of(model)} to {opset}: {reason}; leave out --opset"
        ) from error
    return converted


def _metadata(tagger: Tagger, n_samples: int | None) -> dict[str, str]:
    """What a program needs to know of the model. All values are texts; those with several values are JSON."""
    info = tagger.info
    metadata: dict[str, Any] = {
        "name": tagger.folder.resolve().name,
        "labels": list(info.labels),
        "thresholds": list(info.thresholds),
        "window_thresholds": info.window_thresholds and info.window_thresholds.model_dump(mode="json"),
        "sample_rate": info.front_end.sample_rate,
        "samples": n_samples,
        "channel": tagger.channel,
        "max_clip_seconds": info.window.max_clip_seconds,
        "calibrated": info.calibration is not None,
        "backbones": [backbone.name for backbone in _backbones(info)],
        "licence": ", ".join(dict.fromkeys(backbone.licence for backbone in _backbones(info))),
        "spectag_version": version("spectag"),
    }
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in metadata.items()
        if value is not None
    }


def _backbones(info: BundleInfo) -> list[BackboneInfo]:
    return [member.backbone for member in info.members] or [info.backbone]


def _shapes(values: Any) -> dict[str, list[int | str]]:
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in values
    }


def _is_quantized(graph: "ModelProto") -> bool:
    """Whether a network computes with integers of 8 bits."""
    from spectag.models.standalone.graph_builder import all_graphs

    nodes = (node for inner in all_graphs(graph.graph) for node in inner.node)
    return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in nodes)


def _batch_size(graph: "ModelProto") -> int:
    """Of the waveform; 0 if it can be any."""
    return int(graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value)


def _compare(path: Path, tagger: Tagger, n_samples: int | None, *, can_batch: bool) -> tuple[float, tuple[float, ...]]:
    """The largest difference in probability from the model on made-up sounds, and the durations of these sounds."""
    rate = tagger.front_end.sample_rate
    longest = _LONGER_THAN_A_PART * tagger.info.window.max_clip_seconds
    lengths = [n_samples] if n_samples else [round(seconds * rate) for seconds in (*_CHECKED_SECONDS, longest)]
    session = open_session(path, n_threads=tagger.n_threads)
    largest = 0.0
    for length in lengths:
        for waveforms in _made_up_batches(length, rate, can_batch=can_batch and length <= 2 * rate):
            expected = [tagger.probabilities(waveform, rate) for waveform in waveforms]
            [found] = session.run(["probabilities"], {"waveform": waveforms})
            largest = float(np.maximum(largest, np.abs(found - expected).max()))  # unlike max, keeps a NaN
    return largest, tuple(length / rate for length in lengths)


def _check_difference(output: Path, difference: float, max_difference: float) -> None:
    if not difference <= max_difference:  # also if it is NaN
        raise BundleError(
            f"{output}: not written, because its probabilities differ from those of the model by {difference:.1e}, "
            f"more than {max_difference:g}; please report this with the versions of onnx ({version('onnx')}) and "
            f"onnxruntime ({version('onnxruntime')})"
        )


def _made_up_batches(n_samples: int, sample_rate: int, *, can_batch: bool) -> Iterator[Waveform]:
    """Batches of waveforms (batch, n_samples): noise and a rising tone, loud and quiet, and silence."""
    rng, times = np.random.default_rng(0), np.arange(n_samples) / sample_rate
    tone = np.sin(2 * np.pi * (200 + 300 * times) * times)
    loudness = 0.5 - 0.5 * np.cos(2 * np.pi * times / 0.7)
    sound = (0.5 * loudness * tone + 0.05 * rng.standard_normal(n_samples)).astype(np.float32)
    sounds = np.stack([sound, 1e-3 * sound, np.zeros_like(sound)])
    yield from [sounds] if can_batch else [sounds[:1]]
