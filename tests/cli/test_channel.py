"""The channel of a model and of --channel: in training, tagging, inspecting and indexing, and in the caches."""

import csv

import numpy as np
import pytest
import soundfile
from cyclopts import CycloptsError

import spectag
from helpers.bundles import LABELS, MEL, make_bundle, make_info, tone
from spectag.audio.front_end import FrontEnd
from spectag.audio.synthesis import KINDS
from spectag.cli.commands.listen import _channel_number
from spectag.config.recipe import Recipe
from spectag.data.clips import Clip, Manifest
from spectag.data.fingerprint_cache import clip_fingerprints
from spectag.data.labels import LabelSet
from spectag.data.spectrograms.cache import SpectrogramCache
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.models.tagger import Tagger
from spectag.system.progress import no_log, silent
from spectag.training.members.member import front_end_for

RATE = 16_000


@pytest.fixture
def stereo(tmp_path):
    """A low tone in the first channel, and a louder high one in the second."""
    path = tmp_path / "sounds" / "stereo.wav"
    path.parent.mkdir()
    soundfile.write(path, np.stack([0.3 * tone("low", 2), tone("high", 2)], axis=1), RATE)
    return path


@pytest.fixture
def inverse(tmp_path):
    """A tone in both channels, with opposite signs: their mean is silence."""
    path = tmp_path / "inverse.flac"
    soundfile.write(path, np.stack([tone("high", 2), -tone("high", 2)], axis=1), RATE)
    return path


def test_spectrograms_and_fingerprints_of_other_channels_are_cached_apart(stereo, tmp_path):
    clip, log_mels, prints = Clip(stereo, stereo.name, ("low",)), {}, {}
    for _ in range(2):  # the second time from the cache
        for channel in ("mix", 1, 2, "loudest"):
            cache = SpectrogramCache(tmp_path / "cache", MEL, channel=channel)
            log_mel = cache.log_mel(cache.prepare([clip], workers=1).keys[0])
            np.testing.assert_array_equal(log_mel, log_mels.setdefault(channel, log_mel.copy()))
            (fingerprint,) = clip_fingerprints([clip], tmp_path / "cache", channel=channel, workers=1)
            np.testing.assert_array_equal(fingerprint.bins, prints.setdefault(channel, fingerprint.bins))
    assert not np.array_equal(log_mels["mix"], log_mels[1])
    np.testing.assert_array_equal(log_mels[2], log_mels["loudest"])
    np.testing.assert_array_equal(prints[2], prints["loudest"])
    assert not np.array_equal(prints[1], prints[2])


@pytest.mark.parametrize("seconds", [2, 61])  # a long clip is read again, in parts
def test_training_and_tagging_read_the_same_channel(tmp_path, seconds):
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone("low", seconds), 0.5 * tone("high", seconds)], axis=1), RATE)
    manifest = Manifest(tmp_path, (Clip(path, path.name, ("low",)),), LabelSet(LABELS))
    for channel, label in ((1, "low"), (2, "high"), ("loudest", "low")):
        recipe = Recipe(backbone="scratch", mel=MEL, channel=channel)
        front_end = front_end_for(recipe, manifest)
        assert front_end.channel == channel
        clips = open_clips(manifest, front_end, tmp_path / "cache", workers=1, progress=silent, log=no_log)
        tagger = Tagger(make_bundle(tmp_path / str(channel), make_info(front_end=FrontEnd(mel=MEL, channel=channel))))
        assert tagger.channel == channel
        assert tagger.tag(path).top(1)[0].label == label
        if seconds > 60:
            continue
        with tagger.open_windows(path) as windows:
            (window,) = windows
        expected = front_end.input_of_waveform(window.waveforms[RATE])
        np.testing.assert_array_equal(next(clips.parts(0)).inputs, expected)


def test_channel_of_a_bundle_can_be_overridden_when_it_tags(stereo, tmp_path):
    model = make_bundle(tmp_path / "model", make_info(front_end=FrontEnd(mel=MEL, channel=1)))
    assert spectag.load(model).tag(stereo).top(1)[0].label == "low"
    assert spectag.load(model, channel=2).tag(stereo).top(1)[0].label == "high"
    assert spectag.load(model).with_channel("loudest").tag(stereo).top(1)[0].label == "high"


def test_front_ends_of_earlier_bundles_mix_the_channels():
    assert FrontEnd.model_validate({"mel": MEL}).channel == "mix"


def labels_in(table):
    with table.open(newline="") as file:
        return [row["label"] for row in csv.DictReader(file)]


def test_tag_reads_the_chosen_channel_and_a_missing_one_is_the_reason_of_a_file(run, stereo, tmp_path):
    model = make_bundle(tmp_path / "model")
    soundfile.write(stereo.with_name("mono.wav"), tone("low", 1), RATE)
    done = run("tag", model, stereo.parent, "-o", tmp_path / "tags.csv", "--channel", "2", "--top", "1")
    assert done.status == 3
    assert "mono.wav: there is no channel 2, the file has 1 channel" in done.err
    assert labels_in(tmp_path / "tags.csv") == ["high"]
    assert "channel = 2" in (tmp_path / "tags.parameters.toml").read_text()
    done = run(
        "tag", model, stereo.parent, "-o", tmp_path / "tags.csv", "--channel", "1", "--top", "1"
    )  # does not resume
    assert "resuming" not in done.err
    assert labels_in(tmp_path / "tags.csv") == ["low", "low"]
    done = run("tag", model, stereo, "--channel", "front")
    assert done.status == 2
    assert run("tag", model, stereo, "--channel", "0").status == 2


