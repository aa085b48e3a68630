"""The first run: made-up sounds, a tagger trained on them, and what it hears in clips that it has not seen."""

from collections.abc import Iterator
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
from spectag.system.output import written
from spectag.system.progress import Log, Progress, no_log, silent
from spectag.tagging.events import FileEvents, detected_events
from spectag.tagging.formats.csv_and_jsonl import write_csv
from spectag.tagging.parallel import tag
from spectag.training.pipeline import train

BACKBONE = "efficientnet_lite0"
"""Its weights come with the package, so that the first run needs no download."""

PICTURE_MEL = MelConfig(sample_rate=44_100, n_fft=2560, hop_length=512, f_max=22_050.0, ref="max")
_N_ROWS, _N_COLUMNS = 3, 4


@dataclass(frozen=True)
class Demo:
    """What the first run made."""

    data: DemoData
    model: Path
    tags: Path
    picture: Path
    report: Path
    evaluation: Evaluation
    """On the test clips, which training never saw."""


def demo(folder: str | Path, *, seed: int = 0, progress: Progress = silent, log: Log = no_log) -> Demo:
    """Make a small multi-label data set of synthesised sounds, train on it, evaluate, and tag its test folder.

    Parameters
    ----------
    folder : path
        Gets data/ (in the layout of FSDKaggle2019; used again where it is there), model/, tags.csv, heard.png and
        evaluation/, which holds report.html.
    seed : int
        Of the sounds.
    progress, say
        As in `train`.
    """
    folder = Path(folder)
    data = make_demo_data(folder / "data", seed=seed, progress=progress)
    log(f"data: {len(data.labels)} kinds of sound in {data.folder}: {', '.join(data.labels)}")
    train(data.train_curated, folder / "model", Recipe(backbone=BACKBONE), progress=progress, log=log)
    answers = read_manifest(data.test_answers, audio_dir=data.test)
    tagger = Tagger(folder / "model")
    heard = list(_heard(tagger, answers, progress))
    with written(folder / "tags.csv") as file:
        write_csv(heard, file)
    _draw(answers, heard, folder / "heard.png")
    evaluation = evaluate(tagger, answers, seed=seed, progress=progress)
    write_evaluation(evaluation, folder / "evaluation")
    report = write_report(evaluation, folder / "evaluation" / "report.html", progress=progress)
    return Demo(data, folder / "model", folder / "tags.csv", folder / "heard.png", report, evaluation)


def _heard(tagger: Tagger, answers: Manifest, progress: Progress) -> Iterator[FileEvents]:
    for tagged in tag(tagger, [clip.path for clip in answers.clips], progress=progress):
        if tagged.timeline is None:
            raise DataError(f"{tagged.reason}; make the demo's sounds anew in another folder")
        yield detected_events(tagged, tagged.timeline, tagger, TagSettings())


def _draw(answers: Manifest, heard: list[FileEvents], path: Path) -> None:
    """A collage of test clips: what is in them above, what was heard below."""
    tiles = []
    for clip, file in list(zip(answers.clips, heard, strict=True))[: _N_ROWS * _N_COLUMNS]:
        waveform, _ = read_audio(clip.path, sample_rate=PICTURE_MEL.sample_rate)
        tiles.append(Tile(clip.labels, _caption(file), compute_log_mel(waveform, PICTURE_MEL), PICTURE_MEL))
    save_figure(collage_figure(tiles, n_rows=_N_ROWS, n_columns=_N_COLUMNS), path)


def _caption(file: FileEvents) -> str:
    heard = ", ".join(f"{event.label} {event.probability:.2f}" for event in file.events)
    return f"heard: {heard or 'nothing'}"
