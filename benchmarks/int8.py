"""Whether a tagger in 8-bit integers would be faster, and what it would lose: python benchmarks/int8.py MODEL MANIFEST

onnxruntime's own quantization, weights by channel, calibrated on a tenth of the clips; time and lwlrap on the others,
network alone, one core, the ways in turn.
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

from spectag.data.manifest import read_manifest
from spectag.models.bundle import ONNX_FILE
from spectag.models.tagger import Tagger, open_session
from spectag.scoring.metrics import lwlrap


class Calibration(CalibrationDataReader):
    """Inputs, one after another."""

    def __init__(self, inputs: list[np.ndarray]) -> None:
        self._inputs: Iterator[np.ndarray] = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next one as the network takes it."""
        inputs = next(self._inputs, None)
        return None if inputs is None else {"inputs": inputs[None]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a tagger of one network")
    parser.add_argument("manifest", type=Path, help="clips that it was not trained on")
    arguments = parser.parse_args()
    tagger, manifest = Tagger(arguments.model), read_manifest(arguments.manifest)
    inputs = []
    for clip in manifest.clips:
        waveform = tagger.front_end.read_waveform(clip.path)
        inputs.append(tagger.front_end.input_of_waveform(waveform))
    columns = [tagger.labels.index(label) for label in manifest.labels.names]
    y_true = manifest.multi_hot()
    with tempfile.TemporaryDirectory() as folder:
        networks = _quantized(arguments.model / ONNX_FILE, Path(folder), inputs[::10])
        sessions = {name: open_session(path, n_threads=1) for name, path in networks.items()}
        times: dict[str, list[float]] = {name: [] for name in sessions}
        answers: dict[str, list[np.ndarray]] = {name: [] for name in sessions}
        for clip_input in inputs:
            for name, session in sessions.items():
                begin = time.perf_counter()
                answers[name].append(session.run(["probabilities"], {"inputs": clip_input[None]})[0][0])
                times[name].append(time.perf_counter() - begin)
    test = np.arange(len(inputs)) % 10 != 0
    first = statistics.median(next(iter(times.values())))
    print("| network | ms a clip (median) | ratio | lwlrap | greatest difference of a probability |")
    print("|---|---|---|---|---|")
    exact = np.array(next(iter(answers.values())))
    for name, taken in times.items():
        found = np.array(answers[name])
        score, median = lwlrap(y_true[test], found[test][:, columns]), statistics.median(taken)
        print(
            f"| {name} | {median * 1e3:.2f} | {median / first:.2f} | {score:.4f} | {np.abs(found - exact).max():.3f} |"
        )


def _quantized(path: Path, folder: Path, calibration: list[np.ndarray]) -> dict[str, Path]:
    model = onnx.load(path)
    del model.graph.value_info[:]  # quantization infers the shapes anew, and some differ
    onnx.save(model, folder / "float.onnx")
    paths = {"float32": path, "int8, static": folder / "static.onnx", "int8, dynamic": folder / "dynamic.onnx"}
    data = Calibration(calibration)
    quantize_static(folder / "float.onnx", paths["int8, static"], data, quant_format=QuantFormat.QDQ, per_channel=True)
    quantize_dynamic(folder / "float.onnx", paths["int8, dynamic"])
    return paths


if __name__ == "__main__":
    main()
