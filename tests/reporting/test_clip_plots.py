import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from helpers.paths import PROJECT
from spectag.audio.files import write_audio
from spectag.audio.mel import compute_log_mel, mel_to_hz
from spectag.audio.spectrogram_image import read_png
from spectag.config.base import MelConfig
from spectag.errors import AudioError, ConfigError, DataError, MissingExtraError
from spectag.reporting.clip_plots import Tile, clip_figure, collage_figure, show, show_log_mel, show_waveform
from spectag.system.epoch_log import Epoch
from spectag.system.figures import save_figure
from spectag.training.curves import draw_learning_curves
from spectag.training.tuning.figures import draw_rate_curve
from spectag.training.tuning.learning_rate_finder import RateCurve

CONFIG = MelConfig(sample_rate=16_000, n_fft=1024, hop_length=256, f_max=8000, ref="max")


def tone(frequency=1000.0, *, n_samples=16_000, sample_rate=16_000):
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(n_samples) / sample_rate)).astype(np.float32)


def clip(waveform, config=CONFIG, title=""):
    return clip_figure(waveform, config.sample_rate, compute_log_mel(waveform, config), config, title=title)


def tile(*labels, n_samples=4000):
    return Tile(labels, f"{n_samples / 16_000:g} s", compute_log_mel(tone(n_samples=n_samples), CONFIG), CONFIG)


def titles(figure):
    return [ax.get_title() for ax in figure.axes]


@pytest.fixture
def ax():
    return Figure().add_subplot()


@pytest.fixture
def manifest(tmp_path):
    """Six clips of several lengths and rates, each with a label of its own."""
    lines = ["fname,labels"]
    for number, (n_samples, sample_rate) in enumerate([(1, 8000), (400, 8000)] + 4 * [(12_000, 44_100)]):
        write_audio(tmp_path / f"clip {number}.wav", tone(n_samples=n_samples), sample_rate)
        lines.append(f"clip {number}.wav,Möwe {number}")
    path = tmp_path / "möwen.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_waveform_and_spectrogram_share_the_time_axis_to_the_pixel():
    figure = clip(tone(n_samples=20_000))
    figure.draw_without_rendering()
    above, below, _ = figure.axes
    assert above.get_position().x0 == pytest.approx(below.get_position().x0, abs=1e-9)
    assert above.get_position().x1 == pytest.approx(below.get_position().x1, abs=1e-9)
    assert above.get_xlim() == below.get_xlim() == (0, 1.25)


def test_axes_have_seconds_hertz_and_decibels():
    above, below, bar = clip(tone(), title="Möwe, $5_a$.wav").axes
    assert above.get_title() == "Möwe, $5_a$.wav"
    assert (above.get_ylabel(), below.get_xlabel(), below.get_ylabel()) == ("Amplitude", "Time (s)", "Frequency (Hz)")
    assert bar.get_ylabel() == "Power (dB, loudest = 0)"


@pytest.mark.parametrize("scale", ["slaney", "htk"])
@pytest.mark.parametrize("frequency", [300.0, 1000.0, 4096.0])
def test_tone_is_brightest_at_its_frequency_on_the_axis(ax, scale, frequency):
    config = CONFIG.model_copy(update={"mel_scale": scale, "n_mels": 64})
    image = show_log_mel(compute_log_mel(tone(frequency), config), config, ax=ax)
    _, _, bottom, top = image.get_extent()
    centers = bottom + (np.arange(64) + 0.5) * (top - bottom) / 64
    brightest = mel_to_hz(centers[image.get_array().mean(axis=1).argmax()], config)
    assert brightest == pytest.approx(frequency, rel=0.1)


def test_click_is_drawn_at_its_time(ax):
    waveform = np.zeros(16_000, np.float32)
    waveform[8000] = 1
    config = CONFIG.model_copy(update={"hop_length": 80})
    image = show_log_mel(compute_log_mel(waveform, config), config, ax=ax)
    left, right, _, _ = image.get_extent()
    columns = image.get_array().sum(axis=0)
    assert left + (columns.argmax() + 0.5) * (right - left) / len(columns) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("sample_rate", [8000, 16_000, 44_100, 192_000])
