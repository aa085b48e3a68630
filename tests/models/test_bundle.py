"""What a bundle says of itself: written, read, and refused where it is absent, damaged or too new."""

import json

import pytest
from pydantic import ValidationError

from helpers.bundles import LABELS, MEL, MEL_32K, make_ensemble_info, make_info
from spectag.audio.front_end import FrontEnd
from spectag.config.base import ImageConfig
from spectag.data.labels import LabelSet
from spectag.errors import BundleError
from spectag.models.bundle import INFO_FILE, BundleInfo, read_info, write_info
from spectag.models.model_card import model_card

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
def test_bundle_info_survives_its_file(tmp_path, info):
    write_info(tmp_path, info)
    assert read_info(tmp_path) == info
    assert read_info(str(tmp_path)).label_set == LabelSet(info.labels)


def test_labels_are_written_for_people_to_read(tmp_path):
    write_info(tmp_path, make_info(labels=("Tür", "鳥", "low")))
    assert '"鳥"' in (tmp_path / INFO_FILE).read_text(encoding="utf-8")


def test_folder_that_is_no_tagger_is_told(tmp_path):
    (tmp_path / "a.wav").touch()
    for place in (tmp_path, tmp_path / "gone", tmp_path / "a.wav"):
        with pytest.raises(BundleError, match=rf"{place}: not a tagger: it has no spectag\.json; .*`spectag train -o`"):
            read_info(place)


@pytest.mark.parametrize("content", [b"", b"{", b'{"labels": "\xe4"}'])
def test_file_that_is_no_json_is_told(bundle, content):
    (bundle / INFO_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=r"spectag\.json: can't be read: "):
        read_info(bundle)


def test_later_format_is_told_with_what_to_do(bundle):
    change(bundle, format_version=2, labels="of another shape")
    with pytest.raises(
        BundleError, match="format version 2, but this spectag reads version 1; update spectag, or train"
    ):
        read_info(bundle)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '"spectag"'])
def test_json_of_something_else_is_told(bundle, content):
    (bundle / INFO_FILE).write_text(content)
    with pytest.raises(BundleError, match="format version None, but this spectag reads version 1"):
        read_info(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"onnx_difference": "small"}, "damaged at onnx_difference: .*valid number"),
        ({"labels": ["low", 3, "high"]}, r"damaged at labels\.1: .*valid string"),
        ({"front_end": {"mel": {"n_mels": 0}}}, r"damaged at front_end\.mel\.n_mels: .*greater than 0"),
        ({"surprise": 1}, "damaged at surprise: "),
        ({"thresholds": [0.5, 0.5]}, r"damaged: need labels, .* got 3 labels \(3 different\), 2 thresholds"),
        ({"labels": ["low", "high", "low"]}, r"damaged: .* got 3 labels \(2 different\)"),
        ({"labels": [], "thresholds": [], "thresholds_fitted": []}, "damaged: .* got 0 labels"),
    ],
)
def test_damage_is_told_with_its_place(bundle, changes, message):
    change(bundle, **changes)
    with pytest.raises(BundleError, match=rf"spectag\.json: {message}"):
        read_info(bundle)


def test_a_single_network_is_written_as_it_was_before_there_were_several(bundle):
    assert not {"members", "bias"} & set(json.loads((bundle / INFO_FILE).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"members": []}, "damaged: a bias of -0.125 belongs to several members, and there are none"),
        ({"members": slice(1)}, "damaged: need two members or more, each in a folder of its own, got 1 in 1"),
        ({"folder": "members/2"}, "damaged: need two members or more, each in a folder of its own, got 2 in 1"),
        ({"folder": "../elsewhere"}, r"damaged at members\.0\.folder: .*pattern"),
        ({"folder": "members/1/.."}, r"damaged at members\.0\.folder: .*pattern"),
        ({"weight": float("nan")}, r"damaged at members\.0\.weight: .*finite number"),
        ({"front_end": {"mel": {"n_mels": 7}}}, "damaged: front_end and backbone are not those of the first member"),
    ],
)
def test_damaged_members_are_told(tmp_path, members, message):
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


def test_missing_field_is_told(bundle):
    values = json.loads((bundle / INFO_FILE).read_text())
    del values["thresholds"]
    (bundle / INFO_FILE).write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"damaged at thresholds: Field required"):
        read_info(bundle)


def test_threshold_is_a_number():
    with pytest.raises(ValidationError, match="finite number"):
        make_info(thresholds=(0.5, float("nan"), 0.5))


def test_info_of_a_bundle_is_complete_without_the_defaults():
    assert BundleInfo.model_validate(make_info().model_dump()).window.max_clip_seconds == 60


def test_card_tells_scores_labels_and_licence():
    card = model_card(make_info(metrics=SCORES), "vögel")
    assert "# vögel" in card
    assert "lwlrap 0.910 (95 % interval 0.850 to 0.960)" in card
    assert "top-1 accuracy 0.800" in card
    assert "| low | 1 | 0.50 |" in card
    assert "| high | 1 | 0.60 (not fitted) |" in card
    assert "licence none" in card


def test_card_lists_the_networks_and_their_weights():
    card = model_card(ENSEMBLE, "model")
    assert "2 networks that answer together: their logits, each times its weight, and -0.125 are added up." in card
    assert "members/1, weight 0.625: by hand, pretrained on nothing, licence none" in card
    assert "members/2, weight 0.250: by hand" in card


def test_card_of_a_tagger_that_was_not_tried_says_so():
    assert "No clips were held out, so nobody knows." in model_card(make_info(), "model")


def test_card_keeps_its_table_whole_whatever_labels_are_called():
    card = model_card(make_info(labels=("a|b", *LABELS[1:])), "model")
    assert "| a&#124;b | 1 | 0.50 |" in card


def test_card_leaves_out_accuracy_where_clips_have_several_labels():
    assert "accuracy" not in model_card(make_info(metrics=SCORES | {"top1_accuracy": None}), "model")
