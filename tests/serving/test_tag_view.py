"""The requests of the Tag view: what it keeps, what it refuses, and that its numbers are those of the command."""

import asyncio
import base64
import csv
import errno
import io
import json
import shutil
import tempfile

import numpy as np
import pytest
from starlette.testclient import TestClient

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import read_audio, write_audio
from spectag.audio.spectrogram_tiles import TileScheme, draw_tile
from spectag.config.base import Config
from spectag.config.serving import ServeSettings
from spectag.config.tagging import SEGMENT_WINDOW
from spectag.serving import create_app, sound_answers
from spectag.serving.answers import AnswerLimits, Question, answer
from spectag.serving.problems import MEDIA_TYPE, ProblemError
from spectag.serving.workers import AnswerWorkers
from spectag.tagging.formats.dispatch import FORMATS
from spectag.tagging.parallel import tag

PORT = 8125
SOUNDS = "/views/tag/sounds"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("models") / "model", make_info())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds") / "=hoch & tief ä.wav"
    write_audio(path, np.concatenate([tone("low", 4.0), 0 * tone("low", 3.0), tone("high", 5.0)]), 16_000)
    return path


def client_of(model, **settings):
    app = create_app(model, ServeSettings(**settings), workers=1, port=PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(model):
    with client_of(model, max_minutes=1.0) as client:
        yield client


def send(client, sound, name=None):
    return client.post(SOUNDS, files={"file": (name or sound.name, sound.read_bytes())})


@pytest.fixture(scope="module")
def sent(client, sound):
    """The answer to a sound that was sent and tagged."""
    answer = send(client, sound).json()
    answer["tagged"] = client.post(f"{SOUNDS}/{answer['id']}/probabilities").json()
    return answer


def assert_problem(answer, status, words):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert words in answer.json()["detail"]


def test_facts_and_probabilities_are_those_of_the_model(sent, model, sound):
    assert (sent["name"], sent["duration"], sent["sample_rate"], sent["channels"]) == (sound.name, 12.0, 16_000, 1)
    tagged = sent["tagged"]
    [file] = tag(model, sound, window=SEGMENT_WINDOW)
    timeline = file.timeline
    sent_labels = [LABELS.index(label) for label in tagged["labels"]]
    values = np.frombuffer(base64.b64decode(tagged["probabilities"]), "<f4").reshape(len(sent_labels), -1)
    np.testing.assert_array_equal(values.T, timeline.probabilities[:, sent_labels])
    np.testing.assert_array_equal(tagged["starts"], timeline.starts)
    np.testing.assert_array_equal(tagged["ends"], timeline.ends)
    assert tagged["thresholds"] == [float(np.float32(make_info().thresholds[index])) for index in sent_labels]


@pytest.mark.parametrize(("level", "index"), [(0, 0), (0, 3), (2, 1)])
def test_tiles_are_bytes_of_the_log_mel(client, sent, sound, level, index):
    for _ in range(2):  # computed, then kept
        answer = client.get(f"{SOUNDS}/{sent['id']}/tiles/{level}/{index}")
        assert answer.content == draw_tile(sound, TileScheme(16_000), level, index).tobytes()


@pytest.mark.parametrize(
    "path", ["99/0", "0/999999", "-1/0", "0/x", "0/٣", "0/" + 400 * "9", 5_000 * "9" + "/0", "0/0/../../../views"]
)
def test_tiles_that_do_not_exist_are_refused(client, sent, path):
    assert client.get(f"{SOUNDS}/{sent['id']}/tiles/{path}").status_code == 404


def test_sound_can_be_played_in_ranges(client, sent, sound):
    whole = client.get(f"{SOUNDS}/{sent['id']}/wav")
    assert whole.headers["content-type"] == "audio/wav"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = client.get(f"{SOUNDS}/{sent['id']}/wav", headers={"range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, whole.content[1000:2000])
    assert part.headers["content-range"] == f"bytes 1000-1999/{len(whole.content)}"
    assert client.get(f"{SOUNDS}/{sent['id']}/wav", headers={"range": "bytes=99999999-"}).status_code == 416
    import soundfile

    played, rate = soundfile.read(io.BytesIO(whole.content), dtype="float32")
    np.testing.assert_allclose(played, read_audio(sound)[0], atol=1e-4)
    assert rate == 16_000


def encoded(template, encoding="utf-8"):
    return base64.b64encode(template.encode(encoding)).decode("ascii")


def table(client, sent, **body):
    return client.post("/views/tag/table", json={"sounds": [sent["id"]], **body})


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, []),
        ({"min_confidence": 0.0002}, ["--min-confidence", "0.0002"]),
        (
            {"min_confidence": 0.0001, "smooth_windows": 5, "min_duration_seconds": 2.0},
            ["--min-confidence", "0.0001", "--smooth-windows", "5", "--min-duration-seconds", "2"],
        ),
    ],
)
def test_tables_are_those_of_the_command(client, sent, model, sound, run, settings, options):
    answer = table(client, sent, format="json", **settings)
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''%3Dhoch%20%26")
    printed = json.loads(run("tag", model, sound, "--segments", "--format", "json", *options).out)
    assert answer.json() == [record | {"file": sound.name} for record in printed]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_a_table_without_a_path_of_the_server(client, sent, sound, name):
    template = f"fname,high,low\n{sound.name},0,0\n" if name == "submission" else ""
    answer = table(client, sent, format=name, min_confidence=0.0001, template=encoded(template))
    assert answer.status_code == 200, answer.text
    assert len(answer.content) > 20
    assert tempfile.gettempdir().encode() not in answer.content
    assert b"page-" not in answer.content


