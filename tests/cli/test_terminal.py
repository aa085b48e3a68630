"""Progress of a command: bars, lines, and the table of epochs."""

import io
import re
import sys
import time

import pytest
from rich.console import Console

from spectag.cli.epoch_table import EpochTable
from spectag.cli.terminal import (
    epoch_line,
    line_by_line,
    print_message,
    progress_display,
    set_quiet,
    training_display,
)
from spectag.system import progress_bars as bars_module
from spectag.system.epoch_log import Epoch, epoch_step, is_epoch_step
from spectag.system.progress import training_step
from spectag.system.progress_bars import CommandBars, ProgressBoard, progress_bars


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
    """All lines but those about the whole command."""
    lines = map(without_colors, terminal.getvalue().splitlines())
    return [line for line in lines if line and not re.search(r"^.? ?\d+:\d\d:\d\d elapsed$", line)]


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
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
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


def screen_of(bars, width=80):
    """What the bars look like now."""
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(*bars.get_renderables(), sep="\n")
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 100])
def test_bars_show_counts_and_times_but_no_rates(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    seconds = 0.0
    bars = CommandBars(*progress_bars(console).columns, console=console, clock=lambda: seconds)
    bars.get_time = lambda: seconds
    board = ProgressBoard(bars)
    for n_done in range(0, 1_001, 100):
        board.progress("features by mn04_audioset", n_done, 2_000)
        seconds += 30.0
    screen = screen_of(bars, width)
    assert re.search(r"features by mn04_audioset .* 1,000/2,000 +0:05:\d\d left", screen)
    assert "0:05:30 elapsed" in screen
    assert "/s" not in screen
    assert max(map(len, screen.splitlines())) <= width


def test_line_of_the_command_moves_when_nothing_can_be_counted():
    seconds = 0.0
    console = Console(file=io.StringIO(), force_terminal=True)
    bars = CommandBars(console=console, clock=lambda: seconds)
    ProgressBoard(bars).log("writing the model")
    first = screen_of(bars)
    seconds = 1.0
    assert "0:00:00 elapsed" in first
    assert "0:00:01 elapsed" in screen_of(bars)
    assert bars.live.auto_refresh
    assert bars.live.refresh_per_second >= 1


def test_time_left_covers_all_trainings():
    seconds = 100.0
    bars = CommandBars(console=Console(file=io.StringIO(), force_terminal=True), clock=lambda: seconds)
    table = EpochTable(ProgressBoard(bars))
    table.progress(*training_step("", 0, 5))
    assert "training 1 of 5" in screen_of(bars)
    assert "left" not in screen_of(bars)
    seconds += 30.0
    table.add(epoch(2, n_epochs=4))  # half a training in 30 s: 4.5 are left
    assert "about 0:04:30 left in all trainings" in screen_of(bars)
    seconds += 30.0
    assert "about 0:04:00 left in all trainings" in screen_of(bars)
    table.progress(*training_step("", 1, 5))
    assert "training 2 of 5" in screen_of(bars)


def test_results_are_whole_lines_above_the_bars(terminal, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with progress_display(results_to_stdout=True) as (progress, _):
        progress("tagging", 0, 2)
        for number in range(100):
            print(f"{number},=a [b] :x: {'long ' * 20}")
        progress("tagging", 1, 2)
        print("no line end", end="")
    lines = lines_of(terminal)
    results = [line for line in lines if line.startswith(tuple("0123456789")) and "=a" in line]
    assert results == [f"{number},=a [b] :x: {'long ' * 20}".rstrip() for number in range(100)]
    assert "no line end" in lines


def test_quiet_command_shows_neither_progress_nor_messages(terminal, capsys):
    set_quiet(True)
    try:
        with progress_display() as (progress, log):
            progress("tagging", 1, 2)
            log("a message")
        with training_display() as (progress, log, on_epoch):
            progress("tagging", 1, 2)
            log("a message")
            on_epoch(epoch(1))
        print_message("a message")
    finally:
        set_quiet(False)
    assert terminal.getvalue() == ""
    assert capsys.readouterr() == ("", "")
    print_message("a message")
    assert capsys.readouterr().err == "a message\n"


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


def test_quick_steps_print_one_line_at_their_end_also_when_they_come_again(capsys):
    progress = line_by_line(lambda: 0.0)
    for n_total in (100, 3, 0, 1, 1):
        for n_done in range(n_total + 1):
            progress("features", n_done, n_total)
    assert capsys.readouterr().err.splitlines() == ["features: 100/100", "features: 3/3", *["features: 1/1"] * 2]


def test_slow_steps_print_every_tenth_but_at_most_one_line_a_minute(capsys):
    for seconds_per_item, expected in ((30, range(100, 1001, 100)), (0.2, [300, 600, 900, 1000])):
        progress = line_by_line(iter(seconds_per_item * step for step in range(1001)).__next__)
        for step in range(1001):
            progress("log-mels", step, 1000)
        assert capsys.readouterr().err.splitlines() == [f"log-mels: {step:,}/1,000" for step in expected]


def test_trainings_are_not_counted_in_a_log(capsys):
    line_by_line()(*training_step("mn04_audioset: ", 1, 5))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("part", ["", "fold 1", "mn04_audioset fine-tuned, valid"])
def test_steps_of_epochs_are_recognised_by_their_names(part):
    assert is_epoch_step(epoch_step(part, 12))


@pytest.mark.parametrize("step", ["features", "log-mels", "epoch", "epochs 3", "heads 3", "learning rates"])
def test_other_steps_are_not_mistaken_for_epochs(step):
    assert not is_epoch_step(step)
