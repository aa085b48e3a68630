"""What spectag finds on this machine, what is not installed, and the command that brings it."""

import importlib
import os
import platform
import shutil
import subprocess  # nosec B404 - runs this Python only
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from spectag.audio.microphone import microphones
from spectag.config.devices import ACCELERATORS
from spectag.errors import MissingExtraError, SpectagError
from spectag.models.clap_store import clap_store
from spectag.models.device_check import DeviceCheck, check_devices
from spectag.models.pretrained import published_taggers
from spectag.models.weights import WEIGHTS_VARIABLE
from spectag.system.cache import CACHE_VARIABLE, cache_folder, cache_problem
from spectag.system.cache_content import cache_limit, cache_usage, readable_size
from spectag.system.environment import extras, installed_version, memory_bytes
from spectag.system.worker_pool import n_usable_cores

_CORE_PACKAGES = "numpy", "scipy", "onnxruntime", "soundfile", "soxr"
_TORCH = """
import torch
names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
names += ["the GPU of this Mac"] if torch.backends.mps.is_available() else []
print(*names, sep="\\n")
"""
_TORCH_SECONDS = 60.0  # to import it, also on a slow disk

State = Literal["ok", "optional", "problem"]


@dataclass(frozen=True)
class SystemCheck:
    """Something that works, is not here but optional, or does not work."""

    topic: str
    state: State
    text: str
    advice: str = ""
    """What to do, in most cases a command."""
    device: DeviceCheck | None = None
    """Of a device that runs networks: its name, its speed, and how much it differs from the CPU."""


def diagnose() -> list[SystemCheck]:
    """Look for everything that spectag can use, topic by topic. Nothing is downloaded or installed.

    `optional` is what is not here, and not needed by everyone. `problem` is what was set up, or what every command
    needs, but does not work.
    """
    return [*_versions(), *_devices(), *_networks(), *_extras(), *_cache(), *_weights(), *_microphones()]


def _versions() -> Iterator[SystemCheck]:
    system = f"Python {platform.python_version()}, {platform.system()} {platform.release()} ({platform.machine()})"
    yield SystemCheck("versions", "ok", f"spectag {version('spectag')}, {system}")
    for package in _CORE_PACKAGES:
        try:
            module = importlib.import_module(package)
        except Exception as error:  # a broken library can raise anything
            reason = " ".join(str(error).split())
            advice = f"pip install --force-reinstall {package}"
            yield SystemCheck("versions", "problem", f"{package} cannot be imported: {reason}", advice)
        else:
            # onnxruntime may be in the package onnxruntime-gpu
            installed = getattr(module, "__version__", None) or installed_version(package)
            yield SystemCheck("versions", "ok", f"{package} {installed}")


