"""Damaged files in sixty formats, and files that are no sounds. The same seed gives the same files."""

import io
import os
import random
import socket
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile

SOUNDFILE_FAMILIES = {
    **{f"wav {kind}": ("WAV", kind, ".wav") for kind in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")},
    **{f"wav {kind}": ("WAV", kind, ".wav") for kind in ("ULAW", "ALAW", "GSM610", "IMA_ADPCM", "MS_ADPCM")},
    **{f"wav {kind}": ("WAV", kind, ".wav") for kind in ("G721_32", "NMS_ADPCM_16")},
    "wav extensible": ("WAVEX", "PCM_24", ".wav"),
    "rf64": ("RF64", "PCM_16", ".rf64"),
    "w64": ("W64", "PCM_16", ".w64"),
    "aiff": ("AIFF", "PCM_16", ".aiff"),
    "aiff-c float": ("AIFF", "FLOAT", ".aifc"),
    "aiff-c IMA_ADPCM": ("AIFF", "IMA_ADPCM", ".aif"),
    "au": ("AU", "PCM_16", ".au"),
    "au G721_32": ("AU", "G721_32", ".snd"),
    "caf": ("CAF", "PCM_16", ".caf"),
    "caf alac": ("CAF", "ALAC_16", ".caf"),
    "flac": ("FLAC", "PCM_16", ".flac"),
    "flac 24 bits": ("FLAC", "PCM_24", ".flac"),
    "ogg vorbis": ("OGG", "VORBIS", ".ogg"),
    "opus": ("OGG", "OPUS", ".opus"),
    "mp3": ("MP3", "MPEG_LAYER_III", ".mp3"),
    "mp3 variable": ("MP3", "MPEG_LAYER_III", ".mp3"),
    **{name: (name.upper(), "PCM_16", ".wav") for name in ("voc", "ircam", "nist", "avr", "svx", "paf", "pvf", "htk")},
    **{name: (name.upper(), "PCM_16", ".wav") for name in ("mat4", "mat5", "sds", "mpc2k")},
    "xi": ("XI", "DPCM_16", ".wav"),
    "wve": ("WVE", "ALAW", ".wav"),
}
"""Container and codec of libsndfile, and suffix, by name."""
AV_FAMILIES = {
    "m4a aac": ("ipod", "aac", ".m4a"),
    "m4a alac": ("ipod", "alac", ".m4a"),
    "aac": ("adts", "aac", ".aac"),
    "mp2": ("mp2", "mp2", ".mp2"),
    "ac3": ("ac3", "ac3", ".ac3"),
    "eac3": ("eac3", "eac3", ".eac3"),
    "wma": ("asf", "wmav2", ".wma"),
    "amr": ("amr", "libopencore_amrnb", ".amr"),
    "webm opus": ("webm", "libopus", ".webm"),
    "mka flac": ("matroska", "flac", ".mka"),
    "mkv with video": ("matroska", "aac", ".mkv"),
    "mp4 with video": ("mp4", "aac", ".mp4"),
    "mov": ("mov", "pcm_s16le", ".mov"),
    "ogg flac": ("ogg", "flac", ".oga"),
    "wav with mp3": ("wav", "libmp3lame", ".wav"),
    "avi": ("avi", "mp2", ".wav"),
    "wavpack": ("wv", "wavpack", ".wav"),
}
"""Container and codec of FFmpeg, and suffix, by name."""
_OPEN_ENDED = frozenset({"w64", "au G721_32", "amr", "voc", "ircam", "nist", "avr", "svx"}) | {
    *("paf", "pvf", "mat5", "mpc2k", "xi", "wve")
}
"""Families whose sounds reach to the end of the file: with zeros, they are sounds of several weeks."""
GIANT_BYTES = 100 * 1024**3
_SECONDS = 1.3
_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au", ".caf", ".m4a", ".wma", ".webm", ".rf64", ".w64")
_EXTREMES = (0, 1, 2, 3, 127, 128, 255, 32767, 32768, 65535, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, -1)


class DamagedFile(NamedTuple):
    """A damaged file, and what it was made from."""

    path: Path
    family: str
    damage: str


def make_damaged_file(folder: Path, number: int, seed: int = 0) -> DamagedFile:
    """Write the damaged file with a number, which is the same for the same seed."""
    rng = random.Random(f"{seed} {number}")
    families = [*available_families(), *OTHER_FAMILIES]
    family = families[number % len(families)]
    if family == "sparse giants" and number // len(families) % 4:  # they take long
        family = "absurd samples"
    if family in OTHER_FAMILIES:
        damage = OTHER_FAMILIES[family](folder / f"{number:05}", rng)
        (path,) = folder.glob(f"{number:05}.*")
        return DamagedFile(path, family, damage)
    names = list(DAMAGES)
    # all damages soon, and each of them in each family
    damage = names[(families.index(family) + number // len(families)) % len(names)]
    content = DAMAGES[damage](sound(family, rng.randrange(2)), rng)
    suffix = rng.choice(_SUFFIXES) if damage == "wrong suffix" else suffix_of(family)
    path = folder / f"{number:05}{suffix}"
    path.write_bytes(content)
    return DamagedFile(path, family, damage)


def suffix_of(family: str) -> str:
    """The suffix of a family, with a dot."""
    return (SOUNDFILE_FAMILIES | AV_FAMILIES)[family][2]


# Sounds


@cache
def available_families() -> tuple[str, ...]:
    """The families that the installed libraries can write."""
    return tuple(family for family in [*SOUNDFILE_FAMILIES, *AV_FAMILIES] if sound(family, 0))


@cache
def sound(family: str, variant: int) -> bytes:
    """A sound of 1.3 s in the format of a family, mono (variant 0) or stereo; empty if it cannot be written."""
    write = _with_soundfile if family in SOUNDFILE_FAMILIES else _with_av
    for rate, n_channels in ((44_100, 2), (16_000, 1), (8_000, 1), (44_100, 1))[1 - variant :]:
        try:
            return write(family, rate, n_channels)
        except (RuntimeError, OSError, ValueError):  # another rate, other channels, or not at all
            continue
    return b""


def _samples(rate: int, n_channels: int) -> np.ndarray:
    times = np.arange(round(_SECONDS * rate)) / rate
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (len(times), n_channels))
    return (0.3 * np.sin(2 * np.pi * 700 * times)[:, None] + noise).astype(np.float32)


def _with_soundfile(family: str, rate: int, n_channels: int) -> bytes:
    container, codec, _ = SOUNDFILE_FAMILIES[family]
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.5} if family == "mp3 variable" else {}
    file = io.BytesIO()
    soundfile.write(file, _samples(rate, n_channels), rate, format=container, subtype=codec, **options)
    return file.getvalue()


def _with_av(family: str, rate: int, n_channels: int) -> bytes:
    import av

    muxer, codec, _ = AV_FAMILIES[family]
    layout = "mono" if n_channels == 1 else "stereo"
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 12_200 if codec == "libopencore_amrnb" else 128_000
        if "video" in family:
            _add_video(av, container)
        stream.codec_context.open(strict=False)
        samples = np.ascontiguousarray(_samples(rate, n_channels).T)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = rate
        frame_size = stream.codec_context.frame_size or 1024
        to_encoder = av.AudioResampler(stream.codec_context.format, layout, rate, frame_size=frame_size)
        for encoder_input in [*to_encoder.resample(frame), *to_encoder.resample(None), None]:
            container.mux([packet for packet in stream.encode(encoder_input) if packet.size])
    return file.getvalue()


def _add_video(av: Any, container: Any) -> None:
    """Five black frames."""
    video = container.add_stream("mpeg4", rate=5)
    video.width = video.height = 32
    video.pix_fmt = "yuv420p"
    for _ in range(5):
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
    container.mux(video.encode(None))


# Damages of a sound


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _cut_in_header(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, min(len(content), 200))]


