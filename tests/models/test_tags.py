"""What Python users get: tags and segments that can be iterated, indexed by label, printed and turned into tables."""

import sys
from dataclasses import replace

import numpy as np
import pandas
import polars
import pytest

from helpers.bundles import LABELS, make_bundle, tone
from spectag.audio.files import write_audio
from spectag.data.labels import LabelSet
from spectag.errors import DataError, MissingExtraError
from spectag.models.tagger import Tagger
from spectag.models.tags import Detection, Segments, Tag, Tags
from spectag.models.timeline import Timeline

RATE = 16_000


def make_tags(*probabilities, path="a.wav", names="abcdefgh"):
    labels = LabelSet(tuple(names[: len(probabilities)]))
    thresholds = np.full(len(probabilities), 0.5, np.float32)
    return Tags(path, 0.0, 2.5, labels, np.array(probabilities, np.float32), thresholds)


def make_segments(*detections, n_labels=6):
    timeline = Timeline(np.array([0.0, 1.0]), np.array([1.0, 2.0]), np.zeros((2, n_labels), np.float32))
    detections = tuple(Detection(*values) for values in detections)
    return Segments("a.wav", LabelSet(tuple("abcdef"[:n_labels])), detections, timeline, "a.wav")


@pytest.fixture
def tags():
    return make_tags(0.25, 0.75, 0.125, 0.875)


def test_detected_labels_are_the_items_most_probable_first(tags):
    assert list(tags) == [("d", 0.875), ("b", 0.75)] == tags.above_threshold()
    assert len(tags) == 2
    assert [label for label, _ in tags] == ["d", "b"]
    assert tags[0] == Tag("d", 0.875)
    assert tags[-1].label == "b"
    assert tags[:1] == [Tag("d", 0.875)]
    assert dict(tags) == {"d": 0.875, "b": 0.75}


def test_membership_means_detected(tags):
    assert "b" in tags
    assert Tag("b", 0.75) in tags
    assert "a" not in tags  # known, but below its threshold
    assert "x" not in tags


def test_nothing_detected_is_false():
    assert not make_tags(0.25, 0.125)
    assert make_tags(0.25, 0.75)


def test_label_gives_its_probability_also_below_the_threshold(tags):
    assert tags["a"] == 0.25
    with pytest.raises(DataError, match="unknown label 'A'"):
        _ = tags["A"]


def test_dictionary_has_every_label(tags):
    assert list(tags.to_dict().items()) == [("d", 0.875), ("b", 0.75), ("a", 0.25), ("c", 0.125)]


def test_dataframe_has_a_row_for_every_label(tags):
    table = tags.to_dataframe()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["label", "probability", "threshold", "detected"]
    assert table.label.tolist() == ["d", "b", "a", "c"]
    assert table.detected.tolist() == [True, True, False, False]
    assert polars.from_dataframe(table).shape == (4, 4)


def test_dataframe_is_of_polars_if_only_that_is_installed(tags, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert isinstance(tags.to_dataframe(), polars.DataFrame)
    assert isinstance(make_segments(("a", 0.0, 1.0, 0.75)).to_dataframe(), polars.DataFrame)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(
        MissingExtraError, match=r"a DataFrame needs the package pandas: pip install 'spectag\[pandas\]'"
    ):
        tags.to_dataframe()


@pytest.mark.parametrize(
    ("tags", "text"),
    [
        (make_tags(0.25, 0.75, 0.875), "Tags(a.wav, 0 to 2.5 s: c 0.88, b 0.75)"),
        (make_tags(*[0.75] * 5), "Tags(a.wav, 0 to 2.5 s: a 0.75, b 0.75, c 0.75, and 2 more)"),
        (make_tags(0.25, 0.125), "Tags(a.wav, 0 to 2.5 s: no label detected; most probable: a 0.25)"),
    ],
)
def test_text_of_tags_is_one_line(tags, text):
    assert repr(tags) == text


def test_segments_are_items_in_order_and_by_label():
    segments = make_segments(("a", 0.0, 1.0, 0.75), ("b", 0.5, 2.0, 0.5), ("a", 1.5, 2.0, 0.875))
    assert len(segments) == 3
    assert [(label, start) for label, start, _, _ in segments] == [("a", 0.0), ("b", 0.5), ("a", 1.5)]
    assert segments["a"] == [segments[0], segments[2]]
    assert segments["c"] == []
    assert "a" in segments
    assert "c" not in segments
    assert {label: len(of_label) for label, of_label in segments.to_dict().items()} == {"a": 2, "b": 1}
    assert repr(segments) == "Segments(a.wav, 0 to 2 s: a 2, b 1)"
    with pytest.raises(DataError, match="unknown label 'Dog'"):
        _ = segments["Dog"]


def test_segments_without_detections_keep_their_columns():
    segments = make_segments()
    assert not segments
    assert repr(segments) == "Segments(a.wav, 0 to 2 s: no label detected)"
    assert list(segments.to_dataframe().columns) == ["file", "start", "end", "label", "probability"]


def test_segments_have_the_lowest_novelty_of_their_windows_as_in_the_table():
    segments = make_segments(("a", 0.0, 1.0, 0.75), ("b", 0.0, 2.0, 0.5), ("a", 1.0, 2.0, 0.875))
    timeline = replace(segments.timeline, novelty=np.array([1.5, 0.25], np.float32))
    table = replace(segments, timeline=timeline).to_dataframe()
    assert list(table.columns)[-2:] == ["probability", "novelty"]
    assert list(table["novelty"]) == [1.5, 0.25, 0.25]


def test_notebook_shows_the_spectrogram_and_the_labels(tmp_path):
    model = Tagger(make_bundle(tmp_path / "model"))
    write_audio(tmp_path / "<b>.wav", tone("middle", 1.0), RATE)
    for tags in (model.tag(tmp_path / "<b>.wav"), model.tag(tone("middle", 1.0), RATE)):
        html = tags._repr_html_()
        assert '<img src="data:image/jpeg;base64,' in html
        assert "0 to 1 s, 0 to 8 kHz" in html
        assert all(label in html for label in LABELS)
        assert html.count("✓") == len(tags) == 1
        assert "<b>.wav" not in html
        assert len(html) < 30_000


def test_notebook_shows_why_there_is_no_spectrogram(tmp_path):
    model = Tagger(make_bundle(tmp_path / "model"))
    write_audio(tmp_path / "a.wav", tone("middle", 1.0), RATE)
    tags = model.tag(tmp_path / "a.wav")
    (tmp_path / "a.wav").unlink()
    assert "can&#x27;t read the sound: No such file" in tags._repr_html_()
    assert "middle" in tags._repr_html_()
