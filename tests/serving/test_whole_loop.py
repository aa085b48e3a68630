"""One person goes the whole loop on the page: tag, check, correct, refit, compare, use, go back. Server and browser are
killed meanwhile. Then the command line works on the same files."""

import csv
import io
import re
import shutil
from pathlib import Path

import pytest

from helpers.browser import CHROMIUM
from helpers.loop_session import LoopSession
from helpers.loop_sounds import N_CLIPS, N_RECORDINGS, N_WRONG, WEIGHTS, write_loop_sounds
from helpers.page_actions import click_button, set_field, text_of
from helpers.page_server import downloaded, wait_until
from spectag.data.checked_detections import read_decisions
from spectag.data.manifest import read_manifest
from spectag.errors import DataError
from spectag.models.bundle import read_info

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="needs chromium"), pytest.mark.slow]

N_CHECKS = 24  # at least
PRECISION = 0.5
MODEL = "document.querySelector('#model').textContent"
CHECKED = "document.querySelector('.check-view .progress').textContent"


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    if WEIGHTS.is_dir():
        monkeypatch.setenv("SPECTAG_WEIGHTS", str(WEIGHTS))
    return write_loop_sounds(tmp_path)


def test_a_person_goes_the_whole_loop_and_nothing_is_lost(sounds, run):
    project = sounds.folder / "Frogs 2026"
    with LoopSession(sounds.folder) as session:
        session.start_server("--folder", ".")
        session.open_page()
        create_project(session.page, project)
        session.check_console("404 (Not Found) ")  # when it is open, the server has no start page any more
        tag_a_clip(session, sounds)
        tag_a_folder_while_the_server_is_killed(session, project)
        check_detections_while_server_and_browser_are_killed(session, project)
        use_checked_thresholds(session.page, project)
        correct_labels(session, sounds, project)
        refit_and_use_the_new_version(session)
        assert download(session, sounds) == tag(run, project / "models" / "0003", sounds)
        use_version(session, 1)
        assert download(session, sounds) == tag(run, project / "models" / "0001", sounds)
        session.check_console()
        session.end_server()
    command_line_works_on_the_same_files(run, sounds, project)


def create_project(page, project):
    page.wait("document.querySelector('#new-name')?.checkVisibility()", 30)
    page.run(f"document.querySelector('#new-name').value = {project.name!r}")
    page.run("document.querySelector('#new-model ~ button').click()")
    choose_in_dialog(page, "first")
    page.wait("document.querySelector('#new-model').value.endsWith('first')")
    click_button(page, "Create project")
    page.wait(f"{MODEL}.includes({project.name!r}) && {MODEL}.includes('version 1')", 60)


def choose_in_dialog(page, name):
    """Choose an entry of the dialog for files with two clicks."""
    entry = f"[...document.querySelectorAll('.picker .entry')].find((one) => one.innerText.startsWith({name!r}))"
    page.wait(entry, 20)
    page.run(f"{entry}.dispatchEvent(new MouseEvent('dblclick', {{ bubbles: true }}))")
    page.wait("!document.querySelector('dialog.picker')", 20)


def tag_a_clip(session, sounds):
    """Drop a sound, look at it closely, listen to it, and see its detections."""
    session.go("tag")
    page = session.page
    page.wait("document.querySelector('.tag-view .state.empty').checkVisibility()", 30)
    page.drop([sounds.a_clip], ".tag-view .state.empty")
    page.wait("document.querySelector('.sounds li.ready')", 60)
    page.wait("document.querySelectorAll('.lane-names li').length >= 1", 20)
    assert re.match(r"\d+ detections? of \d+ label", text_of(page, ".tag-view .sentence"))
    assert page.run("document.querySelectorAll('.tag-view canvas').length") >= 1
    shown = "document.querySelector('.scrollbar').getAttribute('aria-valuetext')"
    before = page.run(shown)
    page.press("+")
    page.wait(f"{shown} !== {before!r}")
    page.press("0")
    page.wait(f"{shown} === {before!r}")
    page.press(" ")
    cursor = page.run("document.querySelector('.cursor').style.transform")
    page.wait(f"document.querySelector('.cursor').style.transform !== {cursor!r}")
    page.press(" ")
    page.wait("document.querySelector('.play').textContent.includes('Play')")


