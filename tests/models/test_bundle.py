import json

import pytest
from pydantic import ValidationError

from helpers.bundles import LABELS, MEL, MEL_32K, make_ensemble_info, make_info
from helpers.frames import make_frames_info
from spectag.audio.front_end import FrontEnd
from spectag.config.base import ImageConfig
from spectag.data.labels import LabelSet
from spectag.errors import BundleError
from spectag.models import versioned_json
from spectag.models.bundle import INFO_FILE, BundleInfo, DataInfo, WindowThresholds, read_info, write_info
from spectag.models.model_card import render_card

SCORES = {
    "n_clips": 40,
    "lwlrap": 0.91,
    "mean_average_precision": 0.875,
    "top1_accuracy": 0.8,
    "intervals": {"lwlrap": [0.85, 0.96]},
}


ENSEMBLE = make_ensemble_info((FrontEnd(mel=MEL), FrontEnd(mel=MEL_32K)), (0.625, 0.25), bias=-0.125)


@pytest.fixture
def bundle(tmp_path):
    write_info(tmp_path, make_info())
    return tmp_path


def change(bundle, **changes):
    path = bundle / INFO_FILE
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


@pytest.mark.parametrize(
    "info",
    [
        make_info(),
        make_info(labels=("Tür", "鳥", "a|b, c"), metrics=SCORES),
        make_info(front_end=FrontEnd(mel=MEL, image=ImageConfig(colormap="magma"))),
        make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=224, width=224))),
        ENSEMBLE,
    ],
)
def test_info_is_read_as_it_was_written(tmp_path, info):
    write_info(tmp_path, info)
    assert read_info(tmp_path) == info
    assert read_info(str(tmp_path)).label_set == LabelSet(info.labels)


def test_labels_are_written_without_escapes(tmp_path):
    write_info(tmp_path, make_info(labels=("Tür", "鳥", "low")))
    assert '"鳥"' in (tmp_path / INFO_FILE).read_text(encoding="utf-8")


def test_folder_without_a_tagger_is_an_error(tmp_path):
    (tmp_path / "a.wav").touch()
    for path in (tmp_path, tmp_path / "gone", tmp_path / "a.wav"):
        with pytest.raises(BundleError, match=rf"{path}: not a tagger: no file spectag\.json; .*`spectag train -o`"):
            read_info(path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"labels": "\xe4"}'])
def test_invalid_json_is_an_error(bundle, content):
    (bundle / INFO_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"spectag\.json: cannot be read: "):
        read_info(bundle)


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (1, "run spectag upgrade .* --in-place, or train the tagger again with.*"),
        (0, "train the tagger again with.*"),
        (3, "update spectag"),
    ],
)
def test_other_format_version_is_an_error_that_states_what_to_do(bundle, version, advice):
    change(bundle, format_version=version, labels="in another form")
    message = f"format version {version}, but this version of spectag reads version 2; {advice}$"
    with pytest.raises(BundleError, match=message):
        read_info(bundle)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '"spectag"'])
def test_other_json_is_an_error(bundle, content):
    (bundle / INFO_FILE).write_text(content)
    with pytest.raises(BundleError, match="format version None, but this version of spectag reads version 2; train"):
        read_info(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onnx_difference": "small"}, "damaged at onnx_difference: .*valid number"),
        ({"labels": ["low", 3, "high"]}, r"damaged at labels\.1: .*valid string"),
        ({"front_end": {"mel": {"n_mels": 0}}}, r"damaged at front_end\.mel\.n_mels: .*greater than 0"),
        ({"surprise": 1}, "damaged at surprise: "),
        ({"thresholds": [0.5, 0.5]}, r"damaged: need unique labels, .* got 3 labels \(3 different\), 2 thresholds"),
        ({"labels": ["low", "high", "low"]}, r"damaged: .* got 3 labels \(2 different\)"),
        ({"labels": [], "thresholds": [], "thresholds_fitted": []}, "damaged: .* got 0 labels"),
    ],
)
def test_damage_is_an_error_that_names_the_field(bundle, changes, message):
    change(bundle, **changes)
    with pytest.raises(BundleError, match=rf"spectag\.json: {message}"):
        read_info(bundle)


def test_info_of_a_single_network_has_no_members(bundle):
    assert not {"members", "bias"} & set(json.loads((bundle / INFO_FILE).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"members": []}, "damaged: only an ensemble may have a bias, got -0.125 without members"),
        ({"members": slice(1)}, "damaged: need two or more members in different folders, got 1 in 1"),
        ({"folder": "members/2"}, "damaged: need two or more members in different folders, got 2 in 1"),
        ({"folder": "../elsewhere"}, r"damaged at members\.0\.folder: .*pattern"),
        ({"folder": "members/1/.."}, r"damaged at members\.0\.folder: .*pattern"),
        ({"weight": float("nan")}, "cannot be read: NaN is not a number of JSON"),
        ({"front_end": {"mel": {"n_mels": 7}}}, "damaged: front_end and backbone must be those of the first member"),
    ],
)
def test_invalid_members_are_an_error(tmp_path, members, message):
    write_info(tmp_path, ENSEMBLE)
    values = json.loads((tmp_path / INFO_FILE).read_text(encoding="utf-8"))
    if "members" in members:
        kept = members["members"]
        values["members"] = values["members"][kept] if isinstance(kept, slice) else kept
    else:
        values["members"][0] |= members
    (tmp_path / INFO_FILE).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(BundleError, match=rf"spectag\.json: {message}"):
        read_info(tmp_path)


