"""The examples for browsers and Node give the probabilities of Python: in headless Chromium, and in Node."""

import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import spectag
from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from helpers.paths import PROJECT, SHARED
from spectag.audio import read_audio, write_audio
from spectag.config import WindowConfig

pytestmark = pytest.mark.slow

EXAMPLES = PROJECT / "examples"
PAGE_FILES = ("index.html", "app.js", "worker.js", "recorder.js", "model.js")
WEB, NODE = EXAMPLES / "browser" / "ort", EXAMPLES / "node" / "node_modules" / "onnxruntime-node"
ESC10 = SHARED / "data" / "esc10"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or not WEB.is_dir(), reason="needs chromium, and npm install in examples/browser"
)
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not NODE.is_dir(), reason="needs node, and npm install in examples/node"
)
needs_real_sounds = pytest.mark.skipif(
    not ESC10.is_dir() or not (SHARED / "weights").is_dir(), reason="needs ../shared/data/esc10 and ../shared/weights"
)
RATE = MEL.sample_rate
SECONDS_TO_WAIT = 300
HARNESS = """<!doctype html>
<iframe src="/index.html" allow="microphone" width="800" height="900"></iframe>
<script type="module">
const page = document.querySelector("iframe");
const report = (result) => fetch("/result", { method: "POST", body: JSON.stringify(result) });
const element = (id) => page.contentDocument.getElementById(id);
page.onload = async () => {
  const waiting = setInterval(async () => {
    if (element("status").classList.contains("error")) {
      clearInterval(waiting);
      report({ error: element("status").textContent });
    } else if (!element("sound-file").disabled) {
      clearInterval(waiting);
      page.contentDocument.addEventListener("tagged", ({ detail }) => setTimeout(() => report({
        ...detail,
        status: element("status").textContent,
        rows: [...element("tags").rows].map((row) => [row.cells[0].textContent, row.cells[2].textContent]),
      })));
      const name = new URLSearchParams(location.search).get("sound");
      if (name === "microphone") {
        element("microphone").click();
      } else {
        const dropped = new DataTransfer();
        dropped.items.add(new File([await (await fetch(name)).blob()], name));
        page.contentDocument.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, cancelable: true }));
      }
    }
  }, 50);
};
</script>
"""


class Handler(SimpleHTTPRequestHandler):
    """Static files, and a place where the page reports its results."""

    results: queue.Queue[dict[str, Any]]

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[tuple[str, "queue.Queue[dict[str, Any]]"]]:
    results: queue.Queue[dict[str, Any]] = queue.Queue()
    handler = type("ReportingHandler", (Handler,), {"results": results})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", results
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_site(folder: Path, model: str | Path) -> Path:
    """The page with its model, as a user publishes it."""
    folder.mkdir()
    for name in PAGE_FILES:
        shutil.copy(EXAMPLES / "browser" / name, folder)
    shutil.copytree(WEB, folder / "ort")
    (folder / "harness.html").write_text(HARNESS, encoding="utf-8")
    spectag.export(model, folder / "model.onnx")
    return folder


