"""spectag --install-completion: scripts that the shells can read and that complete commands, options and files."""

import os
import re
import shutil
import subprocess
from functools import lru_cache

import pytest

from spectag.cli import completion
from spectag.cli.app import app
from spectag.cli.commands import COMMANDS
from spectag.cli.completion import completion_script

NAMES = [name for commands in COMMANDS.values() for name in commands]
CHECK = {"bash": ["bash", "-n"], "zsh": ["zsh", "-n"], "fish": ["fish", "--no-execute"]}


@lru_cache
def script_of(shell):
    """The script of a shell; making one takes several seconds, for cyclopts reads all docstrings."""
    return completion_script(app, shell)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ZSH", "ZSH_CUSTOM", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", *(pytest.param(shell, marks=pytest.mark.slow) for shell in ("zsh", "fish"))])
def test_script_is_valid_and_has_every_command(shell, tmp_path):
    assert [name for name in NAMES if not re.search(rf"\b{name}\b", script_of(shell))] == []
    if shutil.which(shell):
        (tmp_path / "script").write_text(script_of(shell), encoding="utf-8")
        done = subprocess.run([*CHECK[shell], tmp_path / "script"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def completed(script, tmp_path, *words):
    """What bash offers for the last word."""
    (tmp_path / "spectag.bash").write_text(script, encoding="utf-8")
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source ./spectag.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _spectag; echo ${{COMPREPLY[@]}}"
    )
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(os.name == "nt", reason="needs bash")
def test_bash_completes_commands_options_and_choices(tmp_path):
    script = script_of("bash")
    assert completed(script, tmp_path, "spectag", "la") == ["labels"]
    assert completed(script, tmp_path, "spectag", "cache", "cl") == ["clean"]
    assert completed(script, tmp_path, "spectag", "labels", "--js") == ["--json"]
    assert completed(script, tmp_path, "spectag", "train", "--mode", "") == ["frozen", "finetune"]


def test_bash_completes_a_model_as_a_file():
    assert "complete -o default -F _spectag spectag" in script_of("bash")


@pytest.mark.slow
def test_zsh_completes_a_model_as_a_file():
    arguments = re.findall(r"^ +'(?:\d+|\*):.*' \\$", script_of("zsh"), re.MULTILINE)
    assert any("Folder of a model" in line for line in arguments)
    assert [line for line in arguments if not re.search(r":(_files|\(.*\)| :->\w+)' \\$", line)] == []


@pytest.mark.parametrize(
    ("shell", "path", "startup"),
    [
        ("bash", ".local/share/bash-completion/completions/spectag", ".bashrc"),
        ("zsh", ".zsh/completions/_cyclopts_spectag", ".zshrc"),
        ("fish", ".config/fish/completions/spectag.fish", None),
    ],
)
def test_script_is_installed_where_the_shell_finds_it(run, home, monkeypatch, shell, path, startup):
    monkeypatch.setattr(completion, "completion_script", lambda _app, shell: f"script of {shell}")
    done = run("--install-completion", shell)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        str(home / path),
        f"Open a new {shell} to use it. After an update of spectag, run this command again.",
    ]
    assert f"script of {shell}" in (home / path).read_text(encoding="utf-8")
    assert startup is None or "completions" in (home / startup).read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["tcsh"], ["bash", "zsh"]])
def test_other_shells_are_wrong_usage(run, home, words):
    done = run("--install-completion", *words)
    assert (done.status, done.out) == (2, "")
    assert "--install-completion needs the name of a shell: bash, zsh, fish" in done.err
    assert list(home.iterdir()) == []
