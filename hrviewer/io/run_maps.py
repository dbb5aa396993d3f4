"""Maps in a run folder, read in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import RunError
from hrviewer.io.exportable import Exportable
from hrviewer.io.stored_map import open_stored_map

__all__ = [
    "MAP_NAMES",
    "MapName",
    "RunMap",
    "coarsen",
    "is_exclusive",
    "most_likely",
    "open_map",
    "open_maps",
]

MapName = Literal["output", "saliency", "cost", "embeddings"]
MAP_NAMES: tuple[MapName, ...] = ("output", "saliency", "cost", "embeddings")


@dataclass(frozen=True, slots=True, eq=False)
class RunMap:
    """Map of a run: output, saliency, cost or embeddings.

    Parameters
    ----------
    name : str
        ``output``, ``saliency``, ``cost`` or ``embeddings``.
    cells : zarr.Array
        ``(channels, rows, columns)``; NaN where no inference ran.
    cell : float
        Side of the cells, level-0 pixels.
    labels : tuple of str
        Names of the channels.
    units : tuple of str
        Units of the channels, per cell; empty without a unit.
    additive : bool
        Whether cells are summed, as counts and costs are, or averaged.
    exclusive : bool
        Whether each cell has one class of several, of the output.
    """

    name: MapName
    cells: Any
    cell: float
    labels: tuple[str, ...]
    units: tuple[str, ...]
    additive: bool
    attributes: dict[str, Any]
    exclusive: bool = False

    def bands(self, rows: int = 512) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the first row and the values of each band of rows."""
        for start in range(0, self.cells.shape[1], rows):
            yield start, np.asarray(self.cells[:, start : start + rows])


COST_UNITS = {"flops": "FLOP", "bytes": "byte", "pixels": "px"}


def open_map(run: Exportable, name: MapName) -> RunMap:
    """Open a map of a run.

    Raises
    ------
    HrviewerError
        If the run has no such map.
    """
    cells, attributes = open_stored_map(run.path, name, run.header["image"]["shape"])
    named = channel_labels(attributes)
    estimate = run.header.get("estimate") or {}
    counts = estimate.get("kind") == "count"
    n = cells.shape[0]
    plain = (name,) if n == 1 else tuple(f"{name} {i}" for i in range(n))
    labels = named if len(named) == n else plain
    units = ("",) * n
    if name == "cost":
        units = tuple(COST_UNITS.get(label, "s") for label in labels)
    elif name == "output" and counts:
        units = ("count",) * n
    elif name == "output" and len(estimate.get("units", ())) == n:
        units = tuple(estimate["units"].values())
    additive = name == "cost" or (name == "output" and counts)
    cell = float(attributes["hrviewer"]["cell"])
    exclusive = name == "output" and n > 1 and is_exclusive(estimate)
    return RunMap(name, cells, cell, labels, units, additive, attributes, exclusive)


def channel_labels(attributes: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels in OME-Zarr attributes; none if they are not as we write."""
    try:
        channels = attributes["ome"].get("omero", {}).get("channels", ())
        return tuple(str(channel["label"]) for channel in channels)
    except (AttributeError, KeyError, TypeError):
        return ()


def is_exclusive(estimate: Mapping[str, Any]) -> bool:
    """Return whether each place has one class of several, by a run's estimate."""
    known = estimate.get("kind") == "area" or estimate.get("exclusive", "vote" in estimate)
    return bool(known and len(estimate["per_class"]) > 1)


def most_likely(values: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the number of the class with the highest value, -1 where one is NaN.

    Parameters
    ----------
    values : ndarray, shape (k, rows, columns)
        Probabilities or shares.
    """
    missing = np.isnan(values).any(axis=0)
    return np.where(missing, -1, np.where(np.isnan(values), -np.inf, values).argmax(axis=0))


def open_maps(run: Exportable) -> list[RunMap]:
    """Open all maps of a run.

    Raises
    ------
    HrviewerError
        If it has none.
    """
    maps = [open_map(run, name) for name in MAP_NAMES if (run.path / name / "zarr.json").is_file()]
    if not maps:
        raise RunError(f"{run.path} has no maps: resume the run first")
    return maps


def coarsen(run_map: RunMap, max_cells: int) -> tuple[NDArray[np.float32], float]:
    """Downsample a map by a power of two to at most `max_cells` cells.

    Returns
    -------
    ndarray of float32, shape (channels, rows, columns)
        Sums of n × n cells of an additive map, otherwise means; NaN where no patch was processed.
    float
        Side of the new cells, level-0 pixels.
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
    """Return sums or means of n × n cells that ignore NaN; NaN where all are."""
    _, rows, columns = cells.shape
    padded = np.pad(
        cells.astype(np.float64), ((0, 0), (0, -rows % n), (0, -columns % n)),
        constant_values=np.nan,
    )  # fmt: skip
    blocks = padded.reshape(len(cells), padded.shape[1] // n, n, padded.shape[2] // n, n)
    valid = (~np.isnan(blocks)).sum(axis=(2, 4))
    sums = np.nansum(blocks, axis=(2, 4))
    values = sums if additive else sums / np.maximum(valid, 1)
    return np.where(valid > 0, values, np.nan).astype(np.float32)
