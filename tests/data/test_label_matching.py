"""Labels and the names of the same sounds."""

import pytest

from spectag.data.label_matching import match_labels
from spectag.models.pretrained import audioset_labels, audioset_synonyms


def match(label, names, synonyms=None):
    return match_labels([label], names, synonyms).get(label)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Rain", "Rain"),
        ("zipper_(clothing)", "Zipper (clothing)"),
        ("Child_speech_and_kid_speaking", "Child speech, kid speaking"),
        ("crickets", "Cricket"),
        ("sneezing", "Sneeze"),
        ("clap", "Clapping"),
        ("crying baby", "Baby cry, infant cry"),
        ("Rooster", "Chicken, rooster"),
    ],
)
def test_forms_and_order_of_words_do_not_matter(label, name):
    assert match(label, ["Cat", name, "Dog"]) == (name,)


def test_the_same_words_in_the_same_order_come_first():
    assert match("Bass_drum", ["Drum and bass", "Bass drum"]) == ("Bass drum",)
    assert match("Crow", ["Crowing, cock-a-doodle-doo", "Crow"]) == ("Crow",)


def test_names_within_a_label_are_used_if_nothing_else_matches():
    assert match("Dog_bark", ["Dog", "Bark", "Cat"]) == ("Dog", "Bark")
    assert match("church bell ringing", ["Bell", "Church bell"]) == ("Church bell",)
    assert match("Zither", ["Dog"]) is None
    assert match("engine noise", ["Noise", "Engine"]) == ("Engine",)


@pytest.mark.parametrize("label", ["___", "A", "in", "?", "\N{BIRD}", "no bird", "Not speech"])
def test_labels_that_say_nothing_or_the_opposite_match_no_name(label):
    assert match(label, ["Noise", "Bird", "Speech", "A capella"]) is None


def test_synonyms_come_before_parts_of_names_and_may_say_that_there_is_none():
    assert match("hand_saw", ["Hands", "Sawing"], {"hand saw": ["Sawing"]}) == ("Sawing",)
    assert match("can_opening", ["Can"], {"can opening": []}) is None


def test_every_name_of_audioset_matches_itself():
    names = audioset_labels()
    matches = match_labels(names, names, audioset_synonyms())
    assert all(name in matches[name] for name in names)
    assert sum(len(found) > 1 for found in matches.values()) <= 4  # Hum and Humming, Whistle and Whistling


def test_synonyms_of_audioset_are_among_its_names():
    assert {name for names in audioset_synonyms().values() for name in names} <= set(audioset_labels())
