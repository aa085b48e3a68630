"""What the Check view shows beside the cards, in a browser: precision against threshold, and the labels."""

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle
from helpers.checks import write_recordings
from helpers.page_actions import click_button, set_field
from helpers.page_server import page_server
from spectag.serving.project.project import open_project

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The view of a project without checks, in which a run has a table of detections."""
    folder = tmp_path_factory.mktemp("check")
    with open_project(folder / "project") as project:
        project.versions.add_copy(make_bundle(folder / "model"))
    write_recordings(folder / "project" / "runs" / "spring", n_days=3)
    with page_server(folder, "--project", "project") as address, chromium(folder / "profile") as page:
        page.show(1400, 1000)
        page.open(f"{address}/#check")
        page.wait("document.querySelector('.check-view .state.empty')")
        yield page
        assert page.console == []


CURVE_OF_OTHER_MODEL = """import('/static/check_curve.js').then(async ({ CurvePanel }) => {
    const curve = { thresholds: [0.9, 0.4], precision: [1, 0.95], lower: [0.9, 0.9], upper: [1, 0.98] };
    const found = { label: 'Dog', curve, old_threshold: null, threshold: 0.4, problem: '', precision: 0.95, lower: 0.9,
        upper: 0.98, is_enough: true, n_checked: 20, n_undecided: 0 };
    const request = async (path) => (path.includes('/thresholds') ? { labels: [found] } : found);
    const state = { address: '/x', labels: [{ label: 'Dog' }], nextLabel: () => null };
    const panel = new CurvePanel(state, { request, info: { labels: [{ label: 'jay' }] } }, () => {});
    panel.details.open = true;
    document.body.append(panel.element);
    await panel.show('Dog');
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    panel.element.remove();
    return {
        band: panel.element.querySelectorAll('.band').length,
        lines: panel.element.querySelectorAll('.threshold-line').length,
        verdict: panel.verdict.textContent, legend: panel.element.querySelector('.line-key').textContent,
        all: panel.element.querySelector('.checked-thresholds td:nth-child(3)').textContent,
        disabled: panel.use.disabled, why: panel.whyNot.hidden ? '' : panel.whyNot.textContent,
    };
})"""


def test_curve_of_labels_that_the_model_in_use_does_not_have(page):
    shown = page.run(CURVE_OF_OTHER_MODEL)
    assert (shown["band"], shown["lines"], shown["all"]) == (1, 1, "0.40")
    assert shown["verdict"].startswith("Enough. At the threshold 0.40, 95")
    assert "fitted threshold" in shown["legend"]
    assert "threshold now" not in shown["legend"]
    assert shown["disabled"]
    assert shown["why"].startswith("These labels are not those of the model in use")


NEW_VERSION = """import('/static/check_curve.js').then(async ({ CurvePanel }) => {
    const curve = { thresholds: [0.9, 0.2], precision: [1, 0.95], lower: [0.9, 0.9], upper: [1, 0.98] };
    const found = { label: 'Dog', curve, old_threshold: 0.7, threshold: 0.2, problem: '', precision: 0.95, lower: 0.9,
        upper: 0.98, is_enough: true, n_checked: 20, n_undecided: 0 };
    let isMade = false; // then the processes of the new version take long to start
    const request = async (path) => {
        if (path.endsWith('/version')) { isMade = true; return { version: 2, labels: [found] }; }
        if (isMade) await new Promise(() => {});
        return path.includes('/thresholds') ? { labels: [found] } : found;
    };
    const state = { address: '/x', labels: [{ label: 'Dog' }], nextLabel: () => null, poll: async () => {} };
    const page = { request, refresh: async () => {}, info: { labels: [{ label: 'Dog' }] } };
    const panel = new CurvePanel(state, page, () => {});
    const now = () => [...panel.element.querySelectorAll('.line-key li, .checked-thresholds td:nth-child(3)')]
        .map((each) => each.textContent).filter((text) => /now|→/.test(text));
    document.body.append(panel.element);
    panel.details.open = true;
    await panel.show('Dog');
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    const before = now();
    panel.use.click();
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    panel.element.remove();
    return [before, now()];
})"""


def test_threshold_now_is_that_of_the_new_version_at_once(page):
    before, after = page.run(NEW_VERSION)
    assert before == ["threshold now: 0.70", "0.70 → 0.20"]
    assert after == ["threshold now: 0.20", "0.20 → 0.20"]


MANY_LABELS = """import('/static/check_work.js').then(async ({ CheckWork }) => {
    const names = Array.from({ length: 14 }, (_, index) => `label ${index}`).reverse(); // as ordered by the server
    const labels = names.map((label) => ({ label, sampled: 1, open: 1, decided: 0 }));
    const cards = [...names].reverse().map((label) => ({ label, facts: label, score: '', unit: null }));
    const states = cards.map(() => ({ decision: '', reviewer: '', other_labels: [], comment: '' }));
    const check = { cards, states, session: '', revision: 0, labels, presence: true, model_labels: [], recordings: '' };
    const request = async (path) => (path.includes('/cards/') ? { problem: 'none' } : check);
    const work = new CheckWork('x', { request, announce: () => {}, info: { labels: [] } }, {});
    document.querySelector('.check-view').append(work.element);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
    const shown = () => [...work.labels.children].filter((each) => each.checkVisibility()).length;
    const found = { first: work.question.textContent, all: shown() };
    const filter = work.element.querySelector('.label-filter');
    filter.value = 'LABEL 1';
    filter.dispatchEvent(new Event('input'));
    found.filtered = shown();
    work.goOn(work.current);
    found.second = work.question.textContent;
    work.goBack();
    found.back = work.question.textContent;
    work.choose('label 3');
    found.chosen = work.question.textContent;
    work.choose(null);
    found.stays = work.question.textContent;
    work.close();
    work.element.remove();
    return found;
})"""


def test_many_labels_have_a_filter_and_start_with_the_most_frequent(page):
    shown = page.run(MANY_LABELS)
    assert (shown["all"], shown["filtered"]) == (15, 5)  # with all labels; 1, 10, 11, 12 and 13
    assert [shown[name] for name in ("first", "second", "back")] == [
        f"Is this “label {number}”?" for number in (13, 12, 13)
    ]
    assert shown["chosen"] == shown["stays"] == "Is this “label 3”?"


def test_labels_of_a_new_check_are_chosen(page):
    click_button(page, "New check")
    page.wait("document.querySelectorAll('.label-list li').length === 3", 30)
    assert page.run("document.querySelector('.label-list li').textContent") == "low42 detections"
    set_field(page, ".label-choice-of-check input[type=search]", "MID")
    page.wait("[...document.querySelectorAll('.label-list li')].filter((each) => each.checkVisibility()).length === 1")
    set_field(page, ".label-choice-of-check input[type=search]", "")
    click_button(page, "Clear all shown")
    page.run("document.querySelector('.check-form form').requestSubmit()")
    page.wait("document.querySelector('.check-form .problem[role=alert]').textContent === 'Choose at least one label.'")
    page.run("document.querySelector('.label-list input[value=middle]').click()")
    page.wait("document.querySelector('.label-choice-of-check output').textContent === '1 of 3 labels'")
    page.run("document.querySelector('#check-per-label').value = 5")
    page.run("document.querySelector('.check-form form').requestSubmit()")
    page.wait("document.querySelector('.check-page audio')", 30)
    buttons = "[...document.querySelectorAll('.label-progress button .text')].map((each) => each.textContent)"
    assert page.run(buttons) == ["all labels", "middle"]


def test_decisions_become_labels_with_a_button(page):
    page.run("document.activeElement.blur()")
    for number, key in enumerate("yny", start=1):
        page.press(key)
        page.wait(f"document.querySelector('.check-view .progress').textContent.startsWith('{number} of ')")
    click_button(page, "Use as labels")
    page.wait("document.querySelector('.use-as-labels .result a')", 60)
    text = page.run("document.querySelector('.use-as-labels .result').textContent")
    assert text == "3 clips are added to the labels of the project. Review Train"
    links = "[...document.querySelectorAll('.use-as-labels .result a')].map((link) => link.getAttribute('href'))"
    assert page.run(links) == ["#review", "#train"]
