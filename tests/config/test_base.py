"""Settings: writing, reading and validation."""

import json
import math
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from helpers.configs import read_config
from spectag.config.base import Config, ImageConfig, MelConfig, WindowConfig, parse_config, read_toml, to_toml
from spectag.errors import ConfigError

POSITIVE = st.floats(1e-6, 1e4)
ANY_NUMBER = st.floats(-1e6, 1e6)


@st.composite
def mel_configs(draw):
    sample_rate = draw(st.integers(8000, 192_000))
    f_max = draw(st.floats(1.0, sample_rate / 2))
    n_fft = draw(st.integers(2, 8192))
    mel_scale = draw(st.sampled_from(["slaney", "htk", "kaldi"]))
    return MelConfig(
        sample_rate=sample_rate,
        n_fft=n_fft,
        win_length=draw(st.none() | st.integers(2, n_fft)),
        hop_length=draw(st.integers(1, 8192)),
        window=draw(st.sampled_from(["hann", "hann_symmetric"])),
        pad_mode=draw(st.sampled_from(["constant", "reflect"])),
        pre_emphasis=draw(st.floats(0, 0.99)),
        n_mels=draw(st.integers(1, 512)),
        f_min=draw(st.floats(0, f_max, exclude_max=True)),
        f_max=f_max,
        mel_scale=mel_scale,
        mel_norm=None if mel_scale == "kaldi" else draw(st.sampled_from(["slaney", None])),
        log=draw(st.sampled_from(["db", "ln"])),
        amin=draw(POSITIVE),
        ref=draw(POSITIVE | st.just("max")),
        top_db=draw(st.none() | POSITIVE),
        mean=draw(ANY_NUMBER),
        std=draw(POSITIVE),
    )


@st.composite
def image_configs(draw):
    low, high = sorted(draw(st.lists(ANY_NUMBER, min_size=2, max_size=2, unique=True)))
    return ImageConfig(
        colormap=draw(st.text()),
        height=draw(st.none() | st.integers(1, 4096)),
        width=draw(st.none() | st.integers(1, 4096)),
        low=draw(st.sampled_from([None, low])),
        high=draw(st.sampled_from([None, high])),
    )


CONFIGS = mel_configs() | image_configs()


@given(config=CONFIGS)
def test_config_is_equal_after_dict_json_and_toml(config):
    model = type(config)
    assert model(**config.model_dump()) == config
    assert model.model_validate(json.loads(config.model_dump_json())) == config
    assert parse_config(tomllib.loads(to_toml(config)), model, source="here") == config


