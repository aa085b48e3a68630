"""pyarrow, which is loaded only where Parquet is written."""

from typing import Any

from spectag.errors import MissingExtraError


def load_pyarrow(*, extra: str = "parquet", purpose: str = "writing Parquet") -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Parameters
    ----------
    extra : str
        The extra of spectag that installs pyarrow.
    purpose : str
        What pyarrow is needed for.

    Raises
    ------
    MissingExtraError
        If pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra, purpose) from error
    return pyarrow, pyarrow.parquet
