"""Writer of arrays with up to five axes as OME-Zarr 0.5: any image or labels layer of napari.

Arrays are written block by block, each coarser level from the finer one, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import WriteError
from hrviewer.io.downsampling import mean_2x2

__all__ = ["WritableImage", "axis_aligned", "name_axes", "write_array", "write_arrays"]

BLOCK = 1024
CHUNK = 512
COARSEST = 512

AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
DEFAULT_AXES = {0: "", 1: "z", 2: "tz", 3: "tcz"}
"""Names of unnamed leading axes, by their number."""


@dataclass(frozen=True, slots=True, eq=False)
class WritableImage:
    """Image or labels to write, with axes and scale.

    Parameters
    ----------
    name : str
        Name in the metadata.
    data : array-like
        Has ``shape``, ``dtype`` and slicing.
    axes : str
        One of ``t``, ``c``, ``z``, ``y``, ``x`` per axis, in this order.
    scale, translate : sequence of float
        Pixel size, and position of the first pixel's centre, per axis.
    unit : str
        Unit of the spatial axes in OME-Zarr's spelling; empty if unknown.
    labels : bool
        Whether pixels hold object ids.
    """

    name: str
    data: Any
    axes: str
    scale: Sequence[float]
    translate: Sequence[float]
    unit: str = ""
    labels: bool = False


def name_axes(labels: Sequence[str], ndim: int) -> str:
    """Return the axis names of an array whose last two axes are y and x.

    Parameters
    ----------
    labels : sequence of str
        Names to use; unknown names, or another order than t, c, z, give way to `DEFAULT_AXES`.
    ndim : int
        Number of axes.

    Raises
    ------
    HrviewerError
        If there are fewer than two, or more than five.
    """
    if not 2 <= ndim <= 5:
        raise WriteError(f"an OME-Zarr has two to five axes, not {ndim}")
    names = "".join(label.lower() for label in labels[: ndim - 2])
    valid = len(names) == ndim - 2 and names == "".join(axis for axis in "tcz" if axis in names)
    return (names if valid else DEFAULT_AXES[ndim - 2]) + "yx"


def axis_aligned(
    data: Any, matrix: NDArray[np.float64], offset: NDArray[np.float64]
) -> tuple[Any, NDArray[np.float64], NDArray[np.float64], bool]:
    """Rotate by right angles and flip an array so that its axes are those of the world.

    Parameters
    ----------
    data : array-like
        The last two axes are y and x.
    matrix : ndarray, shape (n, n)
        Linear part of the transform from pixels to world coordinates.
    offset : ndarray, shape (n,)
        World position of the first pixel's centre.

    Returns
    -------
    data : array-like
        Lazily rotated and flipped.
    scale, translate : ndarray, shape (n,)
        Positive pixel sizes, and the new position of the first pixel's centre.
    exact : bool
        Whether the transform is represented exactly; otherwise the array is returned unchanged and
        its rotation or shear is lost.
    """
    import dask.array as da

    n = len(matrix)
    steps = np.where(np.abs(matrix) > 1e-9 * np.abs(matrix).max(), matrix, 0)
    plane = steps[-2:, -2:]
    others = steps.copy()
    others[-2:, -2:] = 0
    separable = np.count_nonzero(others - np.diag(np.diag(others))) == 0
    right_angled = np.count_nonzero(plane) == 2 and abs(np.linalg.det(plane)) > 0
    if not (separable and right_angled):
        return data, np.linalg.norm(matrix, axis=0), offset.copy(), False
    aligned, translate = data, offset.astype(np.float64).copy()
    if plane[0, 0] == 0:
        aligned = da.asarray(aligned).swapaxes(-1, -2)
        plane = plane[:, ::-1]
    scale = np.diag(steps).copy()
    scale[-2:] = np.diag(plane)
    for axis in range(n):
        if scale[axis] < 0:
            aligned = da.flip(da.asarray(aligned), axis)
            translate[axis] += scale[axis] * (aligned.shape[axis] - 1)
            scale[axis] = -scale[axis]
    return aligned, scale, translate, True


def write_arrays(layers: Sequence[WritableImage], target: Path) -> None:
    """Write images and labels as one OME-Zarr: a single image or a group of several.

    Labels become part of the first image; without an image, the first labels are the image.

    Parameters
    ----------
    layers : sequence of Picture
        Images and labels.
    target : Path
        Folder to create.
    """
    import zarr

    images = [layer for layer in layers if not layer.labels]
    labels = [layer for layer in layers if layer.labels]
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
        for layer in labels:
            names.append(unique_name(layer.name, names))
            write_array(layer, folders[0] / "labels" / names[-1], nested=True)
        group.attrs["ome"] = {"version": "0.5", "labels": names}


def unique_name(name: str, existing: Sequence[str]) -> str:
    """Return a valid folder name that is not among the existing ones."""
    stem = "".join(c if c.isalnum() or c in " -_." else "_" for c in name).strip(" .")[:80]
    stem = stem or "layer"
    candidate, number = stem, 1
    while candidate in existing:
        number += 1
        candidate = f"{stem} {number}"
    return candidate


def write_array(source: WritableImage, folder: Path, *, nested: bool = False) -> None:
    """Write an image, or labels nested in one, as a pyramid in y and x."""
    import dask.array as da
    import zarr

    data = da.asarray(source.data)
    dtype = np.dtype(np.uint8) if data.dtype == bool else data.dtype
    if dtype.kind not in "uif":
        raise WriteError(f"{source.name} has type {dtype}: convert it to integers or floats")
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
            str(i),
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            dimension_names=tuple(source.axes),
            config={"write_empty_chunks": True},  # a chunk that is not stored has no data
        )
        for *at, ys, xs in iter_blocks(shape):
            index = (*at, ys, xs)
            if i == 0:
                array[index] = np.asarray(finer[index]).astype(dtype, copy=False)
            else:
                fine = (*at, *(slice(2 * part.start, 2 * part.stop) for part in (ys, xs)))
                array[index] = downsample_plane(np.asarray(finer[fine]), source.labels)
        finer = array


def iter_blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the index of each block: one plane, at most `BLOCK` pixels per side."""
    spans = ([slice(a, min(a + BLOCK, n)) for a in range(0, n, BLOCK)] for n in shape[-2:])
    return product(*map(range, shape[:-2]), *spans)


def downsample_plane(plane: NDArray[Any], labels: bool) -> NDArray[Any]:
    """Halve a plane: every second pixel of labels, otherwise means of 2 × 2 that ignore NaN."""
    if labels:
        return plane[::2, ::2]
    means = mean_2x2(plane)
    if plane.dtype.kind in "ui":
        means = np.floor(means + 0.5)
    return means.astype(plane.dtype)


def image_metadata(source: WritableImage, levels: int, nested: bool) -> dict[str, Any]:
    """Return the OME metadata of an image."""
    axes = []
    for name in source.axes:
        unit = {"unit": source.unit} if AXIS_TYPES[name] == "space" and source.unit else {}
        axes.append({"name": name, "type": AXIS_TYPES[name], **unit})
    datasets = []
    for i in range(levels):
        factor = np.array([2.0**i if name in "yx" else 1.0 for name in source.axes])
        scale = np.asarray(source.scale, float)
        # The first pixel's centre of a coarser level lies farther from the border.
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
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [image]}
    if source.labels:
        ome["image-label"] = {"version": "0.5"} | (
            {"source": {"image": "../../"}} if nested else {}
        )
    return ome
