"""Colour and dash pattern of each label: the same in every figure, and distinguishable with colour blindness.

The first eight labels have eight colours with solid lines, the next 24 the same colours dashed, dotted and dash-dotted.
From the 33rd label on, the patterns repeat.
"""

from collections.abc import Sequence
from typing import Literal

from spectag.system.figures import OKABE_ITO

Dash = Literal["solid", "dashed", "dotted", "dashdot"]

COLORS = (*OKABE_ITO, "#aa2211", "#773366")
"""A red and a plum extend the palette. They are as far from the other colours, with any colour vision, as those are
from each other. Grey is left for lines that are not highlighted."""
DASHES: tuple[Dash, ...] = ("solid", "dashed", "dotted", "dashdot")


class LabelColors:
    """Colours and dash patterns of a model's labels.

    Parameters
    ----------
    labels : sequence of str
        All labels of the model. Their order does not matter: colours follow the sorted names.

    Examples
    --------
    >>> colors = LabelColors(["Rain", "Dog"])
    >>> colors.color("Rain"), colors.dash("Rain"), "Cat" in colors
    ('#d55e00', 'solid', False)
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._index = {label: index for index, label in enumerate(sorted(labels))}

    def __contains__(self, label: object) -> bool:
        return label in self._index

    def color(self, label: str) -> str:
        """Colour of a label, such as "#0072b2"; a KeyError if it is not one of the labels."""
        return COLORS[self._index[label] % len(COLORS)]

    def dash(self, label: str) -> Dash:
        """Dash pattern of a label's lines, by matplotlib's names."""
        return DASHES[self._index[label] // len(COLORS) % len(DASHES)]
