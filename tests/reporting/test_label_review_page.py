"""The label review page is one file, escapes all names, and saves decisions that can be read as corrections."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
from PIL import Image

from helpers.bundles import MEL, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image, write_png
from spectag.config.base import ImageConfig
from spectag.curation.label_review import review
from spectag.data.corrections import CORRECTION_COLUMNS, Correction, Corrections, read_corrections
from spectag.data.manifest import read_manifest
from spectag.errors import DataError
from spectag.models.tagger import Tagger
from spectag.reporting.label_review_page import write_review_page

LABELS = ('<script>alert("1")</script>', 'Größe, "quoted" & co', "high")
PITCHES = dict(zip(LABELS, ("low", "middle", "high"), strict=True))
NAME = "Ä ö {:02} <b>&'.wav"
WRONG = {4: LABELS[0], 11: LABELS[1]}
VOID = {"meta", "input", "image", "path", "rect", "img", "option"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    """The cards, media and script data of the page."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.cards, self.open, self.sources, self.scripts, self.data = [], [], [], [], ""
        self.feed(self.text)
        self.close()
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "article":
            self.cards.append({"text": "", "boxes": {}, "kind": values["data-kind"], "clip": int(values["data-clip"])})
        if tag == "input" and values.get("type") == "checkbox" and self.cards:
            self.cards[-1]["boxes"][values["value"]] = "checked" in values
        if tag in ("image", "audio", "img"):
            self.cards[-1][tag] = values.get("src") or values.get("href")
        self.sources += [values[name] for name in ("src", "href") if name in values]
        if tag == "script":
            self.scripts.append(values.get("type"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script" and self.scripts[-1]:
            self.data += data
        elif "article" in self.open:
            self.cards[-1]["text"] += data


@pytest.fixture
def tagger(tmp_path):
    return Tagger(make_bundle(tmp_path / "model", make_info(labels=LABELS)))


@pytest.fixture
def manifest(tmp_path):
    """Sounds and labels with names that must be escaped."""
    header = ",".join('"' + label.replace('"', '""') + '"' for label in LABELS)
    rows = [f"fname,{header}"]
    for number in range(24):
        true = LABELS[number % 3]
        write_audio(tmp_path / NAME.format(number), tone(PITCHES[true], 0.4 + number / 200), 16_000)
        written = WRONG.get(number, true)
        rows.append(f"{NAME.format(number)},{','.join(str(int(label == written)) for label in LABELS)}")
    (tmp_path / "clips.csv").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path / "clips.csv"


@pytest.fixture
def write(tmp_path, tagger, manifest):
    def call(**options):
        result = review(tagger, manifest, labels_only=True)
        return Page(write_review_page(result, tmp_path / "out" / "review.html", tagger, **options))

    return call


def content(uri, kind):
    head, data = uri.split(",")
    assert head == f"data:{kind};base64"
    return io.BytesIO(base64.b64decode(data, validate=True))


def test_each_finding_gets_a_card_with_the_current_labels_ticked(write):
    page = write()
    assert page.open == []
    assert {page.data["clips"][card["clip"]]["fname"] for card in page.cards} == {NAME.format(4), NAME.format(11)}
    for card in page.cards:
        labels = page.data["clips"][card["clip"]]["labels"]
        assert {label for label, ticked in card["boxes"].items() if ticked} == set(labels)
        assert set(card["boxes"]) == set(LABELS)
        assert card["kind"] == "swapped label"
        assert re.search(r"” \(predicted probability 0\.\d\d\) is probably wrong, and “.*” right", card["text"])
        assert "100 %" not in card["text"]


def test_spectrogram_and_sound_belong_to_the_clip(write, tmp_path):
    page = write()
    for card in page.cards:
        fname = page.data["clips"][card["clip"]]["fname"]
        seconds = soundfile.info(tmp_path / fname).duration
        wave, rate = soundfile.read(content(card["audio"], "audio/mpeg"))
        assert len(wave) / rate == pytest.approx(seconds, abs=0.08)
        loudest = np.abs(np.fft.rfft(wave)).argmax() * rate / len(wave)
        assert loudest == pytest.approx({4: 1500, 11: 5000}[int(fname[4:6])], rel=0.15)
        assert Image.open(content(card["image"], "image/jpeg")).height == MEL.n_mels
        assert "Hz" in card["text"]
        assert "seconds" in card["text"]


def test_names_are_escaped(write):
    page = write()
    assert page.scripts == ["application/json", None]
    assert page.data["labels"] == list(LABELS)
    assert "alert(" not in re.sub(r"&lt;script&gt;alert|u003cscript\\u003ealert", "", page.text)
    assert "<b>" not in page.text
    assert NAME.format(4) in unescape(page.text)


def test_page_loads_nothing_and_runs_only_its_own_script(write):
    page = write()
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://", page.text)
    script = re.search(r"<script>(.*)</script>", page.text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page.text)[1])
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for media in ("prefers-color-scheme: dark", "@media print"):
        assert media in page.text


def test_table_saved_by_the_page_starts_with_earlier_corrections(write):
    row = Correction("Ada", datetime(2026, 5, 1, 12, tzinfo=UTC), "x.wav", (LABELS[1],), (), 0.5, 2.0, "so")
    page = write(earlier=Corrections("c.csv", (row,)))
    assert page.data["columns"] == list(CORRECTION_COLUMNS)
    assert page.data["earlier"] == [list(row.fields().values())]
    assert list(row.fields()) == list(CORRECTION_COLUMNS)


def test_page_shows_the_first_findings_and_how_many_there_are(write):
    page = write(n_shown=1)
    assert len(page.cards) == 1
    assert "The first 1 are shown here; review.csv lists all." in page.text
    assert "No clip needs a review." in write(n_shown=0).text


def test_unreadable_clip_is_named(tmp_path, tagger, manifest):
    result = review(tagger, manifest, labels_only=True)
    (tmp_path / NAME.format(4)).unlink()
    page = Page(write_review_page(result, tmp_path / "review.html", tagger))
    assert sum("This clip can no longer be read" in card["text"] for card in page.cards) == 1


def test_audio_issue_gets_a_card_without_a_suggestion(tmp_path, tagger, manifest):
    write_audio(tmp_path / "silent.wav", np.zeros(8000, np.float32), 16_000)
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\nsilent.wav,0,0,0", encoding="utf-8")
    page = Page(write_review_page(review(tagger, manifest, workers=1), tmp_path / "review.html", tagger))
    silent = next(card for card in page.cards if card["kind"] == "silent")
    assert "No sample reaches -60 dBFS." in silent["text"]
    assert "Accept:" not in silent["text"]
    assert "Leave: no label" in silent["text"]


def test_image_is_shown_without_a_player(tmp_path):
    image = ImageConfig(height=24, width=32)
    tagger = Tagger(make_bundle(tmp_path / "seeing", make_info(front_end=FrontEnd(mel=None, image=image))))
    rows = ["fname,labels"]
    for number in range(24):
        label = ("low", "middle", "high")[number % 3]
        pixels, (low, high) = log_mel_to_image(compute_log_mel(tone(label, 0.5), MEL), image)
        write_png(tmp_path / f"{number}.png", pixels, low=low, high=high)
        rows.append(f"{number}.png,{'low' if number == 4 else label}")
    (tmp_path / "images.csv").write_text("\n".join(rows), encoding="utf-8")
    page = Page(write_review_page(review(tagger, tmp_path / "images.csv", workers=1), tmp_path / "r.html", tagger))
    (card,) = (card for card in page.cards if page.data["clips"][card["clip"]]["fname"] == "4.png")
    assert Image.open(content(card["img"], "image/jpeg")).size == (32, 24)
    assert "audio" not in card


def test_page_that_cannot_be_written_leaves_no_file(tmp_path, tagger, manifest):
    result = review(tagger, manifest, labels_only=True)
    (tmp_path / "review.html").mkdir()
    with pytest.raises(DataError, match=r"review.html: the page can't be written"):
        write_review_page(result, tmp_path / "review.html", tagger)
    assert list((tmp_path / "review.html").iterdir()) == []


DRIVE = """
<script>
let saved = null;
URL.createObjectURL = (blob) => { saved = blob; return "#"; };
const save = document.getElementById("download");
save.click();
const early = saved;
reviewer.value = 'Zoë "Z", Å';
cards[0].querySelector(".accept").click();
cards[1].querySelector(".comment").value = "no; clear,\\n twice";
cards[1].querySelector(".leave").click();
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "j", bubbles: true }));
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "u", bubbles: true }));
const undone = decisions.size;
boxes(cards[0]).forEach((box) => { box.checked = true; });
cards[0].querySelector(".save").click();
save.click();
saved.text().then((text) => {
  document.body.replaceChildren(Object.assign(document.createElement("pre"), {
    id: "result", textContent: JSON.stringify([early, undone, state.textContent, text]),
  }));
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_decisions_saved_in_a_browser_correct_the_manifest(write, tmp_path, manifest):
    page = write()
    text = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.text).replace("</body>", DRIVE)
    (tmp_path / "driven.html").write_text(text, encoding="utf-8")
    options = ("--headless=new", "--no-sandbox", "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [CHROMIUM, *options, profile, f"file://{tmp_path / 'driven.html'}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    early, n_after_undo, state, table = json.loads(
        unescape(re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)[1])
    )
    assert (early, n_after_undo, state) == (None, 1, "2 of 2 clips decided")
    (tmp_path / "corrections.csv").write_bytes(table.encode())
    rows = {row.fname: row for row in read_corrections(tmp_path / "corrections.csv").rows}
    first, second = (page.data["clips"][card["clip"]] for card in page.cards)
    assert set(rows[first["fname"]].new_labels) == set(LABELS)
    unchanged = rows[second["fname"]]
    assert (unchanged.reviewer, unchanged.old_labels, unchanged.changes) == (
        'Zoë "Z", Å',
        tuple(second["labels"]),
        False,
    )
    assert unchanged.comment.startswith("no; clear,")
    corrected = read_manifest(manifest, corrections=tmp_path / "corrections.csv")
    assert (
        next(clip for clip in corrected.clips if clip.fname == first["fname"]).labels == rows[first["fname"]].new_labels
    )
