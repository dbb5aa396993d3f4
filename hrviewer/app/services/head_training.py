"""A few labels put on codes by clicks, and the head that is fitted to them.

While a class is picked, a click where codes are shown labels the code there, instead of asking
what looks like it. Labels are a layer of points, from which the person may take some away again.

Invariants: fitting happens beside the window's thread; a head is fitted to the codes on the
screen, so also live, before any run; what it makes is a pack like any other.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Points
from psygnal import Signal

from hrviewer.errors import HrviewerError
from hrviewer.io.features import Feature
from hrviewer.io.geojson import OKABE_ITO
from hrviewer.models import CombinedBundle, ModelBundle
from hrviewer.paths import data_folder, unused_path
from hrviewer.runs.heads import Embeddings, FittedHead, fit_place_classifier
from hrviewer.viewer.image.geometry import screen_pixel
from hrviewer.viewer.image.image_layer import METADATA_KEY, placement
from hrviewer.viewer.layers.embedding_layers import EmbeddingLayers
from hrviewer.viewer.layers.layer_list import keep_selection

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["HeadTrainer"]

LABEL_SIZE = 10.0
"""Of a label, in screen pixels when it is put."""


class HeadTrainer:
    """What the part of the panel about labels calls.

    Parameters
    ----------
    controller : Controller
        Has the image and the codes on it, and shows what was fitted.

    Attributes
    ----------
    label : str
        The class that a click gives; with none, clicks give no labels.
    layer : Points or None
        The labels.
    head : Fitted or None
        What was fitted last.
    """

    availability_changed = Signal(bool)
    message_changed = Signal(str)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.label = ""
        self.layer: Points | None = None
        self.head: FittedHead | None = None
        self._image_layer: Image | None = None
        self._colours: dict[str, str] = {}
        self._available = False
        self._executor = ThreadPoolExecutor(1, "hrviewer-fit")
        self._fitting: Future[FittedHead] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a head is being fitted."""
        return self._fitting is not None

    @property
    def embedding_layers(self) -> EmbeddingLayers | None:
        """The layers of codes, where there are any."""
        overlays = self._controller.overlays
        return None if overlays is None else overlays.embedding_layers

    def set_label(self, label: str) -> None:
        """Give labels of a class from now on, on codes that are shown; or none any more."""
        self.label = label.strip()
        if self.label and self.embedding_layers is not None:
            self.embedding_layers.colours.visible = True

    def add_label(self, image_layer: Image, point: tuple[float, float]) -> None:
        """Label a place, in level-0 pixels."""
        layer = self._layer_on(image_layer)
        tones = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in OKABE_ITO]
        colour = self._colours.setdefault(self.label, tones[len(self._colours) % len(tones)])
        layer.selected_data = set()
        layer.feature_defaults = pd.DataFrame([{"label": self.label}])
        layer.current_face_color = colour
        layer.current_size = LABEL_SIZE * screen_pixel(self._controller.viewer, image_layer)
        layer.add(np.array([point]) - 0.5)
        layer.selected_data = set()
        self._report_counts()

    def labels(self) -> list[Feature]:
        """Return what was labelled, in the order in which it was."""
        if self.layer is None:
            return []
        named = self.layer.features["label"]
        return [
            Feature("annotation", str(label), point=(float(y) + 0.5, float(x) + 0.5))
            for (y, x), label in zip(self.layer.data, named, strict=True)
        ]

    def fit(self) -> None:
        """Fit a head to the labels; `told` says what it is worth."""
        with self._controller.reporting_errors():
            coded, pack, labels = self.embedding_layers, self._controller.model, self.labels()
            if self._fitting is not None:
                return
            if coded is None or pack is None:
                raise HrviewerError("there are no codes to fit a head to: run compression first")
            codes, out = coded.embeddings, self._new_head_path(coded, pack)
            by = pack.roles["encoder"].name if "encoder" in pack.roles else ""
            kept = Embeddings(codes.values, codes.cell, by)
            self._fitting = self._executor.submit(fit_place_classifier, kept, labels, out)
            self.message_changed.emit("fitting…")

    def use_head(self) -> None:
        """Choose what was fitted, the pack that encoded with this head, and ask it."""
        with self._controller.reporting_errors():
            head, pack = self.head, self._controller.model
            if head is None or pack is None:
                raise HrviewerError("fit a head first")
            parts = pack.bundles if isinstance(pack, CombinedBundle) else (pack,)
            # Heads that were put in front before make room.
            rest = [part for part in parts if set(part.roles) != {"head"}]
            self._controller.set_model(CombinedBundle([ModelBundle.read(head.path), *rest]))
            if self._controller.strategy.id == "compression" and not self._controller.live.enabled:
                self._controller.start()  # Live asks by itself

    def tick(self) -> None:
        """Take in what was fitted, and whether there are codes; on the window's thread."""
        offered = self.embedding_layers is not None
        if offered != self._available:
            self._available = offered
            self.availability_changed.emit(offered)
        if self._fitting is not None and self._fitting.done():
            fitting, self._fitting = self._fitting, None
            self._report_counts()
            with self._controller.reporting_errors():
                self.head = fitting.result()
                self.message_changed.emit(
                    f"{self.head.training_summary}\nleft out: {self.head.validation_summary}"
                )

    def on_layer_removed(self, layer: Any) -> None:
        """Have no labels any more, if they or their image were taken away."""
        if self.layer is not None and layer in (self.layer, self._image_layer):
            labels, self.layer, self._image_layer = self.layer, None, None
            if labels in self._controller.viewer.layers:
                self._controller.viewer.layers.remove(labels)
            self._report_counts()

    def close(self) -> None:
        """End the thread."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _layer_on(self, image_layer: Image) -> Points:
        if self.layer is None or self._image_layer != image_layer:
            self.on_layer_removed(self.layer)
            self._image_layer = image_layer
            self.layer = Points(
                ndim=2,
                name="labels",
                features=pd.DataFrame({"label": np.empty(0, object)}),
                border_color="black",
                metadata={METADATA_KEY: {"overlay": "labels"}},
                **placement(image_layer, 1.0),
            )
            with keep_selection(self._controller.viewer):
                self._controller.viewer.add_layer(self.layer)
        return self.layer

    def _new_head_path(self, embedding_layers: EmbeddingLayers, model: ModelBundle) -> Path:
        """Claim a new folder for a head."""
        home = self._controller.run_folder or data_folder()
        return unused_path(home / "heads", f"{model.name}-labels")

    def _report_counts(self) -> None:
        counts = Counter(label.label for label in self.labels())
        self.message_changed.emit(", ".join(f"{n:,} {name}" for name, n in counts.items()))
