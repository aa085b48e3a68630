"""spectag demo."""

import shlex
from pathlib import Path

from spectag.cli.options import Output, Seed
from spectag.cli.terminal import shown_work
from spectag.errors import MissingExtraError


def demo_command(*, output: Output = Path("spectag-demo"), seed: Seed = 0) -> int:
    """Make example sounds, train a model on them and tag with it.

    Then prints the score, the files it wrote, and the next command to try.

    Parameters
    ----------
    output
        Folder for the sounds, the model, its tags and its report.
    seed
        Another seed makes other sounds.
    """
    try:
        from spectag.reporting.first_run import demo
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "train", "the demo") from error
    with shown_work() as (progress, log):
        made = demo(output, seed=seed, progress=progress, log=log)
    [judged] = made.evaluation.models
    lwlrap = judged.overall["lwlrap"]
    clip = min(made.data.test.glob("*.wav"))
    first_try = shlex.join(["spectag", "tag", str(made.model), str(clip), "--top", "3"])
    print(
        f"lwlrap {lwlrap.value:.3f} on {len(judged.predictions.clips)} test clips that training never saw "
        f"(95 % interval {lwlrap.low:.3f} to {lwlrap.high:.3f}; best is 1)\n"
        f"tagger   {made.model}\n"
        f"tags     {made.tags}\n"
        f"picture  {made.picture}\n"
        f"report   {made.report}\n"
        "\n"
        f"next: {first_try}\n"
        f"then, with sounds of your own: spectag train labels.csv -o my-tagger --backbone efficientnet_lite0"
    )
    return 0
