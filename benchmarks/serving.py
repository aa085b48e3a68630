"""Clips per second of `spectag serve`, `tag_many` and a plain FastAPI handler: python benchmarks/serving.py CLIPS

Fifty clients send one clip after another for a minute. Each row comes from the same run; the server, the handler and
the clients share the cores of the machine. The CPU time of the clients is printed, too.
"""

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psutil
import uvicorn
from fastapi import FastAPI, UploadFile

from spectag.audio.files import find_audio
from spectag.config.serving import ServeSettings
from spectag.models.pretrained import tagger_folder
from spectag.models.tagger import Tagger
from spectag.serving import serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, help="folder of short clips")
    parser.add_argument("--model", default="audioset-mn04", help="(audioset-mn04)")
    parser.add_argument("--clients", type=int, default=50, help="(50)")
    parser.add_argument("--seconds", type=float, default=60, help="of each row (60)")
    arguments = parser.parse_args()
    clips = find_audio([arguments.clips])[:200]
    print("| what | clips per second | median, ms | 99 %, ms | memory at 1/4, MB | memory at the end, MB |")
    print("|---|---|---|---|---|---|")
    for name in ("spectag serve", "plain handler"):
        show(name, *load(name, arguments.model, clips, arguments.clients, arguments.seconds))
    show("tag_many", *tag_many(arguments.model, clips, arguments.seconds))


def show(name: str, per_second: float, seconds: list[float], megabytes: list[float]) -> None:
    times = [1000 * value for value in statistics.quantiles(seconds, n=100)] if len(seconds) > 1 else []
    shown = [f"{per_second:.0f}", *((f"{times[49]:.0f}", f"{times[98]:.0f}") if times else ("", ""))]
    early, late = (f"{megabytes[len(megabytes) // 4]:.0f}", f"{megabytes[-1]:.0f}") if megabytes else ("", "")
    print(f"| {name} | {' | '.join(shown)} | {early} | {late} |", flush=True)


def tag_many(model: str, clips: list[Path], seconds: float) -> tuple[float, list[float], list[float]]:
    tagger = Tagger(tagger_folder(model)).open()
    begin, n_clips = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        n_clips += sum(1 for _ in tagger.tag_many(clips))
    return n_clips / (time.perf_counter() - begin), [], []


def load(
    name: str, model: str, clips: list[Path], n_clients: int, seconds: float
) -> tuple[float, list[float], list[float]]:
    """Clips per second, the time of each request, and the memory of the server every second."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run = serve_spectag if name == "spectag serve" else serve_plainly
    process = multiprocessing.get_context("spawn").Process(target=run, args=(model, port))
    process.start()
    try:
        requests = [request_of(clip, port) for clip in clips]
        wait_for(port, requests[0])
        megabytes: list[float] = []
        is_over = threading.Event()
        watch = threading.Thread(target=watch_memory, args=(process.pid, megabytes, is_over))
        watch.start()
        begin = time.process_time()
        times = asyncio.run(ask_all(port, requests, n_clients, seconds))
        print(f"{name}: {1000 * (time.process_time() - begin) / len(times):.1f} ms of CPU time per request of a client")
        is_over.set()
        watch.join()
        return len(times) / seconds, times, megabytes
    finally:
        process.terminate()
        process.join()


def request_of(clip: Path, port: int) -> bytes:
    """The bytes that a client sends, made once: the clients share the cores with the server, so they do little."""
    head = f'--end\r\nContent-Disposition: form-data; name="file"; filename="{clip.name}"\r\n\r\n'.encode()
    body = head + clip.read_bytes() + b"\r\n--end--\r\n"
    first = f"POST /v1/tag HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {len(body)}\r\n"
    return f"{first}Content-Type: multipart/form-data; boundary=end\r\n\r\n".encode() + body


async def ask_all(port: int, requests: list[bytes], n_clients: int, seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while time.perf_counter() < end:
            begin = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            await writer.drain()
            await answer(reader)
            times.append(time.perf_counter() - begin)
            turn += 1
        writer.close()

    await asyncio.gather(*map(client, range(n_clients)))
    return times


async def answer(reader: asyncio.StreamReader) -> bytes:
    """The body of an answer. An error if it is not 200."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
    length = next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))
    body = await reader.readexactly(length)
    if b" 200 " not in first:
        raise OSError(f"{first.decode()}: {body.decode()}")
    return body


def watch_memory(pid: int | None, megabytes: list[float], is_over: threading.Event) -> None:
    server = psutil.Process(pid)
    while not is_over.wait(1):
        processes = [server, *server.children(recursive=True)]
        megabytes.append(sum(process.memory_info().rss for process in processes) / 1e6)


def wait_for(port: int, request: bytes) -> None:
    """Wait until the model is open: the first clip is answered."""
    while True:
        try:
            asyncio.run(ask_all(port, [request], 1, 0.01))
        except OSError:
            time.sleep(0.2)
        else:
            return


def serve_spectag(model: str, port: int) -> None:
    serve(tagger_folder(model), ServeSettings(port=port))


def serve_plainly(model: str, port: int) -> None:
    """The handler that one writes first: the model loaded once, in threads."""
    tagger = Tagger(tagger_folder(model)).open()
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> str:
        return "ok"

    @app.post("/v1/tag")
    def tag(file: UploadFile) -> dict[str, float]:
        with tempfile.NamedTemporaryFile(suffix=Path(file.filename or "").suffix) as copy:
            copy.write(file.file.read())
            copy.flush()
            return tagger.tag(copy.name).to_dict()

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
