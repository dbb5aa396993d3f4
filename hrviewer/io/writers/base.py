"""Base class of run writers, and the registry that finds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from hrviewer.errors import HrviewerError, ParameterError, validation_error
from hrviewer.extensions import load_extension
from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings

__all__ = ["GROUP", "RunWriter", "get_writer", "select_writer", "writer_names"]

GROUP = "hrviewer.writers"
"""Entry point group of writers; an entry's name is the format's name."""


class RunWriter(ABC):
    """Writer of runs in one file format.

    Attributes
    ----------
    suffixes : tuple of str
        Endings of the format's file names, the usual one first.
    description : str
        Contents of the files and the programs that read them, in one line.
    Settings : type
        Pydantic model of the format's options.
    """

    suffixes: ClassVar[tuple[str, ...]]
    description: ClassVar[str]
    Settings: ClassVar[type[WriterSettings]] = WriterSettings

    @abstractmethod
    def write(
        self, run: Exportable, target: Path, settings: Any, progress: ProgressCallback
    ) -> None:
        """Write a run.

        Parameters
        ----------
        run : Exportable
            The run to write.
        target : Path
            File or folder to create; `export` renames it when it is complete.
        settings : WriterSettings
            An instance of the class's ``Settings``.
        progress : callable
            Called with the amount written so far and the total; may raise to cancel the export.

        Raises
        ------
        HrviewerError
            If the run lacks the requested data.
        """

    def unsupported_reason(self, run: Exportable) -> str | None:
        """Return one line on why a run cannot be written in this format; None if it can."""
        return None

    def parse_settings(self, values: Mapping[str, Any]) -> WriterSettings:
        """Validate options.

        Raises
        ------
        HrviewerError
            If an option is unknown or out of range.
        """
        try:
            return self.Settings(**values)
        except ValidationError as error:
            known = self.Settings.model_fields
            name = type(self).__name__.removesuffix("Writer").lower()
            raise validation_error(error, name, noun="option", known=known) from None


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP))}


@cache
def _load(name: str) -> RunWriter:
    writer: RunWriter = load_extension(_installed()[name], "the writer", instantiate=True)
    return writer


def writer_names() -> list[str]:
    """Return the names of the installed formats in alphabetical order; imports no writer."""
    return list(_installed())


def get_writer(name: str) -> RunWriter:
    """Return the writer of a format.

    Raises
    ------
    HrviewerError
        If no format has this name, or its package cannot be loaded.
    """
    if name not in _installed():
        raise ParameterError(
            f"there is no format {name!r}; choose one of: {', '.join(writer_names())}"
        )
    return _load(name)


def select_writer(path: Path, name: str | None = None) -> RunWriter:
    """Return the writer of the named format, or of the longest suffix that a file name ends in.

    Raises
    ------
    HrviewerError
        If there is none.
    """
    if name is not None:
        return get_writer(name)
    file_name = path.name.lower()
    best: tuple[int, RunWriter] | None = None
    for known in writer_names():
        try:
            writer = get_writer(known)
        except HrviewerError:
            continue
        for suffix in writer.suffixes:
            if file_name.endswith(suffix) and (best is None or len(suffix) > best[0]):
                best = len(suffix), writer
    if best is None:
        raise ParameterError(
            f"{path.name} ends in no known suffix: choose a format with --to or to=, one of "
            f"{', '.join(writer_names())}"
        )
    return best[1]
