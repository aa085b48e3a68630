"""The Model view: what the model is, its labels and thresholds, and how to call it."""

import math
import shlex
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.config.base import Config
from spectag.models.bundle import BackboneInfo, BundleInfo
from spectag.models.model_labels import model_labels
from spectag.models.pretrained import published_name
from spectag.models.tagger import Tagger
from spectag.serving import model_answers
from spectag.serving.answers import Question
from spectag.serving.json_body import read_body
from spectag.serving.model_answers import ThresholdsQuery, VersionQuery
from spectag.serving.problems import ProblemError
from spectag.serving.view import View, ViewContext

_MAX_CARD = 200_000  # characters that are shown
_SCORES = ("lwlrap", "mean_average_precision", "top1_accuracy")


class _ModelView:
    """The requests of the view."""

    def __init__(self, context: ViewContext) -> None:
        self._context = context
        self._described = {
            **_described(context.tagger),
            "needs_token": context.cookie is not None,
            "has_project": context.project is not None,
        }

    def card(self, _: Request) -> Response:
        """What the model is, its labels, and how it is called."""
        return JSONResponse(self._described)

    async def scores(self, request: Request) -> Response:
        """What each threshold detects among the held-out clips."""
        question = self._question(model_answers.threshold_scores, Config())
        with self._context.workers.place():
            answer = await self._context.workers.ask(question, request.is_disconnected)
        return Response(answer, media_type="application/json")

    async def save(self, request: Request) -> Response:
        """Write thresholds into a new version of the project's model, and use it."""
        query = await read_body(request, ThresholdsQuery)
        project, labels = self._context.project, self._context.tagger.labels.names
        if project is None:
            detail = "this server has no project; start it with spectag serve --project FOLDER"
            raise ProblemError(HTTPStatus.CONFLICT, detail)
        if unknown := set(query.thresholds) - set(labels):
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"the model has no label {min(unknown)!r}")

        async def write(folder: Path) -> dict[str, Any]:
            version = VersionQuery(thresholds=query.thresholds, output=folder)
            with self._context.workers.place():
                await self._context.workers.ask(self._question(model_answers.write_with_thresholds, version))
            return {"thresholds": query.thresholds}

        return JSONResponse({"version": await self._context.make_version("thresholds", write)})

    def _question(self, function: Any, query: Config) -> Question:
        folder = self._context.tagger.folder
        return Question(function, folder, folder.name, query)


def _described(tagger: Tagger) -> dict[str, Any]:
    info = tagger.info
    reference = published_name(tagger.folder) or str(tagger.folder.resolve())
    sounds, windows = info.training_sounds, info.window_thresholds
    return {
        "name": tagger.folder.name,
        "reference": reference,
        "shell": shlex.quote(reference),
        "new_shell": shlex.quote(f"{tagger.folder.name}-thresholds"),
        "spectag": info.versions.get("spectag", ""),
        "networks": _networks(info),
        "data": {"name": info.data.name, "n_clips": info.data.n_clips},
        "source": str(info.metrics.get("source", "")),
        "scores": _scores(info),
        "goal": str(info.threshold_goal) if any(info.thresholds_fitted) else None,
        "extends": None if info.extends is None else info.extends.model_dump(),
        "sample_rate": tagger.sample_rate,
        "clip_seconds": info.clip_seconds,
        "novelty": None if info.novelty is None else info.novelty.model_dump(),
        "training_sounds": None if sounds is None else sounds.model_dump(),
        "windows_below": None if windows is None else windows.below_seconds,
        "labels": [
            {"label": label.label, "n_clips": label.n_clips, "threshold": label.threshold, "is_fitted": label.is_fitted,
             "misses_goal": label.misses_goal, "window_threshold": label.window_threshold}
            for label in model_labels(tagger.folder)
        ],
        "thresholds": model_answers.THRESHOLDS,
        "card": tagger.card[:_MAX_CARD],
    }  # fmt: skip


def _networks(info: BundleInfo) -> list[dict[str, str]]:
    backbones = [member.backbone for member in info.members] or [info.backbone]
    return [_network(backbone) for backbone in backbones]


def _network(backbone: BackboneInfo) -> dict[str, str]:
    names = ("name", "features", "head", "pretrained_on", "licence")
    return {name: getattr(backbone, name) for name in names}


def _scores(info: BundleInfo) -> dict[str, Any]:
    """The scores on held-out clips that spectag.json has. It may come from a stranger, and contain anything."""
    metrics, intervals = info.metrics, info.metrics.get("intervals")
    found = {name: metrics[name] for name in _SCORES if _is_number(metrics.get(name))}
    interval = intervals.get("lwlrap") if isinstance(intervals, dict) else None
    is_interval = isinstance(interval, list | tuple) and len(interval) == 2 and all(map(_is_number, interval))
    n_clips = metrics.get("n_clips")
    return {
        **found,
        "lwlrap_interval": list(interval) if is_interval and interval is not None else None,
        "n_clips": n_clips if _is_number(n_clips) else None,
        "on": str(metrics.get("on", "")),
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    view = _ModelView(context)
    return [
        Route("/card", view.card),
        Route("/scores", view.scores),
        Route("/thresholds", view.save, methods=["POST"]),
    ]


VIEW = View("model", _routes)
