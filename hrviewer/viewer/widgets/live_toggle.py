"""Live: a switch, and what comes of it in one line."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["Following"]

HINT = "looks at what is visible as you pan and zoom; a run switches it off"


class Following(QWidget):
    """The part of the panel between what is chosen and what is run.

    Parameters
    ----------
    controller : Controller
        Follows the view.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.switch = QCheckBox("Live")
        self.switch.setToolTip(
            "Follow the view: cells in the middle come first, what was seen is kept, the budget "
            "is that of the whole image, shared out by area (F8)"
        )
        self.words = label(HINT, "muted", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.switch)
        layout.addWidget(self.words)
        self.switch.clicked.connect(self._turn)
        controller.live_changed.connect(self._show)
        controller.live_told.connect(self._say)
        controller.state_changed.connect(self._show_state)
        self._show(controller.live.on)

    def _turn(self) -> None:
        self.controller.live.turn(self.switch.isChecked())
        self._show(self.controller.live.on)

    def _show(self, on: bool) -> None:
        self.switch.setChecked(on)

    def _show_state(self, state: str) -> None:
        self.switch.setEnabled(state == "idle")

    def _say(self, words: str) -> None:
        self.words.setText(words or HINT)
