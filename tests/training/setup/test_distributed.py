"""Two processes that train together give the weights of one process, and only the main one writes."""

import json
import math
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from helpers.small_training import SMALL_MEL, small_recipe, write_sounds
from spectag.config.base import to_toml
from spectag.config.recipe import Recipe
from spectag.errors import ConfigError, SpectagError
from spectag.models.bundle import read_info
from spectag.training.pipeline import train
from spectag.training.setup.distributed import Processes, n_launched

SCRIPT = """
import contextlib, io, json, os, sys
from pathlib import Path
from spectag.cli import main
from spectag.errors import SpectrogramCacheError, SpectagError
from spectag.training.setup.distributed import Processes

def call(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(map(str, arguments)))
    return {"status": status, "out": out.getvalue(), "err": err.getvalue()}

folder, rank = Path(sys.argv[1]), os.environ["RANK"]
data = folder / "data" / "clips.csv"
done = {
    "tuned": call("train", data, "-o", folder / "double", "--config", folder / "tuned.toml"),
    "frozen": call("train", data, "-o", folder / "frozen double", "--config", folder / "frozen.toml"),
    "refused": call("train", folder / "nothing.csv", "-o", folder / "refused"),
}
processes = Processes.connect(frozen_only=False)
done["received"] = processes.broadcast(f"sent by {rank}")
done["first"] = processes.broadcast_from_main(lambda: f"made by {rank}")
order = folder / "order.txt"
with processes.main_process_first():
    with order.open("a") as file:
        file.write(rank)
try:
    with processes.main_process_first():
        if rank == "0":
            raise SpectrogramCacheError("the disk is full")
except SpectagError as error:
    done["error"] = str(error)
processes.wait()
(folder / f"{rank}.json").write_text(json.dumps(done))
os._exit(0)  # as `python -m spectag` ends one of several processes
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sounds, an earlier model (whose batch normalisation has statistics), and what one process trains from them."""
    folder = tmp_path_factory.mktemp("processes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(folder / "cache"))
        data = write_sounds(folder / "data")
        frozen = Recipe(backbone="scratch", mel=SMALL_MEL, validation_fraction=0.25)
        train(data, folder / "frozen", frozen)
        settings = {"optimizer": "sgd", "learning_rate": 1e-3, "validation_fraction": 0.25}
        tuned = small_recipe(init=folder / "frozen", **settings)
        train(data, folder / "single", tuned)
    (folder / "tuned.toml").write_text(to_toml(tuned), encoding="utf-8")
    (folder / "frozen.toml").write_text(to_toml(frozen), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def launched(folder):
    """The results of both processes."""
    (folder / "launched.py").write_text(SCRIPT, encoding="utf-8")
    flags = ["--multi_gpu", "--num_processes", 2, "--num_machines", 1, "--mixed_precision", "no"]
    flags += ["--dynamo_backend", "no", "--main_process_port", free_port()]
    command = [sys.executable, "-m", "accelerate.commands.launch", *flags, folder / "launched.py", folder]
    environment = os.environ | {"HF_HOME": str(folder / "home"), "SPECTAG_CACHE": str(folder / "cache")}
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def weights(bundle):
    return load_file(bundle / "weights.safetensors")


def distance(first, second):
    return math.sqrt(sum(((first[name] - second[name]).double() ** 2).sum() for name in first))


@pytest.mark.slow
def test_two_processes_fine_tune_to_the_weights_of_one(launched, folder):
    assert [done["tuned"]["status"] for done in launched] == [0, 0]
    single, double, before = (weights(folder / name) for name in ("single", "double", "frozen"))
    torch.testing.assert_close(double, single, rtol=1e-4, atol=1e-7)
    assert distance(single, before) > 1e-3
    assert distance(single, double) < 1e-4 * distance(single, before)  # compared with the change by training
    scores = [read_info(folder / name).metrics["lwlrap"] for name in ("single", "double")]
    assert scores[1] == pytest.approx(scores[0])


@pytest.mark.slow
def test_two_processes_fit_the_frozen_head_of_one(launched, folder):
    assert [done["frozen"]["status"] for done in launched] == [0, 0]
    assert (folder / "frozen double" / "weights.safetensors").read_bytes() == (
        folder / "frozen" / "weights.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_only_the_main_process_prints_and_writes(launched, folder):
    first, second = launched
    for run in ("tuned", "frozen"):
        assert f"model: {folder}" in first[run]["out"]
        assert "2 processes share each batch (cpu)" in first[run]["err"]
        assert "held out" in first[run]["err"]
        assert second[run]["err"] == ""
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []


@pytest.mark.slow
def test_error_in_the_arguments_is_raised_in_every_process(launched):
    assert [done["refused"]["status"] for done in launched] == [1, 1]


@pytest.mark.slow
def test_error_of_the_main_process_is_raised_in_every_process(launched):
    assert [done["error"] for done in launched] == ["the disk is full"] * 2


@pytest.mark.slow
def test_main_process_goes_first_and_its_value_is_sent_to_all(launched, folder):
    assert (folder / "order.txt").read_text() == "01"
    assert [(done["received"], done["first"]) for done in launched] == [("sent by 0", "made by 0")] * 2


# ------------------------------------------------------------------------------------------------ one process


def test_one_process_needs_no_accelerator_for_frozen_networks(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.connect(frozen_only=True)
    assert (alone.accelerator, alone.is_main, alone.is_distributed) == (None, True, False)
    assert alone.broadcast(3) == 3
    assert alone.broadcast_from_main(lambda: 4) == 4
    with pytest.raises(SpectagError, match="full"), alone.main_process_first():
        raise SpectagError("the disk is full")
    alone.wait()


@pytest.mark.parametrize(
    ("environment", "n"), [({}, 1), ({"WORLD_SIZE": "4"}, 4), ({"OMPI_COMM_WORLD_SIZE": "2"}, 2)], ids=str
)
def test_launchers_set_the_number_of_processes(monkeypatch, environment, n):
    monkeypatch.setattr("os.environ", environment)
    assert n_launched() == n


def test_launcher_that_started_fewer_processes_than_requested_gives_a_note(monkeypatch):
    """As `accelerate launch --cpu --num_processes 2` does."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Processes().note == ""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert Processes().note == ""
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert "only one process is training: accelerate launch starts several only with --multi_gpu" in Processes().note


def test_split_network_is_refused(monkeypatch):
    class Sharded:
        class distributed_type:  # noqa: N801
            value = "FSDP"

    monkeypatch.setattr("accelerate.Accelerator", lambda **_: Sharded)
    with pytest.raises(
        ConfigError, match="accelerate is configured for FSDP, but each spectag process needs the whole network"
    ):
        Processes.connect(frozen_only=False)
