"""Models on the Hugging Face Hub: pushed to and loaded from a local server that speaks the hub's API."""

import json
import subprocess
import sys

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants

import spectag
from helpers.bundles import MEL, MEL_32K, make_bundle, make_ensemble, make_ensemble_info, make_info, tone
from helpers.command import run_without
from helpers.frames import make_frames_bundle
from helpers.hub_server import TOKEN, HubServer
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.errors import BundleError
from spectag.models.bundle import write_info
from spectag.models.frames_info import FRAMES_FILE
from spectag.models.hub import HubName, hub_folder
from spectag.models.limits import MAX_MEMBERS
from spectag.system.cache_content import cached_files

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub in httpx

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub that this process knows as the hub, with a cache of its own."""
    server = HubServer()
    monkeypatch.setenv("SPECTAG_CACHE", str(tmp_path / "cäche"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    yield server
    server.close()


@pytest.fixture
def model(tmp_path):
    """A model folder, also with files that are none of the model's."""
    folder = make_bundle(tmp_path / "ein Modell")
    write_info(folder, make_info())  # now with the SHA-256 of the network
    (folder / "predictions.csv").write_text("fname,start,end,fold,group,labels,key,low,middle,high\n")
    (folder / "recipe.toml").write_text("seed = 3\n")
    (folder / "run.py").write_text("raise SystemExit")
    (folder / "weights.pkl").write_bytes(b"\x80\x04.")
    (folder / "notes").mkdir()
    (folder / "notes" / "model.onnx").write_bytes(b"")
    return folder


def bundle_files(tmp_path, name="source", **changes):
    """The files of a model, as a repository has them."""
    folder = make_bundle(tmp_path / name)
    write_info(folder, make_info(**changes))  # now with the SHA-256 of the network
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


# ------------------------------------------------------------------------------------------------ push


def test_pushed_model_tags_as_the_model_in_the_folder(server, model, tmp_path):
    write_audio(tmp_path / "a.wav", tone("middle", 0.5), 16_000)
    pushed = spectag.push(model, "hf:me/my-model")
    tags = [spectag.load(name).tag(tmp_path / "a.wav") for name in (model, "hf:me/my-model", pushed.name)]
    assert pushed.name == f"hf:me/my-model@{server.hash_of('me/my-model', -1)}"
    assert pushed.url == f"{server.url}/me/my-model"
    np.testing.assert_array_equal(tags[0].probabilities, tags[1].probabilities)
    np.testing.assert_array_equal(tags[0].probabilities, tags[2].probabilities)


def test_only_files_of_the_model_are_pushed(server, model):
    pushed = spectag.push(model, "hf:me/my-model")
    own = {"README.md", "model.onnx", "predictions.csv", "recipe.toml", "spectag.json"}
    assert set(pushed.files) == own
    assert set(server.commits["me/my-model"][-1]) == own | {".gitattributes"}
    for name in own - {"README.md"}:
        assert server.commits["me/my-model"][-1][name] == (model / name).read_bytes()


def test_predictions_can_be_left_out_and_are_then_removed_from_the_hub(server, model):
    spectag.push(model, "hf:me/my-model")
    spectag.push(model, "hf:me/my-model", predictions=False)
    assert "predictions.csv" in server.commits["me/my-model"][-2]
    assert "predictions.csv" not in server.commits["me/my-model"][-1]
    assert ".gitattributes" in server.commits["me/my-model"][-1]  # not ours


def test_members_of_an_ensemble_are_pushed_and_loaded(server, tmp_path):
    write_audio(tmp_path / "a.wav", tone("low", 0.5), 16_000)
    info = make_ensemble_info((FrontEnd(mel=MEL), FrontEnd(mel=MEL_32K)), (0.5, 0.5))
    folder = make_ensemble(tmp_path / "ensemble", info)
    pushed = spectag.push(folder, "hf:me/both")
    assert {"members/1/model.onnx", "members/2/model.onnx"} <= set(pushed.files)
    loaded = spectag.load("hf:me/both").tag(tmp_path / "a.wav")
    np.testing.assert_array_equal(loaded.probabilities, spectag.load(folder).tag(tmp_path / "a.wav").probabilities)


def test_frames_are_pushed_and_loaded_and_damaged_ones_are_not_pushed(server, tmp_path):
    folder = make_frames_bundle(tmp_path / "frames")
    pushed = spectag.push(folder, "hf:me/frames")
    assert FRAMES_FILE in pushed.files
    sound = tone("low", 2.0), 16_000
    by_folder, by_hub = (spectag.load(name).segments(*sound).timeline for name in (folder, "hf:me/frames"))
    assert by_hub.frames is not None
    np.testing.assert_array_equal(by_folder.probabilities, by_hub.probabilities)
    (folder / FRAMES_FILE).write_bytes(b"something else")
    with pytest.raises(BundleError, match="not the file that belongs to this model"):
        spectag.push(folder, "hf:me/frames")


