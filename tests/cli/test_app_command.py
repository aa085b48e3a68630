"""spectag app: the page in a window, with a server that only this window reaches."""

import os
import re
import signal
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from helpers.bundles import make_bundle, make_info
from spectag.config.serving import ServeSettings
from spectag.serving import app_window
from spectag.serving.app_window import open_app, personal_folders
from spectag.serving.project.project import open_project
from spectag.system import browser

ONLY_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="the browser is a shell script")


@pytest.fixture
def project(tmp_path):
    model = make_bundle(tmp_path / "model", make_info())
    with open_project(tmp_path / "project") as project:
        project.versions.add_copy(model)
    return tmp_path / "project"


@pytest.fixture
def windows(monkeypatch, tmp_path):
    """A computer without pywebview, browser and display; the test adds what it needs."""
    monkeypatch.setitem(sys.modules, "webview", None)
    monkeypatch.setattr(app_window, "app_browser", lambda: None)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return monkeypatch


def get(address):
    """Status and content of an address, with the cookie that the page gets."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    try:
        opener.open(address, timeout=20).close()
        with opener.open(address.partition("?")[0] + "views", timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def fake_webview(shown, *, problem=None):
    """A pywebview that calls `shown` with the address instead of showing a window."""
    module = types.ModuleType("webview")
    module.settings, module.asked = {}, []
    module.errors = types.SimpleNamespace(WebViewException=type("WebViewException", (Exception,), {}))

    def start():
        if problem is not None:
            raise module.errors.WebViewException(problem)
        shown(module.asked[0])

    module.create_window = lambda _title, address, **_: module.asked.append(address)
    module.start = start
    return module


def fake_browser(folder, script):
    path = folder / "fake-browser"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_window_shows_the_project_and_the_server_ends_with_it(windows, project, run):
    seen = []
    windows.setitem(sys.modules, "webview", fake_webview(lambda address: seen.append((address, get(address)))))
    done = run("app", project, "-j", "1")
    assert (done.status, done.err.splitlines()[-1]) == (0, "stopped")
    [(address, (status, content))] = seen
    assert (status, '"name":"project"' in content) == (200, True)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)
    assert "token" not in done.err


def test_nobody_else_reaches_the_page(windows, tmp_path):
    seen = []

    def shown(address):
        seen.append(address)
        without = re.sub(r"\?.*", "", address)
        seen.append([get(without)[0], get(f"{without}?token=wrong")[0], get(address)[0]])

    windows.setitem(sys.modules, "webview", fake_webview(shown))
    windows.setenv("SPECTAG_TOKEN", "a secret that other programs know")
    open_app(None, ServeSettings(folder=(tmp_path,)), workers=1)
    address, statuses = seen
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address)
    assert statuses == [401, 401, 200]


@ONLY_POSIX
def test_browser_gets_a_file_that_only_this_user_may_read(windows, tmp_path):
    script = f'echo "$@" > {tmp_path}/arguments; page="${{1#--app=file://}}"; ls -ld "${{page%/*}}" > {tmp_path}/rights'
    browser_file = fake_browser(tmp_path, f'{script}; cp "$page" {tmp_path}/page')
    windows.setattr(app_window, "app_browser", lambda: browser_file)
    lines = []
    open_app(None, ServeSettings(folder=(tmp_path,)), workers=1, log=lines.append)
    arguments = (tmp_path / "arguments").read_text()
    [token] = re.findall(r"http://127\.0\.0\.1:\d+/\?token=([\w-]{32})", (tmp_path / "page").read_text())
    assert token not in arguments + " ".join(lines)
    assert (tmp_path / "rights").read_text().startswith("drwx------")
    private = Path(re.search(r"--user-data-dir=(\S+)", arguments)[1]).parent
    assert f"--app=file://{private}/" in arguments
    assert not private.exists()
    assert lines[-1] == "stopped"


@ONLY_POSIX
@pytest.mark.parametrize("script", ["exit 1", None])
def test_browser_that_does_not_start_is_followed_by_a_tab(windows, tmp_path, script):
    path = tmp_path / "no-browser" if script is None else fake_browser(tmp_path, script)
    opened = []

    def open_tab(address):
        opened.append(Path(address.removeprefix("file://")).read_text())
        raise KeyboardInterrupt

    windows.setattr(app_window, "app_browser", lambda: path)
    windows.setattr(app_window, "open_in_browser", open_tab)
    lines = []
    open_app(None, ServeSettings(folder=(tmp_path,)), workers=1, log=lines.append)
    assert "http://127.0.0.1:" in opened[0]
    assert lines[-1] == "stopped"


def test_pywebview_without_a_library_for_windows_is_followed_by_a_browser(windows, tmp_path):
    windows.setitem(sys.modules, "webview", fake_webview(None, problem="no GTK"))
    opened = []
    windows.setattr(app_window, "_show_in_browser", lambda *arguments: opened.append(arguments[0]) or True)
    windows.setattr(app_window, "app_browser", lambda: tmp_path / "chrome")
    lines = []
    open_app(None, ServeSettings(folder=(tmp_path,)), workers=1, log=lines.append)
    assert opened == [tmp_path / "chrome"]
    assert any("no GTK" in line for line in lines)


def test_second_start_with_the_same_project_says_so(windows, project, run):
    windows.setitem(sys.modules, "webview", fake_webview(lambda _: None))
    with open_project(project):
        done = run("app", project)
    assert done.status == 1
    assert "has this project open" in done.err


def test_folder_without_a_project_is_an_error(windows, tmp_path, run):
    done = run("app", tmp_path)
    assert done.status == 1
    assert "there is no project; run spectag app without a folder to create one" in done.err


@ONLY_POSIX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_browser_and_the_server(tmp_path, number):
    fake_browser(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 60").rename(tmp_path / "chromium")
    variables = {"PATH": f"{tmp_path}:/bin:/usr/bin", "DISPLAY": ":99", "TMPDIR": str(tmp_path)}
    script = (
        "import sys; sys.modules['webview'] = None; from spectag.system import browser; "
        "browser._COMMANDS = ('chromium',); from spectag.cli import main; sys.exit(main(['app', '--folder', '.']))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=os.environ | variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stderr.readline()
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read().splitlines()[-1] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert list(tmp_path.glob("spectag-*")) == []


def test_missing_packages_name_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "spectag.serving.app_window", None)
    done = run("app")
    assert (done.status, "pip install 'spectag[serve]'" in done.err) == (1, True)


def test_serve_opens_a_project_or_asks_what_to_open(run, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        "spectag.serving.serve", lambda model, _, *, project, **__: asked.append((model and Path(model), project))
    )
    model = make_bundle(tmp_path / "model", make_info())
    for words in ([], ["--project", tmp_path], [model, "--project", tmp_path]):
        assert run("serve", *words).status == 0
    assert asked == [(None, None), (None, tmp_path), (model, tmp_path)]


def test_home_folder_is_the_first_of_the_personal_folders():
    folders = list(personal_folders())
    assert folders[0] == Path.home()


def test_browser_is_found_by_its_command(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(browser.shutil, "which", lambda name: str(tmp_path / name))
    (tmp_path / "chromium").write_text("")
    monkeypatch.setenv("DISPLAY", ":0")
    assert browser.app_browser() == tmp_path / "chromium"
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert browser.app_browser() is None


def test_windows_and_macos_have_browsers_at_known_places(monkeypatch):
    monkeypatch.setenv("PROGRAMFILES", r"C:\Program Files")
    assert r"C:\Program Files\Google\Chrome\Application\chrome.exe" in list(browser._programs("win32"))
    assert "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome" in list(browser._programs("darwin"))
    assert list(browser._programs("linux")) == []


def test_snaps_get_files_in_their_own_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(browser, "_SNAPS", tmp_path / "bin")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    common = tmp_path / "snap" / "chromium" / "common"
    common.mkdir(parents=True)
    assert browser.snap_folder("chromium") is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "chromium").write_text("")
    assert browser.snap_folder("chromium") == common