def test_tables_of_whole_sounds_are_those_of_the_command(client, sent, model, sound, run, tmp_path):
    tables = []
    for settings, options in (({}, []), ({"min_confidence": 0.0}, ["--min-confidence", "0"])):
        tables.append(table(client, sent, format="multi-hot", **settings).text)
        printed = run("tag", model, sound, "--format", "multi-hot", *options).out
        assert tables[-1] == printed.replace(str(sound), f"'{sound.name}")
    assert tables[0] != tables[1]
    template = tmp_path / "sample_submission.csv"
    template.write_text(f"fname,middle,low\n{sound.name},0,0\n", encoding="utf-8")
    answer = table(client, sent, format="submission", template=encoded(template.read_text(encoding="utf-8")))
    assert answer.text == run("tag", model, sound, "--template", template).out


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "windows-1252"])
def test_template_may_have_the_encoding_of_a_spreadsheet_program(client, sent, sound, encoding):
    template = encoded(f"fname;low\r\n{sound.name};0\r\n", encoding)
    [row] = csv.DictReader(io.StringIO(table(client, sent, format="submission", template=template).text))
    assert row["fname"] == sound.name


def test_whole_sounds_that_are_removed_meanwhile_or_cannot_be_read_are_named(model, sound, tmp_path):
    good, other = (tmp_path / f"page-{name}" / "sound" for name in "xy")
    for path in (good, other):
        path.parent.mkdir()
    good.write_bytes(sound.read_bytes())
    sounds = ((str(good.parent), "a.wav"), (str(other.parent), "b.wav"))
    query = sound_answers.TableQuery(choice=sound_answers.SegmentChoice(format="multi-hot"), sounds=sounds)
    question = Question(sound_answers.table, good, "a.wav", query)
    assert answer(AnswerLimits(model, None, 60.0), question).status == 410
    other.write_bytes(b"no sound")
    refusal = answer(AnswerLimits(model, None, 60.0), question)
    assert refusal.status == 422
    assert refusal.detail.startswith("b.wav: ")
    assert str(tmp_path) not in refusal.detail


def test_submission_has_the_rows_of_its_template(client, sound):
    keys = [send(client, sound, name).json()["id"] for name in ("a.wav", "b.wav", "c.wav")]
    body = {"sounds": keys, "format": "submission"}

    def submission(template):
        return client.post("/views/tag/table", json={**body, "template": encoded(template)})

    answer = submission("fname;low\r\nc.wav;0\r\na.wav;0\r\nc.wav;0\r\n")
    assert [row["fname"] for row in csv.DictReader(io.StringIO(answer.text))] == ["c.wav", "a.wav", "c.wav"]
    assert answer.headers["content-disposition"].endswith("''submission.csv")
    assert_problem(submission("fname,low\na.wav,0\nd.wav,0\n"), 422, "sample_submission.csv: 1 of its 2 clips are")
    assert_problem(submission("fname,Dog\na.wav,0\n"), 422, "sample_submission.csv, line 1")
    assert_problem(submission("no table"), 422, "sample_submission.csv")
    assert_problem(submission(""), 422, "sample_submission.csv")
    client.delete(f"{SOUNDS}/{keys[2]}")
    assert_problem(submission("fname,low\na.wav,0\n"), 410, "not on the server any more")


