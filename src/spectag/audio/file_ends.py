"""Whether the end of a file is missing, for formats whose header does not contain their length.

An Ogg file ends with a page that says so. Formats that are a sequence of frames (mp1, mp2, mp3, aac, ac3) can be cut
anywhere; the last frame is then incomplete. A CAF file contains the size of its samples.
"""

import io
import re
from collections.abc import Callable
from pathlib import Path

_TAIL_BYTES = 1 << 16
_OGG_PAGE, _OGG_PAGE_HEADER, _LAST_PAGE = b"OggS\0", 27, 4
_ID3V1_BYTES = 128
_FRAME_STARTS = re.compile(rb"[\xff\x0b]")  # the first byte of a frame of MPEG or AC-3
_MIN_FRAMES = 3  # in succession: fewer may be samples that look like the header of a frame
_MAX_CHUNKS = 1_000

# kbit/s by index: MPEG 1 layers 1, 2 and 3, and MPEG 2 layer 1 and others. Samples per second by version and index.
_MPEG1_KBITS = (
    (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_MPEG2_KBITS = (
    (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_HEADER_BYTES = 6  # that tell the length of a frame of any of the formats


def end_is_missing(path: Path, format_name: str) -> bool:
    """Whether the end of a file is missing, as far as its last bytes tell; False if that cannot be known.

    Parameters
    ----------
    path : Path
    format_name : str
        OGG or MP3 of libsndfile, or the name of a container of FFmpeg.

    Raises
    ------
    OSError
        If the file can't be read.
    """
    name = format_name.lower()
    if name == "caf":
        return caf_present_fraction(path) < 1
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
    if name == "ogg":
        return _last_page_is_missing(tail)
    frame_length = _FRAME_LENGTHS.get(name)
    return frame_length is not None and _last_frame_is_cut(_without_id3(tail), frame_length)


def caf_present_fraction(path: Path) -> float:
    """The part of the samples of a CAF file that is there, according to the size in its header; 1 if it says none."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(8)
        for _ in range(_MAX_CHUNKS):
            header = file.read(12)
            n_bytes = int.from_bytes(header[4:], "big", signed=True)
            if len(header) < 12 or n_bytes < 0:  # -1: up to the end of the file
                return 1.0
            if header[:4] != b"data" and file.tell() + n_bytes > size:
                return 1.0
            if header[:4] == b"data":
                return min(1.0, (size - file.tell()) / n_bytes) if n_bytes else 1.0
            file.seek(n_bytes, io.SEEK_CUR)
    return 1.0


def _last_page_is_missing(tail: bytes) -> bool:
    """Whether an Ogg file ends within a page, or with a page that is not the last one."""
    position = tail.rfind(_OGG_PAGE)
    if position < 0:
        return False
    header = tail[position : position + _OGG_PAGE_HEADER]
    if len(header) < _OGG_PAGE_HEADER:
        return True
    sizes = tail[position + _OGG_PAGE_HEADER :][: header[26]]
    is_cut = position + _OGG_PAGE_HEADER + header[26] + sum(sizes) > len(tail) or len(sizes) < header[26]
    return is_cut or not header[5] & _LAST_PAGE


def _without_id3(tail: bytes) -> bytes:
    return tail[:-_ID3V1_BYTES] if tail[-_ID3V1_BYTES:][:3] == b"TAG" else tail


def _last_frame_is_cut(tail: bytes, frame_length: Callable[[bytes], int | None]) -> bool:
    """Whether frames follow each other up to the end, and the last one is incomplete."""
    for match in _FRAME_STARTS.finditer(tail):
        position, n_frames = match.start(), 0
        while length := frame_length(tail[position : position + _HEADER_BYTES]):
            position += length
            n_frames += 1
        if n_frames >= _MIN_FRAMES:
            return position > len(tail)
    return False


def _mpeg_length(header: bytes) -> int | None:
    """Bytes of an MPEG audio frame (layers 1 to 3)."""
    bits = int.from_bytes(header[:4], "big")
    version, layer = bits >> 19 & 3, 4 - (bits >> 17 & 3)
    bit_rate_index, rate_index, padding = bits >> 12 & 15, bits >> 10 & 3, bits >> 9 & 1
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or layer == 4 or bit_rate_index in (0, 15):
        return None
    if rate_index == 3:
        return None
    table = _MPEG1_KBITS[layer - 1] if version == 3 else _MPEG2_KBITS[min(layer, 2) - 1]
    bits_per_second, rate = 1000 * table[bit_rate_index], _MPEG_RATES[version][rate_index]
    if layer == 1:
        return 4 * (12 * bits_per_second // rate + padding)
    return (72 if layer == 3 and version != 3 else 144) * bits_per_second // rate + padding


def _adts_length(header: bytes) -> int | None:
    """Bytes of an AAC frame with an ADTS header."""
    bits = int.from_bytes(header[:6], "big")
    if len(header) < _HEADER_BYTES or bits >> 36 != 0xFFF or bits >> 33 & 3:
        return None
    return bits >> 5 & 0x1FFF or None


def _ac3_length(header: bytes) -> int | None:
    """Bytes of an AC-3 or E-AC-3 frame."""
    if len(header) < _HEADER_BYTES or header[:2] != b"\x0b\x77":
        return None
    if header[5] >> 3 > 10:  # E-AC-3
        return 2 * ((header[2] & 7) << 8 | header[3]) + 2
    rate_index, code = header[4] >> 6, header[4] & 63
    if rate_index == 3 or code >= 2 * len(_AC3_KBITS):
        return None
    kbits = _AC3_KBITS[code // 2]
    return 2 * (2 * kbits, 320 * kbits // 147 + code % 2, 3 * kbits)[rate_index]


_FRAME_LENGTHS: dict[str, Callable[[bytes], int | None]] = {
    "mp3": _mpeg_length,
    "aac": _adts_length,
    "ac3": _ac3_length,
    "eac3": _ac3_length,
}
