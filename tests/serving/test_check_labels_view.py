"""The labels of a check: which of a table are drawn, and decisions that become labels of the project."""

import time

import pytest
from starlette.testclient import TestClient

from helpers.bundles import make_bundle
from helpers.checks import write_recordings
from spectag.config.findings import CheckSettings
from spectag.config.serving import ServeSettings
from spectag.data.checked_detections import read_decisions
from spectag.findings.check_session import open_check
from spectag.serving import create_app

PORT = 8127
CHECKS = "/views/check/checks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("check")


@pytest.fixture(scope="module")
def client(folder):
    app = create_app(make_bundle(folder / "model"), ServeSettings(), project=folder / "project", workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def table(client, folder):
    return write_recordings(folder / "project" / "runs" / "0001", n_days=3)


def test_labels_of_a_table_are_counted(client, folder, table):
    counted = client.get("/views/check/tables/labels", params={"path": str(table)})
    assert counted.status_code == 200, counted.text
    expected = {"low": 42, "middle": 42, "high": 36}  # a label each second, in 6 recordings of 20 s
    assert counted.json()["labels"] == [{"label": label, "detections": n} for label, n in expected.items()]
    probable = client.get("/views/check/tables/labels", params={"path": str(table), "min_probability": "0.9"})
    assert probable.json()["labels"] == [{"label": "middle", "detections": 6}], "the last second of each recording"
    outside = client.get("/views/check/tables/labels", params={"path": str(folder / "outside.csv")})
    assert outside.status_code in (403, 404)


def test_sample_is_drawn_only_for_the_chosen_labels(client, folder, table):
    body = {"name": "two", "table": str(table), "per_label": 4, "labels": ["high", "low"]}
    made = client.post(CHECKS, json=body)
    assert made.status_code == 200, made.text
    assert [label["label"] for label in made.json()["labels"]] == ["low", "high"], "most detections first"
    drawn = folder / "project" / "checks" / "two"
    assert {row.label for row in read_decisions(drawn / "decisions.csv")} == {"high", "low"}
    with open_check(folder / "model", table, drawn, CheckSettings()) as session:
        assert len(session.rows) == 8, "the command continues the check"


@pytest.mark.parametrize(("labels", "words"), [([], "labels"), (["owl"], "no detections within these limits")])
def test_checks_of_no_label_are_refused(client, folder, table, labels, words):
    answer = client.post(CHECKS, json={"name": "none", "table": str(table), "labels": labels})
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
    assert not (folder / "project" / "checks" / "none").exists()


def decide(client, name, decisions):
    for index, decision in enumerate(decisions):
        check = client.get(f"{CHECKS}/{name}").json()
        body = {"index": index, "decision": decision, "since": check["revision"], "session": check["session"]}
        assert client.post(f"{CHECKS}/{name}/decisions", json=body).status_code == 200


def cut(client, name):
    """The number of a job that has cut the clips."""
    answer = client.post(f"{CHECKS}/{name}/clips")
    assert answer.status_code == 200, answer.text
    number, end = answer.json()["job"], time.monotonic() + 60
    while (job := client.get(f"/project/jobs/{number}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    assert job["state"] == "done", job
    return number


def test_decisions_become_labels_of_the_project(client, folder, table):
    client.post(CHECKS, json={"name": "used", "table": str(table), "per_label": 3, "labels": ["low", "high"]})
    refused = client.post(f"{CHECKS}/used/clips")
    assert (refused.status_code, "yes or no" in refused.json()["detail"]) == (422, True)
    decide(client, "used", ["yes", "no", "unsure", "yes"])
    number = cut(client, "used")
    added = client.post(f"{CHECKS}/used/labels", json={"job": number})
    assert added.status_code == 200, added.text
    assert added.json() == {"added": 3, "changed": 0, "same": 0, "skipped": 0}
    rows = read_decisions(folder / "project" / "checks" / "used" / "decisions.csv")
    with (folder / "project" / "checks" / "used" / "clips" / "clips.csv").open(encoding="utf-8") as file:
        assert len(file.readlines()) == 4
    counts = {label["label"]: label["clips"] for label in client.get("/views/review/state").json()["labels"]}
    confirmed = [row.label for row in rows if row.decision == "yes"]
    assert counts[confirmed[0]] == confirmed.count(confirmed[0])
    again = client.post(f"{CHECKS}/used/labels", json={"job": number}).json()
    assert again == {"added": 0, "changed": 0, "same": 3, "skipped": 0}
    assert client.post(f"{CHECKS}/used/labels", json={"job": 999}).status_code == 404


def test_clips_are_not_cut_out_of_recordings_that_the_page_may_not_read(client, folder, tmp_path):
    outside = write_recordings(tmp_path / "outside")
    rows = (
        outside.read_text("utf-8")
        .replace("pond_", f"{outside.parent}/pond_")
        .replace("ridge_", f"{outside.parent}/ridge_")
    )
    sly = folder / "project" / "sly.csv"
    sly.write_text(rows, "utf-8")
    assert client.post(CHECKS, json={"name": "sly", "table": str(sly), "per_label": 1}).status_code == 200
    decide(client, "sly", ["yes"])
    assert client.post(f"{CHECKS}/sly/clips").status_code == 403
