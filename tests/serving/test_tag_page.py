"""The Tag view in a browser, used as a person uses it: drop, look, listen, set, download."""

import base64
import csv
import io
import re
import time
import urllib.error
import urllib.request

import numpy as np
import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import AXE, barriers, choose_sound, click_button, unforeseen
from helpers.page_server import FAKE_MICROPHONE, downloaded, page_server, wait_until
from spectag.audio.files import write_audio

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


TOKEN = "a secret of many characters"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder with sounds, and the address of a server."""
    folder = tmp_path_factory.mktemp("page")
    make_bundle(folder / "model", make_info(thresholds=(1e-4, 1e-4, 1e-4)))
    write_audio(folder / "a & <b>.wav", np.concatenate([tone("low", 6.0), tone("high", 6.0)]), 16_000)
    rng = np.random.default_rng(0)
    noise = np.float32(0.02 * rng.standard_normal(300 * 16_000))
    noise[100 * 16_000 : 104 * 16_000] += tone("middle", 4.0)
    write_audio(folder / "long.flac", noise, 16_000)
    write_audio(folder / "old.aiff", tone("high", 3.0), 16_000)
    (folder / "broken.wav").write_bytes(b"RIFF" + bytes(1_000))
    with page_server(folder, "model") as address:
        yield folder, address


@pytest.fixture(scope="module")
def page(server, tmp_path_factory):
    folder, address = server
    with chromium(tmp_path_factory.mktemp("profile"), *FAKE_MICROPHONE) as page:
        page.show(1400, 1000)
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
        page.open(f"{address}/")
        page.wait("document.querySelector('.state.empty').checkVisibility()")
        page.choose_files(
            ".tag-view input[type=file]", [folder / "a & <b>.wav", folder / "long.flac", folder / "broken.wav"]
        )
        page.wait("document.querySelectorAll('.sounds li:is(.ready, .failed)').length === 3", 60)
        yield page
        # broken.wav, a sound that was deleted, and one that was deleted while the browser read it
        assert unforeseen(page, "422 (Unprocessable Entity)", "410 (Gone)", "ERR_CONTENT_LENGTH_MISMATCH") == []


def summary_of(page):
    return page.run("document.querySelector('.sentence').textContent")


def set_value(page, selector, value):
    page.run(f"document.querySelector({selector!r}).value = {value!r}")
    page.run(f"document.querySelector({selector!r}).dispatchEvent(new Event('input'))")


def choose_format(page, name):
    set_value(page, "#format", name)
    page.run("document.querySelector('#format').dispatchEvent(new Event('change'))")


def colours_of(page):
    """How many pixels of the spectrogram have each of some brightnesses."""
    return page.run("""(() => {
        const canvas = document.querySelector('.picture');
        const { data } = canvas.getContext('2d').getImageData(160, 0, canvas.width - 160, canvas.height - 30);
        const counts = new Array(8).fill(0);
        for (let i = 0; i < data.length; i += 4) counts[data[i] >> 5] += 1;
        return counts;
    })()""")


def test_names_are_text_and_failures_have_a_reason(page):
    names = page.run("[...document.querySelectorAll('.sounds .name span')].map((one) => one.textContent)")
    assert names == ["a & <b>.wav", "long.flac", "broken.wav"]
    assert page.run("document.querySelector('.sounds b')") is None
    assert page.run("document.querySelector('.sounds .failed small').textContent").startswith("not a sound")
    choose_sound(page, 2)
    assert "can't be tagged" in page.run("document.querySelector('.state.failed').textContent")
    click_button(page, "Try again")
    page.wait("document.querySelector('.state.failed')")


def test_spectrogram_is_drawn_and_detections_have_lanes(page):
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    page.wait("document.querySelector('.picture').width > 900")
    wait_until(lambda: sum(count > 500 for count in colours_of(page)) >= 4, why="the spectrogram stays dark")
    assert summary_of(page) == "2 detections of 2 labels"


def test_threshold_and_duration_act_without_a_request(page):
    choose_sound(page, 0)
    page.wait("document.querySelector('.sentence').textContent.startsWith('2 detections')")
    n_requests = page.run("performance.getEntriesByType('resource').length")
    set_value(page, "#threshold", "0.99")
    assert summary_of(page).startswith("Nothing detected. The most probable label is ")
    set_value(page, "#threshold", "0.02")
    assert page.run("document.querySelector('#own-thresholds').checked") is False
    assert page.run("performance.getEntriesByType('resource').length") == n_requests
    page.run("document.querySelector('#own-thresholds').click()")
    assert summary_of(page) == "2 detections of 2 labels"
    set_value(page, "#least", "8")
    assert summary_of(page).startswith("Nothing detected")
    set_value(page, "#least", "0")
    assert summary_of(page) == "2 detections of 2 labels"


def test_zoom_buttons_stay_under_the_pointer(page):
    choose_sound(page, 1)
    page.wait("document.querySelector('.facts-line').textContent.includes('5:00')")
    button = "document.querySelector('.bar [title=\"Zoom in\"]')"
    left = page.run(f"{button}.getBoundingClientRect().left")
    for _ in range(4):
        page.run(f"{button}.click()")
    assert page.run(f"{button}.getBoundingClientRect().left") == left
    page.press("0")


def test_zoom_scroll_and_hover(page):
    choose_sound(page, 1)
    page.wait("document.querySelector('.facts-line').textContent.includes('5:00')")
    page.press("+")
    page.press("+")
    shown = page.run("document.querySelector('.scrollbar').getAttribute('aria-valuetext')")
    assert shown == "0.0 s to 1:15.0"
    page.run("document.querySelector('.plot').dispatchEvent(new WheelEvent('wheel', {deltaX: 200, cancelable: true}))")
    assert page.run("document.querySelector('.scrollbar').getAttribute('aria-valuetext')") != shown
    page.press("0")
    assert page.run("document.querySelector('.scrollbar').getAttribute('aria-valuetext')") == "0.0 s to 5:00.0"
    page.wait("document.querySelector('.plot').scrollIntoView() || true")
    plot = "document.querySelector('.plot').getBoundingClientRect()"
    box = page.run(f"(({{ x, y, width, height }}) => [x, y, width, height])({plot})")
    for x in range(50):  # until the tiles are there
        page.move(box[0] + 150 + (box[2] - 150) / 2 + x % 2, box[1] + box[3] / 2)
        if "dB" in page.run("document.querySelector('.hover').textContent"):
            break
        time.sleep(0.1)
    hovered = page.run("document.querySelector('.hover').textContent")
    assert re.fullmatch(r"2:(29|30)\.\d\d · [\d,]+ Hz · -?\d+ dB", hovered), hovered


def test_playing_moves_the_cursor_and_ends_with_the_detection(page):
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    page.press("n")
    page.wait("document.querySelector('.play').textContent.includes('Pause')")
    before = page.run("document.querySelector('.cursor').style.transform")
    page.wait(f"document.querySelector('.cursor').style.transform !== {before!r}")
    page.press(" ")
    page.wait("document.querySelector('.play').textContent.includes('Play')")


def test_formats_that_the_browser_does_not_know_are_played_as_wav(page, server):
    folder, _ = server
    page.choose_files(".tag-view input[type=file]", [folder / "old.aiff"])
    page.wait("document.querySelector('.full h2').textContent === 'old.aiff'")
    page.wait("document.querySelectorAll('.lane-names li').length === 1")
    before = page.run("document.querySelector('.cursor').style.transform")
    page.press(" ")
    page.wait(f"document.querySelector('.cursor').style.transform !== {before!r}")
    page.wait("performance.getEntriesByType('resource').some((one) => one.name.endsWith('/wav'))")
    page.press("Delete")


def test_folders_are_searched_for_sounds_in_all_their_parts(page):
    names = page.run("""import('/static/dropped_files.js').then(async ({ filesOf }) => {
        const file = (name) => ({ isFile: true, name, file: (resolve) => resolve({ name }) });
        const folder = (children) => ({ isFile: false, createReader: () => {
            const rest = [...children];
            return { readEntries: (resolve) => resolve(rest.splice(0, 100)) };  // as browsers do
        } });
        const many = folder(Array.from({ length: 150 }, (_, i) => file(`${i}.wav`)));
        const locked = { isFile: true, name: 'locked.wav', file: (_, reject) => reject(new Error('no')) };
        const dropped = [file('notes.txt'), folder([file('a.FLAC'), locked, file('notes.txt'), many])];
        const found = await filesOf({ items: dropped.map((entry) => ({ webkitGetAsEntry: () => entry })) });
        return [found.files.map((file) => file.name), found.unreadable];
    })""")
    sounds = ["a.FLAC", *(f"{i}.wav" for i in range(150))]
    assert names == [["notes.txt", *sounds], ["locked.wav"]]  # what was chosen itself is never left out


def test_dropped_files_are_tagged(page, server):
    folder, _ = server
    count = page.run("document.querySelectorAll('.sounds li').length")
    content = base64.b64encode((folder / "old.aiff").read_bytes()).decode("ascii")
    page.run(f"""(() => {{
        const bytes = Uint8Array.from(atob("{content}"), (letter) => letter.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], "dropped.aiff"));
        const event = new DragEvent("drop", {{ dataTransfer, bubbles: true, cancelable: true }});
        document.querySelector("h1").dispatchEvent(event);  // beside the view
        if (!event.defaultPrevented) throw new Error("the browser would leave the page");
    }})()""")
    page.wait(f"document.querySelectorAll('.sounds li').length === {count + 1}")
    page.wait("document.querySelector('.sounds li:last-child').matches('.ready')", 30)
    assert page.run("document.querySelector('.sounds li:last-child span').textContent") == "dropped.aiff"
    page.press("Delete")
    page.wait(f"document.querySelectorAll('.sounds li').length === {count}")


def test_list_of_detections_is_made_when_it_is_opened(page):
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    page.run("document.querySelector('.detections').open = true")
    page.wait("document.querySelectorAll('.detections tbody tr').length === 2")


def test_focus_stays_when_another_sound_is_shown_and_goes_on_when_one_is_removed(page, server):
    folder, _ = server
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    page.run("document.querySelector('.bar .play').focus()")
    page.press("ArrowDown")
    page.wait("document.querySelector('.full h2').textContent === 'long.flac'")
    assert page.run("document.activeElement.classList.contains('play')")
    page.choose_files(".tag-view input[type=file]", [folder / "old.aiff"])
    page.wait("document.querySelector('.sounds li:last-child').matches('.ready')", 30)
    page.run("document.querySelector('.sounds li:last-child .remove').focus()")
    page.run("document.activeElement.click()")
    page.wait("document.querySelectorAll('.sounds li').length === 3")
    assert page.run("document.activeElement.textContent").startswith("broken.wav")


def test_explanation_is_drawn_on_demand(page):
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    for _ in range(3):
        page.press("+")  # shorter than what the model takes at once
    page.press("e")
    page.wait(
        "[...document.querySelectorAll('.bar button')].some((one) => one.textContent.startsWith('End explanation'))", 60
    )
    assert "speak for" in page.run("document.querySelector('.bar + .whole').textContent")
    choose_sound(page, 1)  # it does not belong to another sound
    page.wait("[...document.querySelectorAll('.bar button')].some((one) => one.textContent === 'Explain')")
    choose_sound(page, 0)
    page.press("0")


def test_download_is_the_table_with_the_settings_of_the_page(page, server):
    folder, _ = server
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    click_button(page, "Download")
    [path] = downloaded(folder / "downloads")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [row["label"] for row in rows] == ["low", "high"]
    assert {row["file"] for row in rows} == {"a & <b>.wav"}


def test_submission_needs_its_template(page, server):
    folder, _ = server
    template = folder / "sample_submission.csv"
    template.write_text("fname,low,high\na & <b>.wav,0,0\n", encoding="utf-8")
    choose_sound(page, 0)
    choose_format(page, "submission")
    button = "[...document.querySelectorAll('button')].find((one) => one.textContent === 'Download')"
    page.wait(f"{button}.disabled && document.querySelector('#template').checkVisibility()")
    page.choose_files("#template", [template])
    page.wait(f"!{button}.disabled")
    page.show(390, 1000)
    page.wait("document.documentElement.scrollWidth <= 390")
    page.show(1400, 1000)
    for path in (folder / "downloads").glob("*.csv"):
        path.unlink()
    click_button(page, "Download")
    [path] = downloaded(folder / "downloads")
    [row] = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))
    assert list(row) == ["fname", "low", "high"]
    choose_format(page, "csv")
    page.wait("!document.querySelector('#template').checkVisibility()")


def test_scrolling_through_five_minutes_is_smooth(page):
    choose_sound(page, 1)
    page.wait("document.querySelector('.facts-line').textContent.includes('5:00')")
    page.press("+")
    time.sleep(1)  # until the tiles are there
    frames = page.run("""new Promise((resolve) => {
        const bar = document.querySelector('.scrollbar'), times = [];
        let before = performance.now();
        function step(now) {
            times.push(now - before);
            before = now;
            bar.value = String((times.length * 8) % 1000);
            bar.dispatchEvent(new Event('input'));
            if (times.length < 90) requestAnimationFrame(step); else resolve(times.slice(5).sort((a, b) => a - b));
        }
        requestAnimationFrame(step);
    })""")
    page.press("0")
    assert frames[len(frames) // 2] < 34, "60 frames a second, or 30 on a busy machine"


def test_recording_from_the_microphone_is_tagged(page):
    count = page.run("document.querySelectorAll('.sounds li').length")
    click_button(page, "Record")
    page.wait("/Stop \\(([1-9])/.test(document.querySelector('.recording').textContent)")
    click_button(page, "Stop")
    page.wait(f"document.querySelectorAll('.sounds li').length === {count + 1}")
    page.wait("document.querySelector('.sounds li:last-child').classList.contains('ready')", 60)
    assert page.run("document.querySelector('.sounds li:last-child span').textContent").startswith("recording 20")
    page.press("Delete")
    page.wait(f"document.querySelectorAll('.sounds li').length === {count}")


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False), (3840, True)])
def test_page_fits_its_window_and_axe_finds_nothing(page, width, dark):
    page.show(width, 1000, dark=dark)
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.run("document.documentElement.scrollWidth") <= width
    if AXE:
        assert (found := barriers(page)) == [], str(found)
    page.show(1400, 1000)


def test_sounds_are_sent_again_if_the_server_has_lost_them(page):
    choose_sound(page, 0)
    page.wait("document.querySelectorAll('.lane-names li').length === 2")
    names = "performance.getEntriesByType('resource').map((one) => one.name)"
    first = page.run(f"{names}.find((name) => name.endsWith('/probabilities'))")
    page.run(f"fetch({first!r}.replace('/probabilities', ''), {{ method: 'DELETE' }})")
    set_value(page, "#format", "json")
    click_button(page, "Download")
    page.wait("document.querySelector('#announcer').textContent === 'a & <b>.json downloaded'")


def test_keyboard_shortcuts_are_listed(page):
    page.press("?")
    page.wait("document.querySelector('dialog').open")
    assert page.run("document.querySelectorAll('dialog dt').length") == 14
    page.press("Escape")
    page.run("document.querySelector('dialog').close()")


def test_closing_the_page_deletes_its_sounds(server, tmp_path):
    folder, address = server
    with chromium(tmp_path) as page:
        page.open(f"{address}/")
        page.wait("document.querySelector('.tag-view input')")
        page.choose_files(".tag-view input[type=file]", [folder / "old.aiff"])
        page.wait("document.querySelector('.sounds li.ready')", 30)
        names = "performance.getEntriesByType('resource').map((one) => one.name)"
        sound = page.run(f"{names}.find((name) => name.endsWith('/probabilities'))")
        assert status_of(sound) == 200
        page.open("about:blank")
        wait_until(lambda: status_of(sound) == 410, why="the sound is still there")


def test_page_asks_for_the_token_and_tries_again_when_the_server_does_not_answer(server, tmp_path):
    folder, _ = server
    with page_server(folder, "model", SPECTAG_TOKEN=TOKEN) as address, chromium(tmp_path) as page:
        page.open(f"{address}/?token=wrong")
        page.wait("document.querySelector('#token')")
        assert page.run("location.search") == ""
        for token, state in [("wrong", ".problem:not(:empty)"), (TOKEN, ".state.empty h2")]:
            page.run(f"document.querySelector('#token').value = {token!r}")
            page.run("document.querySelector('.token button').click()")
            page.wait(f"document.querySelector({state!r})")
        page.wait("document.querySelector('.tag-view input')")
        offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        page.call("Network.enable")
        page.call("Network.emulateNetworkConditions", offline=True, **offline)
        page.choose_files(".tag-view input[type=file]", [folder / "old.aiff"])
        page.wait("document.querySelector('.state.failed').textContent.includes('The server does not answer')")
        page.call("Network.emulateNetworkConditions", offline=False, **offline)
        click_button(page, "Try again")
        page.wait("document.querySelectorAll('.lane-names li').length === 1", 30)


def status_of(url):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
