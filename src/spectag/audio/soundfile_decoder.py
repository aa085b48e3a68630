"""soundfile (libsndfile) as a decoder: wav, flac, ogg, opus, mp3, aiff, au, caf, w64 and others."""

import io
import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import soundfile
import soxr

from spectag.array_types import Float32Array
from spectag.audio.audio_info import AudioInfo
from spectag.audio.file_ends import caf_present_fraction
from spectag.audio.file_view import FileView
from spectag.audio.ogg_links import end_of_pages, ogg_links
from spectag.audio.wav_header import read_wav_header

_BLOCK_SAMPLES = 1 << 17  # per channel: about 3 s
_BLOCK_SECONDS = 60  # limit for very low sample rates, where a resampled block would fill the memory
_SALVAGE_SAMPLES = 1 << 12  # read at once before a damage
_PREROLL_SECONDS = 0.5  # after a seek, the first frames of an mp3 are wrong
# unrecognised, malformed, unsupported; for text, others report "File does not exist"
_SOUNDFILE_REASONS = (1, 3, 4)
_UNKNOWN_LENGTH = 1 << 62  # libsndfile reports 2^63 - 1 for a flac without a length
# programs that write to a pipe, and so don't know the size, write these sizes or larger ones
_MIN_PLACEHOLDER, _MIN_LONG_PLACEHOLDER = 0x7F00_0000, 1 << 60
_AU_TO_THE_END = 8, b"\xff\xff\xff\xff"
"""Position of the size in an au file, and the size for samples up to the end of the file."""
_LOSSY_FORMATS = ("MP3", "OGG")


class RefusedError(Exception):
    """soundfile can't open a file, or would read it wrongly."""


