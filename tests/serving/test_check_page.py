"""The Check view in a browser: a new check, decisions by keys, undo, comments, other labels, and new thresholds."""

import json
import time

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle
from helpers.checks import write_recordings
from helpers.page_actions import AXE, barriers, click_button
from helpers.page_server import page_server, running_server
from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import read_decisions
from spectag.findings.check_session import open_check
from spectag.models.bundle import read_info
from spectag.serving.project.project import open_project

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

N_SAMPLED = 24
STATUS = "document.querySelector('.check-view .progress').textContent"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a project, in which a run has a table of detections."""
    folder = tmp_path_factory.mktemp("check")
    with open_project(folder / "project") as project:
        project.versions.add_copy(make_bundle(folder / "model"))
    write_recordings(folder / "project" / "runs" / "spring", n_days=3)
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with page_server(folder, "--project", "project") as address:
        yield address


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    """The view with the first card of a new check."""
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.show(1400, 1000)
        page.open(f"{server}/#check")
        page.wait("document.querySelector('.check-view .state.empty')")
        click_button(page, "New check")
        page.wait("document.querySelector('#check-name')?.value === 'spring'")
        page.run("document.querySelector('#check-per-label').value = 8")
        page.run("document.querySelector('.check-form form').requestSubmit()")
        page.wait("document.querySelector('.check-page audio')", 30)
        yield page
        assert page.console == []


def decisions(folder):
    rows = read_decisions(folder / "project" / "checks" / "spring" / "decisions.csv")
    return [row for row in rows if row.decision]


def wait_for(page, n_decided):
    page.wait(f"{STATUS}.startsWith('{n_decided} of ')")


def type_into(page, selector, text):
    """Types into a field that has the focus, and leaves it with Enter."""
    page.wait(f"document.activeElement === document.querySelector({selector!r})")
    page.call("Input.insertText", text=text)
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13)
    page.wait("document.activeElement === document.querySelector('.check-page article')")


def choose(page, selector, value):
    page.run(f"document.querySelector({selector!r}).value = {value!r}")
    page.run(f"document.querySelector({selector!r}).dispatchEvent(new Event('change'))")


def test_card_shows_the_marked_detection_and_can_be_played(page):
    page.wait("document.querySelectorAll('.check-page .spectrogram rect.span').length === 1")
    page.wait("document.querySelector('.check-page audio').duration > 3")
    assert page.run("document.activeElement.tagName") == "ARTICLE"
    page.run("document.querySelector('.check-page audio').pause()")
    page.press(" ")
    page.wait("!document.querySelector('.check-page audio').paused")
    page.press(" ")
    page.wait("document.querySelector('.check-page audio').paused")
    assert page.run("document.querySelector('.curve-panel .verdict').textContent").startswith("Nothing of this label")


def test_ten_decisions_by_keys_undo_comment_and_other_label(page, folder):
    for number, key in enumerate("yynysyynyy", start=1):
        page.press(key)
        wait_for(page, number)
    assert sorted(row.decision for row in decisions(folder)) == [*2 * ["no"], "unsure", *7 * ["yes"]]
    page.press("u")
    wait_for(page, 9)
    assert len(decisions(folder)) == 9
    page.press("c")
    type_into(page, "#check-comment", "faint <b>")
    page.press("o")
    type_into(page, "#check-other", "wind")
    page.wait("document.querySelectorAll('.heard li').length === 1")
    page.press("n")
    wait_for(page, 10)
    [row] = [row for row in decisions(folder) if row.comment]
    assert (row.decision, row.comment, row.other_labels, row.reviewer) == ("no", "faint <b>", ("wind",), "")
    page.press("k")
    page.wait("document.querySelector('.check-page .decided')")
    page.run("document.querySelector('.heard button').click()")
    page.wait("document.querySelectorAll('.heard li').length === 0")
    end = time.monotonic() + 10
    while any(row.other_labels for row in decisions(folder)):
        assert time.monotonic() < end, "the removed label is still in the table"
        time.sleep(0.05)
    page.press("j")
    page.wait("!document.querySelector('.check-page .decided')")


def test_name_is_stored_if_there_is_one(page, folder):
    page.run("document.querySelector('#check-reviewer').focus()")
    type_into(page, "#check-reviewer", "Ann")
    page.press("y")
    wait_for(page, 11)
    assert [row.reviewer for row in decisions(folder)].count("Ann") == 1


def test_comment_that_is_being_typed_stays_when_somebody_else_decides(page):
    page.press("c")
    page.wait("document.activeElement.id === 'check-comment'")
    page.call("Input.insertText", text="a jay")
    page.run("""(async () => {
        const address = '/views/check/checks/spring';
        const { cards, session, revision } = await (await fetch(address)).json();
        const facts = document.querySelector('.check-page .facts-line').textContent;
        const label = document.querySelector('.question').textContent;
        const index = cards.findIndex((card) => card.facts === facts && label.includes(card.label));
        const send = (decision, since) => fetch(`${address}/decisions`, { method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify({ index, decision, session, since, reviewer: 'Bo' }) });
        await send('no', revision);
        window.takeBack = async () => send('', (await (await fetch(address)).json()).revision);
    })()""")
    page.wait("document.querySelector('.decision').textContent.includes('Bo')")
    assert page.run("document.activeElement.value") == "a jay"
    page.run("document.activeElement.value = ''; document.activeElement.blur(); window.takeBack()")
    page.wait("document.querySelector('.decision').hidden")


def test_check_that_is_left_while_it_is_loading_asks_nothing_any_more(page):
    n_timers = page.run("""import('/static/check_work.js').then(async ({ CheckWork }) => {
        let answer = null, count = 0;
        const { setInterval } = window;
        const request = () => new Promise((resolve) => { answer = resolve; });
        const work = new CheckWork('x', { request, announce: () => {}, info: { labels: [] } }, {});
        window.setInterval = () => { count += 1; };
        work.close();
        answer({ cards: [], states: [], session: '', revision: 0, labels: [], model_labels: [], recordings: '' });
        await new Promise((resolve) => { setTimeout(resolve, 50); });
        window.setInterval = setInterval;
        return count;
    })""")
    assert n_timers == 0


def test_label_filter_and_curve(page):
    page.run("document.querySelector('.label-progress [data-label=middle]').click()")
    page.wait(f"{STATUS}.endsWith('of 8 checked')")
    page.wait("document.querySelector('.curve-panel h2').textContent.includes('middle')")
    page.wait("document.querySelector('.curve-drawing .band')")
    choose(page, "#goal-precision", "0.5")
    choose(page, "#goal-width", "0.3")
    page.run("document.querySelector('.label-progress [data-label=\"\"]').click()")


def test_other_browsers_decisions_are_shown_and_not_overwritten(page, server, folder, tmp_path):
    with chromium(tmp_path / "profile") as other:
        other.show(1000, 900)
        other.open(f"{server}/#check/spring")
        other.wait("document.querySelector('.check-page audio')", 20)
        assert other.run("document.querySelector('.question').textContent") == page.run(
            "document.querySelector('.question').textContent"
        )
        other.run("Object.defineProperty(document, 'hidden', { value: true })")  # it does not ask for news
        page.press("y")
        wait_for(page, 12)
        other.press("n")
        other.wait(f"{STATUS}.startsWith('Not saved: somebody else')")
        other.wait("document.querySelector('.check-page .decision').textContent.startsWith('Yes')")
        assert len(decisions(folder)) == 12
        other.press("j")
        card = page.run("document.querySelector('.facts-line').textContent")
        other.press("n")
        page.wait(f"{STATUS}.startsWith('Somebody else has just decided')")
        assert page.run("document.querySelector('.facts-line').textContent") != card
        assert len(decisions(folder)) == 13
        assert [line for line in other.console if "409 (Conflict)" not in line] == []


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, True), (3840, False)])
def test_nothing_is_wider_than_the_window(page, width, dark):
    page.show(width, 900, dark=dark)
    page.wait("document.querySelector('.check-page audio')")
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    page.show(1400, 1000)


@pytest.mark.skipif(not AXE, reason="needs axe-core")
@pytest.mark.parametrize("dark", [False, True])
def test_view_has_no_barriers(page, dark):
    page.show(1400, 1000, dark=dark)
    page.run("document.querySelector('.curve-panel details').open = true")
    page.wait("document.querySelector('.checked-thresholds')")
    assert barriers(page) == []
    click_button(page, "All checks")
    page.wait("document.querySelector('.checks h3')")
    assert barriers(page) == []
    click_button(page, "New check")
    page.wait("document.querySelector('#check-name')")
    assert barriers(page) == []
    page.run("location.hash = '#check/spring'")
    page.wait("document.querySelector('.check-page audio')")
    page.wait("document.querySelector('.curve-drawing')")
    page.show(1400, 1000)


def test_thresholds_are_applied_as_a_new_version(page, folder):
    for _ in range(N_SAMPLED):
        if page.run("!document.querySelector('.check-view .done').hidden"):
            break
        before = page.run(STATUS)
        page.press("y")
        page.wait(f"{STATUS} !== {before!r}")
    page.wait("document.querySelector('.check-view .done h3').textContent.includes('24')")
    page.run("document.querySelector('.curve-panel details').open = true")
    page.wait("document.querySelectorAll('.checked-thresholds tbody tr').length === 3")
    click_button(page, "Use these thresholds")
    page.wait("document.querySelector('.result').textContent.startsWith('Version 2 of the model is in use')", 30)
    page.wait("document.querySelector('#model').textContent.includes('version 2')")
    with_new = read_info(folder / "project" / "models" / "0002")
    assert with_new.thresholds != read_info(folder / "model").thresholds
    page.wait("document.querySelector('.verdict.enough') || document.querySelector('.verdict').textContent !== ''")


def test_decision_waits_for_a_comment_that_is_being_saved(page):
    sent = page.run("""import('/static/check_work.js').then(async ({ CheckWork }) => {
        const state = (decision) => ({ decision, reviewer: '', other_labels: [], comment: '' });
        const check = { cards: [{ label: 'a', unit: null, facts: '' }, { label: 'a', unit: null, facts: '' }],
            states: [state('yes'), state('')], session: '', revision: 0, labels: [{ label: 'a' }], model_labels: [] };
        const sent = [];
        const request = (path, { method, body } = {}) => {
            if (method === 'POST') sent.push([body.index, body.decision, body.comment]);
            const answer = { session: '', revision: sent.length, changes: {} };
            const later = (resolve) => { setTimeout(() => resolve(answer), 50); };
            return path.endsWith('/x') ? Promise.resolve(check) : new Promise(method === 'POST' ? later : () => {});
        };
        const work = new CheckWork('x', { request, announce: () => {}, info: { labels: [] } }, {});
        const wait = () => new Promise((resolve) => { setTimeout(resolve, 200); });
        await wait();
        work.keys.k();
        for (const text of ['jay', 'jay?']) {
            work.comment.value = text;
            work.comment.dispatchEvent(new Event('change'));
        }
        work.keys.n();
        work.keys.n();
        await wait();
        work.close();
        return sent;
    })""")
    assert sent == [[0, "yes", "jay"], [0, "yes", "jay?"], [0, "no", "jay?"]]


def test_slow_server_is_not_asked_again_before_it_has_answered(page):
    n_questions = page.run("""import('/static/check_work.js').then(async ({ CheckWork }) => {
        const check = { cards: [], states: [], session: '', revision: 0, labels: [], model_labels: [], recordings: '' };
        let count = -1;
        const request = () => { count += 1; return count === 0 ? Promise.resolve(check) : new Promise(() => {}); };
        const work = new CheckWork('x', { request, announce: () => {}, info: { labels: [] } }, {});
        document.querySelector('.check-view').append(work.element);
        await new Promise((resolve) => { setTimeout(resolve, 50); });
        for (let time = 0; time < 3; time += 1) work.poll();
        work.close();
        work.element.remove();
        return count;
    })""")
    assert n_questions == 1


def test_list_shows_progress(page):
    click_button(page, "All checks")
    page.wait("document.querySelector('.checks h3')")
    assert page.run("document.activeElement.textContent") == "Checks"
    assert page.run("document.querySelector('.checks .card p + p').textContent").startswith("All 24")
    page.run("document.querySelector('.checks a').click()")
    page.wait("document.querySelector('.check-view .done h3')?.textContent.includes('24')")


def test_run_without_a_check_opens_a_new_one_of_its_table(page, folder):
    write_recordings(folder / "project" / "runs" / "autumn")
    page.run("location.hash = '#check/autumn'")
    page.wait("document.querySelector('#check-table')?.value.includes('autumn')")
    click_button(page, "Cancel")
    page.wait("document.querySelector('.checks h3')")
    page.console[:] = [line for line in page.console if "404 (Not Found)" not in line]  # it was looked for


def test_presence_check_asks_until_one_is_confirmed(page, folder):
    table = str(folder / "project" / "runs" / "spring" / "tags.csv")
    body = {"name": "where", "table": table, "presence": True, "per_label": 8}
    options = {"method": "POST", "headers": {"content-type": "application/json"}, "body": json.dumps(body)}
    assert page.run(f"fetch('/views/check/checks', {json.dumps(options)}).then((answer) => answer.status)") == 200
    page.run("location.hash = '#check/where'")
    page.wait("document.querySelector('.curve-panel .hint').textContent.includes('no precision')")
    page.wait("document.querySelector('.check-page audio')")
    for number in range(1, 7):
        page.press("y")
        wait_for(page, number)
    page.wait(f"{STATUS}.endsWith('not needed')")


def test_sound_that_is_missing_has_a_reason_and_can_be_tried_again(page, folder):
    recordings = folder / "project" / "runs" / "spring"
    found = sorted(recordings.glob("*.wav"))
    for path in found:
        path.rename(path.with_suffix(".away"))
    page.run("location.reload()")
    page.wait("document.querySelector('.sound-of-card .failed button')?.checkVisibility()", 20)
    page.run("document.activeElement.blur()")
    assert "spring" in page.run("document.querySelector('.sound-of-card .failed p').textContent")
    for path in found:
        path.with_suffix(".away").rename(path)
    click_button(page, "Try again")
    page.wait("document.querySelector('.check-page audio')")
    page.console[:] = [line for line in page.console if "404 (Not Found)" not in line]  # the sound was missing


def test_killed_server_loses_nothing_and_the_page_goes_on(tmp_path):
    with open_project(tmp_path / "project") as project:
        project.versions.add_copy(make_bundle(tmp_path / "model"))
    table = write_recordings(tmp_path / "project" / "runs" / "spring")
    with open_check(tmp_path / "model", table, tmp_path / "project/checks/spring", CheckSettings(per_label=2)):
        pass  # the command has drawn the sample
    with chromium(tmp_path / "profile") as page:
        with running_server(tmp_path, "--project", "project") as server:
            page.open(f"{server.address}/#check/spring")
            page.wait("document.querySelector('.check-page audio')", 20)
            for number in range(1, 4):
                page.press("y")
                wait_for(page, number)
            server.kill()
        page.press("n")
        page.wait(f"{STATUS}.startsWith('Not saved: ')")
        assert [row.decision for row in decisions(tmp_path)] == 3 * ["yes"]
        with page_server(tmp_path, "--project", "project", port=server.port):
            page.press("n")
            wait_for(page, 4)
            assert [row.decision for row in decisions(tmp_path)] == [*3 * ["yes"], "no"]
