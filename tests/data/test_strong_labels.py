"""Annotations that overlap, and the time between them."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.files import write_audio
from spectag.config.data_options import DataOptions
from spectag.data.clips import Clip
from spectag.data.manifest import read_manifest
from spectag.data.split_manifest import split, write_split
from spectag.data.strong_labels import AUDIBLE_SECONDS, clips_between, join_annotations
from spectag.errors import DataError
from spectag.training.pipeline import read_training_data

SOUND = Path("day.wav")


def annotation(start, end, *labels, path=SOUND):
    return Clip(path, path.name, labels, start_seconds=start, end_seconds=end)


def summary(clips):
    return [(clip.start_seconds, clip.end_seconds, sorted(clip.labels), sorted(clip.unknown)) for clip in clips]


def test_overlapping_annotations_have_the_labels_of_both():
    joined = join_annotations([annotation(0, 10, "Rain"), annotation(2, 3, "Dog"), annotation(12, 13, "Cat")])
    assert summary(joined) == [(0, 10, ["Dog", "Rain"], []), (2, 3, ["Dog", "Rain"], []), (12, 13, ["Cat"], [])]


def test_an_overlap_that_is_too_short_to_hear_makes_a_label_unknown():
    joined = join_annotations([annotation(0, 5, "Rain"), annotation(4.9, 9, "Dog"), annotation(8.7, 12, "Cat")])
    assert summary(joined) == [
        (0, 5, ["Rain"], ["Dog"]),
        (4.9, 9, ["Cat", "Dog"], ["Rain"]),  # 0.3 s of the cat are enough
        (8.7, 12, ["Cat", "Dog"], []),
    ]


def test_a_sound_shorter_than_the_limit_is_audible_if_half_of_it_overlaps():
    click = annotation(4.95, 5.05, "Click")
    assert summary(join_annotations([annotation(0, 5, "Rain"), click])) == [
        (0, 5, ["Click", "Rain"], []),
        (4.95, 5.05, ["Click", "Rain"], []),
    ]


def test_annotations_that_only_touch_do_not_overlap():
    joined = join_annotations([annotation(0, 1.0005, "Dog"), annotation(1, 2, "Cat")])  # rounded by the program
    assert summary(joined) == [(0, 1.0005, ["Dog"], []), (1, 2, ["Cat"], [])]


def test_annotations_of_different_files_do_not_overlap():
    joined = join_annotations([annotation(0, 5, "Dog"), annotation(0, 5, "Cat", path=Path("night.wav"))])
    assert [clip.labels for clip in joined] == [("Dog",), ("Cat",)]


def test_annotations_of_one_segment_are_one_clip():
    joined = join_annotations([annotation(0, 5, "Dog"), annotation(0, 5, "Cat"), annotation(0, 5, "Dog")])
    assert [clip.labels for clip in joined] == [("Dog", "Cat")]


def test_a_label_that_is_unknown_in_a_sound_is_unknown_in_what_overlaps_it():
    doubtful = Clip(SOUND, SOUND.name, ("Rain",), start_seconds=0, end_seconds=5, unknown=("Frog",))
    joined = join_annotations([doubtful, annotation(2, 3, "Dog"), annotation(4, 9, "Frog")])
    assert summary(joined) == [
        (0, 5, ["Dog", "Frog", "Rain"], []),
        (2, 3, ["Dog", "Rain"], ["Frog"]),
        (4, 9, ["Frog", "Rain"], []),
    ]


def test_thousands_of_sounds_at_one_moment_are_joined_in_seconds():
    annotations = [annotation(number / 1000, 60 + number / 1000, f"Label {number % 20}") for number in range(10_000)]
    begin = time.process_time()
    joined = join_annotations(annotations)
    assert time.process_time() - begin < 10  # comparing all pairs takes minutes
    assert {len(clip.labels) for clip in joined} == {20}


segments = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20), st.sampled_from("ABC")), min_size=1, max_size=12
).map(lambda items: [annotation(start / 4, (start + length) / 4, label) for start, length, label in items])


@given(segments)
def test_no_label_is_absent_from_a_segment_that_its_annotation_overlaps(annotations):
    joined = join_annotations(annotations)
    assert {(clip.start_seconds, clip.end_seconds) for clip in joined} == {
        (clip.start_seconds, clip.end_seconds) for clip in annotations
    }
    for clip in joined:
        overlaps = {}
        for other in annotations:
            [label] = other.labels
            overlap = min(clip.end_seconds, other.end_seconds) - max(clip.start_seconds, other.start_seconds)
            overlaps[label] = max(overlaps.get(label, 0.0), overlap)
        assert set(clip.labels) == {label for label, seconds in overlaps.items() if seconds >= AUDIBLE_SECONDS}
        assert not set(clip.labels) & set(clip.unknown)


# ------------------------------------------------------------------------------- the time between annotations


@pytest.fixture
def day(tmp_path):
    """A recording of 60 s."""
    write_audio(tmp_path / "day.wav", np.zeros(60 * 800, np.float32), 800)
    return tmp_path / "day.wav"


def test_gaps_become_clips_as_long_as_the_median_annotation(day):
    annotations = [annotation(start, start + 10, "Dog", path=day) for start in (5, 20, 45)]
    gaps = clips_between(annotations)  # free: 0 to 5, 15 to 20, 30 to 45, 55 to 60
    assert [(clip.start_seconds, clip.end_seconds) for clip in gaps] == [(32.5, 42.5)]
    assert gaps[0].labels == gaps[0].unknown == ()
    assert gaps[0].line is None


def test_there_are_at_most_as_many_gaps_as_annotations_and_all_over_the_file(day):
    annotations = [annotation(start, start + 1, "Dog", path=day) for start in (0, 30, 59)]
    gaps = clips_between(annotations)
    assert [clip.start_seconds for clip in gaps] == [1, 29, 58]  # of 57 free windows


def test_annotations_after_the_end_of_their_file_do_not_change_the_gaps(day):
    annotations = [annotation(start, start + 10, "Dog", path=day) for start in (5, 20, 45)]
    late = [annotation(start, start + 1, "Dog", path=day) for start in (80, 90, 100, 110)]
    assert summary(clips_between(annotations + late)) == summary(clips_between(annotations)) == [(32.5, 42.5, [], [])]


def test_a_file_that_cannot_be_read_has_no_gaps(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")
    assert clips_between([annotation(5, 6, "Dog", path=tmp_path / "bad.wav")]) == []


@given(segments)
def test_gaps_do_not_overlap_annotations_or_each_other(tmp_path_factory, annotations):
    path = tmp_path_factory.getbasetemp() / "gaps.wav"
    if not path.exists():
        write_audio(path, np.zeros(30 * 800, np.float32), 800)
    annotations = [annotation(clip.start_seconds, clip.end_seconds, *clip.labels, path=path) for clip in annotations]
    gaps = clips_between(annotations)
    assert len(gaps) <= len(annotations)
    for gap in gaps:
        assert 0 <= gap.start_seconds < gap.end_seconds <= 30.0005
        for clip in annotations:
            overlap = min(gap.end_seconds, clip.end_seconds) - max(gap.start_seconds, clip.start_seconds)
            assert overlap < 0.0015  # times are rounded to milliseconds
    for first, second in pairwise(gaps):
        assert first.end_seconds <= second.start_seconds + 0.0015


# ------------------------------------------------------------------------------------------------- tables

RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tAnnotation\n{}"


@pytest.fixture(params=["raven", "audacity", "dcase", "opensoundscape", "semicolons", "fname"])
def table(request, day):
    """The same three annotations in every format: two overlap."""
    sounds = [(0.5, 10.5, "Rain"), (2, 3, "Dog"), (20, 21, "Cat")]
    rows = [f"day.wav,{start},{end},{label}" for start, end, label in sounds]
    if request.param == "raven":
        lines = [f"{n}\tSpectrogram 1\t1\t{begin}\t{end}\t{label}" for n, (begin, end, label) in enumerate(sounds, 1)]
        path, text = day.with_suffix(".txt"), RAVEN.format("\n".join(lines))
    elif request.param == "audacity":
        path, text = day.with_suffix(".txt"), "\n".join(f"{begin}\t{end}\t{label}" for begin, end, label in sounds)
    elif request.param == "dcase":
        lines = ["filename\tonset\toffset\tevent_label", *(row.replace(",", "\t") for row in rows)]
        path, text = day.with_name("strong.tsv"), "\n".join(lines)
    elif request.param == "semicolons":
        lines = ["audio_file;start_time;end_time;annotation", *(row.replace(",", ";") for row in rows)]
        path, text = day.with_name("boxes.csv"), "\n".join(lines)
    elif request.param == "opensoundscape":
        lines = [f"{row},day.txt" for row in rows]
        path, text = (
            day.with_name("boxes.csv"),
            "\n".join(["audio_file,start_time,end_time,annotation,annotation_file", *lines]),
        )
    else:
        path, text = day.with_name("events.csv"), "\n".join(["fname,start,end,event_label", *rows])
    path.write_text(text)
    return path


def test_overlapping_annotations_of_a_table_are_joined(table):
    manifest = read_manifest(table)
    assert summary(manifest.clips) == [
        (0.5, 10.5, ["Dog", "Rain"], []),
        (2, 3, ["Dog", "Rain"], []),
        (20, 21, ["Cat"], []),
    ]
    assert manifest.labels.names == ("Cat", "Dog", "Rain")


def test_complete_annotations_give_negatives_between_them(table):
    manifest = read_manifest(table, complete_annotations=True)
    assert len(manifest.clips) == 6
    gaps = manifest.clips[3:]
    assert {(clip.labels, clip.end_seconds - clip.start_seconds) for clip in gaps} == {((), 1.0)}
    assert [clip.start_seconds >= 10.5 for clip in gaps] == [True] * 3
    assert len(set(manifest.groups)) == 1
    assert not manifest.multi_hot()[3:].any()


def test_training_uses_the_time_between_annotations_only_if_they_are_complete(table):
    manifest, _ = read_training_data(table, DataOptions())
    complete, _ = read_training_data(table, DataOptions(complete_annotations=True))
    assert (len(manifest.clips), len(complete.clips)) == (3, 6)


def test_a_split_of_annotations_has_the_joined_labels(table, tmp_path):
    manifest = read_manifest(table)
    out = tmp_path / "split.csv"
    write_split(out, split(table, test_size=0.4, seed=0))
    assert summary(read_manifest(out).clips) == summary(manifest.clips)


def test_clips_of_a_table_without_annotations_cannot_be_complete(day):
    table = day.with_name("clips.csv")
    table.write_text("fname,labels,start,end\nday.wav,Dog,0,5\nday.wav,,2.5,7.5\n")
    assert [clip.labels for clip in read_manifest(table).clips] == [("Dog",), ()]  # windows that are labelled fully
    with pytest.raises(DataError, match=r"clips\.csv: the clips are not annotations.*event_label"):
        read_manifest(table, complete_annotations=True)
