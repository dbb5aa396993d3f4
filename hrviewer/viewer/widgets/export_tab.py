"""The Export tab: a run for other programs, and what a person draws over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from hrviewer.io import FORMATS
from hrviewer.io.ground_truth import SUFFIXES
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import Form, heading, label, row
from hrviewer.viewer.widgets.params_form import ParamsForm

__all__ = ["ExportTab"]


class ExportTab(QWidget):
    """Format, options, place, progress; below them the annotations.

    Parameters
    ----------
    controller : Controller
        Has the run, exports it, keeps what is drawn.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.format = QComboBox()
        for name in FORMATS:
            self.format.addItem(name)
        self.what = label("", "muted", wrap=True)
        self.path = QLineEdit()
        self.path.setPlaceholderText("where")
        self.choose = QPushButton("…")
        self.choose.setFixedWidth(32)
        self.export = QPushButton("Export")
        self.export.setProperty("voice", "first")
        self.stop = QPushButton("Stop")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.words = label("", "muted", wrap=True)
        self.options: ParamsForm | None = None
        self._chosen: dict[str, Any] = {}

        form = Form()
        form.add("Format", self.format)
        form.add("", self.what)
        self._options = QVBoxLayout()
        place = Form()
        place.add("To", row(self.path, self.choose))

        self.label = QLineEdit("object")
        self.shapes = QPushButton("Draw shapes")
        self.points = QPushButton("Mark points")
        self.correct = QPushButton("Correct the network's points")
        self.correct.setToolTip("Make annotations of the objects that the network found")
        self.bring = QPushButton("Bring in a file…")
        self.bring.setToolTip("Shapes and points of QuPath, COCO, the Digital Slide Archive, …")
        self.kept = label("", "muted", wrap=True)
        drawing = Form()
        drawing.add("Class", self.label)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(heading("This run for other programs"))
        layout.addWidget(form)
        layout.addLayout(self._options)
        layout.addWidget(place)
        layout.addLayout(row(self.export, self.stop, stretch=None))
        layout.addWidget(self.bar)
        layout.addWidget(self.words)
        layout.addWidget(heading("Annotations"))
        layout.addWidget(drawing)
        layout.addLayout(row(self.shapes, self.points, stretch=None))
        layout.addWidget(self.correct)
        layout.addWidget(self.bring)
        layout.addWidget(self.kept)
        layout.addStretch(1)

        self.format.currentTextChanged.connect(self._use_format)
        self.choose.clicked.connect(self.ask_target)
        self.export.clicked.connect(self._export)
        self.stop.clicked.connect(self._stop)
        self.shapes.clicked.connect(self._draw_shapes)
        self.points.clicked.connect(self._mark_points)
        self.correct.clicked.connect(self._correct)
        self.bring.clicked.connect(self.ask_file)
        controller.overlays_changed.connect(self.refresh)
        controller.state_changed.connect(self._on_state)
        controller.exported.connect(self._on_exported)
        controller.annotated.connect(self._on_annotated)
        self._use_format(self.format.currentText())

    def refresh(self) -> None:
        """Offer what can be done now."""
        run, idle = self.controller.run, self.controller.state == "idle"
        at_work = self.controller.exporting
        ready = run is not None and idle
        self.export.setEnabled(ready and not at_work)
        self.stop.setEnabled(at_work)
        for button in (self.shapes, self.points, self.correct):
            button.setEnabled(ready)
        if not at_work:
            self._propose()
        if run is None:
            self.words.setText("Run a strategy, or open a run: then it can be exported")
        elif self.words.text().startswith("Run a strategy"):
            self.words.setText("")

    def ask_target(self) -> None:
        """Let the person choose where to export to."""
        # Nothing is ever overwritten: Qt need not ask.
        path, _ = QFileDialog.getSaveFileName(
            self, "Export as", self.path.text(),
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if path:
            self.path.setText(path)

    def ask_file(self) -> None:
        """Let the person choose a file of shapes and points."""
        known = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        path, _ = QFileDialog.getOpenFileName(self, "Shapes and points of this image", "", known)
        if path:
            self.controller.bring_in(Path(path))

    def _use_format(self, name: str) -> None:
        form = FORMATS[name]
        self.what.setText(form.what)
        if self.options is not None:
            self._options.removeWidget(self.options)
            self.options.deleteLater()
        self._chosen = {}
        self.options = ParamsForm(form.settings, self._take)
        self._options.addWidget(self.options)
        self.path.clear()
        self.refresh()

    def _take(self, values: dict[str, Any]) -> None:
        self._chosen = values

    def _propose(self) -> None:
        """Name a file beside the run that is not there yet, unless the person named one."""
        run = self.controller.run
        if run is None or (self.path.text() and self.path.isModified()):
            return
        suffix = FORMATS[self.format.currentText()].suffixes[0]
        stem = run.path.name.removesuffix(".run.zarr")
        proposed, number = run.path.with_name(stem + suffix), 1
        while proposed.exists():
            number += 1
            proposed = run.path.with_name(f"{stem}-{number}{suffix}")
        self.path.setText(str(proposed))

    def _export(self) -> None:
        if self.path.text():
            self.controller.export(self.path.text(), self.format.currentText(), **self._chosen)
            self.refresh()

    def _stop(self) -> None:
        self.controller.stop_export()

    def _on_state(self, state: str) -> None:
        self.refresh()

    def _on_exported(self, fraction: float, words: str) -> None:
        self.bar.setValue(round(1000 * fraction))
        self.words.setText(words)
        if not self.controller.exporting:
            self.path.clear()
            self.refresh()

    def _on_annotated(self, words: str) -> None:
        self.kept.setText(words)

    def _draw_shapes(self) -> None:
        self.controller.annotate("shapes", self.label.text())

    def _mark_points(self) -> None:
        self.controller.annotate("points", self.label.text())

    def _correct(self) -> None:
        self.controller.annotate("points", self.label.text(), correct=True)
