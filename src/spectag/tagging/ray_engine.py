"""Tagging on the machines of a Ray cluster, with the same results as on one machine.

The work runs as tasks of Ray Data, not as actors: when a machine dies, its tasks are repeated at once wherever there is
room, whereas an actor would wait for room for another actor. Each worker process keeps its tagger open.
"""

import logging
import os
import pickle  # nosec B403 - between processes of one run; Ray itself sends pickles
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

from spectag.config.base import Channel, WindowConfig
from spectag.errors import BundleError, ConfigError, MissingExtraError, SpectagError
from spectag.models.bundle import INFO_FILE, ONNX_FILE
from spectag.models.frames_info import FRAMES_FILE
from spectag.models.tagger import Tagger
from spectag.system.storage import is_url
from spectag.system.worker_pool import n_usable_cores
from spectag.tagging.parallel import Chunk, TaggedChunk, tag_chunk

_MAX_ATTEMPTS = 5
"""For a chunk whose machine or process dies; Ray itself would repeat for ever a file that kills every process."""
_ENVIRONMENT = {  # read when Ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # otherwise late threads of Ray start it again after we stopped it
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # otherwise Ray reports dead machines on stdout, among our results
}
_DATA_THREADS = "iter_threaded", "StreamingExecutor"  # names of Ray Data's threads
_THREAD_SECONDS = 10  # to wait for them
_CONNECT_SECONDS = 10
_MIN_BLOCKS = 1000  # of chunks; Ray needs a millisecond to prepare each before it starts
_BLOCKS_PER_CPU = 8  # at least, if there are enough chunks, so that all finish at about the same time


class ClusterError(SpectagError):
    """A Ray cluster that cannot be reached or cannot do the work."""


@dataclass(frozen=True)
class _Job:
    """Everything that a worker needs for tagging."""

    bundle: Any
    """Reference to the files of the model by name: each machine fetches them once."""
    attempts: Any = field(compare=False)
    """The actor that counts how often a chunk was started."""
    bundle_folder: str
    channel: Channel
    window: WindowConfig | None
    folder: str | None
    """The folder to which paths are relative; None: all are absolute."""
    version: str


@dataclass(frozen=True)
class _WorkerResult:
    """What a worker returns for a chunk."""

    tagged: TaggedChunk | Exception | None
    """None: the chunk was started too often."""
    machine: str
    missing: tuple[str, ...] = ()
    """Paths that do not exist on the worker's machine."""


def tag_on_ray(
    tagger: Tagger,
    window: WindowConfig | None,
    chunks: Sequence[Chunk],
    *,
    address: str | None = None,
    n_workers: int | None = None,
) -> Generator[tuple[Chunk, TaggedChunk], None, None]:
    """Tag chunks on a Ray cluster; yield each with its result, in the order in which they finish.

    Parameters
    ----------
    tagger : Tagger
        Its files are sent to the machines, which need no shared folder for them.
    window : WindowConfig, optional
        Tag each window of a recording. By default each recording gets one set of tags.
    chunks : sequence of Chunk
        Their paths must lead to the same files on all machines.
    address : str, optional
        Address of a running cluster, such as `auto` on one of its machines. By default that in RAY_ADDRESS; without it,
        Ray is started on this machine, and stopped when the iterator is closed.
    n_workers : int, optional
        Number of chunks tagged at the same time, each on one CPU. By default the number of CPUs of the cluster.

    Raises
    ------
    MissingExtraError
        If Ray is not installed.
    ConfigError
        If the tagger was opened for an accelerator.
    ClusterError
        If the cluster cannot be reached or has another version of spectag, if a machine does not see a file that exists
        here, or if the processes that tag a chunk die again and again.
    """
    _load_ray()
    if tagger.device not in ("auto", "cpu"):
        raise ConfigError(f"Ray tags on the CPUs of its machines, not on {tagger.device}; leave out the device")
    if not chunks:
        return
    with _connected(address, n_workers):
        job = _make_job(tagger, window, chunks)
        with closing(_worker_results(job, chunks, n_workers)) as results:
            for index, result in results:
                yield chunks[index], _checked(result, chunks[index])


def _load_ray() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray.data  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "tagging on a Ray cluster") from error


class _AttemptCounter:
    """Counts how often each chunk was started and did not finish."""

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._n_started: Counter[int] = Counter()

    def start(self, index: int) -> bool:
        """Whether the chunk may be started once more."""
        self._n_started[index] += 1
        return self._n_started[index] <= self._max_attempts

    def finish(self, index: int) -> None:
        """Forget a chunk that finished: it may be repeated because of another one in its block."""
        del self._n_started[index]


def _make_job(tagger: Tagger, window: WindowConfig | None, chunks: Sequence[Chunk]) -> _Job:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    files = (file for chunk in chunks for file in chunk.files)
    has_relative = any(not (os.path.isabs(file) or is_url(file)) for file in files)  # noqa: PTH117 - a million files
    folder = str(Path.cwd()) if has_relative else None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # lives as long as we do
    attempts = ray.remote(_AttemptCounter).options(num_cpus=0, scheduling_strategy=here).remote(_MAX_ATTEMPTS)
    bundle = tagger.folder
    paths = [
        bundle / INFO_FILE,
        bundle / FRAMES_FILE,
        *bundle.rglob(f"{ONNX_FILE}*"),
    ]  # large weights lie beside their model.onnx
    contents = {path.relative_to(bundle).as_posix(): path.read_bytes() for path in paths if path.is_file()}
    return _Job(ray.put(contents), attempts, str(bundle), tagger.channel, window, folder, version("spectag"))


