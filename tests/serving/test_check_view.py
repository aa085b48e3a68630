"""The requests of the Check view: samples, decisions that are never lost or overwritten, and new thresholds."""

import base64
import csv
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from helpers.bundles import LABELS, make_bundle, make_info
from helpers.checks import write_recordings
from spectag.config.findings import CheckSettings
from spectag.config.serving import ServeSettings
from spectag.data.checked_detections import read_check_info, read_decisions
from spectag.evaluation.recalibration import calibrate
from spectag.findings.check_session import locked_check, open_check
from spectag.models.bundle import read_info
from spectag.models.tagger import Tagger
from spectag.scoring.thresholds import ThresholdGoal
from spectag.serving import create_app
from spectag.serving.problems import MEDIA_TYPE

PORT = 8126
CHECKS = "/views/check/checks"
SERVE = """
import sys
from spectag.config.serving import ServeSettings
from spectag.serving import serve

if __name__ == "__main__":
    log = lambda line: print(line, file=sys.stderr, flush=True)
    serve("model", ServeSettings(port=0), project="project", workers=1, log=log)
"""
GOAL = {"precision": 0.5, "confidence": 0.8, "width": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a model and a project, which has recordings and a table of detections in a run."""
    folder = tmp_path_factory.mktemp("check")
    make_bundle(folder / "model")
    with client_of(folder):
        pass  # makes the project
    write_recordings(folder / "project" / "runs" / "0001", n_days=3)
    write_recordings(folder / "elsewhere")
    return folder


def client_of(folder, model="model"):
    settings = ServeSettings(folder=(folder / "elsewhere",))
    app = create_app(folder / model, settings, project=folder / "project", workers=1, port=PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(folder):
    with client_of(folder) as client:
        yield client


@pytest.fixture
def make_check(client, folder, request):
    """Makes a check, named after the test."""
    name = re.sub(r"\W", " ", request.node.name)[:80].strip()

    def make(**values):
        table = folder / "project" / "runs" / "0001" / "tags.csv"
        body = {"name": name, "table": str(table), "per_label": 8, **values}
        answer = client.post(CHECKS, json=body)
        assert answer.status_code == 200, answer.text
        return client.get(f"{CHECKS}/{name}").json()

    return make


def decide(client, check, index, decision="yes", **values):
    body = {"index": index, "decision": decision, "since": check["revision"], "session": check["session"], **values}
    return client.post(f"{CHECKS}/{check['name']}/decisions", json=body)


def decisions_of(folder, check):
    return read_decisions(folder / "project" / "checks" / check["name"] / "decisions.csv")


def decide_all(client, check):
    """Confirm what is probable."""
    for index, card in enumerate(check["cards"]):
        answer = decide(client, check, index, "yes" if float(card["score"]) > 0.3 else "no").json()
        check["revision"] = answer["revision"]


def assert_problem(answer, status, words):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert words in answer.json()["detail"]


def test_sample_is_the_one_of_the_command(client, folder, make_check, tmp_path):
    check = make_check(seed=5)
    table = folder / "project" / "runs" / "0001" / "tags.csv"
    with open_check(folder / "model", table, tmp_path / "check", CheckSettings(per_label=8, seed=5)) as session:
        assert [row.key for row in session.rows] == [row.key for row in decisions_of(folder, check)]
    assert check["labels"] == [{"label": label, "sampled": 8, "open": 8, "decided": 0} for label in LABELS]
    listed = client.get(CHECKS).json()
    assert check["name"] in [found["name"] for found in listed]
    with open_check(folder / "model", table, folder / "project" / "checks" / check["name"], CheckSettings()) as session:
        assert len(session.rows) == 24, "the command continues the check of the page"


def test_decision_is_on_disk_before_the_answer(client, folder, make_check):
    check = make_check()
    values = {"reviewer": " Ann ", "comment": "faint", "other_labels": ["wind", "low"]}
    answer = decide(client, check, 3, "unsure", **values).json()
    row = decisions_of(folder, check)[3]
    assert (row.decision, row.reviewer, row.comment) == ("unsure", "Ann", "faint")
    assert row.other_labels == tuple(label for label in ("wind", "low") if label != row.label)
    assert answer["revision"] == 1
    assert answer["changes"]["3"]["decision"] == "unsure"
    assert decide(client, check | answer, 3, "").status_code == 200, "undo"
    assert decisions_of(folder, check)[3].decision == ""


def test_name_is_not_needed(client, folder, make_check):
    assert decide(client, make_check(), 0).status_code == 200


def test_two_browsers_see_and_do_not_overwrite_each_other(client, folder, make_check):
    check = make_check()
    assert decide(client, check, 2, "yes", reviewer="Ann").status_code == 200
    refused = decide(client, check, 2, "no", reviewer="Ben")
    assert_problem(refused, 409, "somebody else")
    assert (refused.json()["row"]["decision"], refused.json()["row"]["reviewer"]) == ("yes", "Ann")
    seen = client.get(f"{CHECKS}/{check['name']}/decisions?since=0").json()
    assert seen["changes"]["2"]["decision"] == "yes"
    assert decide(client, check, 4, "no", reviewer="Ben").status_code == 200, "another row"
    assert decide(client, check | {"revision": 2}, 2, "no", reviewer="Ben").status_code == 200, "now it was seen"
    assert decisions_of(folder, check)[2].reviewer == "Ben"


def test_many_decisions_at_once_are_all_stored(client, folder, make_check):
    check = make_check()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda index: decide(client, check, index).status_code, range(24)))
    assert answers == [200] * 24
    assert [row.decision for row in decisions_of(folder, check)] == ["yes"] * 24


def test_page_of_an_earlier_server_has_to_look_again(client, make_check):
    check = make_check()
    refused = decide(client, check | {"session": "of another server"}, 0)
    assert_problem(refused, 409, "started again")
    assert refused.json()["session"] == check["session"]


def test_open_command_is_named_and_its_decisions_are_seen(client, folder, make_check):
    check = make_check()
    path = folder / "project" / "checks" / check["name"]
    with locked_check(path):
        assert_problem(decide(client, check, 0), 423, "terminal")
    text = (path / "decisions.csv").read_text("utf-8").splitlines(keepends=True)
    (path / "decisions.csv").write_text("".join([text[0], text[1].replace(",,,,", ",yes,,,"), *text[2:]]), "utf-8")
    seen = client.get(f"{CHECKS}/{check['name']}/decisions?since=0").json()
    assert seen["changes"]["0"]["decision"] == "yes"


def test_card_has_the_picture_and_the_sound(client, make_check):
    check = make_check()
    card = client.get(f"{CHECKS}/{check['name']}/cards/0").json()
    kind, _, content = card["sound"].partition(",")
    assert kind.startswith("data:audio/mpeg")
    assert len(base64.b64decode(content)) > 1_000
    assert card["figure"]["image"].startswith("data:image/jpeg")
    mark = card["figure"]["marks"][0]
    assert mark["end"] - mark["start"] == pytest.approx(1.0, abs=0.01)
    assert client.get(f"{CHECKS}/{check['name']}/cards/999").status_code == 404


def test_curve_and_thresholds_are_those_of_calibrate(client, folder, make_check):
    check = make_check()
    url = f"{CHECKS}/{check['name']}"
    query = {"label": "low", **GOAL}
    assert client.get(f"{url}/curve", params=query).json() == {"old_threshold": 0.5, "curve": None}
    assert_problem(client.get(f"{url}/thresholds", params=GOAL), 422, "none of its 24 detections has a decision")
    decide_all(client, check)
    goal = ThresholdGoal(kind="precision", at_least=0.5, confidence=0.8)
    decisions = folder / "project" / "checks" / check["name"] / "decisions.csv"
    expected = calibrate(folder / "model", goal=goal, checked=decisions, width=0.3).checked
    shown = client.get(f"{url}/curve", params=query).json()
    [fitted] = [row for row in expected.labels if row.label == "low"]
    for name in ("threshold", "precision", "lower", "upper", "n_more_checks", "n_checked", "problem"):
        assert shown[name] == getattr(fitted, name)
    assert shown["is_enough"] == (fitted.reaches_goal and fitted.upper - fitted.lower <= 0.3)
    assert shown["curve"]["lower"] == pytest.approx(expected.curves["low"].lower, abs=1e-4)
    listed = client.get(f"{url}/thresholds", params=GOAL).json()["labels"]
    assert {row["label"]: row["threshold"] for row in listed} == {row.label: row.threshold for row in expected.labels}


def test_check_keeps_its_precision_when_a_model_with_other_labels_is_in_use(tmp_path):
    make_bundle(tmp_path / "model")
    make_bundle(tmp_path / "other", make_info(labels=("jay", "owl", "wren")))
    (tmp_path / "elsewhere").mkdir()
    with client_of(tmp_path) as client:
        table = write_recordings(tmp_path / "project" / "runs" / "0001", n_days=3)
        client.post(CHECKS, json={"name": "kept", "table": str(table), "per_label": 8})
        decide_all(client, client.get(f"{CHECKS}/kept").json())
        query = {"label": "low", **GOAL}
        before = client.get(f"{CHECKS}/kept/curve", params=query).json()
    with client_of(tmp_path, "other") as client:
        after = client.get(f"{CHECKS}/kept/curve", params=query)
        assert after.status_code == 200, after.text
        assert after.json() == before | {"old_threshold": None}
        listed = client.get(f"{CHECKS}/kept/thresholds", params=GOAL).json()["labels"]
        assert {row["label"]: row["old_threshold"] for row in listed} == dict.fromkeys(LABELS)
        assert_problem(client.post(f"{CHECKS}/kept/version", json=GOAL), 422, "not those of the model in use")
        unknown = client.get(f"{CHECKS}/kept/curve", params=query | {"label": "owl"})
        assert_problem(unknown, 422, "the check does not have the label owl")


def test_presence_sample_has_no_precision(client, make_check):
    check = make_check(presence=True)
    assert {card["unit"] for card in check["cards"]} != {None}
    assert_problem(client.get(f"{CHECKS}/{check['name']}/curve?label=low"), 422, "random sample")


def test_thresholds_become_a_version_that_the_server_uses(folder, make_check, client, tmp_path):
    check = make_check()
    refused = client.post(f"{CHECKS}/{check['name']}/version", json=GOAL)
    assert_problem(refused, 422, "has a decision")
    decide_all(client, check)
    impossible = client.post(f"{CHECKS}/{check['name']}/version", json=GOAL | {"precision": 0.999})
    assert_problem(impossible, 422, "no label reaches this precision")
    answer = client.post(f"{CHECKS}/{check['name']}/version", json=GOAL)
    assert answer.status_code == 200, answer.text
    made = folder / "project" / "models" / f"{answer.json()['version']:04}"
    info = dict(zip(LABELS, read_info(made).thresholds, strict=True))
    for row in answer.json()["labels"]:
        assert info[row["label"]] == pytest.approx(row["threshold"])
    assert Tagger(made).thresholds.tolist() != Tagger(folder / "model").thresholds.tolist()
    shown = {row["label"]: row["threshold"] for row in client.get("/views").json()["labels"]}
    assert shown == pytest.approx(info)
    assert client.get(f"{CHECKS}/{check['name']}").json()["states"][0]["decision"], "the check goes on"


def test_table_can_be_uploaded_and_its_recordings_be_named(client, folder):
    elsewhere = folder / "elsewhere"
    text = (elsewhere / "tags.csv").read_bytes().replace(b"2024", b"2025")
    for path in elsewhere.glob("*.wav"):
        path.rename(path.with_name(path.name.replace("2024", "2025")))
    sent = [client.post("/views/check/tables?name=..%2F..%2Fmy%20table.csv", content=text).json() for _ in range(2)]
    assert [table["name"] for table in sent] == ["my table.csv", "my table 2.csv"]
    assert (folder / "project" / "tables" / "my table.csv").read_bytes() == text
    body = {"name": "uploaded", "table": sent[0]["path"], "per_label": 2}
    assert_problem(client.post(CHECKS, json=body), 422, "recordings is found")
    assert client.post(CHECKS, json=body | {"recordings": str(elsewhere)}).status_code == 200
    assert "figure" in client.get(f"{CHECKS}/uploaded/cards/0").json()
    assert_problem(client.post(CHECKS, json=body), 409, "already")
    unfinished = folder / "project" / "checks" / "unfinished"
    unfinished.mkdir()
    (unfinished / "decisions.csv").write_text("mine")  # without its check.json
    assert_problem(client.post(CHECKS, json=body | {"name": "unfinished", "min_probability": 1.0}), 409, "already")
    assert (unfinished / "decisions.csv").read_text() == "mine"
    assert_problem(client.post("/views/check/tables?name=a.exe", content=b"MZ"), 415, "no table")
    assert_problem(client.post("/views/check/tables?name=a.csv", content=b""), 422, "empty")


def test_recordings_of_a_check_can_be_looked_for_elsewhere(client, folder, make_check):
    check = make_check()
    runs = folder / "project" / "runs" / "0001"
    away = folder / "project" / "away"
    runs.rename(away)
    try:
        assert client.get(f"{CHECKS}/{check['name']}/cards/0").status_code == 404
        away_table = folder / "project" / "runs" / "0001"
        away_table.mkdir()
        (away_table / "tags.csv").write_bytes((away / "tags.csv").read_bytes())
        answer = client.post(f"{CHECKS}/{check['name']}/recordings", json={"recordings": str(away)})
        assert answer.status_code == 200
        assert "figure" in client.get(f"{CHECKS}/{check['name']}/cards/0").json()
        (away_table / "tags.csv").unlink()
        away_table.rmdir()
    finally:
        away.rename(runs)


def test_run_of_the_jobs_view_can_be_checked(client, folder):
    run = {"recordings": str(folder / "elsewhere"), "name": "tagged", "min_confidence": 0.0001}
    number = client.post("/views/jobs/runs", json=run).json()["number"]
    end = time.monotonic() + 60
    while (job := client.get(f"/project/jobs/{number}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.1)
    assert job["state"] == "done", job
    [table] = [table for table in client.get("/views/check/tables").json() if table["run"] == "tagged"]
    answer = client.post(CHECKS, json={"name": "tagged", "table": table["path"], "per_label": 2})
    assert answer.status_code == 200, answer.text
    assert "figure" in client.get(f"{CHECKS}/tagged/cards/0").json()


def test_table_that_can_be_checked_is_offered_for_each_run(client, folder):
    for name in ("tags.xlsx", "tags.wide.csv"):  # a spreadsheet is newer than the table, but can't be read
        (folder / "project" / "runs" / "0001" / name).write_bytes(b"PK")
    [table] = [table for table in client.get("/views/check/tables").json() if table["run"] == "0001"]
    assert (table["run"], table["name"]) == ("0001", "tags.csv")
    assert table["path"] == str(folder / "project" / "runs" / "0001" / "tags.csv")


@pytest.mark.parametrize("name", ["", "..", "a/b", "nul", ".hidden", "a ", 81 * "a", "a\nb"])
def test_names_that_are_no_folders_are_refused(client, folder, name):
    table = folder / "project" / "runs" / "0001" / "tags.csv"
    answer = client.post(CHECKS, json={"name": name, "table": str(table), "per_label": 2})
    if name != "a ":  # spaces around it are no part of the name
        assert answer.status_code == 422, answer.text


def test_what_is_outside_the_allowed_folders_is_refused(client, folder, make_check, tmp_path):
    outside = write_recordings(tmp_path / "outside")
    assert_problem(client.post(CHECKS, json={"name": "x", "table": str(outside)}), 403, "outside")
    rows = list(csv.reader(outside.read_text("utf-8").splitlines()))
    inside = folder / "project" / "sly.csv"
    with inside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([rows[0], *([str(outside.parent / row[0]), *row[1:]] for row in rows[1:])])
    assert client.post(CHECKS, json={"name": "sly", "table": str(inside), "per_label": 1}).status_code == 200
    assert_problem(client.get(f"{CHECKS}/sly/cards/0"), 403, "outside")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"across": ["colours"]}, "across"),
        ({"per_label": 0}, "per_label"),
        ({"min_probability": 0.99}, "no detections within these limits"),
    ],
)
def test_wrong_samples_are_refused_and_leave_nothing(client, folder, values, words):
    table = folder / "project" / "runs" / "0001" / "tags.csv"
    answer = client.post(CHECKS, json={"name": "wrong", "table": str(table), **values})
    assert_problem(answer, 422, words)
    assert not (folder / "project" / "checks" / "wrong").exists()


@pytest.mark.parametrize(
    "body", [{"decision": "maybe"}, {"index": -1}, {"comment": "a\0b"}, {"since": -1}, {"more": 1}, {"session": 1}]
)
def test_wrong_decisions_are_refused(client, make_check, body):
    check = make_check()
    assert (
        decide(client, check, 0, **body).status_code == 422 if "decision" not in body and "index" not in body else True
    )
    answer = client.post(
        f"{CHECKS}/{check['name']}/decisions",
        json={"index": 0, "decision": "yes", "since": 0, "session": check["session"], **body},
    )
    assert answer.status_code == 422


def test_damaged_check_is_named_in_the_list(client, folder):
    damaged = folder / "project" / "checks" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "check.json").write_text("{", "utf-8")
    try:
        [found] = [check for check in client.get(CHECKS).json() if check["name"] == "damaged"]
        assert "not JSON" in found["problem"]
        assert_problem(client.get(f"{CHECKS}/damaged"), 422, "not JSON")
    finally:
        (damaged / "check.json").unlink()
        damaged.rmdir()
    assert client.get(f"{CHECKS}/damaged").status_code == 404


def test_protocol_and_table_can_be_downloaded(client, folder, make_check):
    check = make_check()
    decide(client, check, 0, reviewer="Ann")
    assert "Ann (1 decision)" in client.get(f"{CHECKS}/{check['name']}/protocol.md").text
    table = client.get(f"{CHECKS}/{check['name']}/decisions.csv")
    assert table.content == (folder / "project" / "checks" / check["name"] / "decisions.csv").read_bytes()


def test_view_needs_a_project(folder):
    app = create_app(folder / "model", ServeSettings(), workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}") as client:
        assert "check" not in client.get("/views").json()["views"]
        assert client.get(CHECKS).status_code == 404


def test_server_that_is_killed_loses_no_decision(tmp_path):
    make_bundle(tmp_path / "model")
    first = serve(tmp_path)
    try:
        write_recordings(tmp_path / "project" / "recordings")
        table = str(tmp_path / "project" / "recordings" / "tags.csv")
        ask(first.address, CHECKS, {"name": "killed", "table": table, "per_label": 4})
        check = ask(first.address, f"{CHECKS}/killed")
        for index in range(5):
            body = {"index": index, "decision": "no", "since": index, "session": check["session"]}
            ask(first.address, f"{CHECKS}/killed/decisions", body)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(20)
        first.stderr.close()
    assert [row.decision for row in read_decisions(tmp_path / "project" / "checks" / "killed" / "decisions.csv")] == [
        *5 * ["no"],
        *7 * [""],
    ]
    assert read_check_info(tmp_path / "project" / "checks" / "killed").n_per_label == 4
    second = serve(tmp_path)
    try:
        after = ask(second.address, f"{CHECKS}/killed")
        assert sum(state["decision"] == "no" for state in after["states"]) == 5
        assert after["session"] != check["session"]
    finally:
        second.kill()
        second.wait(20)
        second.stderr.close()


def serve(folder):
    """A process of spectag serve, with its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE], cwd=folder, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    for line in process.stderr:
        if found := re.search(r"http://\S+:\d+", line):
            process.address = found[0]
            ask(found[0], "/views")  # waits until the project is open
            return process
    raise AssertionError("the server has not started")


def ask(address, path, body=None):
    request = urllib.request.Request(f"{address}{path}", headers={"content-type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
