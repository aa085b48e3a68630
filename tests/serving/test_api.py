"""The HTTP API: what it answers, what it refuses and how, and that nothing of an upload stays behind."""

import errno
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from helpers.bundles import LABELS, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.config.serving import ServeSettings
from spectag.serving import create_app
from spectag.serving.problems import MEDIA_TYPE

PORT = 8123
HOST = f"127.0.0.1:{PORT}"
TOKEN = "a secret of many characters"
PCM = {"sample_rate": 16_000}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("models") / "model", make_info())


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    path = tmp_path_factory.mktemp("sounds") / "hoch & tief ä.wav"
    write_audio(path, np.concatenate([tone("low", 3.0), tone("high", 3.0)]), 16_000)
    return path


def client_of(model, **settings):
    app = create_app(model, ServeSettings(**settings), workers=1, port=PORT)
    return TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(model):
    with client_of(model, max_megabytes=1.0, max_minutes=0.5, max_live=1) as client:
        yield client


def post(client, path, sound, **headers):
    return client.post(path, files={"file": (sound.name, sound.read_bytes())}, headers=headers)


def assert_problem(answer, status, words):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    problem = answer.json()
    assert {"type", "title", "status", "detail"} == set(problem)
    assert problem["status"] == status
    assert words in problem["detail"]


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/v1/tag", []),
        ("/v1/tag?top=2", ["--top", "2"]),
        ("/v1/tag?window=2&min_confidence=0.0002", ["--window", "2", "--min-confidence", "0.0002"]),
        (
            "/v1/segments?window=1&overlap=0.5&min_confidence=0.0001",
            ["--segments", "--window", "1", "--overlap", "0.5", "--min-confidence", "0.0001"],
        ),
    ],
)
def test_answers_are_those_of_the_command_to_the_last_digit(client, model, sound, run, path, options):
    answer = post(client, path, sound)
    assert answer.status_code == 200, answer.text
    printed = json.loads(run("tag", model, sound, "--format", "json", *options).out)
    assert answer.json()["results"] == [{k: v for k, v in record.items() if k != "file"} for record in printed]
    assert answer.json()["file"] == sound.name
    assert answer.json()["duration"] == 6.0
    assert path == "/v1/tag" or any(record["tags"] for record in printed)


def test_body_and_form_get_the_same_answer(client, sound):
    body = client.post("/v1/tag", content=sound.read_bytes(), headers={"content-type": "audio/wav"})
    assert body.json() == post(client, "/v1/tag", sound).json() | {"file": "upload"}


def test_embeddings_are_those_of_the_model(client, model, sound):
    from spectag.models.tagger import Tagger

    tagger = Tagger(model)
    assert post(client, "/v1/embed", sound).json()["embeddings"] == [tagger.embed(sound).tolist()]
    windows = post(client, "/v1/embed?window=2", sound).json()["embeddings"]
    np.testing.assert_array_equal(np.float32(windows), tagger.embed(sound, window=2.0))


def test_model_and_labels_are_described(client, model):
    assert [label["label"] for label in client.get("/v1/labels").json()] == list(LABELS)
    described = client.get("/v1/model").json()
    assert (described["name"], described["n_labels"], described["sample_rate"]) == (model.name, 3, 16_000)
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize(
    ("path", "name", "content", "status", "words"),
    [
        ("/v1/tag", "a.txt", b"text", 415, "the suffix of a.txt"),
        ("/v1/tag", "a.wav", b"", 422, "no sound"),
        ("/v1/tag", "a.wav", b"RIFF" + bytes(2_000), 422, "a.wav: "),
        ("/v1/tag", "../../a<b>.wav", b"x" * 2_000_000, 413, "up to 1 MB"),
        ("/v1/tag?top=0", "a.wav", b"x", 422, "top: expected a number greater than or equal to 1"),
        ("/v1/tag?tops=1", "a.wav", b"x", 422, "tops: unknown parameter"),
        ("/v1/tag?overlap=1", "a.wav", b"x", 422, "overlap"),
        ("/v1/search", "a.wav", b"x", 404, "--index"),
        ("/v1/nothing", "a.wav", b"x", 404, "Not Found"),
    ],
)
def test_wrong_requests_get_a_reason(client, path, name, content, status, words):
    assert_problem(client.post(path, files={"file": (name, content)}), status, words)


