"""Progress of a command: bars, lines, and the table of epochs."""

import io
import re
import sys

import pytest
from rich.console import Console

from spectag.cli import progress_bars as bars_module
from spectag.cli.progress_bars import ProgressBoard, progress_bars
from spectag.cli.terminal import epoch_line, line_by_line, training_display
from spectag.system.epoch_log import Epoch, epoch_step, is_epoch_step


def epoch(number, valid_lwlrap=None, *, part="", n_epochs=None, **numbers):
    valid_loss = None if valid_lwlrap is None else 0.25
    return Epoch(number, 0.5, 0.75, valid_loss, valid_lwlrap, n_epochs=n_epochs, part=part, **numbers)


@pytest.fixture
def terminal(monkeypatch):
    """The text that a terminal of 80 columns receives."""
    sent = io.StringIO()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(
        bars_module, "Console", lambda **_: Console(file=sent, force_terminal=True, width=80, highlight=False)
    )
    return sent


def without_colors(line):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).replace("\r", "").rstrip()


def lines_of(terminal):
    return [line for line in map(without_colors, terminal.getvalue().splitlines()) if line]


def rows_of(terminal):
    return [line for line in lines_of(terminal) if re.match(r" *\d+(/\d+)? +0\.5", line)]


def test_row_shows_every_number_of_an_epoch(terminal):
    with training_display() as (_, _, on_epoch):
        on_epoch(epoch(3, 0.875, n_epochs=20, learning_rate=1e-4, clips_per_second=1234.5, seconds_left=3723.4))
    [row] = rows_of(terminal)
    assert row.split(maxsplit=8) == [
        *("3/20", "0.5000", "0.7500", "0.2500", "0.8750", "0.0001", "1,234", "1:02:03", "best so far")
    ]
    assert max(map(len, lines_of(terminal))) <= 80


def test_each_training_gets_a_table_below_its_name(terminal):
    with training_display() as (_, _, on_epoch):
        for part in ("fold 1", "fold 2"):
            for number in (1, 2):
                on_epoch(epoch(number, part=part))
    lines = lines_of(terminal)
    assert [line for line in lines if line.startswith("fold")] == ["fold 1", "fold 2"]
    assert sum("lwlrap" in line for line in lines) == 2
    assert [row.split()[0] for row in rows_of(terminal)] == ["1", "2", "1", "2"]
    assert lines.index("fold 2") == lines.index(rows_of(terminal)[1]) + 1


@pytest.mark.parametrize("on_terminal", [True, False])
def test_name_of_a_training_is_printed_once(request, capsys, on_terminal):
    sent = request.getfixturevalue("terminal") if on_terminal else None
    with training_display() as (_, log, on_epoch):
        log("fold 1")
        on_epoch(epoch(1, part="fold 1"))
        log("another line")
        on_epoch(epoch(2, part="fold 1"))
    lines = lines_of(sent) if sent else capsys.readouterr().err.splitlines()
    assert lines.count("fold 1") == 1


def test_epoch_is_marked_if_it_is_the_best_so_far_of_its_training(terminal):
    with training_display() as (_, _, on_epoch):
        for part, scores in {"fold 1": (0.5, 0.7, 0.7, 0.6, 0.8), "fold 2": (0.1, None, 0.2)}.items():
            for number, score in enumerate(scores, start=1):
                on_epoch(epoch(number, score, part=part))
    best = ["best so far" in row for row in rows_of(terminal)]
    assert best == [True, True, False, False, True, True, False, True]


def test_fast_epochs_are_printed_together_and_none_is_lost(terminal, monkeypatch):
    monkeypatch.setattr(bars_module.time, "monotonic", lambda: 1000.0)
    with training_display() as (_, log, on_epoch):
        on_epoch(epoch(1))
        n_sent = len(terminal.getvalue())
        for number in range(2, 201):
            on_epoch(epoch(number))
        assert len(terminal.getvalue()) - n_sent < 1000  # only the bars, which are redrawn
        log("next step")
        on_epoch(epoch(201))
    assert [int(row.split()[0]) for row in rows_of(terminal)] == [*range(1, 202)]
    lines = lines_of(terminal)
    assert lines.index("next step") == lines.index(rows_of(terminal)[199]) + 1


def test_epochs_share_a_bar_and_finished_steps_scroll_away_above_it(monkeypatch):
    """Each epoch once had its own bar, and below a screenful of them no bar was visible."""
    shown = []
    monkeypatch.setattr(ProgressBoard, "show", lambda _, table: shown.append(table))
    with progress_bars(Console(file=io.StringIO(), force_terminal=True)) as bars:
        board = ProgressBoard(bars)
        board.progress("features", 7, 7)
        for number in range(1, 201):
            for step in (1, 2):
                board.progress(epoch_step("fold 1", number), step, 2)
        assert [(task.description, task.completed) for task in bars.tasks] == [("fold 1 epoch 200", 2)]
        assert [table.row_count for table in shown] == [1]
        board.progress("heads", 0, 3)
        assert [task.description for task in bars.tasks] == ["heads"]
        assert len(shown) == 1  # the table has a row for each epoch


def test_finished_step_stays_visible_and_can_run_again(terminal):
    with training_display() as (progress, _, _):
        for n_clips in (7, 5):
            progress("log-mels", 0, n_clips)
            progress("log-mels", n_clips, n_clips)
            progress("features", n_clips, n_clips)
    shown = "\n".join(lines_of(terminal))
    for text in (r"log-mels .*7/7", r"features .*7/7", r"log-mels .*5/5", r"features .*5/5"):
        assert re.search(text, shown)


def test_epoch_is_one_line_without_a_terminal(capsys):
    with training_display() as (progress, _, on_epoch):
        for step in range(1, 11):
            progress(epoch_step("fold 1", 7), step, 10)
        on_epoch(epoch(7, 0.5, part="fold 1", learning_rate=0.0005, clips_per_second=3.14159, seconds_left=59.6))
    assert capsys.readouterr().err.splitlines() == [
        "fold 1",
        "epoch   7   train loss 0.5000 lwlrap 0.7500   valid loss 0.2500 lwlrap 0.5000   rate 0.0005   3.1 clips/s"
        "   0:01:00 left",
    ]


def test_line_leaves_out_unknown_numbers():
    assert epoch_line(epoch(1)) == "epoch   1   train loss 0.5000 lwlrap 0.7500"


def test_long_epoch_prints_progress_once_a_minute(capsys):
    seconds = 0.0
    progress = line_by_line(lambda: seconds)
    for step in range(1, 101):
        progress(epoch_step("fold 1", 1), step, 100)
        seconds += 5.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"fold 1 epoch 1: {step}/100" for step in range(13, 101, 12)]


def test_other_steps_print_progress_at_every_tenth(capsys):
    progress = line_by_line(lambda: 0.0)
    for step in range(101):
        progress("features", step, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"features: {step}/100" for step in range(0, 101, 10)]


@pytest.mark.parametrize("part", ["", "fold 1", "mn04_audioset fine-tuned, valid"])
def test_steps_of_epochs_are_recognised_by_their_names(part):
    assert is_epoch_step(epoch_step(part, 12))


@pytest.mark.parametrize("step", ["features", "log-mels", "epoch", "epochs 3", "heads 3", "learning rates"])
def test_other_steps_are_not_mistaken_for_epochs(step):
    assert not is_epoch_step(step)