def open_page(site: Path, sound: str, *options: str) -> dict[str, Any]:
    """What the page reports for a sound that is dropped on it, or for the microphone."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={site / 'profile'}", *options]
    with serve(site) as (url, results):
        page = f"{url}/harness.html?sound={sound}"
        browser = subprocess.Popen([CHROMIUM, *flags, page], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return results.get(timeout=SECONDS_TO_WAIT)
        finally:
            browser.kill()
            browser.wait()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    info = make_info(window=WindowConfig(max_clip_seconds=1.0))
    return make_bundle(tmp_path_factory.mktemp("javascript") / "Modell ü", info)


@needs_browser
@pytest.mark.parametrize("seconds", [0.3, 1.7])
def test_page_tags_a_dropped_file_as_python_does(model, tmp_path, seconds):
    site = make_site(tmp_path / "site", model)
    write_audio(site / "sound.wav", tone("middle", seconds), RATE)
    result = open_page(site, "sound.wav")
    tags = spectag.load(model).tag(site / "sound.wav")
    np.testing.assert_allclose(result["probabilities"], tags.probabilities, atol=1e-5)
    shown = [[tag.label, f"{tag.probability:.2f}"] for tag in tags.top(3)]
    assert [[label, number.removesuffix(" ✓")] for label, number in result["rows"]] == shown
    detected = [tag.label for tag in tags.above_threshold()]
    assert [label for label, number in result["rows"] if number.endswith("✓")] == detected
    assert result["status"].startswith(f"sound.wav: {seconds} s, tagged in ")


@needs_browser
def test_page_says_that_a_file_is_no_sound(model, tmp_path):
    site = make_site(tmp_path / "site", model)
    (site / "text.wav").write_text("no sound", encoding="utf-8")
    harness = HARNESS.replace('page.contentDocument.addEventListener("tagged"', "setTimeout(watchError); void (0")
    watcher = """const watchError = () => (element("status").classList.contains("error")
      ? report({ error: element("status").textContent }) : setTimeout(watchError, 50));"""
    (site / "harness.html").write_text(harness.replace("const page", f"{watcher}\nconst page"), encoding="utf-8")
    assert open_page(site, "text.wav") == {"error": "This browser cannot read the file as a sound."}


@needs_browser
def test_page_tags_the_microphone(model, tmp_path):
    site = make_site(tmp_path / "site", model)
    soundfile.write(site / "sound.wav", tone("high", 6.0, 48_000), 48_000, subtype="PCM_16")
    result = open_page(
        site,
        "microphone",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-audio-capture={site / 'sound.wav'}",
        "--autoplay-policy=no-user-gesture-required",
    )
    assert result["rows"][0][0] == "high"
    assert result["status"].startswith("Listening: the last 2 s")


@needs_browser
@needs_real_sounds
def test_page_tags_real_sounds_as_python_does(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(SHARED / "weights"))
    site = make_site(tmp_path / "site", "audioset-mn04")
    [clip, *_] = sorted(ESC10.glob("*Dog*/*.ogg"))
    waveform, _ = read_audio(clip, sample_rate=32_000)
    soundfile.write(site / "same rate.wav", waveform, 32_000, subtype="FLOAT")
    expected = spectag.load("audioset-mn04").tag(clip).probabilities
    found = open_page(site, "same rate.wav")["probabilities"]
    assert np.abs(found - expected).max() < 1e-4
    shutil.copy(clip, site / "other rate.ogg")  # the browser decodes and resamples
    found = open_page(site, "other rate.ogg")["probabilities"]
    assert np.abs(found - expected).max() < 0.02


@needs_node
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_node_tags_a_file_as_python_does(model, tmp_path, subtype):
    spectag.export(model, tmp_path / "model.onnx")
    for label in LABELS:
        channels = np.stack([tone(label, 1.4), 0.5 * tone(label, 1.4)], axis=1)
        soundfile.write(tmp_path / f"{label}.wav", channels, RATE, subtype=subtype)
    done = run_node(tmp_path, "model.onnx", *(f"{label}.wav" for label in LABELS))
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    for label in LABELS:
        tags = spectag.load(model).tag(tmp_path / f"{label}.wav").top(3)
        found = {name: float(number) for file, name, number in rows if file == f"{label}.wav"}
        assert found == pytest.approx({tag.label: tag.probability for tag in tags}, abs=2e-6)


@needs_node
def test_node_says_what_is_wrong_with_a_file(model, tmp_path):
    spectag.export(model, tmp_path / "model.onnx")
    soundfile.write(tmp_path / "sound.wav", tone("low", 0.5), 44_100)
    done = run_node(tmp_path, "model.onnx", "sound.wav")
    assert "sound.wav: has 44100 Hz, but the model needs 16000 Hz" in done.stderr
    spectag.export(model, tmp_path / "fixed.onnx", max_seconds=0.25)
    soundfile.write(tmp_path / "sound.wav", tone("low", 0.5), RATE)
    done = run_node(tmp_path, "fixed.onnx", "sound.wav")
    assert "this model takes sounds of exactly 0.250 s, not 0.500 s" in done.stderr
    (tmp_path / "cut.onnx").write_bytes((tmp_path / "model.onnx").read_bytes()[:-3])
    done = run_node(tmp_path, "cut.onnx", "sound.wav")
    assert done.returncode != 0


def run_node(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["node", str(EXAMPLES / "node" / "tag.mjs"), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