def test_too_long_sounds_are_refused_before_they_are_tagged(client, tmp_path):
    write_audio(tmp_path / "long.flac", np.zeros(31 * 16_000, np.float32), 16_000)
    assert_problem(
        post(client, "/v1/tag", tmp_path / "long.flac"), 413, "0.5 minutes long; this server takes up to 0.5"
    )


def test_other_types_and_forms_are_refused(client):
    assert_problem(client.post("/v1/tag", content=b"{}", headers={"content-type": "application/json"}), 415, "json")
    assert_problem(client.post("/v1/tag", files={"sound": ("a.wav", b"x")}), 422, "no field file")
    broken = client.post("/v1/tag", content=b"--x\r\n", headers={"content-type": "multipart/form-data; boundary=y"})
    assert_problem(broken, 400, "the form")


def test_nothing_of_an_upload_stays_behind(model, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with client_of(model) as client:
        post(client, "/v1/tag", sound)
        post(client, "/v1/tag", Path(__file__))
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.iterdir()) == []


def test_uploads_are_kept_when_asked(model, sound, tmp_path):
    with client_of(model, keep=tmp_path / "kept") as client:
        post(client, "/v1/tag", sound)
    [kept] = (tmp_path / "kept").iterdir()
    assert kept.name.endswith(f"_{sound.name}")
    assert kept.read_bytes() == sound.read_bytes()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": f"127.0.0.1:{PORT + 1}"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"http://{HOST}"}, 200),
        ({"host": f"localhost:{PORT}"}, 200),
    ],
)
def test_pages_of_other_sites_are_refused(client, headers, status):
    assert client.get("/v1/labels", headers=headers).status_code == status


