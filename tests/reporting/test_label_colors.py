import re
from importlib.resources import files
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.reporting.label_colors import COLORS, DASHES, LabelColors

# Linear RGB as seen with colour blindness: Machado, Oliveira and Fernandes 2009, severity 1.
COLOR_VISION = {
    "full": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def linear(color):
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Oklab (Ottosson), in which equal distances look about equally different."""
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


def contrast(color, background):
    """Contrast ratio of WCAG 2."""
    darker, lighter = sorted(float(linear(each) @ [0.2126, 0.7152, 0.0722]) + 0.05 for each in (color, background))
    return lighter / darker


def page_backgrounds():
    """The background colours of the style sheet, for light and dark pages."""
    style = files("spectag.reporting").joinpath("templates", "style.css").read_text("utf-8")
    light, dark = re.findall(r"--background: (#[0-9a-f]+);", style)[:2]
    return ["#" + 2 * light[1:] if len(light) == 4 else light, dark]


@pytest.mark.parametrize("vision", COLOR_VISION)
def test_colours_differ_with_any_colour_vision(vision):
    for color, other in combinations(COLORS, 2):
        seen = [oklab(np.array(COLOR_VISION[vision]) @ linear(each)) for each in (color, other)]
        assert np.linalg.norm(seen[0] - seen[1]) > 0.07, (color, other)


def test_colours_are_visible_on_light_and_dark_pages():
    backgrounds = page_backgrounds()
    assert contrast(*backgrounds) > 15
    for background in backgrounds:
        assert min(contrast(color, background) for color in COLORS) > 2


def test_32_labels_differ_and_the_next_repeats_the_first():
    labels = [f"label {i:02}" for i in range(33)]
    colors = LabelColors(labels)
    styles = [(colors.color(label), colors.dash(label)) for label in labels]
    assert len(set(styles)) == 32 == len(COLORS) * len(DASHES)
    assert styles[32] == styles[0]


@given(st.lists(st.text(), min_size=1, max_size=40, unique=True), st.randoms())
def test_order_of_labels_does_not_matter(labels, random):
    colors, shuffled = LabelColors(labels), LabelColors(random.sample(labels, len(labels)))
    for label in labels:
        assert colors.color(label) == shuffled.color(label)
        assert colors.dash(label) == shuffled.dash(label)


def test_neighbours_have_different_colours():
    labels = [chr(ord("a") + i) for i in range(20)]
    colors = LabelColors(labels)
    assert all(colors.color(label) != colors.color(other) for label, other in pairwise(labels))


def test_unknown_label_has_no_colour():
    with pytest.raises(KeyError, match="Cat"):
        LabelColors(["Dog"]).color("Cat")
