"""TensorBoard event files: one run for each training, one curve for each number."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

from spectag.errors import ConfigError, MissingExtraError
from spectag.system.epoch_log import Epoch

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_FLUSH_SECONDS = 5  # so that the curves grow during training


class TensorBoardLog:
    """Writes each epoch that it is called with, until the `with` block ends.

    All epochs of one training must come before those of the next. If the folder already has curves of the same
    training, for example from a run that was stopped, the new ones replace them from the first new epoch on.

    Parameters
    ----------
    folder : Path
        Gets a subfolder of event files for each training, with its name.

    Raises
    ------
    MissingExtraError
        If tensorboard is not installed.
    ConfigError
        If the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("tensorboard", "finetune", "writing events for TensorBoard") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot create the folder for TensorBoard events: {error.strerror}; choose another folder"
            ) from error
        self._folder = folder
        self._training: str | None = None
        self._writer: SummaryWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, epoch: Epoch) -> None:
        """Write the numbers of an epoch, without those that are None."""
        writer = self._writer_for(epoch)
        for name, value in _scalars(epoch).items():
            if value is not None:
                writer.add_scalar(name, value, epoch.epoch)

    def _writer_for(self, epoch: Epoch) -> "SummaryWriter":
        if self._writer is None or epoch.part != self._training:
            from torch.utils.tensorboard import SummaryWriter

            self._close()
            name = epoch.part.replace("/", "_").replace("\\", "_")  # names of backbones may contain slashes
            self._writer = SummaryWriter(str(self._folder / name), purge_step=epoch.epoch, flush_secs=_FLUSH_SECONDS)
            self._training = epoch.part
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
