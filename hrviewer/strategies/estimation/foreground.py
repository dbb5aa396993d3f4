"""Tiles with foreground: tissue on a slide, for answers that background would dilute."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from hrviewer.errors import ParameterError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.models import ModelCard
from hrviewer.models.card import AVERAGED_TASKS
from hrviewer.strategies.estimation.sampling_grid import resample_onto
from hrviewer.strategies.protocol import (
    Estimate,
    PatchRequest,
    PatchResult,
    PlanContext,
    Request,
    Response,
)
from hrviewer.strategies.tiling import batches, tiles

__all__ = [
    "ForegroundTiles",
    "Skip",
    "choose_tiles",
    "find_foreground",
    "skip_field",
    "skips_background",
]

Skip = Literal["slides", "always", "never"]

OVERVIEW_DOWNSAMPLE = 32
"""Downsampling from native scale for the detection of background."""

MIN_FOREGROUND = 0.02
"""Mean foreground probability of a tile below which it is background."""


@dataclass(frozen=True)
class ForegroundTiles:
    """The tiles to process: all, or those with foreground.

    Attributes
    ----------
    tiles : tuple of Patch
        The tiles in reading order.
    region : Rect
        The region.
    skipped : int
        Number of tiles that are background.
    budget : float, optional
        FLOPs left, if background was searched for.
    """

    tiles: tuple[Patch, ...]
    region: Rect
    skipped: int = 0
    budget: float | None = None

    def describe(self, estimate: Estimate, processed: Sequence[Patch]) -> Estimate:
        """Return an estimate with the area that it is of; `processed` are the tiles it is from."""
        if not self.skipped:
            return estimate
        area, done = (
            float(sum((tile.core & self.region).area for tile in tiles))
            for tiles in (self.tiles, processed)
        )
        background = self.region.area - area
        notes = estimate.note, f"{self.skipped:,} tiles of background skipped"
        return replace(
            estimate,
            area=area,
            coverage=(done + background) / self.region.area,
            note="; ".join(filter(None, notes)),
        )


def skip_field() -> Any:
    """Declare whether tiles of background are left out, in the same way for every strategy."""
    return Field(
        "slides",
        title="Skip background",
        description="Of a model with one prediction per tile, leave out tiles without foreground: "
        "the answer is of the others; by default if the model's pixel size is known, as for "
        "microscope slides",
        json_schema_extra={"tasks": [*AVERAGED_TASKS]},
    )


def skips_background(card: ModelCard, skip: Skip) -> bool:
    """Return whether tiles of background are left out, of a model with one prediction per tile.

    Raises
    ------
    ParameterError
        If the choice has no effect: the model has predictions for pixels or objects.
    """
    if skip != "slides" and not card.averaged:
        raise ParameterError(
            f"skip={skip} is for models with one prediction per tile; the task of {card.name!r} is "
            f"{card.task}: leave it out"
        )
    pooled = card.averaged and not card.output.attention
    return pooled and (skip == "always" or (skip == "slides" and card.input.pixel_size is not None))


def find_foreground(
    context: PlanContext, tiling: Sequence[Patch], threshold: float = MIN_FOREGROUND
) -> Generator[Request, Response, tuple[NDArray[np.bool_], float] | None]:
    """Find the tiles that are not background.

    Parameters
    ----------
    context : PlanContext
        Image, models and budget.
    tiling : sequence of Patch
        All tiles of the region, in rows and columns.
    threshold : float
        Mean foreground probability of a tile below which it is background.

    Returns
    -------
    tuple of ndarray of bool, shape (n,), and float, or None
        Which tiles have foreground, and the FLOPs left; None if the budget ended.
    """
    foreground_model = context.models["@foreground"]
    scale = snap_scale(context.native_scale * OVERVIEW_DOWNSAMPLE)
    response = Response()
    results: list[PatchResult] = []
    for batch in batches(tiles(foreground_model, context.region, scale)):
        response = yield PatchRequest("@foreground", batch)
        results += response.results
    if response.stop:
        return None
    # A failed patch must not count as background.
    any_failed = any(np.isnan(result.value).any() for result in results)
    cell = (foreground_model.stride * context.native_scale * OVERVIEW_DOWNSAMPLE) ** 2
    ys, xs = (
        np.array(sorted({edge for core in cores for edge in core}))
        for cores in (
            [(tile.core.y, tile.core.y1) for tile in tiling],
            [(tile.core.x, tile.core.x1) for tile in tiling],
        )
    )
    foreground = resample_onto(results, ys, xs, context.rect).sum(axis=0).ravel() * cell
    areas = np.array([tile.core.area for tile in tiling], float)
    found: NDArray[np.bool_] = (foreground > threshold * areas) | any_failed
    return found, response.remaining


def choose_tiles(
    context: PlanContext, tiling: Sequence[Patch], skip: Skip
) -> Generator[Request, Response, ForegroundTiles | Estimate]:
    """Return the tiles to process; an estimate without values if there are none.

    Parameters
    ----------
    context : PlanContext
        Image, models and budget.
    tiling : sequence of Patch
        All tiles of the region, in rows and columns.
    skip : {"slides", "always", "never"}
        See `skip_field`.
    """
    region = context.region
    if not skips_background(context.main.card, skip):
        return ForegroundTiles(tuple(tiling), region)
    # Tiles may go beyond the region, which alone is searched for foreground.
    inside = [replace(tile, core=tile.core & region) for tile in tiling]
    found = yield from find_foreground(context, inside)
    if found is None:
        return Estimate(None, note="the budget ended while background was searched for: raise it")
    kept = tuple(tile for tile, kept in zip(tiling, found[0], strict=True) if kept)
    if not kept:
        return Estimate(None, note=f"all {len(tiling):,} tiles are background", coverage=1.0)
    return ForegroundTiles(kept, region, len(tiling) - len(kept), found[1])
