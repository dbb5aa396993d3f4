"""Runs as files: opening one, exporting the last one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton, QVBoxLayout, QWidget

from hrviewer.exchange import FORMATS
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.panel.parts import row

__all__ = ["Files"]


class Files(QWidget):
    """The lowest part of the panel.

    Parameters
    ----------
    controller : Controller
        Opens and exports.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.open = QPushButton("Open run…")
        self.open.setToolTip("Bring a run's overlays back")
        self.export = QPushButton("Export run")
        self.export.setToolTip("Write this run for other programs")
        self.menu = QMenu(self.export)
        for name, form in FORMATS.items():
            action = self.menu.addAction(f"{name}: {form.what}…")
            action.triggered.connect(partial(self.ask_target, name))
        self.export.setMenu(self.menu)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(row(self.open, self.export, stretch=None))
        self.open.clicked.connect(self.ask_run)
        controller.overlays_changed.connect(self.refresh)
        controller.state_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Offer what can be done now."""
        idle = self.controller.state == "idle"
        self.open.setEnabled(idle)
        self.export.setEnabled(idle and self.controller.run is not None)

    def ask_run(self) -> None:
        """Let the person choose a run's folder."""
        path = QFileDialog.getExistingDirectory(self, "Open a run, NAME.run.zarr")
        if path:
            self.controller.open_run(Path(path))

    def ask_target(self, name: str, checked: bool = False) -> None:
        """Let the person choose where to export to."""
        run = self.controller.run
        if run is None:
            return
        suffix = FORMATS[name].suffixes[0]
        proposed = run.path.with_name(run.path.name.removesuffix(".run.zarr") + suffix)
        path, _ = QFileDialog.getSaveFileName(self, f"Export as {name}", str(proposed))
        if path:
            self.controller.export(path, name)