def _worker_results(
    job: _Job, chunks: Sequence[Chunk], n_workers: int | None
) -> Generator[tuple[int, _WorkerResult], None, None]:
    """The index of each chunk and its result, in the order in which they finish."""
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call, unused-ignore]
    n_blocks = min(len(chunks), max(_MIN_BLOCKS, _BLOCKS_PER_CPU * round(resources.get("CPU", 1))))
    items = [{"index": index, "chunk": pickle.dumps(chunk)} for index, chunk in enumerate(chunks)]
    work = ray.data.from_items(items, override_num_blocks=n_blocks).map_batches(
        partial(_tag_table, job),
        batch_size=None,  # whole blocks
        batch_format="pyarrow",
        compute=ray.data.TaskPoolStrategy(n_workers),
        num_cpus=1,
    )
    # No prefetching: its thread never ends, and is still busy when Ray stops.
    tables: Any = iter(work.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    try:
        with closing(tables):
            for table in tables:
                for row in table.to_pylist():
                    yield row["index"], pickle.loads(row["result"])  # nosec B301 - from our own workers
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray failed: {str(error).strip().splitlines()[-1]}") from error


def _checked(result: _WorkerResult, chunk: Chunk) -> TaggedChunk:
    if isinstance(result.tagged, Exception):
        raise result.tagged
    if result.tagged is None:
        raise ClusterError(
            f"{chunk.files[0]} to {chunk.files[-1]}: the process that tagged these {len(chunk.files)} files died "
            f"{_MAX_ATTEMPTS} times. Usually memory runs out: use fewer workers; otherwise leave out the damaged file"
        )
    for file in result.missing:
        if Path(file).exists():
            raise ClusterError(
                f"{file}: exists here, but not on the machine {result.machine}; all machines of the cluster must see "
                "the files under the same path, or give URLs such as s3://bucket/folder"
            )
    return result.tagged


def _tag_table(job: _Job, table: Any) -> Any:
    """On a worker: tag the chunks of a table."""
    import pyarrow

    results = [pickle.dumps(_tag(job, **row)) for row in table.to_pylist()]
    return pyarrow.table({"index": table["index"], "result": pyarrow.array(results, pyarrow.large_binary())})


def _tag(job: _Job, index: int, chunk: bytes) -> _WorkerResult:
    """The result for a pickled chunk. An error is returned, too, because Ray would wrap it if it were raised."""
    import ray

    machine = socket.gethostname()
    if not ray.get(job.attempts.start.remote(index)):
        return _WorkerResult(None, machine)
    files = pickle.loads(chunk)  # nosec B301 - from the run that started this worker
    try:
        tagged = tag_chunk(_open_tagger(job), job.window, 1, files)
        skipped = [file.file for file in tagged.files if file.timeline is None and not is_url(file.file)]
        result = _WorkerResult(tagged, machine, tuple(file for file in skipped if not Path(file).exists()))
    except Exception as error:
        error.add_note(f"On the machine {machine}, with {files}:\n{traceback.format_exc()}")
        result = _WorkerResult(error, machine)
    job.attempts.finish.remote(index)
    return result


@lru_cache(maxsize=1)
def _open_tagger(job: _Job) -> Tagger:
    """On a worker: open the tagger, once."""
    import ray

    machine = socket.gethostname()
    if version("spectag") != job.version:
        raise ClusterError(
            f"{machine}: has spectag {version('spectag')}, but this machine has {job.version}; install the same "
            "version on all machines"
        )
    if job.folder is not None:
        try:
            os.chdir(job.folder)
        except OSError as error:
            raise ClusterError(
                f"{machine}: has no folder {job.folder}, to which the paths are relative; give absolute paths that "
                "lead to the files on all machines, or URLs such as s3://bucket/folder"
            ) from error
    with tempfile.TemporaryDirectory(prefix="spectag-") as folder:
        for name, content in ray.get(job.bundle).items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            return Tagger(folder, channel=job.channel, device="cpu").open()
        except BundleError as error:
            raise BundleError(str(error).replace(folder, job.bundle_folder)) from error


@contextmanager
def _connected(address: str | None, n_workers: int | None) -> Iterator[None]:
    """A connection to a cluster; a cluster that we start is stopped at the end."""
    import ray

    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _quiet():
        if ray.is_initialized():
            yield
            return
        try:
            host, colon, port = address.rpartition(":")
            if colon and "://" not in address:  # an OSError if nothing answers; Ray itself would try for minutes
                socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
            ray.init(
                address,
                num_cpus=(n_workers or n_usable_cores()) if address == "local" else None,
                include_dashboard=False if address == "local" else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise ClusterError(
                f"--address {address}: cannot reach a Ray cluster there: {error} (if the cluster needs a token, set "
                "RAY_AUTH_MODE=token here, too)"
            ) from error
        with ExitStack() as at_exit:
            at_exit.callback(ray.shutdown)
            at_exit.callback(_wait_for_data_threads)
            yield


def _wait_for_data_threads() -> None:
    """Wait for Ray Data's threads before Ray stops: a late one, as after Ctrl-C, would end our process."""
    for thread in threading.enumerate():
        if thread.name.startswith(_DATA_THREADS):
            thread.join(_THREAD_SECONDS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Ray Data's progress bars and messages: our caller reports the progress."""
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
