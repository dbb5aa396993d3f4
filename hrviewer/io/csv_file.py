"""Tables in CSV files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hrviewer.errors import HrviewerError, short_message

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_csv_file"]

MAX_COLUMNS = 10_000
MAX_LINE_BYTES = 1 << 20
"""Of the names of columns."""


def read_csv_file(path: Path, kind: type[HrviewerError]) -> pd.DataFrame:
    """Read a table with names of columns in its first line.

    Parameters
    ----------
    path : Path
        The file.
    kind : type
        The class of errors.

    Raises
    ------
    HrviewerError
        Of that class, if it is damaged or has more columns than a table of places needs.
    """
    import pandas as pd

    with path.open("rb") as file:
        names = file.readline(MAX_LINE_BYTES)
    if len(names) == MAX_LINE_BYTES or names.count(b",") >= MAX_COLUMNS:
        raise kind(f"{path.name} has more than {MAX_COLUMNS:,} columns: leave out those of no use")
    try:
        return pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise kind(f"{path.name} is not a readable table: {short_message(error)}") from None
