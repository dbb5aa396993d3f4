"""OME-Zarr: images with scale, units and what they show, in versions 0.5 and 0.4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import zarr

__all__ = [
    "CHANNEL_COLORS",
    "Version",
    "create_image",
    "create_level",
    "multiscales",
    "set_metadata",
]

Version = Literal["0.5", "0.4"]

CHUNK = 512

CHANNEL_COLORS = ("FFFFFF", "E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
"""Of channels: white, then Okabe's and Ito's, which colour-blind people can tell apart."""


def multiscales(
    name: str,
    cell: float,
    pixel_size: tuple[float, float] | None,
    *,
    levels: Sequence[str] = ("0",),
    channels: bool = True,
    description: str = "means of 2 x 2 cells; those never looked at are left out",
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
    description : str
        How levels are made of finer ones.
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
    image = {
        "name": name,
        "type": "mean",
        "metadata": {"description": description},
        "axes": axes,
        "datasets": datasets,
    }
    return {"version": "0.5", "multiscales": [image]}


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
    chunk: int = CHUNK,
    depth: int = 1,
    levels: int = 1,
    version: Version = "0.5",
    shard: int | None = None,
) -> zarr.Array[Any]:
    """Create an OME-Zarr image, filled with NaN (or 0 for integers).

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
    chunk, depth : int
        Side of the chunks, and channels in each.
    levels : int
        How many, each half the size of the one before.
    version : {"0.5", "0.4"}
        Of OME-Zarr.
    shard : int, optional
        See `create_level`.

    Returns
    -------
    zarr.Array
        The finest level, to write into.
    """
    import zarr

    paths = [str(i) for i in range(levels)]
    ome = multiscales(name, cell, pixel_size, levels=paths)
    if labels:
        ome["omero"] = {
            "channels": [
                {
                    "label": label,
                    "color": CHANNEL_COLORS[i % len(CHANNEL_COLORS)]
                    if len(labels) > 1
                    else CHANNEL_COLORS[0],
                    "active": i == 0,
                    "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
                }
                for i, label in enumerate(labels)
            ]
        }
    told = {"hrviewer": {"cell": cell, **(attributes or {})}, **metadata_for_version(ome, version)}
    group = zarr.create_group(
        path, attributes=told, zarr_format=ZARR_FORMATS[version], overwrite=True
    )
    made = []
    k, rows, columns = shape
    for i in paths:
        chunks = (depth, min(chunk, rows), min(chunk, columns))
        made.append(create_level(group, i, (k, rows, columns), dtype, chunks=chunks, shard=shard))
        rows, columns = -(-rows // 2), -(-columns // 2)
    return made[0]


ZARR_FORMATS: dict[Version, Literal[2, 3]] = {"0.5": 3, "0.4": 2}
"""Of zarr, in which each version of OME-Zarr is written."""


def set_metadata(group: zarr.Group, ome: dict[str, Any], version: Version) -> None:
    """Set a group's metadata; what is told as of 0.5 is turned into 0.4 if that is wanted."""
    group.attrs.update(metadata_for_version(ome, version))


def metadata_for_version(ome: dict[str, Any], version: Version) -> dict[str, Any]:
    """Return metadata as a version spells them; they are told as of 0.5.

    0.4 has no ``ome`` around it, and says its version in every part.
    """
    if version == "0.5":
        return {"ome": ome}
    told = {key: value for key, value in ome.items() if key != "version"}
    if "multiscales" in told:
        told["multiscales"] = [{"version": version, **image} for image in told["multiscales"]]
    for key in ("omero", "image-label"):
        if key in told:
            told[key] = {**told[key], "version": version}
    return told


def create_level(
    group: zarr.Group,
    name: str,
    shape: tuple[int, int, int],
    dtype: Any,
    *,
    chunks: tuple[int, int, int],
    shard: int | None = None,
    fill: float | None = None,
) -> zarr.Array[Any]:
    """Create a level's array, filled with NaN (or 0 for integers).

    Parameters
    ----------
    group : zarr.Group
        Its image; of the same format of zarr.
    name : str
        Its path.
    shape : tuple of int
        ``(channels, rows, columns)``.
    dtype : dtype
        Of the pixels.
    chunks : tuple of int
        Of what is compressed together.
    shard : int, optional
        Side of the shards, a multiple of the chunks', where the format knows them.
    fill : float, optional
        What unwritten pixels hold; NaN by default, or 0 of whole numbers.
    """
    third = group.metadata.zarr_format == 3
    if fill is None:
        fill = np.nan if np.issubdtype(dtype, np.floating) else 0
    sharded = third and shard is not None and not any(shard % n for n in chunks[1:])
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=(chunks[0], shard, shard) if sharded else None,  # type: ignore[arg-type]
        dtype=dtype,
        fill_value=fill,
        overwrite=True,
        **(
            {"dimension_names": ("c", "y", "x")}
            if third
            else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        ),
    )
