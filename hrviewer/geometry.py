"""Geometry on the image: rectangles, patches and grids, used by all other packages.

All coordinates are level-0 pixels, ``(y, x)``, half-open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import index

from hrviewer.errors import ParameterError

__all__ = [
    "SCALE_STEPS",
    "Grid",
    "Patch",
    "Rect",
    "RectLike",
    "as_rect",
    "context_rings",
    "snap_scale",
]

SCALE_STEPS = 16
"""Scales are multiples of 1/16: tiles whose side is a multiple of 16 end on whole pixels."""


def snap_scale(scale: float) -> float:
    """Return the smallest representable scale that is not below `scale` (and at least 1/16)."""
    return max(1, math.ceil(scale * SCALE_STEPS - 1e-9)) / SCALE_STEPS


@dataclass(frozen=True, slots=True, order=True)
class Rect:
    """A half-open rectangle ``[y, y + h) × [x, x + w)`` in level-0 pixels."""

    y: int
    x: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if self.h < 0 or self.w < 0:
            raise ValueError(f"a rectangle cannot be {self.h} × {self.w} pixels")

    @property
    def y1(self) -> int:
        """The row after the last."""
        return self.y + self.h

    @property
    def x1(self) -> int:
        """The column after the last."""
        return self.x + self.w

    @property
    def area(self) -> int:
        """Pixels inside."""
        return self.h * self.w

    @property
    def empty(self) -> bool:
        """Whether it contains no pixel."""
        return self.h == 0 or self.w == 0

    @property
    def center(self) -> tuple[float, float]:
        """The middle, ``(y, x)``."""
        return self.y + self.h / 2, self.x + self.w / 2

    def __and__(self, other: Rect) -> Rect:
        """Return the intersection; empty (0 × 0) if the two are disjoint."""
        y, x = max(self.y, other.y), max(self.x, other.x)
        h, w = min(self.y1, other.y1) - y, min(self.x1, other.x1) - x
        return Rect(y, x, h, w) if h > 0 and w > 0 else Rect(y, x, 0, 0)

    def __or__(self, other: Rect) -> Rect:
        """Return the smallest rectangle that contains both."""
        y, x = min(self.y, other.y), min(self.x, other.x)
        return Rect(y, x, max(self.y1, other.y1) - y, max(self.x1, other.x1) - x)

    def __contains__(self, other: Rect) -> bool:
        """Return whether `other` lies entirely inside."""
        return (
            other.y >= self.y and other.x >= self.x and other.y1 <= self.y1 and other.x1 <= self.x1
        )

    def pad(self, margin: int) -> Rect:
        """Grow by `margin` pixels on every side."""
        return Rect(self.y - margin, self.x - margin, self.h + 2 * margin, self.w + 2 * margin)

    def shift(self, dy: int, dx: int) -> Rect:
        """Move by ``(dy, dx)``."""
        return Rect(self.y + dy, self.x + dx, self.h, self.w)

    def astuple(self) -> tuple[int, int, int, int]:
        """``(y, x, h, w)``."""
        return self.y, self.x, self.h, self.w


RectLike = Rect | Sequence[int]
"""A rectangle, or its ``(y, x, h, w)``."""


def as_rect(rect: RectLike) -> Rect:
    """Return a rectangle given as such or as ``(y, x, h, w)``.

    Raises
    ------
    HrviewerError
        If it is neither, or a number is not whole.

    Examples
    --------
    >>> as_rect((0, 512, 256, 256))
    Rect(y=0, x=512, h=256, w=256)
    """
    if isinstance(rect, Rect):
        return rect
    try:
        y, x, h, w = (index(side) for side in rect)
        return Rect(y, x, h, w)
    except (TypeError, ValueError) as error:
        raise ParameterError(
            f"{rect!r} is no rectangle: pass (y, x, height, width) in whole pixels, or a Rect"
        ) from error


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle for inference, with its scale and halo.

    Parameters
    ----------
    core : Rect
        Rectangle of the prediction, in level-0 pixels.
    scale : float
        Level-0 pixels per network pixel: 1 is full resolution, 8 an eighth per side.
    halo : int
        Context read around the core, in *network* pixels; nothing is predicted for it.
    """

    core: Rect
    scale: float = 1.0
    halo: int = 0

    @property
    def margin(self) -> int:
        """The halo in level-0 pixels."""
        return math.ceil(self.halo * self.scale)

    @property
    def rect(self) -> Rect:
        """Core and halo."""
        return self.core.pad(self.margin)


@dataclass(frozen=True, slots=True)
class Grid:
    """A rectangle divided into square cells; those at the far edges may be smaller.

    Parameters
    ----------
    region : Rect
        The rectangle that is divided.
    cell : int
        The cells' side, in level-0 pixels.
    """

    region: Rect
    cell: int

    def __post_init__(self) -> None:
        if self.cell < 1:
            raise ValueError(f"a grid's cell must be at least 1 pixel, not {self.cell}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return -(-self.region.h // self.cell), -(-self.region.w // self.cell)

    def __len__(self) -> int:
        rows, columns = self.shape
        return rows * columns

    def __getitem__(self, index: tuple[int, int]) -> Rect:
        row, column = index
        cell = self.cell
        return (
            Rect(self.region.y + row * cell, self.region.x + column * cell, cell, cell)
            & self.region
        )

    def __iter__(self) -> Iterator[Rect]:
        """Yield the cells in reading order."""
        rows, columns = self.shape
        return (self[row, column] for row in range(rows) for column in range(columns))


def context_rings(rect: Rect, rings: int) -> list[Rect]:
    """Return the squares in rings around a square, eight in each ring.

    The first ring has its neighbours, the next those of all nine together, three times as wide, and
    so on.
    """
    found = []
    for _ in range(rings):
        side = rect.h
        found += [
            rect.shift(dy * side, dx * side) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx
        ]
        rect = Rect(rect.y - side, rect.x - side, 3 * side, 3 * side)
    return found
