"""Samples of detections to check: weights, strata, equal chances, repetition, and the most probable of site and day."""

from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spectag.config.findings import CheckSettings
from spectag.data.detections import DetectedSound
from spectag.data.sites import RecordingPlace
from spectag.findings.checked_sample import (
    allocate,
    describe_labels,
    detections_fingerprint,
    draw_sample,
    presence_unit,
    unique_detections,
)


def made_table(n_detections, *, n_sites=3, n_labels=2, seed=0):
    """Detections of several labels, sites and days; low probabilities are more frequent."""
    rng = np.random.default_rng(seed)
    paths = {
        Path(f"site{site}_day{day}.wav"): RecordingPlace(f"site{site}", datetime(2024, 5, 1 + day, 4))
        for site in range(n_sites)
        for day in range(3)
    }
    names = list(paths)
    detections = []
    for number in range(n_detections):
        path = names[rng.integers(len(names))]
        start, probability = float(number * 3), float(round(rng.beta(1, 3), 4))
        detections.append(DetectedSound(path, path.name, start, start + 3, f"L{number % n_labels}", probability))
    return detections, paths


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 400),
    per_label=st.integers(1, 120),
    n_sites=st.integers(1, 12),
    seed=st.integers(0, 5),
    across=st.permutations(["scores", "sites", "hours"]).flatmap(
        lambda names: st.integers(0, 3).map(lambda n: tuple(names[:n]))
    ),
)
def test_weights_of_a_label_add_up_to_its_detections_and_all_strata_have_a_sample(n, per_label, n_sites, seed, across):
    detections, places = made_table(n, n_sites=n_sites)
    sample = draw_sample(detections, CheckSettings(per_label=per_label, across=across, seed=seed), places)
    in_table = Counter(sound.label for sound in detections)
    weights, sizes, strata = defaultdict(float), Counter(), defaultdict(dict)
    for row in sample:
        weights[row.label] += row.weight
        sizes[row.label] += 1
        strata[row.label][row.stratum] = row.n_in_stratum
    assert weights == pytest.approx(in_table)
    assert sizes == {label: min(count, per_label) for label, count in in_table.items()}
    assert {label: sum(found.values()) for label, found in strata.items()} == in_table
    assert len({row.key for row in sample}) == len(sample)


def test_strata_are_as_fine_as_two_detections_of_each_allow():
    detections, places = made_table(3000, n_labels=1)
    parts = {
        per_label: len(draw_sample(detections, CheckSettings(per_label=per_label), places)[0].stratum.split("; "))
        for per_label in (15, 40, 96, 1000)
    }
    assert parts == {15: 1, 40: 1, 96: 2, 1000: 3}
    sample = draw_sample(detections, CheckSettings(per_label=40), places)
    rare = [row for row in sample if row.stratum == "score 0.8 to 0.9"]
    assert len(rare) >= 2
    assert min(rare[0].n_in_stratum, 40) > len(rare)
    assert {row.site for row in sample} == {"site0", "site1", "site2"}


def test_estimates_from_the_weights_are_right_on_average():
    """The Horvitz-Thompson estimate of a total is unbiased if each detection had the chance that its weight says."""
    detections, places = made_table(500, n_labels=1)
    true = {(sound.file, sound.start_seconds): sound.probability > 0.35 for sound in detections}
    totals = [
        sum(
            row.weight * true[row.file, row.start_seconds]
            for row in draw_sample(detections, CheckSettings(per_label=40, seed=seed), places)
        )
        for seed in range(150)
    ]
    error = np.std(totals) / np.sqrt(len(totals))
    assert np.mean(totals) == pytest.approx(sum(true.values()), abs=4 * error + 1e-9)


def test_each_detection_is_drawn_as_often_as_its_weight_says():
    detections, places = made_table(300, n_labels=1)
    drawn, weights, n_draws = Counter(), {}, 400
    for seed in range(n_draws):
        for row in draw_sample(detections, CheckSettings(per_label=60, seed=seed), places):
            drawn[row.key] += 1
            weights[row.key] = row.weight
    chances = np.array([1 / weights[key] for key in drawn])
    frequencies = np.array(list(drawn.values())) / n_draws
    assert len(drawn) == len(detections)
    assert (np.abs(frequencies - chances) <= 5 * np.sqrt(chances * (1 - chances) / n_draws) + 1e-9).all()


def test_same_seed_gives_the_same_sample_and_another_seed_another_one():
    detections, places = made_table(600)
    samples = [draw_sample(detections, CheckSettings(per_label=30, seed=seed), places) for seed in (1, 1, 2)]
    assert samples[0] == samples[1]
    assert samples[0] != samples[2]


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=12), share=st.floats(0, 1))
def test_allocation_uses_the_whole_sample_and_gives_two_to_each_stratum(sizes, share):
    least = sum(min(size, 2) for size in sizes)
    n_sampled = least + int(share * (sum(sizes) - least))
    chosen = allocate(sizes, n_sampled)
    assert sum(chosen) == n_sampled
    assert all(min(size, 2) <= n <= size for n, size in zip(chosen, sizes, strict=True))


def test_presence_asks_the_most_probable_of_each_site_and_day_first():
    detections, places = made_table(900, n_labels=1)
    best = {}
    for sound in detections:
        place = places[sound.path]
        unit = sound.label, place.site, place.time_of(sound.start_seconds).date().isoformat()
        best[unit] = max(best.get(unit, 0), sound.probability)
    sample = draw_sample(detections, CheckSettings(per_label=len(best), presence=True), places)
    assert {presence_unit(row): row.probability for row in sample} == best
    probabilities = [row.probability for row in sample]
    assert probabilities == sorted(probabilities, reverse=True)


def test_repeated_detections_count_once_and_equal_names_of_two_recordings_become_their_paths():
    same = [DetectedSound(Path("x/a.wav"), "a.wav", 0, 1, "Dog", 0.5)] * 2
    assert unique_detections(same) == same[:1]
    other = DetectedSound(Path("y/a.wav"), "a.wav", 0, 1, "Dog", 0.5)
    assert [sound.file for sound in unique_detections([*same, other])] == ["x/a.wav", "y/a.wav"]


def test_numbers_of_labels_and_the_fingerprint_describe_the_table():
    detections, places = made_table(100)
    sample = draw_sample(detections, CheckSettings(per_label=10), places)
    label = describe_labels(detections, sample)["L1"]
    lowest = min(sound.probability for sound in detections if sound.label == "L1")
    assert (label.n_detections, label.n_sampled, label.lowest_probability) == (50, 10, lowest)
    assert (
        detections_fingerprint(detections)
        == detections_fingerprint(detections[::-1])
        != detections_fingerprint(detections[1:])
    )
