"""Send damaged and hostile uploads to spectag serve, and check what comes back: python benchmarks/hostile_uploads.py

Damaged sounds in 60 formats, sounds of 100 hours in a few megabytes, forms and headers that lie, names with folders and
markup, slow clients and clients that leave. A fault is

- an answer that is not 200 or 4xx, has no reason, or a probability that is not finite;
- an answer after more than --max-seconds, or more than the memory of the server at its start and 1 GB for each worker;
- a good sound whose answer afterwards differs from the one before;
- a traceback in the log, a temporary file that is left, a server that does not end.

The inputs repeat with --seed. PYTHONPATH=tests is needed.
"""

import argparse
import io
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import soundfile

from helpers.bundles import make_bundle
from helpers.damaged_files import available_families, make_damaged_file, sound, suffix_of

MAX_SECONDS, MAX_GIGABYTES, MAX_MEGABYTES, MAX_MINUTES = 20, 1.0, 20, 60
_GOOD_EVERY = 10
_SKIPPED = ("special files", "sparse giants")  # cannot be uploaded


class HostileUpload(NamedTuple):
    """What is sent, and how."""

    family: str
    head: bytes
    """Request line and headers, without Host and Connection."""
    body: bytes
    pause_seconds: float = 0.0
    """After each tenth of the body."""
    leaves: bool = False
    """The client closes the connection before the answer."""


class Received(NamedTuple):
    """The answer to an upload; status 0: none."""

    status: int
    content: bytes
    seconds: float


