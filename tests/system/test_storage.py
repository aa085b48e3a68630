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
    find_in_address,
    is_address,
    joined,
    local_copy,
    size_and_time,
    unfinished_copy,
    upload,
)

fsspec = pytest.importorskip("fsspec", reason="the extra cloud is not installed")
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402
from fsspec.registry import known_implementations  # noqa: E402


class LockedFileSystem(MemoryFileSystem):
    """A store in memory that lets nobody in, and says so as object stores do, or with no words at all."""

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
    """A store in memory with the ways of object stores: a folder lists itself, and no object has its name."""

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
    """The store in memory, empty; copies are made in a folder of the test's own."""
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
def test_addresses_are_known_by_their_beginning(location):
    assert is_address(location)


@pytest.mark.parametrize(
    "location",
    ["", "a.wav", "/a/b.wav", "12:30.wav", "C:\\a.wav", "C://a.wav", "//host/share", "./s3://x", "://", "-", "s3:/a"],
)
def test_paths_are_no_addresses(location):
    assert not is_address(location)


@given(st.text())
def test_a_path_object_never_is_an_address(text):
    assert not is_address(Path(text))


def test_without_fsspec_paths_need_nothing_and_an_address_names_the_extra():
    done = python("""
import sys
sys.modules["fsspec"] = sys.modules["fsspec.core"] = None
from spectag.errors import MissingExtraError
from spectag.locations import local_copy, size_and_time
with local_copy("a.wav") as path:
    print(path, size_and_time("/")[0] >= 0)
try:
    size_and_time("s3://bucket/a.wav")
except MissingExtraError as error:
    print(error)
""")
    words = "s3://bucket/a.wav: reading and writing addresses needs the package fsspec: pip install 'spectag[cloud]'"
    assert done.out.splitlines() == ["a.wav True", words], done.err


def test_missing_backend_is_named(monkeypatch):
    monkeypatch.setitem(known_implementations, "s9", {"class": "s9fs.S9", "err": "Install s9fs for S9"})
    with pytest.raises(AudioError, match=r"^s9://b/a\.wav: a package is missing.*: Install s9fs for S9$"):
        size_and_time("s9://b/a.wav")


@pytest.mark.parametrize("address", ["nothing://x/a.wav", "memori://a.wav"])
def test_unknown_kind_of_address_is_told(address):
    with pytest.raises(AudioError, match=rf"^{address}: can't be reached: Protocol not known"):
        find_in_address(address, AUDIO_SUFFIXES)


def test_a_path_is_its_own_copy(tmp_path):
    with local_copy(str(tmp_path / "a:b.wav")) as path:
        assert path == tmp_path / "a:b.wav"


def test_address_is_copied_for_the_time_of_the_block(store):
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
def test_copy_has_the_suffix_of_its_address_whatever_the_name(store, name, suffix):
    store.pipe_file(f"/{name}", b"sound")
    with local_copy(f"memory://{name}") as path:
        assert (path.read_bytes(), path.suffix) == (b"sound", suffix)


def test_name_with_two_colons_is_no_chain_of_filesystems(store):
    store.pipe_file("/x/a::b.wav", b"sound")
    assert find_in_address("memory://x", AUDIO_SUFFIXES) == ["memory://x/a::b.wav"]
    with local_copy("memory://x/a::b.wav") as path:
        assert path.read_bytes() == b"sound"


def test_file_address_is_read_in_its_place(tmp_path):
    (tmp_path / "a b.wav").write_bytes(b"sound")
    with local_copy(f"file://{tmp_path}/a b.wav") as path:
        assert path == tmp_path / "a b.wav"
    assert path.exists()


def test_what_goes_wrong_with_the_copy_is_told_of_the_address(store):
    store.pipe_file("/x/a.wav", b"no sound at all")
    with (
        pytest.raises(AudioError, match=r"^memory://x/a\.wav: (?!.*copy)"),
        local_copy("memory://x/a.wav") as path,
    ):
        read_audio(path)


