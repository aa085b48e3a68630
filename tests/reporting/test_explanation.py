import json
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import spectag
from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.audio.front_end import FrontEnd
from spectag.config.base import ImageConfig, WindowConfig
from spectag.data.labels import LabelSet
from spectag.errors import AudioError, ConfigError, DataError, MissingExtraError
from spectag.models.tagger import Tagger
from spectag.models.tags import Tags
from spectag.reporting.attribution import Attribution
from spectag.reporting.clip_plots import show_log_mel
from spectag.reporting.explanation import explain, labels_to_explain, show_attribution, show_tags
from spectag.reporting.label_colors import LabelColors

RATE = 16_000


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "mein Modell ü")


def record(path, *sounds, seconds):
    """A recording with the tones of (label, start, end) in a faint noise."""
    waveform = (1e-4 * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)
    for label, start, end in sounds:
        waveform[round(start * RATE) : round(end * RATE)] += tone(label, end - start)
    write_audio(path, waveform, RATE)
    return path


@pytest.fixture
def sound(tmp_path):
    return record(tmp_path / "Möwe 1.wav", ("middle", 1.0, 2.0), seconds=3.0)


@pytest.fixture
def figures(monkeypatch):
    """The figures that would have been saved."""
    drawn = []
    monkeypatch.setattr("spectag.reporting.explanation.save_figure", lambda figure, path: drawn.append(figure))
    return drawn


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_command_writes_the_figure_and_prints_its_path(run, model, sound, tmp_path, suffix):
    output = tmp_path / f"Erklärung{suffix}"
    done = run("explain", model, sound, "-o", output)
    assert (done.status, done.out) == (0, f"{output}\n")
    assert "explained: the whole recording, 3 s\n  middle " in done.err
    assert output.stat().st_size > 5000


def test_command_prints_which_excerpt_it_explained_and_where_each_label_depends_on_it(run, model, tmp_path):
    path = record(tmp_path / "long.wav", ("middle", 41.0, 45.0), seconds=60.0)
    done = run("explain", model, path, "-o", tmp_path / "it.png")
    printed = json.loads(run("explain", model, path, "--json").out)
    assert printed["recording_seconds"] == 60
    assert f"explained: {printed['start']:.1f} to {printed['end']:.1f} s of 60.0 s" in done.err
    first = printed["tags"][0]
    outcome = "detected" if first["detected"] else "not detected"
    line = (
        f"  {first['label']} {first['probability']:.2f}, {outcome} (threshold {first['threshold']:.2f}); most important"
    )
    assert f"{line} at {first['peak']['seconds']:.1f} s, {first['peak']['hertz']:,.0f} Hz" in done.err


def test_json_has_the_tags_and_the_peak_of_each_map(run, model, sound):
    done = run("explain", model, sound, "--json", "--label", "middle", "--label", "low")
    printed = json.loads(done.out)
    assert (printed["file"], printed["start"], printed["end"], printed["figure"]) == (str(sound), 0, 3, None)
    by_label = {tag["label"]: tag for tag in printed["tags"]}
    assert {"middle", "low"} <= set(by_label)
    probabilities = Tagger(model).tag(sound).probabilities
    assert by_label["middle"]["probability"] == pytest.approx(probabilities[1], abs=1e-5)
    assert by_label["middle"]["threshold"] == pytest.approx(0.4, abs=1e-6)
    assert by_label["middle"]["detected"] == (probabilities[1] >= 0.4)
    assert 1 <= by_label["middle"]["peak"]["seconds"] <= 2
    assert 500 <= by_label["middle"]["peak"]["hertz"] <= 2500
    assert by_label["middle"]["peak"]["logit_lost"] > 0


def test_maps_of_silence_have_no_peak(run, model, tmp_path):
    write_audio(tmp_path / "a.wav", np.zeros(RATE, np.float32), RATE)
    printed = json.loads(run("explain", model, tmp_path / "a.wav", "--json", "--label", "low").out)
    assert [tag["peak"] for tag in printed["tags"]] == [None] * len(printed["tags"])


def test_detected_labels_are_explained_or_else_the_most_probable_one(model, tmp_path):
    tagger = Tagger(model)
    tones = record(tmp_path / "a.wav", ("low", 0.0, 3.0), ("high", 0.0, 3.0), seconds=3.0)
    silent = tmp_path / "b.wav"
    write_audio(silent, np.zeros(RATE, np.float32), RATE)
    for path in (tones, silent):
        tags = tagger.tag(path)
        expected = [tag.label for tag in tags.above_threshold()] or [tags.top(1)[0].label]
        assert list(explain(tagger, path).attribution.labels) == expected


def test_labels_or_their_number_can_be_chosen(model, sound):
    assert explain(model, sound, labels=["high", "low", "high"]).attribution.labels == ("high", "low")
    assert len(explain(model, sound, top=2).attribution.labels) == 2


