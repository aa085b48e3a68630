"""The Live view in a browser with a microphone that plays a file: what is drawn, heard, listed and saved."""

import io
import re
import time
import zipfile

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from helpers.browser import CHROMIUM, chromium
from helpers.bundles import make_bundle, make_info, tone
from helpers.page_actions import AXE, barriers
from helpers.page_server import FAKE_MICROPHONE, downloaded, page_server
from spectag.audio.files import write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_tiles import TileScheme
from spectag.config.base import WindowConfig
from spectag.serving import create_app

TOKEN = "a secret of many characters"
PORT = 8123
WATCH = """
window.streams = [];
window.sockets = [];
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await ask(wanted);
    window.streams.push(stream);
    return stream;
};
const Socket = window.WebSocket;
window.WebSocket = class extends Socket {
    constructor(address) { super(address); window.sockets.push(String(address)); }
};
"""
"""Notes the streams of the microphone and the addresses of the WebSockets."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and what the microphone plays, again and again: two low seconds, two high ones."""
    folder = tmp_path_factory.mktemp("live")
    make_bundle(folder / "model", make_info(thresholds=(0.99, 0.99, 1e-3)))
    write_audio(folder / "microphone.wav", np.concatenate([tone("low", 2.0), tone("high", 2.0)]), 16_000)
    return folder


@pytest.fixture(scope="module")
def address(folder):
    with page_server(folder, "model") as address:
        yield address


def microphone_of(folder):
    return (*FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}")


@pytest.fixture(scope="module")
def page(folder, address, tmp_path_factory):
    """A page that listens."""
    with chromium(tmp_path_factory.mktemp("profile"), *microphone_of(folder)) as page:
        page.show(1400, 1000)
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder / "downloads"))
        page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        page.open(f"{address}/#live")
        page.wait("document.querySelector('.live-view .state.empty').checkVisibility()")
        yield page
        assert page.console == []


def press(page, text):
    buttons = "[...document.querySelectorAll('.live-view button')]"
    page.run(f"{buttons}.find((one) => one.checkVisibility() && one.textContent === {text!r}).click()")


def wait_for_phase(page, phase, seconds=15):
    page.wait(f"document.querySelector('.live-view').dataset.phase === {phase!r}", seconds)


def listen(page):
    """Start, or go on, unless it listens already."""
    if page.run("document.querySelector('.live-view').dataset.phase") != "running":
        page.run("[...document.querySelectorAll('.live-bar button')].find((one) => one.checkVisibility()).click()")
        wait_for_phase(page, "running")


def wait_for_a_whole_detection(page):
    page.wait("[...document.querySelectorAll('.live-list tbody button')].some((one) => !one.disabled)", 20)
    page.wait("document.querySelectorAll('.live-now li').length === 0", 20)


@needs_browser
def test_labels_are_listed_while_they_are_heard_and_afterwards(page):
    listen(page)
    page.wait("document.querySelector('.live-now li').textContent.startsWith('high')", 20)
    page.wait("document.querySelector('.live-list tbody .label').textContent === 'high'")
    wait_for_a_whole_detection(page)
    rows = "[...document.querySelectorAll('.live-list tbody tr')].at(-1)"
    time_text, label, probability, duration, _ = page.run(f"[...{rows}.cells].map((one) => one.textContent)")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time_text)
    assert label == "high"
    assert 0 < float(probability) <= 1
    assert 0.5 < float(duration.removesuffix(" s")) < 4
    assert "tagged" in page.run("document.querySelector('.live-view .facts-line').textContent")
    assert page.run("document.querySelector('.live-lanes').textContent") == "high"


@needs_browser
def test_spectrogram_shows_the_tone_at_its_frequency(page):
    listen(page)
    wait_for_a_whole_detection(page)
    brightest = page.run("""(() => {
        const canvas = document.querySelector('.live-canvas');
        const { width } = canvas, height = 300;
        const { data } = canvas.getContext('2d').getImageData(160, 0, width - 160, height);
        const rows = Array.from({ length: height }, (_, y) => {
            let sum = 0;
            for (let x = 0; x < width - 160; x += 1) sum += data[4 * (y * (width - 160) + x)];
            return sum;
        });
        return 1 - rows.lastIndexOf(Math.max(...rows.slice(0, 150))) / height;  // the upper half: above the low tone
    })()""")
    edges = TileScheme(44_100).band_edges
    assert 4_300 < edges[round(brightest * 128)] < 5_700


