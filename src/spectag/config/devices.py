"""The devices on which onnxruntime runs networks, and the settings with which it computes in float32 on each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Device = Literal["auto", "cpu", "cuda", "coreml", "directml", "openvino"]
"""Where networks run: auto takes cuda or directml if it is installed and opens the network, otherwise the CPU."""


@dataclass(frozen=True)
class Accelerator:
    """A device other than the CPU."""

    name: Device
    provider: str
    """What onnxruntime calls it."""
    package: str
    """The package with an onnxruntime that has it."""
    options: tuple[Mapping[str, str], ...] = field(default=({},), hash=False)
    """Options of the provider; if the first ones do not open a session, the next ones."""
    is_automatic: bool = False
    """Whether auto takes it. Not where the user may have its package for another reason than its speed."""


ACCELERATORS: Mapping[str, Accelerator] = {
    accelerator.name: accelerator
    for accelerator in (
        Accelerator(
            "cuda",
            "CUDAExecutionProvider",
            "onnxruntime-gpu[cuda,cudnn]",
            # TF32 rounds to 10 bits; EXHAUSTIVE, the default, searches again for each length of a sound
            ({"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},),
            is_automatic=True,
        ),
        Accelerator("directml", "DmlExecutionProvider", "onnxruntime-directml", is_automatic=True),
        Accelerator(
            "coreml",
            "CoreMLExecutionProvider",
            "onnxruntime",
            # the neural engine and the older format compute in float16
            ({"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU", "AllowLowPrecisionAccumulationOnGPU": "0"},),
        ),
        Accelerator(
            "openvino",
            "OpenVINOExecutionProvider",
            "onnxruntime-openvino",
            # otherwise GPUs compute in float16, and some CPUs in bfloat16
            ({"device_type": "GPU", "precision": "ACCURACY"}, {"device_type": "CPU", "precision": "ACCURACY"}),
        ),
    )
}
"""All accelerators by name, in the order in which auto tries them."""
