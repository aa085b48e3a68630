"""Tagging on the machines of a Ray cluster, with the answers of one machine.

The work runs as Ray Data's tasks, not as actors: when a machine dies, what it had is done again at once wherever there
is room, whereas an actor would hold its work back until there is room for an actor. Each worker process keeps the
tagger that it has opened.
"""

import logging
import os
import pickle
import socket
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spectag.config.base import WindowConfig
from spectag.errors import BundleError, MissingExtraError, SpectagError
from spectag.models.bundle import INFO_FILE, ONNX_FILE
from spectag.models.tagger import Tagger
from spectag.system.storage import is_address
from spectag.system.worker_pool import n_usable_cores
from spectag.tagging.parallel import Chunk, TaggedChunk, tag_chunk

_TRIES = 5
"""Of a portion whose machine or process dies; Ray itself would try for ever a file that kills every process."""
_ENVIRONMENT = {  # read when Ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # or else its threads, when they are late, start Ray anew after we stopped it
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # or else it tells of dead machines on stdout, among our results
}
_THREADS = "iter_threaded", "StreamingExecutor"  # of Ray Data
_SECONDS_TO_END = 10
_SECONDS_TO_CONNECT = 10
_BLOCKS = 1000  # of portions, for Ray takes a millisecond to prepare each, before it begins
_BLOCKS_EACH = 8  # for each CPU at least, where there are portions enough, so that all end at about the same time


class ClusterError(SpectagError):
    """A Ray cluster that can't be reached, or can't do the work."""


@dataclass(frozen=True)
class _Job:
    """What a worker must know before it can tag."""

    bundle: Any
    """Reference to the files of the tagger, by name: a machine fetches them once."""
    tries: Any = field(compare=False)
    """The actor that counts how often a portion was begun."""
    bundle_folder: str
    window: WindowConfig | None
    folder: str | None
    """From which relative paths are looked up; None where all are absolute."""
    version: str


@dataclass(frozen=True)
class _Answer:
    """What a worker gives for a portion."""

    tagged: TaggedChunk | Exception | None
    """None where the portion was begun too often."""
    machine: str
    missing: tuple[str, ...] = ()
    """Paths that are not there on the worker's machine."""


def tag_on_ray(
    tagger: Tagger,
    window: WindowConfig | None,
    chunks: Sequence[Chunk],
    *,
    address: str | None = None,
    n_workers: int | None = None,
) -> Generator[tuple[Chunk, TaggedChunk], None, None]:
    """Tag portions on a Ray cluster, and give each with its answer, in the order in which they are done.

    Parameters
    ----------
    tagger : Tagger
        Its files are sent to the machines; they need no folder in common for them.
    window : WindowConfig, optional
        Tag each window of a recording; by default each recording as a whole.
    portions : sequence of Portion
        The paths in them must lead to the same files on all machines.
    address : str, optional
        Of a cluster that runs, such as `auto` on one of its machines. By default what RAY_ADDRESS says, or else Ray is
        started on this machine, and stopped when the iterator is closed.
    n_workers : int, optional
        Number of portions that are tagged at once, each on one CPU; by default as many as the cluster has CPUs.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    ClusterError
        If the cluster can't be reached, or has another version of spectag; if a machine does not see a file that is
        here; if the processes that had a portion died again and again.
    """
    _load_ray()
    if not chunks:
        return
    with _connected(address, n_workers):
        job = _job(tagger, window, chunks)
        with closing(_answers(job, chunks, n_workers)) as answers:
            for number, answer in answers:
                yield chunks[number], _checked(answer, chunks[number])


def _load_ray() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "tagging on a Ray cluster") from error


class _Tries:
    """Counts how often each portion was begun and not ended."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._n_begun: Counter[int] = Counter()

    def begin(self, number: int) -> bool:
        """Whether the portion may be begun once more."""
        self._n_begun[number] += 1
        return self._n_begun[number] <= self._most

    def end(self, number: int) -> None:
        """The portion was no hard one; it may come again, with others of which one is."""
        del self._n_begun[number]


def _job(tagger: Tagger, window: WindowConfig | None, chunks: Sequence[Chunk]) -> _Job:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    files = (file for chunk in chunks for file in chunk.files)
    relative = any(not (os.path.isabs(file) or is_address(file)) for file in files)  # noqa: PTH117 - of a million files
    folder = str(Path.cwd()) if relative else None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # lives as long as we
    tries = ray.remote(_Tries).options(num_cpus=0, scheduling_strategy=here).remote(_TRIES)
    return _Job(ray.put(_files(tagger.folder)), tries, str(tagger.folder), window, folder, version("spectag"))


def _files(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle that tagging reads; those of a large network lie beside its model.onnx."""
    paths = [bundle / INFO_FILE, *bundle.rglob(f"{ONNX_FILE}*")]
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in paths}


