"""Fixtures and settings for all tests."""

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell started the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # otherwise tests of Ctrl-C would never end

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run in parallel; torch threads would wait for each other

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings

from helpers.command import Done
from spectag.cli import main

settings.register_profile("spectag", deadline=None)  # a slow machine is not a failure
settings.load_profile("spectag")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests away from the cache, the weights and the recent projects of the user."""
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "data"))
    monkeypatch.delenv("SPECTAG_WEIGHTS", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, called in this process."""

    def call(*arguments: object) -> Done:
        status = main([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return call
