"""spectag listen: raw sound on stdin, and a simulated microphone."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from helpers.bundles import make_bundle, tone
from helpers.command import run_without, start
from spectag.audio import microphone
from spectag.audio.files import write_audio
from spectag.errors import AudioError

RATE = 16_000
WINDOWS = ("--window", "0.5", "--overlap", "0.25")


@pytest.fixture
def model(tmp_path):
    return make_bundle(tmp_path / "ein Modell")


def pcm(waveform):
    return (np.clip(waveform, -1, 1) * 32_767).astype("<i2").tobytes()


def background(seconds):
    """A sound in which the test model detects no label."""
    return tone("low", seconds)


@pytest.fixture
def stdin(monkeypatch):
    """A function that replaces stdin by these bytes."""

    def put(data, *, is_terminal=False):
        stream = io.TextIOWrapper(io.BytesIO(data))
        stream.isatty = lambda: is_terminal
        monkeypatch.setattr(sys, "stdin", stream)

    return put


# ------------------------------------------------------------------------------------------------ stdin


def test_events_go_to_stdout_and_messages_to_stderr(run, model, stdin):
    stdin(pcm(np.concatenate([background(1.0), tone("middle", 1.0), background(1.0)])))
    done = run("listen", model, "-", *WINDOWS)
    assert done.status == 0
    line = r"0:00:0{}\.\d\d  {}  0\.\d\d  +\d+ ms  middle"
    on, off = done.out.splitlines()
    assert re.fullmatch(line.format("[01]", "on "), on)
    assert re.fullmatch(line.format("[12]", "off"), off)
    assert done.err.splitlines() == [
        "listening to stdin at 16,000 Hz; press Ctrl-C to stop",
        "time, on or off, probability, latency, label",
    ]


def test_json_lines_have_time_label_probability_and_latency(run, model, stdin):
    stdin(pcm(tone("middle", 1.0)))
    done = run("listen", model, "-", *WINDOWS, "--json")
    on, off = (json.loads(line) for line in done.out.splitlines())
    assert list(on) == ["time", "label", "on", "probability", "latency_seconds"]
    assert (on["time"], on["label"], on["on"], off["time"], off["on"]) == (0.0, "middle", True, 1.0, False)
    assert 0.4 < on["probability"] < 1
    assert 0 <= on["latency_seconds"] < 60


def test_rate_channels_and_encoding_are_options(run, model, stdin):
    sound = tone("middle", 1.0, 48_000)
    stdin(np.stack([sound, 0 * sound], axis=1).astype("<f4").tobytes())
    done = run("listen", model, "-", "--rate", "48000", "--channels", "2", "--encoding", "f32le", *WINDOWS, "--json")
    assert [json.loads(line)["time"] for line in done.out.splitlines()] == [0.0, 1.0]
    assert "listening to stdin at 48,000 Hz" in done.err


def test_incomplete_sample_at_the_end_is_left_out_with_a_message(run, model, stdin):
    stdin(pcm(tone("middle", 1.0)) + b"x")
    done = run("listen", model, "-")
    assert done.status == 0
    assert len(done.out.splitlines()) == 2
    assert "stdin: left out 1 bytes at the end, too few for a sample of 2 bytes" in done.err


def test_sound_without_any_label_gives_a_message(run, model, stdin):
    stdin(pcm(background(1.0)))
    done = run("listen", model, "-")
    assert (done.status, done.out) == (0, "")
    assert done.err.splitlines()[-1].startswith("no label detected: none reached its threshold")


def test_file_in_place_of_raw_samples_is_an_error_with_advice(run, model, stdin, tmp_path):
    write_audio(tmp_path / "a.wav", tone("middle", 1.0), RATE)
    stdin((tmp_path / "a.wav").read_bytes())
    done = run("listen", model, "-")
    assert (done.status, done.out) == (1, "")
    assert "stdin: expected raw samples without a header, got a wav file; " in done.err
    assert "ffmpeg -i FILE -f s16le -ac 1 -ar 16000 - | spectag listen MODEL - --rate 16000" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "spectag listen needs MODEL"),
        (["-"], "spectag listen needs MODEL"),
        (["m", "a.wav"], "unexpected argument: 'a.wav'"),
        (["m", "--jsn", "-"], "Unknown option: --jsn. Did you mean --json?"),
        (["m", "--encoding", "s16le"], "--encoding s16le is for raw sound on stdin; add - to read it"),
        (["m", "-", "--microphone", "1"], "--microphone 1 is recorded, and - reads stdin"),
        (["m", "-", "--encoding", "mp3"], "s16le"),
        (["m", "-", "--rate", "0"], "--rate"),
        (["m", "-", "--overlap", "1"], "--overlap 1 needs --window"),
        (["m", "-", "--hysteresis", "2"], "--hysteresis: expected a number less than or equal to 1"),
        (["m", "-"], "for example: ffmpeg -i FILE -f s16le -ac 1 -ar 32000 - | spectag listen MODEL - --rate 32000"),
    ],
)
def test_wrong_usage_is_one_line_with_status_2(run, stdin, arguments, words):
    stdin(b"", is_terminal=True)
    done = run("listen", *arguments)
    assert (done.status, done.out) == (2, "")
    assert words in done.err
    assert done.err.count("\n") == 1


@pytest.fixture
def listener(model):
    """The command in its own process, reading a pipe."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = start("listen", model, "-", *WINDOWS, "--json", stdin=subprocess.PIPE, env=environment)
    yield process
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def first_record(process):
    """The first line that the command prints while its stdin is open."""
    process.stdin.buffer.write(pcm(tone("middle", 1.0)))
    process.stdin.flush()
    assert select.select([process.stdout], [], [], 60)[0], "no output"
    return json.loads(process.stdout.readline())


