"""Labels keep their order and are found by name; errors for unknown labels suggest a similar one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.data.labels import LabelSet, audioset_labels, split_labels, split_up_names
from spectag.errors import DataError, MissingExtraError, SpectagError, did_you_mean

NAMES = st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=20).map(tuple)


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("Bark", ("Bark",)),
        ("Bark, Knock", ("Bark", "Knock")),
        (" Knock ,Bark,Knock", ("Knock", "Bark")),
        ('"Chicken, rooster", Fowl,"Fowl"', ("Chicken, rooster", "Fowl")),
        ('Bell "big"', ('Bell "big"',)),
        ("", ()),
        (" , ,", ()),
        ("Tür, Ein Schlüssel", ("Tür", "Ein Schlüssel")),
    ],
)
def test_labels_of_a_field_keep_their_order_without_repetitions_and_blanks(field, labels):
    assert split_labels(field) == labels


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("Chicken, rooster", ("Chicken, rooster",)),
        ("Dog, Chicken, rooster ,Cat", ("Dog", "Chicken, rooster", "Cat")),
        ("Bee, wasp, etc.", ("Bee, wasp, etc.",)),
        ("Outside, urban or manmade, Fly, housefly", ("Outside, urban or manmade", "Fly, housefly")),
        ("Chicken,rooster", ("Chicken", "rooster")),
        ("chicken, rooster", ("chicken", "rooster")),
        ("Chicken, roosters", ("Chicken", "roosters")),
        ("My Chicken, rooster", ("My Chicken", "rooster")),
        ("Chicken_and_rooster, Dog", ("Chicken_and_rooster", "Dog")),
    ],
)
def test_names_of_audioset_with_commas_are_one_label(field, labels):
    assert split_labels(field) == labels


def test_every_name_of_audioset_is_one_label():
    assert [split_labels(name) for name in audioset_labels()] == [(name,) for name in audioset_labels()]
    assert split_labels(", ".join(audioset_labels())) == audioset_labels()


def test_a_chosen_comma_separates_everywhere():
    assert split_labels("Chicken, rooster", separator=",") == ("Chicken", "rooster")


def test_a_name_of_audioset_is_reported_if_a_part_of_it_is_a_label():
    assert split_up_names(["Fly, housefly", "Dog", "housefly", "Bark, Knock", "Bark"]) == [
        ("Fly, housefly", "housefly")
    ]
    assert split_up_names(audioset_labels()) == []


def test_separator_can_be_chosen():
    assert split_labels("Bark, loud; Knock", separator=";") == ("Bark, loud", "Knock")


@given(names=NAMES)
def test_index_is_the_position_of_the_label(names):
    labels = LabelSet(names)
    assert len(labels) == len(names)
    assert [labels.index(name) for name in names] == list(range(len(names)))


@given(clips=st.lists(NAMES))
def test_collected_labels_are_sorted(clips):
    names = LabelSet.collect(clips).names
    assert list(names) == sorted(set().union(*clips))


def test_collected_labels_do_not_depend_on_the_order_of_the_clips():
    assert LabelSet.collect([("b",), ("a", "c")]) == LabelSet.collect([("c", "a"), (), ("b",)])


def test_label_sets_of_equal_names_are_equal_and_hash_alike():
    assert LabelSet(("a", "b")) == LabelSet(("a", "b")) != LabelSet(("b", "a"))
    assert len({LabelSet(("a", "b")), LabelSet(("a", "b"))}) == 1


def test_duplicate_label_is_an_error():
    with pytest.raises(DataError, match=r"\['Bark'\] occur twice"):
        LabelSet(("Bark", "Knock", "Bark"))


def test_unknown_label_is_an_error_with_location_suggestion_and_known_labels():
    with pytest.raises(
        DataError,
        match=r"^train\.csv, line 3: unknown label 'Brak'; did you mean 'Bark'\? 2 labels are known: Bark, Knock$",
    ):
        LabelSet(("Bark", "Knock")).index("Brak", where="train.csv, line 3")


def test_error_for_an_unknown_label_lists_eight_labels():
    labels = LabelSet(tuple(f"label {letter}" for letter in "abcdefghij"))
    with pytest.raises(DataError, match=r"^unknown label 'Qu'\. 10 labels are known: label a, .*, label h, \.\.\.$"):
        labels.index("Qu")


def test_suggestion_is_made_only_for_a_similar_word():
    assert did_you_mean("efficientnet_lite", ["mn04_audioset", "efficientnet_lite0"]) == (
        "; did you mean 'efficientnet_lite0'?"
    )
    assert did_you_mean("zzz", ["mn04_audioset"]) == ""
    assert did_you_mean("zzz", []) == ""


def test_missing_package_is_an_error_with_the_install_command():
    error = MissingExtraError("av", "av", "a.m4a: reading this file")
    assert isinstance(error, SpectagError)
    assert str(error) == "a.m4a: reading this file needs the package av: pip install 'spectag[av]'"
