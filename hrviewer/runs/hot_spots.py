"""Hot spots of a run: the fields of one size that have most objects, without inference.

Fields are squares on a lattice of an eighth of their side; the fullest one comes first, then the
fullest of those that do not overlap it, and so on. What they hold is then measured exactly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hrviewer.errors import ParameterError, RunError
from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.io.run_maps import open_map
from hrviewer.regions import Region, points_inside
from hrviewer.runs.region_measurement import RegionDict, measure_regions
from hrviewer.runs.run_regions import counted_part
from hrviewer.units import AREA_UNITS

__all__ = ["find_hot_spots", "hot_spots", "indistinct_ranks", "parse_field_size"]

STEPS = 8
"""Positions of a field per side: the lattice is this much finer than the fields."""

MAX_LATTICE = 1 << 26
"""Nodes of the lattice; smaller fields are refused."""

BAND_VALUES = 1 << 22

Floats = NDArray[np.float64]


def parse_field_size(text: str, pixel_size: tuple[float, float] | None) -> tuple[float, float]:
    """Return the height and width of a square field, level-0 pixels, from its area.

    Parameters
    ----------
    text : str
        Its area, as ``0.2mm2``, ``1 ha``, ``0.5km2`` or ``250000px``.
    pixel_size : tuple of float, optional
        µm per level-0 pixel, ``(y, x)``.

    Raises
    ------
    ParameterError
        If it is no area, or one in a unit that needs a pixel size.

    Examples
    --------
    >>> parse_field_size("0.25 mm2", (0.5, 0.25))
    (1000.0, 2000.0)
    >>> parse_field_size("10000px", None)
    (100.0, 100.0)
    """
    known = ", ".join([*AREA_UNITS, "px"])
    match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?\d+)?)\s*([a-z]+2?|[a-z]*²)\s*", text.lower())
    unit = match[2].replace("²", "2") if match else ""
    try:
        area = float(match[1]) if match else math.nan
    except ValueError:
        area = math.nan
    if not (0 < area < math.inf) or unit not in (*AREA_UNITS, "px"):
        raise ParameterError(f"{text!r} is not the area of a field: give a number with {known}")
    if unit == "px":
        return math.sqrt(area), math.sqrt(area)
    if pixel_size is None:
        raise ParameterError(
            f"the pixel size of the image is not known: give the field in px instead of {unit}, or "
            "run with --pixel-size"
        )
    side = math.sqrt(area * AREA_UNITS[unit][1])
    return side / pixel_size[0], side / pixel_size[1]


def hot_spots(
    run: Exportable, field: tuple[float, float], number: int = 5
) -> tuple[list[Region], list[RegionDict]]:
    """Return the fields of a run that have most objects, the fullest first.

    Parameters
    ----------
    run : Exportable
        A run that counts.
    field : tuple of float
        Height and width of a field, level-0 pixels.
    number : int
        How many fields, at most; none of them is empty.

    Returns
    -------
    regions : list of Region
        The fields, which do not overlap and lie in the run's region.
    rows : list of RegionDict
        Their measurements.

    Raises
    ------
    HrviewerError
        If the run counts nothing, a field is larger than its region, or too small for its map.
    """
    found = find_hot_spots(run, field, number)
    rows = measure_regions(run, found)
    ranked = sorted(
        zip(found, rows, strict=True),
        key=lambda pair: -(pair[1]["estimate"] or {"value": 0.0})["value"],
    )
    regions = [replace(region, name=f"hot spot {i}") for i, (region, _) in enumerate(ranked, 1)]
    for region, (_, row) in zip(regions, ranked, strict=True):
        row["name"] = region.name
    return regions, [row for _, row in ranked]


def indistinct_ranks(rows: Sequence[RegionDict]) -> list[tuple[int, int]]:
    """Return neighbouring ranks, from 1, that cannot be distinguished.

    Their intervals overlap, or one of them has none.
    """
    pairs = []
    for rank, (one, other) in enumerate(pairwise(rows), 1):
        a, b = (row["estimate"]["ci95"] if row["estimate"] else None for row in (one, other))
        if a is None or b is None or (a[0] <= b[1] and not (a[0] == a[1] and b[0] == b[1])):
            pairs.append((rank, rank + 1))
    return pairs


def find_hot_spots(run: Exportable, field: tuple[float, float], number: int) -> list[Region]:
    """Return the fields on the lattice; see `hot_spots`."""
    estimate, extent = run.header["estimate"], Rect(*run.header["region"])
    if estimate is None or estimate["kind"] != "count":
        raise RunError("hot spots are of counts: choose a run of a density or a detector")
    height, width = field
    if height > extent.h or width > extent.w:
        raise ParameterError(
            f"a field of {height:,.0f} × {width:,.0f} pixels is larger than the region of the run, "
            f"{extent.h:,} × {extent.w:,}: choose a smaller one"
        )
    steps = height / STEPS, width / STEPS
    shape = int(extent.h / steps[0]), int(extent.w / steps[1])
    if math.prod(shape) > MAX_LATTICE or min(field) < 2 * open_map(run, "output").cell:
        raise ParameterError(
            f"fields of {height:,.0f} × {width:,.0f} pixels are too small for the map of this run: "
            "choose larger ones"
        )
    sums = field_sums(lattice_counts(run, extent, steps, shape))
    found = []
    for row, column in fullest(sums, number):
        y, x = extent.y + row * steps[0], extent.x + column * steps[1]
        corners = [(y, x), (y, x + width), (y + height, x + width), (y + height, x)]
        found.append(Region.from_polygons([[corners]], "hot spot", "hot spot"))
    return found


def lattice_counts(
    run: Exportable, extent: Rect, steps: tuple[float, float], shape: tuple[int, int]
) -> Floats:
    """Return the counts in the meshes of the lattice, ``(rows, columns)``, some rows at a time."""
    output, part = open_map(run, "output"), counted_part(run)
    cells, cell = output.cells, output.cell
    rows, columns = (
        slice(int(start // cell), min(n, math.ceil(end / cell)))
        for start, end, n in (
            (extent.y, extent.y1, cells.shape[1]),
            (extent.x, extent.x1, cells.shape[2]),
        )
    )
    counts = np.zeros(shape)
    xs = (np.arange(columns.start, columns.stop) + 0.5) * cell
    to = ((xs - extent.x) / steps[1]).astype(int)
    band = max(1, BAND_VALUES // (cells.shape[0] * max(1, len(xs))))
    for first in range(rows.start, rows.stop, band):
        last = min(first + band, rows.stop)
        values = np.nansum(np.asarray(cells[:, first:last, columns], np.float64), axis=0)
        ys = (np.arange(first, last) + 0.5) * cell
        if part is not None:
            places = np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)
            values = np.where(points_inside(part, places).reshape(values.shape), values, 0)
        at = ((ys - extent.y) / steps[0]).astype(int)
        inside = (at[:, None] >= 0) & (at[:, None] < shape[0]) & (to >= 0) & (to < shape[1])
        where = np.clip(at, 0, shape[0] - 1)[:, None] * shape[1] + np.clip(to, 0, shape[1] - 1)
        counts += np.bincount(where[inside], values[inside], math.prod(shape)).reshape(shape)
    return counts


def field_sums(counts: Floats) -> Floats:
    """Return the sum of every field of `STEPS` × `STEPS` meshes, by its first mesh."""
    total = np.pad(counts.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    n = STEPS
    return np.asarray(total[n:, n:] - total[:-n, n:] - total[n:, :-n] + total[:-n, :-n])


def fullest(sums: Floats, number: int) -> list[tuple[int, int]]:
    """Return the positions of the fullest fields that do not overlap, the fullest first."""
    left = sums.copy()
    found: list[tuple[int, int]] = []
    while len(found) < number:
        at = int(left.argmax())
        row, column = divmod(at, left.shape[1])
        if not left[row, column] > 1e-9:
            break
        found.append((row, column))
        left[
            max(0, row - STEPS + 1) : row + STEPS, max(0, column - STEPS + 1) : column + STEPS
        ] = -math.inf
    return found
