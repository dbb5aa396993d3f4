"""Button that opens a finished run."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import row

__all__ = ["OpenRunButton"]


class OpenRunButton(QWidget):
    """The last part of the panel.

    Parameters
    ----------
    controller : Controller
        Opens the run.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.button = QPushButton("Open run…")
        self.button.setToolTip("Show the overlays of a finished run")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.button, stretch=None))
        self.button.clicked.connect(self.choose_run)
        controller.state.overlays_replaced.connect(self.refresh)
        controller.state.run_state_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Enable the button while no run is in progress."""
        self.button.setEnabled(self.controller.state.run_state == "idle")

    def choose_run(self) -> None:
        """Let the user choose a run's folder."""
        folder = self.controller.resources.runs()
        path = QFileDialog.getExistingDirectory(
            self, "Open a run, NAME.run.zarr", str(folder) if folder.is_dir() else ""
        )
        if path:
            self.controller.run_loader.open(Path(path))
