"""Ground truth: the annotated objects that a run is evaluated against.

Synthetic images come with it, files hold it (`hrviewer.io.ground_truth` reads them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.escaping import printable
from hrviewer.geometry import Rect

__all__ = ["GroundTruth", "OutlineReader", "ground_truth_from_labels"]

OutlineReader = Callable[[NDArray[np.intp]], NDArray[np.object_]]
"""Returns the outlines of objects by their indices, as shapely's polygons ``(x, y)``."""


@dataclass(frozen=True, slots=True, eq=False)
class GroundTruth:
    """Annotated objects on an image.

    Parameters
    ----------
    points : ndarray of float, shape (n, 2)
        One ``(y, x)`` per object, level-0 pixels: its center, or the annotated point.
    classes : tuple of str
        Names of the classes.
    class_ids : ndarray of int, shape (n,), optional
        Index into `classes` of each object; all of the first class by default.
    boxes : ndarray of float, shape (n, 4), optional
        ``(y, x, h, w)`` of each object.
    outlines : callable, optional
        `OutlineReader`, where objects have outlines that are not their boxes. They may be read from
        the file only then.
    source : str
        Name of the file, or URL of the synthetic image.
    is_annotated : bool
        Whether the source lists the image, so that it is known to contain no other objects.
    """

    points: NDArray[np.float64]
    classes: tuple[str, ...] = ("object",)
    class_ids: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    boxes: NDArray[np.float64] | None = None
    source: str = ""
    is_annotated: bool = False
    outlines: OutlineReader | None = None

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float64).reshape(-1, 2)
        class_ids = np.asarray(self.class_ids, np.int64)
        object.__setattr__(self, "points", points)
        object.__setattr__(
            self, "class_ids", class_ids if len(class_ids) else np.zeros(len(points), np.int64)
        )
        if len(self.class_ids) != len(points):
            raise ValueError(f"{len(points)} points have {len(self.class_ids)} classes")
        if self.boxes is not None and len(self.boxes) != len(points):
            raise ValueError(f"{len(points)} points have {len(self.boxes)} boxes")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of objects of each class, ``(k,)``."""
        return np.bincount(self.class_ids, minlength=len(self.classes))

    def clip(self, rect: Rect) -> GroundTruth:
        """Return the objects whose point lies in `rect`."""
        low, high = (rect.y, rect.x), (rect.y1, rect.x1)
        inside = (self.points >= low) & (self.points < high)
        return self.select(np.asarray(inside.all(axis=1)))

    def select(self, mask: NDArray[np.bool_]) -> GroundTruth:
        """Return the objects selected by `mask`, which has one value per object."""
        boxes = None if self.boxes is None else self.boxes[mask]
        outlines = self.outlines
        if outlines is not None:
            read, chosen = outlines, np.flatnonzero(mask)
            outlines = lambda which: read(chosen[which])  # noqa: E731
        return replace(
            self,
            points=self.points[mask],
            class_ids=self.class_ids[mask],
            boxes=boxes,
            outlines=outlines,
        )

    def with_points(self, points: NDArray[np.float64], source: str) -> GroundTruth:
        """Return the same objects at other points, from `source`."""
        return replace(self, points=points, source=source)


def ground_truth_from_labels(
    labels: Sequence[str],
    *,
    points: NDArray[np.float64] | None = None,
    boxes: NDArray[np.float64] | None = None,
    is_annotated: bool = False,
    outlines: OutlineReader | None = None,
) -> GroundTruth:
    """Return objects from the names of their classes.

    Parameters
    ----------
    labels : sequence of str
        Class of each object; classes are sorted alphabetically.
    points : ndarray, shape (n, 2), optional
        ``(y, x)``; the centers of the boxes if not given.
    boxes : ndarray, shape (n, 4), optional
        ``(y, x, h, w)``.
    is_annotated, outlines
        See `GroundTruth`.
    """
    classes, class_ids = np.unique(np.array(labels, str), return_inverse=True)
    names = tuple(printable(str(name)) for name in classes)
    if boxes is not None:
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if points is None:
        points = np.empty((0, 2)) if boxes is None else boxes[:, :2] + boxes[:, 2:] / 2
    return GroundTruth(
        points,
        names or ("object",),
        class_ids,
        boxes=boxes,
        is_annotated=is_annotated,
        outlines=outlines,
    )
