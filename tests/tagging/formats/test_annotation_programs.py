"""Layers of Sonic Visualiser, tasks of Label Studio, and predictions of soundevent."""

import io
import json
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from helpers.file_events import (
    FILE_NAMES,
    MULTILINE_LABELS,
    TRICKY_LABELS,
    UNDECODABLE_NAME,
    make_image,
    make_recording,
    make_recording_with_labels,
    write_folder,
)
from spectag.audio.files import write_audio
from spectag.errors import AudioError, DataError
from spectag.system.output import one_line
from spectag.system.paths import common_folder
from spectag.tagging.formats.label_studio import write_label_studio
from spectag.tagging.formats.sonic_visualiser import write_sonic_visualiser
from spectag.tagging.formats.soundevent import write_soundevent

pytestmark = pytest.mark.filterwarnings("ignore:Accessing 'version' directly")  # in soundevent itself
RATE = 8000
EVENTS = ((0.25, 1.0, "Dog", 0.75), (0.5, 2.0, "Cat", 0.5), (1.5, 2.5, "Dog", 0.875))


@pytest.fixture
def sound(tmp_path):
    write_audio(tmp_path / "a.wav", np.full(4 * RATE, 0.1, np.float32), RATE)
    return tmp_path / "a.wav"


def layer_of(file):
    out = io.StringIO(newline="")
    write_sonic_visualiser(file, out)
    return ElementTree.fromstring(out.getvalue().encode())


def test_a_layer_has_a_region_in_frames_for_each_event(sound):
    root = layer_of(make_recording(sound, *EVENTS))
    points = [dict(point.attrib) for point in root.iter("point")]
    assert points == [
        {"frame": "2000", "value": "2", "duration": "6000", "label": "Dog"},
        {"frame": "4000", "value": "1", "duration": "12000", "label": "Cat"},
        {"frame": "12000", "value": "2", "duration": "8000", "label": "Dog"},
    ]
    model, dataset, layer = (root.find(f".//{name}") for name in ("model", "dataset", "layer"))
    assert (model.get("sampleRate"), model.get("type"), model.get("subtype")) == ("8000", "sparse", "region")
    assert model.get("dataset") == dataset.get("id")
    assert (layer.get("type"), layer.get("model")) == ("regions", model.get("id"))


def test_any_label_is_read_from_a_layer(sound):
    labels = (*TRICKY_LABELS, *MULTILINE_LABELS, "<b>&amp;", "x\ufffey", "a\x1fb")
    points = layer_of(make_recording_with_labels(*labels, file=str(sound))).iter("point")
    assert [point.get("label") for point in points] == [one_line(label).replace("\ufffe", "\ufffd") for label in labels]


def test_a_folder_gets_a_layer_for_each_recording(sound):
    write_folder("sonic-visualiser", [make_recording(sound, *EVENTS)], sound.parent / "out")
    assert (sound.parent / "out" / "a.svl").is_file()


def test_a_recording_that_is_gone_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav"):
        layer_of(make_recording(tmp_path / "gone.wav"))


# ------------------------------------------------------------------------------------------------ Label Studio


def tasks_of(*files):
    out = io.StringIO(newline="")
    write_label_studio(files, out, root=common_folder(file.file for file in files))
    return json.loads(out.getvalue())


def test_a_task_has_the_regions_of_its_recording():
    [task, empty] = tasks_of(make_recording("/rec/x/a.wav", *EVENTS[:2], duration=4.0), make_recording("/rec/b.wav"))
    assert task["data"]["audio"] == "/data/local-files/?d=x/a.wav"
    [prediction] = task["predictions"]
    assert prediction["score"] == 0.625
    assert prediction["result"][0] == {
        "id": "1",
        "from_name": "label",
        "to_name": "audio",
        "type": "labels",
        "original_length": 4.0,
        "value": {"start": 0.25, "end": 1.0, "channel": 0, "labels": ["Dog"]},
        "score": 0.75,
    }
    assert empty["predictions"][0]["result"] == []


