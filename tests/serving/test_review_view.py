"""The requests of the Review view: import, filters, edits by two people, queues of the model, sounds and pictures."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info, tone
from spectag.audio.files import read_audio, write_audio
from spectag.audio.spectrogram_tiles import TileScheme, draw_tile
from spectag.config.serving import ServeSettings
from spectag.data.manifest import read_manifest
from spectag.models.bundle import write_info
from spectag.models.novelty import NoveltyInfo
from spectag.serving import create_app
from spectag.serving.application import Application
from spectag.serving.problems import MEDIA_TYPE
from spectag.serving.project.project import open_project

PORT = 8126
VIEW = "/views/review"
N_LABELLED = 24
KINDS = ("low", "middle", "high")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    info = make_info(novelty=NoveltyInfo(n_held_out=3), thresholds=(1e-4, 1e-4, 1e-4))
    folder = make_bundle(tmp_path_factory.mktemp("models") / "model", info)
    write_info(folder, info)  # with the hash of the network
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labelled clips, of which one has a wrong label, a table of them, and a folder without labels."""
    folder = tmp_path_factory.mktemp("data").resolve()
    rng = np.random.default_rng(0)
    rows = ["fname,labels,fold"]
    for number in range(N_LABELLED):
        kind = KINDS[number % 3]
        sound = tone(kind, 1.0) * np.float32(0.8) + np.float32(1e-3) * rng.standard_normal(16_000)
        name = f"Site{number % 2}_20240501_{number % 12:02}0000.wav"
        name = name if number < 12 else f"clip {number}, ä.wav"
        write_audio(folder / name, sound.astype(np.float32), 16_000)
        rows.append(f'"{name}",{"low" if number == 4 else kind},{number % 4}')
    (folder / "clips.csv").write_text("\n".join(rows), "utf-8")
    (folder / "new").mkdir()
    for number, kind in enumerate(KINDS):
        write_audio(folder / "new" / f"{number}.wav", tone(kind, 1.5), 16_000)
    return folder


@pytest.fixture
def client(model, data, tmp_path):
    with client_of(model, data, tmp_path / "project") as client:
        yield client


def client_of(model, data, project, **settings):
    app = create_app(model, ServeSettings(folder=[data], **settings), project=project, workers=1, port=PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False)


