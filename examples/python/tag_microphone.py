"""Tag the last two seconds of a microphone, again and again. Stop with Ctrl-C.

pip install 'spectag[listen]'
python tag_microphone.py [MODEL]
"""

import sys
from collections.abc import Iterator

import numpy as np
import sounddevice

import spectag

SAMPLE_RATE, BLOCK_SECONDS, BUFFER_SECONDS = 48_000, 0.5, 2.0


def microphone_buffers() -> Iterator[np.ndarray]:
    """The last two seconds (n_samples, 1), every half a second."""
    buffer = np.zeros((0, 1), np.float32)
    with sounddevice.InputStream(samplerate=SAMPLE_RATE, channels=1, dtype="float32") as stream:
        while True:
            block, _ = stream.read(round(BLOCK_SECONDS * SAMPLE_RATE))
            buffer = np.concatenate([buffer, block])[-round(BUFFER_SECONDS * SAMPLE_RATE) :]
            yield buffer


model = spectag.load(sys.argv[1] if len(sys.argv) > 1 else "audioset-mn04", progress=True)
try:
    for samples in microphone_buffers():
        tags = model.tag(samples, sample_rate=SAMPLE_RATE)
        print(", ".join(label for label, _ in tags) or "nothing detected")
except KeyboardInterrupt:
    print("stopped")
