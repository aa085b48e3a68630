"""spectag embed."""

from typing import Annotated

from cyclopts import Parameter

from spectag.cli.options import DeviceOption, Length, Names, OptionalChannel, Output, Seconds, Workers
from spectag.cli.recording_options import listed_recordings, window_of_options
from spectag.cli.terminal import print_message, print_skipped, progress_display


def embed_command(
    recordings: Names = None,
    /,
    *,
    output: Output,
    model: str = "audioset-mn04",
    window: Length = None,
    overlap: Seconds = None,
    channel: OptionalChannel = None,
    files_from: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    workers: Workers = None,
    device: DeviceOption = "auto",
) -> int:
    """Compute the embeddings of recordings.

    An embedding is what the network has found in a sound before its head turns it into labels: similar sounds have
    similar embeddings. Use them to cluster sounds, or to train classifiers of your own.

    Parameters
    ----------
    recordings
        Sound files; folders, which are searched for sound files; patterns such as 'rec/**/*.wav'; or URLs such
        as s3://bucket/folder.
    output
        embeddings.npz, for NumPy, or embeddings.parquet: a row with file, start, end and features for each recording
        or window.
    model
        Folder of a model from spectag train, the name of a published model (see spectag models), or hf:user/name.
    window
        Write a row for each window of this length in seconds. By default one for each recording.
    overlap
        Overlap of consecutive windows in seconds.
    channel
        How several channels become one: their mean (mix), the loudest one of the first ten minutes (loudest), or the
        one with this number, from 1. By default as in the training of the model.
    files_from
        Read the file names from this list, one per line; - reads stdin.
    workers
        Number of cores to use. By default all, or one for a few files.
    device
        Where the networks run. auto takes cuda or directml if it is installed and works, otherwise the CPU.
    """
    from spectag.tagging.embeddings import embed

    listed = listed_recordings(recordings, files_from, command="embed")
    with progress_display() as (progress, log):
        embeddings = embed(
            recordings or (),
            output,
            model=model,
            window=window_of_options(window, overlap, command="embed"),
            channel=channel,
            listed=listed,
            workers=workers,
            device=device,
            progress=progress,
            log=log,
        )
    n_rows, n_features = embeddings.features.shape
    rows = "1 embedding" if n_rows == 1 else f"{n_rows:,} embeddings"
    print_message(f"{rows} with {n_features:,} features: {output}")
    return print_skipped(embeddings.skipped)
