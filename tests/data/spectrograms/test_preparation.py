"""Spectrograms computed ahead of training, in the cache and as images."""

import numpy as np
import pytest

from helpers.bundles import LABELS, tone
from helpers.images import image_to_log_mel
from spectag.audio.files import read_audio, write_audio
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import read_png
from spectag.config.backbones import resolve_mel
from spectag.config.base import ImageConfig, MelConfig
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.data.spectrograms.preparation import prepare
from spectag.errors import ConfigError, DataError

MEL = MelConfig(sample_rate=16_000, n_mels=32, f_max=8000.0)


@pytest.fixture
def table(tmp_path):
    """Four clips with one or two labels; the last can't be read."""
    (tmp_path / "clips").mkdir()
    rows = ["fname,labels"]
    for number in range(3):
        write_audio(tmp_path / "clips" / f"töne {number}.wav", tone(LABELS[number], 0.3), 16_000)
        rows.append(f'töne {number}.wav,"{LABELS[number]},{LABELS[0]}"')
    (tmp_path / "clips" / "leer.wav").write_bytes(b"")
    path = tmp_path / "clips.csv"
    path.write_text("\n".join([*rows, "leer.wav,high"]), encoding="utf-8")
    return path


def prepare_scratch(table, **options):
    return prepare(table, cache=table.parent / "cache", backbone="scratch", mel=MEL, workers=1, **options)


def test_cache_contains_what_training_needs(table):
    prepared = prepare_scratch(table)
    store = SpectrogramCache(table.parent / "cache", resolve_mel("scratch", MEL))
    assert prepared.cache == store.folder
    for clip, key in zip(read_manifest(table).clips[:3], prepared.report.keys, strict=False):
        waveform, _ = read_audio(clip.path, sample_rate=16_000)
        assert np.array_equal(store.log_mel(key), compute_log_mel(waveform, store.config))


def test_second_run_does_nothing_and_reports_so(table):
    lines = []
    prepare_scratch(table, png=table.parent / "png", log=lines.append)
    assert lines[0].startswith("4 spectrograms to compute: about")
    assert lines[1].startswith("spectrogram cache: 3 spectrograms computed")
    assert lines[2].startswith("images: 3 images written")
    lines.clear()
    again = prepare_scratch(table, png=table.parent / "png", log=lines.append)
    assert lines[-2:] == [
        "spectrogram cache: nothing to do: 3 spectrograms are cached; 1 clips skipped",
        "images: nothing to do: 3 images exist; 1 clips without a spectrogram left out",
    ]
    assert again.report.n_new == again.images.n_new == 0


def test_images_have_a_multi_hot_manifest(table):
    prepared = prepare_scratch(table, png=table.parent / "png")
    assert prepared.images.labels_path == table.parent / "png" / "clips_image_labels.csv"
    images, sounds = read_manifest(prepared.images.labels_path), read_manifest(table)
    assert images.holds_images
    assert images.labels.names == sounds.labels.names
    assert np.array_equal(images.multi_hot(), sounds.multi_hot()[:3])
    assert [clip.path.name for clip in images.clips] == [f"töne {number}.png" for number in range(3)]


def test_images_have_the_given_settings(table):
    folder = table.parent / "png"
    prepare_scratch(table, png=folder, image=ImageConfig(width=20, height=16, colormap="magma"))
    assert read_png(folder / "töne 0.png").shape == (16, 20, 3)


def test_grey_images_equal_the_cached_log_mels(table):
    prepared = prepare_scratch(table, png=table.parent / "png")
    log_mel = SpectrogramCache(table.parent / "cache", resolve_mel("scratch", MEL)).log_mel(prepared.report.keys[0])
    pixels = read_png(table.parent / "png" / "töne 0.png")
    back = image_to_log_mel(pixels, low=float(log_mel.min()), high=float(log_mel.max()))
    assert np.abs(back - log_mel).max() <= np.ptp(log_mel) / 255


def test_unreadable_clip_is_in_the_report(table):
    report = prepare_scratch(table).report
    ((clip, reason),) = report.skipped
    assert clip.fname == "leer.wav"
    assert "leer.wav: the file is empty (0 bytes)" in reason
    assert report.keys[3] is None


def test_default_cache_is_in_the_users_cache_folder(table, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cache"))
    assert prepare(table, backbone="scratch").cache.parent == tmp_path / "cache" / "spectrograms"


def test_default_settings_are_those_of_training(table):
    prepared = prepare(table, cache=table.parent / "cache")
    assert prepared.cache == SpectrogramCache(table.parent / "cache", resolve_mel("mn04_audioset", None)).folder


def test_manifest_object_is_accepted(table):
    manifest = read_manifest(table)
    assert (
        prepare_scratch(table).report.keys
        == prepare(manifest, cache=table.parent / "cache", backbone="scratch", mel=MEL).report.keys
    )


def test_preparing_images_is_an_error(table):
    images = prepare_scratch(table, png=table.parent / "png").images.labels_path
    with pytest.raises(DataError, match=r"clips_image_labels\.csv: the clips are images, which need no preparation"):
        prepare_scratch(images)


def test_unknown_backbone_is_an_error(table):
    with pytest.raises(ConfigError, match=r"the mel settings of backbone mn04_audioset are fixed.*mel\.n_mels=32"):
        prepare(table, cache=table.parent / "cache", mel=MelConfig(n_mels=32))
    with pytest.raises(ConfigError, match="unknown backbone 'scrach'; did you mean 'scratch'"):
        prepare(table, cache=table.parent / "cache", backbone="scrach")
