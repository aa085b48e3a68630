"""spectag doctor: what works, what is missing, and the command that brings it."""

import json
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError

import pytest

from helpers.paths import PROJECT
from spectag.audio.microphone import Microphone
from spectag.config.backbones import PUBLISHED
from spectag.errors import AudioError, MissingExtraError
from spectag.models.device_check import DeviceCheck
from spectag.reporting import diagnosis
from spectag.reporting.diagnosis import diagnose
from spectag.system import environment
from spectag.system.environment import PURPOSES, extras, installed_version

REQUIREMENTS = [
    "numpy>=1.26",
    "sounddevice>=0.4.6; extra == 'listen'",
    'pyarrow>=15.0; extra == "parquet"',
    'matplotlib>=3.8; extra == "plots"',
    'spectag[parquet,plots]; extra == "finetune"',
    'torch>=2.6; (python_version < "4") and extra == "train"',
    'spectag[finetune]; extra == "train"',
    'pytest>=8; extra == "dev"',
]

CPU = DeviceCheck("cpu", "CPUExecutionProvider", True, 80.4, 0.0)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine with a microphone and without torch, whose spectag has these requirements; pyarrow is not installed."""

    def version(package):
        if package in ("pyarrow", "torch") or package.startswith("onnxruntime-"):
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setattr(environment, "requires", lambda _: REQUIREMENTS)
    monkeypatch.setattr(environment, "version", version)
    monkeypatch.setattr(diagnosis, "microphones", lambda: [Microphone(3, "USB mic", 2, 48_000, True)])
    monkeypatch.setattr(diagnosis, "check_devices", lambda: [CPU])
    environment._requirements.cache_clear()
    yield
    environment._requirements.cache_clear()


def of_topic(topic):
    return [finding for finding in diagnose() if finding.topic == topic]


def test_every_extra_for_users_has_a_purpose():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["optional-dependencies"].keys() - {"dev", "docs"} == PURPOSES.keys()


def test_missing_packages_of_an_extra_include_those_of_its_extras():
    missing = {extra.name: extra.missing for extra in extras()}
    assert missing == {
        "finetune": ("pyarrow",),
        "listen": (),
        "parquet": ("pyarrow",),
        "plots": (),
        "train": ("torch", "pyarrow"),
    }


def test_missing_extra_has_the_command_that_installs_it():
    train = next(finding for finding in of_topic("extras") if finding.text.startswith("train"))
    assert (train.state, train.advice) == ("optional", "pip install 'spectag[train]'")
    assert train.text == "train: not installed (needed for spectag train and spectag demo; packages: torch, pyarrow)"


def test_package_that_cannot_be_imported_is_a_problem(monkeypatch):
    def import_module(name):
        if name == "soundfile":
            raise OSError("libsndfile.so:\n not found")

    monkeypatch.setattr(diagnosis.importlib, "import_module", import_module)
    [problem] = [finding for finding in of_topic("versions") if finding.state == "problem"]
    assert problem.text == "soundfile cannot be imported: libsndfile.so: not found"
    assert problem.advice == "pip install --force-reinstall soundfile"


@pytest.mark.parametrize(
    ("result", "state", "text"),
    [
        ("NVIDIA H200\n", "ok", "torch 2.9: NVIDIA H200"),
        ("", "ok", "torch 2.9: no GPU, so fine-tuning uses the CPU"),
        (
            subprocess.CalledProcessError(1, "", stderr="Traceback\nOSError: libcudart.so"),
            "problem",
            "OSError: libcudart",
        ),
        (
            subprocess.CalledProcessError(3, "python", stderr=" \n"),
            "problem",
            "torch 2.9 cannot be imported: Command 'python' returned non-zero exit status 3.",
        ),
        (OSError("no more processes"), "problem", "torch 2.9 cannot be imported: no more processes"),
        (subprocess.TimeoutExpired("python", 60), "problem", "torch 2.9 was not imported within 60 s: it is not known"),
    ],
)
def test_gpu_is_found_by_torch_in_a_process_of_its_own(monkeypatch, result, state, text):
    def run(*_arguments, **_options):
        if isinstance(result, Exception):
            raise result
        return subprocess.CompletedProcess([], 0, stdout=result)

    monkeypatch.setattr(diagnosis, "installed_version", lambda _: "2.9")
    monkeypatch.setattr(diagnosis.subprocess, "run", run)
    finding = of_topic("devices")[1]
    assert finding.state == state
    assert text in finding.text


def test_cores_and_memory_are_shown():
    [finding] = of_topic("devices")
    assert "CPU cores" in finding.text


def test_device_that_runs_networks_is_shown_with_its_speed_and_its_difference(monkeypatch):
    cuda = DeviceCheck("cuda", "CUDAExecutionProvider", True, 2345.6, 2e-6, "2 of the 9 operations run on the CPU")
    monkeypatch.setattr(diagnosis, "check_devices", lambda: [CPU, cuda])
    on_cpu, on_cuda = of_topic("networks")
    assert on_cpu.text.endswith("CPUExecutionProvider       runs: 80 windows of 10 s per second on one core")
    assert (on_cuda.state, on_cuda.device) == ("ok", cuda)
    assert "runs: 2,346 windows of 10 s per second, within 2e-06 of the CPU; 2 of the 9" in on_cuda.text


@pytest.mark.parametrize(("device", "state"), [("cuda", "problem"), ("coreml", "optional")])
def test_device_that_does_not_run_is_a_problem_if_its_package_was_installed_for_it(monkeypatch, device, state):
    broken = DeviceCheck(device, "TheProvider", False, note="no driver")
    monkeypatch.setattr(diagnosis, "check_devices", lambda: [CPU, broken])
    finding = of_topic("networks")[1]
    assert (finding.state, finding.text.split()) == (state, f"{device} TheProvider does not run: no driver".split())


def test_two_packages_with_onnxruntime_are_a_problem(monkeypatch):
    assert [finding.state for finding in of_topic("networks")] == ["ok", "optional"]
    monkeypatch.setattr(diagnosis, "installed_version", lambda package: "gpu" in package or package == "onnxruntime")
    [problem, *_] = of_topic("networks")
    assert problem.text == "onnxruntime and onnxruntime-gpu are installed, and overwrite each other's files"


def test_json_has_the_numbers_of_each_device(run):
    findings = json.loads(run("doctor", "--json").out)
    [cpu, _] = [finding["device"] for finding in findings if finding["topic"] == "networks"]
    assert (cpu["device"], cpu["runs"], cpu["windows_per_second"], cpu["difference"]) == ("cpu", True, 80.4, 0.0)


def test_cache_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    assert of_topic("cache")[0].state == "ok"
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "file" / "cache"))
    [finding] = of_topic("cache")
    assert (finding.state, finding.advice) == ("problem", "set SPECTAG_CACHE to another folder")


def test_models_that_are_not_here_are_one_line_and_the_others_have_their_files(tmp_path, monkeypatch):
    models, clap = of_topic("weights")
    assert (models.advice, clap.advice) == ("spectag models lists them", "spectag models clap")
    assert models.text.startswith(f"{len(PUBLISHED)} published models: not downloaded")
    (tmp_path / "mn04_as_mAP_432.pt").touch()
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path))
    variable, mn04, others, _ = of_topic("weights")
    assert variable.text == f"SPECTAG_WEIGHTS: {tmp_path}"
    assert mn04.text == f"audioset-mn04: {tmp_path / 'mn04_as_mAP_432.pt'}"
    assert others.text.startswith(f"{len(PUBLISHED) - 1} published models")


def test_microphones_are_listed():
    [finding] = of_topic("microphones")
    assert finding.text == "3: USB mic (2 channels, 48,000 Hz, the default)"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (MissingExtraError("sounddevice", "listen", "a microphone"), "pip install 'spectag[listen]'"),
        (AudioError("a microphone needs the library PortAudio: apt install libportaudio2"), "apt install"),
        ([], "spectag listen - reads sound from another program"),
    ],
)
def test_missing_microphone_has_an_advice(monkeypatch, answer, words):
    def microphones():
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(diagnosis, "microphones", microphones)
    [finding] = of_topic("microphones")
    assert finding.state == "optional"
    assert words in f"{finding.text} {finding.advice}"
    [listen] = [finding for finding in of_topic("extras") if finding.text.startswith("listen: ")]
    assert listen.state == ("optional" if isinstance(answer, Exception) else "ok")


def test_command_shows_topics_and_advice(run):
    done = run("doctor")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    topics = [line for line in lines if not line.startswith(" ")]
    assert topics == ["versions", "devices", "networks", "extras", "cache", "weights", "microphones"]
    position = lines.index("  optional  parquet: not installed (needed for Parquet tables; packages: pyarrow)")
    assert lines[position + 1] == "            -> pip install 'spectag[parquet]'"


def test_exit_status_is_1_if_something_does_not_work(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SPECTAG_WEIGHTS", str(tmp_path / "gone"))
    done = run("doctor", "--json")
    assert done.status == 1
    [problem] = [finding for finding in json.loads(done.out) if finding["state"] == "problem"]
    assert problem["topic"] == "weights"
    assert f"{tmp_path / 'gone'} is not a folder" in problem["text"]


def test_version_of_a_package_that_is_not_installed_is_none():
    assert installed_version("torch") is None
