"""Which model is meant by a name that is none: a published one, a folder nearby, or another argument."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from spectag.config.backbones import PUBLISHED
from spectag.config.network_cards import is_card
from spectag.errors import ConfigError, closest_in_order
from spectag.models.bundle import INFO_FILE
from spectag.models.clap_words import is_clap_name
from spectag.models.hub import is_hub_name

_MAX_FOLDERS = 1000  # that are looked at


def is_model(name: str | Path) -> bool:
    """Whether this is the folder of a model, or, where no such file or folder exists, a name of a published one."""
    if is_clap_name(name):
        return True
    path = Path(name)
    if path.exists():
        return (path / INFO_FILE).is_file()
    return str(name) in PUBLISHED or is_hub_name(name) or is_card(name)


def closest_model(name: str | Path) -> str | None:
    """The model that is probably meant: a folder beside or in this one, or a published model; None if none is close."""
    path = Path(name)
    if path.is_dir():
        return next((str(path / folder) for folder in _models_in(path)), None)
    folders = {str(path.parent / folder): folder for folder in _models_in(path.parent)}
    meant = closest_in_order(path.name, [*folders.values(), *PUBLISHED])
    return next((whole for whole, folder in folders.items() if folder == meant), meant)


def _models_in(folder: Path) -> Iterator[str]:
    """The names of the models in a folder, sorted."""
    with suppress(OSError):
        yield from sorted(child.name for child in islice(folder.iterdir(), _MAX_FOLDERS) if is_model(child))


def check_model_first(command: str, model: str | Path, others: Sequence[str | Path]) -> None:
    """Raise a ConfigError if the model of a command is none, but one of its other arguments is."""
    if is_model(model):
        return
    for other in others:
        if is_model(other):
            order = f"the model comes first, as in spectag {command} {other} {model}"
            raise ConfigError(f"{model} is not a model, but {other} is: {order}")
