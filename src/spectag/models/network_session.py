"""The networks of a tagger, opened by onnxruntime on the CPU or an accelerator."""

import threading
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext, redirect_stdout
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from typing import Any

from spectag.array_types import Float32Array
from spectag.config.devices import ACCELERATORS, Accelerator, Device
from spectag.errors import BundleError, ConfigError, DeviceWarning, first_line
from spectag.models.bundle import ONNX_FILE, BundleInfo, check_network_file
from spectag.models.onnx_file import check_inputs_and_outputs, check_onnx_file
from spectag.system.output import unicode_text
from spectag.system.worker_pool import keep_freed_memory, n_usable_cores

_LEAST_GIGABYTES, _GIGABYTES_PER_CORE = 4.0, 1.5
"""A minute of sound needs 1.2 GB with the largest published network, mn40, and each core may be at another minute."""
_CPU_PROVIDER = "CPUExecutionProvider"
SEE_DOCTOR = "; see spectag doctor"
_MAX_OPERATORS_SHOWN = 5
_FATAL, _WARNING = 4, 2  # onnxruntime's log levels; it raises its errors as well
_OPENING = threading.Lock()  # otherwise each thread might open its own session
_ON_ACCELERATOR = threading.Lock()  # DirectML allows no two runs at a time, and others gain nothing from them


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


def installed_accelerators() -> list[Accelerator]:
    """The accelerators that the installed onnxruntime was built for. Their hardware or driver may still be missing."""
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    return [accelerator for accelerator in ACCELERATORS.values() if accelerator.provider in providers]


def accelerators_for(device: Device) -> list[Accelerator]:
    """The accelerators to try for a device; none for the CPU.

    Raises
    ------
    ConfigError
        If the installed onnxruntime does not have the device.
    """
    if device == "cpu":
        return []
    installed = installed_accelerators()
    if device == "auto":
        return [accelerator for accelerator in installed if accelerator.is_automatic]
    accelerator = ACCELERATORS[device]
    if accelerator in installed:
        return [accelerator]
    import onnxruntime

    available = ", ".join(["cpu", *(each.name for each in installed)])
    advice = f"pip uninstall onnxruntime, then pip install '{accelerator.package}'"
    if device == "coreml":
        advice = "it is part of onnxruntime for macOS"
    elif device == "cuda":
        advice = f"only with an NVIDIA GPU: {advice}"
    raise ConfigError(
        f"device {device}: the installed onnxruntime {onnxruntime.__version__} does not have it ({advice}); available: "
        f"{available}"
    )


def open_session(path: str | Path, *, n_threads: int, limits_memory: bool = True, device: Device = "cpu") -> Any:
    """An onnxruntime session. All on the CPU that limit their memory share `max_network_gigabytes`.

    With "auto", a DeviceWarning says if an accelerator is installed but does not open the network. Another one names
    the operations that run on the CPU though the session is on an accelerator.

    Raises
    ------
    BundleError
        If onnxruntime cannot open the file.
    ConfigError
        If it cannot open it on this device.
    """
    if unicode_text(str(path)) != str(path):
        raise BundleError(f"{path}: onnxruntime opens only paths that are UTF-8; rename the file or its folders")
    for accelerator in accelerators_for(device):
        try:
            return _open_on(accelerator, path, n_threads)
        except ConfigError as error:
            if device != "auto":
                raise
            warnings.warn(f"{error}. The CPU is used instead (device cpu does not try it)", DeviceWarning, stacklevel=1)
    return _open_on_cpu(path, n_threads, limits_memory=limits_memory)


def _open_on_cpu(path: str | Path, n_threads: int, *, limits_memory: bool) -> Any:
    import onnxruntime

    keep_freed_memory()
    options = _session_options(n_threads)
    if limits_memory:
        _limit_memory()
        options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        # with its fallback, onnxruntime prints some errors to stdout and tries the same again
        return onnxruntime.InferenceSession(str(path), options, providers=[_CPU_PROVIDER], enable_fallback=False)
    except Exception as error:  # onnxruntime's errors have no common class
        raise BundleError(f"{path}: onnxruntime cannot open it: {first_line(error)}") from error


