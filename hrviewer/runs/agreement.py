"""Agreement of two runs, or of a run with ground truth, region by region.

The limits of agreement are the mean difference and 1.96 standard deviations around it (Bland and
Altman, *Statistical Methods for Assessing Agreement between Two Methods of Clinical Measurement*,
The Lancet, 1986).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from hrviewer.errors import RunError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.exportable import Exportable
from hrviewer.regions import Region, points_inside
from hrviewer.runs.region_measurement import RegionDict, measure_regions

__all__ = ["Agreement", "grid_regions", "region_agreement"]

GRID = 8
"""Rows and columns of regions where none are given."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """Differences of two counts or areas by region.

    Parameters
    ----------
    table : DataFrame
        A row per region that both have: ``name``, ``class``, ``value``, ``reference``, ``mean`` of
        both and ``difference``, value minus reference.
    bias : float
        Mean difference.
    limits : (float, float)
        Limits of agreement, between which 95 % of the differences are expected.
    """

    table: pd.DataFrame
    bias: float
    limits: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        found = asdict(self) | {"limits": [*self.limits]}
        return found | {"table": self.table.to_dict("records")}


def region_agreement(
    run: Exportable, reference: Exportable | GroundTruth, regions: Sequence[Region]
) -> Agreement:
    """Compare what a run and a reference have in each region.

    Parameters
    ----------
    run : Exportable
        A run that counts, or measures areas.
    reference : Exportable or GroundTruth
        Another run of the same kind on the same image, or its objects.
    regions : sequence of Region
        At least two; those in which one of both has no estimate are left out.

    Raises
    ------
    HrviewerError
        If less than two regions are left, or the runs cannot be compared.
    """
    rows = measure_regions(run, regions)
    if isinstance(reference, GroundTruth):
        expected = [float(points_inside(region, reference.points).sum()) for region in regions]
    else:
        if run.header["image"]["shape"] != reference.header["image"]["shape"]:
            raise RunError("these runs were made on an image of another size")
        others = measure_regions(reference, regions)
        expected = [value_of(row) for row in others]
        if kind_of(run) != kind_of(reference):
            raise RunError("one of these runs counts, the other does not: choose others")
    values = [value_of(row) for row in rows]
    table = pd.DataFrame(
        {
            "name": [region.name for region in regions],
            "class": [region.label for region in regions],
            "value": values,
            "reference": expected,
        }
    ).dropna(ignore_index=True)
    if len(table) < 2:
        raise RunError(
            "less than two regions have estimates of both: draw more of them, in what was processed"
        )
    table["mean"] = (table["value"] + table["reference"]) / 2
    table["difference"] = table["value"] - table["reference"]
    bias, spread = float(table["difference"].mean()), float(table["difference"].std(ddof=1))
    return Agreement(table, bias, (bias - 1.96 * spread, bias + 1.96 * spread))


def grid_regions(rect: Rect, n: int = GRID) -> list[Region]:
    """Return the parts of a rectangle on a grid of n × n, named by row and column."""
    ys, xs = (
        np.linspace(start, end, n + 1).round().astype(int).tolist()
        for start, end in ((rect.y, rect.y1), (rect.x, rect.x1))
    )
    return [
        Region.from_rect(
            Rect(ys[i], xs[j], ys[i + 1] - ys[i], xs[j + 1] - xs[j]), f"{i + 1}, {j + 1}"
        )
        for i in range(n)
        for j in range(n)
        if ys[i + 1] > ys[i] and xs[j + 1] > xs[j]
    ]


def kind_of(run: Exportable) -> str | None:
    """Return the kind of a run's estimate."""
    estimate = run.header["estimate"]
    return None if estimate is None else str(estimate["kind"])


def value_of(row: RegionDict) -> float:
    """Return the estimate of a region, NaN without one."""
    return np.nan if row["estimate"] is None else row["estimate"]["value"]
