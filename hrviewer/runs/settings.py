"""Settings of runs as users give them: parameters of strategies, and regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from hrviewer.errors import ParameterError, validation_error
from hrviewer.geometry import Rect, RectLike, as_rect
from hrviewer.io.region_files import read_regions, unique_names
from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.georeference import Georeference
from hrviewer.regions import Region
from hrviewer.strategies import Params, Strategy

__all__ = ["RegionsLike", "merge_params", "parse_params", "resolve_region", "resolve_regions"]

RegionLike = Region | Rect | str | Path
RegionsLike = RegionLike | Sequence[RegionLike]
"""Regions, rectangles and files of regions, one or several."""


def resolve_region(
    pyramid: Pyramid, region: RectLike | RegionsLike | None
) -> tuple[Rect | None, list[Region]]:
    """Return the region of a run as a rectangle, or as what is drawn in a file or given."""
    image = pyramid.path or pyramid.name
    if region is None:
        return None, []
    kinds = Region | str | Path
    given = list(region) if isinstance(region, list | tuple) else [region]
    if not isinstance(region, Rect) and all(isinstance(each, kinds | Rect) for each in given):
        return None, resolve_regions(
            cast(RegionsLike, region), image, pyramid.plane_shape, pyramid.georeference
        )
    return as_rect(cast(RectLike, region)), []


def resolve_regions(
    regions: RegionsLike, image: str, shape: tuple[int, int], place: Georeference | None = None
) -> list[Region]:
    """Return regions as given and as read from files, with unique names.

    Parameters
    ----------
    regions : Region, Rect, path, or a sequence of them
        The regions.
    image : str
        Name of the image; selects it in files that cover several images.
    shape : tuple of int
        Height and width of the image, level-0 pixels.
    place : Georeference, optional
        Its place on the map, for files in map coordinates.

    Raises
    ------
    HrviewerError
        If there is none, one has no area, or a file cannot be read.
    """
    given = [regions] if isinstance(regions, Region | Rect | str | Path) else list(regions)
    found: list[Region] = []
    for region in given:
        if isinstance(region, str | Path):
            found += read_regions(region, image, shape, place)
        else:
            found.append(region if isinstance(region, Region) else Region.from_rect(region))
    if not found:
        raise ParameterError("there is no region to measure: pass regions or a file of them")
    return unique_names(found)


def merge_params(
    params: Mapping[str, Any] | None, more_params: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the parameters of a mapping and of keywords together.

    Raises
    ------
    HrviewerError
        If a parameter is given in both.
    """
    twice = sorted({*(params or {})} & {*more_params})
    if twice:
        raise ParameterError(
            f"{', '.join(twice)}: give a parameter once, in params or as a keyword"
        )
    return {**(params or {}), **more_params}


def parse_params(strategy: Strategy, values: Mapping[str, Any]) -> Params:
    """Validate the parameters of a strategy.

    Raises
    ------
    HrviewerError
        If a parameter is unknown or out of range.
    """
    try:
        return strategy.Params(**values)
    except ValidationError as error:
        known = strategy.Params.model_fields
        raise validation_error(error, strategy.id, known=known) from None
