"""OME-TIFF: a heat map, tiled, as a pyramid of 32-bit floats. Written by tifffile."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.io.run_maps import MapName, open_map
from hrviewer.io.writers import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.writers.omezarr import copy_map, level_count

__all__ = ["OmeTiffSettings", "write"]

TILE = 256


class OmeTiffSettings(WriterSettings):
    """Which map."""

    map: MapName = Field("output", title="Map", description="Which of the run's maps")


def write(
    run: Exportable, target: Path, settings: OmeTiffSettings, progress: ProgressCallback
) -> None:
    """Write a map, one plane per channel, each coarser level the means of 2 × 2 cells.

    Cells never looked at are NaN. The levels are made beside the file first, in bounded memory.

    Parameters
    ----------
    run : Exportable
        What to write.
    target : Path
        The file.
    settings : Settings
        Which map.
    progress : callable
        Told how many tiles are written.

    Raises
    ------
    UserError
        If the run does not hold the map.
    """
    import tifffile
    import zarr

    shown = open_map(run, settings.map)
    size = run.header["image"]["pixel_size"]
    levels = level_count(shown.cells.shape)
    with tempfile.TemporaryDirectory(prefix=".hrviewer-", dir=target.parent) as folder:
        copy_map(shown, Path(folder) / "map", size)
        made = zarr.open_group(Path(folder) / "map", mode="r")
        arrays: list[Any] = [made[str(i)] for i in range(levels)]
        total, done = sum(count_tiles(array) for array in arrays), 0

        def told(array: Any) -> Iterator[NDArray[np.float32]]:
            nonlocal done
            for tile in iter_tiles(array):
                done += 1
                progress(done, total)
                yield tile

        common: dict[str, Any] = {
            "dtype": np.float32, "tile": (TILE, TILE), "compression": "zlib", "predictor": 3,
            "photometric": "minisblack",
        }  # fmt: skip
        large = sum(array.size for array in arrays) * 4 > 2**31
        with tifffile.TiffWriter(target, bigtiff=large, ome=True) as out:
            about = metadata(shown.name, shown.labels, shown.cell, size)
            out.write(told(arrays[0]), shape=arrays[0].shape, subifds=levels - 1,
                      metadata=about, **common)  # fmt: skip
            for array in arrays[1:]:
                out.write(told(array), shape=array.shape, subfiletype=1, **common)


def metadata(
    name: str, labels: tuple[str, ...], cell: float, size: tuple[float, float] | None
) -> dict[str, Any]:
    """Return what tifffile writes as OME-XML: sizes, places of the cells' centres, names."""
    steps, unit = (size, "µm") if size else ((1.0, 1.0), "pixel")
    places = {
        axis: [(cell - 1) / 2 * step] * len(labels) for axis, step in zip("YX", steps, strict=True)
    }
    return {
        "axes": "CYX",
        "Name": name,
        **{f"PhysicalSize{a}": cell * step for a, step in zip("YX", steps, strict=True)},
        **{f"PhysicalSize{a}Unit": unit for a in "YX"},
        "Channel": {"Name": list(labels)},
        "Plane": {
            **{f"Position{a}": where for a, where in places.items()},
            **{f"Position{a}Unit": [unit] * len(labels) for a in "YX"},
        },
    }


def count_tiles(array: Any) -> int:
    """Return how many tiles a level has."""
    k, rows, columns = array.shape
    return int(k * -(-rows // TILE) * -(-columns // TILE))


def iter_tiles(array: Any) -> Iterator[NDArray[np.float32]]:
    """Yield a level's tiles in the file's order; those at the end are filled up with NaN."""
    k, rows, columns = array.shape
    for c in range(k):
        for y in range(0, rows, TILE):
            band = np.full((TILE, -(-columns // TILE) * TILE), np.nan, np.float32)
            part = array[c, y : y + TILE]
            band[: part.shape[0], :columns] = part
            for x in range(0, columns, TILE):
                yield np.ascontiguousarray(band[:, x : x + TILE])
