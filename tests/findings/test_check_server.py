"""The server of the page to check detections: who may ask it, what it refuses, and what is on disk when it answers."""

import http.client
import json
import threading
from datetime import datetime

import pytest
from starlette.testclient import TestClient

from spectag.data.checked_detections import CheckedDetection, read_decisions, write_decisions
from spectag.errors import ConfigError
from spectag.findings.check_server import make_check_app, serve_check
from spectag.findings.decision_store import DecisionStore

TOKEN, PORT = "secret", 8123
HOST = f"127.0.0.1:{PORT}"
ORIGIN = {"origin": f"http://{HOST}"}
DECISION = {"index": 0, "decision": "no", "reviewer": "Zoë", "other_labels": ["Cat, big", "Dog"], "comment": "far"}


@pytest.fixture
def path(tmp_path):
    rows = [CheckedDetection("a.wav", n, n + 1, "Dog", 0.5, "", None, "all", 10, 2.0) for n in range(5)]
    write_decisions(tmp_path / "decisions.csv", rows)
    return tmp_path / "decisions.csv"


@pytest.fixture
def store(path):
    return DecisionStore(path)


def app_of(store, token=TOKEN, port=PORT):
    return make_check_app(
        store, lambda: f"page at {store.revision}", lambda index: f"card {index}", token=token, port=port
    )


@pytest.fixture
def client(store):
    return TestClient(app_of(store), base_url=f"http://{HOST}", raise_server_exceptions=False)


def post(client, body, **headers):
    return client.post(f"/{TOKEN}/decisions", json=body, headers=ORIGIN | headers)


def test_page_and_cards_have_headers_that_keep_others_out(client):
    page, card = client.get(f"/{TOKEN}/"), client.get(f"/{TOKEN}/cards/4")
    assert (page.text, card.text) == ("page at 0", "card 4")
    for answer in (page, card):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "default-src 'none'" in card.headers["content-security-policy"]


@pytest.mark.parametrize(
    "place", ["/", "/wrong/", "/secre/", "/secret2/", "//secret/", "/wrong/cards/0", "/%00/", "/é/"]
)
def test_without_the_token_nothing_is_shown(client, place):
    answer = client.get(place)
    assert answer.status_code == 403
    assert "card" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", ""])
def test_other_hosts_are_refused_so_that_dns_rebinding_fails(client, host):
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == 403


def test_port_80_is_not_part_of_the_host_that_browsers_send(store):
    client = TestClient(app_of(store, port=80), base_url="http://127.0.0.1")
    assert client.get(f"/{TOKEN}/").status_code == 200


def test_localhost_is_this_computer_too(client):
    assert client.get(f"/{TOKEN}/", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", f"https://{HOST}", f"http://{HOST}.evil.example"]
)
def test_decisions_of_pages_of_other_origins_are_refused(client, path, origin):
    headers = {} if origin is None else {"origin": origin}
    answer = client.post(f"/{TOKEN}/decisions", json=DECISION, headers=headers)
    assert answer.status_code == 403
    assert not any(row.decision for row in read_decisions(path))


def test_decision_is_in_the_table_when_the_server_answers(client, path):
    before = datetime.now().astimezone().replace(microsecond=0)
    answer = post(client, DECISION)
    row = read_decisions(path)[0]
    assert answer.json() == {
        "revision": 1,
        "changes": {"0": {"decision": "no", "other_labels": ["Cat, big"], "reviewer": "Zoë", "comment": "far"}},
    }
    assert (row.decision, row.other_labels, row.reviewer, row.comment) == ("no", ("Cat, big",), "Zoë", "far")
    assert before <= row.time <= datetime.now().astimezone()
    assert row.weight == 2


def test_decision_needs_no_name(client, path):
    assert post(client, {"index": 0, "decision": "yes", "reviewer": " "}).status_code == 200
    assert post(client, {"index": 1, "decision": "no"}).status_code == 200
    assert [(row.decision, row.reviewer) for row in read_decisions(path)[:2]] == [("yes", ""), ("no", "")]


def test_decision_can_be_undone(client, path):
    untouched = read_decisions(path)
    post(client, DECISION)
    post(client, {"index": 0, "decision": "", "reviewer": "Zoë"})
    assert read_decisions(path) == untouched