@pytest.mark.slow
def test_event_is_printed_before_the_sound_ends(listener):
    assert first_record(listener)["on"]
    assert listener.poll() is None
    listener.stdin.close()
    off = json.loads(listener.stdout.readline())
    assert (off["on"], off["time"]) == (False, 1.0)
    assert listener.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_sound_with_the_offsets(listener, number):
    first_record(listener)
    time.sleep(0.1)  # so that it waits for more
    listener.send_signal(number)
    assert listener.wait(timeout=60) == 0
    assert not json.loads(listener.stdout.readline())["on"]
    assert "Traceback" not in listener.stderr.read()


@pytest.mark.slow
def test_closed_stdout_makes_no_traceback(listener):
    first_record(listener)
    listener.stdout.close()
    listener.stdin.close()
    assert listener.wait() == 1
    assert "Traceback" not in listener.stderr.read()
    listener.stdout = io.StringIO()


# ------------------------------------------------------------------------------------------------ microphone


class PortAudioError(Exception):
    """The exception of sounddevice."""


class SimulatedDevices:
    """sounddevice with a stereo microphone at 44.1 kHz, which records `blocks` as soon as it is opened."""

    def __init__(self):
        self.blocks = []  # (samples (n_samples, n_channels), whether sound was lost before)
        self.devices = [
            {"index": 0, "name": "HDMI", "max_input_channels": 0, "default_samplerate": 44_100.0},
            {"index": 1, "name": "Mikrofon groß", "max_input_channels": 2, "default_samplerate": 44_100.0},
        ]
        self.opened = []
        self.n_closed = 0

    def query_devices(self, device=None, kind=None):
        if device is None and kind is None:
            return self.devices
        inputs = [device for device in self.devices if device["max_input_channels"]]
        if not inputs:
            raise PortAudioError("Error querying device -1")
        if isinstance(device, str):
            inputs = [each for each in inputs if device.lower() in each["name"].lower()]
            if not inputs:
                raise ValueError(f"No input device matching {device!r}")
        elif device not in (None, 1):
            raise PortAudioError(f"Error querying device {device}")
        return inputs[0]

    def module(self):
        devices = self

        class InputStream:
            def __init__(self, *, device, samplerate, channels, dtype, callback):
                if channels > 2:
                    raise PortAudioError("Error opening InputStream: Invalid number of channels\nmore")
                assert (device, dtype) == (1, "float32")
                devices.opened.append((samplerate, channels))
                self._callback = callback

            def start(self):
                devices.give = self._give
                for samples, is_lost in devices.blocks:
                    self._give(samples, is_lost)

            def _give(self, samples, is_lost=False):
                buffer = samples.copy()
                self._callback(buffer, len(samples), None, types.SimpleNamespace(input_overflow=is_lost))
                buffer[:] = np.nan  # PortAudio reuses it

            def close(self):
                devices.n_closed += 1

        module = types.ModuleType("sounddevice")
        module.query_devices, module.InputStream, module.PortAudioError = (
            self.query_devices,
            InputStream,
            PortAudioError,
        )
        return module


@pytest.fixture
def devices(monkeypatch):
    devices = SimulatedDevices()
    monkeypatch.setitem(sys.modules, "sounddevice", devices.module())
    monkeypatch.setattr(microphone, "_TIMEOUT_SECONDS", 0.01)
    return devices


