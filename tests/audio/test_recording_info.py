"""Times and places in the names of recorders, and in the metadata of wav files."""

import struct
import tracemalloc
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.recorder_names import info_in_name
from spectag.audio.recording_info import RecordingInfo
from spectag.audio.recording_metadata import read_recording_info


def zone(hours):
    return timezone(timedelta(hours=hours))


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("20240501_053000", datetime(2024, 5, 1, 5, 30)),  # AudioMoth
        ("20240501_053000T", datetime(2024, 5, 1, 5, 30)),  # AudioMoth, triggered
        ("5E90A4D4", datetime(2020, 4, 10, 16, 54, 44, tzinfo=UTC)),  # AudioMoth before firmware 1.3
        ("S4A01234_20240501_053001", datetime(2024, 5, 1, 5, 30, 1)),  # Song Meter
        ("SITE_0+1_20190101$050000", datetime(2019, 1, 1, 5)),
        ("SITE_A_20190101_050000", datetime(2019, 1, 1, 5)),
        ("20190101T050000+1000_REC", datetime(2019, 1, 1, 5, tzinfo=zone(10))),  # Frontier Labs
        ("S20210205T035946676+1000_E20210205T040446501+1000", datetime(2021, 2, 5, 3, 59, 46, 676000, zone(10))),
        ("20200426T020000Z_recording", datetime(2020, 4, 26, 2, tzinfo=UTC)),
        ("2023-04-01-birdnet-05:12:33", datetime(2023, 4, 1, 5, 12, 33)),  # BirdNET-Pi
        ("2023-04-01-birdnet-RTSP_1-05:12:33", datetime(2023, 4, 1, 5, 12, 33)),
        ("Common_Name-85-2023-04-01-birdnet-05:12:33", datetime(2023, 4, 1, 5, 12, 33)),
        ("S1071_20230401_051233-0500", datetime(2023, 4, 1, 5, 12, 33, tzinfo=zone(-5))),  # SWIFT
        ("20240501_053000-0100", datetime(2024, 5, 1, 5, 30, tzinfo=zone(-1))),  # the Azores
        ("20240501T053000+0545", datetime(2024, 5, 1, 5, 30, tzinfo=zone(5.75))),  # Nepal
        ("20240501T053000+10_Oxley", datetime(2024, 5, 1, 5, 30, tzinfo=zone(10))),
        ("20240501_053000-0030", datetime(2024, 5, 1, 5, 30)),  # no clock has this zone
        ("20240501_053000-0001", datetime(2024, 5, 1, 5, 30)),
        ("20240501_053000-1300", datetime(2024, 5, 1, 5, 30)),
        ("20240501_053000-05", datetime(2024, 5, 1, 5, 30)),  # the number of a file
        ("20240501_053000_0100", datetime(2024, 5, 1, 5, 30)),
        ("S1071_20230401_051233(-05)", datetime(2023, 4, 1, 5, 12, 33, tzinfo=zone(-5))),
        ("20230401_051233_UTC", datetime(2023, 4, 1, 5, 12, 33, tzinfo=UTC)),
        ("5678.190101123456", datetime(2019, 1, 1, 12, 34, 56)),  # SoundTrap
        ("PAM_20240501_053000_123", datetime(2024, 5, 1, 5, 30)),  # PAMGuard
        ("PAM_20240501053000", datetime(2024, 5, 1, 5, 30)),
        ("230401-051233", datetime(2023, 4, 1, 5, 12, 33)),  # Zoom
        ("230401_051233_Tr1", datetime(2023, 4, 1, 5, 12, 33)),
        ("2024-05-01 05-30", datetime(2024, 5, 1, 5, 30)),
        ("2024-05-01T05.30", datetime(2024, 5, 1, 5, 30)),
        ("25-04-2023 05-12-33", datetime(2023, 4, 25, 5, 12, 33)),  # the 25th can't be a month
        ("05-05-2023_050000", datetime(2023, 5, 5, 5)),  # the same in both orders
    ],
)
def test_start_in_the_name_of_a_recorder_is_read(name, start):
    info = info_in_name(name)
    assert (info.start, info.day, info.source) == (start, start.date(), "name")
    assert info.start.utcoffset() == start.utcoffset()


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("owl 2024.05.01", date(2024, 5, 1)),
        ("31012019", date(2019, 1, 31)),
        ("20240501_256000", date(2024, 5, 1)),  # not a time
        ("20240501T240000", date(2024, 5, 1)),
        ("20240501_0530", date(2024, 5, 1)),  # a time or the number of a file
        ("230401_0512", date(2023, 4, 1)),  # Sony writes hours and minutes, Olympus a number
    ],
)
def test_time_that_is_missing_or_not_understood_is_unknown_and_never_midnight(name, day):
    assert info_in_name(name) == RecordingInfo(day=day, source="name")


