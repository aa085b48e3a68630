"""Network inputs of the clips of a manifest; unreadable clips are reported and left out."""

import hashlib

import numpy as np
import pytest
import soundfile

from helpers.bundles import MEL, tone
from spectag.audio.files import read_audio, write_audio
from spectag.audio.front_end import FrontEnd
from spectag.audio.mel import compute_log_mel
from spectag.audio.spectrogram_image import log_mel_to_image, write_png
from spectag.config.base import ImageConfig
from spectag.data.manifest import read_manifest
from spectag.data.spectrograms.clip_inputs import open_clips
from spectag.errors import DataError
from spectag.system.progress import no_log, silent

SOUNDS = FrontEnd(mel=MEL)
IMAGES = FrontEnd(mel=None, image=ImageConfig(height=24, width=30))


def write_manifest(folder, *fnames):
    (folder / "clips.csv").write_text("fname,labels\n" + "".join(f"{name},x\n" for name in fnames), encoding="utf-8")
    return read_manifest(folder / "clips.csv")


def write_image(path, label):
    image, (low, high) = log_mel_to_image(compute_log_mel(tone(label, 0.3), MEL), ImageConfig())
    write_png(path, image, low=low, high=high)


def open_here(manifest, front_end, log=no_log):
    cache = manifest.source.parent / "cache"
    return open_clips(manifest, front_end, cache, workers=1, progress=silent, log=log)


@pytest.fixture
def sounds(tmp_path):
    for label in ("low", "middle", "high"):
        write_audio(tmp_path / f"{label}.wav", tone(label, 0.3), MEL.sample_rate)
    return tmp_path


@pytest.mark.parametrize("image", [None, ImageConfig(width=40)], ids=["log_mels", "images of them"])
def test_inputs_of_sounds_equal_those_of_the_front_end(sounds, image):
    front_end = FrontEnd(mel=MEL, image=image)
    clips = open_here(write_manifest(sounds, "high.wav", "low.wav", "middle.wav"), front_end)
    assert clips.skipped == ()
    for position, clip in enumerate(clips.manifest.clips):
        waveform, _ = read_audio(clip.path)
        assert np.array_equal(clips.inputs(position), front_end.input_of_waveform(waveform))


def test_unreadable_sounds_are_left_out_and_the_others_keep_their_inputs(sounds):
    (sounds / "Tür 1.wav").touch()
    (sounds / "text.wav").write_text("no sound")
    manifest = write_manifest(sounds, "Tür 1.wav", "high.wav", "text.wav", "low.wav")
    clips = open_here(manifest, SOUNDS)
    assert [clip.fname for clip in clips.manifest.clips] == ["high.wav", "low.wav"]
    assert len(clips.keys) == 2
    assert clips.manifest.labels == manifest.labels
    assert [clip.fname for clip, _ in clips.skipped] == ["Tür 1.wav", "text.wav"]
    assert "Tür 1.wav: the file is empty" in clips.skipped[0][1]
    waveform, _ = read_audio(sounds / "low.wav")
    assert np.array_equal(clips.inputs(1), SOUNDS.input_of_waveform(waveform))


def test_absurd_sound_is_left_out_and_named(sounds):
    waveform = tone("low", 0.3)
    waveform[0] = -1e20
    soundfile.write(sounds / "absurd.wav", waveform, MEL.sample_rate, subtype="FLOAT")
    clips = open_here(write_manifest(sounds, "absurd.wav", "low.wav"), SOUNDS)
    assert [clip.fname for clip in clips.manifest.clips] == ["low.wav"]
    assert "absurd.wav: the sample at 0 s is -1e+20; samples are expected in [-1, 1]" in clips.skipped[0][1]


def test_cached_spectrogram_that_is_not_finite_is_named(sounds):
    manifest = write_manifest(sounds, "high.wav", "low.wav")
    [path] = (sounds / "cache").rglob(f"{open_here(manifest, SOUNDS).keys[1]}.npy")
    log_mel = np.load(path)
    log_mel[0, 0] = np.inf
    np.save(path, log_mel)
    clips = open_here(manifest, SOUNDS)
    assert np.isfinite(next(clips.parts(0)).inputs).all()
    with pytest.raises(DataError, match=r"low\.wav: its spectrogram in the cache is not finite; delete the cache"):
        next(clips.parts(1))