def test_an_extra_that_the_copy_needs_is_told_of_the_address(store):
    store.pipe_file("/x/a.m4a", b"sound")
    with (
        pytest.raises(MissingExtraError, match=r"^memory://x/a\.m4a: reading this file needs the package av"),
        local_copy("memory://x/a.m4a") as path,
    ):
        raise MissingExtraError("av", "av", f"{path}: reading this file")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_other_errors_leave_no_copy_behind(store, error):
    store.pipe_file("/a.wav", b"sound")
    with pytest.raises(error), local_copy("memory://a.wav"):
        raise error


def test_missing_file_is_told_by_its_address(store):
    for read in (size_and_time, lambda address: local_copy(address).__enter__()):
        with pytest.raises(
            AudioError, match=r"^memory://x/none\.wav: can't read the sound: No such file or directory$"
        ):
            read("memory://x/none.wav")


@pytest.mark.parametrize("protocol", ["memory", "bucket"])
def test_folder_is_no_sound(store, protocol):
    store.pipe_file("/x/y.wav/a.wav", b"sound")
    words = "can't read the sound: need a sound file, got a folder"
    with (
        pytest.raises(AudioError, match=rf"^{protocol}://x/y\.wav: {words}$"),
        local_copy(f"{protocol}://x/y.wav"),
    ):
        pytest.fail("there is nothing to read")


def test_object_store_may_list_a_folder_in_itself(store):
    for name in ("a.wav", "b.wav/c.wav"):
        store.pipe_file(f"/x/{name}", b"sound")
    assert find_in_address("bucket://x", AUDIO_SUFFIXES) == ["bucket://x/a.wav", "bucket://x/b.wav/c.wav"]


def test_error_without_words_is_named_by_its_kind(store):
    with (
        pytest.raises(AudioError, match=r"^locked://a\.wav: can't read the sound: RuntimeError$"),
        local_copy("locked://a.wav"),
    ):
        pytest.fail("there is nothing to read")


def test_many_threads_copy_at_once(store):
    addresses = [f"memory://x/{number}.wav" for number in range(40)]
    for address in addresses:
        store.pipe_file(address, address.encode())

    def content(address):
        with local_copy(address) as path:
            return path.read_bytes().decode()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(content, addresses)) == addresses


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
def test_sounds_below_a_folder_come_sorted_and_without_hidden_ones(store, folder):
    for name in NAMES:
        store.pipe_file(f"memory://{folder[9:].rstrip('/')}/{name}", b"sound")
    found = find_in_address(folder, AUDIO_SUFFIXES)
    assert found == [f"{folder if folder.endswith('/') else folder + '/'}{name}" for name in SOUNDS]
    assert [size_and_time(address)[0] for address in found] == [5] * 5


def test_folder_by_its_file_address_gives_what_its_path_gives(tmp_path):
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"sound")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "link.wav").symlink_to(tmp_path / "b.wav")
    assert find_in_address(f"file://{tmp_path}", AUDIO_SUFFIXES) == [
        f"file://{path}" for path in find_audio([tmp_path])
    ]


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
def test_pattern_gives_files_and_what_is_in_folders_that_match(store, pattern, expected):
    for name in NAMES:
        store.pipe_file(f"memory://x y/{name}", b"sound")
    assert find_in_address(f"memory://x y/{pattern}", AUDIO_SUFFIXES) == [f"memory://x y/{name}" for name in expected]


def test_one_file_is_taken_whatever_its_suffix(store):
    store.pipe_file("/x/.a.txt", b"sound")
    assert find_in_address("memory://x/.a.txt", AUDIO_SUFFIXES) == ["memory://x/.a.txt"]


@pytest.mark.parametrize("address", ["memory://x", "memory://x/*", "memory://x/**", "memory://x/*.wav"])
def test_no_sound_is_an_error_that_says_what_was_looked_for(store, address):
    store.pipe_file("/x/a.txt", b"text")
    with pytest.raises(AudioError) as caught:
        find_in_address(address, {".wav", ".flac"})
    assert str(caught.value) == f"{address}: no sound found; looked for files that end in .flac .wav"


def test_missing_folder_is_an_error(store):
    with pytest.raises(AudioError, match=r"^memory://none: can't read the folder: No such file or directory$"):
        find_in_address("memory://none", AUDIO_SUFFIXES)


