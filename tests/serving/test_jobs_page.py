"""The Jobs view in a browser: start a run over a folder, watch it, read what it has found, go on after a stop."""

import json
import time

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import AXE, barriers, click_button, text_of, unforeseen
from helpers.page_server import page_server
from spectag.audio.files import write_audio
from spectag.serving.project.project import open_project

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

N_SOUNDS = 6
N_BROKEN = 51


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a project, in which a job was interrupted, and recordings."""
    folder = tmp_path_factory.mktemp("jobs")
    recordings = folder / "recordings" / "a & <b>"
    recordings.mkdir(parents=True)
    for number in range(N_SOUNDS):
        write_audio(recordings / f"site_2024050{number + 1}_053000.wav", tone(("low", "high")[number % 2], 4.0), 16_000)
    for number in range(N_BROKEN):
        (recordings / f"broken{number:02}.wav").write_bytes(b"RIFF" + bytes(100))
    with open_project(folder / "project") as project:
        project.versions.add_copy(make_bundle(folder / "model", make_info(thresholds=(1e-4, 1e-4, 1e-4))))
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    with (
        page_server(folder, "--project", "project", "--folder", "recordings") as address,
        chromium(tmp_path_factory.mktemp("profile")) as page,
    ):
        page.show(1400, 1000)
        page.open(f"{address}/#jobs")
        page.wait("document.querySelector('.jobs-view .state.empty').checkVisibility()")
        yield page
        assert unforeseen(page, "403 (Forbidden)", "422 (Unprocessable Entity)", "409 (Conflict)") == []


def fill(page, selector, value):
    page.run(f"Object.assign(document.querySelector({selector!r}), {{ value: {json.dumps(value)} }})")


def test_without_jobs_the_page_says_what_to_do(page):
    assert "Tag a folder of recordings" in text_of(page, ".jobs-view .state.empty")


def test_a_folder_outside_is_refused_in_the_form(page):
    page.press("n")
    page.wait("document.activeElement.id === 'job-folder'")
    assert not page.run("document.querySelector('.jobs-view .side button').checkVisibility()")  # the form has its own
    fill(page, "#job-folder", "/etc")
    click_button(page, "Start tagging")
    page.wait("document.querySelector('.job-form .problem').textContent.includes('outside the folders')")


def test_the_form_shows_what_its_choices_need(page):
    page.wait("document.querySelectorAll('.formats input').length > 10")
    assert page.run("document.querySelector('#job-least').checkVisibility()")
    assert page.run("document.querySelector('.formats [value=multi-hot]').disabled")
    page.run("document.querySelector('[name=job-rows][value=windows]').click()")
    assert page.run("document.querySelector('#job-window').checkVisibility()")
    assert not page.run("document.querySelector('#job-least').checkVisibility()")
    assert not page.run("document.querySelector('.formats [value=multi-hot]').disabled")
    page.run("document.querySelector('[name=job-rows][value=segments]').click()")


def test_a_run_is_started_with_a_chosen_folder_and_ends_with_its_tables(page, folder):
    click_button(page, "Choose a folder")
    page.wait("document.querySelector('dialog.picker .entries, dialog.picker .state')")
    page.run("document.querySelector('dialog.picker').close()")
    fill(page, "#job-folder", str(folder / "recordings" / "a & <b>"))
    fill(page, "#job-name", "spring & <i>")
    click_button(page, "Start tagging")
    page.wait("document.querySelector('.job-form .problem').textContent.includes('use up to 80 letters')")
    fill(page, "#job-name", "spring")
    click_button(page, "Start tagging")
    page.wait("location.hash === '#jobs/1'")
    page.wait("document.querySelector('.job-state').classList.contains('done')", 60)
    page.wait("document.querySelectorAll('.run-files a').length === 3")
    names = page.run("[...document.querySelectorAll('.run-files a')].map((link) => link.textContent)")
    assert names == ["tags.csv", "parameters.toml", "status.csv"]
    assert f"{N_SOUNDS} of {N_SOUNDS + N_BROKEN} recordings are tagged" in text_of(page, ".job-result .sentence")
    assert page.run("[...document.querySelectorAll('.label-counts tbody th')].length") >= 2
    assert page.run("document.querySelector('.job-result a.action').getAttribute('href')") == "#check/spring"
    status = page.run("fetch('/views/jobs/runs/spring/files/status.csv').then((answer) => answer.text())")
    assert status == (folder / "project/runs/spring/status.csv").read_text(encoding="utf-8")
    assert "skipped: " in text_of(page, ".job-log")
    page.wait("document.querySelector('.run-failures')")
    assert "false" not in page.run("document.querySelector('.job-result').innerText")


def test_failures_are_paged(page):
    page.wait("document.querySelectorAll('.run-failures tbody tr').length === 50")
    click_button(page, "Next")
    page.wait("document.querySelectorAll('.run-failures tbody tr').length === 1")
    assert "broken50.wav" in text_of(page, ".run-failures tbody")
    click_button(page, "Previous")
    page.wait("document.querySelectorAll('.run-failures tbody tr').length === 50")


def test_a_job_is_stopped_and_resumed(page, folder):
    page.press("n")
    page.wait("document.activeElement.id === 'job-folder'")
    fill(page, "#job-folder", str(folder / "recordings" / "a & <b>"))
    fill(page, "#job-name", "stopped")
    click_button(page, "Start tagging")
    page.wait("location.hash === '#jobs/2'")
    page.wait("document.querySelector('.job').textContent.includes('Stop')")
    click_button(page, "Stop")
    page.wait("document.querySelector('.job-state').classList.contains('stopped')", 40)
    shown = page.run("[...document.querySelectorAll('.job button')].filter((one) => one.checkVisibility()).length")
    assert shown == 1
    click_button(page, "Resume")
    page.wait("document.querySelector('.job-state').classList.contains('done')", 60)
    page.wait("document.querySelectorAll('.run-files a').length === 3")


def test_arrows_go_through_the_jobs_and_the_address_names_one(page):
    page.run("document.activeElement.blur()")
    page.press("ArrowDown")
    assert page.run("location.hash") == "#jobs/1"
    page.wait("document.querySelector('.job h2').textContent === 'spring'")
    page.press("ArrowUp")
    assert page.run("location.hash") == "#jobs/2"
    page.run("location.hash = '#jobs/1'")
    page.wait("document.querySelector('.job h2').textContent === 'spring'")
    assert page.run("document.querySelectorAll('.jobs [aria-current]').length") == 1


def test_speed_is_that_of_the_last_minute(page):
    found = page.run("""import('/static/jobs_progress.js').then(({ Speed, clock }) => {
        const speed = new Speed();
        const at = (seconds, done) => speed.add({ step: 'tagging', done, total: 1000 }, 1000 * seconds);
        at(0, 500);
        const first = speed.perSecond;
        for (let second = 1; second <= 100; second += 1) at(second, 500 + 2 * second);
        const found = [first, speed.perSecond, speed.secondsLeft, clock(3723.4)];
        speed.add({ step: 'writing', done: 0, total: 3 }, 200_000);
        return [...found, speed.perSecond];
    })""")
    assert found == [None, 2, 150, "1:02:03", None]


def test_failure_of_a_running_job_goes_when_the_server_answers_again(page):
    shown = page.run("""import('/static/jobs_detail.js').then(async ({ JobDetail }) => {
        const time = '2026-01-01T00:00:00Z';
        const job = { number: 1, kind: 'tag', title: 'x', state: 'running', progress: null, problem: '',
            created: time, started: time, ended: null };
        const answers = [{ ...job, log: [] }, null, { ...job, log: [] }], shown = [];
        const request = async () => answers.shift() ?? Promise.reject(new Error('away'));
        const detail = new JobDetail({ request, announce: () => {} }, () => {});
        for (let time = 0; time < 3; time += 1) {
            detail.show(job, Date.now(), { perSecond: null, secondsLeft: null });
            await new Promise((resolve) => { setTimeout(resolve, 20); });
            shown.push(detail.element.querySelector('.job-more').textContent.includes('away'));
        }
        return shown;
    })""")
    assert shown == [False, True, False]


def test_other_jobs_lead_to_the_view_that_shows_what_they_made(page):
    links = page.run("""import('/static/jobs_detail.js').then(({ JobDetail }) => {
        return ['map', 'train', 'review', 'suggest', 'tag', 'other'].map((kind) => {
            const detail = new JobDetail({ request: async () => ({}), announce: () => {} }, () => {});
            detail.showResult({ kind, state: 'failed' });
            return detail.more.querySelector('a')?.getAttribute('href') ?? null;
        });
    })""")
    assert links == ["#explore", "#train", "#review", "#review", None, None]


def test_names_of_jobs_are_text(page, folder):
    path = json.dumps(str(folder / "recordings" / "a & <b>"))
    page.wait(f"[...document.querySelectorAll('.job-facts dd')].some((one) => one.textContent === {path})")
    assert page.run("document.querySelector('.job-facts b, .run-failures b')") is None


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (1280, 800), (3840, 2160)])
def test_nothing_is_wider_than_the_window(page, width, height):
    page.show(width, height)
    for address in ("#jobs/new", "#jobs/1"):
        page.run(f"location.hash = '{address}'")
        page.wait(f"location.hash === '{address}'")
        time.sleep(0.2)
        assert page.run("document.documentElement.scrollWidth") <= width
    page.show(1400, 1000)


@pytest.mark.skipif(not AXE, reason="needs axe-core")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page, dark):
    page.show(1400, 1000, dark=dark)
    for address in ("#jobs/new", "#jobs/1"):
        page.run(f"location.hash = '{address}'")
        time.sleep(0.3)
        assert barriers(page) == []
    page.show(1400, 1000)
