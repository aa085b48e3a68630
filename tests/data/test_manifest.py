"""Every manifest format in its published layout, and tables as people write them."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.paths import SHARED
from spectag.data.clips import Clip, Manifest
from spectag.data.labels import LabelSet, similar_labels
from spectag.data.manifest import read_manifest, write_multi_hot
from spectag.data.readers.columns import is_label_column
from spectag.errors import DataError, DataWarning


def touch(folder: Path, *names: str) -> None:
    """Create empty files: reading a manifest does not open the sounds."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def tags(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    return {clip.fname: clip.labels for clip in manifest.clips}


# ---------------------------------------------------------------------------------------------- the forms


def test_csv_has_labels_fold_group_and_times(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(
        tmp_path / "clips.csv",
        "fname,labels,fold,group,start,end,recordist\n"
        'a.wav,"Bark,Run",1,yard,0.5,2,Zoë\n'
        "a.wav,Bark,1,yard,2,,Zoë\n"
        "b.wav,,2,,,,Zoë\n",
    )
    manifest = read_manifest(table)
    assert manifest.source == table
    assert manifest.labels == LabelSet(("Bark", "Run"))
    assert manifest.clips == (
        Clip(tmp_path / "a.wav", "a.wav", ("Bark", "Run"), "1", "yard", 0.5, 2.0, 2),
        Clip(tmp_path / "a.wav", "a.wav", ("Bark",), "1", "yard", 2.0, None, 3),
        Clip(tmp_path / "b.wav", "b.wav", (), "2", None, 0.0, None, 4),
    )
    assert manifest.folds == ("1", "1", "2")
    assert manifest.multi_hot().tolist() == [[True, True], [True, False], [False, False]]
    assert [clip.name for clip in manifest.clips] == ["a.wav (0.5-2 s)", "a.wav (from 2 s)", "b.wav"]


def test_clips_of_one_recording_share_a_group(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "clips.csv", "fname,labels,start,end\na.wav,x,0,1\na.wav,x,1,2\nb.wav,x,0,1\n")
    first, second, third = read_manifest(table).groups
    assert first == second != third


def test_multi_hot_csv_keeps_the_order_of_its_columns(tmp_path):
    touch(tmp_path / "test", "4260ebea.wav", "426eb1e0.wav")
    answers = write(
        tmp_path / "test.csv",
        "fname,Zipper_(clothing),Accordion,Hi-hat\n4260ebea.wav,0,1,0\n426eb1e0.wav,1,1,0\n",
    )
    manifest = read_manifest(answers)
    assert manifest.labels.names == ("Zipper_(clothing)", "Accordion", "Hi-hat")
    assert manifest.multi_hot().tolist() == [[False, True, False], [True, True, False]]


def test_multi_hot_csv_of_spectrogram_images(tmp_path):
    touch(tmp_path, "0006ae4e.png", "0019ef41.png")
    table = write(
        tmp_path / "train_curated_image_labels.csv", "fname,Bark,Raindrop\n0006ae4e.png,1,0\n0019ef41.png,0,1\n"
    )
    manifest = read_manifest(table)
    assert manifest.holds_images
    assert tags(manifest) == {"0006ae4e.png": ("Bark",), "0019ef41.png": ("Raindrop",)}


@pytest.mark.parametrize("row", ["0,a.wav,1.0,0.0", "0,a.wav,True,False", "0,a.wav,TRUE,FALSE"])
def test_multi_hot_csv_as_pandas_writes_it(tmp_path, row):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", f",fname,Bark,Run\n{row}\n")
    assert tags(read_manifest(table)) == {"a.wav": ("Bark",)}


def test_table_of_probabilities_is_an_error(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "submission.csv", "fname,Bark,Run\na.wav,0,0.73\n")
    with pytest.raises(DataError, match=r"submission.csv, line 2: the column 'Run' contains '0.73'; expected 0 or 1"):
        read_manifest(table)


def test_folder_with_a_sub_folder_per_label(tmp_path):
    touch(tmp_path, "Rooster/b.ogg", "Dog bark/a.WAV", "Dog bark/site 2/a.wav", "Rooster,Rain/c.flac")
    touch(
        tmp_path,
        "README.md",
        "cover.jpg",
        "Rooster/notes.txt",
        "Rooster/b.png",
        "Rooster/.hidden.wav",
        "__MACOSX/Rooster/._b.ogg",
    )
    manifest = read_manifest(tmp_path)
    assert manifest.labels.names == ("Dog bark", "Rain", "Rooster")
    assert tags(manifest) == {
        "Dog bark/a.WAV": ("Dog bark",),
        "Dog bark/site 2/a.wav": ("Dog bark",),
        "Rooster/b.ogg": ("Rooster",),
        "Rooster,Rain/c.flac": ("Rooster", "Rain"),
    }


def test_folders_of_recorder_files_are_perhaps_sites_not_labels(tmp_path):
    touch(tmp_path / "card", "pond/S4A01_20240501_053000.wav", "forest/20240501_060000.WAV")
    with pytest.warns(DataWarning, match=r"names of recorders.*if the sub-folders \(forest, pond\) are sites"):
        read_manifest(tmp_path / "card")
    touch(tmp_path / "clips", "Dog/20240501_053000.wav", "Dog/a.wav", "Cat/XC123456.mp3")
    read_manifest(tmp_path / "clips")  # warnings are errors in tests


def test_folder_per_label_of_images(tmp_path):
    touch(tmp_path, "Bark/a.png", "Run/b.jpg")
    assert read_manifest(tmp_path).holds_images


def test_sounds_beside_the_sub_folders_are_an_error(tmp_path):
    touch(tmp_path, "Bark/a.wav", "stray.wav")
    with pytest.raises(DataError, match=r"files beside the sub-folders have no label: stray\.wav"):
        read_manifest(tmp_path)


def test_folder_without_sub_folders_is_not_a_manifest(tmp_path):
    touch(tmp_path, "a.wav")
    with pytest.raises(DataError, match="no sounds in sub-folders; expected one sub-folder per label"):
        read_manifest(tmp_path)


def test_sub_folders_of_a_data_set_are_not_labels(tmp_path):
    touch(tmp_path / "kaggle", "train_curated/a.wav", "test/b.wav", "train_curated.csv")
    touch(tmp_path / "ESC-50-master", "audio/1-100032-A-0.wav", "meta/esc50.csv")
    with pytest.raises(DataError, match=r"use the table: .*train_curated\.csv"):
        read_manifest(tmp_path / "kaggle")
    with pytest.raises(DataError, match=r"use the table: .*esc50\.csv"):
        read_manifest(tmp_path / "ESC-50-master")


def test_fsdkaggle2019_as_in_the_competition(tmp_path):
    touch(tmp_path, "train_curated/0006ae4e.wav", "train_curated/0019ef41.wav", "train_noisy/00097e21.wav")
    curated = write(
        tmp_path / "train_curated.csv",
        'fname,labels\n0006ae4e.wav,Bark\n0019ef41.wav,"Walk_and_footsteps,Slam"\n',
    )
    noisy = write(tmp_path / "train_noisy.csv", "fname,labels\n00097e21.wav,Bathtub_(filling_or_washing)\n")
    assert tags(read_manifest(curated)) == {"0006ae4e.wav": ("Bark",), "0019ef41.wav": ("Walk_and_footsteps", "Slam")}
    assert read_manifest(noisy).clips[0].path == tmp_path / "train_noisy" / "00097e21.wav"


def test_fsdkaggle2019_after_the_competition(tmp_path):
    touch(
        tmp_path,
        "FSDKaggle2019.audio_train_curated/0006ae4e.wav",
        "FSDKaggle2019.audio_train_noisy/00097e21.wav",
        "FSDKaggle2019.audio_test/4260ebea.wav",
        "FSDKaggle2019.audio_test/426eb1e0.wav",
    )
    meta = tmp_path / "FSDKaggle2019.meta"
    curated = write(
        meta / "train_curated_post_competition.csv",
        "fname,labels,freesound_id,license\n0006ae4e.wav,Bark,77711,http://creativecommons.org/licenses/by/3.0/\n",
    )
    noisy = write(
        meta / "train_noisy_post_competition.csv",
        "fname,labels,flickr_video_URL,license\n"
        '00097e21.wav,"Stream,Hiss",https://www.flickr.com/photos/1@N00/2/,"Attribution, ShareAlike"\n',
    )
    test = write(
        meta / "test_post_competition.csv",
        "fname,labels,usage,freesound_id,license\n"
        '4260ebea.wav,"Bark,Run",Public,33311,http://creativecommons.org/publicdomain/zero/1.0/\n'
        "426eb1e0.wav,Gong,Private,33312,http://creativecommons.org/publicdomain/zero/1.0/\n",
    )
    assert tags(read_manifest(curated)) == {"0006ae4e.wav": ("Bark",)}
    assert tags(read_manifest(noisy)) == {"00097e21.wav": ("Stream", "Hiss")}
    manifest = read_manifest(test)
    assert manifest.folds == ("Public", "Private")
    assert manifest.groups == ("33311", "33312")
    assert manifest.clips[1].path == tmp_path / "FSDKaggle2019.audio_test" / "426eb1e0.wav"


def test_fsd50k(tmp_path):
    touch(tmp_path, "FSD50K.dev_audio/64760.wav", "FSD50K.dev_audio/16399.wav", "FSD50K.eval_audio/37199.wav")
    dev = write(
        tmp_path / "FSD50K.ground_truth" / "dev.csv",
        "fname,labels,mids,split\n"
        '64760,"Electric_guitar,Guitar,Plucked_string_instrument","/m/02sgy,/m/0342h,/m/0fx80y",train\n'
        '16399,"Electric_guitar,Guitar","/m/02sgy,/m/0342h",val\n',
    )
    evaluation = write(
        tmp_path / "FSD50K.ground_truth" / "eval.csv",
        'fname,labels,mids\n37199,"Electric_guitar,Guitar","/m/02sgy,/m/0342h"\n',
    )
    manifest = read_manifest(dev)
    assert manifest.folds == ("train", "val")
    assert tags(manifest)["64760"] == ("Electric_guitar", "Guitar", "Plucked_string_instrument")
    assert manifest.clips[0].path == tmp_path / "FSD50K.dev_audio" / "64760.wav"
    assert read_manifest(evaluation).clips[0].path == tmp_path / "FSD50K.eval_audio" / "37199.wav"


def test_esc50(tmp_path, monkeypatch):
    touch(tmp_path, "audio/1-100032-A-0.wav", "audio/1-137-A-32.wav")
    table = write(
        tmp_path / "meta" / "esc50.csv",
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "1-137-A-32.wav,2,32,keyboard_typing,False,137,A\n",
    )
    manifest = read_manifest(table)
    assert tags(manifest) == {"1-100032-A-0.wav": ("dog",), "1-137-A-32.wav": ("keyboard_typing",)}
    assert manifest.folds == ("1", "2")
    assert manifest.groups == ("100032", "137")
    assert manifest.clips[0].path == tmp_path / "audio" / "1-100032-A-0.wav"
    monkeypatch.chdir(tmp_path / "meta")
    assert read_manifest("esc50.csv").clips == manifest.clips


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/esc10")
def test_esc10_data_set():
    manifest = read_manifest(SHARED / "data" / "esc10" / "esc10.csv", group_column="source")
    assert len(manifest.clips) == 400
    assert len(manifest.labels) == 10
    assert set(manifest.folds) == {"1", "2", "3", "4", "5"}
    assert manifest.clips[0].group == "100032"


RAVEN_HEADER = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)"


