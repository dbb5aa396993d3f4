"""OME-Zarr metadata and arrays, in versions 0.5 and 0.4."""

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
"""Channel colors: white, then Okabe and Ito's, which color-blind people can distinguish."""


def multiscales(
    name: str,
    cell: float,
    pixel_size: tuple[float, float] | None,
    *,
    levels: Sequence[str] = ("0",),
    channels: bool = True,
    description: str = "means of 2 x 2 cells, ignoring unprocessed ones",
) -> dict[str, Any]:
    """Return the ``ome`` attributes of an image whose pixels are cells of a base image.

    Parameters
    ----------
    name : str
        Name of the image.
    cell : float
        Level-0 pixels of the base image per pixel of this one.
    pixel_size : tuple of float, optional
        µm per base pixel, ``(y, x)``.
    levels : sequence of str
        Paths of the levels, each half the size of the one before.
    channels : bool
        Whether there is a channel axis before y and x.
    description : str
        How a level is computed from the finer one.
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
                    # Position of the first pixel's centre, which covers base pixels 0 to step - 1.
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
        Group of the image; an existing one is replaced.
    shape : tuple of int
        ``(channels, rows, columns)``.
    name, cell, pixel_size
        See `multiscales`.
    dtype : dtype
        Pixel type.
    labels : sequence of str
        Names of the channels.
    attributes : dict, optional
        Further attributes under ``hrviewer``, besides the cell.
    chunk, depth : int
        Side and channels of a chunk.
    levels : int
        Number of levels, each half the size of the finer one.
    version : {"0.5", "0.4"}
        OME-Zarr version.
    shard : int, optional
        See `create_level`.

    Returns
    -------
    zarr.Array
        The finest level.
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
    attrs = {"hrviewer": {"cell": cell, **(attributes or {})}, **metadata_for_version(ome, version)}
    group = zarr.create_group(
        path, attributes=attrs, zarr_format=ZARR_FORMATS[version], overwrite=True
    )
    arrays = []
    k, rows, columns = shape
    for i in paths:
        chunks = (depth, min(chunk, rows), min(chunk, columns))
        arrays.append(create_level(group, i, (k, rows, columns), dtype, chunks=chunks, shard=shard))
        rows, columns = -(-rows // 2), -(-columns // 2)
    return arrays[0]


ZARR_FORMATS: dict[Version, Literal[2, 3]] = {"0.5": 3, "0.4": 2}
"""Zarr format of each OME-Zarr version."""


def set_metadata(group: zarr.Group, ome: dict[str, Any], version: Version) -> None:
    """Set a group's metadata, given in the form of version 0.5."""
    group.attrs.update(metadata_for_version(ome, version))


def metadata_for_version(ome: dict[str, Any], version: Version) -> dict[str, Any]:
    """Convert metadata from version 0.5 to another version.

    Version 0.4 has no ``ome`` level and repeats its version in every part.
    """
    if version == "0.5":
        return {"ome": ome}
    converted = {key: value for key, value in ome.items() if key != "version"}
    if "multiscales" in converted:
        images = converted["multiscales"]
        converted["multiscales"] = [{"version": version, **image} for image in images]
    for key in ("omero", "image-label"):
        if key in converted:
            converted[key] = {**converted[key], "version": version}
    return converted


def create_level(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: Any,
    *,
    chunks: tuple[int, ...],
    shard: int | None = None,
    fill: float | None = None,
    axes: str = "cyx",
) -> zarr.Array[Any]:
    """Create the array of a level, filled with NaN (or 0 for integers).

    Parameters
    ----------
    group : zarr.Group
        Group of the image.
    name : str
        Path of the level.
    shape : tuple of int
        Lengths of the axes.
    dtype : dtype
        Pixel type.
    chunks : tuple of int
        Shape of a chunk.
    shard : int, optional
        Side of the shards, a multiple of the chunks'; ignored in Zarr format 2.
    fill : float, optional
        Value of unwritten pixels; by default NaN, or 0 for integers.
    axes : str
        Names of the axes; the last two are y and x.
    """
    from zarr.codecs import ZstdCodec

    zarr3 = group.metadata.zarr_format == 3
    if fill is None:
        fill = np.nan if np.issubdtype(dtype, np.floating) else 0
    sharded = zarr3 and shard is not None and not any(shard % n for n in chunks[-2:])
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=(*chunks[:-2], shard, shard) if sharded else None,  # type: ignore[arg-type]
        dtype=dtype,
        fill_value=fill,
        overwrite=True,
        **(
            # Stated, since hrviewer opens no other codec in a run folder.
            {"dimension_names": tuple(axes), "compressors": [ZstdCodec(level=0, checksum=True)]}
            if zarr3
            else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        ),
    )
