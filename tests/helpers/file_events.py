"""Made-up recordings with events, and names that are difficult to write to tables."""

import numpy as np
from hypothesis import strategies as st

from spectag.data.labels import LabelSet
from spectag.models.timeline import Timeline
from spectag.system.paths import common_folder
from spectag.tagging.events import Event, FileEvents
from spectag.tagging.formats.dispatch import TableContext, write

TRICKY_LABELS = (
    "Bark, loud",
    'a "quoted" word',
    '"all quoted"',
    '"begins',
    "it's",
    "Sink_(filling_or_washing)",
    "two__underscores",
    "=1+1",
    "Türklingel",
    "鳥; 鳥",
    " spaces  around ",
    "back\\slash",
    "#",
)
"""Labels of one line."""
MULTILINE_LABELS = ("tab\there", "two\nlines", "two\r\nlines", "return\rhere", "line\u2028separator")
UNDECODABLE_NAME = b"caf\xe9.wav".decode("utf-8", "surrogateescape")  # as in an old archive
FILE_NAMES = ("zwölf Töne.wav", 'a,b "c".wav', "it's a; b.wav", "a_b__c.wav", "=a.wav", "a.b.wav")

any_text = st.sampled_from([*TRICKY_LABELS, *MULTILINE_LABELS]) | st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)


def make_recording(file, *events, duration=10.0, timeline=None):
    """A recording with these events: start, end, label, probability."""
    if timeline is None:
        timeline = Timeline(np.zeros(1), np.array([duration]), np.zeros((1, 1), np.float32))
    return FileEvents(str(file), duration, tuple(Event(*event) for event in events), timeline)


def make_image(file, *events):
    """An image with these events: label, probability."""
    timeline = Timeline(np.zeros(1), np.array([np.nan]), np.array([[0.25]], np.float32))
    return FileEvents(str(file), None, tuple(Event(0.0, None, *event) for event in events), timeline)


def make_recording_with_labels(*labels, file="a.wav"):
    """A recording with one event for each label, one after another."""
    return make_recording(file, *((float(i), i + 0.5, label, 0.5) for i, label in enumerate(labels)))


def write_folder(name, files, folder, *, high_hz=16_000):
    """Write a file for each recording, in a format that has such a folder."""
    root = common_folder(file.file for file in files)
    write(name, files, folder, TableContext(LabelSet(()), root=root, low_hz=0, high_hz=high_hz))