def test_at_most_four_labels_are_explained_by_default(tmp_path, monkeypatch, sound, model):
    tagger = Tagger(model)
    many = Tags("a", 0, 1, LabelSet(tuple("abcdef")), np.linspace(0.9, 0.5, 6, dtype=np.float32), np.zeros(6, "f"))
    assert labels_to_explain(many, (), None) == list("abcd")
    assert labels_to_explain(tagger.tag(sound), ("low",), None) == ["low"]


def test_long_recording_is_explained_where_the_label_is_most_probable(model, tmp_path, figures):
    hums = ("low", 0.0, 65.0), ("high", 41.0, 49.0), ("middle", 12.0, 18.0)
    path = record(tmp_path / "long.wav", *hums, seconds=65.0)
    explanation = explain(model, path, tmp_path / "a.png", labels=["high"])
    assert (explanation.tags.start_seconds, explanation.tags.end_seconds) == (40, 50)
    assert 41 <= explanation.attribution.peak("high").seconds <= 49
    assert explanation.attribution.time_edges[[0, -1]] == pytest.approx([40, 50])
    assert explain(model, path, labels=["middle"], n_passes=2).tags.start_seconds == 10
    [figure] = figures
    assert figure.axes[0].get_title(loc="left") == "long.wav   (40 to 50 s of 65 s)"
    assert figure.axes[0].get_xlim() == pytest.approx((40, 50), abs=0.05)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, (0, 18)),
        (3.0, None, (3, 18)),
        (None, 12.0, (0, 12)),
        (2.5, 4.5, (2.5, 4.5)),
        (17.0, 40.0, (17, 18)),
    ],
)
def test_excerpt_can_be_chosen_by_one_limit_or_two(model, tmp_path, start, end, expected):
    path = record(tmp_path / "a.wav", ("low", 1.0, 2.0), seconds=18.0)
    tags = explain(model, path, start_seconds=start, end_seconds=end, n_passes=2).tags
    assert (tags.start_seconds, tags.end_seconds) == expected


def test_one_limit_in_a_long_recording_gives_ten_seconds(model, tmp_path):
    path = record(tmp_path / "a.wav", seconds=61.0)
    after, before = (
        explain(model, path, n_passes=2, **limit).tags for limit in ({"start_seconds": 5.0}, {"end_seconds": 45.0})
    )
    assert (after.start_seconds, after.end_seconds) == (5, 15)
    assert (before.start_seconds, before.end_seconds) == (35, 45)


def test_excerpt_is_at_most_as_long_as_the_longest_clip_of_the_model(tmp_path):
    model = make_bundle(tmp_path / "model", make_info(window=WindowConfig(max_clip_seconds=4.0)))
    path = record(tmp_path / "a.wav", ("low", 9.0, 10.0), seconds=12.0)
    tags = explain(model, path, n_passes=2).tags
    assert tags.end_seconds - tags.start_seconds == 4
    with pytest.raises(ConfigError, match=r"a\.wav: the model takes clips of at most 4 s, got 1 to 7 s"):
        explain(model, path, start_seconds=1, end_seconds=7)


def test_tags_belong_to_the_excerpt(model, tmp_path):
    path = record(tmp_path / "a.wav", ("low", 0.0, 5.0), ("high", 5.0, 10.0), seconds=10.0)
    first, second = (explain(model, path, start_seconds=s, end_seconds=s + 5.0).tags.top(1) for s in (0.0, 5.0))
    assert (first[0].label, second[0].label) == ("low", "high")


def test_panels_have_seconds_hertz_and_decibels_and_one_scale(model, sound, tmp_path, figures):
    explain(model, sound, tmp_path / "a.png", labels=["middle", "high"])
    [figure] = figures
    figure.draw_without_rendering()
    spectrogram, middle, high, power_bar, scale, tags = figure.axes
    assert spectrogram.get_title(loc="left") == "Möwe 1.wav   (3 s)"
    assert power_bar.get_ylabel() == "Power (dB, loudest = 0)"
    assert high.get_xlabel() == "Time (s)"
    assert spectrogram.get_ylabel() == middle.get_ylabel() == high.get_ylabel() == "Frequency (Hz)"
    assert middle.images[1].get_clim() == high.images[1].get_clim()
    assert scale.get_ylabel().startswith("Logit lost")
    assert tags.get_xlabel() == "Probability"
    assert (middle.get_title(loc="left"), high.get_title(loc="left")) == ("middle", "high")
    assert spectrogram.get_xlim() == middle.get_xlim() == high.get_xlim()
    assert len({(ax.get_position().x0, ax.get_position().x1) for ax in (spectrogram, middle, high)}) == 1


@pytest.mark.parametrize("n_labels", [1, 3])
def test_parts_of_the_figure_do_not_overlap(model, sound, tmp_path, figures, n_labels):
    explain(model, sound, tmp_path / "a.png", labels=LABELS[:n_labels])
    [figure] = figures
    figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    scale = figure.axes[-2]
    assert scale.yaxis.label.get_window_extent().height <= scale.bbox.height
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)


