"""Tagging on a Ray cluster: two nodes with one CPU each on this machine; the last test kills one of them."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from helpers.bundles import MEL_32K, make_bundle, make_ensemble, make_ensemble_info, make_info
from helpers.command import write_tones
from spectag.audio.files import find_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.base import WindowConfig
from spectag.errors import BundleError, MissingExtraError
from spectag.models.bundle import ONNX_FILE
from spectag.models.tagger import Tagger
from spectag.tagging import ray_engine
from spectag.tagging.parallel import Chunk, TaggedChunk, tag_chunks
from spectag.tagging.ray_engine import ClusterError, _checked, _make_job, _open_tagger, _WorkerResult, tag_on_ray

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for Ray's processes in /proc"),
    pytest.mark.filterwarnings("ignore:::ray"),  # warnings of Ray about its own code
]

FAST_HEALTH_CHECKS = {  # a dead node is noticed within a second
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@contextmanager
def ray_folder():
    """A folder with a short path, because the paths of sockets must be short."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster():
    list(tag_on_ray(SimpleNamespace(device="cpu"), None, []))  # loads Ray with our environment variables
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    with ray_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()  # where the cluster writes its address
        head = node | {"include_dashboard": False, "temp_dir": folder, "_system_config": FAST_HEALTH_CHECKS}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def connected(cluster):
    """The cluster, and a connection to it that all following tests use."""
    import ray

    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a model, sounds, and a file that is no sound."""
    make_bundle(tmp_path / "model")
    write_tones(tmp_path / "sounds", 11)
    (tmp_path / "sounds" / "broken.wav").write_text("no sound")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_chunks(folder, n_files=2):
    files = [str(path) for path in find_audio([folder])]
    return [Chunk(start, tuple(files[start : start + n_files])) for start in range(0, len(files), n_files)]


def contents(tagged_chunks):
    """All results, in a form that can be compared."""

    def as_bytes(timeline):
        return tuple(None if values is None else bytes(values) for values in vars(timeline).values())

    return {
        (chunk, file.file, file.reason, file.timeline and as_bytes(file.timeline))
        for chunk, tagged in tagged_chunks
        for file in tagged.files
    }


def tag_locally(model, chunks, window=None):
    return contents(tag_chunks(Tagger(model), chunks, window, workers=1))


def test_error_without_ray_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"tagging on a Ray cluster.*pip install 'spectag\[ray\]'"):
        list(tag_on_ray(None, None, [Chunk(0, ("a.wav",))]))


def test_ray_is_not_started_without_files(folder):
    import ray

    assert list(tag_on_ray(Tagger("model"), None, [])) == []
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "no address"])
def test_unreachable_cluster_raises_an_error(folder, address):
    with pytest.raises(ClusterError, match=rf"^--address {address}: cannot reach a Ray cluster there"):
        list(tag_on_ray(Tagger("model"), None, make_chunks("sounds"), address=address))


def test_file_that_only_a_remote_machine_misses_raises_an_error(folder):
    chunk = Chunk(0, ("sounds/low 00.wav",))
    result = _WorkerResult(TaggedChunk(()), "remote", missing=chunk.files)
    with pytest.raises(
        ClusterError, match=r"^sounds/low 00\.wav: exists here, but not on the machine remote; all mach"
    ):
        _checked(result, chunk)
    assert _checked(replace(result, missing=("sounds/gone.wav",)), chunk) == result.tagged


@pytest.mark.slow
def test_own_cluster_is_quiet_and_stops_with_an_interrupt(folder):
    script = """
from spectag.tagging.ray_engine import tag_on_ray
from spectag.models.tagger import Tagger
from spectag.tagging.parallel import Chunk
chunks = [Chunk(number, ("sounds/low 00.wav",)) for number in range(1000)]
for _, tagged in tag_on_ray(Tagger("model"), None, chunks, n_workers=1):
    print(tagged.files[0].file, flush=True)
