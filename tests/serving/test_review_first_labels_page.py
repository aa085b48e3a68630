"""The Review view in a browser, in a project whose model does not have the labels of its first clips."""

import json

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_server import page_server
from spectag.audio.files import write_audio

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

KEYS = "[...document.querySelectorAll('.label-button kbd')].map((one) => one.nextSibling.textContent)"


@pytest.fixture
def page(tmp_path):
    make_bundle(tmp_path / "model", make_info())
    rows = ["fname,labels"]
    for number, label in enumerate(("Fox", "Owl", "Owl", "low")):
        write_audio(tmp_path / f"{number}.wav", tone("low", 1.0), 16_000)
        rows.append(f"{number}.wav,{label}")
    (tmp_path / "clips.csv").write_text("\n".join(rows), "utf-8")
    with page_server(tmp_path, "model", "--project", "project") as address, chromium(tmp_path / "profile") as page:
        page.show(1280, 800)
        page.open(f"{address}/#review")
        page.wait("document.querySelector('.review-view .state')?.textContent.includes('Add clips')", 30)
        yield page
        assert [line for line in page.console if "503 (Service Unavailable)" not in line] == []


def test_keys_give_the_labels_of_the_clips_and_labels_that_the_model_lacks_are_named(page, tmp_path):
    options = json.dumps({"method": "POST", "body": {"path": str(tmp_path / "clips.csv")}})
    page.run(f"import('/static/api.js').then((api) => api.request('/views/review/import', {options}))")
    page.run("location.hash = '#model'")
    page.wait("!document.querySelector('.review-view').checkVisibility()")
    page.run("location.hash = '#review'")
    page.wait("document.querySelector('.queues button')?.checkVisibility()", 20)
    for queue in ("Label errors", "All clips"):
        found = "[...document.querySelectorAll('.queues button')]"
        page.run(f"{found}.find((one) => one.textContent.includes('{queue}')).click()")
    page.wait(f"{KEYS}.join() === 'Owl,low,Fox'", 20)
    hint = page.run("document.querySelector('.review-jobs .warning').textContent")
    assert "does not know 2 of your 3 labels" in hint
    assert page.run("document.querySelector('.review-jobs .warning a').getAttribute('href')") == "#train"
