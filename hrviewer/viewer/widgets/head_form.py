"""Labels of embeddings, and the head that is fitted to them."""

from __future__ import annotations

from qtpy.QtWidgets import QComboBox, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import heading, label, row

__all__ = ["HeadForm"]


class HeadForm(QWidget):
    """A part of the panel that is shown while there are embeddings.

    Parameters
    ----------
    controller : Controller
        Has the trainer.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.trainer = controller.head_trainer
        self.class_box = QComboBox()
        self.class_box.setEditable(True)
        self.class_box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.class_box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.class_box.lineEdit().setPlaceholderText("a class: tumour, lawn, …")
        self.label_button = QPushButton("Label")
        self.label_button.setCheckable(True)
        self.label_button.setToolTip("Clicks on the image label the embedding there")
        self.fit_button = QPushButton("Fit")
        self.fit_button.setToolTip("Fit a head that classifies the labelled classes")
        self.use_button = QPushButton("Use")
        self.use_button.setToolTip(
            "Run the fitted head: embeddings are computed, so it costs little"
        )
        self.message = label("", "secondary", wrap=True)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(5)
        layout.addWidget(heading("Labels of embeddings"))
        layout.addLayout(row(self.class_box, self.label_button))
        layout.addLayout(row(self.fit_button, self.use_button, stretch=None))
        layout.addWidget(self.message)
        self.label_button.toggled.connect(self._set_label)
        self.class_box.currentTextChanged.connect(self._set_label)
        self.fit_button.clicked.connect(self.trainer.fit)
        self.use_button.clicked.connect(self.trainer.use_head)
        self.trainer.availability_changed.connect(self._set_available)
        self.trainer.message_changed.connect(self._show_message)
        self.setVisible(False)
        self._show_message("")

    def _set_label(self) -> None:
        self.trainer.set_label(
            self.class_box.currentText() if self.label_button.isChecked() else ""
        )

    def _set_available(self, available: bool) -> None:
        self.setVisible(available)

    def _show_message(self, message: str) -> None:
        self.message.setText(message)
        for feature in self.trainer.labels():
            if self.class_box.findText(feature.label) < 0:
                self.class_box.addItem(feature.label)
        self.use_button.setEnabled(self.trainer.head is not None)
        self.fit_button.setEnabled(not self.trainer.is_running)
