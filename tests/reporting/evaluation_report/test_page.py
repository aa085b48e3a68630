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
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
import soundfile
from PIL import Image

from helpers.bundles import MEL, make_bundle, tone
from helpers.evaluations import LABELS, made_evaluation, made_model, made_predictions
from spectag.audio.files import write_audio
from spectag.audio.mel import hz_to_mel, picture_limits
from spectag.audio.spectrogram_image import write_png
from spectag.data.clips import Clip
from spectag.data.labels import LabelSet
from spectag.errors import ConfigError, DataError
from spectag.evaluation.results import Estimate
from spectag.models.tagger import Tagger
from spectag.reporting.evaluation_report.clip_cards import clip_cards
from spectag.reporting.evaluation_report.clip_selection import ChosenClip
from spectag.reporting.evaluation_report.page import write_report
from spectag.system.progress import silent

VOID = {"meta", "input", "img", "br", "link"}
HOSTILE = '<script>alert(1)</script> & "quotes" </style>'
SECTIONS = [
    "summary", "comparison", "slices", "labels", "curves", "confusion", "calibration", "clips", "worst", "surprises",
]  # fmt: skip


class Page(HTMLParser):
    """What a browser finds on the page: elements, words, and whether every tag is closed."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.elements, self.words = text, [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    def all(self, tag, **wanted):
        return [
            found for name, found in self.elements if name == tag and all(found.get(k) == v for k, v in wanted.items())
        ]


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
    predictions = made_predictions(rng, n_clips=40, folder=folder / "sounds")
    write_sounds(predictions)
    model, other = made_model(predictions), made_model(predictions, name="older")
    path = write_report(made_evaluation(model, other), folder / "report.html", n_clips=4, command="spectag evaluate")
    return path, Page(path.read_text(encoding="utf-8")), model


def report_of(predictions, folder, n_clips=4, **changes):
    model = replace(made_model(predictions), **changes)
    path = write_report(made_evaluation(model), folder / "report.html", n_clips=n_clips)
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_has_its_sections_and_their_links(written):
    _, page, _ = written
    assert [found["id"] for found in page.all("section")] == SECTIONS
    assert [found["href"] for found in page.all("a")][: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]


def test_no_id_is_there_twice_and_every_link_leads_to_one(written):
    _, page, _ = written
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    assert {found["href"][1:] for found in page.all("a")} <= set(ids)


def test_the_page_loads_nothing_from_elsewhere(written):
    _, page, _ = written
    sources = [found[name] for _, found in page.elements for name in ("src", "href", "srcset", "data") if name in found]
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not page.all("link")
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL).group(1)
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_lets_the_page_run_its_own_script_and_no_other(written):
    _, page, _ = written
    (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = page.all("meta", **{"http-equiv": "Content-Security-Policy"})
    assert f"script-src 'sha256-{digest}'" in policy["content"]
    assert "default-src 'none'" in policy["content"]
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]


def test_every_score_with_its_interval_is_told(written):
    _, page, model = written
    words = " ".join(page.words)
    for estimate in model.overall.values():
        assert f"{estimate.value:.3f}" in words
        assert f"{estimate.low:.3f}–{estimate.high:.3f}" in words
    for label in range(len(LABELS)):
        assert f"{model.per_label['average_precision'][label].value:.3f}" in words


def test_what_was_evaluated_how_and_by_what_is_told(written):
    _, page, _ = written
    words = " ".join(page.words)
    for told in ("my tagger", "labels.csv", "40 clips", "spectag evaluate", "1,000 resamples", "seed 0", "95\xa0%"):
        assert told in words
    assert "the file is empty" in words
    assert "the gain is real" in words


def test_a_table_row_for_each_label_knows_the_values_to_sort_by(written):
    _, page, model = written
    rows = [found for found in page.all("tr") if "data-clips" in found]
    assert [int(row["data-clips"]) for row in rows] == model.n_clips_per_label.tolist()
    cells = [float(found["data-value"]) for found in page.all("td") if "data-value" in found]
    assert len(cells) == 8 * len(LABELS)
    expected = [estimate.value for estimate in model.per_label["average_precision"]]
    assert cells[2::8] == pytest.approx(expected, abs=1e-6)


def test_pictures_say_what_they_show(written):
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
        write_report(made_evaluation(model), tmp_path / f"{name}.html", n_clips=2).read_bytes() for name in "ab"
    )
    assert first == second
    assert b"2023-11-14" in first


def test_a_sound_on_the_page_is_as_long_as_its_spectrogram(written):
    _, page, _ = written
    lengths = [float(found["data-seconds"]) for found in page.all("svg") if "data-seconds" in found]
    sounds = [found["src"].partition("base64,")[2] for found in page.all("audio")]
    assert len(sounds) == len(lengths) > 4
    for seconds, sound in zip(lengths, sounds, strict=True):
        waveform, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)))
        assert waveform.ndim == 1
        assert len(waveform) / rate == pytest.approx(seconds, abs=1e-4)


def test_labels_and_files_with_any_name_are_harmless(tmp_path, rng):
    names = (HOSTILE, "${title}", "Möwe' onload='x", "&amp;", "a, b")
    predictions = made_predictions(rng, n_clips=30, labels=names, folder=tmp_path / "sounds")
    clips = tuple(replace(clip, fname=f"{HOSTILE} {clip.fname}", fold="<b>") for clip in predictions.clips)
    write_sounds(predictions)
    model = made_model(replace(predictions, clips=clips), name=HOSTILE)
    evaluation = made_evaluation(model, replace(model, name="<i>other"))
    page = Page(write_report(evaluation, tmp_path / "r.html", command=HOSTILE).read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert not page.all("b", onload="x")
    assert HOSTILE in " ".join(page.words)
    assert "<script>alert" not in page.text
    assert page.text.count("<style>") == 1
    for name in names:
        assert any(name in words for words in page.words)


def test_a_long_clip_is_shown_where_it_is_loudest(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=1, folder=tmp_path)
    waveform = np.full(30 * 4000, 0.001, np.float32)
    waveform[60_000:100_000] = 0.5 * np.sin(np.arange(40_000))
    write_audio(predictions.clips[0].path, waveform, 4000)
    cards = card_of(made_model(predictions), 0)
    assert "from 15.0 s to 25.0 s" in cards
    assert 'data-seconds="10"' in cards


def card_of(model, row, labels=(0,)):
    chosen = [ChosenClip(row, "missed", "why", labels)]
    (card,) = clip_cards(model, chosen, model.labels.names, silent)
    return card


@pytest.mark.parametrize(("n_samples", "sample_rate"), [(1, 8000), (960, 32_000), (500, 5000), (96_000, 96_000)])
def test_a_clip_of_any_length_and_rate_has_its_card(tmp_path, rng, n_samples, sample_rate):
    predictions = made_predictions(rng, n_clips=1, folder=tmp_path)
    write_audio(predictions.clips[0].path, np.full(n_samples, 0.1, np.float32), sample_rate)
    cards = card_of(made_model(predictions), 0)
    assert "<audio" in cards
    assert f'data-seconds="{n_samples / sample_rate:.6g}"' in cards


def test_silence_stays_silent(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=1, folder=tmp_path)
    write_audio(predictions.clips[0].path, np.zeros(8000, np.float32), 8000)
    sound = re.search(r'audio/mpeg;base64,([^"]+)', card_of(made_model(predictions), 0)).group(1)
    assert np.abs(soundfile.read(io.BytesIO(base64.b64decode(sound)))[0]).max() < 1e-4


def test_a_clip_that_is_gone_is_named_and_the_report_written(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=30, folder=tmp_path / "nowhere")
    page = report_of(predictions, tmp_path)
    assert sum(words.startswith("It can’t be read now: clip ") for words in page.words) > 4
    assert "nowhere" not in page.text
    assert not page.all("audio")


def test_an_image_is_shown_and_has_no_player(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=1, folder=tmp_path)
    path = tmp_path / "clip.png"
    write_png(path, np.arange(64 * 100, dtype=np.uint8).reshape(64, 100), low=-80, high=0)
    clip = replace(predictions.clips[0], path=path, fname="clip.png")
    durations = np.full(1, np.nan)
    cards = card_of(made_model(replace(predictions, clips=(clip,), durations=durations)), 0)
    assert "<audio" not in cards
    picture = re.search(r'image/jpeg;base64,([^"]+)', cards).group(1)
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (100, 64)


@pytest.fixture(scope="module")
def looked(tmp_path_factory):
    """A card of a clip that is low in its first half and high in its second, tagged by the bundle made by hand."""
    folder = tmp_path_factory.mktemp("looked")
    tagger = Tagger(make_bundle(folder / "model"))
    sound = np.concatenate([tone("low", 2.0), tone("high", 2.0)])
    write_audio(folder / "clip.wav", sound, 16_000)
    rng = np.random.default_rng(0)
    predictions = made_predictions(rng, n_clips=1, labels=("low", "middle", "high"), folder=folder)
    clip = Clip(folder / "clip.wav", "clip.wav", ("low", "high"))
    predictions = replace(predictions, clips=(clip,), durations=np.array([4.0]))
    return card_of(made_model(predictions, tagger=tagger), 0, labels=(0, 1, 2))


def middle_of_map(card, label):
    """Seconds and Hz in the middle of what is inside the line."""
    layer = re.search(rf'<g class="where" data-map="{label}".*?</g>', card, re.DOTALL).group()
    outline = re.search(r'class="outline" d="([^"]*)"', layer).group(1)
    points = np.array([[float(x), float(y)] for x, y in re.findall(r"M(\S+) (\S+?)[VH]", outline)])
    bottom, top = picture_limits(MEL)
    mel = bottom + (1 - points[:, 1].mean()) * (top - bottom)
    hertz = np.interp(mel, *zip(*[(float(hz_to_mel(f, MEL)), f) for f in np.linspace(0, 8000, 400)], strict=True))
    return points[:, 0].mean(), float(hertz)


def test_the_map_of_a_label_lies_where_its_sound_is(looked):
    seconds, hertz = middle_of_map(looked, 0)
    assert 0.3 < seconds < 1.7
    assert 50 < hertz < 900
    seconds, hertz = middle_of_map(looked, 2)
    assert 2.3 < seconds < 3.7
    assert 3000 < hertz < 8000


def test_the_colour_of_a_map_lies_where_its_line_is(looked):
    for label, (rows, columns) in {0: (slice(12, 24), slice(0, 20)), 2: (slice(0, 12), slice(12, 32))}.items():
        layer = re.search(rf'<g class="where" data-map="{label}".*?</g>', looked, re.DOTALL).group()
        picture = re.search(r'image/png;base64,([^"]+)', layer).group(1)
        opacity = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))[..., 3].astype(float)
        assert opacity.shape == (24, 32)
        assert opacity[rows, columns].sum() > 0.8 * opacity.sum()


def test_a_label_with_a_map_is_a_button_for_it(looked):
    layers = set(re.findall(r'<g class="where" data-map="(\d)"', looked))
    buttons = set(re.findall(r'<button type="button" class="chip" data-map="(\d)" aria-pressed="false"', looked))
    assert {"0", "2"} <= layers == buttons


def test_the_spectrogram_is_aligned_to_the_sound(looked):
    """Frame 0 has its middle at 0 s, so the picture begins half a frame before."""
    frame = MEL.hop_length / MEL.sample_rate
    x, width = map(float, re.search(r'class="picture" x="(\S+)" y="0" width="(\S+)"', looked).groups())
    assert x == pytest.approx(-frame / 2)
    assert width == pytest.approx((1 + 4 * MEL.sample_rate // MEL.hop_length) * frame)
    assert 'viewBox="0 0 4 1"' in looked


def test_a_table_of_predictions_has_no_maps(written):
    _, page, _ = written
    assert not page.all("g", **{"class": "where"})
    assert not page.all("button", **{"class": "chip"})


def test_one_clip_of_one_label_has_a_report(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=1, labels=("Möwe",), folder=tmp_path)
    write_sounds(predictions)
    no_interval = {metric: Estimate(0.5) for metric in made_model(predictions).overall}
    page = report_of(predictions, tmp_path, overall=no_interval)
    assert "0.500" in " ".join(page.words)


def test_labels_that_nobody_has_stand_in_the_table_without_a_curve(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=20, folder=tmp_path)
    nobody = np.concatenate([predictions.y_true, np.zeros((20, 1), bool)], axis=1)
    wider = {
        name: np.concatenate([getattr(predictions, name), np.full((20, 1), 0.2, np.float32)], axis=1)
        for name in ("probabilities", "uncalibrated", "thresholds")
    }
    labels = LabelSet((*predictions.labels.names, "Yodel"))
    page = report_of(replace(predictions, labels=labels, y_true=nobody, **wider), tmp_path, n_clips=0)
    words = " ".join(page.words)
    assert "1 of which no clip has" in words
    assert "1 label that no clip has is not drawn" in words
    assert {found["data-label"] for found in page.all("path") if "data-label" in found} == set("01234")


def test_how_many_clips_labels_have_is_told_from_the_fewest_to_the_most(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=40, folder=tmp_path)
    counts = predictions.y_true.sum(axis=0)
    assert 0 < counts.min() < counts.max()
    page = report_of(predictions, tmp_path, n_clips=0)
    assert f"Each label has {counts.min()} to {counts.max()} clips." in " ".join(page.words)


def test_a_faultless_tagger_has_no_worst_clips(tmp_path, rng):
    predictions = made_predictions(rng, n_clips=20, folder=tmp_path)
    right = np.where(predictions.y_true, 0.9, 0.1).astype(np.float32)
    page = report_of(replace(predictions, probabilities=right), tmp_path)
    words = " ".join(page.words)
    assert "There are none." in words
    assert "No wrong label was given in place of a true one." in words
    assert not page.all("article")


def test_clips_none_leaves_the_clips_out(tmp_path, rng):
    page = report_of(made_predictions(rng, n_clips=20, folder=tmp_path), tmp_path, n_clips=0)
    assert "worst" not in [found["id"] for found in page.all("section")]


def test_many_labels_have_small_figures_of_the_worst_and_the_best(tmp_path, rng):
    names = [f"label {i:02}" for i in range(30)]
    page = report_of(made_predictions(rng, n_clips=200, labels=names, folder=tmp_path), tmp_path, n_clips=0)
    small = [found for found in page.all("svg") if found.get("aria-label", "").startswith("Precision-recall curve of")]
    assert len(small) == 12


def test_a_report_of_5000_clips_of_80_labels_stays_below_10_megabytes_without_sound(tmp_path, rng):
    names = [f"label {i:02}" for i in range(80)]
    predictions = made_predictions(rng, n_clips=5000, labels=names, folder=tmp_path)
    path = write_report(made_evaluation(made_model(predictions)), tmp_path / "r.html", n_clips=12)
    assert path.stat().st_size < 1_000_000


def test_the_report_is_an_html_file(written, tmp_path):
    evaluation = made_evaluation(written[2])
    with pytest.raises(ConfigError, match=r"report\.pdf: the report is an HTML file; change the suffix to \.html"):
        write_report(evaluation, tmp_path / "report.pdf")
    with pytest.raises(ConfigError, match="expected 0 or more to show, got -1"):
        write_report(evaluation, tmp_path / "report.html", n_clips=-1)


def test_a_report_that_can_not_be_written_leaves_nothing(written, tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(DataError, match=r"report\.html: the report can't be written: there is a folder"):
        write_report(made_evaluation(written[2]), tmp_path / "report.html", n_clips=0)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_clips_that_are_drawn_are_counted(written, tmp_path):
    told = []
    write_report(made_evaluation(written[2]), tmp_path / "r.html", n_clips=2, progress=lambda *step: told.append(step))
    assert [done for _, done, _ in told] == list(range(told[0][2] + 1))


def test_the_style_sheet_and_the_script_are_found_in_the_package():
    script = """
