"""Region layers, as Sonic Visualiser opens them."""

from collections.abc import Iterable
from html import escape
from typing import TextIO

from spectag.system.output import one_line, xml_text
from spectag.tagging.events import FileEvents
from spectag.tagging.formats.sound_files import only_file, sound_info

_HEADER = """\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE sonic-visualiser>
<sv>
  <data>
    <model id="1" name="spectag" sampleRate="{rate}" start="0" end="{end}" type="sparse" dimensions="3" resolution="1"\
 notifyOnAdd="true" dataset="0" subtype="region" valueQuantization="1" minimum="1" maximum="{n_labels}" units="" />
    <dataset id="0" dimensions="3">
"""
_FOOTER = """\
    </dataset>
  </data>
  <display>
    <layer id="2" type="regions" name="spectag" model="1" verticalScale="1" plotStyle="1" colourName="Blue"\
 colour="#000080" darkBackground="false" />
  </display>
</sv>
"""


def write_sonic_visualiser(file: FileEvents, out: TextIO) -> None:
    """Write a layer with a region for each event of a recording.

    A region has the frame of its start, its duration in frames, the label, and as its value the number of the label in
    the order of the names, so that each label has a row of its own. There is no probability.

    Raises
    ------
    DataError
        If the file is an image.
    AudioError
        If the recording can't be opened any more: its sample rate is needed.
    """
    rate = sound_info(file).sample_rate
    rows = {label: row for row, label in enumerate(sorted({event.label for event in file.events}), start=1)}
    frames = [(round(event.start_seconds * rate), round(file.end_seconds_of(event) * rate)) for event in file.events]
    out.write(_HEADER.format(rate=rate, end=max((end for _, end in frames), default=0), n_labels=max(len(rows), 1)))
    for event, (start, end) in zip(file.events, frames, strict=True):
        label = escape(xml_text(one_line(event.label)))
        out.write(
            f'      <point frame="{start}" value="{rows[event.label]}" duration="{end - start}" label="{label}" />\n'
        )
    out.write(_FOOTER)


def write_only_layer(files: Iterable[FileEvents], out: TextIO) -> None:
    """Write the layer of a single recording.

    Raises
    ------
    DataError
        If there are several recordings, or the file is an image.
    """
    write_sonic_visualiser(only_file(files), out)
