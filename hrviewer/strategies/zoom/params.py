"""The parameters of `Zoom`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hrviewer.strategies.base import (
    ChoiceTitles,
    Params,
    SpecialValueText,
    VisibleIf,
    halo_field,
    tile_field,
)
from hrviewer.strategies.estimation.aggregation import Aggregation, aggregation_field
from hrviewer.strategies.estimation.foreground import Skip, skip_field

__all__ = ["ZoomParams"]


class ZoomParams(Params):
    """Parameters of `Zoom`: the selection of cells, the random draws, and when to stop."""

    visible_if: ClassVar[VisibleIf] = {
        "k": ("method", ("topk",)),
        "threshold": ("method", ("threshold",)),
        "share": ("method", ("topk", "threshold", "policy", "quadtree")),
        "replace": ("method", ("sampling",)),
        "strata": ("method", ("sampling",)),
        "width": ("method", ("sampling",)),
        "depth": ("method", ("quadtree",)),
    }
    special_value_text: ClassVar[SpecialValueText] = {
        "tile": "by the budget",
        "halo": "the model's",
        "shrink": "the model's",
        "k": "by the budget",
        "share": "automatic",
        "floor": "automatic",
        "strata": "automatic",
        "width": "spend the budget",
    }
    choice_titles: ClassVar[ChoiceTitles] = {
        "method": {
            "topk": "highest predictions",
            "threshold": "above a threshold",
            "sampling": "random cells",
            "policy": "policy network",
            "quadtree": "quadtree search",
        }
    }
    method: Literal["topk", "threshold", "sampling", "policy", "quadtree"] = Field(
        "topk",
        title="Method",
        description="Selection of cells for full resolution: topk, the highest predictions; "
        "threshold, all above a threshold; sampling, random cells, for an unbiased estimate with "
        "an interval; policy, by a policy network; quadtree, a search through the pyramid",
    )
    tile: int = tile_field("Side of a cell, in model pixels; 0 takes the best one for the budget")
    halo: int = halo_field(
        "Context read around a cell, in model pixels; -1 takes the card's sufficient context. Less "
        "is cheaper, and estimates the total of cut tiles"
    )
    shrink: float = Field(
        0.0,
        ge=0,
        le=256,
        title="Scout downsampling",
        description="Downsampling factor of the scout's input; 0 takes the card's",
    )
    k: int = Field(
        0,
        ge=0,
        le=1_000_000,
        title="Number of cells",
        description="For topk, number of cells; 0 takes as many as the budget pays for",
    )
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        title="Threshold",
        description="For threshold, minimum score of a cell, as a fraction of the highest",
    )
    share: float = Field(
        -1.0,
        ge=-1,
        le=0.9,
        title="Drawn at random",
        description="For all but sampling, the fraction of measurements that is drawn at random "
        "from the other cells, to correct the scout's prediction there; 0 gives no correction, "
        "-1 takes 0.1 for counts, 0.5 for shares of classes and means",
    )
    floor: float = Field(
        0.0,
        ge=0,
        le=1,
        title="Floor",
        description="Fraction of the draws that is distributed evenly, so that every cell may be "
        "drawn; 0 takes 0.1 for counts, 0.5 for shares and means",
    )
    replace: bool = Field(
        False,
        title="With replacement",
        description="Whether a cell may be drawn more than once",
    )
    strata: int = Field(
        0,
        ge=0,
        le=64,
        title="Strata",
        description="Number of neighbourhoods for stratified sampling, which reduces the effect of "
        "local errors of the scout; 0 takes as many as leave enough rounds, 1 none",
    )
    width: float = Field(
        0.0,
        ge=0,
        le=100,
        title="Stop within ± %",
        description="Stop when the half-width of the anytime interval is below this percentage of "
        "the estimate; 0 spends the budget",
    )
    depth: int = Field(
        2,
        ge=1,
        le=6,
        title="Depth",
        description="For quadtree, number of levels above full resolution",
    )
    skip: Skip = skip_field()
    aggregation: Aggregation = aggregation_field()
