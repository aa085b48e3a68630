import base64
import io
import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile
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
VOID = {"meta", "img", "image", "path", "rect"}


class Page(HTMLParser):
    """The rows of the page, with the picture, sound and text of each cell."""

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.titles, self.rows, self.open, self.sources = [], [], [], []
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append({"text": "", "ticks": []})
        if tag == "svg" and "aria-label" in values:
            self.cell["title"] = values["aria-label"]
        if tag == "img":
            self.cell["title"] = values["alt"]
        if tag in ("image", "img"):
            uri = values.get("href") or values.get("src")
            self.cell["picture"] = Image.open(io.BytesIO(content(uri, "image/jpeg")))
        if tag == "audio":
            self.cell["sound"] = content(values["src"], "audio/flac")
        self.sources += [values[name] for name in ("src", "href") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
        elif "text" in self.open:
            self.cell["ticks"].append(data)
        elif "td" in self.open:
            self.cell["text"] += data.strip() and data + "\n"

    @property
    def cell(self):
        return self.rows[-1][-1]

    def row(self, title):
        return self.rows[self.titles.index(title)]


def content(uri, kind):
    head, data = uri.split(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


def sound_of(cell):
    return soundfile.read(io.BytesIO(cell["sound"]))


def write(manifest, config=None, **options):
    output = manifest.parent / "page.html"
    settings = {"backbone": "scratch", "mel": SMALL, "n_clips": 3} | options
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
    assert {cell["text"].split("\n")[0] for cell in before} == set(LABELS)


def test_page_loads_nothing_and_all_figures_have_titles(manifest):
    page = write(manifest)
    assert all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://", page.html)
    assert "default-src 'none'" in unescape(page.html)
    assert len({cell["title"] for row in page.rows for cell in row}) == 3 * len(page.rows)


def test_only_changes_of_the_waveform_can_be_played(manifest):
    page = write(manifest)
    for title in ("Before", "Mix", "Gain", "Roll"):
        assert all("sound" in cell for cell in page.row(title))
    for title in ("Mixup", "Masks", "Warp", "Resized crop"):
        assert not any("sound" in cell for cell in page.row(title))


def test_mixed_clips_have_both_labels_and_averaged_ones_have_weights(manifest):
    page = write(manifest, AugmentConfig(mixup_alpha=50))
    for cell in page.row("Mix"):
        assert len(cell["text"].split("\n")[0].split(", ")) == 2
        assert re.search(r"with .*\.wav, \d\.\d dB (louder|softer)", cell["text"])
    for cell in page.row("Mixup"):
        shares = re.findall(r"(?:low|middle|high) (\d+)%", cell["text"].split("\n")[0])
        assert sum(map(int, shares)) in (99, 100, 101)
    for cell in page.row("Roll"):
        assert len(cell["text"].split("\n")[0].split(", ")) == 1


def test_gain_is_audible_between_before_and_after(manifest):
    page = write(manifest, AugmentConfig(gain_db=30), seed=1)
    for before, after in zip(page.row("Before"), page.row("Gain"), strict=True):
        (quiet, rate), (loud, _) = sound_of(before), sound_of(after)
        gain = float(re.search(r"([+-]\d+\.\d) dB", after["text"])[1])
        assert rate == 16_000
        assert 20 * np.log10(np.std(loud) / np.std(quiet)) == pytest.approx(gain, abs=0.3)


def spectrum_peak(waveform, rate):
    return np.abs(np.fft.rfft(waveform)).argmax() * rate / len(waveform)


def test_clips_are_played_as_recorded(manifest):
    frequencies = {"low": 200.0, "middle": 1500.0, "high": 5000.0}
    for cell in write(manifest).row("Before"):
        assert spectrum_peak(*sound_of(cell)) == pytest.approx(frequencies[cell["text"].split("\n")[0]], rel=0.15)


def test_mixed_clips_are_played_with_the_level_in_the_notes(manifest):
    page = write(manifest, AugmentConfig(mix_db=20), seed=2)
    for before, after in zip(page.row("Before"), page.row("Mix"), strict=True):
        (waveform, _), (mixed, _) = sound_of(before), sound_of(after)
        level, direction = re.search(r"(\d+\.\d) dB (louder|softer)", after["text"]).groups()
        added = mixed - waveform
        powers = []
        for sound in (waveform, added):
            log_mel = compute_log_mel(sound, SMALL.model_copy(update={"top_db": None}))
            powers.append(np.mean(10 ** (log_mel / 10)))
        expected = float(level) if direction == "louder" else -float(level)
        assert 10 * np.log10(powers[1] / powers[0]) == pytest.approx(expected, abs=0.2)


def onset(waveform):
    """First loud sample after silence; the sound may wrap around the end."""
    loud = np.abs(waveform) > 0.1 * np.abs(waveform).max()
    quiet_before = ~np.array([np.roll(loud, shift) for shift in range(1, 200)]).any(axis=0)
    return int(np.flatnonzero(loud & quiet_before)[0])


def test_rolled_clips_are_played_rolled(tmp_path):
    for name, start in (("a", 0.2), ("b", 0.6)):
        waveform = np.zeros(16_000, np.float32)
        waveform[round(start * 16_000) :][:1600] = tone("middle", 0.1)
        write_audio(tmp_path / f"{name}.wav", waveform, 16_000)
    (tmp_path / "clips.csv").write_text("fname,labels\na.wav,middle\nb.wav,middle\n", encoding="utf-8")
    page = write(tmp_path / "clips.csv", n_clips=2)
    for before, after in zip(page.row("Before"), page.row("Roll"), strict=True):
        (waveform, _), (rolled, _) = sound_of(before), sound_of(after)
        percent = int(re.search(r"(\d+)% later", after["text"])[1])
        shift = (onset(rolled) - onset(waveform)) % len(waveform) / len(waveform)
        assert shift == pytest.approx(percent / 100, abs=0.01)


def test_pictures_of_a_clip_have_one_colour_scale(manifest):
    page = write(manifest, AugmentConfig(gain_db=30), seed=1)
    for before, after in zip(page.row("Before"), page.row("Gain"), strict=True):
        gain = float(re.search(r"([+-]\d+\.\d) dB", after["text"])[1])
        brightest = [np.asarray(cell["picture"].convert("L"), float).max() for cell in (before, after)]
        assert (brightest[1] - brightest[0]) / gain > 0.5


def test_axes_show_seconds_and_hertz(manifest):
    cell = write(manifest).row("Before")[0]
    assert {"Hz", "seconds", "1k", "2k", "4k", "0", "0.1", "0.2"} <= set(cell["ticks"])
    assert "8k" not in cell["ticks"]  # beyond the middle of the highest band
    assert cell["picture"].size[1] == SMALL.n_mels


def test_long_clip_is_shown_where_it_is_loudest_and_short_one_is_repeated(tmp_path):
    quiet = np.zeros(8 * 16_000, np.float32)
    quiet[6 * 16_000 : 7 * 16_000] = tone("middle", 1.0)
    write_audio(tmp_path / "long.wav", quiet, 16_000)
    write_audio(tmp_path / "short.wav", tone("high", 0.5), 16_000)
    (tmp_path / "clips.csv").write_text("fname,labels\nlong.wav,middle\nshort.wav,high\n", encoding="utf-8")
    sounds = {cell["text"]: sound_of(cell)[0] for cell in write(tmp_path / "clips.csv").row("Before")}
    assert sorted(sounds) == ["high\nshort.wav\n", "middle\nlong.wav\n"]
    for sound in sounds.values():
        assert len(sound) / 16_000 == pytest.approx(4, abs=0.05)
        assert np.std(sound) > 0.02
    last = sounds["high\nshort.wav\n"][-8000:]
    assert np.std(last) > 0.02


def test_equal_seeds_give_equal_pages(manifest):
    first, again, other = (write(manifest, seed=seed).html for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_names_and_labels_are_escaped(tmp_path):
    write_audio(tmp_path / "a&b <i>.wav", tone("low", 0.3), 16_000)
    (tmp_path / "a&b.csv").write_text('fname,labels\na&b <i>.wav,"<b>""fat"" & ""thin"""\n', encoding="utf-8")
    page = write(tmp_path / "a&b.csv", n_clips=1)
    assert page.row("Before")[0]["text"].startswith("<b>")
    assert page.row("Before")[0]["title"] == "a&b <i>.wav before"
    assert "<b>" not in page.html
    assert "a&amp;b.csv" in page.html


def test_background_is_shown_if_a_folder_is_given(manifest, tmp_path):
    (tmp_path / "noises").mkdir()
    write_audio(tmp_path / "noises" / "hum.wav", tone("low", 0.2), 16_000)
    page = write(manifest, AugmentConfig(background=tmp_path / "noises"))
    assert page.titles == ["Before", "Mix", "Mixup", "Background", *ALONE[2:], "All as configured"]
    for cell in page.row("Background"):
        assert re.search(r"hum\.wav, \d+ dB below", cell["text"])


def test_missing_background_folder_is_named(manifest, tmp_path):
    with pytest.raises(AudioError, match="gone: no such file or folder"):
        write(manifest, AugmentConfig(background=tmp_path / "gone"))


def test_image_networks_have_image_transforms_and_play_what_is_not_an_image_operation(manifest):
    image = ImageConfig(height=64, width=64)
    page = write(manifest, AugmentConfig(image="random_crop"), image=image, mel=None)
    assert page.titles == ["Before", *(title for title in ALONE if title != "Gain"), *IMAGE_KINDS, "All as configured"]
    assert "Gain is left out" in page.html
    for cell in page.row("Before"):
        assert cell["picture"].size == (64, 64)
    assert all("sound" in cell for title in ("Before", "Roll") for cell in page.row(title))
    assert not any("sound" in cell for title in ("Mix", *IMAGE_KINDS) for cell in page.row(title))


def test_coloured_images_are_shown_in_colour(manifest):
    page = write(manifest, image=ImageConfig(colormap="magma", height=32, width=32))
    assert page.row("Before")[0]["picture"].mode == "RGB"


def test_manifest_of_images_is_shown_without_sounds_and_axes(tmp_path):
    for label in LABELS[:2]:
        image, (low, high) = log_mel_to_image(compute_log_mel(tone(label, 0.5), MEL), ImageConfig())
        write_png(tmp_path / f"{label}.png", image, low=low, high=high)
    (tmp_path / "images.csv").write_text("fname,labels\nlow.png,low\nmiddle.png,middle\n", encoding="utf-8")
    page = write(tmp_path / "images.csv", mel=None)
    assert page.titles == ["Before", *(title for title in ALONE if title != "Gain"), *IMAGE_KINDS, "All as configured"]
    assert "<audio" not in page.html
    assert all(cell["ticks"] == [] for row in page.rows for cell in row)
    assert "so there are no sounds" in page.html
    with pytest.raises(ConfigError, match=r"contains images, but augment.background adds sounds"):
        write(tmp_path / "images.csv", AugmentConfig(background=tmp_path))


def test_single_shown_clip_is_mixed_with_another(manifest):
    page = write(manifest, n_clips=1)
    assert [len(row) for row in page.rows] == [1] * len(page.titles)
    assert len(page.row("Mix")[0]["text"].split("\n")[0].split(", ")) == 2


def test_small_manifest_is_shown_completely(manifest):
    assert len(write(manifest, n_clips=50).row("Before")) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "page.png"}, r"page.png: the page is an HTML file; change the suffix to .html"),
        ({"n_clips": 0}, "n_clips: expected 1 or more clips to show, got 0"),
        ({"config": AugmentConfig(image="rand_augment")}, "transforms 8-bit images"),
        ({"backbone": "mn04_audioset"}, "the mel settings of backbone mn04_audioset are fixed"),
    ],
)
def test_invalid_settings_are_refused(manifest, tmp_path, options, words):
    values = {"output": "page.html", "backbone": "scratch", "mel": SMALL} | options
    output = tmp_path / values.pop("output")
    with pytest.raises(ConfigError, match=words):
        augment(manifest, output, **values)
    assert not output.exists()


