"""Browsers of this computer."""

import os
import shutil
import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path

_COMMANDS = (
    *("google-chrome", "google-chrome-stable", "chromium", "chromium-browser", "microsoft-edge"),
    *("microsoft-edge-stable", "brave-browser", "vivaldi"),
)
_MAC_NAMES = ("Google Chrome", "Microsoft Edge", "Chromium", "Brave Browser", "Vivaldi")
_WINDOWS_PROGRAMS = (
    r"Microsoft\Edge\Application\msedge.exe",
    r"Google\Chrome\Application\chrome.exe",
    r"BraveSoftware\Brave-Browser\Application\brave.exe",
)
_SNAPS = Path("/snap/bin")


def open_in_browser(address: str) -> bool:
    """Open an address, if a graphical browser can open; a text browser would take the terminal. Whether it could."""
    return (sys.platform != "linux" or _has_display()) and webbrowser.open(address)


def app_browser() -> Path | None:
    """A browser that can show a page in a window without its bars; None if there is none."""
    if sys.platform == "linux" and not _has_display():
        return None
    names = (shutil.which(name) for name in _COMMANDS)
    return next(
        (Path(name) for name in (*names, *_programs(sys.platform)) if name is not None and Path(name).is_file()), None
    )


def snap_folder(browser: str) -> Path | None:
    """The folder of a snap, if the browser is one: it can't read files in the temporary folder. None for others."""
    folder = Path(os.path.expanduser("~"), "snap", browser, "common")  # noqa: PTH111 - no error without a home
    return folder if (_SNAPS / browser).exists() and folder.is_dir() else None


def _programs(system: str) -> Iterator[str]:
    """Where Windows and macOS have browsers."""
    if system == "darwin":
        yield from (f"/Applications/{name}.app/Contents/MacOS/{name}" for name in _MAC_NAMES)
    if system == "win32":
        folders = [os.environ.get(name) for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")]
        yield from (rf"{folder}\{program}" for program in _WINDOWS_PROGRAMS for folder in folders if folder)


def _has_display() -> bool:
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