@needs_browser
def test_columns_are_those_of_the_spectrogram_of_a_file(page, address, rng):
    rate = 22_050
    waveform = (0.2 * rng.standard_normal(rate) * np.linspace(0, 1, rate)).astype(np.float32)
    columns = page.run(f"""import('/static/live_spectrum.js').then(async ({{ MelColumns }}) => {{
        const {{ spectrogram }} = await (await fetch('/views/live/stream?sample_rate={rate}')).json();
        const mel = new MelColumns(spectrogram);
        const samples = Float32Array.from({waveform.tolist()});
        const found = [];
        for (let at = 0; at < samples.length; at += 1000) {{
            mel.add(samples.subarray(at, at + 1000), (column) => found.push([...column]));
        }}
        return found;
    }})""")
    expected = (compute_log_mel(waveform, TileScheme(rate).mel(2)) + 100) / 0.625
    found = np.array(columns).T
    assert 0 < expected.shape[1] - found.shape[1] <= 4  # the last ones need samples that have not come yet
    np.testing.assert_allclose(found, np.clip(expected[:, : found.shape[1]], 0, 255), atol=0.51)


@needs_browser
def test_clip_is_saved_with_its_context_and_a_name_that_tells_what_it_is(page, folder):
    listen(page)
    wait_for_a_whole_detection(page)
    duration = page.run("document.querySelector('.live-list tbody tr').cells[3].textContent")
    page.run("document.querySelector('#live-before').value = '0.5'; document.querySelector('#live-after').value = '1'")
    page.run("document.querySelector('.live-list tbody button').click()")
    [path] = downloaded(folder / "downloads", "*.wav")
    assert re.fullmatch(r"[01]\.\d{3}_20\d{6}-\d{6}_high\.wav", path.name)
    samples, rate = soundfile.read(path)
    assert rate == 44_100
    assert len(samples) / rate == pytest.approx(float(duration.removesuffix(" s")) + 1.5, abs=0.06)
    spectrum = np.abs(np.fft.rfft(samples))
    assert 4_300 < spectrum.argmax() * rate / len(samples) < 5_700


@needs_browser
def test_all_clips_are_saved_in_one_file(page, folder):
    listen(page)
    wait_for_a_whole_detection(page)
    count = page.run("document.querySelectorAll('.live-list tbody tr').length")
    press(page, "Save all")
    [path] = downloaded(folder / "downloads", "clips*.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == count
        for name in archive.namelist():
            assert soundfile.info(io.BytesIO(archive.read(name))).duration > 0.5
    path.unlink()


@needs_browser
def test_names_of_labels_become_parts_of_file_names(page):
    names = page.run("""import('/static/live_memory.js').then(({ clipName }) => {
        const time = new Date(2024, 4, 1, 5, 30, 12);
        return ['Sink (filling/washing)', '..', 'Con', 'ä'.repeat(50)].map((label) => clipName(0.8351, time, label));
    })""")
    assert names == [
        "0.835_20240501-053012_Sink (filling_washing).wav",
        "0.835_20240501-053012__.wav",
        "0.835_20240501-053012__Con.wav",
        f"0.835_20240501-053012_{'ä' * 40}.wav",
    ]


@needs_browser
def test_only_the_last_minutes_are_kept_and_clips_do_not_reach_across_a_pause(page):
    found = page.run("""Promise.all([import('/static/live_memory.js'), import('/static/live_session.js')]).then(
        ([{ SoundMemory }, { LiveSession }]) => {
            const memory = new SoundMemory(10);
            for (let i = 0; i < 400; i += 1) memory.add(new Float32Array(10).fill((i % 100) / 32767));
            const session = new LiveSession({ sample_rate: 256, n_fft: 256, hop_length: 64, points: [0, 64, 128] });
            session.begin();
            session.add(new Float32Array(2560));
            session.begin();
            session.add(new Float32Array(2560));
            return [
                memory.oldest, [...memory.cut(3985, 4005)], memory.cut(0, 990).length,
                session.clip({ start: 9, end: 9.5 }, 1, 5).length, session.clip({ start: 11, end: 12 }, 5, 1).length,
                session.keeps({ end: 1 }),
            ];
        })""")
    assert found == [1000, [98] * 5 + [99] * 10, 0, 512, 768, True]


@needs_browser
def test_pause_keeps_the_list_and_sends_nothing(page):
    listen(page)
    wait_for_a_whole_detection(page)
    page.press(" ")
    wait_for_phase(page, "paused")
    shown = page.run("document.querySelector('.live-list tbody').textContent")
    time.sleep(1)
    assert page.run("document.querySelector('.live-list tbody').textContent") == shown
    assert page.run("window.streams.at(-1).getTracks()[0].readyState") == "live"
    n_sockets = page.run("window.sockets.length")
    page.press(" ")
    wait_for_phase(page, "running")
    assert page.run("window.sockets.length") == n_sockets + 1


@needs_browser
def test_threshold_acts_on_the_running_stream(page):
    listen(page)
    assert "min_confidence" not in page.run("window.sockets.at(-1)")
    page.run("document.querySelector('#live-threshold').value = '0.9'")
    page.run("document.querySelector('#live-threshold').dispatchEvent(new Event('input'))")
    page.wait("window.sockets.at(-1).includes('min_confidence=0.9')")
    page.run("document.querySelector('#live-own-thresholds').click()")
    page.wait("!window.sockets.at(-1).includes('min_confidence')")
    assert page.run("document.querySelector('.live-view').dataset.phase") == "running"


@needs_browser
@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False), (1400, True)])
def test_page_fits_its_window_and_axe_finds_nothing(page, width, dark):
    page.show(width, 1000, dark=dark)
    listen(page)
    page.wait("document.querySelectorAll('.live-lanes li').length > 0", 20)
    assert page.run("document.documentElement.scrollWidth") <= width
    if AXE:
        assert (found := barriers(page)) == [], str(found)
    page.show(1400, 1000)


