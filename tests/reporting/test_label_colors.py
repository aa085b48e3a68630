from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.reporting.label_colors import COLORS, DASHES, color_of, dash_of

# How the colour-blind see linear RGB: Machado, Oliveira and Fernandes 2009, severity 1.
SEEN_BY = {
    "most": np.eye(3),
    "protanopes": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopes": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopes": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(color):
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Ottosson's Oklab, in which equal distances look about equal."""
    cones = np.cbrt(
        np.array(
            [
                [0.41222147, 0.53633254, 0.05144599],
                [0.2119035, 0.68069955, 0.10739696],
                [0.08830246, 0.28171884, 0.62997870],
            ]
        )
        @ np.clip(rgb, 0, 1)
    )
    return (
        np.array(
            [
                [0.21045426, 0.79361779, -0.00407205],
                [1.9779985, -2.42859221, 0.45059371],
                [0.0259040, 0.78277177, -0.80867577],
            ]
        )
        @ cones
    )


def contrast(color, ground):
    """WCAG 2's."""
    luminances = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) + 0.05 for each in (color, ground))
    return luminances[1] / luminances[0]


@pytest.mark.parametrize("who", SEEN_BY)
def test_everybody_tells_the_colours_apart(who):
    for one, other in combinations(COLORS, 2):
        seen = [oklab(np.array(SEEN_BY[who]) @ linear(color)) for color in (one, other)]
        assert np.linalg.norm(seen[0] - seen[1]) > 0.07, (one, other)


@pytest.mark.parametrize("ground", ["#ffffff", "#16151b"])
def test_the_colours_are_seen_on_a_white_and_on_a_dark_page(ground):
    assert min(contrast(color, ground) for color in COLORS) > 2


def test_the_contrast_of_black_on_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_thirty_two_labels_differ_and_the_next_begins_anew():
    labels = [f"label {i:02}" for i in range(33)]
    looks = [(color_of(label, labels), dash_of(label, labels)) for label in labels]
    assert len(set(looks)) == 32 == len(COLORS) * len(DASHES)
    assert looks[32] == looks[0]


@given(st.lists(st.text(), min_size=1, max_size=40, unique=True), st.randoms())
def test_the_order_in_which_labels_are_given_changes_nothing(labels, random):
    shuffled = random.sample(labels, len(labels))
    for label in labels:
        assert color_of(label, labels) == color_of(label, shuffled)
        assert dash_of(label, labels) == dash_of(label, shuffled)


def test_neighbours_have_different_colours():
    labels = [chr(ord("a") + i) for i in range(20)]
    assert all(color_of(one, labels) != color_of(other, labels) for one, other in pairwise(labels))


def test_a_label_that_is_not_among_them_has_no_colour():
    with pytest.raises(ValueError, match="'Cat' is none of the 1 labels"):
        color_of("Cat", ["Dog"])