def test_frequency_ticks_are_octaves_that_do_not_touch(ax, sample_rate):
    config = MelConfig(sample_rate=sample_rate, n_fft=8192, f_max=sample_rate / 2)
    show_log_mel(np.zeros((128, 10), np.float32), config, ax=ax)
    ticks = [float(label.get_text().replace("k", "e3")) for label in ax.get_yticklabels()]
    low, high = ax.get_ylim()
    assert len(ticks) >= 4
    assert all(above == 2 * below for above, below in pairwise(ticks))
    assert np.abs(np.diff(ax.get_yticks())).min() >= 0.08 * (
        high - low
    )  # height of a number in a panel of spectag explain


def test_values_are_drawn_without_the_scaling_for_a_network(ax):
    plain = MelConfig(log="ln", top_db=None)
    scaled = plain.model_copy(update={"mean": -4.5, "std": 5.0})
    waveform = tone(sample_rate=32_000)
    image = show_log_mel(compute_log_mel(waveform, scaled), scaled, ax=ax)
    np.testing.assert_allclose(image.get_array(), compute_log_mel(waveform, plain), atol=1e-4)


def test_silence_is_dark(ax):
    image = show_log_mel(np.full((128, 10), -100, np.float32), CONFIG, ax=ax)
    assert image.get_clim() == (-100, -99)


@pytest.mark.parametrize("n_samples", [1, 50, 3999, 100_000])
def test_waveform_of_any_length_is_drawn_with_its_peaks(ax, n_samples):
    waveform = np.zeros(n_samples, np.float32)
    waveform[n_samples // 2] = -0.8
    drawn = show_waveform(waveform, 16_000, ax=ax)
    heights = drawn.get_ydata() if n_samples < 4000 else drawn.get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(-0.8)
    assert ax.get_ylim() == pytest.approx((-0.84, 0.84))


def test_labels_are_above_their_tiles_in_at_most_two_lines():
    many = ("Electric guitar", "Bass drum", "Hi-hat", "Male speech and man speaking", "Child speech", "Zipper")
    figure = collage_figure(
        [tile("Möwe"), tile(), tile(*many), tile("A label without end " * 9), tile("$x_2$")], n_rows=2, n_columns=3
    )
    assert titles(figure)[:2] == ["Möwe", "(no label)"]
    assert titles(figure)[2] == "Electric guitar, Bass drum,\nHi-hat +3"
    assert "…" in titles(figure)[3]
    assert titles(figure)[4] == "$x_2$"
    assert max(len(line) for title in titles(figure) for line in title.split("\n")) <= 36


def test_titles_of_a_full_collage_do_not_overlap():
    labels = ("Male speech and man speaking", "Child speech and kid speaking", "Zipper (clothing)")
    figure = collage_figure([tile(*labels, n_samples=100 * (n + 1)) for n in range(16)], n_rows=4, n_columns=4)
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


def test_more_tiles_than_cells_are_refused():
    with pytest.raises(ValueError, match="at most 1 x 2 tiles, got 3"):
        collage_figure([tile()] * 3, n_rows=1, n_columns=2)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".pdf", ".svg"])
