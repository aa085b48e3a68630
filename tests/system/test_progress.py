"""`progress=True`: bars that end with the function, on a terminal and in a notebook."""

import io
import sys
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from spectag.system import progress_bars as bars_module
from spectag.system.progress import shows_progress, silent


@shows_progress
def work(n_items, *, progress=silent, fails_at=None):
    for number in range(n_items):
        progress("working", number, n_items)
        if number == fails_at:
            raise ValueError("broken")
    progress("working", n_items, n_items)
    return n_items


@shows_progress
def yield_items(n_items, *, progress=silent):
    for number in range(1, n_items + 1):
        progress("yielding", number, n_items)
        yield number


@pytest.fixture
def terminal(monkeypatch):
    sent = io.StringIO()
    monkeypatch.setattr(bars_module, "Console", lambda **_: Console(file=sent, force_terminal=True, width=80))
    return sent


CURSOR_HIDDEN, CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"


def test_true_shows_a_bar_with_the_number_of_items(terminal):
    assert work(7, progress=True) == 7
    assert "working" in terminal.getvalue()
    assert "7/7" in terminal.getvalue()


@pytest.mark.parametrize("progress", [False, None])
def test_false_and_none_show_nothing(terminal, progress):
    assert work(7, progress=progress) == work(7) == 7
    assert terminal.getvalue() == ""


def test_function_receives_the_progress():
    received = []
    work(2, progress=lambda *values: received.append(values))
    assert received == [("working", 0, 2), ("working", 1, 2), ("working", 2, 2)]


def test_bar_ends_if_the_function_fails(terminal):
    with pytest.raises(ValueError, match="broken"):
        work(7, progress=True, fails_at=3)
    assert terminal.getvalue().count(CURSOR_HIDDEN) == terminal.getvalue().count(CURSOR_SHOWN) == 1


def test_bar_of_a_generator_lasts_until_its_end(terminal):
    items = yield_items(3, progress=True)
    assert next(items) == 1
    assert CURSOR_SHOWN not in terminal.getvalue()
    assert list(items) == [2, 3]
    assert CURSOR_SHOWN in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_bar_of_a_generator_ends_if_it_is_closed(terminal):
    items = yield_items(3, progress=True)
    next(items)
    items.close()
    assert CURSOR_SHOWN in terminal.getvalue()


@pytest.fixture
def notebook(monkeypatch):
    """What is displayed in a notebook, and the updates of it."""
    shown, updated = [], []

    def display(html, **_):
        shown.append(html)
        return SimpleNamespace(update=updated.append)

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    return shown, updated


def test_notebook_gets_one_updated_line_per_step_with_the_name_escaped(notebook):
    """rich shows nothing in a notebook without ipywidgets."""
    shown, updated = notebook
    with bars_module.show_progress_bars() as progress:
        progress("<b>", 0, 2)
        progress("<b>", 2, 2)
    assert shown == ['<div>&lt;b&gt; <progress value="0" max="2"></progress> 0/2</div>']
    assert updated == ['<div>&lt;b&gt; <progress value="2" max="2"></progress> 2/2</div>']


def test_notebook_gets_at_most_ten_updates_per_second_and_the_last_one(notebook):
    _, updated = notebook
    started = time.monotonic()
    with bars_module.show_progress_bars() as progress:
        for number in range(3_001):
            progress("tagging", number, 3_000)
            time.sleep(1e-4)
    assert 2 <= len(updated) <= 2 + 10 * (time.monotonic() - started)
    assert updated[-1].endswith("3,000/3,000</div>")


def test_notebook_gets_the_last_update_of_a_step_before_the_work_ends(notebook):
    _, updated = notebook
    with bars_module.show_progress_bars() as progress:
        for number in range(10):
            progress("tagging", number, 0)  # the total is not known
        deadline = time.monotonic() + 10
        while not (updated and " 9/0" in updated[-1]) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert " 9/0" in updated[-1]


def test_notebook_gets_the_last_update_when_the_work_fails(notebook):
    _, updated = notebook
    with pytest.raises(ValueError, match="broken"):
        work(7, progress=True, fails_at=3)
    assert updated[-1].endswith("3/7</div>")