def tag_a_folder_while_the_server_is_killed(session, project):
    session.go("jobs")
    page = session.page
    page.wait("document.querySelector('.jobs-view .state.empty')?.checkVisibility()", 30)
    page.press("n")
    page.wait("document.activeElement.id === 'job-folder'")
    page.run(f"document.querySelector('#job-folder').value = {str(session.folder / 'recordings')!r}")
    page.run("document.querySelector('#job-threshold').value = '0.35'")
    click_button(page, "Start tagging")
    page.wait("location.hash === '#jobs/1'", 20)
    job = "fetch('/project/jobs/1').then((answer) => answer.json())"
    wait_until(lambda: (page.run(job)["progress"] or {}).get("done"), 60, "the job tags nothing")
    assert page.run(job)["state"] == "running", "the job is done before the server could be killed"
    session.kill_server()
    page.wait("document.querySelector('.jobs-view .side .problem').textContent.includes('does not answer')", 30)
    session.start_server("--project", project.name, "--folder", ".")
    page.wait("document.querySelector('.job-state').classList.contains('interrupted')", 40)
    session.check_console()
    click_button(page, "Resume")
    page.wait("document.querySelector('.job-state').classList.contains('done')", 120)
    page.wait("document.querySelector('.run-failures')", 20)
    assert "broken.wav" in text_of(page, ".run-failures tbody")
    result = text_of(page, ".job-result .sentence")
    assert f"{N_RECORDINGS} of {N_RECORDINGS + 1} recordings are tagged" in result
    assert page.run(job)["result"]["n_resumed"] > 0, "what was tagged before the server was killed is kept"
    rows = rows_of((project / "runs" / "recordings" / "status.csv").read_text(encoding="utf-8"))
    assert len(rows) == len({row["file"] for row in rows}) == N_RECORDINGS + 1


