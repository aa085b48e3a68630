"""Relabelling manifests: the new table is read again, and compared with what the map says."""

import csv
import json
import re
from importlib.resources import files

import numpy as np
import pytest

from spectag.audio.files import write_audio
from spectag.cli import main
from spectag.data.detections import read_detections
from spectag.data.label_map import BUILT_IN_MAPS
from spectag.data.labels import audioset_labels
from spectag.data.manifest import read_manifest
from spectag.data.relabelling import relabel
from spectag.errors import DataError

MAP = {"Hound": "Dog", "Puppy": "Dog", "Noise": None}


def write_sounds(folder, names="abcd"):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_audio(folder / f"{name}.wav", np.full(8000, 0.1, np.float32), 8000)


def labels_of(path, **options):
    return [(clip.path.name, set(clip.labels)) for clip in read_manifest(path, **options).clips]


@pytest.fixture
def sounds(tmp_path):
    write_sounds(tmp_path / "sounds")
    return tmp_path / "sounds"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


EXPECTED = [("a.wav", {"Dog", "Cat"}), ("b.wav", {"Dog"}), ("c.wav", set()), ("d.wav", {"Cat"})]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ('fname,labels\na.wav,"Hound,Puppy,Cat"\nb.wav,Puppy\nc.wav,Noise\nd.wav,Cat\n', {}),
        (
            "fname;labels\na.wav;Hound;Cat\nb.wav;Puppy\nc.wav;Noise\nd.wav;Cat\n".replace(
                "a.wav;Hound;Cat", 'a.wav;"Hound;Cat"'
            ),
            {"label_separator": ";"},
        ),
        ("fname|labels\na.wav|Hound/Puppy/Cat\nb.wav|Puppy\nc.wav|Noise\nd.wav|Cat\n", {"label_separator": "/"}),
        ("fname\tlabels\na.wav\t['Hound', 'Cat']\nb.wav\t['Puppy']\nc.wav\t['Noise']\nd.wav\t['Cat']\n", {}),
        (
            "fname,Hound,Puppy,Cat,Noise\na.wav,1,0,1,0\nb.wav,0,1,0,0\nc.wav,0,0,0,1\nd.wav,0,0,1,0\n",
            {},
        ),
        (
            "primary_label,secondary_labels,filename\nHound,['Cat'],a.wav\nPuppy,[],b.wav\nNoise,[],c.wav\nCat,[],d.wav\n",
            {},
        ),
    ],
    ids=["commas", "semicolons", "slashes", "lists", "multi-hot", "secondary"],
)
def test_merged_and_dropped_labels_are_read_again_from_the_same_format(sounds, text, options):
    table = write(sounds / "labels.csv", text)
    result = relabel(table, MAP, sounds / "new.csv", **options)
    assert labels_of(sounds / "new.csv", **options) == EXPECTED
    assert result.after == {"Cat": 2, "Dog": 2}
    assert result.without_labels == ("c.wav",)
    assert result.dropped == ("Noise",)


def test_a_table_keeps_its_other_columns_and_the_order_of_its_rows(sounds):
    rows = [["a.wav", "3", "Hound", "=1+1", "Grüße, <b>&"], ["b.wav", "1", "", "x", "two\nlines"]]
    table = sounds / "labels.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["fname", "fold", "labels", "site", "note"], *rows])
    relabel(table, MAP, sounds / "new.csv")
    with (sounds / "new.csv").open(newline="", encoding="utf-8") as file:
        header, first, second = csv.reader(file)
    assert header == ["fname", "fold", "labels", "site", "note"]
    assert first == ["a.wav", "3", "Dog", "'=1+1", "Grüße, <b>&"]  # no program runs the formula
    assert second == rows[1]


def test_labels_get_all_labels_above_them(sounds):
    table = write(sounds / "labels.csv", "fname,labels\na.wav,Hound\nb.wav,Cat\nc.wav,Rain\n")
    changes = write(sounds / "map.csv", "old,new,parent\nHound,Dog,Pet\nCat,,Pet\nPet,,Animal\n")
    relabel(table, changes, sounds / "new.csv")
    assert labels_of(sounds / "new.csv") == [
        ("a.wav", {"Dog", "Pet", "Animal"}),
        ("b.wav", {"Cat", "Pet", "Animal"}),
        ("c.wav", {"Rain"}),
    ]


