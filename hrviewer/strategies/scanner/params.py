"""The parameters of `Scanner`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from hrviewer.strategies.base import Params, SpecialValueText, tile_field
from hrviewer.strategies.estimation.aggregation import Aggregation, aggregation_field

__all__ = ["ScannerParams"]


class ScannerParams(Params):
    """Parameters of `Scanner`."""

    special_value_text: ClassVar[SpecialValueText] = {"tile": "automatic", "sample": "none"}
    skip: Literal["slides", "always", "never"] = Field(
        "slides",
        title="Skip background",
        description="Skip tiles without foreground; by default if the model's pixel size is known, "
        "as for microscope slides",
    )
    foreground: float = Field(
        0.02,
        gt=0,
        lt=1,
        title="Foreground",
        description="Tiles whose mean foreground probability is lower are skipped",
    )
    denser: int = Field(
        1,
        ge=1,
        le=8,
        title="Shifts",
        description="Number of shifts along each axis at which the scanner runs on every tile, for "
        "a map so many times as dense; 2 costs 4 times as much, 4 costs 16",
    )
    flag: Literal["uncertainty", "score"] = Field(
        "uncertainty",
        title="Select by",
        description="Criterion for measuring a cell with the main model: the scanner's uncertainty "
        "or its prediction; the same for a scanner without variances",
    )
    share: float = Field(
        0.2,
        ge=0,
        le=1,
        title="Selected share",
        description="Maximum fraction of the region that is measured with the main model; a budget "
        "may allow less",
    )
    sample: int = Field(
        32,
        ge=0,
        le=1024,
        title="Random samples",
        description="Number of other cells, drawn at random, that the main model measures to "
        "correct the scanner and to estimate the interval; on a small image one in 16, but at "
        "least 4; 0 gives no interval",
    )
    aggregation: Aggregation = aggregation_field()
    tile: int = tile_field(
        "Side of a measured cell, in pixels of the main model; 0 takes 128, or less if its tiles "
        "are smaller"
    )
