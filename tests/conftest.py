"""What all tests share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side; threads of torch would wait for each other

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings

from helpers.command import Done
from spectag.cli.app import main

settings.register_profile("spectag", deadline=None)  # a busy machine is no failure
settings.load_profile("spectag")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's own cache, nor finds the user's weights."""
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.delenv("SPECTAG_WEIGHTS", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The command line, in this process."""

    def call(*arguments: object) -> Done:
        status = main([str(argument) for argument in arguments])
        return Done(status, *capsys.readouterr())

    return call
