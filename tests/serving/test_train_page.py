"""The Train view in a browser: refit after corrections, compare, play, go back, and see why a training failed."""

import os
import re
from pathlib import Path

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.page_actions import AXE, barriers, click_button, text_of, unforeseen
from helpers.page_server import page_server
from helpers.training_project import correct_labels, import_sounds, make_project

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"), pytest.mark.slow]

SECONDS = 120  # for a training on a busy machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with labels of which some are wrong, and the environment of its server."""
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(folder / "cache"))
        patch.setenv("SPECTAG_WEIGHTS", str(folder / "no-weights"))
        make_project(folder)
        import_sounds(folder / "project", folder / "sounds" / "clips.csv")
        yield folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with page_server(folder, "--project", "project") as address, chromium(tmp_path_factory.mktemp("profile")) as page:
        page.show(1400, 1000)
        page.open(f"{address}/#train")
        page.wait("document.querySelector('.train-content').checkVisibility()", 30)
        yield page
        assert unforeseen(page, "422 (Unprocessable", "ERR_INTERNET_DISCONNECTED") == []


def click(page, text, within=".train-view"):
    click_button(page, text, within, is_whole=True, seconds=30)


def test_project_shows_its_version_and_the_form(page):
    assert text_of(page, ".train-versions tbody th") == "1in use"
    page.wait("document.querySelector('.preview').textContent.includes('24 clips, 3 labels')", 30)
    assert page.run("document.querySelectorAll('.recipes input').length") == 4
    assert text_of(page, ".train-form .plan").startswith("Plan: the features of 24 clips")
    assert "no version before it" in text_of(page, ".train-results")
    assert page.run("document.querySelector('#train-folds').value") == ""


def test_refit_with_corrections_shows_scores_and_changed_clips(page, folder):
    correct_labels(folder / "project")
    page.open(page.run("location.href").replace("#train", "?again#train"))
    page.wait("/^Refit with \\d+ corrections$/.test(document.querySelector('.refit button').textContent)", 30)
    page.run("document.querySelector('main').focus()")
    page.press("r")
    page.press("r")
    page.wait("document.querySelector('.train-job.running, .train-job.done')", 30)
    refits = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith('/refit'))"
    assert page.run(f"{refits}.length") == 1
    page.wait("document.querySelector('.train-job.done')", SECONDS)
    page.wait("document.querySelector('.train-results h2').textContent === 'Version 2'", 30)
    page.wait("document.querySelector('.compared')", 30)
    compared = text_of(page, ".compared")
    assert re.search(r"(No difference to version 1 could be seen|rose by).*24 held-out clips of both", compared)
    page.wait("document.querySelector('.refit button').disabled", 30)  # version 2 has these labels already
    assert page.run("document.querySelectorAll('.train-results tr.all td').length") >= 3
    assert page.run("[...document.querySelectorAll('.clips tbody td:nth-child(3) small')].length") == 6
    assert "in use" in text_of(page, ".train-versions tbody tr:last-child th")


def test_zero_has_no_sign(page):
    gains = page.run("""import('/static/strings.js').then(({ strings }) => [-0.0001, 0.0001, -0.0123, 0.0123].map(
        (value) => strings.train.gainOf({ value, low: -0.1, high: 0.1 }).split(':')[0]))""")
    assert gains == ["0.000", "0.000", "−0.012", "+0.012"]


def test_first_training_is_no_refit(page):
    shown = page.run("""import('/static/train.js').then(async ({ mount }) => {
        const element = document.createElement('section');
        const state = await (await fetch('/views/train/state')).json();
        const answer = { ...state, labels: { ...state.labels, n_changes: 150, up_to_date: null, has_trained: false } };
        const request = async (path) => {
            if (path.endsWith('/preview')) return new Promise(() => {});
            return path.endsWith('/state') ? answer : (await fetch(path)).json();
        };
        const view = mount(element, { request, announce: () => {}, info: { labels: [], views: [] } });
        view.shown();
        for (let time = 0; time < 100 && !element.querySelector('.refit h2'); time += 1) {
            await new Promise((resolve) => { setTimeout(resolve, 20); });
        }
        view.hidden();
        return element.querySelector('.refit').textContent;
    })""")
    assert shown.startswith("First training150 labelled clips.Train on 150 labelled clips")


def test_changed_clip_is_played(page):
    page.run("document.querySelector('.clips .play').click()")
    page.wait("performance.getEntriesByType('resource').some((one) => one.name.endsWith('/clips/0/wav'))", 30)
    page.wait("document.querySelector('.clips .play').textContent === '▶'", 30)  # half a second later


def test_reload_shows_the_same(page):
    before = text_of(page, ".train-results"), text_of(page, ".train-versions"), text_of(page, ".train-job")
    page.run("location.reload()")
    page.wait("document.querySelector('.compared')", 30)
    page.wait("document.querySelector('.preview').textContent.includes('24 clips')", 30)
    assert (text_of(page, ".train-results"), text_of(page, ".train-versions"), text_of(page, ".train-job")) == before


def test_other_version_is_used_and_the_old_one_comes_back(page):
    for number in (2, 1):
        click(page, f"Use version {number}", ".train-versions")
        page.wait(f"document.querySelector('#model').textContent.includes('version {number}')", 30)
        page.wait(f"document.querySelector('.train-versions .current th').textContent === '{number}in use'", 30)


