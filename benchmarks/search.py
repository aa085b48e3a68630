"""Quality and speed of the similarity search.

python benchmarks/search.py quality MODEL MANIFEST
    Each clip is a query for all clips of other recordings, with several embeddings of the features. Printed: precision
    at 1 and at 10 and mean average precision of clips with the same label, and mean average precision of clips of the
    same recording among all clips.

python benchmarks/search.py speed --n 1000000 --kind clustered
    Random vectors, as many as there are windows in an archive, on one core. clustered: 2,000 kinds of sounds with
    different frequencies, distributed along the axes like the vectors of ESC-10; isotropic: uniform directions.
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
from spectag.curation.embedding import Embedding, nearest_neighbors, unit_vectors
from spectag.curation.sound_index.ann_graph import Graph, write_graph
from spectag.curation.sound_index.database import IndexDatabase
from spectag.curation.sound_index.metadata import IndexInfo, write_index_info
from spectag.curation.sound_index.recording_dates import RecordingDate, from_seconds
from spectag.curation.sound_index.searching import SoundIndex
from spectag.curation.sound_index.vectors import read_vectors
from spectag.data.manifest import read_manifest
from spectag.models.tagger import Tagger
from spectag.models.timeline import Timeline
from spectag.system.atomic_files import sha256_of
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
    quality.add_argument(
        "--recording", default=r"\d-(\d+)-", help="regular expression for the recording in a clip's name"
    )
    quality.set_defaults(run=run_quality)
    speed = commands.add_parser("speed")
    speed.add_argument("--n", type=int, default=1_000_000)
    speed.add_argument("--dimensions", type=int, default=128)
    speed.add_argument("--kind", choices=["clustered", "isotropic"], default="clustered")
    speed.add_argument("--index", type=Path, help="keep the index in this folder; an existing one is used")
    speed.set_defaults(run=run_speed)
    arguments = parser.parse_args()
    arguments.run(arguments)


def run_quality(arguments: argparse.Namespace) -> None:
    """Compare embeddings by how well they find sounds with the same label and of the same recording."""
    manifest = read_manifest(arguments.manifest)
    tagger = Tagger(arguments.model)
    files = tag(tagger, [clip.path for clip in manifest.clips], features=True)
    features = np.concatenate([file.network_outputs.features for file in files if file.network_outputs is not None])
    labels = manifest.multi_hot().argmax(axis=1)
    recordings = np.array([re.search(arguments.recording, clip.fname)[1] for clip in manifest.clips])  # type: ignore[index]
    print(
        "| vectors | precision at 1 | at 10 | mean average precision | of the same recording |\n|---|---|---|---|---|"
    )
    for name, vectors in embeddings(features.astype(np.float64)):
        scores = retrieval(unit_vectors(vectors), labels, recordings)
        print(f"| {name} | {' | '.join(f'{score:.3f}' for score in scores)} |", flush=True)
    print("\nthree examples of a label, 1,000 draws:\n\n| | precision at 10 | mean average precision |\n|---|---|---|")
    vectors = Embedding.fit(features)(features)
    for name, pool in {
        "first only": lambda s: s[0],
        "mean": lambda s: s.mean(0),
        "best": lambda s: s.max(0),
    }.items():
        print(
            f"| {name} | {' | '.join(f'{score:.3f}' for score in query_by_three(vectors, labels, recordings, pool))} |"
        )


def embeddings(features: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and vectors (n_clips, n_dimensions)."""
    centred, deviation = features - features.mean(0), features.std(0) + 1e-6
    yield "unchanged features", features
    for exponent in (0, 0.5, 1):
        yield f"centred, divided by deviation^{exponent:g}", centred / deviation**exponent
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
    label_scores, recording_scores = [], []
    for clip, values in enumerate(products):
        others = recordings != recordings[clip]
        hits = ranked(values[others], labels[others] == labels[clip])
        label_scores.append((hits[0], hits[:10].mean(), average_precision(hits)))
        rest = np.arange(len(labels)) != clip
        same = recordings[rest] == recordings[clip]
        if same.any():
            recording_scores.append(average_precision(ranked(values[rest], same)))
    return np.append(np.mean(label_scores, axis=0), np.mean(recording_scores))


