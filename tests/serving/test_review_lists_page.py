"""The lists of the Review view in a browser: filters, focus, sizes of the window, and a server that is away."""

import pytest

from helpers.browser import CHROMIUM
from helpers.page_actions import AXE, barriers, set_field
from helpers.page_server import page_server
from helpers.review_page import N_CLIPS, SERVE, ask, choose, click, review_page, shot, write_review_folder

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_review_folder(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def server(folder):
    with page_server(folder, *SERVE) as address:
        ask(address, "import", {"path": str(folder / "sounds.csv")})
        yield address


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    with review_page(server, tmp_path_factory.mktemp("profile")) as page:
        page.wait("document.querySelectorAll('.review-card').length > 3", 30)
        yield page


def test_filters_change_the_list(page):
    page.run("document.querySelector('.review-filters details').open = true")
    set_field(page, "#filter-site", "Site1")
    page.wait("document.querySelector('.review-card').getAttribute('aria-setsize') === '12'")
    set_field(page, "#filter-first_hour", "20")
    page.wait("document.querySelector('.review-card').getAttribute('aria-setsize') === '2'")
    assert "2 in use" in page.run("document.querySelector('.review-filters summary').textContent")
    set_field(page, "#filter-text", "nothing has this name")
    page.wait("document.querySelector('.review-list .state.empty').checkVisibility()")
    shot(page, "nothing")
    click(page, "Clear filters")
    page.wait(f"document.querySelector('.review-card')?.getAttribute('aria-setsize') === '{N_CLIPS}'")
    page.run("document.querySelector('.review-filters details').open = false")


def test_keyboard_focus_stays_where_labels_and_queues_are_drawn_again(page):
    page.press("Tab")
    page.run("document.querySelectorAll('.queues button')[1].focus()")
    page.run("document.activeElement.click()")
    page.wait("document.querySelector('.review-view .state.empty').checkVisibility()")
    assert page.run("document.activeElement.textContent").startswith("Label errors")
    click(page, "All clips")
    page.wait("document.querySelectorAll('.review-card').length > 1")
    choose(page, 0)
    page.run("document.querySelector('.label-button').focus()")
    label = page.run("document.activeElement.textContent")
    page.run("document.activeElement.click()")
    page.wait("document.querySelector('.review-view .message').textContent.match('Added|Removed')")
    assert page.run("document.activeElement.textContent") == label
    page.run("document.activeElement.click()")
    page.run("document.activeElement.blur()")


def test_lists_of_filters_are_not_filled_again_with_the_same(page):
    page.run("document.querySelector('#filter-candidate').lastElementChild.id = 'mine'")
    page.run("location.hash = '#model'")
    page.wait("!document.querySelector('.review-view').checkVisibility()")
    page.run("performance.clearResourceTimings(); location.hash = '#review'")
    page.wait("performance.getEntriesByType('resource').some((one) => one.name.endsWith('/views/review/state'))")
    page.wait("document.querySelector('#mine')")


def test_message_of_a_server_that_did_not_answer_goes_when_it_answers(page):
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.call("Network.enable")
    for is_offline, words in [(True, "The server does not answer"), (False, "")]:
        page.call("Network.emulateNetworkConditions", offline=is_offline, **offline)
        page.run("location.hash = '#model'")
        page.wait("!document.querySelector('.review-view').checkVisibility()")
        page.run("location.hash = '#review'")
        page.wait(f"document.querySelector('.review-view .message').textContent.startsWith({words!r})")
        page.wait(
            f"Boolean(document.querySelector('.review-view .message').textContent) === {str(bool(words)).lower()}"
        )
    page.console[:] = [line for line in page.console if "ERR_INTERNET_DISCONNECTED" not in line]


@pytest.mark.parametrize(("width", "height", "dark"), [(390, 844, False), (1400, 1000, True), (3840, 2160, False)])
def test_every_size_fits(page, width, height, dark):
    page.show(width, height, dark=dark)
    page.run("new Promise((done) => setTimeout(done, 600))")
    too_wide = (
        "[...document.querySelectorAll('body *')].filter((one) => one.getBoundingClientRect().right > innerWidth)"
    )
    names = page.run(f"{too_wide}.map((one) => one.tagName + '.' + one.className)")
    assert page.run("document.documentElement.scrollWidth <= innerWidth"), names
    assert page.run("document.querySelector('.review-card').getBoundingClientRect().right <= innerWidth")
    shot(page, f"{width}{'-dark' if dark else ''}")
    page.show(1400, 1000)


@pytest.mark.skipif(not AXE, reason="needs axe-core")
@pytest.mark.parametrize("dark", [False, True])
def test_no_rule_of_accessibility_is_broken(page, dark):
    page.show(1400, 1000, dark=dark)
    assert barriers(page) == []
    page.show(1400, 1000)
