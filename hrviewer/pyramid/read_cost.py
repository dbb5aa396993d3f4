"""Cost of reading: seconds, bytes and pixels of the tiles that a run reads.

Invariants: within one meter a tile is charged once, to the first read that touches it, at the cost
of its first decoding, also when it comes from the cache now. So costs are nominal, and the sum of
all measurements is the meter's total.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hrviewer.pyramid.tile_cache import TileKey

__all__ = ["ReadCost", "ReadMeter"]


@dataclass(slots=True)
class ReadCost:
    """Cost of reading some tiles.

    Attributes
    ----------
    seconds : float
        Time to fetch and decode the tiles; resampling is not part of it.
    bytes : int
        Bytes as stored (compressed).
    pixels : int
        Pixels decoded that lie inside the image, counted at the level they were read from.
    """

    seconds: float = 0.0
    bytes: int = 0
    pixels: int = 0

    def add(self, seconds: float, stored: int, pixels: int) -> None:
        """Add the cost of one tile."""
        self.seconds += seconds
        self.bytes += stored
        self.pixels += pixels


class ReadMeter:
    """Adds up what a run reads; safe to share between threads.

    Examples
    --------
    >>> meter = ReadMeter()
    >>> with meter.measure() as cost:
    ...     pixels = image.read((0, 0, 512, 512), meter=meter)
    >>> cost.pixels
    262144
    """

    def __init__(self) -> None:
        self._paid: set[TileKey] = set()
        self._total = ReadCost()
        self._seconds_saved = 0.0
        self._lock = threading.Lock()
        self._local = threading.local()

    @property
    def total(self) -> ReadCost:
        """Cost of all reads."""
        with self._lock:
            return ReadCost(self._total.seconds, self._total.bytes, self._total.pixels)

    @property
    def seconds_saved(self) -> float:
        """Nominal seconds minus the seconds that reading took: the gain from the tile cache.

        Negative if reading included set-up that is part of no tile's cost.
        """
        with self._lock:
            return self._seconds_saved

    @contextmanager
    def measure(self) -> Iterator[ReadCost]:
        """Measure the cost of this thread's reads inside the ``with`` block."""
        outer: ReadCost | None = getattr(self._local, "cost", None)
        self._local.cost = inner = ReadCost()
        try:
            yield inner
        finally:
            self._local.cost = outer
            if outer is not None:
                outer.add(inner.seconds, inner.bytes, inner.pixels)

    def mark_paid(self, tiles: Iterable[TileKey]) -> None:
        """Mark tiles as charged already, for a run that is resumed."""
        with self._lock:
            self._paid.update(tiles)

    def charge(
        self, tile: TileKey, seconds: float, stored: int, pixels: int, elapsed: float | None = None
    ) -> None:
        """Charge a tile to this thread's measurement, unless it was charged before.

        Parameters
        ----------
        tile : TileKey
            The tile.
        seconds, stored, pixels
            Its nominal cost: seconds to decode it, stored bytes and pixels.
        elapsed : float, optional
            Seconds that reading it took now; `seconds` by default.
        """
        with self._lock:
            if tile in self._paid:
                return
            self._paid.add(tile)
            self._total.add(seconds, stored, pixels)
            self._seconds_saved += 0.0 if elapsed is None else seconds - elapsed
        cost: ReadCost | None = getattr(self._local, "cost", None)
        if cost is not None:
            cost.add(seconds, stored, pixels)
