"""When and where a recording was made, from the metadata in a wav file, otherwise from its name.

Only the chunks with such metadata are read, and at most 64 kB of each. The packages `guano` and `wavinfo` read chunks
of any size into memory; guano fails on float and RF64 files, and wavinfo on any damaged chunk.
"""

import re
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path, PurePath

from spectag.audio.files import AUDIO_SUFFIXES
from spectag.audio.recorder_names import info_in_name, parse_zone
from spectag.audio.recording_info import UNKNOWN, RecordingInfo, combined, valid_place
from spectag.audio.wav_header import wav_chunks

_MAX_CHUNK_BYTES = 1 << 16
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d.*")
_AUDIOMOTH = re.compile(
    rb"Recorded at (\d\d):(\d\d):(\d\d)(?:\.\d+)? (\d\d)/(\d\d)/(\d{4}) \(UTC([+-]\d+(?::\d\d)?)?\) by (AudioMoth \w+)"
)
_BEXT_DATE = re.compile(r"(\d{4})[-_: ./](\d\d)[-_: ./](\d\d)")
_BEXT_TIME = re.compile(r"(\d\d)[-_: ./](\d\d)[-_: ./](\d\d)")


def read_recording_info(path: str | Path) -> RecordingInfo:
    """When and where a recording was made, as far as the file and its name say so.

    Parameters
    ----------
    path : str or Path
        A file. If it does not exist, is a URL, or is not a wav, its name alone is read.

    Returns
    -------
    RecordingInfo
        Metadata in the file take precedence over its name: first the GUANO chunk, then AudioMoth's comment, then the
        bext chunk. What is missing, damaged or ambiguous is None; a time is never replaced by midnight.
    """
    infos = [*_infos_in_file(Path(path)), info_in_name(_stem(str(path)))]
    return combined(infos)


def _stem(location: str) -> str:
    """The name without the suffix of a sound. What follows another dot is a part of the name: 5678.190101123456."""
    name = PurePath(location)
    return name.stem if name.suffix.lower() in AUDIO_SUFFIXES else name.name


def _infos_in_file(path: Path) -> list[RecordingInfo]:
    """What the chunks of a wav say, the most reliable one first. Whatever is damaged is left out."""
    chunks: dict[bytes, bytes] = {}
    with suppress(OSError, ValueError):
        if path.is_file():
            for name, data in wav_chunks(path, (b"guan", b"LIST", b"bext"), max_bytes=_MAX_CHUNK_BYTES):
                if len(chunks.get(name, b"")) < _MAX_CHUNK_BYTES:
                    chunks[name] = chunks.get(name, b"") + data
    return [
        _guano(chunks.get(b"guan", b"").decode("utf-8", "replace")),
        _audiomoth_comment(chunks.get(b"LIST", b"")),
        _bext(chunks.get(b"bext", b"").decode("latin-1")),
    ]


def _guano(text: str) -> RecordingInfo:
    """The fields of a GUANO chunk: lines such as `Timestamp: 2024-05-01T05:30:00+02:00`."""
    pairs = (line.split(":", 1) for line in text.replace("\0", "").splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in pairs}
    info = UNKNOWN
    timestamp = fields.get("Timestamp", "")
    if _TIMESTAMP.fullmatch(timestamp):
        with suppress(ValueError):
            info = RecordingInfo.at(datetime.fromisoformat(timestamp), "guano")
    elif timestamp:
        with suppress(ValueError):
            info = RecordingInfo(day=date.fromisoformat(timestamp), source="guano")
    recorder = " ".join(value for key in ("Make", "Model") if (value := fields.get(key)))
    position = fields.get("Loc Position", "").split()
    latitude, longitude = valid_place(*position) if len(position) == 2 else (None, None)
    return replace(info, latitude=latitude, longitude=longitude, recorder=recorder or None)


def _audiomoth_comment(data: bytes) -> RecordingInfo:
    match = _AUDIOMOTH.search(data)
    if match is None:
        return UNKNOWN
    hour, minute, second, day, month, year = map(int, match.groups()[:6])
    zone = parse_zone(match[7].decode() if match[7] else "Z")
    with suppress(ValueError):
        return RecordingInfo.at(
            datetime(year, month, day, hour, minute, second, tzinfo=zone), "comment", match[8].decode()
        )
    return UNKNOWN


def _bext(text: str) -> RecordingInfo:
    """The originator, date and time of a bext chunk (EBU Tech 3285)."""
    originator = text[256:288].split("\0")[0].strip()
    days, times = _BEXT_DATE.fullmatch(text[320:330]), _BEXT_TIME.fullmatch(text[330:338])
    info = UNKNOWN
    with suppress(ValueError):
        if days is not None:
            info = RecordingInfo(day=date(*map(int, days.groups())), source="bext")
            if times is not None:
                info = RecordingInfo.at(datetime(*map(int, (*days.groups(), *times.groups()))), "bext")  # type: ignore[arg-type]
    return replace(info, recorder=originator if originator.isprintable() and originator else None)
