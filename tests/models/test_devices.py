"""The device of a tagger: which one is taken, what happens if it does not work, and in which precision it computes."""

import warnings

import numpy as np
import pytest

from helpers.bundles import MEL, make_bundle, make_ensemble, make_ensemble_info, tone
from helpers.devices import PretendedRuntime
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.devices import ACCELERATORS
from spectag.errors import ConfigError, DeviceWarning
from spectag.models import network_session
from spectag.models.pretrained import load
from spectag.models.tagger import Tagger
from spectag.tagging import parallel
from spectag.tagging.parallel import chunked, tag_chunks
from spectag.tagging.ray_engine import tag_on_ray

RATE = 16_000
CUDA, COREML = "CUDAExecutionProvider", "CoreMLExecutionProvider"
DIRECTML, OPENVINO = "DmlExecutionProvider", "OpenVINOExecutionProvider"


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "model")


@pytest.fixture(autouse=True)
def no_cuda_libraries(monkeypatch):
    monkeypatch.setattr(network_session, "_load_cuda", lambda: "")


def probabilities(tagger):
    return tagger.probabilities(tone("low", 0.5), RATE)


def heard(tagger):
    """The warnings of a tagger that opens its networks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        probabilities(tagger)
        probabilities(tagger)
    assert all(warning.category is DeviceWarning for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    ("installed", "device"),
    [
        ([], "cpu"),
        (["AzureExecutionProvider", "TensorrtExecutionProvider"], "cpu"),
        ([CUDA], "cuda"),
        ([DIRECTML], "directml"),
        ([DIRECTML, CUDA], "cuda"),
        ([COREML], "cpu"),  # every onnxruntime for macOS has it
        ([OPENVINO], "cpu"),  # it often has no other device than the CPU
    ],
)
def test_auto_takes_an_accelerator_that_was_installed_for_speed(bundle, monkeypatch, installed, device):
    runtime = PretendedRuntime(installed).use(monkeypatch)
    tagger = Tagger(bundle)
    assert heard(tagger) == []
    assert tagger.runs_on == device
    assert bool(runtime.options) == (device != "cpu")


@pytest.mark.parametrize("name", ACCELERATORS)
def test_device_that_was_asked_for_is_used(bundle, monkeypatch, name):
    PretendedRuntime([each.provider for each in ACCELERATORS.values()]).use(monkeypatch)
    tagger = load(bundle, device=name)
    expected = probabilities(Tagger(bundle, device="cpu"))
    assert heard(tagger) == []
    assert tagger.runs_on == name
    np.testing.assert_allclose(probabilities(tagger), expected, atol=1e-6)


def test_cpu_never_tries_an_accelerator(bundle, monkeypatch):
    runtime = PretendedRuntime([CUDA]).use(monkeypatch)
    tagger = Tagger(bundle, device="cpu")
    probabilities(tagger)
    assert (tagger.runs_on, runtime.options) == ("cpu", [])


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cuda", r"pip uninstall onnxruntime, then pip install 'onnxruntime-gpu\[cuda,cudnn\]'"),
        ("directml", "pip install 'onnxruntime-directml'"),
        ("openvino", "pip install 'onnxruntime-openvino'"),
        ("coreml", "it is part of onnxruntime for macOS"),
    ],
)
def test_device_that_onnxruntime_lacks_is_refused_at_once_with_what_to_install(bundle, monkeypatch, name, advice):
    others = [each for each in ACCELERATORS.values() if each.name in ("cuda", "coreml") and each.name != name]
    PretendedRuntime([each.provider for each in others]).use(monkeypatch)
    available = ", ".join(["cpu", *(each.name for each in others)])
    with pytest.raises(ConfigError, match=rf"^device {name}: .*{advice}.*; available: {available}$"):
        Tagger(bundle, device=name)


@pytest.mark.parametrize(
    ("error", "reason"),
    [("CUDA failure 100: no device\nmore", "CUDA failure 100: no device"), ("", "its driver or a library is missing")],
)
def test_device_that_does_not_work_is_an_error_if_asked_for_and_a_warning_otherwise(bundle, monkeypatch, error, reason):
    PretendedRuntime([CUDA], broken={CUDA: error}).use(monkeypatch)
    with pytest.raises(ConfigError, match=rf"device cuda: onnxruntime cannot run .*model.onnx on it: {reason}"):
        probabilities(Tagger(bundle, device="cuda"))
    automatic = Tagger(bundle)
    [warning] = heard(automatic)
    assert reason in warning
    assert "The CPU is used instead" in warning
    assert automatic.runs_on == "cpu"


def test_session_of_which_all_runs_on_the_cpu_is_not_taken_for_an_accelerated_one(bundle, monkeypatch):
    PretendedRuntime([CUDA], on_cpu=["Conv", "Gemm"], accelerated=()).use(monkeypatch)
    with pytest.raises(ConfigError, match="onnxruntime cannot run"):
        probabilities(Tagger(bundle, device="cuda"))


def test_operations_that_stay_on_the_cpu_are_named_once(bundle, monkeypatch):
    PretendedRuntime([CUDA], on_cpu=["Shape", "Concat", "Shape"]).use(monkeypatch)
    [warning] = heard(Tagger(bundle, device="cuda"))
    assert warning.endswith("model.onnx: 3 of the 6 operations run on the CPU, not on cuda: Shape, Concat")


def test_onnxruntime_that_does_not_say_where_operations_run_is_named_but_used(bundle, monkeypatch):
    PretendedRuntime([CUDA], is_old=True).use(monkeypatch)
    tagger = Tagger(bundle)
    [warning] = heard(tagger)
    assert "this onnxruntime does not say which operations run on the CPU" in warning
    assert tagger.runs_on == "cuda"


def test_old_onnxruntime_that_silently_takes_the_cpu_is_noticed(bundle, monkeypatch):
    PretendedRuntime([CUDA], broken={CUDA: ""}, is_old=True).use(monkeypatch)
    with pytest.raises(ConfigError, match="onnxruntime cannot run"):
        probabilities(Tagger(bundle, device="cuda"))


def test_openvino_says_if_it_finds_no_gpu(bundle, monkeypatch):
    runtime = PretendedRuntime([OPENVINO], broken={"GPU": "Device GPU is not available"}).use(monkeypatch)
    tagger = Tagger(bundle, device="openvino")
    [warning] = heard(tagger)
    assert "cannot be used with device_type=GPU" in warning
    assert [options["device_type"] for options in runtime.options] == ["GPU", "CPU"]
    assert tagger.runs_on == "openvino"


def test_accelerators_compute_in_float32(bundle, monkeypatch):
    runtime = PretendedRuntime([each.provider for each in ACCELERATORS.values()]).use(monkeypatch)
    for name in ("cuda", "coreml", "openvino"):
        probabilities(Tagger(bundle, device=name))
    cuda, coreml, openvino = runtime.options
    assert cuda["use_tf32"] == "0"
    assert (coreml["ModelFormat"], coreml["MLComputeUnits"]) == ("MLProgram", "CPUAndGPU")
    assert openvino["precision"] == "ACCURACY"


def test_directml_has_no_memory_pattern_because_it_does_not_allow_it(bundle, monkeypatch):
    runtime = PretendedRuntime([DIRECTML]).use(monkeypatch)
    probabilities(Tagger(bundle))
    assert [settings.enable_mem_pattern for settings in runtime.settings] == [False]


def test_only_the_cpu_takes_its_memory_from_the_limited_pool(bundle, monkeypatch):
    runtime = PretendedRuntime([CUDA]).use(monkeypatch)
    limits = []
    monkeypatch.setattr(network_session, "_limit_memory", lambda: limits.append("limited"))
    probabilities(Tagger(bundle))
    assert limits == []
    assert len(runtime.options) == 1


def test_another_channel_keeps_the_device(bundle, monkeypatch):
    PretendedRuntime([CUDA]).use(monkeypatch)
    assert Tagger(bundle, device="cuda").with_channel("loudest").runs_on == "cuda"
    assert Tagger(bundle, device="cpu").with_channel("loudest").runs_on == "cpu"


def test_ensemble_opens_each_network_on_the_accelerator(tmp_path, monkeypatch):
    runtime = PretendedRuntime([CUDA]).use(monkeypatch)
    folder = make_ensemble(tmp_path / "two", make_ensemble_info([FrontEnd(mel=MEL)] * 2, [0.5, 0.5]))
    assert Tagger(folder).runs_on == "cuda"
    assert len(runtime.options) == 2


def test_files_are_tagged_in_one_process_with_an_accelerator_and_in_several_without(bundle, tmp_path, monkeypatch):
    PretendedRuntime([CUDA]).use(monkeypatch)
    paths = [tmp_path / f"{number}.wav" for number in range(3)]
    for path in paths:
        write_audio(path, tone("low", 0.3), RATE)
    devices = []

    def in_processes(function, chunks, *, n_workers):
        devices.append(function.args[0].device)
        yield from ((chunk, function(chunk)) for chunk in chunks)

    monkeypatch.setattr(parallel, "map_surviving_crashes", in_processes)
    chunks = chunked(list(map(str, paths)), workers=3)
    tagged = {
        device: [chunk for _, chunk in tag_chunks(Tagger(bundle, device=device), chunks, None, workers=3)]
        for device in ("cuda", "cpu")
    }
    assert devices == ["cpu"]
    for cuda, cpu in zip(tagged["cuda"], tagged["cpu"], strict=True):
        np.testing.assert_array_equal(cuda.files[0].timeline.probabilities, cpu.files[0].timeline.probabilities)


def test_worker_processes_do_not_try_an_accelerator_that_does_not_work(bundle, tmp_path, monkeypatch):
    PretendedRuntime([CUDA], broken={CUDA: "no device"}).use(monkeypatch)
    write_audio(tmp_path / "a.wav", tone("low", 0.3), RATE)
    devices = []

    def in_processes(function, chunks, *, n_workers):
        devices.append(function.args[0].device)
        yield from ((chunk, function(chunk)) for chunk in chunks)

    monkeypatch.setattr(parallel, "map_surviving_crashes", in_processes)
    with pytest.warns(DeviceWarning) as caught:
        list(tag_chunks(Tagger(bundle), chunked([str(tmp_path / "a.wav")] * 3, workers=3), None, workers=3))
    assert devices == ["cpu"]
    assert len(caught) == 1


def test_model_is_not_loaded_for_a_device_that_does_not_run_it(bundle, monkeypatch):
    PretendedRuntime([CUDA], broken={CUDA: "no device"}).use(monkeypatch)
    with pytest.raises(ConfigError, match=r"device cuda: onnxruntime cannot run .*: no device"):
        load(bundle, device="cuda")


def test_ray_refuses_an_accelerator_because_it_tags_on_cpus(bundle, monkeypatch):
    PretendedRuntime([CUDA]).use(monkeypatch)
    with pytest.raises(ConfigError, match="Ray tags on the CPUs of its machines, not on cuda"):
        next(tag_on_ray(Tagger(bundle, device="cuda"), None, []))
