"""The start page in a browser: choose folders with the keyboard, create a project, and see what goes wrong."""

from urllib.parse import quote

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info
from helpers.page_actions import click_button, unforeseen
from helpers.page_server import page_server
from spectag.serving.app_window import _start_page
from spectag.serving.project.project import open_project

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "home"
    (folder / "recordings" / "night & <b>").mkdir(parents=True)
    for name in ("a.wav", "b.wav", "labels.csv"):
        (folder / "recordings" / name).write_bytes(bytes(5_000))
    make_bundle(folder / "my-model", make_info())
    return folder


def start_server(folder, tmp_path, **variables):
    """A server without a model."""
    return page_server(tmp_path, "--folder", folder, XDG_DATA_HOME=str(tmp_path / "data"), **variables)


@pytest.fixture
def page(folder, tmp_path):
    with start_server(folder, tmp_path) as address, chromium(tmp_path / "profile") as page:
        page.show(1400, 900)
        page.open(f"{address}/")
        page.wait("document.querySelector('.start-cards')")
        yield page
        assert unforeseen(page, "403 (Forbidden)", "404 (Not Found)", "422 (Unprocessable Entity)") == []


def click(page, text):
    click_button(page, text, "dialog[open], .start-view")


def names(page):
    return page.run("[...document.querySelectorAll('.entries .name')].map((one) => one.textContent)")


def choose(page, kinds):
    """Open the dialog as a view does; the choice will be in window.chosen."""
    page.run("window.chosen = undefined")
    choice = f"picker.{kinds}.then((path) => {{ window.chosen = path; }})"
    page.run(f"import('/static/folder_picker.js').then((picker) => {{ {choice}; }})")
    page.wait("document.querySelector('.picker .entries')")


def test_file_is_chosen_with_the_keyboard(page, folder):
    choose(page, "chooseFile({ title: 'A sound', kinds: ['sound'] })")
    assert names(page) == ["my-model", "recordings"]
    page.type("rec")
    assert names(page) == ["recordings"]
    page.press("Enter")
    page.wait(
        "document.querySelectorAll('.parents li').length === 2 && document.querySelectorAll('.entry').length === 3"
    )
    assert names(page) == ["night & <b>", "a.wav", "b.wav"]
    assert page.run("document.querySelector('.picker b')") is None
    for _ in range(3):
        page.press("ArrowDown")
    assert page.run("document.querySelector('[aria-selected=true] .name').textContent") == "b.wav"
    page.press("ArrowLeft")
    page.wait("document.querySelectorAll('.parents li').length === 1")
    page.type(str(folder / "recordings"))
    page.press("Enter")
    page.wait("document.querySelectorAll('.parents li').length === 2")
    page.type("b.w")
    page.press("Enter")
    page.wait("window.chosen !== undefined")
    assert page.run("window.chosen") == str(folder.resolve() / "recordings" / "b.wav")
    assert page.run("document.querySelector('dialog.picker')") is None


def test_folder_is_chosen_and_escape_chooses_nothing(page, folder):
    choose(page, "chooseFolder({ title: 'A folder' })")
    page.run("document.querySelectorAll('.entry')[1].click()")
    click(page, "Choose this folder")
    page.wait("window.chosen !== undefined")
    assert page.run("window.chosen") == str(folder.resolve() / "recordings")
    choose(page, "chooseFolder({ title: 'A folder' })")
    page.press("Escape")
    page.wait("window.chosen === null")