def test_any_name_and_label_is_read_from_a_task(tmp_path):
    labels = (*TRICKY_LABELS, *MULTILINE_LABELS)
    names = (*FILE_NAMES, "50 % & more#1?.wav", "Grüße +.wav")
    tasks = tasks_of(*(make_recording_with_labels(*labels, file=str(tmp_path / name)) for name in names))
    for task, name in zip(tasks, names, strict=True):
        address, _, query = task["data"]["audio"].partition("?d=")
        assert (address, unquote(query)) == ("/data/local-files/", name)
        assert not set(query) & set("&#?+ ")
        assert [result["value"]["labels"][0] for result in task["predictions"][0]["result"]] == list(labels)


def test_the_recording_of_a_task_may_be_a_url():
    assert tasks_of(make_recording("s3://bucket/a b.wav"))[0]["data"]["audio"] == "s3://bucket/a b.wav"


def test_label_studio_has_no_times_for_images():
    with pytest.raises(DataError, match=r"a\.png: an image has no times"):
        tasks_of(make_image("a.png", ("Dog", 0.5)))


# ------------------------------------------------------------------------------------------------ soundevent


def write_run(path, *files):
    with path.open("w", encoding="utf-8", newline="") as out:
        write_soundevent(files, out)
    return path


def test_soundevent_reads_the_events_with_their_scores(sound):
    io_of_soundevent = pytest.importorskip("soundevent.io")
    other = sound.with_name("b.wav")
    write_audio(other, np.full(2 * RATE, 0.1, np.float32), RATE)
    path = write_run(sound.parent / "run.json", make_recording(sound, *EVENTS), make_recording(other))
    run = io_of_soundevent.load(path, type="model_run")
    first, second = run.clip_predictions
    recording = first.clip.recording
    assert (recording.path, recording.samplerate, recording.channels, recording.duration) == (sound, RATE, 1, 4.0)
    found = [
        (*event.sound_event.geometry.coordinates, event.tags[0].tag.value, event.score) for event in first.sound_events
    ]
    assert found == list(EVENTS)
    assert {(tag.tag.term.name, tag.tag.value): tag.score for tag in first.tags} == {
        ("event", "Dog"): 0.875,
        ("event", "Cat"): 0.5,
    }
    assert (second.clip.recording.path, second.clip.end_time, second.sound_events) == (other, 2.0, [])


def test_soundevent_reads_any_name_and_label(tmp_path):
    io_of_soundevent = pytest.importorskip("soundevent.io")
    labels = (*TRICKY_LABELS, *MULTILINE_LABELS)
    names = [name for name in FILE_NAMES if name.isprintable()]
    for name in names:
        write_audio(tmp_path / name, np.full(20 * RATE, 0.1, np.float32), RATE)
    files = [make_recording_with_labels(*labels, file=str(tmp_path / name)) for name in names]
    run = io_of_soundevent.load(write_run(tmp_path / "run.json", *files))
    assert [clip.clip.recording.path.name for clip in run.clip_predictions] == names
    assert [event.tags[0].tag.value for event in run.clip_predictions[0].sound_events] == list(labels)


def test_the_same_results_give_the_same_file_and_others_another_run(sound):
    first, again = (write_run(sound.parent / name, make_recording(sound, *EVENTS)) for name in ("1.json", "2.json"))
    other = write_run(sound.parent / "3.json", make_recording(sound, *EVENTS[:2]))
    assert first.read_bytes() == again.read_bytes()
    assert json.loads(first.read_text())["data"]["uuid"] != json.loads(other.read_text())["data"]["uuid"]


def test_a_name_that_is_not_unicode_is_written(tmp_path):
    path = tmp_path / UNDECODABLE_NAME
    write_audio(tmp_path / "a.wav", np.full(RATE, 0.1, np.float32), RATE)
    try:
        (tmp_path / "a.wav").rename(path)
    except OSError:
        pytest.skip("the file system has only Unicode names")
    run = json.loads(write_run(tmp_path / "run.json", make_recording(path)).read_text("utf-8"))
    assert "udce9" in run["data"]["recordings"][0]["path"]
