"""Which modified copies of a recording are found, and which pairs of different clips are found by mistake.

    python benchmarks/near_duplicates.py MODEL esc10.csv [--clips 50]

Copies of some clips are added to the manifest: encoded, resampled, at other levels, cut. Printed for each kind of copy:
the fraction that is found, and the minimum correlation of a copy with its original; then the pairs that are found among
the original clips, to be checked by ear.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from spectag.audio.files import read_audio, resample, write_audio
from spectag.curation.near_duplicates import comparison_waveform, correlation, find_near_duplicates
from spectag.data.clips import Clip
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.manifest import read_manifest
from spectag.data.shared_audio import find_shared_audio
from spectag.evaluation.predictions import predict
from spectag.models.tagger import Tagger

Waveform = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--clips", type=int, default=50)
    arguments = parser.parse_args()
    tagger, manifest = Tagger(arguments.model), read_manifest(arguments.manifest)
    originals = predict(tagger, manifest.clips, features=True)
    chosen = np.random.default_rng(0).choice(len(originals.clips), arguments.clips, replace=False)
    with tempfile.TemporaryDirectory() as folder:
        copies_by_kind: dict[str, list[Clip]] = {}
        for row in chosen:
            waveform, rate = read_audio(originals.clips[row].path)
            for kind, path in copies(waveform, rate, Path(folder) / str(row)):
                copies_by_kind.setdefault(kind, []).append(Clip(path, path.name, originals.clips[row].labels))
        print(f"{'copy':34}{'found':>8}{'min. correlation':>20}")
        for kind, clips in copies_by_kind.items():
            copied = predict(tagger, clips, features=True)
            features = np.concatenate([originals.features, copied.features])
            everything = [*originals.clips, *clips]
            shared = find_shared_audio(clip_fingerprints(everything, folder), speeds=(1.0,))
            pairs = {(p.clip, p.original) for p in find_near_duplicates(everything, features, shared)}
            expected = [(len(originals.clips) + index, int(row)) for index, row in enumerate(chosen)]
            minimum = min(
                correlation(comparison_waveform(clip), comparison_waveform(originals.clips[row]))
                for clip, row in zip(clips, chosen, strict=True)
            )
            print(f"{kind:34}{np.mean([pair in pairs for pair in expected]):8.2f}{minimum:20.3f}", flush=True)
    print("among the original clips:")
    shared = find_shared_audio(clip_fingerprints(originals.clips), speeds=(1.0,))
    for pair in find_near_duplicates(originals.clips, originals.features, shared):
        print(f"  {originals.clips[pair.clip].name}  {originals.clips[pair.original].name}  {pair.correlation:.3f}")


def copies(waveform: Waveform, rate: int, folder: Path) -> Iterator[tuple[str, Path]]:
    """Copies of a recording, written into a folder."""
    tenth = rate // 10
    kinds = {
        "unchanged wav": waveform,
        "12 dB softer": waveform * 10 ** (-12 / 20),
        "6 dB louder, clipped": waveform * 10 ** (6 / 20),
        "noise 20 dB below": waveform + _noise_like(waveform, -20),
        "inverted": -waveform,
        "0.1 s cut off at the beginning": waveform[tenth:],
        "0.25 s cut off at both ends": waveform[round(2.5 * tenth) : -round(2.5 * tenth)],
    }
    for number, (kind, wave) in enumerate(kinds.items()):
        yield kind, _write(folder / f"{number}.wav", wave.astype(np.float32), rate)
    for new_rate in (22_050, 16_000):
        yield f"at {new_rate} Hz", _write(folder / f"{new_rate}.wav", resample(waveform, rate, new_rate), new_rate)
    for suffix in ("mp3", "ogg"):
        for quality in (0.2, 0.9):
            path = folder / f"{quality}.{suffix}"
            subtype = "MPEG_LAYER_III" if suffix == "mp3" else "VORBIS"
            soundfile.write(path, waveform, rate, subtype=subtype, compression_level=quality)
            yield f"{suffix}, compression {quality}", path
    yield "softer, cut off, mp3", _write(folder / "all.mp3", waveform[tenth:] / 2, rate)


def _noise_like(waveform: Waveform, level_db: float) -> Waveform:
    level = 10 ** (level_db / 20) * np.sqrt(np.mean(waveform**2))
    return np.random.default_rng(1).normal(0, level, len(waveform)).astype(np.float32)


def _write(path: Path, waveform: Waveform, rate: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, waveform, rate)
    return path


if __name__ == "__main__":
    main()
