"""Files at paths and URLs."""

import errno
import os
import stat
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.command import python
from spectag.audio.files import AUDIO_SUFFIXES, find_audio, read_audio
from spectag.errors import AudioError, DataError, MissingExtraError
from spectag.system.storage import (
    file_fingerprint,
    find_in_url,
    is_url,
    join_location,
    local_copy,
    unfinished_copy,
)

fsspec = pytest.importorskip("fsspec", reason="the extra cloud is not installed")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402
from fsspec.registry import known_implementations  # noqa: E402


class LockedFileSystem(MemoryFileSystem):
    """A store in memory that denies access with or without a message."""

    protocol = "locked"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("locked://"))

    def ls(self, path, **kwargs):
        if path.endswith("secret"):
            raise PermissionError(errno.EACCES, "Forbidden")
        return super().ls(path, **kwargs)

    def get_file(self, path, target, **kwargs):
        Path(target).write_bytes(b"half")
        raise RuntimeError

    def put_file(self, path, target, **kwargs):
        raise PermissionError(errno.EACCES, "Forbidden")


class ObjectStore(MemoryFileSystem):
    """A store in memory that behaves like an object store: a folder lists itself, and is not an object."""

    protocol = "bucket"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("bucket://"))

    def ls(self, path, **kwargs):
        return [{"name": path, "type": kind, "size": 0} for kind in ("directory", "file")] + super().ls(path, **kwargs)

    def get_file(self, path, target, **kwargs):
        if path not in self.store:
            raise FileNotFoundError(path)
        super().get_file(path, target, **kwargs)


fsspec.register_implementation("locked", LockedFileSystem, clobber=True)
fsspec.register_implementation("bucket", ObjectStore, clobber=True)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The empty store in memory; temporary copies are in a folder of the test."""
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield store
    assert not list((tmp_path / "copies").iterdir()), "a temporary copy was left behind"
    store.store.clear()


@pytest.mark.parametrize(
    "location", ["s3://bucket/a.wav", "gs://b", "memory://x", "file:///a b.wav", "S3://b", "abfs+x://y"]
)
def test_urls_are_recognised_by_their_protocol(location):
    assert is_url(location)


@pytest.mark.parametrize(
    "location",
    ["", "a.wav", "/a/b.wav", "12:30.wav", "C:\\a.wav", "C://a.wav", "//host/share", "./s3://x", "://", "-", "s3:/a"],
)
def test_paths_are_not_urls(location):
    assert not is_url(location)


@given(st.text())
def test_path_object_is_never_a_url(text):
    assert not is_url(Path(text))


def test_without_fsspec_paths_work_and_urls_raise_an_error_with_the_extra():
    done = python("""
import sys
sys.modules["fsspec"] = sys.modules["fsspec.core"] = None
from spectag.errors import MissingExtraError
from spectag.system.storage import file_fingerprint, find_in_url, local_copy
with local_copy("a.wav") as path:
    print(path, file_fingerprint("/") > "")
try:
    find_in_url("s3://bucket/a.wav", {".wav"})
except MissingExtraError as error:
    print(error)
