"""What the page needs of a view, and what a view gets from the server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from starlette.routing import BaseRoute

from spectag.config.serving import ServeSettings
from spectag.errors import SpectagError
from spectag.serving.page_cookie import PageCookie
from spectag.serving.page_sounds import PageSounds
from spectag.serving.problems import ProblemError
from spectag.serving.rate_limit import RateLimit

if TYPE_CHECKING:
    from spectag.models.tagger import Tagger
    from spectag.serving.project.project import Project
    from spectag.serving.workers import AnswerWorkers


class Open(Protocol):
    """Opens a model, a project, or both."""

    async def __call__(
        self, *, model: str | Path | None = None, project: Path | None = None, version: int | None = None
    ) -> None:
        """Open them instead of those that are open; without either, the start page.

        A version of the project's model is then in use.
        """


@dataclass(frozen=True)
class PageContext:
    """What a server keeps while its model and its project change."""

    settings: ServeSettings
    rate_limit: RateLimit
    folder: Callable[[], Path]
    """The temporary folder of the server, while it runs."""
    page_sounds: PageSounds
    """The sounds that were dropped on the page."""
    cookie: PageCookie | None
    """None: no token is needed."""
    open: Open
    """Opens another model, a project, or both: `await context.open(model=..., project=...)`. A SpectagError if they
    can't be opened; then the old ones stay. The page has to load `/views` again."""


@dataclass(frozen=True)
class ViewContext(PageContext):
    """What the server shares with its views."""

    tagger: "Tagger"
    """For its labels and settings; workers compute with it."""
    workers: "AnswerWorkers"
    drawing: "AnswerWorkers"
    """A worker that is never busy with tagging."""
    project: "Project | None" = None
    """None if the server has none."""

    async def use_version(self, number: int) -> None:
        """Tag with another version of the project's model from now on.

        Raises
        ------
        SpectagError
            If there is no such version, or it can't be opened. Then the one before stays in use.
        """
        assert self.project is not None
        await self.open(project=self.project.folder, version=number)

    async def make_version(self, origin: str, write: Callable[[Path], Awaitable[dict[str, Any]]]) -> int:
        """Make a version of the project's model from the one in use, and use it.

        Parameters
        ----------
        origin : str
            How it is made, see `ModelVersion`.
        write : callable
            Writes it into the folder that it gets, and returns its results.

        Returns
        -------
        int
            Its number.

        Raises
        ------
        ProblemError
            If it is made, but can't be used.
        SpectagError
            If it can't be made.
        """
        assert self.project is not None
        versions = self.project.versions
        current = await asyncio.to_thread(lambda: versions.current)
        parent = None if current is None else current.number
        folder = await asyncio.to_thread(versions.begin, origin, parent=parent)
        results = await write(folder)
        await asyncio.to_thread(versions.finish, folder, results)
        number = int(folder.name)
        try:
            await self.use_version(number)
        except SpectagError as error:
            detail = f"version {number} of the model is made, but can't be used: {error}"
            raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, detail) from error
        return number


class View(NamedTuple):
    """A view of the page; see `spectag.serving.views`."""

    name: str
    routes: Callable[[ViewContext], Sequence[BaseRoute]]
    needs_project: bool = False
    """Whether the page shows it only if the server has a project."""
