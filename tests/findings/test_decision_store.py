"""Decisions that several programs make in one table."""

import pytest

from helpers.checks import make_checked
from spectag.config.findings import CheckSettings
from spectag.errors import ConfigError, DataError
from spectag.findings.check_session import locked_check, open_check
from spectag.findings.decision_store import ChangedRowError, DecisionStore


@pytest.fixture
def decisions(tmp_path):
    """The decisions.csv of a sample."""
    model, table = make_checked(tmp_path)
    with open_check(model, table, tmp_path / "check", CheckSettings(per_label=4)):
        pass
    return tmp_path / "check" / "decisions.csv"


def test_decision_about_a_row_that_changed_since_it_was_seen_is_refused(decisions):
    store = DecisionStore(decisions)
    store.decide(0, "yes", reviewer="A", since=0)
    with pytest.raises(ChangedRowError) as error:
        store.decide(0, "no", reviewer="B", since=0)
    assert (error.value.row.decision, error.value.row.reviewer) == ("yes", "A")
    assert DecisionStore(decisions).rows[0].decision == "yes"
    assert store.decide(1, "no", reviewer="B", since=0).decision == "no"
    assert store.decide(0, "no", reviewer="B", since=store.revision).decision == "no"


def test_decisions_of_another_program_are_taken_over(decisions):
    page, command = DecisionStore(decisions), DecisionStore(decisions)
    command.decide(2, "unsure", reviewer="C")
    assert page.changes_since(0) == (0, {})
    page.reload()
    revision, changes = page.changes_since(0)
    assert (revision, changes[2].decision) == (1, "unsure")
    page.decide(3, "yes", reviewer="D")
    page.reload()
    assert page.revision == 2, "its own decisions are no changes of others"
    assert [row.decision for row in DecisionStore(decisions).rows[2:4]] == ["unsure", "yes"]


def test_table_with_other_detections_is_not_taken_over(decisions):
    store = DecisionStore(decisions)
    text = decisions.read_text("utf-8")
    decisions.write_text(text.replace("pond_20240501", "pond_20240509"), "utf-8")
    with pytest.raises(DataError, match="other detections"):
        store.reload()


def test_locked_check_can_not_be_opened_by_others(decisions):
    with locked_check(decisions.parent), pytest.raises(ConfigError, match="another spectag check is open"):  # noqa: SIM117
        with locked_check(decisions.parent):
            pass
