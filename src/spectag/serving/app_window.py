"""The page in a window of its own, with a server that ends when the window is closed."""

import getpass
import html
import logging
import secrets
import string
import subprocess  # nosec B404 - runs an installed browser only
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from spectag.config.serving import ServeSettings
from spectag.errors import ConfigError
from spectag.serving.application import create_app
from spectag.serving.project.database import DATABASE
from spectag.serving.server import Address, http_server, listening_address
from spectag.system.browser import app_browser, open_in_browser, snap_folder
from spectag.system.progress import Log, no_log
from spectag.system.stop_signals import Stopped

_TITLE = "spectag"
_SIZE = (1300, 900)
_DISKS = string.ascii_uppercase[2:]  # of Windows; A and B are floppy disks
_SECONDS = 0.2  # between looks at the window and the server
_OPTIONS = ("--no-first-run", "--no-default-browser-check", f"--window-size={_SIZE[0]},{_SIZE[1]}")
_START_PAGE = """<!doctype html><meta charset="utf-8"><title>spectag</title>
<meta http-equiv="refresh" content="0; url={address}">"""


def open_app(
    project: Path | None,
    settings: ServeSettings | None = None,
    *,
    workers: int | None = None,
    log: Log = no_log,
) -> None:
    """Show the page in a window, until it is closed, or until Ctrl-C.

    Only this window reaches the server, with a token that no other user of the computer sees: neither in the list of
    processes nor in a file that they may read.

    Parameters
    ----------
    project : Path, optional
        By default, the page asks what to open.
    settings : ServeSettings, optional
        The address and the token are those of the window. Without folders, the page may read those of the user.
    workers : int, optional
        Processes that compute answers; by default one per core.
    log : Log
        Called with what happens.

    Raises
    ------
    ConfigError
        If the folder has no project, or the project is open in another window or server.
    SpectagError
        If the project or its model can't be opened.
    """
    if project is not None and not (project / DATABASE).is_file():
        raise ConfigError(f"{project}: there is no project; run spectag app without a folder to create one")
    own = {"host": "127.0.0.1", "port": 0, "token": secrets.token_urlsafe(24)}
    settings = (settings or ServeSettings()).model_copy(update=own)
    if not settings.folder:
        settings = settings.model_copy(update={"folder": tuple(personal_folders())})
    address = listening_address(settings)
    with address.listener:
        app = create_app(None, settings, project=project, workers=workers, port=address.port)
        with suppress(KeyboardInterrupt, Stopped), _running(http_server(app), address) as is_running:
            _show(address.of_page(settings.token), is_running, log)
    log("stopped")


def personal_folders() -> Iterator[Path]:
    """The home folder of the user, and where the system has external disks."""
    with suppress(RuntimeError):  # an unknown user without HOME
        yield Path.home()
    if sys.platform == "win32":
        system = Path.home().drive.upper()
        yield from (
            Path(f"{letter}:\\") for letter in _DISKS if f"{letter}:" != system and Path(f"{letter}:\\").exists()
        )
    elif sys.platform == "darwin":
        yield Path("/Volumes")
    else:
        user = getpass.getuser()
        yield from (
            folder for folder in (Path("/media", user), Path("/run/media", user), Path("/mnt")) if folder.is_dir()
        )


@contextmanager
def _running(server: uvicorn.Server, address: Address) -> Iterator[Callable[[], bool]]:
    """Run the server in a thread: windows need the main one. Whether it still runs is asked of what this yields."""
    thread = threading.Thread(target=lambda: server.run(sockets=[address.listener]), name="spectag server", daemon=True)
    thread.start()
    try:
        yield thread.is_alive
    finally:
        server.should_exit = True
        thread.join()


def _show(address: str, is_running: Callable[[], bool], log: Log) -> None:
    """Show the page in the first kind of window that this computer has, until it is closed."""
    if _show_in_webview(address, log):
        return
    browser = app_browser()
    if browser is not None and _show_in_browser(browser, address, is_running, log):
        return
    with _start_page(address, "firefox") as page:
        if open_in_browser(page.as_uri()):
            log("the page is in the browser; press Ctrl-C here to end spectag")
        else:
            log(f"no browser can be opened here; open {page}, or run spectag serve; press Ctrl-C to end spectag")
        while is_running():
            time.sleep(_SECONDS)


def _show_in_webview(address: str, log: Log) -> bool:
    """Show a window of pywebview. False if it is not installed, or has no library for windows on this computer."""
    try:
        import webview
    except ImportError:
        return False
    logging.getLogger("pywebview").setLevel(logging.CRITICAL)  # it prints what it has looked for
    webview.settings["ALLOW_DOWNLOADS"] = True
    webview.create_window(_TITLE, address, width=_SIZE[0], height=_SIZE[1])
    try:
        log("close the window to end spectag")
        webview.start()
    except webview.errors.WebViewException as error:
        log(f"pywebview can't open a window ({error}), so a browser is used")
        return False
    return True


def _show_in_browser(browser: Path, address: str, is_running: Callable[[], bool], log: Log) -> bool:
    """Show a window of a browser without its bars. False if the browser ends with an error, such as no display."""
    with _start_page(address, browser.name) as page:
        profile = page.with_name("profile")  # of its own: otherwise the process ends at once, and leaves the window
        command = [str(browser), f"--app={page.as_uri()}", f"--user-data-dir={profile}", *_OPTIONS]
        try:
            process = subprocess.Popen(  # nosec B603 - an installed browser, with the address of this server
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            log(f"{browser}: can't be started: {error.strerror or error}")
            return False
        try:
            log("close the window, or press Ctrl-C here, to end spectag")
            while process.poll() is None and is_running():
                time.sleep(_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait()
    return process.returncode == 0 or not is_running()


@contextmanager
def _start_page(address: str, browser: str) -> Iterator[Path]:
    """A file that leads to the page, in a folder that only this user may read. The address has the token, and other
    users see the arguments of a browser."""
    folder = snap_folder(browser)
    with tempfile.TemporaryDirectory(prefix="spectag-app-", dir=folder, ignore_cleanup_errors=True) as private:
        page = Path(private, "start.html")
        page.write_text(_START_PAGE.format(address=html.escape(address)), encoding="utf-8")
        yield page