""")
    message = "s3://bucket/a.wav: reading and writing URLs needs the package fsspec: pip install 'spectag[cloud]'"
    assert done.out.splitlines() == ["a.wav True", message], done.err


def test_missing_backend_is_named_in_the_error(monkeypatch):
    monkeypatch.setitem(known_implementations, "s9", {"class": "s9fs.S9", "err": "Install s9fs for S9"})
    with pytest.raises(AudioError, match=r"^s9://b/a\.wav: a package for such URLs is missing: Install s9fs for S9$"):
        find_in_url("s9://b/a.wav", AUDIO_SUFFIXES)


@pytest.mark.parametrize("url", ["nothing://x/a.wav", "memori://a.wav"])
def test_unknown_protocol_raises_an_error(url):
    with pytest.raises(AudioError, match=rf"^{url}: can't be reached: Protocol not known"):
        find_in_url(url, AUDIO_SUFFIXES)


def test_path_is_not_copied(tmp_path):
    with local_copy(str(tmp_path / "a:b.wav")) as path:
        assert path == tmp_path / "a:b.wav"


def test_copy_of_a_url_exists_during_the_block(store):
    store.pipe_file("/x/a.b.WAV", b"sound")
    with local_copy("memory://x/a.b.WAV") as path:
        assert (path.read_bytes(), path.suffix) == (b"sound", ".WAV")
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("x/a.m4a", ".m4a"),
        ("x.y/a", ""),
        ("x/what?.flac", ".flac"),
        ("x/a.wav?key=1", ".wav"),
        ("x/a:ü\n 'b'.ogg", ".ogg"),
    ],
)
def test_copy_has_the_suffix_of_its_url(store, name, suffix):
    store.pipe_file(f"/{name}", b"sound")
    with local_copy(f"memory://{name}") as path:
        assert (path.read_bytes(), path.suffix) == (b"sound", suffix)


def test_two_colons_in_a_name_are_not_a_chain_of_filesystems(store):
    store.pipe_file("/x/a::b.wav", b"sound")
    assert find_in_url("memory://x", AUDIO_SUFFIXES) == ["memory://x/a::b.wav"]
    with local_copy("memory://x/a::b.wav") as path:
        assert path.read_bytes() == b"sound"


def test_file_url_is_not_copied(tmp_path):
    (tmp_path / "a b.wav").write_bytes(b"sound")
    with local_copy(f"file://{tmp_path}/a b.wav") as path:
        assert path == tmp_path / "a b.wav"
    assert path.exists()


def test_error_about_the_copy_names_the_url(store):
    store.pipe_file("/x/a.wav", b"no sound at all")
    with (
        pytest.raises(AudioError, match=r"^memory://x/a\.wav: (?!.*copy)"),
        local_copy("memory://x/a.wav") as path,
    ):
        read_audio(path)


def test_missing_extra_error_names_the_url(store):
    store.pipe_file("/x/a.m4a", b"sound")
    with (
        pytest.raises(MissingExtraError, match=r"^memory://x/a\.m4a: reading this file needs the package av"),
        local_copy("memory://x/a.m4a") as path,
    ):
        raise MissingExtraError("av", "av", f"{path}: reading this file")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_delete_the_copy(store, error):
    store.pipe_file("/a.wav", b"sound")
    with pytest.raises(error), local_copy("memory://a.wav"):
        raise error


def test_missing_file_raises_an_error_with_the_url(store):
    message = r"^memory://x/none\.wav: can't read the sound: No such file or directory$"
    with pytest.raises(AudioError, match=message), local_copy("memory://x/none.wav"):
        pass


@pytest.mark.parametrize("protocol", ["memory", "bucket"])
def test_folder_raises_an_error(store, protocol):
    store.pipe_file("/x/y.wav/a.wav", b"sound")
    message = "can't read the sound: need a sound file, got a folder"
    with (
        pytest.raises(AudioError, match=rf"^{protocol}://x/y\.wav: {message}$"),
        local_copy(f"{protocol}://x/y.wav"),
    ):
        pytest.fail("there is nothing to read")


def test_folder_that_lists_itself_is_not_a_sound(store):
    for name in ("a.wav", "b.wav/c.wav"):
        store.pipe_file(f"/x/{name}", b"sound")
    assert find_in_url("bucket://x", AUDIO_SUFFIXES) == ["bucket://x/a.wav", "bucket://x/b.wav/c.wav"]


def test_error_without_a_message_shows_its_class(store):
    with (
        pytest.raises(AudioError, match=r"^locked://a\.wav: can't read the sound: RuntimeError$"),
        local_copy("locked://a.wav"),
    ):
        pytest.fail("there is nothing to read")


def test_threads_can_copy_at_the_same_time(store):
    urles = [f"memory://x/{number}.wav" for number in range(40)]
    for url in urles:
        store.pipe_file(url, url.encode())

    def content(url):
        with local_copy(url) as path:
            return path.read_bytes().decode()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(content, urles)) == urles


NAMES = (
    "b.wav",
    "a.FLAC",
    "a/z.ogg",
    "a/b/c d.wav",
    "a-b/ü, [1]*.wav",
    "notes.txt",
    "no suffix",
    ".hidden.wav",
    ".git/x.wav",
    "a/.trash/x.wav",
)
SOUNDS = ["a/b/c d.wav", "a/z.ogg", "a-b/ü, [1]*.wav", "a.FLAC", "b.wav"]


@pytest.mark.parametrize("folder", ["memory://x", "memory://x/", "memory://x/ y", "memory://"])
def test_sounds_of_a_folder_are_sorted_without_hidden_ones(store, folder):
    for name in NAMES:
        store.pipe_file(f"memory://{folder[9:].rstrip('/')}/{name}", b"sound")
    found = find_in_url(folder, AUDIO_SUFFIXES)
    assert found == [f"{folder if folder.endswith('/') else folder + '/'}{name}" for name in SOUNDS]
    assert [read(url) for url in found] == [b"sound"] * 5


def test_folder_as_file_url_gives_the_same_files_as_its_path(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"sound")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "link.wav").symlink_to(tmp_path / "b.wav")
    assert find_in_url(f"file://{tmp_path}", AUDIO_SUFFIXES) == [f"file://{path}" for path in find_audio([tmp_path])]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["b.wav"]),
        ("*.*", ["a.FLAC", "b.wav"]),
        ("**/*.wav", ["a/b/c d.wav", "a-b/ü, [1]*.wav", "b.wav"]),
        ("**", SOUNDS),
        ("a*", ["a/b/c d.wav", "a/z.ogg", "a-b/ü, [1]*.wav", "a.FLAC"]),
        ("?/b", ["a/b/c d.wav"]),
        ("[ab].*", ["a.FLAC", "b.wav"]),
        ("a-b/ü, [1]*.wav", ["a-b/ü, [1]*.wav"]),
    ],
)
def test_pattern_gives_matching_files_and_the_files_of_matching_folders(store, pattern, expected):
    for name in NAMES:
        store.pipe_file(f"memory://x y/{name}", b"sound")
    assert find_in_url(f"memory://x y/{pattern}", AUDIO_SUFFIXES) == [f"memory://x y/{name}" for name in expected]


def test_single_file_is_found_whatever_its_suffix(store):
    store.pipe_file("/x/.a.txt", b"sound")
    assert find_in_url("memory://x/.a.txt", AUDIO_SUFFIXES) == ["memory://x/.a.txt"]


@pytest.mark.parametrize("url", ["memory://x", "memory://x/*", "memory://x/**", "memory://x/*.wav"])
def test_url_without_sounds_raises_an_error_with_the_suffixes(store, url):
    store.pipe_file("/x/a.txt", b"text")
    with pytest.raises(AudioError) as caught:
        find_in_url(url, {".wav", ".flac"})
    assert str(caught.value) == f"{url}: no sound found; looked for files that end in .flac .wav"


def test_missing_folder_raises_an_error(store):
    with pytest.raises(AudioError, match=r"^memory://none: can't read the folder: No such file or directory$"):
        find_in_url("memory://none", AUDIO_SUFFIXES)


def test_unreadable_folder_raises_an_error(store):
    for name in ("a.wav", "secret/b.wav"):
        store.pipe_file(f"/x/{name}", b"sound")
    with pytest.raises(AudioError, match=r"^locked://x: can't read the folder: Forbidden$"):
        find_in_url("locked://x", AUDIO_SUFFIXES)


def test_fingerprint_of_a_path_is_its_size_and_modification_time(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    fingerprint = file_fingerprint(str(path))
    assert fingerprint[:-9] == f"5 {path.stat()[stat.ST_MTIME]}"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000))
    assert file_fingerprint(str(path)) != fingerprint


@pytest.mark.parametrize("location", ["none.wav", "a\0b.wav", "file:///none/none.wav", "memory://a.wav"])
def test_missing_path_and_url_have_no_fingerprint(location):
    assert file_fingerprint(location) == ""


@pytest.mark.parametrize("url", ["memory://out/a/t.csv", "file://{}/out/a/t.csv"])
def test_output_appears_at_the_url_when_it_is_complete(store, tmp_path, url):
    url = url.format(tmp_path)
    for text in ("old", "new"):
        with unfinished_copy(url) as path:
            path.write_text(text)
            assert path.suffix == ".csv"
            assert text == "old" or read(url) == b"old"
    assert read(url) == b"new"


def read(url):
    with local_copy(url) as path:
        return path.read_bytes()


def write_half(path, error):
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_output_is_not_uploaded(store, error):
    with pytest.raises(error), unfinished_copy("memory://out/t.csv") as path:
        write_half(path, error)
    assert not store.store


def test_output_at_a_path_creates_its_folder(tmp_path):
    with unfinished_copy(str(tmp_path / "new" / "t.csv")) as path:
        path.write_text("rows")
    assert (tmp_path / "new" / "t.csv").read_text() == "rows"


def test_url_that_cannot_be_written_raises_an_error(store, tmp_path):
    url = "locked://out/t.csv"
    with (
        pytest.raises(DataError, match=r"^locked://out/t\.csv: can't be written: Forbidden$"),
        unfinished_copy(url) as path,
    ):
        path.write_text("rows")
    with (
        pytest.raises(IsADirectoryError, match="a folder has this name"),
        unfinished_copy(f"file://{tmp_path}"),
    ):
        pytest.fail("the work has started")


@pytest.mark.parametrize("folder", ["s3://bucket/out", "s3://bucket/out/"])
def test_name_is_joined_to_a_url_with_one_slash(folder):
    assert join_location(folder, "a b.csv") == "s3://bucket/out/a b.csv"


def test_name_is_joined_to_a_root():
    assert join_location("memory://", "a.csv") == "memory://a.csv"
    assert join_location("file:///", "a.csv") == "file:///a.csv"


def test_name_is_joined_to_a_path(tmp_path):
    assert join_location(str(tmp_path), "a.csv") == str(tmp_path / "a.csv")
