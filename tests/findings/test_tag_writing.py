"""Labels in copies of recordings and in sidecars, read by mutagen, soundfile and an XML parser."""

import os
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

import spectag
from spectag.cli import main
from spectag.data.detections import DetectedSound
from spectag.errors import ConfigError, MissingExtraError
from spectag.findings.tag_writing import write_tags

mutagen = pytest.importorskip("mutagen")

RATE = 48_000
LABELS = ("Türklingel, laut", '=1+1 <b>&"')


def write_recording(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).uniform(-0.5, 0.5, (RATE, 2))
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, samples, RATE, **options)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


def sounds_of(path):
    events = ((0.5, 1.0, LABELS[0], 0.9), (0.0, 0.25, LABELS[1], 0.75), (0.0, 0.5, LABELS[0], 0.25))
    return [DetectedSound(path, path.name, *event) for event in events]


def keywords_of(path):
    tags = mutagen.File(path).tags
    return tuple(tags["TXXX:KEYWORDS"].text if "TXXX:KEYWORDS" in tags else tags["KEYWORDS"])


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".opus", ".mp3", ".aiff"])
def test_a_copy_has_the_labels_and_the_same_samples_name_and_time(tmp_path, suffix):
    source = write_recording(tmp_path / "site" / f"Grüße 1{suffix}")
    before = source.read_bytes()
    result = write_tags([*sounds_of(source), *sounds_of(write_recording(tmp_path / "b.wav"))], tmp_path / "out")
    copy = tmp_path / "out" / "site" / source.name
    assert result.files == (copy, tmp_path / "out" / "b.wav")
    assert source.read_bytes() == before
    np.testing.assert_array_equal(*(soundfile.read(path, dtype="int32")[0] for path in (source, copy)))
    assert copy.stat().st_mtime == 1_700_000_000
    assert keywords_of(copy) == LABELS


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_metadata_that_a_recording_has_stay(tmp_path, suffix):
    source = write_recording(tmp_path / f"a{suffix}")
    file = mutagen.File(source, easy=True)
    if file.tags is None:
        file.add_tags()
    file["title"], file["artist"] = "Dawn", ["A", "B"]
    file.save()
    if suffix != ".mp3":
        file["comment"], file["keywords"] = ["by hand", "spectag: old"], ["park"]
        file.save()
    write_tags(sounds_of(source), tmp_path / "out")
    copy = mutagen.File(tmp_path / "out" / source.name, easy=True)
    assert (copy["title"], list(copy["artist"])) == (["Dawn"], ["A", "B"])
    comment = 'spectag: Türklingel, laut (2, up to 0.90), =1+1 <b>&" (1, up to 0.75)'
    if suffix == ".mp3":
        assert mutagen.File(tmp_path / "out" / source.name).tags["COMM:spectag:eng"].text == [comment]
    else:
        assert list(copy["comment"]) == ["by hand", comment]
        assert list(copy["keywords"]) == ["park", *LABELS]


def test_m4a_gets_fields_of_its_own(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=RATE)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = RATE
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    write_tags(sounds_of(path), tmp_path / "out")
    tags = mutagen.File(tmp_path / "out" / "a.m4a").tags
    assert [value.decode() for value in tags["----:com.apple.iTunes:KEYWORDS"]] == list(LABELS)


def test_a_sidecar_has_the_labels_and_markers(tmp_path):
    source = write_recording(tmp_path / "a.wav")
    result = write_tags(sounds_of(source), tmp_path, sidecars=True)
    assert result.files == (tmp_path / "a.xmp",)
    root = ElementTree.parse(tmp_path / "a.xmp").getroot()
    names = {
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
        "dc": "http://purl.org/dc/elements/1.1/",
        "dm": "http://ns.adobe.com/xmp/1.0/DynamicMedia/",
    }
    assert [item.text for item in root.findall(".//dc:subject//rdf:li", names)] == list(LABELS)
    assert root.find(".//dm:frameRate", names).text == "f48000"
    starts, durations, labels = (
        [item.text for item in root.findall(f".//dm:markers//dm:{name}", names)]
        for name in ("startTime", "duration", "name")
    )
    assert starts == ["0", "0", "24000"]
    assert durations == ["12000", "24000", "24000"]
    assert labels == [LABELS[1], LABELS[0], LABELS[0]]


