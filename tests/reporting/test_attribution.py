from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.interpolate import BSpline

from helpers.bundles import LABELS, MEL, MEL_32K, make_bundle, make_ensemble, make_ensemble_info, make_info, tone
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel, hz_to_mel
from spectag.config.base import ImageConfig
from spectag.errors import BundleError, DataError
from spectag.models.tagger import Tagger
from spectag.reporting.attribution import Attribution, attribute

RATE = 16_000
THIRDS = dict(zip(LABELS, [(0, 8), (8, 16), (16, 24)], strict=True))  # of the 24 mel bands


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return Tagger(make_bundle(tmp_path_factory.mktemp("made") / "model"))


def noise(seconds, level=1e-4):
    return (level * np.random.default_rng(0).standard_normal(round(seconds * RATE))).astype(np.float32)


def with_tone(label, start, end, seconds=4.0):
    """Faint noise with the tone of a label."""
    waveform = noise(seconds)
    waveform[round(start * RATE) : round(end * RATE)] += tone(label, end - start)
    return waveform


def background(log_mel):
    """As described in the docstring of `attribute`."""
    return np.minimum(np.quantile(log_mel, 0.1, axis=1), np.quantile(log_mel, 0.1))[:, None]


def is_in_third(hertz, label):
    lowest, highest = (float(hz_to_mel(limit, MEL)) for limit in (MEL.f_min, MEL.f_max))
    band = (float(hz_to_mel(hertz, MEL)) - lowest) / (highest - lowest) * (MEL.n_mels + 1) - 1
    return THIRDS[label][0] - 1 <= band < THIRDS[label][1]


@pytest.mark.parametrize(("label", "start"), [("low", 0.5), ("middle", 2.7), ("high", 1.5)])
def test_peak_is_at_the_time_and_frequency_of_the_tone(tagger, label, start):
    peak = attribute(tagger, with_tone(label, start, start + 0.8), RATE, [label]).peak(label)
    assert start <= peak.seconds <= start + 0.8
    assert is_in_third(peak.hertz, label)
    assert peak.logit_lost > 0


def test_labels_of_one_run_have_their_own_peaks(tagger):
    waveform = with_tone("low", 0.3, 1.3) + with_tone("high", 2.5, 3.5)
    both = attribute(tagger, waveform, RATE, ["high", "low"])
    assert both.labels == ("high", "low")
    assert 0.3 <= both.peak("low").seconds <= 1.3
    assert 2.5 <= both.peak("high").seconds <= 3.5
    np.testing.assert_allclose(both.map_of("low"), attribute(tagger, waveform, RATE, ["low"]).maps[0], atol=1e-5)


def test_constant_tone_is_found(tagger):
    peak = attribute(tagger, tone("middle", 3.0) + noise(3.0), RATE, ["middle"]).peak("middle")
    assert is_in_third(peak.hertz, "middle")
    assert peak.logit_lost > 0.01


def test_maps_add_up_to_the_logit_lost_without_the_sound(tagger):
    waveform = with_tone("middle", 1.0, 2.0)
    attribution = attribute(tagger, waveform, RATE, LABELS, patch_seconds=0.5, n_band_patches=6)
    log_mel = compute_log_mel(waveform, MEL)
    lost = (log_mel - background(log_mel)).mean(axis=1).reshape(3, 8).sum(axis=1)  # the network sums a third's bands
    np.testing.assert_allclose(attribution.maps.mean(axis=(1, 2)) * 6 * 8, lost, rtol=1e-3)


def test_map_of_a_linear_network_is_its_contributions_blurred_over_a_patch(tagger):
    """Interpolated linearly from knots a patch apart, masks blur by a cubic B-spline: a hat with a hat."""
    waveform = with_tone("middle", 1.0, 2.0)
    attribution = attribute(tagger, waveform, RATE, ["middle"], patch_seconds=0.5, n_passes=3000).map_of("middle")
    log_mel = compute_log_mel(waveform, MEL)
    added = (log_mel - background(log_mel))[8:16].sum(axis=0) / log_mel.shape[1]  # by each frame, to the logit
    frames, cells = np.arange(len(added)) * MEL.hop_length / MEL.sample_rate, np.arange(32) / 8 + 1 / 16
    spline = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)
    expected = np.nan_to_num(spline((cells[:, None] - frames) / 0.5)) @ added
    np.testing.assert_allclose(6 * attribution.mean(axis=0)[4:-4], expected[4:-4], atol=0.08 * expected.max())


@pytest.mark.parametrize("n_samples", [1, 480, RATE])
def test_maps_of_silence_are_zero(tagger, n_samples):
    attribution = attribute(tagger, np.zeros(n_samples, np.float32), RATE, LABELS)
    np.testing.assert_array_equal(attribution.maps, 0)


