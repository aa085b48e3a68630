"""Feature extraction: a waveform, its log_mel and its image give the same input of the network."""

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from helpers.bundles import MEL, tone
from spectag.audio.files import read_audio, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image, write_png
from spectag.config.base import ImageConfig, MelConfig
from spectag.errors import DataError

IMAGES = [
    ImageConfig(),
    ImageConfig(height=64, width=48),
    ImageConfig(height=10, low=-2.0, high=2.0),
    ImageConfig(colormap="magma"),
    ImageConfig(colormap="viridis", height=32, width=32),
]
FRONT_ENDS = [FrontEnd(mel=MEL, image=image) for image in (None, *IMAGES)]


@pytest.fixture
def waveform(rng):
    return tone("middle", 1.3) + 0.01 * rng.standard_normal(round(1.3 * MEL.sample_rate)).astype(np.float32)


def names(configs):
    return [f"{c.colormap}-{c.height}-{c.width}" for c in configs]


@pytest.mark.parametrize("front_end", FRONT_ENDS, ids=["log_mel", *names(IMAGES)])
def test_waveform_and_its_log_mel_give_the_same_input(front_end, waveform):
    expected = front_end.input_of_log_mel(compute_log_mel(waveform, MEL))
    inputs = front_end.input_of_waveform(waveform)
    assert inputs.dtype == np.float32
    assert np.array_equal(inputs, expected)


def test_input_without_image_is_the_log_mel_with_one_channel(waveform):
    log_mel = compute_log_mel(waveform, MEL)
    assert np.array_equal(FrontEnd(mel=MEL).input_of_log_mel(log_mel), log_mel[np.newaxis])


@pytest.mark.parametrize("image", IMAGES, ids=names(IMAGES))
def test_waveform_and_its_png_give_the_same_input(image, waveform, tmp_path):
    pixels, (low, high) = log_mel_to_image(compute_log_mel(waveform, MEL), image)
    write_png(tmp_path / "a.png", pixels, low=low, high=high)
    from_png = FrontEnd(mel=None, image=image).input_of_image(tmp_path / "a.png")
    assert np.array_equal(FrontEnd(mel=MEL, image=image).input_of_waveform(waveform), from_png)


@pytest.mark.parametrize("image", IMAGES, ids=names(IMAGES))
def test_image_input_has_the_size_and_channels_of_the_settings_and_values_from_0_to_1(image, waveform):
    front_end = FrontEnd(mel=MEL, image=image)
    n_mels, n_frames = compute_log_mel(waveform, MEL).shape
    inputs = front_end.input_of_waveform(waveform)
    assert front_end.n_channels == (1 if image.colormap == "grey" else 3)
    assert inputs.shape == (front_end.n_channels, image.height or n_mels, image.width or n_frames)
    assert inputs.min() >= 0
    assert inputs.max() <= 1


@pytest.mark.parametrize(("colormap", "n_channels"), [("grey", 1), ("magma", 3)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images_of_any_size_colour_and_format_give_the_same_shape(tmp_path, rng, colormap, n_channels, suffix):
    front_end = FrontEnd(mel=None, image=ImageConfig(colormap=colormap, height=20, width=30))
    for shape in ((8, 9), (50, 40, 3)):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(tmp_path / f"a.{suffix}")
        assert front_end.input_of_image(tmp_path / f"a.{suffix}").shape == (n_channels, 20, 30)


@pytest.mark.parametrize("sample_rate", [44_100, 192_000])
def test_single_sample_at_a_higher_rate_has_one_frame(tmp_path, sample_rate):
    write_audio(tmp_path / "a.wav", np.full(1, 0.5, np.float32), sample_rate)
    front_end = FrontEnd(mel=MEL)
    waveform, _ = read_audio(tmp_path / "a.wav", sample_rate=front_end.sample_rate)
    assert front_end.input_of_waveform(waveform).shape == (1, MEL.n_mels, 1)


def test_model_of_images_with_unknown_mel_settings_rejects_sounds(waveform):
    with pytest.raises(DataError, match=r"can tag images but not sounds; .*, train it with .*\[mel\] in --config"):
        FrontEnd(mel=None, image=ImageConfig()).input_of_waveform(waveform)


def test_model_of_sounds_rejects_images(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: this tagger takes log-mel spectrograms, not images; give it"):
        FrontEnd(mel=MEL).input_of_image(tmp_path / "a.png")


def test_invalid_image_raises_an_error_with_the_file_name(tmp_path):
    (tmp_path / "Möwe 1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"Möwe 1\.png"):
        FrontEnd(mel=None, image=ImageConfig()).input_of_image(tmp_path / "Möwe 1.png")


def test_front_end_needs_settings_of_mel_or_image():
    with pytest.raises(ValidationError, match="needs mel settings, image settings or both"):
        FrontEnd(mel=None)


@pytest.mark.parametrize("front_end", [*FRONT_ENDS, FrontEnd(mel=None, image=IMAGES[1]), FrontEnd(mel=MelConfig())])
def test_front_end_survives_json(front_end):
    assert FrontEnd.model_validate_json(front_end.model_dump_json()) == front_end
