"""Seconds from `spectag serve` to its page and to its model: python benchmarks/first_page.py [MODEL] [--times 5]"""

import argparse
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="audioset-mn04", help="(audioset-mn04)")
    parser.add_argument("--times", type=int, default=5, help="(5)")
    arguments = parser.parse_args()
    times = [start(arguments.model) for _ in range(arguments.times)]
    print("| | median, s | slowest, s |\n|---|---|---|")
    for name, seconds in zip(("page", "labels of the model", "ready to tag"), zip(*times, strict=True), strict=True):
        print(f"| {name} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |")


def start(model: str) -> list[float]:
    """Seconds from the start of the command to the page, to the labels, and to a worker that has opened the model."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "spectag", "serve", model, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://\S+:\d+", process.stderr.readline())
        assert found is not None
        seconds = []
        for path in ("/", "/views", "/readyz"):
            while not is_answered(found[0] + path):
                time.sleep(0.01)
            seconds.append(time.perf_counter() - begin)
        process.terminate()
    return seconds


def is_answered(address: str) -> bool:
    """Whether the server answers with 200."""
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


if __name__ == "__main__":
    main()
