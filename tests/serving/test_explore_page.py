"""The Explore view in a browser: draw the map, look, listen, select with lasso and keyboard, label many clips."""

import json
import time

import pytest

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import AXE, barriers, click_button, text_of, unforeseen
from helpers.page_server import page_server
from spectag.audio.files import write_audio
from spectag.reporting.label_colors import LabelColors
from spectag.serving.project.label_clips import ClipState
from spectag.serving.project.label_rows import FoundClip
from spectag.serving.project.project import open_project

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")

LABELS = ("low", "middle", "<b>high")
N_CLIPS = 24


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with clips of three kinds from two sites, and a clip that can't be read."""
    folder = tmp_path_factory.mktemp("explore")
    with open_project(folder / "project") as project:
        project.versions.add_copy(make_bundle(folder / "model", make_info(thresholds=(1e-4, 1e-4, 1e-4))))
        found = []
        for number in range(N_CLIPS):
            label = ("low", "middle", "high")[number % 3]
            path = folder / "project" / f"{('pond', 'hill')[number % 2]}_2024050{number % 9 + 1}_{number:02}3000.wav"
            write_audio(path, tone(label, 1.0), 16_000)
            state = ClipState((LABELS[number % 3],)) if number else ClipState(is_labelled=False)
            found.append(FoundClip(str(path), path.name, 0.0, None, state))
        (folder / "project/broken.wav").write_bytes(b"RIFF")
        found.append(FoundClip(str(folder / "project/broken.wav"), "broken.wav", 0.0, None, ClipState(("low",))))
        project.labels.add_clips(found, LABELS, reviewer="")
    return folder / "project"


@pytest.fixture(scope="module")
def page(project, tmp_path_factory):
    with page_server(project, "--project", project) as address, chromium(tmp_path_factory.mktemp("profile")) as page:
        page.show(1400, 900)
        page.open(f"{address}/#explore")
        page.wait("document.querySelector('.explore-view .state.empty').checkVisibility()")
        yield page
        assert unforeseen(page, "409 (Conflict)") == []


def click(page, text):
    click_button(page, text, ".explore-view")


def legend(page):
    items = "[...document.querySelectorAll('.legend .text')].map((one) => one.textContent)"
    return page.run(items)


def test_map_is_drawn_on_demand(page):
    assert f"{N_CLIPS + 1} clips" in text_of(page, ".explore-view .state.empty")
    click(page, "Draw the map")
    page.wait("document.querySelector('.explore-view .map canvas')?.width > 500", 90)
    assert f"{N_CLIPS} clips, placed by t-SNE. 1 clip is not on the map" in text_of(page, ".note .hint")
    assert set(legend(page)) == {*LABELS, "not labelled"}
    assert page.run("document.querySelector('.legend b')") is None


def test_colours_follow_the_choice_and_the_legend_picks_a_group(page):
    for mode, names in (
        ("site", {"pond", "hill"}),
        ("month", {"May"}),
        ("hour", {f"{h:02}–{h + 3:02} h" for h in range(0, 24, 3)}),
    ):
        page.run(f"document.querySelector('#explore-mode').value = {mode!r}")
        page.run("document.querySelector('#explore-mode').dispatchEvent(new Event('change'))")
        assert set(legend(page)) == names
    page.run("document.querySelector('#explore-mode').value = 'error'")
    page.run("document.querySelector('#explore-mode').dispatchEvent(new Event('change'))")
    assert "no labels, or used for training" in legend(page)
    page.run("document.querySelector('.legend button').click()")
    assert page.run("document.querySelectorAll('.legend [aria-pressed=true]').length") == 1
    page.run("document.querySelector('.legend button').click()")
    page.run("document.querySelector('#explore-mode').value = 'label'")
    page.run("document.querySelector('#explore-mode').dispatchEvent(new Event('change'))")


def test_arrows_go_from_clip_to_clip_and_space_plays(page):
    page.run("document.querySelector('.map').focus()")
    page.press("ArrowRight")
    page.wait("document.querySelector('.clip-card h2').textContent.endsWith('.wav')")
    page.wait("document.querySelector('.clip-card img')?.naturalWidth > 10")
    assert "[object" not in text_of(page, ".explore-view")
    names = set()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp") * 2:
        page.press(key)
        names.add(text_of(page, ".clip-card h2"))
    assert len(names) > 2
    page.press(" ")
    page.wait("document.querySelector('.clip-card button').textContent === 'Stop'")
    assert page.run("document.querySelector('.selection .buttons button').textContent") == "Play one after another"
    page.wait("document.querySelector('.clip-card button').textContent === 'Play'", 15)
    assert page.run("document.querySelectorAll('.explore-view details .clips li').length") == 20


