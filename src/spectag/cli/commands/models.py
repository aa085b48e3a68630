"""spectag models."""

from cyclopts import App

from spectag.cli.options import Json
from spectag.cli.terminal import new_table, print_json, progress_display, stdout_console

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
    from spectag.models.pretrained import models_folder, published_taggers

    models = published_taggers()
    if json_output:
        print_json([model.to_dict() for model in models])
        return
    table = new_table("name", "labels", "kHz", "mAP", "MB", "licence", "status", right=("labels", "kHz", "mAP", "MB"))
    for model in models:
        about = "" if model.n_bytes_is_exact else "about "
        table.add_row(
            model.name,
            f"{model.n_labels}",
            f"{model.sample_rate / 1000:g}",
            f"{model.mean_average_precision:.3f}",
            f"{about}{model.n_bytes / 1e6:.1f}",
            model.licence,
            model.state,
        )
    console = stdout_console()
    console.print(table)
    console.print("\nmAP: mean average precision on AudioSet's evaluation clips, as published", soft_wrap=True)
    console.print(f"folder: {models_folder()}", markup=False, soft_wrap=True)


@app.command(name="download")
def download_command(names: list[str], /) -> None:
    """Download published models, to tag without a connection later.

    Parameters
    ----------
    names
        Names of published models, such as audioset-mn04.
    """
    from spectag.models.pretrained import check_published_name, fetch

    checked = [check_published_name(name) for name in names]  # check all before downloading one
    with progress_display() as (progress, log):
        folders = [fetch(name, progress=progress, log=log) for name in checked]
    for folder in folders:
        print(folder)
