"""A server of the page in a process of its own, and what tests of the page wait for."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""Options of Chromium: a microphone that beeps once a second, and is allowed."""
_START_SECONDS = 60
_END_SECONDS = 30


class PageServer:
    """A running server, its address and its process."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
        self.process, self._log = process, log
        self.address = self._wait_for_address()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def log(self) -> str:
        """What it has printed."""
        self._log.seek(0)
        return self._log.read().decode()

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        self.process.kill()
        self.process.wait(_END_SECONDS)

    def end(self) -> None:
        """Ask it to end; kill it if it does not."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _wait_for_address(self) -> str:
        end = time.monotonic() + _START_SECONDS
        while (found := re.search(r"http://\S+:\d+", self.log)) is None:
            if self.process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"spectag serve does not start: {self.log}")
            time.sleep(0.02)
        return found[0]


@contextmanager
def running_server(folder: Path, *arguments: object, port: int = 0, **variables: str) -> Iterator[PageServer]:
    """A server that `spectag serve ARGUMENTS` starts in a folder. `variables` are those of its environment."""
    command = [sys.executable, "-m", "spectag", "serve", *map(str, arguments), "--port", str(port), "-j", "1"]
    environment = os.environ | variables
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, cwd=folder, env=environment, stderr=log, stdin=subprocess.DEVNULL) as process,
    ):
        server = PageServer(process, log)
        try:
            yield server
        finally:
            server.end()


@contextmanager
def page_server(folder: Path, *arguments: object, port: int = 0, **variables: str) -> Iterator[str]:
    """The address of such a server."""
    with running_server(folder, *arguments, port=port, **variables) as server:
        yield server.address


def wait_until(condition: Callable[[], object], seconds: float = 20.0, why: str = "it never became true") -> None:
    """Wait for a condition; an AssertionError with the reason if it does not become true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def downloaded(folder: Path, pattern: str = "*.csv") -> list[Path]:
    """The files in a folder of downloads, when they are complete."""
    found: list[Path] = []

    def are_there() -> bool:
        found[:] = [path for path in folder.glob(pattern) if path.stat().st_size]
        return bool(found) and not any(folder.glob("*.crdownload"))

    wait_until(are_there, why="nothing was downloaded")
    return found
