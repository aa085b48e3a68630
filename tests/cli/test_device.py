"""The option --device reaches the networks of each command that has it."""

import pytest

from helpers.bundles import make_bundle, tone
from spectag.audio.files import write_audio


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


@pytest.mark.parametrize(
    "command",
    [
        "tag MODEL SOUNDS",
        "listen MODEL",
        "embed SOUNDS --model MODEL -o OUT.npz",
        "index SOUNDS --model MODEL -o OUT",
        "evaluate MODEL MANIFEST",
    ],
)
def test_command_refuses_a_device_that_is_not_installed(run, monkeypatch, words, command):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    for name, value in words.items():
        command = command.replace(name, value)
    done = run(*command.split(), "--device", "directml")
    assert done.status == 1
    assert done.err.startswith("spectag: device directml: the installed onnxruntime")
    assert done.err.endswith("available: cpu\n")


def test_cpu_is_always_a_device(run, words):
    on_cpu = run("tag", words["MODEL"], words["SOUNDS"], "--device", "cpu")
    assert on_cpu.status == 0
    assert on_cpu.out == run("tag", words["MODEL"], words["SOUNDS"]).out
