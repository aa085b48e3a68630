"""Labels below other labels: a parent label, such as Animal, is true where one of its children, such as Dog, is."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from spectag.data.clips import Manifest
from spectag.data.labels import LabelSet, LabelSplitter
from spectag.data.readers.columns import find_delimiter
from spectag.data.readers.delimited_text import abbreviate, open_table
from spectag.data.readers.text_files import read_text, shorten
from spectag.errors import DataError
from spectag.system.file_errors import similar_file
from spectag.system.output import text_problem
from spectag.system.progress import Log
from spectag.system.regular_files import check_regular_file

_MAX_BYTES = 50_000_000
_MAX_PAIRS = 1_000_000
_NOT_ANNOTATED = frozenset({"abstract", "blacklist"})  # AudioSet's nodes that are no labels

LabelPair = tuple[str, str]
"""A child and its parent."""


@dataclass(frozen=True)
class Hierarchy:
    """The parents of labels. A label may have several."""

    parents: Mapping[str, tuple[str, ...]]
    """The direct parents by label."""
    unlabelled: frozenset[str] = frozenset()
    """Nodes that only connect others and are no labels, such as AudioSet's "Human sounds"."""

    @classmethod
    def of_pairs(cls, pairs: Iterable[LabelPair], source: Path, unlabelled: Iterable[str] = ()) -> "Hierarchy":
        """The hierarchy of these pairs of a child and its parent.

        Raises
        ------
        DataError
            If a label is its own ancestor. The message names the labels of the cycle.
        """
        parents: dict[str, dict[str, None]] = {}
        for child, parent in pairs:
            parents.setdefault(child, {})[parent] = None
        try:
            TopologicalSorter(parents).prepare()
        except CycleError as error:
            names = " → ".join(shorten(name) for name in reversed(error.args[1]))
            raise DataError(
                f"{source}: the labels are in a circle, each below the next: {names}; delete one of these lines, so "
                "that no label is above itself"
            ) from None
        return cls({child: tuple(above) for child, above in parents.items()}, frozenset(unlabelled))

    def ancestors(self, label: str) -> tuple[str, ...]:
        """The labels above a label, the nearest first."""
        found = self._ancestors.get(label)
        if found is None:
            above: dict[str, None] = {}
            level = self.parents.get(label, ())
            while level:
                above |= dict.fromkeys(level)
                level = tuple(parent for name in level for parent in self.parents.get(name, ()) if parent not in above)
            found = self._ancestors[label] = tuple(name for name in above if name not in self.unlabelled)
        return found

    @cached_property
    def _ancestors(self) -> dict[str, tuple[str, ...]]:
        return {}

    def with_parents(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The labels, each once, followed by the labels above them."""
        labels = tuple(dict.fromkeys(labels))
        return tuple(dict.fromkeys((*labels, *(parent for label in labels for parent in self.ancestors(label)))))


def read_hierarchy(path: str | Path) -> Hierarchy:
    """Read the parents of labels.

    Parameters
    ----------
    path : path
        A CSV with the columns child and parent, with one or several parents in a field; or AudioSet's ontology.json, a
        list of objects with id, name and child_ids. Its abstract and blacklisted nodes are no labels.

    Raises
    ------
    DataError
        If the file can't be read, has other content, or a label is its own ancestor.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file{similar_file(path)}")
    try:
        check_regular_file(path, max_bytes=_MAX_BYTES)
    except OSError as error:
        raise DataError(f"{path}: can't be read: {error.strerror}") from error
    text = read_text(path)
    if text.lstrip()[:1] == "[":
        return _read_ontology(path, text)
    return Hierarchy.of_pairs(_table_pairs(path, text), path)


def _table_pairs(path: Path, text: str) -> list[LabelPair]:
    table = open_table(path, text, find_delimiter(text))
    child, parent = table.position("child"), table.position("parent", "parents")
    if child is None or parent is None:
        raise DataError(
            f"{path}: the columns are {abbreviate(table.columns)}; expected child and parent, such as Dog,Animal. Or "
            "give AudioSet's ontology.json"
        )
    split, pairs = LabelSplitter(), list[LabelPair]()
    for line, fields in table.records:
        where = f"{path}, line {line}"
        if not fields[child]:
            raise DataError(f"{where}: child is empty; expected a label")
        check_label_name(fields[child], where)
        for name in split(fields[parent]):
            check_label_name(name, where)
            pairs.append((fields[child], name))
        if len(pairs) > _MAX_PAIRS:
            raise DataError(f"{where}: more than {_MAX_PAIRS:,} parents; is this the right file?")
    return pairs


def _read_ontology(path: Path, text: str) -> Hierarchy:
    try:
        nodes = json.loads(text)
        names = {str(node["id"]): _node_name(node) for node in nodes}
        pairs = [(names[child], _node_name(node)) for node in nodes for child in _children(node) if child in names]
        unlabelled = [_node_name(node) for node in nodes if _NOT_ANNOTATED & {*node.get("restrictions", ())}]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(
            f"{path}: not AudioSet's ontology.json; expected a list of objects with id, name and child_ids"
        ) from error
    for name in names.values():
        check_label_name(name, str(path))
    return Hierarchy.of_pairs(pairs, path, unlabelled)


def _node_name(node: Mapping[str, Any]) -> str:
    name = node["name"]
    if not isinstance(name, str):
        raise TypeError(name)
    return name


def _children(node: Mapping[str, Any]) -> Iterator[str]:
    children: Sequence[Any] = node["child_ids"]
    if not isinstance(children, list):
        raise TypeError(children)
    yield from (child for child in children if isinstance(child, str))


def check_label_name(name: str, where: str) -> None:
    """Raise a DataError if a text cannot be a label. The message begins with `where`."""
    if problem := text_problem(name):
        raise DataError(f"{where}: the label {name!r} contains {problem}; remove it")
    if any(character in name for character in "\t\r\n"):
        raise DataError(f"{where}: the label {name!r} contains a tab or a line break; remove it")


def close_upwards(manifest: Manifest, hierarchy: Hierarchy, *, labels: LabelSet | None = None) -> Manifest:
    """The manifest with all labels above those of each clip.

    A label above an unknown label is unknown, if it is not true. Labels that the manifest does not have yet are added
    after its own.

    Parameters
    ----------
    manifest : Manifest
    hierarchy : Hierarchy
    labels : LabelSet, optional
        The allowed labels, such as those of a model: others are not added.

    Raises
    ------
    DataError
        If no label of the manifest has a parent.
    """
    if not any(hierarchy.ancestors(label) for label in manifest.labels):
        raise DataError(
            f"{manifest.source}: no label has a parent in the hierarchy; its labels are "
            f"{abbreviate(manifest.labels.names)}, those of the hierarchy {abbreviate(sorted(hierarchy.parents))}. Use "
            "the names of the manifest"
        )

    def closed(names: tuple[str, ...]) -> tuple[str, ...]:
        found = hierarchy.with_parents(names)
        return found if labels is None else tuple(name for name in found if name in labels)

    clips = tuple(
        clip.with_labels(closed(clip.labels), closed(clip.unknown)) if clip.labels or clip.unknown else clip
        for clip in manifest.clips
    )
    if labels is None:
        names = dict.fromkeys(manifest.labels.names)
        names |= dict.fromkeys(name for clip in clips for name in (*clip.labels, *clip.unknown))
        labels = LabelSet(tuple(names))
    parents = {name: tuple(above for above in hierarchy.ancestors(name) if above in labels) for name in labels}
    return replace(
        manifest, clips=clips, labels=labels, parents={name: above for name, above in parents.items() if above}
    )


def close_as_trained(manifest: Manifest, parents: Mapping[str, tuple[str, ...]], log: Log) -> Manifest:
    """The manifest with the labels above those of each clip, as a model was trained, unless it has a hierarchy.

    Parameters
    ----------
    manifest : Manifest
    parents : mapping
        The labels above those of the model.
    log : Log
        Called with the number of clips that get further labels.
    """
    if manifest.parents or not any(label in parents for label in manifest.labels):
        return manifest
    closed = close_upwards(manifest, Hierarchy(parents))
    n_clips = sum(set(new.labels) > set(old.labels) for new, old in zip(closed.clips, manifest.clips, strict=True))
    if n_clips:
        log(
            f"the labels above others are added to {n_clips:,} clip{'s' * (n_clips != 1)}, as in the training of the "
            "model"
        )
    return closed