def test_saving_a_figure_leaves_no_other_file(tmp_path, suffix):
    path = tmp_path / f"Möwe am Morgen{suffix}"
    save_figure(clip(tone()), path)
    assert path.stat().st_size > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_figure_that_can_not_be_saved_is_an_error_with_the_path(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file.a\.png: the figure can't be written: "):
        save_figure(Figure(), tmp_path / "file" / "a.png")
    with pytest.raises(ConfigError, match=r"a\.bmp: a figure is one of \.jpg, \.pdf, \.png, \.svg"):
        save_figure(Figure(), tmp_path / "a.bmp")


def test_missing_folder_is_created_for_a_figure(tmp_path):
    save_figure(Figure(), tmp_path / "new" / "a.png")
    assert (tmp_path / "new" / "a.png").stat().st_size > 0


@pytest.mark.parametrize(("n_samples", "sample_rate"), [(1, 8000), (1323, 44_100), (60_000, 192_000)])
def test_sound_of_any_length_and_rate_is_shown(tmp_path, n_samples, sample_rate):
    write_audio(tmp_path / "a.wav", tone(n_samples=n_samples), sample_rate)
    path = show(tmp_path / "a.wav", output=tmp_path / "a.png")
    assert path == tmp_path / "a.png"
    assert read_png(path).shape == (750, 1350, 3)


def test_title_of_a_long_recording_names_the_part_shown(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", np.zeros(4000 * 3725, np.float32), 4000)
    figures = []
    monkeypatch.setattr("spectag.reporting.clip_plots.save_figure", lambda figure, path: figures.append(figure))
    show(tmp_path / "a.wav", output=tmp_path / "a.png")
    assert figures[0].axes[0].get_title() == "a.wav   (first 60 s of 1:02:05 h, 4 kHz)"
    assert figures[0].axes[0].get_xlim() == (0, 60)


def test_sound_is_shown_with_given_mel_settings(tmp_path, monkeypatch):
    write_audio(tmp_path / "a.wav", tone(n_samples=44_100, sample_rate=44_100), 44_100)
    figures = []
    monkeypatch.setattr("spectag.reporting.clip_plots.save_figure", lambda figure, path: figures.append(figure))
    show(tmp_path / "a.wav", output=tmp_path / "a.png", mel=CONFIG)
    assert figures[0].axes[0].get_title() == "a.wav   (1 s, 16 kHz)"
    assert figures[0].axes[1].images[0].get_array().shape == (128, 63)


def test_equal_seeds_give_equal_collages(manifest, monkeypatch):
    figures = []
    monkeypatch.setattr("spectag.reporting.clip_plots.save_figure", lambda figure, path: figures.append(figure))
    for seed in (0, 0, 1):
        show(manifest, output="a.png", grid="1x3", seed=seed)
    same, again, other = map(titles, figures)
    assert same == again != other
    assert len(set(same)) == 3


def test_small_manifest_leaves_cells_of_the_grid_empty(manifest, monkeypatch):
    figures = []
    monkeypatch.setattr("spectag.reporting.clip_plots.save_figure", lambda figure, path: figures.append(figure))
    show(manifest, output="a.png")
    assert sorted(titles(figures[0])) == [f"Möwe {number}" for number in range(6)]


def test_manifest_of_images_is_shown_with_its_images(tmp_path, monkeypatch):
    Image.new("L", (30, 20), 100).save(tmp_path / "a.png")
    Image.new("RGB", (30, 20), (0, 0, 255)).save(tmp_path / "b.png")
    (tmp_path / "labels.csv").write_text("fname,Bark,Knock\na.png,1,0\nb.png,0,1\n")
    figures = []
    monkeypatch.setattr("spectag.reporting.clip_plots.save_figure", lambda figure, path: figures.append(figure))
    show(tmp_path / "labels.csv", output=tmp_path / "c.png", grid="1X2")
    assert sorted(titles(figures[0])) == ["Bark", "Knock"]
    assert figures[0].axes[0].get_xlabel() == "30 × 20"


@pytest.mark.parametrize("grid", ["4", "4x", "x4", "0x4", "4x-1", "21x1", "four", "4x4x4", ""])
def test_error_about_a_wrong_grid_shows_the_right_form(manifest, tmp_path, grid):
    with pytest.raises(ConfigError, match=f"of 1 to 20 in the form '4x4', got '{grid}'"):
        show(manifest, output=tmp_path / "a.png", grid=grid)


def test_grid_for_a_sound_is_refused(tmp_path):
    write_audio(tmp_path / "a.wav", tone(), 16_000)
    with pytest.raises(ConfigError, match=r"a\.wav: a grid \(4x4\) shows the clips of a manifest"):
        show(tmp_path / "a.wav", output=tmp_path / "a.png", grid="4x4")


def test_unreadable_sound_leaves_no_figure(tmp_path):
    (tmp_path / "leer ä.wav").touch()
    with pytest.raises(AudioError, match=r"leer ä\.wav"):
        show(tmp_path / "leer ä.wav", output=tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_missing_matplotlib_is_an_error_with_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"spectag\[plots\]"):
        clip(tone())


def test_matplotlib_is_imported_only_for_figures_and_pyplot_never(tmp_path):
    write_audio(tmp_path / "a.wav", tone(), 16_000)
    code = f"""
import sys
from spectag.reporting.clip_plots import show
assert "matplotlib" not in sys.modules
show({str(tmp_path / "a.wav")!r}, output={str(tmp_path / "a.png")!r})
assert "matplotlib.pyplot" not in sys.modules
"""
    source = str(PROJECT / "src")
    done = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": source})
    assert done.returncode == 0


# ------------------------------------------------------------------------------------------------ learning


def make_epochs(part, valid_lwlraps):
    return [
        Epoch(number, 1 / number, 0.5 + number / 100, None if score is None else 2 / number, score, part=part)
        for number, score in enumerate(valid_lwlraps, start=1)
    ]


def lines_of(ax):
    """The curves of axes, without rings and empty lines."""
    return [line for line in ax.get_lines() if len(line.get_xdata()) > 1 and not np.isnan(line.get_ydata()).all()]


def test_each_training_has_a_colour_dashed_for_train_and_solid_for_valid():
    figure = draw_learning_curves(make_epochs("fold 1", [0.5, 0.75, 0.625]) + make_epochs("fold 2", [0.25, 0.5, 0.5]))
    for ax in figure.axes:
        first_train, first_valid, second_train, second_valid = lines_of(ax)
        assert [line.get_linestyle() for line in lines_of(ax)] == ["--", "-", "--", "-"]
        assert first_train.get_color() == first_valid.get_color() != second_train.get_color()
        assert second_train.get_color() == second_valid.get_color()
    assert [ax.get_ylabel() for ax in figure.axes] == ["Loss", "lwlrap (best is 1)"]
    assert lines_of(figure.axes[0])[0].get_xydata().tolist() == [[1, 1], [2, 1 / 2], [3, 1 / 3]]
    assert lines_of(figure.axes[1])[3].get_ydata().tolist() == [0.25, 0.5, 0.5]


def test_legend_names_the_trainings():
    figure = draw_learning_curves(make_epochs("fold $1$", [0.5, 0.75]) + make_epochs("all clips", [None, None]))
    figure.draw_without_rendering()
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["fold $1$", "all clips", "train", "valid"]


def test_first_of_the_best_validation_scores_has_a_ring():
    lwlrap_ax = draw_learning_curves(make_epochs("fold 1", [0.5, 0.75, None, 0.75])).axes[1]
    [ring] = [line for line in lwlrap_ax.get_lines() if line.get_marker() == "o"]
    assert ring.get_xydata().tolist() == [[2, 0.75]]


def test_without_validation_there_are_only_training_curves():
    for ax in draw_learning_curves(make_epochs("all clips", [None, None])).axes:
        assert [line.get_linestyle() for line in lines_of(ax)] == ["--"]


@pytest.mark.parametrize("n_parts", [1, 7, 8, 20])
def test_every_training_has_a_different_colour(n_parts):
    epochs = [epoch for number in range(n_parts) for epoch in make_epochs(f"fold {number}", [0.5, 0.75])]
    colors = {tuple(np.ravel(line.get_color())) for line in lines_of(draw_learning_curves(epochs).axes[0])}
    assert len(colors) == n_parts


def test_single_epoch_is_drawn_as_a_point(tmp_path):
    figure = draw_learning_curves([Epoch(1, 0.5, None, None, None)], title="ein $Modell$")
    assert figure.axes[0].get_lines()[0].get_marker() == "."
    save_figure(figure, tmp_path / "epochs.png")
    assert read_png(tmp_path / "epochs.png").std() > 0


def test_no_epochs_are_an_error():
    with pytest.raises(ValueError, match="need at least one epoch, got none"):
        draw_learning_curves([])


def rate_curve(suggestion):
    rates = np.geomspace(1e-6, 1, 20)
    return RateCurve(rates, np.linspace(2, 1, 20), np.r_[np.linspace(2, 1, 18), 9, 99], suggestion)


def test_rate_curve_has_a_logarithmic_axis_and_marks_the_suggestion():
    curve = rate_curve(1e-3)
    [ax] = draw_rate_curve(curve, title="a.csv").axes
    points, average, mark = ax.get_lines()
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "Learning rate", "Loss")
    assert points.get_ydata().tolist() == curve.losses.tolist()
    assert average.get_xydata().tolist() == np.column_stack([curve.rates, curve.smoothed]).tolist()
    assert mark.get_xdata() == [1e-3, 1e-3]
    assert mark.get_label() == "steepest descent: 1.0e-03"


def test_diverging_losses_at_the_end_do_not_flatten_the_rate_curve():
    assert draw_rate_curve(rate_curve(1e-3)).axes[0].get_ylim() == (0, 4)


def test_rate_curve_without_a_suggestion_is_drawn():
    assert len(draw_rate_curve(rate_curve(None)).axes[0].get_lines()) == 2
