"""The check of the devices that run networks."""

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.devices import PretendedRuntime
from spectag.errors import ConfigError
from spectag.models import device_check, network_session
from spectag.models.device_check import check_device, check_devices

CUDA = "CUDAExecutionProvider"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(device_check, "_MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(network_session, "_load_cuda", lambda: "")


def test_network_written_by_hand_is_valid_onnx_with_probabilities_that_are_not_saturated():
    content = device_check._network()
    onnx.checker.check_model(content, full_check=True)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    probabilities, _ = device_check._measured(session)
    assert np.ptp(probabilities) > 0.1
    assert 0.01 < probabilities.min() < probabilities.max() < 0.99


def test_cpu_runs_and_has_a_speed():
    check = check_device("cpu")
    assert (check.runs, check.difference, check.note) == (True, 0.0, "")
    assert check.windows_per_second > 1


def test_device_that_computes_the_same_runs_and_says_what_it_leaves_to_the_cpu(monkeypatch):
    PretendedRuntime([CUDA], on_cpu=["Sigmoid"]).use(monkeypatch)
    check = check_device("cuda")
    assert (check.runs, check.provider, check.difference) == (True, CUDA, 0.0)
    assert check.note == "1 of the 4 operations run on the CPU, not on cuda: Sigmoid"


@pytest.mark.parametrize(("error", "runs"), [(5e-4, True), (2e-3, False), (np.nan, False)])
def test_device_with_other_probabilities_does_not_run(monkeypatch, error, runs):
    PretendedRuntime([CUDA]).use(monkeypatch)
    measured = device_check._measured

    def measured_wrongly(session):
        probabilities, speed = measured(session)
        return probabilities + error * (network_session.device_of(session) == "cuda"), speed

    monkeypatch.setattr(device_check, "_measured", measured_wrongly)
    check = check_device("cuda")
    assert check.runs == runs
    assert ("differs by" in check.note) != runs


def test_device_that_does_not_open_has_the_reason(monkeypatch):
    PretendedRuntime([CUDA], broken={CUDA: "CUDA failure 35"}).use(monkeypatch)
    check = check_device("cuda")
    assert not check.runs
    assert check.note == "device cuda: onnxruntime cannot run a network on it: CUDA failure 35"


@pytest.mark.parametrize(
    ("script", "note"),
    [
        ("import sys; sys.exit('Segmentation fault')", "its process died: Segmentation fault"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
        ("from spectag.models.device_check import print_check; print_check('cuda')", "does not have it"),
    ],
)
def test_accelerator_is_checked_in_a_process_of_its_own(monkeypatch, script, note):
    PretendedRuntime([CUDA]).use(monkeypatch)
    monkeypatch.setattr(device_check, "_SCRIPT", script)
    if "sleep" in script:
        monkeypatch.setattr(device_check, "_MAX_SECONDS", 0.5)
    cpu, cuda = check_devices()
    assert (cpu.runs, cuda.runs, cuda.device) == (True, False, "cuda")
    assert note in cuda.note


def test_missing_cuda_says_which_computers_can_have_it(monkeypatch):
    monkeypatch.setattr(network_session, "installed_accelerators", list)
    with pytest.raises(ConfigError, match=r"does not have it \(only with an NVIDIA GPU: pip uninstall onnxruntime"):
        network_session.accelerators_for("cuda")
