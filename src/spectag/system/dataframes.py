"""DataFrames, of pandas or polars, which are optional: results become one, and tables may come as one."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol, TypeGuard

from spectag.errors import DataError, MissingExtraError


class DataFrame(Protocol):
    """A table that other libraries can read: of pandas, polars, pyarrow and others."""

    def __dataframe__(self, nan_as_null: bool = ..., allow_copy: bool = ...) -> Any: ...


def to_dataframe(columns: Mapping[str, Any]) -> Any:
    """A DataFrame of columns, which are lists or arrays (n_rows,): of pandas, or of polars if only that is installed.

    Raises
    ------
    MissingExtraError
        If neither is installed.
    """
    for library in ("pandas", "polars"):
        try:
            module = import_module(library)
        except ModuleNotFoundError:
            continue
        return module.DataFrame(dict(columns))
    raise MissingExtraError("pandas", "pandas", "a DataFrame")


def is_dataframe(value: object) -> TypeGuard[DataFrame]:
    """Whether a value is a DataFrame."""
    return any(hasattr(value, name) for name in ("__dataframe__", "__arrow_c_stream__")) and not isinstance(value, type)


def read_dataframe(frame: Any) -> dict[str, list[Any]]:
    """The columns of a DataFrame as lists. An index of pandas that has a name is a column.

    Raises
    ------
    DataError
        If two columns have the same name, or it is not a table whose columns can be read.
    """
    names = _column_names(frame)
    _check_different(names)
    try:
        columns = {str(name): _values(frame[name]) for name in names}
    except (AttributeError, TypeError) as error:  # the result of a query that is not computed yet
        raise _not_a_table(frame) from error
    index = _named_levels(frame)
    _check_different([name for name, values in index if columns.get(name) != values] + list(columns))
    return dict(index) | columns


def _column_names(frame: Any) -> list[Any]:
    names = getattr(frame, "column_names", None)  # of pyarrow, whose `columns` are the values
    names = getattr(frame, "columns", None) if names is None else names
    if names is None:  # a single column, or a stream
        raise _not_a_table(frame)
    return list(names)


def _named_levels(frame: Any) -> list[tuple[str, list[Any]]]:
    """The name and values of each level of a pandas index that has a name: those of a column after drop=False."""
    index: Any = getattr(frame, "index", None)
    levels = enumerate(getattr(index, "names", ()))
    return [(str(name), _values(index.get_level_values(level))) for level, name in levels if name is not None]


def _check_different(names: list[Any]) -> None:
    texts = list(map(str, names))
    repeated = sorted({name for name in texts if texts.count(name) > 1})
    if repeated:
        raise DataError(f"DataFrame: need columns of different names, got {', '.join(repeated)} more than once")


def _not_a_table(frame: object) -> DataError:
    kind = f"{type(frame).__module__.partition('.')[0]}.{type(frame).__name__}"
    return DataError(
        f"DataFrame: expected a table with columns, got {kind}; make a DataFrame of it, such as with to_frame() of a "
        "Series, or read_all() of a RecordBatchReader"
    )


def _values(column: Any) -> list[Any]:
    """The values of a column: None where they are missing."""
    values = column.to_pylist() if hasattr(column, "to_pylist") else column.to_list()
    return [None if _is_missing(value) else value for value in values]


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or a missing value of pandas."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
