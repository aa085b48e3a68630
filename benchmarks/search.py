"""How well sounds like one are found, and how soon.

python benchmarks/search.py quality MODEL MANIFEST
    Each clip is sought among all clips of other recordings, by vectors that are made in several ways of the features;
    shares of the same label among the first and the first ten, mean average precision, and that of finding the clips of
    the same recording among all.

python benchmarks/search.py speed --n 1000000 --kind clustered
    Made-up vectors, as many as there are stretches in an archive; one core. clustered: 2,000 kinds of sounds, unlike in
    number, and scattered along the axes as ESC-10's vectors are; isotropic: of any direction, which no sounds are.
"""

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from spectag.config.base import WindowConfig
from spectag.curation.embedding import Embedding, nearest, unit_vectors
from spectag.curation.sound_index.ann_graph import Graph, write_graph
from spectag.curation.sound_index.database import IndexDatabase
from spectag.curation.sound_index.metadata import IndexInfo, write_info
from spectag.curation.sound_index.recording_dates import RecordingDate, from_seconds
from spectag.curation.sound_index.searching import SoundIndex
from spectag.curation.sound_index.vectors import read_vectors
from spectag.data.manifest import read_manifest
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline
from spectag.system.progress import silent
from spectag.tagging.parallel import tag

WINDOWS_PER_FILE = 100
N_QUERIES = 200
N_KINDS = 2_000


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    quality = commands.add_parser("quality")
    quality.add_argument("model", type=Path)
    quality.add_argument("manifest", type=Path)
    quality.add_argument("--recording", default=r"\d-(\d+)-", help="what tells a clip's recording in its name")
    quality.set_defaults(run=run_quality)
    speed = commands.add_parser("speed")
    speed.add_argument("--n", type=int, default=1_000_000)
    speed.add_argument("--dimensions", type=int, default=128)
    speed.add_argument("--kind", choices=["clustered", "isotropic"], default="clustered")
    speed.add_argument("--index", type=Path, help="keep the index here; where it is already, it is not made again")
    speed.set_defaults(run=run_speed)
    arguments = parser.parse_args()
    arguments.run(arguments)


def run_quality(arguments: argparse.Namespace) -> None:
    """How well each way of making vectors finds sounds of the same label, and of the same recording."""
    manifest = read_manifest(arguments.manifest)
    tagger = Tagger(arguments.model)
    files = tag(tagger, [clip.path for clip in manifest.clips], features=True)
    features = np.concatenate([file.network_outputs.features for file in files if file.network_outputs is not None])
    labels = manifest.multi_hot().argmax(axis=1)
    recordings = np.array([re.search(arguments.recording, clip.fname)[1] for clip in manifest.clips])  # type: ignore[index]
    print(
        "| vectors | precision at 1 | at 10 | mean average precision | of the same recording |\n|---|---|---|---|---|"
    )
    for name, vectors in ways(features.astype(np.float64)):
        scores = retrieval(unit_vectors(vectors), labels, recordings)
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in scores)} |", flush=True)
    print("\nthree examples of a label, 1,000 draws:\n\n| | precision at 10 | mean average precision |\n|---|---|---|")
    vectors = Embedding.fit(features)(features)
    for name, pool in {
        "the first alone": lambda s: s[0],
        "mean": lambda s: s.mean(0),
        "best": lambda s: s.max(0),
    }.items():
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in of_three(vectors, labels, recordings, pool))} |")


