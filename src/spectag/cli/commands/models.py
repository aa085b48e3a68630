"""spectag models."""

import json
import sys
from typing import TYPE_CHECKING

from cyclopts import App
from rich.console import Console
from rich.table import Table

from spectag.cli.options import Json
from spectag.cli.terminal import shown_work

if TYPE_CHECKING:
    from spectag.models.pretrained import Listing

app = App(name="models", help="List the published taggers, or download them.")


@app.default
def models_command(*, json_output: Json = False) -> None:
    """List the published taggers: what they know, how good they are, and what is here.

    `spectag tag NAME FILE` tags with one, and downloads it when it is first used.

    Parameters
    ----------
    json_output
        Print the list as JSON.
    """
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
def download_command(name: str, /, *names: str) -> None:
    """Download taggers now, to tag without a connection later.

    Parameters
    ----------
    name
        A published tagger, such as audioset-mn04.
    names
        More of them.
    """
    from spectag.models.pretrained import check_name, fetch

    wanted = [check_name(name) for name in (name, *names)]  # all of them before the first is fetched
    with shown_work() as (progress, log):
        folders = [fetch(tagger, progress=progress, log=log) for tagger in wanted]
    for folder in folders:
        print(folder)


def _table(taggers: "list[Listing]") -> Table:
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
