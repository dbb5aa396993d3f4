"""What a person draws over a run: two layers that can be edited, kept in the run's folder.

Invariants: files are read and written beside the window's thread, a second after the last edit
and when it ends; whatever is changed bears who changed it and when. What a layer cannot hold
(holes, several parts) is kept as it is, and not shown.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from napari.components import ViewerModel
from napari.layers import Image, Points, Shapes

from hrviewer.io.annotations import author, keep_annotations, now, read_annotations
from hrviewer.io.features import Feature
from hrviewer.viewer.contributions.writers import features_of
from hrviewer.viewer.image.image_layer import placement
from hrviewer.viewer.layers.layer_list import take_away

__all__ = ["Annotations", "Tool", "layers_of"]

Tool = Literal["shapes", "points"]

QUIET = 1.0
"""Seconds without an edit before it is written."""

COLOUR = "#ffd54f"
COLUMNS = ("label", "author", "time", "name")


def layers_of(drawn: Sequence[Feature], place: dict[str, Any], name: str) -> tuple[Shapes, Points]:
    """Return features as layers that can be edited: those with one plain outline, and points."""
    outlined = [feature for feature in drawn if plain(feature)]
    marked = [feature for feature in drawn if feature.point is not None]
    shapes = Shapes(
        [feature.polygons[0][0] - 0.5 for feature in outlined] or None,
        shape_type="polygon",
        name=name,
        features=table_of(outlined),
        edge_color=COLOUR,
        face_color="transparent",
        edge_width=2,
        ndim=2,
        **place,
    )
    points = Points(
        np.array([feature.point for feature in marked], float).reshape(-1, 2) - 0.5,
        name=f"{name}: points",
        features=table_of(marked),
        face_color=COLOUR,
        border_color="black",
        size=12,
        ndim=2,
        **place,
    )
    return shapes, points


def plain(feature: Feature) -> bool:
    """Whether a layer can hold its outline."""
    return len(feature.polygons) == 1 and len(feature.polygons[0]) == 1


def table_of(drawn: Sequence[Feature]) -> pd.DataFrame:
    """Return what is known of features, a row each."""
    rows = [
        {"label": f.label, "author": f.about.get("author", ""), "time": f.about.get("time", ""),
         "name": f.name}
        for f in drawn
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)


class Annotations:
    """A run's annotations in a window.

    Parameters
    ----------
    viewer : ViewerModel
        Where they are shown.
    base : Image
        What they lie on.
    run : Path
        The run's folder.
    worker : Executor
        What reads and writes.
    """

    def __init__(self, viewer: ViewerModel, base: Image, run: Path, worker: Executor) -> None:
        self.viewer, self.base, self.run = viewer, base, run
        self.layers: tuple[Shapes, Points] | None = None
        self.label = "object"
        self._worker = worker
        self._held: list[Feature] = []
        self._edited: float | None = None
        self._wanted: Tool | None = None
        self._stamping = False
        self._coming: Future[list[Feature]] | None = worker.submit(read_annotations, run)
        self._further: Future[list[Feature]] | None = None
        self._writing: Future[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being read or written, or waits to be."""
        return any((self._coming, self._further, self._writing, self._edited))

    def add(self, coming: Future[list[Feature]]) -> None:
        """Show further features as soon as they are there."""
        self._further = coming

    def take_up(self, tool: Tool, label: str) -> None:
        """Let the person draw shapes, or mark points, of a class."""
        self._wanted, self.label = tool, label or "object"
        self._pick()

    def tick(self) -> str | None:
        """Take in what was read, write what was edited; return what to say of it.

        Raises
        ------
        UserError
            If it cannot be read or written.
        """
        if self._coming is not None and self._coming.done():
            coming, self._coming = self._coming, None
            self._show(coming.result())
        if self._further is not None and self.layers is not None and self._further.done():
            further, self._further = self._further, None
            self._append(further.result())
        if self._writing is not None and self._writing.done():
            written, self._writing = self._writing, None
            written.result()
            return self.words
        quiet = self._edited is not None and time.monotonic() - self._edited > QUIET
        if quiet and self._writing is None:
            self._edited = None
            self._writing = self._worker.submit(keep_annotations, self.run, self.features())
        return None

    @property
    def words(self) -> str:
        """How many are kept."""
        count = len(self.features())
        return f"{count:,} annotation{'s' * (count != 1)} kept in {self.run.name}"

    def features(self) -> list[Feature]:
        """Return everything, numbered anew."""
        drawn = list(self._held)
        for layer in self.layers or ():
            drawn += features_of(layer.as_layer_data_tuple())
        return [
            Feature(f.kind, f.label, f.polygons, f.point, f.name, i, f.measurements, f.about)
            for i, f in enumerate(drawn)
        ]

    def close(self, *, now: bool = False) -> None:
        """Write what is not written yet, and take the layers away.

        Parameters
        ----------
        now : bool
            Whether to wait for it: the window is closing.

        Raises
        ------
        UserError
            If it cannot be written, and was waited for.
        """
        if self._edited is not None:
            self._edited = None
            # One after the other: the worker is a single thread.
            writing = self._worker.submit(keep_annotations, self.run, self.features())
            if now:
                writing.result(timeout=5)
        layers, self.layers = self.layers, None
        for layer in layers or ():
            layer.events.data.disconnect(self._on_data)
        take_away(self.viewer, layers or ())

    def _show(self, drawn: list[Feature]) -> None:
        self._held = [f for f in drawn if f.point is None and not plain(f)]
        self.layers = layers_of(drawn, placement(self.base, 1.0), "annotations")
        active = self.viewer.layers.selection.active
        for layer in self.layers:
            self.viewer.add_layer(layer)
            layer.events.data.connect(self._on_data)
        self.viewer.layers.selection.active = active
        self._pick()

    def _append(self, drawn: list[Feature]) -> None:
        if self.layers is None or not drawn:
            return
        _, points = self.layers
        before = points.features
        marked = [feature for feature in drawn if feature.point is not None]
        self._stamping = True
        points.add(np.array([feature.point for feature in marked], float) - 0.5)
        points.features = pd.concat([before, table_of(marked)], ignore_index=True)
        points.selected_data = set()
        self._stamping = False
        self._edited = time.monotonic()

    def _pick(self) -> None:
        if self.layers is None or self._wanted is None:
            return
        wanted, self._wanted = self._wanted, None
        shapes, points = self.layers
        chosen = shapes if wanted == "shapes" else points
        for layer in (shapes, points):
            layer.feature_defaults = pd.DataFrame([self._stamp()])
        self.viewer.layers.selection.active = chosen
        chosen.mode = "add_polygon" if wanted == "shapes" else "add"

    def _stamp(self) -> dict[str, str]:
        return {"label": self.label, "author": author(), "time": now(), "name": ""}

    def _on_data(self, event: Any) -> None:
        """Stamp what was drawn or changed."""
        action = str(getattr(event, "action", "")).rsplit(".", 1)[-1].lower()
        if self._stamping or action not in ("added", "changed", "removed"):
            return
        self._edited = time.monotonic()
        if action == "removed":
            return
        layer = event.source
        count = len(layer.data)
        rows = [i % count for i in event.data_indices if isinstance(i, int | np.integer) and count]
        table = layer.features.copy()
        if not rows or max(rows) >= len(table):
            return
        stamp = self._stamp()
        keys = ("author", "time") if action == "changed" else tuple(stamp)
        for key in keys:
            table[key] = table[key].astype(object)
            table.loc[rows, key] = stamp[key]
        layer.features = table