def test_names_that_are_formulas_are_escaped_in_tables(client, sent):
    rows = list(csv.DictReader(io.StringIO(table(client, sent, format="csv", min_confidence=0.0001).text)))
    assert rows
    assert all(row["file"].startswith("'=") for row in rows)


def test_table_of_several_sounds_has_all_of_them(client, sent, sound):
    other = send(client, sound, "other.wav").json()
    client.post(f"{SOUNDS}/{other['id']}/probabilities")
    body = {"sounds": [sent["id"], other["id"]], "min_confidence": 0.0001}
    rows = csv.DictReader(io.StringIO(client.post("/views/tag/table", json={"format": "csv", **body}).text))
    assert {row["file"] for row in rows} == {f"'{sound.name}", "other.wav"}
    assert_problem(client.post("/views/tag/table", json={"format": "audacity", **body}), 422, "holds one recording")
    assert client.delete(f"{SOUNDS}/{other['id']}").status_code == 204
    assert_problem(client.post("/views/tag/table", json={"format": "csv", **body}), 410, "not on the server any more")


def test_explanation_is_the_map_of_the_excerpt(client, sent):
    answer = client.post(f"{SOUNDS}/{sent['id']}/explanation", json={"label": "low", "start": 1.0, "end": 3.0}).json()
    values = np.array(answer["map"])
    assert (answer["time_edges"][0], answer["time_edges"][-1]) == (1.0, 3.0)
    assert values.shape == (len(answer["band_edges"]) - 1, len(answer["time_edges"]) - 1)
    loudest = values.mean(axis=1).argmax()
    assert answer["band_edges"][loudest] < 1_000  # the sound is a low tone, and the model looks there


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("{id}/explanation", {"label": "low", "start": 0, "end": 12_000}, 422, "zoom in"),
        ("{id}/explanation", {"label": "low", "start": 3, "end": 1}, 422, "zoom in"),
        ("{id}/explanation", {"label": "<b>", "start": 0, "end": 1}, 422, "does not have this label"),
        ("{id}/explanation", {"label": "low", "start": "x", "end": 1}, 422, "start"),
        ("{id}/explanation", [], 400, "JSON object"),
        ("nothing/explanation", {"label": "low", "start": 0, "end": 1}, 410, "not on the server any more"),
        ("..%2f..%2fsecret/probabilities", {}, 404, "Not Found"),
    ],
)
def test_wrong_requests_get_a_reason(client, sent, path, body, status, words):
    assert_problem(client.post(f"{SOUNDS}/{path.format(id=sent['id'])}", json=body), status, words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"format": "exe"}, "unknown format"), ({"format": "submission"}, "sample_submission.csv"),
     ({"smooth_windows": 2}, "can't be used"), ({"min_confidence": 2}, "min_confidence"), ({"colour": 1}, "colour")],
)  # fmt: skip
def test_wrong_settings_of_a_table_get_a_reason(client, sent, settings, words):
    assert_problem(table(client, sent, **settings), 422, words)


