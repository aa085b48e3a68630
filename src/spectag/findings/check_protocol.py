"""The protocol of checking detections: what a paper's methods section says about it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spectag.config.findings import CheckSettings
from spectag.data.checked_detections import CheckedDetection, CheckInfo
from spectag.findings.checked_sample import MIN_PER_STRATUM, presence_unit
from spectag.reporting.number_texts import quantity
from spectag.system.output import one_line

_WORDS = {"scores": "score band (0.1 wide)", "sites": "site", "hours": "hour of the day"}


@dataclass(frozen=True)
class LabelDecisions:
    """How many detections of a label there are, were sampled and were decided."""

    n_detections: int
    n_sampled: int
    yes: int
    no: int
    unsure: int
    not_needed: int = 0
    """With --presence: another detection of the label, site and day was confirmed."""

    @property
    def n_decided(self) -> int:
        """Yes, no or unsure."""
        return self.yes + self.no + self.unsure

    @property
    def n_open(self) -> int:
        """Still to check."""
        return self.n_sampled - self.n_decided - self.not_needed


def count_decisions(rows: Sequence[CheckedDetection], info: CheckInfo) -> dict[str, LabelDecisions]:
    """The decisions of each label."""
    confirmed = {presence_unit(row) for row in rows if row.decision == "yes"} if info.presence else set()
    kinds = Counter((row.label, row.decision) for row in rows)
    spared = Counter(row.label for row in rows if not row.decision and presence_unit(row) in confirmed)
    return {
        label: LabelDecisions(
            sampled.n_detections,
            sampled.n_sampled,
            kinds[label, "yes"],
            kinds[label, "no"],
            kinds[label, "unsure"],
            spared[label],
        )
        for label, sampled in info.labels.items()
    }


def protocol_text(rows: Sequence[CheckedDetection], info: CheckInfo, settings: CheckSettings) -> str:
    """The protocol, as Markdown."""
    counts = count_decisions(rows, info)
    parts = ["# How the detections were checked", *_paragraphs(rows, info, settings, counts)]
    return "\n\n".join([*parts, "\n".join(_table(info, counts))]) + "\n"


def _paragraphs(
    rows: Sequence[CheckedDetection], info: CheckInfo, settings: CheckSettings, counts: dict[str, LabelDecisions]
) -> Iterator[str]:
    n_detections = sum(count.n_detections for count in counts.values())
    limits = [f"of at least {info.min_probability:g}"] if info.min_probability else []
    limits += [f"below {info.max_probability:g}"] if info.max_probability is not None else []
    with_limits = f" with probabilities {' and '.join(limits)}" if limits else ""
    yield (
        f"The table {_text(info.table)} of the model {_text(info.model)} has {quantity(n_detections, 'detection')} of "
        f"{quantity(len(counts), 'label')}{with_limits}. Of these, {quantity(len(rows), 'detection')} were drawn on "
        f"{info.created:%Y-%m-%d} with spectag {_text(info.spectag)} (seed {info.seed}). {_sampling(info)}"
    )
    yield (
        "Reviewers heard each detection, and saw its spectrogram, with "
        f"{settings.context:g} s before and after it. They decided whether the label is true: yes, no or not sure. "
        "They saw the probability only if they chose so."
    )
    yield _who_and_when(rows)
    if n_open := sum(count.n_open for count in counts.values()):
        yield f"{quantity(n_open, 'detection')} of the sample are not decided yet."


def _sampling(info: CheckInfo) -> str:
    most = "all" if info.n_per_label is None else f"at most {info.n_per_label:,}"
    if info.presence:
        return (
            f"They are {most} of each label: first the most probable detection of each site and day, then the second "
            "of each, and so on. The most probable ones were checked first. After the first confirmed detection of a "
            "label at a site on a day, the others of that day were not checked. So the sample shows where and when "
            "the labels occurred, but not how precise the detections are."
        )
    if not info.across:
        return f"They are a simple random sample of {most} of each label."
    words = [_WORDS[name] for name in info.across]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return (
        f"They are a stratified random sample of {most} of each label. The strata are made of {listed}, as far as at "
        f"least {MIN_PER_STRATUM} detections of each stratum (or all of them) fit into the sample. Each stratum got "
        f"{MIN_PER_STRATUM}, and the rest was divided in proportion to the square root of their sizes (power "
        "allocation, Bankier 1988). Within a stratum, the detections were drawn with equal chances. So a detection of "
        "the sample stands for as many detections of the table as its column `weight` in decisions.csv says."
    )


def _who_and_when(rows: Sequence[CheckedDetection]) -> str:
    decided = [row for row in rows if row.decision]
    if not decided:
        return "Nobody has decided yet."
    who = Counter(row.reviewer or "unknown" for row in decided).most_common()
    names = ", ".join(f"{_text(name)} ({quantity(count, 'decision')})" for name, count in who)
    days = sorted(row.time.date() for row in decided if row.time is not None)
    when = f" between {days[0]} and {days[-1]}" if days and days[0] != days[-1] else f" on {days[0]}" if days else ""
    n_with_others = sum(bool(row.other_labels) for row in decided)
    others = f" Other sounds were named in {quantity(n_with_others, 'detection')}." if n_with_others else ""
    return f"Decided{when} by {names}.{others}"


def _table(info: CheckInfo, counts: dict[str, LabelDecisions]) -> Iterator[str]:
    columns = ["label", "detections", "sampled", "yes", "no", "not sure", "not decided"]
    if info.presence:
        columns.insert(-1, "not needed")
    yield f"| {' | '.join(columns)} |"
    yield f"|---|{'---:|' * (len(columns) - 1)}"
    for label, count in counts.items():
        numbers = [count.n_detections, count.n_sampled, count.yes, count.no, count.unsure, count.n_open]
        if info.presence:
            numbers.insert(-1, count.not_needed)
        yield f"| {_text(label)} | {' | '.join(f'{number:,}' for number in numbers)} |"


def _text(text: str) -> str:
    """A text from a file, without what Markdown and HTML would take as their own."""
    return "".join(f"\\{character}" if character in "\\`*_[]<>|#" else character for character in one_line(text))
