"""Arrays of up to five axes as OME-Zarr 0.5: what a person has in a window, whoever made it.

Written a block at a time, each coarser level from the one before: memory is bounded, whatever the
size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError

__all__ = ["WritableImage", "axis_aligned", "name_axes", "write_array", "write_arrays"]

BLOCK = 1024
CHUNK = 512
COARSEST = 512

AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
DEFAULT_AXES = {0: "", 1: "z", 2: "tz", 3: "tcz"}
"""What leading axes are taken for, by their number, where nobody names them."""


@dataclass(frozen=True, slots=True, eq=False)
class WritableImage:
    """An image or labels, as they are to be written.

    Parameters
    ----------
    name : str
        What it is called.
    data : array-like
        Anything with ``shape``, ``dtype`` and slicing.
    axes : str
        One of ``t, c, z, y, x`` per axis, in this order.
    scale, translate : sequence of float
        Per axis; of the first pixel's centre.
    unit : str
        Of the spatial axes, as OME-Zarr names it; empty where it is not known.
    labels : bool
        Whether the pixels are objects' numbers.
    """

    name: str
    data: Any
    axes: str
    scale: Sequence[float]
    translate: Sequence[float]
    unit: str = ""
    labels: bool = False


def name_axes(labels: Sequence[str], ndim: int) -> str:
    """Return the axes of an array with `ndim` axes, the last two of which are y and x.

    Parameters
    ----------
    labels : sequence of str
        What they are called; names that mean nothing here, or are in another order than t, c, z,
        are replaced by the usual ones.
    ndim : int
        How many.

    Raises
    ------
    UserError
        If there are fewer than two, or more than five.
    """
    if not 2 <= ndim <= 5:
        raise HrviewerError(f"an OME-Zarr has two to five axes, not {ndim}")
    told = "".join(label.lower() for label in labels[: ndim - 2])
    known = len(told) == ndim - 2 and told == "".join(a for a in "tcz" if a in told)
    return (told if known else DEFAULT_AXES[ndim - 2]) + "yx"


def axis_aligned(
    data: Any, matrix: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64], bool]:
    """Return an array as it lies in the world: turned by right angles, mirrored, if it has to be.

    Parameters
    ----------
    data : array-like
        The last two axes are y and x.
    matrix : ndarray, shape (n, n)
        From pixels to the world.
    offset : ndarray, shape (n,)
        Where the first pixel's centre lies.

    Returns
    -------
    data : array-like
        Turned, lazily.
    scale, translate : ndarray, shape (n,)
        Positive steps, and where the first pixel's centre lies now.
    whole : bool
        Whether that says all; otherwise the array is as it was, and its turn is left out.
    """
    import dask.array as da

    n = len(matrix)
    steps = np.where(np.abs(matrix) > 1e-9 * np.abs(matrix).max(), matrix, 0)
    plane = steps[-2:, -2:]
    others = steps.copy()
    others[-2:, -2:] = 0
    alone = np.count_nonzero(others - np.diag(np.diag(others))) == 0
    right = np.count_nonzero(plane) == 2 and abs(np.linalg.det(plane)) > 0
    if not (alone and right):
        return data, np.linalg.norm(matrix, axis=0), offset.copy(), False
    turned, translate = data, offset.astype(np.float64).copy()
    if plane[0, 0] == 0:
        turned = da.asarray(turned).swapaxes(-1, -2)
        plane = plane[:, ::-1]
    scale = np.diag(steps).copy()
    scale[-2:] = np.diag(plane)
    for axis in range(n):
        if scale[axis] < 0:
            turned = da.flip(da.asarray(turned), axis)
            translate[axis] += scale[axis] * (turned.shape[axis] - 1)
            scale[axis] = -scale[axis]
    return turned, scale, translate, True


def write_arrays(layers: Sequence[WritableImage], target: Path) -> None:
    """Write images and labels as one OME-Zarr: a single image, or a group of several.

    Labels lie in the first image; without one, the first of them is an image of its own.

    Parameters
    ----------
    layers : sequence of Picture
        What to write.
    target : Path
        The folder.
    """
    import zarr

    images = [picture for picture in layers if not picture.labels]
    labels = [picture for picture in layers if picture.labels]
    if not images:
        images, labels = labels[:1], labels[1:]
    root = zarr.open_group(target, mode="w", zarr_format=3)
    if len(images) > 1:
        root.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
        names = [str(i) for i in range(len(images))]
        root.create_group("OME").attrs["ome"] = {"version": "0.5", "series": names}
        folders = [target / name for name in names]
    else:
        folders = [target]
    for image, folder in zip(images, folders, strict=True):
        write_array(image, folder)
    if labels:
        group = zarr.open_group(folders[0] / "labels", mode="w", zarr_format=3)
        names = []
        for picture in labels:
            names.append(unique_name(picture.name, names))
            write_array(picture, folders[0] / "labels" / names[-1], nested=True)
        group.attrs["ome"] = {"version": "0.5", "labels": names}


def unique_name(name: str, existing: Sequence[str]) -> str:
    """Return a name that a folder can have, and no other has."""
    plain = "".join(c if c.isalnum() or c in " -_." else "_" for c in name).strip(" .")[:80]
    plain = plain or "layer"
    found, number = plain, 1
    while found in existing:
        number += 1
        found = f"{plain} {number}"
    return found


def write_array(source: WritableImage, folder: Path, *, nested: bool = False) -> None:
    """Write one image, or labels `nested` of one, as a pyramid in y and x."""
    import dask.array as da
    import zarr

    data = da.asarray(source.data)
    dtype = np.dtype(np.uint8) if data.dtype == bool else data.dtype
    if dtype.kind not in "uif":
        raise HrviewerError(f"{source.name} holds {dtype}: only whole and real numbers are written")
    shapes = [data.shape]
    while max(shapes[-1][-2:]) > COARSEST:
        *lead, h, w = shapes[-1]
        shapes.append((*lead, -(-h // 2), -(-w // 2)))
    group = zarr.open_group(folder, mode="a", zarr_format=3)
    group.attrs["ome"] = {
        **group.attrs.get("ome", {}),  # type: ignore[dict-item]
        **image_metadata(source, len(shapes), nested),
    }
    finer: Any = data
    for i, shape in enumerate(shapes):
        chunks = (*(1 for _ in shape[:-2]), *(min(CHUNK, side) for side in shape[-2:]))
        array: Any = group.create_array(
            str(i), shape=shape, chunks=chunks, dtype=dtype, dimension_names=tuple(source.axes)
        )
        for *at, ys, xs in iter_blocks(shape):
            where = (*at, ys, xs)
            if i == 0:
                array[where] = np.asarray(finer[where]).astype(dtype, copy=False)
            else:
                fine = (*at, *(slice(2 * part.start, 2 * part.stop) for part in (ys, xs)))
                array[where] = downsample_plane(np.asarray(finer[fine]), source.labels)
        finer = array


def iter_blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield where each block lies: one plane, at most `BLOCK` pixels per side."""
    spans = ([slice(a, min(a + BLOCK, n)) for a in range(0, n, BLOCK)] for n in shape[-2:])
    return product(*map(range, shape[:-2]), *spans)


