"""The options --label-column and --label-separator of the commands that read manifests."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spectag.cli import main
from spectag.cli.app import app
from spectag.errors import DataWarning

COMMANDS = ["inspect", "split", "relabel", "prepare", "show", "augment", "soundscapes", "train", "tune", "lr-find"]


@pytest.mark.parametrize("command", [*COMMANDS, "evaluate", "calibrate", "review"])
def test_every_command_that_reads_a_manifest_has_the_options(command):
    names = {name for argument in app[command].assemble_argument_collection() for name in argument.names}
    assert {"--label-column", "--label-separator"} <= names


@pytest.fixture
def table(tmp_path) -> Path:
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.random.default_rng(0).normal(0, 0.1, 8000).astype("f4"), 8000)
    (tmp_path / "m.csv").write_text("fname,my calls\na.wav,Dog;Cat\nb.wav,Dog\n")
    return tmp_path / "m.csv"


def test_column_and_separator_of_the_labels_are_chosen(table, capsys):
    options = ["--label-column", "My Calls", "--label-separator", ";"]
    assert main(["inspect", str(table), *options, "--no-find-shared-audio", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clips_per_label"] == {"Dog": 2, "Cat": 1}
    assert main(["split", str(table), *options, "--folds", "2", "--output", str(table.with_name("folds.csv"))]) == 0
    assert table.with_name("folds.csv").read_text().splitlines()[0] == "fname,fold,labels"


def test_without_the_options_an_error_and_a_warning_name_them(table, capsys):
    assert main(["inspect", str(table)]) == 1
    assert "--label-column" in capsys.readouterr().err
    with pytest.warns(DataWarning, match="use --label-separator ';'"):
        assert main(["inspect", str(table), "--label-column", "my calls", "--no-find-shared-audio"]) == 0
