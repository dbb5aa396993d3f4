"""Cost against image size in a window: measured in another process, drawn at its end.

Invariant: another process measures and a worker thread waits for it; closing the window ends both.
"""

from __future__ import annotations

from qtpy.QtCore import QSize
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QComboBox, QDialog, QLineEdit, QPushButton, QVBoxLayout, QWidget

from hrviewer.app.services.background import Task
from hrviewer.engine import RunControl
from hrviewer.errors import format_error
from hrviewer.io.figures.plots import plot_curves, style_axes
from hrviewer.models.memory_usage import available_memory
from hrviewer.runs import Scaling, cost
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label, row
from hrviewer.viewer.widgets.compare_plot import MplWidget, plot_theme

__all__ = ["ScalingWindow"]


class ScalingPlot(MplWidget):
    """Three panels: FLOPs, seconds and memory against the side of a square input."""

    def show_scaling(self, scaling: Scaling) -> None:
        """Draw a measurement."""
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
    """Cost of the selected model at every image size, and the largest size that fits.

    Parameters
    ----------
    controller : Controller
        Has the selected model.
    parent : QWidget, optional
        The widget above which the window opens.
    """

    def __init__(self, controller: Controller, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.controller = controller
        self.setWindowTitle("Cost against resolution")
        self.message = label("", "plain", wrap=True)
        self.memory = QLineEdit(f"{available_memory() / 1e9:.1f}GB")
        self.memory.setToolTip("Limit of memory, as 4GB")
        self.memory.setMaximumWidth(90)
        self.role = QComboBox()
        self.role.setToolTip("Role of the measured network")
        self._list_roles()
        controller.state.model_changed.connect(self._list_roles)
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
        self._task: Task[Scaling] | None = None
        self._size = ""
        self.measure_button.clicked.connect(self._start_or_stop)
        self._show_message()

    @property
    def is_running(self) -> bool:
        """Whether a measurement is in progress."""
        return self._task is not None and self._task.is_pending

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """End the measurement."""
        self.stop()
        super().closeEvent(event)

    def stop(self) -> None:
        """Stop measuring."""
        if self._control is not None:
            self._control.stop()

    def _list_roles(self) -> None:
        """List the roles of the selected model; the selected role stays if it has it."""
        model, selected = self.controller.state.settings.model, self.role.currentText()
        self.role.clear()
        self.role.addItems(list(model.roles) if model else ["main"])
        self.role.setCurrentIndex(max(0, self.role.findText(selected)))

    def _start_or_stop(self) -> None:
        if self.is_running:
            self.stop()
            return
        settings = self.controller.state.settings
        model = settings.model
        if model is None:
            self.message.setText("choose a model first")
            return
        memory, role, device = self.memory.text(), self.role.currentText(), settings.device
        self._control, self._size = RunControl(), ""
        control = self._control

        def measure(task: Task[Scaling]) -> Scaling:
            return cost(
                model,
                role=role,
                device=device,
                memory=memory,
                on_progress=task.report,
                control=control,
            )

        self._task = self.controller.background.submit(
            "cost", measure, self._show_scaling, failed=self._show_error, progress=self._show_size
        )
        self._show_message()

    def _show_size(self, size: str) -> None:
        self._size = size
        self._show_message()

    def _show_scaling(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self.plot.show_scaling(scaling)
        self._show_message()

    def _show_error(self, error: Exception) -> None:
        self._show_message(format_error(error))

    def _show_message(self, message: str = "") -> None:
        self.measure_button.setText("Stop" if self.is_running else "Measure")
        found = self.scaling
        if not message and self.is_running:
            message = f"measuring {self._size}" if self._size else "loading the model"
        elif not message and found is not None and found.largest is not None:
            message = (
                f"the largest input is {found.largest:,} × {found.largest:,} pixels; "
                "larger sizes are extrapolated"
            )
        elif not message and found is None:
            message = (
                "runs the network at growing sizes, in another process, until one is too large"
            )
        self.message.setText(message)
