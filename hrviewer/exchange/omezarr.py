"""OME-Zarr 0.5: creating images, with scale, units and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import zarr

__all__ = ["create_image", "multiscales"]


def multiscales(
    name: str,
    cell: float,
    pixel_size: tuple[float, float] | None,
    *,
    levels: Sequence[str] = ("0",),
    channels: bool = True,
) -> dict[str, Any]:
    """Return the ``ome`` attributes of an image whose pixels are cells of another one.

    Parameters
    ----------
    name : str
        What it shows.
    cell : float
        Level-0 pixels of the base image per pixel of this one.
    pixel_size : tuple of float, optional
        µm per base pixel, ``(y, x)``.
    levels : sequence of str
        Paths of the levels, each half the size of the one before.
    channels : bool
        Whether there is a channel axis before y and x.
    """
    unit = {"unit": "micrometer"} if pixel_size else {}
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if channels else []
    axes += [{"name": axis, "type": "space", **unit} for axis in "yx"]
    size = pixel_size or (1.0, 1.0)
    first = [1.0] if channels else []
    offset = [0.0] if channels else []
    datasets = []
    for i, path in enumerate(levels):
        step = cell * 2**i
        datasets.append(
            {
                "path": path,
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*first, *(step * s for s in size)]},
                    # Centres: the first pixel covers base pixels 0 to step - 1.
                    {
                        "type": "translation",
                        "translation": [*offset, *((step - 1) / 2 * s for s in size)],
                    },
                ],
            }
        )
    return {"version": "0.5", "multiscales": [{"name": name, "axes": axes, "datasets": datasets}]}


def create_image(
    path: Path,
    shape: tuple[int, int, int],
    *,
    name: str,
    cell: float,
    pixel_size: tuple[float, float] | None,
    dtype: Any = np.float32,
    labels: Sequence[str] = (),
    attributes: dict[str, Any] | None = None,
    chunk: int = 512,
) -> zarr.Array[Any]:
    """Create an OME-Zarr image of one level, filled with NaN (or 0 for integers).

    Parameters
    ----------
    path : Path
        The image's group; what stood there is replaced.
    shape : tuple of int
        ``(channels, rows, columns)``.
    name, cell, pixel_size
        See `multiscales`.
    dtype : dtype
        Of the pixels.
    labels : sequence of str
        The channels' names.
    attributes : dict, optional
        What else to say under ``hrviewer``, beside the cell.
    chunk : int
        Side of the chunks.

    Returns
    -------
    zarr.Array
        To write into.
    """
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    ome = multiscales(name, cell, pixel_size)
    if labels:
        ome["omero"] = {
            "channels": [
                {
                    "label": label,
                    "color": "FFFFFF",
                    "active": i == 0,
                    "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
                }
                for i, label in enumerate(labels)
            ]
        }
    group.attrs.update({"ome": ome, "hrviewer": {"cell": cell, **(attributes or {})}})
    floating = np.issubdtype(dtype, np.floating)
    return group.create_array(
        "0",
        shape=shape,
        chunks=(1, min(chunk, shape[1]), min(chunk, shape[2])),
        dtype=dtype,
        fill_value=np.nan if floating else 0,
        dimension_names=("c", "y", "x"),
    )
