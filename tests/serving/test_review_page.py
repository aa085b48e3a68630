"""The Review view in a browser, used as a person uses it: add clips, correct labels with keys, undo."""

import shutil

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.page_actions import set_field
from helpers.page_server import page_server, running_server, wait_until
from helpers.review_page import (
    N_CLIPS,
    SERVE,
    ask,
    choose,
    click,
    clip_of,
    count,
    current,
    import_path,
    press,
    review_page,
    shot,
    title,
    wait_message,
    write_review_folder,
)
from spectag.data.manifest import read_manifest
from spectag.serving.project.project import open_project

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_review_folder(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def server(folder):
    with page_server(folder, *SERVE) as address:
        yield address


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    with review_page(server, tmp_path_factory.mktemp("profile")) as page:
        page.wait("document.querySelector('.review-view .state.empty').checkVisibility()", 30)
        yield page


def test_a_table_is_added_and_its_clips_are_shown(page, folder):
    shot(page, "empty")
    set_field(page, "#review-name", "Anna")
    import_path(page, folder, "sounds.csv")
    wait_message(page, "24 clips added", 40)
    assert count(page) == N_CLIPS
    page.wait("document.querySelector('.review-card img').naturalWidth === 320", 20)
    page.wait("document.querySelector('.review-clip .picture').width > 300", 20)
    assert page.run("document.querySelector('.review-view b b, .review-card b')") is None, "names are text"
    assert title(page).endswith("& <b>.wav")
    shot(page, "gallery")


def test_ten_labels_are_corrected_with_keys_and_undone(page, folder, server):
    choose(page, 0)
    first = current(page)
    names = page.run("[...document.querySelectorAll('.label-button kbd')].map((one) => one.nextSibling.textContent)")
    assert set(names[-3:]) == {"low", "middle", "high"}
    before = {}
    for _ in range(10):
        number = current(page)
        labels = clip_of(server, number)["labels"]
        key = next(str(index) for index, name in enumerate(names[-3:], start=1) if name not in labels)
        before[number] = labels
        press(page, key, "Added")
        assert len(clip_of(server, number)["labels"]) == 2
        page.press("ArrowRight")
        page.wait(f"document.querySelector('.review-card.current').dataset.number !== '{number}'")
    shot(page, "corrected")
    for _ in range(10):
        press(page, "u", "Undone")
    assert {number: clip_of(server, number)["labels"] for number in before} == before
    assert current(page) == first, "undo shows what it has undone"
    press(page, "u", "nothing to undo")


def test_unknown_confirm_drop_comment_and_new_label(page, server):
    choose(page, 0)
    number = current(page)
    [label] = clip_of(server, number)["labels"]
    page.press("q")
    wait_message(page, "marks its label as unknown")
    names = page.run("[...document.querySelectorAll('.label-button kbd')].map((one) => one.nextSibling.textContent)")
    press(page, str(names[-3:].index(label) + 1), "Unknown")
    assert clip_of(server, number)["unknown"] == [label]
    page.wait(f"document.querySelector('.own-label.unknown').textContent.includes('{label}?')")
    page.press("l")
    page.wait("document.activeElement.id === 'review-label'")
    page.run("document.activeElement.value = 'Ü & <i>'")
    press(page, "Enter", "Added")
    assert clip_of(server, number)["labels"] == ["Ü & <i>"]
    page.run("document.activeElement.blur()")
    set_field(page, "#review-comment", "listen again")
    wait_message(page, "Comment saved")
    page.wait("!document.querySelector('.review-clip .state')")
    press(page, "x", "Dropped")
    assert clip_of(server, number)["is_dropped"]
    press(page, "x", "Brought back")
    press(page, "c", "Confirmed")
    assert clip_of(server, number)["is_confirmed"]
    assert current(page) != number, "and goes on"


def test_a_range_becomes_a_clip(page, server):
    choose(page, 2)
    number = current(page)
    hint = "document.querySelector('#review-mark-hint').checkVisibility()"
    assert page.run(hint) is False
    click(page, "Mark a part")
    assert page.run(hint)
    box = page.run(
        "(() => { const b = document.querySelector('.review-clip .plot').getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    left, top, width, height = box
    y = top + height / 3
    start, end = left + 46 + 0.25 * (width - 46), left + 46 + 0.75 * (width - 46)
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=start, y=y, button="left", clickCount=1)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=end, y=y, button="left")
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=end, y=y, button="left", clickCount=1)
    page.wait("document.querySelector('.review-clip .bar .primary').checkVisibility()")
    shot(page, "range")
    press(page, "m", "New clip")
    part = clip_of(server, current(page))
    assert part["number"] != number
    assert (part["start"], part["end"]) == (pytest.approx(0.5, abs=0.05), pytest.approx(1.5, abs=0.05))
    assert part["is_labelled"] is False
    assert page.run("document.activeElement.id") == "review-label"
    bottom, edge = "getBoundingClientRect().bottom", "document.querySelector('.review-clip')"
    page.wait("!document.querySelector('.review-clip .state')")
    page.wait(f"document.querySelector('#review-label-keys').{bottom} <= {edge}.{bottom}")
    assert page.run("document.querySelector('#review-label-keys').checkVisibility({ visibilityProperty: true })")
    page.run("document.activeElement.value = 'high'")
    press(page, "Enter", "Added")
    page.run("document.activeElement.blur()")
    click(page, "Mark a part")


