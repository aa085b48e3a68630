"""Spectrogram images: log_mel to image and back, PNG files, and the input of a network."""

import sys

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from helpers.images import image_to_log_mel
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import (
    _color_table,
    image_to_input,
    log_mel_to_image,
    read_png,
    write_png,
)
from spectag.config.base import ImageConfig, MelConfig
from spectag.errors import ConfigError, DataError, MissingExtraError

GREY = ImageConfig()


@pytest.fixture
def log_mel():
    return np.random.default_rng(0).uniform(-80, 0, (128, 431)).astype(np.float32)


def tone(frequency, *, n_samples=32_000, sample_rate=32_000):
    return np.sin(2 * np.pi * frequency * np.arange(n_samples) / sample_rate).astype(np.float32)


@given(arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(-200, 200, width=32)))
def test_grey_image_is_converted_back_within_half_a_step(log_mel):
    image, (low, high) = log_mel_to_image(log_mel, GREY)
    restored = image_to_log_mel(image, low=low, high=high)
    assert restored.shape == log_mel.shape
    assert np.abs(restored - log_mel).max() <= (high - low) / 255 * 0.5 + 1e-4


def test_second_conversion_changes_no_pixel(log_mel):
    image, (low, high) = log_mel_to_image(log_mel, GREY)
    again, _ = log_mel_to_image(image_to_log_mel(image, low=low, high=high), ImageConfig(low=low, high=high))
    np.testing.assert_array_equal(again, image)


def test_low_tone_is_near_the_bottom_and_high_tone_near_the_top():
    low, _ = log_mel_to_image(compute_log_mel(tone(200), MelConfig()), GREY)
    high, _ = log_mel_to_image(compute_log_mel(tone(12_000), MelConfig()), GREY)
    assert low.mean(axis=1).argmax() > 110
    assert high.mean(axis=1).argmax() < 20


def test_minimum_is_black_and_maximum_is_white(log_mel):
    image, (low, high) = log_mel_to_image(log_mel, GREY)
    assert image.dtype == np.uint8
    assert (low, high) == (log_mel.min(), log_mel.max())
    assert image[::-1][np.unravel_index(log_mel.argmin(), log_mel.shape)] == 0
    assert image[::-1][np.unravel_index(log_mel.argmax(), log_mel.shape)] == 255


def test_values_outside_the_range_are_black_and_white():
    image, limits = log_mel_to_image(np.array([[-100.0, -40.0, 10.0]], np.float32), ImageConfig(low=-80, high=0))
    assert limits == (-80, 0)
    assert image.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [(GREY, 0), (ImageConfig(low=-80, high=0), 191), (ImageConfig(low=0), 0), (ImageConfig(high=-50), 255)],
)
def test_image_of_silence_has_one_grey_value(config, expected):
    silence = np.full((4, 5), -20, np.float32)
    image, (low, high) = log_mel_to_image(silence, config)
    assert low < high
    assert (image == expected).all()


def test_silence_is_converted_back_exactly():
    image, (low, high) = log_mel_to_image(np.full((4, 5), -100, np.float32), GREY)
    assert (image_to_log_mel(image, low=low, high=high) == -100).all()


def test_colours_equal_matplotlib(log_mel):
    grey, _ = log_mel_to_image(log_mel, GREY)
    image, _ = log_mel_to_image(log_mel, ImageConfig(colormap="magma"))
    assert image.shape == (128, 431, 3)
    np.testing.assert_array_equal(image, matplotlib.colormaps["magma"](grey, bytes=True)[..., :3])


@pytest.mark.parametrize(("height", "width"), [(224, 224), (None, 100), (64, None), (1, 1)])
def test_image_has_the_size_of_the_settings(log_mel, height, width):
    image, _ = log_mel_to_image(log_mel, ImageConfig(height=height, width=width, colormap="magma"))
    assert image.shape == (height or 128, width or 431, 3)


def test_shrinking_averages_over_all_columns():
    stripes = np.tile(np.array([0.0, 1.0], np.float32), (8, 200))
    image, _ = log_mel_to_image(stripes, ImageConfig(width=20))
    assert np.abs(image[:, 1:-1].astype(int) - 127).max() <= 5


def test_unknown_colour_map_raises_an_error_with_a_suggestion(log_mel):
    with pytest.raises(ConfigError, match=r"unknown colour map 'magna'; did you mean 'magma'\?"):
        log_mel_to_image(log_mel, ImageConfig(colormap="magna"))


def test_missing_matplotlib_raises_an_error_with_the_extra(log_mel, monkeypatch):
    _color_table.cache_clear()  # an earlier test may have filled it
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"'viridis' needs the package matplotlib: .*spectag\[plots\]"):
        log_mel_to_image(log_mel, ImageConfig(colormap="viridis"))


@pytest.mark.parametrize(
    ("log_mel", "message"),
    [
        (np.zeros(5, np.float32), r"shape \(n_mels, n_frames\), got shape \(5,\)"),
        (np.zeros((128, 0), np.float32), r"got shape \(128, 0\)"),
        (np.array([[0, np.nan]], np.float32), "finite"),
    ],
)
def test_invalid_log_mel_raises_an_error(log_mel, message):
    with pytest.raises(ValueError, match=message):
        log_mel_to_image(log_mel, GREY)


