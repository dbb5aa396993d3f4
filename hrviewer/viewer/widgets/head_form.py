"""Labels on codes: the class that a click gives, and the head that is fitted to them."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import heading, label, row

__all__ = ["LabelForm"]


class LabelForm(QWidget):
    """A part of the panel that is there while there are codes.

    Parameters
    ----------
    controller : Controller
        Takes the labels, and fits.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.labelling = controller.labelling
        self.box = QComboBox()
        self.box.setEditable(True)
        self.box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.box.lineEdit().setPlaceholderText("a class: tumour, lawn, …")
        self.clicks = QPushButton("Label")
        self.clicks.setCheckable(True)
        self.clicks.setToolTip("Clicks on the image label the code there")
        self.fit = QPushButton("Fit")
        self.fit.setToolTip("Fit a head that tells the labelled classes apart")
        self.use = QPushButton("Use")
        self.use.setToolTip("Ask the head that was fitted: the codes are there, it costs little")
        self.words = label("", "muted", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addWidget(heading("Labels on codes"))
        layout.addLayout(row(self.box, self.clicks))
        layout.addLayout(row(self.fit, self.use, stretch=None))
        layout.addWidget(self.words)
        self.clicks.toggled.connect(self._pick)
        self.box.currentTextChanged.connect(self._pick)
        self.fit.clicked.connect(self.labelling.fit)
        self.use.clicked.connect(self.labelling.use)
        self.labelling.offered.connect(self._offer)
        self.labelling.told.connect(self._tell)
        self.setVisible(False)
        self._tell("")

    def _pick(self) -> None:
        self.labelling.pick(self.box.currentText() if self.clicks.isChecked() else "")

    def _offer(self, offered: bool) -> None:
        self.setVisible(offered)

    def _tell(self, words: str) -> None:
        self.words.setText(words)
        for feature in self.labelling.labels():
            if self.box.findText(feature.label) < 0:
                self.box.addItem(feature.label)
        self.use.setEnabled(self.labelling.head is not None)
        self.fit.setEnabled(not self.labelling.busy)
