"""Cue points, iXML and bext in copies of wav files, read by wavinfo and soundfile."""

import struct

import numpy as np
import pytest
import soundfile

from spectag.audio.recording_metadata import read_recording_info
from spectag.audio.wav_metadata import CuePoint, WavTags, copy_wav_with_tags
from spectag.errors import AudioError

wavinfo = pytest.importorskip("wavinfo")

RATE = 48_000
CUES = (CuePoint(0.25, 1.0, "Türklingel, laut"), CuePoint(0.5, 0.75, "=1+1 <b>&"))
TAGS = WavTags(("Türklingel, laut", "=1+1 <b>&"), "Door bell (1, up to 0.90)", CUES)


def chunk(name, content):
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)


def write_wav(path, *before, after=(), n_samples=RATE + 1, n_channels=2, subtype="PCM_24"):
    """A wav with more chunks before and after its samples."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (n_samples, n_channels))
    soundfile.write(path, samples, RATE, subtype=subtype)
    content = path.read_bytes()[12:]
    end_of_format = 8 + struct.unpack("<I", content[4:8])[0]
    content = content[:end_of_format] + b"".join(before) + content[end_of_format:] + b"".join(after)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content) + 4) + b"WAVE" + content)
    return path


def bext(description=b"", date=b"2024-05-01", time=b"05:30:00"):
    text = description.ljust(256, b"\0") + b"H4n".ljust(32, b"\0") + b"\0" * 32 + date + time
    return chunk(b"bext", text.ljust(346, b"\0") + struct.pack("<H", 1) + b"\0" * 254 + b"A=PCM\r\n")


def tagged(source, tags=TAGS):
    target = source.with_name("copy.wav")
    copy_wav_with_tags(source, target, tags)
    return target


def chunks_of(path):
    content, found, position = path.read_bytes(), [], 12
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    while position < len(content):
        name, size = struct.unpack("<4sI", content[position : position + 8])
        found.append((name, content[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
    return found


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "MS_ADPCM"])
def test_samples_and_other_chunks_are_the_same_bytes(tmp_path, subtype):
    guano = chunk(b"guan", b"GUANO|Version: 1.0\nTimestamp: 2024-05-01T05:30:00+02:00\nNote: odd")
    source = write_wav(tmp_path / "a.wav", guano, after=[chunk(b"LIST", b"INFOICMT\x04\0\0\0abc\0")], subtype=subtype)
    target = tagged(source)
    np.testing.assert_array_equal(*(soundfile.read(path, always_2d=True)[0] for path in (source, target)))
    old, new = chunks_of(source), chunks_of(target)
    assert new[: len(old)] == old
    assert [name for name, _ in new[len(old) :]] == [b"bext", b"iXML", b"cue ", b"LIST"]
    assert read_recording_info(target) == read_recording_info(source)


def test_wavinfo_reads_what_was_written(tmp_path):
    info = wavinfo.WavInfoReader(str(tagged(write_wav(tmp_path / "a.wav"))))
    assert info.bext.description == "Door bell (1, up to 0.90)"
    cues = list(info.cues.each_cue())
    assert [frame for _, frame in cues] == [12_000, 24_000]
    assert [info.cues.range(number) for number, _ in cues] == [36_000, 12_000]
    ixml = dict(chunks_of(tmp_path / "copy.wav"))[b"iXML"].decode()
    assert "<KEYWORDS>Türklingel, laut; =1+1 &lt;b&gt;&amp;</KEYWORDS>" in ixml
    assert "<NOTE>Door bell (1, up to 0.90)</NOTE>" in ixml
    assert info.ixml is not None
    texts = dict(chunks_of(tmp_path / "copy.wav"))[b"LIST"]
    assert "Türklingel, laut\0".encode() in texts
    assert b"=1+1 <b>&\0" in texts


def test_existing_metadata_stay(tmp_path):
    ixml = (
        b'<?xml version="1.0" encoding="UTF-8"?><BWFXML><SCENE>7</SCENE><NOTE>windy</NOTE>'
        b"<USER><KEYWORDS>park</KEYWORDS></USER></BWFXML>"
    )
    cue = chunk(b"cue ", struct.pack("<I", 1) + struct.pack("<II4sIII", 5, 99, b"data", 0, 0, 99))
    adtl = chunk(b"LIST", b"adtl" + chunk(b"labl", struct.pack("<I", 5) + b"mine\0"))
    source = write_wav(tmp_path / "a.wav", bext(b"by hand"), chunk(b"iXML", ixml), cue, adtl)
    target = tagged(source)
    info = wavinfo.WavInfoReader(str(target))
    assert (info.bext.description, info.bext.originator, info.bext.originator_date) == ("by hand", "H4n", "2024-05-01")
    text = dict(chunks_of(target))[b"iXML"].decode()
    assert "<SCENE>7</SCENE><NOTE>windy</NOTE>" in text
    assert "<KEYWORDS>park; Türklingel, laut;" in text
    assert [frame for _, frame in info.cues.each_cue()] == [99, 12_000, 24_000]
    assert info.cues.label_and_note(5)[0] == "mine"
    assert info.cues.label_and_note(7)[0] == "=1+1 <b>&"
    assert [name for name, _ in chunks_of(target)] == [name for name, _ in chunks_of(source)]
    np.testing.assert_array_equal(*(soundfile.read(path)[0] for path in (source, target)))


def test_an_empty_description_is_filled_and_the_time_stays(tmp_path):
    info = wavinfo.WavInfoReader(str(tagged(write_wav(tmp_path / "a.wav", bext()))))
    assert info.bext.description == "Door bell (1, up to 0.90)"
    assert (info.bext.originator_date, info.bext.originator_time) == ("2024-05-01", "05:30:00")
    assert info.bext.coding_history.strip() == "A=PCM"


@pytest.mark.parametrize(
    "ixml",
    [
        b"<BWFXML",
        b'<!DOCTYPE x [<!ENTITY a "b">]><BWFXML><NOTE>&a;</NOTE></BWFXML>',
        b"\xff\xfe<",
        b"<other><a/></other>",
        b"<BWFXML>" + b"<a>" * 50_000 + b"</a>" * 50_000 + b"</BWFXML>",
    ],
)
def test_ixml_that_is_not_understood_stays_as_it_is(tmp_path, ixml):
    target = tagged(write_wav(tmp_path / "a.wav", chunk(b"iXML", ixml)))
    assert dict(chunks_of(target))[b"iXML"] == ixml


def damaged(path, kind):
    content = write_wav(path).read_bytes()
    position = content.index(b"data") + 4
    path.write_bytes({
        "RF64": b"RF64" + content[4:],
        "short": content[:-1000],
        "no size": content[:position] + b"\0\0\0\0" + content[position + 4 :],
        "text": b"hello",
        "empty": b"",
        "no samples": content[: position - 4],
    }[kind])  # fmt: skip
    return path


@pytest.mark.parametrize("kind", ["RF64", "short", "no size", "text", "empty", "no samples"])
def test_other_and_damaged_files_are_refused(tmp_path, kind):
    with pytest.raises(AudioError, match="write sidecars"):
        tagged(damaged(tmp_path / "a.wav", kind))


def test_a_wav_of_nothing_but_chunks_is_refused(tmp_path):
    source = write_wav(tmp_path / "a.wav", after=[chunk(b"junk", b"")] * 10_001)
    with pytest.raises(AudioError, match="more than 10,000 chunks"):
        tagged(source)


def test_damaged_cue_points_do_not_matter(tmp_path):
    for content in (b"", b"\xff\xff\xff\xff", struct.pack("<I", 9) + b"x" * 30):
        target = tagged(write_wav(tmp_path / "a.wav", chunk(b"cue ", content)))
        assert dict(chunks_of(target))[b"data"] == dict(chunks_of(tmp_path / "a.wav"))[b"data"]