def ways(features: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and vectors (n_clips, n_dimensions)."""
    centred, deviation = features - features.mean(0), features.std(0) + 1e-6
    yield "features as they are", features
    for share in (0, 0.5, 1):
        yield f"centred, divided by deviation^{share:g}", centred / deviation**share
    for n_last in (384, 1280):
        yield f"the last {n_last}, centred", centred[:, -n_last:]
    left, lengths, _ = np.linalg.svd(centred / deviation**0.5, full_matrices=False)
    for n_axes in (64, 128, 256):
        for whitening in (0, 0.25, 0.5, 1):
            vectors = left[:, :n_axes] * lengths[:n_axes] ** (1 - whitening)
            yield f"deviation^0.5, {n_axes} axes, whitened by {whitening:g}", vectors
    yield "**spectag.curation.embedding**", Embedding.fit(features)(features)


def retrieval(vectors: np.ndarray, labels: np.ndarray, recordings: np.ndarray) -> np.ndarray:
    """Precision at 1 and at 10 and mean average precision of labels, and mean average precision of recordings."""
    products = vectors @ vectors.T
    of_labels, of_recordings = [], []
    for clip, values in enumerate(products):
        others = recordings != recordings[clip]
        hits = ranked(values[others], labels[others] == labels[clip])
        of_labels.append((hits[0], hits[:10].mean(), average_precision(hits)))
        rest = np.arange(len(labels)) != clip
        same = recordings[rest] == recordings[clip]
        if same.any():
            of_recordings.append(average_precision(ranked(values[rest], same)))
    return np.append(np.mean(of_labels, axis=0), np.mean(of_recordings))


def of_three(vectors: np.ndarray, labels: np.ndarray, recordings: np.ndarray, pool: Callable) -> np.ndarray:
    """Precision at 10 and mean average precision of three examples of a label, whose recordings are left out."""
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(1_000):
        label = rng.choice(labels)
        examples = rng.choice(np.flatnonzero(labels == label), 3, replace=False)
        others = ~np.isin(recordings, recordings[examples])
        hits = ranked(pool(vectors[examples] @ vectors[others].T), labels[others] == label)
        scores.append((hits[:10].mean(), average_precision(hits)))
    return np.mean(scores, axis=0)


def ranked(similarities: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """The hits, the most similar first."""
    return hits[np.argsort(-similarities, kind="stable")]


def average_precision(hits: np.ndarray) -> float:
    """Mean, over the hits, of the share of hits among those up to it."""
    places = np.flatnonzero(hits)
    return float(np.mean((np.arange(len(places)) + 1) / (places + 1)))


def run_speed(arguments: argparse.Namespace) -> None:
    """Make an index of made-up vectors, and ask it."""
    folder = arguments.index or Path(tempfile.mkdtemp(prefix="spectag-search-"))
    rng = np.random.default_rng(0)
    draw = scattered(rng, arguments.dimensions, arguments.kind)
    queries = draw(N_QUERIES)
    if not (folder / "index.json").exists():
        make_index(folder, draw, arguments.n, arguments.dimensions)
    store = IndexDatabase.open(folder)
    vectors = read_vectors(folder, store.state)
    begin = time.perf_counter()
    exact, _ = nearest(queries, vectors, 10)
    print(f"{arguments.kind}, {arguments.n:,} × {arguments.dimensions}: exact, {N_QUERIES} at once: ", end="")
    print(f"{1e3 * (time.perf_counter() - begin) / N_QUERIES:.1f} ms each", flush=True)
    times = [seconds(lambda query=query: nearest(query[None], vectors, 10)) for query in queries[:20]]
    print(f"one after another: {1e3 * np.median(times):.1f} ms each", flush=True)
    if not store.state.n_in_graph:
        draw_graph(store)
    graph = folder / store.state.graph_file
    sizes = (file.stat().st_size >> 20 for file in (folder / store.state.vectors_file, graph))
    print("vectors {} MiB, graph {} MiB".format(*sizes))
    begin = time.perf_counter()
    first = SoundIndex(folder).search_vector(queries[0])
    print(f"opening, and the first answer ({len(first)} rows): {1e3 * (time.perf_counter() - begin):.0f} ms")
    ask(SoundIndex(folder), queries, exact)
    candidates(graph, vectors, queries, exact)
    filters(SoundIndex(folder))
    if arguments.index is None:
        shutil.rmtree(folder)


def scattered(rng: np.random.Generator, n_dimensions: int, kind: str) -> Callable[[int], np.ndarray]:
    """What draws so many unit vectors."""
    if kind == "isotropic":
        return lambda n: unit_vectors(rng.standard_normal((n, n_dimensions), dtype=np.float32))
    spread = np.arange(1, n_dimensions + 1, dtype=np.float32) ** -0.6
    centers = rng.standard_normal((N_KINDS, n_dimensions), dtype=np.float32) * spread
    shares = rng.pareto(1.2, N_KINDS) + 0.1
    shares /= shares.sum()

    def draw(n: int) -> np.ndarray:
        noise = rng.standard_normal((n, n_dimensions), dtype=np.float32) * spread
        return unit_vectors(centers[rng.choice(N_KINDS, n, p=shares)] + 0.5 * noise)

    return draw


def make_index(folder: Path, draw: Callable[[int], np.ndarray], n: int, n_dimensions: int) -> None:
    """An index of recordings of 100 windows each, one a day; "rare" is heard in ten windows, "often" in every other."""
    folder.mkdir(parents=True, exist_ok=True)
    store = IndexDatabase.open(folder)
    window = WindowConfig(window_seconds=10.0)
    write_info(folder, IndexInfo(model="none", labels=("rare", "often"), window=window, engine="usearch", probe=(1, 1)))
    starts = 10.0 * np.arange(WINDOWS_PER_FILE)
    state = store.state._replace(generation=1, n_vectors=n, n_dimensions=n_dimensions, is_settled=True)
    with (folder / state.vectors_file).open("wb") as file:
        for number in range(n // WINDOWS_PER_FILE):
            file.write(draw(WINDOWS_PER_FILE).tobytes())
            heard = np.zeros((WINDOWS_PER_FILE, 2), np.float32)
            heard[::2, 1] = 1
            heard[0, 0] = number % (n // WINDOWS_PER_FILE // 10) == 0
            when = RecordingDate(from_seconds(number * 86_400.0), by_name=True)
            timeline = Timeline(starts, starts + 10, heard)
            entry = store.add(
                f"/archive/{number % 12:02}/{number}.wav", "", when, timeline, np.full(2, 0.5, np.float32)
            )
            store.place(entry, number * WINDOWS_PER_FILE)
    store.state = state
    store.commit()


def draw_graph(store: IndexDatabase) -> None:
    """The graph, by one core."""
    state = store.state._replace(n_in_graph=store.state.n_vectors)
    begin = time.perf_counter()
    vectors = read_vectors(store.folder, state)
    expansion = write_graph(store.folder / state.graph_file, vectors, workers=1, progress=silent)
    print(f"graph drawn in {time.perf_counter() - begin:.0f} s; expansion that is sufficient: {expansion or 'none'}")
    store.state = state._replace(expansion=expansion)
    store.commit()


def seconds(work: Callable[[], object]) -> float:
    """What it takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ask(index: SoundIndex, queries: np.ndarray, exact: np.ndarray) -> None:
    """Whole answers, with files, times, dates and labels, one question after another."""
    index.search_vector(queries[0])
    times, shares = [], []
    for query, expected in zip(queries, exact, strict=False):
        begin = time.perf_counter()
        answer = index.search_vector(query, n=10)
        times.append(1e3 * (time.perf_counter() - begin))
        found = {int(Path(one.file).stem) * WINDOWS_PER_FILE + one.start_seconds / 10 for one in answer}
        shares.append(len(found & set(expected.tolist())) / 10)
    print(
        f"spectag search: {np.median(times):.1f} ms a question (95th percentile {np.percentile(times, 95):.1f}), "
        f"recall at 10 {np.mean(shares):.4f}",
        flush=True,
    )


def candidates(path: Path, vectors: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> None:
    """What looking further into the graph gives."""
    graph = Graph(path)
    for expansion in (512, 1_024, 2_048, 4_096, 8_192):
        times, shares = [], []
        for query, expected in zip(queries, exact, strict=True):
            begin = time.perf_counter()
            rows = graph.candidates(query, 50, expansion=expansion)
            found, _ = nearest(query[None], vectors, 10, rows=rows)
            times.append(1e3 * (time.perf_counter() - begin))
            shares.append(len(set(found[0].tolist()) & set(expected.tolist())) / 10)
        print(f"  expansion {expansion:,}: {np.median(times):.2f} ms, recall at 10 {np.mean(shares):.4f}", flush=True)


def filters(index: SoundIndex) -> None:
    """Questions about a few rows, and about many."""
    query = "/archive/05/5.wav"
    index.search(query, start=0.0)
    asked = {
        "label of ten rows": {"label": "rare"},
        "label of half": {"label": "often"},
        "a month": {"after": from_seconds(0), "before": from_seconds(30 * 86_400.0)},
        "half of the days": {"after": from_seconds(len(index) / 2 / WINDOWS_PER_FILE * 86_400.0)},
        "a folder of twelve": {"within": "03"},
    }
    for name, condition in asked.items():
        begin = time.perf_counter()
        n_found = len(index.search(query, n=10, start=0.0, **condition))  # type: ignore[arg-type]
        print(f"  {name}: {n_found} found in {1e3 * (time.perf_counter() - begin):.0f} ms", flush=True)


if __name__ == "__main__":
    main()
