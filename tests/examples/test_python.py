"""The Python examples run, and print what they say."""

import os
import subprocess
import sys
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pandas
import pytest

from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from helpers.paths import PROJECT
from spectag.audio.files import write_audio
from spectag.data.demo_data import make_demo_data

EXAMPLES = PROJECT / "examples"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
THRESHOLDS = (2e-4, 0.4, 0.004)  # which each tone reaches, and no other tone


def run_example(name, *arguments, folder, **variables):
    """What an example prints to stdout."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / "python" / name, *map(str, arguments)],
        cwd=folder,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "model", make_info(thresholds=THRESHOLDS))


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(2):
        for label in LABELS:
            write_audio(folder / f"{label} {number}.wav", tone(label, 3 + number), MEL.sample_rate)
    return folder


def test_one_file(model, recordings, tmp_path):
    lines = run_example("tag_one_file.py", recordings / "middle 0.wav", model, folder=tmp_path).splitlines()
    assert lines[0].startswith("middle: 0.6")
    assert lines[1:] == ["0.0 to 3.0 s: middle"]


def test_microphone(model, tmp_path):
    """The microphone is a module that plays two tones and is then stopped."""
    (tmp_path / "sounddevice.py").write_text(
        f"""
import sys
sys.path.insert(0, {str(PROJECT / "tests")!r})
import numpy as np
from helpers.bundles import tone

class InputStream:
    def __init__(self, samplerate, channels, dtype):
        self.samples = np.concatenate([tone(label, 4.0, samplerate) for label in ("middle", "high")])[:, None]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, n):
        if not len(self.samples):
            raise KeyboardInterrupt
        block, self.samples = self.samples[:n], self.samples[n:]
        return block, False
""",
        encoding="utf-8",
    )
    lines = run_example("tag_microphone.py", model, folder=tmp_path, PYTHONPATH=str(tmp_path)).splitlines()
    assert lines[0] == "middle"
    assert lines[-2:] == ["high", "stopped"]
    assert len(lines) == 17


def test_many_files(model, recordings, tmp_path):
    (recordings / "broken.wav").write_bytes(b"no sound")
    text = run_example("tag_many_files.py", recordings, "out.csv", model, folder=tmp_path)
    assert text == "6 files, 3 labels: out.csv\n"
    table = pandas.read_csv(tmp_path / "out.csv", index_col="file")
    assert list(table.columns) == list(LABELS)
    assert table.loc[str(recordings / "middle 1.wav"), "middle"] > 0.5
    assert np.isfinite(table.to_numpy()).all()


def test_similar_sounds(model, recordings, tmp_path):
    text = run_example("find_similar_sounds.py", recordings / "high 0.wav", recordings, model, folder=tmp_path)
    similarity, name = text.splitlines()[0].split(maxsplit=1)
    assert (float(similarity), Path(name).name) == (1.0, "high 0.wav")
    assert text.splitlines()[1].endswith("high 1.wav")
    assert len(text.splitlines()) == 5


@pytest.mark.slow
def test_training_from_a_dataframe(tmp_path):
    data = make_demo_data(tmp_path / "data", n_curated=60, n_noisy=0, n_test=0)
    table = pandas.read_csv(data.train_curated)
    table["fname"] = "train_curated/" + table["fname"]
    table.to_csv(data.folder / "labels.csv", index=False)
    arguments = data.folder / "labels.csv", "model", "efficientnet_lite0"
    scores, evaluation, *rows = run_example("train_from_dataframe.py", *arguments, folder=tmp_path).splitlines()
    assert scores.startswith("Scores(lwlrap 0.")
    assert evaluation.startswith("Evaluation(model lwlrap 0.")
    assert evaluation.endswith("12 clips of DataFrame)")
    assert rows[0].split() == ["label", "n_clips", "average_precision", "f1"]


@pytest.mark.slow
def test_notebook_runs(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("data:image/jpeg" in output.get("data", {}).get("text/html", "") for output in shown)
    warnings = [output.text for output in shown if output.get("name") == "stderr"]
    assert [text for text in warnings if "IProgress" not in text] == []  # of tqdm, which timm imports


def test_notebook_is_small_and_its_outputs_are_there():
    assert NOTEBOOK.stat().st_size < 300_000
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert str(Path.home()) not in NOTEBOOK.read_text(encoding="utf-8")
