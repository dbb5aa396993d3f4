"""Writer of images, and of synthetic images with their ground truth, as sharded OME-Zarr 0.5.

Each level is computed from the finer one, shard by shard, in bounded memory. An interrupted
conversion is resumed; the image appears under its name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.claims import claim
from hrviewer.errors import HrviewerError, ParameterError, WriteError, write_error
from hrviewer.folders import remove_folder, sync_files, sync_folder, sync_tree
from hrviewer.geometry import Grid, Rect
from hrviewer.io.atomic_write import remove_leftovers, replace_file, require_new_path
from hrviewer.io.exportable import ProgressCallback
from hrviewer.io.ground_truth.points import write_csv
from hrviewer.io.image_plan import (
    ImagePlan,
    Pixels,
    image_metadata,
    plan_image,
    plan_mask,
)
from hrviewer.io.ome_metadata import (
    ZARR_FORMATS,
    Version,
    create_level,
    set_metadata,
)
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.readers.omezarr_series import MASK_PATH
from hrviewer.pyramid.zarr_tiles import stored_parts

if TYPE_CHECKING:
    import zarr

__all__ = [
    "ground_truth_path",
    "write_image",
    "write_image_into",
    "write_synthetic_image",
]

CHUNK = 512
SHARD = 4096
BAND = 1024
"""Rows of a shard that are computed at once."""

STATE_FILE = "state.json"
"""In the folder of an unfinished conversion."""


def write_image(
    pyramid: Pyramid,
    path: str | Path,
    progress: ProgressCallback | None = None,
    *,
    version: Version = "0.5",
    all_planes: bool = False,
) -> Path:
    """Write an image as OME-Zarr, sharded in version 0.5.

    Channel names, colours and windows, pixel size, no-data value, mask, a given value range and
    place on Earth are kept; `describe_losses` lists what is not.

    Parameters
    ----------
    pyramid : Pyramid
        Image to write; only its full resolution is read.
    path : str or Path
        ``NAME.ome.zarr``; it must not exist.
    progress : callable, optional
        Called with the number of pixels written and the total.
    version : {"0.5", "0.4"}
        OME-Zarr version.
    all_planes : bool
        Whether all planes along t and z of a file are written, not only the one that is open.

    Returns
    -------
    Path
        The new folder.

    Raises
    ------
    HrviewerError
        If the path exists or cannot be written, or the image is damaged.
    """
    path = require_zarr_path(path)
    plan = plan_image(pyramid, all_planes=all_planes, with_mask=True)
    mask = plan_mask(pyramid, all_planes=all_planes)
    source = f"{pyramid.image_key} {version} {dict(plan.plane_sizes)} {pyramid.given_range}"
    with ResumableFolder(path, source) as part:
        masks = None
        if mask is not None:
            masks = write_levels(part.nested(MASK_PATH), mask, None, version)
        write_levels(part, plan, progress, version, masks)
        return part.commit()


def write_image_into(
    pyramid: Pyramid, folder: Path, name: str, progress: ProgressCallback | None, version: Version
) -> zarr.Array[Any]:
    """Write an image under a name into part of an export; return its finest level."""
    import zarr

    with ResumableFolder(folder, "") as part:
        write_levels(part, replace(plan_image(pyramid), name=name), progress, version)
        part.commit()
    return zarr.open_array(folder / "0", mode="r")


def write_synthetic_image(
    pyramid: Pyramid,
    path: str | Path,
    progress: ProgressCallback | None = None,
    *,
    labels: bool = False,
) -> tuple[Path, Path]:
    """Write a synthetic image as sharded OME-Zarr, and its ground truth as CSV next to it.

    Parameters
    ----------
    pyramid : Pyramid
        Opened from ``sample:NAME``.
    path, progress
        See `write_image`.
    labels : bool
        Whether a label map of its objects is added as OME-Zarr labels.

    Returns
    -------
    tuple of Path
        The image and the table.

    Raises
    ------
    HrviewerError
        See `write_image`; or if the image is not synthetic.
    """
    path = require_zarr_path(path)
    ground_truth = pyramid.ground_truth(pyramid.rect)
    if ground_truth is None or pyramid.synthetic_image is None:
        raise ParameterError(f"{pyramid.name} is not a synthetic image: open sample:NAME instead")
    table = ground_truth_path(path)
    if os.path.lexists(table):
        raise WriteError(f"{table} exists: choose another name, or remove it first")
    with ResumableFolder(path, f"{pyramid.fingerprint} labels={labels}") as part:
        write_levels(part, plan_image(pyramid), progress)
        if labels:
            synthetic, numbers = pyramid.synthetic_image, ObjectNumbers(ground_truth.points)
            boxes = ground_truth.boxes
            margin = 0 if boxes is None or not len(boxes) else int(boxes[:, 2:].max())

            def read(rect: Rect, plane: Mapping[str, int]) -> Pixels:
                wide = rect.pad(margin + 1) & pyramid.rect
                near = synthetic.ground_truth(wide)
                local = synthetic.labels(wide)[
                    rect.y - wide.y : rect.y1 - wide.y, rect.x - wide.x : rect.x1 - wide.x
                ]
                return numbers.lookup(near.points)[local][None]

            plan = ImagePlan(
                "objects",
                (1, *pyramid.plane_shape),
                np.dtype(np.int32),
                pyramid.pixel_size,
                read,
                lambda pixels, _: pixels[::2, ::2],
                labels="nearest",
            )
            write_levels(part.nested("labels/objects"), plan, progress)
        new = table.with_name(f".{table.name}.part")
        write_csv(ground_truth, new)
        written = part.commit()
        os.replace(new, table)
    return written, table


def ground_truth_path(path: Path) -> Path:
    """Return the path of the ground truth of a synthetic image."""
    return path.with_name(path.name.removesuffix(".zarr").removesuffix(".ome") + ".truth.csv")


class ObjectNumbers:
    """Lookup of object ids in a synthetic image by the objects' points."""

    def __init__(self, points: NDArray[np.float64]) -> None:
        self._keys = point_keys(points)
        self._order = np.argsort(self._keys)

    def lookup(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Return a table from ids in a region to ids in the whole image; 0 is background."""
        keys = point_keys(points)
        at = np.searchsorted(self._keys, keys, sorter=self._order)
        return np.concatenate([[0], self._order[at] + 1]).astype(np.int32)


def point_keys(points: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Encode points as scalars, for sorting and searching."""
    return points[:, 0] + 1j * points[:, 1]


# The folder that is being written.


def require_zarr_path(path: str | Path) -> Path:
    """Check that a path is new and ends in ``.zarr``."""
    if Path(path).suffix != ".zarr":
        raise WriteError(
            f"the name of an OME-Zarr ends in .zarr, not {Path(path).name!r}: use NAME.ome.zarr"
        )
    return require_new_path(path)


class ResumableFolder:
    """Hidden folder of an unfinished conversion: resumed after an interruption, renamed at the end.

    Parameters
    ----------
    path : Path
        The final path.
    source : str
        Identifies the content: only a folder with the same content is resumed.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        self.root = self.folder = path.with_name(f".{path.name}.part")
        self._state: dict[str, Any] = {"source": source, "done": {}}
        self._prefix = ""
        self._claims = ExitStack()

    def __enter__(self) -> ResumableFolder:
        key = hashlib.sha256(os.fsencode(self.path.name)).hexdigest()[:32]
        self._claims.enter_context(claim(self.path.parent, key, self.path))
        try:
            return self._resume_or_create()
        except BaseException:
            self._claims.close()
            raise

    def _resume_or_create(self) -> ResumableFolder:
        require_new_path(self.path)  # an earlier writer may just have finished
        remove_leftovers(self.path.parent)
        try:
            saved = json.loads((self.root / STATE_FILE).read_text("utf-8"))
        except (OSError, ValueError):
            saved = {}
        if saved.get("source") == self._state["source"]:
            self._state = saved
            for left in self.root.rglob("*.partial"):  # zarr's, of a killed process
                left.unlink(missing_ok=True)
        else:
            remove_folder(self.root)
            try:
                self.root.mkdir()
            except OSError as error:
                raise write_error(self.path, error) from None
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._claims.__exit__(kind, error, trace)
        if isinstance(error, OSError) and not isinstance(error, HrviewerError):
            raise WriteError(
                f"{write_error(self.path, error)}; partial results are kept; run the same "
                "command again to resume"
            ) from error

    def nested(self, prefix: str) -> ResumableFolder:
        """Return a nested image in the folder."""
        part = object.__new__(ResumableFolder)
        part.path, part.root, part.folder = self.path, self.root, self.root / prefix
        part._state, part._prefix = self._state, f"{prefix}/"
        return part

    def has_begun(self, level: str) -> bool:
        """Return whether a level was created, and is on the disk with what came before it."""
        return self._prefix + level in self._state["done"]

    def shards_written(self, level: str) -> int:
        """Return the number of shards written of a level."""
        return int(self._state["done"].get(self._prefix + level, 0))

    def mark_written(self, level: str, count: int) -> None:
        """Record the number of shards written of a level."""
        self._state["done"][self._prefix + level] = count
        replace_file(self.root / STATE_FILE, json.dumps(self._state).encode())

    def commit(self) -> Path:
        """Rename the folder to its final path, once all of it is on the disk."""
        (self.root / STATE_FILE).unlink()
        sync_tree(self.root)
        os.rename(self.root, self.path)
        sync_folder(self.path.parent)
        return self.path


def write_levels(
    part: ResumableFolder,
    plan: ImagePlan,
    progress: ProgressCallback | None,
    version: Version = "0.5",
    masks: Sequence[Any] | None = None,
) -> list[Any]:
    """Write an image into a folder, or resume writing it; return the arrays of its levels.

    Parameters
    ----------
    part : ResumableFolder
        The folder.
    plan : ImagePlan
        The image.
    progress, version
        See `write_image`.
    masks : sequence of zarr.Array, optional
        The levels of its mask, 1 where there are no data.
    """
    import zarr

    sides = plan.levels()
    if not part.has_begun("0"):
        create_group(part, plan, version)
    group = zarr.open_group(part.folder, mode="r+")
    planes = list(plan.planes())
    total, written = len(planes) * sum(h * w for h, w in sides), 0
    arrays: list[Any] = []
    for i, (h, w) in enumerate(sides):
        level = str(i)
        # A chunk that is not stored would be one without data.
        with zarr.config.set({"array.write_empty_chunks": True}):
            if not part.has_begun(level):
                create_array(group, level, plan, h, w)
                sync_tree(part.root)
                part.mark_written(level, 0)
            array: Any = group[level]
        arrays.append(array)
        shards = Grid(Rect(0, 0, h, w), shard_side(h, w))
        for number, (plane, shard) in enumerate(product(planes, shards)):
            if number >= part.shards_written(level):
                block = np.concatenate(
                    [
                        plan.read(rect, plane)
                        if i == 0
                        else downsample_region(
                            arrays[i - 1], masks and masks[i - 1], rect, plane, plan
                        )
                        for rect in iter_bands(shard)
                    ],
                    axis=1,
                )
                index = plan.index(shard, plane)
                array[index] = block
                # It counts as written once a power cut leaves it there.
                keys = (key for key, _ in stored_parts(array, index))
                sync_files((part.folder / level / key for key in keys), part.root)
                part.mark_written(level, number + 1)
            written += shard.area
            if progress:
                progress(written, total)
    return arrays


def create_group(part: ResumableFolder, plan: ImagePlan, version: Version) -> None:
    """Create the group of an image, and that of its labels around it."""
    import zarr

    form = ZARR_FORMATS[version]
    if part.folder != part.root:
        parent = zarr.open_group(part.folder.parent, mode="w", zarr_format=form)
        set_metadata(parent, {"version": version, "labels": [part.folder.name]}, version)
    elif part.root.exists():
        for file in part.root.iterdir():
            if file.is_file() and file.name != STATE_FILE:  # of a killed process
                file.unlink()
    group = zarr.open_group(part.folder, mode="a", zarr_format=form)
    set_metadata(group, image_metadata(plan, len(plan.levels())), version)
    if plan.attributes:
        group.attrs["hrviewer"] = plan.attributes


def create_array(group: Any, level: str, plan: ImagePlan, h: int, w: int) -> Any:
    """Create the array of a level; a chunk holds all channels of a plane, a shard many chunks."""
    sizes = {**plan.plane_sizes, "c": plan.shape[0], "y": h, "x": w}
    chunk = {"c": plan.shape[0], "y": CHUNK, "x": CHUNK}
    return create_level(
        group,
        level,
        tuple(sizes[axis] for axis in plan.axes),
        plan.dtype,
        chunks=tuple(chunk.get(axis, 1) for axis in plan.axes),
        shard=shard_side(h, w),
        fill=0,
        axes=plan.axes,
    )


def shard_side(h: int, w: int) -> int:
    """Return the side of a shard."""
    return min(SHARD, -(-max(h, w) // CHUNK) * CHUNK)


def iter_bands(shard: Rect) -> Iterator[Rect]:
    """Yield the bands of a shard from top to bottom."""
    for y in range(shard.y, shard.y1, BAND):
        yield Rect(y, shard.x, min(BAND, shard.y1 - y), shard.w)


def downsample_region(
    finer: Any, mask: Any | None, rect: Rect, plane: Mapping[str, int], plan: ImagePlan
) -> Pixels:
    """Compute a region of a level from the finer level, and where that has no data."""
    source = plan.index(Rect(2 * rect.y, 2 * rect.x, 2 * rect.h, 2 * rect.w), plane)
    pixels = np.asarray(finer[source])
    valid = None if mask is None else np.asarray(mask[source])[0] == 0
    return plan.downsample(pixels.transpose(1, 2, 0), valid).transpose(2, 0, 1)
