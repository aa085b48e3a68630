"""Epochs as TensorBoard shows them: a run for each training, a curve for each number."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from spectag.errors import ConfigError, MissingExtraError
from spectag.system.epoch_log import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_SECONDS = 5  # so that curves grow while somebody watches


class TensorBoardLog:
    """Writes every epoch that it is called with, until the `with` block ends.

    Epochs of one part after the other are expected, each part from its first epoch on. Where the folder holds curves
    of the same part already, as after a run that was stopped, the new ones take their place from the first epoch told.

    Parameters
    ----------
    folder : Path
        Gets a folder of event files for each part, named like it.

    Raises
    ------
    MissingExtraError
        If tensorboard is not installed.
    ConfigError
        If the folder can't be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("tensorboard", "train", "writing events for TensorBoard") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{folder}: events for TensorBoard can't be written there: {error.strerror}; choose another folder"
            ) from error
        self._folder = folder
        self._part: str | None = None
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, epoch: Epoch) -> None:
        """Write the numbers of an epoch that are known."""
        writer = self._writer_for(epoch)
        for name, value in _scalars(epoch).items():
            if value is not None:
                writer.add_scalar(name, value, epoch.epoch)

    def _writer_for(self, epoch: Epoch) -> "SummaryWriter":
        if self._writer is None or epoch.part != self._part:
            from torch.utils.tensorboard import SummaryWriter

            self._close()
            folder = self._folder / _folder_name(epoch.part)
            self._writer = SummaryWriter(str(folder), purge_step=epoch.epoch, flush_secs=_FLUSH_SECONDS)
            self._part = epoch.part
        return self._writer

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _scalars(epoch: Epoch) -> dict[str, float | None]:
    return {
        "loss/train": epoch.train_loss,
        "loss/valid": epoch.valid_loss,
        "lwlrap/train": epoch.train_lwlrap,
        "lwlrap/valid": epoch.valid_lwlrap,
        "learning_rate": epoch.learning_rate,
        "clips_per_second": epoch.clips_per_second,
    }


def _folder_name(part: str) -> str:
    """Backbones such as timm/NAME have a slash, which would be a folder."""
    return part.replace("/", "_").replace("\\", "_")