def test_an_unknown_label_makes_the_labels_above_it_unknown_unless_they_are_true(sounds):
    text = "fname,Dog,Cat,Rain\na.wav,,0,1\nb.wav,,1,0\nc.wav,0,0,0\n"
    table = write(sounds / "labels.csv", text)
    hierarchy = write(sounds / "tree.csv", "child,parent\nDog,Animal\nCat,Animal\n")
    relabel(table, output=sounds / "new.csv", hierarchy=hierarchy)
    clips = read_manifest(sounds / "new.csv").clips
    assert [(set(clip.labels), set(clip.unknown)) for clip in clips] == [
        ({"Rain"}, {"Dog", "Animal"}),
        ({"Cat", "Animal"}, {"Dog"}),
        (set(), set()),
    ]
    listed = write(sounds / "listed.csv", "fname,labels,unknown\na.wav,Cat,Dog\nb.wav,,Dog\nc.wav,Cat,\n")
    relabel(listed, output=sounds / "new.csv", hierarchy=hierarchy)
    clips = read_manifest(sounds / "new.csv").clips
    assert [set(clip.unknown) for clip in clips] == [{"Dog"}, {"Dog", "Animal"}, set()]


def test_relabelling_agrees_with_a_hierarchy_that_is_applied_while_reading(sounds):
    table = write(sounds / "labels.csv", 'fname,labels\na.wav,"Dog,Rain"\nb.wav,Cat\nc.wav,\nd.wav,Rain\n')
    hierarchy = write(sounds / "tree.csv", 'child,parent\nDog,"Pet,Animal"\nCat,Pet\nPet,Animal\n')
    relabel(table, output=sounds / "new.csv", hierarchy=hierarchy)
    assert labels_of(sounds / "new.csv") == labels_of(table, hierarchy=hierarchy)


def test_a_raven_table_stays_one_and_has_a_row_for_each_label(sounds):
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tAnnotation"
    table = write(sounds / "x.txt", f"{header}\n1\t0\t0.4\ta.wav\t0\tHound\n2\t0.5\t0.9\ta.wav\t0.5\tNoise\n")
    result = relabel(table, {"Hound": ("Dog", "Loud"), "Noise": "Rain"}, sounds / "y.txt")
    lines = (sounds / "y.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == header
    assert [line.split("\t")[-1] for line in lines[1:]] == ["Dog", "Loud", "Rain"]
    assert labels_of(sounds / "y.txt") == [("a.wav", {"Dog", "Loud"}), ("a.wav", {"Rain"})]
    assert result.n_clips == 2


def test_folders_and_label_tracks_become_tables(tmp_path):
    write_sounds(tmp_path / "data" / "Hound", "a")
    write_sounds(tmp_path / "data" / "Cat", "b")
    relabel(tmp_path / "data", MAP, tmp_path / "out" / "new.csv")
    assert sorted(labels_of(tmp_path / "out" / "new.csv")) == [("a.wav", {"Dog"}), ("b.wav", {"Cat"})]
    write(tmp_path / "data" / "Cat" / "b.txt", "0.1\t0.5\tHound\n0.6\t0.9\tCat\n")
    relabel(tmp_path / "data" / "Cat" / "b.txt", MAP, tmp_path / "out" / "track.csv")
    assert labels_of(tmp_path / "out" / "track.csv") == [("b.wav", {"Dog"}), ("b.wav", {"Cat"})]


def test_detections_of_a_window_that_become_one_label_keep_the_most_probable(sounds):
    text = (
        "file,start,end,label,probability\na.wav,0.000,0.500,Hound,0.400000\na.wav,0.000,0.500,Puppy,0.700000\n"
        'a.wav,0.000,0.500,"Rain, heavy",0.600000\na.wav,0.500,1.000,Noise,0.900000\n'
    )
    table = write(sounds / "tags.csv", text)
    result = relabel(table, MAP, sounds / "new.csv")
    assert result.after == {"Dog": 1, "Rain, heavy": 1}
    found = read_detections(sounds / "new.csv").detections
    assert [(sound.span, sound.label, sound.probability) for sound in found] == [
        ((0.0, 0.5), "Dog", 0.7),
        ((0.0, 0.5), "Rain, heavy", 0.6),
    ]


@pytest.mark.parametrize("name", ["Chicken, rooster", 'say "hi", twice', "=1+1", "Grünspecht ♂", "<b>&", "nan", "a'b"])
def test_any_new_name_is_read_again(sounds, name):
    table = write(sounds / "labels.csv", 'fname,labels\na.wav,"Hound,Cat"\nb.wav,Hound\n')
    relabel(table, {"Hound": name}, sounds / "new.csv")
    assert labels_of(sounds / "new.csv") == [("a.wav", {name, "Cat"}), ("b.wav", {name})]


def test_names_of_sounds_lead_to_them_from_another_folder(sounds):
    table = write(sounds / "labels.csv", "fname,labels\na.wav,Hound\nmissing.wav,Cat\n")
    relabel(table, MAP, sounds.parent / "elsewhere" / "new.csv")
    with (sounds.parent / "elsewhere" / "new.csv").open(encoding="utf-8") as file:
        assert [row["fname"] for row in csv.DictReader(file)] == ["../sounds/a.wav", "missing.wav"]


def test_labels_can_be_swapped(sounds):
    table = write(sounds / "labels.csv", "fname,labels\na.wav,Dog\nb.wav,Cat\n")
    relabel(table, {"Dog": "Cat", "Cat": "Dog"}, sounds / "new.csv")
    assert labels_of(sounds / "new.csv") == [("a.wav", {"Cat"}), ("b.wav", {"Dog"})]


def test_an_absent_label_gets_no_labels_above_it(sounds):
    text = "fname,start,end,event_label,present\na.wav,0,0.5,Dog,PRESENT\na.wav,0.5,1,Dog,NOT_PRESENT\n"
    table = write(sounds / "labels.csv", text)
    relabel(table, output=sounds / "new.csv", hierarchy=write(sounds / "tree.csv", "child,parent\nDog,Animal\n"))
    assert labels_of(sounds / "new.csv") == [("a.wav", {"Dog", "Animal"}), ("a.wav", set())]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new,parent\nDog,,Pet\nPet,,Animal\nAnimal,,Dog\n", "circle.*Dog → Pet → Animal → Dog"),
        ("old,new\nDog,Hound\nDog,Cat\n", "line 3: 'Dog' is also in line 2"),
        ("name,to\nDog,Hound\n", "expected old and new"),
        ("old,new\n,Hound\n", "line 2: old is empty"),
        ("old,new\nBird,Owl\n", "none of its labels is in the map"),
        ("old,new\nDgo,Hound\n", "none of its labels is in the map.*; did you mean 'Dog'"),
        ("old,new\nDog,\nCat,\n", "all labels would be dropped"),
        ("old,new\n", "the table is empty"),
        ('old,new\nDog,"a\nb"\n', "line break"),
    ],
)
def test_a_map_with_a_fault_is_refused_and_nothing_is_written(sounds, text, message):
    table = write(sounds / "labels.csv", "fname,labels\na.wav,Dog\nb.wav,Cat\n")
    changes = write(sounds / "map.csv", text)
    with pytest.raises(DataError, match=message):
        relabel(table, changes, sounds / "new.csv")
    assert not (sounds / "new.csv").exists()