class UnknownLengthError(RefusedError):
    """soundfile would have to guess the length of a sound."""


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound that is read from start to end.

    After each read of a seekable file, soundfile seeks. It then decodes a compressed file again from an earlier frame,
    and an mp3 continues with zeros.
    """

    def seekable(self) -> bool:
        return False


def open_with_soundfile(path: Path, *, sequential: bool) -> "SoundfileDecoder | ChainedDecoder":
    """Open a sound. A RefusedError contains the reason if that is not possible."""
    header = read_wav_header(path)
    if header is not None and header.is_unfinished:
        return SoundfileDecoder(FileView(path, replacement=header.correction), sequential=sequential)
    end = end_of_pages(path)
    source = os.fsencode(path) if end is None else FileView(path, 0, end)
    decoder = SoundfileDecoder(source, sequential=sequential)
    if decoder.n_samples >= _UNKNOWN_LENGTH:
        decoder.close()
        raise UnknownLengthError("its header does not contain its length")
    if decoder.format == "MP3":
        announces_length, problem = _mp3_length(path)
        if problem is not None:
            decoder.close()
            raise UnknownLengthError(problem)
        decoder.expected_samples = decoder.n_samples if announces_length else None
        return decoder
    if decoder.format == "OGG" and len(links := ogg_links(path)) > 1:
        decoder.close()
        return ChainedDecoder(path, links)
    if decoder.format == "AU" and decoder.n_samples == 0:  # its size is 0 or was not known
        decoder.close()
        return SoundfileDecoder(FileView(path, replacement=_AU_TO_THE_END), sequential=sequential)
    if header is not None and header.present_fraction:
        decoder.expected_samples = round(decoder.n_samples / header.present_fraction)
    else:
        decoder.expected_samples = round(decoder.n_samples / _present_fraction(path, decoder.format))
    return decoder


def _open(source: bytes | FileView, *, sequential: bool) -> soundfile.SoundFile:
    file_class = _SequentialFile if sequential else soundfile.SoundFile
    try:
        return file_class(source)
    except soundfile.LibsndfileError as error:
        is_known = error.code in _SOUNDFILE_REASONS
        raise RefusedError(error.error_string.removesuffix(".") if is_known else "Format not recognised") from error


class SoundfileDecoder:
    """A sound decoded by soundfile, with all its channels."""

    def __init__(self, source: bytes | FileView, *, sequential: bool) -> None:
        file = _open(source, sequential=sequential)
        self.sample_rate: int = file.samplerate
        self.n_channels: int = file.channels
        self.n_samples: int = file.frames
        self.format: str = file.format
        self.expected_samples: int | None = file.frames
        """Samples per channel that the header announces; None if it does not say."""
        self.is_exact = file.format not in _LOSSY_FORMATS
        """Whether the announced number is that of the decoder."""
        self.damage: str | None = None
        """Why the decoder stopped before the end."""
        self._file = file
        self._source = source

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if isinstance(self._source, FileView):
            self._source.close()

    def info(self) -> AudioInfo:
        """Sample rate, channels and length, without decoding."""
        return AudioInfo(self.sample_rate, self.n_channels, self.n_samples, self.format, self.expected_samples)

    def read(self, start_seconds: float, end_seconds: float | None) -> Float32Array:
        """The samples of an excerpt, of shape (n_samples, n_channels)."""
        start = min(round(start_seconds * self.sample_rate), self.n_samples)
        end = self.n_samples if end_seconds is None else min(round(end_seconds * self.sample_rate), self.n_samples)
        n_preroll = min(round(_PREROLL_SECONDS * self.sample_rate), start) if self.format == "MP3" else 0
        # A single read: soundfile seeks before each one, and an mp3 starts with zeros after that.
        self._go_to(start - n_preroll)
        return self._decode(n_preroll + end - start, start - n_preroll)[n_preroll:]

    def blocks(self) -> Iterator[Float32Array]:
        """All samples from the start, in blocks of limited size."""
        n_block = min(_BLOCK_SAMPLES, _BLOCK_SECONDS * self.sample_rate)
        self._go_to(0)  # like `read`: without the seek, an mp3 differs in the last bit
        position = 0
        while True:
            # beyond the end, a joined flac is damaged; the length of lossy formats is an estimate
            n_samples = min(n_block, self.n_samples - position) if self.is_exact else n_block
            samples = self._decode(n_samples, position)
            yield samples
            if len(samples) < n_block or self.damage is not None:
                return
            position += n_block

    def _go_to(self, position: int) -> None:
        """Seek, or decode up to a position if the file has just been opened and its codec cannot seek."""
        if soundfile.SoundFile.seekable(self._file):
            self._file.seek(position)
            return
        while position > 0:
            n_read = len(self._file.read(min(position, _BLOCK_SAMPLES), dtype="float32", always_2d=True))
            position -= n_read or position

    def _decode(self, n_samples: int, position: int) -> Float32Array:
        """Samples of shape (n_samples, n_channels) from a position on; those before a damage if there is one."""
        try:
            return np.asarray(self._file.read(n_samples, dtype="float32", always_2d=True))
        except soundfile.LibsndfileError as error:
            samples = self._decode_up_to_the_damage(position, position + n_samples)
            if not len(samples) and position == 0:
                raise
            self.damage = error.error_string
            return samples

    def _decode_up_to_the_damage(self, start: int, end: int) -> Float32Array:
        """Decode again from the start of the file, in small steps: soundfile returns nothing of a read that fails."""
        blocks = [np.empty((0, self.n_channels), np.float32)]
        if isinstance(self._source, FileView):
            self._source.seek(0)
        with suppress(soundfile.LibsndfileError), _open(self._source, sequential=True) as file:
            for position in range(0, end, _SALVAGE_SAMPLES):
                n_samples = min(end - position, _SALVAGE_SAMPLES)
                block = file.read(n_samples, dtype="float32", always_2d=True)
                blocks.append(block[max(0, start - position) :])
                if len(block) < n_samples:
                    break
        return np.concatenate(blocks)


class ChainedDecoder:
    """The links of a chained Ogg file, one after the other. soundfile itself reads the first link only."""

    def __init__(self, path: Path, links: list[tuple[int, int]]) -> None:
        self._path = path
        self._links = links
        with closing(self._link(0)) as first:
            self.sample_rate = first.sample_rate
            self.n_channels = first.n_channels
        self.expected_samples: int | None = None
        self.format = "OGG"
        self.is_exact = False
        self.damage: str | None = None

    def close(self) -> None:
        """Do nothing: each link is closed when it has been read."""

    def info(self) -> AudioInfo:
        """Sample rate and channels of the first link, and the length of all links."""
        seconds = 0.0
        for number in range(len(self._links)):
            with closing(self._link(number)) as link:
                seconds += link.info().duration_seconds
        return AudioInfo(self.sample_rate, self.n_channels, round(seconds * self.sample_rate), "OGG", None)

    def read(self, start_seconds: float, end_seconds: float | None) -> Float32Array:
        """The samples of an excerpt, of shape (n_samples, n_channels)."""
        start = round(start_seconds * self.sample_rate)
        end = None if end_seconds is None else round(end_seconds * self.sample_rate)
        kept, position = [np.empty((0, self.n_channels), np.float32)], 0
        for block in self.blocks():
            kept.append(block[max(start - position, 0) : None if end is None else max(end - position, 0)])
            position += len(block)
            if end is not None and position >= end:
                break
        return np.concatenate(kept)

    def blocks(self) -> Iterator[Float32Array]:
        """All samples from the start, in blocks of limited size; links of another rate are resampled."""
        for number in range(len(self._links)):
            with closing(self._link(number)) as link:
                for block in link.blocks() if link.sample_rate == self.sample_rate else self._resampled(link):
                    yield self._with_channels_of_first_link(block)

    def _link(self, number: int) -> SoundfileDecoder:
        return SoundfileDecoder(FileView(self._path, *self._links[number]), sequential=True)

    def _resampled(self, link: SoundfileDecoder) -> Iterator[Float32Array]:
        resampler = soxr.ResampleStream(link.sample_rate, self.sample_rate, link.n_channels, dtype="float32")
        for block in link.blocks():
            yield resampler.resample_chunk(np.ascontiguousarray(block)).reshape(-1, link.n_channels)
        rest = resampler.resample_chunk(np.empty((0, link.n_channels), np.float32), last=True)
        yield rest.reshape(-1, link.n_channels)

    def _with_channels_of_first_link(self, block: Float32Array) -> Float32Array:
        if block.shape[1] == self.n_channels:
            return block
        return np.repeat(block.mean(axis=1, keepdims=True), self.n_channels, axis=1)


def _present_fraction(path: Path, container: str) -> float:
    """The part of an aiff, au, w64 or caf file that is there, by the size in its header; 1 if it says none."""
    if container == "CAF":
        return caf_present_fraction(path) or 1.0
    with path.open("rb") as file:
        header = file.read(24)
        file_size = file.seek(0, io.SEEK_END)
    if container == "AIFF":
        declared = 8 + int.from_bytes(header[4:8], "big")
    elif container == "AU" and header[:4] == b".snd":
        declared = int.from_bytes(header[4:8], "big") + int.from_bytes(header[8:12], "big")
    elif container == "W64":
        declared = int.from_bytes(header[16:24], "little")
    else:
        return 1.0
    is_known = 0 < declared < (_MIN_LONG_PLACEHOLDER if container == "W64" else _MIN_PLACEHOLDER)
    return min(1.0, file_size / declared) if is_known else 1.0


# MPEG layer 3: kbit/s by index, for version 1 and for versions 2 and 2.5; samples per second by version and index.
_MP3_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_MAX_FRAME = 1441  # bytes
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _mp3_length(path: Path) -> tuple[bool, str | None]:
    """Whether a header announces the length of an mp3, and why libsndfile does not know it; None if it does.

    It takes the length from the Xing header, which is that of the first of several joined files. Without a header, it
    estimates the length from the bit rate of the first frame, and so misses some samples if the bit rate varies.
    (mutagen does the same: it reads up to four frames, and does not report whether the bit rate varies.)
    """
    with path.open("rb") as file:
        start = _end_of_id3_tag(file.read(10))
        file.seek(start)
        data = file.read(1 << 20)
        if any(tag in data[:256] for tag in (b"Xing", b"Info", b"VBRI")):
            end = start + _xing_bytes(data)
            file.seek(end)
            following = file.read(1 << 14) if end > start else b""
            is_joined = following[:3] == b"ID3" or len(list(_mp3_bit_rates(following, 0))) > 2
            return True, "it consists of several files" if is_joined else None
    for position in range(min(len(data), _MP3_MAX_FRAME)):  # the file may start in the middle of a frame
        bit_rates = list(_mp3_bit_rates(data, position))
        if len(bit_rates) > 2:
            return False, "its header does not contain its length" if len(set(bit_rates)) > 1 else None
    return False, None


def _end_of_id3_tag(head: bytes) -> int:
    """Where the first frame of an mp3 is, from its first ten bytes."""
    if head[:3] != b"ID3":
        return 0
    return 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def _xing_bytes(data: bytes) -> int:
    """Size of an mp3 according to the Xing header in its first frame; 0 if it is not there."""
    position = max(data[:256].find(b"Xing"), data[:256].find(b"Info"))
    flags = int.from_bytes(data[position + 4 : position + 8], "big")
    if position < 0 or not flags & 2:
        return 0
    position += 12 if flags & 1 else 8
    return int.from_bytes(data[position : position + 4], "big")


def _mp3_bit_rates(data: bytes, position: int) -> Iterator[int]:
    """The bit rate of each frame, up to the first bytes that are not a frame of layer 3."""
    while position + 4 <= len(data):
        header = int.from_bytes(data[position : position + 4], "big")
        sync, version, layer = header >> 21, header >> 19 & 3, header >> 17 & 3
        bit_rate_index, rate_index, padding = header >> 12 & 15, header >> 10 & 3, header >> 9 & 1
        if sync != 0x7FF or version == 1 or layer != 1 or bit_rate_index in (0, 15) or rate_index == 3:
            return
        bit_rate = 1000 * _MP3_KBITS[version != 3][bit_rate_index]
        yield bit_rate
        position += (144 if version == 3 else 72) * bit_rate // _MP3_RATES[version][rate_index] + padding