def test_hint_about_cancelling_channels_leads_to_tags(run, inverse, tmp_path):
    model = make_bundle(tmp_path / "model")
    done = run("tag", model, inverse)
    assert "the channels cancel each other in their mean; use --channel loudest" in done.err
    done = run("tag", model, inverse, "--channel", "loudest", "--top", "1")
    assert "cancel" not in done.err
    assert ",high," in done.out


def test_inspect_measures_the_chosen_channel(inverse, tmp_path):
    manifest = Manifest(tmp_path, (Clip(inverse, inverse.name, ("high",)),), LabelSet(LABELS))
    mixed = spectag.inspect(manifest, cache=tmp_path)
    assert (mixed.channels_cancel, mixed.silent) == ((inverse.name,), (inverse.name,))
    one = spectag.inspect(manifest, channel=1, cache=tmp_path)
    assert (one.channels_cancel, one.silent) == ((), ())


def test_index_keeps_its_channel(stereo, tmp_path, run):
    model = make_bundle(tmp_path / "model")
    assert run("index", stereo, "-o", tmp_path / "index", "--model", model, "--channel", "1").status == 0
    soundfile.write(tmp_path / "low.wav", tone("low", 2), RATE)
    (found,) = spectag.search(tmp_path / "index", tmp_path / "low.wav")
    assert found.similarity > 0.99
    assert spectag.SoundIndex(tmp_path / "index").tagger.channel == 1
    done = run("index", stereo, "-o", tmp_path / "index", "--channel", "2")
    assert done.status != 0
    assert "the index was made with channel 1, not 2" in done.err


def test_members_of_an_ensemble_share_the_channel():
    with pytest.raises(ValueError, match="channel can't differ between members"):
        Recipe(members=[{"channel": 1}, {"channel": 2}])


@pytest.mark.parametrize(
    ("trained_on", "channel", "n_channels", "expected"),
    [
        ("mix", None, 2, None),
        (2, None, 2, 2),
        (2, None, 1, None),
        (2, "mix", 2, None),
        ("loudest", None, 2, None),
        (1, 2, 2, 2),
    ],
)
def test_listen_uses_the_channel_of_the_model_where_there_is_one(trained_on, channel, n_channels, expected):
    assert _channel_number(channel, trained_on, n_channels) == expected


def test_listen_needs_as_many_channels_as_the_number_of_the_channel():
    with pytest.raises(CycloptsError, match="--channel 3: there are 2 channels; add --channels 3"):
        _channel_number(3, "mix", 2)


def test_augment_shows_the_chosen_channel(stereo, tmp_path):
    manifest = Manifest(stereo, (Clip(stereo, stereo.name, ("low",)),), LabelSet(("low",)))
    pages = {}
    for channel in ("mix", 1, 2, "loudest"):
        page = spectag.augment(manifest, tmp_path / f"{channel}.html", backbone="scratch", mel=MEL, channel=channel)
        pages[channel] = page.path.read_bytes()
    assert pages["loudest"] == pages[2]
    assert len(set(pages.values())) == 3


def test_split_compares_the_chosen_channel(tmp_path):
    rain = KINDS["Rain"](np.random.default_rng(0), 6.0, RATE).astype(np.float32)
    for name, part in (("a", rain[: 5 * RATE]), ("b", rain[RATE:])):
        soundfile.write(tmp_path / f"{name}.wav", np.stack([part, -part], axis=1), RATE)  # their mean is silence
    (tmp_path / "clips.csv").write_text("fname,labels\na.wav,rain\nb.wav,rain\n")
    search = {"validation_fraction": 0.5, "find_shared_audio": True, "cache": tmp_path / "cache", "workers": 1}
    n_sharing = [
        len(spectag.split(tmp_path / "clips.csv", channel=channel, **search).sharing.pairs) for channel in ("mix", 2)
    ]
    assert n_sharing == [0, 1]


@pytest.mark.parametrize("command", ["augment", "soundscapes"])
def test_commands_refuse_a_channel_that_the_file_lacks(run, stereo, tmp_path, command):
    (stereo.parent / "clips.csv").write_text("fname,labels\nstereo.wav,low\n")
    options = {
        "augment": ["-o", tmp_path / "page.html", "--backbone", "scratch"],
        "soundscapes": ["-o", tmp_path / "scenes"],
    }[command]
    status, _, err = run(command, stereo.parent / "clips.csv", *options, "--channel", "3")
    assert status == 1
    assert "there is no channel 3, the file has 2 channels" in err


def test_search_by_similarity_has_no_channel(run, tmp_path):
    status, _, err = run("search", tmp_path, "a.wav", "--channel", "1")
    assert (status, "--channel needs --fingerprint" in err) == (2, True)
