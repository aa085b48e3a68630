"""An exception that nobody expected, in one of several files: the run goes on and ends with exit status 3."""

import numpy as np
import pytest

from helpers.bundles import LABELS, make_bundle, tone
from spectag.audio import files
from spectag.audio.files import write_audio


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """Six sounds and a manifest; reading one of them fails in a way that is a bug."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    rows = ["fname,labels"]
    for number in range(6):
        label = LABELS[number % 3]
        noise = np.random.default_rng(number).normal(0, 0.01, 16_000).astype(np.float32)
        write_audio(folder / f"{number}.wav", tone(label, 1.0) * 0.5 + noise, 16_000)
        rows.append(f"{number}.wav,{label}")
    (folder / "clips.csv").write_text("\n".join(rows))
    open_sound = files.open_sound

    def fail_for_one(path, **options):
        if str(path).endswith("4.wav"):
            raise IndexError("list index out of range")
        return open_sound(path, **options)

    monkeypatch.setattr(files, "open_sound", fail_for_one)
    return folder


@pytest.mark.parametrize(
    ("is_gone", "line"), [(False, "a file is missing: No such file"), (True, "the current folder was")]
)
def test_current_folder_is_blamed_only_if_it_is_gone(run, monkeypatch, tmp_path, is_gone, line):
    def fail(_tokens):
        raise FileNotFoundError(2, "No such file")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("spectag.cli.app.run", fail)
    if is_gone:
        (tmp_path / "here").rmdir()
    done = run("models")
    assert done.status == 1
    assert done.err.startswith(f"spectag: {line}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["tag", "MODEL", "SOUNDS", "-o", "tags.csv", "--workers", "1"],
        ["tag", "MODEL", "SOUNDS", "--window", "0.5", "--workers", "1"],
        ["inspect", "SOUNDS/clips.csv", "--workers", "1"],
        ["prepare", "SOUNDS/clips.csv", "--workers", "1"],
        ["index", "SOUNDS", "--model", "MODEL", "-o", "index", "--workers", "1"],
        ["suggest", "MODEL", "SOUNDS", "-o", "suggestions.csv", "--workers", "1"],
        ["review", "MODEL", "SOUNDS/clips.csv", "-o", "review", "--workers", "1"],
        ["evaluate", "MODEL", "SOUNDS/clips.csv", "-o", "report", "--workers", "1"],
    ],
    ids=" ".join,
)
def test_command_names_the_file_and_goes_on(run, sounds, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    make_bundle(tmp_path / "model")
    arguments = [text.replace("MODEL", str(tmp_path / "model")).replace("SOUNDS", str(sounds)) for text in arguments]
    done = run(*arguments)
    assert done.status == 3, done.err
    text = " ".join((done.out + done.err).split())
    assert "4.wav" in text
    assert "unexpected IndexError" in text
