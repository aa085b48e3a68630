from .clips import Clip as Clip
from .clips import Manifest as Manifest
from .inspection import inspect as inspect
from .manifest import read_manifest as read_manifest
from .relabelling import relabel as relabel
from .spectrograms.preparation import prepare as prepare
from .split_manifest import split as split
