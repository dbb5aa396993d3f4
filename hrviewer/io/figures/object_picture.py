"""Pictures of an image with its objects, outlined in the colors of their classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hrviewer.geometry import Rect
from hrviewer.io.exportable import Exportable
from hrviewer.io.geojson import class_color
from hrviewer.io.object_table import read_objects
from hrviewer.objects import DetectedObjects

__all__ = ["ObjectPicture", "draw_objects", "make_object_picture"]

SMALL_PX = 3.0
"""Objects whose longer side is shorter, in pixels of the picture, are points."""

MAX_NAMED = 8
"""Most classes in a caption."""

LINE_PER_SIDE = 1 / 600
"""Width of lines over the picture's longer side."""

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectPicture:
    """An image with its objects.

    Parameters
    ----------
    pixels : ndarray of uint8, shape (rows, columns, 3)
        The picture.
    classes : tuple of (str, int, tuple)
        Name, number of objects and color of each class, the most frequent first.
    """

    pixels: Pixels
    classes: tuple[tuple[str, int, Color], ...]

    @property
    def legend(self) -> str:
        """Numbers of objects of all classes in words."""
        named = [f"{name} {count:,}" for name, count, _ in self.classes[:MAX_NAMED]]
        more = len(self.classes) - len(named)
        listed = ", ".join(named) + (f" and {more} classes more" if more else "")
        return f"Objects: {listed}" if named else "No objects"


def make_object_picture(
    run: Exportable, photo: Pixels, region: Rect, score: float | None = None
) -> ObjectPicture:
    """Draw a run's objects over its image.

    Parameters
    ----------
    run : Exportable
        A run with objects.
    photo : ndarray of uint8, shape (rows, columns, 3)
        The image in `region`, at any resolution.
    region : Rect
        The part of the image, level-0 pixels.
    score : float, optional
        Least score; that of the run by default.
    """
    _, objects, names = read_objects(run, score=score)
    colors = [class_color(name) for name in names]
    counts = np.bincount(objects.class_ids, minlength=len(names))
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    return ObjectPicture(
        draw_objects(photo, objects, colors, region),
        tuple((names[i], int(counts[i]), colors[i]) for i in order),
    )


def draw_objects(
    photo: Pixels, objects: DetectedObjects, colors: list[Color], region: Rect
) -> Pixels:
    """Return a picture with the outlines of objects, the more confident ones on top.

    Parameters
    ----------
    photo, region
        See `make_object_picture`.
    objects : DetectedObjects
        The objects, the best first.
    colors : list of tuple of int
        Color of each class.
    """
    picture = Image.fromarray(photo)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(photo.shape[:2]) * LINE_PER_SIDE))
    scale = np.array(photo.shape[:2]) / (region.h, region.w)
    large = (objects.boxes[:, 2:] * scale).max(axis=1) >= SMALL_PX
    rings = objects.rings()
    for i in range(len(objects) - 1, -1, -1):
        color = colors[objects.class_ids[i]]
        ring = (rings[i] - (region.y, region.x)) * scale
        if large[i]:
            corners = [(x, y) for y, x in ring.tolist()]
            pen.line([*corners, *corners[:2]], fill=color, width=width, joint="curve")
        else:
            y, x = ring.mean(axis=0).tolist()
            pen.rectangle((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=color)
    return np.asarray(picture)
