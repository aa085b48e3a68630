import csv
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.images import image_to_log_mel
from spectag.audio.files import write_audio
from spectag.audio.spectrogram_image import log_mel_to_image, read_png
from spectag.config.base import ImageConfig, MelConfig
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms import png_export as png_module
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.data.spectrograms.png_export import export_png
from spectag.errors import ConfigError, DataError, SpectrogramCacheError

CONFIG = MelConfig(sample_rate=8000, n_fft=256, hop_length=128, n_mels=16, f_max=4000)
GREY = ImageConfig()


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(3)
    clips = []
    for fname, labels in [("a.wav", ("Bark",)), ("sub/b ü.wav", ("Bark", "Rain")), ("sub.d/c", ())]:
        path = tmp_path / "sounds" / fname
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(tmp_path / "noise.wav", rng.uniform(-0.5, 0.5, 2000).astype(np.float32), 8000)
        clips.append(Clip((tmp_path / "noise.wav").rename(path), fname, labels))
    clips.append(replace(clips[0], labels=("Rain",), start_seconds=0.1, end_seconds=0.2))
    return Manifest(tmp_path / "train_curated.csv", tuple(clips), LabelSet(("Bark", "Rain")))


@pytest.fixture
def cache(tmp_path):
    return SpectrogramCache(tmp_path / "cache", CONFIG)


@pytest.fixture
def keys(cache, manifest):
    return cache.prepare(manifest.clips).keys


NAMES = ["a.png", "sub/b ü.png", "sub.d/c.png", "a_0.100-0.200.png"]


@pytest.mark.parametrize("workers", [1, 2])
def test_log_mel_can_be_restored_from_the_image(tmp_path, cache, manifest, keys, workers):
    report = export_png(cache, manifest, keys, tmp_path / "png", GREY, workers=workers)
    assert (report.n_new, report.n_existing, report.n_left_out) == (4, 0, 0)
    for name, key in zip(NAMES, keys, strict=True):
        path = tmp_path / "png" / name
        low, high = (float(Image.open(path).text[f"spectag:{end}"]) for end in ("low", "high"))
        log_mel = image_to_log_mel(read_png(path), low=low, high=high)
        np.testing.assert_allclose(log_mel, cache.log_mel(key), atol=0.51 * (high - low) / 255)


def test_table_is_a_multi_hot_manifest_of_the_images(tmp_path, cache, manifest, keys):
    report = export_png(cache, manifest, keys, tmp_path / "png", GREY)
    assert report.labels_path == tmp_path / "png" / "train_curated_image_labels.csv"
    with report.labels_path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["fname", "group", "Bark", "Rain"],  # parts of one recording stay a group
            ["a.png", "a.wav", "1", "0"],
            ["sub/b ü.png", "", "1", "1"],
            ["sub.d/c.png", "", "0", "0"],
            ["a_0.100-0.200.png", "a.wav", "0", "1"],
        ]
    images = read_manifest(report.labels_path)
    assert images.holds_images
    np.testing.assert_array_equal(images.multi_hot(), manifest.multi_hot())


def test_images_have_the_configured_colour_map_and_size(tmp_path, cache, manifest, keys):
    config = ImageConfig(colormap="magma", height=20, width=30)
    export_png(cache, manifest, keys, tmp_path / "png", config)
    image, _ = log_mel_to_image(cache.log_mel(keys[0]), config)
    assert image.shape == (20, 30, 3)
    np.testing.assert_array_equal(read_png(tmp_path / "png" / "a.png"), image)


def test_second_export_does_nothing_and_reports_so(tmp_path, cache, manifest, keys):
    folder = tmp_path / "png"
    first = export_png(cache, manifest, keys, folder, GREY)
    assert str(first).startswith("4 images written in ")
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    second = export_png(cache, manifest, keys, folder, GREY)
    assert (second.n_new, second.n_existing) == (0, 4)
    assert str(second) == "nothing to do: 4 images exist"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")} == times


def test_images_of_other_settings_audio_or_programs_are_replaced(tmp_path, cache, manifest, keys):
    folder = tmp_path / "png"
    export_png(cache, manifest, keys, folder, GREY)
    assert export_png(cache, manifest, keys, folder, ImageConfig(low=-100, high=0)).n_new == 4
    (folder / "a.png").write_bytes(b"no image")
    (folder / "sub" / "b ü.png").unlink()
    swapped = (keys[0], keys[1], keys[3], keys[3])
    assert export_png(cache, manifest, swapped, folder, ImageConfig(low=-100, high=0)).n_new == 3


