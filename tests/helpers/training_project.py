"""A project with labelled tones and a model that a small network without pretraining makes in seconds."""

from pathlib import Path

from helpers.small_training import LABELS, SMALL_MEL, write_sounds
from spectag.config.recipe import Recipe
from spectag.data.manifest import read_manifest
from spectag.serving.project.label_clips import ClipState
from spectag.serving.project.labels import FoundClip
from spectag.serving.project.project import open_project
from spectag.training.pipeline import train

RECIPE = Recipe(backbone="scratch", pretrained=False, mel=SMALL_MEL, find_shared_audio=False)


def make_project(folder: Path, n_clips: int = 24, wrong: int = 6) -> Path:
    """A project whose first version is trained on labels of which some are wrong; its sounds are beside it."""
    manifest = write_sounds(folder / "sounds", n_clips)
    lines = manifest.read_text(encoding="utf-8").splitlines()
    for row in range(1, wrong + 1):
        name, label, fold = lines[row].split(",")
        lines[row] = ",".join((name, LABELS[(LABELS.index(label) + 1) % 3], fold))
    manifest.write_text("\n".join(lines), encoding="utf-8")
    train(manifest, folder / "model", RECIPE)
    with open_project(folder / "project") as project:
        project.versions.add_copy(folder / "model")
    return folder / "project"


def import_sounds(project_folder: Path, manifest_path: Path) -> None:
    """Import the clips of a manifest into the labels of a project."""
    manifest = read_manifest(manifest_path)
    found = [
        FoundClip(str(clip.path.resolve()), clip.fname, clip.start_seconds, clip.end_seconds, ClipState.of(clip))
        for clip in manifest.clips
    ]
    with open_project(project_folder) as project:
        project.labels.add_clips(found, manifest.labels.names, reviewer="Ann")
        project.labels.manifest_path()


def correct_labels(project_folder: Path, wrong: int = 6) -> None:
    """Correct the wrong labels in labels.csv, as another program does."""
    path = project_folder / "labels.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    columns = lines[0].split(",")
    names, labels = columns.index("fname"), columns.index("labels")
    for row in range(1, len(lines)):
        fields = lines[row].split(",")
        number = int(Path(fields[names]).stem)
        if number < wrong:
            fields[labels] = LABELS[number % 3]
        lines[row] = ",".join(fields)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
