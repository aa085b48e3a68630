"""What the page may read of the disk: nothing outside the given folders, whatever a path looks like."""

import os
import sys
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from helpers.bundles import make_bundle, make_info
from spectag.config.base import parse_config
from spectag.config.serving import ServeSettings
from spectag.errors import ConfigError
from spectag.serving import browsing, create_app
from spectag.serving.browsing import AllowedFolders
from spectag.serving.folder_routes import allowed_folders
from spectag.serving.problems import ProblemError

HOST = "127.0.0.1:8124"


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """allowed/ with sounds, tables, a model and a project; secret/ beside it; links from one to the other."""
    disk = tmp_path_factory.mktemp("disk").resolve()
    allowed, secret = disk / "allowed", disk / "secret"
    for folder in (allowed / "sounds" / "deep", allowed / "project", allowed / ".hidden", secret, disk / "allowed-not"):
        folder.mkdir(parents=True)
    for name in ("b.wav", "A.FLAC", "labels.csv", "table.xlsx", "t.parquet", "notes.md", ".hidden.wav", "x.tsv"):
        (allowed / name).write_bytes(bytes(1234))
    (allowed / "sounds" / "deep" / "c.wav").write_bytes(b"")
    (allowed / "project" / "project.sqlite").write_bytes(b"")
    (secret / "key.txt").write_text("secret")
    (allowed / "%2e%2e").mkdir()
    make_bundle(allowed / "model", make_info())
    if sys.platform != "win32":
        (allowed / "out").symlink_to(secret)
        (allowed / "out.wav").symlink_to(secret / "key.txt")
        (allowed / "inside").symlink_to(allowed / "sounds")
        (allowed / "loop").symlink_to(allowed / "loop")
        (allowed / "gone.wav").symlink_to(allowed / "nothing.wav")
        os.mkfifo(allowed / "pipe.wav")
    return disk


@pytest.fixture(scope="module")
def folders(disk):
    return AllowedFolders([disk / "allowed"])


def status_of(folders, text):
    with pytest.raises(ProblemError) as caught:
        folders.resolve(text)
    return caught.value.status


def test_files_and_folders_below_an_allowed_folder_are_found(folders, disk):
    for text in ("", "/", "/sounds/deep/c.wav", "/sounds/../b.wav", "/./sounds//deep", "/%2e%2e"):
        path = folders.resolve(f"{disk}/allowed{text}")
        assert path.is_relative_to(disk / "allowed")
    assert folders.resolve(f"{disk}/allowed/inside/deep") == disk / "allowed" / "sounds" / "deep"


@pytest.mark.parametrize(
    "text",
    [
        *("{0}", "{0}/secret", "{0}/secret/key.txt", "{0}/allowed/../secret/key.txt"),
        "{0}/allowed/sounds/../../secret",
        *("{0}/allowed-not", "{0}/nothing", "/", "/etc/passwd", "/proc/self/environ", "{0}/allowed/out"),
        *("{0}/allowed/out/key.txt", "{0}/allowed/out.wav", "{0}/allowed/out/../secret", "{0}/allowed/out/nothing"),
        *("//server/share", "\\\\server\\share\\a.wav", "\\\\?\\C:\\", "\\\\.\\pipe\\x"),
        *("//{0}/allowed", "/\\server\\share"),
    ],
)  # fmt: skip
def test_paths_outside_are_refused_whether_they_exist_or_not(folders, disk, text):
    assert status_of(folders, text.format(disk)) == 403


@pytest.mark.parametrize(
    "text", ["{0}/allowed/nothing", "{0}/allowed/b.wav/x", "{0}/allowed/loop", "{0}/allowed/..%2fsecret"]
)
def test_what_does_not_exist_is_404(folders, disk, text):
    assert status_of(folders, text.format(disk)) == 404


@pytest.mark.parametrize(
    "text",
    [
        *("", "a\0b", "{0}/allowed\0/../secret", "allowed", "./b.wav", "..", "~", "~root", "file:///etc/passwd"),
        *("C:", "C:x"),
        *("C:\\Windows", "\udcff", "{0}/allowed/\udcff", "{0}/allowed/" + "x" * 5_000, "{0}/allowed/" + "x" * 300),
        *("$HOME", "%2fetc", " {0}/allowed", "NUL"),
    ],
)  # fmt: skip
def test_what_is_no_complete_path_is_422(folders, disk, text):
    assert status_of(folders, text.format(disk)) == 422


PARTS = st.sampled_from(
    ["..", ".", "", "sounds", "deep", "out", "inside", "loop", "%2e%2e", "..%2f", "…", "a\\b", "\0", "secret", "~"]
)


@given(
    parts=st.lists(PARTS | st.text(max_size=5), max_size=8),
    start=st.sampled_from(["{0}/allowed/", "{0}/", "/", "", "\\\\"]),
)
def test_no_path_leaves_the_folder(folders, disk, parts, start):
    text = start.format(disk) + "/".join(parts)
    path, problem = None, None
    try:
        path = folders.resolve(text)
    except ProblemError as error:
        problem = error
    if path is not None:
        assert path.is_relative_to(disk / "allowed")
        assert path.resolve() == path
    else:
        assert problem.status in (403, 404, 422)
        assert "secret" not in problem.detail or "secret" in text


def test_listing_has_folders_first_and_nothing_hidden_or_outside(folders, disk):
    listing = folders.list(folders.resolve(f"{disk}/allowed"))
    assert listing.is_complete
    shown = [(entry.name, entry.kind) for entry in listing.entries]
    assert shown == [
        ("%2e%2e", "folder"), ("inside", "folder"), ("model", "model"), ("project", "project"), ("sounds", "folder"),
        ("A.FLAC", "sound"), ("b.wav", "sound"), ("labels.csv", "table"), ("t.parquet", "table"),
        ("table.xlsx", "table"), ("x.tsv", "table"),
    ]  # fmt: skip
    sizes = {entry.name: entry.n_bytes for entry in listing.entries}
    assert (sizes["b.wav"], sizes["sounds"]) == (1234, None)
    assert all(entry.changed.endswith("+00:00") for entry in listing.entries)


