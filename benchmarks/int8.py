"""Speed and accuracy of a model with 8-bit integers: python benchmarks/int8.py MODEL MANIFEST

The model is quantized by onnxruntime, with weights per channel, and calibrated on a tenth of the clips. The table shows
the time of the network on one core and its lwlrap on the other clips. The calls of the networks alternate.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from spectag.audio.files import read_audio
from spectag.data.manifest import read_manifest
from spectag.models.bundle import ONNX_FILE
from spectag.models.network_session import open_session
from spectag.models.tagger import Tagger
from spectag.scoring.metrics import lwlrap


class Calibration(CalibrationDataReader):
    """The inputs for the calibration of the quantization."""

    def __init__(self, inputs: list[np.ndarray]) -> None:
        self._inputs: Iterator[np.ndarray] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next input of the network; None at the end."""
        inputs = next(self._inputs, None)
        return None if inputs is None else {"inputs": inputs[None]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a model with one network")
    parser.add_argument("manifest", type=Path, help="clips that it was not trained on")
    arguments = parser.parse_args()
    tagger, manifest = Tagger(arguments.model), read_manifest(arguments.manifest)
    inputs = []
    for clip in manifest.clips:
        waveform, _ = read_audio(clip.path, sample_rate=tagger.front_end.sample_rate)
        inputs.append(tagger.front_end.input_of_waveform(waveform))
    columns = [tagger.labels.index(label) for label in manifest.labels.names]
    y_true = manifest.multi_hot()
    with tempfile.TemporaryDirectory() as folder:
        networks = _quantized(arguments.model / ONNX_FILE, Path(folder), inputs[::10])
        sessions = {name: open_session(path, n_threads=1) for name, path in networks.items()}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        outputs: dict[str, list[np.ndarray]] = {name: [] for name in sessions}
        for clip_input in inputs:
            for name, session in sessions.items():
                start = time.perf_counter()
                outputs[name].append(session.run(["probabilities"], {"inputs": clip_input[None]})[0][0])
                times[name].append(time.perf_counter() - start)
    test = np.arange(len(inputs)) % 10 != 0
    first = statistics.median(next(iter(times.values())))
    print("| network | ms a clip (median) | ratio | lwlrap | largest difference of a probability |")
    print("|---|---|---|---|---|")
    exact = np.array(next(iter(outputs.values())))
    for name, seconds in times.items():
        probabilities = np.array(outputs[name])
        score, median = lwlrap(y_true[test], probabilities[test][:, columns]), statistics.median(seconds)
        difference = np.abs(probabilities - exact).max()
        print(f"| {name} | {median * 1e3:.2f} | {median / first:.2f} | {score:.4f} | {difference:.3f} |")


def _quantized(path: Path, folder: Path, calibration: list[np.ndarray]) -> dict[str, Path]:
    model = onnx.load(path)
    del model.graph.value_info[:]  # quantization infers the shapes again, and some differ
    onnx.save(model, folder / "float.onnx")
    paths = {"float32": path, "int8, static": folder / "static.onnx", "int8, dynamic": folder / "dynamic.onnx"}
    data = Calibration(calibration)
    quantize_static(folder / "float.onnx", paths["int8, static"], data, quant_format=QuantFormat.QDQ, per_channel=True)
    quantize_dynamic(folder / "float.onnx", paths["int8, dynamic"])
    return paths


if __name__ == "__main__":
    main()
