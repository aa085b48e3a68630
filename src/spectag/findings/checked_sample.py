"""Draw the detections that people check by ear: a stratified random sample with weights, or the best of site and day.

The strata of a label are made of score bands, sites and hours of the day, as far as each then has at least two
detections in the sample; what is left out of the strata still orders the detections within them, and the sample is
taken at equal distances in that order. So every detection of a stratum has the same chance, and the weights are exact.
"""

import hashlib
import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np

from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import CheckedDetection, DetectionKey, SampledLabel
from spectag.data.detections import DetectedSound
from spectag.data.sites import RecordingPlace
from spectag.findings.sampling import N_BANDS, score_band

MIN_PER_STRATUM = 2  # the variance within a stratum needs two

Key = tuple[str, ...]


@dataclass(frozen=True)
class _Located:
    """A detection, its site, and its time."""

    sound: DetectedSound
    site: str
    recorded: datetime | None

    def key(self, across: Sequence[str]) -> Key:
        """Its score band, site and hour, as far as the sample is spread over them."""
        values = {
            "scores": _band_text(self.sound.probability),
            "sites": f"site {self.site}",
            "hours": "hour unknown" if self.recorded is None else f"hour {self.recorded.hour:02}",
        }
        return tuple(values[name] for name in across)

    def row(self, stratum: str, n_in_stratum: int, n_sampled: int) -> CheckedDetection:
        """Its row of the sample."""
        sound = self.sound
        weight = n_in_stratum / n_sampled
        times = sound.start_seconds, sound.end_seconds
        place = self.site, self.recorded
        return CheckedDetection(
            sound.file, *times, sound.label, sound.probability, *place, stratum, n_in_stratum, weight
        )


def unique_detections(detections: Iterable[DetectedSound]) -> list[DetectedSound]:
    """The detections without repetitions. If a name means several recordings, their paths become the names."""
    paths: dict[str, set[Path]] = defaultdict(set)
    found = list(detections)
    for sound in found:
        paths[sound.file].add(sound.path)
    named = (sound if len(paths[sound.file]) == 1 else replace(sound, file=str(sound.path)) for sound in found)
    return list({DetectionKey(sound.file, *sound.span, sound.label): sound for sound in named}.values())


def draw_sample(
    detections: Sequence[DetectedSound], settings: CheckSettings, places: Mapping[Path, RecordingPlace]
) -> list[CheckedDetection]:
    """The detections to check, label by label: in random order, or with `presence` the most probable first.

    Parameters
    ----------
    detections : sequence of DetectedSound
        Without repetitions.
    settings : CheckSettings
    places : mapping
        The sites and starts of all recordings.

    Returns
    -------
    list of CheckedDetection
        The weights of a label add up to the number of its detections. Those of `presence` are not those of a random
        sample.

    References
    ----------
    Bankier, "Power allocations: determining sample sizes for subnational areas", The American Statistician 42, 1988.
    """
    of_label: dict[str, list[_Located]] = defaultdict(list)
    for sound in detections:
        place = places[sound.path]
        of_label[sound.label].append(_Located(sound, place.site, place.time_of(sound.start_seconds)))
    rng = np.random.default_rng(settings.seed)
    rows: list[CheckedDetection] = []
    for _, located in sorted(of_label.items()):
        n_sampled = len(located) if settings.per_label is None else min(settings.per_label, len(located))
        draw = _most_probable if settings.presence else partial(_stratified, across=settings.across, rng=rng)
        rows += draw(located, n_sampled)
    return rows


def describe_labels(detections: Sequence[DetectedSound], sample: Sequence[CheckedDetection]) -> dict[str, SampledLabel]:
    """The numbers of each label, in the table and in the sample."""
    n_sampled = Counter(row.label for row in sample)
    of_label: dict[str, list[float | None]] = defaultdict(list)
    for sound in detections:
        of_label[sound.label].append(sound.probability)
    return {
        label: SampledLabel(
            n_detections=len(found),
            n_sampled=n_sampled[label],
            lowest_probability=min((value for value in found if value is not None), default=None),
        )
        for label, found in sorted(of_label.items())
    }