def downsample_plane(plane: NDArray[Any], labels: bool) -> NDArray[Any]:
    """Return half of a plane: every second pixel of labels, else the means of 2 × 2 without NaN."""
    from hrviewer.io.downsampling import mean_2x2

    if labels:
        return plane[::2, ::2]
    found = mean_2x2(plane)
    if plane.dtype.kind in "ui":
        found = np.floor(found + 0.5)
    return found.astype(plane.dtype)


def image_metadata(source: WritableImage, levels: int, nested: bool) -> dict[str, Any]:
    """Return the metadata of an image."""
    axes = []
    for name in source.axes:
        unit = {"unit": source.unit} if AXIS_TYPES[name] == "space" and source.unit else {}
        axes.append({"name": name, "type": AXIS_TYPES[name], **unit})
    datasets = []
    for i in range(levels):
        factor = np.array([2.0**i if name in "yx" else 1.0 for name in source.axes])
        scale = np.asarray(source.scale, float)
        # Of a coarser level the first pixel's centre lies further in.
        shift = np.asarray(source.translate, float) + (factor - 1) / 2 * scale
        datasets.append(
            {
                "path": str(i),
                "coordinateTransformations": [
                    {"type": "scale", "scale": (scale * factor).tolist()},
                    {"type": "translation", "translation": shift.tolist()},
                ],
            }
        )
    image = {"name": source.name, "axes": axes, "datasets": datasets,
             "type": "nearest" if source.labels else "mean"}  # fmt: skip
    told: dict[str, Any] = {"version": "0.5", "multiscales": [image]}
    if source.labels:
        told["image-label"] = {"version": "0.5"} | (
            {"source": {"image": "../../"}} if nested else {}
        )
    return told
