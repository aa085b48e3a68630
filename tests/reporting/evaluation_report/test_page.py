import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import soundfile
from PIL import Image

from helpers.bundles import MEL, make_bundle, tone
from helpers.evaluations import LABELS, make_evaluation, make_model_evaluation, random_predictions
from helpers.pages import Page
from spectag.audio.files import write_audio
from spectag.audio.mel import hz_to_mel, image_mel_limits
from spectag.audio.spectrogram_image import write_png
from spectag.data.clips import Clip
from spectag.data.labels import LabelSet
from spectag.errors import ConfigError, DataError
from spectag.models.tagger import Tagger
from spectag.reporting.evaluation_report.clip_cards import clip_cards
from spectag.reporting.evaluation_report.clip_selection import ChosenClip
from spectag.reporting.evaluation_report.page import write_report
from spectag.reporting.html_pages import render, render_page
from spectag.reporting.label_colors import LabelColors
from spectag.scoring.bootstrap import Estimate
from spectag.system.progress import silent

HOSTILE = '<script>alert(1)</script> & "quotes" </style>'
SECTIONS = [
    "summary", "comparison", "slices", "labels", "curves", "confusion", "calibration", "clips", "worst", "surprises",
]  # fmt: skip


def write_sounds(predictions, seconds=0.3, sample_rate=8000):
    for clip in predictions.clips:
        clip.path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(len(clip.fname)).normal(0, 0.1, round(seconds * sample_rate))
        write_audio(clip.path, noise.astype(np.float32), sample_rate)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of two models on forty clips, and its page."""
    folder = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    predictions = random_predictions(rng, n_clips=40, folder=folder / "sounds")
    write_sounds(predictions)
    model, other = make_model_evaluation(predictions), make_model_evaluation(predictions, name="older")
    path = write_report(make_evaluation(model, other), folder / "report.html", n_clips=4, command="spectag evaluate")
    return path, Page(path.read_text(encoding="utf-8")), model


def report_of(predictions, folder, n_clips=4, **changes):
    model = replace(make_model_evaluation(predictions), **changes)
    path = write_report(make_evaluation(model), folder / "report.html", n_clips=n_clips)
    return Page(path.read_text(encoding="utf-8"))


def test_page_has_all_sections_and_links_to_them(written):
    _, page, _ = written
    assert [found["id"] for found in page.all("section")] == SECTIONS
    assert [found["href"] for found in page.all("a")][: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]


def test_ids_are_unique_and_links_lead_to_them(written):
    _, page, _ = written
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert {found["href"][1:] for found in page.all("a")} <= set(ids)


def test_page_loads_nothing_from_elsewhere(written):
    _, page, _ = written
    sources = [found[name] for _, found in page.elements for name in ("src", "href", "srcset", "data") if name in found]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not page.all("link")
    style = re.search(r"<style>(.*?)</style>", page.html, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_security_policy_allows_only_the_scripts_of_the_page(written):
    _, page, _ = written
    (script,) = re.findall(r"<script>(.*?)</script>", page.html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"script-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]


def test_page_shows_every_score_with_its_interval(written):
    _, page, model = written
    for estimate in model.overall.values():
        assert f"{estimate.value:.3f}" in page.text
        assert f"{estimate.low:.3f}–{estimate.high:.3f}" in page.text
    for label in range(len(LABELS)):
        assert f"{model.per_label['average_precision'][label].value:.3f}" in page.text


def test_summary_names_model_data_command_and_method(written):
    _, page, _ = written
    for text in ("my tagger", "labels.csv", "40 clips", "spectag evaluate", "1,000 resamples", "seed 0", "95\xa0%"):
        assert text in page.text
    assert "the file is empty" in page.text
    assert "the gain is real" in page.text


def test_label_table_has_the_values_to_sort_by(written):
    _, page, model = written
    rows = [found for found in page.all("tr") if "data-clips" in found]
    assert [int(row["data-clips"]) for row in rows] == model.n_clips_per_label.tolist()
    cells = [float(found["data-value"]) for found in page.all("td") if "data-value" in found]
    assert len(cells) == 8 * len(LABELS)
    expected = [estimate.value for estimate in model.per_label["average_precision"]]
    assert cells[2::8] == pytest.approx(expected, abs=1e-6)


def test_figures_images_and_players_have_titles(written):
    _, page, _ = written
    figures = [found for found in page.all("svg") if "role" in found]
    assert figures
    assert all(found["role"] == "img" and found["aria-label"] for found in figures)
    assert all(found["alt"] for found in page.all("img"))
    assert all(found["aria-label"] for found in page.all("audio"))


def test_equal_evaluations_give_equal_bytes(written, tmp_path, monkeypatch):
    _, _, model = written
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first, second = (
        write_report(make_evaluation(model), tmp_path / f"{name}.html", n_clips=2).read_bytes() for name in "ab"
    )
    assert first == second
    assert b"2023-11-14" in first


def test_sounds_are_as_long_as_their_spectrograms(written):
    _, page, _ = written
    lengths = [float(found["data-seconds"]) for found in page.all("svg") if "data-seconds" in found]
    sounds = [found["src"].partition("base64,")[2] for found in page.all("audio")]
    assert len(sounds) == len(lengths) > 4
    for seconds, sound in zip(lengths, sounds, strict=True):
        waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
        assert waveform.ndim == 1
        assert len(waveform) / rate == pytest.approx(seconds, abs=1e-4)


def test_names_of_labels_and_files_are_escaped(tmp_path, rng):
    names = (HOSTILE, "${title}", "Möwe' onload='x", "&amp;", "a, b")
    predictions = random_predictions(rng, n_clips=30, labels=names, folder=tmp_path / "sounds")
    clips = tuple(replace(clip, fname=f"{HOSTILE} {clip.fname}", fold="<b>") for clip in predictions.clips)
    write_sounds(predictions)
    model = make_model_evaluation(replace(predictions, clips=clips), name=HOSTILE)
    evaluation = make_evaluation(model, replace(model, name="<i>other"))
    page = Page(write_report(evaluation, tmp_path / "r.html", command=HOSTILE).read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert not page.all("b", onload="x")
    assert HOSTILE in page.text
    assert "<script>alert" not in page.html
    assert page.html.count("<style>") == 1
    for name in names:
        assert any(name in text for text in page.texts)


def test_long_clip_is_shown_where_it_is_loudest(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=1, folder=tmp_path)
    waveform = np.full(30 * 4000, 0.001, np.float32)
    waveform[60_000:100_000] = 0.5 * np.sin(np.arange(40_000))
    write_audio(predictions.clips[0].path, waveform, 4000)
    card = render_card(make_model_evaluation(predictions), 0)
    assert "from 15.0 s to 25.0 s" in card
    assert 'data-seconds="10"' in card


def render_card(model, row, labels=(0,)):
    colors = LabelColors(model.labels.names)
    [card] = clip_cards(model, [ChosenClip(row, "missed", "reason", labels)], colors, silent)
    return render("evaluation_report/clip_card.html", card=card, colors=colors)


@pytest.mark.parametrize(("n_samples", "sample_rate"), [(1, 8000), (960, 32_000), (500, 5000), (96_000, 96_000)])
def test_clip_of_any_length_and_rate_gets_a_card(tmp_path, rng, n_samples, sample_rate):
    predictions = random_predictions(rng, n_clips=1, folder=tmp_path)
    write_audio(predictions.clips[0].path, np.full(n_samples, 0.1, np.float32), sample_rate)
    card = render_card(make_model_evaluation(predictions), 0)
    assert "<audio" in card
    assert f'data-seconds="{n_samples / sample_rate:.6g}"' in card


def test_silence_stays_silent(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=1, folder=tmp_path)
    write_audio(predictions.clips[0].path, np.zeros(8000, np.float32), 8000)
    sound = re.search(r'audio/mpeg;base64,([^"]+)', render_card(make_model_evaluation(predictions), 0)).group(1)
    assert np.abs(soundfile.read(io.BytesIO(base64.b64decode(sound)))[0]).max() < 1e-4


def test_unreadable_clips_are_named_without_their_folder(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=30, folder=tmp_path / "nowhere")
    page = report_of(predictions, tmp_path)
    assert sum("This clip can no longer be read: clip " in text for text in page.texts) > 4
    assert "nowhere" not in page.html
    assert not page.all("audio")


def test_image_is_shown_without_a_player(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=1, folder=tmp_path)
    path = tmp_path / "clip.png"
    write_png(path, np.arange(64 * 100, dtype=np.uint8).reshape(64, 100), low=-80, high=0)
    clip = replace(predictions.clips[0], path=path, fname="clip.png")
    durations = np.full(1, np.nan)
    card = render_card(make_model_evaluation(replace(predictions, clips=(clip,), durations=durations)), 0)
    assert "<audio" not in card
    image = re.search(r'image/jpeg;base64,([^"]+)', card).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(image))).size == (100, 64)


@pytest.fixture(scope="module")
def explained_card(tmp_path_factory):
    """The card of a clip with a low tone in its first half and a high one in its second."""
    folder = tmp_path_factory.mktemp("explained")
    tagger = Tagger(make_bundle(folder / "model"))
    sound = np.concatenate([tone("low", 2.0), tone("high", 2.0)])
    write_audio(folder / "clip.wav", sound, 16_000)
    rng = np.random.default_rng(0)
    predictions = random_predictions(rng, n_clips=1, labels=("low", "middle", "high"), folder=folder)
    clip = Clip(folder / "clip.wav", "clip.wav", ("low", "high"))
    predictions = replace(predictions, clips=(clip,), durations=np.array([4.0]))
    return render_card(make_model_evaluation(predictions, tagger=tagger), 0, labels=(0, 1, 2))


def middle_of_map(card, label):
    """Seconds and Hz in the middle of the outline."""
    layer = re.search(rf'<g class="map" data-map="{label}".*?</g>', card, re.DOTALL).group()
    outline = re.search(r'class="outline" d="([^"]*)"', layer).group(1)
    points = np.array([[float(x), float(y)] for x, y in re.findall(r"M(\S+) (\S+?)[VH]", outline)])
    bottom, top = image_mel_limits(MEL)
    mel = bottom + (1 - points[:, 1].mean()) * (top - bottom)
    hertz = np.interp(mel, *zip(*[(float(hz_to_mel(f, MEL)), f) for f in np.linspace(0, 8000, 400)], strict=True))
    return points[:, 0].mean(), float(hertz)


def test_map_of_a_label_is_at_its_sound(explained_card):
    seconds, hertz = middle_of_map(explained_card, 0)
    assert 0.3 < seconds < 1.7
    assert 50 < hertz < 900
    seconds, hertz = middle_of_map(explained_card, 2)
    assert 2.3 < seconds < 3.7
    assert 3000 < hertz < 8000


def test_colour_of_a_map_is_inside_its_outline(explained_card):
    for label, (rows, columns) in {0: (slice(12, 24), slice(0, 20)), 2: (slice(0, 12), slice(12, 32))}.items():
        layer = re.search(rf'<g class="map" data-map="{label}".*?</g>', explained_card, re.DOTALL).group()
        picture = re.search(r'image/png;base64,([^"]+)', layer).group(1)
        opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))[..., 3].astype(float)
        assert opacity.shape == (24, 32)
        assert opacity[rows, columns].sum() > 0.8 * opacity.sum()


def test_label_with_a_map_is_a_button(explained_card):
    layers = set(re.findall(r'<g class="map" data-map="(\d)"', explained_card))
    buttons = set(
        re.findall(r'<button type="button" class="chip" data-map="(\d)" aria-pressed="false"', explained_card)
    )
    assert {"0", "2"} <= layers == buttons


def test_spectrogram_is_aligned_with_the_sound(explained_card):
    """Frame 0 has its middle at 0 s, so the picture begins half a frame before."""
    frame = MEL.hop_length / MEL.sample_rate
    x, width = map(float, re.search(r'class="picture" x="(\S+)" y="0" width="(\S+)"', explained_card).groups())
    assert x == pytest.approx(-frame / 2)
    assert width == pytest.approx((1 + 4 * MEL.sample_rate // MEL.hop_length) * frame)
    assert 'viewBox="0 0 4 1"' in explained_card


def test_table_of_predictions_has_no_maps(written):
    _, page, _ = written
    assert not page.all("g", **{"class": "map"})
    assert not page.all("button", **{"class": "chip"})


def test_single_clip_with_a_single_label_gets_a_report(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=1, labels=("Möwe",), folder=tmp_path)
    write_sounds(predictions)
    no_interval = {metric: Estimate(0.5) for metric in make_model_evaluation(predictions).overall}
    page = report_of(predictions, tmp_path, overall=no_interval)
    assert "0.500" in page.text


def test_label_without_clips_is_in_the_table_but_has_no_curve(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=20, folder=tmp_path)
    nobody = np.concatenate([predictions.y_true, np.zeros((20, 1), bool)], axis=1)
    wider = {
        name: np.concatenate([getattr(predictions, name), np.full((20, 1), 0.2, np.float32)], axis=1)
        for name in ("probabilities", "uncalibrated", "thresholds")
    }
    labels = LabelSet((*predictions.labels.names, "Yodel"))
    page = report_of(replace(predictions, labels=labels, y_true=nobody, **wider), tmp_path, n_clips=0)
    assert "1 of them without clips" in page.text
    assert "1 label without clips is not drawn" in page.text
    assert {found["data-label"] for found in page.all("path") if "data-label" in found} == set("01234")


def test_range_of_nearly_equal_durations_is_printed_as_by_inspect(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=20, folder=tmp_path)
    durations = np.linspace(4.96, 5.01, 20)
    page = report_of(replace(predictions, durations=durations), tmp_path, n_clips=0)
    assert "All clips last 4.96 to 5.01 s." in page.text


def test_caption_has_the_fewest_and_most_clips_per_label(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=40, folder=tmp_path)
    counts = predictions.y_true.sum(axis=0)
    assert 0 < counts.min() < counts.max()
    page = report_of(predictions, tmp_path, n_clips=0)
    assert f"Each label has {counts.min()} to {counts.max()} clips." in page.text


def test_perfect_model_has_no_worst_clips(tmp_path, rng):
    predictions = random_predictions(rng, n_clips=20, folder=tmp_path)
    right = np.where(predictions.y_true, 0.9, 0.1).astype(np.float32)
    page = report_of(replace(predictions, probabilities=right), tmp_path)
    assert "There are no such clips." in page.text
    assert "No wrong label was predicted instead of a true one." in page.text
    assert not page.all("article")


def test_zero_clips_leaves_out_the_clip_sections(tmp_path, rng):
    page = report_of(random_predictions(rng, n_clips=20, folder=tmp_path), tmp_path, n_clips=0)
    assert "worst" not in [found["id"] for found in page.all("section")]


def test_many_labels_get_small_figures_of_the_worst_and_best(tmp_path, rng):
    names = [f"label {i:02}" for i in range(30)]
    page = report_of(random_predictions(rng, n_clips=200, labels=names, folder=tmp_path), tmp_path, n_clips=0)
    small = [found for found in page.all("svg") if found.get("aria-label", "").startswith("Precision-recall curve of")]
    assert len(small) == 12


def test_report_of_5000_clips_and_80_labels_without_sounds_is_below_1_megabyte(tmp_path, rng):
    names = [f"label {i:02}" for i in range(80)]
    predictions = random_predictions(rng, n_clips=5000, labels=names, folder=tmp_path)
    path = write_report(make_evaluation(make_model_evaluation(predictions)), tmp_path / "r.html", n_clips=12)
    assert path.stat().st_size < 1_000_000


def test_other_suffixes_and_negative_numbers_of_clips_are_refused(written, tmp_path):
    evaluation = make_evaluation(written[2])
    with pytest.raises(ConfigError, match=r"report\.pdf: the page is an HTML file; change the suffix to \.html"):
        write_report(evaluation, tmp_path / "report.pdf")
    with pytest.raises(ConfigError, match="n_clips: expected 0 or more clips to show, got -1"):
        write_report(evaluation, tmp_path / "report.html", n_clips=-1)


def test_report_that_cannot_be_written_leaves_no_file(written, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(DataError, match=r"report\.html: the page can't be written: a folder has this name"):
        write_report(make_evaluation(written[2]), tmp_path / "report.html", n_clips=0)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_only_the_first_clips_of_each_kind_are_explained_and_progress_counts_them(tmp_path, rng):
    tagger = Tagger(make_bundle(tmp_path / "model"))
    predictions = random_predictions(rng, n_clips=40, labels=tagger.labels.names, folder=tmp_path)
    for clip in predictions.clips:
        write_audio(clip.path, np.concatenate([tone(name, 0.5) for name in ("low", "middle", "high")]), 16_000)
    model = make_model_evaluation(predictions, tagger=tagger)
    calls, texts = [], []
    for n_explained in (0, 1, 2):
        path = write_report(
            make_evaluation(model),
            tmp_path / "report.html",
            n_clips=2,
            n_explained=n_explained,
            progress=lambda *call: calls.append(call),
        )
        texts.append(path.read_text("utf-8"))
    cards = [text.split('<article class="card"')[1:] for text in texts]
    assert [len(of_report) for of_report in cards] == [4, 4, 4], "all chosen clips are shown"
    has_maps = [["data-map=" in card for card in of_report] for of_report in cards]
    assert has_maps == [[False] * 4, [True, False, True, False], [True] * 4]
    steps = [(step, n_total) for step, n_done, n_total in calls if n_done == 0]
    assert steps == [("clips drawn", 4), ("explaining clips", 2), ("clips drawn", 2), ("explaining clips", 4)]
    assert calls == [(step, n_done, n_total) for step, n_total in steps for n_done in range(n_total + 1)]


def test_report_module_imports_neither_torch_nor_matplotlib():
    script = """
