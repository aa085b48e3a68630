"""An onnxruntime that claims to have accelerators: its sessions run on the CPU, but say that they do not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import onnxruntime
import pytest

_open_session = onnxruntime.InferenceSession


class _Node(NamedTuple):
    op_type: str


class _Part(NamedTuple):
    ep_name: str
    nodes: tuple[_Node, ...]

    def get_nodes(self) -> tuple[_Node, ...]:
        return self.nodes


@dataclass
class PretendedRuntime:
    """What onnxruntime has, which of it works, and what was asked of it."""

    installed: Sequence[str]
    broken: Mapping[str, str] = field(default_factory=dict)
    """Errors by provider; an empty one is a session that silently runs on the CPU instead."""
    on_cpu: Sequence[str] = ()
    """The operators that the accelerators lack."""
    accelerated: Sequence[str] = ("Conv", "Relu", "Gemm")
    is_old: bool = False
    """Whether it does not say where operations run."""
    options: list[dict[str, str]] = field(default_factory=list)
    """Those of each session on an accelerator."""
    settings: list[Any] = field(default_factory=list)

    def use(self, monkeypatch: pytest.MonkeyPatch) -> "PretendedRuntime":
        """Replace the installed onnxruntime until the end of the test."""
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [*self.installed, "CPUExecutionProvider"])
        monkeypatch.setattr(onnxruntime, "InferenceSession", self._open)
        return self

    def _open(self, path: str, settings: Any, *, providers: list[Any], enable_fallback: bool) -> Any:
        assert not enable_fallback
        session = _open_session(path, settings, providers=["CPUExecutionProvider"])
        if providers == ["CPUExecutionProvider"]:
            return session
        (provider, options), rest = providers
        assert rest == "CPUExecutionProvider"
        self.options.append(options)
        self.settings.append(settings)
        error = self.broken.get(options.get("device_type", provider))
        if error:
            raise RuntimeError(error)
        used = session if error == "" else _PretendedSession(session, provider, self)
        return _OldSession(used) if self.is_old else used


class _OldSession:
    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        if name == "get_provider_graph_assignment_info":
            raise AttributeError(name)
        return getattr(self._session, name)


class _PretendedSession:
    def __init__(self, session: Any, provider: str, runtime: PretendedRuntime) -> None:
        self._session, self._provider, self._runtime = session, provider, runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._provider, "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[_Part]:
        on_cpu = [_Part("CPUExecutionProvider", (_Node(name),)) for name in self._runtime.on_cpu]
        accelerated = tuple(map(_Node, self._runtime.accelerated))
        return [*on_cpu, *([_Part(self._provider, accelerated)] if accelerated else [])]
