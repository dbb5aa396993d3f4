"""OME-Zarr: the maps of a run as pyramids, in 0.5 or 0.4, and the image beside them on request.

An exported run is one group with an image for each map. Readers that take one image find the
output's in the group itself; those that know the layout of bioformats2raw find all of them listed
in ``OME``. Everything is copied a shard at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import HrviewerError
from hrviewer.io.geojson import class_color
from hrviewer.io.image_writer import write_image_into
from hrviewer.io.ome_metadata import (
    ZARR_FORMATS,
    Version,
    create_image,
    create_level,
    multiscales,
    set_metadata,
)
from hrviewer.io.run_maps import RunMap, open_maps
from hrviewer.io.writers import Exportable, ProgressCallback, WriterSettings
from hrviewer.pyramid import open_pyramid

if TYPE_CHECKING:
    import zarr

__all__ = ["OmeZarrSettings", "copy_map", "write"]

COARSEST = 512
"""Cells along the longer side of the coarsest level, at most."""

SHARD = 1024


class OmeZarrSettings(WriterSettings):
    """Which version, and what else is written."""

    version: Version = Field("0.5", title="Version", description="0.4 for readers of zarr 2")
    image: bool = Field(
        False, title="With the image", description="All of it, as a pyramid beside the maps"
    )


def write(
    run: Exportable, target: Path, settings: OmeZarrSettings, progress: ProgressCallback
) -> None:
    """Write the maps that a run holds; of a segmentation its classes as labels, too.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The folder.
    settings : Settings
        Which version, and what else.
    progress : callable
        Told how many cells, and pixels of the image, are written.

    Raises
    ------
    UserError
        If the run holds no map, or its image is wanted and not there.
    """
    import zarr

    version, size = settings.version, run.header["image"]["pixel_size"]
    maps = open_maps(run)
    names: list[str] = [shown.name for shown in maps]
    totals = [shown.cells.size for shown in maps]
    whole = sum(totals)
    root = zarr.open_group(target, mode="w", zarr_format=ZARR_FORMATS[version])
    arrays: dict[str, zarr.Array[Any]] = {}
    for i, shown in enumerate(maps):
        before = sum(totals[:i])
        tell = partial(offset_progress, progress, before, whole)
        arrays[shown.name] = copy_map(shown, target / shown.name, size, version, tell)
    if (run.header["estimate"] or {}).get("kind") == "area" and "output" in arrays:
        write_classes(maps[0], target / "output", size, version)
    if settings.image:
        path = run.header["image"]["path"]
        with open_pyramid(path) as pyramid:
            if pyramid.fingerprint != run.header["image"]["fingerprint"]:
                raise HrviewerError(f"{path} has changed since this run: export without the image")
            arrays["image"] = write_image_into(pyramid, target / "image", progress, version)
        names.append("image")
    first = multiscales(
        names[0], maps[0].cell, size,
        levels=[f"{names[0]}/{i}" for i in range(level_count(maps[0].cells.shape))],
    )  # fmt: skip
    set_metadata(root, {**first, "bioformats2raw.layout": 3}, version)
    root.attrs["hrviewer"] = run.header
    set_metadata(root.create_group("OME"), {"version": version, "series": names}, version)
    (target / "OME" / "METADATA.ome.xml").write_bytes(ome_xml(arrays))


def offset_progress(
    progress: ProgressCallback, before: int, overall: int, done: int, total: int
) -> None:
    """Tell a part's progress as the whole's."""
    progress(before + done, overall)


def level_count(shape: tuple[int, ...]) -> int:
    """Return how many levels bring the longer side down to `COARSEST`."""
    levels = 1
    while max(shape[1:]) > COARSEST * 2 ** (levels - 1):
        levels += 1
    return levels


def copy_map(
    run_map: RunMap,
    target: Path,
    size: tuple[float, float] | None,
    version: Version = "0.5",
    progress: ProgressCallback = lambda done, total: None,
) -> zarr.Array[Any]:
    """Copy one map, with its coarser levels; return its finest."""
    import zarr

    cells = run_map.cells
    levels = level_count(cells.shape)
    about: Any = dict(
        zarr.open_group(cells.store, path=cells.path.rpartition("/")[0], mode="r").attrs
    )
    finest = create_image(
        target,
        cells.shape,
        name=run_map.name,
        cell=run_map.cell,
        pixel_size=size,
        dtype=cells.dtype,
        labels=run_map.labels,
        attributes={k: v for k, v in about["hrviewer"].items() if k != "cell"},
        levels=levels,
        version=version,
        shard=SHARD,
    )
    low, high = np.full(cells.shape[0], np.inf), np.full(cells.shape[0], -np.inf)
    done = 0
    for c, rows, columns in iter_shards(finest):
        block = cells[c, rows, columns]
        finest[c, rows, columns] = block
        low[c] = np.fmin(low[c], np.fmin.reduce(block, axis=None))
        high[c] = np.fmax(high[c], np.fmax.reduce(block, axis=None))
        done += block.size
        progress(done, cells.size)
    written = zarr.open_group(target, mode="r+")
    fill_levels(written, levels, mean_2x2)
    told: Any = dict(written.attrs)
    ome = told["ome"] if version == "0.5" else told
    for channel, least, most in zip(ome["omero"]["channels"], low, high, strict=True):
        if least < most:
            ends = {"min": least, "max": most, "start": least, "end": most}
            channel["window"] = {key: float(value) for key, value in ends.items()}
    written.attrs.update(told)
    return finest


def write_classes(
    run_map: RunMap, image: Path, size: tuple[float, float] | None, version: Version
) -> None:
    """Write a segmentation's classes as labels of its image: 1 is the first; 0 none, or unseen."""
    import zarr

    labels = zarr.open_group(image / "labels", mode="w", zarr_format=ZARR_FORMATS[version])
    set_metadata(labels, {"version": version, "labels": ["classes"]}, version)
    group = labels.create_group("classes")
    levels = level_count(run_map.cells.shape)
    ome = multiscales(
        "classes", run_map.cell, size, levels=[str(i) for i in range(levels)],
        description="each level is every second cell of the finer one",
    )  # fmt: skip
    ome["multiscales"][0]["type"] = "nearest"
    numbered = list(enumerate(run_map.labels, 1))
    ome["image-label"] = {
        "version": version,
        "source": {"image": "../../"},
        "colors": [{"label-value": i, "rgba": [*class_color(label), 255]} for i, label in numbered],
        "properties": [{"label-value": i, "class": label} for i, label in numbered],
    }
    set_metadata(group, ome, version)
    _, rows, columns = run_map.cells.shape
    for i in range(levels):
        shape = (1, -(-rows // 2**i), -(-columns // 2**i))
        chunks = (1, min(512, shape[1]), min(512, shape[2]))
        create_level(group, str(i), shape, np.int32, chunks=chunks, shard=SHARD)
    finest: Any = group["0"]
    for c, ys, xs in iter_shards(finest):
        finest[c, ys, xs] = classify(run_map.cells[:, ys, xs])
    fill_levels(group, levels, lambda cells: cells[::2, ::2])


def classify(probabilities: NDArray[Any]) -> NDArray[np.int32]:
    """Return of ``(k, rows, columns)`` the likeliest class; a single one from a half on."""
    best = (
        probabilities.argmax(axis=0) + 1
        if len(probabilities) > 1
        else (probabilities[0] > 0.5).astype(int)
    )
    return np.where(np.isnan(probabilities).any(axis=0), 0, best).astype(np.int32)


def fill_levels(
    group: zarr.Group, levels: int, downsample: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """Make every level of the one before, a chunk at a time, and write it a shard at a time."""
    for i in range(1, levels):
        fine: Any = group[str(i - 1)]
        coarse: Any = group[str(i)]
        for c, rows, columns in iter_shards(coarse):
            shard = np.empty((rows.stop - rows.start, columns.stop - columns.start), coarse.dtype)
            for ys, xs in product(*map(iter_chunks, (rows, columns))):
                here = (relative_to(ys, rows), relative_to(xs, columns))
                shard[here] = downsample(fine[c, finer_span(ys), finer_span(xs)])
            coarse[c, rows, columns] = shard


def iter_shards(array: Any) -> Iterator[tuple[int, slice, slice]]:
    """Yield where each shard, or chunk, of ``(channels, rows, columns)`` lies."""
    spans = (
        [slice(start, min(start + step, n)) for start in range(0, n, step)]
        for n, step in zip(array.shape[1:], (array.shards or array.chunks)[1:], strict=True)
    )
    return product(range(array.shape[0]), *spans)


def iter_chunks(span: slice) -> Iterator[slice]:
    """Yield a span's parts of a chunk's side."""
    for start in range(span.start, span.stop, 512):
        yield slice(start, min(start + 512, span.stop))


def relative_to(inner: slice, outer: slice) -> slice:
    """Return a span counted from the start of another one."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def finer_span(span: slice) -> slice:
    """Return the finer level's part under a part of a level."""
    return slice(2 * span.start, 2 * span.stop)


def mean_2x2(cells: NDArray[Any]) -> NDArray[np.float64]:
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


OME_TYPES = {"float16": "float", "float32": "float", "float64": "double"}
"""What OME calls them."""


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
            Type=OME_TYPES.get(str(array.dtype), str(array.dtype)),
            SizeX=str(columns),
            SizeY=str(rows),
            SizeC=str(k),
            SizeZ="1",
            SizeT="1",
        )
        ElementTree.SubElement(pixels, "MetadataOnly")
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
