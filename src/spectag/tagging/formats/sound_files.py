"""What formats need to know of the sound files themselves."""

from collections.abc import Iterable

from spectag.audio.audio_info import AudioInfo
from spectag.audio.files import audio_info
from spectag.errors import DataError
from spectag.system.storage import local_copy
from spectag.tagging.events import FileEvents


def sound_info(file: FileEvents) -> AudioInfo:
    """The sample rate, length and channels of a recording. One at a URL is downloaded for this.

    Raises
    ------
    DataError
        If the file is an image.
    AudioError
        If the recording can't be opened any more.
    """
    if file.is_image:
        raise DataError(f"{file.file}: an image has no times for this format; write csv, jsonl, parquet or wide")
    with local_copy(file.file) as path:
        return audio_info(path)


def only_file(files: Iterable[FileEvents]) -> FileEvents:
    """The recording of a format with a file for each recording.

    Raises
    ------
    DataError
        If there are several.
    """
    first, *others = files
    if others:
        raise DataError(f"{others[0].file}: a second recording, but this file holds one; give a folder as -o")
    return first
