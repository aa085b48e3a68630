"""spectag models."""

import json
import sys
from typing import TYPE_CHECKING

from cyclopts import App

from spectag.cli.options import Json
from spectag.cli.terminal import shown_work

if TYPE_CHECKING:
    from rich.table import Table

    from spectag.models.pretrained import PublishedTaggerStatus

app = App(name="models", help_flags=[], version_flags=[])


@app.default
def models_command(*, json_output: Json = False) -> None:
    """List or download published models.

    The list shows their labels, accuracy, size and licence, and which ones are already downloaded. spectag tag
    downloads a model when you first use it.

    Parameters
    ----------
    json_output
        Print the list as JSON.
    """
    from rich.console import Console

    from spectag.models.pretrained import models_folder, published_taggers

    taggers = published_taggers()
    if json_output:
        print(json.dumps([tagger.to_dict() for tagger in taggers], indent=2, ensure_ascii=False))
        return
    console = Console(file=sys.stdout, highlight=False)
    console.print(_table(taggers))
    console.print("\nmAP: mean average precision on AudioSet's evaluation clips, as published", soft_wrap=True)
    console.print(f"kept in: {models_folder()}", markup=False, soft_wrap=True)


@app.command(name="download")
def download_command(names: list[str], /) -> None:
    """Download published models, to tag without a connection later.

    Parameters
    ----------
    names
        Names of published models, such as audioset-mn04.
    """
    from spectag.models.pretrained import check_published_name, fetch

    wanted = [check_published_name(name) for name in names]  # check all before downloading one
    with shown_work() as (progress, log):
        folders = [fetch(tagger, progress=progress, log=log) for tagger in wanted]
    for folder in folders:
        print(folder)


def _table(taggers: "list[PublishedTaggerStatus]") -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    table.add_column("labels", justify="right")
    table.add_column("kHz", justify="right")
    table.add_column("mAP", justify="right")
    table.add_column("MB", justify="right")
    table.add_column("licence")
    table.add_column("here", no_wrap=True)
    for tagger in taggers:
        about = "" if tagger.n_bytes_is_exact else "about "
        table.add_row(
            tagger.name,
            f"{tagger.n_labels}",
            f"{tagger.sample_rate / 1000:g}",
            f"{tagger.mean_average_precision:.3f}",
            f"{about}{tagger.n_bytes / 1e6:.1f}",
            tagger.licence,
            tagger.state,
        )
    return table
