"""Figure of a synthetic image at five scales, side by side.

    python -m hrviewer_samples.figures NAME OUT

Each panel magnifies the centre of the previous one; the last is full resolution.
"""

from __future__ import annotations

import sys

import numpy as np
from hrviewer.geometry import Rect
from hrviewer.pyramid.synthetic import SyntheticImage, make_synthetic_image
from numpy.typing import NDArray
from PIL import Image, ImageDraw

__all__ = ["panels"]

SIDE = 512
FRAME = (0, 165, 255)
IMAGES = {"crowd": (65_536, 2), "tissue": (65_536, 6)}
"""Size and seed of each image's figure."""


def densest_square(image: SyntheticImage, side: int) -> tuple[int, int]:
    """Return the centre of the square with most objects, in the image's lower half."""
    whole = Rect(image.size // 2, 0, image.size // 2, image.size)
    points = image.ground_truth(whole).points
    cells = (points // side).astype(int)
    places, counts = np.unique(cells, axis=0, return_counts=True)
    best = places[counts.argmax()]
    y, x = points[(cells == best).all(axis=1)].mean(axis=0)
    return int(y), int(x)


def panels(image: SyntheticImage) -> NDArray[np.uint8]:
    """Return the whole image, and it at 1/64, 1/16, 1/4 and 1/1 around its busiest place."""
    y, x = densest_square(image, SIDE)
    pictures = []
    scales = [image.size // SIDE, 64, 16, 4, 1]
    for k, scale in enumerate(scales):
        rect = _square_around(image, y, x, scale)
        picture = Image.fromarray(image.render(rect, scale))
        if k + 1 < len(scales):
            inner = _square_around(image, y, x, scales[k + 1])
            top, left = (inner.y - rect.y) / scale, (inner.x - rect.x) / scale
            side = inner.h / scale
            ImageDraw.Draw(picture).rectangle(
                (left, top, left + side, top + side), outline=FRAME, width=9
            )
        pictures.append(np.pad(np.asarray(picture), ((0, 0), (0, 6), (0, 0)), constant_values=255))
    return np.concatenate(pictures, axis=1)[:, :-6]


def _square_around(image: SyntheticImage, y: int, x: int, scale: int) -> Rect:
    side = SIDE * scale
    corner = [min(max(0, v - side // 2), image.size - side) // 64 * 64 for v in (y, x)]
    return Rect(corner[0], corner[1], side, side)


if __name__ == "__main__":
    name, target = sys.argv[1:]
    picture = Image.fromarray(panels(make_synthetic_image(name, *IMAGES[name])))
    picture.quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        target, optimize=True
    )
