"""On a cluster of two nodes on this machine, with one CPU each; the last test takes one of them away."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

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
from spectag.tagging.ray_engine import ClusterError, _Answer, _checked, _job, _opened, tag_on_ray

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="looks for Ray's processes in /proc"),
    pytest.mark.filterwarnings("ignore:::ray"),  # what Ray finds fault with in itself
]

QUICK = {  # a node is missed within a second
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@contextmanager
def folder_of_ray():
    """A folder with a short name, for the sockets in it must not have long ones."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        yield folder


@pytest.fixture(scope="module")
def cluster():
    list(tag_on_ray(None, None, []))  # loads Ray as we do
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000}
    with folder_of_ray() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        (Path(folder) / "ray").mkdir()  # where the cluster notes its address
        head = node | {"include_dashboard": False, "temp_dir": folder, "_system_config": QUICK}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def connected(cluster):
    """The cluster, and a connection to it that is used by all that follows."""
    import ray

    ray.init(cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A tagger, sounds, and a file that is none, seen from their folder."""
    make_bundle(tmp_path / "model")
    write_tones(tmp_path / "sounds", 11)
    (tmp_path / "sounds" / "broken.wav").write_text("no sound")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def portions_of(folder, n_files=2):
    files = [str(path) for path in find_audio([folder])]
    return [Chunk(start, tuple(files[start : start + n_files])) for start in range(0, len(files), n_files)]


def contents(answers):
    """All that was answered, in a form that can be compared."""
    return {
        (chunk, file.file, file.reason, file.timeline and tuple(map(bytes, vars(file.timeline).values())))
        for chunk, answer in answers
        for file in answer.files
    }


def on_this_machine(model, chunks, window=None):
    return contents(tag_chunks(Tagger(model), chunks, window, workers=1))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(MissingExtraError, match=r"tagging on a Ray cluster.*pip install 'spectag\[ray\]'"):
        list(tag_on_ray(None, None, [Chunk(0, ("a.wav",))]))


def test_nothing_to_tag_starts_no_ray(folder):
    import ray

    assert list(tag_on_ray(Tagger("model"), None, [])) == []
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "no address"])
def test_cluster_that_is_not_there_is_an_error(folder, address):
    with pytest.raises(ClusterError, match=rf"^--address {address}: can't reach a Ray cluster there"):
        list(tag_on_ray(Tagger("model"), None, portions_of("sounds"), address=address))


def test_file_that_a_machine_does_not_see_is_no_file_skipped(folder):
    chunk = Chunk(0, ("sounds/low 00.wav",))
    answer = _Answer(TaggedChunk(()), "far", missing=chunk.files)
    with pytest.raises(ClusterError, match=r"^sounds/low 00\.wav: is here, but not on the machine far; all machines"):
        _checked(answer, chunk)
    assert _checked(replace(answer, missing=("sounds/gone.wav",)), chunk) == answer.tagged


def test_ray_that_we_started_is_quiet_and_stopped_by_an_interrupt(folder):
    script = """
from spectag.ray_engine import tag_on_ray
from spectag.models.tagger import Tagger
from spectag.tag import Portion
portions = [Portion(number, ("sounds/low 00.wav",)) for number in range(1000)]
for portion, answer in tag_on_ray(Tagger("model"), None, portions, n_workers=1):
    print(answer.files[0].file, flush=True)
"""
    with folder_of_ray() as ray_folder:
        environment = os.environ | {"RAY_TMPDIR": ray_folder, "HOME": ray_folder}  # where Ray keeps a token
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
            assert processes_of(ray_folder)
            os.killpg(run.pid, signal.SIGINT)  # as Ctrl-C does
            out, err = run.communicate()
        assert set(out.splitlines()) <= {"sounds/low 00.wav"}
        lines = err.splitlines()
        assert (lines[0], lines[-1]) == ("Traceback (most recent call last):", "KeyboardInterrupt")
        assert not processes_of(ray_folder)


def processes_of(ray_folder):
    return subprocess.run(["pgrep", "-f", ray_folder], capture_output=True, check=False).stdout.split()


def test_cluster_that_was_given_answers_as_this_machine_and_runs_on(cluster, folder):
    import ray

    chunks = portions_of("sounds")  # relative to the folder where we are
    expected = on_this_machine("model", chunks)
    assert len(expected) == 12
    assert contents(tag_on_ray(Tagger("model"), None, chunks, address=cluster.address)) == expected
    assert not ray.is_initialized()
    assert all(node.any_processes_alive() for node in cluster.list_all_nodes())


def test_connection_that_was_there_before_stays(connected, folder):
    import ray

    with closing(tag_on_ray(Tagger("model"), None, portions_of("sounds"))) as answers:
        next(answers)
    assert ray.is_initialized()


def test_a_worker_opens_the_tagger_once(connected, folder):
    import ray

    job = _job(Tagger("model"), None, portions_of(folder / "sounds"))
    assert _opened(ray.get(ray.put(job))) is _opened(ray.get(ray.put(job)))


def test_portions_may_share_a_block_and_files_may_be_addresses(connected, folder, monkeypatch):
    monkeypatch.setattr(ray_engine, "_BLOCKS", 3)
    monkeypatch.setattr(ray_engine, "_BLOCKS_EACH", 1)
    chunks, window = portions_of("sounds", n_files=1), WindowConfig(window_seconds=0.1, overlap_seconds=0.05)
    chunks = [replace(chunk, files=(f"file://{folder}/{chunk.files[0]}",)) for chunk in chunks]
    expected = on_this_machine("model", chunks, window)
    assert contents(tag_on_ray(Tagger("model"), window, chunks, n_workers=1)) == expected


@pytest.mark.parametrize("model", ["ensemble", "large"])
def test_all_files_of_a_tagger_go_to_the_machines(connected, folder, model):
    front_ends = [make_info().front_end, FrontEnd(mel=MEL_32K)]
    make_ensemble(folder / "ensemble", make_ensemble_info(front_ends, [0.25, 0.75], bias=-0.5))
    make_bundle(folder / "large")
    network = onnx.load(folder / "large" / ONNX_FILE)  # one of more than 2 GB keeps its weights in a file beside it
    beside = {"save_as_external_data": True, "location": f"{ONNX_FILE}.data", "size_threshold": 100}
    onnx.save(network, folder / "large" / ONNX_FILE, **beside)
    chunks = portions_of(folder / "sounds", n_files=6)
    assert contents(tag_on_ray(Tagger(model), None, chunks)) == on_this_machine(model, chunks)


def test_error_of_a_worker_comes_through_as_itself(connected, folder):
    (folder / "model" / ONNX_FILE).write_bytes(b"damaged")
    with pytest.raises(BundleError, match=rf"^model/{ONNX_FILE}: can't be opened by onnxruntime") as caught:
        list(tag_on_ray(Tagger("model"), None, portions_of("sounds")))
    assert "On the machine" in caught.value.__notes__[0]


def test_another_version_of_spectag_is_refused(connected, folder, monkeypatch):
    monkeypatch.setattr(ray_engine, "version", lambda name: "0.0.7")
    with pytest.raises(ClusterError, match=r"has spectag .*, and this machine 0\.0\.7; install the same version"):
        list(tag_on_ray(Tagger("model"), None, portions_of("sounds")))


def test_relative_paths_need_their_folder_on_the_machines(connected, folder, monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/nowhere at all"))
    with pytest.raises(ClusterError, match=r"has no folder /nowhere at all, from which the paths were given; give abs"):
        list(tag_on_ray(Tagger("model"), None, portions_of("sounds")))


class Deadly(Chunk):
    """A portion that ends every process which unpacks it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_files_over_which_processes_die_are_named_and_not_tried_for_ever(connected, folder, monkeypatch):
    monkeypatch.setattr(ray_engine, "_TRIES", 2)
    monkeypatch.setattr(ray_engine, "_BLOCKS", 1)
    monkeypatch.setattr(ray_engine, "_BLOCKS_EACH", 0)
    chunks = [*portions_of("sounds"), Deadly(9, ("a.wav", "b.wav"))]
    with pytest.raises(ClusterError, match=r"^a\.wav to b\.wav: 2 times the process died that tagged these 2 files"):
        list(tag_on_ray(Tagger("model"), None, chunks))


def test_killed_node_costs_no_file_and_no_bit(connected, folder, capfd):
    chunks = [replace(chunk, number=number) for number, chunk in enumerate(portions_of("sounds", n_files=1) * 4)]
    expected = on_this_machine("model", chunks)
    node = next(iter(connected.worker_nodes))
    answers = tag_on_ray(Tagger("model"), None, chunks)
    done = [next(answers)]
    while not (processes := stopped_at_work(node)):
        done.append(next(answers))
    for process in (raylet(node), *processes):
        os.kill(process, signal.SIGKILL)
    done.extend(answers)
    assert len(done) == len(chunks)
    assert contents(done) == expected
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


def raylet(node):
    return node.all_processes["raylet"][0].process.pid


def stopped_at_work(node):
    """The processes of a node, if one of them is tagging, which is stopped in the midst of it."""
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
