"""Frames per second of the Tag view: python benchmarks/page_scrolling.py [SOUND]

Opens the page in headless Chromium, which draws without a graphics card, gives it a sound (by default five minutes of
noise), and moves it in each frame: scrolling through it at three zooms, zooming in and out, and dragging the threshold.
The longest frame is one of `--seconds`; a screen of 60 Hz shows each frame that takes less than 16.7 ms.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.browser import Page, chromium
from spectag.audio.files import write_audio

MOVES = {
    "scroll, whole sound / 2": (1, "scroll"),
    "scroll, whole sound / 16": (4, "scroll"),
    "scroll, whole sound / 128": (7, "scroll"),
    "zoom in and out": (0, "zoom"),
    "drag the threshold": (0, "threshold"),
}
FRAMES = """(move, seconds) => new Promise((resolve) => {
    const bar = document.querySelector('.scrollbar'), threshold = document.querySelector('#threshold');
    const key = (name) => document.body.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true }));
    const set = (input, value) => { input.value = String(value); input.dispatchEvent(new Event('input')); };
    const acts = {
        scroll: (n) => set(bar, Math.abs(((n * 2) % 2000) - 1000)),
        zoom: (n) => key(n % 120 < 60 ? (n % 8 === 0 ? '+' : '') : (n % 8 === 0 ? '-' : '')),
        threshold: (n) => set(threshold, 0.05 + 0.9 * Math.abs(((n % 200) - 100) / 100)),
    };
    const times = [];
    let before = null, end = null;
    function step(now) {
        if (before !== null) times.push(now - before);
        before = now;
        end ??= now + 1000 * seconds;
        acts[move](times.length);
        if (now < end) requestAnimationFrame(step); else resolve(times);
    }
    requestAnimationFrame(step);
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sound", type=Path, nargs="?", help="(five minutes of noise)")
    parser.add_argument("--model", default="audioset-mn04", help="(audioset-mn04)")
    parser.add_argument("--seconds", type=float, default=5, help="of each row (5)")
    parser.add_argument("--size", type=int, nargs=2, default=(1400, 1000), help="of the window (1400 1000)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound = (arguments.sound or noise(folder / "noise.flac")).resolve()
        with served(arguments.model) as address, chromium(folder / "profile") as page:
            show(page, address, sound, arguments.size)
            print(f"load of the machine before: {os.getloadavg()[0]:.1f}, cores: {os.cpu_count()}")
            print("| what | frames per second | median, ms | 99 %, ms | longest frame, ms |\n|---|---|---|---|---|")
            for what in MOVES:
                print(row(page, what, arguments.seconds), flush=True)


def noise(path: Path, seconds: int = 300, rate: int = 32_000) -> Path:
    samples = np.random.default_rng(0).standard_normal(seconds * rate)
    write_audio(path, np.float32(0.1 * samples * (np.sin(np.arange(samples.size) / rate) ** 2)), rate)
    return path


@contextmanager
def served(model: str) -> Iterator[str]:
    """The address of a server."""
    command = [sys.executable, "-m", "spectag", "serve", model, "--port", "0", "-j", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        try:
            found = re.search(r"http://\S+:\d+", process.stderr.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()


def show(page: Page, address: str, sound: Path, size: tuple[int, int]) -> None:
    """Tag the sound on the page, and wait until it is drawn."""
    page.show(*size)
    page.open(f"{address}/")
    page.wait("document.querySelector('.tag-view input[type=file]')", 30)
    page.choose_files(".tag-view input[type=file]", [sound])
    page.wait("document.querySelector('.sounds .ready')", 300)
    page.wait("!document.querySelector('.tagging .state')", 30)


def row(page: Page, what: str, seconds: float) -> str:
    n_zooms, move = MOVES[what]
    page.press("0")
    for _ in range(n_zooms):
        page.press("+")
    page.run(f"({FRAMES})({move!r}, {seconds / 2})")  # fetches the tiles
    times = np.array(page.run(f"({FRAMES})({move!r}, {seconds})"))
    median, late = np.quantile(times, [0.5, 0.99])
    return f"| {what} | {1000 / times.mean():.0f} | {median:.1f} | {late:.1f} | {times.max():.0f} |"


if __name__ == "__main__":
    main()
