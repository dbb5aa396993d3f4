"""Images out: any pyramid, and scenes with their truth, as sharded OME-Zarr 0.5.

Level by level, a shard at a time, each level from the one before: memory is bounded by the shards,
whatever the image's size. A conversion that was broken off goes on where it was; under its name
stands the whole image or nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError, write_error
from hrviewer.geometry import Grid, Rect
from hrviewer.io.atomic_write import require_new_path
from hrviewer.io.ground_truth.points import write_csv
from hrviewer.io.ome_metadata import (
    CHANNEL_COLORS,
    ZARR_FORMATS,
    Version,
    create_level,
    multiscales,
    set_metadata,
)
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.resample import block_mean

if TYPE_CHECKING:
    import zarr

__all__ = [
    "ProgressCallback",
    "ground_truth_path",
    "write_image",
    "write_image_into",
    "write_synthetic_image",
]

CHUNK = 512
SHARD = 4096
BAND = 1024
"""Rows of a shard that are made at once."""
COARSEST = 512
"""Pixels along the longer side of the coarsest level, at most."""

ProgressCallback = Callable[[int, int], None]
"""Told how many pixels are written, and how many there will be."""

Pixels = NDArray[Any]
ReadRegion = Callable[[Rect], Pixels]
"""Returns ``(c, h, w)`` of the finest level."""


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """What an image will be.

    Parameters
    ----------
    name : str
        What it is called.
    shape : tuple of int
        ``(channels, height, width)``.
    dtype : numpy.dtype
        Of its pixels.
    pixel_size : tuple of float, optional
        µm, ``(y, x)``.
    read : callable
        Gives the finest level.
    downsample : callable
        Makes of ``(h, w, c)`` half of it.
    labels : bool
        Whether the pixels are objects' numbers.
    """

    name: str
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    pixel_size: tuple[float, float] | None
    read: ReadRegion
    downsample: Callable[[Pixels], Pixels]
    labels: bool = False

    def levels(self) -> list[tuple[int, int]]:
        """Return every level's height and width."""
        sides = [self.shape[1:]]
        while max(sides[-1]) > COARSEST:
            h, w = sides[-1]
            sides.append((-(-h // 2), -(-w // 2)))
        return sides


def write_image(
    pyramid: Pyramid,
    path: str | Path,
    progress: ProgressCallback | None = None,
    *,
    version: Version = "0.5",
) -> Path:
    """Write an image as OME-Zarr, sharded where the version knows shards.

    Parameters
    ----------
    pyramid : Pyramid
        What to write; only its full resolution is read.
    path : str or Path
        ``NAME.ome.zarr``; nothing may be there yet.
    progress : callable, optional
        Told how far it has come.
    version : {"0.5", "0.4"}
        Of OME-Zarr.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    UserError
        If the place is taken, missing or full, or the image damaged.
    """
    path = require_zarr_path(path)
    with ResumableFolder(path, f"{pyramid.fingerprint} {version}") as part:
        write_levels(part, plan_image(pyramid), progress, version)
        return part.commit()


def write_image_into(
    pyramid: Pyramid, folder: Path, progress: ProgressCallback | None, version: Version
) -> zarr.Array[Any]:
    """Write an image into a folder that somebody else sees to; return its finest level."""
    import zarr

    with ResumableFolder(folder, "") as part:
        write_levels(part, plan_image(pyramid), progress, version)
        part.commit()
    return zarr.open_array(folder / "0", mode="r")


def write_synthetic_image(
    pyramid: Pyramid,
    path: str | Path,
    progress: ProgressCallback | None = None,
    *,
    labels: bool = False,
) -> tuple[Path, Path]:
    """Write a scene as sharded OME-Zarr with its truth, a table, beside it.

    Parameters
    ----------
    pyramid : Pyramid
        Of ``sample:NAME``.
    path, progress
        See `write_image`.
    labels : bool
        Whether the map of its objects is written into the image, as OME-Zarr labels.

    Returns
    -------
    tuple of Path
        The image and the table.

    Raises
    ------
    UserError
        See `write_image`; or if the image does not know its truth.
    """
    path = require_zarr_path(path)
    truth = pyramid.ground_truth(pyramid.rect)
    if truth is None or pyramid.synthetic_image is None:
        raise HrviewerError(f"{pyramid.name} is no scene: it does not know its truth")
    table = ground_truth_path(path)
    if os.path.lexists(table):
        raise HrviewerError(f"{table} exists: choose another name, or remove it first")
    with ResumableFolder(path, f"{pyramid.fingerprint} labels={labels}") as part:
        write_levels(part, plan_image(pyramid), progress)
        if labels:
            recipe, numbers = pyramid.synthetic_image, ObjectNumbers(truth.points)
            margin = 0 if truth.boxes is None or not len(truth) else int(truth.boxes[:, 2:].max())

            def read(rect: Rect) -> Pixels:
                wide = rect.pad(margin + 1) & pyramid.rect
                near = recipe.ground_truth(wide)
                local = recipe.labels(wide)[
                    rect.y - wide.y : rect.y1 - wide.y, rect.x - wide.x : rect.x1 - wide.x
                ]
                return numbers.lookup(near.points)[local][None]

            plan = ImagePlan(
                "objects",
                (1, *pyramid.shape),
                np.dtype(np.int32),
                pyramid.pixel_size,
                read,
                lambda pixels: pixels[::2, ::2],
                labels=True,
            )
            write_levels(part.nested("labels/objects"), plan, progress)
        new = table.with_name(f".{table.name}.part")
        write_csv(truth, new)
        written = part.commit()
        os.replace(new, table)
    return written, table


def ground_truth_path(path: Path) -> Path:
    """Return where the truth of a scene is written."""
    return path.with_name(path.name.removesuffix(".zarr").removesuffix(".ome") + ".truth.csv")


def plan_image(pyramid: Pyramid) -> ImagePlan:
    """Return an image that shows what a pyramid shows."""
    level = pyramid.levels[0]

    def read(rect: Rect) -> Pixels:
        return level.read(rect.y, rect.y1, rect.x, rect.x1).transpose(2, 0, 1)

    shape = (pyramid.channels, *pyramid.shape)
    return ImagePlan(
        pyramid.name,
        shape,
        pyramid.dtype,
        pyramid.pixel_size,
        read,
        lambda pixels: block_mean(pixels, 2),
    )


class ObjectNumbers:
    """Of objects seen in a window, their numbers in the whole scene."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        self._keys = point_keys(points)
        self._order = np.argsort(self._keys)

    def lookup(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return a table from a window's numbers to the scene's; 0 is none."""
        keys = point_keys(points)
        at = np.searchsorted(self._keys, keys, sorter=self._order)
        return np.concatenate([[0], self._order[at] + 1]).astype(np.int32)


def point_keys(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return points as single values that can be sorted and found again."""
    return points[:, 0] + 1j * points[:, 1]


# The folder.


def require_zarr_path(path: str | Path) -> Path:
    """Return a free path that is called as an OME-Zarr is."""
    if Path(path).suffix != ".zarr":
        raise HrviewerError(f"an OME-Zarr is called NAME.ome.zarr, not {Path(path).name!r}")
    return require_new_path(path)


class ResumableFolder:
    """A folder that is written beside its place, kept when broken off, renamed when done.

    Parameters
    ----------
    path : Path
        Its place.
    source : str
        What is written: only the same is gone on with.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.root = self.folder = path.with_name(f".{path.name}.part")
        self._state: dict[str, Any] = {"source": source, "done": {}}
        self._prefix = ""

    def __enter__(self) -> ResumableFolder:
        try:
            held = json.loads((self.root / "state.json").read_text("utf-8"))
        except (OSError, ValueError):
            held = {}
        if held.get("source") == self._state["source"]:
            self._state = held
        else:
            shutil.rmtree(self.root, ignore_errors=True)
            try:
                self.root.mkdir()
            except OSError as error:
                raise write_error(self.path, error) from None
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, OSError):
            raise HrviewerError(
                f"{write_error(self.path, error)}; what there is, is kept, and the same command "
                "goes on with it"
            ) from error

    def nested(self, prefix: str) -> ResumableFolder:
        """Return an image inside the folder."""
        part = object.__new__(ResumableFolder)
        part.path, part.root, part.folder = self.path, self.root, self.root / prefix
        part._state, part._prefix = self._state, f"{prefix}/"
        return part

    def shards_written(self, level: str) -> int:
        """Return how many shards of a level are written."""
        return int(self._state["done"].get(self._prefix + level, 0))

    def mark_written(self, level: str, count: int) -> None:
        """Remember that so many shards of a level are written."""
        self._state["done"][self._prefix + level] = count
        new = self.root / "state.json.new"
        new.write_text(json.dumps(self._state), "utf-8")
        os.replace(new, self.root / "state.json")

    def commit(self) -> Path:
        """Move the folder to its place."""
        (self.root / "state.json").unlink()
        os.rename(self.root, self.path)
        return self.path


def write_levels(
    part: ResumableFolder,
    plan: ImagePlan,
    progress: ProgressCallback | None,
    version: Version = "0.5",
) -> None:
    """Write an image into a folder, or go on with it."""
    import zarr

    sides = plan.levels()
    group = zarr.open_group(part.folder, mode="a", zarr_format=ZARR_FORMATS[version])
    set_metadata(group, image_metadata(plan, len(sides)), version)
    if part.folder != part.root:
        parent = zarr.open_group(part.folder.parent, mode="a", zarr_format=ZARR_FORMATS[version])
        set_metadata(parent, {"version": version, "labels": [part.folder.name]}, version)
    total, written = sum(h * w for h, w in sides), 0
    arrays: list[Any] = []
    for i, (h, w) in enumerate(sides):
        level = str(i)
        array: Any = group[level] if level in group else create_array(group, level, plan, h, w)
        arrays.append(array)
        for number, shard in enumerate(Grid(Rect(0, 0, h, w), shard_side(h, w))):
            if number >= part.shards_written(level):
                block = np.concatenate(
                    [
                        plan.read(rect)
                        if i == 0
                        else downsample_region(arrays[i - 1], rect, plan.downsample)
                        for rect in iter_bands(shard)
                    ],
                    axis=1,
                )
                array[:, shard.y : shard.y1, shard.x : shard.x1] = block
                part.mark_written(level, number + 1)
            written += shard.area
            if progress:
                progress(written, total)


def create_array(group: Any, level: str, plan: ImagePlan, h: int, w: int) -> Any:
    """Create a level's array: chunks as wide as all channels, many to a shard."""
    k = plan.shape[0]
    chunks = (k, CHUNK, CHUNK)
    return create_level(
        group, level, (k, h, w), plan.dtype, chunks=chunks, shard=shard_side(h, w), fill=0
    )


def shard_side(h: int, w: int) -> int:
    """Return the side of what is written at once."""
    return min(SHARD, -(-max(h, w) // CHUNK) * CHUNK)


def iter_bands(shard: Rect) -> Iterator[Rect]:
    """Yield a shard's parts, top to bottom."""
    for y in range(shard.y, shard.y1, BAND):
        yield Rect(y, shard.x, min(BAND, shard.y1 - y), shard.w)


def downsample_region(finer: Any, rect: Rect, downsample: Callable[[Pixels], Pixels]) -> Pixels:
    """Return a part of a level, made from the finer one."""
    pixels = finer[:, 2 * rect.y : 2 * rect.y1, 2 * rect.x : 2 * rect.x1]
    return downsample(np.asarray(pixels).transpose(1, 2, 0)).transpose(2, 0, 1)


def image_metadata(plan: ImagePlan, levels: int) -> dict[str, Any]:
    """Return an image's metadata."""
    ome = multiscales(
        plan.name,
        1,
        plan.pixel_size,
        levels=[str(i) for i in range(levels)],
        description="each level is the mean of 2 x 2 pixels of the finer one",
    )
    if plan.labels:
        ome["multiscales"][0] |= {
            "type": "nearest",
            "metadata": {"description": "each level is every second pixel of the finer one"},
        }
        ome["image-label"] = {"version": "0.5", "source": {"image": "../../"}}
        return ome
    k = plan.shape[0]
    colors = (
        ("FF0000", "00FF00", "0000FF")
        if k == 3
        else [CHANNEL_COLORS[i % len(CHANNEL_COLORS)] for i in range(k)]
    )
    names = ("red", "green", "blue") if k == 3 else [f"channel {i}" for i in range(k)]
    top = float(np.iinfo(plan.dtype).max) if plan.dtype.kind in "ui" else 1.0
    window = {"min": 0.0, "max": top, "start": 0.0, "end": top}
    ome["omero"] = {
        "channels": [
            {"label": name, "color": color, "active": True, "window": window}
            for name, color in zip(names, colors, strict=True)
        ]
    }
    return ome