def test_recordings_with_one_stem_have_different_sidecars(tmp_path):
    sources = [write_recording(tmp_path / name) for name in ("a.wav", "a.flac")]
    result = write_tags([sound for path in sources for sound in sounds_of(path)], tmp_path / "out", sidecars=True)
    assert [path.name for path in result.files] == ["a.xmp", "a.flac.xmp"]


def test_no_recording_and_no_sidecar_of_another_program_is_replaced(tmp_path):
    source = write_recording(tmp_path / "a.wav")
    before = source.read_bytes()
    with pytest.raises(ConfigError, match=r"a\.wav is a recording itself"):
        write_tags(sounds_of(source), tmp_path, overwrite=True)
    (tmp_path / "a.xmp").write_text("<x:xmpmeta/>")
    result = write_tags(sounds_of(source), tmp_path, sidecars=True, overwrite=True)
    assert (result.files, result.kept) == ((), (tmp_path / "a.xmp",))
    assert (tmp_path / "a.xmp").read_text() == "<x:xmpmeta/>"
    assert source.read_bytes() == before


def test_earlier_copies_are_kept_or_replaced(tmp_path):
    source = write_recording(tmp_path / "a.flac")
    first = write_tags(sounds_of(source)[1:2], tmp_path / "out")
    assert keywords_of(first.files[0]) == LABELS[1:]
    again = write_tags(sounds_of(source), tmp_path / "out")
    assert (again.files, again.kept) == ((), first.files)
    assert write_tags(sounds_of(source), tmp_path / "out", overwrite=True).files == first.files
    assert keywords_of(first.files[0]) == LABELS


def test_the_command_reads_tables_and_names_what_it_skips(tmp_path, capsys):
    write_recording(tmp_path / "a.wav")
    write_recording(tmp_path / "b.caf")
    (tmp_path / "broken.flac").write_bytes(write_recording(tmp_path / "b.flac").read_bytes()[:40])
    rows = "a.wav,0,0.5,Dog,0.9\na.wav,0.5,1,Cat,0.1\nb.caf,0,1,Dog,0.9\nbroken.flac,0,1,Dog,0.9\nb.flac,0,1,Cat,0.2\n"
    (tmp_path / "tags.csv").write_text(f"file,start,end,label,probability\n{rows}")
    assert main(["write-tags", str(tmp_path / "tags.csv"), "-o", str(tmp_path / "out"), "--min", "0.5"]) == 3
    out, err = capsys.readouterr()
    assert "1 copy written" in out
    assert "b.caf: tags cannot be written into .caf files; write sidecars" in err
    assert "broken.flac" in err
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["a.wav"]
    assert b"Cat" not in (tmp_path / "out" / "a.wav").read_bytes()[44 + 4 * RATE :]


def test_labels_get_categories_of_ucs_or_the_names_of_a_table(tmp_path, capsys):
    write_recording(tmp_path / "a.flac")
    rows = "a.flac,0,0.5,Bark,0.7\na.flac,0,0.5,Dog,0.9\na.flac,0.5,1,Techno,0.6\n"
    table, changes = tmp_path / "tags.csv", tmp_path / "names.csv"
    table.write_text(f"file,start,end,label,probability\n{rows}")
    changes.write_text("old;new\nTechno;\nDog;Hund\n", encoding="utf-8-sig")
    assert main(["write-tags", str(table), "-o", str(tmp_path / "ucs"), "--names", "ucs"]) == 0
    assert keywords_of(tmp_path / "ucs/a.flac") == ("ANMLDog", "Techno")  # Techno has no category
    assert "ANMLDog (1, up to 0.90)" in mutagen.File(tmp_path / "ucs/a.flac").tags["COMMENT"][0]
    assert main(["write-tags", str(table), "-o", str(tmp_path / "own"), "--names", str(changes)]) == 0
    assert keywords_of(tmp_path / "own/a.flac") == ("Hund", "Bark")
    changes.write_text("old,new\nHen,Huhn\n")
    assert main(["write-tags", str(table), "-o", str(tmp_path / "none"), "--names", str(changes)]) == 1
    assert "no new name for any of the labels, which are Bark, Dog, Techno" in capsys.readouterr().err


def test_a_missing_package_is_named_before_any_work(tmp_path, monkeypatch):
    source = write_recording(tmp_path / "a.flac")
    monkeypatch.setitem(__import__("sys").modules, "mutagen", None)
    with pytest.raises(MissingExtraError, match=r"spectag\[metadata\]"):
        spectag.write_tags(sounds_of(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()