import sys
from importlib.resources import files
for name in ("report.css", "report.js"):
    assert files("spectag.reporting.evaluation_report").joinpath(name).is_file(), name
import spectag.report
assert not {"torch", "matplotlib"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BROWSER = next((name for name in ("chromium", "google-chrome", "chrome") if shutil.which(name)), None)
USE = """
<script>
const rows = () => [...document.querySelectorAll("#label-table tbody tr:not([hidden])")];
const names = () => rows().map((row) => row.cells[0].textContent);
const head = (place) => document.querySelectorAll("#label-table thead th")[place];
const found = {before: names()};
head(3).querySelector("button").click();
found.byPrecision = rows().map((row) => parseFloat(row.cells[3].dataset.value));
found.sort = head(3).getAttribute("aria-sort");
head(0).querySelector("button").click();
head(0).querySelector("button").click();
found.backwards = names();
const wanted = document.getElementById("label-filter");
wanted.value = "RAI";
wanted.dispatchEvent(new Event("input"));
found.filtered = names();
found.counted = document.getElementById("label-count").textContent;
document.querySelector(".key[data-label='2']").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
found.lit = [...document.querySelectorAll("#curves .lit")].map((part) => part.dataset.label);
found.hidden = document.querySelectorAll(".needs-script[hidden]").length;
document.title = JSON.stringify(found);
</script>
"""


LOOK = """
<script>
const shown = () => [...document.querySelectorAll("g[data-map]")]
  .filter((layer) => layer.getAttribute("visibility") === "visible").map((layer) => layer.dataset.map);
const press = (label) => document.querySelector(`button[data-map="${label}"]`).click();
const found = {before: shown()};
press(0); found.first = shown();
press(2); found.second = shown();
found.pressed = document.querySelector("button[aria-pressed=true]").dataset.map;
press(2); found.after = shown();
const box = document.querySelector(".frame").getBoundingClientRect();
const place = {clientX: box.left + box.width / 4, clientY: box.top + 5, bubbles: true};
document.querySelector(".frame").dispatchEvent(new MouseEvent("click", place));
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


def used(text, folder):
    """What a page has written into its title, and what its browser has to say."""
    (folder / "used.html").write_text(text, encoding="utf-8")
    command = [
        str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}",
        "--enable-logging=stderr", "--v=0", "--dump-dom", (folder / "used.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    title = re.search(r"<title>(.*?)</title>", done.stdout, re.DOTALL)
    return json.loads(unescape(title.group(1))), done.stderr


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_browser_sorts_filters_and_lights_up(written, tmp_path):
    _, page, model = written
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.text)
    found, said = used(text.replace("</body>", USE + "</body>"), tmp_path)
    precision = [estimate.value for estimate in model.per_label["average_precision"]]
    assert found["before"] == list(LABELS)
    assert found["byPrecision"] == pytest.approx(sorted(precision, reverse=True), abs=1e-6)
    assert found["sort"] == "descending"
    assert found["backwards"] == sorted(LABELS, reverse=True)
    assert found["filtered"] == ["Rain"]
    assert found["counted"] == "1 of 5 labels"
    assert set(found["lit"]) == {"2"}
    assert found["hidden"] == 0
    assert "CONSOLE" not in said


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_browser_shows_where_the_tagger_looked_and_plays_from_where_it_is_pressed(looked, tmp_path):
    script = files("spectag.reporting.evaluation_report").joinpath("report.js").read_text("utf-8")
    text = f"<!doctype html><title></title><body style='width:30rem'>{looked}<script>{script}</script>{LOOK}</body>"
    found, said = used(text, tmp_path)
    assert found["before"] == found["after"] == []
    assert (found["first"], found["second"], found["pressed"]) == (["0"], ["2"], "2")
    assert found["seconds"] == pytest.approx(1.0, abs=0.02)
    assert "CONSOLE" not in said


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_browser_finds_room_for_long_labels(tmp_path, rng):
    labels = ["Kurz", "Langewörterohneleerzeichen" * 3, "Ein Vogel mit einem Namen, der nicht enden will, " * 2]
    predictions = made_predictions(rng, n_clips=30, labels=labels, folder=tmp_path)
    write_sounds(predictions)
    page = report_of(predictions, tmp_path)
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.text)
    found, _ = used(text.replace("</body>", MEASURE + "</body>"), tmp_path)
    assert found["narrow"] <= 400
    assert found["wide"] <= 1200
    assert found["clips"] == "hidden"  # the half of a frame before 0 s


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome")
def test_a_browser_has_nothing_to_complain_of(written, tmp_path):
    _, page, _ = written
    _, said = used(re.sub("<title>.*?</title>", "<title>0</title>", page.text), tmp_path)
    assert "CONSOLE" not in said
