import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from helpers.bundles import tone
from spectag.audio.files import write_audio
from spectag.data.manifest import read_manifest
from spectag.errors import DataError
from spectag.evaluation.prediction_table import is_table, read_predictions

CLIPS = ("träne 1.wav", "b/zwei.wav", "c.wav")


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(CLIPS):
        write_audio(tmp_path / name, tone("low", 0.5 + number / 10), 16_000)
    return tmp_path


def made_manifest(folder, text="träne 1.wav,low\nb/zwei.wav,high\nc.wav,\n", columns="fname,labels"):
    (folder / "clips.csv").write_text(f"{columns}\n{text}", encoding="utf-8")
    return read_manifest(folder / "clips.csv")


def written(folder, text, name="table.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_submission_in_any_order_of_rows_is_laid_beside_the_clips(folder):
    table = written(folder, "fname,high,low\nc.wav,0.1,0.2\nträne 1.wav,0.3,0.4\nb/zwei.wav,0.5,0.6\n")
    said = read_predictions(table, made_manifest(folder))
    assert said.labels.names == ("high", "low")
    np.testing.assert_array_equal(said.probabilities, np.float32([[0.3, 0.4], [0.5, 0.6], [0.1, 0.2]]))
    assert said.y_true.tolist() == [[False, True], [True, False], [False, False]]
    assert [clip.fname for clip in said.clips] == list(CLIPS)
    assert set(said.origins) == {"given"}
    assert said.durations == pytest.approx([0.5, 0.6, 0.7], abs=0.001)
    assert said.skipped == ()
    assert said.probabilities.dtype == said.thresholds.dtype == np.float32


@pytest.mark.parametrize(
    ("header", "rows"),
    [
        ("file,start_time,end_time,high,low", "x/träne 1.wav,0.0,0.5,0.3,0.4\nx/b/zwei.wav,0.0,0.6,0.5,0.6"),
        ("fname\tstart\tend\thigh\tlow", "träne 1\t\t\t0.3\t0.4\nzwei\t\t\t0.5\t0.6"),
        ("filename;high;low;fold;group;labels;key", "träne 1.wav;0.3;0.4;1;a;low;00\nb\\zwei.wav;0.5;0.6;2;b;high;01"),
        (",fname,high,low", "0,träne 1.wav,0.3,0.4\n1,zwei.wav,0.5,0.6"),
        ("audio,high,low", "träne 1.wav,0.3,0.4\nb/zwei.wav,0.5,0.6"),
    ],
    ids=[
        "spectag tag --format wide",
        "tabs, no suffixes",
        "semicolons, columns of clips",
        "pandas",
        "unknown name column",
    ],
)
def test_tables_of_many_kinds_say_the_same(folder, header, rows):
    said = read_predictions(written(folder, f"{header}\n{rows}\n"), made_manifest(folder))
    assert said.labels.names == ("high", "low")
    np.testing.assert_array_equal(said.probabilities, np.float32([[0.3, 0.4], [0.5, 0.6]]))
    assert [(clip.fname, reason) for clip, reason in said.skipped] == [("c.wav", "c.wav: table.csv has no row for it")]


def test_labels_with_commas_and_numbers_with_them_are_read_from_semicolons(folder):
    text = 'fname;"Regen, stark";"key (label)";"Bell (label)"\nc.wav;0,25;1;0,5\nzwei.wav;1e-3;0;0\n'
    table = folder / "excel.csv"
    table.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    said = read_predictions(table, made_manifest(folder))
    assert said.labels.names == ("Regen, stark", "key", "Bell (label)")
    np.testing.assert_array_equal(said.probabilities, np.float32([[0.001, 0, 0], [0.25, 1, 0.5]]))


def test_a_row_is_of_no_other_clip_of_its_name(folder):
    write_audio(folder / "a/zwei.wav", tone("low", 0.6), 16_000)
    write_audio(folder / "zwei.wav", tone("low", 0.6), 16_000)
    manifest = made_manifest(folder, "a/zwei.wav,low\nb/zwei.wav,high\nzwei.wav,low\n")
    said = read_predictions(written(folder, "fname,low\nb/zwei.wav,0.2\nzwei.wav,0.3\n"), manifest)
    assert [clip.fname for clip in said.clips] == ["b/zwei.wav", "zwei.wav"]
    assert said.probabilities[:, 0].tolist() == pytest.approx([0.2, 0.3])
    with pytest.raises(DataError, match=r"table.csv: zwei may be a/zwei.wav or b/zwei.wav; name its folder"):
        read_predictions(written(folder, "fname,low\nzwei,0.2\n"), manifest)


def test_parquet_is_read_with_lists_of_labels_and_nulls_beside(folder):
    columns = {
        "fname": list(CLIPS),
        "start": pa.array([0.0, None, None], pa.float64()),
        "labels": [["low"], ["high"], []],
        "duration": [0.5, 0.6, 0.7],
        "note": ["text is no label", "", ""],
        "low": pa.array([0.4, 0.6, None], pa.float32()),
        "high": pa.array([0.3, 0.5, None], pa.float32()),
    }
    parquet.write_table(pa.table(columns), folder / "table.parquet")
    said = read_predictions(folder / "table.parquet", made_manifest(folder))
    assert said.labels.names == ("low", "high")
    np.testing.assert_array_equal(said.probabilities, np.float32([[0.4, 0.3], [0.6, 0.5]]))


def test_clips_that_training_never_held_out_do_not_count_and_are_not_skipped(folder):
    news = []
    table = written(
        folder, "fname,fold,low,high\nträne 1.wav,1,0.4,0.3\nb/zwei.wav,,,\nc.wav,,,\nother.wav,1,0.1,0.1\n"
    )
    said = read_predictions(table, made_manifest(folder), log=news.append)
    assert [clip.fname for clip in said.clips] == ["träne 1.wav"]
    assert said.skipped == ()
    assert news == [
        "table.csv: 2 clips have no values and do not count",
        "table.csv: 1 rows are of clips that clips.csv does not have",
    ]


def test_stretches_of_one_file_get_their_own_rows(folder):
    manifest = made_manifest(
        folder, "c.wav,low,0,0.3\nc.wav,high,0.3,\nb/zwei.wav,low,,\n", columns="fname,labels,start,end"
    )
    table = written(
        folder, "file,start,end,low,high\nc.wav,0.3,0.7,0.1,0.9\nc.wav,0,0.3,0.8,0.2\nzwei.wav,0,,0.5,0.6\n"
    )
    said = read_predictions(table, manifest)
    np.testing.assert_array_equal(said.probabilities, np.float32([[0.8, 0.2], [0.1, 0.9], [0.5, 0.6]]))
    assert said.durations == pytest.approx([0.3, 0.4, 0.6], abs=0.001)


def test_windows_do_not_stand_for_the_whole_recording(folder):
    table = written(folder, "file,start,end,low,high\nc.wav,0,0.3,0.8,0.2\nc.wav,0.3,0.7,0.1,0.9\nträne 1.wav,0,,1,0\n")
    said = read_predictions(table, made_manifest(folder))
    assert [clip.fname for clip, _ in said.skipped] == ["b/zwei.wav", "c.wav"]


def test_logits_are_understood_and_told_of(folder):
    news = []
    table = written(folder, "fname,low,high\nträne 1.wav,0,2\nc.wav,-2,30\n")
    said = read_predictions(table, made_manifest(folder), log=news.append)
    np.testing.assert_allclose(said.probabilities, [[0.5, 0.8808], [0.1192, 1]], atol=1e-4)
    assert news == ["table.csv: the values are not from 0 to 1, so they are taken for logits"]


def test_thresholds_come_from_other_parts_than_the_clip_and_keep_recordings_together(tmp_path):
    """A part whose scores are twice as high has the threshold of the others, and these have its."""
    names = [f"{number:02}.wav" for number in range(24)]
    for name in names:
        write_audio(tmp_path / name, tone("low", 0.05), 16_000)
    rows = [f"{name},{'low' if number % 2 else ''},{number % 3}" for number, name in enumerate(names)]
    manifest = made_manifest(tmp_path, "\n".join(rows), columns="fname,labels,fold")
    scale = [0.2 if number % 3 == 0 else 0.4 for number in range(24)]
    values = [f"{name},{scale[number] * (1 + number % 2)}" for number, name in enumerate(names)]
    said = read_predictions(written(tmp_path, "fname,low\n" + "\n".join(values)), manifest)
    lowest = {clip.fold: said.thresholds[row, 0] for row, clip in enumerate(said.clips)}
    assert lowest["0"] == pytest.approx(0.6), "fitted on the parts with 0.4 and 0.8"
    assert lowest["1"] == lowest["2"] != lowest["0"]


def test_one_recording_alone_gives_the_default_threshold(folder):
    said = read_predictions(written(folder, "fname,low,high\nc.wav,0.1,0.2\n"), made_manifest(folder))
    np.testing.assert_array_equal(said.thresholds, [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "fname,low,high\nx.wav,0.1,0.2\n",
            "none of the 3 clips of .*clips.csv is in it; it names x.wav, the manifest",
        ),
        ("fname,low,high\nc.wav,,\n", "none of the clips of .*clips.csv has values"),
        ("fname,low,high\nc.wav,0.1,zero\n", "table.csv, line 2: the column 'high' holds 'zero'; expected a number"),
        ("fname,low,high\nc.wav,0.1,\n", "c.wav has no value for 'high'"),
        ("fname,low,high\nc.wav,0.1,inf\n", "c.wav has infinity for 'high'"),
        ("fname,low,high\nc.wav,0.1,0\nc.wav,0.2,0\n", "has 2 rows for c.wav; each clip needs one"),
        ("fname,low,high\nc.wav,20,97\n", "values from 20 to 97 are neither probabilities.*divide percents by 100"),
        ("fname,labels\nc.wav,low\n", "no columns of probabilities.*The columns are fname, labels"),
        ("fname,low,high\n", "the table has no rows"),
        ("", "the table is empty"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(folder, text, words):
    with pytest.raises(DataError, match=words):
        read_predictions(written(folder, text), made_manifest(folder))


def test_a_table_that_is_not_there_or_not_parquet_is_told(folder):
    with pytest.raises(DataError, match=r"nowhere.csv: no such file"):
        read_predictions(folder / "nowhere.csv", made_manifest(folder))
    with pytest.raises(DataError, match=r"p.parquet: can't be read as Parquet"):
        read_predictions(written(folder, "fname,low", "p.parquet"), made_manifest(folder))


@pytest.mark.parametrize("name", ["p.csv", "p.TSV", "x/p.parquet"])
def test_tables_are_known_by_their_suffix(name):
    assert is_table(name)


def test_a_folder_is_no_table_whatever_its_name(tmp_path):
    (tmp_path / "model.csv").mkdir()
    assert not is_table(tmp_path / "model.csv")
    assert not is_table("mn04_audioset")
