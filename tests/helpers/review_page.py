"""The Review view in a browser: a folder for it, and what a person does."""

import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from helpers.browser import Page, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import click_button, unforeseen
from spectag.audio.files import write_audio
from spectag.models.novelty import NoveltyInfo

SHOTS = os.environ.get("SPECTAG_TEST_SHOTS", "")
"""Folder for pictures of the page, to look at."""
SERVE = ("model", "--project", "project")
"""Arguments of the server."""
KINDS = ("low", "middle", "high")
N_CLIPS = 24


def write_review_folder(folder: Path) -> Path:
    """Write a model, labelled clips of which one has a wrong label, and sounds without labels."""
    make_bundle(folder / "model", make_info(novelty=NoveltyInfo(n_held_out=3)))
    rng = np.random.default_rng(0)
    rows = ["fname,labels,fold"]
    (folder / "sounds").mkdir()
    for number in range(N_CLIPS):
        kind = KINDS[number % 3]
        sound = tone(kind, 2.0) * np.float32(0.8) + np.float32(1e-3) * rng.standard_normal(32_000)
        name = f"Site{number % 2}_20240501_{number:02}0000 & <b>.wav"
        write_audio(folder / "sounds" / name, sound.astype(np.float32), 16_000)
        rows.append(f'"{name}",{"low" if number == 4 else kind},{number % 4}')
    (folder / "sounds.csv").write_text("\n".join(rows), "utf-8")
    (folder / "new").mkdir()
    for number, kind in enumerate(KINDS):
        write_audio(folder / "new" / f"{number}.wav", tone(kind, 1.5 + number), 16_000)
    return folder


@contextmanager
def review_page(address: str, profile: Path) -> Iterator[Page]:
    """The view of a server in a new browser, whose console is clean at the end."""
    with chromium(profile) as page:
        page.show(1400, 1000)
        page.open(f"{address}/#review")
        page.wait("document.querySelector('.review-view')?.textContent.includes('Add clips')", 30)
        yield page
        lines = unforeseen(page, "409 (Conflict)", "422 (Unprocessable")
        assert lines == [], lines


def shot(page, name):
    if SHOTS:
        page.screenshot(Path(SHOTS) / f"review-{name}.png")


def click(page, text, within=".review-view"):
    click_button(page, text, within)


def wait_message(page, text, seconds=20):
    page.wait(f"document.querySelector('.review-view .message').textContent.includes({text!r})", seconds)


def title(page):
    return page.run("document.querySelector('.review-clip h2').textContent")


def choose(page, index):
    """Click a card, and wait until its clip is shown."""
    card = f"document.querySelectorAll('.review-card')[{index}]"
    page.run(f"{card}.click()")
    name = page.run(f"{card}.querySelector('.name').textContent")
    page.wait(f"document.querySelector('.review-clip h2').textContent === {name!r}")
    page.wait("!document.querySelector('.clip-state .state') && document.querySelector('.plot').checkVisibility()", 20)


def current(page):
    return int(page.run("document.querySelector('.review-card.current').dataset.number"))


def count(page):
    """The number of clips in the list."""
    return page.run("Number(document.querySelector('.review-card')?.getAttribute('aria-setsize') ?? 0)")


def ask(address, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/views/review/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or "{}")


def clip_of(address, number):
    return ask(address, "clips", {"numbers": [number]})["clips"][0]


def press(page, key, text):
    """Press a key, and wait for what the page says."""
    page.run("document.querySelector('.review-view .message').textContent = ''")
    page.press(key)
    wait_message(page, text)


def import_path(page, folder, name):
    """Add a table or folder of the server with the dialog."""
    is_table = name.endswith(".csv")
    click(page, "Choose a table" if is_table else "Choose a folder")
    places = "[...document.querySelectorAll('dialog.picker .places button')]"
    page.wait(f"{places}.some((one) => one.textContent.endsWith({folder.name!r}))")
    page.run(f"{places}.find((one) => one.textContent.endsWith({folder.name!r})).click()")
    entry = "[...document.querySelectorAll('dialog.picker .entry')].find((one) => "
    entry += f"one.querySelector('.name').textContent === {name!r})"
    page.wait(entry)
    page.run(f"{entry}.click()")
    if not is_table:
        page.run(f"{entry}.dispatchEvent(new MouseEvent('dblclick', {{ bubbles: true }}))")
        page.wait(f"document.querySelector('dialog.picker .parents [aria-current]')?.textContent === {name!r}")
    page.run("document.querySelector('dialog.picker .picker-end .primary').click()")
    page.wait("!document.querySelector('dialog.picker')")
    page.wait("document.querySelector('.import-form [type=submit]').disabled === false")
    click(page, "Add the clips")
