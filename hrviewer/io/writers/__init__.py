"""Which formats there are, and how a run is written in one.

A format is a module with ``write(run, target, options, progress)`` and, where it has any,
``Settings``, the pydantic model of its options, and its line in `FORMATS`. The command line, the
notebook and the window find it there. Importing this imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from hrviewer.errors import HrviewerError
from hrviewer.io.atomic_write import atomic_path

__all__ = ["FORMATS", "Exportable", "Format", "ProgressCallback", "WriterSettings", "export"]

ProgressCallback = Callable[[int, int], None]
"""Told how much is written, and how much there will be."""


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


class WriterSettings(BaseModel):
    """A format's options: they make the widget and the command's ``--set``."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Format:
    """One format.

    Parameters
    ----------
    module : str
        Where its ``write`` is.
    suffixes : tuple of str
        What its files' names end in.
    description : str
        What it holds, and who reads it, in one line.
    """

    module: str
    suffixes: tuple[str, ...]
    description: str

    @property
    def settings(self) -> type[WriterSettings]:
        """Its options."""
        found: type[WriterSettings] = getattr(
            import_module(self.module), "Settings", WriterSettings
        )
        return found

    def unsupported_reason(self, run: Exportable) -> str | None:
        """Return in one line why a run cannot be written in it; None if nothing speaks against."""
        asked = getattr(import_module(self.module), "why_not", None)
        return None if asked is None else asked(run)

    def parse(self, values: Mapping[str, Any]) -> WriterSettings:
        """Return its options.

        Raises
        ------
        UserError
            If one is unknown or out of range.
        """
        model = self.settings
        try:
            return model(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            if first["type"] == "extra_forbidden":
                known = ", ".join(model.model_fields) or "none"
                raise HrviewerError(
                    f"there is no option {name!r}; this format has: {known}"
                ) from None
            raise HrviewerError(f"{name}: {first['msg']}") from None


def make_format(module: str, suffixes: str, what: str) -> Format:
    """Return a format's line."""
    return Format(f"{__name__}.{module}", tuple(suffixes.split()), what)


FORMATS = {
    "geojson": make_format("geojson", ".geojson", "patches, contours, points: QuPath, GIS"),
    "ome-zarr": make_format(
        "omezarr", ".ome.zarr .zarr", "all maps as pyramids: napari, OMERO, Fiji"
    ),
    "ome-tiff": make_format(
        "ometiff", ".ome.tif .ome.tiff", "a heat map as a pyramid: QuPath, Fiji"
    ),
    "geotiff": make_format("geotiff", ".tif .tiff", "a heat map in its place on Earth: QGIS"),
    "csv": make_format("table", ".csv", "a table of patches, points or contours: R, Excel"),
    "parquet": make_format("parquet", ".parquet", "the same with types and units: pandas, DuckDB"),
    "coco": make_format("coco", ".coco.json", "boxes and outlines: FiftyOne, CVAT"),
    "dsa": make_format("dsa", ".dsa.json", "an annotation: Digital Slide Archive"),
    "png": make_format("png", ".png", "a figure with legend, scale bar and caption"),
    "html": make_format("html", ".html .htm", "a report of the run, in one file"),
}
"""By name. A new format is a module and its line here."""


def export(
    run: Exportable,
    path: str | Path,
    to: str | None = None,
    progress: ProgressCallback | None = None,
    **options: Any,
) -> Path:
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
    progress : callable, optional
        Told how far it has come.
    **options
        The format's own, see its ``Settings``.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UserError
        If the format or an option is unknown, the place is taken, missing or full, or the run
        holds too little.
    """
    path = Path(path).expanduser()
    chosen = select_format(path, to)
    settings = chosen.parse(options)
    refused = chosen.unsupported_reason(run)
    if refused is not None:
        raise HrviewerError(refused)
    with atomic_path(path) as part:
        import_module(chosen.module).write(run, part, settings, progress or ignore_progress)
    return path


def ignore_progress(done: int, total: int) -> None:
    """Take progress that nobody asked for."""


def select_format(path: Path, to: str | None) -> Format:
    """Return the format that is named, or that a file's name ends in."""
    known = ", ".join(FORMATS)
    if to is not None:
        if to not in FORMATS:
            raise HrviewerError(f"there is no format {to!r}; choose one of: {known}")
        return FORMATS[to]
    for found in FORMATS.values():
        if path.name.lower().endswith(found.suffixes):
            return found
    raise HrviewerError(f"the name {path.name} tells no format: give one of {known}")