@pytest.mark.parametrize("image", [None, ImageConfig(width=40)], ids=["log_mels", "images of them"])
def test_parts_of_a_long_clip_are_those_of_tagging(sounds, image):
    waveform = np.concatenate([np.tile(tone("low", 1.0), 50), np.tile(tone("high", 1.0, 16_000) * 1e-3, 15)])
    write_audio(sounds / "long.wav", waveform, MEL.sample_rate)
    front_end = FrontEnd(mel=MEL, image=image)
    clips = open_here(write_manifest(sounds, "low.wav", "long.wav"), front_end)
    short, (first, last) = list(clips.parts(0)), list(clips.parts(1))
    assert np.array_equal(short[0].inputs, clips.inputs(0))
    assert len(short) == 1
    assert [(part.start_seconds, part.end_seconds) for part in (first, last)] == [(0.0, 60.0), (5.0, 65.0)]
    waveform, _ = read_audio(sounds / "long.wav")
    assert np.array_equal(first.inputs, front_end.input_of_waveform(waveform[: 60 * MEL.sample_rate]))
    assert np.array_equal(last.inputs, front_end.input_of_waveform(waveform[5 * MEL.sample_rate :]))
    assert clips.rows_in_parts == [1]


def test_clip_of_a_minute_is_one_part_equal_to_its_cached_spectrogram(sounds):
    write_audio(sounds / "minute.wav", np.tile(tone("low", 1.0), 60), MEL.sample_rate)
    clips = open_here(write_manifest(sounds, "minute.wav"), SOUNDS)
    [part] = clips.parts(0)
    assert np.array_equal(part.inputs, clips.inputs(0))


def test_key_depends_on_the_content_not_the_name(sounds):
    (sounds / "again.wav").write_bytes((sounds / "low.wav").read_bytes())
    keys = open_here(write_manifest(sounds, "low.wav", "again.wav", "high.wav"), SOUNDS).keys
    assert keys[0] == keys[1] != keys[2]


def test_cache_report_is_logged(sounds):
    lines = []
    open_here(write_manifest(sounds, "low.wav"), SOUNDS, lines.append)
    open_here(write_manifest(sounds, "low.wav"), SOUNDS, lines.append)
    assert lines[0].startswith("spectrogram cache: 1 spectrograms computed")
    assert lines[1] == "spectrogram cache: nothing to do: 1 spectrograms are cached"


def test_inputs_of_images_come_from_their_files_and_broken_ones_are_left_out(tmp_path):
    for label in ("low", "high"):
        write_image(tmp_path / f"{label}.png", label)
    (tmp_path / "broken.png").write_bytes((tmp_path / "low.png").read_bytes()[:60])
    clips = open_here(write_manifest(tmp_path, "low.png", "broken.png", "high.png"), IMAGES)
    assert [clip.fname for clip in clips.manifest.clips] == ["low.png", "high.png"]
    assert np.array_equal(clips.inputs(1), IMAGES.input_of_image(tmp_path / "high.png"))
    assert clips.skipped[0][0].fname == "broken.png"
    assert "broken.png" in clips.skipped[0][1]
    content = (tmp_path / "high.png").read_bytes()
    assert clips.keys[1] == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_manifest_without_readable_clips_is_an_error(tmp_path):
    for name in ("a.wav", "b.png"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"clips\.csv: none of its 1 clips can be read: .*a\.wav: the file is empty"):
        open_here(write_manifest(tmp_path, "a.wav"), SOUNDS)
    with pytest.raises(DataError, match=r"clips\.csv: none of its 1 clips can be read: .*b\.png"):
        open_here(write_manifest(tmp_path, "b.png"), IMAGES)


def test_sounds_for_a_front_end_of_images_are_an_error(sounds):
    with pytest.raises(DataError, match=r"clips\.csv: the clips are sounds, but this model accepts images only"):
        open_here(write_manifest(sounds, "low.wav"), IMAGES)


def test_mix_of_images_and_sounds_is_an_error(sounds):
    write_image(sounds / "low.png", "low")
    with pytest.raises(DataError, match="use one manifest for images and another one for sounds"):
        open_here(write_manifest(sounds, "low.wav", "low.png"), SOUNDS)


def test_exact_copies_share_a_group_and_are_logged(sounds):
    for name in ("copy 1.wav", "copy 2.wav"):
        (sounds / name).write_bytes((sounds / "low.wav").read_bytes())
    lines = []
    manifest = write_manifest(sounds, "copy 1.wav", "high.wav", "low.wav", "copy 2.wav")
    groups = open_here(manifest, SOUNDS, log=lines.append).manifest.groups
    assert groups[0] == groups[2] == groups[3] != groups[1]
    assert any(line.startswith("2 clips are exact copies of other clips") for line in lines)


def test_groups_of_copies_are_merged(sounds):
    for name in ("copy 1.wav", "copy 2.wav"):
        (sounds / name).write_bytes((sounds / "low.wav").read_bytes())
    rows = ["low.wav,x,A", "copy 1.wav,x,B", "middle.wav,x,B", "high.wav,x,C", "copy 2.wav,x,"]
    (sounds / "clips.csv").write_text("\n".join(["fname,labels,group", *rows]), encoding="utf-8")
    groups = open_here(read_manifest(sounds / "clips.csv"), SOUNDS).manifest.groups
    assert len({groups[row] for row in (0, 1, 2, 4)}) == 1
    assert groups[3] != groups[0]