def test_sounds_that_cannot_be_read_leave_nothing_behind(model, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with client_of(model, max_minutes=0.1, max_megabytes=1.0) as client:
        assert_problem(client.post(SOUNDS, files={"file": ("a.txt", b"x")}), 415, "a.txt")
        assert_problem(client.post(SOUNDS, files={"file": ("<b>.wav", b"RIFF" + bytes(500))}), 422, "<b>.wav")
        assert_problem(send(client, sound), 413, "minutes long")
        assert_problem(client.post(SOUNDS, files={"file": ("a.wav", bytes(2_000_000))}), 413, "up to 1 MB")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []


def test_sounds_make_room_for_new_ones_and_go_with_the_server(model, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with client_of(model, max_page_sounds=2) as client:
        first, second = (send(client, sound).json()["id"] for _ in range(2))
        assert client.get(f"{SOUNDS}/{first}/tiles/0/0").status_code == 200  # now the second was used least recently
        third = send(client, sound).json()["id"]
        statuses = [client.get(f"{SOUNDS}/{key}/tiles/0/0").status_code for key in (first, second, third)]
        assert statuses == [200, 410, 200]
        assert len(list(tmp_path.rglob("sound"))) == 2
    assert list(tmp_path.iterdir()) == []


def test_sounds_of_a_page_that_is_closed_are_deleted(model, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with client_of(model) as client:
        ids = [send(client, sound).json()["id"] for _ in range(3)]
        assert client.post("/views/tag/forget", json={"sounds": [*ids[:2], "../x"]}).status_code == 204
        assert len(list(tmp_path.rglob("sound"))) == 1
        assert_problem(client.post("/views/tag/forget", json={"sounds": 1}), 422, "sounds")


def test_sounds_of_the_page_are_kept_when_asked(model, sound, tmp_path):
    with client_of(model, keep=tmp_path / "kept") as client:
        send(client, sound)
        client.post(SOUNDS, files={"file": ("broken.wav", b"RIFF" + bytes(500))})
    [kept] = (tmp_path / "kept").iterdir()
    assert kept.read_bytes() == sound.read_bytes()


def test_sounds_that_cannot_be_kept_are_refused_and_leave_nothing(model, sound, tmp_path, monkeypatch):
    def full(_source, target):
        target.write_bytes(b"a part")
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("spectag.serving.uploads.shutil.copyfile", full)
    with client_of(model, keep=tmp_path / "kept") as client:
        assert_problem(send(client, sound), 507, "disk of the server is full")
        assert list(tmp_path.rglob("sound")) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_sounds_that_are_removed_while_they_are_tagged_leave_nothing(model, sound, tmp_path):
    """The workers find out at their end, and neither make the folder again nor call it an error of the server."""
    limits = AnswerLimits(model, None, 60.0)
    path = tmp_path / "page-x" / "sound"
    path.parent.mkdir()
    path.write_bytes(sound.read_bytes())

    def removing(original):
        def run(*arguments):
            result = original(*arguments)
            shutil.rmtree(path.parent)
            return result

        return run

    for function, inner in [
        (sound_answers.probabilities, "tag_chunk"),
        (sound_answers.playable, "open_stream"),
    ]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sound_answers, inner, removing(getattr(sound_answers, inner)))
            refusal = answer(limits, Question(function, path, "a.wav", Config()))
        assert refusal.status in (410, 422)
        assert list(tmp_path.iterdir()) == []
        path.parent.mkdir()
        path.write_bytes(sound.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sound_answers, "draw_tile", removing(draw_tile))
        query = sound_answers.TileQuery(sample_rate=16_000, level=0, index=0)
        assert len(answer(limits, Question(sound_answers.tile, path, "a.wav", query))) > 100
    assert list(tmp_path.iterdir()) == []


def test_sounds_that_another_model_has_tagged_are_gone_for_tables(client, sound):
    key = send(client, sound).json()["id"]
    assert_problem(table(client, {"id": key}, format="csv"), 410, "not tagged by the model of now")
    assert_problem(client.get(f"{SOUNDS}/{key}"), 410, "not tagged")
    client.post(f"{SOUNDS}/{key}/probabilities")
    assert client.get(f"{SOUNDS}/{key}").json()["name"] == sound.name
    assert table(client, {"id": key}, format="csv").status_code == 200


def test_answers_about_a_sound_that_was_removed_meanwhile_are_410(model, sound, monkeypatch):
    with client_of(model) as client:
        key = send(client, sound).json()["id"]

        async def removing(_workers, _question, _has_left):
            await asyncio.to_thread(client.delete, f"{SOUNDS}/{key}")
            raise ProblemError(422, "no such file")

        monkeypatch.setattr(AnswerWorkers, "ask", removing)
        assert_problem(client.post(f"{SOUNDS}/{key}/probabilities"), 410, "not on the server any more")


def test_timelines_of_another_model_are_not_used(model, sound, tmp_path):
    """Also those that its workers write after the other one was opened."""
    other = make_bundle(tmp_path / "other", make_info())
    path = tmp_path / "page-x" / "sound"
    path.parent.mkdir()
    path.write_bytes(sound.read_bytes())
    old, new = AnswerLimits(other, None, 60.0), AnswerLimits(model, None, 60.0)
    query = sound_answers.TableQuery(choice=sound_answers.SegmentChoice(), sounds=((str(path.parent), "a.wav"),))
    question = Question(sound_answers.table, path, "a.wav", query)
    assert isinstance(answer(old, Question(sound_answers.probabilities, path, "a.wav", Config())), bytes)
    assert isinstance(answer(old, question), bytes)
    assert answer(new, question).status == 410


def test_sounds_of_the_same_name_are_told_apart_in_tables(client, sound, tmp_path):
    """Those of two folders; some formats read the sound by its name."""
    write_audio(tmp_path / "other.wav", tone("low", 4.0), 16_000)
    keys = [send(client, path, "a.wav").json()["id"] for path in (sound, tmp_path / "other.wav")]
    for key in keys:
        client.post(f"{SOUNDS}/{key}/probabilities")
    body = {"sounds": keys, "min_confidence": 0.0001}
    rows = list(csv.DictReader(io.StringIO(client.post("/views/tag/table", json={"format": "csv", **body}).text)))
    ends = {row["file"]: float(row["end"]) for row in rows}
    assert ends == {"a.wav": 12.0, "a (2).wav": 4.0}
    recordings = client.post("/views/tag/table", json={"format": "soundevent", **body}).json()["data"]["recordings"]
    assert {recording["path"]: recording["duration"] for recording in recordings} == ends


def test_names_are_made_unique():
    names = ["a.wav", "a.wav", "a (2).wav", "a.wav", "b"]
    assert sound_answers.unique_names(names) == ["a.wav", "a (3).wav", "a (2).wav", "a (4).wav", "b"]


def test_answers_of_the_guard_cannot_be_embedded_by_other_sites(client):
    assert client.get("/views").headers["cross-origin-resource-policy"] == "same-origin"


def test_tables_that_the_server_cannot_hold_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("spectag.serving.answers._MAX_ANSWER_BYTES", 1_000)
    (tmp_path / "a.wav").write_bytes(b"")
    question = Question(lambda *_: bytes(2_000), tmp_path / "a.wav", "a.wav", Config())
    refusal = answer(AnswerLimits(tmp_path, None, 1.0), question)
    assert (refusal.status, "choose fewer sounds" in refusal.detail) == (413, True)


def test_tiles_make_room_too(model, sound):
    """What is computed from sounds counts as they do, also if no new sound comes."""
    with client_of(model, max_page_gigabytes=2.02 * sound.stat().st_size / 1e9) as client:
        first, second = (send(client, sound).json()["id"] for _ in range(2))
        statuses = [client.get(f"{SOUNDS}/{second}/tiles/0/{index}").status_code for index in range(2)]
        assert statuses == [200, 200]
        assert client.get(f"{SOUNDS}/{first}/tiles/0/0").status_code == 410


def test_questions_are_counted_by_the_rate_limit(model, sound):
    with client_of(model, max_per_minute=2) as client:
        key = send(client, sound).json()["id"]
        assert client.post(f"{SOUNDS}/{key}/probabilities").status_code == 200
        for path in (f"sounds/{key}/probabilities", f"sounds/{key}/explanation", "table"):
            assert_problem(client.post(f"/views/tag/{path}", json={}), 429, "more than 2 requests")


def test_disk_space_of_the_page_is_limited(model, sound):
    with client_of(model, max_page_gigabytes=1.5 * sound.stat().st_size / 1e9) as client:
        first = send(client, sound).json()["id"]
        second = send(client, sound).json()["id"]
        assert client.get(f"{SOUNDS}/{first}/tiles/0/0").status_code == 410
        assert client.get(f"{SOUNDS}/{second}/tiles/0/0").status_code == 200


def test_folders_in_names_are_dropped(client, sound):
    assert send(client, sound, "../../../etc/a.wav").json()["name"] == "a.wav"


@pytest.mark.parametrize("name", ["ä" * 300 + ".wav", "s3::a.wav", "-o.wav", "a\u202eb.wav", "x:y|z?.wav"])
def test_any_name_gets_a_table(client, sound, name):
    sent = send(client, sound, name).json()
    client.post(f"{SOUNDS}/{sent['id']}/probabilities")
    answer = table(client, sent, format="csv", min_confidence=0.0001)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.status_code == 200
    assert {row["file"].removeprefix("'") for row in rows} == {sent["name"]}
    assert table(client, sent, format="sonic-visualiser", min_confidence=0.0001).status_code in (200, 422)


def test_labels_of_the_page_are_those_of_the_model(client, sent):
    labels = [label["label"] for label in client.get("/views").json()["labels"]]
    assert labels == list(LABELS)
    assert set(sent["tagged"]["labels"]) <= set(LABELS)
