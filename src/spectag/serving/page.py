"""The page: its HTML, its static files, and the views in it."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from spectag.reporting.label_colors import LabelColors
from spectag.serving.folder_routes import folder_routes
from spectag.serving.job_routes import job_routes
from spectag.serving.view import PageContext, View, ViewContext
from spectag.serving.views import check, explore, jobs, live, model, review, start, tag, train

VIEWS: tuple[View, ...] = (
    tag.VIEW,
    live.VIEW,
    check.VIEW,
    review.VIEW,
    train.VIEW,
    explore.VIEW,
    jobs.VIEW,
    model.VIEW,
)
"""The views, in the order of the navigation."""


def page_routes(context: ViewContext) -> list[BaseRoute]:
    """The routes of the page and of its views. Without a project, those that need one are left out."""
    views = [view for view in VIEWS if context.project is not None or not view.needs_project]
    routes: list[BaseRoute] = [Mount(f"/views/{view.name}", routes=view.routes(context)) for view in views]
    if context.project is not None:
        routes += [Mount("/project/jobs", routes=job_routes(context.project.jobs)), _closing(context)]
    return [_described(_page_info(context, views)), *folder_routes(context), *routes]


def start_page(context: PageContext) -> list[BaseRoute]:
    """The routes of the page of a server without a model."""
    info = {"views": [start.VIEW.name], "project": None, "version": None, "model": None, "labels": []}
    return [_described(info), *folder_routes(context), Mount(f"/views/{start.VIEW.name}", routes=start.routes(context))]


def _closing(context: ViewContext) -> BaseRoute:
    async def close(_: Request) -> Response:
        """Close the project, which stops its job, and show the start page."""
        await context.open()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return Route("/project/close", close, methods=["POST"])


def _described(info: Mapping[str, Any]) -> BaseRoute:
    return Route("/views", lambda _: JSONResponse(info))


def _page_info(context: ViewContext, views: Sequence[View]) -> dict[str, Any]:
    """What scripts need to know of the server."""
    tagger = context.tagger
    colors = LabelColors(list(tagger.labels.names))
    project = context.project
    version = None if project is None else project.versions.current
    return {
        "views": [view.name for view in views],
        "project": None if project is None else {"name": project.name, "folder": str(project.folder)},
        "version": None if version is None else version.number,
        "model": {"name": tagger.folder.name, "backbone": tagger.info.backbone.name, "sample_rate": tagger.sample_rate},
        "labels": [
            {"label": label, "threshold": round(float(threshold), 6), "color": colors.color(label)}
            for label, threshold in zip(tagger.labels.names, tagger.thresholds, strict=True)
        ],
    }