def detections_fingerprint(detections: Iterable[DetectedSound]) -> str:
    """A text that differs for other detections, whatever their order."""
    lines = sorted(repr((sound.file, sound.span, sound.label, sound.probability)) for sound in detections)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def presence_unit(row: CheckedDetection) -> tuple[str, str, str]:
    """The label, the site and the day of a detection; if its time is unknown, the recording instead of the day."""
    return row.label, row.site, row.file if row.recorded is None else row.recorded.date().isoformat()


def _band_text(probability: float | None) -> str:
    band = score_band(probability)
    return "score unknown" if band < 0 else f"score {band / N_BANDS:.1f} to {(band + 1) / N_BANDS:.1f}"


def _most_probable(located: Sequence[_Located], n_sampled: int) -> list[CheckedDetection]:
    """First the most probable detection of each site and day, then the second of each, and so on."""
    units: dict[tuple[str, str, str], list[_Located]] = defaultdict(list)
    for one in sorted(located, key=lambda one: -(one.sound.probability or 0.0)):
        units[presence_unit(one.row("", 1, 1))].append(one)
    ranked = sorted(((rank, unit) for unit, found in units.items() for rank in range(len(found))), key=lambda x: x[0])
    n_of_unit = Counter(unit for _, unit in ranked[:n_sampled])
    rows = [
        one.row("; ".join(unit[1:]), len(units[unit]), n_chosen)
        for unit, n_chosen in n_of_unit.items()
        for one in units[unit][:n_chosen]
    ]
    return sorted(rows, key=lambda row: -(row.probability or 0.0))


def _stratified(
    located: Sequence[_Located], n_sampled: int, *, across: Sequence[str], rng: np.random.Generator
) -> list[CheckedDetection]:
    keys = [one.key(across) for one in located]
    n_keys = _n_keys_of_strata(keys, n_sampled)
    strata: dict[Key, list[int]] = defaultdict(list)
    for index in rng.permutation(len(located)).tolist():
        strata[keys[index][:n_keys]].append(index)
    ordered = sorted(strata.items())
    sizes = allocate([len(members) for _, members in ordered], n_sampled)
    rows: list[CheckedDetection] = []
    for (stratum, members), n_chosen in zip(ordered, sizes, strict=True):
        members.sort(key=lambda index: keys[index])  # equal ones stay in random order
        rows += [
            located[members[position]].row("; ".join(stratum) or "all", len(members), n_chosen)
            for position in _systematic(len(members), n_chosen, rng)
        ]
    return [rows[index] for index in rng.permutation(len(rows))]


def _n_keys_of_strata(keys: Sequence[Key], n_sampled: int) -> int:
    """How many of the first keys make the strata, so that the sample has two detections, or all, of each."""
    for n_keys in range(len(keys[0]), 0, -1):
        sizes = Counter(key[:n_keys] for key in keys).values()
        if sum(min(size, MIN_PER_STRATUM) for size in sizes) <= n_sampled:
            return n_keys
    return 0


def allocate(sizes: Sequence[int], n_sampled: int) -> list[int]:
    """How many detections of each stratum are sampled: two, or all, and of the rest about the square root of its size.

    Parameters
    ----------
    sizes : sequence of int
        Detections in each stratum.
    n_sampled : int
        At most the sum of the sizes.

    Examples
    --------
    >>> allocate([1, 100, 10_000], 23)
    [1, 2, 20]
    """
    chosen = [min(size, MIN_PER_STRATUM) for size in sizes]
    if sum(chosen) > n_sampled:  # only if there is one stratum
        return [n_sampled]
    # the next one goes where the sample is smallest for the square root of the size
    queue = [(n / math.sqrt(size), number) for number, (n, size) in enumerate(zip(chosen, sizes, strict=True))]
    heapq.heapify(queue)
    for _ in range(n_sampled - sum(chosen)):
        while chosen[queue[0][1]] == sizes[queue[0][1]]:
            heapq.heappop(queue)
        number = queue[0][1]
        chosen[number] += 1
        heapq.heapreplace(queue, (chosen[number] / math.sqrt(sizes[number]), number))
    return chosen


def _systematic(size: int, n_chosen: int, rng: np.random.Generator) -> list[int]:
    """Positions at equal distances, from a random start: each position is chosen with the same probability."""
    positions = np.floor((rng.random() + np.arange(n_chosen)) * (size / n_chosen)).astype(int)
    return np.minimum(positions, size - 1).tolist()  # type: ignore[no-any-return]
