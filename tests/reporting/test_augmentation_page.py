import base64
import io
import re
import wave
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from helpers.bundles import LABELS, MEL, tone
from helpers.command import run_without, write_manifest
from spectag.audio.files import write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image, write_png
from spectag.config.backbones import AUDIOSET_MEL
from spectag.config.base import ImageConfig, MelConfig
from spectag.config.training import AugmentConfig
from spectag.errors import AudioError, ConfigError, DataError
from spectag.reporting.augmentation_page import augment

ALONE = ["Mix", "Mixup", "Gain", "Roll", "Masks", "Warp", "Resized crop"]
IMAGE_KINDS = ["RandomCrop", "RandAugment", "TrivialAugmentWide"]
SMALL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=40, f_max=8000, ref=1.0, mean=0.0, std=1.0)
OPEN_ENDED = {"meta", "image", "path", "html"}  # tags that need no end


class Page(HTMLParser):
    """What a reader of the page finds: rows of cells, each with its picture, sound and words."""

    def __init__(self, path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.titles, self.rows, self.open, self.sources = [], [], [], []
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append({"words": "", "ticks": []})
        if tag == "svg":
            self.cell["alt"] = values["aria-label"]
        if tag == "image":
            self.cell["picture"] = Image.open(io.BytesIO(content(values["href"], "image/jpeg")))
        if tag == "audio":
            self.cell["sound"] = content(values["src"], "audio/wav")
        self.sources += [values[name] for name in ("src", "href") if name in values]
        if tag not in OPEN_ENDED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in OPEN_ENDED:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
        elif "text" in self.open:
            self.cell["ticks"].append(data)
        elif "td" in self.open:
            self.cell["words"] += data + "\n"

    @property
    def cell(self):
        return self.rows[-1][-1]

    def row(self, title):
        return self.rows[self.titles.index(title)]


def content(uri, kind):
    head, data = uri.split(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


def samples(cell):
    with wave.open(io.BytesIO(cell["sound"])) as sound:
        assert (sound.getnchannels(), sound.getsampwidth()) == (1, 2)
        values = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / 32768
        return values, sound.getframerate()


def write(manifest, config=None, **options):
    output = manifest.parent / "page.html"
    settings = {"backbone": "scratch", "mel": SMALL, "n_clips": 3, "workers": 1} | options
    return Page(augment(manifest, output, config, **settings).path)


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path)


def test_every_change_is_shown_alone_and_all_as_configured(manifest):
    page = write(manifest)
    assert page.titles == ["Before", *ALONE, "All as configured"]
    assert [len(row) for row in page.rows] == [3] * len(page.titles)
    assert page.open == []


@pytest.mark.parametrize("seed", range(4))
def test_clips_of_different_labels_are_shown_first(manifest, seed):
    before = write(manifest, seed=seed).row("Before")
    assert {cell["words"].split("\n")[0] for cell in before} == set(LABELS)


def test_the_page_needs_no_script_and_no_network_and_everything_has_a_name(manifest):
    page = write(manifest)
    assert all(source.startswith("data:") for source in page.sources)
    assert "<script" not in page.text
    assert not re.search(r"https?://", page.text)
    assert page.text.count("<svg") == page.text.count("role=img aria-label=") == 3 * len(page.rows)
    assert "prefers-color-scheme: dark" in page.text
    assert len({cell["alt"] for row in page.rows for cell in row}) == 3 * len(page.rows)
    assert "turned back from the network's input to sound in the same way" in unescape(page.text)


def test_labels_of_mixed_clips_are_joined_and_those_of_blends_have_shares(manifest):
    page = write(manifest, AugmentConfig(mixup_alpha=50))
    for cell in page.row("Mix"):
        assert len(cell["words"].split("\n")[0].split(", ")) == 2
        assert re.search(r"with .*\.wav, \d\.\d dB (louder|softer)", cell["words"])
    for cell in page.row("Mixup"):
        shares = re.findall(r"(?:low|middle|high) (\d+)%", cell["words"].split("\n")[0])
        assert sum(map(int, shares)) in (99, 100, 101)
    for cell in page.row("Roll"):
        assert len(cell["words"].split("\n")[0].split(", ")) == 1


def test_before_and_after_are_heard_with_the_change_between_them_and_no_other(manifest):
    page = write(manifest, AugmentConfig(gain_db=30), seed=1)
    for before, after in zip(page.row("Before"), page.row("Gain"), strict=True):
        (quiet, rate), (loud, _) = samples(before), samples(after)
        gain = float(re.search(r"([+-]\d+\.\d) dB", after["words"])[1])
        assert rate == 16_000
        assert 20 * np.log10(np.std(loud) / np.std(quiet)) == pytest.approx(gain, abs=0.3)


def test_what_is_heard_is_the_clips_own_pitch(manifest):
    pitches = {"low": 200.0, "middle": 1500.0, "high": 5000.0}
    for cell in write(manifest).row("Before"):
        sound, rate = samples(cell)
        loudest = np.abs(np.fft.rfft(sound)).argmax() * rate / len(sound)
        assert loudest == pytest.approx(pitches[cell["words"].split("\n")[0]], rel=0.15)


def test_pictures_of_a_clip_share_a_colour_scale(manifest):
    page = write(manifest, AugmentConfig(gain_db=30), seed=1)
    for before, after in zip(page.row("Before"), page.row("Gain"), strict=True):
        gain = float(re.search(r"([+-]\d+\.\d) dB", after["words"])[1])
        brightest = [np.asarray(cell["picture"].convert("L"), float).max() for cell in (before, after)]
        assert (brightest[1] - brightest[0]) / gain > 0.5


def test_axes_tell_seconds_and_hertz(manifest):
    cell = write(manifest).row("Before")[0]
    assert {"Hz", "seconds", "1k", "2k", "4k", "0", "0.1", "0.2"} <= set(cell["ticks"])
    assert "8k" not in cell["ticks"]  # beyond the middle of the highest band
    assert cell["picture"].size[1] == SMALL.n_mels


def test_a_long_clip_is_shown_where_it_is_loudest_and_a_short_one_is_repeated(tmp_path):
    quiet = np.zeros(8 * 16_000, np.float32)
    quiet[6 * 16_000 : 7 * 16_000] = tone("middle", 1.0)
    write_audio(tmp_path / "long.wav", quiet, 16_000)
    write_audio(tmp_path / "short.wav", tone("high", 0.5), 16_000)
    (tmp_path / "clips.csv").write_text("fname,labels\nlong.wav,middle\nshort.wav,high\n", encoding="utf-8")
    sounds = {cell["words"]: samples(cell)[0] for cell in write(tmp_path / "clips.csv").row("Before")}
    assert sorted(sounds) == ["high\nshort.wav\n", "middle\nlong.wav\n"]
    for sound in sounds.values():
        assert len(sound) / 16_000 == pytest.approx(4, abs=0.05)
        assert np.std(sound) > 0.02
    last = sounds["high\nshort.wav\n"][-8000:]
    assert np.std(last) > 0.02


def test_the_page_is_the_same_for_the_same_seed_and_another_for_another(manifest):
    first, again, other = (write(manifest, seed=seed).text for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_names_and_labels_are_shown_as_they_are_written(tmp_path):
    write_audio(tmp_path / "a&b <i>.wav", tone("low", 0.3), 16_000)
    (tmp_path / "a&b.csv").write_text('fname,labels\na&b <i>.wav,"<b>""fat"" & ""thin"""\n', encoding="utf-8")
    page = write(tmp_path / "a&b.csv", n_clips=1)
    assert page.row("Before")[0]["words"].startswith("<b>")
    assert page.row("Before")[0]["alt"] == "a&b <i>.wav before"
    assert "<b>" not in page.text
    assert "a&amp;b.csv" in page.text


def test_background_is_shown_where_there_is_a_folder(manifest, tmp_path):
    (tmp_path / "noises").mkdir()
    write_audio(tmp_path / "noises" / "hum.wav", tone("low", 0.2), 16_000)
    page = write(manifest, AugmentConfig(background=tmp_path / "noises"))
    assert page.titles == ["Before", "Mix", "Mixup", "Background", *ALONE[2:], "All as configured"]
    for cell in page.row("Background"):
        assert re.search(r"hum\.wav, \d+ dB below", cell["words"])


def test_a_folder_of_backgrounds_that_is_not_there_is_named(manifest, tmp_path):
    with pytest.raises(AudioError, match="gone: no such file or folder"):
        write(manifest, AugmentConfig(background=tmp_path / "gone"))


def test_networks_that_are_shown_images_have_the_changes_of_images_and_are_heard_too(manifest):
    image = ImageConfig(height=64, width=64)
    page = write(manifest, AugmentConfig(image="random_crop"), image=image, mel=None)
    assert page.titles == ["Before", *(title for title in ALONE if title != "Gain"), *IMAGE_KINDS, "All as configured"]
    assert "Gain is left out" in page.text
    for cell in page.row("Before"):
        assert cell["picture"].size == (64, 64)
        assert np.abs(samples(cell)[0]).max() == pytest.approx(0.5, abs=0.01)


def test_coloured_images_are_shown_without_sounds(manifest):
    page = write(manifest, image=ImageConfig(colormap="magma", height=32, width=32))
    assert page.row("Before")[0]["picture"].mode == "RGB"
    assert "<audio" not in page.text
    assert "coloured images, which are not turned back to sound" in unescape(page.text)


def test_a_manifest_of_images_is_shown_without_sounds_and_axes(tmp_path):
    for label in LABELS[:2]:
        image, (low, high) = log_mel_to_image(compute_log_mel(tone(label, 0.5), MEL), ImageConfig())
        write_png(tmp_path / f"{label}.png", image, low=low, high=high)
    (tmp_path / "images.csv").write_text("fname,labels\nlow.png,low\nmiddle.png,middle\n", encoding="utf-8")
    page = write(tmp_path / "images.csv", mel=None)
    assert page.titles == ["Before", *(title for title in ALONE if title != "Gain"), *IMAGE_KINDS, "All as configured"]
    assert "<audio" not in page.text
    assert all(cell["ticks"] == [] for row in page.rows for cell in row)
    assert "nothing to hear" in page.text
    with pytest.raises(ConfigError, match=r"holds images, and augment.background adds sounds"):
        write(tmp_path / "images.csv", AugmentConfig(background=tmp_path))


def test_one_clip_is_mixed_with_another_that_is_not_shown(manifest):
    page = write(manifest, n_clips=1)
    assert [len(row) for row in page.rows] == [1] * len(page.titles)
    assert len(page.row("Mix")[0]["words"].split("\n")[0].split(", ")) == 2


def test_a_manifest_of_fewer_clips_shows_them_all(manifest):
    assert len(write(manifest, n_clips=50).row("Before")) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "page.png"}, r"page.png: the page is an HTML file; change the suffix to .html"),
        ({"n_clips": 0}, "clips: expected 1 or more to show, got 0"),
        ({"config": AugmentConfig(image="rand_augment")}, "changes 8-bit images"),
        ({"backbone": "mn04_audioset"}, "was trained with one front end"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_the_work_begins(manifest, tmp_path, options, words):
    values = {"output": "page.html", "backbone": "scratch", "mel": SMALL, "bank": tmp_path / "bank"} | options
    output = tmp_path / values.pop("output")
    with pytest.raises(ConfigError, match=words):
        augment(manifest, output, **values)
    assert not output.exists()
    assert not (tmp_path / "bank").exists()


def test_a_page_that_cannot_be_written_leaves_nothing(manifest, tmp_path):
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(DataError, match=r"taken.html: the page can't be written"):
        augment(manifest, tmp_path / "taken.html", backbone="scratch", mel=SMALL, n_clips=1)
    assert list((tmp_path / "taken.html").iterdir()) == []


def test_the_command_writes_the_page_and_names_it_and_the_clips_it_could_not_read(run, tmp_path):
    manifest = write_manifest(tmp_path, n_clips=3)
    done = run("augment", manifest, "-o", tmp_path / "page.html", "--clips", 2, "--augment.gain-db", 3, "-j", 1)
    assert (done.status, done.out) == (0, f"{tmp_path / 'page.html'}\n")
    page = Page(tmp_path / "page.html")
    assert "--augment.gain-db 3" in page.text
    assert page.row("Before")[0]["picture"].size[1] == AUDIOSET_MEL.n_mels
    (tmp_path / "clips" / "low 00.wav").write_bytes(b"no sound")
    done = run("augment", manifest, "-o", tmp_path / "page.html", "--clips", 3, "-j", 1)
    assert done.status == 3
    assert "skipped: " in done.err
    assert "low 00.wav" in done.err


def test_without_torch_the_command_says_what_to_install(tmp_path):
    done = run_without({"torch"}, "augment", "clips.csv", "-o", "page.html")
    assert done.status == 1
    assert "augmentation needs the package torch: pip install 'spectag[train]'" in done.err
