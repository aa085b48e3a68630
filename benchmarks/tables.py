"""Time and memory to read large tables: python benchmarks/tables.py [--rows 1000000] [--columns 100000]

Each table is read in a new process. The sounds are empty files, because reading a manifest does not decode them.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from spectag.data.manifest import read_manifest

N_SOUNDS = 1_000
N_HOT_ROWS = 100
N_LABELS = 50


def clip_rows(n_rows: int) -> Iterator[str]:
    """A row for each clip of a second, with two labels and a fold."""
    yield "fname,labels,fold,start,end\n"
    for row in range(n_rows):
        start = row // N_SOUNDS
        yield f'{row % N_SOUNDS:04}.wav,"label {row % N_LABELS},common",{row % 5},{start}.0,{start + 1}.0\n'


def event_rows(n_rows: int) -> Iterator[str]:
    """A row for each sound, as in DESED; every sound overlaps the next one."""
    yield "filename\tonset\toffset\tevent_label\n"
    for row in range(n_rows):
        sound, number = divmod(row, max(1, n_rows // N_SOUNDS))
        yield f"{sound % N_SOUNDS:04}.wav\t{1.5 * number:.3f}\t{1.5 * number + 2:.3f}\tlabel {row % N_LABELS}\n"


def raven_rows(n_rows: int) -> Iterator[str]:
    """A Raven selection table with two views of each sound."""
    yield "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAnnotation\n"
    for row in range(n_rows):
        view, start = ("Waveform 1", "Spectrogram 1")[row % 2], row // 2
        yield f"{start + 1}\t{view}\t1\t{start}.25\t{start}.75\t0.0\t8000.0\tlabel {start % N_LABELS}\n"


def hot_rows(n_columns: int) -> Iterator[str]:
    """A column of 0 and 1 for each label."""
    yield f"fname,{','.join(f'label {column}' for column in range(n_columns))}\n"
    for row in range(N_HOT_ROWS):
        cells = ("1" if (column + row) % 997 == 0 else "0" for column in range(n_columns))
        yield f"{row:04}.wav,{','.join(cells)}\n"


TABLES: dict[str, tuple[str, Callable[[int], Iterator[str]]]] = {
    "clips": ("clips.csv", clip_rows),
    "events": ("events.tsv", event_rows),
    "raven": ("0000.Table.1.selections.txt", raven_rows),
    "hot": ("hot.csv", hot_rows),
}


def read_table(path: Path) -> None:
    """Print the seconds of reading and the peak memory of this process in MB."""
    start = time.perf_counter()
    manifest = read_manifest(path)
    seconds, processor = time.perf_counter() - start, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(manifest.clips):,} clips, {len(manifest.labels):,} labels: {seconds:.1f} s ", end="")
    print(f"({processor:.1f} s of processor time with the imports), {peak:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=100_000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read is not None:
        read_table(arguments.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        for sound in range(N_SOUNDS):
            Path(folder, f"{sound:04}.wav").touch()
        for name, (file, rows) in TABLES.items():
            path = Path(folder, file)
            with path.open("w", encoding="utf-8") as table:
                table.writelines(rows(arguments.columns if name == "hot" else arguments.rows))
            print(f"{name:8}{path.stat().st_size / 1e6:6.0f} MB:", end=" ", flush=True)
            subprocess.run([sys.executable, __file__, "--read", str(path)], check=True)


if __name__ == "__main__":
    main()
