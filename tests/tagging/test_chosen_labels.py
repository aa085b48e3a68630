import pytest

from spectag.data.labels import LabelSet, audioset_labels
from spectag.errors import ConfigError
from spectag.tagging.chosen_labels import ChosenLabels, match_words

AUDIOSET = LabelSet(audioset_labels())


def test_words_are_matched_by_names_parts_and_synonyms():
    assert match_words('engine idling, glass breaking, "Waves, surf", rain on a window', AUDIOSET) == {
        "engine idling": ("Idling",),
        "glass breaking": ("Shatter", "Glass"),
        "Waves, surf": ("Waves, surf",),
        "rain on a window": ("Rain",),
    }


def test_group_means_its_label_and_all_below_but_a_part_of_a_description_the_label_alone():
    found = match_words("thunderstorm, loud music, owls", AUDIOSET)
    assert found["thunderstorm"] == ("Thunderstorm", "Thunder")
    assert found["loud music"] == ("Music",)
    assert found["owls"] == ("Owl", "Hoot")


def test_own_label_of_a_model_counts_beside_those_of_the_group():
    assert match_words("traffic", LabelSet(("traffic", "wind", "Car"))) == {"traffic": ("traffic", "Car")}


def test_label_that_contains_the_words_is_the_last_choice():
    assert match_words("ambulance, horn", AUDIOSET) == {
        "ambulance": ("Ambulance (siren)",),
        "horn": ("French horn", "Vehicle horn, car horn, honking", "Air horn, truck horn", "Train horn"),
    }


def test_words_of_a_text_file_are_in_its_lines(tmp_path):
    (tmp_path / "words.txt").write_text("Waves, surf\n\n thunder\n", encoding="utf-8")
    assert match_words(str(tmp_path / "words.txt"), AUDIOSET) == {
        "Waves, surf": ("Waves, surf",),
        "thunder": ("Thunder",),
    }


def test_long_matches_are_shortened_in_the_log():
    [match] = ChosenLabels.read(AUDIOSET, None, None, words="birds").matches
    assert match.startswith('birds → Bird + "Bird vocalization, bird call, bird song" + "Chirp, tweet" + Squawk + ')
    assert match.endswith(" and 5 others")


def test_labels_of_words_are_reported_in_the_order_of_the_model_and_the_matches_are_told():
    chosen = ChosenLabels.read(LabelSet(("Rain", "Wind", "Moo")), None, None, words="cow, Rain")
    assert chosen.labels.names == ("Rain", "Moo")
    assert chosen.columns.tolist() == [0, 2]
    assert chosen.matches == ("cow → Moo", "Rain → Rain")


def test_synonyms_that_the_model_does_not_know_match_nothing():
    with pytest.raises(ConfigError, match="no label of the model means 'engine idling'"):
        match_words("engine idling", LabelSet(("Rain", "Wind")))
    assert match_words("engine idling", LabelSet(("Rain", "Engine"))) == {"engine idling": ("Engine",)}


@pytest.mark.parametrize(("word", "similar"), [("washing machine", "Sewing machine"), ("xylofone", "Marimba")])
def test_word_without_a_label_is_refused_with_similar_labels(word, similar):
    with pytest.raises(ConfigError, match=f"no label of the model means '{word}'; similar ones are .*{similar}"):
        match_words(f"rain, {word}", AUDIOSET)


def test_all_words_without_a_label_are_named():
    with pytest.raises(ConfigError, match=r"means 'cicadas'; .*None means 'xylofone'; similar .*Leave them out"):
        match_words("cicadas, rain, xylofone", AUDIOSET)


def test_no_words_are_refused():
    with pytest.raises(ConfigError, match="no words; write them between commas"):
        match_words(" , ", AUDIOSET)