def test_clips_without_a_log_mel_are_left_out_and_counted(tmp_path, cache, manifest, keys):
    report = export_png(cache, manifest, (None, *keys[1:]), tmp_path / "png", GREY)
    assert (report.n_new, report.n_left_out) == (3, 1)
    assert "1 clips without a spectrogram left out" in str(report)
    assert not (tmp_path / "png" / "a.png").exists()
    assert len(report.labels_path.read_text(encoding="utf-8").splitlines()) == 4


def test_equal_clips_with_different_names_have_separate_images(tmp_path, cache, manifest):
    copies = []
    for index in range(40):
        path = shutil.copy(manifest.clips[0].path, tmp_path / f"{index}.wav")
        copies.append(Clip(Path(path), f"{index}.wav", ()))
    copied = replace(manifest, clips=tuple(copies))
    export_png(cache, copied, cache.prepare(copies).keys, tmp_path / "png", GREY, workers=2)
    assert len(list((tmp_path / "png").glob("*.png"))) == 40


def test_clips_with_the_same_image_name_are_an_error(tmp_path, cache, manifest, keys):
    twin = replace(manifest.clips[0], fname="a.ogg")
    twins = replace(manifest, clips=(*manifest.clips, twin))
    with pytest.raises(DataError, match=r"train_curated\.csv: a\.wav and a\.ogg would both have the image a\.png"):
        export_png(cache, twins, (*keys, keys[0]), tmp_path / "png", GREY)
    assert not (tmp_path / "png").exists()


@pytest.mark.parametrize("fname", ["/data/far away/x.wav", "../../x.wav"])
def test_no_image_is_written_outside_the_folder(tmp_path, cache, manifest, keys, fname):
    strayed = replace(manifest, clips=(replace(manifest.clips[0], fname=fname),))
    export_png(cache, strayed, keys[:1], tmp_path / "png" / "deep" / "er", GREY)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")] == ["png/deep/er/x.png"]


def _kill_this_process(*_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_restarted_export_writes_the_same_bytes(tmp_path, cache, manifest, keys):
    arguments = (cache, manifest, keys, tmp_path / "png", GREY)
    export = partial(export_png, *arguments, workers=1, progress=_kill_this_process)
    process = multiprocessing.get_context("spawn").Process(target=export)
    process.start()
    process.join()
    assert list((tmp_path / "png").glob(".work-*"))
    assert export_png(cache, manifest, keys, tmp_path / "png", GREY).n_existing == 1
    export_png(cache, manifest, keys, tmp_path / "undisturbed", GREY)
    killed, undisturbed = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "png", tmp_path / "undisturbed")
    )
    assert killed == undisturbed


def test_unknown_colour_map_is_an_error_before_anything_is_written(tmp_path, cache, manifest, keys):
    with pytest.raises(ConfigError, match=r"magmaa.*did you mean 'magma'"):
        export_png(cache, manifest, keys, tmp_path / "png", ImageConfig(colormap="magmaa"))
    assert not (tmp_path / "png").exists()


def test_file_instead_of_a_folder_is_an_error(tmp_path, cache, manifest, keys):
    (tmp_path / "png").touch()
    with pytest.raises(DataError, match=r"png: the images can't be written: (File exists|Not a directory)"):
        export_png(cache, manifest, keys, tmp_path / "png", GREY)


def test_damaged_log_mel_is_an_error(tmp_path, cache, manifest, keys):
    [path] = cache.root.rglob(f"{keys[0]}.npy")
    path.write_bytes(b"")
    with pytest.raises(SpectrogramCacheError, match=r"\.npy.*delete it and run spectag prepare again"):
        export_png(cache, manifest, keys, tmp_path / "png", GREY)


def _die(cache, folder, work, config, task):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_killed_worker_is_an_error(tmp_path, cache, manifest, keys, monkeypatch):
    monkeypatch.setattr(png_module, "_write_image", _die)
    with pytest.raises(DataError, match=r"a worker process died \(SIGKILL\).*completed images are kept"):
        export_png(cache, manifest, keys, tmp_path / "png", GREY, workers=2)
    assert not list((tmp_path / "png").glob(".work-*"))
