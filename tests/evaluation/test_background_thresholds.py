import numpy as np
import pytest

import spectag
from helpers.bundles import make_bundle, make_info, tone
from spectag.audio.files import write_audio
from spectag.config.base import WindowConfig
from spectag.errors import ConfigError, DataError
from spectag.models.bundle import WindowThresholds, read_info
from spectag.scoring.false_alarms import AlarmRate, rate_bound

RATE = 16_000
SECONDS = 60.0


@pytest.fixture
def model(tmp_path):
    windows = WindowThresholds(below_seconds=2, thresholds=(0.3, 0.3, 0.3))
    clips = WindowConfig(max_clip_seconds=10)
    info = make_info(thresholds=(0.2, 0.2, 0.2), window_thresholds=windows, window=clips)
    return make_bundle(tmp_path / "model", info)


@pytest.fixture
def background(tmp_path):
    """Two recordings of a high tone, longer than two clips. In one are six bursts of noise, each louder."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "background"
    folder.mkdir()
    for name, n_bursts in (("a.wav", 6), ("b.wav", 0)):
        waveform = tone("high", SECONDS)
        for number in range(n_bursts):
            burst = slice((5 + 9 * number) * RATE, (7 + 9 * number) * RATE)
            waveform[burst] += 0.002 * 2**number * rng.standard_normal(2 * RATE).astype(np.float32)
        write_audio(folder / name, np.clip(waveform, -1, 1), RATE)
    return folder


def segments_of(model, folder, label="low"):
    """How many segments of a label spectag finds in the recordings, as spectag tag reports them."""
    tagger = spectag.load(model)
    return sum(len(tagger.segments(path)[label]) for path in sorted(folder.glob("*.wav")))


def test_threshold_is_raised_until_false_alarms_are_rare_enough(model, background, tmp_path):
    before = segments_of(model, background)
    result = spectag.calibrate(
        model, false_alarms="120/h", background=background, confidence=0.5, output=tmp_path / "new"
    )
    row = result.background.labels[0]
    assert result.background.hours == pytest.approx(2 * SECONDS / 3600, rel=0.01)
    assert row.n_alarms_before == before
    assert row.n_alarms == segments_of(tmp_path / "new", background) < before
    assert row.per_hour_at_most == pytest.approx(rate_bound(row.n_alarms, result.background.hours, 0.5))
    assert row.per_hour_at_most <= 120
    info = read_info(tmp_path / "new")
    assert info.window_thresholds.thresholds[0] == row.window_threshold > 0.3
    assert info.thresholds[0] == row.threshold


def test_thresholds_are_not_lowered(model, background):
    result = spectag.calibrate(model, false_alarms="9000/h", background=background)
    assert not any(row.is_raised for row in result.background.labels)
    assert result.is_unchanged


def test_command_says_how_much_background_there_was_and_what_it_cannot_show(run, model, background, tmp_path):
    (background / "broken.wav").write_bytes(b"RIFF")
    done = run("calibrate", model, "--false-alarms", "120/h", "--background", background, "-o", tmp_path / "new")
    assert done.status == 3
    assert "broken.wav" in done.err
    assert "0.0333 h of background in 2 recordings; a rate below 69/h cannot be shown with it" in done.out
    assert "all labels together" in done.out


def test_too_little_background_is_an_error_that_says_how_much_is_needed(model, background):
    with pytest.raises(DataError, match=r"0\.033 h of background cannot show 1/h .* this needs 2\.3 h"):
        spectag.calibrate(model, false_alarms="1/h", background=background)


def test_rate_and_background_go_together(model, background):
    for options in ({"false_alarms": "1/h"}, {"background": background}):
        with pytest.raises(ConfigError, match="go together"):
            spectag.calibrate(model, **options)


@pytest.mark.parametrize(
    ("text", "per_hour"), [("1/h", 1), ("0.5 / hour", 0.5), ("6/day", 0.25), ("6/days", 0.25), ("1/min", 60)]
)
def test_rates_are_read_with_their_units(text, per_hour):
    assert AlarmRate.parse(text).per_hour == pytest.approx(per_hour)


@pytest.mark.parametrize("text", ["1", "/h", "1/s", "-1/h", "1/h/h", "0/h", "1e3/h", "nan/h", ""])
def test_other_rates_are_refused_with_an_example(text):
    with pytest.raises(ConfigError, match="such as 1/h"):
        AlarmRate.parse(text)


def test_rule_of_three():
    assert AlarmRate.parse("1/h", 0.95).hours_needed == pytest.approx(3, abs=0.01)
    assert rate_bound(0, 1, 0.95) == pytest.approx(3, abs=0.01)


def test_bound_of_a_rate_is_exact():
    """With the bound as the true rate, so few alarms have exactly the probability that the confidence leaves."""
    bound = rate_bound(4, 2.0, 0.9)
    expected = 2 * bound
    poisson = sum(np.exp(-expected) * expected**n / np.prod(np.arange(1, n + 1)) for n in range(5))
    assert poisson == pytest.approx(0.1)


def test_thresholds_are_tested_from_the_highest_until_one_fails():
    rate = AlarmRate.parse("1/h", 0.9)
    assert rate.lowest_index(np.array([1, 50, 4, 1, 0]), hours=10) == 2
    assert rate.lowest_index(np.array([50, 50]), hours=10) is None
