"""Results within regions: what of a patch's prediction lies inside.

Outside it is as where the image has no data: the map has NaN, which adds nothing to a count, an
area or a mean. The output of a cell on the border is shared by area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hrviewer.engine.canvas import cell_edges
from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.object_inference import count_map
from hrviewer.engine.postprocess import map_kind, nothing, summarize_core
from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.objects import count_classes, merge_objects
from hrviewer.regions import Region, cell_areas, points_inside

__all__ = ["masked_result", "masked_results"]

Indexed = tuple[int, InferenceResult]


def masked_results(
    results: Iterator[Indexed], card: ModelCard, mask: Region, image: Rect, *, saliency: bool
) -> Iterator[Indexed]:
    """Yield indexed results of what lies inside a region; see `masked_result`."""
    for index, result in results:
        yield index, masked_result(result, card, mask, image, saliency=saliency)


def masked_result(
    result: InferenceResult, card: ModelCard, mask: Region, image: Rect, *, saliency: bool = False
) -> InferenceResult:
    """Return the result of what lies inside a region.

    Parameters
    ----------
    result : InferenceResult
        Result of inference on a patch.
    card : ModelCard
        Card of the model.
    mask : Region
        The region.
    image : Rect
        The whole image.
    saliency : bool
        Whether the map is only used to select patches: then the mass of its cells is shared, too.
        That of the output is not: it is painted on other cells, which are shared when measured.
    """
    core = result.patch.core
    if result.status == "failed" or core.empty or mask.contains(core):
        return result
    rows, columns = result.map.shape[1:]
    y, x, h, w = result.box
    ys, xs = cell_edges(y, h, rows, image.h), cell_edges(x, w, columns, image.w)
    areas = cell_areas(mask, np.clip(ys, core.y, core.y1), np.clip(xs, core.x, core.x1))
    sizes = np.outer(np.diff(ys), np.diff(xs))
    weights = np.divide(areas, sizes, out=np.zeros_like(areas), where=sizes > 0)
    values = result.map
    if not weights.any():
        blank = np.full_like(values, np.nan)
        objects = None if result.objects is None else result.objects.take(np.zeros(0, np.intp))
        return replace(result, map=blank, value=nothing(card), objects=objects)
    if result.objects is not None:
        inside = points_inside(mask, result.objects.centers)
        objects = result.objects.take(np.flatnonzero(inside))
        found = objects.take(merge_objects(objects))
        counts, _ = count_map(found, len(values), result.box, h / rows, core, image)
        if counts.shape == values.shape:
            known = np.isfinite(values) & (weights > 0)
            values = np.where(known, counts, np.float32(np.nan))
        count = count_classes(found, len(values))
        return replace(result, objects=objects, map=values, value=count)
    masked = np.where(weights > 0, values, values.dtype.type(np.nan))
    value = summarize_core(card, masked, result.box, core, image, weights)
    if saliency and map_kind(card) == "mass":
        masked = (masked * weights).astype(values.dtype)
    return replace(result, map=masked, value=value)
