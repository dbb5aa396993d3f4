"""OME-Zarr: the maps of a run as pyramids, in version 0.5 or 0.4, optionally with the image.

An export is one group with an image per map. Programs that open a single image find the output in
the group itself; those that support the bioformats2raw layout find all images listed in ``OME``.
Everything is copied shard by shard.
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

from hrviewer.io.anonymous import open_image
from hrviewer.io.downsampling import mean_2x2
from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.geojson import class_color
from hrviewer.io.image_writer import write_image_into
from hrviewer.io.object_labels import write_object_labels
from hrviewer.io.object_table import has_objects
from hrviewer.io.ome_metadata import (
    ZARR_FORMATS,
    Version,
    create_image,
    create_level,
    multiscales,
    set_metadata,
)
from hrviewer.io.run_maps import RunMap, open_maps
from hrviewer.io.writers.base import RunWriter

if TYPE_CHECKING:
    import zarr

__all__ = ["OmeZarrSettings", "OmeZarrWriter", "copy_map", "level_count"]

COARSEST = 512
"""Maximum number of cells along the longer side of the coarsest level."""

SHARD = 1024


class OmeZarrSettings(WriterSettings):
    """OME-Zarr version, and whether the image is included."""

    version: Version = Field("0.5", title="Version", description="0.4 for readers of zarr 2")
    image: bool = Field(
        False, title="With the image", description="Add the whole image as a pyramid"
    )


class OmeZarrWriter(RunWriter):
    """OME-Zarr writer."""

    suffixes = (".ome.zarr", ".zarr")
    description = "all maps as pyramids: napari, OMERO, Fiji"
    Settings = OmeZarrSettings

    def write(
        self, run: Exportable, target: Path, settings: OmeZarrSettings, progress: ProgressCallback
    ) -> None:
        """Write all maps of a run, and as labels the classes of a segmentation or the instances.

        Progress counts map cells, then pixels of the image.
        """
        import zarr

        version, pixel_size = settings.version, run.header["image"]["pixel_size"]
        maps = open_maps(run)
        names: list[str] = [run_map.name for run_map in maps]
        sizes = [run_map.cells.size for run_map in maps]
        root = zarr.open_group(target, mode="w", zarr_format=ZARR_FORMATS[version])
        arrays: dict[str, zarr.Array[Any]] = {}
        for i, run_map in enumerate(maps):
            report = partial(offset_progress, progress, sum(sizes[:i]), sum(sizes))
            folder = target / run_map.name
            arrays[run_map.name] = copy_map(run_map, folder, pixel_size, version, report)
        if (run.header["estimate"] or {}).get("kind") == "area" and "output" in arrays:
            write_classes(maps[0], target / "output", pixel_size, version)
        if "output" in arrays and has_objects(run):
            shape = (1, *run.header["image"]["shape"])
            write_object_labels(run, target / "output", level_count(shape), version, fill_levels)
        if settings.image:
            with open_image(run) as pyramid:
                # The header's name: that of an anonymous run says nothing of the file.
                name = Path(run.header["image"]["path"]).name
                arrays["image"] = write_image_into(
                    pyramid, target / "image", name, progress, version
                )
            names.append("image")
        first = multiscales(
            names[0], maps[0].cell, pixel_size,
            levels=[f"{names[0]}/{i}" for i in range(level_count(maps[0].cells.shape))],
        )  # fmt: skip
        set_metadata(root, {**first, "bioformats2raw.layout": 3}, version)
        root.attrs["hrviewer"] = run.header
        set_metadata(root.create_group("OME"), {"version": version, "series": names}, version)
        (target / "OME" / "METADATA.ome.xml").write_bytes(ome_xml(arrays))


def offset_progress(
    progress: ProgressCallback, before: int, overall: int, done: int, total: int
) -> None:
    """Report the progress of a part as progress of the whole."""
    progress(before + done, overall)


def level_count(shape: tuple[int, ...]) -> int:
    """Return the number of levels that reduce the longer side to `COARSEST`."""
    levels = 1
    while max(shape[1:]) > COARSEST * 2 ** (levels - 1):
        levels += 1
    return levels


def copy_map(
    run_map: RunMap,
    target: Path,
    pixel_size: tuple[float, float] | None,
    version: Version = "0.5",
    progress: ProgressCallback = lambda done, total: None,
) -> zarr.Array[Any]:
    """Copy a map and compute its coarser levels; return its finest level."""
    import zarr

    cells = run_map.cells
    levels = level_count(cells.shape)
    attributes = run_map.attributes
    finest = create_image(
        target,
        cells.shape,
        name=run_map.name,
        cell=run_map.cell,
        pixel_size=pixel_size,
        dtype=cells.dtype,
        labels=run_map.labels,
        attributes={k: v for k, v in attributes["hrviewer"].items() if k != "cell"},
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
    group = zarr.open_group(target, mode="r+")
    fill_levels(group, levels, mean_2x2)
    written: Any = dict(group.attrs)
    ome = written["ome"] if version == "0.5" else written
    for channel, start, end in zip(ome["omero"]["channels"], low, high, strict=True):
        if start < end:
            window = {"min": start, "max": end, "start": start, "end": end}
            channel["window"] = {key: float(value) for key, value in window.items()}
    group.attrs.update(written)
    return finest


def write_classes(
    run_map: RunMap, image: Path, pixel_size: tuple[float, float] | None, version: Version
) -> None:
    """Write the predicted classes as labels of the image; 0 is none, or no prediction."""
    import zarr

    labels = zarr.open_group(image / "labels", mode="w", zarr_format=ZARR_FORMATS[version])
    set_metadata(labels, {"version": version, "labels": ["classes"]}, version)
    group = labels.create_group("classes")
    levels = level_count(run_map.cells.shape)
    ome = multiscales(
        "classes", run_map.cell, pixel_size, levels=[str(i) for i in range(levels)],
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
    """Return the predicted class, from 1; a single class needs more than 0.5; 0 for NaN."""
    if len(probabilities) > 1:
        best = probabilities.argmax(axis=0) + 1
    else:
        best = (probabilities[0] > 0.5).astype(int)
    return np.where(np.isnan(probabilities).any(axis=0), 0, best).astype(np.int32)


def fill_levels(
    group: zarr.Group, levels: int, downsample: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    """Compute every level from the finer one by chunks, and write it by shards."""
    for i in range(1, levels):
        fine: Any = group[str(i - 1)]
        coarse: Any = group[str(i)]
        for c, rows, columns in iter_shards(coarse):
            shard = np.empty((rows.stop - rows.start, columns.stop - columns.start), coarse.dtype)
            for ys, xs in product(*map(iter_chunks, (rows, columns))):
                inner = (relative_to(ys, rows), relative_to(xs, columns))
                shard[inner] = downsample(fine[c, finer_span(ys), finer_span(xs)])
            coarse[c, rows, columns] = shard


def iter_shards(array: Any) -> Iterator[tuple[int, slice, slice]]:
    """Yield the index of each shard, or chunk, of an array ``(channels, rows, columns)``."""
    spans = (
        [slice(start, min(start + step, n)) for start in range(0, n, step)]
        for n, step in zip(array.shape[1:], (array.shards or array.chunks)[1:], strict=True)
    )
    return product(range(array.shape[0]), *spans)


def iter_chunks(span: slice) -> Iterator[slice]:
    """Yield the parts of a span, each at most a chunk long."""
    for start in range(span.start, span.stop, 512):
        yield slice(start, min(start + 512, span.stop))


def relative_to(inner: slice, outer: slice) -> slice:
    """Return a span relative to the start of another one."""
    return slice(inner.start - outer.start, inner.stop - outer.start)


def finer_span(span: slice) -> slice:
    """Return the span of the next finer level under a span of a level."""
    return slice(2 * span.start, 2 * span.stop)


OME_TYPES = {"float16": "float", "float32": "float", "float64": "double"}
"""Pixel types by NumPy dtype where OME uses another name."""


def ome_xml(arrays: dict[str, zarr.Array[Any]]) -> bytes:
    """Return OME-XML with the images' names and sizes, as the bioformats2raw layout requires."""
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
