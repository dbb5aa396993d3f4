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

from hrviewer.engine import RunControl
from hrviewer.errors import HrviewerError
from hrviewer.io.figures.plots import plot_curves, style_axes
from hrviewer.models.memory_usage import available_memory
from hrviewer.runs import Scaling, cost
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label, row
from hrviewer.viewer.widgets.compare_plot import MplWidget, plot_theme

__all__ = ["ScalingWindow"]

POLL_MS = 100
"""Milliseconds between looks at the thread."""


class ScalingPlot(MplWidget):
    """Three panels: FLOPs, seconds and memory against the side of a square input."""

    def show_scaling(self, scaling: Scaling) -> None:
        """Draw what was found."""
        if self.prepare_axes() is None:
            return
        ink, figure = plot_theme(self.viewer), self.axes.figure
        figure.clear()
        panels = figure.subplots(1, 3)
        self.axes = panels[0]
        for panel in panels:
            style_axes(panel, ink)
        plot_curves(panels, scaling.curves(), scaling.largest, ink)
        self.canvas.draw_idle()

    def sizeHint(self) -> QSize:
        """Three panels beside each other."""
        return QSize(1000, 330)


class ScalingWindow(QDialog):
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
        self.message = label("", "plain", wrap=True)
        self.memory = QLineEdit(f"{available_memory() / 1e9:.1f}GB")
        self.memory.setToolTip("What it may take at most, as 4GB")
        self.memory.setMaximumWidth(90)
        self.role = QComboBox()
        self.role.setToolTip("Which of the model's networks")
        self.role.addItems(list(controller.model.roles) if controller.model else ["main"])
        self.measure_button = QPushButton("Measure")
        self.plot = ScalingPlot(controller.viewer)
        layout = QVBoxLayout(self)
        layout.addLayout(
            row(
                self.role,
                label("Memory"),
                self.memory,
                self.measure_button,
                self.message,
                stretch=3,
            )
        )
        layout.addWidget(self.plot, 1)
        self.scaling: Scaling | None = None
        self._control: RunControl | None = None
        self._messages: list[str] = []
        self._results: list[Scaling | str] = []
        self.measure_button.clicked.connect(self._start_or_stop)
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._show_message()

    @property
    def is_running(self) -> bool:
        """Whether something is measured."""
        return self._control is not None

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """End what is measured."""
        self.stop()
        super().closeEvent(event)

    def stop(self) -> None:
        """Stop measuring."""
        if self._control is not None:
            self._control.stop()

    def _start_or_stop(self) -> None:
        if self._control is not None:
            self.stop()
            return
        pack = self.controller.model
        if pack is None:
            self.message.setText("choose a model first")
            return
        memory, device = self.memory.text(), self.controller.device
        role = self.role.currentText()
        self._control = control = RunControl()
        self._messages.clear()
        self._results.clear()
        said, ended = self._messages, self._results

        def measure() -> None:
            try:
                ended.append(
                    cost(
                        pack,
                        role=role,
                        device=device,
                        memory=memory,
                        on_progress=said.append,
                        control=control,
                    )
                )
            except HrviewerError as error:
                ended.append(str(error))

        threading.Thread(target=measure, name="hrviewer-cost", daemon=True).start()
        self._timer.start(POLL_MS)
        self._show_message()

    def _tick(self) -> None:
        if not self._results:
            self._show_message()
            return
        self._timer.stop()
        self._control = None
        ended: Any = self._results.pop()
        if isinstance(ended, Scaling):
            self.scaling = ended
            self.plot.show_scaling(ended)
        self._show_message("" if isinstance(ended, Scaling) else ended)

    def _show_message(self, words: str = "") -> None:
        self.measure_button.setText("Stop" if self.is_running else "Measure")
        found = self.scaling
        if words:
            pass
        elif self.is_running:
            words = f"measuring {self._messages[-1]}" if self._messages else "loading the network"
        elif found is not None and found.largest is not None:
            words = (
                f"the largest input is {found.largest:,} × {found.largest:,} pixels; "
                "all beyond is extrapolated"
            )
        elif found is None:
            words = "runs the network at growing sizes, elsewhere, until one does not fit"
        self.message.setText(words)
