"""The Model view in a browser: what it tells, thresholds that are changed, and calls that work as they are copied."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import AXE, barriers
from helpers.page_server import page_server
from serving.test_model_view import store_predictions
from spectag.audio.files import write_audio
from spectag.models.bundle import CARD_FILE, read_info

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

TOKEN = "a-secret-of-many-characters"
CARD = """---
license: mit
---

# My <b>model</b>

It was trained by **us**,
with `spectag`. See [here](javascript:alert(1)).

- one
  goes on
- two <img src=x onerror=alert(1)>

| label | clips |
|---|---|
| a &#124; b | 3 |

```
spectag tag <x>
```
## End
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    labels = ("low", "middle sounds", "it's high")
    bundle = make_bundle(folder / "model", make_info(labels=labels, thresholds=(1e-4, 1e-4, 1e-4)))
    (bundle / CARD_FILE).write_text(CARD, encoding="utf-8")
    write_audio(folder / "recording.wav", tone("low", 2.0), 16_000)
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A folder with a model that stores predictions of held-out clips."""
    folder = tmp_path_factory.mktemp("scored")
    store_predictions(make_bundle(folder / "model", make_info(thresholds=(0.5, 0.4, 0.6))))
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    """The view of a model without predictions of held-out clips, on a server with a token."""
    with (
        page_server(folder, "model", SPECTAG_TOKEN=TOKEN) as address,
        chromium(tmp_path_factory.mktemp("profile")) as page,
    ):
        page.show(1400, 1000)
        page.address = address
        page.open(f"{address}/?token={TOKEN}#model")
        page.wait("document.querySelector('.model-view .facts')")
        page.wait("document.querySelector('.model-view .part [role=status]').textContent.includes('unknown')")
        yield page
        assert page.console == []


def texts(page, selector):
    return page.run(f"[...document.querySelectorAll({selector!r})].map((one) => one.textContent)")


def set_slider(page, row, value):
    page.run(f"""(() => {{
        const slider = document.querySelectorAll('.threshold-table input[type=range]')[{row}];
        slider.value = {value};
        slider.dispatchEvent(new Event('input'));
    }})()""")


def test_card_is_text_and_its_parts_are_elements(page):
    assert texts(page, ".card h3") == ["My <b>model</b>"]
    assert texts(page, ".card p") == ["It was trained by us, with spectag. See [here](javascript:alert(1))."]
    assert texts(page, ".card strong") == ["us"]
    assert texts(page, ".card li") == ["one goes on", "two <img src=x onerror=alert(1)>"]
    assert texts(page, ".card :is(th, td)") == ["label", "clips", "a | b", "3"]
    assert texts(page, ".card pre") == ["spectag tag <x>"]
    assert texts(page, ".card h4") == ["End"]
    assert page.run("document.querySelector('.card :is(a, img, b)')") is None


def test_facts_have_licence_novelty_and_training_sounds(page):
    facts = dict(zip(texts(page, ".facts dt"), texts(page, ".facts dd"), strict=True))
    assert facts["Licence of the weights"] == "none"
    assert facts["Novelty"] == "Not computed by this model."
    assert facts["Training sounds"] == "Not stored in the model."
    assert facts["Trained on"] == "3 clips of none"


def test_precision_is_unknown_without_predictions(page):
    cells = texts(page, ".threshold-table tbody tr:first-child :is(th, td)")
    assert cells[:2] == ["low", "1"]
    assert cells[3:5] == ["unknown", "unknown"]


def snippets_of(page):
    found = texts(page, ".snippets pre")
    assert len(found) == 4
    return found


def run_in(folder, command, **options):
    environment = os.environ | {"SPECTAG_TOKEN": TOKEN, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_python_call_works_as_it_is_copied(page, folder):
    assert "low" in run_in(folder, [sys.executable, "-c", snippets_of(page)[0]])


def test_commands_work_as_they_are_copied(page, folder):
    for line in snippets_of(page)[1].splitlines():
        run_in(folder, line, shell=True)
    assert "low" in (folder / "segments.csv").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_calls_work_as_they_are_copied(page, folder):
    for line in snippets_of(page)[2].splitlines():
        assert line.startswith("curl ")
        answer = json.loads(run_in(folder, f"{line} -sS --fail-with-body", shell=True))
        assert answer["results"][0]["tags"][0]["label"] == "low"


def test_request_from_python_works_as_it_is_copied(page, folder):
    assert "low" in run_in(folder, [sys.executable, "-c", snippets_of(page)[3]])


def test_changed_thresholds_become_a_command_that_works(page, folder):
    set_slider(page, 1, 10)
    set_slider(page, 2, 52)
    assert page.run("document.querySelector('.changes [role=status]').textContent") == "2 thresholds changed"
    command = page.run("document.querySelector('.changes code').textContent")
    assert shlex.split(command)[-4:] == ["--set", "middle sounds=0.08", "--set", "it's high=0.5"]
    run_in(folder, command, shell=True)
    assert read_info(folder / "model-thresholds").thresholds == (1e-4, 0.08, 0.5)
    page.run("document.querySelector('.threshold-table .undo').click()")
    assert page.run("document.querySelector('.changes [role=status]').textContent") == "1 threshold changed"
    page.run("document.querySelector('.changes .buttons button').click()")
    assert page.run("document.querySelector('.changes').checkVisibility()") is False
    assert texts(page, ".threshold-table .figure") == ["0.0001"] * 3


def test_texts_are_copied(page):
    clipboard = "{ writeText: async (text) => { window.copied = text; } }"
    page.run(f"Object.defineProperty(navigator, 'clipboard', {{ value: {clipboard} }}) && true")
    page.run("document.querySelector('.snippets .copy').click()")
    page.wait("document.querySelector('.snippets .copy').textContent === 'Copied'")
    assert page.run("window.copied") == snippets_of(page)[0]


def test_labels_are_filtered(page):
    page.press("/")
    assert page.run("document.activeElement.id") == "model-filter"
    for word, count in [("HIGH", 1), ("none of them", 0), ("", 3)]:
        page.run(f"document.querySelector('#model-filter').value = {word!r}")
        page.run("document.querySelector('#model-filter').dispatchEvent(new Event('input'))")
        rows = "[...document.querySelectorAll('.threshold-table tbody tr')].filter((one) => one.checkVisibility())"
        assert page.run(f"{rows}.length") == count
        assert page.run("document.querySelector('.threshold-table .hint').checkVisibility()") == (count == 0)
    page.run("document.activeElement.blur()")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False), (1400, True)])
def test_page_fits_its_window_and_axe_finds_nothing(page, width, dark):
    page.show(width, 1000, dark=dark)
    set_slider(page, 1, 10)
    assert page.run("document.documentElement.scrollWidth") <= width
    if AXE:
        assert (found := barriers(page)) == [], str(found)
    page.run("[...document.querySelectorAll('.changes button')].at(-1).click()")
    page.show(1400, 1000)


def test_thresholds_are_saved_as_a_version_with_their_precision_in_view(scored, tmp_path):
    with page_server(scored, "model", "--project", "project") as address, chromium(tmp_path) as page:
        page.open(f"{address}/#model")
        page.wait("document.querySelector('.model-view .part [role=status]').textContent.includes('300 clips')")
        assert texts(page, ".threshold-table tbody tr:first-child td")[2].endswith(")")
        before = texts(page, ".threshold-table tbody tr:first-child td")[3]
        set_slider(page, 0, 22)
        assert texts(page, ".threshold-table .figure")[0] == "0.2"
        assert texts(page, ".threshold-table tbody tr:first-child td")[3] != before
        page.run("document.querySelector('.changes .primary').click()")
        page.wait("document.querySelector('#announcer').textContent === 'Version 2 of the model is in use.'", 30)
        page.wait("document.querySelector('.threshold-table .figure').textContent === '0.2'")
        page.wait("document.querySelector('.threshold-table tbody td:last-child').textContent.includes('set by hand')")
        assert page.run("document.querySelector('.changes').checkVisibility()") is False
        assert page.run("document.querySelector('.saved').checkVisibility()")
        assert "those of version 2" in page.run("document.querySelector('.saved').textContent")
        set_slider(page, 0, 30)
        assert page.run("document.querySelector('.saved').checkVisibility()") is False
        assert page.console == []
    assert read_info(scored / "project" / "models" / "0002").thresholds == (0.2, 0.4, 0.6)


def test_failure_has_a_reason_and_a_way_back(folder, tmp_path):
    with page_server(folder, "model") as address, chromium(tmp_path) as page:
        page.open(f"{address}/#tag")
        page.wait("document.querySelector('.tag-view input')")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.run("import('/static/model.js').then(() => true)")
        page.call("Network.enable")
        page.call("Network.emulateNetworkConditions", offline=True, **offline)
        page.run("location.hash = '#model'")
        page.wait("document.querySelector('.model-view .state.failed').textContent.includes('does not answer')")
        page.call("Network.emulateNetworkConditions", offline=False, **offline)
        page.run("document.querySelector('.model-view .state.failed button').click()")
        page.wait("document.querySelector('.model-view .facts')")
