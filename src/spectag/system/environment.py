"""What is installed: the optional packages of spectag by extra, from the metadata of its installation."""

import os
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

PURPOSES = {
    "app": "a window of its own for spectag app",
    "av": "m4a, video and other sounds that libsndfile does not read",
    "cloud": "recordings and results at URLs such as s3://",
    "excel": "tables for Excel",
    "explore": "t-SNE in the map of clips on the page of spectag serve",
    "export": "spectag export",
    "hub": "models on the Hugging Face Hub",
    "listen": "spectag listen with a microphone",
    "metadata": "writing labels into files other than wav",
    "pandas": "tables as pandas DataFrames",
    "parquet": "Parquet tables",
    "plots": "figures",
    "ray": "spectag tag on a cluster",
    "review": "the method cleanlab of spectag review",
    "search": "fast search in large indexes",
    "serve": "spectag serve, and the page of spectag check",
    "summary": "times after sunrise in summaries",
    "train": "spectag train and spectag demo",
    "finetune": "fine-tuning, and networks of PyTorch",
    "transformers": "training on audio networks of transformers",
    "tune": "spectag tune",
    "words": "tagging and searching with words",
}
"""What the extras are for. Those without a purpose here are for the developers of spectag."""
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<extras>[^]]*)\])?.*\bextra\s*==\s*['\"](?P<extra>[\w.-]+)['\"]")


@dataclass(frozen=True)
class Extra:
    """An optional extra of spectag."""

    name: str
    purpose: str
    missing: tuple[str, ...]
    """Packages that are not installed."""

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install 'spectag[{self.name}]'"


def extras() -> list[Extra]:
    """The extras of the installed spectag that have a purpose for users, `train` first: most users need it."""
    names = sorted(PURPOSES.keys() & _requirements().keys(), key=lambda name: (name != "train", name))
    return [Extra(name, PURPOSES[name], _missing(name)) for name in names]


@cache
def _requirements() -> dict[str, list[tuple[str, str]]]:
    """The packages of each extra, and the extras of these packages."""
    found: dict[str, list[tuple[str, str]]] = {}
    for requirement in requires("spectag") or ():
        if match := _REQUIREMENT.match(requirement):
            found.setdefault(match["extra"], []).append((match["name"], match["extras"] or ""))
    return found


def _missing(extra: str) -> tuple[str, ...]:
    missing: list[str] = []
    for package, others in _requirements().get(extra, ()):
        if package == "spectag":
            missing.extend(name for other in others.split(",") for name in _missing(other.strip()))
        elif installed_version(package) is None:
            missing.append(package)
    return tuple(dict.fromkeys(missing))


def installed_version(package: str) -> str | None:
    """The version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def library_version(package: str) -> str:
    """The version of a package that spectag needs; of onnxruntime also if it comes from onnxruntime-gpu or another."""
    if package == "onnxruntime":
        import onnxruntime

        return str(onnxruntime.__version__)
    return version(package)


def memory_bytes() -> int | None:
    """The memory of this machine; None if the system does not say it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # AttributeError: Windows
        return None
