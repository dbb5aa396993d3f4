"""Detected objects over an image: which are displayed, and how they are drawn in a view.

A view with few outlines is drawn as lines, one with more as a raster of screen pixels, so that a
hundred thousand objects take no longer to pan than ten. Drawing takes up to a second and is done on
a worker thread (`app/services/object_service.py`).

Invariant: `update`, `clear` and `draw` may be called on any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hrviewer.engine import InferenceResult
from hrviewer.geometry import Rect
from hrviewer.io.geojson import class_color
from hrviewer.objects import (
    CANDIDATE_SCORE,
    DetectedObjects,
    MergeSettings,
    merge_objects,
    outlines_as_lines,
)

__all__ = ["MAX_LINES", "ObjectDrawing", "ObjectMap"]

MAX_LINES = 8000
"""Most lines of a drawing; with more it is a raster."""

MIN_OUTLINE_PX = 3.0
"""Screen pixels of the longer side of an outline, at least; smaller objects are points."""

DrawingKey = tuple[int, float, frozenset[int]]


@dataclass(frozen=True, eq=False)
class ObjectDrawing:
    """Objects of a part of the image, drawn at the resolution of a view.

    Parameters
    ----------
    key : tuple
        Which objects: changes with them, the least score and the hidden classes.
    covered : Rect
        The part of the image.
    pixel : tuple of float
        Level-0 pixels per screen pixel, ``(y, x)``.
    count : int
        Displayed objects of the whole image.
    lines : ndarray of float, shape (m, 2, 2)
        Starts and directions ``(y, x)`` of lines, level-0 pixels.
    colors : ndarray of float, shape (m, 4)
        Color of each line.
    raster : ndarray of uint8, shape (rows, columns, 4), optional
        Instead of lines, screen pixels over `covered`.
    """

    key: DrawingKey
    covered: Rect
    pixel: tuple[float, float]
    count: int
    lines: NDArray[np.float64]
    colors: NDArray[np.float64]
    raster: NDArray[np.uint8] | None = None


class ObjectMap:
    """The objects of a run or of Live.

    Parameters
    ----------
    image : Rect
        The whole image.
    classes : sequence of str
        Names of the classes.

    Attributes
    ----------
    settings : MergeSettings
        The model's thresholds.
    score : float
        Least score of displayed objects.
    colors : ndarray of uint8, shape (k, 3)
        Color of each class.
    hidden_classes : frozenset of int
        Classes that are not displayed.
    drawing : ObjectDrawing or None
        The last drawing; replaced, never changed.
    """

    def __init__(self, image: Rect, classes: Sequence[str]) -> None:
        self.image, self.classes = image, tuple(classes)
        colors = [class_color(name) for name in self.classes]
        self.colors = np.array(colors, np.uint8).reshape(-1, 3)
        self.apply_thresholds(MergeSettings())
        self.hidden_classes: frozenset[int] = frozenset()
        self.drawing: ObjectDrawing | None = None
        self._parts: list[DetectedObjects] = []
        self._revision = 0
        self._lock = threading.Lock()

    def apply_thresholds(self, settings: MergeSettings) -> None:
        """Apply the thresholds of another model, which are those displayed at first."""
        self.settings, self.score = settings, settings.score

    @property
    def key(self) -> DrawingKey:
        """Identifies what is displayed."""
        return self._revision, self.score, self.hidden_classes

    @property
    def objects(self) -> DetectedObjects:
        """All objects down to the lowest score."""
        with self._lock:
            if len(self._parts) != 1:
                self._parts = [DetectedObjects.concatenate(self._parts)]
            return self._parts[0]

    @property
    def displayed(self) -> DetectedObjects:
        """The objects with at least the least score, of classes that are not hidden."""
        objects = self.objects
        shown = objects.scores >= np.float32(self.score)
        if self.hidden_classes:
            shown &= ~np.isin(objects.class_ids, list(self.hidden_classes))
        return objects.take(shown)

    def update(self, result: InferenceResult) -> None:
        """Add the objects of a patch's core."""
        if result.objects is None:
            return
        settings = self.settings.model_copy(update={"score": CANDIDATE_SCORE})
        found = result.objects.take(merge_objects(result.objects, settings))
        found = found.take(found.are_inside(result.patch.core))
        if len(found):
            with self._lock:
                self._parts.append(found)
                self._revision += 1

    def replace(self, objects: DetectedObjects) -> None:
        """Display other objects: those of a finished run, merged over the borders of tiles."""
        with self._lock:
            self._parts = [objects]
            self._revision += 1

    def clear(self, rect: Rect) -> None:
        """Remove the objects in a rectangle."""
        objects = self.objects
        left = objects.take(~objects.are_inside(rect))
        if len(left) < len(objects):
            self.replace(left)

    def covers(self, view: Rect, pixel: tuple[float, float]) -> bool:
        """Return whether the last drawing is of all that is displayed in a view; see `draw`."""
        drawing = self.drawing
        if drawing is None or drawing.key != self.key:
            return False
        finest, coarsest = (1 / 1.5, 1.5) if drawing.raster is not None else (0, 1e9)
        ratio = pixel[0] / drawing.pixel[0]
        return (view & self.image) in drawing.covered and finest < ratio < coarsest

    def describe(self, y: float, x: float) -> str:
        """Return class, score and size of the smallest displayed object at a point, or nothing."""
        found = self.displayed
        top, left, h, w = found.boxes.T
        at = found.take((top <= y) & (y < top + h) & (left <= x) & (x < left + w))
        if at.has_outlines:
            import shapely

            at = at.take(np.asarray(shapely.contains_xy(at.polygons(), x, y), bool))
        if not len(at):
            return ""
        i = int(np.argmin(at.areas))
        h, w = at.boxes[i, 2:]
        return f"{self.classes[at.class_ids[i]]} {at.scores[i]:.2f} · {h:,.0f} × {w:,.0f} px"

    def class_counts(self) -> NDArray[np.int64]:
        """Return the number of objects of each class with at least the least score."""
        objects = self.objects
        confident = objects.class_ids[objects.scores >= np.float32(self.score)]
        return np.bincount(confident, minlength=len(self.classes))

    def draw(self, view: Rect, pixel: tuple[float, float]) -> ObjectDrawing:
        """Draw the objects in and around a view.

        Parameters
        ----------
        view : Rect
            Visible part of the image.
        pixel : tuple of float
            Level-0 pixels per screen pixel, ``(y, x)``.
        """
        key, found = self.key, self.displayed
        covered = view.pad(max(view.h, view.w) // 4) & self.image
        y, x, h, w = found.boxes.T
        inside = (y < covered.y1) & (y + h > covered.y) & (x < covered.x1) & (x + w > covered.x)
        near = found.take(inside)
        lines, owner = outlines_as_lines(near)
        colors = self.colors[near.class_ids]
        if len(lines) <= MAX_LINES:
            rgba = np.c_[colors[owner] / 255, np.ones(len(owner))]
            return ObjectDrawing(key, covered, pixel, len(found), lines, rgba)
        raster = draw_raster(near, lines, owner, colors, covered, pixel)
        nothing = np.zeros((0, 2, 2)), np.zeros((0, 4))
        return ObjectDrawing(key, covered, pixel, len(found), *nothing, raster)


def draw_raster(
    objects: DetectedObjects,
    lines: NDArray[np.float64],
    owner: NDArray[np.intp],
    colors: NDArray[np.uint8],
    covered: Rect,
    pixel: tuple[float, float],
) -> NDArray[np.uint8]:
    """Draw outlines into screen pixels, those of small objects as single pixels."""
    shape = tuple(
        max(1, int(np.ceil(n / p))) for n, p in zip((covered.h, covered.w), pixel, strict=True)
    )
    raster = np.zeros((*shape, 4), np.uint8)
    opaque = np.c_[colors, np.full(len(colors), 255, np.uint8)]
    scale, corner = np.array(pixel), np.array([covered.y, covered.x])

    def put(points: NDArray[np.float64], which: NDArray[np.intp]) -> None:
        at = np.floor(points).astype(np.intp)
        inside = ((at >= 0) & (at < shape)).all(axis=1)
        raster[at[inside, 0], at[inside, 1]] = opaque[which[inside]]

    large = (objects.boxes[:, 2:] / scale).max(axis=1) >= MIN_OUTLINE_PX
    small = np.flatnonzero(~large)
    put((objects.boxes[small, :2] + objects.boxes[small, 2:] / 2 - corner) / scale, small)
    drawn = large[owner]
    start, along, owner = lines[drawn, 0], lines[drawn, 1] / scale, owner[drawn]
    start = (start - corner) / scale
    steps = np.ceil(np.abs(along).max(axis=1)).astype(np.intp) + 1
    # Lines that are cut by the view are long only where they are large on the screen.
    steps = np.minimum(steps, 4 * max(shape))
    which = np.repeat(np.arange(len(steps)), steps)
    within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
    fraction = within / np.maximum(steps - 1, 1)[which]
    put(start[which] + fraction[:, None] * along[which], owner[which])
    return raster
