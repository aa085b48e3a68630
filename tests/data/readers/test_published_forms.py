"""Tables of data sets and programs, in the bytes in which they are published."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spectag.data.clips import Manifest
from spectag.data.manifest import read_manifest
from spectag.errors import DataError, DataWarning


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sound(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(1000 * seconds), np.float32), 1000)


def tags(manifest: Manifest) -> list[tuple[str, tuple[str, ...]]]:
    return [(clip.path.name, clip.labels) for clip in manifest.clips]


def times(manifest: Manifest) -> list[tuple[float, float | None]]:
    return [(clip.start_seconds, clip.end_seconds) for clip in manifest.clips]


# ---------------------------------------------------------------------------------------------- data sets

URBAN_SOUND = (
    "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    "100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing\n"
    "102106-3-0-0.wav,102106,3.139875,7.139875,2,6,3,dog_bark\n"
)


def test_urbansound8k(tmp_path):
    table = write(tmp_path / "UrbanSound8K/metadata/UrbanSound8K.csv", URBAN_SOUND)
    audio = tmp_path / "UrbanSound8K/audio"
    touch(audio, "fold5/100032-3-0-0.wav", "fold5/100263-2-0-117.wav", "fold6/102106-3-0-0.wav")
    manifest = read_manifest(table)
    assert manifest.labels.names == ("children_playing", "dog_bark")
    assert times(manifest) == [(0.0, None)] * 3  # start and end are times in the original
    assert manifest.folds == ("5", "5", "6")
    assert manifest.groups == ("100032", "100263", "102106")
    assert manifest.clips[2].path == audio / "fold6/102106-3-0-0.wav"


def test_files_that_are_the_excerpts_themselves_are_recognised_by_their_length(tmp_path):
    sound(tmp_path / "a.wav", 4)
    sound(tmp_path / "b.wav", 2)
    text = "fname,start,end,class\na.wav,58.5,62.5,dog\nb.wav,0.0,2.0,cat\n"
    assert times(read_manifest(write(tmp_path / "excerpts.csv", text))) == [(0.0, None)] * 2
    sound(tmp_path / "a.wav", 70)
    assert times(read_manifest(write(tmp_path / "events.csv", text))) == [(58.5, 62.5), (0.0, 2.0)]


def test_birdclef_2021(tmp_path):
    table = write(
        tmp_path / "train_metadata.csv",
        "primary_label,secondary_labels,type,latitude,longitude,scientific_name,common_name,author,date,filename,"
        "license,rating,time,url\n"
        "acafly,['amegfi'],\"['begging call', 'call', 'juvenile']\",35.3860,-84.1250,Empidonax virescens,"
        "Acadian Flycatcher,Mike Nelson,2012-08-12,XC109605.ogg,Creative Commons Attribution-NonCommercial-ShareAlike "
        "3.0,2.5,09:30,https://www.xeno-canto.org/109605\n"
        "acafly,[],['call'],9.1334,-79.6501,Empidonax virescens,Acadian Flycatcher,Allen T. Chartier,2000-12-26,"
        "XC11209.ogg,Creative Commons Attribution-ShareAlike 3.0,3.0,?,https://www.xeno-canto.org/11209\n",
    )
    touch(tmp_path / "train_short_audio/acafly", "XC109605.ogg", "XC11209.ogg")
    assert tags(read_manifest(table)) == [("XC109605.ogg", ("acafly", "amegfi")), ("XC11209.ogg", ("acafly",))]


@pytest.mark.parametrize("nothing", ["[]", "['']"])
def test_birdclef_since_2022(tmp_path, nothing):
    columns = "primary_label,secondary_labels,type,filename,collection,rating,url,latitude,longitude,scientific_name"
    table = write(
        tmp_path / "train.csv",
        f"{columns},common_name,author,license\n"
        f"1139490,{nothing},[''],1139490/CSA36385.ogg,CSA,0.0,http://colecciones.humboldt.org.co/,7.3206,-73.7128,"
        "Ragoniella pulchella,Ragoniella pulchella,Fabio A. Sarria-S,cc-by-nc-sa 4.0\n"
        "greegr,\"['bobfly1', 'compau']\",\"['call', 'song']\",greegr/XC1.ogg,XC,4.5,https://xeno-canto.org/1,7.0,-73.0,"
        "Ardea alba,Great Egret,A. Smith,cc-by-nc-sa 4.0\n",
    )
    touch(tmp_path, "train_audio/1139490/CSA36385.ogg", "train_audio/greegr/XC1.ogg")
    assert tags(read_manifest(table)) == [
        ("CSA36385.ogg", ("1139490",)),
        ("XC1.ogg", ("greegr", "bobfly1", "compau")),
    ]


def test_desed_strong_labels_with_files_without_events(tmp_path):
    table = write(
        tmp_path / "dataset/metadata/validation/validation.tsv",
        "filename\tonset\toffset\tevent_label\n"
        "Y00pbt6aJV8Y_350.000_360.000.wav\t0.000\t9.971\tVacuum_cleaner\n"
        "Y00pK0GMmE9s_70.000_80.000.wav\t1.2\t3.4\tSpeech\n"
        "Y00pK0GMmE9s_70.000_80.000.wav\t3.0\t5.0\tDog\n"
        "Y-0abcdefghi_0.000_10.000.wav\t\t\t\n"
        "Y-1abcdefghi_0.000_10.000.wav\n",
    )
    audio = tmp_path / "dataset/audio/validation/validation"
    for name in ("Y00pbt6aJV8Y_350.000_360.000", "Y00pK0GMmE9s_70.000_80.000", "Y-0abcdefghi_0.000_10.000"):
        touch(audio, f"{name}.wav")
        touch(tmp_path / "dataset/audio/validation/validation_16k", f"{name}.wav")
    touch(audio, "Y-1abcdefghi_0.000_10.000.wav")
    manifest = read_manifest(table)
    assert [(clip.labels, clip.start_seconds, clip.end_seconds) for clip in manifest.clips] == [
        (("Vacuum_cleaner",), 0.0, 9.971),
        (("Speech", "Dog"), 1.2, 3.4),
        (("Dog", "Speech"), 3.0, 5.0),
        ((), 0.0, None),
        ((), 0.0, None),
    ]
    assert {clip.path.parent for clip in manifest.clips} == {audio}


def test_desed_weak_labels(tmp_path):
    table = write(
        tmp_path / "metadata/train/weak.tsv",
        "filename\tevent_labels\nY-BJNMHMZDcU_50.000_60.000.wav\tAlarm_bell_ringing,Speech\n",
    )
    touch(tmp_path / "audio/train/weak", "Y-BJNMHMZDcU_50.000_60.000.wav")
    assert tags(read_manifest(table)) == [("Y-BJNMHMZDcU_50.000_60.000.wav", ("Alarm_bell_ringing", "Speech"))]


AUDIOSET_WEAK = (
    "# Segments csv created Sun Mar  5 10:54:25 2017\n"
    "# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
    '--4gqARaEJE, 30.000, 40.000, "/m/09x0r,/m/05zppz"\n'
    '-0abcdefghi, 0.000, 10.000, "/m/068hy"\n'
    'Y0abcdefghi, 530.000, 540.000, "/m/04rlf"\n'
)


@pytest.mark.parametrize(
    "name",
    ["{id}.wav", "Y{id}.wav", "{id}_{start}.000_{end}.000.wav", "Y{id}_{start}.000_{end}.000.flac",
     "{id}_{start}000_{end}000.wav", "{id}_{start}_{end}.m4a"],
)  # fmt: skip
def test_audioset_weak_labels(tmp_path, name):
    table = write(tmp_path / "eval_segments.csv", AUDIOSET_WEAK)
    for video, start, end in (("--4gqARaEJE", 30, 40), ("-0abcdefghi", 0, 10), ("Y0abcdefghi", 530, 540)):
        touch(tmp_path / "eval", name.format(id=video, start=start, end=end).replace("_0000_", "_0_"))
    manifest = read_manifest(table)
    assert [clip.labels for clip in manifest.clips] == [("/m/09x0r", "/m/05zppz"), ("/m/068hy",), ("/m/04rlf",)]
    assert times(manifest) == [(0.0, None)] * 3  # the files are the segments
    assert [clip.line for clip in manifest.clips] == [4, 5, 6]


def test_audioset_with_whole_videos_uses_the_times(tmp_path):
    table = write(tmp_path / "eval_segments.csv", AUDIOSET_WEAK)
    for video in ("--4gqARaEJE", "-0abcdefghi", "Y0abcdefghi"):
        sound(tmp_path / f"{video}.wav", 600)
    assert times(read_manifest(table)) == [(30.0, 40.0), (0.0, 10.0), (530.0, 540.0)]


def test_audioset_strong_labels(tmp_path):
    touch(tmp_path, "wav/b0RFKhbpFJA_30000.wav", "wav/Y--4gqARaEJE_0.000_10.000.wav")
    table = write(
        tmp_path / "audioset_train_strong.tsv",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "b0RFKhbpFJA_30000\t0.000\t10.000\t/m/03m9d0z\n"
        "b0RFKhbpFJA_30000\t4.753\t5.720\t/m/05zppz\n"
        "--4gqARaEJE_0\t0.240\t0.964\t/m/068hy\n",
    )
    manifest = read_manifest(table)
    assert times(manifest) == [(0.0, 10.0), (4.753, 5.72), (0.24, 0.964)]
    assert [set(clip.labels) for clip in manifest.clips] == [
        {"/m/03m9d0z", "/m/05zppz"}, {"/m/03m9d0z", "/m/05zppz"}, {"/m/068hy"},
    ]  # fmt: skip


def test_audioset_segments_with_absent_labels(tmp_path):
    touch(tmp_path, "b0RFKhbpFJA_30000.wav")
    table = write(
        tmp_path / "audioset_eval_strong_framed_posneg.tsv",
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\tpresent\n"
        "b0RFKhbpFJA_30000\t0.000\t0.960\t/m/03m9d0z\tPRESENT\n"
        "b0RFKhbpFJA_30000\t0.000\t0.960\t/m/05zppz\tNOT_PRESENT\n",
    )
    assert [clip.labels for clip in read_manifest(table).clips] == [("/m/03m9d0z",)]


@pytest.mark.parametrize(("yes", "no"), [("PRESENT", "NOT_PRESENT"), ("yes", "No"), ("1", "0"), ("True", "False")])
def test_an_absent_label_is_not_a_label(tmp_path, yes, no):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "m.csv", f"fname,label,present\na.wav,Dog,{yes}\nb.wav,Dog,{no}\n")
    assert tags(read_manifest(table)) == [("a.wav", ("Dog",)), ("b.wav", ())]
    table.write_text("fname,label,present\na.wav,Dog,perhaps\n")
    with pytest.raises(DataError, match="line 2: present is 'perhaps'; expected PRESENT or NOT_PRESENT"):
        read_manifest(table)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "1\t2\tDog\n3\t4\t\n"),
        ("a.txt", "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t1\t2\tDog\n2\t3\t4\t\n"),
        ("m.csv", "filename,start,end,species\na.wav,1,2,Dog\na.wav,3,4,\n"),
        ("id.csv", "IN FILE,OFFSET,DURATION,MANUAL ID\na.wav,1,1,Dog\na.wav,3,1,\n"),  # Kaleidoscope
    ],
)
def test_annotations_without_a_label_are_pointed_out(tmp_path, name, content):
    touch(tmp_path, "a.wav")
    with pytest.warns(DataWarning, match=r"1 annotations have no label, such as that in .*, line [23]\. They become"):
        manifest = read_manifest(write(tmp_path / name, content))
    assert [clip.labels for clip in manifest.clips] == [("Dog",), ()]


def test_fsdkaggle2018_in_the_competition_and_after_it(tmp_path):
    table = write(
        tmp_path / "train.csv", "fname,label,manually_verified\n00044347.wav,Hi-hat,0\n001ca53d.wav,Cello,1\n"
    )
    touch(tmp_path / "audio_train", "00044347.wav", "001ca53d.wav")
    assert tags(read_manifest(table)) == [("00044347.wav", ("Hi-hat",)), ("001ca53d.wav", ("Cello",))]
    later = write(
        tmp_path / "FSDKaggle2018.meta/test_post_competition_scoring_clips.csv",
        "fname,label,usage,freesound_id,license\n"
        "00326aa9.wav,Oboe,Private,355125,Attribution\n0038a046.wav,Bass_drum,Public,90621,Creative Commons 0\n",
    )
    touch(tmp_path / "FSDKaggle2018.audio_test", "00326aa9.wav", "0038a046.wav")
    manifest = read_manifest(later)
    assert manifest.folds == ("Private", "Public")
    assert manifest.groups == ("355125", "90621")


def test_openmic_and_other_tables_of_scores_are_refused_with_the_column(tmp_path):
    touch(tmp_path, "a.wav")
    with pytest.raises(DataError, match=r"the column 'Cat' contains '0\.73'; expected 0 or 1"):
        read_manifest(write(tmp_path / "scores.csv", "file,start_time,end_time,Dog,Cat\na.wav,0.0,1.0,1,0.73\n"))


# ---------------------------------------------------------------------------------------------- other programs


@pytest.mark.parametrize(("yes", "no"), [("1", "0"), ("1.0", "0.0"), ("True", "False")])
def test_opensoundscape_clip_table(tmp_path, yes, no):
    touch(tmp_path, "a.wav", "b.wav")
    rows = f"a.wav,0.0,1.0,{yes},{no}\na.wav,1.0,2.0,{no},{no}\nb.wav,0.0,1.0,{no},{yes}\n"
    text = f"file,start_time,end_time,Dog,Cat\n{rows}"
    manifest = read_manifest(write(tmp_path / "clips.csv", text))
    assert manifest.labels.names == ("Dog", "Cat")
    assert [clip.labels for clip in manifest.clips] == [("Dog",), (), ("Cat",)]
    assert times(manifest) == [(0.0, 1.0), (1.0, 2.0), (0.0, 1.0)]


def test_opensoundscape_categorical_labels(tmp_path):
    touch(tmp_path, "a.wav")
    text = "file,start_time,end_time,labels\na.wav,0.0,3.0,\"['Dog', 'Cat']\"\na.wav,3.0,6.0,[]\n"
    assert [clip.labels for clip in read_manifest(write(tmp_path / "l.csv", text)).clips] == [("Dog", "Cat"), ()]


def test_opensoundscape_annotations_with_an_empty_file(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    text = (
        "audio_file,annotation_file,annotation,start_time,end_time,low_f,high_f\n"
        "a.wav,a.Table.1.selections.txt,NOCA,1.0,2.5,2000.0,8000.0\nb.wav,b.Table.1.selections.txt,,,,,\n"
    )
    assert tags(read_manifest(write(tmp_path / "boxes.csv", text))) == [("a.wav", ("NOCA",)), ("b.wav", ())]


def test_birdnet_analyzer_results(tmp_path):
    touch(tmp_path, "soundscape.wav")
    header = "Start (s),End (s),Scientific name,Common name,Confidence,File"
    rows = (
        "0.0,3.0,Poecile atricapillus,Black-capped Chickadee,0.8141,{0}\n"
        "0.0,3.0,Haemorhous mexicanus,House Finch,0.6393,{0}\n3.0,6.0,Haemorhous mexicanus,House Finch,0.5,{0}\n"
    ).format(r"C:\Users\me\example\soundscape.wav")
    table = write(tmp_path / "soundscape.BirdNET.results.csv", f"{header}\n{rows}")
    manifest = read_manifest(table)
    assert [clip.labels for clip in manifest.clips] == [("Black-capped Chickadee", "House Finch"), ("House Finch",)]
    assert times(manifest) == [(0.0, 3.0), (3.0, 6.0)]
    chosen = read_manifest(table, label_column="Scientific name")
    assert chosen.labels.names == ("Haemorhous mexicanus", "Poecile atricapillus")
    assert read_manifest(tmp_path).clips == manifest.clips  # as a folder
    table.write_text("\n".join(line.rpartition(",")[0] for line in table.read_text().splitlines()))  # earlier versions
    assert [clip.labels for clip in read_manifest(table).clips] == [clip.labels for clip in manifest.clips]


def test_birdnet_analyzer_results_for_r_and_kaleidoscope(tmp_path):
    touch(tmp_path, "rec/site.wav")
    r = write(
        tmp_path / "BirdNET_Rtable.csv",
        "filepath,start,end,scientific_name,common_name,confidence,lat,lon,week,overlap,sensitivity,min_conf,"
        "species_list,model\n/home/x/rec/site.wav,0,3,Turdus merula,Blackbird,0.9,-1,-1,-1,0.0,1.0,0.1,,V2.4\n",
    )
    assert read_manifest(r).labels.names == ("Blackbird",)
    kaleidoscope = write(
        tmp_path / "BirdNET_Kaleidoscope.csv",
        "INDIR,FOLDER,IN FILE,OFFSET,DURATION,TOP1MATCH,TOP1DIST\n/home/x,rec,site.wav,3.0,3.0,Blackbird,0.1\n",
    )
    manifest = read_manifest(kaleidoscope)
    assert (manifest.labels.names, times(manifest)) == (("Blackbird",), [(3.0, 6.0)])


RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def test_raven_labels_may_contain_quotes(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(
        tmp_path / "a.Table.1.selections.txt",
        f'{RAVEN}\tAnnotation\r\n1\tSpectrogram 1\t1\t1.0\t2.0\t0\t100\t"loud" bark\r\n'
        '2\tSpectrogram 1\t1\t3.0\t4.0\t0\t100\t5" pipe\r\n3\tSpectrogram 1\t1\t5.0\t6.0\t0\t100\t"unclosed\r\n',
    )
    assert [clip.labels for clip in read_manifest(table).clips] == [('"loud" bark',), ('5" pipe',), ('"unclosed',)]


def test_raven_table_that_another_program_wrote_with_quotes(tmp_path):
    touch(tmp_path, "a.wav")
    names = "\t".join(f'"{name}"' for name in [*RAVEN.split("\t"), "Annotation"])
    table = write(tmp_path / "a.selections.txt", f'{names}\n1\t"Spectrogram 1"\t1\t1.5\t2\t0\t100\t"Dog"\n')
    (clip,) = read_manifest(table).clips
    assert (clip.labels, clip.start_seconds, clip.end_seconds) == (("Dog",), 1.5, 2.0)
    table.write_text(f'{names}\n"1"\t1\t"Spectrogram 1"\t1\t1.5\t2\t0\t100\t"Dog"\n')  # R, with the numbers of the rows
    assert read_manifest(table).clips == (clip,)


def test_raven_label_column_can_be_chosen(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(
        tmp_path / "a.Table.1.selections.txt", f"{RAVEN}\tCall Code\n1\tSpectrogram 1\t1\t1.0\t2.0\t0\t100\ttrill\n"
    )
    with pytest.raises(DataError, match=r"no column with labels.*--label-column.*Call Code"):
        read_manifest(table)
    assert read_manifest(table, label_column="call code").labels.names == ("trill",)
    with pytest.raises(DataError, match=r"no column 'Cal Code' for labels.*did you mean 'Call Code'"):
        read_manifest(table, label_column="Cal Code")


@pytest.mark.parametrize(
    ("line", "start", "end", "label"),
    [
        ("0.500000\t1.250000\tdog", 0.5, 1.25, "dog"),
        ("1e-05\t2.0\tcat", 1e-5, 2.0, "cat"),
        (".5\t2.\tbat", 0.5, 2.0, "bat"),
        ("1.0E+1\t1.1e1\tbat", 10.0, 11.0, "bat"),
        ("0,5\t1,5\tdog", 0.5, 1.5, "dog"),
        ("0.18 2.12 car horn", 0.18, 2.12, "car horn"),
        (" 0.18 \t 2.12 \t siren ", 0.18, 2.12, "siren"),
        ("start\tend\tlabel\n1.0\t2.0\tbird", 1.0, 2.0, "bird"),
        ("onset\toffset\tevent_label\n1.0\t2.0\tbird", 1.0, 2.0, "bird"),
        ("start end label\n1.0 2.0 bird", 1.0, 2.0, "bird"),
        ("Start (s),End (s),Label\n1.0,2.0,bird", 1.0, 2.0, "bird"),
        ("# by hand\n1.0\t2.0\tbird", 1.0, 2.0, "bird"),
        ("1.0,2.0,bird", 1.0, 2.0, "bird"),
        ("1,5;2,5;bird", 1.5, 2.5, "bird"),
        ("-0.000001\t2.0\tbird", 0.0, 2.0, "bird"),
        ("\\\t100\t200\n1.0\t2.0\tbird\n\\\t100.0\t-1.0", 1.0, 2.0, "bird"),
        ("1.0\t2.0\tbird\t0.91", 1.0, 2.0, "bird"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_label_tracks_of_audacity_and_similar_programs(tmp_path, line, start, end, label, encoding):
    touch(tmp_path, "rec/yard.wav")
    write(tmp_path / "rec/yard.txt", f"{line}\n".encode(encoding))
    for source in ("rec/yard.txt", "rec"):
        (clip,) = read_manifest(tmp_path / source).clips
        assert (clip.fname, clip.start_seconds, clip.end_seconds, clip.labels) == ("yard.wav", start, end, (label,))


def test_a_text_that_looks_like_annotations_but_is_not_understood_is_an_error(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    write(tmp_path / "a.txt", "1.0\t2.0\tdog\n")
    write(tmp_path / "b.txt", "a dog at 1 s\n")
    write(tmp_path / "c.Table.1.selections.txt", "Selection\tNotes\n1\tdog\n")
    write(tmp_path / "README.txt", "The recordings of May 2024.\n")
    with pytest.raises(DataError, match=r"2 files look like annotations, but are not understood: b\.txt, c\.Table"):
        read_manifest(tmp_path)


def test_texts_beside_sounds_in_folders_of_labels_are_counted_by_name(tmp_path):
    touch(tmp_path, "Dog/a.wav", "Cat/b.wav")
    write(tmp_path / "Dog/a.txt", "recorded in the yard\n")
    with pytest.warns(DataWarning, match=r"1 files that look like annotations are not read: Dog/a\.txt"):
        assert tags(read_manifest(tmp_path)) == [("b.wav", ("Cat",)), ("a.wav", ("Dog",))]


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\r\nfname;labels;start;end\r\na.wav;Dog, Cat;0,5;1,5\r\n".encode("cp1252"),
        b'"sep=;"\nfname;labels;start;end\na.wav;"Dog, Cat";0,5;1,5\n',
        "sep=\t\nfname\tlabels\tstart\tend\na.wav\tDog, Cat\t0.5\t1.5\n".encode("utf-16"),
        "fname;labels;start;end\r\na.wav;Dog, Cat;0,5;1,5\r\n".encode("utf-16-le"),
        'fname\tlabels\tstart\tend\r\na.wav\t"Dog, Cat"\t0,5\t1,5\r\n'.encode("utf-16"),
        'fname,labels,start,end\ra.wav,"Dog, Cat","0,5","1,5"\r'.encode("utf-8-sig"),
        b'fname,labels,start,end\na.wav,"Dog, Cat",00:00:00.5,0:01.5\n',
    ],
)
def test_tables_as_excel_saves_them(tmp_path, content):
    touch(tmp_path, "a.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", content))
    assert (tags(manifest), times(manifest)) == ([("a.wav", ("Dog", "Cat"))], [(0.5, 1.5)])


@pytest.mark.parametrize("times", [("05:30:00", "23:10:05"), ("05:30", "17:00")])
def test_a_clock_time_without_an_end_is_when_the_clip_was_recorded(tmp_path, times):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "m.csv", f"fname,start_time,labels\na.wav,{times[0]},Dog\nb.wav,{times[1]},Cat\n")
    with pytest.warns(DataWarning, match=rf"column start_time contains clock times such as {times[0]}, .* no end"):
        manifest = read_manifest(table)
    clip_times = [(clip.start_seconds, clip.end_seconds) for clip in manifest.clips]
    assert ([clip.labels for clip in manifest.clips], clip_times) == ([("Dog",), ("Cat",)], [(0, None), (0, None)])


@pytest.mark.parametrize("time", ["2024-05-01T05:30:00", "20240501T053000+0200", "01.05.2024 05:30"])
def test_a_date_is_when_the_clip_was_recorded(tmp_path, time):
    touch(tmp_path, "a.wav")
    manifest = read_manifest(write(tmp_path / "m.csv", f"fname,start_time,labels\na.wav,{time},Dog\n"))
    assert times(manifest) == [(0, None)]


def test_a_clock_time_with_an_end_and_seconds_without_are_excerpts(tmp_path):
    touch(tmp_path, "a.wav")
    both = write(tmp_path / "m.csv", "fname,start,end,labels\na.wav,00:01:30,00:02:00,Dog\n")
    assert times(read_manifest(both)) == [(90, 120)]
    assert times(read_manifest(write(tmp_path / "n.csv", "fname,start,labels\na.wav,90,Dog\n"))) == [(90, None)]


def test_an_annotation_with_a_start_needs_an_end(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "m.csv", "fname,start,end,event_label\na.wav,0,1,Dog\na.wav,5,,Cat\n")
    with pytest.raises(DataError, match=r"m\.csv, line 3: the sound starts at 5, but has no end; fill it in"):
        read_manifest(table)
    clips = write(tmp_path / "n.csv", "fname,start,end,labels\na.wav,0,1,Dog\na.wav,5,,Cat\n")
    assert times(read_manifest(clips)) == [(0, 1), (5, None)]


def test_annotations_without_times_are_of_the_whole_recording_and_counted(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    lines = ["fname,start,end,event_label", "a.wav,0,1,Dog", "b.wav,,,Rain", "c.wav,,,Rain", ""]
    with pytest.warns(DataWarning, match="2 annotations have neither start nor end, such as that in line 3") as warned:
        manifest = read_manifest(write(tmp_path / "m.csv", "\n".join(lines)))
    assert (len(warned), times(manifest)) == (1, [(0, 1), (0, None), (0, None)])


# ---------------------------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("field", "labels"),
    [
        ("['Dog', 'Cat']", ("Dog", "Cat")),
        (json.dumps(["Dog", "Cat"]), ("Dog", "Cat")),
        ("['Dog' 'Cat']", ("Dog", "Cat")),  # NumPy
        ("('Dog',)", ("Dog",)),
        ("{'Dog'}", ("Dog",)),
        ("[Dog, Cat]", ("Dog", "Cat")),
        ('["Swainson\'s Thrush"]', ("Swainson's Thrush",)),
        ("['Chicken, rooster', 'Cat']", ("Chicken, rooster", "Cat")),
        ('["Gr\\u00fcnspecht"]', ("Grünspecht",)),
        ("[]", ()),
        ("['']", ()),
        ("[nan]", ()),
        ("set()", ()),
        ("nocall", ()),
        ("Sink_(filling)", ("Sink_(filling)",)),
        ("(unknown)", ("(unknown)",)),
    ],
)
def test_lists_written_as_text_are_lists(tmp_path, field, labels):
    touch(tmp_path, "a.wav", "b.wav")
    quoted = '"' + field.replace('"', '""') + '"'
    manifest = read_manifest(write(tmp_path / "m.csv", f"fname,labels\na.wav,{quoted}\nb.wav,Dog\n"))
    assert manifest.clips[0].labels == labels


@pytest.mark.parametrize("text", ["NA", "None", "none", "nan", "NULL", "n/a"])
def test_texts_for_empty_cells_are_no_labels_and_pointed_out(tmp_path, text):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    table = write(tmp_path / "m.csv", f"fname,species\na.wav,{text}\nb.wav,Owl\nc.wav,['{text}']\n")
    with pytest.warns(DataWarning, match=f"1 fields of the column species are '{text}', which is read as no label"):
        assert tags(read_manifest(table)) == [("a.wav", ()), ("b.wav", ("Owl",)), ("c.wav", (text,))]


def test_different_texts_for_empty_cells_are_one_warning(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav", "d.wav")
    table = write(tmp_path / "m.csv", "fname,species\na.wav,NA\nb.wav,Owl\nc.wav,null\nd.wav,NA\n")
    with pytest.warns(DataWarning) as warned:
        read_manifest(table)
    (warning,) = warned
    assert "3 fields of the column species are 'NA' (2), 'null' (1), which is read as no label" in str(warning.message)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (['"Chicken, rooster"', "Dog", '"Dog, Fly, housefly"'], ("Chicken, rooster", "Dog", "Fly, housefly"), None),
        (['"Chicken, rooster"', "Chicken"], ("Chicken", "Chicken, rooster"), "'Chicken' is a label, too"),
    ],
)
def test_names_of_audioset_are_kept_whole(tmp_path, rows, labels, message, recwarn):
    names = [f"{number}.wav" for number in range(len(rows))]
    touch(tmp_path, *names)
    lines = [f"{name},{row}" for name, row in zip(names, rows, strict=True)]
    table = write(tmp_path / "m.csv", "\n".join(["fname,labels", *lines, ""]))
    assert read_manifest(table).labels.names == labels
    assert [message in str(warning.message) for warning in recwarn] == ([] if message is None else [True])
    assert "rooster" in read_manifest(table, label_separator=",").labels


def test_folders_with_names_of_audioset_are_one_label(tmp_path):
    touch(tmp_path, "Chicken, rooster/a.wav", "Bark, Knock/b.wav")
    assert [clip.labels for clip in read_manifest(tmp_path).clips] == [("Bark", "Knock"), ("Chicken, rooster",)]


@pytest.mark.parametrize(
    "field",
    [
        '[{"start": 0.5, "end": 3.1, "channel": 0, "labels": ["Dog"]}]',  # Label Studio
        '{"choices": ["Dog", "Cat"]}',
        "{'Dog': 1}",
        '[["Dog", "Cat"]]',
    ],
)
def test_json_with_more_than_labels_is_an_error(tmp_path, field):
    touch(tmp_path, "a.wav")
    quoted = field.replace('"', '""')
    table = write(tmp_path / "m.csv", f'audio,label\na.wav,"{quoted}"\n')
    with pytest.raises(DataError, match=r"m\.csv, line 2: '.*' is not a list of labels; expected labels separated by"):
        read_manifest(table)


def test_another_separator_of_labels_is_pointed_out_and_can_be_chosen(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "m.csv", "fname,labels\na.wav,Dog;Cat\nb.wav,Dog\n")
    with pytest.warns(DataWarning, match=r"1 fields of the column labels contain ';', such as 'Dog;Cat'.*--label-sep"):
        assert read_manifest(table).labels.names == ("Dog", "Dog;Cat")
    assert read_manifest(table, label_separator=";").labels.names == ("Cat", "Dog")
    table = write(tmp_path / "m.csv", "fname,labels\na.wav,Dog | Cat\nb.wav,\n")
    assert read_manifest(table, label_separator="|").clips[0].labels == ("Dog", "Cat")


@pytest.mark.parametrize(
    "pair", [("Dog", "dog"), ("Dog bark", "Dog_bark"), ("Gr\u00fcn", "Gru\u0308n"), ("A B", "A\xa0B")]
)
def test_labels_that_differ_only_by_spelling_are_pointed_out(tmp_path, pair):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "m.csv", f"fname,labels\na.wav,{pair[0]}\nb.wav,{pair[1]}\n")
    with pytest.warns(DataWarning, match=r"labels that differ only by case, spaces, hyphens or Unicode form: '"):
        read_manifest(table)


TIMES_AND_PLACES = (
    "time,Date,start_date,recording time,hour,offset,duration_s,Latitude,lon,site,site_id,location,Elevation (m),week,"
    "timestamp_utc,onset,Begin Clock Time,end_file,Unnamed: 0"
)


@pytest.mark.parametrize("column", TIMES_AND_PLACES.split(","))
def test_a_column_with_the_name_of_a_time_or_place_is_no_label(tmp_path, column):
    touch(tmp_path, "a.wav", "b.wav")
    text = f"fname,Dog,{column},Cat\na.wav,1,5,0\nb.wav,0,7,1\n"
    manifest = read_manifest(write(tmp_path / "m.csv", text))
    assert manifest.labels.names == ("Dog", "Cat")


@pytest.mark.parametrize("column", ["country", "Station", "Track", "note", "is_test", "in train set", "verified"])
def test_a_column_of_0_and_1_that_is_not_a_label_because_of_its_name_is_pointed_out(tmp_path, column):
    touch(tmp_path, "a.wav", "b.wav")
    text = f"fname,blues,{column}\na.wav,1,0\nb.wav,0,1\n"
    with pytest.warns(DataWarning, match=f"the columns {column} contain only 0 and 1, .* rename them"):
        manifest = read_manifest(write(tmp_path / "m.csv", text))
    assert manifest.labels.names == ("blues",)


def test_a_label_may_contain_the_word_for_a_time_or_a_place(tmp_path):
    touch(tmp_path, "a.wav")
    names = "Alarm clock,metro_station,Time signal,Ending,Country music,Katydid"
    assert len(read_manifest(write(tmp_path / "m.csv", f"fname,{names}\na.wav,1,0,0,1,0,0\n")).labels) == 6


@pytest.mark.parametrize("names", ["StartTime,EndTime", "starttime,endtime", "begintime,Stop Time", "onset_s,offset_s"])
def test_times_are_recognised_in_joined_words(tmp_path, names):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "m.csv", f"Audiofilename,{names},label\na.wav,1,2.5,Dog\n")
    assert times(read_manifest(table)) == [(1.0, 2.5)]


def test_events_without_an_end_are_an_error(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "m.csv", "filename,onset,event_label\na.wav,1,Dog\na.wav,3,Cat\n")
    with pytest.raises(DataError, match=r"the sounds have a start \(onset\), but no end; add a column end or duration"):
        read_manifest(table)


def test_times_in_samples_are_an_error(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "m.csv", "fname,start_sample,end_sample,label\na.wav,0,16000,Dog\n")
    with pytest.raises(DataError, match=r"start_sample, end_sample look like times, but not in seconds"):
        read_manifest(table)


# ---------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "name",
    [r"C:\Users\me\data\site1\a.wav", "/home/me/data/site1/a.wav", r"\\server\share\site1\a.wav", r"data\site1\a.wav",
     "../data/site1/a.wav", "./site1/a.wav", r"D:/site1/a.WAV"],
)  # fmt: skip
def test_paths_of_other_computers_are_matched_by_their_last_parts(tmp_path, name):
    touch(tmp_path / "project/data", "site1/a.wav", "site2/a.wav")
    table = write(tmp_path / "project/data/m.csv", f"fname,labels\n{name},Dog\n")
    assert read_manifest(table).clips[0].path.resolve() == tmp_path / "project/data/site1/a.wav"


def test_the_last_part_of_a_foreign_path_is_enough_if_it_is_unique(tmp_path):
    touch(tmp_path, "sounds/a.wav", "sounds/b.wav")
    table = write(tmp_path / "m.csv", "fname,labels\nC:\\x\\a.wav,Dog\nC:\\x\\b.wav,Cat\n")
    assert tags(read_manifest(table)) == [("a.wav", ("Dog",)), ("b.wav", ("Cat",))]
    assert tags(read_manifest(table, audio_dir=tmp_path / "sounds")) == [("a.wav", ("Dog",)), ("b.wav", ("Cat",))]


def test_two_foreign_paths_are_never_one_file(tmp_path):
    touch(tmp_path, "sounds/a.wav")
    table = write(tmp_path / "m.csv", "fname,labels,start,end\nC:\\1\\a.wav,Dog,0,1\nC:\\2\\a.wav,Cat,1,2\n")
    with pytest.raises(DataError, match=r"both .* and .* may be this file"):
        read_manifest(table)


def test_a_foreign_path_with_several_candidates_is_an_error(tmp_path):
    touch(tmp_path, "site1/a.wav", "site2/a.wav")
    table = write(tmp_path / "m.csv", "fname,labels\nC:\\x\\a.wav,Dog\n")
    with pytest.raises(DataError, match=r"may be .*site1/a\.wav or .*site2/a\.wav"):
        read_manifest(table)


def test_a_relative_path_is_not_found_in_another_folder(tmp_path):
    touch(tmp_path, "site1/a.wav")
    with pytest.raises(DataError, match=r"1 of 1 files are missing: site2/a\.wav"):
        read_manifest(write(tmp_path / "m.csv", "fname,labels\nsite2/a.wav,Dog\n"))


# ---------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    ("first", "second"),
    [("train", "test"), ("Training", "Validation"), ("fold1", "fold2"), ("train_data", "valid_data")],
)
def test_folders_of_folds_above_the_labels_are_folds(tmp_path, first, second):
    touch(tmp_path, f"{first}/Dog/a.wav", f"{first}/Cat/b.wav", f"{second}/Dog/c.wav")
    manifest = read_manifest(tmp_path)
    assert manifest.labels.names == ("Cat", "Dog")
    assert dict(zip([clip.path.name for clip in manifest.clips], manifest.folds, strict=True)) == {
        "a.wav": first, "b.wav": first, "c.wav": second,
    }  # fmt: skip


def test_folders_of_folds_below_the_labels_are_folds(tmp_path):
    touch(tmp_path, "Dog/train/a.wav", "Cat/test/b.wav")
    manifest = read_manifest(tmp_path)
    assert (manifest.labels.names, manifest.folds) == (("Cat", "Dog"), ("test", "train"))


def test_a_label_may_have_the_name_of_a_fold(tmp_path):
    touch(tmp_path, "train/a.wav", "bus/b.wav")
    assert read_manifest(tmp_path).labels.names == ("bus", "train")
    touch(tmp_path, "train/Dog/c.wav")
    with pytest.raises(DataError, match="sub-folders train look like folds, dates or places, but bus do not"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("names", [("2024-05-01", "2024-05-02"), ("site 1", "Site_B"), ("20240501", "20240502")])
def test_folders_of_dates_and_places_are_not_labels(tmp_path, names):
    touch(tmp_path, f"deep/{names[0]}/Dog/a.wav", f"deep/{names[1]}/Cat/b.wav", f"flat/{names[0]}/a.wav")
    with pytest.warns(DataWarning, match="are read as dates or places"):
        assert read_manifest(tmp_path / "deep").labels.names == ("Cat", "Dog")
    with pytest.raises(DataError, match="look like dates or places, not like labels"):
        read_manifest(tmp_path / "flat")


def test_folders_below_those_of_the_labels_are_pointed_out(tmp_path):
    touch(tmp_path, "Animals/Dog/a.wav", "Animals/Cat/b.wav", "Vehicles/Car/c.wav")
    with pytest.warns(DataWarning, match=r"no effect, such as Animals/Cat, Animals/Dog, Vehicles/Car\. If they are"):
        assert read_manifest(tmp_path).labels.names == ("Animals", "Vehicles")


@pytest.mark.parametrize("below", ["XC123456", "2024-05-01", "site_b", "recording 1", "clips"])
def test_folders_of_recordings_below_the_labels_have_no_effect(tmp_path, below):
    touch(tmp_path, f"Dog/{below}/a.wav", f"Cat/{below}/b.wav")
    assert read_manifest(tmp_path).labels.names == ("Cat", "Dog")


def test_negative_and_background_folders_have_no_labels(tmp_path):
    touch(tmp_path, "Dog/a.wav", "Cat/b.wav", "-Dog/c.wav", "Background/d.wav", "Cat,-Dog/e.wav")
    with pytest.warns(DataWarning, match="1 clips in Background are read as clips without labels"):
        manifest = read_manifest(tmp_path)
    assert manifest.labels.names == ("Cat", "Dog")
    assert dict(tags(manifest)) == {
        "a.wav": ("Dog",), "b.wav": ("Cat",), "c.wav": (), "d.wav": (), "e.wav": ("Cat",),
    }  # fmt: skip


def test_raven_paths_of_another_computer_are_matched_by_their_folders(tmp_path):
    touch(tmp_path, "site1/a.wav", "site2/a.wav")
    table = write(
        tmp_path / "all.Table.1.selections.txt",
        f"{RAVEN}\tBegin Path\tFile Offset (s)\tAnnotation\n"
        "1\tSpectrogram 1\t1\t1\t2\t0\t100\tD:\\rec\\site2\\a.wav\t1\tDog\n"
        "2\tSpectrogram 1\t1\t11\t12\t0\t100\tD:\\rec\\site1\\a.wav\t1\tCat\n",
    )
    clips = read_manifest(table).clips
    assert [(clip.path.parent.name, clip.labels) for clip in clips] == [("site2", ("Dog",)), ("site1", ("Cat",))]


@pytest.mark.parametrize(
    "header",
    ["Audio File Name,Start (sec),End (sec),Sound Class", "recording_filename,begin_time_s,stop_time_s,true_label",
     "audiofilename,start,end,label:species", "recording,start_offset_s,end_offset_s,label", "File,Begin,Stop,Species"],
)  # fmt: skip
def test_columns_are_recognised_by_their_words(tmp_path, header):
    touch(tmp_path, "a.wav")
    manifest = read_manifest(write(tmp_path / "m.csv", f"{header}\na.wav,1.0,2.0,Dog\na.wav,1.5,2.5,Cat\n"))
    assert times(manifest) == [(1.0, 2.0), (1.5, 2.5)]
    assert [clip.labels for clip in manifest.clips] == [("Dog", "Cat"), ("Cat", "Dog")]


def test_annotations_of_other_programs_are_never_dropped(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    write(tmp_path / "a.txt", "1.0\t2.0\tdog\n")
    write(tmp_path / "b.TextGrid", 'File type = "ooTextFile"\n')
    with pytest.raises(DataError, match=r"1 files look like annotations, but are not understood: b\.TextGrid"):
        read_manifest(tmp_path)


def test_rfcx_species_audio_detection(tmp_path):
    touch(tmp_path, "train/003bec244.flac")
    text = (
        "recording_id,species_id,songtype_id,t_min,f_min,t_max,f_max\n003bec244,14,1,44.544,2531.25,45.1307,5531.25\n"
    )
    manifest = read_manifest(write(tmp_path / "train_tp.csv", text))
    assert (manifest.labels.names, times(manifest)) == (("14",), [(44.544, 45.1307)])


def test_a_label_made_of_the_words_for_labels_is_still_a_column_of_0_and_1(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    text = "fname,call,species,rain\na.wav,1,0,0\nb.wav,0,1,1\n"
    assert read_manifest(write(tmp_path / "m.csv", text)).labels.names == ("call", "species", "rain")


def test_a_column_called_label_holds_labels_even_beside_another_column_of_0_and_1(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "m.csv", "file,label,verified\na.wav,0,1\nb.wav,1,0\n")
    assert tags(read_manifest(table)) == [("a.wav", ("0",)), ("b.wav", ("1",))]


def test_species_are_preferred_to_the_taxonomic_class(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "m.csv", "file,class,order,species\na.wav,Aves,Strigiformes,Owl\nb.wav,Aves,x,Robin\n")
    assert read_manifest(table).labels.names == ("Owl", "Robin")


def test_folder_of_raven_tables_without_a_known_label_column_names_the_option(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    for name in "ab":
        row = "1\tSpectrogram 1\t1\t1.0\t2.0\t0\t100\ttrill"
        write(tmp_path / f"{name}.Table.1.selections.txt", f"{RAVEN}\tCall Code\n{row}\n")
    with (
        pytest.raises(DataError, match="no sounds in sub-folders"),
        pytest.warns(DataWarning, match=r"2 files that look like annotations are not read.*--label-column.*Call Code"),
    ):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, label_column="Call Code").labels.names == ("trill",)


def test_times_at_which_a_recording_was_made_are_not_the_times_of_a_clip(tmp_path):
    touch(tmp_path, "a.wav")
    text = "fname,label,start_time,end_time\na.wav,Dog,2024-05-01 05:30:00,2024-05-01 05:40:00\n"
    assert times(read_manifest(write(tmp_path / "m.csv", text))) == [(0.0, None)]
    text = "fname,start_time,onset,offset,label\na.wav,05:30:00,1.0,2.0,Dog\n"
    assert times(read_manifest(write(tmp_path / "m.csv", text))) == [(1.0, 2.0)]


def test_text_that_is_not_utf_8_is_read_as_western_with_a_warning(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "m.csv", "fname,labels\na.wav,Grünspecht\n".encode("cp1252"))
    with pytest.warns(DataWarning, match="is not UTF-8 and is read as Windows-1252, such as 'Grünspecht'"):
        assert read_manifest(table).labels.names == ("Grünspecht",)
