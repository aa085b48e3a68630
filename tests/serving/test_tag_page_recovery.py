"""The Tag view when things go wrong: servers that end, other models, sounds that are removed, memory that is needed."""

import csv
import io
import shutil

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import choose_sound, click_button
from helpers.page_server import downloaded, page_server
from spectag.audio.files import write_audio

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    make_bundle(folder / "model", make_info(thresholds=(1e-4, 1e-4, 1e-4)))
    write_audio(folder / "long.wav", tone("low", 60.0), 16_000)
    write_audio(folder / "old.aiff", tone("high", 3.0), 16_000)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with page_server(folder, "model") as address:
        yield address


@pytest.fixture(scope="module")
def page(address, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as page:
        page.open(f"{address}/")
        page.wait("document.querySelector('.tag-view input')")
        yield page


def test_tiles_of_sounds_that_are_not_shown_are_freed(page):
    kept = page.run("""import('/static/tiles.js').then(async ({ Tiles }) => {
        const scheme = { columns: 512, lowest_db: -100, db_per_step: 0.5, levels: [{ seconds: 0.01, offset: 0 }] };
        const tiles = new Tiles(scheme, async () => new Uint8Array(128 * 512), () => {}, () => {});
        const context = new OffscreenCanvas(100, 128).getContext('2d');
        const box = { x: 0, y: 0, width: 100, height: 128 };
        for (let start = 0; start < 200; start += 5) {
            tiles.draw(context, start, start + 5, 200, box);
            while (!tiles.kept.has(`0/${Math.floor(start / 5.12)}`)) await new Promise((done) => setTimeout(done, 1));
            tiles.draw(context, start, start + 5, 200, box);
        }
        const before = tiles.kept.size;
        tiles.close();
        return [before > 30, tiles.kept.size, [...tiles.kept.values()].filter((tile) => tile.canvas).length];
    })""")
    assert kept == [True, 8, 0]


def test_median_of_three_windows_is_that_of_any_size(page):
    differences = page.run("""import('/static/segments.js').then(({ medianFiltered }) => {
        const median = (values) => values.map((_, i) => {
            const around = [-1, 0, 1].map((k) => values[Math.min(values.length - 1, Math.max(0, i + k))]);
            return around.sort((a, b) => a - b)[1];
        });
        const lists = [[], [0.5], [0.1, 0.9], ...Array.from({ length: 200 }, (_, n) => Array.from({ length: n }, () =>
            Math.fround(Math.round(10 * Math.random()) / 10)))];
        const filtered = (list) => [...medianFiltered(Float32Array.from(list), 3)];
        return lists.filter((list) => filtered(list).join() !== median(list.map(Math.fround)).join());
    })""")
    assert differences == []


def test_page_goes_on_when_the_server_was_started_again_with_another_model(tmp_path):
    """Sounds are sent again, also for a table of all; another model's labels are never shown under wrong names."""
    make_bundle(tmp_path / "model", make_info(thresholds=(1e-4, 1e-4, 1e-4)))
    write_audio(tmp_path / "Käuzchen.wav", tone("low", 4.0), 16_000)
    write_audio(tmp_path / "b.aiff", tone("high", 4.0), 16_000)
    with chromium(tmp_path / "profile") as page:
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "downloads"))
        with page_server(tmp_path, "model") as address:
            page.open(f"{address}/")
            page.wait("document.querySelector('.tag-view input')")
            page.choose_files(".tag-view input[type=file]", [tmp_path / "Käuzchen.wav", tmp_path / "b.aiff"])
            page.wait("document.querySelectorAll('.sounds .ready').length === 2", 30)
        port = int(address.rpartition(":")[2])
        click_button(page, "All 2 sounds")
        page.wait("document.querySelector('.problem').textContent.includes('The server does not answer')")
        with page_server(tmp_path, "model", port=port):
            click_button(page, "All 2 sounds")
            rows = list(csv.DictReader(io.StringIO(downloaded(tmp_path / "downloads")[0].read_text("utf-8"))))
            assert {row["file"] for row in rows} == {"Käuzchen.wav", "b.aiff"}
            choose_sound(page, 1)
            page.press(" ")  # the browser can't play it: the server has to
            page.wait("document.querySelector('.play').textContent.includes('Pause')")
        shutil.rmtree(tmp_path / "model")
        make_bundle(tmp_path / "model", make_info(labels=("x", "y", "z"), thresholds=(1e-4, 1e-4, 1e-4)))
        with page_server(tmp_path, "model", port=port):
            click_button(page, "All 2 sounds")
            page.wait("document.querySelector('.problem').textContent.includes('another model now')", 30)


def test_sounds_are_tagged_again_after_another_version_was_opened(folder, address, tmp_path):
    with chromium(tmp_path) as page:
        page.open(f"{address}/")
        page.wait("document.querySelector('.tag-view input')")
        page.run("""import('/static/tag.js').then(({ mount }) => import('/static/api.js').then(({ request }) =>
            fetch('/views').then((answer) => answer.json()).then((info) => {
                window.requests = [];
                const noting = (path, options) => { window.requests.push(path); return request(path, options); };
                const element = document.createElement('section');
                element.className = 'tag-view mine';
                document.querySelector('.tag-view').replaceWith(element);
                window.view = mount(element, { request: noting, announce: () => {}, info });
            })))""")
        page.choose_files(".mine input[type=file]", [folder / "old.aiff"])
        page.wait("document.querySelector('.mine .ready')", 30)
        page.run("window.view.changed()")
        page.wait("window.requests.filter((path) => path.endsWith('/probabilities')).length === 2")
        page.wait("document.querySelector('.mine .ready')", 30)
        assert page.run("window.requests.filter((path) => path.endsWith('/sounds')).length") == 1


def test_removed_sounds_are_not_sent_to_the_end(folder, address, tmp_path):
    with chromium(tmp_path) as page:
        page.open(f"{address}/")
        page.wait("document.querySelector('.tag-view input')")
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
        page.call("Network.enable")
        page.call("Network.emulateNetworkConditions", **slow)
        page.choose_files(".tag-view input[type=file]", [folder / "long.wav", folder / "old.aiff"])
        page.wait("document.querySelector('.sounds .sending')")
        page.run("document.querySelector('.sounds .remove').click()")
        page.call("Network.emulateNetworkConditions", **slow | {"uploadThroughput": -1})
        page.wait("document.querySelectorAll('.sounds li.ready').length === 1", 30)
        assert page.run("document.querySelectorAll('.sounds li').length") == 1
