"""Embeddings of recordings: the features of the network, in Python and in files."""

import numpy as np
import pandas
import pytest

from helpers.bundles import MEL, make_bundle, tone
from spectag.audio.files import write_audio
from spectag.config.base import WindowConfig
from spectag.errors import AudioError, ConfigError
from spectag.models.tagger import Tagger
from spectag.tagging.embeddings import embed

RATE = MEL.sample_rate


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "modell für töne")


@pytest.fixture
def folder(tmp_path):
    """Two sounds and a file that is none."""
    folder = tmp_path / "auf nahmen"
    folder.mkdir()
    for name, label, seconds in (("a b.wav", "low", 1.0), ("ü.wav", "high", 2.5)):
        write_audio(folder / name, tone(label, seconds), RATE)
    (folder / "broken.wav").write_bytes(b"RIFF but no sound")
    return folder


def test_row_of_a_recording_is_that_of_the_tagger(model, folder):
    tagger = Tagger(model)
    embeddings = embed(folder, model=model)
    assert embeddings.files == (str(folder / "a b.wav"), str(folder / "ü.wav"))
    assert np.array_equal(embeddings.features, [tagger.embed(file) for file in embeddings.files])
    assert embeddings.end_seconds.tolist() == [1.0, 2.5]
    assert len(embeddings.skipped) == 1
    assert "broken.wav" in embeddings.skipped[0]
    assert repr(embeddings) == f"Embeddings(2 x {MEL.n_mels} features of 2 recordings, 1 skipped by {model})"


@pytest.mark.parametrize("window", [1.0, WindowConfig(window_seconds=1.0)])
def test_windows_have_a_row_each(model, folder, window):
    embeddings = embed(folder / "ü.wav", model=Tagger(model), window=window)
    assert embeddings.start_seconds.tolist() == [0.0, 1.0, 1.5]
    assert np.array_equal(embeddings.features, Tagger(model).embed(folder / "ü.wav", window=1.0))


def test_npz_and_parquet_contain_the_rows(model, folder, tmp_path):
    embeddings = embed(folder, tmp_path / "e.npz", model=model)
    with np.load(tmp_path / "e.npz") as arrays:  # allow_pickle is off
        assert arrays["files"].tolist() == list(embeddings.files)
        assert np.array_equal(arrays["features"], embeddings.features)
        assert arrays["end"].tolist() == [1.0, 2.5]
        assert arrays["model"] == str(model)
    embeddings.write(tmp_path / "e.parquet")
    table = pandas.read_parquet(tmp_path / "e.parquet")
    assert list(table.columns) == ["file", "start", "end", "features"]
    assert np.array_equal(np.stack(table.features), embeddings.features)
    frame = embeddings.to_dataframe()
    assert list(frame.columns) == list(table.columns)
    assert frame.file.tolist() == table.file.tolist()


@pytest.mark.parametrize("name", ["e.csv", "e", "e.wav"])
def test_other_suffix_is_an_error_before_the_work(folder, name):
    with pytest.raises(ConfigError, match=rf"{name}: need a file that ends in \.npz or \.parquet"):
        embed(folder, name, model="no model")


def test_no_readable_recording_is_an_error(model, folder):
    with pytest.raises(AudioError, match=r"none of the 1 recordings can be read: .*broken\.wav"):
        embed(folder / "broken.wav", model=model)


def test_command_writes_the_file_and_lists_skipped_recordings(run, model, folder, tmp_path):
    done = run("embed", folder, "-o", tmp_path / "e.npz", "--model", model, "--window", 1)
    assert done.status == 3
    assert f"4 embeddings with {MEL.n_mels} features: {tmp_path / 'e.npz'}" in done.err
    assert "skipped: " in done.err
    assert done.out == ""
    with np.load(tmp_path / "e.npz") as arrays:
        assert arrays["start"].tolist() == [0.0, 0.0, 1.0, 1.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "e.npz"], "spectag embed needs RECORDINGS or --files-from LIST"),
        (["x.wav", "-o", "e.npz", "--overlap", "1"], "--overlap 1 needs --window"),
        (["x.wav", "-o", "e.npz", "--window", "1", "--overlap", "2"], "need overlap < window"),
    ],
)
def test_wrong_usage_is_status_2(run, arguments, message):
    done = run("embed", *arguments)
    assert done.status == 2
    assert message in done.err
