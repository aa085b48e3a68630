"""The colour and the dashes of a label: the same in every figure, and told apart by the colour-blind.

Eight colours, then the same eight dashed, dotted and dash-dotted, so that 32 labels differ; after that they begin anew.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

Dash = Literal["solid", "dashed", "dotted", "dashdot"]

COLORS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#aa2211", "#773366"
"""Okabe and Ito's without black and their yellow, one of which is lost on a dark page and the other on white; in their
place a red and a plum, chosen as far from the others, seen by anybody, as those are from each other. No grey: that is
for what is not pointed at."""
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")


def color_of(label: str, labels: Sequence[str]) -> str:
    """Colour of a label, such as "#0072b2", by its place among a tagger's sorted labels.

    Parameters
    ----------
    label : str
    labels : sequence of str
        All labels of the tagger, in any order.

    Raises
    ------
    ValueError
        If it is none of them.

    References
    ----------
    Okabe and Ito, "Color universal design", 2008.

    Examples
    --------
    >>> color_of("Rain", ["Rain", "Dog"]), dash_of("Rain", ["Rain", "Dog"])
    ('#d55e00', 'solid')
    """
    return COLORS[_place(label, labels) % len(COLORS)]


def dash_of(label: str, labels: Sequence[str]) -> Dash:
    """Dashes of a label's lines, as matplotlib names them; see `color_of`."""
    return DASHES[_place(label, labels) // len(COLORS) % len(DASHES)]


def _place(label: str, labels: Sequence[str]) -> int:
    places = _places(tuple(labels))
    if label not in places:
        raise ValueError(f"{label!r} is none of the {len(places)} labels, so it has no colour")
    return places[label]


@lru_cache(maxsize=8)
def _places(labels: tuple[str, ...]) -> dict[str, int]:
    return {label: place for place, label in enumerate(sorted(labels))}
