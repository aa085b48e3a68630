"""Groups of AudioSet's labels, against facts of its ontology."""

import pytest

from spectag.data.label_groups import audioset_groups, labels_of_group
from spectag.data.label_matching import stemmed_words
from spectag.data.labels import audioset_labels

LABELS = audioset_labels()


def test_group_that_is_a_label_starts_with_it_and_has_others():
    groups = audioset_groups()
    assert len(groups) > 100
    for name, labels in groups.items():
        assert len(set(labels)) == len(labels) > 1
        assert name not in LABELS or name in labels


def test_names_of_groups_differ_by_more_than_case_and_endings():
    assert len({stemmed_words(name) for name in audioset_groups()}) == len(audioset_groups())


def test_labels_with_one_parent_form_a_tree():
    spans = [(LABELS.index(labels[0]), len(labels)) for labels in audioset_groups().values() if in_one_piece(labels)]
    for start, length in spans:
        for other, other_length in spans:
            apart = start + length <= other or other + other_length <= start
            inside = other <= start and start + length <= other + other_length
            around = start <= other and other + other_length <= start + length
            assert apart or inside or around, (LABELS[start], LABELS[other])


def in_one_piece(labels):
    start = LABELS.index(labels[0])
    return LABELS[start : start + len(labels)] == labels


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("animal sounds", {"Animal", "Dog", "Moo", "Owl", "Whale vocalization"}, {"Speech", "Music", "Wind"}),
        (
            "vehicles",
            {"Vehicle", "Car", "Train", "Helicopter", "Bicycle", "Ship"},
            {"Engine", "Waves, surf", "Chainsaw"},
        ),
        ("Human voices", {"Speech", "Laughter", "Baby cry, infant cry", "Choir"}, {"Clapping", "Snoring", "Animal"}),
        ("music", {"Music", "Guitar", "Techno", "Bell", "Scary music"}, {"Singing", "Wind"}),
        ("birdsong", {"Chirp, tweet"}, {"Singing", "Bird flight, flapping wings"}),
        ("dogs", {"Dog", "Bark", "Howl"}, {"Cat", "Canidae, dogs, wolves"}),
        ("rain", {"Rain", "Raindrop", "Rain on surface"}, {"Stream", "Water"}),
        ("siren", {"Siren", "Ambulance (siren)", "Civil defense siren"}, {"Alarm", "Truck"}),
        ("engines", {"Engine", "Chainsaw", "Idling"}, {"Bicycle", "Aircraft"}),
    ],
)
def test_group_has_the_labels_below_and_no_others(name, inside, outside):
    found = set(labels_of_group(name, LABELS))
    assert inside <= found
    assert not outside & found


def test_labels_of_other_data_sets_are_found_if_only_their_spelling_differs():
    assert labels_of_group("animals", ("rain", "dog", "Domestic_animals_and_pets")) == (
        "dog",
        "Domestic_animals_and_pets",
    )


@pytest.mark.parametrize("name", ["the", "etc.", "", "xylofone"])
def test_name_of_no_group_has_no_labels(name):
    assert labels_of_group(name, LABELS) == ()