def test_page_that_cannot_be_written_leaves_no_file(manifest, tmp_path):
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(DataError, match=r"taken.html: the page can't be written"):
        augment(manifest, tmp_path / "taken.html", backbone="scratch", mel=SMALL, n_clips=1)
    assert list((tmp_path / "taken.html").iterdir()) == []


def test_command_prints_the_page_and_the_unreadable_clips(run, tmp_path):
    manifest = write_manifest(tmp_path, n_clips=3)
    done = run("augment", manifest, "-o", tmp_path / "page.html", "--clips", 2, "--augment.gain-db", 3)
    assert (done.status, done.out) == (0, f"{tmp_path / 'page.html'}\n")
    page = Page(tmp_path / "page.html")
    assert "--augment.gain-db 3" in page.html
    assert page.row("Before")[0]["picture"].size[1] == AUDIOSET_MEL.n_mels
    (tmp_path / "clips" / "low 00.wav").write_bytes(b"no sound")
    done = run("augment", manifest, "-o", tmp_path / "page.html", "--clips", 3)
    assert done.status == 3
    assert "skipped: " in done.err
    assert "low 00.wav" in done.err


def test_missing_torch_is_an_error_with_the_extra_to_install(tmp_path):
    done = run_without({"torch"}, "augment", "clips.csv", "-o", "page.html")
    assert done.status == 1
    assert "augmentation needs PyTorch: pip install 'spectag[finetune]'" in done.err