def test_other_browsers_learn_what_changed_and_decisions_of_others_stay(client, path):
    post(client, DECISION)
    post(client, DECISION | {"index": 3, "decision": "yes", "reviewer": "Bob", "since": 1})
    changes = client.get(f"/{TOKEN}/decisions?since=1").json()
    assert changes["revision"] == 2
    assert list(changes["changes"]) == ["3"]
    assert [row.reviewer for row in read_decisions(path)] == ["Zoë", "", "", "Bob", ""]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"decision": "perhaps"}, "decision: expected 'yes', 'no', 'unsure' or ''"),
        ({"index": -1}, "index"),
        ({"index": "0; drop"}, "index"),
        ({"index": None}, "index"),
        ({"reviewer": "x" * 101}, "reviewer"),
        ({"reviewer": "a\x00b"}, "control character"),
        ({"other_labels": ["\x1b[31m"]}, "control character"),
        ({"other_labels": [" "]}, "a label has 1 to 200 characters"),
        ({"other_labels": ["x"] * 51}, "other_labels"),
        ({"comment": "x" * 2001}, "comment"),
        ({"path": "../../etc/passwd"}, "path"),
    ],
)
def test_wrong_decisions_are_refused_with_the_reason(client, path, body, message):
    answer = post(client, DECISION | body)
    assert answer.status_code == 400
    assert message in answer.text
    assert not any(row.decision for row in read_decisions(path))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"[" * 30_000, 400),
        (b'{"index": NaN}', 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b" " * 64_001, 413),
    ],
)
def test_bodies_that_are_no_decision_are_refused(client, content, status):
    headers = ORIGIN | {"content-type": "application/json"}
    answer = client.post(f"/{TOKEN}/decisions", content=content, headers=headers)
    assert answer.status_code == status


def test_forms_of_other_pages_are_refused(client):
    assert client.post(f"/{TOKEN}/decisions", data={"index": "0"}, headers=ORIGIN).status_code == 415


@pytest.mark.parametrize(
    "place", ["cards/5", "cards/-1", "cards/1e3", "cards/../../decisions.csv", "decisions.csv", "..%2f..%2fetc/passwd"]
)
def test_only_the_page_and_its_cards_can_be_read(client, place):
    assert client.get(f"/{TOKEN}/{place}").status_code in (403, 404)
    assert post(client, DECISION | {"index": 5}).status_code == 404


def test_decision_that_cannot_be_written_is_an_error_and_changes_nothing(client, store, monkeypatch):
    def fail(lines):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write", fail)
    answer = post(client, DECISION)
    assert (answer.status_code, answer.text) == (507, "the decision can't be written: No space left on device")
    assert (store.revision, store.rows[0].decision) == (0, "")


def test_decisions_of_many_threads_are_all_kept(store, path):
    def decide(index):
        for decision in ("yes", "no", "unsure"):
            store.decide(index, decision, reviewer=f"reviewer {index}")

    threads = [threading.Thread(target=decide, args=(index,)) for index in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = read_decisions(path)
    assert [(row.decision, row.reviewer) for row in rows] == [("unsure", f"reviewer {index}") for index in range(5)]
    assert tuple(rows) == store.rows


def test_server_listens_on_this_computer_at_an_address_with_a_secret_until_the_block_ends(store):
    with serve_check(lambda token, port: app_of(store, token, port), None) as (address, has_ended):
        _, _, host, token, _ = address.split("/")
        assert host.startswith("127.0.0.1:")
        assert len(token) >= 32
        connection = http.client.HTTPConnection(host, timeout=10)
        connection.request("POST", f"/{token}/decisions", json.dumps(DECISION), {
            "origin": f"http://{host}", "content-type": "application/json",
        })  # fmt: skip
        assert connection.getresponse().status == 200
        connection.close()
        assert not has_ended.is_set()
        with (
            pytest.raises(ConfigError, match=r"port \d+ can't be used: Address already in use; choose another one"),
            serve_check(lambda token, port: app_of(store, token, port), int(host.split(":")[1])),
        ):
            pass
    assert has_ended.is_set()
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection(host, timeout=10).request("GET", f"/{token}/")
