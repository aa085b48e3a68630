"""Cue points, bext and iXML in a copy of a wav. The samples and all other chunks are copied byte by byte.

`mutagen` writes only ID3 into wav files, which audio editors do not read; `wavinfo` only reads.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple
from xml.etree import ElementTree  # nosec B405 - entities are refused before parsing

from spectag.audio.wav_header import read_wav_header
from spectag.errors import AudioError
from spectag.system.output import xml_text

_MAX_SIZE = 0xFFFF_FFFF
_MAX_CHUNKS = 10_000
_MAX_METADATA = 16_000_000  # bytes of a chunk that is changed; larger ones stay as they are
_BLOCK = 1 << 20
_BEXT_SIZE, _DESCRIPTION_SIZE, _BEXT_VERSION_AT = 602, 256, 346  # EBU Tech 3285
_IXML_VERSION = "1.61"
_KEYWORDS_SEPARATOR = "; "


class CuePoint(NamedTuple):
    """A sound in a recording."""

    start_seconds: float
    end_seconds: float
    label: str


@dataclass(frozen=True)
class WavTags:
    """What is written into a copy of a wav."""

    keywords: tuple[str, ...]
    description: str
    cues: tuple[CuePoint, ...] = ()


class _Chunk(NamedTuple):
    name: bytes
    position: int
    """Of its first byte after the header."""
    size: int


def copy_wav_with_tags(source: Path, target: Path, tags: WavTags) -> None:
    """Write a copy of a wav with cue points, an iXML chunk and a bext chunk that contain tags.

    Existing cue points, texts and chunks stay. A description in bext that is not empty stays as it is, and so does an
    iXML chunk that is not plain XML in UTF-8.

    Raises
    ------
    AudioError
        If the file is not a plain wav (RF64, for example), is damaged, or would be larger than 4 GB.
    OSError
    """
    header = read_wav_header(source)
    if header is not None and (header.declared_size is None or header.is_unfinished or header.present_fraction < 1):
        raise AudioError(f"{source}: the header does not say where the samples end; write sidecars")
    with source.open("rb") as file:
        chunks = list(_chunks(source, file))
        first = {chunk.name: chunk for chunk in reversed(chunks)}
        rate = _sample_rate(source, file, first)
        new = _new_chunks(file, chunks, first, tags, rate)
        with target.open("wb") as out:
            out.write(b"RIFF\0\0\0\0WAVE")
            for chunk in chunks:
                content = new.pop(chunk, None)
                if content is None:
                    _copy_chunk(file, chunk, out)
                else:
                    _write_chunk(out, chunk.name, content)
            for chunk, content in new.items():
                _write_chunk(out, chunk.name, content)
            size = out.tell() - 8
            if size > _MAX_SIZE:
                raise AudioError(f"{source}: a wav with tags would be larger than 4 GB; write sidecars")
            out.seek(4)
            out.write(struct.pack("<I", size))


def _chunks(path: Path, file: BinaryIO) -> Iterator[_Chunk]:
    file_size = file.seek(0, 2)
    file.seek(0)
    header = file.read(12)
    if header[:4] in (b"RF64", b"BW64", b"RIFX"):
        raise AudioError(f"{path}: tags cannot be written into {header[:4].decode()} files; write sidecars")
    if header[:4] != b"RIFF" or header[8:] != b"WAVE":
        raise AudioError(f"{path}: this is not a wav file; write sidecars")
    position, n_chunks = 12, 0
    while position + 8 <= file_size:
        if (n_chunks := n_chunks + 1) > _MAX_CHUNKS:
            raise AudioError(f"{path}: the wav has more than {_MAX_CHUNKS:,} chunks; write sidecars")
        file.seek(position)
        name, size = struct.unpack("<4sI", file.read(8))
        if position + 8 + size > file_size:
            raise AudioError(f"{path}: the file is truncated or damaged at byte {position:,}; write sidecars")
        yield _Chunk(name, position + 8, size)
        position += 8 + size + size % 2


def _sample_rate(path: Path, file: BinaryIO, chunks: dict[bytes, _Chunk]) -> int:
    if b"fmt " not in chunks or b"data" not in chunks or chunks[b"fmt "].size < 16:
        raise AudioError(f"{path}: the wav has no format or no samples; write sidecars")
    rate: int = struct.unpack("<I", _read(file, chunks[b"fmt "])[4:8])[0]
    return rate


def _read(file: BinaryIO, chunk: _Chunk) -> bytes:
    file.seek(chunk.position)
    return file.read(chunk.size)


def _copy_chunk(file: BinaryIO, chunk: _Chunk, out: BinaryIO) -> None:
    out.write(struct.pack("<4sI", chunk.name, chunk.size))
    file.seek(chunk.position)
    n_left = chunk.size
    while n_left:
        block = file.read(min(_BLOCK, n_left))
        if not block:
            raise OSError("the file became shorter while it was copied")
        out.write(block)
        n_left -= len(block)
    out.write(b"\0" * (chunk.size % 2))


def _write_chunk(out: BinaryIO, name: bytes, content: bytes) -> None:
    out.write(struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2))


def _new_chunks(
    file: BinaryIO, chunks: Sequence[_Chunk], first: dict[bytes, _Chunk], tags: WavTags, rate: int
) -> dict[_Chunk, bytes]:
    """The content of the chunks that change, and of new ones, whose position is 0."""
    new: dict[_Chunk, bytes] = {}
    bext = first.get(b"bext", _Chunk(b"bext", 0, 0))
    if bext.size <= _MAX_METADATA:
        new[bext] = _with_description(_read(file, bext), tags.description)
    ixml = first.get(b"iXML", _Chunk(b"iXML", 0, 0))
    if ixml.size <= _MAX_METADATA:
        content = _with_keywords(_read(file, ixml), tags)
        if content is not None:
            new[ixml] = content
    cue = first.get(b"cue ", _Chunk(b"cue ", 0, 0))
    adtl = next((chunk for chunk in chunks if chunk.name == b"LIST" and _read_start(file, chunk) == b"adtl"), None)
    texts = adtl or _Chunk(b"LIST", 0, 0)
    if tags.cues and max(cue.size, texts.size) <= _MAX_METADATA:
        old = _read(file, texts) if adtl else b"adtl"
        new[cue], new[texts] = _with_cues(_read(file, cue), old, tags.cues, rate)
    return new


def _read_start(file: BinaryIO, chunk: _Chunk) -> bytes:
    file.seek(chunk.position)
    return file.read(min(4, chunk.size))


def _with_description(bext: bytes, text: str) -> bytes:
    """A bext chunk whose description is the text, unless it has one. Programs read ASCII there."""
    if not bext:
        bext = b"\0" * _BEXT_VERSION_AT + struct.pack("<H", 1) + b"\0" * (_BEXT_SIZE - _BEXT_VERSION_AT - 2)
    if len(bext) < _DESCRIPTION_SIZE or bext[:_DESCRIPTION_SIZE].strip(b"\0 "):
        return bext
    encoded = text.encode("ascii", "replace")[:_DESCRIPTION_SIZE]
    return encoded.ljust(_DESCRIPTION_SIZE, b"\0") + bext[_DESCRIPTION_SIZE:]


def _with_keywords(ixml: bytes, tags: WavTags) -> bytes | None:
    """An iXML chunk with the keywords, and the description as a note if there is none; None: it stays as it is."""
    root = ElementTree.Element("BWFXML")
    if ixml.strip(b"\0 \r\n\t"):
        with suppress(UnicodeDecodeError, ElementTree.ParseError):
            text = ixml.decode("utf-8-sig").rstrip("\0")
            if "<!" in text.replace("<!--", ""):  # entities may be bombs
                return None
            parsed = ElementTree.fromstring(text.encode())  # nosec B314 - without declarations, so without entities
            root = parsed if parsed.tag == "BWFXML" else root
        if not len(root):
            return None
    else:
        ElementTree.SubElement(root, "IXML_VERSION").text = _IXML_VERSION
    note = _child(root, "NOTE")
    note.text = note.text if (note.text or "").strip() else xml_text(tags.description)
    keywords = _child(_child(root, "USER"), "KEYWORDS")
    before = [word for word in (keywords.text or "").split(_KEYWORDS_SEPARATOR) if word.strip()]
    keywords.text = _KEYWORDS_SEPARATOR.join(dict.fromkeys([*before, *map(xml_text, tags.keywords)]))
    try:
        text = ElementTree.tostring(root, encoding="unicode")
    except RecursionError:
        return None
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


def _child(parent: ElementTree.Element, name: str) -> ElementTree.Element:
    child = parent.find(name)
    return ElementTree.SubElement(parent, name) if child is None else child


def _with_cues(cue: bytes, adtl: bytes, cues: Sequence[CuePoint], rate: int) -> tuple[bytes, bytes]:
    """The chunks of cue points and of their texts, with new ones after the old ones."""
    n_old = min(struct.unpack("<I", cue[:4])[0], (len(cue) - 4) // 24) if len(cue) >= 4 else 0
    points = [cue[4 + 24 * number : 28 + 24 * number] for number in range(n_old)]
    next_id = max((struct.unpack("<I", point[:4])[0] for point in points), default=0) + 1
    texts = [adtl + b"\0" * (len(adtl) % 2)]
    for number, sound in enumerate(cues, start=next_id):
        start, end = round(sound.start_seconds * rate), round(sound.end_seconds * rate)
        if end > _MAX_SIZE or number > _MAX_SIZE:
            continue
        points.append(struct.pack("<II4sIII", number, start, b"data", 0, 0, start))
        label = sound.label.encode("utf-8", "replace") + b"\0"
        texts.append(_subchunk(b"labl", struct.pack("<I", number) + label))
        texts.append(_subchunk(b"ltxt", struct.pack("<II4sHHHH", number, max(end - start, 0), b"rgn ", 0, 0, 0, 0)))
    return struct.pack("<I", len(points)) + b"".join(points), b"".join(texts)


def _subchunk(name: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI", name, len(content)) + content + b"\0" * (len(content) % 2)
