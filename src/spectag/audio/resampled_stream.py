"""A sound at another sample rate, while it is read."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from spectag.array_types import Waveform


def resampled_blocks(blocks: Iterable[Waveform], from_rate: int, to_rate: int) -> Iterator[Waveform]:
    """Mono blocks (n_samples,) of a sound at another rate in Hz; together, they equal `spectag.audio.files.resample`.

    The result has at least one sample, unless the sound has none.
    """
    if from_rate == to_rate:
        yield from (block for block in blocks if block.size)
        return
    resampler = soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")
    first, n_samples = np.empty(0, np.float32), 0
    for block in blocks:
        first = first if first.size else block[:1]
        resampled = resampler.resample_chunk(np.ascontiguousarray(block))
        n_samples += len(resampled)
        if resampled.size:
            yield resampled
    rest = resampler.resample_chunk(np.empty(0, np.float32), last=True) if first.size else first
    if n_samples + len(rest):
        yield rest
    elif first.size:  # resampling left nothing of a very short sound
        yield first