def test_block_is_the_mono_sound_since_the_last_one(devices, rng):
    parts = rng.uniform(-1, 1, (3, 100, 2)).astype(np.float32)
    devices.blocks = [(part, False) for part in parts]
    with microphone.open_microphone(n_channels=2) as sound:
        assert (sound.name, sound.sample_rate, sound.waits) == ("Mikrofon groß", 44_100, False)
        block = next(sound.blocks)
        assert block.waveform == pytest.approx(parts.mean(axis=2).ravel(), abs=1e-6)
        assert devices.n_closed == 0
    assert devices.opened == [(44_100, 2)]
    assert devices.n_closed == 1


def test_microphone_that_stops_is_an_error_after_the_offsets(run, model, devices):
    sound = tone("middle", 1.0, 44_100)[:, None]
    devices.blocks = [(sound[:20_000], False), (sound[20_000:], False)]
    done = run("listen", model, *WINDOWS, "--json")
    assert done.status == 1
    assert [json.loads(line)["on"] for line in done.out.splitlines()] == [True, False]
    assert "listening to Mikrofon groß at 44,100 Hz" in done.err
    assert "spectag: Mikrofon groß has given no sound for 0.01 s; is it still there?" in done.err
    assert devices.n_closed == 1


def test_lost_sound_is_reported_once(devices):
    lines = []
    devices.blocks = [(np.zeros((10, 1), np.float32), is_lost) for is_lost in (False, True, True)]
    with microphone.open_microphone(log=lines.append) as sound:
        assert len(next(sound.blocks).waveform) == 30
        with pytest.raises(AudioError, match="has given no sound"):
            next(sound.blocks)
    assert [line[:28] for line in lines] == ["Mikrofon groß: sound was lost"[:28]]


def test_queue_is_bounded_and_lost_sound_is_reported(devices, monkeypatch):
    monkeypatch.setattr(microphone, "_MAX_WAITING_BLOCKS", 2)
    lines = []
    devices.blocks = [(np.full((10, 1), number, np.float32), False) for number in range(4)]
    with microphone.open_microphone(log=lines.append) as sound:
        assert len(next(sound.blocks).waveform) == 20
        assert lines == []
        devices.give(np.zeros((10, 1), np.float32))  # reported by the first block that has room again
        next(sound.blocks)
        assert len(lines) == 1


@pytest.mark.parametrize("device", ["1", "mikro"])
def test_microphone_is_chosen_by_number_or_part_of_its_name(devices, device):
    with microphone.open_microphone(device, sample_rate=16_000) as sound:
        assert (sound.name, sound.sample_rate) == ("Mikrofon groß", 16_000)
    assert devices.opened == [(16_000, 1)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--microphone", "0"], "Error querying device 0; `spectag listen --list-microphones` shows the microphones"),
        (["--microphone", "USB"], "No input device matching 'USB'"),
        (["--channels", "3"], "Mikrofon groß can't be opened: Error opening InputStream: Invalid number of channels;"),
    ],
)
def test_microphone_that_can_not_be_opened_is_a_one_line_error(run, model, devices, arguments, words):
    done = run("listen", model, *arguments)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert words in done.err


def test_list_of_devices_shows_microphones(run, devices):
    assert run("listen", "--list-microphones") == (0, "*   1  Mikrofon groß  (2 channels, 44,100 Hz)\n", "")
    [device] = json.loads(run("listen", "--list-microphones", "--json").out)
    assert device == {
        "number": 1,
        "name": "Mikrofon groß",
        "n_channels": 2,
        "sample_rate": 44_100,
        "is_default": True,
    }
    devices.devices = []
    assert run("listen", "--list-microphones") == (0, "", "this machine has no microphone\n")


def test_error_without_sounddevice_names_the_extra(model):
    done = run_without(["sounddevice"], "listen", model)
    assert done == (1, "", "spectag: a microphone needs the package sounddevice: pip install 'spectag[listen]'\n")


def test_error_without_portaudio_names_the_library(run, model, monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    done = run("listen", model)
    assert done.status == 1
    assert "needs the library PortAudio, which can't be loaded: PortAudio library not found; install it" in done.err


def test_stdin_needs_no_sounddevice(model):
    process = start("listen", model, "-", stdin=subprocess.PIPE)
    out, err = process.communicate("")
    assert (process.returncode, out) == (1, "")
    assert "stdin: no sound came" in err
