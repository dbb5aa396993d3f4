"""Label map of a run's instances: an OME-Zarr label image at full resolution."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.io.exportable import Exportable
from hrviewer.io.geojson import class_color
from hrviewer.io.object_table import read_objects
from hrviewer.io.ome_metadata import (
    ZARR_FORMATS,
    Version,
    create_level,
    multiscales,
    set_metadata,
)

__all__ = ["write_object_labels"]

CHUNK = 512
MAX_LISTED = 20_000
"""Most objects whose color, class and score are in the metadata, which readers load whole."""


def write_object_labels(
    run: Exportable,
    image: Path,
    levels: int,
    version: Version,
    fill_levels: Callable[[Any, int, Callable[[NDArray[Any]], NDArray[Any]]], None],
) -> None:
    """Write ``labels/objects`` of an image: a pixel is the object's id + 1, 0 outside of all.

    A run whose objects are all boxes has none.

    Where objects overlap, a pixel is of the more confident one. Chunks without objects are not
    stored.

    Parameters
    ----------
    run : Exportable
        A run with objects.
    image : Path
        Folder of the image whose labels these are.
    levels : int
        Resolutions, each half the one before.
    version : {"0.5", "0.4"}
        Of OME-Zarr.
    fill_levels : callable
        Computes the coarser levels of a group.
    """
    import shapely
    import zarr

    ids, objects, classes = read_objects(run)
    if not objects.has_outlines:
        return
    rows, columns = run.header["image"]["shape"]
    labels = zarr.open_group(image / "labels", mode="a", zarr_format=ZARR_FORMATS[version])
    set_metadata(labels, {"version": version, "labels": ["objects"]}, version)
    group = labels.create_group("objects")
    ome = multiscales(
        "objects",
        1.0,
        run.header["image"]["pixel_size"],
        levels=[str(i) for i in range(levels)],
        description="each level is every second pixel of the finer one",
    )
    ome["multiscales"][0]["type"] = "nearest"
    named = [(int(i) + 1, classes[k]) for i, k in zip(ids, objects.class_ids, strict=True)]
    about: dict[str, Any] = {"version": version, "source": {"image": "../../"}}
    if len(named) <= MAX_LISTED:
        about["colors"] = [
            {"label-value": i, "rgba": [*class_color(name), 255]} for i, name in named
        ]
        about["properties"] = [
            {"label-value": i, "class": name, "score": round(float(score), 4)}
            for (i, name), score in zip(named, objects.scores, strict=True)
        ]
    ome["image-label"] = about
    set_metadata(group, ome, version)
    for i in range(levels):
        shape = (1, -(-rows // 2**i), -(-columns // 2**i))
        chunks = (1, min(CHUNK, shape[1]), min(CHUNK, shape[2]))
        create_level(group, str(i), shape, np.int32, chunks=chunks, shard=2 * CHUNK)
    finest: Any = group["0"]
    y, x, h, w = objects.boxes.T
    tree, rings = shapely.STRtree(shapely.box(x, y, x + w, y + h)), objects.rings()
    side = 2 * CHUNK
    for top, left in product(range(0, rows, side), range(0, columns, side)):
        near = tree.query(shapely.box(left, top, left + side, top + side))
        if len(near):
            size = min(side, rows - top), min(side, columns - left)
            block = draw_labels([rings[i] for i in near], ids[near] + 1, near, (top, left), size)
            finest[0, top : top + size[0], left : left + size[1]] = block
    fill_levels(group, levels, lambda cells: cells[::2, ::2])


def draw_labels(
    rings: list[NDArray[np.float64]],
    numbers: NDArray[np.intp],
    order: NDArray[np.intp],
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> NDArray[np.int32]:
    """Return a block of the label map; objects of a lower `order` lie on top."""
    from skimage.draw import polygon

    block = np.zeros(shape, np.int32)
    for i in np.argsort(-order):
        # A pixel is inside if its center, at a half, is.
        rows, columns = polygon(*(rings[i] - np.array(corner) - 0.5).T, shape)
        block[rows, columns] = numbers[i]
    return block
