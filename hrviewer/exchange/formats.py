"""Which formats there are, and how a file comes to be whole or not at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hrviewer.errors import UserError

__all__ = ["FORMATS", "Exportable", "Format", "export"]


class Exportable(Protocol):
    """What a format needs of a run.

    Attributes
    ----------
    path : Path
        Its folder.
    header : dict
        Its ``run.json``.
    """

    path: Path
    header: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Parameters
    ----------
    module : str
        Where its ``write(run, target)`` is.
    suffixes : tuple of str
        What its files' names end in.
    what : str
        What it holds, in one line.
    """

    module: str
    suffixes: tuple[str, ...]
    what: str


FORMATS = {
    "geojson": Format(
        "hrviewer.exchange.geojson", (".geojson",), "the patches, as QuPath and GIS read them"
    ),
    "ome-zarr": Format(
        "hrviewer.exchange.omezarr",
        (".ome.zarr", ".zarr"),
        "the output, saliency and cost maps, as pyramids",
    ),
}
"""By name. A new format is a module and its line here."""


def export(run: Exportable, path: str | Path, to: str | None = None) -> Path:
    """Write a run as a file, or a folder, of another format.

    It is written beside its place and renamed: what stands under `path` is whole.

    Parameters
    ----------
    run : Exportable
        What to write.
    path : str or Path
        Where; nothing may be there yet.
    to : str, optional
        One of `FORMATS`; by the name's ending otherwise.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UserError
        If the format is unknown, the place is taken or missing, or the run holds too little.
    """
    path = Path(path).expanduser()
    chosen = choose(path, to)
    if os.path.lexists(path):
        raise UserError(f"{path} exists: choose another name, or remove it first")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent}: make it first")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        import_module(chosen.module).write(run, part)
        os.rename(part, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
    return path


def choose(path: Path, to: str | None) -> Format:
    """Return the format that is named, or that a file's name ends in."""
    known = ", ".join(FORMATS)
    if to is not None:
        if to not in FORMATS:
            raise UserError(f"there is no format {to!r}; choose one of: {known}")
        return FORMATS[to]
    for found in FORMATS.values():
        if path.name.lower().endswith(found.suffixes):
            return found
    raise UserError(f"the name {path.name} tells no format: give one of {known}")
