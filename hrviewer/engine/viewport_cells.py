"""Viewport cells: squares of a fixed lattice that cover the view, each a separate small run.

Panning never changes a cell, so its results are never computed again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrviewer.engine.inference_result import InferenceResult
from hrviewer.engine.pipeline import InferenceRequest
from hrviewer.engine.plan_runner import FinishedRequest
from hrviewer.geometry import Rect
from hrviewer.strategies import Estimate, Publish

__all__ = [
    "CELL_PX",
    "CellCache",
    "CellCollector",
    "ViewportCell",
    "neighbours",
    "visible_cells",
]

CELL_PX = 512
"""Side of a cell on the screen, in pixels, within a factor of √2."""

RESULT_OVERHEAD = 2048
"""Approximate bytes of a result besides its map."""


def visible_cells(view: Rect, scale: float, image: Rect) -> list[Rect]:
    """Return the cells that cover a view, the one nearest to its center first.

    Parameters
    ----------
    view : Rect
        The visible rectangle, level-0 pixels.
    scale : float
        Level-0 pixels per screen pixel.
    image : Rect
        Cells are clipped to it; those outside are left out.
    """
    side = cell_side(scale)
    visible = view & image
    if visible.empty:
        return []
    rows = range(visible.y // side, -(-visible.y1 // side))
    columns = range(visible.x // side, -(-visible.x1 // side))
    found = [Rect(r * side, c * side, side, side) & image for r in rows for c in columns]
    return sorted(found, key=lambda cell: math.dist(cell.center, view.center))


def neighbours(view: Rect, scale: float, image: Rect) -> list[Rect]:
    """Return the ring of cells around those that cover a view, the nearest to its center first."""
    covered = visible_cells(view, scale, image)
    if not covered:
        return []
    inside = set(covered)
    top, left = min(c.y for c in covered), min(c.x for c in covered)
    bottom, right = max(c.y1 for c in covered), max(c.x1 for c in covered)
    ring = Rect(top, left, bottom - top, right - left).pad(cell_side(scale))
    near = [cell for cell in visible_cells(ring, scale, image) if cell not in inside]
    return sorted(near, key=lambda cell: math.dist(cell.center, view.center))


def cell_side(scale: float) -> int:
    """Return the side of cells in level-0 pixels, at `scale` level-0 pixels per screen pixel."""
    return int(CELL_PX * 2 ** max(0, round(math.log2(max(scale, 1e-6)))))


@dataclass(frozen=True, slots=True, eq=False)
class ViewportCell:
    """A finished cell: its results by request, what was published, and its estimate."""

    rect: Rect
    results: tuple[tuple[InferenceRequest, tuple[InferenceResult, ...]], ...]
    published: tuple[Publish, ...]
    estimate: Estimate

    @property
    def nbytes(self) -> int:
        """Approximate memory, in bytes."""
        results = (result for _, results in self.results for result in results)
        maps = sum(RESULT_OVERHEAD + result.map.nbytes for result in results)
        return maps + sum(np.asarray(each.map).nbytes for each in self.published)


class CellCache:
    """Finished cells, by all that they depend on; the least recently used are evicted.

    Parameters
    ----------
    max_bytes : int
        Approximate bound in bytes.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self.nbytes = max_bytes, 0
        self._cells: OrderedDict[tuple[Any, ...], ViewportCell] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, key: tuple[Any, ...] | None) -> ViewportCell | None:
        """Return a cell, or None; without a key there is none."""
        if key is None or key not in self._cells:
            return None
        self._cells.move_to_end(key)
        return self._cells[key]

    def put(self, key: tuple[Any, ...] | None, cell: ViewportCell) -> None:
        """Store a cell, if it has a key."""
        if key is None or key in self._cells:
            return
        self._cells[key] = cell
        self.nbytes += cell.nbytes
        while self.nbytes > self._max_bytes and len(self._cells) > 1:
            self.nbytes -= self._cells.popitem(last=False)[1].nbytes


class CellCollector:
    """A sink that collects results, to be painted on the maps of the view."""

    def __init__(self) -> None:
        self.results: list[tuple[InferenceRequest, tuple[InferenceResult, ...]]] = []
        self.published: list[Publish] = []

    def replay(self, number: int, name: str) -> FinishedRequest | None:
        """Return None: a cell is never replayed."""
        return None

    def commit(
        self,
        number: int,
        name: str,
        request: InferenceRequest,
        finished: FinishedRequest,
        replayed: Container[int] = (),
    ) -> None:
        """Collect a request's results."""
        self.results.append((request, finished.results))

    def restore(
        self,
        request: InferenceRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Fail."""
        raise AssertionError("a cell is never replayed")

    def record_partial(
        self,
        request: InferenceRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Discard them: a stopped cell is not kept."""

    def publish(self, publication: Publish) -> None:
        """Collect a publication."""
        self.published.append(publication)