import sys
import spectag.reporting.evaluation_report.page
assert not {"torch", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BROWSER = next((name for name in ("chromium", "google-chrome", "chrome") if shutil.which(name)), None)
USE_TABLE = """
<script>
const rows = () => [...document.querySelectorAll("#label-table tbody tr:not([hidden])")];
const names = () => rows().map((row) => row.cells[0].textContent);
const heading = (column) => document.querySelectorAll("#label-table thead th")[column];
const found = {before: names()};
heading(3).querySelector("button").click();
found.byPrecision = rows().map((row) => parseFloat(row.cells[3].dataset.value));
found.sort = heading(3).getAttribute("aria-sort");
heading(0).querySelector("button").click();
heading(0).querySelector("button").click();
found.backwards = names();
const search = document.getElementById("label-filter");
search.value = "RAI";
search.dispatchEvent(new Event("input"));
found.filtered = names();
found.counted = document.getElementById("label-count").textContent;
document.querySelector(".key[data-label='2']").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
found.lit = [...document.querySelectorAll("#curves .lit")].map((part) => part.dataset.label);
found.hidden = [...document.querySelectorAll(".needs-script")].filter((part) => !part.offsetParent).length;
document.title = JSON.stringify(found);
</script>
"""


SHOW_MAPS = """
<script>
const shown = () => [...document.querySelectorAll("g[data-map]")]
  .filter((layer) => layer.getAttribute("visibility") === "visible").map((layer) => layer.dataset.map);
const click = (label) => document.querySelector(`button[data-map="${label}"]`).click();
const found = {before: shown()};
click(0); found.first = shown();
click(2); found.second = shown();
found.pressed = document.querySelector("button[aria-pressed=true]").dataset.map;
click(2); found.after = shown();
const box = document.querySelector(".frame").getBoundingClientRect();
const position = {clientX: box.left + box.width / 4, clientY: box.top + 5, bubbles: true};
document.querySelector(".frame").dispatchEvent(new MouseEvent("click", position));
found.seconds = document.querySelector("audio").currentTime;
document.title = JSON.stringify(found);
</script>
"""


MEASURE = """
<script>
const width = (pixels) => {
  document.body.style.width = `${pixels}px`;
  return Math.max(...[...document.querySelectorAll("main, main > section, .card, .card *")]
    .filter((part) => !part.closest("svg") || part.matches(".plot")).map((part) => part.scrollWidth));
};
const picture = document.querySelector(".spectrogram svg");
document.title = JSON.stringify({narrow: width(400), wide: width(1200), clips: getComputedStyle(picture).overflowX});
</script>
"""


def run_in_browser(html, folder):
    """The JSON in the title of the page after its scripts ran, and the log of the browser."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--v=0", "--dump-dom", (folder / "page.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    return json.loads(unescape(title.group(1))), done.stderr


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_browser_sorts_filters_and_highlights(written, tmp_path):
    _, page, model = written
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.html)
    found, log = run_in_browser(html.replace("</body>", USE_TABLE + "</body>"), tmp_path)
    precision = [estimate.value for estimate in model.per_label["average_precision"]]
    assert found["before"] == list(LABELS)
    assert found["byPrecision"] == pytest.approx(sorted(precision, reverse=True), abs=1e-6)
    assert found["sort"] == "descending"
    assert found["backwards"] == sorted(LABELS, reverse=True)
    assert found["filtered"] == ["Rain"]
    assert found["counted"] == "1 of 5 labels"
    assert set(found["lit"]) == {"2"}
    assert found["hidden"] == 0
    assert "CONSOLE" not in log


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_browser_shows_maps_and_plays_from_the_clicked_position(explained_card, tmp_path):
    page = render_page("base.html", ("player.js", "evaluation_report.js"), title="")
    before_scripts, policy_free_scripts = re.sub(r"<meta http-equiv[^>]*>", "", page).split("</header>")
    html = f"{before_scripts}</header>{explained_card}{policy_free_scripts.replace('</body>', SHOW_MAPS + '</body>')}"
    found, log = run_in_browser(html, tmp_path)
    assert found["before"] == found["after"] == []
    assert (found["first"], found["second"], found["pressed"]) == (["0"], ["2"], "2")
    assert found["seconds"] == pytest.approx(1.0, abs=0.02)
    assert "CONSOLE" not in log


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_long_labels_fit_in_a_narrow_browser(tmp_path, rng):
    labels = ["Kurz", "Langewörterohneleerzeichen" * 3, "Ein Vogel mit einem Namen, der nicht enden will, " * 2]
    predictions = random_predictions(rng, n_clips=30, labels=labels, folder=tmp_path)
    write_sounds(predictions)
    page = report_of(predictions, tmp_path)
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.html)
    found, _ = run_in_browser(html.replace("</body>", MEASURE + "</body>"), tmp_path)
    assert found["narrow"] <= 400
    assert found["wide"] <= 1200
    assert found["clips"] == "hidden"  # the half of a frame before 0 s


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_browser_logs_no_error(written, tmp_path):
    _, page, _ = written
    _, log = run_in_browser(re.sub("<title>.*?</title>", "<title>0</title>", page.html), tmp_path)
    assert "CONSOLE" not in log
