"""Objects as columns: arrays of equal length, so that a hundred thousand are handled at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect

__all__ = ["DetectedObjects"]


@dataclass(frozen=True, slots=True, eq=False)
class DetectedObjects:
    """Predicted objects, or candidates for objects.

    Parameters
    ----------
    boxes : ndarray of float, shape (n, 4)
        ``(y, x, h, w)`` of each, level-0 pixels.
    scores : ndarray of float32, shape (n,)
        Confidence, 0 to 1.
    class_ids : ndarray of int, shape (n,)
        Indices into the card's classes.
    patch_ids : ndarray of int, shape (n,), optional
        The patch on which each was predicted: its ``id`` in the table of patches.
    in_core : ndarray of bool, shape (n,), optional
        Whether the center lies in the patch's core; else it lies in the halo. All by default.
    lengths : ndarray of int, shape (n,), optional
        Number of corners of each outline; 0 where the box is the outline, as it is by default.
    corners : ndarray of float, shape (sum(lengths), 2), optional
        The outlines' corners ``(y, x)``, one outline behind the other, the first corner not
        repeated.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    patch_ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    in_core: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    corners: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))

    def __post_init__(self) -> None:
        n = len(self.scores)
        defaults = {
            "patch_ids": np.zeros(n, np.int64),
            "in_core": np.ones(n, np.bool_),
            "lengths": np.zeros(n, np.int64),
        }
        for name, default in defaults.items():
            if n and not len(getattr(self, name)):
                object.__setattr__(self, name, default)

    @classmethod
    def empty(cls) -> DetectedObjects:
        """Return no objects."""
        return cls(np.zeros((0, 4)), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def concatenate(cls, parts: Sequence[DetectedObjects]) -> DetectedObjects:
        """Return the objects of all parts, one part behind the other."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            return cls.empty()
        return cls(
            *(np.concatenate(columns) for columns in zip(*map(columns_of, parts), strict=True))
        )

    @classmethod
    def from_columns(cls, columns: Sequence[NDArray[Any]]) -> DetectedObjects:
        """Return the objects whose `columns` these are."""
        return cls(*columns)

    @property
    def columns(self) -> tuple[NDArray[Any], ...]:
        """All arrays, in the order of the parameters."""
        return columns_of(self)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def nbytes(self) -> int:
        """Memory, in bytes."""
        return sum(column.nbytes for column in self.columns)

    @property
    def has_outlines(self) -> bool:
        """Whether any outline is not the box."""
        return bool(len(self.corners))

    @property
    def centers(self) -> NDArray[np.float64]:
        """Centers of the boxes, or centroids of the outlines, ``(y, x)``: shape (n, 2)."""
        centers = self.boxes[:, :2] + self.boxes[:, 2:] / 2
        outlined = self.lengths > 0
        if outlined.any():
            import shapely

            centroids = shapely.centroid(self.polygons()[outlined])
            centers[outlined] = shapely.get_coordinates(centroids)[:, ::-1]
        return centers

    @property
    def areas(self) -> NDArray[np.float64]:
        """Areas of the outlines, square level-0 pixels: shape (n,)."""
        areas = self.boxes[:, 2] * self.boxes[:, 3]
        outlined = self.lengths > 0
        if outlined.any():
            import shapely

            areas[outlined] = shapely.area(self.polygons()[outlined])
        return areas

    def polygons(self) -> NDArray[np.object_]:
        """Return the outlines as shapely's polygons in ``(x, y)``: shape (n,)."""
        import shapely

        y, x, h, w = self.boxes.T
        polygons: NDArray[np.object_] = np.asarray(shapely.box(x, y, x + w, y + h), object)
        outlined = np.flatnonzero(self.lengths)
        if len(outlined):
            rings = shapely.linearrings(
                self.corners[:, ::-1],
                indices=np.repeat(np.arange(len(outlined)), self.lengths[outlined]),
            )
            polygons[outlined] = shapely.polygons(rings)
        return polygons

    def rings(self) -> list[NDArray[np.float64]]:
        """Return the corners ``(y, x)`` of every outline; four of a box."""
        y, x, h, w = self.boxes.T
        corners = np.stack([y, x, y, x + w, y + h, x + w, y + h, x], axis=1).reshape(-1, 4, 2)
        rings = list(corners)
        ends = np.cumsum(self.lengths)
        for i in np.flatnonzero(self.lengths):
            rings[i] = self.corners[ends[i] - self.lengths[i] : ends[i]]
        return rings

    def take(self, which: NDArray[Any]) -> DetectedObjects:
        """Return the objects of a mask, or of indices in their order."""
        which = np.flatnonzero(which) if which.dtype == bool else np.asarray(which, np.intp)
        lengths = self.lengths[which]
        starts = np.cumsum(self.lengths)[which] - lengths if len(which) else lengths
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return DetectedObjects(
            self.boxes[which],
            self.scores[which],
            self.class_ids[which],
            self.patch_ids[which],
            self.in_core[which],
            lengths,
            self.corners[np.repeat(starts, lengths) + within],
        )

    def with_patch(self, number: int) -> DetectedObjects:
        """Return the objects as those of one patch."""
        return replace(self, patch_ids=np.full(len(self), number, np.int64))

    def are_inside(self, rect: Rect) -> NDArray[np.bool_]:
        """Return whether the center of each lies in a rectangle."""
        centers = self.centers
        low, high = (rect.y, rect.x), (rect.y1, rect.x1)
        return np.asarray(((centers >= low) & (centers < high)).all(axis=1))


def columns_of(objects: DetectedObjects) -> tuple[NDArray[Any], ...]:
    """Return all arrays, in the order of the parameters."""
    return tuple(getattr(objects, column.name) for column in fields(objects))