@pytest.mark.parametrize("colormap", ["grey", "magma"])
def test_png_contains_pixels_range_and_mel_settings(tmp_path, log_mel, colormap):
    path = tmp_path / "Möwe, früh am Morgen.png"
    image, (low, high) = log_mel_to_image(log_mel, ImageConfig(colormap=colormap))
    write_png(path, image, low=low, high=high, mel=MelConfig())
    np.testing.assert_array_equal(read_png(path), image)
    text = Image.open(path).text
    assert (float(text["spectag:low"]), float(text["spectag:high"])) == (low, high)
    assert MelConfig.model_validate_json(text["spectag:mel"]) == MelConfig()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_interrupt_while_writing_leaves_the_old_image(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_png(path, np.zeros((2, 2), np.uint8), low=0, high=1)

    def interrupt(image, file, *args, **kwargs):
        file.write(b"\x89PNG half an im")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_png(path, np.ones((2, 2), np.uint8), low=0, high=1)
    assert (read_png(path) == 0).all()
    assert list(tmp_path.iterdir()) == [path]


def test_path_that_cannot_be_written_raises_an_error(tmp_path):
    with pytest.raises(DataError, match="the image can't be written: a folder has this name"):
        write_png(tmp_path, np.zeros((2, 2), np.uint8), low=0, high=1)


STORED = np.array([[0, 100, 255], [40, 50, 60]], np.uint8)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("L", STORED),
        ("LA", STORED),
        ("1", np.array([[0, 0, 255], [0, 0, 0]], np.uint8)),
        ("RGB", np.stack([STORED] * 3, axis=-1)),
        ("RGBA", np.stack([STORED] * 3, axis=-1)),
        ("P", np.stack([STORED] * 3, axis=-1)),
    ],
)
def test_png_of_any_mode_is_read_as_grey_or_rgb(tmp_path, mode, expected):
    image = Image.fromarray(STORED)
    image = image.point(lambda value: 255 * (value > 200)).convert("1") if mode == "1" else image.convert(mode)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_png(tmp_path / "a.png"), expected)


def test_sixteen_bits_are_reduced_to_eight(tmp_path):
    Image.fromarray(STORED.astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_png(tmp_path / "a.png"), STORED)


@pytest.mark.parametrize(("mode", "shape"), [("L", (16, 24)), ("RGB", (16, 24, 3)), ("CMYK", (16, 24, 3))])
def test_jpeg_is_read(tmp_path, mode, shape):
    Image.new("L", (24, 16), 200).convert(mode).save(tmp_path / "a.jpg")
    image = read_png(tmp_path / "a.jpg")
    assert image.shape == shape
    assert np.abs(image.astype(int) - 200).max() <= 2


def test_incomplete_image_raises_an_error_with_the_path(tmp_path):
    path = tmp_path / "ä b.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8)
    write_png(path, noise, low=0, high=1)
    complete = path.read_bytes()
    for contents in (b"", b"RIFF....WAVEfmt ", complete[:20], complete[:200], complete[:1500]):
        path.write_bytes(contents)
        with pytest.raises(DataError, match=r"ä b\.png: "):
            read_png(path)
    with pytest.raises(DataError, match=r"nothing\.png: no such image"):
        read_png(tmp_path / "nothing.png")


@pytest.mark.parametrize("image", [np.zeros((3, 3)), np.zeros((3, 3, 4), np.uint8), np.zeros((0, 3), np.uint8)])
def test_invalid_image_raises_an_error(tmp_path, image):
    with pytest.raises(ValueError, match="expected a uint8 image of shape"):
        write_png(tmp_path / "a.png", image, low=0, high=1)
    with pytest.raises(ValueError, match="expected a uint8 image of shape"):
        image_to_input(image, height=3, width=3, channels=1)


def test_grey_is_repeated_and_colours_are_averaged_for_the_input():
    color = np.stack([STORED, STORED // 2, STORED // 4], axis=-1)
    np.testing.assert_allclose(image_to_input(STORED, height=2, width=3, channels=3), [STORED / np.float32(255)] * 3)
    np.testing.assert_allclose(image_to_input(color, height=2, width=3, channels=3), np.moveaxis(color, 2, 0) / 255)
    np.testing.assert_allclose(
        image_to_input(color, height=2, width=3, channels=1), color.mean(axis=2)[None] / 255, rtol=1e-6
    )
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        image_to_input(STORED, height=2, width=3, channels=2)


@pytest.mark.parametrize("channels", [1, 3])
def test_input_has_the_requested_size(channels, log_mel):
    image, _ = log_mel_to_image(log_mel, GREY)
    array = image_to_input(image, height=224, width=320, channels=channels)
    assert array.shape == (channels, 224, 320)
    assert array.dtype == np.float32
    assert array.min() >= 0
    assert array.max() <= 1