def post(client, request, **body):
    answer = client.post(f"{VIEW}/{request}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def state_of(client):
    return client.get(f"{VIEW}/state").json()


def numbers(client, **chosen):
    return post(client, "query", **chosen)["numbers"]


def clip_of(client, number):
    return post(client, "clips", numbers=[number])["clips"][0]


def edit(client, clip, reviewer="Anna", **change):
    return client.post(
        f"{VIEW}/edit",
        json={"clips": [[clip["number"], clip["revision"]]], "change": change, "reviewer": reviewer},
    )


def assert_problem(answer, status, words):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert words in answer.json()["detail"]


def run_job(client, **job):
    """The result of a job."""
    number = post(client, "jobs", **job)["job"]
    end = time.monotonic() + 120
    while (found := client.get(f"/project/jobs/{number}").json())["state"] in ("waiting", "running"):
        assert time.monotonic() < end, found
        time.sleep(0.1)
    assert found["state"] == "done", found
    return found["result"]


def import_table(client, data):
    return post(client, "import", path=str(data / "clips.csv"), reviewer="Anna")


def test_import_of_a_table_and_of_a_folder_without_labels(client, data):
    assert state_of(client)["counts"]["n_all"] == 0
    assert import_table(client, data) == {"added": N_LABELLED, "changed": 0, "same": 0, "notes": []}
    assert post(client, "import", path=str(data / "new"), reviewer="Anna")["added"] == 3
    state = state_of(client)
    assert (state["counts"]["labelled"], state["counts"]["unlabelled"]) == (N_LABELLED, 3)
    assert {one["label"]: one["clips"] for one in state["labels"]} == {"low": 9, "middle": 7, "high": 8}
    assert [site["site"] for site in state["sites"]] == ["Site0", "Site1"]
    assert (state["changed"], state["trained"]) == (N_LABELLED, False)
    assert len(numbers(client, status="unlabelled")) == 3
    assert import_table(client, data)["same"] == N_LABELLED


def test_empty_labels_can_mean_not_labelled_yet(client, data, tmp_path):
    names = sorted(path.name for path in (data / "new").iterdir())
    table = "fname,labels\n" + "".join(f"{name},\n" for name in names)
    for is_unlabelled in ("false", "true"):
        query = f"name=../x.csv&audio_dir={data / 'new'}&empty_is_unlabelled={is_unlabelled}"
        answer = client.post(f"{VIEW}/table?{query}", content=table.encode(), headers={"content-type": "text/csv"})
        assert answer.status_code == 200, answer.text
        if is_unlabelled == "false":
            assert len(numbers(client, status="no label")) == 3
    tables = sorted(path.name for path in (tmp_path / "project" / "tables").iterdir())
    assert tables == ["x 2.csv", "x.csv"], "a check may need the earlier table of this name"
    assert len(numbers(client, status="no label")) == 3, "a label that somebody has given is not taken away"


def test_paths_outside_the_allowed_folders_are_refused(client, data, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    write_audio(outside / "secret.wav", tone("low", 1.0), 16_000)
    (outside / "clips.csv").write_text("fname,labels\nsecret.wav,low\n")
    assert_problem(client.post(f"{VIEW}/import", json={"path": str(outside / "clips.csv")}), 403, "outside the folders")
    table = f"fname,labels\n{outside / 'secret.wav'},low\n".encode()
    assert_problem(client.post(f"{VIEW}/table?name=t.csv", content=table), 403, "outside the folders")
    assert state_of(client)["counts"]["n_all"] == 0
    for path in ("clips/1/sound", "clips/1/thumbnail", "clips/1/facts", "clips/1/wav", "clips/99999999999/sound"):
        assert_problem(client.get(f"{VIEW}/{path}"), 404, "no such clip")


def test_sounds_that_are_not_allowed_any_more_are_not_sent(model, data, tmp_path, monkeypatch):
    with client_of(model, data, tmp_path / "project") as client:
        import_table(client, data)
    (tmp_path / "elsewhere").mkdir()
    with client_of(model, tmp_path / "elsewhere", tmp_path / "project") as client:
        for path in ("sound", "thumbnail", "facts", "tiles/16000/0/0"):
            assert_problem(client.get(f"{VIEW}/clips/1/{path}"), 403, "outside the folders")


def test_a_table_that_cannot_be_read_has_a_reason(client, data, tmp_path):
    answer = client.post(f"{VIEW}/table?name=a.csv", content=b"fname,labels\nnowhere.wav,low\n")
    assert_problem(answer, 422, "files are missing")
    assert list((tmp_path / "project" / "tables").iterdir()) == []
    assert_problem(client.post(f"{VIEW}/import", json={"path": str(data / "nothing.csv")}), 404, "does not exist")
    assert_problem(client.post(f"{VIEW}/import", json={"path": "x", "reviewer": "\n"}), 422, "reviewer")


def test_sounds_tiles_and_thumbnails_are_those_of_the_clip(client, data, tmp_path):
    import_table(client, data)
    path = data / "clip 12, ä.wav"
    [number] = numbers(client, text="clip 12")
    address = f"{VIEW}/clips/{number}"
    sound = client.get(f"{address}/sound", headers={"range": "bytes=0-99"})
    assert (sound.status_code, sound.content, sound.headers["content-type"]) == (
        206,
        path.read_bytes()[:100],
        "audio/x-wav",
    )
    assert "sandbox" in sound.headers["content-security-policy"]
    facts = client.get(f"{address}/facts").json()
    assert (facts["duration"], facts["sample_rate"]) == (1.0, 16_000)
    assert client.get(f"{address}/tiles/16000/0/0").content == draw_tile(path, TileScheme(16_000), 0, 0).tobytes()
    assert_problem(client.get(f"{address}/tiles/16000/0/x"), 422, "")
    for _ in range(2):  # drawn, then kept
        picture = client.get(f"{address}/thumbnail")
        assert Image.open(io.BytesIO(picture.content)).size == (320, 112)
    assert len(list((tmp_path / "project" / ".cache" / "thumbnails").rglob("*.jpg"))) == 1
    (tmp_path / "wav.wav").write_bytes(client.get(f"{address}/wav").content)
    np.testing.assert_allclose(read_audio(tmp_path / "wav.wav")[0], read_audio(path)[0], atol=2e-4)


def test_the_same_number_in_another_project_has_its_own_sound_and_picture(model, data, tmp_path):
    tables, pictures, sounds = [], [], []
    for kind in ("low", "high"):
        write_audio(tmp_path / f"{kind}.wav", tone(kind, 1.0), 16_000)
        tables.append(tmp_path / f"{kind}.csv")
        tables[-1].write_text(f"fname,labels\n{kind}.wav,{kind}\n")
    server = Application(ServeSettings(folder=[tmp_path]), 1, PORT)
    server.open_now(model, tmp_path / "one")
    address = f"{VIEW}/clips/1"
    with TestClient(server.guarded, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False) as client:
        for table in tables:
            post(client, "import", path=str(table))
            pictures.append([client.get(f"{address}/{name}") for name in ("thumbnail", "tiles/16000/0/0")])
            sounds.append(client.get(f"{address}/wav").content)
            for name, picture in zip(("thumbnail", "tiles/16000/0/0"), pictures[0], strict=True):
                again = client.get(f"{address}/{name}", headers={"if-none-match": picture.headers["etag"]})
                assert picture.headers["cache-control"] == "private, no-cache"
                assert again.status_code == (304 if len(sounds) == 1 else 200)
            client.portal.call(lambda: server.open(model=model, project=tmp_path / "two"))
    assert sounds[0] != sounds[1]


def test_edits_undo_and_the_conflict_of_two_people(client, data, tmp_path):
    import_table(client, data)
    first = clip_of(client, 1)
    answer = edit(client, first, labels=["Dog"], confirmed=True).json()
    assert (answer["clips"][0]["labels"], answer["clips"][0]["revision"]) == (["Dog"], 2)
    refused = edit(client, first, reviewer="Ben", add=["Cat"])
    assert_problem(refused, 409, "somebody else has changed")
    assert refused.json()["clips"][0]["labels"] == ["Dog"], "the clip as it is now"
    assert clip_of(client, 1)["labels"] == ["Dog"]
    now = refused.json()["clips"][0]
    assert edit(client, now, reviewer="Ben", add=["Cat"]).json()["clips"][0]["labels"] == ["Dog", "Cat"]
    steps = client.get(f"{VIEW}/history?clip=1").json()
    assert [(step["reviewer"], step["after"]["labels"]) for step in steps] == [
        ("Ben", ["Dog", "Cat"]),
        ("Anna", ["Dog"]),
    ]
    assert_problem(client.post(f"{VIEW}/undo", json={"reviewer": "Anna"}), 409, "somebody else")
    assert post(client, "undo", reviewer="Ben")["clips"][0]["labels"] == ["Dog"]
    assert post(client, "undo", reviewer="Anna")["clips"][0]["labels"] == ["low"]
    assert_problem(client.post(f"{VIEW}/undo", json={"reviewer": "Nobody"}), 422, "nothing to undo")
    assert numbers(client, status="dropped") == []
    edit(client, clip_of(client, 2), dropped=True)
    assert numbers(client, status="dropped") == [2]
    wait_for_table(tmp_path, lambda clips: len(clips) == N_LABELLED - 1)


def wait_for_table(folder, is_right):
    """Wait until labels.csv is written, which is a second after an edit."""
    path = folder / "project" / "labels.csv"
    end = time.monotonic() + 30
    while not (path.exists() and is_right(read_manifest(path).clips)):
        assert time.monotonic() < end, path.read_text("utf-8")
        time.sleep(0.1)


def test_a_batch_is_changed_completely_or_not_at_all(client, data):
    import_table(client, data)
    seen = [[number, 1] for number in range(1, 11)]
    edit(client, clip_of(client, 7), reviewer="Ben", add=["Cat"])
    refused = client.post(f"{VIEW}/edit", json={"clips": seen, "change": {"add": ["Owl"]}})
    assert [clip["number"] for clip in refused.json()["clips"]] == [7]
    assert numbers(client, label="Owl") == []
    seen[6][1] = 2
    assert post(client, "edit", clips=seen, change={"add": ["Owl"]}, reviewer="Anna")["n"] == 10
    assert numbers(client, label="Owl") == list(range(1, 11))
    post(client, "undo", reviewer="Anna")
    assert numbers(client, label="Owl") == []


def test_parts_unknown_labels_and_new_labels(client, data):
    import_table(client, data)
    part = post(client, "parts", clip=3, start=0.25, end=0.75, labels=["Owl"], reviewer="Anna")["clips"][0]
    assert (part["start"], part["end"], part["labels"], part["fold"]) == (0.25, 0.75, ["Owl"], "2")
    assert_problem(client.post(f"{VIEW}/parts", json={"clip": 3, "start": 0.25, "end": 0.75}), 422, "already")
    edit(client, clip_of(client, 5), mark_unknown=["middle"])
    assert numbers(client, status="unknown") == [5]
    assert post(client, "labels", name=" Fox ")["label"] == "Fox"
    assert {"Fox", "Owl"} <= {one["label"] for one in state_of(client)["labels"]}
    for body in ({"name": ""}, {"name": "a\nb"}):
        assert client.post(f"{VIEW}/labels", json=body).status_code == 422
    assert_problem(edit(client, clip_of(client, 5), add=["a\x00b"]), 422, "control character")
    assert client.post(f"{VIEW}/edit", json={"clips": [[99, 1]], "change": {"confirmed": True}}).status_code == 422


def test_filters_by_site_time_and_name(client, data):
    import_table(client, data)
    assert len(numbers(client, site="Site1")) == 6
    assert len(numbers(client, first_day="2024-05-01", last_day="2024-05-01")) == 12
    assert numbers(client, first_day="2024-05-02") == []
    assert len(numbers(client, first_hour=10, last_hour=1)) == 4
    assert len(numbers(client, first_hour=0, last_hour=1)) == 2
    assert len(numbers(client, label="high", site="Site1")) == 2
    assert len(numbers(client, text="CLIP 1")) == 8
    assert_problem(client.post(f"{VIEW}/query", json={"queue": "similar"}), 422, "similar")
    assert_problem(client.post(f"{VIEW}/query", json={"order": "1; DROP TABLE clip"}), 422, "order")
    assert numbers(client, label="' OR 1=1 --") == []


@pytest.fixture(scope="module")
def reviewed(model, data, tmp_path_factory):
    """A client of a project whose clips the model has reviewed, and the results of its jobs."""
    write_audio(data / "copy.wav", 0.5 * read_audio(data / "clip 13, ä.wav")[0], 16_000)
    with client_of(model, data, tmp_path_factory.mktemp("reviewed") / "project") as client:
        import_table(client, data)
        client.post(f"{VIEW}/table?name=copy.csv&audio_dir={data}", content=b"fname,labels\ncopy.wav,middle\n")
        post(client, "import", path=str(data / "new"), reviewer="Anna")
        yield client, run_job(client, kind="review"), run_job(client, kind="suggest", n=2)


def test_the_model_finds_the_wrong_label_and_its_suggestion_is_accepted(reviewed):
    client, result, _ = reviewed
    assert result["clips"] == N_LABELLED + 4
    first = numbers(client, queue="suspects")[0]
    clip = clip_of(client, first)
    assert (first, clip["labels"], clip["model"]["suggested"]) == (5, ["low"], ["middle"])
    assert clip["model"]["kind"] == "swapped label"
    edit(client, clip, labels=clip["model"]["suggested"], confirmed=True)
    assert first not in numbers(client, queue="suspects")
    post(client, "undo", reviewer="Anna")
    assert numbers(client, queue="suspects")[0] == first


def test_copies_are_in_the_queue_of_duplicates(reviewed):
    client, _, _ = reviewed
    [copy] = numbers(client, text="copy")
    assert copy in numbers(client, queue="duplicates")
    model = clip_of(client, copy)["model"]
    assert model["original"] in range(1, N_LABELLED + 1)
    assert "/" not in model["note"], "no folders of the computer"


def test_probabilities_novelty_and_similar_clips(reviewed):
    client, _, _ = reviewed
    likely = numbers(client, candidate="high", min_probability=0.0, order="probability")
    chances = {one["label"]: one["probability"] for one in clip_of(client, likely[0])["model"]["probabilities"]}
    assert max(chances, key=chances.get) == "high"
    threshold = chances["high"]
    assert likely[0] in numbers(client, candidate="high", min_probability=threshold)
    lower = numbers(client, candidate="high", max_probability=threshold / 2)
    assert set(lower) < set(likely[1:])
    assert clip_of(client, lower[0])["model"]["probabilities"][0]["label"] != "high"
    novel = numbers(client, order="novelty")
    values = [clip_of(client, number)["model"]["novelty"] for number in novel]
    assert values == sorted(values, reverse=True)
    assert state_of(client)["predictions"]["novelty"] is True
    assert len(numbers(client, min_novelty=values[2])) >= 3
    similar = numbers(client, queue="similar", similar_to=3)
    assert similar[0] == 3
    assert all(clip_of(client, number)["labels"] in (["high"], []) for number in similar[:5])


def test_suggestions_are_unlabelled_clips(reviewed):
    client, _, result = reviewed
    suggested = numbers(client, queue="suggestions")
    assert result["clips"] == len(suggested) > 0
    assert set(suggested) <= set(numbers(client, status="unlabelled"))
    assert clip_of(client, suggested[0])["model"]["why"]


def test_new_thresholds_keep_what_the_same_networks_have_found(reviewed):
    client, _, _ = reviewed
    before, suspects, clip = state_of(client), numbers(client, queue="suspects"), clip_of(client, 3)
    assert client.post("/views/model/thresholds", json={"thresholds": {"low": 0.6}}).status_code == 200
    after = state_of(client)
    assert after["version"] > before["version"]
    assert (after["predictions"], after["queues"]) == (before["predictions"], before["queues"])
    assert numbers(client, queue="suspects") == suspects
    assert clip_of(client, 3) == clip
    assert numbers(client, queue="similar", similar_to=3)[0] == 3


def test_a_model_that_knows_none_of_the_labels_still_finds_similar_clips(client, data):
    write_audio(data / "sub.wav", tone("low", 1.0), 16_000)
    post(client, "import", path=str(data / "new"), reviewer="Anna")
    edit(client, clip_of(client, 1), add=["Owl"])
    assert run_job(client, kind="review")["clips"] == 3
    assert numbers(client, queue="suspects") == []
    assert len(numbers(client, queue="similar", similar_to=1)) == 3


def test_a_change_of_the_table_by_another_program_is_told(client, data, tmp_path):
    import_table(client, data)
    wait_for_table(tmp_path, lambda clips: len(clips) == N_LABELLED)
    table = tmp_path / "project" / "labels.csv"
    table.write_text(table.read_text("utf-8").replace(",low,", ",Owl,"), "utf-8")
    assert state_of(client)["table"]["changes"] == {"n_changed": 9, "n_added": 0, "n_dropped": 0}
    assert len(numbers(client, label="Owl")) == 9
    table.write_text("nonsense", "utf-8")
    assert "can't be read" in state_of(client)["table"]["problem"]
    assert client.post(f"{VIEW}/overwrite").status_code == 204
    assert state_of(client)["table"]["problem"] == ""


def test_a_killed_server_loses_no_confirmed_edit(model, data, tmp_path):
    project = tmp_path / "project"
    script = "import sys; from spectag.config.serving import ServeSettings; from spectag.serving.server import serve; "
    script += "model, project, data = sys.argv[1:]; from pathlib import Path; "
    script += "serve(model, ServeSettings(port=0, folder=[Path(data)]), project=project, workers=1, log=print)"
    command = [sys.executable, "-c", script, model, project, data]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL, "text": True}
    confirmed = {}
    with subprocess.Popen([*map(str, command)], env=os.environ | {"PYTHONUNBUFFERED": "1"}, **streams) as process:
        address = re.search(r"http://\S+:\d+", process.stdout.readline())[0]
        _send(address, "import", {"path": str(data / "clips.csv")})
        killer = threading.Timer(1.5, os.kill, (process.pid, signal.SIGKILL))
        killer.start()
        with suppress(OSError, http.client.HTTPException):  # the server is gone
            for revision in range(1, 10_000):
                for number in range(1, 1 + N_LABELLED):
                    change = {"clips": [[number, revision]], "change": {"labels": [f"{number} at {revision}"]}}
                    confirmed[number] = _send(address, "edit", change)["clips"][0]
        killer.join()
        process.wait(20)
    assert len(confirmed) == N_LABELLED
    with open_project(project) as opened:
        clips = {number: opened.labels.clip(number) for number in confirmed}
        assert [row[0] for row in opened.database.rows("PRAGMA integrity_check")] == ["ok"]
        by_name = {clip.fname: clip for clip in read_manifest(opened.labels.manifest_path()).clips}
    newer = 0
    for number, clip in clips.items():
        newer += clip.revision > confirmed[number]["revision"]  # an edit whose answer did not arrive any more
        assert clip.state.labels == (f"{number} at {clip.revision - 1}",)
        assert by_name[str(clip.path)].labels == clip.state.labels
        assert clip.revision >= confirmed[number]["revision"]
    assert newer <= 1


def _send(address, path, body):
    request = urllib.request.Request(
        f"{address}{VIEW}/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
