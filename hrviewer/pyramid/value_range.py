"""Value range of an image: the pixel values that a model gets as 0 and as 255.

It comes from the user, from the file's metadata, or from a sample of the pixels that is the same
every time: the coarsest level, and tiles chosen with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from hrviewer.pyramid.level import Level

__all__ = ["ValueRange", "find_value_range", "stored_range"]

ROUND_ENDS = (
    *(1.0, *(2.0**bits - 1 for bits in range(8, 13)), 10_000.0, 16_383.0),
    *(2.0**bits - 1 for bits in range(16, 65)),
)
"""Upper ends of measured ranges: of fractions, of 8 to 64 bits, and of reflectances."""
BIT_ENDS = tuple(2.0**bits - 1 for bits in range(1, 33))
"""Upper ends that a file may state: they are exact."""

TOLERANCE = 1.02
"""Interpolated values exceed the end of their range by a little."""
FRACTION_LIMIT = 2.0
"""Real numbers up to here are fractions: reflectances exceed 1 on snow and clouds."""
PERCENTILE = 99.9
"""Of real numbers: single ones may be arbitrarily large."""

MAX_COARSEST_PIXELS = 4_000_000
SAMPLE_TILES, SAMPLE_SIDE = 16, 256


@dataclass(frozen=True)
class ValueRange:
    """Pixel values that a model gets as 0 and as 255.

    Attributes
    ----------
    low, high : float
        The values.
    source : str
        ``given`` by the user, from the ``type`` of the pixels, from the ``file``, ``measured``, or
        ``unscaled`` where the measured values fit no range: then they are used as they are.
    extremes : tuple of float, optional
        Smallest and largest value that was measured or stored.
    """

    low: float
    high: float
    source: Literal["given", "type", "file", "measured", "unscaled"] = "given"
    extremes: tuple[float, float] | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The two values."""
        return self.low, self.high

    @property
    def note(self) -> str | None:
        """What the user should know of it; None for the range of 8 bits."""
        if self.source == "type" or self.extremes is None:
            return None
        found = f"{self.extremes[0]:g} to {self.extremes[1]:g}"
        if self.source == "unscaled":
            return (
                f"pixel values of {found} fit no usual range and are used as they are: set "
                "value_range"
            )
        origin = "stored range" if self.source == "file" else "measured values"
        return (
            f"pixel values of {self.low:g} to {self.high:g} are scaled to 0–255 ({origin}: {found})"
        )


def stored_range(low: float | None, high: float | None) -> tuple[float, float] | None:
    """Return a range of a file's metadata, if it is one."""
    if high is None or not np.isfinite(high) or high <= max(low or 0.0, 0.0):
        return None
    return (low if low is not None and np.isfinite(low) and low < 0 else 0.0), high


def find_value_range(levels: tuple[Level, ...], stored: tuple[float, float] | None) -> ValueRange:
    """Return the range of the file's metadata, of the data type, or of a sample of the pixels.

    Parameters
    ----------
    levels : tuple of Level
        The image.
    stored : tuple of float, optional
        Smallest and largest value according to the file.
    """
    dtype = levels[0].dtype
    full = float(np.iinfo(dtype).max) if dtype.kind in "ui" else np.inf
    if stored is not None and stored[0] == 0 and stored[1] in BIT_ENDS and stored[1] < full:
        return ValueRange(*stored, "file", stored)
    if stored is not None and stored[1] < full and dtype != np.uint8:
        return _round(*stored, dtype, "file")
    if dtype == np.uint8:
        return ValueRange(0.0, 255.0, "type")
    extremes = _measure(levels)
    if extremes is None or extremes == (0, 0):
        return ValueRange(0.0, full if dtype.kind == "u" else 255.0, "type")
    return _round(*extremes, dtype, "measured")


def _measure(levels: tuple[Level, ...]) -> tuple[float, float] | None:
    """Return the smallest and largest value of a sample; of real numbers percentiles."""
    samples = _sample(levels)
    if levels[0].dtype.kind != "f":  # window by window: many channels are many values
        ends = [(float(part.min()), float(part.max())) for part in samples if part.size]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None
    values = np.concatenate([np.zeros(0, levels[0].dtype), *samples])
    values = values[np.isfinite(values)]
    if not values.size or not values.any():
        return None
    low, high = np.percentile(values, (100 - PERCENTILE, PERCENTILE))
    return float(low), float(high)


def _round(
    low: float, high: float, dtype: np.dtype[Any], source: Literal["file", "measured"]
) -> ValueRange:
    """Return the range with round ends that values lie in."""
    extremes = low, high
    fits = [end for end in ROUND_ENDS if high <= end * TOLERANCE]
    if dtype.kind == "f" and high <= FRACTION_LIMIT:
        fits = [1.0]
    if dtype.kind == "f" and -TOLERANCE <= low < 0 and high <= TOLERANCE:
        return ValueRange(-1.0, 1.0, source, extremes)
    if low < 0 or not fits:
        if dtype.kind == "u":
            return ValueRange(0.0, float(np.iinfo(dtype).max), source, extremes)
        return ValueRange(0.0, 255.0, "unscaled", extremes)
    return ValueRange(0.0, fits[0], source, extremes)


def _sample(levels: tuple[Level, ...]) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    """Yield pixels with data: of the coarsest level, unless it is large, and of some tiles."""
    coarsest = levels[-1]
    if coarsest.shape[0] * coarsest.shape[1] <= MAX_COARSEST_PIXELS:
        yield _with_data(coarsest, 0, coarsest.shape[0], 0, coarsest.shape[1])
        if coarsest is levels[0]:
            return
    rows, columns = levels[0].grid
    count = min(SAMPLE_TILES, rows * columns)
    for number in np.random.default_rng(0).choice(rows * columns, count, replace=False):
        top, bottom, left, right = levels[0].tile_bounds(*divmod(int(number), columns))
        y, x = (
            max(top, (top + bottom - SAMPLE_SIDE) // 2),
            max(left, (left + right - SAMPLE_SIDE) // 2),
        )
        yield _with_data(levels[0], y, min(bottom, y + SAMPLE_SIDE), x, min(right, x + SAMPLE_SIDE))


def _with_data(level: Level, *window: int) -> np.ndarray[Any, np.dtype[Any]]:
    pixels, mask = level.read_masked(*window)
    return pixels.ravel() if mask is None else pixels[np.broadcast_to(mask, pixels.shape)]
