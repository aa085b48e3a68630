"""Detections as Darwin Core occurrences, and as the tables of Camtrap DP."""

import mimetypes
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from uuid import UUID, uuid5

from spectag.data.detections import DetectedSound
from spectag.findings.recorded_effort import SummarisedRecording
from spectag.findings.summary_results import Summary
from spectag.system.output import csv_writer, open_output

_NAMESPACE = UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")  # of URLs (RFC 4122)
_BIRDNET_LABEL = re.compile(r"(?P<scientific>[A-Z][a-z]+ [a-z-]{2,}(?: [a-z-]{2,})?)_(?P<common>[^_]+)")
OCCURRENCE_COLUMNS = (
    *("occurrenceID", "basisOfRecord", "occurrenceStatus", "eventID", "eventDate", "samplingProtocol"),
    *("samplingEffort", "locationID", "decimalLatitude", "decimalLongitude", "geodeticDatum", "verbatimIdentification"),
    *("scientificName", "vernacularName", "identifiedBy", "identificationVerificationStatus"),
    *("identificationRemarks", "associatedMedia"),
)
_DEPLOYMENT_COLUMNS = (
    *("deploymentID", "locationID", "locationName", "latitude", "longitude", "coordinateUncertainty"),
    *("deploymentStart", "deploymentEnd", "setupBy", "cameraID", "cameraModel", "cameraDelay", "cameraHeight"),
    *("cameraDepth", "cameraTilt", "cameraHeading", "detectionDistance", "timestampIssues", "baitUse", "featureType"),
    *("habitat", "deploymentGroups", "deploymentTags", "deploymentComments"),
)
_MEDIA_COLUMNS = (
    *("mediaID", "deploymentID", "captureMethod", "timestamp", "filePath", "filePublic", "fileName", "fileMediatype"),
    *("exifData", "favorite", "mediaComments"),
)
_OBSERVATION_COLUMNS = (
    *("observationID", "deploymentID", "mediaID", "eventID", "eventStart", "eventEnd", "observationLevel"),
    *("observationType", "cameraSetupType", "scientificName", "count", "lifeStage", "sex", "behavior", "individualID"),
    *("individualPositionRadius", "individualPositionAngle", "individualSpeed", "bboxX", "bboxY", "bboxWidth"),
    *("bboxHeight", "classificationMethod", "classifiedBy", "classificationTimestamp", "classificationProbability"),
    *("observationTags", "observationComments"),
)


def names_in_label(label: str) -> tuple[str, str]:
    """Scientific and common name in a label of the form that BirdNET uses; two empty texts for other labels.

    Examples
    --------
    >>> names_in_label("Turdus merula_Eurasian Blackbird")
    ('Turdus merula', 'Eurasian Blackbird')
    >>> names_in_label("Dog bark")
    ('', '')
    """
    match = _BIRDNET_LABEL.fullmatch(label)
    return ("", "") if match is None else (match["scientific"], match["common"])


def write_darwin_core(summary: Summary, folder: Path) -> None:
    """Write occurrence.csv: a Darwin Core occurrence for each detection that nobody has found to be wrong."""
    of_path = {recording.path: recording for recording in summary.effort.recordings}
    with open_output(folder / "occurrence.csv") as out:
        write_row = csv_writer(out)
        write_row(OCCURRENCE_COLUMNS)
        for detection in summary.detections:
            decision = summary.decision_about(detection)
            if decision == "no":
                continue
            recording = of_path[detection.path]
            has_place = recording.latitude is not None and recording.longitude is not None
            probability = "" if detection.probability is None else f"probability {detection.probability:.6f}"
            write_row([
                f"urn:uuid:{_identifier(detection)}",
                "MachineObservation",
                "present",
                recording.file,
                "/".join(moment.isoformat() for moment in _span(detection, recording)),
                "passive acoustic monitoring",
                "" if recording.seconds is None else f"{recording.seconds:g} s recorded",
                recording.site,
                *((repr(recording.latitude), repr(recording.longitude), "EPSG:4326") if has_place else ("", "", "")),
                detection.label,
                *names_in_label(detection.label),
                summary.model or "",
                "verified" if decision == "yes" else "unverified",
                probability,
                recording.file,
            ])  # fmt: skip


def write_camtrap_dp(summary: Summary, folder: Path) -> None:
    """Write deployments.csv, media.csv and observations.csv as in Camtrap DP 1.0, a standard of camera traps.

    It requires positions, and times with a zone: other recordings are left out, and nothing is written without any.
    A site is a deployment. Recordings without a detection are observations of the type blank. There is no
    datapackage.json, which describes a project and its people.
    """
    recordings = [recording for recording in summary.effort.recordings if _fits_camtrap_dp(recording)]
    if not recordings:
        return
    _write(folder / "deployments.csv", _DEPLOYMENT_COLUMNS, _deployment_rows(recordings))
    _write(folder / "media.csv", _MEDIA_COLUMNS, map(_media_row, recordings))
    _write(folder / "observations.csv", _OBSERVATION_COLUMNS, _observation_rows(summary, recordings))


