"""What reading costs.

Invariants: within one meter a tile is paid for once, by the first read that touches it; its
price is what it cost when it was decoded, also when it now comes from memory. So the costs are
nominal, and the sum of all readings is the meter's total.
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
    """What one look paid.

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
        """Add the price of one tile."""
        self.seconds += seconds
        self.bytes += stored
        self.pixels += pixels


class ReadMeter:
    """Counts what a run reads; safe to share between threads.

    >>> with meter.reading() as paid:
    ...     pyramid.read(rect, scale, meter=meter)
    >>> paid.bytes
    """

    def __init__(self) -> None:
        self._paid: set[TileKey] = set()
        self._total = ReadCost()
        self._seconds_saved = 0.0
        self._lock = threading.Lock()
        self._local = threading.local()

    @property
    def total(self) -> ReadCost:
        """What all reads paid together."""
        with self._lock:
            return ReadCost(self._total.seconds, self._total.bytes, self._total.pixels)

    @property
    def seconds_saved(self) -> float:
        """Seconds that tiles cost more than fetching them took: what came from memory.

        Less than nothing where something had to be made ready first that no tile's price holds.
        """
        with self._lock:
            return self._seconds_saved

    @contextmanager
    def measure(self) -> Iterator[ReadCost]:
        """Collect what this thread's reads pay inside the ``with`` block."""
        outer: ReadCost | None = getattr(self._local, "cost", None)
        self._local.cost = inner = ReadCost()
        try:
            yield inner
        finally:
            self._local.cost = outer
            if outer is not None:
                outer.add(inner.seconds, inner.bytes, inner.pixels)

    def mark_paid(self, tiles: Iterable[TileKey]) -> None:
        """Mark tiles as paid already, as when a run is taken up again."""
        with self._lock:
            self._paid.update(tiles)

    def charge(
        self, tile: TileKey, seconds: float, stored: int, pixels: int, elapsed: float | None = None
    ) -> None:
        """Charge a tile to this thread's reading, unless it was paid before.

        Parameters
        ----------
        tile : TileKey
            Which.
        seconds, stored, pixels
            Its price: what it took to decode, its bytes and pixels.
        elapsed : float, optional
            Seconds that fetching it took now; as long as decoding if not given.
        """
        with self._lock:
            if tile in self._paid:
                return
            self._paid.add(tile)
            self._total.add(seconds, stored, pixels)
            self._seconds_saved += 0.0 if elapsed is None else seconds - elapsed
        reading: ReadCost | None = getattr(self._local, "cost", None)
        if reading is not None:
            reading.add(seconds, stored, pixels)