def test_near_clips_are_selected_by_the_keyboard(page):
    page.run("document.querySelector('.map').focus()")
    page.press("s")
    page.wait("document.querySelector('.selection h2').textContent === '20 clips are selected'")
    page.press("x")
    page.wait("document.querySelector('.selection h2').textContent === '19 clips are selected'")
    page.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
    page.wait("document.querySelector('.selection h2').textContent === 'No clip is selected'")


def drag(page, points):
    """Press the mouse at the first point, and release it at the last one."""
    for number, (x, y) in enumerate(points):
        kind = "mousePressed" if number == 0 else "mouseMoved"
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)


def test_lasso_selects_and_labels_are_given_removed_and_undone(page, project):
    page.press("0")
    page.press("l")
    assert page.run("document.querySelector('.bar [aria-pressed=true]').textContent") == "Lasso"
    left, top, width, height = page.run(
        "(({ x, y, width, height }) => [x, y, width, height])(document.querySelector('.map').getBoundingClientRect())"
    )
    right, bottom = left + width - 3, top + height - 3
    drag(page, [(left + 3, top + 3), (right, top + 3), (right, bottom), (left + 3, bottom), (left + 3, top + 3)])
    page.wait(f"document.querySelector('.selection h2').textContent === '{N_CLIPS} clips are selected'")
    page.press("l")
    click(page, "Give the label to all")
    assert text_of(page, ".selection .problem") == "Enter a label first."
    page.run("document.querySelector('#explore-label').value = 'rain'")
    click(page, "Give the label to all")
    page.wait("document.querySelector('.selection .hint').textContent.includes('have the label rain')")
    page.wait(
        "[...document.querySelectorAll('.selection .clips small')].every((one) => one.textContent.includes('rain'))"
    )
    assert "rain" in page.run("[...document.querySelectorAll('#explore-labels option')].map((one) => one.value).join()")
    click(page, "Undo the last change")
    page.wait("document.querySelector('.selection .hint').textContent === 'The last change is undone.'")
    page.wait(
        "![...document.querySelectorAll('.selection .clips small')].some((one) => one.textContent.includes('rain'))"
    )


def test_selected_clips_are_played_one_after_another(page):
    click(page, "Clear selection")
    page.run("document.querySelector('.map').focus()")
    page.press("ArrowRight")
    page.press("x")
    page.press("ArrowLeft")
    page.press("x")
    page.wait("document.querySelector('.selection h2').textContent === '2 clips are selected'")
    click(page, "Play one after another")
    page.wait("document.querySelector('.selection .playing')")
    first = text_of(page, ".selection .playing .name")
    page.wait(f"document.querySelector('.selection .playing .name')?.textContent !== {first!r}", 15)
    page.wait("document.querySelector('.selection .playing') === null", 15)


