"""What is told of a tagged recording: its windows, all of them pooled, or the segments where labels are on."""

import numpy as np

from spectag.formats.heard import Choice, HeardFile, segment_events, window_events
from spectag.runtime import Tagger
from spectag.tag import TaggedFile
from spectag.tag_config import TagSettings
from spectag.timeline import Timeline, pooled


def heard_in(tagged: TaggedFile, timeline: Timeline, tagger: Tagger, settings: TagSettings) -> HeardFile:
    """What is heard in a file that has a timeline: the labels that reach their thresholds, or the most probable ones.

    Parameters
    ----------
    tagged : TaggedFile
    timeline : Timeline
        Of the file.
    tagger : Tagger
        Whose labels and thresholds count.
    settings : TagSettings
    """
    if settings.pool is not None:
        timeline = pooled(timeline, settings.pool)
    labels, thresholds, least = tagger.labels.names, tagger.thresholds, settings.min_confidence
    if settings.joins_windows:
        limits = thresholds if least is None else np.full_like(thresholds, least)
        events = segment_events(timeline, labels, limits, settings)
    else:
        events = window_events(timeline, labels, thresholds, Choice(settings.top, least))
    return HeardFile(tagged.file, tagged.duration_seconds, events, timeline)
