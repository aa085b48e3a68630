"""The option --device reaches the networks of each command that has it."""

import pytest

from helpers.bundles import make_bundle, tone
from helpers.devices import PretendedRuntime
from spectag.audio.files import write_audio
from spectag.models import network_session


@pytest.fixture
def words(tmp_path):
    """What stands for a model, recordings, a manifest and outputs in the commands below."""
    write_audio(tmp_path / "a.wav", tone("low", 0.5), 16_000)
    (tmp_path / "labels.csv").write_text("fname,labels\na.wav,low\n")
    return {
        "MODEL": str(make_bundle(tmp_path / "model")),
        "SOUNDS": str(tmp_path / "a.wav"),
        "MANIFEST": str(tmp_path / "labels.csv"),
        "OUT": str(tmp_path / "out"),
    }


COMMANDS = (
    "tag MODEL SOUNDS",
    "tag MODEL SOUNDS -o OUT",
    "listen MODEL",
    "embed SOUNDS --model MODEL -o OUT.npz",
    "index SOUNDS --model MODEL -o OUT",
    "evaluate MODEL MANIFEST",
)


def with_words(command, words):
    for name, value in words.items():
        command = command.replace(name, value)
    return command.split()


@pytest.mark.parametrize("command", COMMANDS)
def test_command_refuses_a_device_that_is_not_installed(run, monkeypatch, words, command):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    done = run(*with_words(command, words), "--device", "directml")
    assert done.status == 1
    assert done.err.startswith("spectag: device directml: the installed onnxruntime")
    assert done.err.endswith("available: cpu\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_device_that_does_not_work_ends_a_command_before_it_writes_anything(run, monkeypatch, words, tmp_path, command):
    PretendedRuntime(["CUDAExecutionProvider"], broken={"CUDAExecutionProvider": "no device"}).use(monkeypatch)
    monkeypatch.setattr(network_session, "_load_cuda", lambda: "")
    monkeypatch.setattr("spectag.audio.microphone.open_microphone", None)
    before = sorted(tmp_path.rglob("*"))
    done = run(*with_words(command, words), "--device", "cuda")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("spectag: device cuda: onnxruntime cannot run ")
    assert done.err.endswith(": no device; see spectag doctor\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_cpu_is_always_a_device(run, words):
    on_cpu = run("tag", words["MODEL"], words["SOUNDS"], "--device", "cpu")
    assert on_cpu.status == 0
    assert on_cpu.out == run("tag", words["MODEL"], words["SOUNDS"]).out