@pytest.mark.parametrize(
    "name",
    [
        *("DS400123", "LS100001", "ZOOM0001", "STE-001", "DR0000_0001"),  # a counter
        *("01-02-2023", "01022023_050000"),  # 1 February or 2 January
        *("20230229", "12345678", "59684712", "5e90a4d4", "FFFFFFFF", "123202405011", "1-100032-A-0", ""),
    ],
)
def test_names_without_a_clear_date_tell_nothing(name):
    assert info_in_name(name) == RecordingInfo()


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("20190101T050000+1000_REC [-27.3866 152.8761]", (-27.3866, 152.8761)),
        ("S20240815T025957838+1000_-12.34567+78.98102", (-12.34567, 78.98102)),
        ("20240501_053000_[+95.0+10.0]", (None, None)),
        ("20240501_053000", (None, None)),
    ],
)
def test_place_in_a_name_is_read(name, place):
    info = info_in_name(name)
    assert (info.latitude, info.longitude) == place


@given(st.text(alphabet="0123456789ABCDEFTZS_-+.:$[]() ", max_size=40) | st.text())
def test_every_name_is_accepted(name):
    info = info_in_name(name)
    assert info.start is None or info.start.date() == info.day


def chunk(name, data, size=None):
    return name + struct.pack("<I", len(data) if size is None else size) + data + b"\0" * (len(data) % 2)


def write_wav(path, *chunks, before=b"", data_size=None, form=b"RIFF", **kind):
    """A wav with chunks after its samples, and others before."""
    soundfile.write(path, np.zeros(100), 8000, format="WAV", **kind)
    head = path.read_bytes()
    fmt = head[12 : head.index(b"data")]
    samples = chunk(b"data", head[head.index(b"data") + 8 :], data_size)
    body = b"WAVE" + fmt + before + samples + b"".join(chunks)
    path.write_bytes(form + struct.pack("<I", len(body)) + body)
    return path


def bext(day=b"2024-05-01", time=b"05:30:00", originator=b"Recorder 7"):
    return chunk(b"bext", b"\0" * 256 + originator.ljust(32, b"\0") + b"\0" * 32 + day + time + b"\0" * 264)


GUANO = (
    b"GUANO|Version: 1.0\nTimestamp: 2023-06-07T21:04:05.5-05:00\nLoc Position: 45.1 -93.25\nMake: Acme\nModel: B1\n"
)
COMMENT = (
    b"INFOICMT" + struct.pack("<I", 90) + b"Recorded at 19:17:30 27/12/2018 (UTC-5) by AudioMoth 0FE081F80FE081F0 "
)


@pytest.mark.parametrize("kind", [{}, {"subtype": "FLOAT"}])
def test_guano_states_start_place_and_recorder(tmp_path, kind):
    path = write_wav(tmp_path / "20240501_053000.wav", chunk(b"guan", GUANO), before=bext(), **kind)
    start = datetime(2023, 6, 7, 21, 4, 5, 500000, zone(-5))
    assert read_recording_info(path) == RecordingInfo(start, start.date(), 45.1, -93.25, "Acme B1", "guano")


