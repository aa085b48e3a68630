"""The map of clips: where clips are placed, how predictions differ from labels, and requests of the Explore view."""

import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.config.serving import ServeSettings
from spectag.curation.embedding import unit_vectors
from spectag.errors import DataError
from spectag.models.bundle import write_info
from spectag.serving import create_app
from spectag.serving.problems import MEDIA_TYPE
from spectag.serving.project import clip_map
from spectag.serving.project.clip_map import ClipMap, disagreements, map_path
from spectag.serving.project.job_kinds import JOB_KINDS, imported_function
from spectag.serving.project.label_clips import ClipState, LabelledClip
from spectag.serving.project.label_rows import FoundClip
from spectag.serving.project.map_layout import map_places, principal_components
from spectag.serving.project.project import open_project

PORT = 8133
EXPLORE = "/views/explore"
LABELS = ("low", "middle", "high")


def clusters(rng, *, n_each=40, n_clusters=3):
    """Unit vectors of sounds of some kinds, and the kind of each."""
    centres = rng.normal(size=(n_clusters, 16))
    kinds = np.repeat(np.arange(n_clusters), n_each)
    return unit_vectors(centres[kinds] + 0.1 * rng.normal(size=(len(kinds), 16))), kinds


def separation(places, kinds):
    """The share of sounds whose nearest neighbour on the map is of their kind."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return (kinds[distances.argmin(axis=1)] == kinds).mean()


def test_similar_sounds_are_near_each_other(rng):
    vectors, kinds = clusters(rng)
    places, method = map_places(vectors, rng=rng)
    assert method == "t-SNE"
    assert separation(places, kinds) == 1
    assert places.min() >= 0
    assert places.max() <= 1
    assert (places.max(axis=0) - places.min(axis=0)).max() == pytest.approx(1)


def test_places_do_not_depend_on_the_run(rng):
    vectors, _ = clusters(rng, n_each=10)
    first, _ = map_places(vectors, rng=np.random.default_rng(0))
    second, _ = map_places(vectors, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(first, second)


def test_sounds_that_are_not_fitted_come_to_similar_ones(rng):
    vectors, kinds = clusters(rng)
    places, _ = map_places(vectors, rng=rng, max_fitted=60)
    assert separation(places, kinds) == 1


def test_principal_components_are_used_without_scikit_learn(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    vectors, kinds = clusters(rng)
    places, method = map_places(vectors, rng=rng)
    assert (method, separation(places, kinds)) == ("PCA", 1)


def test_principal_components_are_those_of_the_singular_value_decomposition(rng):
    rows = rng.normal(size=(30, 6)).astype(np.float32)
    centred = rows - rows.mean(axis=0)
    expected = np.linalg.svd(centred, full_matrices=False)[2][:2] @ centred.T
    np.testing.assert_allclose(np.abs(principal_components(rows)), np.abs(expected.T), atol=1e-5)


@pytest.mark.parametrize("n_sounds", [1, 2, 12])
def test_sounds_that_do_not_differ_are_in_the_middle(n_sounds, rng):
    places, method = map_places(np.ones((n_sounds, 4), np.float32) / 2, rng=rng)
    assert method == "PCA"
    np.testing.assert_array_equal(places, np.full((n_sounds, 2), 0.5))


def test_vectors_of_one_dimension_are_on_a_line(rng):
    places, _ = map_places(np.array([[1.0], [-1.0], [1.0]], np.float32), rng=rng)
    np.testing.assert_allclose(places, [[1, 0.5], [0, 0.5], [1, 0.5]])


def drawn_map(probabilities, *, is_held_out=True, threshold=0.5):
    values = np.array(probabilities, np.float16)
    n_clips = len(values)
    places = np.zeros((n_clips, 2), np.float32)
    return ClipMap(
        "PCA", LABELS, np.arange(1, n_clips + 1), places, values, values >= threshold, np.full(n_clips, is_held_out)
    )


def clip_of(number, *labels, **state):
    return LabelledClip(number, 1, Path("/a.wav"), "a.wav", 0.0, None, "", "", "", ClipState(labels, **state))


def kinds_of(drawn, *clips, labels=LABELS):
    found = disagreements({one.number: one for one in clips}, drawn, labels)
    return [(one.kind, one.label, one.probability) for one in found]


def test_disagreements_are_the_largest_differences_of_known_labels():
    drawn = drawn_map([[0.9, 0.1, 0.8], [0.9, 0.1, 0.8], [0.9, 0.1, 0.8], [0.9, 0.1, 0.8]])
    clips = (
        clip_of(1, "low", "high"),
        clip_of(2, "low", "middle"),
        clip_of(3, "low"),
        clip_of(4, "low", "bird", unknown=("high",)),
    )
    assert kinds_of(drawn, *clips) == [
        ("agrees", "", None),
        ("missed", "middle", pytest.approx(0.1, abs=1e-3)),
        ("extra", "high", pytest.approx(0.8, abs=1e-3)),
        ("agrees", "", None),
    ]
    assert kinds_of(drawn, clip_of(3, "low"), labels=("low",))[2][0] == "agrees"


def test_nothing_is_said_of_clips_without_labels_or_in_training():
    unlabelled = clip_of(1, is_labelled=False)
    assert [kind for kind, *_ in kinds_of(drawn_map([[0.9, 0.1, 0.8]] * 2), unlabelled)] == ["unknown", "unknown"]
    assert kinds_of(drawn_map([[0.9, 0.1, 0.8]], is_held_out=False), clip_of(1, "low"))[0][0] == "unknown"


def test_map_survives_its_file_and_damage_is_refused(tmp_path):
    path = tmp_path / "maps" / "0001.npz"
    drawn = drawn_map([[0.9, 0.1, 0.8], [0.2, 0.6, 0.4]])
    drawn.write(path)
    read = ClipMap.read(path)
    assert (read.method, read.labels) == ("PCA", LABELS)
    for name in ("numbers", "places", "probabilities", "detected", "is_held_out"):
        np.testing.assert_array_equal(getattr(read, name), getattr(drawn, name))
    for values in ([[np.nan, 0.1, 0.8]], [[0.9, 0.1]]):
        replace(drawn_map([[0.9, 0.1, 0.8]]), probabilities=np.array(values, np.float16)).write(path)
        with pytest.raises(DataError, match=r"damaged.*draw the map again"):
            ClipMap.read(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"damaged.*draw the map again"):
        ClipMap.read(path)


N_CLIPS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    info = make_info(thresholds=(1e-4, 1e-4, 1e-4))
    folder = make_bundle(tmp_path_factory.mktemp("models") / "model", info)
    write_info(folder, info)  # with the hash of the network
    return folder


@pytest.fixture
def project(tmp_path, model):
    """A project with labelled clips, one of which can't be read, and one that is dropped."""
    folder = tmp_path / "project"
    sounds = folder / "sounds"
    with open_project(folder) as project:
        sounds.mkdir()
        project.versions.add_copy(model)
        found = []
        for number in range(N_CLIPS):
            label = LABELS[number % 3]
            path = sounds / f"meadow_20240501_{number:02}3000.wav"
            write_audio(path, tone(label, 1.0), 16_000)
            found.append(FoundClip(str(path), path.name, 0.0, None, ClipState((label,))))
        (sounds / "broken.wav").write_bytes(b"RIFF" + bytes(100))
        found.append(FoundClip(str(sounds / "broken.wav"), "broken.wav", 0.0, None, ClipState(("low",))))
        project.labels.add_clips(found, LABELS, reviewer="")
    return folder


