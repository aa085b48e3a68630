"""What worker processes compute for the Tag view: probabilities, tiles, tables, explanations and sounds to play."""

import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from pydantic import Field

from spectag.audio.files import audio_info, open_stream, read_audio
from spectag.audio.spectrogram_drawing import frequency_ticks
from spectag.audio.spectrogram_tiles import DB_PER_STEP, LOWEST_DB, TILE_COLUMNS, TileScheme, draw_tile
from spectag.config.base import Config
from spectag.config.tagging import LONG_RATIO, SEGMENT_WINDOW, TagSettings
from spectag.errors import DataError
from spectag.models.frames_info import FramesInfo
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline
from spectag.reporting.attribution import attribute
from spectag.serving.answers import AnswerLimits, Question, Refusal, opened_tagger, too_long
from spectag.serving.page_sounds import timeline_file
from spectag.system.atomic_files import unfinished_file
from spectag.system.paths import common_folder
from spectag.tagging.events import FileEvents, detected_events, windows_to_tag
from spectag.tagging.formats.dispatch import FORMATS, TableContext, check_installed, write
from spectag.tagging.formats.submission import Template
from spectag.tagging.parallel import Chunk, TaggedFile, tag_chunk

WAV_FILE = "sound.wav"
FORMATS_OF_ONE = frozenset({"audacity", "reaper", "audition", "sonic-visualiser"})
"""Formats with a file for each recording."""
_TEMPLATE = Path("sample_submission.csv")
LOWEST_THRESHOLD = 0.02
"""Labels below it everywhere, and below their own thresholds, are not sent to the page."""

_MAX_PLAYED_RATE = 48_000
_DIGITS = 4  # of a map


class TileQuery(Config):
    """A tile of a spectrogram."""

    sample_rate: int = Field(gt=0, le=10_000_000)
    level: int = Field(ge=0, le=100)
    index: int = Field(ge=0, le=10**9)


class ExplainQuery(Config):
    """What to explain: a label in an excerpt."""

    label: str = Field(max_length=1_000)
    start: float = Field(ge=0, le=1e6)
    end: float = Field(ge=0, le=1e6)


class SegmentChoice(Config):
    """The settings of the page: which segments of which labels are shown, and written into a table."""

    format: str = "csv"
    min_confidence: float | None = Field(None, ge=0, le=1)
    smooth_windows: int | None = Field(None, ge=1, le=99_999)
    min_duration_seconds: float = Field(0.0, ge=0, le=1e6)

    def tag_settings(self) -> TagSettings:
        """The settings of `spectag tag` that give the same. A ValueError if they are wrong."""
        if self.format in ("wide", "wide-parquet"):
            return TagSettings(format=self.format, **_window_options())
        if self.format == "submission":
            return TagSettings(template=_TEMPLATE)
        if self.format == "multi-hot":
            return TagSettings(format=self.format, min_confidence=self.min_confidence)
        options = {"min_confidence": self.min_confidence, "smooth_windows": self.smooth_windows}
        return TagSettings(format=self.format, segments=True, min_duration_seconds=self.min_duration_seconds, **options)


class TableQuery(Config):
    """Sounds whose labels become a table."""

    choice: SegmentChoice
    sounds: tuple[tuple[str, str], ...]
    """Folder and name of each."""
    template: bytes = b""
    """The table with the rows and columns of a submission."""


def describe(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """Length and sample rate of a sound, and how its spectrogram is divided into tiles."""
    info = audio_info(question.path)
    if refusal := too_long(limits, question, info.duration_seconds):
        return refusal
    if info.n_samples == 0:
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, f"{question.name}: there are no samples in it")
    scheme = TileScheme(info.sample_rate)
    levels = range(scheme.n_levels(info.duration_seconds))
    return {
        "duration": info.duration_seconds,
        "sample_rate": info.sample_rate,
        "channels": info.n_channels,
        "format": info.format,
        "tiles": {
            "columns": TILE_COLUMNS,
            "lowest_db": LOWEST_DB,
            "db_per_step": DB_PER_STEP,
            "band_edges": scheme.band_edges.round(2).tolist(),
            "ticks": [{"text": text, "height": height} for text, height in frequency_ticks(scheme.mel(0))],
            "levels": [{"seconds": scheme.column_seconds(n), "offset": scheme.offset_seconds(n)} for n in levels],
        },
    }


def tile(_: AnswerLimits, question: Question) -> bytes:
    """A tile of the spectrogram: 128 rows of bytes, the lowest band first."""
    query = question.query
    assert isinstance(query, TileQuery)
    name = f"tile-{query.level}-{query.index}"
    with contextlib.suppress(FileNotFoundError):
        return question.path.with_name(name).read_bytes()
    content = draw_tile(question.path, TileScheme(query.sample_rate), query.level, query.index).tobytes()
    with contextlib.suppress(OSError), _file_beside(question.path, name) as unfinished:  # the disk may be full
        unfinished.write_bytes(content)
    return content