def test_metadata_in_the_file_take_precedence_over_its_name(tmp_path):
    moth = write_wav(tmp_path / "20240501_053000.WAV", before=chunk(b"LIST", COMMENT))
    assert read_recording_info(moth).start == datetime(2018, 12, 27, 19, 17, 30, tzinfo=zone(-5))
    assert read_recording_info(moth).recorder == "AudioMoth 0FE081F80FE081F0"
    wave = write_wav(tmp_path / "20200202_020202.wav", before=bext())
    start = datetime(2024, 5, 1, 5, 30)
    assert read_recording_info(wave) == RecordingInfo(start, start.date(), recorder="Recorder 7", source="bext")


@pytest.mark.parametrize(
    "before",
    [
        bext(day=b"0000-00-00", time=b"00:00:00", originator=b""),
        bext(day=b" " * 10, originator=b""),
        bext(day=b"2024-13-01", originator=b"\xff\x01"),
        chunk(b"bext", b"short"),
        chunk(b"bext", b"x" * 400, size=0xFFFF_FFF0),
        chunk(b"guan", b"Timestamp: yesterday\nLoc Position: north\n\xff\xfe"),
        chunk(b"guan", b"Timestamp: 2024-02-31T01:02:03\nLoc Position: 0 0\nno colon"),
        chunk(b"guan", GUANO, size=0xFFFF_FFF0),
        chunk(b"LIST", COMMENT.replace(b"27/12", b"27/13")),
    ],
)
def test_damaged_metadata_are_unknown_and_the_name_is_read(tmp_path, before):
    path = write_wav(tmp_path / "20200202_020202.wav", before=before)
    start = datetime(2020, 2, 2, 2, 2, 2)
    assert read_recording_info(path) == RecordingInfo(start, start.date(), source="name")


def test_many_chunks_of_metadata_do_not_fill_the_memory(tmp_path):
    path = write_wav(tmp_path / "20240501_053000.wav", *[chunk(b"LIST", bytes(60_000))] * 300)
    tracemalloc.start()
    assert read_recording_info(path).source == "name"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


def test_day_alone_in_metadata_gives_way_to_a_start_in_the_name(tmp_path):
    day = chunk(b"guan", b"Timestamp: 2024-05-01\n")
    assert read_recording_info(write_wav(tmp_path / "a.wav", day)) == RecordingInfo(
        day=date(2024, 5, 1), source="guano"
    )
    assert read_recording_info(write_wav(tmp_path / "20240501_053000.wav", day)).start == datetime(2024, 5, 1, 5, 30)


@given(content=st.binary(max_size=200), position=st.integers(0, 900))
def test_any_bytes_in_a_wav_are_accepted(tmp_path_factory, content, position):
    path = tmp_path_factory.getbasetemp() / "damaged.wav"
    data = write_wav(path, chunk(b"guan", GUANO), before=bext() + chunk(b"LIST", COMMENT)).read_bytes()
    path.write_bytes(data[:position] + content + data[position + len(content) :])
    assert isinstance(read_recording_info(path), RecordingInfo)


def test_files_that_are_missing_or_no_wav_are_read_by_their_name(tmp_path):
    (tmp_path / "20240501_053000.flac").write_bytes(b"fLaC")
    start = datetime(2024, 5, 1, 5, 30)
    for path in (tmp_path / "20240501_053000.flac", "s3://bucket/20240501_053000.wav", "20240501_053000\0.wav"):
        assert read_recording_info(path).start == start
    (tmp_path / "20240501_053000.d").mkdir()
    assert read_recording_info(tmp_path / "20240501_053000.d").start == start
    assert read_recording_info("5678.190101123456").start == datetime(2019, 1, 1, 12, 34, 56)