def query_by_three(vectors: np.ndarray, labels: np.ndarray, recordings: np.ndarray, pool: Callable) -> np.ndarray:
    """Precision at 10 and mean average precision of queries with three examples of a label, in other recordings."""
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
    """Mean of the precision at the rank of each hit."""
    ranks = np.flatnonzero(hits) + 1
    return float(np.mean((np.arange(len(ranks)) + 1) / ranks))


def run_speed(arguments: argparse.Namespace) -> None:
    """Build an index of random vectors, and measure searches."""
    folder = arguments.index or Path(tempfile.mkdtemp(prefix="spectag-search-"))
    rng = np.random.default_rng(0)
    draw = vector_source(rng, arguments.dimensions, arguments.kind)
    queries = draw(N_QUERIES)
    if not (folder / "index.json").exists():
        make_index(folder, draw, arguments.n, arguments.dimensions)
    database = IndexDatabase(folder)
    vectors = read_vectors(folder, database.state)
    begin = time.perf_counter()
    exact, _ = nearest_neighbors(queries, vectors, 10)
    print(
        f"{arguments.kind}, {arguments.n:,} × {arguments.dimensions}: exact search, {N_QUERIES} queries at once: ",
        end="",
    )
    print(f"{1e3 * (time.perf_counter() - begin) / N_QUERIES:.1f} ms each", flush=True)
    times = [seconds(lambda query=query: nearest_neighbors(query[None], vectors, 10)) for query in queries[:20]]
    print(f"one query at a time: {1e3 * np.median(times):.1f} ms each", flush=True)
    if not database.state.n_in_graph:
        build_graph(database)
    graph = folder / database.state.graph_file
    sizes = (file.stat().st_size >> 20 for file in (folder / database.state.vectors_file, graph))
    print("vectors {} MiB, graph {} MiB".format(*sizes))
    begin = time.perf_counter()
    first = SoundIndex(folder).search(file_name(0), start=0.0, same_file=True)
    print(f"opening the index and first search ({len(first)} results): {1e3 * (time.perf_counter() - begin):.0f} ms")
    measure_search(SoundIndex(folder), vectors, rng)
    measure_graph(graph, vectors, queries, exact)
    measure_filters(SoundIndex(folder))
    if arguments.index is None:
        shutil.rmtree(folder)


def vector_source(rng: np.random.Generator, n_dimensions: int, kind: str) -> Callable[[int], np.ndarray]:
    """A function that draws n random unit vectors."""
    if kind == "isotropic":
        return lambda n: unit_vectors(rng.standard_normal((n, n_dimensions), dtype=np.float32))
    scale = np.arange(1, n_dimensions + 1, dtype=np.float32) ** -0.6
    centers = rng.standard_normal((N_KINDS, n_dimensions), dtype=np.float32) * scale
    frequencies = rng.pareto(1.2, N_KINDS) + 0.1
    frequencies /= frequencies.sum()

    def draw(n: int) -> np.ndarray:
        noise = rng.standard_normal((n, n_dimensions), dtype=np.float32) * scale
        return unit_vectors(centers[rng.choice(N_KINDS, n, p=frequencies)] + 0.5 * noise)

    return draw


