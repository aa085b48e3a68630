"""Maps of labels: which labels are merged, renamed, dropped, or put below others."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path

from spectag.data.hierarchy import Hierarchy, LabelPair, check_label_name
from spectag.data.labels import LabelSplitter
from spectag.data.readers.columns import find_delimiter
from spectag.data.readers.delimited_text import abbreviate, open_table
from spectag.data.readers.text_files import read_text
from spectag.errors import DataError
from spectag.system.file_errors import similar_file

LabelChanges = str | Path | Mapping[str, str | Sequence[str] | None]
"""A table, or the new label or labels by old label: None, "" or an empty list drops a label."""
BUILT_IN_MAPS = {"ucs": "audioset_to_ucs.csv"}
"""Tables beside this module, by name. ucs: the CatID of the Universal Category System 8.2.1 for labels of AudioSet."""
_MAX_LABELS = 1_000_000


@dataclass(frozen=True)
class LabelMap:
    """The new labels of old ones, and the labels above them."""

    source: str
    new_names: Mapping[str, tuple[str, ...]]
    """By old label; an empty tuple drops it. Other labels stay."""
    hierarchy: Hierarchy
    is_built_in: bool = False
    """Whether it is one of `BUILT_IN_MAPS`, which have more labels than most manifests."""

    def __call__(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The new labels, each once, followed by the labels above them."""
        return self.hierarchy.with_parents(name for label in labels for name in self.new_names.get(label, (label,)))

    def with_hierarchy(self, other: Hierarchy) -> "LabelMap":
        """The map with the parents of another hierarchy, too.

        Raises
        ------
        DataError
            If both together put a label above itself.
        """
        pairs = [*_pairs(self.hierarchy), *_pairs(other)]
        hierarchy = Hierarchy.of_pairs(pairs, Path(self.source), self.hierarchy.unlabelled | other.unlabelled)
        return replace(self, hierarchy=hierarchy)


def _pairs(hierarchy: Hierarchy) -> Iterator[LabelPair]:
    for child, parents in hierarchy.parents.items():
        yield from ((child, parent) for parent in parents)


def as_label_map(changes: LabelChanges, *, separator: str | None = None) -> LabelMap:
    """A table that `read_label_map` reads, one of `BUILT_IN_MAPS`, or a mapping, as a map of labels.

    Raises
    ------
    DataError
        If the table can't be read, or a name is not a text that can be a label.
    """
    if not isinstance(changes, Mapping):
        if str(changes) not in BUILT_IN_MAPS or Path(changes).exists():
            return read_label_map(changes, separator=separator)
        with as_file(files("spectag.data").joinpath(BUILT_IN_MAPS[str(changes)])) as path:
            return replace(read_label_map(path), source=str(changes), is_built_in=True)
    new_names: dict[str, tuple[str, ...]] = {}
    for old, new in changes.items():
        names = (new,) if isinstance(new, str) else tuple(new or ())
        for name in (old, *names):
            if not isinstance(name, str):
                raise DataError(f"the map of labels contains {name!r}; expected names of labels, as texts")
            check_label_name(name, "the map of labels")
        new_names[old] = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    return LabelMap("the map of labels", new_names, Hierarchy({}))


def names_for(labels: Iterable[str], changes: LabelChanges, *, separator: str | None = None) -> LabelMap:
    """New names for labels, as `as_label_map` reads them.

    Raises
    ------
    DataError
        If none of the labels gets another name, too.
    """
    names, labels = as_label_map(changes, separator=separator), sorted(set(labels))
    if labels and all(names((label,)) == (label,) for label in labels):
        raise DataError(f"{names.source}: no new name for any of the labels, which are {abbreviate(labels)}")
    return names


def read_label_map(path: str | Path, *, separator: str | None = None) -> LabelMap:
    """Read a map of labels.

    Parameters
    ----------
    path : path
        A CSV with the columns old and new and, optionally, parent. A label without a new name is dropped, unless it has
        a parent: then it stays. Several names in a field are separated as labels are in manifests. Labels that are not
        in the table stay.
    separator : str, optional
        What separates several names, instead of a comma.

    Raises
    ------
    DataError
        If the file can't be read, a column is missing, a label is listed twice, or a label is above itself.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file{similar_file(path)}")
    text = read_text(path)
    table = open_table(path, text, find_delimiter(text))
    old, new, parent = table.position("old"), table.position("new"), table.position("parent", "parents")
    if old is None or (new is None and parent is None):
        raise DataError(
            f"{path}: the columns are {abbreviate(table.columns)}; expected old and new, such as Hound,Dog, and "
            "optionally parent"
        )
    split = LabelSplitter(separator)
    new_names: dict[str, tuple[str, ...]] = {}
    lines: dict[str, int] = {}
    pairs: list[LabelPair] = []
    for line, fields in table.records:
        where, label = f"{path}, line {line}", fields[old]
        if not label:
            raise DataError(f"{where}: old is empty; expected a label of the manifest")
        if label in lines:
            raise DataError(
                f"{where}: {label!r} is also in line {lines[label]}; write it once, with all its new labels in one "
                "field, separated by commas"
            )
        lines[label] = line
        names = () if new is None else _names(split, fields[new], where)
        parents = () if parent is None else _names(split, fields[parent], where)
        new_names[label] = names or ((label,) if parents else ())
        pairs += [(name, above) for name in new_names[label] for above in parents if name != above]
        for name in (label, *names, *parents):
            check_label_name(name, where)
        if len(lines) > _MAX_LABELS:
            raise DataError(f"{where}: more than {_MAX_LABELS:,} labels; is this the right file?")
    if not lines:
        raise DataError(f"{path}: the table is empty; expected a line for each label to change")
    return LabelMap(str(path), new_names, Hierarchy.of_pairs(pairs, path))


def _names(split: LabelSplitter, field: str, where: str) -> tuple[str, ...]:
    try:
        return split(field)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
