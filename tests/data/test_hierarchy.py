"""Labels above others."""

import json

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectag.audio.files import write_audio
from spectag.data.hierarchy import Hierarchy, close_as_trained, close_upwards, read_hierarchy
from spectag.data.labels import LabelSet
from spectag.data.manifest import read_manifest
from spectag.errors import DataError

ONTOLOGY = [  # in the form of AudioSet's ontology.json
    {"id": "/m/0dgw9r", "name": "Human sounds", "child_ids": ["/m/09l8g"], "restrictions": ["abstract"]},
    {"id": "/m/09l8g", "name": "Human voice", "child_ids": ["/m/015lz1", "/m/gone"], "restrictions": []},
    {"id": "/m/015lz1", "name": "Singing", "child_ids": ["/t/dd00003"], "restrictions": []},
    {"id": "/t/dd00003", "name": "Male singing", "child_ids": [], "restrictions": []},
    {"id": "/m/04rlf", "name": "Music", "child_ids": ["/m/015lz1"], "restrictions": []},
]


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(10, 19)) | st.tuples(st.integers(10, 14), st.integers(15, 19)))
)
def test_ancestors_are_those_of_networkx_and_closing_twice_changes_nothing(edges):
    pairs = [(str(child), str(parent)) for child, parent in edges]
    hierarchy, graph = Hierarchy.of_pairs(pairs, "table"), nx.DiGraph(pairs)
    for label in map(str, range(20)):
        expected = nx.descendants(graph, label) if label in graph else set()
        assert set(hierarchy.ancestors(label)) == expected
        closed = hierarchy.with_parents([label])
        assert hierarchy.with_parents(closed) == closed


def test_audiosets_ontology_is_read_without_its_abstract_nodes(tmp_path):
    path = tmp_path / "ontology.json"
    path.write_text(json.dumps(ONTOLOGY))
    hierarchy = read_hierarchy(path)
    assert hierarchy.ancestors("Male singing") == ("Singing", "Human voice", "Music")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "child,parent\nDog,Dog\n", "circle.*Dog → Dog"),
        ("a.csv", "child,parent\nDog,Pet\nHen,Dog\nPet,Hen\n", "circle.*(Dog → Pet|Pet → Hen → Dog)"),
        ("a.csv", "label,above\nDog,Pet\n", "expected child and parent"),
        ("a.csv", "child,parent\n,Pet\n", "line 2: child is empty"),
        ("a.json", "[[[[[[", "not AudioSet's ontology.json"),
        ("a.json", '[{"id": "1", "name": ["x"], "child_ids": []}]', "not AudioSet's ontology.json"),
        ("a.json", '[{"id": "1", "name": "x", "child_ids": "1"}]', "not AudioSet's ontology.json"),
        ("a.json", '[{"id": "1", "name": "x", "child_ids": ["1"]}]', "circle"),
        ("a.json", "[" * 100_000, "not AudioSet's ontology.json"),
        ("a.json", '[{"id": "1", "name": "x\\u0007", "child_ids": []}]', "control character"),
    ],
)
def test_a_damaged_hierarchy_is_refused_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_hierarchy(tmp_path / name)


def test_labels_above_are_added_only_if_they_are_allowed(tmp_path):
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav", np.full(800, 0.1, np.float32), 8000)
    (tmp_path / "labels.csv").write_text("fname,labels\na.wav,Dog\nb.wav,Rain\n")
    (tmp_path / "tree.csv").write_text("child,parent\nDog,Pet\nPet,Animal\n")
    manifest, hierarchy = read_manifest(tmp_path / "labels.csv"), read_hierarchy(tmp_path / "tree.csv")
    closed = close_upwards(manifest, hierarchy)
    assert closed.labels.names == ("Dog", "Rain", "Pet", "Animal")
    assert closed.multi_hot().tolist() == [[True, False, True, True], [False, True, False, False]]
    allowed = LabelSet(("Animal", "Dog", "Rain"))
    assert close_upwards(manifest, hierarchy, labels=allowed).clips[0].labels == ("Dog", "Animal")
    with pytest.raises(DataError, match="no label has a parent in the hierarchy"):
        close_upwards(manifest, Hierarchy({"Cat": ("Pet",)}))


def test_labels_above_are_added_as_in_training_unless_a_hierarchy_is_given(tmp_path):
    for name in ("a", "b"):
        write_audio(tmp_path / f"{name}.wav", np.full(800, 0.1, np.float32), 8000)
    (tmp_path / "labels.csv").write_text("fname,labels\na.wav,Dog\nb.wav,Rain\n")
    manifest, messages = read_manifest(tmp_path / "labels.csv"), list[str]()
    closed = close_upwards(manifest, Hierarchy({"Dog": ("Pet",), "Pet": ("Animal",), "Cat": ("Pet",)}))
    assert closed.parents == {"Dog": ("Pet", "Animal"), "Pet": ("Animal",)}
    again = close_as_trained(manifest, closed.parents, messages.append)
    assert (again.clips, again.labels) == (closed.clips, closed.labels)
    assert messages == ["the labels above others are added to 1 clip, as in the training of the model"]
    assert close_as_trained(again, {"Rain": ("Weather",)}, messages.append) is again
    assert close_as_trained(manifest, {"Hen": ("Bird",)}, messages.append) is manifest
