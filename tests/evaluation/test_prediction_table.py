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


def make_manifest(folder, text="träne 1.wav,low\nb/zwei.wav,high\nc.wav,\n", columns="fname,labels"):
    (folder / "clips.csv").write_text(f"{columns}\n{text}", encoding="utf-8")
    return read_manifest(folder / "clips.csv")


def write(folder, text, name="table.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_rows_in_any_order_are_matched_with_the_clips(folder):
    table = write(folder, "fname,high,low\nc.wav,0.1,0.2\nträne 1.wav,0.3,0.4\nb/zwei.wav,0.5,0.6\n")
    predictions = read_predictions(table, make_manifest(folder))
    assert predictions.labels.names == ("high", "low")
    np.testing.assert_array_equal(predictions.probabilities, np.float32([[0.3, 0.4], [0.5, 0.6], [0.1, 0.2]]))
    assert predictions.y_true.tolist() == [[False, True], [True, False], [False, False]]
    assert [clip.fname for clip in predictions.clips] == list(CLIPS)
    assert set(predictions.origins) == {"table"}
    assert predictions.durations == pytest.approx([0.5, 0.6, 0.7], abs=0.001)
    assert predictions.skipped == ()
    assert predictions.probabilities.dtype == predictions.thresholds.dtype == np.float32


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
def test_tables_in_many_formats_are_read(folder, header, rows):
    predictions = read_predictions(write(folder, f"{header}\n{rows}\n"), make_manifest(folder))
    assert predictions.labels.names == ("high", "low")
    np.testing.assert_array_equal(predictions.probabilities, np.float32([[0.3, 0.4], [0.5, 0.6]]))
    assert [(clip.fname, reason) for clip, reason in predictions.skipped] == [
        ("c.wav", "c.wav: table.csv has no row for it")
    ]


def test_semicolon_tables_may_have_commas_in_labels_and_numbers(folder):
    text = 'fname;"Regen, stark";"key (label)";"Bell (label)"\nc.wav;0,25;1;0,5\nzwei.wav;1e-3;0;0\n'
    table = folder / "excel.csv"
    table.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    predictions = read_predictions(table, make_manifest(folder))
    assert predictions.labels.names == ("Regen, stark", "key", "Bell (label)")
    np.testing.assert_array_equal(predictions.probabilities, np.float32([[0.001, 0, 0], [0.25, 1, 0.5]]))


def test_row_belongs_to_the_clip_with_its_path(folder):
    write_audio(folder / "a/zwei.wav", tone("low", 0.6), 16_000)
    write_audio(folder / "zwei.wav", tone("low", 0.6), 16_000)
    manifest = make_manifest(folder, "a/zwei.wav,low\nb/zwei.wav,high\nzwei.wav,low\n")
    predictions = read_predictions(write(folder, "fname,low\nb/zwei.wav,0.2\nzwei.wav,0.3\n"), manifest)
    assert [clip.fname for clip in predictions.clips] == ["b/zwei.wav", "zwei.wav"]
    assert predictions.probabilities[:, 0].tolist() == pytest.approx([0.2, 0.3])
    with pytest.raises(DataError, match=r"table.csv: zwei may be a/zwei.wav or b/zwei.wav; add its folder"):
        read_predictions(write(folder, "fname,low\nzwei,0.2\n"), manifest)


def test_parquet_may_have_lists_of_labels_and_nulls(folder):
    columns = {
        "fname": list(CLIPS),
        "start": pa.array([0.0, None, None], pa.float64()),
        "labels": [["low"], ["high"], []],
        "duration": [0.5, 0.6, 0.7],
        "note": ["text is not a label", "", ""],
        "low": pa.array([0.4, 0.6, None], pa.float32()),
        "high": pa.array([0.3, 0.5, None], pa.float32()),
    }
    parquet.write_table(pa.table(columns), folder / "table.parquet")
    predictions = read_predictions(folder / "table.parquet", make_manifest(folder))
    assert predictions.labels.names == ("low", "high")
    np.testing.assert_array_equal(predictions.probabilities, np.float32([[0.4, 0.3], [0.6, 0.5]]))


def test_clips_without_values_are_ignored_but_not_skipped(folder):
    messages = []
    table = write(folder, "fname,fold,low,high\nträne 1.wav,1,0.4,0.3\nb/zwei.wav,,,\nc.wav,,,\nother.wav,1,0.1,0.1\n")
    predictions = read_predictions(table, make_manifest(folder), log=messages.append)
    assert [clip.fname for clip in predictions.clips] == ["träne 1.wav"]
    assert predictions.skipped == ()
    assert messages == [
        "table.csv: 2 clips have no values and are ignored",
        "table.csv: 1 rows are for clips that are not in clips.csv",
    ]


def test_excerpts_of_one_file_get_their_own_rows(folder):
    manifest = make_manifest(
        folder, "c.wav,low,0,0.3\nc.wav,high,0.3,\nb/zwei.wav,low,,\n", columns="fname,labels,start,end"
    )
    table = write(folder, "file,start,end,low,high\nc.wav,0.3,0.7,0.1,0.9\nc.wav,0,0.3,0.8,0.2\nzwei.wav,0,,0.5,0.6\n")
    predictions = read_predictions(table, manifest)
    np.testing.assert_array_equal(predictions.probabilities, np.float32([[0.8, 0.2], [0.1, 0.9], [0.5, 0.6]]))
    assert predictions.durations == pytest.approx([0.3, 0.4, 0.6], abs=0.001)


def test_windows_are_not_predictions_for_the_whole_recording(folder):
    table = write(folder, "file,start,end,low,high\nc.wav,0,0.3,0.8,0.2\nc.wav,0.3,0.7,0.1,0.9\nträne 1.wav,0,,1,0\n")
    predictions = read_predictions(table, make_manifest(folder))
    assert [clip.fname for clip, _ in predictions.skipped] == ["b/zwei.wav", "c.wav"]


def test_logits_are_converted_and_logged(folder):
    messages = []
    table = write(folder, "fname,low,high\nträne 1.wav,0,2\nc.wav,-2,30\n")
    predictions = read_predictions(table, make_manifest(folder), log=messages.append)
    np.testing.assert_allclose(predictions.probabilities, [[0.5, 0.8808], [0.1192, 1]], atol=1e-4)
    assert messages == ["table.csv: the values are not from 0 to 1, so they are read as logits"]


def test_thresholds_of_a_recording_are_fitted_on_other_recordings(tmp_path):
    """The scores of recording 0 are half as high, so its fitted threshold differs from that of the others."""
    names = [f"{number:02}.wav" for number in range(24)]
    for name in names:
        write_audio(tmp_path / name, tone("low", 0.05), 16_000)
    rows = [f"{name},{'low' if number % 2 else ''},{number % 3}" for number, name in enumerate(names)]
    manifest = make_manifest(tmp_path, "\n".join(rows), columns="fname,labels,group")
    scale = [0.2 if number % 3 == 0 else 0.4 for number in range(24)]
    values = [f"{name},{scale[number] * (1 + number % 2)}" for number, name in enumerate(names)]
    predictions = read_predictions(write(tmp_path, "fname,low\n" + "\n".join(values)), manifest)
    lowest = {clip.group: predictions.thresholds[row, 0] for row, clip in enumerate(predictions.clips)}
    assert lowest["0"] == pytest.approx(0.6), "fitted on the recordings with 0.4 and 0.8"
    assert lowest["1"] == lowest["2"] != lowest["0"]


def test_single_recording_gets_the_default_threshold(folder):
    predictions = read_predictions(write(folder, "fname,low,high\nc.wav,0.1,0.2\n"), make_manifest(folder))
    np.testing.assert_array_equal(predictions.thresholds, [[0.5, 0.5]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fname,low,high\nx.wav,0.1,0.2\n",
            "the table has none of the 3 clips of .*clips.csv; it contains x.wav, the manifest",
        ),
        ("fname,low,high\nc.wav,,\n", "the table has no values for the clips of .*clips.csv"),
        ("fname,low,high\nc.wav,0.1,zero\n", "table.csv, line 2: 'zero' in column 'high' is not a number"),
        ("fname,low,high\nc.wav,0.1,\n", "c.wav has no value for 'high'"),
        ("fname,low,high\nc.wav,0.1,inf\n", "c.wav has infinity for 'high'"),
        ("fname,low,high\nc.wav,0.1,0\nc.wav,0.2,0\n", "2 rows for c.wav; each clip needs one"),
        ("fname,low,high\nc.wav,20,97\n", "values from 20 to 97 are neither probabilities.*divide percentages by 100"),
        ("fname,labels\nc.wav,low\n", "no columns of probabilities.*The columns are fname, labels"),
        ("fname,low,high\n", "the table has no rows"),
        ("", "the table is empty"),
    ],
)
def test_invalid_table_is_an_error(folder, text, message):
    with pytest.raises(DataError, match=message):
        read_predictions(write(folder, text), make_manifest(folder))


def test_missing_or_unreadable_file_is_an_error(folder):
    with pytest.raises(DataError, match=r"nowhere.csv: no such file"):
        read_predictions(folder / "nowhere.csv", make_manifest(folder))
    with pytest.raises(DataError, match=r"p.parquet: cannot be read as Parquet"):
        read_predictions(write(folder, "fname,low", "p.parquet"), make_manifest(folder))


@pytest.mark.parametrize("name", ["p.csv", "p.TSV", "x/p.parquet"])
def test_tables_are_recognised_by_their_suffix(name):
    assert is_table(name)


def test_folder_is_not_a_table(tmp_path):
    (tmp_path / "model.csv").mkdir()
    assert not is_table(tmp_path / "model.csv")
    assert not is_table("mn04_audioset")