def test_card_has_the_header_of_the_hub_and_the_name_there(server, model):
    (model / "README.md").write_text(
        "---\nlibrary_name: spectag\ntags: [birds]\n---\n\n# My model\n\n"
        "```\nspectag tag 'ein Modell' recording.wav\n```\n\nThe clips are CC BY.\n",
        encoding="utf-8",
    )
    spectag.push(model, "hf:me/my-model", license="cc-by-4.0")
    card = huggingface_hub.ModelCard(server.commits["me/my-model"][-1]["README.md"].decode())
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "spectag"
    assert card.data.pipeline_tag == "audio-classification"
    assert card.data.tags == ["birds", "spectag", "audio-tagging", "multi-label", "onnx"]
    assert "spectag tag hf:me/my-model recording.wav" in card.text
    assert "The clips are CC BY." in card.text


def test_missing_licence_is_said(server, model):
    lines = []
    spectag.push(model, "hf:me/my-model", log=lines.append)
    assert any("states no licence" in line and "--license" in line for line in lines)


def test_repository_can_be_private(server, model):
    spectag.push(model, "hf:me/secret", private=True)
    spectag.push(model, "hf:me/open")
    assert server.private == {"me/secret"}


def test_damaged_model_is_not_pushed(server, model):
    (model / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.onnx: not the file that belongs to this model"):
        spectag.push(model, "hf:me/my-model")
    assert server.requests == []


def test_push_without_a_token_says_how_to_log_in(server, model, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(BundleError, match=r"^hf:me/my-model: .*`hf auth login`, or set HF_TOKEN$"):
        spectag.push(model, "hf:me/my-model")


@pytest.mark.parametrize("to", ["me/my-model", "hf:my-model", "hf:me/my model", "hf:me/a/b", "hf:me/m@"])
def test_other_names_are_an_error_that_shows_the_form(server, model, to):
    with pytest.raises(BundleError, match="expected hf:user/name or hf:user/name@revision"):
        spectag.push(model, to)


def test_push_to_a_revision_is_an_error(server, model):
    with pytest.raises(BundleError, match="leave out @v1"):
        spectag.push(model, "hf:me/my-model@v1")


# ------------------------------------------------------------------------------------------------ load


def test_only_files_of_a_model_are_downloaded(server, tmp_path):
    others = {
        "code.py": b"x",
        "weights.pkl": b"x",
        "pytorch_model.bin": b"x",
        "a/model.onnx": b"x",
        "model.onnx.py": b"x",
    }
    server.add("me/m", bundle_files(tmp_path) | others)
    folder = hub_folder("hf:me/m")
    assert {path.name for path in folder.rglob("*")} == {"model.onnx", "spectag.json"}
    assert not [request for request in server.requests if any(name in request for name in others)]


def test_model_that_is_in_the_cache_is_not_downloaded_again(server, tmp_path):
    server.add("me/m", bundle_files(tmp_path))
    lines = []
    first = hub_folder("hf:me/m", log=lines.append)
    assert server.hash_of("me/m", -1) in lines[0]
    server.requests.clear()
    assert hub_folder("hf:me/m") == first
    assert server.requests == ["GET /api/models/me/m"]


def test_commit_that_is_in_the_cache_needs_no_request_and_no_package(server, tmp_path):
    commit = server.add("me/m", bundle_files(tmp_path))
    folder = hub_folder(f"hf:me/m@{commit}")
    server.requests.clear()
    done = run_without(["huggingface_hub"], "labels", f"hf:me/m@{commit}")
    assert (done.status, server.requests) == (0, [])
    assert folder.name == commit


def test_new_commit_is_loaded_and_a_pinned_one_stays(server, tmp_path):
    old = server.add("me/m", bundle_files(tmp_path, "old", thresholds=(0.1, 0.1, 0.1)))
    assert spectag.load("hf:me/m").info.thresholds[0] == 0.1
    server.add("me/m", bundle_files(tmp_path, "new", thresholds=(0.2, 0.2, 0.2)))
    assert spectag.load("hf:me/m").info.thresholds[0] == 0.2
    assert spectag.load(f"hf:me/m@{old}").info.thresholds[0] == 0.1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("HF_HUB_OFFLINE", "the hub cannot be reached"),
        ("no connection", "the hub cannot be reached"),
        ("503", "the hub answers with status 503"),
        ("429", "the hub answers with status 429"),  # too many requests
        ("login page", "something else than the hub answers"),
    ],
)
def test_last_commit_is_used_without_a_connection_and_this_is_said(server, tmp_path, monkeypatch, trouble, said):
    commit = server.add("me/m", bundle_files(tmp_path))
    folder = hub_folder("hf:me/m")
    if trouble == "HF_HUB_OFFLINE":
        offline(monkeypatch)
    elif trouble.isdecimal():
        server.status = int(trouble)
    elif trouble == "login page":  # of the network of a hotel
        monkeypatch.setattr(server, "_api", lambda request, *_: server._answer(request, 200, b"<html>Log in</html>"))
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    lines = []
    assert hub_folder("hf:me/m", log=lines.append) == folder
    assert lines == [f"hf:me/m: {said}, so commit {commit} from the cache is used"]


