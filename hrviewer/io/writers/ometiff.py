"""OME-TIFF: a map of a run as a tiled pyramid of 32-bit floats; uses tifffile."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.io.exportable import Exportable, ProgressCallback, WriterSettings
from hrviewer.io.run_maps import MapName, open_map
from hrviewer.io.writers.base import RunWriter
from hrviewer.io.writers.omezarr import copy_map, level_count

__all__ = ["OmeTiffSettings", "OmeTiffWriter"]

TILE = 256


class OmeTiffSettings(WriterSettings):
    """Map to write."""

    map: MapName = Field("output", title="Map", description="One of the run's maps")


class OmeTiffWriter(RunWriter):
    """OME-TIFF writer."""

    suffixes = (".ome.tif", ".ome.tiff")
    description = "a heat map as a pyramid: QuPath, Fiji"
    Settings = OmeTiffSettings

    def write(
        self, run: Exportable, target: Path, settings: OmeTiffSettings, progress: ProgressCallback
    ) -> None:
        """Write a map, one plane per channel, each coarser level the means of 2 × 2 cells.

        Cells without inference are NaN. The levels are computed in a temporary folder first, in
        bounded memory.
        """
        import tifffile
        import zarr

        run_map = open_map(run, settings.map)
        pixel_size = run.header["image"]["pixel_size"]
        levels = level_count(run_map.cells.shape)
        with tempfile.TemporaryDirectory(prefix=".hrviewer-", dir=target.parent) as folder:
            copy_map(run_map, Path(folder) / "map", pixel_size)
            pyramid = zarr.open_group(Path(folder) / "map", mode="r")
            arrays: list[Any] = [pyramid[str(i)] for i in range(levels)]
            total, done = sum(count_tiles(array) for array in arrays), 0

            def counted_tiles(array: Any) -> Iterator[NDArray[np.float32]]:
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
                ome = metadata(run_map.name, run_map.labels, run_map.cell, pixel_size)
                out.write(counted_tiles(arrays[0]), shape=arrays[0].shape, subifds=levels - 1,
                          metadata=ome, **common)  # fmt: skip
                for array in arrays[1:]:
                    out.write(counted_tiles(array), shape=array.shape, subfiletype=1, **common)


def metadata(
    name: str, labels: tuple[str, ...], cell: float, pixel_size: tuple[float, float] | None
) -> dict[str, Any]:
    """Return the OME metadata for tifffile: cell sizes, positions of cell centres, names."""
    steps, unit = (pixel_size, "µm") if pixel_size else ((1.0, 1.0), "pixel")
    positions = {
        axis: [(cell - 1) / 2 * step] * len(labels) for axis, step in zip("YX", steps, strict=True)
    }
    return {
        "axes": "CYX",
        "Name": name,
        **{f"PhysicalSize{a}": cell * step for a, step in zip("YX", steps, strict=True)},
        **{f"PhysicalSize{a}Unit": unit for a in "YX"},
        "Channel": {"Name": list(labels)},
        "Plane": {
            **{f"Position{a}": position for a, position in positions.items()},
            **{f"Position{a}Unit": [unit] * len(labels) for a in "YX"},
        },
    }


def count_tiles(array: Any) -> int:
    """Return the number of tiles in a level."""
    k, rows, columns = array.shape
    return int(k * -(-rows // TILE) * -(-columns // TILE))


def iter_tiles(array: Any) -> Iterator[NDArray[np.float32]]:
    """Yield the tiles of a level in file order, padded with NaN at the borders."""
    k, rows, columns = array.shape
    for c in range(k):
        for y in range(0, rows, TILE):
            band = np.full((TILE, -(-columns // TILE) * TILE), np.nan, np.float32)
            part = array[c, y : y + TILE]
            band[: part.shape[0], :columns] = part
            for x in range(0, columns, TILE):
                yield np.ascontiguousarray(band[:, x : x + TILE])