def test_raven_table_belongs_to_the_sound_of_its_name_and_views_are_merged(tmp_path):
    touch(tmp_path, "Recording_1.2.wav")
    table = write(
        tmp_path / "Recording_1.2.Table.1.selections.txt",
        f"{RAVEN_HEADER}\tSpecies\r\n"
        "1\tWaveform 1\t1\t154.387792767\t154.911598217\t0.0\t16000.0\tEATO\r\n"
        "1\tSpectrogram 1\t1\t154.387792767\t154.911598217\t2878.2\t4049.0\tEATO\r\n"
        "2\tWaveform 1\t1\t167.5\t168.25\t0.0\t16000.0\tBCCH\r\n"
        "2\tSpectrogram 1\t1\t167.5\t168.25\t2731.9\t3902.7\tBCCH\r\n",
    )
    first, second = read_manifest(table).clips
    assert first.path == tmp_path / "Recording_1.2.wav"
    assert (first.fname, first.labels, first.line) == ("Recording_1.2.wav", ("EATO",), 2)
    assert first.start_seconds == pytest.approx(154.387792767)
    assert first.end_seconds == pytest.approx(154.911598217)
    assert (second.labels, second.start_seconds, second.end_seconds) == (("BCCH",), 167.5, 168.25)


def test_raven_table_of_several_sounds_uses_the_file_offset(tmp_path):
    touch(tmp_path, "20240501_050000.flac", "20240501_060000.flac")
    table = write(
        tmp_path / "may.Table.1.selections.txt",
        f"{RAVEN_HEADER}\tBegin File\tFile Offset (s)\tAnnotation\n"
        "1\tSpectrogram 1\t1\t10.5\t12.0\t500\t4000\t20240501_050000.flac\t10.5\tWren\n"
        "2\tSpectrogram 1\t1\t3604.0\t3606.5\t500\t4000\t20240501_060000.flac\t4.0\tWren\n",
    )
    first, second = read_manifest(table).clips
    assert (first.fname, first.start_seconds, first.end_seconds) == ("20240501_050000.flac", 10.5, 12.0)
    assert (second.fname, second.start_seconds, second.end_seconds) == ("20240501_060000.flac", 4.0, 6.5)


