"""Do attribution maps point to the sound, and does what they point to matter to the network?

    python benchmarks/explain.py esc10.csv [--group-column source] [--clips 40]

In time: short sounds are mixed at known times into recordings of other classes, and explained by a model that was
trained on the other folds. A hit is a map whose maximum lies in the sound, or within a quarter of a second of it.

In frequency: an engine below 1,500 Hz is mixed with birds or a hiss above, both synthesised, and explained by a model
that was trained on such sounds. A hit is a maximum in the label's own band.

Deletion, for both: the logit lost when the highest tenth of the map is silenced, and when a tenth of the same shape
elsewhere is. Maps are computed with background instead of silence, so this is a different operation.

Stability: the correlation of two maps of a clip with different seeds.

All results are over clips in which the label is detected.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import Waveform
from spectag.audio.files import read_audio
from spectag.audio.mel import band_centers, compute_log_mel, hz_to_mel
from spectag.audio.synthesis import KINDS, fade_ends
from spectag.config.recipe import Recipe
from spectag.data.clips import Manifest
from spectag.data.demo_data import make_demo_data
from spectag.data.manifest import read_manifest
from spectag.data.soundscapes import Sound, active_intervals, find_sounds
from spectag.models.tagger import Tagger
from spectag.reporting import attribution as attribution_module
from spectag.reporting.attribution import N_BAND_PATCHES, PATCH_SECONDS, Attribution, attribute
from spectag.training.pipeline import train

RATE = 32_000  # Hz
SHORT = "Dog_bark", "Person_sneeze", "Rooster", "Baby_cry"
LONG = "Rain", "Sea_waves", "Chainsaw", "Helicopter", "Fire_crackling"
LONGEST_EVENT, CLIP_SECONDS, MARGIN = 1.5, 5.0, 0.25  # seconds
LOWEST_SNR, HIGHEST_SNR = 5.0, 20.0  # dB
BANDS = {"Engine": (30.0, 1500.0), "Chirp": (2500.0, 7500.0), "Hiss": (3500.0, 16_000.0)}  # Hz
TENTH = 0.1
COLUMNS = "hits", "logit lost with the tenth, elsewhere", "correlation of two seeds"
AXES = "in time", "in frequency"


@dataclass(frozen=True)
class Case:
    """A sound, a label that may be detected in it, and its time or frequency range."""

    tagger: Tagger
    waveform: Waveform
    label: str
    seconds: tuple[float, float] | None = None
    hertz: tuple[float, float] | None = None

    def is_hit(self, attribution: Attribution) -> bool:
        peak = attribution.peak(self.label)
        if self.seconds is not None:
            return self.seconds[0] - MARGIN <= peak.seconds <= self.seconds[1] + MARGIN
        assert self.hertz is not None
        return self.hertz[0] <= peak.hertz <= self.hertz[1]

    @property
    def chance(self) -> float:
        """Probability of a hit of a random position."""
        if self.seconds is not None:
            first, last = max(self.seconds[0] - MARGIN, 0), min(self.seconds[1] + MARGIN, CLIP_SECONDS)
            return (last - first) / CLIP_SECONDS
        assert self.hertz is not None
        mel = self.tagger.front_end.mel
        assert mel is not None
        bottom, low, high, top = (
            float(hz_to_mel(hertz, mel))
            for hertz in (mel.f_min, self.hertz[0], min(self.hertz[1], mel.f_max), mel.f_max)
        )
        return (high - low) / (top - bottom)

    @property
    def is_detected(self) -> bool:
        position = self.tagger.labels.index(self.label)
        probability = self.tagger.probabilities(self.waveform, RATE)[position]
        return bool(probability >= self.tagger.thresholds[position])


def main() -> None:
    arguments = _parser().parse_args()
    manifest = read_manifest(arguments.manifest, group_column=arguments.group_column)
    with tempfile.TemporaryDirectory() as work:
        in_time = list(_in_time(manifest, Path(work), arguments.clips))
        in_frequency = list(_in_frequency(Path(work), arguments.clips))
        chances = [float(np.mean([case.chance for case in cases])) for cases in (in_time, in_frequency)]
        print(f"{len(in_time)} short sounds in others: {chances[0]:.0%} hits by chance")
        print(f"{len(in_frequency)} labels of synthesised sounds: {chances[1]:.0%} hits by chance\n")
        print(f"| method | {' | '.join(f'{name}, {axis}' for axis in AXES for name in COLUMNS)} |\n|{'---|' * 7}")
        for name, method in _methods().items():
            print(f"| {name} | {' | '.join(_results(in_time, method) + _results(in_frequency, method))} |", flush=True)
        _print_time(in_time)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--group-column", default=None)
    parser.add_argument("--clips", type=int, default=40, help="with a detection, per fold")
    return parser


def _explain(
    case: Case, seed: int, *, patch_seconds: float = PATCH_SECONDS, n_band_patches: int = N_BAND_PATCHES
) -> Attribution:
    return attribute(
        case.tagger,
        case.waveform,
        RATE,
        [case.label],
        patch_seconds=patch_seconds,
        n_band_patches=n_band_patches,
        seed=seed,
    )


Method = Callable[[Case, int], Attribution]


def _methods() -> dict[str, Method]:
    """The default and its alternatives, all with the same number of passes."""
    return {
        "the default: random masks, 3/4 replaced": _explain,
        "1/2 replaced": _with(_explain, _FRACTION_REPLACED=0.5),
        "9/10 replaced": _with(_explain, _FRACTION_REPLACED=0.9),
        "each patch replaced or not by itself": _with(_explain, _draw_mask=_independent),
        "one patch at a time": _one_at_a_time,
        "background: each band's quantile alone": _with(_explain, _background=_quantile_of_bands),
        "background: the lowest level of the clip": _with(_explain, _background=_lowest_level),
        "patches of 0.3 s": partial(_explain, patch_seconds=0.3),
        "patches of 0.8 s": partial(_explain, patch_seconds=0.8),
        "4 patches over frequency": partial(_explain, n_band_patches=4),
        "8 patches over frequency": partial(_explain, n_band_patches=8),
    }


def _with(method: Method, **changed: object) -> Method:
    def call(case: Case, seed: int) -> Attribution:
        with patch.multiple(attribution_module, **changed):
            return method(case, seed)

    return call


def _independent(rng: np.random.Generator, n_patches: tuple[int, int]) -> attribution_module._Mask:
    knots = rng.random((n_patches[0] + 2, n_patches[1] + 2)) < 0.75
    return attribution_module._Mask(knots.astype(np.float32), (float(rng.random()), float(rng.random())))


def _one_at_a_time(case: Case, seed: int) -> Attribution:
    """Occlusion: one patch per pass, on shifted grids."""
    knots = itertools.count()

    def draw(rng: np.random.Generator, n_patches: tuple[int, int]) -> attribution_module._Mask:
        grid = np.zeros((n_patches[0] + 2, n_patches[1] + 2), np.float32)
        grid.flat[next(knots) % grid.size] = 1
        return attribution_module._Mask(grid, (float(rng.random()), float(rng.random())))

    with patch.multiple(attribution_module, _draw_mask=draw):
        return _explain(case, seed)


def _quantile_of_bands(log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.quantile(log_mel, 0.1, axis=1, keepdims=True).astype(np.float32)


def _lowest_level(log_mel: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full((len(log_mel), 1), log_mel.min(), np.float32)


def _results(cases: Sequence[Case], method: Method) -> list[str]:
    """Hits, logit lost with the highest tenth and elsewhere, and the correlation of the maps of two seeds."""
    rng = np.random.default_rng(0)
    maps = [method(case, 0) for case in cases]
    hits = [case.is_hit(attribution) for case, attribution in zip(cases, maps, strict=True)]
    lost = np.mean([_lost(case, attribution, rng) for case, attribution in zip(cases, maps, strict=True)], axis=0)
    correlations = [
        np.corrcoef(attribution.maps.ravel(), method(case, 1).maps.ravel())[0, 1]
        for case, attribution in zip(cases, maps, strict=True)
    ]
    return [f"{np.mean(hits):.1%}", f"{lost[0]:.2f}, {lost[1]:.2f}", f"{np.mean(correlations):.2f}"]


def _lost(case: Case, attribution: Attribution, rng: np.random.Generator) -> tuple[float, float]:
    """The logit lost when the highest tenth of the map is silenced, and when a tenth elsewhere is."""
    front_end = case.tagger.front_end
    mel = front_end.mel
    assert mel is not None
    log_mel = compute_log_mel(case.waveform, mel)
    bands = np.searchsorted(attribution.band_edges[1:-1], band_centers(mel))
    seconds = np.arange(log_mel.shape[1]) * mel.hop_length / mel.sample_rate
    drawn = attribution.map_of(case.label)[np.ix_(bands, np.searchsorted(attribution.time_edges[1:-1], seconds))]
    drawn = drawn + rng.random(drawn.shape) * 1e-6  # so that cells of equal values can be divided
    highest = drawn >= np.quantile(drawn, 1 - TENTH)
    elsewhere = np.roll(highest, [int(rng.integers(size)) for size in highest.shape], axis=(0, 1))
    position = case.tagger.labels.index(case.label)

    def logit(silenced: NDArray[np.bool_]) -> float:
        shown = np.where(silenced, log_mel.min(), log_mel)
        return float(case.tagger.logits_of_inputs({front_end: front_end.input_of_log_mel(shown)})[position])

    whole = logit(np.zeros_like(highest))
    return whole - logit(highest), whole - logit(elsewhere)


def _in_time(manifest: Manifest, work: Path, n_clips: int) -> Iterator[Case]:
    for fold in sorted({fold for fold in manifest.folds if fold is not None}):
        fold_clips, others = (
            replace(manifest, clips=tuple(clip for clip in manifest.clips if (clip.fold == fold) is is_in_fold))
            for is_in_fold in (True, False)
        )
        train(others, work / f"without fold {fold}", Recipe())
        tagger = Tagger(work / f"without fold {fold}")
        cases = _mixed(tagger, find_sounds(fold_clips, sample_rate=RATE), np.random.default_rng(int(fold)))
        yield from itertools.islice((case for case in cases if case.is_detected), n_clips)


def _mixed(tagger: Tagger, sounds: Sequence[Sound], rng: np.random.Generator) -> Iterator[Case]:
    """Short sounds in long ones, an endless sequence."""
    events = [sound for sound in sounds if sound.clip.labels[0] in SHORT]
    backgrounds = [sound for sound in sounds if sound.clip.labels[0] in LONG]
    n_samples = round(CLIP_SECONDS * RATE)
    while True:
        event, background_sound = (sounds[rng.integers(len(sounds))] for sounds in (events, backgrounds))
        sound = _first_event(event)
        background = np.resize(read_audio(background_sound.clip.path, sample_rate=RATE)[0], n_samples)
        snr = rng.uniform(LOWEST_SNR, HIGHEST_SNR)
        begin = int(rng.integers(n_samples - len(sound)))
        mixture = background / _rms(background) * 10 ** (-snr / 20)
        mixture[begin : begin + len(sound)] += sound / _rms(sound)
        waveform = np.asarray(0.7 * mixture / np.abs(mixture).max(), np.float32)
        interval = begin / RATE, (begin + len(sound)) / RATE
        yield Case(tagger, waveform, event.clip.labels[0], seconds=interval)


def _first_event(sound: Sound) -> Waveform:
    waveform = read_audio(sound.clip.path, sample_rate=RATE)[0]
    first, last = active_intervals(sound.active)[0]
    n_frame = len(waveform) / len(sound.active)
    part = waveform[round(first * n_frame) : round(last * n_frame)][: round(LONGEST_EVENT * RATE)]
    return fade_ends(part, RATE)


def _in_frequency(work: Path, n_clips: int) -> Iterator[Case]:
    """Synthesised sounds, two at a time, with faint noise."""
    data = make_demo_data(work / "synthesised sounds", n_noisy=0, n_test=0)
    train(read_manifest(data.train_curated), work / "trained on synthesised sounds", Recipe())
    tagger = Tagger(work / "trained on synthesised sounds")
    rng = np.random.default_rng(0)
    for _ in range(n_clips):
        labels = "Engine", str(rng.choice(["Chirp", "Hiss"]))
        sounds = [KINDS[label](rng, CLIP_SECONDS, RATE) for label in labels]
        mixture = sum(0.05 * sound / _rms(sound) for sound in sounds)
        waveform = np.asarray(mixture + 1e-4 * rng.standard_normal(len(sounds[0])), np.float32)
        cases = (Case(tagger, waveform, label, hertz=BANDS[label]) for label in labels)
        yield from (case for case in cases if case.is_detected)


def _rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(waveform**2)))


def _print_time(cases: Sequence[Case], n_clips: int = 20) -> None:
    """One clip, one thread."""
    begin = time.perf_counter()
    for case in cases[:n_clips]:
        case.tagger.probabilities(case.waveform, RATE)
    tagged = time.perf_counter()
    for case in cases[:n_clips]:
        _explain(case, 0)
    explained = time.perf_counter()
    tag_seconds, explain_seconds = (tagged - begin) / n_clips, (explained - tagged) / n_clips
    ratio = explain_seconds / tag_seconds
    print(f"\na clip of {CLIP_SECONDS:g} s: {1000 * explain_seconds:.0f} ms, {ratio:.0f} times as long as tagging")


if __name__ == "__main__":
    main()
