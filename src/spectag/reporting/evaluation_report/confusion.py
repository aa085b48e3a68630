"""Which labels are given in place of which, where several may be true and several given."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectag.array_types import BoolArray, FloatArray, IntArray
from spectag.evaluation.predictions import Predictions
from spectag.reporting.evaluation_report.formatting import chip, count, lead, percent

_MOST_LABELS = 25  # in the matrix
_N_PAIRS = 15
_N_EXAMPLES = 4  # clips named of a pair
_STRONG = 0.7  # share of the darkest colour from which on white is read on it


@dataclass(frozen=True, eq=False)
class Confusions:
    """How often a wrong label was given in place of a true one."""

    n_clips: IntArray
    """(n_labels,): clips that have the label."""
    counts: IntArray
    """(n_labels, n_labels): [i, j] are the clips of label i that were given j in its place."""
    n_given: IntArray
    """(n_labels,): clips of the label that were given it."""
    n_nothing: IntArray
    """(n_labels,): clips of the label that were not given it, and no wrong one either."""

    @property
    def most_confused(self) -> IntArray:
        """Labels that take part in a confusion, those first that do so in most clips."""
        n_parts = self.counts.sum(axis=0) + self.counts.sum(axis=1)
        order: IntArray = np.argsort(-n_parts, kind="stable")[: np.count_nonzero(n_parts)]
        return order

    def pairs(self, n_most: int) -> list[tuple[int, int]]:
        """Pairs of a true label and the one given in its place, those first that share most clips."""
        order = np.argsort(-self.counts, axis=None, kind="stable")[:n_most]
        pairs = [divmod(int(place), len(self.n_clips)) for place in order]
        return [(true, given) for true, given in pairs if self.counts[true, given]]


def given_in_place_of(label: int, y_true: BoolArray, probabilities: NDArray[Any], given: BoolArray) -> BoolArray:
    """Which labels were given in place of this one, (n_clips, n_labels): they are not true, but were given, while
    this one is true, and was not given or was less probable.
    """
    instead = ~given[:, [label]] | (probabilities > probabilities[:, [label]])
    return y_true[:, [label]] & given & ~y_true & instead


def confusions(y_true: BoolArray, probabilities: NDArray[Any], given: BoolArray) -> Confusions:
    """Count confusions; all three arrays are of shape (n_clips, n_labels).

    References
    ----------
    Akin to Heydarian, Doyle and Samavi, "MLCM: Multi-label confusion matrix", IEEE Access 2022, whose matrix also has a
    row for each true label and a column for "no predicted label"; when a cell counts is our own.

    Examples
    --------
    >>> found = confusions(np.array([[True, False]]), np.array([[0.4, 0.8]]), np.array([[False, True]]))
    >>> found.counts
    array([[0, 1],
           [0, 0]])
    """
    counts, n_nothing = [], []
    for label in range(y_true.shape[1]):
        rows = y_true[:, label]
        instead = given_in_place_of(label, y_true[rows], probabilities[rows], given[rows])
        counts.append(instead.sum(axis=0))
        n_nothing.append((~given[rows, label] & ~instead.any(axis=1)).sum())
    return Confusions(y_true.sum(axis=0), np.array(counts), (y_true & given).sum(axis=0), np.array(n_nothing))


def confusion_section(predictions: Predictions, colored: Sequence[str], in_cards: Collection[int]) -> str:
    """Matrix and list of confusions as HTML; `in_cards` are the rows of clips that have a card on the page."""
    given = predictions.probabilities >= predictions.thresholds
    found = confusions(predictions.y_true, predictions.probabilities, given)
    involved = found.most_confused
    if not involved.size:
        return "<p>No wrong label was given in place of a true one.</p>"
    shown = np.sort(involved[:_MOST_LABELS])
    which = ""
    if len(involved) > len(shown):
        which = f" Of the {len(involved)} labels that were ever confused, the {len(shown)} most confused are shown."
    return "\n".join(
        [
            lead(
                "Each row is a true label, each column a wrong one that was given in its place: of the row's clips, "
                "the share that were given the column's label, which they don't have, while the row's label was "
                "missed or less probable. “Nothing” is the share for which the row's label was missed and no wrong "
                "one given. In the frames is the share that was given the right label. Several labels may be given "
                "at once, so rows "
                f"need not sum to 100 %. Akin to the matrix of Heydarian et al. (IEEE Access, 2022).{which}"
            ),
            _matrix(found, shown, predictions.labels.names),
            _pair_list(found, predictions, given, colored, in_cards),
        ]
    )


def _matrix(found: Confusions, shown: IntArray, names: Sequence[str]) -> str:
    label_heads = "".join(
        f'<th scope="col" title="{escape(names[label])}"><span>{escape(names[label])}</span></th>' for label in shown
    )
    heads = f'<th scope="col"><span>Clips</span></th>{label_heads}<th scope="col"><span>Nothing</span></th>'
    shares = found.counts[np.ix_(shown, shown)] / np.maximum(found.n_clips[shown], 1)[:, None]
    most = float(max(shares.max(), 1e-9))
    rows = []
    for place, label in enumerate(shown):
        cells = list(_cells(found, shares[place], most, int(label), shown, names))
        rows.append(
            f'<tr><th scope="row" title="{escape(names[label])}">{escape(names[label])}</th>'
            f'<td class="n">{found.n_clips[label]:,}</td>{"".join(cells)}</tr>'
        )
    return (
        '<p class="scale-line">Percent of the label’s clips: '
        f'0 <span class="scale"></span> {percent(most)}</p>'
        '<div class="scrolls" tabindex="0" role="region" aria-label="Matrix of confusions"><table class="matrix">'
        f"<thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cells(
    found: Confusions, shares: FloatArray, most: float, label: int, shown: IntArray, names: Sequence[str]
) -> Iterator[str]:
    n_clips = int(found.n_clips[label])
    for share, other in zip(shares, shown, strict=True):
        if other == label:
            yield f'<td class="right">{_short(found.n_given[label], n_clips)}</td>'
        elif share:
            words = f"{found.counts[label, other]} of {n_clips}: {names[label]} taken for {names[other]}"
            strong = ' class="strong"' if share > _STRONG * most else ""
            yield (
                f'<td{strong} style="--share:{share / most:.3f}" title="{escape(words)}">'
                f"{_short(found.counts[label, other], n_clips)}</td>"
            )
        else:
            yield "<td></td>"
    nothing = f"{found.n_nothing[label] / n_clips:.3f}" if n_clips else "0"
    yield f'<td class="nothing" style="--share:{nothing}">{_short(found.n_nothing[label], n_clips)}</td>'


def _short(part: int, whole: int) -> str:
    """A share as a whole number of percent, without the sign."""
    if not part:
        return ""
    share = 100 * part / whole
    return "<1" if share < 0.5 else f"{share:.0f}"


def _pair_list(
    found: Confusions,
    predictions: Predictions,
    given: BoolArray,
    colored: Sequence[str],
    in_cards: Collection[int],
) -> str:
    items = []
    names = predictions.labels.names
    for true, other in found.pairs(_N_PAIRS):
        rows = given_in_place_of(true, predictions.y_true, predictions.probabilities, given)[:, other].nonzero()[0]
        share = found.counts[true, other] / found.n_clips[true]
        items.append(
            f'<li>{chip(names[true], colored)} <span class="arrow">taken for</span> {chip(names[other], colored)} '
            f"<b>{count(found.counts[true, other], 'clip')}</b>, {percent(share)}"
            f'<span class="examples">{_examples(rows.tolist(), predictions, in_cards)}</span></li>'
        )
    return f'<h3>Most frequent</h3><ol class="pairs">{"".join(items)}</ol>'


def _examples(rows: list[int], predictions: Predictions, in_cards: Collection[int]) -> str:
    """Some clips, those first that can be heard on the page."""
    ordered = sorted(rows, key=lambda row: row not in in_cards)
    names = [(row, escape(predictions.clips[row].name)) for row in ordered[:_N_EXAMPLES]]
    shown = [f'<a href="#clip-{row}">{name}</a>' if row in in_cards else name for row, name in names]
    return ", ".join(shown) + (f" and {len(rows) - _N_EXAMPLES:,} more" if len(rows) > _N_EXAMPLES else "")
