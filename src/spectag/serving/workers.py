"""The worker processes of the server, and who waits for them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus

from spectag.errors import SpectagError
from spectag.serving.answers import AnswerLimits, Question, Refusal, answer, prepare_worker
from spectag.serving.problems import ProblemError
from spectag.system.limited_worker import LimitedWorker, WorkerTimeoutError
from spectag.system.worker_pool import WorkerDiedError

_RETRY = {"Retry-After": "1"}
_logger = logging.getLogger("spectag")


class AnswerWorkers:
    """Worker processes that answer questions, each with limits of time and memory.

    Parameters
    ----------
    limits : AnswerLimits
    n_workers : int
    seconds, gigabytes : float
        Of each question.
    max_waiting : int
        Requests that are received, or wait for a worker.
    opens_model : bool
        Open the model when the processes start, and not only when a question needs it.
    """

    def __init__(
        self,
        limits: AnswerLimits,
        *,
        n_workers: int,
        seconds: float,
        gigabytes: float,
        max_waiting: int,
        opens_model: bool = True,
    ) -> None:
        self._seconds = seconds
        prepare = partial(prepare_worker, limits) if opens_model else None
        self._workers = [
            LimitedWorker(partial(answer, limits), seconds=seconds, gigabytes=gigabytes, prepare=prepare)
            for _ in range(n_workers)
        ]
        self._idle = asyncio.Queue[LimitedWorker[Question, bytes | Refusal]]()
        self._threads = ThreadPoolExecutor(n_workers, "spectag worker")
        self._max_questions = n_workers + max_waiting
        self._n_ready = 0
        self._is_closed = False
        self.n_questions = 0
        """Requests that are being received, waiting or being answered."""
        self.n_lost = 0
        """Workers that were ended by a question."""

    def start(self) -> None:
        """Start the processes now, so that the first questions need not wait for them."""
        for worker in self._workers:
            self._run(worker, partial(self._warm_up, worker))

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for a request, from its first byte on. Raises a ProblemError (503) if too many have one."""
        self._check_free()
        self.n_questions += 1
        try:
            yield
        finally:
            self.n_questions -= 1

    async def ask(self, question: Question, has_left: Callable[[], Awaitable[bool]] | None = None) -> bytes:
        """The answer to a question, as JSON.

        Parameters
        ----------
        question : Question
        has_left : optional
            Whether the client has closed the connection: then it is not answered any more.

        Raises
        ------
        ProblemError
            If there is no answer.
        """
        worker = await self._idle.get()
        is_wanted = False
        try:
            is_wanted = has_left is None or not await has_left()
        finally:
            if not is_wanted:
                self._idle.put_nowait(worker)
        if not is_wanted:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "the client has left")
        result = await asyncio.shield(self._run(worker, partial(self._answer, worker, question)))
        if isinstance(result, Refusal):
            headers = _RETRY if result.status == HTTPStatus.SERVICE_UNAVAILABLE else None
            raise ProblemError(result.status, result.detail, headers)
        return result

    def check_ready(self) -> None:
        """Raise a ProblemError (503) if too many questions wait, or no worker has opened the model yet."""
        self._check_free()
        if not self._n_ready:
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "the model is being opened; try again later", _RETRY)

    def _check_free(self) -> None:
        if self.n_questions >= self._max_questions:
            detail = f"{self.n_questions} requests are waiting already; try again later"
            raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, detail, _RETRY)

    def _run(
        self, worker: LimitedWorker[Question, bytes | Refusal], function: Callable[[], bytes | Refusal]
    ) -> asyncio.Future[bytes | Refusal]:
        """Run a function of a worker in a thread. Afterwards the worker is idle, also if nobody waits for it."""
        done = asyncio.get_running_loop().run_in_executor(self._threads, function)
        done.add_done_callback(lambda _: self._idle.put_nowait(worker))
        return done

    def _warm_up(self, worker: LimitedWorker[Question, bytes | Refusal]) -> bytes:
        try:
            worker.warm_up()
            self._n_ready += 1
        except SpectagError:
            if not self._is_closed:
                _logger.exception("a worker can't open the model")
        return b""

    def _answer(self, worker: LimitedWorker[Question, bytes | Refusal], question: Question) -> bytes | Refusal:
        """Never raises, because the client may have left."""
        try:
            result = worker.ask(question)
        except WorkerTimeoutError:
            detail = f"{question.name}: the answer took longer than {self._seconds:g} s; "
            detail += "send less sound at once, or ask for longer windows"
        except WorkerDiedError as error:
            detail = f"{question.name}: the process that read it died ({error.cause})"
        except Exception:
            _logger.exception("a worker can't open the model")
            return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "the model can't be opened; the server's log has the reason")
        else:
            self._n_ready = max(1, self._n_ready)
            return result
        self.n_lost += 1
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail)

    def close(self) -> None:
        """End the processes. Questions that wait are not answered."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.close()
