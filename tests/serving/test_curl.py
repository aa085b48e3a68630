"""The examples of the guide, run as they stand there against a server that is started by the command."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from docs.pages import blocks
from helpers.bundles import make_bundle, make_info, tone
from helpers.paths import PROJECT
from spectag.audio.files import write_audio

GUIDE = PROJECT / "docs" / "how-to" / "serve-a-model.md"
CLIENT = next(block.code for block in blocks(GUIDE) if block.language == "python")
EXAMPLES = next(block.code for block in blocks(GUIDE) if block.code.startswith("curl "))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder with street.ogg, and the address of a server."""
    folder = tmp_path_factory.mktemp("serve")
    make_bundle(folder / "model", make_info())
    write_audio(folder / "street.ogg", tone("low", 2.0), 16_000)
    command = [sys.executable, "-m", "spectag", "serve", "model", "--port", "0", "-j", "1"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        address = re.search(r"http://\S+:\d+", process.stderr.readline())[0]
        wait_for(f"{address}/healthz")
        yield folder, address
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0, "Ctrl-C ends the server, and is no error"
        assert "Traceback" not in process.stderr.read()


def wait_for(url):
    for _ in range(200):
        try:
            with urllib.request.urlopen(url) as answer:
                return answer.status
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", EXAMPLES.strip().splitlines())
def test_curl_example_gets_an_answer(server, line):
    folder, address = server
    done = subprocess.run(
        line.replace("http://127.0.0.1:8765", address).replace("curl ", "curl -sS --fail-with-body ", 1),
        shell=True, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)


def test_python_client_gets_an_answer(server):
    folder, address = server
    code = CLIENT.replace("http://127.0.0.1:8765", address)
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[{'start': 0.0, 'end': 2.0, 'tags': [")
