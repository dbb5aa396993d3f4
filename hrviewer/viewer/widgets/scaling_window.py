"""Cost against resolution in a window of its own: measured elsewhere, drawn as it comes to an end.

Invariant: another process measures, a thread waits for it, a timer asks the thread; closing the
window ends all three.
"""

from __future__ import annotations

import threading
from typing import Any

from qtpy.QtCore import QSize, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QComboBox, QDialog, QLineEdit, QPushButton, QVBoxLayout, QWidget

from hrviewer.engine import Control
from hrviewer.errors import UserError
from hrviewer.io.figures.plots import curves, dress
from hrviewer.models.memory_usage import host_room
from hrviewer.runs import Scaling, cost
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label, row
from hrviewer.viewer.widgets.compare_plot import Drawn, ink_of

__all__ = ["Costing"]

TICK = 100
"""Milliseconds between looks at the thread."""


class Curves(Drawn):
    """Three panels: FLOPs, seconds and memory against the side of a square input."""

    def show_scaling(self, found: Scaling) -> None:
        """Draw what was found."""
        if self.begin() is None:
            return
        ink, figure = ink_of(self.viewer), self.panel.figure
        figure.clear()
        panels = figure.subplots(1, 3)
        self.panel = panels[0]
        for panel in panels:
            dress(panel, ink)
        curves(panels, found.curves(), found.largest, ink)
        self.canvas.draw_idle()

    def sizeHint(self) -> QSize:
        """Three panels beside each other."""
        return QSize(1000, 330)


class Costing(QDialog):
    """What the chosen network takes at every size, and the largest that this machine takes.

    Parameters
    ----------
    controller : Controller
        Has the chosen network.
    parent : QWidget, optional
        Above which the window opens.
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.setWindowTitle("Cost against resolution")
        self.words = label("", "plain", wrap=True)
        self.memory = QLineEdit(f"{host_room() / 1e9:.1f}GB")
        self.memory.setToolTip("What it may take at most, as 4GB")
        self.memory.setMaximumWidth(90)
        self.role = QComboBox()
        self.role.setToolTip("Which of the model's networks")
        self.role.addItems(list(controller.pack.roles) if controller.pack else ["main"])
        self.go = QPushButton("Measure")
        self.plot = Curves(controller.viewer)
        layout = QVBoxLayout(self)
        layout.addLayout(
            row(self.role, label("Memory"), self.memory, self.go, self.words, stretch=3)
        )
        layout.addWidget(self.plot, 1)
        self.found: Scaling | None = None
        self._control: Control | None = None
        self._said: list[str] = []
        self._ended: list[Scaling | str] = []
        self.go.clicked.connect(self._press)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._say()

    @property
    def busy(self) -> bool:
        """Whether something is measured."""
        return self._control is not None

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """End what is measured."""
        self.end()
        super().closeEvent(event)

    def end(self) -> None:
        """Stop measuring."""
        if self._control is not None:
            self._control.stop()

    def _press(self) -> None:
        if self._control is not None:
            self.end()
            return
        pack = self.controller.pack
        if pack is None:
            self.words.setText("choose a model first")
            return
        memory, device = self.memory.text(), self.controller.device
        role = self.role.currentText()
        self._control = control = Control()
        self._said.clear()
        self._ended.clear()
        said, ended = self._said, self._ended

        def measure() -> None:
            try:
                ended.append(
                    cost(
                        pack,
                        role=role,
                        device=device,
                        memory=memory,
                        watch=said.append,
                        control=control,
                    )
                )
            except UserError as error:
                ended.append(str(error))

        threading.Thread(target=measure, name="hrviewer-cost", daemon=True).start()
        self._timer.start(TICK)
        self._say()

    def _tick(self) -> None:
        if not self._ended:
            self._say()
            return
        self._timer.stop()
        self._control = None
        ended: Any = self._ended.pop()
        if isinstance(ended, Scaling):
            self.found = ended
            self.plot.show_scaling(ended)
        self._say("" if isinstance(ended, Scaling) else ended)

    def _say(self, words: str = "") -> None:
        self.go.setText("Stop" if self.busy else "Measure")
        found = self.found
        if words:
            pass
        elif self.busy:
            words = f"measuring {self._said[-1]}" if self._said else "loading the network"
        elif found is not None and found.largest is not None:
            words = (
                f"the largest input is {found.largest:,} × {found.largest:,} pixels; "
                "all beyond is extrapolated"
            )
        elif found is None:
            words = "runs the network at growing sizes, elsewhere, until one does not fit"
        self.words.setText(words)