@needs_browser
def test_microphone_is_free_when_another_view_is_shown_or_it_is_stopped(page):
    states = "window.streams.at(-1).getTracks().map((track) => track.readyState)"
    listen(page)
    page.run("location.hash = '#tag'")
    page.wait("!document.querySelector('.live-view').checkVisibility()")
    assert page.run(states) == ["ended"]
    page.run("location.hash = '#live'")
    wait_for_phase(page, "stopped")
    listen(page)
    assert page.run(states) == ["live"]
    press(page, "Stop")
    wait_for_phase(page, "stopped")
    assert page.run(states) == ["ended"]
    assert page.run("document.querySelectorAll('.live-list tbody tr').length") > 0


@needs_browser
def test_microphone_is_free_when_the_view_is_left_while_it_is_opened(page):
    state = page.run("""import('/static/live.js').then(async ({ mount }) => {
        const { mediaDevices } = navigator, { getUserMedia } = mediaDevices;
        const stream = await mediaDevices.getUserMedia({ audio: true });
        let open = null;
        mediaDevices.getUserMedia = () => new Promise((resolve) => { open = () => resolve(stream); });
        const request = () => new Promise(() => {}); // a server that does not answer
        const view = mount(document.createElement('section'), { request, announce: () => {}, info: { labels: [] } });
        view.keys.space();
        view.hidden();
        open();
        mediaDevices.getUserMedia = getUserMedia;
        await new Promise((resolve) => { setTimeout(resolve, 500); });
        return stream.getTracks()[0].readyState;
    })""")
    assert state == "ended"


@needs_browser
def test_unplugged_microphone_is_a_failure_with_a_way_back(page):
    listen(page)
    page.run("window.streams.at(-1).getTracks()[0].dispatchEvent(new Event('ended'))")
    wait_for_phase(page, "failed")
    assert "disconnected" in page.run("document.querySelector('.live-view .state.failed').textContent")
    press(page, "Try again")
    wait_for_phase(page, "running")


@needs_browser
def test_slow_server_gets_fewer_windows_and_then_none(page):
    listen(page)
    n_sockets = page.run("window.sockets.length")
    amount = "Object.defineProperty(WebSocket.prototype, 'bufferedAmount', { configurable: true, get: () => 1e9 })"
    page.run(f"{amount} && true")
    wait_for_phase(page, "failed")
    assert "too slow" in page.run("document.querySelector('.live-view .state.failed').textContent")
    overlaps = page.run(f"window.sockets.slice({n_sockets}).map((one) => new URL(one).searchParams.get('overlap'))")
    assert overlaps == ["1", "0.5", "0"]
    page.run("delete WebSocket.prototype.bufferedAmount")
    press(page, "Try again")
    wait_for_phase(page, "running")


