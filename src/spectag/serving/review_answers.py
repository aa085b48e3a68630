"""What worker processes compute for the Review view: the clips of a manifest, pictures, and sounds to play."""

import io
import os
import warnings
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from spectag.array_types import Pixels
from spectag.audio.files import AUDIO_SUFFIXES, read_audio, resample
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_drawing import in_decibels, native_mel_config, spectrogram_pixels
from spectag.audio.spectrogram_image import read_png
from spectag.audio.spectrogram_tiles import TileScheme, draw_tile
from spectag.config.base import Config
from spectag.data.manifest import read_manifest
from spectag.data.readers.annotations import is_label_track
from spectag.data.readers.file_finder import IMAGE_SUFFIXES
from spectag.data.readers.folders import visible_files
from spectag.errors import DataError, DataWarning
from spectag.serving import sound_answers
from spectag.serving.answers import AnswerLimits, Question, Refusal
from spectag.serving.field_types import Seconds
from spectag.serving.sound_answers import TileQuery
from spectag.system.atomic_files import unfinished_file

_THUMBNAIL_SECONDS = 60.0  # of a longer clip, the beginning is drawn
_THUMBNAIL_RATE = 32_000
_THUMBNAIL_SIZE = (320, 112)
_MAX_PLAYED_SECONDS = 600.0
_MAX_PLAYED_RATE = 48_000


class ClipTableQuery(Config):
    """How to read a table or a folder."""

    audio_dir: Path | None = None
    empty_is_unlabelled: bool = False
    """Clips without a label are not labelled yet; otherwise none of the labels is true."""


class ExcerptQuery(Config):
    """A clip in a recording."""

    start: Seconds
    end: Seconds | None = None
    target: Path
    """Where the result is kept."""


def read_clips(_: AnswerLimits, question: Question) -> dict[str, Any]:
    """The clips of a manifest, or of a folder of sounds without labels."""
    query = question.query
    assert isinstance(query, ClipTableQuery)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        sounds = _sounds_without_labels(question.path) if question.path.is_dir() else None
        if sounds is not None:
            clips = [[_real(path), path.relative_to(question.path).as_posix(), 0.0, None, None] for path in sounds]
            return {"clips": clips, "labels": [], "notes": []}
        manifest = read_manifest(question.path, audio_dir=query.audio_dir)
    rows: list[list[Any]] = []
    for clip in manifest.clips:
        is_labelled = bool(clip.labels or not query.empty_is_unlabelled)
        state = [clip.labels, clip.unknown, clip.weight, clip.fold, clip.group] if is_labelled else None
        rows.append([_real(clip.path), clip.fname, clip.start_seconds, clip.end_seconds, state])
    notes = [str(one.message) for one in caught if issubclass(one.category, DataWarning)]
    return {"clips": rows, "labels": manifest.labels.names, "notes": notes}


def _real(path: Path) -> str:
    return os.path.realpath(path)


def _sounds_without_labels(folder: Path) -> list[Path] | None:
    """The sounds of a folder that has neither sub-folders with sounds nor tables of annotations; None otherwise."""
    files = visible_files(folder)
    sounds = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    if not sounds:
        raise DataError(f"{folder}: there is no sound in it; choose another folder, or a table")
    is_flat = all(path.parent == folder for path in sounds)
    has_tables = any(path.suffix.lower() in (".csv", ".tsv") or _is_annotation(path) for path in files)
    return sounds if is_flat and not has_tables else None


def _is_annotation(path: Path) -> bool:
    """Whether a text file is a label track or a selection table."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        start = file.read(4_000)
    return is_label_track(start) or "Begin Time" in start


def facts(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """Length and tiles of a recording; of an image, that it is one."""
    if question.path.suffix.lower() in IMAGE_SUFFIXES:
        return {"image": True}
    return sound_answers.describe(limits, question)


def recording_tile(_: AnswerLimits, question: Question) -> bytes:
    """A tile of the spectrogram, as the Tag view has it."""
    query = question.query
    assert isinstance(query, TileQuery)
    return draw_tile(question.path, TileScheme(query.sample_rate), query.level, query.index).tobytes()


def thumbnail(_: AnswerLimits, question: Question) -> bytes:
    """A small picture of a clip, as JPEG."""
    query = question.query
    assert isinstance(query, ExcerptQuery)
    image = Image.fromarray(_pixels(question.path, query)).convert("RGB")
    content = io.BytesIO()
    image.resize(_THUMBNAIL_SIZE, Image.Resampling.BILINEAR).save(content, "JPEG", quality=80)
    with suppress(OSError), unfinished_file(query.target) as unfinished:  # the disk may be full
        unfinished.write_bytes(content.getvalue())
    return content.getvalue()


def _pixels(path: Path, query: ExcerptQuery) -> Pixels:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return read_png(path)
    end = query.start + _THUMBNAIL_SECONDS
    if query.end is not None:
        end = min(end, query.end)
    waveform, rate = read_audio(path, start_seconds=query.start, end_seconds=end)
    if rate > _THUMBNAIL_RATE:
        waveform, rate = resample(waveform, rate, _THUMBNAIL_RATE), _THUMBNAIL_RATE
    mel = native_mel_config(rate, len(waveform))
    return spectrogram_pixels(in_decibels(compute_log_mel(waveform, mel), mel)[0])


def wav_of_clip(_: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """Write a clip that a browser can't play as a wav of 16 bits."""
    query = question.query
    assert isinstance(query, ExcerptQuery)
    end = query.start + _MAX_PLAYED_SECONDS
    waveform, rate = read_audio(
        question.path, start_seconds=query.start, end_seconds=end if query.end is None else min(end, query.end)
    )
    if not len(waveform):
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{question.name}: there are no samples in it")
    if rate > _MAX_PLAYED_RATE:
        waveform, rate = resample(waveform, rate, _MAX_PLAYED_RATE), _MAX_PLAYED_RATE
    with unfinished_file(query.target) as unfinished:
        soundfile.write(unfinished, np.clip(waveform, -1, 1), rate, format="WAV", subtype="PCM_16")
    return {"bytes": query.target.stat().st_size}
