import pytest

from spectag.data.labels import LabelSet, audioset_labels
from spectag.errors import ConfigError
from spectag.tagging.chosen_labels import ChosenLabels, match_words

AUDIOSET = LabelSet(audioset_labels())


def test_words_are_matched_by_names_parts_and_synonyms():
    assert match_words('engine idling, rooster, "Waves, surf", rain', AUDIOSET) == {
        "engine idling": ("Idling",),
        "rooster": ("Crowing, cock-a-doodle-doo", "Chicken, rooster"),
        "Waves, surf": ("Waves, surf",),
        "rain": ("Rain",),
    }


def test_labels_of_words_are_reported_in_the_order_of_the_model_and_the_matches_are_told():
    chosen = ChosenLabels.read(LabelSet(("Rain", "Wind", "Moo")), None, None, words="cow, Rain")
    assert chosen.labels.names == ("Rain", "Moo")
    assert chosen.columns.tolist() == [0, 2]
    assert chosen.matches == ("cow → Moo", "Rain → Rain")


def test_synonyms_that_the_model_does_not_know_match_nothing():
    with pytest.raises(ConfigError, match="no label of the model means 'engine idling'"):
        match_words("engine idling", LabelSet(("Rain", "Wind")))


@pytest.mark.parametrize(("word", "similar"), [("washing machine", "Sewing machine"), ("xylofone", "Marimba")])
def test_word_without_a_label_is_refused_with_similar_labels(word, similar):
    with pytest.raises(ConfigError, match=f"no label of the model means '{word}'; similar ones are .*{similar}"):
        match_words(f"rain, {word}", AUDIOSET)


def test_no_words_are_refused():
    with pytest.raises(ConfigError, match="no words; write them between commas"):
        match_words(" , ", AUDIOSET)
