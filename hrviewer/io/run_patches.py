"""Tables of a run folder, read only if their columns are as hrviewer writes them, and bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from hrviewer.errors import RunError, short_message
from hrviewer.io.prediction_columns import select_columns

__all__ = ["PATCH_COLUMNS", "open_table", "read_patches", "read_table", "require_whole"]

MAX_ROWS = 20_000_000
"""Of a table: more than a hundred patches a second for two days."""

MAX_BYTES = 8 << 30
"""Of a table, without its compression."""

PATCH_COLUMNS: Mapping[str, Sequence[str]] = {
    "integer": ("id", "y", "x", "h", "w", "order"),
    "number": ("scale", "score", "value", "flops", "read_s", "prepare_s", "infer_s", "post_s",
               "bytes", "pixels"),
    "text": ("role", "status", "error"),
}  # fmt: skip
"""The columns of ``patches.parquet`` by the kind of their values."""


def read_patches(folder: Path) -> pd.DataFrame:
    """Return the table of a run folder's patches.

    Raises
    ------
    RunError
        If there is none, or hrviewer did not write it.
    """
    try:
        return read_table(folder / "patches.parquet", PATCH_COLUMNS)[0]
    except FileNotFoundError:
        raise RunError(f"{folder} has no table of patches: resume the run first") from None


def read_table(
    path: Path, columns: Mapping[str, Sequence[str]]
) -> tuple[pd.DataFrame, dict[bytes, bytes]]:
    """Return a table of a run folder and its metadata; see `open_table`."""
    with open_table(path, columns) as file:
        table = file.read()
        require_whole(table, columns, path)
        return table.to_pandas(), dict(file.schema_arrow.metadata or {})


@contextmanager
def open_table(path: Path, columns: Mapping[str, Sequence[str]]) -> Iterator[Any]:
    """Open a table of a run folder, a ``pyarrow.parquet.ParquetFile``, and check its columns.

    Parameters
    ----------
    path : Path
        A parquet file.
    columns : dict of str to sequence of str
        Names of columns by the kind of their values: ``integer``, ``number``, ``truth``, ``text``
        or ``bytes``. Others are not checked.

    Raises
    ------
    FileNotFoundError
        If there is none.
    RunError
        If it is damaged or too large, or its columns are others.
    """
    from pyarrow import ArrowException, parquet

    if path.exists() and not path.is_file():
        raise RunError(f"{path} is no file: hrviewer did not write it")
    try:
        with parquet.ParquetFile(path) as file:
            about: Any = file.metadata
            groups = [about.row_group(i) for i in range(about.num_row_groups)]
            size = sum(group.total_byte_size for group in groups)
            if about.num_rows > MAX_ROWS or size > MAX_BYTES:
                raise RunError(
                    f"{path} has more than {MAX_ROWS:,} rows or {MAX_BYTES >> 30} GiB: "
                    "hrviewer did not write it"
                )
            if about.num_rows:  # a column without rows has no type
                check_types(file.schema_arrow, columns, path)
            yield file
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError, ArrowException) as error:
        raise RunError(f"{path} cannot be read: {short_message(error)}") from None


def check_types(schema: Any, columns: Mapping[str, Sequence[str]], path: Path) -> None:
    """Refuse a table with other columns."""
    from pyarrow import types

    kinds: dict[str, Callable[[Any], bool]] = {
        "integer": types.is_integer,
        "number": lambda kind: types.is_integer(kind) or types.is_floating(kind),
        "truth": types.is_boolean,
        "text": lambda kind: types.is_string(kind) or types.is_large_string(kind),
        # A column without any value has the type null.
        "bytes": lambda kind: types.is_binary(kind) or types.is_null(kind),
    }
    predicted = select_columns(schema.names) if columns is PATCH_COLUMNS else []
    for kind, names in [*columns.items(), ("number", predicted)]:
        for name in names:
            if schema.names.count(name) != 1:
                raise RunError(f"{path} was not written by hrviewer: it has no column {name!r}")
            if not kinds[kind](found := schema.field(name).type):
                raise RunError(
                    f"{path} was not written by hrviewer: its column {name!r} is {found}"
                )


def require_whole(table: Any, columns: Mapping[str, Sequence[str]], path: Path) -> None:
    """Refuse a table or batch in which integers, truth values or texts are missing."""
    for kind in ("integer", "truth", "text"):
        for name in columns.get(kind, ()) if len(table) else ():
            if table.column(name).null_count:
                raise RunError(f"{path} was not written by hrviewer: its column {name!r} has gaps")
