"""The maps that a run's folder holds: what they show, and reading them in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import HrviewerError
from hrviewer.io.exportable import Exportable

__all__ = ["MAP_NAMES", "MapName", "RunMap", "coarsen", "open_map", "open_maps"]

MapName = Literal["output", "saliency", "cost", "embeddings"]
MAP_NAMES: tuple[MapName, ...] = ("output", "saliency", "cost", "embeddings")


@dataclass(frozen=True, slots=True, eq=False)
class RunMap:
    """One map of a run.

    Parameters
    ----------
    name : str
        ``output``, ``saliency``, ``cost`` or ``codes``.
    cells : zarr.Array
        ``(channels, rows, columns)``, NaN where nothing was looked at.
    cell : float
        Side of its cells, level-0 pixels.
    labels : tuple of str
        The channels' names.
    units : tuple of str
        The channels' units, per cell; empty where a number has none.
    additive : bool
        Whether cells add up, as counts and costs do; otherwise their mean is meant.
    """

    name: MapName
    cells: Any
    cell: float
    labels: tuple[str, ...]
    units: tuple[str, ...]
    additive: bool

    def bands(self, rows: int = 512) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the first row and the values of one band after the other."""
        for start in range(0, self.cells.shape[1], rows):
            yield start, np.asarray(self.cells[:, start : start + rows])


COST_UNITS = {"flops": "FLOP", "bytes": "byte", "pixels": "px"}


def open_map(run: Exportable, name: MapName) -> RunMap:
    """Open one of a run's maps.

    Raises
    ------
    UserError
        If the run does not hold it.
    """
    import zarr

    try:
        group = zarr.open_group(run.path / name, mode="r")
        cells: Any = group["0"]
        about: Any = group.attrs["hrviewer"]
        ome: Any = group.attrs["ome"]
    except (OSError, KeyError, ValueError):
        raise HrviewerError(f"{run.path} holds no {name} map: resume the run first") from None
    told = tuple(str(channel["label"]) for channel in ome.get("omero", {}).get("channels", ()))
    estimate = run.header.get("estimate") or {}
    counts = estimate.get("kind") == "count"
    n = cells.shape[0]
    plain = (name,) if n == 1 else tuple(f"{name} {i}" for i in range(n))
    labels = told if len(told) == n else plain
    units = ("",) * n
    if name == "cost":
        units = tuple(COST_UNITS.get(label, "s") for label in labels)
    elif name == "output" and counts:
        units = ("count",) * n
    additive = name == "cost" or (name == "output" and counts)
    return RunMap(name, cells, float(about["cell"]), labels, units, additive)


def open_maps(run: Exportable) -> list[RunMap]:
    """Open all maps that a run holds.

    Raises
    ------
    UserError
        If it holds none.
    """
    found = [open_map(run, name) for name in MAP_NAMES if (run.path / name / "zarr.json").is_file()]
    if not found:
        raise HrviewerError(f"{run.path} holds no maps: resume the run first")
    return found


def coarsen(run_map: RunMap, max_cells: int) -> tuple[NDArray[np.float32], float]:
    """Return a map in at most `max_cells` cells and its cell's side; the map itself if it fits.

    Returns
    -------
    ndarray of float32, shape (channels, rows, columns)
        Sums of n × n cells where cells add up, means otherwise; NaN where none was looked at.
    float
        Level-0 pixels.
    """
    k, rows, columns = run_map.cells.shape
    n = 1
    while -(-rows // n) * -(-columns // n) > max_cells:
        n *= 2
    if n == 1:
        return np.asarray(run_map.cells[:], np.float32), run_map.cell
    out = np.full((k, -(-rows // n), -(-columns // n)), np.nan, np.float32)
    for start, band in run_map.bands(max(n, 512 // n * n)):
        out[:, start // n : start // n + -(-band.shape[1] // n)] = reduce_blocks(
            band, n, run_map.additive
        )
    return out, run_map.cell * n


def reduce_blocks(cells: NDArray[Any], n: int, additive: bool) -> NDArray[np.float32]:
    """Return the sums, or the means, of n × n cells without NaN; NaN where all are."""
    _, rows, columns = cells.shape
    padded = np.pad(
        cells.astype(np.float64), ((0, 0), (0, -rows % n), (0, -columns % n)),
        constant_values=np.nan,
    )  # fmt: skip
    blocks = padded.reshape(len(cells), padded.shape[1] // n, n, padded.shape[2] // n, n)
    seen = (~np.isnan(blocks)).sum(axis=(2, 4))
    sums = np.nansum(blocks, axis=(2, 4))
    values = sums if additive else sums / np.maximum(seen, 1)
    return np.where(seen > 0, values, np.nan).astype(np.float32)