def _answers(job: _Job, chunks: Sequence[Chunk], n_workers: int | None) -> Generator[tuple[int, _Answer], None, None]:
    """The number of each portion in the sequence and its answer, as they come."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
    n_blocks = min(len(chunks), max(_BLOCKS, _BLOCKS_EACH * round(resources.get("CPU", 1))))
    items = [{"number": number, "portion": pickle.dumps(chunk)} for number, chunk in enumerate(chunks)]
    work = ray.data.from_items(items, override_num_blocks=n_blocks).map_batches(
        partial(_answered, job),
        batch_size=None,  # a block as it is
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(n_workers),
        num_cpus=1,
    )
    # Without fetching ahead, for that is done by a thread which never ends, and is busy when Ray does.
    tables: Any = iter(work.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        with closing(tables):
            for table in tables:
                for row in table.to_pylist():
                    yield row["number"], pickle.loads(row["answer"])
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray gave up: {str(error).strip().splitlines()[-1]}") from error


def _checked(answer: _Answer, chunk: Chunk) -> TaggedChunk:
    if isinstance(answer.tagged, Exception):
        raise answer.tagged
    if answer.tagged is None:
        raise ClusterError(
            f"{chunk.files[0]} to {chunk.files[-1]}: {_TRIES} times the process died that tagged these "
            f"{len(chunk.files)} files. Mostly memory runs out: try fewer workers; else leave out the file at fault"
        )
    for file in answer.missing:
        if Path(file).exists():
            raise ClusterError(
                f"{file}: is here, but not on the machine {answer.machine}; all machines of the cluster must see the "
                "files under the same path, or give addresses such as s3://bucket/folder"
            )
    return answer.tagged


def _answered(job: _Job, table: Any) -> Any:
    """On a worker: the table's portions, tagged."""
    import pyarrow

    answers = [pickle.dumps(_answer(job, **row)) for row in table.to_pylist()]
    return pyarrow.table({"number": table["number"], "answer": pyarrow.array(answers, pyarrow.large_binary())})


def _answer(job: _Job, number: int, chunk: bytes) -> _Answer:
    import ray

    if not ray.get(job.tries.begin.remote(number)):
        return _Answer(None, socket.gethostname())
    answer = _tagged(job, pickle.loads(chunk))
    job.tries.end.remote(number)
    return answer


def _tagged(job: _Job, chunk: Chunk) -> _Answer:
    """The portion's answer. An error is one too, for Ray would wrap it."""
    machine = socket.gethostname()
    try:
        tagged = tag_chunk(_opened(job), job.window, 1, chunk)
    except Exception as error:
        error.add_note(f"On the machine {machine}, with {chunk}:\n{traceback.format_exc()}")
        return _Answer(error, machine)
    skipped = [file.file for file in tagged.files if file.timeline is None and not is_address(file.file)]
    return _Answer(tagged, machine, tuple(file for file in skipped if not Path(file).exists()))


@lru_cache(maxsize=1)
def _opened(job: _Job) -> Tagger:
    """On a worker: the tagger, opened once."""
    import ray

    if version("spectag") != job.version:
        raise ClusterError(
            f"{socket.gethostname()}: has spectag {version('spectag')}, and this machine {job.version}; install the "
            "same version on all machines"
        )
    if job.folder is not None:
        _go_to(job.folder)
    with tempfile.TemporaryDirectory(prefix="spectag-") as folder:
        for name, content in ray.get(job.bundle).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            tagger = Tagger(folder).open()
        except BundleError as error:
            raise BundleError(str(error).replace(folder, job.bundle_folder)) from error
    return tagger


def _go_to(folder: str) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise ClusterError(
            f"{socket.gethostname()}: has no folder {folder}, from which the paths were given; give absolute paths "
            "that lead to the files on all machines, or addresses such as s3://bucket/folder"
        ) from error


@contextmanager
def _connected(address: str | None, n_workers: int | None) -> Iterator[None]:
    """A connection to a cluster; one that we start ourselves is stopped at the end."""
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _quiet():
        if ray.is_initialized():
            yield
            return
        try:
            _check_reachable(address)
            ray.init(
                address,
                num_cpus=(n_workers or n_usable_cores()) if address == "local" else None,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"--address {address}: can't reach a Ray cluster there: {error} (one that asks for a token needs "
                "RAY_AUTH_MODE=token here, too)"
            ) from error
        with ExitStack() as in_the_end:
            in_the_end.callback(ray.shutdown)
            in_the_end.callback(_wait_for_threads)
            yield


def _wait_for_threads() -> None:
    """Let Ray Data's threads end before Ray does; one that is late, as after Ctrl-C, would end our process."""
    for thread in threading.enumerate():
        if thread.name.startswith(_THREADS):
            thread.join(_SECONDS_TO_END)


def _check_reachable(address: str) -> None:
    """Ray itself asks for minutes before it says that nobody is there."""
    host, colon, port = address.rpartition(":")
    if colon and "://" not in address:
        socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data's progress bars and remarks off the screen: the progress is told by who called us."""
    import ray

    context = ray.data.DataContext.get_current()
    logger = logging.getLogger("ray.data")
    before = context.enable_progress_bars, context.print_on_execution_start, logger.level
    context.enable_progress_bars = context.print_on_execution_start = False
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.print_on_execution_start = before[:2]
        logger.setLevel(before[2])
