"""Runs as files: opening one."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QPushButton, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import row

__all__ = ["OpenRunButton"]


class OpenRunButton(QWidget):
    """The lowest part of the panel.

    Parameters
    ----------
    controller : Controller
        Opens it.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.button = QPushButton("Open run…")
        self.button.setToolTip("Bring a run's overlays back")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.button, stretch=None))
        self.button.clicked.connect(self.choose_run)
        controller.overlays_changed.connect(self.refresh)
        controller.state_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Offer what can be done now."""
        self.button.setEnabled(self.controller.state == "idle")

    def choose_run(self) -> None:
        """Let the person choose a run's folder."""
        path = QFileDialog.getExistingDirectory(self, "Open a run, NAME.run.zarr")
        if path:
            self.controller.open_run(Path(path))
