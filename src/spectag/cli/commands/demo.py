"""spectag demo."""

from pathlib import Path

from spectag.cli.app import training_packages
from spectag.cli.options import Output, Seed
from spectag.cli.terminal import progress_display, shell_command


def demo_command(*, output: Output = Path("spectag-demo"), seed: Seed = 0) -> None:
    """Make example sounds, train a model on them and tag with it.

    Then prints the score, the files it wrote, and the next command to try.

    Parameters
    ----------
    output
        Folder for the sounds, the model, its tags and its report.
    seed
        Another seed makes other sounds.
    """
    with training_packages("train", "the demo"):
        from spectag.reporting.first_run import demo
    with progress_display() as (progress, log):
        run = demo(output, seed=seed, progress=progress, log=log)
    lwlrap = run.evaluation.models[0].overall["lwlrap"]
    clip = min(run.data.test.glob("*.wav"))
    next_command = shell_command("spectag", "tag", run.model, clip, top=3)
    print(
        f"lwlrap {lwlrap.value:.3f} on {len(run.evaluation.manifest.clips)} test clips that were not used for training "
        f"(95 % interval {lwlrap.low:.3f} to {lwlrap.high:.3f}; 1 is best)",
        *(f"{name:<9}{getattr(run, name)}" for name in ("model", "tags", "figure", "report")),
        f"\nNext: {next_command}",
        "With your own sounds: spectag train labels.csv -o my-model",
        "It uses a better network than this demo, mn04_audioset, and downloads its 4 MB once. Without a network, put",
        "the file into a folder and set SPECTAG_WEIGHTS to it, or add --backbone efficientnet_lite0.",
        sep="\n",
    )
