"""The server as a process: what slow, rude and many clients get, and how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pytest
import soundfile
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from helpers.bundles import make_bundle, make_info, tone
from helpers.damaged_files import sound

GOOD = sound("wav PCM_16", 0)
RUN = "import sys\nfrom spectag.serving import protocol\nprotocol._HEAD_SECONDS = 1.0\nprotocol._MAX_CONNECTIONS = 60\n"
RUN += "protocol._READ_SECONDS = 2.0\n"
RUN += "from spectag.cli import main\nsys.exit(main())"


@contextmanager
def server(folder, *options, env=None):
    """A server with short limits, its port and its process; Ctrl-C ends it without an error."""
    command = [sys.executable, "-c", RUN, "serve", folder / "model", "--port", "0", "-j", "1", *options]
    with subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=env) as process:
        first = process.stderr.readline()
        port = int(re.search(r"http://\S+:(\d+)", first)[1])
        try:
            wait_until_ready(port)
            yield port, process
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                assert process.wait(15) == 0
                assert process.stderr.read() == "stopped\n"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    make_bundle(folder / "model", make_info())
    return folder


@pytest.fixture(scope="module")
def port(folder):
    with server(folder, "--max-megabytes", "1", "--max-seconds", "4", "--max-waiting", "1") as (port, _):
        yield port


def wait_until_ready(port):
    for _ in range(300):
        try:
            if ask(port, b"GET /readyz HTTP/1.1\r\n")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise TimeoutError


def ask(port, head, body=b"", host="127.0.0.1"):
    """Status and content of the answer to a raw request."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head + f"Host: {host}:{port}\r\nConnection: close\r\n\r\n".encode() + body)
        return answer_of(connection)


def answer_of(connection):
    content = b""
    while part := connection.recv(1 << 16):
        content += part
    head, _, body = content.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


def tag(port, content=GOOD):
    return ask(port, f"POST /v1/tag HTTP/1.1\r\nContent-Length: {len(content)}\r\n".encode(), content)


def test_slow_heads_are_ended_and_others_are_served(port):
    slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(20)]
    for connection in slow:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
    assert tag(port)[0] == 200
    for connection in slow:
        status, body = answer_of(connection)
        assert (status, json.loads(body)["detail"]) == (408, "the request took longer than 1 s")
        connection.close()


def test_more_connections_than_the_limit_get_503_and_the_next_client_is_served(port):
    idle = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(80)]
    statuses = sorted(answer_of(connection)[0] for connection in idle)
    assert statuses.count(503) >= 20
    assert statuses.count(408) <= 60
    for connection in idle:
        connection.close()
    assert tag(port)[0] == 200


def test_slow_uploads_end_and_do_not_let_others_wait_without_an_answer(port):
    """There are two places: one for a worker and one that waits."""
    slow = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(2)]
    for connection in slow:
        connection.sendall(b"POST /v1/tag HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 9000\r\n\r\nRIFF" % port)
    time.sleep(0.3)
    assert tag(port)[0] == 503
    assert [answer_of(connection)[0] for connection in slow] == [408, 408]
    for connection in slow:
        connection.close()
    assert tag(port)[0] == 200


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70_000, 400),
        (b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n", 400),
        (b"POST /v1/tag HTTP/1.1\r\nContent-Length: -5\r\n", 400),
        (b"POST /v1/tag HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n", 413),
        (b"TRACE / HTTP/1.1\r\n", 405),
        (b"OPTIONS /v1/tag HTTP/1.1\r\n", 405),
        (b"HEAD /v1/labels HTTP/1.1\r\n", 200),
        (b"GET /v1/%2e%2e/%00 HTTP/1.1\r\n", 404),
        (b"GET /v1/labels HTTP/1.1\r\nAuthorization: Bearer \xff\xfe\r\n", 200),
        (b"GET /v1/labels HTTP/1.1\r\nOrigin: \xff\xfe\r\n", 403),
    ],
)
def test_odd_requests_get_a_problem(port, head, status):
    got, body = ask(port, head)
    assert got == status
    if status >= 400:
        assert json.loads(body)["status"] == status
    elif head.startswith(b"HEAD"):
        assert body == b""


def test_host_may_be_in_capitals(port):
    assert ask(port, b"GET /v1/labels HTTP/1.1\r\n", host="LocalHost")[0] == 200


def test_clients_that_leave_in_the_middle_do_no_harm(port):
    for n_bytes in (10, 5_000, len(GOOD)):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            head = f"POST /v1/tag HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {len(GOOD)}\r\n\r\n"
            connection.sendall(head.encode() + GOOD[:n_bytes])
    time.sleep(0.5)
    assert tag(port)[0] == 200