@needs_browser
def test_muted_microphone_is_noted(folder, address, tmp_path):
    write_audio(folder / "silence.wav", np.zeros(32_000, np.float32), 16_000)
    silence = f"--use-file-for-fake-audio-capture={folder / 'silence.wav'}"
    with chromium(tmp_path, *FAKE_MICROPHONE, silence) as page:
        page.open(f"{address}/#live")
        page.wait("document.querySelector('.live-view .state.empty')")
        press(page, "Start")
        page.wait("document.querySelector('.live-full .problem').textContent.includes('muted')", 20)


NO_MICROPHONE = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }"
NOT_LOCAL = "Object.defineProperty(Navigator.prototype, 'mediaDevices', { value: undefined })"


@needs_browser
@pytest.mark.parametrize(
    ("options", "script", "words"),
    [
        (("--use-fake-device-for-media-stream", "--deny-permission-prompts"), "", "was not allowed"),
        ((), NO_MICROPHONE, "There is no microphone"),
        ((), NOT_LOCAL, "http://localhost"),
    ],
)
def test_failures_have_a_reason(address, tmp_path, options, script, words):
    with chromium(tmp_path, *options) as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        page.open(f"{address}/#live")
        page.wait("document.querySelector('.live-view .state.empty')")
        press(page, "Start")
        wait_for_phase(page, "failed")
        assert words in page.run("document.querySelector('.live-view .state.failed').textContent")
        press(page, "Try again")
        wait_for_phase(page, "failed")
        assert page.console == []


@needs_browser
def test_full_server_is_a_failure_that_says_so(folder, tmp_path):
    with page_server(folder, "model", "--max-live", "0") as address, chromium(tmp_path, *microphone_of(folder)) as page:
        page.open(f"{address}/#live")
        page.wait("document.querySelector('.live-view .state.empty')")
        press(page, "Start")
        wait_for_phase(page, "failed")
        assert "--max-live" in page.run("document.querySelector('.live-view .state.failed').textContent")


@needs_browser
def test_stream_needs_the_cookie_only_and_its_end_is_told(folder, tmp_path):
    with chromium(tmp_path, *microphone_of(folder)) as page:
        with page_server(folder, "model", SPECTAG_TOKEN=TOKEN) as address:
            page.open(f"{address}/?token={TOKEN.replace(' ', '%20')}#live")
            page.wait("document.querySelector('.live-view .state.empty')")
            press(page, "Start")
            wait_for_phase(page, "running")
            page.wait("document.querySelectorAll('.live-list tbody tr').length > 0", 20)
        wait_for_phase(page, "failed")
        page.wait("document.querySelector('.live-view .state.failed')")
        assert page.run("document.querySelectorAll('.live-list tbody tr').length") > 0


@pytest.fixture(scope="module")
def client(folder):
    with TestClient(create_app(folder / "model", workers=1, port=PORT), base_url=f"http://127.0.0.1:{PORT}") as client:
        yield client


def test_windows_are_those_of_listening_with_a_shorter_step(client, tmp_path):
    answer = client.get("/views/live/stream?sample_rate=48000").json()
    assert answer["windows"] == {"window": 1.5, "step": 0.25}
    assert answer["spectrogram"]["n_fft"] == 2048
    info = make_info(window=WindowConfig(window_seconds=0.5, overlap_seconds=0.25))
    app = create_app(make_bundle(tmp_path / "model", info), workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as other:
        assert other.get("/views/live/stream?sample_rate=8000").json()["windows"] == {"window": 0.5, "step": 0.125}


@pytest.mark.parametrize(
    "query", ["", "sample_rate=x", "sample_rate=10", "sample_rate=1000000", "sample_rate=48000&a=1"]
)
def test_wrong_sample_rates_are_refused(client, query):
    answer = client.get(f"/views/live/stream?{query}")
    assert answer.status_code == 422
    assert answer.json()["detail"]
