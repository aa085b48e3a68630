"""spectag cache."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from cyclopts import App

from spectag.cli.options import Json
from spectag.cli.terminal import new_table, print_json, stdout_console

if TYPE_CHECKING:
    from spectag.system.cache_content import KindUsage

app = App(name="cache", help_flags=[], version_flags=[])


@app.default
def cache_command(*, json_output: Json = False) -> None:
    """Show the size of the cache, delete files in it, or limit it.

    The cache has what spectag can compute or download again. It is in the user's cache folder, or in the folder in the
    variable SPECTAG_CACHE.

    Parameters
    ----------
    json_output
        Print the sizes as JSON.
    """
    import shutil

    from spectag.system.cache import cache_folder
    from spectag.system.cache_content import KINDS, cache_limit, cache_usage, readable_size

    folder, usage, limit = cache_folder(), cache_usage(), cache_limit()
    n_bytes = sum(item.n_bytes for item in usage)
    if json_output:
        kinds = [asdict(item) for item in usage]
        print_json({"folder": str(folder), "n_bytes": n_bytes, "limit_bytes": limit, "kinds": kinds})
        return
    table = new_table("kind", "files", "size", "what it is", right=("files", "size"))
    for item in usage:
        table.add_row(item.kind, f"{item.n_files:,}", readable_size(item.n_bytes), KINDS[item.kind])
    table.add_row("all", f"{sum(item.n_files for item in usage):,}", readable_size(n_bytes), style="bold")
    console = stdout_console()
    console.print(table)
    console.print(f"\nfolder: {folder}", soft_wrap=True)
    if folder.is_dir():
        console.print(f"free disk space: {readable_size(shutil.disk_usage(folder).free)}")
    console.print(f"limit: {'none' if limit is None else f'{readable_size(limit)} without downloads and journals'}")


@app.command(name="clean")
def clean_command(kinds: list[str] | None = None, /) -> None:
    """Delete files of the cache.

    Nothing is deleted while another run of spectag uses the cache. Files that spectag did not write stay.

    Parameters
    ----------
    kinds
        Kinds of files, such as spectrograms or features: see spectag cache. By default all that can be computed or
        downloaded again, which is everything except journals.
    """
    from spectag.system.cache_content import clean_cache

    _print_deleted(clean_cache(kinds or ()))


@app.command(name="limit")
def limit_command(size: str, /) -> None:
    """Limit the size of the spectrograms, features, fingerprints and networks in the cache.

    It applies now, and whenever a run that uses the cache ends: then those that were not used for the longest time are
    deleted. Downloads do not count, and stay.

    Parameters
    ----------
    size
        Such as 500MB or 5GB; none removes the limit.
    """
    from spectag.system.cache_content import parse_size, readable_size, set_cache_limit

    limit = None if size == "none" else parse_size(size)
    deleted = set_cache_limit(limit)
    print(f"limit: {'none' if limit is None else readable_size(limit)}")
    if deleted:
        _print_deleted(deleted)


def _print_deleted(usage: "list[KindUsage]") -> None:
    from spectag.system.cache_content import readable_size

    for item in usage:
        print(f"deleted {readable_size(item.n_bytes)} of {item.kind}")
    if not usage:
        print("nothing to delete")
