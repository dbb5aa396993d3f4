"""The images of a batch: files, folders, patterns, remote folders, and tables that list them."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hrviewer.errors import HrviewerError, ImageReadError, ParameterError, format_error
from hrviewer.io.ground_truth import datasets
from hrviewer.pyramid import using_pyramid

__all__ = ["ImageEntry", "check_images", "list_entries"]

OWN_COLUMNS = ("image", "region", "model", "truth", "series")
"""Columns of a table that say what to do with an image."""

PARAMETER_PREFIX = "set."
"""Before the name of a strategy's parameter, in the name of a column."""

MAX_TABLE_BYTES = 64 << 20
"""Largest table of images, in bytes."""


class ImageEntry(BaseModel):
    """An image of a batch, and what is different for it.

    Parameters
    ----------
    image : str
        Path or URL.
    region, model, truth, series : str, optional
        Instead of the batch's.
    params : dict
        Parameters of the strategy, instead of the batch's.
    columns : dict
        Further columns of the table that lists the image; they are kept in the results.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    region: str | None = None
    model: str | None = None
    truth: str | None = None
    series: str | None = None
    params: dict[str, str] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """What identifies the entry in a batch; further columns do not."""
        return self.model_dump_json(exclude={"columns"}, exclude_defaults=True)


def list_entries(
    sources: object | Sequence[object], *, recursive: bool = False
) -> list[ImageEntry]:
    """Return the images of a batch in the order given, each once.

    Parameters
    ----------
    sources : path, URL, or a sequence of them
        Images, folders of images, patterns such as ``slides/*.svs``, remote folders
        (``s3://bucket/slides/``), and tables (``.csv``) with a column ``image`` and any of
        ``region``, ``model``, ``truth``, ``series``, ``set.PARAMETER``. Relative paths in a table
        start at its folder.
    recursive : bool
        Whether folders are searched at every depth.

    Raises
    ------
    HrviewerError
        If a source has no image, or a table cannot be read.

    Examples
    --------
    >>> [entry.image for entry in list_entries(["slide.tif", "slide.tif"])]
    ['slide.tif']
    """
    given: list[Any] = list(sources) if isinstance(sources, list | tuple) else [sources]
    found: dict[str, ImageEntry] = {}
    for source in given:
        for entry in iter_source(os.fspath(source), recursive):
            found.setdefault(entry.key, entry)
    if not found:
        raise ParameterError("there is no image: give files, folders or a table of images")
    return list(found.values())


def check_images(entries: Sequence[ImageEntry]) -> list[dict[str, Any]]:
    """Open every image, and return its shape, pixel size (µm) and what is wrong with it."""
    rows = []
    for entry in entries:
        row: dict[str, Any] = {"image": entry.image, "shape": None, "pixel_size": None, "error": ""}
        try:
            with using_pyramid(entry.image, series=entry.series) as pyramid:
                row |= {"shape": list(pyramid.plane_shape), "pixel_size": pyramid.pixel_size}
        except (HrviewerError, OSError) as error:
            row["error"] = format_error(error)
        rows.append(row)
    return rows


def iter_source(source: str, recursive: bool) -> Iterator[ImageEntry]:
    """Yield the images of one source."""
    if source.startswith("sample:"):
        yield ImageEntry(image=source)
    elif "://" in source:
        yield from (ImageEntry(image=one) for one in iter_remote(source, recursive))
    elif source.lower().endswith(".csv"):
        yield from iter_table(Path(source).expanduser())
    else:
        yield from (ImageEntry(image=one) for one in iter_local(source, recursive))


def iter_local(source: str, recursive: bool) -> Iterator[str]:
    """Yield a file, the images in a folder, or what matches a pattern."""
    path = Path(source).expanduser()
    if source.endswith(("/", os.sep)) and not path.exists() and not glob.has_magic(source):
        raise ImageReadError(f"there is no folder {path}: choose another one")
    if is_folder_of_images(path):
        images = list(walk(path) if recursive else datasets.list_images(path))
        if not images:
            raise ImageReadError(f"there is no image in {path} or below: choose another folder")
        yield from map(str, images)
    elif not os.path.lexists(path) and glob.has_magic(source):
        matches = sorted(glob.glob(str(path), recursive=True))
        if not matches:
            raise ImageReadError(f"no file matches {source}: check the pattern")
        for match in map(Path, matches):
            yield from (
                iter_local(str(match), recursive) if is_folder_of_images(match) else [str(match)]
            )
    else:
        yield str(path)


def is_folder_of_images(path: Path) -> bool:
    """Return whether a path is a folder, and not itself an image as OME-Zarr and DICOM are."""
    return path.is_dir() and not datasets.is_image_file(path)


def walk(folder: Path) -> Iterator[Path]:
    """Yield the images in a folder and below, in alphabetical order; images are not entered."""
    for entry in sorted(folder.iterdir()):
        if datasets.is_image_file(entry):
            yield entry
        elif is_folder(entry):
            yield from walk(entry)


def is_folder(path: Path) -> bool:
    """Return whether a folder is searched: not a hidden one, a link, or a run."""
    hidden = path.name.startswith(".") or path.name.endswith(".run.zarr")
    return path.is_dir() and not path.is_symlink() and not hidden


def iter_remote(source: str, recursive: bool) -> Iterator[str]:
    """Yield a remote image, or those in a remote folder or matching a pattern."""
    if not (source.endswith("/") or "*" in source):
        yield source
        return
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise ImageReadError(
            f'listing {source} needs fsspec: pip install "hrviewer[remote]"'
        ) from None
    scheme = source.partition("://")[0]
    try:
        files, root = url_to_fs(source)
        names = files.glob(root) if "*" in root else files.ls(root, detail=False)
        if recursive and "*" not in root:
            names = files.find(root)
    except Exception as error:  # every file system raises its own
        raise ImageReadError(f"{source} cannot be listed: {error}") from None
    images = sorted({str(name).rstrip("/") for name in names if names})
    images = [name for name in images if datasets.is_image_file(Path(name))]
    if not images:
        raise ImageReadError(f"there is no image in {source}: check the folder")
    for name in images:
        yield name if "://" in name else f"{scheme}://{name}"


def iter_table(path: Path) -> Iterator[ImageEntry]:
    """Yield the images that a table lists.

    Raises
    ------
    HrviewerError
        If it cannot be read, has no column ``image``, or a row has no image.
    """
    try:
        if path.exists() and not path.is_file():
            raise ParameterError(f"{path.name} is no file: name a table of images")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ParameterError(f"{path.name} is too large for a table of images")
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except FileNotFoundError:
        raise ParameterError(f"there is no table {path}: check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ParameterError(f"{path.name} cannot be read as a table: {error}") from None
    if not rows or "image" not in rows[0]:
        raise ParameterError(
            f"{path.name} is no table of images: give it a first line with the column `image`"
        )
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ParameterError(
                f"line {number} of {path.name} has another number of columns than its first line"
            )
        yield entry_of_row({name: value.strip() for name, value in row.items()}, path, number)


def entry_of_row(row: dict[str, str], path: Path, number: int) -> ImageEntry:
    """Return the image of a table's row."""
    given: dict[str, Any] = {name: row[name] for name in OWN_COLUMNS if row.get(name)}
    if "image" not in given:
        raise ParameterError(f"line {number} of {path.name} names no image")
    given["image"] = absolute(given["image"], path.parent)
    if "truth" in given and given["truth"] != "auto":
        given["truth"] = absolute(given["truth"], path.parent)
    for name in ("model", "region"):
        if name in given and (path.parent / given[name]).exists():
            given[name] = absolute(given[name], path.parent)
    params = {
        name.removeprefix(PARAMETER_PREFIX): value
        for name, value in row.items()
        if name.startswith(PARAMETER_PREFIX) and value
    }
    rest = {
        name: value
        for name, value in row.items()
        if name not in OWN_COLUMNS and not name.startswith(PARAMETER_PREFIX)
    }
    return ImageEntry(**given, params=params, columns=rest)


def absolute(name: str, folder: Path) -> str:
    """Return a path of a table from its folder; URLs and synthetic images as they are."""
    if "://" in name or name.startswith("sample:"):
        return name
    return str(folder / Path(name).expanduser())
