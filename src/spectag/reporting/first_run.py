"""The demo: synthesised sounds, a model trained on them, its scores, and its tags of test clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectag.audio.files import read_audio
from spectag.audio.mel import compute_log_mel
from spectag.config.base import MelConfig
from spectag.config.recipe import Recipe
from spectag.config.tagging import TagSettings
from spectag.data.clips import Manifest
from spectag.data.demo_data import DemoData, make_demo_data
from spectag.data.manifest import read_manifest
from spectag.errors import DataError
from spectag.evaluation.evaluation import evaluate
from spectag.evaluation.output import write_evaluation
from spectag.evaluation.results import Evaluation
from spectag.models.tagger import Tagger
from spectag.reporting.clip_plots import Tile, collage_figure
from spectag.reporting.evaluation_report.page import write_report
from spectag.system.figures import save_figure
from spectag.system.output import open_output
from spectag.system.progress import Log, Progress, no_log, shows_progress, silent
from spectag.system.short_texts import short_repr
from spectag.tagging.events import FileEvents, detected_events
from spectag.tagging.formats.csv_and_jsonl import write_csv
from spectag.tagging.parallel import tag
from spectag.training.pipeline import train

RECIPE = Recipe(backbone="efficientnet_lite0", clip_windows=False, find_shared_audio=False)
"""The weights of this backbone are installed with the package, so that the demo needs no download. Each sound is made
for one clip, and fills most of it, so that what is left out would take time and change nothing."""

FIGURE_MEL = MelConfig(sample_rate=44_100, n_fft=2560, hop_length=512, f_max=22_050.0, ref="max")
_N_ROWS, _N_COLUMNS = 3, 4
_N_CLIPS_IN_REPORT = 1  # of each kind, with a map of each of its labels; explaining a clip takes a second
_LEGEND = "✓ detected and true     ✗ detected but not true     – true but missed"


@short_repr
@dataclass(frozen=True)
class Demo:
    """The files of the demo."""

    data: DemoData
    model: Path
    tags: Path
    figure: Path
    report: Path
    evaluation: Evaluation
    """On the test clips, which were not used for training."""


@shows_progress
def demo(folder: str | Path, *, seed: int = 0, progress: Progress = silent, log: Log = no_log) -> Demo:
    """Make a small multi-label data set of synthesised sounds, train on it, tag its test clips, and evaluate.

    Parameters
    ----------
    folder : path
        Gets data/ (in the layout of FSDKaggle2019; reused if it exists), model/, tags.csv, tags.png and evaluation/
        with report.html.
    seed : int
        Seed of the sounds.
    progress, log
        As in `train`.
    """
    folder = Path(folder)
    data = make_demo_data(folder / "data", seed=seed, progress=progress)
    log(f"data: {len(data.labels)} kinds of sound in {data.folder}: {', '.join(data.labels)}")
    train(data.train_curated, folder / "model", RECIPE, progress=progress, log=log)
    test = read_manifest(data.test_answers, audio_dir=data.test)
    tagger = Tagger(folder / "model")
    files = list(_tag_clips(tagger, test, progress))
    with open_output(folder / "tags.csv") as file:
        write_csv(files, file)
    tiles = list(_tiles(test, files[: _N_ROWS * _N_COLUMNS]))
    save_figure(collage_figure(tiles, n_rows=_N_ROWS, n_columns=_N_COLUMNS, title=_LEGEND), folder / "tags.png")
    evaluation = evaluate(tagger, test, seed=seed, progress=progress)
    write_evaluation(evaluation, folder / "evaluation")
    report = write_report(
        evaluation, folder / "evaluation" / "report.html", n_clips=_N_CLIPS_IN_REPORT, progress=progress
    )
    return Demo(data, folder / "model", folder / "tags.csv", folder / "tags.png", report, evaluation)


def _tag_clips(tagger: Tagger, test: Manifest, progress: Progress) -> Iterator[FileEvents]:
    for tagged in tag(tagger, [clip.path for clip in test.clips], progress=progress):
        if tagged.timeline is None:
            raise DataError(f"{tagged.reason}; run the demo again in another folder")
        yield detected_events(tagged, tagged.timeline, tagger, TagSettings())


def _tiles(test: Manifest, files: Sequence[FileEvents]) -> Iterator[Tile]:
    """Tiles of the first test clips, with the true labels above, and below what is detected and what is missed."""
    for clip, file in zip(test.clips, files, strict=False):
        waveform, _ = read_audio(clip.path, sample_rate=FIGURE_MEL.sample_rate)
        log_mel = compute_log_mel(waveform, FIGURE_MEL)
        yield Tile(clip.labels, _caption(clip.labels, file), log_mel, FIGURE_MEL)


def _caption(labels: Sequence[str], file: FileEvents) -> str:
    """The detected labels with their probabilities, each marked as right or wrong, and those that are missed."""
    detected = {event.label: event.probability for event in file.events}
    marked = [f"{'✓' if label in labels else '✗'} {label} {probability:.2f}" for label, probability in detected.items()]
    return "   ".join([*marked, *(f"– {label}" for label in labels if label not in detected)])