def _session_options(n_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    return options


def _open_on(accelerator: Accelerator, path: str | Path, n_threads: int) -> Any:
    """A session of which at least a part runs on an accelerator. A ConfigError if nothing does."""
    import onnxruntime

    reason = "its driver or a library is missing, or there is no such device"
    if accelerator.name == "cuda":
        reason = _load_cuda() or reason
    best, *others = accelerator.options
    for options in accelerator.options:
        if others:  # that the best options do not work is reported below
            onnxruntime.set_default_logger_severity(_FATAL if options is best else _WARNING)
        try:
            session = _accelerated(accelerator, options, path, n_threads)
        except Exception as error:  # onnxruntime's errors have no common class
            reason = first_line(error)
            continue
        if device_of(session) == accelerator.name and not _is_on_cpu(session, accelerator, path):
            if options is not best:
                wanted, used = (", ".join(f"{key}={value}" for key, value in each.items()) for each in (best, options))
                text = f"{path}: {accelerator.name} cannot be used with {wanted}; {used} is used instead"
                warnings.warn(text, DeviceWarning, stacklevel=1)
            return session
    raise ConfigError(f"device {accelerator.name}: onnxruntime cannot run {path} on it: {reason}{SEE_DOCTOR}")


@lru_cache(maxsize=1)
def _load_cuda() -> str:
    """Load the libraries of NVIDIA's packages, which onnxruntime does not find by itself; the first that is missing."""
    import onnxruntime

    with redirect_stdout(StringIO()) as printed:
        onnxruntime.preload_dlls()
    return printed.getvalue().partition("\n")[0]


def _accelerated(accelerator: Accelerator, options: Mapping[str, str], path: str | Path, n_threads: int) -> Any:
    """A session that may run on an accelerator: if onnxruntime cannot open that, it silently takes the CPU."""
    import onnxruntime

    settings = _session_options(n_threads)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if accelerator.name == "directml":
        settings.enable_mem_pattern = False  # which DirectML does not allow
    providers = [(accelerator.provider, dict(options)), _CPU_PROVIDER]
    return onnxruntime.InferenceSession(str(path), settings, providers=providers, enable_fallback=False)


def device_of(session: Any) -> str:
    """The name of the device for which a session was opened."""
    provider = session.get_providers()[0]
    names = {accelerator.provider: accelerator.name for accelerator in ACCELERATORS.values()}
    return names.get(provider, "cpu")


def _is_on_cpu(session: Any, accelerator: Accelerator, path: str | Path) -> bool:
    """Whether all operations of an accelerated session run on the CPU. If some do, a DeviceWarning names them."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        text = "this onnxruntime does not say which operations run on the CPU; versions from 1.24 on do"
        warnings.warn(f"{path} on {accelerator.name}: {text}", DeviceWarning, stacklevel=1)
        return False
    on_cpu, elsewhere = Counter[str](), 0
    for part in session.get_provider_graph_assignment_info():
        operators = [node.op_type for node in part.get_nodes()]
        if part.ep_name == _CPU_PROVIDER:
            on_cpu.update(operators)
        else:
            elsewhere += len(operators)
    if on_cpu and elsewhere:
        names = ", ".join([*on_cpu][:_MAX_OPERATORS_SHOWN]) + (", ..." if len(on_cpu) > _MAX_OPERATORS_SHOWN else "")
        n_cpu, n_all = on_cpu.total(), on_cpu.total() + elsewhere
        text = f"{n_cpu:,} of the {n_all:,} operations run on the CPU, not on {accelerator.name}: {names}"
        warnings.warn(f"{path}: {text}", DeviceWarning, stacklevel=1)
    return not elsewhere


@lru_cache(maxsize=1)
def _run_options() -> Any:
    """Options that keep onnxruntime from computing outputs that are not requested."""
    from onnxruntime import RunOptions

    options = RunOptions()
    options.only_execute_path_to_fetches = True
    options.log_severity_level = _FATAL
    return options


class NetworkSession:
    """A model.onnx and its feature extraction. It is opened and compared with spectag.json at its first use."""

    def __init__(self, bundle: Path, info: BundleInfo, index: int, n_threads: int, device: Device) -> None:
        self.name = f"{info.members[index].folder}/{ONNX_FILE}" if info.members else ONNX_FILE
        self.path = bundle / self.name
        self.front_end = info.members[index].front_end if info.members else info.front_end
        self.n_threads, self.device = n_threads, device
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
        session = open_session(self.path, n_threads=self.n_threads, device=self.device)
        check_inputs_and_outputs(self.path, session, self.front_end, len(self._info.labels), self._outputs)
        return session

    @cached_property
    def runs_on(self) -> str:
        """The device on which it runs. It is opened for this."""
        with _OPENING:
            return device_of(self.session)

    def __call__(self, inputs: Float32Array, *outputs: str) -> list[Float32Array]:
        """The outputs (n_labels,) or (n_features,) with these names, for one input (channels, height, width)."""
        with _OPENING:
            session = self.session
        try:
            with nullcontext() if self.runs_on == "cpu" else _ON_ACCELERATOR:
                return [output[0] for output in session.run(outputs, {"inputs": inputs[None]}, _run_options())]
        except Exception as error:  # onnxruntime's errors have no common class
            reason = first_line(error)
            if "Available memory" in reason:
                reason = f"the networks need more than {max_network_gigabytes():g} GB of memory; use shorter windows"
            raise BundleError(f"{self.path}: cannot process an input of shape {inputs.shape}: {reason}") from error