def test_the_sound_of_a_clip_plays(page):
    page.press(" ")
    page.wait("[...document.querySelectorAll('.bar .play')].some((one) => one.textContent.includes('Pause'))", 10)
    page.press(" ")
    page.wait("document.querySelector('.review-clip .bar .play').textContent.includes('Play')")


def test_somebody_else_has_changed_the_clip(page, server):
    choose(page, 5)
    number = current(page)

    def change_elsewhere(label):
        revision = clip_of(server, number)["revision"]
        ask(server, "edit", {"clips": [[number, revision]], "change": {"labels": [label]}, "reviewer": "Ben"})

    for is_applied, label in ((False, "of Ben"), (True, "again of Ben")):
        change_elsewhere(label)
        page.press("1")
        page.wait("document.querySelector('dialog.conflict[open]')")
        told = page.run("document.querySelector('dialog.conflict').textContent")
        assert label in told
        assert "Added" in told
        shot(page, "conflict")
        click(page, "Apply my change" if is_applied else "Keep it as it is now", "dialog.conflict")
        wait_message(page, "Added" if is_applied else "Kept")
        assert len(clip_of(server, number)["labels"]) == 1 + is_applied
        page.wait(f"document.querySelector('.own-label .label-name').textContent === {label!r}")


def test_keys_that_are_faster_than_the_server_reach_the_right_clips(page, server):
    choose(page, 10)
    cards = "[...document.querySelectorAll('.review-card')]"
    order = page.run(f"{cards}.sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).map((one) => one.dataset.number)")
    start = order.index(str(current(page)))
    numbers = [int(number) for number in order[start : start + 4]]
    page.run("document.querySelector('.review-view .message').textContent = ''")
    for key in ("c", "c", "c", "1"):
        page.press(key)
    expected = [(True, 1), (True, 1), (True, 1), (False, 2)]

    def states():
        return [(one["is_confirmed"], len(one["labels"])) for one in (clip_of(server, number) for number in numbers)]

    wait_until(lambda: states() == expected, why="a key has reached another clip, or none")
    for _ in range(4):
        press(page, "u", "Undone")


def test_sound_that_could_not_be_played_is_asked_for_again(page):
    n_failures = page.run("""import('/static/review_player.js').then(async ({ ClipPlayer }) => {
        let count = 0, tell = null;
        const player = new ClipPlayer(() => {}, () => {}, () => { count += 1; tell(); });
        for (let time = 0; time < 2; time += 1) {
            const told = new Promise((resolve) => { tell = resolve; });
            player.play({ number: 999_999, start: 0, end: null });
            await Promise.race([told, new Promise((resolve) => { setTimeout(resolve, 5000); })]);
        }
        return count;
    })""")
    assert n_failures == 2
    page.console[:] = [line for line in page.console if "404" not in line]


def test_many_clips_are_changed_at_once(page, server):
    choose(page, 8)
    for _ in range(3):
        page.press("s")
        page.press("ArrowRight")
        page.run("new Promise((done) => setTimeout(done, 100))")
    page.wait("document.querySelector('.selection').textContent.includes('3 selected')")
    shot(page, "selection")
    press(page, "c", "3 clips")
    click(page, "Clear selection")
    page.wait("document.querySelector('.selection').hidden")
    page.run("document.querySelector('.review-view .message').textContent = ''")
    page.press("u")
    wait_message(page, "3 clips")


def test_history_shows_who_did_what(page):
    click(page, "History", ".review-head")
    page.wait("document.querySelectorAll('.review-dialog .history li').length > 10")
    text = page.run("document.querySelector('.review-dialog .history').textContent")
    assert "Anna" in text
    assert "Ben" in text
    shot(page, "history")
    page.run("document.querySelector('.review-dialog[open]').close()")


def test_the_table_of_the_command_line_has_what_the_page_shows(folder, server):
    ask(server, "overwrite", {})
    manifest = read_manifest(folder / "project" / "labels.csv")
    assert "Ü & <i>" in manifest.labels.names
    assert len(manifest.clips) == N_CLIPS + 1


def test_a_killed_server_keeps_the_edits_of_the_page(folder, tmp_path):
    shutil.copytree(folder / "model", tmp_path / "model")
    shutil.copytree(folder / "sounds", tmp_path / "sounds")
    shutil.copy(folder / "sounds.csv", tmp_path)
    with running_server(tmp_path, *SERVE) as server:
        ask(server.address, "import", {"path": str((tmp_path / "sounds.csv").resolve())})
        with chromium(tmp_path / "profile") as page:
            page.open(f"{server.address}/#review")
            page.wait("document.querySelectorAll('.review-card').length > 3", 30)
            for _ in range(3):
                press(page, "c", "Confirmed")
            server.kill()
            page.run("document.querySelector('.review-view .message').textContent = ''")
            page.press("c")
            wait_message(page, "The server does not answer")
    with open_project(tmp_path / "project") as project:
        assert sum(clip.state.is_confirmed for clip in project.labels.all_clips()) == 3
