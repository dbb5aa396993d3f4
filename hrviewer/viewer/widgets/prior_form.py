"""What the strategy is told beforehand, where it takes that: a drawn layer, or the last run."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.prior_map import can_hint
from hrviewer.viewer.widgets.common import Form

__all__ = ["HintForm"]

LAST_RUN = "the last run's output"


class HintForm(Form):
    """A row that is there while the strategy takes hints.

    Parameters
    ----------
    controller : Controller
        Is told what was chosen.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.box = QComboBox()
        self.box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.add("Hint", self.box, "A layer that you drew, or what was seen before: look there")
        self.box.activated.connect(self._pick)
        layers = controller.viewer.layers
        self._sources = [layers.events.inserted, layers.events.removed, layers.events.reordered]
        for source in self._sources:
            source.connect(self._fill)
        controller.strategy_changed.connect(self._fill)
        controller.base_changed.connect(self._fill)
        controller.state_changed.connect(self._fill)
        self.destroyed.connect(self.disconnect_layers)
        self._fill()

    def disconnect_layers(self) -> None:
        """Hear no more of layers."""
        for source in self._sources:
            source.disconnect(self._fill)
        self._sources = []

    def _fill(self, event: object = None) -> None:
        controller = self.controller
        takes = controller.strategy.hints
        self.setVisible(bool(takes))
        self.box.clear()
        self.box.addItem("none", None)
        if "density" in takes and controller.run is not None:
            self.box.addItem(LAST_RUN, "run")
        if "saliency" in takes:
            for layer in controller.viewer.layers:
                if can_hint(layer, controller.base):
                    self.box.addItem(layer.name, layer)
        chosen = range(self.box.count())
        at = next((i for i in chosen if self.box.itemData(i) == controller.hint), 0)
        self.box.setCurrentIndex(at)

    def _pick(self) -> None:
        self.controller.hint = self.box.currentData()
