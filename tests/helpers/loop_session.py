"""A person at the page, whose server and browser can be killed and started again."""

from contextlib import ExitStack
from pathlib import Path

from helpers.browser import Page, chromium
from helpers.page_actions import unforeseen
from helpers.page_server import PageServer, running_server

# what the browser writes while the server is away
_AWAY = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE_CHUNKED_ENCODING")


class LoopSession:
    """One server and one page at a time. A new server has the port of the one before, as people start it again.

    Parameters
    ----------
    folder : Path
        Where the server is started; below it are all files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.downloads = folder / "downloads"
        self._servers, self._browsers = ExitStack(), ExitStack()
        self._server: PageServer | None = None
        self._was_away = False
        self.page: Page

    def __enter__(self) -> "LoopSession":
        return self

    def __exit__(self, *_: object) -> None:
        self._browsers.close()
        self._servers.close()

    def start_server(self, *arguments: object) -> None:
        """Run `spectag serve ARGUMENTS`."""
        port = 0 if self._server is None else self._server.port
        self._server = self._servers.enter_context(running_server(self.folder, *arguments, port=port))

    def kill_server(self) -> None:
        """As kill -9."""
        assert self._server is not None
        assert "Traceback" not in self._server.log, self._server.log
        self._server.kill()
        self._was_away = True

    def end_server(self) -> None:
        """As Ctrl-C, or closing the terminal."""
        assert self._server is not None
        self._server.end()
        assert "Traceback" not in self._server.log, self._server.log

    def open_page(self, address: str = "") -> None:
        """Start the browser, with the profile that it had before, and open the page."""
        assert self._server is not None
        self.page = self._browsers.enter_context(chromium(self.folder / "profile"))
        self.page.show(1400, 1000)
        self.page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.page.open(f"{self._server.address}/{address}")

    def kill_browser(self) -> None:
        """As kill -9."""
        self.check_console()
        self.page.kill()

    def go(self, view: str) -> None:
        """Choose a view in the navigation."""
        self.page.wait(f"document.querySelector('#to-{view}')", 30)
        self.page.run(f"document.querySelector('#to-{view}').click()")
        self.page.wait(f"document.querySelector('.{view}-view')?.checkVisibility()", 30)
        self.page.run("document.activeElement.blur()")

    def check_console(self, *foreseen: str) -> None:
        """Nothing but what is foreseen was written on the console; some requests fail while the server is away."""
        lines = unforeseen(self.page, *foreseen, *(_AWAY if self._was_away else ()))
        assert lines == [], lines
        self.page.console.clear()