def test_hover_shows_name_labels_and_spectrogram(page):
    page.press("0")
    left, top, width, height = page.run(
        "(({ x, y, width, height }) => [x, y, width, height])(document.querySelector('.map').getBoundingClientRect())"
    )
    for step in range(2_000):  # until a point is under the pointer
        x, y = left + (step * 13) % width, top + 8 * (step * 13 // width) % height
        page.move(x, y)
        if page.run("!document.querySelector('.tip').hidden"):
            break
    assert text_of(page, ".tip strong").endswith(".wav")
    page.wait("document.querySelector('.tip img')?.naturalWidth > 10")
    page.click(x, y)
    page.wait(
        "document.querySelector('.clip-card h2').textContent === document.querySelector('.tip strong').textContent"
    )


def test_twenty_thousand_points_are_drawn(page):
    n_drawn = page.run("""Promise.all([import('/static/explore_map.js')]).then(([{ MapCanvas }]) => {
        const map = new MapCanvas({ hover() {}, choose() {}, lasso() {} });
        Object.assign(map.element.style, { width: '800px', height: '600px' });
        document.querySelector('.explore-view').append(map.element);
        map.resize();
        const x = Array.from({ length: 20000 }, (_, i) => (i % 141) / 141), y = x.map((_, i) => i / 20000);
        map.show(x, y);
        map.color({ codes: new Uint8Array(20000), groups: [{ color: '#ff0000' }] });
        map.draw();
        const { data } = map.canvas.getContext('2d').getImageData(0, 0, map.canvas.width, map.canvas.height);
        let count = 0;
        for (let i = 0; i < data.length; i += 4) if (data[i] > 200 && data[i + 1] < 100) count += 1;
        const inside = map.inside([[0, 0], [map.width, 0], [map.width, map.height], [0, map.height]]).length;
        map.element.remove();
        return [count, inside];
    })""")
    assert n_drawn[0] > 50_000
    assert n_drawn[1] == 20_000


def test_labels_of_one_picture_have_different_colours(page):
    labels = [f"label {number:02}" for number in range(14)]
    colors = LabelColors(labels)
    own = {label: colors.color(label) for label in labels}
    assert len(set(own.values())) < 10
    shown = page.run(f"""import('/static/colors.js').then(({{ differentColors }}) => {{
        const own = {json.dumps(own)};
        return [...differentColors(Object.keys(own), (label) => own[label])];
    }})""")
    assert [label for label, _ in shown] == labels
    assert len({color for _, color in shown[:12]}) == 12, "as many as there are"
    first = {color: label for label, color in reversed(own.items())}
    assert all(dict(shown)[label] == color for color, label in first.items()), "the first keeps its own"


def test_answer_about_another_version_that_comes_late_is_not_shown(page):
    shown = page.run("""import('/static/explore.js').then(async ({ mount }) => {
        const element = document.createElement('section'), answers = [];
        const request = () => new Promise((resolve) => { answers.push(resolve); });
        const view = mount(element, { request, announce: () => {}, info: { labels: [], views: [] } });
        const nothing = { map: null, job: null, problem: '' };
        view.shown();
        view.changed();
        answers[1]({ ...nothing, n_clips: 3 });
        answers[0]({ ...nothing, n_clips: 7 });
        await new Promise((resolve) => { setTimeout(resolve, 50); });
        view.hidden();
        return element.textContent;
    })""")
    assert "3 clips" in shown
    assert "7 clips" not in shown


def test_sound_that_can_not_be_played_after_others_has_a_reason(page):
    problem = page.run("""import('/static/explore_cards.js').then(async ({ ClipCards }) => {
        const { wavBytes } = await import('/static/live_memory.js');
        const sound = `data:audio/wav;base64,${btoa(String.fromCharCode(...wavBytes(new Int16Array(800), 8000)))}`;
        const request = async (path) => path.includes('/1/') ? { sound } : Promise.reject(new Error('away'));
        return new Promise((resolve) => { new ClipCards({ request }, () => {}, resolve).play([1, 2]); });
    })""")
    assert problem == "away"


def test_focus_goes_to_the_next_clip_when_one_is_taken_from_the_selection(page):
    page.press("s")
    page.run("document.querySelectorAll('.selection .remove')[1].focus()")
    names = page.run("[...document.querySelectorAll('.selection .remove')].map((one) => one.ariaLabel)")
    page.run("document.activeElement.click()")
    assert page.run("document.activeElement.ariaLabel") == names[2]
    page.run("document.activeElement.blur()")


def test_someone_elses_change_is_not_overwritten(page):
    page.press("s")
    page.run("""(async () => {
        const { map } = await (await fetch('/views/explore/map')).json();
        const clips = map.numbers.map((number, row) => [number, map.revisions[row]]);
        const body = JSON.stringify({ clips, label: 'wind', action: 'add' });
        await fetch('/views/explore/edit', { method: 'POST', headers: { 'content-type': 'application/json' }, body });
    })()""")
    page.run("document.querySelector('#explore-label').value = 'rain'")
    click(page, "Give the label to all")
    page.wait("document.querySelector('.selection .problem').textContent.includes('changed by somebody else')")
    page.wait("document.querySelector('.selection .clips small').textContent.includes('wind')")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (768, 1024), (3840, 2160)])
def test_nothing_is_wider_than_the_window(page, width, height):
    page.show(width, height)
    page.wait(f"document.querySelector('.map canvas').clientWidth <= {width}")
    time.sleep(0.2)
    assert page.run("document.documentElement.scrollWidth") <= width
    page.show(1400, 900)


@pytest.mark.skipif(not AXE, reason="needs axe-core")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page, dark):
    page.show(1400, 900, dark=dark)
    time.sleep(0.3)
    assert barriers(page) == []
    page.show(1400, 900)
