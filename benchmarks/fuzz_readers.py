"""Look for inputs that break a reader, guided by coverage: python benchmarks/fuzz_readers.py [TARGET] --seconds 120

atheris (pip install atheris; Linux and macOS) changes the inputs and keeps those that reach new lines of our code. A
reader may refuse an input by a SpectagError, or by the errors that its docstring names. Everything else is a find: its
input is written to the --finds folder. So is an input that takes more than ten seconds or 2 GB.

PYTHONPATH=tests is needed.
"""

import argparse
import io
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["spectag"]):
    from spectag.audio.file_ends import caf_present_fraction, end_is_missing
    from spectag.audio.files import audio_info, open_stream, read_audio, write_audio
    from spectag.audio.ogg_links import end_of_pages, ogg_links
    from spectag.audio.recording_metadata import read_recording_info
    from spectag.audio.wav_header import read_wav_header, wav_chunks
    from spectag.data.manifest import read_manifest
    from spectag.errors import SpectagError
    from spectag.models.bundle import read_info
    from spectag.models.torch_state_dict import read_torch_state_dict

from helpers.bundles import make_info
from helpers.damaged_files import available_families, sound

_MEMORY = Path("/dev/shm")  # faster than a disk
_WAV_FAMILIES = ("wav PCM_U8", "wav FLOAT", "wav IMA_ADPCM", "rf64", "wav extensible")
_TABLES = (
    "fname,labels\na.wav,dog\nb.wav,cat\n",
    "filename,start,end,label\na.wav,0,1.5,dog\na.wav,2,3,cat\n",
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin File\tSpecies\n"
    "1\tSpectrogram 1\t1\t0.5\t1.5\t100\t2000\ta.wav\tdog\n",
    "0.5\t1.5\tdog\n\\\t100\t2000\n2\t3\tcat\n",
    "fname;dog;cat\na.wav;1;0\nb.wav;0;1\n",
    'fname,labels,fold,weight\n"a.wav","dog,cat",0,0.5\n',
    "YTID,start_seconds,end_seconds,positive_labels\nabc,30.0,40.0,/m/09x0r\n",
)


def wav_header(path: Path) -> None:
    """The chunks of a wav."""
    header = read_wav_header(path)
    if header is not None:
        assert header.present_size >= 0
        assert 0 <= header.present_fraction <= 1
        assert header.correction[0] >= 0
    for _, content in wav_chunks(path, (b"bext", b"guan", b"LIST"), max_bytes=1000):
        assert len(content) <= 1000


def links(path: Path) -> None:
    """The links of an Ogg file are adjacent, and cover it."""
    if path.stat().st_size:
        parts = ogg_links(path)
        assert parts[0][0] == 0
        assert parts[-1][1] == path.stat().st_size
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(parts))
        end_of_pages(path)


def file_ends(path: Path) -> None:
    """Whether the end of a file is missing."""
    assert 0 <= caf_present_fraction(path) <= 1
    for name in ("ogg", "mp3", "aac", "ac3", "eac3", "caf"):
        end_is_missing(path, name)


def decoding(path: Path) -> None:
    """The samples of a sound in three ways are finite."""
    with open_stream(path) as stream:
        for block in stream.blocks:
            assert np.isfinite(block).all()
    assert audio_info(path).duration_seconds >= 0
    assert np.isfinite(read_audio(path, start_seconds=0.2, end_seconds=0.4)[0]).all()


def metadata(path: Path) -> None:
    """Place and time of a recording."""
    read_recording_info(path)


def tables(path: Path) -> None:
    """Manifests, annotations and label tracks."""
    read_manifest(path)


def bundle_info(path: Path) -> None:
    """The description of a model."""
    read_info(path.parent)


def state_dict(path: Path) -> None:
    """Weights of PyTorch; a ValueError refuses them."""
    with suppress(ValueError):
        read_torch_state_dict(path)


def _sounds(*families: str) -> list[bytes]:
    return [sound(family, 0)[:30_000] for family in families]


def _tables() -> list[bytes]:
    return [table.encode() for table in _TABLES] + [_TABLES[0].encode("utf-16")]


def _state_dicts() -> list[bytes]:
    import torch

    file = io.BytesIO()
    torch.save({"a.weight": torch.zeros(3, 2), "a.n": torch.tensor(1)}, file)
    return [file.getvalue()]


TARGETS: dict[str, tuple[Callable[[Path], None], str, Callable[[], list[bytes]]]] = {
    "wav_header": (wav_header, "a.wav", lambda: _sounds(*_WAV_FAMILIES)),
    "ogg_links": (links, "a.ogg", lambda: _sounds("opus", "ogg vorbis")),
    "file_ends": (file_ends, "a.caf", lambda: _sounds("caf", "opus", "mp3", "aac", "ac3", "eac3")),
    "decoding": (decoding, "a.wav", lambda: _sounds(*available_families())),
    "metadata": (metadata, "a.wav", lambda: _sounds("wav PCM_16", "flac", "mp3")),
    "tables": (tables, "a.csv", _tables),
    "label_tracks": (tables, "a.txt", _tables),
    "bundle_info": (bundle_info, "spectag.json", lambda: [make_info().model_dump_json().encode()]),
    "state_dict": (state_dict, "a.pt", _state_dicts),
}
"""Name: reader, name of the file, examples to start from."""


def fuzz(target: str, seconds: int, finds: Path) -> None:
    """Fuzz a target in this process, which libFuzzer ends."""
    read, name, examples = TARGETS[target]
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_MEMORY if _MEMORY.exists() else None))
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, content in enumerate(examples()):
        (corpus / str(number)).write_bytes(content)
    (folder / "input").mkdir()
    write_audio(folder / "input" / "b.wav", np.zeros(16_000, np.float32), 16_000)
    path = folder / "input" / name

    def one_input(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except SpectagError as error:
            if len(str(error).splitlines()) != 1:
                raise AssertionError(f"not a message of one line: {error!r}") from error

    options = [f"-max_total_time={seconds}", f"-artifact_prefix={finds}/{target}-", "-timeout=10", "-rss_limit_mb=2048"]
    atheris.Setup([sys.argv[0], str(corpus), "-max_len=40000", "-verbosity=1", *options], one_input)
    atheris.Fuzz()


def main() -> None:
    """Fuzz one target, or all, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=120, help="for each target (120)")
    parser.add_argument(
        "--finds", type=Path, default=Path("finds"), help="folder for the inputs that were found (finds)"
    )
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.finds.mkdir(parents=True, exist_ok=True)
    if arguments.here:
        fuzz(arguments.targets[0], arguments.seconds, arguments.finds)
    print("| reader | seconds | inputs | lines and branches covered | finds |\n|---|---|---|---|---|", flush=True)
    for target in arguments.targets or TARGETS:
        options = [target, "--here", "--seconds", str(arguments.seconds), "--finds", str(arguments.finds)]
        done = subprocess.run(
            [sys.executable, __file__, *options], capture_output=True, text=True, errors="replace", check=False
        )
        (arguments.finds / f"{target}.log").write_text(done.stdout + done.stderr)
        n_inputs = (re.findall(r"^#(\d+)", done.stderr, re.MULTILINE) or ["0"])[-1]
        coverage = (re.findall(r"cov: (\d+)", done.stderr) or ["0"])[-1]
        n_finds = len(list(arguments.finds.glob(f"{target}-*")))
        print(f"| {target} | {arguments.seconds} | {int(n_inputs):,} | {coverage} | {n_finds} |", flush=True)


if __name__ == "__main__":
    main()