def test_refused_and_empty_folders_say_why(page, folder):
    choose(page, "chooseFile({ title: 'A table', kinds: ['table'] })")
    page.type("nothing like this")
    assert "No name contains this" in page.run("document.querySelector('.picker .state').textContent")
    page.run("document.querySelector('.picker input').value = ''")
    page.type("/etc")
    page.press("Enter")
    page.wait("document.querySelector('.picker .failed')")
    assert "--folder" in page.run("document.querySelector('.picker .failed').textContent")
    page.run("document.querySelector('.places button, .parents button').click()")
    page.wait("document.querySelectorAll('.entry').length === 2")
    page.run("document.querySelectorAll('.entry')[1].dispatchEvent(new MouseEvent('dblclick'))")
    page.wait("document.querySelectorAll('.parents li').length === 2")
    page.run("document.querySelector('.entry').dispatchEvent(new MouseEvent('dblclick'))")
    page.wait("document.querySelectorAll('.parents li').length === 3")
    assert "Nothing to choose here" in page.run("document.querySelector('.picker .state').textContent")


def test_file_for_the_browser_leads_to_the_page_with_its_token(folder, tmp_path):
    token = "a secret of many characters"
    with start_server(folder, tmp_path, SPECTAG_TOKEN=token) as address, chromium(tmp_path / "profile") as page:
        page.open(f"{address}/")
        page.wait("document.querySelector('.token')")
        with _start_page(f"{address}/?token={quote(token)}", "no snap") as start:
            page.open(start.as_uri())
            page.wait("document.querySelector('.start-cards')")
        assert page.run("location.href") == f"{address}/"


def test_project_is_created_and_comes_first_the_next_time(page, folder, tmp_path):
    page.run("document.querySelector('#new-name').value = 'Frogs 2026'")
    page.run("document.querySelector('#new-model ~ button').click()")
    page.wait("document.querySelectorAll('.entry').length === 2")
    page.run("document.querySelector('.entry.model').dispatchEvent(new MouseEvent('dblclick'))")
    page.wait("document.querySelector('#new-model').value.endsWith('my-model')")
    click(page, "Create project")
    page.wait("document.querySelector('#model').textContent.includes('Frogs 2026')", 30)
    assert (folder / "Frogs 2026" / "models" / "0001" / "spectag.json").is_file()
    with start_server(folder, tmp_path) as address:
        page.open(f"{address}/")
        page.wait("document.querySelector('.recent strong')")
        assert page.run("document.querySelector('.recent strong').textContent") == "Frogs 2026"
        page.run("document.querySelector('.recent').click()")
        page.wait("document.querySelector('.state.failed')")
        assert "another spectag serve has this project open" in page.run(
            "document.querySelector('.failed').textContent"
        )
        click(page, "Back to the start page")
        page.wait("document.querySelector('.start-cards')")


def test_name_that_no_folder_can_have_is_refused_in_the_form_and_a_name_is_kept(page, folder):
    page.run("document.querySelector('#new-name').focus()")
    page.type("Frogs 5/2026")
    click(page, "Create project")
    assert "leave out" in page.run("document.querySelector('#new-name').validationMessage")
    assert page.run("document.querySelector('.state.failed')") is None
    (folder / "Frogs").mkdir()
    (folder / "Frogs" / "notes.txt").write_text("not a project")
    page.run("document.querySelector('#new-name').select()")
    page.type("Frogs")
    click(page, "Create project")
    page.wait("document.querySelector('.state.failed')")
    click(page, "Back to the start page")
    page.wait("document.querySelector('#new-name')")
    assert page.run("document.querySelector('#new-name').value") == "Frogs"


def test_project_without_a_model_asks_for_one(page, folder):
    with open_project(folder / "bare"):
        pass
    click(page, "Choose a project folder")
    page.wait("document.querySelector('.entry.project')")
    page.run("document.querySelector('.entry.project').dispatchEvent(new MouseEvent('dblclick'))")
    page.wait("document.querySelector('#first-model')")
    page.run("document.querySelector('#first-model ~ button').click()")
    page.wait("document.querySelector('.entry.model')")
    page.run("document.querySelector('.entry.model').dispatchEvent(new MouseEvent('dblclick'))")
    page.wait("document.querySelector('#first-model').value.endsWith('my-model')")
    click(page, "Open with this model")
    page.wait("document.querySelector('#model').textContent.includes('bare')", 30)