def test_the_command_prints_counts_and_names_misspelt_labels(sounds, capsys):
    write(sounds / "labels.csv", "fname,labels\na.wav,Hound\nb.wav,Cat\nc.wav,Noise\n")
    write(sounds / "map.csv", "old,new\nHound,Dog\nNoise,\nCta,Bird\n")
    files = [str(sounds / "labels.csv"), "--map", str(sounds / "map.csv")]
    assert main(["relabel", *files]) == 0
    out, err = capsys.readouterr()
    assert ["Hound", "1", "Dog"] in [line.split() for line in out.splitlines()]
    assert ["Noise", "1", "(dropped)"] in [line.split() for line in out.splitlines()]
    assert "1 clip has no label any more: c.wav" in err
    assert "no clip has 'Cta', which is in the map; did you mean 'Cat'?" in err
    assert main(["relabel", *files, "--json", "-o", str(sounds / "new.csv")]) == 0
    assert json.loads(capsys.readouterr().out)["after"] == {"Cat": 1, "Dog": 1}
    assert main(["relabel", str(sounds / "labels.csv")]) == 2
    assert main(["relabel", *files, "-o", str(sounds / "labels.csv")]) == 2


def test_a_tsv_of_tags_has_no_formulas(sounds):
    table = write(sounds / "tags.tsv", "file\tstart\tend\tlabel\tprobability\na.wav\t0\t1\tHound\t0.9\n")
    relabel(table, {"Hound": "=1+1"}, sounds / "new.tsv")
    assert "\t'=1+1\t" in (sounds / "new.tsv").read_text()
    assert [sound.label for sound in read_detections(sounds / "new.tsv").detections] == ["=1+1"]


def test_labels_of_audioset_become_categories_of_ucs(sounds):
    with files("spectag.data").joinpath(BUILT_IN_MAPS["ucs"]).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["old"] for row in rows} <= set(audioset_labels())
    assert len({row["old"] for row in rows}) == len(rows)
    assert all(re.fullmatch("[A-Z]{2,6}[a-z]{0,5}", row["new"]) for row in rows)
    text = (
        'file,start,end,label,probability\na.wav,0,1,"Chicken, rooster",0.9\na.wav,1,2,Techno,0.8\na.wav,2,3,Bark,0.7\n'
    )
    table = write(sounds / "tags.csv", text)
    result = relabel(table, "ucs", sounds / "new.csv")
    found = read_detections(sounds / "new.csv").detections
    assert [sound.label for sound in found] == ["BIRDFowl", "Techno", "ANMLDog"]
    assert result.unknown == {}
