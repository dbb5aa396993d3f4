"""What is really there: a switch, and the file it comes from."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QWidget

from hrviewer.io.ground_truth import SUFFIXES
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["GroundTruthToggle"]


class GroundTruthToggle(QWidget):
    """Shows and hides the truth over the image.

    Parameters
    ----------
    controller : Controller
        Has the image, and shows the points.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.checkbox = QCheckBox("Truth")
        self.checkbox.setToolTip("What is really there: a scene knows it, other images need a file")
        self.status = label("", "muted")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.checkbox)
        layout.addWidget(self.status, 1)
        self.checkbox.clicked.connect(self._toggle)
        controller.ground_truth_status_changed.connect(self._show_status)

    def _toggle(self) -> None:
        if not self.checkbox.isChecked():
            self.controller.hide_ground_truth()
        elif self.controller.has_ground_truth:
            self.controller.show_ground_truth()
        else:
            path = self._choose_file()
            if path is None:
                self.checkbox.setChecked(False)
            else:
                self.controller.show_ground_truth(path)

    def _choose_file(self) -> Path | None:
        known = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        chosen, _ = QFileDialog.getOpenFileName(self, "The truth of this image", "", known)
        return Path(chosen) if chosen else None

    def _show_status(self, words: str) -> None:
        self.checkbox.setChecked(self.controller.ground_truth_points is not None)
        self.status.setText(words)