class UploadCampaign:
    """A server, and the faults found so far."""

    def __init__(self, folder: Path) -> None:
        self.faults: list[str] = []
        self.statuses: dict[str, Counter[int]] = {}
        self.longest = 0.0
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        options = {
            "--max-seconds": MAX_SECONDS, "--max-gigabytes": MAX_GIGABYTES, "--max-megabytes": MAX_MEGABYTES,
            "--max-minutes": MAX_MINUTES, "--port": 0, "-j": 1,
        }  # fmt: skip
        self._log = (folder / "log.txt").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "spectag", "serve", make_bundle(folder / "bundle"), *words(options)],
            stderr=self._log,
            env=os.environ | {"TMPDIR": str(self.temporary)},
        )
        self.port = self._wait_for_port()
        self._good = form_upload("good", "good.wav", sound("wav PCM_16", 0))
        self._expected = self.send(self._good).content
        self.megabytes = self._start_megabytes = self._memory()
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._watch_memory)
        self._watch.start()

    def _wait_for_port(self) -> int:
        for _ in range(600):
            time.sleep(0.1)
            if found := re.search(r"http://\S+:(\d+)", Path(self._log.name).read_text()):
                self.port = int(found[1])
                if self.send(HostileUpload("", b"GET /readyz HTTP/1.1\r\n", b"")).status == 200:
                    return self.port
        raise TimeoutError("the server does not start")

    def send(self, upload: HostileUpload) -> Received:
        """Send an upload as bytes, and read the answer."""
        begin, content = time.monotonic(), b""
        with socket.socket() as connection:
            connection.settimeout(2 * MAX_SECONDS)
            try:
                connection.connect(("127.0.0.1", self.port))
                connection.sendall(upload.head + f"Host: localhost:{self.port}\r\nConnection: close\r\n\r\n".encode())
                step = max(1, len(upload.body) // 10) if upload.pause_seconds else len(upload.body) or 1
                for start in range(0, len(upload.body), step):
                    connection.sendall(upload.body[start : start + step])
                    time.sleep(upload.pause_seconds)
            except OSError:  # the server has answered already
                pass
            try:
                while not upload.leaves and (part := connection.recv(1 << 18)):
                    content += part
            except OSError as error:
                content = content or repr(error).encode()
        head, _, body = content.partition(b"\r\n\r\n")
        status = int(head.split()[1]) if head.startswith(b"HTTP/1.1 ") else 0
        return Received(status, body, time.monotonic() - begin)

    def check(self, upload: HostileUpload) -> None:
        """Send an upload, and check the answer."""
        received = self.send(upload)
        self.statuses.setdefault(upload.family, Counter())[received.status] += 1
        self.longest = max(self.longest, received.seconds)
        if not upload.leaves:
            for text in faults_of_answer(received):
                self.fault(f"{upload.family}: {upload.head[:200]!r}: {text}")
        if received.seconds > MAX_SECONDS + 5:
            self.fault(f"{upload.family}: {received.seconds:.1f} s")

    def check_good(self, after: str) -> None:
        """The good sound gets its answer."""
        received = self.send(self._good)
        if (received.status, received.content) != (200, self._expected):
            self.fault(f"after {after}: the good sound got {received.status} {received.content[:200]!r}")

    def fault(self, text: str) -> None:
        """Report a fault at once."""
        self.faults.append(text)
        print(f"FAULT {text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Stop the server, and look at what it leaves."""
        lost = re.search(
            rb"lost_workers_total (\d+)", self.send(HostileUpload("", b"GET /metrics HTTP/1.1\r\n", b"")).content
        )
        print(f"{int(lost[1]) if lost else 0} workers were ended by an upload")
        self._is_over.set()
        self._watch.join()
        self._process.send_signal(signal.SIGINT)
        try:
            status = self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = -9
        if status:
            self.fault(f"the server ended with {status}")
        if left := list(self.temporary.rglob("*")):
            self.fault(f"left: {left[:3]}")
        for line in Path(self._log.name).read_text().splitlines():
            if "Traceback" in line or "Error" in line:
                self.fault(f"log: {line}")
        self._log.close()
        if self.megabytes > self._start_megabytes + 1000 * MAX_GIGABYTES:
            self.fault(f"{self.megabytes:.0f} MB")
        print(
            f"longest answer {self.longest:.1f} s; "
            f"memory {self._start_megabytes:.0f} MB at the start, at most {self.megabytes:.0f} MB"
        )

    def _memory(self) -> float:
        server = psutil.Process(self._process.pid)
        total = 0.0
        for process in [server, *server.children(recursive=True)]:
            try:
                total += process.memory_info().rss / 1e6
            except psutil.NoSuchProcess:
                continue
        return total

    def _watch_memory(self) -> None:
        while not self._is_over.wait(0.1):
            self.megabytes = max(self.megabytes, self._memory())


def words(options: dict[str, object]) -> list[str]:
    """The words of a command line."""
    return [str(word) for pair in options.items() for word in pair]


def faults_of_answer(received: Received) -> Iterator[str]:
    """What is wrong with an answer."""
    try:
        content = json.loads(received.content)
    except ValueError:
        yield f"{received.status} {received.content[:200]!r}"
        return
    if received.status == 200:
        tags = [tag for result in content["results"] for tag in result["tags"]]
        if not all(math.isfinite(tag["probability"]) for tag in tags):
            yield "not finite"
    elif not 400 <= received.status < 500 or not content.get("detail"):
        yield f"{received.status} {content}"
    elif "/tmp" in content["detail"] or "Traceback" in content["detail"]:
        yield f"tells too much: {content['detail']}"


# Uploads


def body_upload(family: str, content: bytes, content_type: str = "audio/wav", **how: object) -> HostileUpload:
    """A sound as the body."""
    head = f"POST /v1/tag HTTP/1.1\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\n"
    return HostileUpload(family, head.encode("latin-1"), content, **how)  # type: ignore[arg-type]


def form_upload(family: str, name: str, content: bytes, **how: object) -> HostileUpload:
    """A sound as the field of a form."""
    disposition = f'form-data; name="file"; filename="{name}"'.encode("utf-8", "surrogateescape")
    body = b"--b\r\nContent-Disposition: " + disposition + b"\r\n\r\n" + content + b"\r\n--b--\r\n"
    return body_upload(family, body, "multipart/form-data; boundary=b", **how)


def damaged_uploads(folder: Path, n_uploads: int, seed: int) -> Iterator[HostileUpload]:
    """Damaged sounds of each format, and files that are no sounds."""
    folder.mkdir()
    numbers = itertools.count()
    while n_uploads:
        damaged = make_damaged_file(folder, next(numbers), seed)
        if damaged.family in _SKIPPED:
            continue
        n_uploads -= 1
        yield form_upload("damaged sounds", damaged.path.name, damaged.path.read_bytes())


def silent_flac(n_hours: float, *, claimed_samples: int | None = None) -> bytes:
    """Hours of silence at 1 kHz, in 12 kB each; the header may claim another length, or none (0)."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 1_000, 1, "PCM_S8", format="FLAC") as out:
        hour = np.zeros(3_600_000, np.int16)
        for _ in range(round(n_hours)):
            out.write(hour)
    content = bytearray(file.getvalue())
    if claimed_samples is not None:
        content[21] = (content[21] & 0xF0) | (claimed_samples >> 32)
        content[22:26] = (claimed_samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(content)


def silent_mp3(n_bytes: int) -> bytes:
    """Frames of silence of 8 kbit/s, 72 ms in 72 bytes."""
    return (b"\xff\xe3\x18\xc4" + bytes(68)) * (n_bytes // 72)


def wav_header(n_channels: int, rate: int, n_bytes: int) -> bytes:
    """The head of a wav file that claims so many bytes."""
    numbers = ((16, 4), (1, 2), (n_channels, 2), (rate, 4), (rate * 2, 4), (2, 2), (16, 2))
    chunk = b"fmt " + b"".join((number & (1 << 8 * size) - 1).to_bytes(size, "little") for number, size in numbers)
    size = (n_bytes & 0xFFFFFFFF).to_bytes(4, "little")
    return b"RIFF" + size + b"WAVE" + chunk + b"data" + size


def bombs() -> Iterator[HostileUpload]:
    """Small files of very long sounds, and headers that claim them."""
    day = silent_flac(100)
    yield body_upload("bombs of silence", day, "audio/flac")
    for claimed in (0, 1_000, 1 << 35, 3_599_999):
        content = bytearray(day)
        content[21] = (content[21] & 0xF0) | (claimed >> 32)
        content[22:26] = (claimed & 0xFFFFFFFF).to_bytes(4, "big")
        yield body_upload("bombs of silence", bytes(content), "audio/flac")
    yield body_upload("bombs of silence", silent_flac(0.6, claimed_samples=0), "audio/flac")
    yield body_upload("bombs of silence", silent_mp3(19_000_000), "audio/mpeg")
    for n_channels, rate, n_bytes in itertools.product(
        (1, 2, 255, 65_535), (1, 8_000, 4_294_967_295), (0, 4_294_967_295)
    ):
        yield body_upload("lying wav", wav_header(n_channels, rate, n_bytes) + bytes(5_000))
    yield body_upload("large", bytes(25_000_000))
    many = silent_flac(1)  # 3.6 million windows of one sample
    head = f"POST /v1/tag?window=1e-9 HTTP/1.1\r\nContent-Length: {len(many)}\r\n"
    yield HostileUpload("too many windows", head.encode(), many)
    yield form_upload("large", "a.wav", wav_header(1, 8_000, 19_000_000) + bytes(19_000_000))


def odd_names() -> Iterator[HostileUpload]:
    """Names with folders, markup, control characters and no end."""
    good, rubbish = sound("flac", 0), bytes(500)
    names = (
        *("../../../etc/passwd.wav", "..\\..\\windows\\a.wav", "/etc/shadow.wav", "C:\\con.wav", "~/.ssh/id.wav"),
        *("<script>alert(1)</script>.wav", "'; drop table a; --.wav", "=cmd|' /C calc'!A1.wav", "$(reboot).wav"),
        *("%2e%2e%2fa.wav", "a\x00b.wav", "\x1b[2J.wav", "a" * 5_000 + ".wav", "é" * 300 + ".wav", "\u202egpj.wav"),
        *("\udcff\udcfe.wav", "-rf.wav", ".wav", " .wav", "a.wav.", "a.exe", "a.wav.zip", "", "nul", "😀.wav"),
    )  # fmt: skip
    for name, content in itertools.product(names, (good, rubbish)):
        yield form_upload("odd names", name, content)


def odd_requests() -> Iterator[HostileUpload]:
    """Requests that lie about themselves."""
    good = sound("wav PCM_16", 0)
    for kind in (
        "text/html",
        "application/json",
        "image/png",
        "audio/",
        "x" * 1_000,
        "",
        "multipart/form-data",
        "\xff",
    ):
        yield body_upload("wrong types", good, kind)
    for boundary in ("", "x" * 300, '"', "b; boundary=c", "\xe9"):
        yield body_upload("broken forms", good, f"multipart/form-data; boundary={boundary}")
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
    for body in (
        b"", b"--b", b"--b--\r\n", part, part * 3 + b"\r\n--b--", b"--b\r\n" + b"A: b\r\n" * 5_000,
        part + b"--c" * 9_000,
        b"--b\r\nA" + b":" * 90_000, (b"--b\r\n\r\n\r\n") * 20_000,
        part[:-2] + b"Content-Transfer-Encoding: base64\r\n\r\nYQ==\r\n--b--",
        b"--b\r\nContent-Disposition: form-data; name=file; filename*=utf-8''%2e%2e%2fa.wav\r\n\r\na\r\n--b--",
    ):  # fmt: skip
        yield body_upload("broken forms", body, "multipart/form-data; boundary=b")
    start = b"POST /v1/tag HTTP/1.1\r\nContent-Type: audio/wav\r\n"
    yield HostileUpload("lying length", start + b"Content-Length: 99999999999999999999999\r\n", good)
    yield HostileUpload("lying length", start + b"Content-Length: 1e3\r\n", good)
    yield HostileUpload("lying length", start + b"Content-Length: 100\r\n", good)
    yield HostileUpload(
        "lying length", start + b"Transfer-Encoding: chunked\r\n", b"FFFFFFFFFFFF\r\n" + good, leaves=True
    )
    yield HostileUpload("lying length", start + b"Transfer-Encoding: chunked\r\n", b"zz\r\n" + good)
    yield HostileUpload("lying length", start + b"Content-Length: 100000\r\n", good[:1_000])  # waits for the rest
    for query in (
        "window=1e-9",
        "window=nan",
        "window=-1",
        "overlap=1e300",
        "top=999999999999",
        "%ff=%00",
        "window=0.01",
    ):
        yield body_upload("parameters", good)._replace(
            head=f"POST /v1/tag?{query} HTTP/1.1\r\nContent-Length: {len(good)}\r\n".encode()
        )


def slow_and_leaving(rng: random.Random) -> Iterator[HostileUpload]:
    """Clients that take their time, and clients that leave."""
    good = sound("ogg vorbis", 0)
    for _ in range(3):
        yield form_upload("slow clients", "a.ogg", good, pause_seconds=0.1)
    for _ in range(20):
        whole = form_upload("clients that leave", "a.ogg", good, leaves=True)
        yield whole._replace(body=whole.body[: rng.randrange(len(whole.body))])


def good_uploads() -> Iterator[HostileUpload]:
    """A whole sound in each format."""
    for family in available_families():
        yield form_upload("whole sounds", f"a{suffix_of(family)}", sound(family, 0))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=500, help="(500)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    arguments = parser.parse_args()
    sources: tuple[Callable[[], Iterator[HostileUpload]], ...] = (bombs, odd_names, odd_requests, good_uploads)
    others = [upload for source in sources for upload in source()]
    others += slow_and_leaving(random.Random(arguments.seed))
    with tempfile.TemporaryDirectory(prefix="hostile-uploads-") as name:
        folder, begin = Path(name), time.monotonic()
        campaign = UploadCampaign(folder)
        n_damaged = max(0, arguments.uploads - len(others))
        uploads = itertools.chain(others, damaged_uploads(folder / "damaged", n_damaged, arguments.seed))
        for number, upload in enumerate(uploads, start=1):
            campaign.check(upload)
            if number % _GOOD_EVERY == 0:
                campaign.check_good(upload.family)
        campaign.end()
    print("| uploads | number | answers |\n|---|---|---|")
    for family, statuses in campaign.statuses.items():
        answers = ", ".join(f"{status or 'none'}: {n}" for status, n in sorted(statuses.items()))
        print(f"| {family} | {statuses.total()} | {answers} |")
    print(f"{number} uploads, {len(campaign.faults)} faults in {time.monotonic() - begin:.0f} s")
    return 1 if campaign.faults else 0


if __name__ == "__main__":
    sys.exit(main())
