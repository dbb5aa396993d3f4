"""Button that opens an image: a file, a folder, or one of the last images and runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from qtpy.QtWidgets import QFileDialog, QMenu, QToolButton

from hrviewer.escaping import plain_text, printable
from hrviewer.viewer.controller import Controller

__all__ = ["OpenButton"]

MAX_TITLE = 48
"""Characters of a path in the menu."""


class OpenButton(QToolButton):
    """A click opens a file; the arrow beside it has a menu.

    Parameters
    ----------
    controller : Controller
        Opens images and runs.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.setText("…")
        self.setToolTip("Open an image; the arrow has folders, recent images and recent runs")
        self.setAccessibleName("Open an image")
        self.setPopupMode(QToolButton.ToolButtonPopupMode.MenuButtonPopup)
        self.setMinimumWidth(44)
        self.open_menu = QMenu(self)
        self.open_menu.setToolTipsVisible(True)
        self.open_menu.aboutToShow.connect(self.fill_menu)
        self.setMenu(self.open_menu)
        self.clicked.connect(self.choose_file)

    def choose_file(self) -> None:
        """Let the user choose an image's file."""
        path, _ = QFileDialog.getOpenFileName(self, "Open an image", self._start_folder())
        if path:
            self.controller.image_loader.open(path)

    def choose_folder(self) -> None:
        """Let the user choose an image that is a folder, as OME-Zarr, DICOM or MRXS."""
        path = QFileDialog.getExistingDirectory(self, "Open an image", self._start_folder())
        if path:
            self.controller.image_loader.open(path)

    def fill_menu(self) -> None:
        """List what was opened last."""
        menu, recent = self.open_menu, self.controller.recent_files
        menu.clear()
        menu.addAction("Open a file…", self.choose_file)
        menu.addAction("Open a folder (OME-Zarr, DICOM, plate)…", self.choose_folder)
        menu.addSection("Recent images")
        for place in recent.images:
            action = menu.addAction(
                shorten(place), partial(self.controller.image_loader.open, place)
            )
            action.setToolTip(plain_text(place))
        menu.addSection("Recent runs")
        for place in recent.runs:
            action = menu.addAction(
                shorten(Path(place).name.removesuffix(".run.zarr")),
                partial(self.controller.run_loader.open, place),
            )
            action.setToolTip(plain_text(place))
        forget = menu.addAction("Forget recent files", recent.clear)
        forget.setEnabled(bool(recent.images or recent.runs))

    def _start_folder(self) -> str:
        """Return the folder of the last image that was a file."""
        for place in self.controller.recent_files.images:
            if ":" not in place[2:] and Path(place).parent.is_dir():
                return str(Path(place).parent)
        return ""


def shorten(place: str) -> str:
    """Return the end of a path or address, which distinguishes it best."""
    text = place if len(place) <= MAX_TITLE else f"…{place[-MAX_TITLE:]}"
    return printable(text).replace("&", "&&")
