"""A page in headless Chromium, driven over its DevTools protocol."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
_START_SECONDS = 30
_KEY_CODES = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


class Page:
    """A page. `console` has the errors and warnings that it has printed."""

    def __init__(self, socket: ClientConnection, process: "subprocess.Popen[bytes]") -> None:
        self._socket, self._process, self._ids = socket, process, count(1)
        self.console: list[str] = []
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message["method"] == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.console.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")
        elif message["method"] == "Runtime.exceptionThrown":
            self.console.append(json.dumps(parameters["exceptionDetails"])[:2_000])
        elif message["method"] == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            self.console.append(json.dumps(parameters["args"])[:2_000])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, seconds: float = 10) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while True:
            if self.run(f"(() => {{ try {{ return Boolean({condition}); }} catch {{ return false; }} }})()"):
                return
            assert time.monotonic() < end, f"{condition} never became true; console: {self.console}"
            time.sleep(0.05)

    def choose_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Choose files in an input, as a person does in the dialog."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def press(self, key: str) -> None:
        """Press a key, such as a or Enter."""
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        codes = {"code": key, "windowsVirtualKeyCode": _KEY_CODES[key]} if key in _KEY_CODES else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text, **codes)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **codes)

    def type(self, text: str) -> None:
        """Type into the field that has the focus."""
        self.call("Input.insertText", text=text)

    def drop(self, paths: Sequence[Path], selector: str) -> None:
        """Drop files on an element, as from the window of a folder."""
        box = self.run(f"(({{ x, y }}) => [x, y])(document.querySelector({selector!r}).getBoundingClientRect())")
        data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=box[0] + 5, y=box[1] + 5, data=data)

    def click(self, x: float, y: float) -> None:
        """Click at a place in the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """Change the size of the window and the colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def kill(self) -> None:
        """End the browser at once, as kill -9 does."""
        self._process.kill()
        self._process.wait(20)


@contextmanager
def chromium(profile: Path, *options: str) -> Iterator[Page]:
    """A page of a new browser, whose profile is new or that of a browser that was killed."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    port_file = profile / "DevToolsActivePort"
    port_file.unlink(missing_ok=True)
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--mute-audio"),
        *("--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}", "--no-first-run", *options),
        "about:blank",
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + _START_SECONDS
            while not (port_file.exists() and port_file.read_text("ascii").count("\n")):
                assert time.monotonic() < end, "chromium does not start"
                time.sleep(0.05)
            with connect(_address(int(port_file.read_text("ascii").split()[0])), max_size=None) as socket:
                yield Page(socket, process)
        finally:
            process.terminate()
            process.wait(20)


def _address(port: int) -> str:
    """The address of the WebSocket of the first page."""
    from urllib.request import urlopen

    for _ in range(200):
        with urlopen(f"http://127.0.0.1:{port}/json") as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        if pages:
            return pages[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise TimeoutError("chromium has no page")