def make_index(folder: Path, draw: Callable[[int], np.ndarray], n: int, n_dimensions: int) -> None:
    """An index of recordings with 100 windows, one per day. "rare" is in ten windows, "often" in every second one."""
    folder.mkdir(parents=True, exist_ok=True)
    database = IndexDatabase(folder)
    window = WindowConfig(window_seconds=10.0)
    write_index_info(
        folder, IndexInfo(model="none", labels=("rare", "often"), window=window, engine="usearch", probe=(1, 1))
    )
    starts = 10.0 * np.arange(WINDOWS_PER_FILE)
    state = database.state._replace(generation=1, n_vectors=n, n_dimensions=n_dimensions, is_settled=True)
    with (folder / state.vectors_file).open("wb") as file:
        for number in range(n // WINDOWS_PER_FILE):
            file.write(draw(WINDOWS_PER_FILE).tobytes())
            probabilities = np.zeros((WINDOWS_PER_FILE, 2), np.float32)
            probabilities[::2, 1] = 1
            probabilities[0, 0] = number % (n // WINDOWS_PER_FILE // 10) == 0
            date = RecordingDate(from_seconds(number * 86_400.0), from_name=True)
            timeline = Timeline(starts, starts + 10, probabilities)
            entry = database.add(file_name(number), "", date, timeline, np.full(2, 0.5, np.float32))
            database.set_first_row(entry, number * WINDOWS_PER_FILE)
    database.state = state
    database.commit()


def build_graph(database: IndexDatabase) -> None:
    """Build the graph on one core."""
    state = database.state._replace(n_in_graph=database.state.n_vectors)
    begin = time.perf_counter()
    vectors = read_vectors(database.folder, state)
    expansion = write_graph(database.folder / state.graph_file, vectors, workers=1, progress=silent)
    print(f"graph built in {time.perf_counter() - begin:.0f} s; sufficient expansion: {expansion or 'none'}")
    database.use_graph(state.n_in_graph, expansion)
    database.commit()


def seconds(work: Callable[[], object]) -> float:
    """Time of a call."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def file_name(number: int) -> str:
    """The name of a recording of the index."""
    return f"/archive/{number % 12:02}/{number}.wav"


def measure_search(index: SoundIndex, vectors: np.ndarray, rng: np.random.Generator) -> None:
    """Time and recall of complete searches, one query at a time. The queries are windows of the index."""
    rows = rng.choice(len(vectors), N_QUERIES, replace=False)
    exact, _ = nearest_neighbors(vectors[rows], vectors, 11)
    index.search(file_name(0), start=0.0)
    times, recalls = [], []
    for row, closest in zip(rows.tolist(), exact.tolist(), strict=True):
        number, window = divmod(row, WINDOWS_PER_FILE)
        begin = time.perf_counter()
        results = index.search(file_name(number), start=10.0 * window, same_file=True)
        times.append(1e3 * (time.perf_counter() - begin))
        found = {int(Path(result.file).stem) * WINDOWS_PER_FILE + int(result.start_seconds // 10) for result in results}
        recalls.append(len(found.intersection([other for other in closest if other != row][:10])) / 10)
    print(
        f"spectag search: {np.median(times):.1f} ms per query (95th percentile {np.percentile(times, 95):.1f}), "
        f"recall at 10 {np.mean(recalls):.4f}",
        flush=True,
    )


def measure_graph(path: Path, vectors: np.ndarray, queries: np.ndarray, exact: np.ndarray) -> None:
    """Time and recall of the graph by search expansion."""
    graph = Graph(path, sha256_of(path))
    for expansion in (512, 1_024, 2_048, 4_096, 8_192):
        times, recalls = [], []
        for query, expected in zip(queries, exact, strict=True):
            begin = time.perf_counter()
            rows = graph.candidates(query, 50, expansion=expansion)
            found, _ = nearest_neighbors(query[None], vectors, 10, rows=rows)
            times.append(1e3 * (time.perf_counter() - begin))
            recalls.append(len(set(found[0].tolist()) & set(expected.tolist())) / 10)
        print(f"  expansion {expansion:,}: {np.median(times):.2f} ms, recall at 10 {np.mean(recalls):.4f}", flush=True)


def measure_filters(index: SoundIndex) -> None:
    """Time of searches with filters that few or many windows pass."""
    query = file_name(5)
    index.search(query, start=0.0)
    filters = {
        "label of ten windows": {"label": "rare"},
        "label of half": {"label": "often"},
        "a month": {"after": from_seconds(0), "before": from_seconds(30 * 86_400.0)},
        "half of the days": {"after": from_seconds(len(index) / 2 / WINDOWS_PER_FILE * 86_400.0)},
        "a folder of twelve": {"within": "03"},
    }
    for name, conditions in filters.items():
        begin = time.perf_counter()
        n_found = len(index.search(query, n=10, start=0.0, **conditions))  # type: ignore[arg-type]
        print(f"  {name}: {n_found} found in {1e3 * (time.perf_counter() - begin):.0f} ms", flush=True)


if __name__ == "__main__":
    main()
