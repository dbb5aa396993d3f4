"""Tables on a terminal: as many columns as fit; all of them where the output is not a terminal."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from hrviewer.escaping import printable

if TYPE_CHECKING:
    from rich.console import JustifyMethod

__all__ = ["fitting_columns", "print_table"]

GAP = 2
"""Spaces between columns."""


def print_table(
    columns: Mapping[str, Sequence[str]],
    *,
    left: Collection[str] = (),
    dropped_first: Sequence[str] = (),
) -> None:
    """Print a table.

    Parameters
    ----------
    columns : mapping
        The cells of each column, by its title.
    left : collection of str
        Columns of text; numbers are aligned to the right.
    dropped_first : sequence of str
        Columns that are left out where the terminal is too narrow, the first first; a line below
        the table names them.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = {name: [printable(cell) for cell in column] for name, column in columns.items()}
    names, wrapped = list(cells), False
    if console.is_terminal:
        full = (column_width([name, *cells[name]]) + GAP for name in names)
        wrapped = sum(full) > console.width
        names = fitting_columns(cells, console.width, dropped_first)
    else:
        console.width = sum(len(name) + column_width(cells[name]) + GAP for name in names)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for name in names:
        justify: JustifyMethod = "left" if name in left else "right"
        width = column_width([*name.split(), *cells[name]]) if wrapped else None
        table.add_column(name, justify=justify, width=width, overflow="fold")
    for row in zip(*(cells[name] for name in names), strict=True):
        table.add_row(*map(Text, row))
    console.print(table)
    if len(names) < len(cells):
        missing = ", ".join(name for name in cells if name not in names)
        console.print(Text(f"in a wider terminal also: {missing}", style="dim"))


def fitting_columns(
    columns: Mapping[str, Sequence[str]], width: int, dropped_first: Sequence[str]
) -> list[str]:
    """Return the columns that fit into a width.

    Examples
    --------
    >>> fitting_columns({"image": ["a.svs"], "seed": ["12345"], "error": ["0.1"]}, 15, ["seed"])
    ['image', 'error']
    """
    widths = {name: column_width([*name.split(), *cells]) + GAP for name, cells in columns.items()}
    for name in dropped_first:
        if sum(widths.values()) <= width:
            break
        widths.pop(name, None)
    return list(widths)


def column_width(lines: Sequence[str]) -> int:
    """Return how many characters of a terminal the longest of some lines takes."""
    from rich.cells import cell_len

    return max(map(cell_len, lines), default=0)
