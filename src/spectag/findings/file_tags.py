"""Tags in copies of recordings, and XMP sidecars."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib import import_module
from pathlib import Path
from shutil import copyfile
from typing import Any

from spectag.audio.wav_metadata import CuePoint, WavTags, copy_wav_with_tags
from spectag.data.detections import DetectedSound
from spectag.errors import AudioError, MissingExtraError
from spectag.system.output import one_line, xml_text

WAV_SUFFIXES = frozenset({".wav", ".wave", ".bwf"})
_FIELD = "KEYWORDS"
_MP4_PREFIX = "----:com.apple.iTunes:"
_XMP_TOOLKIT = 'x:xmptk="spectag"'
_XMP_START = f"""\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" {_XMP_TOOLKIT}>
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmpDM="http://ns.adobe.com/xmp/1.0/DynamicMedia/">
"""
_XMP_END = """\
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""


@dataclass(frozen=True)
class RecordingTags:
    """The detections of a recording."""

    path: Path
    sounds: tuple[DetectedSound, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """Each label once, the most probable first."""
        highest: dict[str, float] = {}
        for sound in self.sounds:
            probability = 1.0 if sound.probability is None else sound.probability
            highest[sound.label] = max(highest.get(sound.label, 0.0), probability)
        return tuple(sorted(highest, key=lambda label: (-highest[label], label)))

    @property
    def description(self) -> str:
        """Each label with its number and its highest probability, such as `Dog (3, up to 0.91), Cat (1)`."""
        counts = Counter(sound.label for sound in self.sounds)
        texts = []
        for label in self.labels:
            known = [
                sound.probability for sound in self.sounds if sound.label == label and sound.probability is not None
            ]
            highest = f", up to {max(known):.2f}" if known else ""
            texts.append(f"{one_line(label)} ({counts[label]}{highest})")
        return ", ".join(texts)

    def cues(self, duration_seconds: float) -> tuple[CuePoint, ...]:
        """The detections by their start; those without an end go to the end of the recording."""
        found = sorted(self.sounds, key=lambda sound: (sound.start_seconds, sound.label))
        return tuple(
            CuePoint(
                sound.start_seconds,
                duration_seconds if sound.end_seconds is None else sound.end_seconds,
                one_line(sound.label),
            )
            for sound in found
        )


def load_mutagen() -> Any:
    """The package mutagen.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return import_module("mutagen")
    except ModuleNotFoundError as error:
        raise MissingExtraError("mutagen", "metadata", "writing tags into files other than wav") from error


def write_copy(tags: RecordingTags, target: Path, duration_seconds: float) -> None:
    """Copy a recording and write its tags into the copy. Its samples and other metadata stay.

    A wav gets cue points, iXML keywords and a bext description; mp3 and aiff get ID3, flac, ogg and opus Vorbis
    comments, m4a and wma their own fields: the keywords, and a comment beside existing ones.

    Raises
    ------
    AudioError
        If tags cannot be written into such a file.
    MissingExtraError
        If mutagen is needed and not installed.
    OSError
    """
    if tags.path.suffix.lower() in WAV_SUFFIXES:
        cues = tags.cues(duration_seconds)
        copy_wav_with_tags(tags.path, target, WavTags(tuple(map(one_line, tags.labels)), tags.description, cues))
        return
    mutagen = load_mutagen()
    copyfile(tags.path, target)
    try:
        file = mutagen.File(target)
        if file is None:
            raise AudioError(f"{tags.path}: tags cannot be written into {tags.path.suffix} files; write sidecars")
        _set_fields(file, tags)
        file.save()
    except mutagen.MutagenError as error:
        raise AudioError(f"{tags.path}: tags cannot be written into the copy: {error}; write sidecars") from error


def _set_fields(file: Any, tags: RecordingTags) -> None:
    """Set the keywords and a comment, in the way of each format."""
    id3, mp4, asf, vorbis = (import_module(f"mutagen.{name}") for name in ("id3", "mp4", "asf", "_vorbis"))
    if file.tags is None:
        file.add_tags()
    fields, comment = file.tags, f"spectag: {tags.description}"
    if isinstance(fields, id3.ID3):
        keywords = _united(fields.get(f"TXXX:{_FIELD}", ()), tags.labels)
        fields.add(id3.TXXX(encoding=id3.Encoding.UTF8, desc=_FIELD, text=keywords))
        fields.add(id3.COMM(encoding=id3.Encoding.UTF8, lang="eng", desc="spectag", text=[comment]))
    elif isinstance(fields, mp4.MP4Tags):
        before = [bytes(value).decode("utf-8", "replace") for value in fields.get(_MP4_PREFIX + _FIELD, ())]
        fields[_MP4_PREFIX + _FIELD] = [mp4.MP4FreeForm(label.encode()) for label in _united(before, tags.labels)]
        fields[_MP4_PREFIX + "spectag"] = [mp4.MP4FreeForm(comment.encode())]
    elif isinstance(fields, vorbis.VComment | asf.ASFTags):
        for name, values in ((_FIELD, tags.labels), ("COMMENT", (comment,))):
            before = [str(value) for value in fields.get(name, ())]
            fields[name] = _united([value for value in before if not value.startswith("spectag: ")], values)
    else:
        raise AudioError(f"{tags.path}: tags cannot be written into {tags.path.suffix} files; write sidecars")


def _united(before: Sequence[Any], new: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*map(str, before), *new]))


def is_own_sidecar(path: Path) -> bool:
    """Whether spectag wrote an XMP file."""
    with path.open("rb") as file:
        return _XMP_TOOLKIT.encode() in file.read(1000)


def xmp_sidecar(tags: RecordingTags, duration_seconds: float, sample_rate: int) -> str:
    """An XMP file: the labels as subjects, a description, and the detections as markers, as Adobe's programs read them.

    Times of markers are in samples.
    """
    subjects = "".join(f"     <rdf:li>{_xml(label)}</rdf:li>\n" for label in tags.labels)
    markers = "".join(
        '        <rdf:li rdf:parseType="Resource">\n'
        f"         <xmpDM:startTime>{round(cue.start_seconds * sample_rate)}</xmpDM:startTime>\n"
        f"         <xmpDM:duration>{round((cue.end_seconds - cue.start_seconds) * sample_rate)}</xmpDM:duration>\n"
        f"         <xmpDM:name>{_xml(cue.label)}</xmpDM:name>\n"
        "        </rdf:li>\n"
        for cue in tags.cues(duration_seconds)
    )
    return (
        f"{_XMP_START}"
        f"   <dc:subject>\n    <rdf:Bag>\n{subjects}    </rdf:Bag>\n   </dc:subject>\n"
        '   <dc:description>\n    <rdf:Alt>\n     <rdf:li xml:lang="x-default">'
        f"{_xml(tags.description)}</rdf:li>\n    </rdf:Alt>\n   </dc:description>\n"
        '   <xmpDM:Tracks>\n    <rdf:Bag>\n     <rdf:li rdf:parseType="Resource">\n'
        "      <xmpDM:trackName>CuePoint Markers</xmpDM:trackName>\n      <xmpDM:trackType>Cue</xmpDM:trackType>\n"
        f"      <xmpDM:frameRate>f{sample_rate}</xmpDM:frameRate>\n"
        f"      <xmpDM:markers>\n       <rdf:Seq>\n{markers}       </rdf:Seq>\n      </xmpDM:markers>\n"
        "     </rdf:li>\n    </rdf:Bag>\n   </xmpDM:Tracks>\n"
        f"{_XMP_END}"
    )


def _xml(text: str) -> str:
    return escape(xml_text(one_line(text)))
