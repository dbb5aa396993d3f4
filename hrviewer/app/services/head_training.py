"""A few labels put on codes by clicks, and the head that is fitted to them.

While a class is picked, a click where codes are shown labels the code there, instead of asking
what looks like it. Labels are a layer of points, from which the person may take some away again.

Invariants: fitting happens beside the window's thread; a head is fitted to the codes on the
screen, so also live, before any run; what it makes is a pack like any other.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from napari.layers import Image, Points
from platformdirs import user_data_path
from psygnal import Signal

from hrviewer.errors import UserError
from hrviewer.io.features import Feature
from hrviewer.io.geojson import OKABE_ITO
from hrviewer.models import JoinedPack, Pack
from hrviewer.runs.heads import Fitted, Kept, fit_classes
from hrviewer.viewer.image.geometry import screen_pixel
from hrviewer.viewer.image.image_layer import KEY, placement
from hrviewer.viewer.layers.embedding_layers import Coded
from hrviewer.viewer.layers.layer_list import keep_selection

if TYPE_CHECKING:
    from hrviewer.viewer.controller import Controller

__all__ = ["Labelling"]

SIZE = 10.0
"""Of a label, in screen pixels when it is put."""


class Labelling:
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

    offered = Signal(bool)
    told = Signal(str)

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.label = ""
        self.layer: Points | None = None
        self.head: Fitted | None = None
        self._base: Image | None = None
        self._colours: dict[str, str] = {}
        self._offered = False
        self._worker = ThreadPoolExecutor(1, "hrviewer-fit")
        self._fitting: Future[Fitted] | None = None

    @property
    def busy(self) -> bool:
        """Whether a head is being fitted."""
        return self._fitting is not None

    @property
    def coded(self) -> Coded | None:
        """The layers of codes, where there are any."""
        overlays = self._controller.overlays
        return None if overlays is None else overlays.coded

    def pick(self, label: str) -> None:
        """Give labels of a class from now on, on codes that are shown; or none any more."""
        self.label = label.strip()
        if self.label and self.coded is not None:
            self.coded.colours.visible = True

    def put(self, base: Image, point: tuple[float, float]) -> None:
        """Label a place, in level-0 pixels."""
        layer = self._layer_on(base)
        tones = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in OKABE_ITO]
        colour = self._colours.setdefault(self.label, tones[len(self._colours) % len(tones)])
        layer.selected_data = set()
        layer.feature_defaults = pd.DataFrame([{"label": self.label}])
        layer.current_face_color = colour
        layer.current_size = SIZE * screen_pixel(self._controller.viewer, base)
        layer.add(np.array([point]) - 0.5)
        layer.selected_data = set()
        self._tell()

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
        with self._controller.telling():
            coded, pack, labels = self.coded, self._controller.pack, self.labels()
            if self._fitting is not None:
                return
            if coded is None or pack is None:
                raise UserError("there are no codes to fit a head to: run compression first")
            codes, out = coded.codes, self._place(coded, pack)
            by = pack.roles["encoder"].name if "encoder" in pack.roles else ""
            kept = Kept(codes.values, codes.cell, by)
            self._fitting = self._worker.submit(fit_classes, kept, labels, out)
            self.told.emit("fitting…")

    def use(self) -> None:
        """Choose what was fitted, the pack that encoded with this head, and ask it."""
        with self._controller.telling():
            head, pack = self.head, self._controller.pack
            if head is None or pack is None:
                raise UserError("fit a head first")
            parts = pack.packs if isinstance(pack, JoinedPack) else (pack,)
            # Heads that were put in front before make room.
            rest = [part for part in parts if set(part.roles) != {"head"}]
            self._controller.use_pack(JoinedPack([Pack.read(head.path), *rest]))
            if self._controller.strategy.id == "compression" and not self._controller.live.on:
                self._controller.start()  # Live asks by itself

    def tick(self) -> None:
        """Take in what was fitted, and whether there are codes; on the window's thread."""
        offered = self.coded is not None
        if offered != self._offered:
            self._offered = offered
            self.offered.emit(offered)
        if self._fitting is not None and self._fitting.done():
            fitting, self._fitting = self._fitting, None
            self._tell()
            with self._controller.telling():
                self.head = fitting.result()
                self.told.emit(f"{self.head.learned}\nleft out: {self.head.left_out}")

    def forget(self, layer: Any) -> None:
        """Have no labels any more, if they or their image were taken away."""
        if self.layer is not None and layer in (self.layer, self._base):
            labels, self.layer, self._base = self.layer, None, None
            if labels in self._controller.viewer.layers:
                self._controller.viewer.layers.remove(labels)
            self._tell()

    def close(self) -> None:
        """End the thread."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _layer_on(self, base: Image) -> Points:
        if self.layer is None or self._base != base:
            self.forget(self.layer)
            self._base = base
            self.layer = Points(
                ndim=2,
                name="labels",
                features=pd.DataFrame({"label": np.empty(0, object)}),
                border_color="black",
                metadata={KEY: {"overlay": "labels"}},
                **placement(base, 1.0),
            )
            with keep_selection(self._controller.viewer):
                self._controller.viewer.add_layer(self.layer)
        return self.layer

    def _place(self, coded: Coded, pack: Pack) -> Path:
        """Return a folder for a head that does not exist yet."""
        home = self._controller.folder or user_data_path("hrviewer")
        stem = re.sub(r"[^\w.-]+", "_", pack.name)
        number = 1
        while (path := home / "heads" / f"{stem}-labels-{number}").exists():
            number += 1
        return path

    def _tell(self) -> None:
        counts = Counter(label.label for label in self.labels())
        self.told.emit(", ".join(f"{n:,} {name}" for name, n in counts.items()))
