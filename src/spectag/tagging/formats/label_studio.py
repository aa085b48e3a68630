"""Tasks with predictions, as Label Studio imports them."""

import json
from collections.abc import Iterable
from typing import Any, TextIO
from urllib.parse import quote

from spectag.system.paths import Parts, split_below
from spectag.system.storage import is_url
from spectag.tagging.events import Event, FileEvents

_LOCAL_FILES = "/data/local-files/?d="


def write_label_studio(files: Iterable[FileEvents], out: TextIO, *, root: Parts) -> None:
    """Write a JSON list with a task for each recording, and its events as a prediction.

    The labelling configuration needs <Audio name="audio" value="$audio"/> and <Labels name="label" toName="audio">.
    `audio` in a task is the URL of the recording; for a file, the URL with which Label Studio serves local files below
    its document root, which must be the folder that holds all recordings.

    Parameters
    ----------
    files : iterable of FileEvents
    out : text file
    root : tuple of str
        From `common_folder`.

    Raises
    ------
    DataError
        If a file is an image, which has no times.
    """
    separator = "["
    for file in files:
        out.write(f"{separator}\n{json.dumps(_task(file, root), ensure_ascii=False)}")
        separator = ","
    out.write("[]\n" if separator == "[" else "\n]\n")


def _task(file: FileEvents, root: Parts) -> dict[str, Any]:
    results = [_result(file, event, number) for number, event in enumerate(file.events, start=1)]
    prediction: dict[str, Any] = {"model_version": "spectag", "result": results}
    if file.events:
        prediction["score"] = round(sum(event.probability for event in file.events) / len(file.events), 6)
    return {"data": {"audio": _audio_url(file.file, root), "file": file.file}, "predictions": [prediction]}


def _result(file: FileEvents, event: Event, number: int) -> dict[str, Any]:
    value = {
        "start": round(event.start_seconds, 6),
        "end": round(file.end_seconds_of(event), 6),
        "channel": 0,
        "labels": [event.label],
    }
    length = {} if file.duration_seconds is None else {"original_length": round(file.duration_seconds, 6)}
    field = {"from_name": "label", "to_name": "audio", "type": "labels"}
    return {"id": f"{number}", **field, **length, "value": value, "score": round(event.probability, 6)}


def _audio_url(location: str, root: Parts) -> str:
    if is_url(location):
        return location
    _, below = split_below(location, root)
    return _LOCAL_FILES + quote("/".join(below), safe="/", errors="surrogateescape")
