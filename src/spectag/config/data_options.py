"""The options about training data that train, tune and lr-find share."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class DataOptions:
    """Which clips to train on, and where to find and keep what is computed from them."""

    noisy: str | Path | None = None
    """Second manifest, of clips whose labels may be wrong. Doubtful labels get less weight."""
    corrections: str | Path | None = None
    """Label corrections from spectag review. The manifest itself is not changed."""
    hierarchy: str | Path | None = None
    """CSV with the columns child and parent, or AudioSet's ontology.json: a clip with a child has the parent, too."""
    background: str | Path | None = None
    """Folder of recordings in which none of the labels occurs. They are cut into clips without labels, which are
    trained on and used for calibration and thresholds."""
    audio_dir: str | Path | None = None
    """Folder of the sounds or images, if they are not beside the manifest."""
    group_column: str | None = None
    """Manifest column of groups, such as recordist or site. A group never spans two folds."""
    label_column: str | None = None
    """Manifest column of the labels, if it is not found by its name, as in a Raven table with a column of your own."""
    label_separator: str | None = None
    """What separates the labels in a field, such as ';'. By default a comma."""
    complete_annotations: bool = False
    """The annotations of the manifest name every sound of their recordings: train also on the time between them, as
    clips without labels. Only for selection tables, label tracks and tables of annotations."""
    cache: str | Path | None = None
    """Folder for spectrograms and features. By default in the user's cache folder."""
    workers: int | None = None
    """Processes that compute spectrograms. By default one per core."""