"""
    with ray_folder() as own_folder:
        environment = os.environ | {"RAY_TMPDIR": own_folder, "HOME": own_folder}  # where Ray keeps a token
        run = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        with run:
            assert run.stdout.readline() == "sounds/low 00.wav\n"
            assert processes_in(own_folder)
            os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does
            out, err = run.communicate()
        assert set(out.splitlines()) <= {"sounds/low 00.wav"}
        lines = err.splitlines()
        assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", "KeyboardInterrupt")
        assert not processes_in(own_folder)


def processes_in(folder):
    return subprocess.run(["pgrep", "-f", folder], capture_output=True, check=False).stdout.split()


@pytest.mark.slow
def test_running_cluster_gives_the_local_results_and_keeps_running(cluster, folder):
    import ray

    chunks = make_chunks("sounds")  # paths relative to the current folder
    expected = tag_locally("model", chunks)
    assert len(expected) == 12
    assert contents(tag_on_ray(Tagger("model"), None, chunks, address=cluster.address)) == expected
    assert not ray.is_initialized()
    assert all(node.any_processes_alive() for node in cluster.list_all_nodes())


@pytest.mark.slow
def test_existing_connection_stays_open(connected, folder):
    import ray

    with closing(tag_on_ray(Tagger("model"), None, make_chunks("sounds"))) as tagged_chunks:
        next(tagged_chunks)
    assert ray.is_initialized()


@pytest.mark.slow
def test_worker_opens_the_tagger_once(connected, folder):
    import ray

    job = _make_job(Tagger("model"), None, make_chunks(folder / "sounds"))
    assert _open_tagger(ray.get(ray.put(job))) is _open_tagger(ray.get(ray.put(job)))


@pytest.mark.slow
def test_chunks_may_share_a_block_and_files_may_be_urls(connected, folder, monkeypatch):
    monkeypatch.setattr(ray_engine, "_MIN_BLOCKS", 3)
    monkeypatch.setattr(ray_engine, "_BLOCKS_PER_CPU", 1)
    chunks, window = make_chunks("sounds", n_files=1), WindowConfig(window_seconds=0.1, overlap_seconds=0.05)
    chunks = [replace(chunk, files=(f"file://{folder}/{chunk.files[0]}",)) for chunk in chunks]
    expected = tag_locally("model", chunks, window)
    assert contents(tag_on_ray(Tagger("model"), window, chunks, n_workers=1)) == expected


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ensemble", "large"])
def test_all_files_of_a_model_are_sent_to_the_machines(connected, folder, model):
    front_ends = [make_info().front_end, FrontEnd(mel=MEL_32K)]
    make_ensemble(folder / "ensemble", make_ensemble_info(front_ends, [0.25, 0.75], bias=-0.5))
    make_bundle(folder / "large")
    network = onnx.load(folder / "large" / ONNX_FILE)  # above 2 GB, the weights are in a file beside it
    external = {"save_as_external_data": True, "location": f"{ONNX_FILE}.data", "size_threshold": 100}
    onnx.save(network, folder / "large" / ONNX_FILE, **external)
    chunks = make_chunks(folder / "sounds", n_files=6)
    assert contents(tag_on_ray(Tagger(model), None, chunks)) == tag_locally(model, chunks)


@pytest.mark.slow
def test_error_of_a_worker_is_raised_unchanged(connected, folder):
    (folder / "model" / ONNX_FILE).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=rf"^model/{ONNX_FILE}: not an ONNX file, or damaged") as caught:
        list(tag_on_ray(Tagger("model"), None, make_chunks("sounds")))
    assert "On the machine" in caught.value.__notes__[0]


@pytest.mark.slow
def test_different_version_of_spectag_raises_an_error(connected, folder, monkeypatch):
    monkeypatch.setattr(ray_engine, "version", lambda name: "0.0.7")
    with pytest.raises(ClusterError, match=r"has spectag .*, but this machine has 0\.0\.7; install the same version"):
        list(tag_on_ray(Tagger("model"), None, make_chunks("sounds")))


@pytest.mark.slow
def test_relative_paths_need_the_current_folder_on_the_machines(connected, folder, monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/nowhere at all"))
    with pytest.raises(ClusterError, match=r"has no folder /nowhere at all, to which the paths are relative; give abs"):
        list(tag_on_ray(Tagger("model"), None, make_chunks("sounds")))


class CrashingChunk(Chunk):
    """A chunk that ends every process that unpickles it."""

    def __reduce__(self):
        return os._exit, (1,)


@pytest.mark.slow
def test_files_that_crash_their_processes_are_named_after_some_attempts(connected, folder, monkeypatch):
    monkeypatch.setattr(ray_engine, "_MAX_ATTEMPTS", 2)
    monkeypatch.setattr(ray_engine, "_MIN_BLOCKS", 1)
    monkeypatch.setattr(ray_engine, "_BLOCKS_PER_CPU", 0)
    chunks = [*make_chunks("sounds"), CrashingChunk(9, ("a.wav", "b.wav"))]
    with pytest.raises(ClusterError, match=r"^a\.wav to b\.wav: the process that tagged these 2 files died 2 times"):
        list(tag_on_ray(Tagger("model"), None, chunks))


@pytest.mark.slow
def test_results_are_complete_and_identical_after_a_node_is_killed(connected, folder, capfd):
    chunks = [replace(chunk, number=number) for number, chunk in enumerate(make_chunks("sounds", n_files=1) * 4)]
    expected = tag_locally("model", chunks)
    node = next(iter(connected.worker_nodes))
    tagged_chunks = tag_on_ray(Tagger("model"), None, chunks)
    done = [next(tagged_chunks)]
    while not (processes := stopped_at_work(node)):
        done.append(next(tagged_chunks))
    for process in (raylet(node), *processes):
        os.kill(process, signal.SIGKILL)
    done.extend(tagged_chunks)
    assert len(done) == len(chunks)
    assert contents(done) == expected
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


def stopped_at_work(node):
    """The processes of a node, if one of them is tagging: that one is stopped in the middle of its work."""
    children = subprocess.run(["pgrep", "-P", str(raylet(node))], capture_output=True, check=True).stdout.split()
    processes = [int(child) for child in children]
    for process in processes:
        if is_tagging(process):
            os.kill(process, signal.SIGSTOP)
            if is_tagging(process):
                return processes
            os.kill(process, signal.SIGCONT)
    return []


def is_tagging(process):
    return "MapBatches" in Path(f"/proc/{process}/cmdline").read_text()