@contextlib.contextmanager
def _file_beside(sound: Path, name: str) -> Iterator[Path]:
    """A file to write into the folder of a sound. Nothing stays of it if the sound is removed meanwhile."""
    try:
        with unfinished_file(sound.with_name(name)) as unfinished:
            yield unfinished
    finally:
        if not sound.exists():
            shutil.rmtree(sound.parent, ignore_errors=True)


def probabilities(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """The probabilities of all windows or frames, of the labels that can matter, as base64 of float32 by label."""
    tagger = opened_tagger(limits)
    tagged = tag_chunk(tagger, tagger.segment_window, 1, Chunk(0, (str(question.path),))).files[0]
    timeline = tagged.timeline
    if timeline is None:
        reason = (tagged.reason or "it can't be read").replace(str(question.path), question.name)
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
    with _file_beside(question.path, timeline_file(limits.model)) as unfinished:
        _save(unfinished, timeline, tagged.duration_seconds)
    thresholds = tagger.thresholds_for(tagger.segment_window)
    highest = timeline.probabilities.max(axis=0, initial=0.0)
    sent = np.flatnonzero(highest >= np.minimum(thresholds, np.float32(LOWEST_THRESHOLD)))
    values = np.ascontiguousarray(timeline.probabilities[:, sent].T, "<f4")
    return {
        "duration": tagged.duration_seconds,
        "notes": "; ".join(tagged.faults.descriptions()),
        "starts": timeline.starts.tolist(),
        "ends": timeline.ends.tolist(),
        "frames": joining_of(timeline.frames),
        "labels": [tagger.labels.names[index] for index in sent],
        "thresholds": [float(threshold) for threshold in thresholds[sent]],
        "probabilities": base64.b64encode(values.tobytes()).decode("ascii"),
        "whole": _tags_of_whole(tagger, question.path, tagged.duration_seconds or 0.0),
    }


def joining_of(frames: FramesInfo | None) -> dict[str, Any] | None:
    """How frames become segments, for the page; None: the timeline has windows."""
    if frames is None:
        return None
    return {"closed": frames.closed_frames, "smoothed": frames.smooth_frames, "hysteresis": frames.hysteresis}


def _tags_of_whole(tagger: Tagger, path: Path, seconds: float) -> list[dict[str, Any]] | None:
    """What `spectag tag` reports of a sound as long as the training clips; None of a longer one."""
    if seconds > LONG_RATIO * tagger.info.clip_seconds:
        return None
    settings = TagSettings(format="json")
    tagged = tag_chunk(tagger, windows_to_tag(tagger, settings), 1, Chunk(0, (str(path),))).files[0]
    if tagged.timeline is None:
        return None
    events = detected_events(tagged, tagged.timeline, tagger, settings).events
    return [{"label": event.label, "probability": round(event.probability, 6)} for event in events]


def _save(path: Path, timeline: Timeline, seconds: float | None) -> None:
    arrays: dict[str, Any] = {
        "starts": timeline.starts,
        "ends": timeline.ends,
        "probabilities": timeline.probabilities,
        "seconds": np.array([np.nan if seconds is None else seconds]),
    }
    if timeline.novelty is not None:
        arrays["novelty"] = timeline.novelty
    if timeline.frames is not None:
        arrays["frames"] = np.array(timeline.frames.model_dump_json())
    with path.open("wb") as file:
        np.savez(file, **arrays)


def _saved(path: Path, name: str) -> TaggedFile:
    with np.load(path, allow_pickle=False) as arrays:
        frames = FramesInfo.model_validate_json(str(arrays["frames"])) if "frames" in arrays else None
        novelty = arrays.get("novelty")
        timeline = Timeline(arrays["starts"], arrays["ends"], arrays["probabilities"], novelty, frames)
        seconds = float(arrays["seconds"][0])
    return TaggedFile(name, timeline, sound_seconds=None if np.isnan(seconds) else seconds)


def table(limits: AnswerLimits, question: Question) -> bytes | Refusal:
    """The table that `spectag tag` writes for these sounds; a Refusal (410) if one is not tagged."""
    query = question.query
    assert isinstance(query, TableQuery)
    settings = query.choice.tag_settings()
    check_installed([query.choice.format])
    tagger = opened_tagger(limits)
    names = unique_names([name for _, name in query.sounds])
    sounds = {name: Path(folder) for (folder, _), name in zip(query.sounds, names, strict=True)}
    with tempfile.TemporaryDirectory(dir=question.path.parent) as name:
        folder = Path(name).resolve()
        template = _template(query.template, folder, tagger) if settings.template is not None else None
        try:
            rows = names if template is None else template.files(names)
            tagged = _tagged(limits, settings, [(name, sounds[name]) for name in rows])
        except FileNotFoundError:
            return Refusal(HTTPStatus.GONE, "a sound was removed meanwhile, or is not tagged by the model of now")
        output, recordings = folder / "table", folder / "recordings"
        recordings.mkdir()
        for name, path in sounds.items():
            _link(path / "sound", recordings / name)
        files = [detected_events(file, file.timeline, tagger, settings) for file in tagged if file.timeline is not None]
        with contextlib.chdir(recordings):  # some formats need the sound by its name
            _write(query.choice.format, files, output, tagger, template)
        content = output.read_bytes()
        return content if FORMATS[query.choice.format].is_binary else _without_folder(content, recordings)


def _template(content: bytes, folder: Path, tagger: Tagger) -> Template:
    """The template of a submission. A DataError if the model does not have its labels."""
    with contextlib.chdir(folder):  # so that messages have its name only
        _TEMPLATE.write_bytes(content)
        return Template.read(_TEMPLATE, tagger.labels)


def _tagged(limits: AnswerLimits, settings: TagSettings, rows: list[tuple[str, Path]]) -> list[TaggedFile]:
    """The windows or frames that the page shows, or whole sounds. A FileNotFoundError if a sound was removed."""
    tagger = opened_tagger(limits)
    if windows_to_tag(tagger, settings) is not None:
        return [_saved(folder / timeline_file(limits.model), name) for name, folder in rows]
    paths = [folder / "sound" for _, folder in rows]
    for path in paths:
        path.stat()
    tagged = tag_chunk(tagger, None, 1, Chunk(0, tuple(map(str, paths)))).files
    for file, path, (name, _) in zip(tagged, paths, rows, strict=True):
        if file.timeline is None:
            raise DataError((file.reason or "it can't be read").replace(str(path), name))
    return [replace(file, file=name) for file, (name, _) in zip(tagged, rows, strict=True)]


def _without_folder(table: bytes, folder: Path) -> bytes:
    """A table with names instead of paths of this server, which some formats write."""
    for path in {str(folder), json.dumps(str(folder))[1:-1]}:
        for separator in ("/", "\\\\", "\\"):
            table = table.replace(f"{path}{separator}".encode(), b"")
        table = table.replace(path.encode(), b".")
    return table


def _write(name: str, files: list[FileEvents], output: Path, tagger: Tagger, template: Template | None) -> None:
    mel = tagger.front_end.mel
    context = TableContext(
        labels=tagger.labels,
        root=common_folder([file.file for file in files]),
        low_hz=mel.f_min if mel else 0.0,
        high_hz=mel.f_max if mel else 0.0,
        template=template,
        has_novelty=tagger.has_novelty,
    )
    write(name, files, output, context, in_folder=False)


def unique_names(names: Sequence[str]) -> list[str]:
    """File names of which none is there twice: the second a.wav becomes a (2).wav."""
    given, unique = set(names), list[str]()
    taken = set[str]()
    for name in names:
        path, number, new = Path(name), 1, name
        while new in taken or (number > 1 and new in given):
            number += 1
            new = f"{path.stem} ({number}){path.suffix}"
        taken.add(new)
        unique.append(new)
    return unique


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        with contextlib.suppress(OSError):  # such as a name that is too long for the disk: few formats need the file
            shutil.copyfile(source, target)


def _window_options() -> dict[str, Any]:
    """For tables with a row for each window, or frame, that the page has."""
    return {"window": SEGMENT_WINDOW.window_seconds, "overlap": SEGMENT_WINDOW.overlap_seconds}


def explanation(limits: AnswerLimits, question: Question) -> dict[str, Any] | Refusal:
    """Where in time and frequency the model detects a label in an excerpt: the map of `spectag explain`."""
    query = question.query
    assert isinstance(query, ExplainQuery)
    tagger = opened_tagger(limits)
    longest = tagger.info.window.max_clip_seconds
    if not 0 < query.end - query.start <= longest + 1e-6:
        detail = f"can explain up to {longest:g} s at once, got {query.end - query.start:.1f} s; zoom in"
        return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, detail)
    waveform, rate = read_audio(question.path, start_seconds=query.start, end_seconds=query.end, channel=tagger.channel)
    found = attribute(tagger, waveform, rate, [query.label])
    return {
        "label": query.label,
        "time_edges": (found.time_edges + query.start).round(6).tolist(),
        "band_edges": found.band_edges.round(3).tolist(),
        "map": found.map_of(query.label).round(_DIGITS).tolist(),
    }


def playable(_: AnswerLimits, question: Question) -> dict[str, Any]:
    """Write a sound that a browser can't play as a wav of 16 bits, next to it."""
    target = question.path.with_name(WAV_FILE)
    if not target.exists():
        with open_stream(question.path) as sound, _file_beside(question.path, WAV_FILE) as unfinished:
            rate = min(sound.sample_rate, _MAX_PLAYED_RATE)
            resampler = soxr.ResampleStream(sound.sample_rate, rate, 1, dtype="float32")
            with soundfile.SoundFile(unfinished, "w", samplerate=rate, channels=1, format="WAV") as file:
                for block in sound.blocks:
                    file.write(np.clip(resampler.resample_chunk(block) if rate != sound.sample_rate else block, -1, 1))
                if rate != sound.sample_rate:
                    file.write(np.clip(resampler.resample_chunk(np.empty(0, np.float32), last=True), -1, 1))
    return {"bytes": target.stat().st_size}
