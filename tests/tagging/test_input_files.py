"""Which files are tagged: folders, patterns, lists, shards."""

import io
import os

import pytest

from spectag.errors import AudioError, ConfigError, DataError
from spectag.tagging import input_files as sources
from spectag.tagging.input_files import Shard, find_files, read_list

WAV = frozenset({".wav", ".flac"})


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    for name in ["b.wav", "a b.WAV", "ü/c.flac", "ü/tief/d.wav", "notes.txt", ".hidden.wav", "ü/[1].wav"]:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folder_gives_its_sounds_sorted(sounds):
    assert find_files(["."], WAV) == ["a b.WAV", "b.wav", "ü/[1].wav", "ü/c.flac", "ü/tief/d.wav"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["b.wav"]),
        ("**/*.wav", ["b.wav", "ü/[1].wav", "ü/tief/d.wav"]),
        ("*", ["a b.WAV", "b.wav"]),
        ("ü/?.flac", ["ü/c.flac"]),
    ],
)
def test_pattern_gives_the_sounds_that_match(sounds, pattern, expected):
    assert find_files([pattern], WAV) == expected
    assert find_files([sounds / pattern], WAV) == [str(sounds / name) for name in expected]


def test_file_whose_name_looks_like_a_pattern_is_itself(sounds):
    assert find_files(["ü/[1].wav"], WAV) == ["ü/[1].wav"]


def test_each_file_comes_once_where_it_was_named_first(sounds):
    assert find_files(["ü/tief/d.wav", "ü", "ü/c.flac"], WAV) == ["ü/tief/d.wav", "ü/[1].wav", "ü/c.flac"]


def test_named_file_is_taken_whatever_its_suffix(sounds):
    assert find_files(["notes.txt"], WAV) == ["notes.txt"]


@pytest.mark.parametrize(("path", "words"), [("gone.wav", "no such file"), ("*.mp3", r"\*\.mp3: no sound matches")])
def test_path_that_gives_nothing_is_an_error(sounds, path, words):
    with pytest.raises(AudioError, match=words):
        find_files([path], WAV)


def test_listed_files_are_taken_though_they_may_be_gone(sounds):
    listed = ["b.wav", "gone since.wav", "ü"]
    assert find_files([], WAV, listed=listed) == ["b.wav", "gone since.wav", "ü/[1].wav", "ü/c.flac", "ü/tief/d.wav"]


def test_listed_name_that_no_disk_knows_is_taken_for_the_run_to_tell_of(sounds):
    too_long = "x" * 300 + ".wav"
    assert find_files([], WAV, listed=[too_long, "b.wav"]) == [too_long, "b.wav"]


def test_listed_addresses_of_sounds_are_not_asked_for_one_by_one(monkeypatch):
    asked = []
    monkeypatch.setattr(sources, "find_in_address", lambda address, _: asked.append(address) or [f"{address}/a.wav"])
    listed = ["s3://bucket/1.wav", "s3://bucket/2.FLAC", "s3://bucket/folder", "s3://bucket/*.wav"]
    assert find_files([], WAV, listed=listed)[:3] == [*listed[:2], "s3://bucket/folder/a.wav"]
    assert asked == listed[2:]
    find_files(listed[:1], WAV)  # one that is given by itself is looked for
    assert asked[2:] == listed[:1]


def test_list_is_read_from_a_file_of_any_editor(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa b.wav\r\n\r\n  ü.wav\r\nlast.wav".encode())
    assert list(read_list(str(tmp_path / "list.txt"))) == ["a b.wav", "  ü.wav", "last.wav"]


def test_list_is_read_from_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a.wav\nb.wav\n"))
    assert list(read_list("-")) == ["a.wav", "b.wav"]


def test_list_from_stdin_may_hold_names_that_no_encoding_knows(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9.wav\n"), encoding="utf-8"))
    assert [os.fsencode(name) for name in read_list("-")] == [b"caf\xe9.wav"]


def test_missing_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: can't read the list of files: No such file"):
        list(read_list(str(tmp_path / "gone.txt")))


def test_shards_are_all_files_and_share_none():
    files = [f"{number}.wav" for number in range(10)]
    shards = [Shard(number, 3).of(files) for number in (1, 2, 3)]
    assert shards[1] == ["1.wav", "4.wav", "7.wav"]
    assert sorted(file for shard in shards for file in shard) == files
    assert str(Shard(2, 3)) == "2of3"


def test_shard_is_read_as_it_is_written():
    assert Shard.parse("2/8") == (2, 8)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/2/3", ""])
def test_wrong_shard_is_told_what_is_right(text):
    with pytest.raises(ConfigError, match=rf"--shard {text}: expected i/n, such as 1/8"):
        Shard.parse(text)
