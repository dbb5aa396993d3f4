"""Extensions in installed packages, found by entry points."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

from hrviewer.errors import HrviewerError, short_message

__all__ = ["load_extension"]


def load_extension(
    point: EntryPoint,
    kind: str,
    error: type[HrviewerError] = HrviewerError,
    instantiate: bool = False,
) -> Any:
    """Import what an entry point names.

    Parameters
    ----------
    point : EntryPoint
        Of one of the groups ``hrviewer.…``.
    kind : str
        What it provides, with its article: "the strategy".
    error : type
        Class of the error.
    instantiate : bool
        Whether it is a class, of which an object is returned.

    Raises
    ------
    HrviewerError
        If it cannot be imported or made: of the class `error`, in one line.
    """
    try:
        found = point.load()
        return found() if instantiate else found
    except Exception as problem:  # a plug-in may raise anything
        raise error(
            f"{kind} {point.name} ({point.value}) cannot be imported "
            f"({type(problem).__name__}: {short_message(problem)}): reinstall or uninstall the "
            "package that provides it"
        ) from problem