@contextmanager
def client_of(project):
    app = create_app(None, ServeSettings(), project=project, workers=1, port=PORT)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", raise_server_exceptions=False) as client:
        yield client


def drawn(client, seconds=60):
    """The answer about the map, when it is drawn."""
    assert client.post(f"{EXPLORE}/map").status_code == 202
    end = time.monotonic() + seconds
    while True:
        answer = client.get(f"{EXPLORE}/map").json()
        if answer["job"]["state"] not in ("waiting", "running"):
            assert answer["job"]["state"] == "done", answer["job"]
            return answer
        assert time.monotonic() < end, answer
        time.sleep(0.1)


def assert_problem(answer, status, words):
    assert (answer.status_code, answer.headers["content-type"]) == (status, MEDIA_TYPE), answer.text
    assert words in answer.json()["detail"]


def test_map_is_drawn_by_a_job_and_follows_the_labels(project):
    with client_of(project) as client:
        before = client.get(f"{EXPLORE}/map").json()
        assert (before["n_clips"], before["map"], before["job"]) == (N_CLIPS + 1, None, None)
        answer = drawn(client)
        found = answer["map"]
        assert (len(found["numbers"]), found["n_new"]) == (N_CLIPS, 1)
        assert found["label_names"] == sorted(LABELS)
        assert {len(found[name]) for name in found if isinstance(found[name], list) and name != "label_names"} == {
            N_CLIPS
        }
        assert found["sites"][0] == "meadow"
        assert found["recorded"][1] == "2024-05-01T01:30:00"
        kinds = np.array([labels[0] for labels in found["labels"]])
        assert separation(np.column_stack([found["x"], found["y"]]), kinds) == 1
        assert {kind for kind, *_ in found["errors"]} <= {"agrees", "extra", "missed"}
        job = client.get("/project/jobs/1").json()
        assert job["kind"] == "map"
        assert any("broken.wav" in line for line in job["log"])
        seen = [[found["numbers"][0], found["revisions"][0]], [found["numbers"][1], found["revisions"][1]]]
        edit = {"clips": seen, "label": "rain", "action": "add", "reviewer": "me"}
        changed = client.post(f"{EXPLORE}/edit", json=edit).json()["clips"]
        assert [clip["labels"] for clip in changed] == [["low", "rain"], ["middle", "rain"]]
        after = client.get(f"{EXPLORE}/map").json()["map"]
        assert [clip["error"] for clip in changed] == after["errors"][:2]
        assert [clip["revision"] for clip in changed] == after["revisions"][:2]
        assert "rain" in after["label_names"]
        assert after["revisions"][0] > found["revisions"][0]
        assert_problem(client.post(f"{EXPLORE}/edit", json=edit | {"action": "remove"}), 409, "2 clips were changed")
        undone = client.post(f"{EXPLORE}/undo", json={"reviewer": "me"}).json()["clips"]
        assert [clip["labels"] for clip in undone] == [["low"], ["middle"]]
        assert_problem(client.post(f"{EXPLORE}/undo", json={"reviewer": "nobody"}), 409, "")


