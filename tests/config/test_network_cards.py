import pytest
import tomli_w

from helpers.card_networks import ABOUT, MEL
from spectag.config.backbones import backbone_spec
from spectag.config.network_cards import NetworkCard, is_card, known_cards, open_card
from spectag.errors import ConfigError

WAVEFORM = {"kind": "waveform", "sample_rate": 32_000}
CARD = {
    "name": "my-net",
    "network": {"file": "net.onnx"},
    "input": WAVEFORM,
    "outputs": {"embedding": "embedding"},
    **ABOUT,
}


def write(folder, **settings):
    path = folder / "card.toml"
    path.write_text(tomli_w.dumps(CARD | settings), encoding="utf-8")
    return path


def test_card_becomes_a_backbone_with_fixed_mel_settings(tmp_path):
    path = write(tmp_path, input={"kind": "log_mel", "mel": MEL})
    spec = backbone_spec(str(path))
    assert (spec.name, spec.mel_is_fixed, spec.licence) == ("my-net", True, "Apache-2.0")
    assert spec.mel.n_mels == MEL["n_mels"]


def test_fixed_length_in_frames_is_the_shortest_sound_with_so_many_frames(tmp_path):
    card = open_card(write(tmp_path, input={"kind": "log_mel", "mel": MEL, "n_frames": 21})).card
    assert card.input.sample_limits == (20 * 160, 20 * 160)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"input": WAVEFORM | {"window_seconds": 1e9}}, "window_seconds: expected a number less than or equal to 600"),
        ({"input": WAVEFORM | {"sample_rate": 10**9}}, "sample_rate: expected a number less than or equal to 1e\\+06"),
        ({"input": WAVEFORM | {"scale": 1e300}}, "scale: expected a number less than or equal to 1e\\+09"),
        (
            {"input": {"kind": "log_mel", "mel": MEL, "n_frames": 999_999}},
            "999999 frames are 9999.98 s",
        ),
        ({"input": {"kind": "log_mel", "mel": MEL, "n_frames": 1}}, "1 frames are"),
        ({"input": WAVEFORM | {"window_seconds": 1e-6}}, "expected a number greater than or equal to 0.01"),
        ({"input": {"kind": "waveform"}}, "a waveform needs sample_rate"),
        ({"input": WAVEFORM | {"kind": "log_mel"}}, "a log_mel needs the table"),
        ({"input": WAVEFORM | {"window_seconds": 5.0, "max_seconds": 9.0}}, "exclude each other"),
        ({"input": WAVEFORM | {"min_seconds": 5.0, "max_seconds": 1.0}}, "min_seconds 5.0 is above max_seconds 1.0"),
        ({"input": WAVEFORM | {"axes": ["batch", "frames"]}}, "axes of a waveform are samples"),
        ({"outputs": {}}, "need embedding, frames, logits or probabilities"),
        ({"outputs": {"logits": 0, "probabilities": 1}}, "not both"),
        ({"outputs": {"embedding": 10**9}}, "outputs.embedding"),
        ({"network": {"file": "../net.onnx"}}, "expected a path inside the folder of the card"),
        ({"network": {"file": "/etc/passwd"}}, "expected a path inside the folder of the card"),
        ({"network": {"file": "a\\..\\net.onnx"}}, "expected a path inside the folder of the card"),
        ({"network": {"file": "ftp://example.org/net.onnx"}}, "expected a path inside the folder of the card"),
        ({"network": {"file": "hf:user/name/../../x.onnx"}}, "expected a file on the hub"),
        ({"network": {"file": "net.onnx", "sha256": "abc"}}, "sha256"),
        ({"name": "../evil"}, "name: "),
        ({"homepage": "javascript:alert(1)"}, "expected an address that starts with https"),
        ({"labels": {"column": "name"}}, "give names or source"),
        ({"threshold": 7.0}, "threshold: expected a number less than 1"),
        ({"surprise": 1}, "surprise: unknown setting"),
        ({"name": "net.toml"}, "expected a name that does not end in .toml"),
        ({"licence": "\x1b]0;changed\x07 MIT"}, "licence: expected one line of printable text"),
        ({"title": "\x1b[2J"}, "title: expected one line of printable text"),
        ({"homepage": "https://example.org/\x1b[2J"}, "expected an address that starts with https"),
        ({"outputs": {"embedding": "\x1b[2J"}}, "expected one line of printable text"),
        ({"network": {"file": "\x1b[2J.onnx"}}, "expected one line of printable text"),
        ({"network": {"file": "http://example.org/net.onnx"}}, "needs its sha256, because anybody on the way can"),
        (
            {"input": WAVEFORM | {"sample_rate": 1_000_000, "min_seconds": 600.0}},
            "the length is 600,000,000 samples, expected at most 100,000,000",
        ),
    ],
)
def test_wrong_or_hostile_cards_are_refused_with_the_reason(tmp_path, settings, reason):
    path = write(tmp_path, **settings)
    with pytest.raises(ConfigError, match=reason) as error:
        open_card(path)
    assert str(path) in str(error.value)


def test_card_must_be_a_regular_file_of_moderate_size(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        open_card(tmp_path / "none.toml")
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match="not a regular file"):
        open_card(tmp_path / "folder.toml")
    (tmp_path / "large.toml").write_text("#" * 2_000_000)
    with pytest.raises(ConfigError, match="too large"):
        open_card(tmp_path / "large.toml")


def test_unknown_backbone_names_network_cards():
    assert not is_card("mn04_audioset")
    with pytest.raises(ConfigError, match=r"and a network card: a file such as card\.toml"):
        backbone_spec("no-such-network")


def test_packaged_cards_are_valid_and_state_licence_and_citation():
    cards = {stored.card.name: stored.card for stored in known_cards()}
    assert {"perch-v2", "ced-tiny", "ced-mini", "ced-small", "ced-base", "yamnet", "panns-cnn14"} <= cards.keys()
    for card in cards.values():
        assert card.licence
        assert card.citation
        assert isinstance(card, NetworkCard)


def test_waveform_networks_are_shown_with_bands_up_to_half_the_sample_rate(tmp_path):
    for rate in (250, 8_000, 96_000):
        view = open_card(write(tmp_path, input=WAVEFORM | {"sample_rate": rate})).card.input.view
        assert view.sample_rate == rate
        assert view.f_max == min(16_000, rate / 2)
