"""OME-Zarr 0.5: images with scale, units and what they show, and the maps of a run as pyramids.

An exported run is one group with an image for each map. Readers that take one image find the
output's in the group itself; those that know the layout of bioformats2raw find all of them listed
in ``OME``. Everything is copied a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import UserError
from hrviewer.exchange.formats import Exportable

if TYPE_CHECKING:
    import zarr

__all__ = ["create_image", "multiscales", "write"]

MAPS = ("output", "saliency", "cost")

COARSEST = 512
"""Cells along the longer side of the coarsest level, at most."""

COLORS = ("FFFFFF", "E69F00", "56B4E9", "009E73", "F0E442", "0072B2", "D55E00", "CC79A7")
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
    chunk: int = 512,
    depth: int = 1,
    levels: int = 1,
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

    Returns
    -------
    zarr.Array
        The finest level, to write into.
    """
    import zarr

    group = zarr.open_group(path, mode="w", zarr_format=3)
    paths = [str(i) for i in range(levels)]
    ome = multiscales(name, cell, pixel_size, levels=paths)
    if labels:
        ome["omero"] = {
            "channels": [
                {
                    "label": label,
                    "color": COLORS[i % len(COLORS)] if len(labels) > 1 else COLORS[0],
                    "active": i == 0,
                    "window": {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0},
                }
                for i, label in enumerate(labels)
            ]
        }
    group.attrs.update({"ome": ome, "hrviewer": {"cell": cell, **(attributes or {})}})
    floating = np.issubdtype(dtype, np.floating)
    k, rows, columns = shape
    for i in paths:
        group.create_array(
            i,
            shape=(k, rows, columns),
            chunks=(depth, min(chunk, rows), min(chunk, columns)),
            dtype=dtype,
            fill_value=np.nan if floating else 0,
            dimension_names=("c", "y", "x"),
        )
        rows, columns = -(-rows // 2), -(-columns // 2)
    return group["0"]  # type: ignore[return-value]


def write(run: Exportable, target: Path) -> None:
    """Write the maps that a run holds.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The folder.

    Raises
    ------
    UserError
        If the run holds no map.
    """
    import zarr

    size = run.header["image"]["pixel_size"]
    maps = [name for name in MAPS if (run.path / name / "zarr.json").is_file()]
    if not maps:
        raise UserError(f"{run.path} holds no maps: resume the run first")
    root = zarr.open_group(target, mode="w", zarr_format=3)
    arrays = {name: copy_image(run.path / name, target / name, size) for name in maps}
    first: Any = dict(root[maps[0]].attrs["ome"])  # type: ignore[arg-type]
    for dataset in first["multiscales"][0]["datasets"]:
        dataset["path"] = f"{maps[0]}/{dataset['path']}"
    root.attrs.update({"ome": {**first, "bioformats2raw.layout": 3}, "hrviewer": run.header})
    series = root.create_group("OME")
    series.attrs["ome"] = {"version": "0.5", "series": maps}
    (target / "OME" / "METADATA.ome.xml").write_bytes(ome_xml(arrays))


def copy_image(source: Path, target: Path, size: tuple[float, float] | None) -> zarr.Array[Any]:
    """Copy one map, with its coarser levels; return its finest."""
    import zarr

    group = zarr.open_group(source, mode="r")
    about: dict[str, Any] = dict(group.attrs["hrviewer"])  # type: ignore[arg-type]
    ome: dict[str, Any] = group.attrs["ome"]  # type: ignore[assignment]
    cells: Any = group["0"]
    levels = 1
    while max(cells.shape[1:]) > COARSEST * 2 ** (levels - 1):
        levels += 1
    names = [channel["label"] for channel in ome.get("omero", {"channels": []})["channels"]]
    finest = create_image(
        target,
        cells.shape,
        name=source.name,
        cell=about.pop("cell"),
        pixel_size=size,
        dtype=cells.dtype,
        labels=names or [source.name],
        attributes=about,
        levels=levels,
    )
    low, high = np.full(cells.shape[0], np.inf), np.full(cells.shape[0], -np.inf)
    for c, rows, columns in chunks(finest):
        block = cells[c, rows, columns]
        finest[c, rows, columns] = block
        low[c] = np.fmin(low[c], np.fmin.reduce(block, axis=None))
        high[c] = np.fmax(high[c], np.fmax.reduce(block, axis=None))
    written = zarr.open_group(target, mode="r+")
    for i in range(1, levels):
        fine: Any = written[str(i - 1)]
        coarse: Any = written[str(i)]
        for c, rows, columns in chunks(coarse):
            coarse[c, rows, columns] = halved(fine[c, doubled(rows), doubled(columns)])
    ome = dict(written.attrs["ome"])  # type: ignore[arg-type]
    for channel, least, most in zip(ome["omero"]["channels"], low, high, strict=True):
        if least < most:
            ends = {"min": least, "max": most, "start": least, "end": most}
            channel["window"] = {key: float(value) for key, value in ends.items()}
    written.attrs["ome"] = ome
    return finest


def chunks(array: Any) -> Iterator[tuple[int, slice, slice]]:
    """Yield where each chunk of ``(channels, rows, columns)`` lies."""
    spans = (
        [slice(start, min(start + step, n)) for start in range(0, n, step)]
        for n, step in zip(array.shape[1:], array.chunks[1:], strict=True)
    )
    return product(range(array.shape[0]), *spans)


def doubled(span: slice) -> slice:
    """Return the finer level's part under a part of a level."""
    return slice(2 * span.start, 2 * span.stop)


def halved(cells: NDArray[Any]) -> NDArray[np.float64]:
    """Return the means of 2 × 2 cells without NaN; NaN where all four are."""
    rows, columns = cells.shape
    even = np.pad(
        cells.astype(np.float64),
        ((0, rows % 2), (0, columns % 2)),
        constant_values=np.nan,
    )
    four = even.reshape(even.shape[0] // 2, 2, even.shape[1] // 2, 2)
    seen = ~np.isnan(four)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(seen, four, 0).sum((1, 3)) / seen.sum((1, 3)))


def ome_xml(arrays: dict[str, zarr.Array[Any]]) -> bytes:
    """Return the images' names and sizes as OME-XML, which readers of this layout look up."""
    space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    root = ElementTree.Element("OME", xmlns=space)
    for name, array in arrays.items():
        k, rows, columns = array.shape
        image = ElementTree.SubElement(root, "Image", ID=f"Image:{name}", Name=name)
        pixels = ElementTree.SubElement(
            image,
            "Pixels",
            ID=f"Pixels:{name}",
            DimensionOrder="XYCZT",
            Type={"float32": "float", "float64": "double"}[str(array.dtype)],
            SizeX=str(columns),
            SizeY=str(rows),
            SizeC=str(k),
            SizeZ="1",
            SizeT="1",
        )
        ElementTree.SubElement(pixels, "MetadataOnly")
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
