"""The shell of the page in a browser: keys, and what others have opened or closed meanwhile."""

import json

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import set_field, text_of, unforeseen
from helpers.page_server import page_server
from spectag.audio.files import write_audio

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

LOOK = "document.dispatchEvent(new Event('visibilitychange'))"
"""What happens when people come back to the page; otherwise it looks every half minute."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shell")
    make_bundle(folder / "model", make_info(thresholds=(1e-4, 0.4, 0.6)))
    write_audio(folder / "low.wav", tone("low", 2.0), 16_000)
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    profile = tmp_path_factory.mktemp("profile")
    with page_server(folder, "model", "--project", "project") as address, chromium(profile) as page:
        page.show(1200, 900)
        page.address = address
        page.open(f"{address}/#tag")
        page.wait("document.querySelector('.tag-view .state.empty')")
        yield page
        assert unforeseen(page) == []


def post(page, path, body=None):
    """A request of another browser."""
    content = "{}" if body is None else f"{{'content-type': 'application/json'}}, body: {json.dumps(json.dumps(body))}"
    page.run(
        f"fetch({path!r}, {{ method: 'POST', headers: {content} }}).then((answer) => answer.ok || Promise.reject())"
    )


def hold(page, key, times, **more):
    for number in range(times):
        page.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=key, autoRepeat=number > 0, **more)
    page.call("Input.dispatchKeyEvent", type="keyUp", key=key, **more)


def test_space_and_arrows_belong_to_the_control_that_has_the_focus(page, folder):
    page.choose_files(".tag-view input[type=file]", [folder / "low.wav", folder / "low.wav"])
    page.wait("document.querySelectorAll('.sounds .ready').length === 2", 30)
    page.run("document.querySelector('.tag-controls input[type=checkbox]').focus()")
    before = page.run("document.activeElement.checked")
    page.press(" ")
    assert page.run("document.activeElement.checked") is not before
    page.press(" ")
    page.run("document.querySelector('.tag-view details.detections').open = true")
    page.run("document.querySelector('.detections .scrolls').focus()")
    page.press("ArrowDown")
    assert page.run("[...document.querySelectorAll('.sounds .name')].findIndex((one) => one.ariaCurrent)") == 0
    page.run("document.activeElement.blur()")
    page.press("ArrowDown")
    assert page.run("[...document.querySelectorAll('.sounds .name')].findIndex((one) => one.ariaCurrent)") == 1


def test_views_say_what_they_are_for(page):
    hints = page.run("[...document.querySelectorAll('#views a')].map((one) => [one.id, one.title])")
    assert "folders of recordings" in dict(hints)["to-jobs"]
    assert all(title for _, title in hints)
    page.run("location.hash = '#jobs'")
    page.wait("document.querySelector('.jobs-view .state.empty .hint')?.textContent.startsWith('Tag whole folders')")
    page.run("location.hash = '#tag'")
    page.wait("document.querySelector('.tag-view').checkVisibility()")


def test_row_of_views_fades_where_it_goes_on_and_follows_the_focus(page):
    row = "document.querySelector('#views ul')"
    page.show(390, 844)
    page.wait(f"{row}.className === 'more-after'")
    assert page.run(f"getComputedStyle({row}).scrollbarWidth") == "none"
    page.run("document.querySelector('#views li:last-child a').focus()")
    page.wait(f"{row}.className === 'more-before'")
    assert page.run("document.activeElement.getBoundingClientRect().right <= innerWidth")
    page.run("document.activeElement.blur()")
    page.show(1200, 900)
    page.wait(f"{row}.className === ''")


def test_held_keys_act_once_and_keys_do_not_reach_behind_a_dialog(page):
    count = "document.querySelectorAll('.sounds li').length"
    page.run(
        "window.plays = 0; HTMLMediaElement.prototype.play = () => { window.plays += 1; return Promise.resolve(); }"
    )
    hold(page, " ", 4)
    assert page.run("window.plays") == 1
    page.press("?")
    page.wait("document.querySelector('#keys').open")
    page.run("document.activeElement.blur()")  # as a click on its text does
    page.press("Delete")
    page.press(" ")
    assert (page.run(count), page.run("window.plays")) == (2, 1)
    page.run("document.querySelector('#keys').close()")


def test_version_that_another_browser_has_opened_is_noticed_and_unsaved_changes_stay(page):
    page.run("location.hash = '#model'")
    page.wait("document.querySelector('.model-view .threshold-table')")
    set_field(page, ".threshold-table tr:nth-child(2) input", 3)
    unsaved = text_of(page, ".threshold-table tr:nth-child(2) .figure")
    post(page, "/views/model/thresholds", {"thresholds": {"low": 0.2}})
    page.run("document.querySelector('#model').textContent = ''")
    page.run(LOOK)
    page.wait("document.querySelector('#model').textContent.includes('version 2')")
    page.wait("document.querySelector('.model-view .threshold-table .figure')?.textContent === '0.2'")
    assert text_of(page, ".threshold-table tr:nth-child(2) .figure") == unsaved
    assert page.run("document.querySelector('.model-view .changes').checkVisibility()")
    page.wait("document.querySelectorAll('.sounds .ready').length === 2", 30)  # tagged again


def test_name_is_asked_for_once_for_all_views(page):
    name = page.run("""(async () => {
        const { ReviewStore } = await import('/static/review_store.js');
        const { Selection } = await import('/static/explore_selection.js');
        new ReviewStore().reviewer = ' Anna';
        return new Selection({}, { changed: () => {} }).reviewer.value;
    })()""")
    assert name == "Anna"


def test_every_key_of_a_view_is_in_the_list_of_keys(page):
    different = page.run("""(async () => {
        const { strings } = await import('/static/strings.js');
        const names = Object.keys(strings.views).filter((name) => strings[name].keys);
        const request = () => new Promise(() => {});
        const page = { request, announce: () => {}, info: { labels: [], views: [] } };
        const different = [];
        for (const name of names) {
            const view = (await import(`/static/${name}.js`)).mount(document.createElement('section'), page);
            const [own, listed] = [view.keys, strings[name].keys].map((keys) => Object.keys(keys).sort().join(' '));
            if (own !== listed) different.push([name, own, listed]);
        }
        return different;
    })()""")
    assert different == []


def test_start_page_tells_when_the_server_goes_while_something_is_being_opened(page):
    page.run("""import('/static/start.js').then(({ mount }) => {
        window.start = document.createElement('section');
        const choices = { recent: [], models: [], folder: null };
        const answers = [choices, { state: 'opening' }, { state: 'opening', n_total: 0 }];
        const request = async () => answers.shift() ?? Promise.reject(new Error('away'));
        mount(window.start, { request, announce: () => {}, info: {} });
    })""")
    page.wait("window.start.querySelector('.state.failed').textContent.includes('away')")


def test_addresses_that_are_not_of_a_view_show_the_first_one(page):
    page.run("location.hash = '#%E0'")
    page.wait("document.querySelector('.tag-view').checkVisibility()")


def test_project_that_another_browser_has_closed_leads_to_the_start_page(page):
    post(page, "/project/close")
    page.run(LOOK)
    page.wait("document.querySelector('.start-view .welcome')", 30)


def test_file_that_is_dropped_beside_a_view_does_not_replace_the_page(page):
    page.run("""(() => {
        const more = { bubbles: true, cancelable: true };
        const drop = (data) => document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, ...more }));
        const files = new DataTransfer(), text = new DataTransfer();
        files.items.add(new File([''], 'a.txt'));
        text.setData('text/plain', 'a');
        window.opened = [drop(files), drop(text)];
    })()""")
    assert page.run("window.opened") == [False, True]
