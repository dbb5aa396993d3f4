"""Cells: the parts of a fixed lattice that a view is covered with, each a run of its own.

Panning never changes a cell, so what was seen in one is never computed again.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrviewer.engine.canvas import Canvas
from hrviewer.engine.patch_result import InferenceResult
from hrviewer.engine.plan_setup import LoadedModels
from hrviewer.engine.postprocess import map_kind
from hrviewer.engine.record import RunRecord
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Estimate, FeatureRequest, PatchRequest, Publish, WarpRequest

__all__ = [
    "CELL_PX",
    "CellCache",
    "CellCollector",
    "ViewportCell",
    "empty_record",
    "neighbours",
    "paint_cell",
    "visible_cells",
]

CELL_PX = 512
"""Side of a cell on the screen, in pixels, within a factor of √2."""

RESULT_OVERHEAD = 2048
"""Bytes of a look, about, beside its map."""


def visible_cells(view: Rect, scale: float, image: Rect) -> list[Rect]:
    """Return the cells that cover a view, the one nearest to its centre first.

    Parameters
    ----------
    view : Rect
        What is visible, level-0 pixels.
    scale : float
        Level-0 pixels per screen pixel.
    image : Rect
        Cells beyond it are left out; those at its border are cut.
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
    """Return the ring of cells next to those that cover a view, the nearest first."""
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
    """Return a cell's side in level-0 pixels, of which `scale` make a screen pixel."""
    return int(CELL_PX * 2 ** max(0, round(math.log2(max(scale, 1e-6)))))


@dataclass(frozen=True, slots=True, eq=False)
class ViewportCell:
    """A finished cell: its looks, what was published, its answer."""

    rect: Rect
    results: tuple[
        tuple[PatchRequest | WarpRequest | FeatureRequest, tuple[InferenceResult, ...]], ...
    ]
    published: tuple[Publish, ...]
    estimate: Estimate

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        maps = sum(RESULT_OVERHEAD + look.map.nbytes for _, looks in self.results for look in looks)
        return maps + sum(np.asarray(show.map).nbytes for show in self.published)


class CellCache:
    """Finished cells, under everything that they depend on; those used longest ago are dropped.

    Parameters
    ----------
    max_bytes : int
        How many bytes are kept, about.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self.nbytes = max_bytes, 0
        self._cells: OrderedDict[tuple[Any, ...], ViewportCell] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, key: tuple[Any, ...] | None) -> ViewportCell | None:
        """Return a cell, if it is kept; what has no key yet is not."""
        if key is None or key not in self._cells:
            return None
        self._cells.move_to_end(key)
        return self._cells[key]

    def put(self, key: tuple[Any, ...] | None, cell: ViewportCell) -> None:
        """Keep a cell."""
        if key is None or key in self._cells:
            return
        self._cells[key] = cell
        self.nbytes += cell.nbytes
        while self.nbytes > self._max_bytes and len(self._cells) > 1:
            self.nbytes -= self._cells.popitem(last=False)[1].nbytes


class CellCollector:
    """A sink that keeps what came, to be painted on the screen's own maps."""

    def __init__(self) -> None:
        self.results: list[
            tuple[PatchRequest | WarpRequest | FeatureRequest, tuple[InferenceResult, ...]]
        ] = []
        self.published: list[Publish] = []

    def replay(self, number: int, name: str) -> Sequence[InferenceResult] | None:
        """Return None: a cell is never replayed."""
        return None

    def commit(
        self,
        number: int,
        name: str,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Keep a request and what it gave."""
        self.results.append((request, tuple(results)))

    def restore(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Fail."""
        raise AssertionError("a cell is never replayed")

    def record_partial(
        self,
        request: PatchRequest | WarpRequest | FeatureRequest,
        results: Sequence[InferenceResult],
    ) -> None:
        """Let it go: a cell that was stopped is not kept."""

    def publish(self, publication: Publish) -> None:
        """Keep what was published."""
        self.published.append(publication)


def paint_cell(cell: ViewportCell, record: RunRecord) -> None:
    """Add a cell to a record of the whole image."""
    for request, seen in cell.results:
        record.add(request, seen)
    for show in cell.published:
        if show.kind == "saliency":
            record.publish(show)


def empty_record(pyramid: Pyramid, models: LoadedModels, native: float) -> RunRecord:
    """Return a record in memory on which cells are painted."""
    main = models["main"]
    cell = main.stride * native
    canvas = Canvas.in_memory(
        pyramid.rect, cell, main.card.prediction_channels, map_kind(main.card)
    )
    return RunRecord(pyramid.rect, canvas)
