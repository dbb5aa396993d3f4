"""The strategy ``checkerboard``: inference on every other tile, extrapolated to the rest."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from hrviewer.geometry import snap_scale
from hrviewer.strategies import (
    Estimate,
    Params,
    PatchRequest,
    Plan,
    PlanContext,
    Strategy,
    activation_map,
    aggregate,
    batches,
    tiles,
)
from pydantic import Field

__all__ = ["Checkerboard", "CheckerboardParams"]


class CheckerboardParams(Params):
    """Parameters of `Checkerboard`: each makes a widget and an option of the command."""

    every: int = Field(2, ge=1, le=64, title="Every", description="Process one tile in so many")


class Checkerboard(Strategy):
    """Run inference on one tile in `every`, spread evenly; counts are scaled up by area."""

    id: ClassVar[str] = "checkerboard"
    title: ClassVar[str] = "Checkerboard"
    family: ClassVar[str] = "baseline CIP"
    when: ClassVar[str] = "A first estimate at half the cost, where objects are spread evenly"
    Params: ClassVar[type[Params]] = CheckerboardParams

    def plan(self, context: PlanContext, params: CheckerboardParams) -> Plan:
        """Cut as `patches` does, leave some out, add up, scale up."""
        patches = tiles(context.main, context.region, snap_scale(context.native_scale))
        # Rows are shifted against each other, so that no column is left out altogether.
        row = {y: i for i, y in enumerate(sorted({patch.core.y for patch in patches}))}
        column = {x: i for i, x in enumerate(sorted({patch.core.x for patch in patches}))}
        chosen = [
            patch
            for patch in patches
            if (row[patch.core.y] + column[patch.core.x]) % params.every == 0
        ]
        results = []
        for asked in batches(chosen):
            result = yield PatchRequest("main", asked, target="output")
            results += result.results
            yield activation_map(results, patches)
            if result.stop:
                break
        estimate = aggregate(context.main, results)
        if estimate is not None and context.main.card.task != "classification":
            # Failed tiles have no prediction either.
            covered = sum(h.patch.core.area for h in results if not np.isnan(h.value).any())
            estimate = estimate * (context.region.area / covered)
        return Estimate(estimate, note=f"{len(results)} of {len(patches)} tiles were processed")
