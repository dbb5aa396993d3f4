"""What is really there: the objects that an answer is measured against.

Scenes know their truth, files hold it (`hrviewer.exchange` reads them), runs are judged by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from hrviewer.geometry import Rect

__all__ = ["Truth"]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Objects on an image.

    Parameters
    ----------
    points : ndarray of float, shape (n, 2)
        One ``(y, x)`` per object, level-0 pixels: its centre, or where a person clicked.
    classes : tuple of str
        The classes' names.
    kinds : ndarray of int, shape (n,), optional
        Index into `classes` of each object; all of the first by default.
    boxes : ndarray of float, shape (n, 4), optional
        ``(y, x, h, w)`` of each object.
    source : str
        Where it comes from: a file's name, or a scene's URL.
    """

    points: NDArray[np.float64]
    classes: tuple[str, ...] = ("object",)
    kinds: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    boxes: NDArray[np.float64] | None = None
    source: str = ""

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float64).reshape(-1, 2)
        kinds = np.asarray(self.kinds, np.int64)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "kinds", kinds if len(kinds) else np.zeros(len(points), np.int64))
        if len(self.kinds) != len(points):
            raise ValueError(f"{len(points)} points have {len(self.kinds)} classes")
        if self.boxes is not None and len(self.boxes) != len(points):
            raise ValueError(f"{len(points)} points have {len(self.boxes)} boxes")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Objects of each class, ``(k,)``."""
        return np.bincount(self.kinds, minlength=len(self.classes))

    def clip(self, rect: Rect) -> Truth:
        """Return the objects whose point lies in `rect`."""
        low, high = (rect.y, rect.x), (rect.y1, rect.x1)
        inside = ((self.points >= low) & (self.points < high)).all(axis=1)
        boxes = None if self.boxes is None else self.boxes[inside]
        return replace(self, points=self.points[inside], kinds=self.kinds[inside], boxes=boxes)
