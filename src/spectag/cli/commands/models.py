"""spectag models."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from spectag.cli.options import Flag, Json
from spectag.cli.terminal import (
    new_table,
    print_json,
    print_next_steps,
    progress_display,
    shell_command,
    stdout_console,
)
from spectag.errors import ConfigError, MissingExtraError
from spectag.system.progress import Log, Progress

if TYPE_CHECKING:
    from rich.table import Table

    from spectag.models.backbone_figures import BackboneFigures
    from spectag.models.card_library import CardCheck, CardStatus
    from spectag.models.clap_store import ClapStore
    from spectag.models.pretrained import PublishedTaggerStatus

app = App(name="models", help_flags=[], version_flags=[])


@app.default
def models_command(
    *, with_unverified: Annotated[Flag, Parameter(name="--all")] = False, json_output: Json = False
) -> None:
    """List or download published models, and add networks of others.

    The list shows their labels, accuracy, size and licence, and which ones are already downloaded. spectag tag
    downloads a model when you first use it. Network cards that you have added are listed, too. A second table shows how
    good and how fast the backbones are that were measured.

    Parameters
    ----------
    with_unverified
        Also list the unverified network cards of spectag: nobody has compared them with the originals yet.
    json_output
        Print the list as JSON.
    """
    from spectag.config.backbones import PUBLISHED
    from spectag.models.backbone_figures import measured_backbones
    from spectag.models.card_library import card_statuses
    from spectag.models.pretrained import models_folder, published_taggers

    models, cards = published_taggers(), card_statuses(with_unverified=with_unverified)
    if json_output:
        figures = {measured.backbone: dataclasses.asdict(measured) for measured in measured_backbones()}
        published = [model.to_dict() | {"measured": figures.get(PUBLISHED[model.name].backbone)} for model in models]
        print_json([*published, *(card.to_dict() for card in cards)])
        return
    console = stdout_console()
    console.print(_table(models, cards))
    if any(model.state == "downloaded" for model in models):
        console.print(
            "\ndownloaded: its model is built when it is first used, which takes some seconds", soft_wrap=True
        )
    if any(card.state == "unverified" for card in cards):
        console.print(
            "\nunverified: nobody has compared the network with the original yet; spectag models add NAME downloads "
            "and runs it, and keeps its SHA-256",
            soft_wrap=True,
        )
    if any(card.is_model and card.n_labels is None for card in cards):
        console.print("\nlabels ?: their names are in a file that is downloaded with the network", soft_wrap=True)
    console.print("\nmAP: mean average precision on AudioSet's evaluation clips, as published", soft_wrap=True)
    console.print("\nmeasured backbones, frozen:\n")
    console.print(_figures_table(measured_backbones()))
    console.print(
        "\nESC-10: accuracy on new recordings, also with 2 and 4 recordings per label; mixed: lwlrap of mixed clips; "
        "speed: times real time on one core; RAM: MB while tagging; MB: of a model (docs/reference/backbones.md)",
        soft_wrap=True,
    )
    console.print(f"CLAP, for words as labels: {_clap_state()}", markup=False, soft_wrap=True)
    console.print(f"folder: {models_folder()}", markup=False, soft_wrap=True)


def _clap_state() -> str:
    from spectag.models.clap_store import clap_store

    try:
        card = clap_store().card
    except ConfigError:
        return "not added; see spectag models clap --help"
    return f'{card.name} (licence {card.licence}), such as clap:"dog barking, rain"'


def _table(models: "list[PublishedTaggerStatus]", cards: "list[CardStatus]") -> "Table":
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
    for card in cards:
        size = "-" if card.n_bytes is None else f"{card.n_bytes / 1e6:.1f}"
        labels = "-" if not card.is_model else "?" if card.n_labels is None else f"{card.n_labels}"
        state = card.state if card.is_model else f"{card.state}, backbone only"
        table.add_row(card.name, labels, f"{card.sample_rate / 1000:g}", "-", size, card.licence, state)
    return table


def _figures_table(backbones: "list[BackboneFigures]") -> "Table":
    numbers = ("ESC-10", "2 rec.", "4 rec.", "mixed", "speed", "RAM", "MB")
    table = new_table("name", *numbers, "licence", right=numbers)
    for figures in backbones:
        scores = [f"{mean:.3f}" for mean, _, _ in figures.scores.values()]
        costs = [f"{figures.real_time_factor:.0f}", f"{figures.memory_mb:.0f}", f"{figures.model_mb:.1f}"]
        table.add_row(figures.backbone, *scores, *costs, figures.licence)
    return table


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


@app.command(name="add")
def add_card_command(card: str, /) -> None:
    """Add the network of a network card: download, run and pin it.

    The card is kept in the cache folder with the SHA-256 of its network, and can be used by its name from then on.

    Parameters
    ----------
    card
        A network card, such as card.toml, or the name of one from spectag models --all.
    """
    from spectag.config.network_cards import open_card
    from spectag.models.card_library import add_card

    with progress_display() as (progress, log):
        path, check = add_card(card, progress=progress, log=log)
    _print_check(check)
    print(f"added: {path}")
    train = shell_command("spectag", "train", "labels.csv", "--backbone", check.name, "-o", "model")
    tag = [shell_command("spectag", "tag", check.name, "FOLDER")] if open_card(path).card.is_model else []
    print_next_steps(*tag, train)


@app.command(name="clap")
def add_clap_command(source: str | None = None, /) -> None:
    """Add CLAP, which tags and searches with words: spectag tag clap:"dog barking, rain".

    It is kept in the cache folder, and replaces an earlier one. Exporting it needs PyTorch and transformers, using it
    does not.

    Parameters
    ----------
    source
        A name on the Hugging Face Hub, a folder that save_pretrained of transformers wrote, or a clap.toml that names
        ONNX files with their SHA-256. By default laion/clap-htsat-unfused.
    """
    from spectag.models.clap_store import DEFAULT_CLAP, install_clap

    chosen = source or DEFAULT_CLAP
    with progress_display() as (progress, log):
        if chosen.lower().endswith(".toml"):
            store = install_clap(Path(chosen), progress=progress)
        else:
            store = _export_clap(chosen, progress, log)
    print(f"{store.card.name}: licence {store.card.licence}, stored in {store.folder}")
    words = "clap:dog barking, rain on a window"
    print_next_steps(
        shell_command("spectag", "tag", words, "FOLDER"),
        shell_command("spectag", "index", "FOLDER", "--model", "clap", "-o", "my-index"),
    )


def _export_clap(source: str, progress: Progress, log: Log) -> "ClapStore":
    try:
        from spectag.training.networks.clap_export import add_clap_of_transformers
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "transformers,words", "exporting CLAP") from error
    return add_clap_of_transformers(source, progress=progress, log=log)


@app.command(name="check")
def check_card_command(card: str, /, *, json_output: Json = False) -> None:
    """Run the network of a card on made-up sounds: shapes, speed, probabilities.

    Parameters
    ----------
    card
        A network card, such as card.toml, or the name of one from spectag models --all.
    json_output
        Print the results as JSON.
    """
    from spectag.models.card_library import check_card

    with progress_display() as (progress, _):
        check = check_card(card, progress=progress)
    if json_output:
        print_json(check.to_dict())
    else:
        _print_check(check)


def _print_check(check: "CardCheck") -> None:
    print(f"{check.name}: {check.n_bytes / 1e6:.1f} MB, SHA-256 {check.sha256}")
    for name, shape in check.shapes.items():
        sizes = " x ".join("any" if size == 0 else str(size) for size in shape)
        print(f"{name if name == 'input' else f'output {name}'}: {sizes}")
    labels = "" if check.n_labels is None else f", labels: {check.n_labels:,}"
    print(f"features: {check.n_features:,}{labels}")
    print(f"speed: {check.real_time_factor:,.0f} x real time on one core, with sounds of {check.sound_seconds:g} s")
    if check.memory_bytes is not None:
        print(f"memory: {check.memory_bytes / 1e6:,.0f} MB")
    if check.probabilities is not None:
        low, high = check.probabilities
        print(f"probabilities of noise, a tone and silence: {low:.4f} to {high:.4f}, sum {check.mean_sum:.3f}")
    for note in check.notes:
        print(f"note: {note}")