def _devices() -> Iterator[SystemCheck]:
    memory = memory_bytes()
    of_memory = f", {readable_size(memory)} of memory" if memory else ""
    yield SystemCheck("devices", "ok", f"{n_usable_cores()} CPU cores{of_memory}")
    torch = installed_version("torch")
    if torch is None:
        return
    try:
        done = subprocess.run(  # nosec B603 - a constant; a broken driver cannot end this process
            [sys.executable, "-c", _TORCH], capture_output=True, text=True, timeout=_TORCH_SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        text = f"torch {torch} was not imported within {_TORCH_SECONDS:.0f} s: it is not known whether there is a GPU"
        yield SystemCheck("devices", "problem", text, "run spectag doctor again when the computer is less busy")
        return
    except (OSError, subprocess.SubprocessError) as error:
        reason = ((getattr(error, "stderr", None) or "").strip() or str(error)).splitlines()[-1]
        yield SystemCheck(
            "devices", "problem", f"torch {torch} cannot be imported: {reason}", "pip install --force-reinstall torch"
        )
        return
    gpus = ", ".join(done.stdout.splitlines()) or "no GPU, so fine-tuning uses the CPU"
    yield SystemCheck("devices", "ok", f"torch {torch}: {gpus}")


def _networks() -> Iterator[SystemCheck]:
    """The devices of onnxruntime that run networks."""
    packages = sorted({accelerator.package.partition("[")[0] for accelerator in ACCELERATORS.values()})
    installed = [package for package in packages if installed_version(package)]
    if len(installed) > 1:
        text = f"{' and '.join(installed)} are installed, and overwrite each other's files"
        advice = f"pip uninstall {' '.join(installed)}, then install the one for your device"
        yield SystemCheck("networks", "problem", text, advice)
    try:
        checks = check_devices()
    except Exception as error:  # a broken onnxruntime can raise anything
        yield SystemCheck("networks", "problem", f"onnxruntime cannot be used: {error}")
        return
    for check in checks:
        yield _of_device(check)
    if len(checks) == 1:
        text = "no accelerator: the installed onnxruntime runs networks on the CPU"
        yield SystemCheck(
            "networks", "optional", text, "docs/how-to/tag-on-a-gpu.md lists the packages for other devices"
        )


def _of_device(check: DeviceCheck) -> SystemCheck:
    name = f"{check.device:<8}  {check.provider:<25}"
    if not check.runs:
        state: State = "optional" if check.device == "coreml" else "problem"  # every onnxruntime for macOS has it
        return SystemCheck("networks", state, f"{name}  does not run: {check.note}", device=check)
    where = " on one core" if check.device == "cpu" else f", within {check.difference:.0e} of the CPU"
    text = f"{name}  runs: {check.windows_per_second:,.0f} windows of 10 s per second{where}"
    return SystemCheck("networks", "ok", f"{text}; {check.note}" if check.note else text, device=check)


def _extras() -> Iterator[SystemCheck]:
    for extra in extras():
        if not extra.missing:
            problem = _microphone_problem() if extra.name == "listen" else ""
            state: State = "optional" if problem else "ok"
            yield SystemCheck("extras", state, f"{extra.name}: {problem or extra.purpose}")
            continue
        text = f"{extra.name}: not installed (needed for {extra.purpose}; packages: {', '.join(extra.missing)})"
        yield SystemCheck("extras", "optional", text, extra.command)


def _microphone_problem() -> str:
    """Why no microphone can be used though the packages are installed."""
    try:
        microphones()
    except SpectagError as error:  # PortAudio
        return str(error)
    return ""


def _cache() -> Iterator[SystemCheck]:
    try:
        folder = cache_folder()
    except SpectagError as error:
        yield SystemCheck("cache", "problem", str(error))
        return
    if problem := cache_problem(folder):
        yield SystemCheck("cache", "problem", f"{folder} {problem}", f"set {CACHE_VARIABLE} to another folder")
        return
    limit = cache_limit()
    size = readable_size(sum(item.n_bytes for item in cache_usage()))
    free = readable_size(shutil.disk_usage(folder).free)
    of_limit = "" if limit is None else f", limit {readable_size(limit)} without downloads"
    yield SystemCheck("cache", "ok", f"{folder}: {size}{of_limit}; {free} of disk space is free")


def _weights() -> Iterator[SystemCheck]:
    try:
        taggers = published_taggers()
    except SpectagError as error:
        yield SystemCheck("weights", "problem", str(error))
        return
    if folder := os.environ.get(WEIGHTS_VARIABLE):
        yield SystemCheck("weights", "ok", f"{WEIGHTS_VARIABLE}: {folder}")
    missing = [tagger for tagger in taggers if tagger.state == "not downloaded"]
    for tagger in taggers:
        if tagger not in missing:
            yield SystemCheck("weights", "ok", f"{tagger.name}: {tagger.path}")
    if missing:
        text = f"{len(missing)} published models: not downloaded (each is downloaded when it is first used)"
        yield SystemCheck("weights", "optional", text, "spectag models lists them")
    try:
        yield SystemCheck("weights", "ok", f"CLAP, for words as labels: {clap_store().card.name}")
    except SpectagError:
        text = "CLAP, for words as labels: not added"
        yield SystemCheck("weights", "optional", text, "spectag models clap")


def _microphones() -> Iterator[SystemCheck]:
    try:
        devices = microphones()
    except MissingExtraError:
        yield SystemCheck(
            "microphones",
            "optional",
            "sounddevice: not installed (needed for spectag listen with a microphone)",
            "pip install 'spectag[listen]'",
        )
        return
    except SpectagError as error:  # PortAudio
        yield SystemCheck("microphones", "optional", str(error))
        return
    for device in devices:
        default = ", the default" if device.is_default else ""
        text = f"{device.number}: {device.name} ({device.n_channels} channels, {device.sample_rate:,} Hz{default})"
        yield SystemCheck("microphones", "ok", text)
    if not devices:
        yield SystemCheck(
            "microphones",
            "optional",
            "none (needed for spectag listen)",
            "connect one; spectag listen - reads sound from another program",
        )