def test_map_is_drawn_at_its_seconds_and_hertz():
    ax = Figure().add_subplot()
    show_log_mel(np.zeros((24, 63), np.float32), MEL, ax=ax, start_seconds=7.0)
    limits = ax.get_xlim(), ax.get_ylim()
    maps = np.zeros((1, 24, 10), np.float32)
    maps[0, 3, 2] = 2.0
    maps[0, 4, 2] = -5.0
    edges = np.linspace(MEL.f_min, MEL.f_max, 25)
    image = show_attribution(Attribution(("a",), np.linspace(7, 8, 11), edges, maps), "a", MEL, ax=ax)
    assert image.get_extent()[:2] == [7, 8]
    assert (ax.get_xlim(), ax.get_ylim()) == limits
    assert image.get_clim() == (0, 2)
    alphas = np.asarray(image.get_alpha())
    assert alphas[3, 2] == alphas.max() > 0
    assert np.count_nonzero(alphas) == 1  # what speaks against is not drawn


def test_tiny_attribution_stays_transparent():
    maps = np.full((1, 4, 4), 1e-4, np.float32)
    attribution = Attribution(("a",), np.linspace(0, 1, 5), np.linspace(50, 8000, 5), maps)
    ax = Figure().add_subplot()
    assert np.asarray(show_attribution(attribution, "a", MEL, ax=ax).get_alpha()).max() < 0.05


def test_bars_of_detected_labels_are_filled_in_the_colours_of_the_labels():
    labels = LabelSet(("a", "b", "c", "d"))
    tags = Tags("x", 0, 1, labels, np.array([0.1, 0.9, 0.5, 0.01], "f"), np.array([0.2, 0.95, 0.4, 0.5], "f"))
    ax = Figure().add_subplot()
    show_tags(tags, ["d"], n_shown=3, ax=ax)
    assert [text.get_text() for text in ax.texts] == ["b  0.90", "c  0.50", "d  0.01"]
    assert [bar.get_fill() for bar in ax.patches] == [False, True, False]
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.9, 0.5, 0.01])
    assert [to_hex(bar.get_edgecolor()) for bar in ax.patches] == [LabelColors("abcd").color(name) for name in "bcd"]
    thresholds = [segment[0][0] for segment in ax.collections[0].get_segments()]
    assert thresholds == pytest.approx([0.95, 0.4, 0.5])


@pytest.mark.parametrize("seconds", [0.0001, 0.03])
def test_very_short_sound_is_explained(model, tmp_path, seconds):
    write_audio(tmp_path / "a.wav", tone("low", 1.0)[: max(1, round(seconds * RATE))], RATE)
    explain(model, tmp_path / "a.wav", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_model_of_spectrogram_images_is_explained(tmp_path, sound):
    model = make_bundle(tmp_path / "seen", make_info(front_end=FrontEnd(mel=MEL, image=ImageConfig())))
    peak = explain(model, sound, tmp_path / "a.png", labels=["middle"]).attribution.peak("middle")
    assert 1 <= peak.seconds <= 2


def test_explain_is_a_public_function(model, sound, tmp_path):
    explanation = spectag.explain(str(model), str(sound), str(tmp_path / "a.svg"))
    assert explanation.figure == tmp_path / "a.svg"
    assert (tmp_path / "a.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_command_errors_are_one_line_that_helps(run, model, sound, tmp_path):
    for arguments, words, status in [
        ((sound, "-o", tmp_path / "a.bmp"), "a figure is one of", 1),
        ((sound, "-o", tmp_path / "a.png", "--label", "midle"), "did you mean 'middle'?", 1),
        ((sound,), "needs -o FIGURE or --json", 2),
        ((sound, "--json", "--label", "low", "--top", "1"), "--label and --top exclude each other", 2),
        ((sound, "--json", "--top", "0"), "--top", 2),
        ((sound, "--json", "--top", "13"), "expected 1 to 12 labels to explain, got 13", 1),
        ((sound, "--json", "--start", "9"), "the file has no samples between 9 s and 29 s", 1),
        ((sound, "--json", "--start", "2", "--end", "1"), "need 0 <= start < end", 1),
        ((tmp_path / "none.wav", "--json"), "none.wav", 1),
        ((tmp_path / "a.png", "--json"), "seconds and Hz of an image are not known", 1),
    ]:
        done = run("explain", model, *arguments)
        assert done.status == status, arguments
        assert words in done.err
        assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


def test_empty_file_is_an_error(model, tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError, match=r"a\.wav"):
        explain(model, tmp_path / "a.wav")


def test_model_of_images_only_explains_no_sound(tmp_path, sound):
    info = make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24, width=24)))
    with pytest.raises(DataError, match="can tag images but not sounds"):
        explain(make_bundle(tmp_path / "images", info), sound)


def test_without_matplotlib_only_the_figure_is_an_error(model, sound, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert explain(model, sound).figure is None
    with pytest.raises(MissingExtraError, match=r"matplotlib: pip install 'spectag\[plots\]'"):
        explain(model, sound, tmp_path / "a.png")


def test_labels_and_top_exclude_each_other(model, sound):
    with pytest.raises(ConfigError, match="top 2 and the labels low exclude each other"):
        explain(model, sound, labels=["low"], top=2)