@pytest.mark.parametrize("message", ["text " * 100, bytes(3), bytes(5 << 20)], ids=["text", "part", "huge"])
def test_floods_of_wrong_messages_close_the_stream(port, message):
    def flood(stream):
        for _ in range(1000):
            stream.send(message)
        stream.recv(timeout=20)

    with listening(port) as stream, pytest.raises(ConnectionClosed):
        flood(stream)
    with listening(port) as stream:
        stream.send("end")
        with pytest.raises(ConnectionClosed) as closed:
            stream.recv(timeout=20)
    assert closed.value.rcvd.code == 1000


def test_floods_of_samples_that_are_not_numbers_close_the_stream(port):
    """Also if more messages wait than the queue takes: nobody reads them any more."""
    samples = np.full(16_000, np.nan, "<f4").tobytes()
    with connect(f"ws://127.0.0.1:{port}/v1/listen?sample_rate=16000&encoding=f32le", close_timeout=1) as stream:
        with suppress(ConnectionClosed):
            for _ in range(60):
                stream.send(samples)
        with pytest.raises(ConnectionClosed):
            stream.recv(timeout=30)
    for _ in range(100):
        if b"spectag_live_streams 0.0" in ask(port, b"GET /metrics HTTP/1.1\r\n")[1]:
            return
        time.sleep(0.1)
    raise AssertionError("the stream still takes a place")


def test_streams_run_longer_than_the_head_of_a_request_may_take(port):
    with listening(port) as stream:
        time.sleep(1.5)
        stream.send((tone("low", 3.0) * 32_767).astype("<i2").tobytes())
        assert json.loads(stream.recv(timeout=20))["on"]


def test_many_streams_run_at_the_same_time(port):
    """More than asyncio's own pool has threads, each of them with more messages than are queued."""
    second = (tone("low", 1.0) * 32_767).astype("<i2").tobytes()
    with ExitStack() as stack:
        streams = [stack.enter_context(listening(port)) for _ in range(8)]
        with listening(port) as ninth, pytest.raises(ConnectionClosed) as closed:
            ninth.recv(timeout=20)
        assert closed.value.rcvd.code == 1013
        for _ in range(30):
            for stream in streams:
                stream.send(second)
        for stream in streams:
            stream.send("end")
            assert json.loads(stream.recv(timeout=20))["on"]


def test_clients_that_do_not_read_their_answer_are_ended_and_slow_ones_are_not(folder, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(tone("low", 60.0), 10), 16_000)
    content = (tmp_path / "long.wav").read_bytes()
    with server(folder) as (port, _):
        form = (
            b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + content + b"\r\n--b--\r\n"
        )
        head = "POST /views/tag/sounds HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        answer = ask(port, f"{head}Content-Length: {len(form)}\r\n".encode(), form)[1]
        request = f"GET /views/tag/sounds/{json.loads(answer)['id']}/wav HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
        for pauses, is_ended in [([5.0], True), ([1.0] * 4, False)]:
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
                connection.sendall(request.encode())
                assert (n_bytes_read(connection, pauses) < len(content)) == is_ended


def n_bytes_read(connection, pauses):
    """Bytes of an answer, of which five MB are read after each pause."""
    n_bytes, n_wanted = 0, 0
    with suppress(ConnectionResetError, TimeoutError):
        connection.settimeout(3)
        for pause in [*pauses, 0.0]:
            time.sleep(pause)
            n_wanted += 5_000_000
            while n_bytes < n_wanted and (part := connection.recv(1 << 16)):
                n_bytes += len(part)
    return n_bytes


def listening(port):
    return connect(f"ws://127.0.0.1:{port}/v1/listen?sample_rate=16000&window=1&min_confidence=0.0001")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_requests_in_work_are_finished_when_the_server_ends(folder, stop, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(tone("low", 60.0), 20), 16_000)
    with server(folder) as (port, process):
        answers = []
        content = (tmp_path / "long.wav").read_bytes()
        client = threading.Thread(target=lambda: answers.append(tag(port, content)))
        client.start()
        wait_for_a_question(port)
        process.send_signal(stop)
        assert process.wait(15) == 0
        client.join()
        assert answers[0][0] == 200


def wait_for_a_question(port):
    for _ in range(100):
        if b"spectag_questions 1.0" in ask(port, b"GET /metrics HTTP/1.1\r\n")[1]:
            return
        time.sleep(0.02)
    raise TimeoutError


def test_next_server_deletes_what_a_killed_one_left(folder, tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with server(folder, env=environment) as (_, process):
        process.kill()
        process.wait()
    [left] = tmp_path.glob("spectag-serve-*")
    other = tmp_path / f"spectag-serve-{os.getpid()}-other"  # of a process that lives
    other.mkdir()
    with server(folder, env=environment):
        assert not left.exists()
    assert list(tmp_path.glob("spectag-serve-*")) == [other]


def test_second_ctrl_c_ends_at_once(folder):
    with server(folder) as (port, process), socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"POST /v1/tag HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 9000\r\n\r\nRIFF" % port)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(3) == 0
