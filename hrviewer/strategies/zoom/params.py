"""The parameters of `Zoom`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hrviewer.strategies.base import Params, SpecialValueText, VisibleIf, halo_field, tile_field

__all__ = ["ZoomParams"]


class ZoomParams(Params):
    """Where to look closer, how much of it by chance, and when to stop."""

    visible_if: ClassVar[VisibleIf] = {
        "k": ("method", ("topk",)),
        "threshold": ("method", ("threshold",)),
        "share": ("method", ("topk", "threshold", "policy", "quadtree")),
        "floor": ("method", ("sampling",)),
        "replace": ("method", ("sampling",)),
        "strata": ("method", ("sampling",)),
        "width": ("method", ("sampling",)),
        "depth": ("method", ("quadtree",)),
    }
    special_value_text: ClassVar[SpecialValueText] = {
        "tile": "by the budget",
        "halo": "the card's",
        "shrink": "the card's",
        "k": "by the budget",
        "share": "none",
        "strata": "automatic",
        "width": "spend the budget",
    }
    method: Literal["topk", "threshold", "sampling", "policy", "quadtree"] = Field(
        "topk",
        title="Method",
        description="The most interesting places; all above a threshold; places drawn at random, "
        "for an answer without bias that knows its error; those that the pack's policy network "
        "finds worth a look; or a quadtree through the pyramid",
    )
    tile: int = tile_field(
        "Side of a closer look, in network pixels; 0 takes what suits the budget"
    )
    halo: int = halo_field(
        "Context read around it, in network pixels; -1 takes what the card says is enough. Less "
        "is cheaper, and estimates what cut tiles would say"
    )
    shrink: float = Field(
        0.0,
        ge=0,
        le=256,
        title="Scout at 1/",
        description="How much smaller the scout sees the image; 0 takes the card's",
    )
    k: int = Field(
        0,
        ge=0,
        le=1_000_000,
        title="Top",
        description="For topk, how many places to choose; 0 chooses what the budget pays for",
    )
    threshold: float = Field(
        0.5,
        ge=0,
        le=1,
        title="Threshold",
        description="For threshold, the part of the highest score from which a place is looked at",
    )
    share: float = Field(
        0.1,
        ge=0,
        le=0.9,
        title="Drawn at random",
        description="For all but sampling, the part of the looks that is drawn at "
        "random from the rest, to correct the scout there; 0 leaves its guess as it is",
    )
    floor: float = Field(
        0.1,
        gt=0,
        le=1,
        title="Floor",
        description="The part of the draws that is spread evenly, so that every place can be "
        "reached",
    )
    replace: bool = Field(
        False,
        title="With replacement",
        description="Whether a place may be drawn again",
    )
    strata: int = Field(
        0,
        ge=0,
        le=64,
        title="Strata",
        description="Neighbourhoods that are drawn from in turns, so that a scout that is wrong "
        "about one of them costs less; 0 takes as many as leave enough rounds, 1 none",
    )
    width: float = Field(
        0.0,
        ge=0,
        le=100,
        title="Stop within ± %",
        description="Stop drawing when the interval that may be read at any moment is this "
        "narrow; 0 spends the budget",
    )
    depth: int = Field(
        2,
        ge=1,
        le=6,
        title="Depth",
        description="For quadtree, levels above full resolution",
    )