def _write(path: Path, columns: Sequence[str], rows: Iterable[dict[str, str]]) -> None:
    """Write all columns of a table of the standard; those that a row does not have are empty."""
    with open_output(path) as out:
        write_row = csv_writer(out)
        write_row(columns)
        for row in rows:
            write_row([row.get(column, "") for column in columns])


def _fits_camtrap_dp(recording: SummarisedRecording) -> bool:
    has_zone = recording.start is not None and recording.start.tzinfo is not None
    return has_zone and recording.seconds is not None and recording.latitude is not None


def _deployment_rows(recordings: Sequence[SummarisedRecording]) -> Iterator[dict[str, str]]:
    of_site: dict[str, list[SummarisedRecording]] = defaultdict(list)
    for recording in recordings:
        of_site[recording.site].append(recording)
    for site, own in sorted(of_site.items()):
        starts = [start for recording in own if (start := recording.time_of(0.0)) is not None]
        ends = [end for recording in own if (end := recording.time_of(recording.seconds or 0.0)) is not None]
        yield {
            **dict.fromkeys(("deploymentID", "locationID", "locationName"), site),
            "latitude": repr(own[0].latitude),
            "longitude": repr(own[0].longitude),
            "deploymentStart": _zoned(min(starts)),
            "deploymentEnd": _zoned(max(ends or starts)),
        }


def _media_row(recording: SummarisedRecording) -> dict[str, str]:
    name = PurePath(recording.file)
    media_type, _ = mimetypes.guess_type(name.name)
    is_audio = media_type is not None and media_type.startswith("audio/")
    start = recording.time_of(0.0)
    return {
        "mediaID": _media_id(recording),
        "deploymentID": recording.site,
        "captureMethod": "timeLapse",
        "timestamp": "" if start is None else _zoned(start),
        "filePath": recording.file,
        "filePublic": "false",
        "fileName": name.name,
        "fileMediatype": str(media_type) if is_audio else f"audio/{name.suffix[1:].lower() or 'x-unknown'}",
    }


def _observation_rows(summary: Summary, recordings: Sequence[SummarisedRecording]) -> Iterator[dict[str, str]]:
    of_path = {recording.path: recording for recording in recordings}
    blank = dict(of_path)
    for detection in summary.detections:
        recording, decision = of_path.get(detection.path), summary.decision_about(detection)
        span = () if recording is None else _span(detection, recording)
        if recording is None or len(span) < len(("start", "end")) or decision == "no":
            continue
        blank.pop(detection.path, None)
        scientific, _ = names_in_label(detection.label)
        row = _observation(recording, str(_identifier(detection)), span)
        row["observationType"] = "animal" if scientific else "unclassified"
        row["scientificName"] = scientific
        row["observationTags"] = f"label:{detection.label}"
        if decision == "yes":
            row["classificationMethod"] = "human"
        else:
            row |= _by_machine(summary) | {"classificationProbability": _probability(detection)}
        yield row
    for recording in blank.values():
        start, end = recording.time_of(0.0), recording.time_of(recording.seconds or 0.0)
        if start is not None and end is not None:
            row = _observation(recording, str(uuid5(_NAMESPACE, f"blank {recording.file}")), (start, end))
            yield row | _by_machine(summary) | {"observationType": "blank"}


def _observation(recording: SummarisedRecording, identifier: str, span: Sequence[datetime]) -> dict[str, str]:
    media, (start, end) = _media_id(recording), map(_zoned, span)
    return {
        "observationID": identifier,
        "deploymentID": recording.site,
        "mediaID": media,
        "eventID": media,
        "eventStart": start,
        "eventEnd": end,
        "observationLevel": "media",
    }


def _by_machine(summary: Summary) -> dict[str, str]:
    return {"classificationMethod": "machine", "classifiedBy": summary.model or ""}


def _span(detection: DetectedSound, recording: SummarisedRecording) -> tuple[datetime, ...]:
    """Start and end of a detection; without a known time nothing."""
    end = recording.seconds if detection.end_seconds is None else detection.end_seconds
    moments = (recording.time_of(detection.start_seconds), None if end is None else recording.time_of(end))
    return tuple(moment for moment in moments if moment is not None)


def _identifier(detection: DetectedSound) -> UUID:
    """The same whenever the table is summarised."""
    return uuid5(_NAMESPACE, repr((detection.file, *detection.span, detection.label)))


def _media_id(recording: SummarisedRecording) -> str:
    return str(uuid5(_NAMESPACE, repr(recording.file)))


def _zoned(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def _probability(detection: DetectedSound) -> str:
    return "" if detection.probability is None else f"{detection.probability:.6f}"