def test_model_that_is_not_in_the_cache_needs_a_connection(server, monkeypatch):
    offline(monkeypatch)
    with pytest.raises(
        BundleError, match=r"^hf:me/m@v1: not in the cache, and the hub cannot be reached; load it once"
    ):
        hub_folder("hf:me/m@v1")


def test_download_that_broke_off_is_completed(server, tmp_path, monkeypatch):
    files = bundle_files(tmp_path)
    server.add("me/m", {name: files[name] for name in ("spectag.json", "model.onnx")})
    resolve = server._resolve

    def without_info(request, path):
        if path.endswith("spectag.json"):
            server._answer(request, 403, headers={"X-Error-Message": "not now"})
        else:
            resolve(request, path)

    with monkeypatch.context() as patch:
        patch.setattr(server, "_resolve", without_info)
        with pytest.raises(BundleError, match=r"^hf:me/m: "):
            hub_folder("hf:me/m")
    left = [file for file in cached_files() if "models--me--m" in file.path.parts]
    assert left, "spectag cache shows and deletes what is left"
    with monkeypatch.context() as patch:
        offline(patch)
        with pytest.raises(BundleError, match="not in the cache"):
            hub_folder("hf:me/m")
    assert spectag.load("hf:me/m").labels.names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "hf:me/gone",
            "hf:me/gone: no such model on the hub, or it is private: log in with `hf auth login`, or set HF_TOKEN",
        ),
        ("hf:me/m@v9", "hf:me/m@v9: no such model on the hub, or no revision v9; check the name"),
        ("hf:me/m@{x}", "hf:me/m@{x}: no such model on the hub, or no revision {x}; check the name"),
        ("hf:me/m..x", "hf:me/m..x: the hub refuses it: Cannot have -- or .. in repo_id: 'me/m..x'"),
        ("hf:me/many", "hf:me/many: the model has 1001 members, expected at most 1000"),
        ("hf:me/other", "hf:me/other: not a model of spectag: no file spectag.json in commit "),
        ("hf:me/big", "hf:me/big: model.onnx has 5.0 GB, expected at most 4 GB"),
    ],
)
def test_model_that_cannot_be_loaded_is_one_line(server, tmp_path, monkeypatch, name, message):
    server.add("me/m", bundle_files(tmp_path))
    server.add("me/other", {"pytorch_model.bin": b""})

    class Huge(bytes):
        def __len__(self):
            return 5_000_000_000

    members = {f"members/{number + 1}/model.onnx": b"" for number in range(MAX_MEMBERS + 1)}
    server.add("me/many", members | {"spectag.json": b"{}"})
    server.add("me/big", {"spectag.json": b"{}", "model.onnx": Huge()})
    with pytest.raises(BundleError) as caught:
        hub_folder(name)
    assert str(caught.value).startswith(message)


def test_downloaded_model_is_checked_like_any_other(server, tmp_path):
    write_audio(tmp_path / "a.wav", tone("low", 0.5), 16_000)
    server.add("me/m", bundle_files(tmp_path) | {"model.onnx": b"swapped"})
    with pytest.raises(BundleError, match=r"model\.onnx: not the file that belongs to this model: SHA-256"):
        spectag.load("hf:me/m").tag(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("hf:me/m", ("me/m", None)),
        ("hf:me/m@v1.0", ("me/m", "v1.0")),
        (f"hf:me/m@{COMMIT}", ("me/m", COMMIT)),
        ("hf:me/m@feature/x", ("me/m", "feature/x")),
    ],
)
def test_parts_of_a_name(name, parts):
    assert (HubName.parse(name).repository, HubName.parse(name).revision) == parts
    assert str(HubName.parse(name)) == name


# ------------------------------------------------------------------------------------------------ commands


def test_without_huggingface_hub_one_line_says_how_to_install_it(model):
    for arguments in (["push", model, "hf:me/m"], ["labels", "hf:me/m"]):
        done = run_without(["huggingface_hub"], *arguments)
        assert (done.status, done.out) == (1, "")
        assert done.err.count("\n") == 1
        assert "needs the package huggingface_hub: pip install 'spectag[hub]'" in done.err


def test_commands_push_and_load(server, model, tmp_path, monkeypatch):
    """In processes of their own, which find the server as users do: by HF_ENDPOINT."""
    write_audio(tmp_path / "a.wav", tone("high", 0.5), 16_000)
    for name, value in {"HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, value)

    def spectag_command(*arguments):
        command = [sys.executable, "-m", "spectag", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    pushed = spectag_command("push", model, "hf:me/m", "--license", "mit", "--json")
    assert pushed.returncode == 0, pushed.stderr
    name = json.loads(pushed.stdout)["name"]
    tagged = [spectag_command("tag", m, tmp_path / "a.wav") for m in (model, "hf:me/m", name)]
    assert [done.returncode for done in tagged] == [0, 0, 0]
    assert tagged[0].stdout == tagged[1].stdout == tagged[2].stdout