def test_token_is_needed_and_allowed_origins_may_ask(model, sound):
    origin = {"origin": "https://lab.example"}
    with client_of(model, token=TOKEN, allow_origin=("https://lab.example",)) as client:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert_problem(client.get("/v1/labels"), 401, "Authorization")
        assert_problem(client.get("/v1/labels", headers={"authorization": f"Bearer {TOKEN}x"}), 401, "Authorization")
        assert client.get("/healthz").status_code == 200
        answer = client.get("/v1/labels", headers=bearer | origin | {"host": "any.example"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://lab.example"
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        assert client.options("/v1/tag", headers=origin | asked).status_code == 200


def test_too_many_requests_and_waiting_ones_are_told_to_try_again(model, sound):
    with client_of(model, max_per_minute=1) as client:
        assert post(client, "/v1/tag", sound).status_code == 200
        answer = post(client, "/v1/tag", sound)
        assert_problem(answer, 429, "more than 1 requests")
        assert 0 < int(answer.headers["retry-after"]) <= 60


def test_metrics_count_requests_by_path_and_status(model, sound):
    with client_of(model) as client:
        post(client, "/v1/tag", sound)
        client.get("/v1/labels/../../etc/passwd")
        text = client.get("/metrics").text
    assert 'spectag_requests_total{path="/v1/tag",status="200"} 1.0' in text
    assert 'spectag_requests_total{path="other",status="404"} 1.0' in text


def listen(client, messages, query="sample_rate=16000&window=1&overlap=0.5&min_confidence=0.0001"):
    """The events that the server sends for raw samples, and the status of the closed connection."""
    events = []
    with client.websocket_connect(f"/v1/listen?{query}", headers={"host": HOST}) as socket:
        for message in messages:
            socket.send_bytes(message)
        socket.send_text("end")
        try:
            while True:
                events.append(socket.receive_json())
        except WebSocketDisconnect as closed:
            return events, closed.code, closed.reason


def test_live_events_are_those_of_listen(client):
    waveform = np.concatenate([tone("low", 3.0), tone("high", 3.0)])
    raw = (waveform * 32_767).astype("<i2").tobytes()
    events, code, _ = listen(client, [raw[start : start + 8_000] for start in range(0, len(raw), 8_000)])
    assert code == 1000
    assert [(event["label"], event["on"]) for event in events] == [
        ("low", True), ("low", False), ("high", True), ("high", False),
    ]  # fmt: skip
    assert abs(events[1]["time"] - 3.0) <= 0.5


@pytest.mark.parametrize(
    ("query", "message", "code", "reason"),
    [
        ("window=1", b"", 1008, "sample_rate"),
        ("sample_rate=16000&windows=1", b"", 1008, "windows: unknown setting"),
        ("sample_rate=16000", b"odd", 1003, "whole samples"),
        ("sample_rate=16000&encoding=f32le", np.full(100, np.nan, "<f4").tobytes(), 1003, "not finite"),
    ],
)
def test_wrong_live_streams_are_closed_with_a_reason(client, query, message, code, reason):
    _, got, why = listen(client, [message], query)
    assert (got, reason in why) == (code, True), why


def test_live_streams_of_other_sites_are_refused(client):
    with (
        pytest.raises(WebSocketDisconnect) as refused,
        client.websocket_connect(
            "/v1/listen?sample_rate=16000", headers={"host": HOST, "origin": "https://evil.example"}
        ),
    ):
        pass
    assert refused.value.code == 1008


def test_description_declares_every_answer(client):
    described = client.get("/openapi.json").json()
    for path in ("/v1/tag", "/v1/segments", "/v1/embed", "/v1/search"):
        operation = described["paths"][path]["post"]
        assert {"200", "413", "415", "422", "429", "503"} <= set(operation["responses"])
        assert set(operation["requestBody"]["content"]) == {"application/octet-stream", "multipart/form-data"}
    for operations in described["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            assert all(item["description"] and item["schema"]["examples"] for item in operation.get("parameters", []))
            refused = [answer for status, answer in operation["responses"].items() if status != "200"]
            assert all(list(answer["content"]) == [MEDIA_TYPE] for answer in refused)
    for schema in described["components"]["schemas"].values():
        for name, field in schema["properties"].items():
            assert field["description"], name
            assert "examples" in field or "$ref" in field.get("items", {}) or name == "type", name


def test_forms_are_read_in_pieces_of_any_size(client, sound):
    expected = post(client, "/v1/tag", sound).json()
    content = sound.read_bytes()
    head = b'--x\r\ncontent-disposition: form-data; name="a"\r\n\r\nskipped\r\n--x\r\n'
    head += f'Content-Disposition: form-data; name="file"; filename="{sound.name}"\r\n\r\n'.encode()
    form = head + content + b"\r\n--x--\r\n"
    for size in (1_000, 65_536, len(form) - 3):
        pieces = (form[start : start + size] for start in range(0, len(form), size))
        answer = client.post("/v1/tag", content=pieces, headers={"content-type": "multipart/form-data; boundary=x"})
        assert answer.json() == expected


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (b"--x\r\n", "it ends too early"),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nab', "it ends too early"),
        (b"--x\r\n" + b"a" * 9_000 + b": b\r\n\r\n\r\n--x--", "header size"),
        (b"--x\r\nA: b\r\n\r\n\r\n" * 30 + b"--x--\r\n", "more than 20 fields"),
        (b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\na\r\n' * 2 + b"--x--", "one"),
    ],
)
def test_broken_forms_are_refused_with_a_reason(client, form, words):
    answer = client.post("/v1/tag", content=form, headers={"content-type": "multipart/form-data; boundary=x"})
    assert_problem(answer, 400, words)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/a.wav", "a.wav"),
        ("C:\\Users\\a.wav", "a.wav"),
        ("é" * 300 + ".wav", "é" * 73 + ".wav"),
        ("<img src=x onerror=alert(1)>.wav", "<img src=x onerror=alert(1)>.wav"),
        ("\x1b[2J.wav", "upload.wav"),
    ],
)
def test_names_have_no_folders_and_no_control_characters(client, given, shown):
    answer = client.post("/v1/tag", files={"file": (given, b"RIFF" + bytes(500))})
    assert_problem(answer, 422, f"{shown}: ")


def test_full_disk_is_507_and_the_next_upload_is_answered(client, sound, monkeypatch):
    def no_space(**_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", no_space)
        assert_problem(post(client, "/v1/tag", sound), 507, "the disk of the server is full")
    assert post(client, "/v1/tag", sound).status_code == 200


def test_model_that_is_gone_is_503_until_it_is_back(model, sound, tmp_path):
    gone = shutil.copytree(model, tmp_path / "model")
    app = client_of(gone)
    gone.rename(tmp_path / "away")
    with app as client:
        answer = post(client, "/v1/tag", sound)
        assert_problem(answer, 503, "the model can't be opened")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/readyz").status_code == 503
        (tmp_path / "away").rename(gone)
        assert post(client, "/v1/tag", sound).status_code == 200
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("token", [None, TOKEN])
def test_description_says_whether_a_token_is_needed(model, token):
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    description = client_of(model, token=token).get("/openapi.json", headers=headers).json()
    assert ("security" in description) == (token is not None)
    if token is not None:
        assert description["security"] == [{"token": []}]
        assert description["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