def test_folder_that_can_not_be_read_is_an_error_and_not_left_out(store):
    for name in ("a.wav", "secret/b.wav"):
        store.pipe_file(f"/x/{name}", b"sound")
    with pytest.raises(AudioError, match=r"^locked://x: can't read the folder: Forbidden$"):
        find_in_address("locked://x", AUDIO_SUFFIXES)


def test_size_and_time_of_a_path_are_those_of_the_system(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    expected = 5, str(path.stat()[stat.ST_MTIME])
    for location in (str(path), f"file://{path}"):
        n_bytes, mark = size_and_time(location)
        assert (n_bytes, mark[:-9]) == expected
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000))
    assert size_and_time(str(path)) != (n_bytes, mark)


@pytest.mark.parametrize("location", ["none.wav", "a\0b.wav", "file:///none/none.wav"])
def test_missing_path_is_an_error_that_names_the_location(location):
    with pytest.raises(AudioError) as caught:
        size_and_time(location)
    assert str(caught.value).startswith(f"{location}: can't read the sound: ")


def test_mark_of_an_address_stays_and_changes_with_the_file(store):
    store.pipe_file("/a.wav", b"sound")
    before = size_and_time("memory://a.wav")
    assert size_and_time("memory://a.wav") == before
    store.pipe_file("/a.wav", b"noise")
    assert size_and_time("memory://a.wav") != before


def test_mark_is_the_tag_where_the_store_gives_one(store, monkeypatch):
    monkeypatch.setattr(store, "info", lambda name: {"type": "file", "size": 7, "ETag": '"9a"', "LastModified": 3})
    assert size_and_time("memory://a.wav") == (7, '"9a"')
    monkeypatch.setattr(store, "info", lambda name: {"type": "file", "size": None})
    assert size_and_time("memory://a.wav") == (0, "")


@pytest.mark.parametrize("address", ["memory://out/a/t.csv", "file://{}/out/a/t.csv"])
def test_what_is_written_arrives_when_it_is_whole(store, tmp_path, address):
    address = address.format(tmp_path)
    for text in ("old", "new"):
        with unfinished_copy(address) as path:
            path.write_text(text)
            assert path.suffix == ".csv"
            assert text == "old" or read(address) == b"old"
    assert read(address) == b"new"


def read(address):
    with local_copy(address) as path:
        return path.read_bytes()


def write_half(path, error):
    path.write_text("half")
    raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_arrives_of_what_was_stopped(store, error):
    with pytest.raises(error), unfinished_copy("memory://out/t.csv") as path:
        write_half(path, error)
    assert not store.store


def test_path_is_written_as_other_paths_are(tmp_path):
    with unfinished_copy(str(tmp_path / "new" / "t.csv")) as path:
        path.write_text("rows")
    assert (tmp_path / "new" / "t.csv").read_text() == "rows"


def test_place_that_takes_nothing_is_an_error(store, tmp_path):
    (tmp_path / "t.csv").write_text("rows")
    with pytest.raises(DataError, match=r"^locked://out/t\.csv: can't be written: Forbidden$"):
        upload(tmp_path / "t.csv", "locked://out/t.csv")
    with pytest.raises(DataError, match=r"^locked://out/t\.csv: can't"), unfinished_copy("locked://out/t.csv") as path:
        path.write_text("rows")
    (tmp_path / "t").mkdir()
    with pytest.raises(DataError, match=rf"^file://{tmp_path}/t: can't be written: there is a folder of this name$"):
        upload(tmp_path / "t.csv", f"file://{tmp_path}/t")


@pytest.mark.parametrize("folder", ["s3://bucket/out", "s3://bucket/out/"])
def test_names_are_joined_to_an_address_by_one_slash(folder):
    assert joined(folder, "a b.csv") == "s3://bucket/out/a b.csv"


def test_the_root_of_a_store_and_of_this_machine_are_folders_too():
    assert joined("memory://", "a.csv") == "memory://a.csv"
    assert joined("file:///", "a.csv") == "file:///a.csv"


def test_names_are_joined_to_a_path_as_paths_are(tmp_path):
    assert joined(str(tmp_path), "a.csv") == str(tmp_path / "a.csv")