def test_raven_table_of_several_sounds_without_file_offset_is_an_error(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(
        tmp_path / "t.Table.1.selections.txt",
        "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tAnnotation\n1\t1\t2\ta.wav\tx\n2\t61\t62\tb.wav\tx\n",
    )
    with pytest.raises(DataError, match=r"several sounds, but there is no column File Offset \(s\)"):
        read_manifest(table)


def test_raven_begin_path_of_another_computer_is_ignored(tmp_path):
    touch(tmp_path, "XC1.wav", "elsewhere/XC2.wav")
    here = tmp_path / "elsewhere" / "XC2.wav"
    table = write(  # as BirdNET-Analyzer writes it
        tmp_path / "BirdNET_SelectionTable.txt",
        "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCommon Name\t"
        "Species Code\tConfidence\tBegin Path\tFile Offset (s)\n"
        "1\tSpectrogram 1\t1\t3.0\t6.0\t0\t15000\tEurasian Wren\twinwre4\t0.91\tC:\\birds\\XC1.wav\t3.0\n"
        f"2\tSpectrogram 1\t1\t63.0\t66.0\t0\t15000\tEurasian Wren\twinwre4\t0.88\t{here}\t3.0\n",
    )
    first, second = read_manifest(table).clips
    assert first.path == tmp_path / "XC1.wav"
    assert second.path == here


def test_raven_groups_come_from_the_chosen_column(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(
        tmp_path / "a.Table.1.selections.txt",
        "Selection\tBegin Time (s)\tEnd Time (s)\tTags\tBird\n1\t1\t2\tsong\tA7\n",
    )
    assert read_manifest(table, group_column="bird").groups == ("A7",)


def test_raven_table_without_a_label_column_is_an_error_with_its_columns(tmp_path):
    table = write(tmp_path / "a.Table.1.selections.txt", f"{RAVEN_HEADER}\tmy notes\n")
    with pytest.raises(DataError, match=r"no column with labels; expected one of Annotation, .*my notes"):
        read_manifest(table)


def test_empty_raven_label_column_is_skipped(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(
        tmp_path / "a.Table.1.selections.txt",
        "Selection\tBegin Time (s)\tEnd Time (s)\tAnnotation\tSpecies\n1\t1\t2\t\tEATO\n",
    )
    assert read_manifest(table).clips[0].labels == ("EATO",)


def test_empty_raven_table_gives_a_clip_without_labels(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "README.txt")
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tAnnotation\n"
    write(tmp_path / "a.Table.1.selections.txt", f"{header}1\t1\t2\tx\n2\t1\t2\ty\n")
    write(tmp_path / "a.Table.2.selections.txt", header)
    write(tmp_path / "b.Table.1.selections.txt", header)
    clips = read_manifest(tmp_path).clips
    assert [(clip.fname, clip.labels, clip.end_seconds) for clip in clips] == [
        ("a.wav", ("x", "y"), 2.0),
        ("b.wav", (), None),
    ]


def test_audacity_label_track_with_frequencies(tmp_path):
    touch(tmp_path, "yard.wav")
    track = write(
        tmp_path / "yard.txt",
        "0.500000\t1.250000\tBark\n"
        "\\\t1484.669312\t2969.338523\n"
        "2.000000\t3.000000\tBark, Knock\n"
        "\\\t-1.000000\t6334.588867\n"
        "3.000000\t4.000000\t\n",
    )
    with pytest.warns(DataWarning, match="1 annotations have no label, such as that in .*, line 5"):
        clips = read_manifest(track).clips
    assert [(clip.start_seconds, clip.end_seconds, clip.labels, clip.line) for clip in clips] == [
        (0.5, 1.25, ("Bark",), 1),
        (2.0, 3.0, ("Bark", "Knock"), 3),
        (3.0, 4.0, (), 5),
    ]
    assert {clip.fname for clip in clips} == {"yard.wav"}


def test_audacity_tracks_with_the_sounds_in_another_folder(tmp_path):
    touch(tmp_path / "sounds", "a.mp3", "b.wav", "c.wav")
    tracks = tmp_path / "labels"
    write(tracks / "a.txt", "0\t1\tBark\n")
    write(tracks / "b.txt", "0,5\t1,5\tKnock\n0,5\t1,5\tBark\n")
    write(tracks / "c.txt", "")
    clips = read_manifest(tracks, audio_dir=tmp_path / "sounds").clips
    assert [(clip.fname, clip.start_seconds, clip.end_seconds, clip.labels) for clip in clips] == [
        ("a.mp3", 0.0, 1.0, ("Bark",)),
        ("b.wav", 0.5, 1.5, ("Knock", "Bark")),
        ("c.wav", 0.0, None, ()),
    ]


def test_audacity_point_label_is_an_error_with_its_line(tmp_path):
    touch(tmp_path, "yard.wav")
    track = write(tmp_path / "yard.txt", "0.5\t1.0\tBark\n2.5\t2.5\tKnock\n")
    with pytest.raises(DataError, match=r"yard.txt, line 2: 'Knock' marks a point at 2.5 s, not a segment"):
        read_manifest(track)


def test_malformed_line_of_a_label_track_is_an_error(tmp_path):
    touch(tmp_path, "yard.wav")
    with pytest.raises(DataError, match=r"yard.txt, line 2: 'Bark' is not a label"):
        read_manifest(write(tmp_path / "yard.txt", "0.5\t1.0\tBark\nBark\n"))
    with pytest.raises(DataError, match=r"yard.txt, line 2: the end is 'x'; expected seconds, 0 or more"):
        read_manifest(write(tmp_path / "yard.txt", "0.5\t1.0\tBark\n1\tx\tBark\n"))


def test_label_track_does_not_belong_to_a_sound_with_a_shorter_name(tmp_path):
    touch(tmp_path, "site1.wav")
    track = write(tmp_path / "site1.morning.txt", "0.5\t1.0\tBark\n")
    with pytest.raises(DataError, match=r"1 of 1 files are missing: site1\.morning"):
        read_manifest(track)


# ---------------------------------------------------------------------------------------------- finding the sounds


def test_sounds_are_searched_beside_the_table_then_in_its_folder_then_in_audio_dir(tmp_path):
    table = write(tmp_path / "clips.csv", "fname,labels\na.wav,x\n")
    elsewhere = tmp_path / "elsewhere"
    touch(elsewhere, "a.wav")
    assert read_manifest(table, audio_dir=elsewhere).clips[0].path == elsewhere / "a.wav"
    touch(tmp_path, "clips/a.wav")
    assert read_manifest(table, audio_dir=elsewhere).clips[0].path == tmp_path / "clips" / "a.wav"
    touch(tmp_path, "a.wav")
    assert read_manifest(table, audio_dir=elsewhere).clips[0].path == tmp_path / "a.wav"


def test_names_can_have_sub_folders_backslashes_and_no_suffix(tmp_path):
    touch(tmp_path, "day 1/a.wav", "day 1/b.flac", "rec.2019.wav")
    absolute = tmp_path / "day 1" / "b.flac"
    table = write(tmp_path / "clips.csv", f"fname,labels\nday 1\\a.wav,x\n{absolute},x\nrec.2019,x\n")
    assert [clip.path for clip in read_manifest(table).clips] == [
        tmp_path / "day 1" / "a.wav",
        absolute,
        tmp_path / "rec.2019.wav",
    ]


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_umlauts_match_in_any_unicode_normalisation(tmp_path, on_disk, in_table):
    name = "Vögel/Grünspecht.wav"
    touch(tmp_path, unicodedata.normalize(on_disk, name))
    table = write(tmp_path / "clips.csv", f"fname,labels\n{unicodedata.normalize(in_table, name)},x\n")
    assert read_manifest(table).clips[0].path == tmp_path / unicodedata.normalize(on_disk, name)


def test_file_names_match_in_any_case(tmp_path):
    touch(tmp_path, "Site 1/20240501_050000.WAV", "b.wav", "B.wav")
    table = write(tmp_path / "clips.csv", "fname,labels\nsite 1/20240501_050000.wav,x\nb.wav,x\n")
    assert [clip.path.name for clip in read_manifest(table).clips] == ["20240501_050000.WAV", "b.wav"]
    with pytest.raises(DataError, match=r"B\.WAV may be B\.wav or b\.wav"):
        read_manifest(write(tmp_path / "clips.csv", "fname,labels\nB.WAV,x\n"))


def test_name_without_suffix_prefers_the_sound_to_its_image(tmp_path):
    touch(tmp_path, "a.wav", "a.png")
    table = write(tmp_path / "clips.csv", "fname,labels\na,x\n")
    assert read_manifest(table).clips[0].path == tmp_path / "a.wav"


def test_folder_with_the_name_of_a_sound_is_not_the_sound(tmp_path):
    touch(tmp_path, "a.wav", "a/b.wav")
    track = write(tmp_path / "a.txt", "0\t1\tx\n")
    assert read_manifest(track).clips[0].path == tmp_path / "a.wav"


def test_ambiguous_name_is_an_error(tmp_path):
    touch(tmp_path, "a.wav", "a.mp3")
    table = write(tmp_path / "clips.csv", "fname,labels\na,x\n")
    with pytest.raises(DataError, match=r"a may be a\.mp3 or a\.wav; use the full name"):
        read_manifest(table)


def test_missing_sound_is_not_replaced_by_a_file_with_another_suffix(tmp_path):
    touch(tmp_path, "a.wav.png")
    with pytest.raises(DataError, match=r"files are missing: a\.wav"):
        read_manifest(write(tmp_path / "clips.csv", "fname,labels\na.wav,x\n"))


def test_error_lists_all_missing_sounds_and_the_searched_folders(tmp_path):
    touch(tmp_path, "there.wav", "sounds/other.wav")
    names = [f"{number}.wav" for number in range(7)]
    table = write(tmp_path / "clips.csv", "fname,labels\nthere.wav,x\n" + "".join(f"{name},x\n" for name in names))
    with pytest.raises(DataError) as caught:
        read_manifest(table, audio_dir=tmp_path / "sounds")
    message = str(caught.value)
    assert "clips.csv, line 3: 7 of 8 files are missing: 0.wav, 1.wav, 2.wav, 3.wav, 4.wav and 2 more" in message
    assert f"Searched in {tmp_path}, {tmp_path / 'clips'}, {tmp_path / 'sounds'}" in message
    assert "--audio-dir" in message


def test_missing_audio_dir_is_an_error(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_manifest(write(tmp_path / "clips.csv", "fname,labels\na.wav,x\n"), audio_dir=tmp_path / "nowhere")


def test_too_long_name_is_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="1 of 1 files are missing"):
        read_manifest(write(tmp_path / "clips.csv", f"fname,labels\n{'a' * 5000}.wav,x\n"))


# ---------------------------------------------------------------------------------------- tables as people make them


@pytest.mark.filterwarnings("ignore:.*is read as Windows-1252")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_csv_dialects_of_spreadsheet_programs_are_read(tmp_path, encoding, delimiter, line_end):
    touch(tmp_path, "Möwe.wav", "b.wav")
    lines = ["Fname; LABELS ;Start;END;;", '"Möwe.wav";"Möwe, Wind";0,5;1,5;;', ";;;;;", "", "b.wav; Wind ;;;;", ""]
    if delimiter == ",":
        lines = [line.replace("0,5", '"0,5"').replace("1,5", '"1,5"') for line in lines]
    table = write(tmp_path / "clips.csv", line_end.join(lines).replace(";", delimiter), encoding)
    assert read_manifest(table).clips == (
        Clip(tmp_path / "Möwe.wav", "Möwe.wav", ("Möwe", "Wind"), None, None, 0.5, 1.5, 2),
        Clip(tmp_path / "b.wav", "b.wav", ("Wind",), None, None, 0.0, None, 5),
    )


def test_spaces_stray_commas_and_repetitions_in_labels_are_ignored(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", 'fname, labels\na.wav, " Bark ,, Run,Bark,"\n')
    assert tags(read_manifest(table)) == {"a.wav": ("Bark", "Run")}


def test_line_numbers_are_right_after_line_breaks_in_quotes(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "clips.csv", 'fname,labels,note\na.wav,x,"two\nlines"\n\nb.wav,x,"three\n\nlines"\n')
    assert [clip.line for clip in read_manifest(table).clips] == [2, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the table is empty"),
        ("fname,labels\n", "no clips; expected one line per clip"),
        ("name,tags\na.wav,x\n", r"no column with file names; expected fname.*The columns are name, tags"),
        ("Datei,labels\na.wav,x\n", r"The columns are Datei, labels; rename the one with the file names to fname"),
        ("fname\na.wav\n", "no labels; expected a column labels, or a column of 0 and 1"),
        ("fname,labels,labels\na.wav,x,y\n", "line 1: duplicate columns: labels"),
        (
            "fname,labels\na.wav,x\n\na.wav,x,y\n",
            "line 4: the line has 3 fields, but the header has 2 columns.*put quotes",
        ),
        ("fname,labels\na.wav\n", "line 2: the line has 1 fields, but the header has 2 columns"),
        ('fname,labels\na.wav,x\na.wav,"x\n', "line 3: .*is a closing quote missing"),
        ("fname,labels\n,x\n", "line 2: the file name is empty"),
        ("fname,labels,start,end\na.wav,x,zero,1\n", "line 2: start is 'zero'; expected seconds, 0 or more"),
        ("fname,labels,start,end\na.wav,x,-1,1\n", "line 2: start is '-1'; expected seconds"),
        ("fname,labels,start,end\na.wav,x,0,nan\n", "line 2: end is 'nan'; expected seconds"),
        ("fname,labels,start,end\na.wav,x,2,2\n", "line 2: a.wav ends at 2 s but starts at 2 s"),
        ("fname,labels,end\na.wav,x,0\n", "line 2: a.wav ends at 0 s but starts at 0 s"),
    ],
)
def test_malformed_table_is_an_error_with_its_line(tmp_path, text, message):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", text)
    with pytest.raises(DataError, match=rf"clips\.csv.*{message}"):
        read_manifest(table)


def test_duplicate_clip_is_an_error_with_both_lines(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(
        tmp_path / "clips.csv",
        "fname,labels,start,end\na.wav,x,0,1\na.wav,x,1,2\nb.wav,x,,\n.\\a.wav,y,0,1\nb.wav,x,,\n",
    )
    with pytest.raises(DataError, match=r"clips are listed more than once: .*lines 2 and 5.*b\.wav in lines 4 and 6"):
        read_manifest(table)


def test_unknown_label_is_an_error_with_its_line_and_a_suggestion(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "clips.csv", "fname,labels\na.wav,Bark\nb.wav,Brak\n")
    with pytest.raises(DataError, match=r"clips.csv, line 3: unknown label 'Brak'; did you mean 'Bark'\?"):
        read_manifest(table, labels=LabelSet(("Run", "Bark")))


@pytest.mark.parametrize("label", ["low\x1b[2J", "low\x0bhigh", "low\x7f"])
def test_label_that_a_model_could_not_store_is_an_error(tmp_path, label):
    (tmp_path / "low.wav").touch()
    (tmp_path / "clips.csv").write_text(f"fname,labels\nlow.wav,{label}\n")
    with pytest.raises(DataError, match=r"clips.csv: the label 'low.* contains a control character"):
        read_manifest(tmp_path / "clips.csv")


def test_given_labels_keep_their_order(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", "fname,Bark\na.wav,1\n")
    manifest = read_manifest(table, labels=LabelSet(("Run", "Bark")))
    assert manifest.multi_hot().tolist() == [[False, True]]


def test_any_column_can_contain_the_groups(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", "fname,labels,fold,source\na.wav,x,1,100032\n")
    assert read_manifest(table, group_column="Source").clips[0].group == "100032"
    with pytest.raises(DataError, match=r"no column 'sorce' for groups.*fold, source; did you mean 'source'"):
        read_manifest(table, group_column="sorce")


def test_a_group_column_needs_a_table(tmp_path):
    touch(tmp_path, "Bark/a.wav")
    with pytest.raises(DataError, match="a folder has no column 'site' for groups"):
        read_manifest(tmp_path, group_column="site")


def test_mixing_images_and_sounds_is_an_error(tmp_path):
    touch(tmp_path, "a.wav", "b.png")
    manifest = read_manifest(write(tmp_path / "clips.csv", "fname,labels\na.wav,x\nb.png,x\n"))
    with pytest.raises(DataError, match=r"1 of 2 clips are images \(b\.png\), the others are sounds"):
        _ = manifest.holds_images


def test_error_for_a_missing_manifest_suggests_a_similar_name(tmp_path):
    touch(tmp_path, "train_curated.csv")
    with pytest.raises(
        DataError, match=r"train_curatd\.csv: no such file or folder; did you mean 'train_curated\.csv'"
    ):
        read_manifest(tmp_path / "train_curatd.csv")


def test_sound_or_workbook_as_manifest_is_an_error(tmp_path):
    (tmp_path / "clips.xlsx").write_bytes(b"PK\x03\x04\x14\x00\x06\x00")
    with pytest.raises(DataError, match=r"clips\.xlsx: the file is not text; expected a CSV"):
        read_manifest(tmp_path / "clips.xlsx")


# ---------------------------------------------------------------------------------------------- writing multi-hot CSVs


def test_written_multi_hot_csv_has_the_format_of_image_labels(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", 'fname,labels\na.wav,"Bark,Run"\nb.wav,\n'))
    write_multi_hot(tmp_path / "image_labels.csv", manifest, ["a.png", "b.png"])
    assert (tmp_path / "image_labels.csv").read_text() == "fname,Bark,Run\na.png,1,1\nb.png,0,0\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "b.wav", "clips.csv", "image_labels.csv"]


def test_multi_hot_csv_needs_unique_names(tmp_path):
    touch(tmp_path, "a.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", "fname,labels,start,end\na.wav,x,0,1\na.wav,x,1,2\n"))
    with pytest.raises(DataError, match=r"a multi-hot CSV needs unique names, but several clips are a\.wav"):
        write_multi_hot(tmp_path / "hot.csv", manifest)


def test_label_with_a_reserved_name_is_not_written_to_a_multi_hot_csv(tmp_path):
    touch(tmp_path, "a.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", "fname,labels\na.wav,Group\n"))
    with pytest.raises(DataError, match="a column called Group would not be read as a label"):
        write_multi_hot(tmp_path / "hot.csv", manifest)


def test_failed_write_of_a_multi_hot_csv_leaves_no_file(tmp_path):
    touch(tmp_path, "a.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", "fname,labels\na.wav,x\n"))
    with pytest.raises(DataError, match="can't be written"):
        write_multi_hot(tmp_path / "a.wav" / "hot.csv", manifest)
    with pytest.raises(ValueError, match="a name for each of the 1 clips, got 2"):
        write_multi_hot(tmp_path / "hot.csv", manifest, ["a.png", "b.png"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "clips.csv"]


label_names = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12).filter(is_label_column)


label_lists = st.lists(label_names, min_size=1, max_size=6, unique=True).filter(lambda names: not similar_labels(names))


@given(names=label_lists, seed=st.integers(0, 2**32 - 1))
def test_multi_hot_csv_survives_a_round_trip(tmp_path_factory, names, seed):
    folder = tmp_path_factory.mktemp("hot")
    y_true = np.random.default_rng(seed).random((3, len(names))) < 0.5
    fnames = [f"{row}.wav" for row in range(3)]
    touch(folder, *fnames)
    clips = tuple(
        Clip(folder / fname, fname, tuple(name for name, hot in zip(names, row, strict=True) if hot))
        for fname, row in zip(fnames, y_true, strict=True)
    )
    write_multi_hot(folder / "hot.csv", Manifest(folder, clips, LabelSet(tuple(names))))
    manifest = read_manifest(folder / "hot.csv")
    assert manifest.labels.names == tuple(names)
    np.testing.assert_array_equal(manifest.multi_hot(), y_true)


def test_groups_are_connected_components_of_files_and_groups(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = ["a.wav,x,yard,0,1", "a.wav,x,,1,2", "b.wav,x,yard,,", "c.wav,x,,,"]
    groups = read_manifest(write(tmp_path / "m.csv", "\n".join(["fname,labels,group,start,end", *rows]))).groups
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_multi_hot_csv_keeps_folds_and_groups(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    rows = ["a.wav,x,1,yard", "b.wav,y,1,yard", "c.wav,x,2,"]
    manifest = read_manifest(write(tmp_path / "m.csv", "\n".join(["fname,labels,fold,group", *rows])))
    write_multi_hot(tmp_path / "hot.csv", manifest)
    again = read_manifest(tmp_path / "hot.csv")
    assert again.folds == manifest.folds
    assert again.groups[0] == again.groups[1] != again.groups[2]
    assert again.labels == manifest.labels


def test_tab_separated_table_with_times_is_not_a_label_track(tmp_path):
    touch(tmp_path, "a.wav")
    path = write(tmp_path / "m.txt", "start\tend\tfname\tlabels\n0\t1\ta.wav\tx\n")
    (clip,) = read_manifest(path).clips
    assert (clip.fname, clip.labels, clip.end_seconds) == ("a.wav", ("x",), 1.0)


def test_clips_are_excluded_by_name(tmp_path):
    touch(tmp_path, "a.wav", "b.wav", "c.d.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", "fname,labels\na.wav,x\nb.wav,y\nc.d.wav,x\n"))
    assert [clip.fname for clip in manifest.without(["a", "c.d.wav", "unknown"]).clips] == ["b.wav"]
    assert manifest.without(["b"]).labels == manifest.labels
    with pytest.raises(DataError, match="all 3 clips are excluded"):
        manifest.without(["a", "b", "c.d"])


# ---------------------------------------------------------------------------------------- weights and unknown labels


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "fname,labels,weight\na.wav,Bark,0.5\nb.wav,Run,\nc.wav,Run,0\n"),
        ("utf-8-sig", "fname;labels;weight\r\na.wav;Bark;0,5\r\nb.wav;Run;\r\nc.wav;Run;0\r\n"),  # a German Excel
        ("utf-16", "fname\tlabels\tWeight\r\na.wav\tBark\t0.5\r\nb.wav\tRun\t\r\nc.wav\tRun\t0\r\n"),
        ("utf-8", "fname,weight,Bark,Run\na.wav,0.5,1,0\nb.wav,,0,1\nc.wav,0,0,1\n"),
    ],
)
def test_weights_are_read(tmp_path, encoding, text):
    touch(tmp_path, "a.wav", "b.wav", "c.wav")
    manifest = read_manifest(write(tmp_path / "clips.csv", text, encoding))
    assert manifest.weights.tolist() == [0.5, 1.0, 0.0]
    assert manifest.labels.names == ("Bark", "Run")


@pytest.mark.parametrize("weight", ["-1", "101", "nan", "inf", "heavy"])
def test_bad_weight_is_an_error_with_its_line(tmp_path, weight):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", f"fname,labels,weight\na.wav,Bark,{weight}\n")
    with pytest.raises(DataError, match=rf"clips\.csv, line 2: weight is '{weight}'; expected .* from 0 .* to 100"):
        read_manifest(table)


def test_a_weight_of_0_for_every_clip_is_an_error(tmp_path):
    touch(tmp_path, "a.wav")
    with pytest.raises(DataError, match="the weight of every clip is 0"):
        read_manifest(write(tmp_path / "clips.csv", "fname,labels,weight\na.wav,Bark,0\n"))


def test_a_column_lists_the_unknown_labels(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    text = 'fname,labels,unknown\na.wav,Bark,"Run,Owl"\nb.wav,Run,\n'
    manifest = read_manifest(write(tmp_path / "clips.csv", text))
    assert manifest.labels.names == ("Bark", "Run")  # no clip has an owl
    assert [clip.unknown for clip in manifest.clips] == [("Run", "Owl"), ()]
    np.testing.assert_array_equal(manifest.targets(), [[1, np.nan], [0, 1]])
    assert manifest.multi_hot().tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("cell", ["", "?", "nan", "NaN", "-1", "-1.0"])
def test_an_empty_cell_of_a_multi_hot_csv_is_an_unknown_label(tmp_path, cell):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "clips.csv", f"fname,Bark,Run\na.wav,1,{cell}\nb.wav,0,1\n")
    manifest = read_manifest(table)
    np.testing.assert_array_equal(manifest.targets(), [[1, np.nan], [0, 1]])


def test_a_multi_hot_csv_without_a_0_is_an_error(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "clips.csv", "fname,Bark,Run\na.wav,1,\nb.wav,,1\n")
    with pytest.raises(DataError, match=r"2 cells are empty, and none is 0.*write 0 where it is not"):
        read_manifest(table)


def test_a_column_called_unknown_is_a_label_of_a_multi_hot_csv(tmp_path):
    touch(tmp_path, "a.wav")
    assert tags(read_manifest(write(tmp_path / "clips.csv", "fname,yes,unknown\na.wav,0,1\n"))) == {
        "a.wav": ("unknown",)
    }


def test_a_label_cannot_be_true_and_unknown(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", "fname,labels,unknown\na.wav,Bark,Bark\n")
    with pytest.raises(DataError, match="line 2: 'Bark' is a label of the clip, and unknown"):
        read_manifest(table)


def test_an_unknown_label_must_be_one_of_the_given_labels(tmp_path):
    touch(tmp_path, "a.wav")
    table = write(tmp_path / "clips.csv", "fname,labels,unknown\na.wav,Bark,Rnu\n")
    with pytest.raises(DataError, match="line 2: unknown label 'Rnu'; did you mean 'Run'"):
        read_manifest(table, labels=LabelSet(("Bark", "Run")))


def test_written_multi_hot_csv_keeps_weights_and_unknown_labels(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    table = write(tmp_path / "clips.csv", "fname,labels,unknown,weight\na.wav,Bark,Run,2.5\nb.wav,Run,,\n")
    manifest = read_manifest(table)
    write_multi_hot(tmp_path / "out.csv", manifest)
    assert (tmp_path / "out.csv").read_text() == "fname,weight,Bark,Run\na.wav,2.5,1,\nb.wav,1,0,1\n"
    again = read_manifest(tmp_path / "out.csv")
    np.testing.assert_array_equal(again.targets(), manifest.targets())
    assert again.weights.tolist() == manifest.weights.tolist()