def test_equal_seeds_give_equal_maps_and_others_similar_ones(tagger):
    waveform = with_tone("low", 1.0, 2.0)
    first, again, other = (attribute(tagger, waveform, RATE, ["low"], seed=seed).maps[0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.corrcoef(first.ravel(), other.ravel())[0, 1] > 0.9


def test_sample_rate_does_not_matter(tagger):
    waveform = with_tone("high", 1.0, 2.0)
    doubled = np.repeat(waveform, 2)  # the same at 32 kHz, nearly
    peak = attribute(tagger, doubled, 2 * RATE, ["high"]).peak("high")
    assert 1.0 <= peak.seconds <= 2.0
    assert is_in_third(peak.hertz, "high")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(n_samples=st.integers(1, 40_000))
def test_edges_span_the_sound_and_all_bands_for_any_length(tagger, n_samples):
    attribution = attribute(tagger, noise(3.0)[:n_samples], RATE, ["low"], n_passes=2)
    assert attribution.time_edges[[0, -1]] == pytest.approx([0, n_samples / RATE])
    assert attribution.band_edges[[0, -1]] == pytest.approx([MEL.f_min, MEL.f_max])
    assert attribution.maps.shape == (1, len(attribution.band_edges) - 1, len(attribution.time_edges) - 1)
    assert np.isfinite(attribution.maps).all()


@pytest.mark.parametrize("seconds", [0.03, 5, 60])
def test_number_of_passes_does_not_depend_on_the_length(tagger, monkeypatch, seconds):
    calls = []
    plain = Tagger.logits_of_inputs
    monkeypatch.setattr(Tagger, "logits_of_inputs", lambda self, inputs: calls.append(1) or plain(self, inputs))
    attribute(tagger, noise(seconds), RATE, LABELS)
    assert len(calls) == 194


def test_patches_have_a_duration_and_are_at_most_20(tagger):
    n_cells = [len(attribute(tagger, noise(s), RATE, ["low"], n_passes=2).time_edges) - 1 for s in (0.1, 2, 5, 40)]
    assert n_cells == [4, 16, 40, 80]


def test_ensemble_map_is_the_weighted_sum_of_its_members_maps(tagger, tmp_path):
    info = make_ensemble_info([FrontEnd(mel=MEL), FrontEnd(mel=MEL)], [0.5, 1.5], bias=7.0)
    waveform = with_tone("middle", 1.0, 2.0)
    blended = attribute(Tagger(make_ensemble(tmp_path / "two", info)), waveform, RATE, LABELS)
    np.testing.assert_allclose(blended.maps, 2 * attribute(tagger, waveform, RATE, LABELS).maps, atol=1e-4)


def test_ensemble_with_different_inputs_is_masked_at_the_same_place(tmp_path):
    seen = FrontEnd(mel=MEL, image=ImageConfig(height=24, width=48))
    info = make_ensemble_info([FrontEnd(mel=MEL_32K), FrontEnd(mel=MEL), seen], [1.0, 1.0, 1.0])
    attribution = attribute(Tagger(make_ensemble(tmp_path / "three", info)), with_tone("low", 2.5, 3.5), RATE, ["low"])
    peak = attribution.peak("low")
    assert 2.5 <= peak.seconds <= 3.5
    assert is_in_third(peak.hertz, "low")
    assert attribution.band_edges[[0, -1]] == pytest.approx([50, 8000])


def test_image_keeps_its_value_range_when_parts_are_replaced(tmp_path):
    """Without its loudest part, an image by the clip's own range would show the faint rest in white."""
    front_end = FrontEnd(mel=MEL, image=ImageConfig())
    tagger = Tagger(make_bundle(tmp_path / "seen", make_info(front_end=front_end)))
    waveform = with_tone("low", 1.0, 1.5) + 0.01 * with_tone("high", 2.5, 3.5)
    attribution = attribute(tagger, waveform, RATE, ["high"])
    assert 2.5 <= attribution.peak("high").seconds <= 3.5
    assert attribution.maps.min() > -0.3 * attribution.maps.max()


def test_model_of_images_only_is_refused(tmp_path):
    info = make_info(front_end=FrontEnd(mel=None, image=ImageConfig(height=24, width=24)))
    with pytest.raises(DataError, match="can tag images but not sounds"):
        attribute(Tagger(make_bundle(tmp_path / "images", info)), noise(1.0), RATE, ["low"])


def test_unknown_label_is_an_error_with_the_closest_label(tagger):
    with pytest.raises(DataError, match=r"model: unknown label 'midle'; did you mean 'middle'\?"):
        attribute(tagger, noise(1.0), RATE, ["midle"])


@pytest.mark.parametrize("wrong", [{"patch_seconds": 0.0}, {"n_band_patches": 0}, {"n_passes": 1}])
def test_too_few_patches_or_passes_are_an_error(tagger, wrong):
    with pytest.raises(ValueError, match="need patch_seconds above 0, n_band_patches of 1 or more and n_passes of 2"):
        attribute(tagger, noise(1.0), RATE, ["low"], **wrong)


def test_empty_waveform_is_an_error(tagger):
    with pytest.raises(ValueError, match="at least 1 sample"):
        attribute(tagger, np.empty(0, np.float32), RATE, ["low"])


def test_bundle_without_network_is_an_error(tmp_path):
    folder = make_bundle(tmp_path / "model")
    tagger = Tagger(folder)
    Path(folder, "model.onnx").unlink()
    with pytest.raises(BundleError, match=r"model\.onnx: cannot be read: No such file"):
        attribute(tagger, noise(1.0), RATE, ["low"])


def test_peak_is_the_middle_of_the_highest_cell():
    attribution = Attribution(
        ("a",), np.array([0.0, 1.0, 2.0]), np.array([0.0, 100.0, 300.0]), np.array([[[0, 1], [3, 2]]], np.float32)
    )
    assert (attribution.peak("a").seconds, attribution.peak("a").hertz, attribution.peak("a").logit_lost) == (
        0.5,
        200.0,
        3.0,
    )
    with pytest.raises(ValueError, match="no map of 'b'; there are maps of 'a'"):
        attribution.peak("b")