@given(config=mel_configs())
def test_config_is_equal_after_a_file(config, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "mel.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert read_config(path, MelConfig) == config


def test_file_with_byte_order_mark_and_windows_line_ends_is_read(tmp_path):
    (tmp_path / "mel.toml").write_bytes("\ufeffn_mels = 64\r\n".encode())
    assert read_config(tmp_path / "mel.toml", MelConfig) == MelConfig(n_mels=64)


def test_string_none_means_none_for_optional_settings():
    mel = parse_config({"win_length": "none", "mel_norm": "none", "top_db": "none"}, MelConfig, source="here")
    assert (mel.win_length, mel.mel_norm, mel.top_db) == (None, None, None)
    assert 'top_db = "none"' in to_toml(mel)


def test_string_none_stays_a_string_for_string_settings():
    assert ImageConfig(colormap="none").colormap == "none"


def test_string_none_is_an_error_for_a_number():
    with pytest.raises(ConfigError, match=r"n_mels: .*whole number \(got 'none'"):
        parse_config({"n_mels": "none"}, MelConfig, source="here")


def test_config_is_frozen_and_hashable():
    config = MelConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.n_mels = 3
    assert len({MelConfig(), MelConfig(), MelConfig(n_mels=64)}) == 2


def test_unknown_setting_raises_an_error_with_file_and_suggestion(tmp_path):
    path = tmp_path / "mél einstellungen.toml"
    path.write_text("n_mel = 64\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mél einstellungen\.toml: n_mel: unknown setting; did you mean 'n_mels'\?$"):
        read_config(path, MelConfig)


class _Outer(Config):
    mel: MelConfig | None = None
    speed: int | str = 1


def test_unknown_setting_in_a_table_raises_an_error_with_the_table():
    with pytest.raises(ConfigError, match=r"^here: mel\.fmax: unknown setting; did you mean 'f_max'\?$"):
        parse_config({"mel": {"fmax": 3}}, _Outer, source="here")


def test_suggestions_include_settings_of_nested_tables():
    with pytest.raises(ConfigError, match=r"^here: hop_lengt: unknown setting; did you mean 'hop_length'\?$"):
        parse_config({"hop_lengt": 3}, _Outer, source="here")


def test_error_lists_all_wrong_settings():
    with pytest.raises(ConfigError, match=r"window: .*\(got 'hamming'\); here: n_mels: .*\(got -1\); here: hopp: unk"):
        parse_config({"n_mels": -1, "window": "hamming", "hopp": 3}, MelConfig, source="here")


def test_setting_with_several_types_has_one_message():
    with pytest.raises(ConfigError, match=r"^here: ref: expected a number .*, or: .*'max' \(got 'least'\)$"):
        parse_config({"ref": "least"}, MelConfig, source="here")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"f_min": 9000.0, "f_max": 8000.0}, "need f_min < f_max .* f_min=9000 and f_max=8000"),
        ({"sample_rate": 22_050}, "f_max <= sample_rate / 2 = 11025 Hz, got f_min=20 and f_max=16000"),
        ({"win_length": 4096}, "need win_length <= n_fft, got win_length=4096 and n_fft=2048"),
        ({"mel_scale": "kaldi"}, "Kaldi's mel bands are not normalised by area: set mel_norm to none"),
        ({"sample_rate": 0}, "sample_rate: .*greater than 0"),
        ({"n_fft": 1}, "n_fft: .*greater than 1"),
        ({"hop_length": 0}, "hop_length: .*greater than 0"),
        ({"pre_emphasis": 1.0}, "pre_emphasis: .*less than 1"),
        ({"f_min": -1.0}, "f_min: .*greater than or equal to 0"),
        ({"amin": 0.0}, "amin: .*greater than 0"),
        ({"ref": 0.0}, "ref: .*greater than 0"),
        ({"top_db": 0.0}, "top_db: .*greater than 0"),
        ({"std": 0.0}, "std: .*greater than 0"),
        ({"mean": math.nan}, "mean: .*finite number"),
        ({"std": math.inf}, "std: .*finite number"),
    ],
)
def test_invalid_mel_settings_raise_an_error_with_the_name(values, message):
    with pytest.raises(ConfigError, match=f"^here: .*{message}"):
        parse_config(values, MelConfig, source="here")


def test_image_range_and_window_overlap_are_validated():
    with pytest.raises(ConfigError, match=r"^here: need low < high, got low=3 and high=3$"):
        parse_config({"low": 3, "high": 3}, ImageConfig, source="here")
    with pytest.raises(ConfigError, match=r"^here: need overlap < window, got 2 s and 2 s$"):
        parse_config({"window_seconds": 2, "overlap_seconds": 2}, WindowConfig, source="here")


def test_default_window_length_is_n_fft():
    assert MelConfig(n_fft=1024).window_samples == 1024
    assert MelConfig(n_fft=1024, win_length=800).window_samples == 800


def test_missing_settings_file_and_folder_raise_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: can't read the settings: No such file"):
        read_config(tmp_path / "none.toml", MelConfig)
    with pytest.raises(ConfigError, match="can't read the settings: Is a directory"):
        read_config(tmp_path, MelConfig)


@pytest.mark.parametrize("content", [b"n_mels = \n", b"n_mels = 64 # M\xe4nner\n", b"{}"])
def test_settings_file_with_invalid_toml_raises_an_error(tmp_path, content):
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.toml: not a TOML file: "):
        read_config(tmp_path / "a.toml", MelConfig)


def test_empty_settings_file_gives_the_defaults(tmp_path):
    (tmp_path / "a.toml").touch()
    assert read_config(tmp_path / "a.toml", MelConfig) == MelConfig()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a = " + "[" * 5_000, "not a"),
        ("a." * 3_000 + "a = 1", "nested too deep"),
        ("a = " + "[" * 20 + "]" * 20, "nested too deep"),
        ("a = " + "9" * 10_000, "not a TOML file"),
        ('a = "\ud800"', "not a TOML file"),
    ],
)
def test_hostile_toml_is_an_error_of_one_line(tmp_path, content, reason):
    (tmp_path / "a.toml").write_text(content, "utf-8", "surrogatepass")
    with pytest.raises(ConfigError, match=reason) as error:
        read_toml(tmp_path / "a.toml")
    assert "\n" not in str(error.value)


def test_large_toml_is_refused(tmp_path):
    (tmp_path / "a.toml").write_text("#" * 10_000_001)
    with pytest.raises(ConfigError, match="not a file of settings: it has more than 10,000,000 bytes"):
        read_toml(tmp_path / "a.toml")