def test_new_thresholds_keep_the_map_of_the_same_networks(project):
    with client_of(project) as client:
        before = drawn(client)["map"]
        assert client.post("/views/model/thresholds", json={"thresholds": {"low": 1.0}}).status_code == 200
        after = client.get(f"{EXPLORE}/map").json()["map"]
        assert (after["x"], after["y"], after["numbers"]) == (before["x"], before["y"], before["numbers"])
        low = [row for row, clip in enumerate(after["labels"]) if after["label_names"][clip[0]] == "low"]
        assert low
        assert {after["errors"][row][0] for row in low} == {"missed"}, "detected with the new thresholds"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"label": ""}, 422),
        ({"label": "a\nb"}, 422),
        ({"clips": []}, 422),
        ({"clips": [[999, 1]]}, 422),
        ({"action": "drop"}, 422),
    ],
)
def test_wrong_edits_are_refused(project, changes, status):
    edit = {"clips": [[1, 1]], "label": "rain", "action": "add"} | changes
    with client_of(project) as client:
        assert client.post(f"{EXPLORE}/edit", json=edit).status_code == status


def test_card_has_the_spectrogram_and_the_sound(project):
    with client_of(project) as client:
        card = client.get(f"{EXPLORE}/clips/1/card").json()
        assert card["figure"]["image"].startswith("data:image/")
        assert card["sound"].startswith("data:audio/")
        assert client.get(f"{EXPLORE}/clips/{N_CLIPS + 1}/card").json()["problem"]
        assert_problem(client.get(f"{EXPLORE}/clips/999/card"), 404, "no such clip")


def test_sounds_outside_the_folders_are_not_played(project, tmp_path):
    outside = tmp_path / "outside.wav"
    write_audio(outside, tone("low", 1.0), 16_000)
    with open_project(project) as opened:
        found = FoundClip(str(outside), "outside.wav", 0.0, None, ClipState(("low",)))
        opened.labels.add_clips([found], LABELS, reviewer="")
    with client_of(project) as client:
        assert_problem(client.get(f"{EXPLORE}/clips/{N_CLIPS + 2}/card"), 403, "outside the folders")


def test_project_without_clips_fails_with_what_to_do(tmp_path, model):
    with open_project(tmp_path / "empty") as project:
        project.versions.add_copy(model)
    with client_of(tmp_path / "empty") as client:
        assert client.get(f"{EXPLORE}/map").json()["n_clips"] == 0
        number = client.post(f"{EXPLORE}/map").json()["number"]
        end = time.monotonic() + 60
        while (job := client.get(f"/project/jobs/{number}").json())["state"] in ("waiting", "running"):
            assert time.monotonic() < end
            time.sleep(0.1)
    assert (job["state"], "import labels" in job["problem"]) == ("failed", True)


def test_damaged_map_says_that_it_can_be_drawn_again(project):
    path = map_path(project, 1)
    path.parent.mkdir()
    path.write_bytes(b"PK")
    with client_of(project) as client:
        answer = client.get(f"{EXPLORE}/map").json()
        assert "draw the map again" in answer["problem"]
        assert drawn(client)["map"]["numbers"]


def test_kind_has_its_function():
    assert imported_function(JOB_KINDS[clip_map.KIND]) is clip_map.draw_map
