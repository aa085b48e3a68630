"""The files to tag: from folders, patterns and lists, in shards."""

import io
import os

import pytest

from spectag.errors import AudioError, ConfigError, DataError
from spectag.tagging import input_files
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


def test_folder_gives_its_sounds_in_sorted_order(sounds):
    assert find_files(["."], WAV) == ["a b.WAV", "b.wav", "ü/[1].wav", "ü/c.flac", "ü/tief/d.wav"]


def test_missing_file_is_an_error_with_a_similar_name(sounds):
    with pytest.raises(AudioError, match=r"^d\.wav: no such file or folder$"):
        find_files(["d.wav"], WAV)
    with pytest.raises(AudioError, match=r"^ü/teif: no such file or folder; did you mean 'tief'\?$"):
        find_files(["ü/teif"], WAV)


def test_words_that_may_be_a_misspelt_path_with_spaces_are_shown_in_quotes(sounds):
    with pytest.raises(AudioError, match=r"^Süd: .*if this is a part of a path with spaces, .*: 'Süd Ost Bach\.wav'$"):
        find_files(["Süd", "Ost", "Bach.wav", "d.wav"], WAV)
    with pytest.raises(AudioError, match=r"^d\.wav: no such file or folder$"):  # two files, not one
        find_files(["d.wav", "e.wav"], WAV)
    with pytest.raises(AudioError, match=r"^x: no such file or folder$"):
        find_files(["x", "ü"], WAV)


def test_words_of_a_path_with_spaces_are_recognised(sounds):
    with pytest.raises(AudioError, match=r"^a: no such file or folder; a path with spaces needs quotes: 'a b.WAV'$"):
        find_files(["b.wav", "a", "b.WAV"], WAV)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["b.wav"]),
        ("**/*.wav", ["b.wav", "ü/[1].wav", "ü/tief/d.wav"]),
        ("*", ["a b.WAV", "b.wav"]),
        ("ü/?.flac", ["ü/c.flac"]),
    ],
)
def test_pattern_gives_the_matching_sounds(sounds, pattern, expected):
    assert find_files([pattern], WAV) == expected
    assert find_files([sounds / pattern], WAV) == [str(sounds / name) for name in expected]


def test_existing_file_named_like_a_pattern_is_found(sounds):
    assert find_files(["ü/[1].wav"], WAV) == ["ü/[1].wav"]


def test_each_file_is_listed_once_at_its_first_place(sounds):
    assert find_files(["ü/tief/d.wav", "ü", "ü/c.flac"], WAV) == ["ü/tief/d.wav", "ü/[1].wav", "ü/c.flac"]


def test_files_with_other_suffixes_in_a_folder_are_counted(sounds):
    lines = []
    find_files([".", "notes.txt"], WAV, log=lines.append)
    assert lines == [".: passed over files with other suffixes: 1 .txt"]
    (sounds / "ü" / "README").touch()
    find_files(["ü"], frozenset({".wav"}), log=lines.append)
    assert lines[1:] == ["ü: passed over files with other suffixes: 1 without, 1 .flac"]


def test_file_given_by_name_may_have_any_suffix(sounds):
    assert find_files(["notes.txt"], WAV) == ["notes.txt"]


@pytest.mark.parametrize(("path", "words"), [("gone.wav", "no such file"), ("*.mp3", r"\*\.mp3: no sound matches")])
def test_path_without_sounds_is_an_error(sounds, path, words):
    with pytest.raises(AudioError, match=words):
        find_files([path], WAV)


def test_missing_file_in_a_list_is_kept(sounds):
    listed = ["b.wav", "gone since.wav", "ü"]
    assert find_files([], WAV, listed=listed) == ["b.wav", "gone since.wav", "ü/[1].wav", "ü/c.flac", "ü/tief/d.wav"]


def test_impossible_file_name_in_a_list_is_kept(sounds):
    too_long = "x" * 300 + ".wav"
    assert find_files([], WAV, listed=[too_long, "b.wav"]) == [too_long, "b.wav"]


def test_urls_of_sounds_in_a_list_are_not_requested_one_by_one(monkeypatch):
    requested = []
    monkeypatch.setattr(input_files, "find_in_url", lambda url, _: requested.append(url) or [f"{url}/a.wav"])
    listed = ["s3://bucket/1.wav", "s3://bucket/2.FLAC", "s3://bucket/folder", "s3://bucket/*.wav"]
    assert find_files([], WAV, listed=listed)[:3] == [*listed[:2], "s3://bucket/folder/a.wav"]
    assert requested == listed[2:]
    find_files(listed[:1], WAV)  # a URL given as an argument is requested
    assert requested[2:] == listed[:1]


def test_list_may_have_a_byte_order_mark_and_windows_line_ends(tmp_path):
    (tmp_path / "list.txt").write_bytes("\ufeffa b.wav\r\n\r\n  ü.wav\r\nlast.wav".encode())
    assert list(read_list(str(tmp_path / "list.txt"))) == ["a b.wav", "  ü.wav", "last.wav"]


def test_list_is_read_from_stdin(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("a.wav\nb.wav\n"))
    assert list(read_list("-")) == ["a.wav", "b.wav"]


def test_list_from_stdin_may_contain_undecodable_names(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9.wav\n"), encoding="utf-8"))
    assert [os.fsencode(name) for name in read_list("-")] == [b"caf\xe9.wav"]


def test_missing_list_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: cannot read the list of files: No such file"):
        list(read_list(str(tmp_path / "gone.txt")))


def test_shards_are_disjoint_and_contain_all_files():
    files = [f"{number}.wav" for number in range(10)]
    shards = [Shard(number, 3).select(files) for number in (1, 2, 3)]
    assert shards[1] == ["1.wav", "4.wav", "7.wav"]
    assert sorted(file for shard in shards for file in shard) == files
    assert str(Shard(2, 3)) == "2of3"


def test_shard_is_parsed():
    assert Shard.parse("2/8") == (2, 8)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/4", "1/2/3", ""])
def test_invalid_shard_is_an_error_with_an_example(text):
    with pytest.raises(ConfigError, match=rf"--shard {text}: expected i/n, such as 1/8"):
        Shard.parse(text)
