"""Merging of the objects of tiles: each object of the image once.

Tiles overlap by their halos, so that an object on the border of two is seen whole in one of them.
All candidates down to a low score are kept with a run; which of them are objects follows from
`MergeSettings` and is decided again in a moment, without inference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from hrviewer.geometry import Rect
from hrviewer.objects.detected_objects import DetectedObjects
from hrviewer.objects.outlines import corners_of_polygons
from hrviewer.objects.suppression import suppress

__all__ = [
    "CANDIDATE_SCORE",
    "MAX_CANDIDATES",
    "MergeSettings",
    "count_classes",
    "drop_refined",
    "merge_objects",
    "tile_duplicates",
    "unite_objects",
]

CANDIDATE_SCORE = 0.05
"""Least score of the candidates that a run keeps."""

MAX_CANDIDATES = 20_000
"""Most candidates that are kept of a patch, the best."""


class MergeSettings(BaseModel):
    """Which candidates are objects."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float = Field(
        0.3, ge=CANDIDATE_SCORE, le=1, title="Score", description="Least score of an object"
    )
    overlap: float = Field(
        0.45,
        ge=0,
        le=1,
        title="Overlap",
        description="Two of one class that overlap by more are one object: common area over that "
        "of both together, for merging=union over that of the smaller one",
    )
    merging: Literal["core", "all", "union"] = Field(
        "core",
        title="Merging",
        description="Over the borders of tiles. core: an object belongs to the tile in whose core "
        "its center lies; all: to any tile that sees it, the best prediction stays; union: parts "
        "that tiles see are united, for objects larger than the overlap of tiles",
    )


def merge_objects(
    candidates: DetectedObjects,
    settings: MergeSettings | None = None,
    region: Rect | None = None,
) -> NDArray[np.intp]:
    """Return which candidates are objects, by class-wise non-maximum suppression.

    Candidates of one tile suppress one another first, then those of neighbouring tiles. With
    ``merging="union"`` use `unite_objects`, too, for the outlines.

    Parameters
    ----------
    candidates : DetectedObjects
        All candidates.
    settings : MergeSettings, optional
        The thresholds; the defaults otherwise.
    region : Rect, optional
        Objects whose center lies outside are left out.

    Returns
    -------
    ndarray of int, shape (m,)
        Indices of the objects, the best first; ties keep their order.
    """
    return _merge(candidates, settings or MergeSettings(), region)[0]


def unite_objects(
    candidates: DetectedObjects, settings: MergeSettings, region: Rect | None = None
) -> tuple[NDArray[np.intp], DetectedObjects]:
    """Return the indices of the objects, and the objects: with ``merging="union"`` united."""
    chosen, owner = _merge(candidates, settings, region)
    if settings.merging != "union":
        return chosen, candidates.take(chosen)
    import shapely

    members = np.flatnonzero(owner >= 0)
    order = np.argsort(owner[members], kind="stable")
    members = members[order]
    owners, starts = np.unique(owner[members], return_index=True)
    y, x, h, w = candidates.boxes[members].T
    low = np.stack([np.minimum.reduceat(v, starts) for v in (y, x)], axis=1)
    high = np.stack([np.maximum.reduceat(v, starts) for v in (y + h, x + w)], axis=1)
    united = candidates.take(owners)
    if united.has_outlines:
        shapes = shapely.make_valid(candidates.polygons()[members])
        groups = [shapely.union_all(part) for part in np.split(shapes, starts[1:])]
        united = with_polygons(united, [largest_polygon(shape) for shape in groups])
    else:
        united = replace(united, boxes=np.concatenate([low, high - low], axis=1))
    return chosen, united.take(np.searchsorted(owners, chosen))


def tile_duplicates(
    candidates: DetectedObjects, settings: MergeSettings | None = None
) -> DetectedObjects:
    """Return the objects of one tile that are objects of a neighbouring tile, too.

    What the tiles count together, less these, is the number of objects.
    """
    _, owner = _merge(candidates, settings or MergeSettings(), None)
    return candidates.take((owner >= 0) & (owner != np.arange(len(owner))))


def drop_refined(
    objects: DetectedObjects, cores: NDArray[np.float64], scales: NDArray[np.float64]
) -> DetectedObjects:
    """Return the objects without those that a finer patch predicts again.

    Parameters
    ----------
    objects : DetectedObjects
        Candidates; ``patch_ids`` are rows of `cores`.
    cores : ndarray, shape (m, 4)
        ``(y, x, h, w)`` of the patches' cores.
    scales : ndarray, shape (m,)
        Scale of inference on each.
    """
    import shapely

    centers, own = objects.centers, scales[objects.patch_ids]
    refined = np.zeros(len(objects), bool)
    y, x, h, w = cores.T
    for scale in np.unique(own):
        finer, here = np.flatnonzero(scales < scale), np.flatnonzero(own == scale)
        if not len(finer):
            continue
        tree = shapely.STRtree(shapely.box(x, y, x + w, y + h)[finer])
        one, of = tree.query(shapely.points(centers[here][:, ::-1]))
        low, size = cores[finer[of], :2], cores[finer[of], 2:]
        at = centers[here[one]]
        refined[here[one][((at >= low) & (at < low + size)).all(axis=1)]] = True
    return objects.take(~refined)


def count_classes(objects: DetectedObjects, k: int) -> NDArray[np.float64]:
    """Return the number of objects of each of `k` classes."""
    return np.bincount(objects.class_ids, minlength=k)[:k].astype(np.float64)


def largest_polygon(shape: object) -> object:
    """Return the largest part of a geometry that is a polygon."""
    import shapely

    parts = shapely.get_parts(shape)
    return parts[int(np.argmax(shapely.area(parts)))]


def with_polygons(objects: DetectedObjects, polygons: list[object]) -> DetectedObjects:
    """Return objects with other outlines, shapely's polygons in ``(x, y)``; holes are left out."""
    import shapely

    lengths, corners = corners_of_polygons(polygons)
    low_x, low_y, high_x, high_y = shapely.bounds(np.asarray(polygons, object)).T
    return replace(
        objects,
        boxes=np.stack([low_y, low_x, high_y - low_y, high_x - low_x], axis=1),
        lengths=lengths,
        corners=corners,
    )


def _merge(
    candidates: DetectedObjects, settings: MergeSettings, region: Rect | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the objects, and the object of each candidate (−1 without)."""
    owner = np.full(len(candidates), -1, np.intp)
    # A score that was stored in single precision must not miss its own threshold.
    chosen = np.flatnonzero(candidates.scores >= np.float32(settings.score))
    some = candidates.take(chosen)
    classes = int(candidates.class_ids.max(initial=0)) + 1
    alone = suppress(some, some.patch_ids * classes + some.class_ids, settings.overlap)
    stays = alone == np.arange(len(some))
    if settings.merging == "core":
        stays &= some.in_core
    chosen, some = chosen[stays], some.take(stays)
    measure: Literal["union", "smaller"] = "smaller" if settings.merging == "union" else "union"
    of = suppress(some, some.class_ids, settings.overlap, measure)
    inside = np.ones(len(some), bool) if region is None else some.are_inside(region)
    kept = (of == np.arange(len(some))) & inside
    owner[chosen] = np.where(kept[of], chosen[of], -1)
    found = chosen[kept]
    return found[np.argsort(-candidates.scores[found], kind="stable")], owner
