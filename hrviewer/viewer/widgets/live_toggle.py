"""Switch of Live, with its status in one line."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QWidget

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import ElidedLabel

__all__ = ["LiveToggle"]

HELP = "inference on the view as you pan and zoom; a run switches it off"


class LiveToggle(QWidget):
    """The part of the panel between the settings and the run.

    Parameters
    ----------
    controller : Controller
        Has Live.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.checkbox = QCheckBox("Live")
        self.checkbox.setToolTip(
            "Inference follows the view: its middle comes first, results are cached, the budget of "
            "the whole image is divided by area (F8)"
        )
        self.status = ElidedLabel(lines=2)
        self.status.setText(HELP)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addWidget(self.checkbox)
        layout.addWidget(self.status, 1)
        self.checkbox.clicked.connect(self._toggle)
        controller.state.live_changed.connect(self._show)
        controller.state.live_status_changed.connect(self._show_status)
        controller.state.run_state_changed.connect(self._show_state)
        self._show(controller.live.enabled)

    def _toggle(self) -> None:
        self.controller.live.set_enabled(self.checkbox.isChecked())
        self._show(self.controller.live.enabled)

    def _show(self, on: bool) -> None:
        self.checkbox.setChecked(on)

    def _show_state(self, state: str) -> None:
        self.checkbox.setEnabled(state == "idle")

    def _show_status(self, status: str) -> None:
        self.status.setText(status or HELP)