def test_parents_end_at_the_allowed_folder(folders, disk):
    allowed = disk / "allowed"
    assert folders.list(allowed / "sounds" / "deep").parents == (
        allowed,
        allowed / "sounds",
        allowed / "sounds" / "deep",
    )
    assert folders.list(allowed).parents == (allowed,)


def test_long_folders_are_cut(folders, disk, monkeypatch):
    monkeypatch.setattr(browsing, "MAX_ENTRIES", 4)
    listing = folders.list(disk / "allowed")
    assert (len(listing.entries), listing.is_complete) == (4, False)
    monkeypatch.setattr(browsing, "_MAX_SCANNED", 3)
    assert not folders.list(disk / "allowed").is_complete


def test_vanished_folders_and_files_are_answers(folders, disk):
    for path, status in ((disk / "allowed" / "gone", 404), (disk / "allowed" / "b.wav", 422)):
        with pytest.raises(ProblemError) as caught:
            folders.list(path)
        assert caught.value.status == status


def test_files_that_vanish_during_the_listing_are_left_out(folders, disk, monkeypatch):
    class Vanishing:
        def __init__(self, entry):
            self.name, self.path, self.is_symlink = entry.name, entry.path, entry.is_symlink

        def stat(self):
            raise FileNotFoundError(2, "gone")

    class Scan(list):
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: Scan(Vanishing(entry) for entry in scandir(folder)))
    assert folders.list(disk / "allowed").entries == ()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_folders_without_the_right_to_read_are_403(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    folders = AllowedFolders([tmp_path])
    assert [entry.kind for entry in folders.list(tmp_path.resolve()).entries] == ["folder"]
    with pytest.raises(ProblemError) as caught:
        folders.list(closed.resolve())
    closed.chmod(0o700)
    assert caught.value.status == 403


@pytest.mark.skipif(sys.platform != "linux", reason="names of other systems are Unicode")
def test_names_that_are_not_utf8_are_left_out(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.wav")).write_bytes(b"")
    (tmp_path / "café.wav").write_bytes(b"")
    listing = AllowedFolders([tmp_path]).list(tmp_path.resolve())
    assert [entry.name for entry in listing.entries] == ["café.wav"]


def test_new_names_need_an_allowed_folder(folders, disk):
    assert folders.resolve_new(f"{disk}/allowed/new") == disk / "allowed" / "new"
    for text, status in ((f"{disk}/new", 403), (f"{disk}/allowed/no/new", 404), (f"{disk}/allowed/out/new", 403)):
        with pytest.raises(ProblemError) as caught:
            folders.resolve_new(text)
        assert caught.value.status == status


def context_of(project=None, **settings):
    return SimpleNamespace(settings=ServeSettings(**settings), project=project)


def test_current_folder_is_allowed_only_on_this_computer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert allowed_folders(context_of()).roots == (tmp_path.resolve(),)
    assert allowed_folders(context_of(host="0.0.0.0")).roots == ()
    (tmp_path / "sounds").mkdir()
    chosen = context_of(host="0.0.0.0", folder=(tmp_path / "sounds", tmp_path / "nothing"))
    assert allowed_folders(chosen).roots == (tmp_path.resolve() / "sounds",)
    monkeypatch.chdir("/")
    assert allowed_folders(context_of()).roots == ()


def test_at_most_100_folders_are_taken():
    with pytest.raises(ConfigError, match="folder"):
        parse_config({"folder": ["x"] * 101}, ServeSettings, source="test")


@pytest.fixture
def client(disk):
    settings = ServeSettings(folder=(disk / "allowed", disk / "allowed" / "sounds"))
    return TestClient(create_app(disk / "allowed" / "model", settings, workers=1, port=8124), base_url=f"http://{HOST}")


def test_request_lists_the_first_folder_or_one_by_its_path(client, disk):
    first = client.get("/folders").json()
    assert first["path"] == str(disk / "allowed")
    assert [place["path"] for place in first["places"]] == [f"{disk}/allowed", f"{disk}/allowed/sounds"]
    assert first["parents"] == [{"name": "allowed", "path": f"{disk}/allowed"}]
    deep = client.get("/folders", params={"path": f"{disk}/allowed/sounds/deep"}).json()
    assert [(entry["name"], entry["kind"], entry["bytes"]) for entry in deep["entries"]] == [("c.wav", "sound", 0)]


@pytest.mark.parametrize("path", ["/..%2f..", "%00", "/%252e%252e/secret", "%ff%fe", "x" * 9_000, "\\\\server\\share"])
def test_hostile_requests_get_a_problem(client, disk, path):
    for start in ("", quote(f"{disk}/allowed")):
        answer = client.get(f"/folders?path={start}{path}")
        assert answer.status_code in (403, 404, 422), answer.text
        assert answer.json()["detail"]


def test_token_and_host_are_needed(disk):
    settings = ServeSettings(folder=(disk / "allowed",), token="a secret of many characters")
    guarded = create_app(disk / "allowed" / "model", settings, workers=1, port=8124)
    assert TestClient(guarded, base_url=f"http://{HOST}").get("/folders").status_code == 401
    open_app = create_app(disk / "allowed" / "model", ServeSettings(), workers=1, port=8124)
    assert TestClient(open_app, base_url="http://evil.example").get("/folders").status_code == 421
