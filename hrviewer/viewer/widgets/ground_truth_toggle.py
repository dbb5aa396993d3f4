"""What is really there: a switch, and the file it comes from."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QCheckBox, QFileDialog, QHBoxLayout, QWidget

from hrviewer.io.ground_truth import SUFFIXES
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["TruthSwitch"]


class TruthSwitch(QWidget):
    """Shows and hides the truth over the image.

    Parameters
    ----------
    controller : Controller
        Has the image, and shows the points.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.shown = QCheckBox("Truth")
        self.shown.setToolTip("What is really there: a scene knows it, other images need a file")
        self.words = label("", "muted")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.shown)
        layout.addWidget(self.words, 1)
        self.shown.clicked.connect(self._toggle)
        controller.truth_told.connect(self._tell)

    def _toggle(self) -> None:
        if not self.shown.isChecked():
            self.controller.hide_truth()
        elif self.controller.knows_truth:
            self.controller.show_truth()
        else:
            path = self._ask()
            if path is None:
                self.shown.setChecked(False)
            else:
                self.controller.show_truth(path)

    def _ask(self) -> Path | None:
        known = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        chosen, _ = QFileDialog.getOpenFileName(self, "The truth of this image", "", known)
        return Path(chosen) if chosen else None

    def _tell(self, words: str) -> None:
        self.shown.setChecked(self.controller.truth is not None)
        self.words.setText(words)
