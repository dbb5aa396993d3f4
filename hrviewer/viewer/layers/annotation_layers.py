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

from hrviewer.io.annotations import current_user, read_annotations, timestamp, write_annotations
from hrviewer.io.features import Feature
from hrviewer.viewer.contributions.writers import features_of
from hrviewer.viewer.image.image_layer import placement
from hrviewer.viewer.layers.layer_list import remove_layers

__all__ = ["AnnotationLayers", "AnnotationTool", "annotation_layers"]

AnnotationTool = Literal["shapes", "points"]

SAVE_DELAY_SECONDS = 1.0
"""Seconds without an edit before it is written."""

ANNOTATION_COLOUR = "#ffd54f"
FEATURE_COLUMNS = ("label", "author", "time", "name")


def annotation_layers(
    features: Sequence[Feature], transform: dict[str, Any], name: str
) -> tuple[Shapes, Points]:
    """Return features as layers that can be edited: those with one plain outline, and points."""
    outlined = [feature for feature in features if is_simple_polygon(feature)]
    marked = [feature for feature in features if feature.point is not None]
    shapes = Shapes(
        [feature.polygons[0][0] - 0.5 for feature in outlined] or None,
        shape_type="polygon",
        name=name,
        features=feature_table(outlined),
        edge_color=ANNOTATION_COLOUR,
        face_color="transparent",
        edge_width=2,
        ndim=2,
        **transform,
    )
    points = Points(
        np.array([feature.point for feature in marked], float).reshape(-1, 2) - 0.5,
        name=f"{name}: points",
        features=feature_table(marked),
        face_color=ANNOTATION_COLOUR,
        border_color="black",
        size=12,
        ndim=2,
        **transform,
    )
    return shapes, points


def is_simple_polygon(feature: Feature) -> bool:
    """Whether a layer can hold its outline."""
    return len(feature.polygons) == 1 and len(feature.polygons[0]) == 1


def feature_table(features: Sequence[Feature]) -> pd.DataFrame:
    """Return what is known of features, a row each."""
    rows = [
        {
            "label": f.label,
            "author": f.metadata.get("author", ""),
            "time": f.metadata.get("time", ""),
            "name": f.name,
        }
        for f in features
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(FEATURE_COLUMNS), dtype=object)


class AnnotationLayers:
    """A run's annotations in a window.

    Parameters
    ----------
    viewer : ViewerModel
        Where they are shown.
    image_layer : Image
        What they lie on.
    run_path : Path
        The run's folder.
    executor : Executor
        What reads and writes.
    """

    def __init__(
        self, viewer: ViewerModel, image_layer: Image, run_path: Path, executor: Executor
    ) -> None:
        self.viewer, self.base, self.run_path = viewer, image_layer, run_path
        self.layers: tuple[Shapes, Points] | None = None
        self.label = "object"
        self._executor = executor
        self._not_displayable: list[Feature] = []
        self._edited_at: float | None = None
        self._requested_tool: AnnotationTool | None = None
        self._stamping_paused = False
        self._loading: Future[list[Feature]] | None = executor.submit(read_annotations, run_path)
        self._importing: Future[list[Feature]] | None = None
        self._saving: Future[None] | None = None

    @property
    def has_pending_io(self) -> bool:
        """Whether something is being read or written, or waits to be."""
        return any((self._loading, self._importing, self._saving, self._edited_at))

    def add_when_ready(self, loading: Future[list[Feature]]) -> None:
        """Show further features as soon as they are there."""
        self._importing = loading

    def start_drawing(self, tool: AnnotationTool, label: str) -> None:
        """Let the person draw shapes, or mark points, of a class."""
        self._requested_tool, self.label = tool, label or "object"
        self._activate_tool()

    def tick(self) -> str | None:
        """Take in what was read, write what was edited; return what to say of it.

        Raises
        ------
        UserError
            If it cannot be read or written.
        """
        if self._loading is not None and self._loading.done():
            coming, self._loading = self._loading, None
            self._show_layers(coming.result())
        if self._importing is not None and self.layers is not None and self._importing.done():
            further, self._importing = self._importing, None
            self._append(further.result())
        if self._saving is not None and self._saving.done():
            written, self._saving = self._saving, None
            written.result()
            return self.summary
        quiet = (
            self._edited_at is not None and time.monotonic() - self._edited_at > SAVE_DELAY_SECONDS
        )
        if quiet and self._saving is None:
            self._edited_at = None
            self._saving = self._executor.submit(write_annotations, self.run_path, self.features())
        return None

    @property
    def summary(self) -> str:
        """How many are kept."""
        count = len(self.features())
        return f"{count:,} annotation{'s' * (count != 1)} kept in {self.run_path.name}"

    def features(self) -> list[Feature]:
        """Return everything, numbered anew."""
        drawn = list(self._not_displayable)
        for layer in self.layers or ():
            drawn += features_of(layer.as_layer_data_tuple())
        return [
            Feature(f.kind, f.label, f.polygons, f.point, f.name, i, f.measurements, f.metadata)
            for i, f in enumerate(drawn)
        ]

    def close(self, *, wait: bool = False) -> None:
        """Write what is not written yet, and take the layers away.

        Parameters
        ----------
        wait : bool
            Whether to wait for it: the window is closing.

        Raises
        ------
        UserError
            If it cannot be written, and was waited for.
        """
        if self._edited_at is not None:
            self._edited_at = None
            # One after the other: the worker is a single thread.
            writing = self._executor.submit(write_annotations, self.run_path, self.features())
            if wait:
                writing.result(timeout=5)
        layers, self.layers = self.layers, None
        for layer in layers or ():
            layer.events.data.disconnect(self._on_data)
        remove_layers(self.viewer, layers or ())

    def _show_layers(self, drawn: list[Feature]) -> None:
        self._not_displayable = [f for f in drawn if f.point is None and not is_simple_polygon(f)]
        self.layers = annotation_layers(drawn, placement(self.base, 1.0), "annotations")
        active = self.viewer.layers.selection.active
        for layer in self.layers:
            self.viewer.add_layer(layer)
            layer.events.data.connect(self._on_data)
        self.viewer.layers.selection.active = active
        self._activate_tool()

    def _append(self, drawn: list[Feature]) -> None:
        if self.layers is None or not drawn:
            return
        _, points = self.layers
        before = points.features
        marked = [feature for feature in drawn if feature.point is not None]
        self._stamping_paused = True
        points.add(np.array([feature.point for feature in marked], float) - 0.5)
        points.features = pd.concat([before, feature_table(marked)], ignore_index=True)
        points.selected_data = set()
        self._stamping_paused = False
        self._edited_at = time.monotonic()

    def _activate_tool(self) -> None:
        if self.layers is None or self._requested_tool is None:
            return
        wanted, self._requested_tool = self._requested_tool, None
        shapes, points = self.layers
        chosen = shapes if wanted == "shapes" else points
        for layer in (shapes, points):
            layer.feature_defaults = pd.DataFrame([self._stamp()])
        self.viewer.layers.selection.active = chosen
        chosen.mode = "add_polygon" if wanted == "shapes" else "add"

    def _stamp(self) -> dict[str, str]:
        return {"label": self.label, "author": current_user(), "time": timestamp(), "name": ""}

    def _on_data(self, event: Any) -> None:
        """Stamp what was drawn or changed."""
        action = str(getattr(event, "action", "")).rsplit(".", 1)[-1].lower()
        if self._stamping_paused or action not in ("added", "changed", "removed"):
            return
        self._edited_at = time.monotonic()
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
