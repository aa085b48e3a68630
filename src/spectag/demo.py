"""The first run: made-up sounds, a tagger trained on them, and what it hears in clips that it has not seen."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectag.audio import read_audio
from spectag.config import MelConfig
from spectag.demo_data import DemoData, make_demo_data
from spectag.manifest import Manifest, read_manifest
from spectag.mel import compute_log_mel
from spectag.plots import Tile, collage_figure, save_figure
from spectag.progress import Progress, Say, silent, tell_nobody
from spectag.recipe import Recipe
from spectag.runtime import Tagger, Tags
from spectag.scores import Scores, score
from spectag.tables import Choice, write_csv, written
from spectag.tag import TaggedFile, tag
from spectag.train import train

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
    scores: Scores
    """Of the test clips, which training never saw."""


def demo(folder: str | Path, *, seed: int = 0, progress: Progress = silent, say: Say = tell_nobody) -> Demo:
    """Make a small multi-label data set of synthesised sounds, train on it, evaluate, and tag its test folder.

    Parameters
    ----------
    folder : path
        Gets data/ (in the layout of FSDKaggle2019; used again where it is there), model/, tags.csv and heard.png.
    seed : int
        Of the sounds.
    progress, say
        As in `train`.
    """
    folder = Path(folder)
    data = make_demo_data(folder / "data", seed=seed, progress=progress)
    say(f"data: {len(data.labels)} kinds of sound in {data.folder}: {', '.join(data.labels)}")
    train(data.train_curated, folder / "model", Recipe(backbone=BACKBONE), progress=progress, say=say)
    answers = read_manifest(data.test_answers, audio_dir=data.test)
    tagged = list(tag(Tagger(folder / "model"), [clip.path for clip in answers.clips], progress=progress))
    with written(folder / "tags.csv") as file:
        write_csv(tagged, Choice(), file)
    _draw(answers, tagged, folder / "heard.png")
    scores = score(answers.multi_hot(), _probabilities(tagged), rng=np.random.default_rng(seed))
    return Demo(data, folder / "model", folder / "tags.csv", folder / "heard.png", scores)


def _probabilities(tagged: list[TaggedFile]) -> NDArray[np.float32]:
    return np.stack([file.tags[0].probabilities for file in tagged])


def _draw(answers: Manifest, tagged: list[TaggedFile], path: Path) -> None:
    """A collage of test clips: what is in them above, what was heard below."""
    tiles = []
    for clip, file in list(zip(answers.clips, tagged, strict=True))[: _N_ROWS * _N_COLUMNS]:
        waveform, _ = read_audio(clip.path, sample_rate=PICTURE_MEL.sample_rate)
        tiles.append(Tile(clip.labels, _heard(file.tags[0]), compute_log_mel(waveform, PICTURE_MEL), PICTURE_MEL))
    save_figure(collage_figure(tiles, n_rows=_N_ROWS, n_columns=_N_COLUMNS), path)


def _heard(tags: Tags) -> str:
    heard = ", ".join(f"{tag.label} {tag.probability:.2f}" for tag in tags.heard())
    return f"heard: {heard or 'nothing'}"
