"""Predictions in AOEF, the JSON of soundevent that whombat imports as a model run."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version
from shutil import copyfileobj
from tempfile import SpooledTemporaryFile
from typing import Any, TextIO
from uuid import NAMESPACE_URL, uuid5

from spectag.system.output import unicode_text
from spectag.system.paths import join_parts, split_location
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.sound_files import sound_info

AOEF_VERSION = "1.1.0"
TAG_KEY = "event"
"""The key of the tags, whose values are the labels."""
_LISTS = ("recordings", "clips", "sound_events", "sound_event_predictions", "clip_predictions")
_IN_MEMORY = 4_000_000  # bytes of each list; more are in a temporary file


def write_soundevent(files: Iterable[FileEvents], out: TextIO) -> None:
    """Write a model run: recordings, a clip for each, its events as time intervals, and their tags with scores.

    A clip has the highest probability of each label. The identifiers are made from the paths, so that the same results
    give the same file.

    Raises
    ------
    DataError
        If a file is an image, which has no times.
    AudioError
        If a recording can't be opened any more: its sample rate and channels are needed.
    """
    tags: dict[str, int] = {}
    with ExitStack() as stack:
        lists = {name: _JsonList(stack) for name in _LISTS}
        for file in files:
            _add(file, tags, lists)
        run = uuid5(NAMESPACE_URL, " ".join(items.hash.hexdigest() for items in lists.values()))
        head: dict[str, Any] = {"uuid": str(run), "name": "spectag", "collection_type": "model_run"}
        head |= {"model": {"name": "spectag", "version": version("spectag")}}
        out.write(f'{{"version": "{AOEF_VERSION}", "data": {{{json.dumps(head)[1:-1]}')
        known = [{"id": number, "key": TAG_KEY, "value": label} for label, number in tags.items()]
        out.write(f', "tags": {json.dumps(known, ensure_ascii=False)}')
        for name, items in lists.items():
            out.write(f', "{name}": [')
            items.copy_to(out)
            out.write("]")
        out.write("}}\n")


class _JsonList:
    """The items of a JSON list, which do not stay in memory if there are many."""

    def __init__(self, stack: ExitStack) -> None:
        file = SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", newline="")  # noqa: SIM115 the stack closes it
        self._file = stack.enter_context(file)
        self.hash = hashlib.sha256()
        self._separator = ""

    def add(self, item: dict[str, Any]) -> None:
        text = unicode_text(json.dumps(item, ensure_ascii=False))
        self._file.write(self._separator + text)
        self._separator = ",\n"
        self.hash.update(text.encode())

    def copy_to(self, out: TextIO) -> None:
        self._file.seek(0)
        copyfileobj(self._file, out)


def _add(file: FileEvents, tags: dict[str, int], lists: dict[str, _JsonList]) -> None:
    info, path = sound_info(file), join_parts(split_location(file.file))
    recording, clip = (str(uuid5(NAMESPACE_URL, unicode_text(f"{kind} {path}"))) for kind in ("recording", "clip"))
    sound = {"duration": info.duration_seconds, "channels": info.n_channels, "samplerate": info.sample_rate}
    lists["recordings"].add({"uuid": recording, "path": unicode_text(path), **sound})
    lists["clips"].add({"uuid": clip, "recording": recording, "start_time": 0.0, "end_time": info.duration_seconds})
    highest: dict[int, float] = {}
    predictions = []
    for number, event in enumerate(file.events):
        tag, score = tags.setdefault(event.label, len(tags)), round(event.probability, 6)
        highest[tag] = max(highest.get(tag, 0.0), score)
        sound_event = str(uuid5(NAMESPACE_URL, f"event {recording} {number}"))
        prediction = str(uuid5(NAMESPACE_URL, f"prediction {recording} {number}"))
        times = [round(event.start_seconds, 6), round(file.end_seconds_of(event), 6)]
        geometry = {"type": "TimeInterval", "coordinates": times}
        lists["sound_events"].add({"uuid": sound_event, "recording": recording, "geometry": geometry})
        tagged = {"score": score, "tags": [[tag, score]]}
        lists["sound_event_predictions"].add({"uuid": prediction, "sound_event": sound_event, **tagged})
        predictions.append(prediction)
    clip_prediction = str(uuid5(NAMESPACE_URL, f"clip prediction {recording}"))
    scores = [[tag, score] for tag, score in highest.items()]
    lists["clip_predictions"].add(
        {"uuid": clip_prediction, "clip": clip, "sound_events": predictions, "tags": scores, "features": {}}
    )