def _flip_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(round(10 ** rng.uniform(0, 3))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _flip_header_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        damaged[rng.randrange(min(len(damaged), 200))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _lie_in_header(content: bytes, rng: random.Random) -> bytes:
    """Replace one to three numbers near the start by the extremes of their type."""
    damaged = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        size = rng.choice((1, 2, 4, 8))
        value = rng.choice((*_EXTREMES, len(content), len(content) + 1, len(content) - 1)) % (1 << 8 * size)
        position = rng.randrange(4, min(len(damaged) - 8, 300))
        position -= position % rng.choice((1, 2, 4))
        damaged[position : position + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return bytes(damaged)


def _shuffle_chunks(content: bytes, rng: random.Random) -> bytes:
    head, *chunks = chunks_of(content)
    rng.shuffle(chunks)
    return b"".join([head, *chunks])


def _duplicate_chunks(content: bytes, rng: random.Random) -> bytes:
    chunks = chunks_of(content)
    for _ in range(rng.randint(1, 3)):
        chunks.insert(rng.randint(0, len(chunks)), rng.choice(chunks))
    return b"".join(chunks)


def _drop_chunk(content: bytes, rng: random.Random) -> bytes:
    chunks = chunks_of(content)
    del chunks[rng.randrange(len(chunks))]
    return b"".join(chunks) or content[:1]


def _fill_a_part(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    n_bytes = rng.randint(1, len(content) - start)
    filling = rng.choice((bytes(n_bytes), b"\xff" * n_bytes, rng.randbytes(n_bytes)))
    return content[:start] + filling + content[start + n_bytes :]


def _insert_bytes(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.randint(1, 5000)) + content[start:]


def _join_another(content: bytes, rng: random.Random) -> bytes:
    other = sound(rng.choice(available_families()), 0)
    return rng.choice((content + other, other[: len(other) // 2] + content, content * 3))


def _keep(content: bytes, _rng: random.Random) -> bytes:
    return content


def _damage_twice(content: bytes, rng: random.Random) -> bytes:
    for _ in range(2):
        content = rng.choice(list(DAMAGES.values())[:-1])(content, rng) or b"\0"
        content += bytes(max(0, 16 - len(content)))
    return content


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "cut": _cut,
    "bits": _flip_bits,
    "lying header": _lie_in_header,
    "header bits": _flip_header_bits,
    "shuffled chunks": _shuffle_chunks,
    "duplicated chunks": _duplicate_chunks,
    "missing chunk": _drop_chunk,
    "cut in the header": _cut_in_header,
    "filled part": _fill_a_part,
    "inserted bytes": _insert_bytes,
    "joined": _join_another,
    "wrong suffix": _keep,
    "twice": _damage_twice,
}


def chunks_of(content: bytes) -> list[bytes]:
    """The chunks of a RIFF, AIFF, CAF or MP4 file, the pages of an Ogg file, or else blocks of 500 bytes; all bytes."""
    if content[:4] == b"OggS":
        return [b"OggS" + page for page in content.split(b"OggS")[1:]]
    start, header, size_start, byte_order, extra = 0, 8, 4, "little", 8
    if content[:4] == b"FORM":
        start, byte_order = 12, "big"
    elif content[:4] == b"caff":
        start, header, byte_order, extra = 8, 12, "big", 12
    elif content[4:8] == b"ftyp":
        size_start, byte_order, extra = 0, "big", 0
    elif content[:4] in (b"RIFF", b"RF64"):
        start = 12
    else:
        return [content[position : position + 500] for position in range(0, len(content), 500)]
    chunks = [content[:start]] if start else []
    while start < len(content):
        size = int.from_bytes(content[start + size_start : start + header], byte_order)  # type: ignore[arg-type]
        size = int.from_bytes(content[start : start + 4], "big") if not extra else size
        n_bytes = max(header, size + extra + (size % 2 if extra == 8 else 0))
        chunks.append(content[start : start + n_bytes])
        start += n_bytes
    return chunks


# What is no sound


def _other_content(stem: Path, rng: random.Random) -> str:
    kind = rng.choice(list(OTHER_CONTENTS))
    stem.with_suffix(rng.choice(_SUFFIXES)).write_bytes(OTHER_CONTENTS[kind](rng))
    return kind


def _special_file(stem: Path, rng: random.Random) -> str:
    kind = rng.choice(list(_SPECIAL_FILES))
    _SPECIAL_FILES[kind](stem.with_suffix(rng.choice(_SUFFIXES)))
    return kind


def _sparse_giant(stem: Path, rng: random.Random) -> str:
    """Nothing but zeros, or a sound that is followed by zeros."""
    family = rng.choice((*(family for family in available_families() if family not in _OPEN_ENDED), "zeros"))
    suffix = rng.choice(_SUFFIXES) if family == "zeros" else suffix_of(family)
    write_sparse_giant(stem.with_suffix(suffix), family)
    return family


def write_sparse_giant(path: Path, family: str) -> None:
    """A file of 100 GB that takes no space: a sound of a family, or none ("zeros"), and zeros."""
    with path.open("wb") as file:
        file.write(b"" if family == "zeros" else sound(family, 0))
        file.truncate(GIANT_BYTES)


def _absurd_samples(stem: Path, rng: random.Random) -> str:
    """NaN, infinite and huge samples."""
    samples = _samples(16_000, 1).astype(np.float64)
    kind = rng.choice(("nan", "inf", "-inf", "1e30", "1e300"))
    samples[rng.randrange(len(samples)) :] = float(kind)
    with np.errstate(over="ignore"):
        soundfile.write(stem.with_suffix(".wav"), samples, 16_000, subtype=rng.choice(("FLOAT", "DOUBLE")))
    return kind


OTHER_FAMILIES: dict[str, Callable[[Path, random.Random], str]] = {
    "other contents": _other_content,
    "special files": _special_file,
    "sparse giants": _sparse_giant,
    "absurd samples": _absurd_samples,
}


def _zip_file(_rng: random.Random) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.wav", sound("wav PCM_16", 0))
    return file.getvalue()


OTHER_CONTENTS: dict[str, Callable[[random.Random], bytes]] = {
    "zip": _zip_file,
    "html": lambda _: b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n",
    "png": lambda rng: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\2\0\0\0" + rng.randbytes(600),
    "pdf": lambda rng: b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" + rng.randbytes(400) + b"\n%%EOF\n",
    "text": lambda _: b"Recorder 7, 12 May, wind from the west\n" * 40,
    "random": lambda rng: rng.randbytes(rng.randint(1, 20_000)),
    "zeros": lambda rng: bytes(rng.randint(1, 200_000)),
    "ones": lambda rng: b"\xff" * rng.randint(1, 20_000),
    "empty": lambda _: b"",
    "playlist": lambda _: b"#EXTM3U\n#EXTINF:5,\n/etc/passwd\nhttp://localhost/a.ts\n",
    "list of ffmpeg": lambda _: b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "session description": lambda _: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
    "id3 only": lambda _: b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(300),
    "git lfs pointer": lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "forks of macOS": lambda rng: b"\0\5\x16\7\0\2\0\0Mac OS X        " + rng.randbytes(80),
}
"""Contents that are no sounds, by name."""


def _make_socket(path: Path) -> None:
    # a short relative name: the address of a socket has at most 107 bytes
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _link_to_a_loop(path: Path) -> None:
    other = path.with_name(f".{path.name}")
    other.symlink_to(path.name)
    path.symlink_to(other.name)


_SPECIAL_FILES: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo,
    "socket": _make_socket,
    **{
        f"link to {name}": (lambda path, name=name: path.symlink_to(name))
        for name in ("/dev/zero", "/dev/full", "/dev/random", "/dev/null", "/dev/tty", "/proc/self/mem", "missing")
    },
    "link to a folder": lambda path: path.symlink_to("/"),
    "link loop": _link_to_a_loop,
    "link to itself": lambda path: path.symlink_to(path.name),
}
