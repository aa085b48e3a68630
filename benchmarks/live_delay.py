"""Delay of the Live view of `spectag serve`: from a sound at the microphone of the browser to its tag on the page.

Chromium plays beeps of a second, three seconds apart, into its fake microphone. Two delays are counted in samples that
the page has sent when a tag arrives: behind the last sample of the window that the tag comes from, and behind the first
sample of the beep, of which a window has to contain enough.

Usage: python benchmarks/live_delay.py [MODEL] [--seconds 60]
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.browser import chromium
from spectag.audio.files import write_audio

RATE = 32_000
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
WATCH = """
window.delays = [];
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
    constructor(address) {
        super(address);
        const { searchParams } = new URL(address);
        const numbers = ["sample_rate", "window", "overlap"].map((name) => Number(searchParams.get(name)));
        const [rate, length, overlap] = numbers;
        Object.assign(this, { rate, sent: 0, quiet: 0, beep: null });
        this.addEventListener("message", ({ data }) => {
            const event = JSON.parse(data);
            if (!event.on) return;
            const now = this.sent / rate;
            const windowEnd = event.time + length - overlap / 2;
            window.delays.push([now - windowEnd, this.beep === null ? null : now - this.beep]);
            this.beep = null;  // only the first tag of a beep
        });
    }
    send(block) {
        super.send(block);
        if (typeof block === "string") return;
        for (const sample of block) {
            if (Math.abs(sample) > 3000) {
                if (this.quiet > this.rate) this.beep = this.sent / this.rate;
                this.quiet = 0;
            } else this.quiet += 1;
            this.sent += 1;
        }
    }
};
"""


def beeps() -> np.ndarray:
    """Three seconds of faint noise, and a beep of a second."""
    noise = 1e-3 * np.random.default_rng(0).standard_normal(4 * RATE)
    noise[3 * RATE :] += 0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    return noise.astype(np.float32)


def delays_on_the_page(model: str, seconds: float) -> list[list[float | None]]:
    """Both delays of each tag, in seconds."""
    command = [sys.executable, "-m", "spectag", "serve", model, "--port", "0", "--no-browser"]
    with tempfile.TemporaryDirectory() as name, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            found = None
            while found is None:
                found = re.search(r"http://\S+:\d+", server.stderr.readline())
            sound = Path(name) / "beeps.wav"
            write_audio(sound, beeps(), RATE)
            with chromium(Path(name) / "profile", *MICROPHONE, f"--use-file-for-fake-audio-capture={sound}") as page:
                page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
                page.open(f"{found[0]}/#live")
                page.wait("document.querySelector('.live-view .state.empty')")
                page.run("document.querySelector('.live-bar button').click()")
                page.wait("document.querySelector('.live-view').dataset.phase === 'running'", 30)
                time.sleep(seconds)
                return page.run("window.delays")
        finally:
            server.terminate()
            server.wait(20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="audioset-mn04")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    delays = delays_on_the_page(options.model, options.seconds)
    for title, values in (
        ("behind the end of the window", [delay for delay, _ in delays]),
        ("behind the first sample of the beep", [delay for _, delay in delays if delay is not None]),
    ):
        median, most = (1000 * np.quantile(values, q) for q in (0.5, 0.95))
        print(f"{title}: median {median:.0f} ms, 95 % below {most:.0f} ms ({len(values)} tags)")


if __name__ == "__main__":
    main()
