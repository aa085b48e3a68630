"""Requests about the jobs of a project: what they do, how far they are, to stop and to resume them."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.errors import ConfigError
from spectag.serving.problems import ProblemError
from spectag.serving.project.jobs import Job, Jobs


def job_record(job: Job) -> dict[str, Any]:
    """A job for scripts of the page."""
    record = {name: value for name, value in vars(job).items() if name != "progress"}
    progress = job.progress
    record["progress"] = None if progress is None else {
        "step": progress.step,
        "done": progress.n_done,
        "total": progress.n_total,
        "seconds_left": progress.seconds_left,
    }  # fmt: skip
    return record


def job_routes(jobs: Jobs) -> Sequence[BaseRoute]:
    """`GET /` for all jobs, newest first, `GET /NUMBER`, `POST /NUMBER/stop`, `POST /NUMBER/resume`."""

    def found(request: Request) -> Job:
        job = jobs.get(request.path_params["number"])
        if job is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such job")
        return job

    def all_jobs(_: Request) -> Response:
        return JSONResponse([job_record(job) for job in jobs.all()])

    def one(request: Request) -> Response:
        job = found(request)
        epochs = [] if job.progress is None else list(job.progress.epochs)
        return JSONResponse(job_record(job) | {"epochs": epochs})

    async def stop(request: Request) -> Response:
        job = await run_in_threadpool(found, request)
        await run_in_threadpool(jobs.stop, job.number)
        return JSONResponse(job_record(await run_in_threadpool(found, request)))

    async def resume(request: Request) -> Response:
        job = await run_in_threadpool(found, request)
        try:
            await run_in_threadpool(jobs.resume, job.number)
        except ConfigError as error:
            raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
        return JSONResponse(job_record(await run_in_threadpool(found, request)))

    return [
        Route("/", all_jobs),
        Route("/{number:int}", one),
        Route("/{number:int}/stop", stop, methods=["POST"]),
        Route("/{number:int}/resume", resume, methods=["POST"]),
    ]