def test_card_is_shown_and_closed_with_the_keyboard(page):
    click(page, "Card of version 2")
    page.wait("document.querySelector('dialog[open] pre').textContent.includes('A tagger for 3 kinds of sound')", 30)
    page.run("document.querySelector('dialog[open] button').focus()")
    page.press("Escape")
    page.run("document.querySelector('dialog.train-dialog[open]')?.close()")
    page.wait("document.querySelector('.train-dialog') === null")


def test_wrong_table_is_explained(page, folder):
    page.run("document.querySelector('#train-other').click()")
    assert text_of(page, ".train-form .path") == "Nothing is chosen yet."
    assert page.run("document.querySelector('.train-form > button').disabled")
    (folder / "wrong.csv").write_text("fname,labels\nnothing.wav,a\n", encoding="utf-8")
    click(page, "Choose a table")
    page.wait("document.querySelector('dialog.picker[open] .entries, dialog.picker[open] .state.empty')", 30)
    field = "document.querySelector('#picker-filter')"
    page.run(f"{field}.value = {str(folder)!r}")
    page.run(f"{field}.dispatchEvent(new KeyboardEvent('keydown', {{ key: 'Enter', cancelable: true }}))")
    rows = "[...document.querySelectorAll('dialog.picker .entry')]"
    page.wait(f"{rows}.some((one) => one.textContent.includes('wrong.csv'))", 30)
    page.run(f"{rows}.find((one) => one.textContent.includes('wrong.csv')).dispatchEvent(new MouseEvent('dblclick'))")
    page.wait("document.querySelector('.preview .problem').textContent.includes('nothing.wav')", 30)
    page.run("document.querySelector('#train-own').click()")
    page.wait("document.querySelector('.preview').textContent.includes('24 clips')", 30)


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False), (1400, True), (3840, True)])
def test_page_fits_its_window_and_axe_finds_nothing(page, width, dark):
    page.show(width, 1000, dark=dark)
    page.run("document.querySelectorAll('.train-view details').forEach((one) => { one.open = true; })")
    page.run("scrollTo(0, 0)")
    assert page.run("document.documentElement.scrollWidth") <= width
    if shots := os.environ.get("SPECTAG_TEST_SHOTS"):
        height = page.run("document.documentElement.scrollHeight")
        page.show(width, min(height, 4000), dark=dark)
        page.screenshot(Path(shots) / f"train-{width}-{'dark' if dark else 'light'}.png")
    if AXE:
        assert (found := barriers(page)) == [], str(found)
    page.show(1400, 1000)


def test_curve_has_a_line_for_each_training_and_those_of_held_out_clips(page):
    drawn = page.run("""import('/static/train_curve.js').then(({ drawCurve }) => {
        const epochs = [];
        for (const part of ['fold 1', 'fold 2', '']) for (let epoch = 1; epoch <= 5; epoch += 1) {
            const valid_loss = part ? 1.2 / epoch : null;
            epochs.push({ part, epoch, n_epochs: 5, train_loss: 1 / epoch, valid_loss, valid_lwlrap: null });
        }
        const figure = document.createElement('figure');
        figure.className = 'epoch-curve';
        document.querySelector('.train-results').append(figure);
        drawCurve(figure, epochs);
        const points = [...figure.querySelectorAll('polyline')].map((line) => line.getAttribute('points').split(' '));
        const text = figure.querySelector('figcaption').textContent;
        figure.remove();
        return { lines: points.map((line) => line.length), ends: points.map((line) => line.at(-1)), text };
    })""")
    assert drawn["lines"] == [5] * 5, "three trainings, two with held-out clips"
    assert len({end.split(",")[0] for end in drawn["ends"]}) == 1
    assert drawn["text"].endswith("Last: epoch 5, loss 0.200.")


def test_what_is_typed_stays_while_the_server_does_not_answer(page):
    page.run("document.querySelector('#train-group').value = 'site'")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.enable")
    page.call("Network.emulateNetworkConditions", offline=True, **offline)
    page.wait("document.querySelector('.train-content > .problem').textContent.includes('does not answer')", 40)
    assert page.run("document.querySelector('#train-group').value") == "site"
    page.call("Network.emulateNetworkConditions", offline=False, **offline)
    page.wait("document.querySelector('.train-content > .problem').textContent === ''", 40)
    page.run("document.querySelector('#train-group').value = ''")


def test_training_that_fails_says_why_and_can_be_resumed(page, folder):
    for path in (folder / "sounds" / "clips").glob("*.wav"):
        path.write_bytes(b"RIFF" + bytes(100))
    (folder / "project" / "labels.csv").touch()
    page.run(
        "fetch('/views/train/refit', { method: 'POST', headers: {'content-type': 'application/json'}, body: '{}' })"
    )
    page.run("location.reload()")
    page.wait("document.querySelector('.train-job.failed')", SECONDS)
    assert "00.wav" in text_of(page, ".train-job .problem")
    assert page.run("document.querySelector('.train-job button:not([hidden])').textContent") == "Resume"
    click(page, "Resume", ".train-job")
    page.wait("document.querySelector('.train-job.running') && document.querySelector('.refit button').disabled", 30)
    click(page, "Stop", ".train-job")
    page.wait("document.querySelector('.train-job.stopped, .train-job.failed')", SECONDS)


def test_version_is_deleted_after_a_question(page):
    page.run("document.querySelector('.train-versions [aria-label=\"Delete version 2\"]').focus()")
    click(page, "Delete version 2", ".train-versions")
    page.wait("document.querySelector('dialog[open]').textContent.includes('be undone')")
    click(page, "Delete it", "dialog[open]")
    page.wait("document.querySelectorAll('.train-versions tbody tr').length === 1", 30)
    page.wait("document.activeElement.id === 'train-versions-title'")
