"""Cut the results of searches out of their recordings, as `clips` does with detections."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from spectag.audio.files import audio_info
from spectag.config.findings import ClipSettings
from spectag.curation.sound_index.fingerprint_search import ExcerptMatch
from spectag.curation.sound_index.searching import SearchResult
from spectag.data.detections import DetectedSound
from spectag.findings.clip_export import ClipsResult, clips
from spectag.system.progress import Progress, silent
from spectag.system.storage import is_url

_WHOLE = ClipSettings(per_label=None, pad=0.0)


def cut_search_results(
    results: Sequence[SearchResult] | Sequence[ExcerptMatch],
    queries: Sequence[str],
    output: str | Path,
    *,
    progress: Progress = silent,
) -> ClipsResult:
    """Cut what a search found out of its recordings, into a folder with the name of the query.

    Parameters
    ----------
    results : sequence of SearchResult, or of ExcerptMatch
        Of `search`: the windows, with their similarity as probability. Of `search_fingerprints`: as much of each
        recording as the excerpt lasts.
    queries : sequence of str
        The queries of the search. Several queries of one search by similarity get the name of the first one.
    output : path
        As for `clips`.
    progress : Progress

    Raises
    ------
    DataError, ConfigError
        As `clips`.
    """
    local = [result for result in results if not is_url(result.file)]
    sounds = [_found(result, queries) if isinstance(result, SearchResult) else _matched(result) for result in local]
    cut = clips(sounds, output, _WHOLE, progress=progress)
    remote = tuple(
        f"{result.file}: only files on this computer can be cut" for result in results if is_url(result.file)
    )
    return replace(cut, skipped=(*remote, *cut.skipped))


def _found(result: SearchResult, queries: Sequence[str]) -> DetectedSound:
    similarity = min(max(result.similarity, 0.0), 1.0)
    path, label = Path(result.file), PurePath(queries[0]).stem
    return DetectedSound(path, result.file, result.start_seconds, result.end_seconds, label, similarity)


def _matched(match: ExcerptMatch) -> DetectedSound:
    end = match.start_seconds + audio_info(match.excerpt).duration_seconds
    path, label = Path(match.file), PurePath(match.excerpt).stem
    return DetectedSound(path, match.file, max(match.start_seconds, 0.0), end, label)
