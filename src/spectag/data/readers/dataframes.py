"""DataFrames as the text of a table, so that one reader reads both."""

from io import StringIO
from typing import Any

import numpy as np

from spectag.errors import DataError
from spectag.system.dataframes import DataFrame, read_dataframe
from spectag.system.output import csv_writer


def dataframe_as_csv(frame: DataFrame) -> str:
    """The CSV with the columns and rows of a DataFrame.

    Missing values are empty fields, true and false 1 and 0. Lists, tuples, sets and arrays are written as lists.

    Raises
    ------
    DataError
        If it is not a table of columns with different names, or has no column.
    """
    columns = read_dataframe(frame)
    if not columns:
        raise DataError("DataFrame: it has no columns; expected a column of files, such as fname, and one of labels")
    out = StringIO(newline="")
    write_row = csv_writer(out)
    write_row(list(columns))
    for row in zip(*columns.values(), strict=True):
        write_row([_field(value) for value in row])
    return out.getvalue()


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():  # an integer, in a column in which others are missing
        return str(int(value))
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return str([str(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)])
    return str(value)
