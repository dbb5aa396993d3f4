"""Switch of the ground truth, and the file that has it."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QWidget

from hrviewer.io.ground_truth import SUFFIXES
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["GroundTruthToggle"]


class GroundTruthToggle(QWidget):
    """Shows and hides the ground truth over the image.

    Parameters
    ----------
    controller : Controller
        Has the ground truth.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.checkbox = QCheckBox("Ground truth")
        self.checkbox.setToolTip(
            "Annotated objects: synthetic images have their own, other images need a file"
        )
        self.status = label("", "secondary")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.checkbox)
        layout.addWidget(self.status, 1)
        self.checkbox.clicked.connect(self._toggle)
        controller.state.ground_truth_status_changed.connect(self._show_status)

    def _toggle(self) -> None:
        if not self.checkbox.isChecked():
            self.controller.ground_truth_service.hide()
        elif self.controller.ground_truth_service.is_available:
            self.controller.ground_truth_service.show()
        else:
            path = self._choose_file()
            if path is not None:
                self.controller.ground_truth_service.show(path)
        self._show_checked()

    def _choose_file(self) -> Path | None:
        known = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        chosen, _ = QFileDialog.getOpenFileName(self, "Ground truth of this image", "", known)
        return Path(chosen) if chosen else None

    def _show_status(self, status: str) -> None:
        self._show_checked()
        self.status.setText(status)

    def _show_checked(self) -> None:
        image = self.controller.state.image
        self.checkbox.setChecked(image is not None and image.ground_truth is not None)
