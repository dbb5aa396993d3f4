"""Star-convex polygons: a probability and the distances to the outline along rays of each cell.

The post-processing is that of Schmidt, Weigert, Broaddus and Myers, *Cell Detection with
Star-Convex Polygons*, MICCAI 2018, but that only local maxima of the probability are compared: the
most probable pixel of an object is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.models.card import ModelCard
from hrviewer.models.decoders.base import Candidates, Decoder

__all__ = ["StarDist"]

Floats = NDArray[np.float32]

MAX_OVERLAP = 0.4
"""Common area over that of the smaller polygon above which two are one object, as published."""
MAX_POLYGONS = 20_000
"""Most polygons of an input that are compared, the most probable."""


class StarDist(Decoder):
    """Probability ``(n, 1, h, w)`` and distances ``(n, rays, h, w)``, or both in one array.

    Of several classes a third array ``(n, classes + 1, h, w)``, whose first channel is background.
    Distances are in input pixels; ray ``i`` of ``r`` points at the angle ``2 π i / r`` from x
    towards y. Channels of separate arrays may be last.
    """

    name = "stardist"
    duplicates = False

    def decode(
        self, outputs: Sequence[Floats], card: ModelCard, score_threshold: float
    ) -> list[Candidates]:
        """Return the polygons of each input after suppression."""
        k = len(card.classes)
        maps = [output for output in outputs if output.ndim == 4]
        if all(m.shape[1] > 1 for m in maps) and any(m.shape[3] == 1 for m in maps):
            maps = [np.moveaxis(m, 3, 1) for m in maps]
        kinds = next((m for m in maps[1:] if k > 1 and m.shape[1] == k + 1), None)
        rest = [m for m in maps if m is not kinds]
        if len(rest) == 1 and rest[0].shape[1] > 3:
            probability, rays = rest[0][:, 0], rest[0][:, 1:]
        elif len(rest) == 2 and {rest[0].shape[1], rest[1].shape[1]} > {1}:
            first, second = sorted(rest, key=lambda m: m.shape[1])
            probability, rays = first[:, 0], second
        else:
            raise self.mismatch(card, "(1, h, w) and (rays, h, w)", outputs)
        stride = card.output.scalar_stride
        found = []
        for i, (one, distances) in enumerate(zip(probability, rays, strict=True)):
            found.append(
                polygons_of(
                    one,
                    distances,
                    None if kinds is None else kinds[i],
                    stride,
                    card.output.margin,
                    score_threshold,
                )
            )
        return found


def polygons_of(
    probability: Floats,
    distances: Floats,
    kinds: Floats | None,
    stride: float,
    margin: int,
    threshold: float,
) -> Candidates:
    """Return the polygons of one input: of those that overlap, the most probable."""
    import shapely
    from scipy.ndimage import maximum_filter

    peaks = probability == maximum_filter(probability, 3, mode="nearest")
    at = np.argwhere(peaks & (probability >= threshold))
    scores = probability[tuple(at.T)]
    best = np.argsort(-scores, kind="stable")[:MAX_POLYGONS]
    at, scores = at[best], scores[best]
    angles = 2 * np.pi * np.arange(len(distances)) / len(distances)
    along = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    length = np.maximum(distances[:, at[:, 0], at[:, 1]].T, 1e-3)
    # Pixel centres are at halves.
    corners = at[:, None] * stride + 0.5 + margin + length[..., None] * along
    polygons = shapely.polygons(corners) if len(corners) else np.zeros(0, object)
    kept = suppress_in_order(polygons)
    classes = np.zeros(len(kept), np.int64)
    if kinds is not None:
        classes = kinds[1:, at[kept, 0], at[kept, 1]].argmax(axis=0).astype(np.int64)
    outlines = corners[kept].astype(np.float64)
    boxes = np.zeros((0, 4), np.float32)
    if len(kept):
        boxes = np.concatenate([outlines.min(axis=1), outlines.max(axis=1)], axis=1)
    return Candidates(boxes.astype(np.float32), scores[kept], classes, outlines.__getitem__)


def suppress_in_order(polygons: NDArray[Any]) -> NDArray[np.intp]:
    """Return the polygons, the best first, that no better one overlaps too much.

    An object has many polygons: only those that stay are compared with the others.
    """
    import shapely

    areas, tree = shapely.area(polygons), shapely.STRtree(polygons)
    alive, kept = np.ones(len(polygons), bool), []
    for i in range(len(polygons)):
        if not alive[i]:
            continue
        kept.append(i)
        near = tree.query(polygons[i])
        near = near[alive[near] & (near > i)]
        common = shapely.area(shapely.intersection(polygons[i], polygons[near]))
        alive[near[common > MAX_OVERLAP * np.minimum(areas[i], areas[near])]] = False
    return np.array(kept, np.intp)
