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
from hrviewer.engine.patch_result import Seen
from hrviewer.engine.plan_setup import Networks
from hrviewer.engine.postprocess import kind_of
from hrviewer.engine.record import Record
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid
from hrviewer.strategies import Answer, Look, Show, Think, Warp

__all__ = ["CELL", "Cell", "Keep", "Kept", "around", "cells", "empty_record", "paint"]

CELL = 512
"""Side of a cell on the screen, in pixels, within a factor of √2."""

ROW = 2048
"""Bytes of a look, about, beside its map."""


def cells(view: Rect, scale: float, image: Rect) -> list[Rect]:
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
    side = side_of(scale)
    visible = view & image
    if visible.empty:
        return []
    rows = range(visible.y // side, -(-visible.y1 // side))
    columns = range(visible.x // side, -(-visible.x1 // side))
    found = [Rect(r * side, c * side, side, side) & image for r in rows for c in columns]
    return sorted(found, key=lambda cell: math.dist(cell.center, view.center))


def around(view: Rect, scale: float, image: Rect) -> list[Rect]:
    """Return the ring of cells next to those that cover a view, the nearest first."""
    covered = cells(view, scale, image)
    if not covered:
        return []
    inside = set(covered)
    top, left = min(c.y for c in covered), min(c.x for c in covered)
    bottom, right = max(c.y1 for c in covered), max(c.x1 for c in covered)
    ring = Rect(top, left, bottom - top, right - left).pad(side_of(scale))
    near = [cell for cell in cells(ring, scale, image) if cell not in inside]
    return sorted(near, key=lambda cell: math.dist(cell.center, view.center))


def side_of(scale: float) -> int:
    """Return a cell's side in level-0 pixels, of which `scale` make a screen pixel."""
    return int(CELL * 2 ** max(0, round(math.log2(max(scale, 1e-6)))))


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """A finished cell: its looks, what was published, its answer."""

    rect: Rect
    seen: tuple[tuple[Look | Warp | Think, tuple[Seen, ...]], ...]
    shown: tuple[Show, ...]
    answer: Answer

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        maps = sum(ROW + look.map.nbytes for _, looks in self.seen for look in looks)
        return maps + sum(np.asarray(show.map).nbytes for show in self.shown)


class Kept:
    """Finished cells, under everything that they depend on; those used longest ago are dropped.

    Parameters
    ----------
    limit : int
        How many bytes are kept, about.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.nbytes = limit, 0
        self._cells: OrderedDict[tuple[Any, ...], Cell] = OrderedDict()

    def __len__(self) -> int:
        return len(self._cells)

    def get(self, key: tuple[Any, ...] | None) -> Cell | None:
        """Return a cell, if it is kept; what has no key yet is not."""
        if key is None or key not in self._cells:
            return None
        self._cells.move_to_end(key)
        return self._cells[key]

    def put(self, key: tuple[Any, ...] | None, cell: Cell) -> None:
        """Keep a cell."""
        if key is None or key in self._cells:
            return
        self._cells[key] = cell
        self.nbytes += cell.nbytes
        while self.nbytes > self._limit and len(self._cells) > 1:
            self.nbytes -= self._cells.popitem(last=False)[1].nbytes


class Keep:
    """A sink that keeps what came, to be painted on the screen's own maps."""

    def __init__(self) -> None:
        self.seen: list[tuple[Look | Warp | Think, tuple[Seen, ...]]] = []
        self.shown: list[Show] = []

    def replay(self, number: int, name: str) -> Sequence[Seen] | None:
        """Return None: a cell is never replayed."""
        return None

    def commit(
        self, number: int, name: str, request: Look | Warp | Think, seen: Sequence[Seen]
    ) -> None:
        """Keep a request and what it gave."""
        self.seen.append((request, tuple(seen)))

    def restore(self, request: Look | Warp | Think, seen: Sequence[Seen]) -> None:
        """Fail."""
        raise AssertionError("a cell is never replayed")

    def leave(self, request: Look | Warp | Think, seen: Sequence[Seen]) -> None:
        """Let it go: a cell that was stopped is not kept."""

    def show(self, show: Show) -> None:
        """Keep what was published."""
        self.shown.append(show)


def paint(cell: Cell, record: Record) -> None:
    """Add a cell to a record of the whole image."""
    for request, seen in cell.seen:
        record.add(request, seen)
    for show in cell.shown:
        if show.kind == "saliency":
            record.show(show)


def empty_record(pyramid: Pyramid, networks: Networks, native: float) -> Record:
    """Return a record in memory on which cells are painted."""
    main = networks["main"]
    cell = main.stride * native
    canvas = Canvas.in_memory(pyramid.rect, cell, main.card.answers, kind_of(main.card))
    return Record(pyramid.rect, canvas)
