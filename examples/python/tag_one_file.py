"""Tag a sound file, print its tags, and when each sound starts and ends.

python tag_one_file.py street.ogg [MODEL]
"""

import sys

import spectag

path, name = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "audioset-mn04"

model = spectag.load(name, progress=True)  # a published model is downloaded once
for label, probability in model.tag(path):  # the detected labels, most probable first
    print(f"{label}: {probability:.2f}")

for segment in model.segments(path):
    print(f"{segment.start_seconds:.1f} to {segment.end_seconds:.1f} s: {segment.label}")
