"""Selection of a prior map, for strategies that accept one: a drawn layer, or the last run."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QSizePolicy

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.prior_map import LayerPrior, can_be_prior
from hrviewer.viewer.widgets.common import Form

__all__ = ["PriorForm"]

LAST_RUN = "last run's density"


class PriorForm(Form):
    """A row that is shown while the strategy accepts prior maps.

    Parameters
    ----------
    controller : Controller
        Has the layers and the settings.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.box = QComboBox()
        self.box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        tip = "Prior map: a layer you drew, or a previous run's density"
        self.add("Prior map", self.box, tip)
        self.box.activated.connect(self._select)
        layers = controller.viewer.layers
        self._layer_events = [
            layers.events.inserted,
            layers.events.removed,
            layers.events.reordered,
        ]
        for source in self._layer_events:
            source.connect(self._fill)
        controller.state.strategy_changed.connect(self._fill)
        controller.state.image_changed.connect(self._fill)
        controller.state.run_state_changed.connect(self._fill)
        self.destroyed.connect(self.disconnect_layers)
        self._fill()

    def disconnect_layers(self) -> None:
        """Follow the layer list no more."""
        for source in self._layer_events:
            source.disconnect(self._fill)
        self._layer_events = []

    def _fill(self, event: object = None) -> None:
        controller = self.controller
        settings = controller.state.settings
        accepted = settings.strategy.priors
        self.setVisible(bool(accepted))
        self.box.clear()
        self.box.addItem("none", None)
        if "density" in accepted and controller.state.run is not None:
            self.box.addItem(LAST_RUN, "run")
        if "saliency" in accepted:
            for layer in controller.viewer.layers:
                if can_be_prior(layer, controller.image_layer):
                    self.box.addItem(layer.name, LayerPrior(controller.viewer, layer))
        rows = range(self.box.count())
        at = next((i for i in rows if self.box.itemData(i) == settings.prior), 0)
        self.box.setCurrentIndex(at)

    def _select(self) -> None:
        self.controller.state.settings.prior = self.box.currentData()
