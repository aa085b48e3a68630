"""The networks of a tagger, opened by onnxruntime."""

import threading
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from spectag.array_types import Float32Array
from spectag.errors import BundleError, first_line
from spectag.models.bundle import ONNX_FILE, BundleInfo, check_network_file
from spectag.models.onnx_file import check_inputs_and_outputs, check_onnx_file
from spectag.system.output import unicode_text
from spectag.system.worker_pool import keep_freed_memory, n_usable_cores

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

    if unicode_text(str(path)) != str(path):
        raise BundleError(f"{path}: onnxruntime opens only paths that are UTF-8; rename the file or its folders")
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
        raise BundleError(f"{path}: onnxruntime cannot open it: {first_line(error)}") from error


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


class NetworkSession:
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
        external_weights = f"{self.name}.data"
        for name in (self.name, *({external_weights} & self._info.sha256.keys())):
            check_network_file(self._bundle, self._info, name)
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
            reason = first_line(error)
            if "Available memory" in reason:
                reason = f"the networks need more than {max_network_gigabytes():g} GB of memory; use shorter windows"
            raise BundleError(f"{self.path}: cannot process an input of shape {inputs.shape}: {reason}") from error