def check_detections_while_server_and_browser_are_killed(session, project):
    """Decide by what the names of the recordings tell; the last decision is undone and made again."""
    page = session.page
    page.run("document.querySelector('.job-result a.action').click()")
    page.wait("document.querySelector('#check-name')?.value === 'recordings'", 20)
    session.check_console("404 (Not Found) ")  # the check of this run was looked for
    n_labels = page.run("fetch('/views').then((answer) => answer.json())")["labels"]
    set_field(page, "#check-per-label", -(-N_CHECKS // len(n_labels)))
    click_button(page, "Draw the sample")
    decide_next(page, 7)
    session.kill_server()
    assert len(decisions_of(project)) == 7, "each decision is on the disk when the page shows it"
    page.press("y")
    page.wait(f"{CHECKED}.startsWith('Not saved')", 20)
    session.start_server("--project", project.name, "--folder", ".")
    session.check_console()
    page.run("location.reload()")
    decide_next(page, 7, n_before=7)
    session.kill_browser()
    session.open_page("#check/recordings")
    page = session.page
    decide_next(page, None, n_before=14)
    n_all = len(decisions_of(project))
    assert n_all >= N_CHECKS
    page.run("document.activeElement.blur()")
    page.press("u")
    page.wait(f"{CHECKED}.startsWith('{n_all - 1} of ')", 20)
    wait_until(lambda: len(decisions_of(project)) == n_all - 1, why="the undone decision is still in the table")
    decide_next(page, None, n_before=n_all - 1)


def decide_next(page, count, n_before=0):
    """Decide about some detections, or all that are left."""
    is_done = "document.querySelector('.check-view .done')?.checkVisibility()"
    n_decided = n_before
    page.wait(f"{CHECKED}.startsWith('{n_before} of ')", 30)
    while count is None or n_decided < n_before + count:
        page.wait(f"document.querySelector('.check-page .question')?.checkVisibility() || {is_done}", 30)
        if page.run(is_done):
            assert count is None, "too few detections"
            return
        label = re.search("“(.+)”", text_of(page, ".check-page .question"))[1]
        is_right = label in text_of(page, ".check-page .facts-line")
        page.press("y" if is_right else "n")
        n_decided += 1
        page.wait(f"{CHECKED}.startsWith('{n_decided} of ')", 20)


def decisions_of(project):
    rows = read_decisions(project / "checks" / "recordings" / "decisions.csv")
    return [row for row in rows if row.decision]


def use_checked_thresholds(page, project):
    set_field(page, "#goal-precision", PRECISION)
    page.run("document.querySelector('.curve-panel details').open = true")
    page.wait("document.querySelectorAll('.checked-thresholds tbody tr').length > 0", 20)
    click_button(page, "Use these thresholds", seconds=20)
    page.wait("/^(?!Making)./.test(document.querySelector('.curve-panel .result').textContent)", 60)
    assert text_of(page, ".curve-panel .result").startswith("Version 2 of the model is in use")
    page.wait(f"{MODEL}.includes('version 2')", 20)
    assert read_info(project / "models" / "0002").thresholds != read_info(project / "models" / "0001").thresholds


def correct_labels(session, sounds, project):
    session.go("review")
    page = session.page
    page.wait("document.querySelector('#review-name')?.checkVisibility()", 30)
    set_field(page, "#review-name", "Anna")
    click_button(page, "Choose a table")
    choose_path(page, sounds.folder / "clips" / "clips.csv")
    click_button(page, "Add the clips", seconds=20)
    page.wait(f"document.querySelector('.review-view .message').textContent.includes('{N_CLIPS} clips added')", 60)
    for _ in range(N_CLIPS):
        name = text_of(page, ".review-clip h2")
        if name in sounds.wrong:
            press_label(page, sounds.wrong[name], "Removed")
            press_label(page, sounds.truth[name], "Added")
            corrected = name
        is_last = page.run("document.querySelector('.review-card.current').ariaPosInSet") == str(N_CLIPS)
        page.press("ArrowRight")
        page.wait(f"document.querySelector('.review-clip h2').textContent !== {name!r} || {str(is_last).lower()}", 20)
    press_review_key(page, "u", f"Undone: {corrected}")
    page.wait(f"document.querySelector('.review-clip h2').textContent === {corrected!r}", 20)
    press_label(page, sounds.truth[corrected], "Added")
    wait_until(lambda: labels_of(project) == sounds.truth, 30, "labels.csv does not have the corrected labels")


def press_label(page, label, message):
    """Press the key of a label."""
    button = "[...document.querySelectorAll('.label-button:has(kbd)')]"
    button += f".find((one) => one.querySelector('kbd').nextSibling.textContent === {label!r})"
    page.wait(button, 20)
    press_review_key(page, page.run(f"{button}.querySelector('kbd').textContent"), f"{message} {label}")


def press_review_key(page, key, message):
    page.run("document.querySelector('.review-view .message').textContent = ''")
    page.press(key)
    page.wait(f"document.querySelector('.review-view .message').textContent.includes({message!r})", 20)


def labels_of(project):
    try:
        clips = read_manifest(project / "labels.csv").clips
    except DataError:
        return None
    return {clip.path.name: ",".join(clip.labels) for clip in clips}


def choose_path(page, path):
    """Choose a file in the dialog: type its folder, and take it with two clicks."""
    page.wait("document.querySelector('.picker .entries') && document.activeElement.id === 'picker-filter'", 20)
    page.type(str(path.parent))
    page.press("Enter")
    choose_in_dialog(page, path.name)


def refit_and_use_the_new_version(session):
    session.go("train")
    page = session.page
    page.wait("/^(Refit with|Train on) \\d+ /.test(document.querySelector('.refit button')?.textContent)", 30)
    page.press("r")
    page.wait("document.querySelector('.train-job.done')", 120)
    page.wait("document.querySelector('.train-results h2').textContent === 'Version 3'", 30)
    page.wait("document.querySelector('.compared')", 30)
    assert "version 2" in text_of(page, ".compared")
    with_other_labels = page.run("document.querySelectorAll('.clips tbody td:nth-child(3) small').length")
    assert with_other_labels == N_WRONG, "the corrected clips are among those that changed"
    use_version(session, 3)


def use_version(session, number):
    session.go("train")
    click_button(session.page, f"Use version {number}", ".train-versions", is_whole=True, seconds=30)
    session.page.wait(f"{MODEL}.includes('version {number}')", 60)


def download(session, sounds):
    """The rows of the table that the page gives of a clip, after dropping it if it is not there yet."""
    session.go("tag")
    page = session.page
    page.wait("document.querySelector('.tag-view .state.empty')", 30)
    if page.run("document.querySelector('.tag-view .state.empty').checkVisibility()"):
        page.drop([sounds.a_clip], ".tag-view .state.empty")
    page.wait("document.querySelector('.sounds li.ready')", 60)
    shutil.rmtree(session.downloads, ignore_errors=True)
    click_button(page, "Download", ".tag-controls", is_whole=True, seconds=30)
    return rows_of(downloaded(session.downloads)[0].read_text(encoding="utf-8"))


def tag(run, model, sounds):
    """The same rows by the command."""
    done = run("tag", model, sounds.a_clip, "--segments", "-j", 1)
    assert done.status == 0, done.err
    return rows_of(done.out)


def rows_of(table):
    rows = list(csv.DictReader(io.StringIO(table)))
    assert rows, "the table has no rows"
    return [row | {"file": Path(row["file"]).name} for row in rows]


def command_line_works_on_the_same_files(run, sounds, project):
    again, calibrated = sounds.folder / "again", sounds.folder / "calibrated"
    recipe = project / "models" / "0003" / "recipe.toml"
    assert run("train", project / "labels.csv", "-o", again, "--config", recipe, "-j", 1).status == 0
    assert tag(run, again, sounds) == tag(run, project / "models" / "0003", sounds)
    decisions = project / "checks" / "recordings" / "decisions.csv"
    options = ("--checked", decisions, "--precision", PRECISION, "-o", calibrated)
    assert run("calibrate", project / "models" / "0001", *options).status == 0
    assert read_info(calibrated).thresholds == read_info(project / "models" / "0002").thresholds
    assert tag(run, project / "models" / "0002", sounds)