def test_missing_field_is_an_error(bundle):
    values = json.loads((bundle / INFO_FILE).read_text())
    del values["thresholds"]
    (bundle / INFO_FILE).write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"damaged at thresholds: Field required"):
        read_info(bundle)


def test_threshold_must_be_a_number():
    with pytest.raises(ValidationError, match="finite number"):
        make_info(thresholds=(0.5, float("nan"), 0.5))


def test_missing_settings_get_their_defaults():
    assert BundleInfo.model_validate(make_info().model_dump()).window.max_clip_seconds == 60


def test_card_contains_scores_labels_and_licence():
    card = render_card(make_info(metrics=SCORES), "vögel")
    assert "# vögel" in card
    assert "lwlrap 0.910 (95 % interval 0.850 to 0.960)" in card
    assert "top-1 accuracy 0.800" in card
    assert "| low | 1 | 0.50 |" in card
    assert "| high | 1 | 0.60 (not fitted) |" in card
    assert "licence none" in card


@pytest.mark.parametrize(
    ("name", "stored"), [("dogs\udcff.csv", "dogs\\udcff.csv"), ("a\x1b[2J.csv", "a [2J.csv"), ("a\tb.csv", "a b.csv")]
)
def test_any_name_of_a_manifest_can_be_stored(tmp_path, name, stored):
    data = DataInfo(name=name, n_clips=None, n_clips_per_label=None, fingerprint=None)
    write_info(tmp_path, make_info().model_copy(update={"data": data}))
    assert read_info(tmp_path).data.name == stored


@pytest.mark.parametrize(("limit", "reason"), [("MAX_JSON_VALUES", "values"), ("MAX_JSON_BYTES", "bytes")])
def test_bundle_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch, limit, reason):
    monkeypatch.setattr(versioned_json, limit, 10)
    with pytest.raises(BundleError, match=rf"spectag.json: cannot be written: it has .* {reason}, .*; train with"):
        write_info(tmp_path, make_info())
    assert list(tmp_path.iterdir()) == []


def test_card_shows_the_thresholds_of_windows_if_there_are_any():
    windows = WindowThresholds(below_seconds=3, thresholds=(0.281, 0.4, 0.3))
    card = render_card(make_info(window_thresholds=windows), "model")
    assert "| label | training clips | threshold | threshold of windows below 3 s |\n|---|---|---|---|\n" in card
    assert "| low | 1 | 0.50 | 0.28 |" in card
    assert "Windows shorter than 3 s, and segments made from them, have thresholds of their own." in card
    assert "indows" not in render_card(make_info(), "model")


def test_card_says_that_segments_are_found_from_frames():
    windows = WindowThresholds(below_seconds=3, thresholds=(0.281, 0.4, 0.3))
    info = make_frames_info(window_thresholds=windows)
    card = render_card(info, "model")
    assert "- Segments in recordings are found from frames of 80 ms, whose network is frames.onnx.\n" in card
    assert "Windows shorter than 3 s, frames, and segments made from them, have thresholds of their own." in card
    assert "rames" not in render_card(info.model_copy(update={"frames": None}), "model")


def test_command_in_the_card_is_quoted():
    assert "\nspectag tag 'mein Modell' recording.wav\n" in render_card(make_info(), "mein Modell")
    assert "\nspectag tag model recording.wav\n" in render_card(make_info(), "model")


def test_card_lists_the_networks_and_their_weights():
    card = render_card(ENSEMBLE, "model")
    assert "An ensemble of 2 networks: the weighted sum of their logits, plus -0.125." in card
    assert "members/1, weight 0.625: by hand, not pretrained, licence none" in card
    assert "members/2, weight 0.250: by hand" in card


def test_card_without_scores_explains_why():
    assert "No clips were held out, so there are no scores." in render_card(make_info(), "model")


def test_card_escapes_labels_in_its_table():
    card = render_card(make_info(labels=("a|b", *LABELS[1:])), "model")
    assert "| a&#124;b | 1 | 0.50 |" in card


def test_card_has_no_accuracy_if_clips_have_several_labels():
    assert "accuracy" not in render_card(make_info(metrics=SCORES | {"top1_accuracy": None}), "model")


def test_card_has_no_interval_for_a_single_recording():
    card = render_card(make_info(metrics=SCORES | {"intervals": {}}), "model")
    assert "- lwlrap 0.910\n" in card
