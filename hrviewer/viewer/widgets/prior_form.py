"""What the strategy is told beforehand, where it takes that: a drawn layer, or the last run."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.prior_map import can_be_prior
from hrviewer.viewer.widgets.common import Form

__all__ = ["PriorForm"]

LAST_RUN = "the last run's output"


class PriorForm(Form):
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
        self.box.activated.connect(self._select)
        layers = controller.viewer.layers
        self._layer_events = [
            layers.events.inserted,
            layers.events.removed,
            layers.events.reordered,
        ]
        for source in self._layer_events:
            source.connect(self._fill)
        controller.strategy_changed.connect(self._fill)
        controller.image_layer_changed.connect(self._fill)
        controller.state_changed.connect(self._fill)
        self.destroyed.connect(self.disconnect_layers)
        self._fill()

    def disconnect_layers(self) -> None:
        """Hear no more of layers."""
        for source in self._layer_events:
            source.disconnect(self._fill)
        self._layer_events = []

    def _fill(self, event: object = None) -> None:
        controller = self.controller
        takes = controller.strategy.priors
        self.setVisible(bool(takes))
        self.box.clear()
        self.box.addItem("none", None)
        if "density" in takes and controller.run is not None:
            self.box.addItem(LAST_RUN, "run")
        if "saliency" in takes:
            for layer in controller.viewer.layers:
                if can_be_prior(layer, controller.image_layer):
                    self.box.addItem(layer.name, layer)
        chosen = range(self.box.count())
        at = next((i for i in chosen if self.box.itemData(i) == controller.prior), 0)
        self.box.setCurrentIndex(at)

    def _select(self) -> None:
        self.controller.prior = self.box.currentData()
