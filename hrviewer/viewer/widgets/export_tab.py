"""The Export tab: export of a run, and annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from hrviewer.io import get_writer, writer_names
from hrviewer.io.figures.view_figure import FIGURE_SUFFIXES
from hrviewer.io.ground_truth import SUFFIXES
from hrviewer.paths import unused_path
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
        self.format.addItems(writer_names())
        self.format.setCurrentText("geojson")
        self.description = label("", "secondary", wrap=True)
        self.path = QLineEdit()
        self.path.setPlaceholderText("where")
        self.browse_button = QPushButton("…")
        self.browse_button.setFixedWidth(32)
        self.export_button = QPushButton("Export")
        self.export_button.setProperty("role", "primary")
        self.stop_button = QPushButton("Stop")
        self.progress_bar = QProgressBar()
        self.progress_bar.setRange(0, 1000)
        self.progress_bar.setTextVisible(False)
        self.progress_bar.setFixedHeight(6)
        self.status = label("", "secondary", wrap=True)
        self.options: ParamsForm | None = None
        self._option_values: dict[str, Any] = {}

        form = Form()
        form.add("Format", self.format)
        form.add("", self.description)
        self._options_layout = QVBoxLayout()
        place = Form()
        place.add("To", row(self.path, self.browse_button))

        self.figure_dpi, self.figure_inches = QSpinBox(), QDoubleSpinBox()
        self.figure_dpi.setRange(50, 1200)
        self.figure_dpi.setValue(300)
        self.figure_dpi.setSuffix(" dpi")
        self.figure_dpi.setAccessibleName("Resolution of the figure")
        self.figure_inches.setRange(1, 40)
        self.figure_inches.setDecimals(1)
        self.figure_inches.setValue(7)
        self.figure_inches.setSuffix(" inches")
        self.figure_inches.setAccessibleName("Width of the figure")
        self.figure_button = QPushButton("Export figure…")
        self.figure_button.setToolTip(
            "What is on the screen, with legend, scale bar and caption, as PNG, SVG or PDF"
        )

        self.class_field = QLineEdit("object")
        self.shapes_button = QPushButton("Draw shapes")
        self.points_button = QPushButton("Mark points")
        self.correct_button = QPushButton("Correct the predicted points")
        self.correct_button.setToolTip("Make annotations of the detected objects")
        self.import_button = QPushButton("Import a file…")
        self.import_button.setToolTip(
            "Shapes and points of QuPath, COCO, the Digital Slide Archive, …"
        )
        self.annotation_status = label("", "secondary", wrap=True)
        drawing = Form()
        drawing.add("Class", self.class_field)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(heading("Export this run"))
        layout.addWidget(form)
        layout.addLayout(self._options_layout)
        layout.addWidget(place)
        layout.addLayout(row(self.export_button, self.stop_button, stretch=None))
        layout.addWidget(self.progress_bar)
        layout.addWidget(self.status)
        layout.addWidget(heading("Figure of the view"))
        layout.addLayout(row(self.figure_dpi, self.figure_inches, stretch=None))
        layout.addWidget(self.figure_button)
        layout.addWidget(heading("Annotations"))
        layout.addWidget(drawing)
        layout.addLayout(row(self.shapes_button, self.points_button, stretch=None))
        layout.addWidget(self.correct_button)
        layout.addWidget(self.import_button)
        layout.addWidget(self.annotation_status)
        layout.addStretch(1)

        self.format.currentTextChanged.connect(self._use_format)
        self.browse_button.clicked.connect(self.choose_target)
        self.export_button.clicked.connect(self._export)
        self.figure_button.clicked.connect(self.choose_figure)
        self.stop_button.clicked.connect(self._stop)
        self.shapes_button.clicked.connect(self._draw_shapes)
        self.points_button.clicked.connect(self._mark_points)
        self.correct_button.clicked.connect(self._correct_predictions)
        self.import_button.clicked.connect(self.choose_annotations)
        controller.state.overlays_replaced.connect(self.refresh)
        controller.state.image_changed.connect(self.refresh)
        controller.state.run_state_changed.connect(self._on_state)
        controller.state.export_progress_changed.connect(self._on_progress)
        controller.state.annotations_saved.connect(self._on_annotations_saved)
        self._use_format(self.format.currentText())

    def refresh(self) -> None:
        """Enable what can be done."""
        run, idle = self.controller.state.run, self.controller.state.run_state == "idle"
        exporting = self.controller.export_service.is_running
        ready = run is not None and idle
        self.export_button.setEnabled(ready and not exporting)
        self.stop_button.setEnabled(exporting)
        self.figure_button.setEnabled(self.controller.state.image is not None and not exporting)
        for button in (self.shapes_button, self.points_button, self.correct_button):
            button.setEnabled(ready)
        if not exporting:
            self._propose_path()
        if run is None:
            self.status.setText("Run a strategy, or open a run: then it can be exported")
        elif self.status.text().startswith("Run a strategy"):
            self.status.setText("")

    def choose_target(self) -> None:
        """Let the user choose the target of the export."""
        # Exports overwrite nothing: Qt need not ask.
        path, _ = QFileDialog.getSaveFileName(
            self, "Export as", self.path.text(),
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if path:
            self.path.setText(path)
            self.path.setModified(True)  # the user's: it stays

    def choose_figure(self) -> None:
        """Let the user choose the file of a figure of the view, and write it."""
        run = self.controller.state.run
        start = Path.cwd() if run is None else run.path.parent
        kinds = ";;".join(f"{suffix[1:].upper()} (*{suffix})" for suffix in FIGURE_SUFFIXES)
        path, kind = QFileDialog.getSaveFileName(
            self, "Export figure", str(start / "figure.png"), kinds,
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if not path:
            return
        if Path(path).suffix.lower() not in FIGURE_SUFFIXES:
            path += f".{kind.split()[0].lower()}"
        self.controller.export_figure(
            Path(path), dpi=self.figure_dpi.value(), inches=self.figure_inches.value()
        )
        self.refresh()

    def choose_annotations(self) -> None:
        """Let the user choose a file of shapes and points."""
        known = " ".join(f"*{suffix}" for suffix in SUFFIXES)
        path, _ = QFileDialog.getOpenFileName(self, "Shapes and points of this image", "", known)
        if path:
            self.controller.annotation_service.import_file(Path(path))

    def _use_format(self, name: str) -> None:
        writer = get_writer(name)
        self.description.setText(writer.description)
        if self.options is not None:
            self._options_layout.removeWidget(self.options)
            self.options.deleteLater()
        self._option_values = {}
        self.options = ParamsForm(writer.Settings, self._set_options)
        self._options_layout.addWidget(self.options)
        self.path.clear()
        self.refresh()

    def _set_options(self, values: dict[str, Any]) -> None:
        self._option_values = values

    def _propose_path(self) -> None:
        """Propose a new file beside the run, unless the user named one."""
        run = self.controller.state.run
        if run is None or (self.path.text() and self.path.isModified()):
            return
        suffix = get_writer(self.format.currentText()).suffixes[0]
        stem = run.path.name.removesuffix(".run.zarr")
        proposed = unused_path(run.path.parent, stem, suffix, claim=False)
        self.path.setText(str(proposed))

    def _export(self) -> None:
        if self.path.text():
            self.controller.export_service.export(
                self.path.text(), self.format.currentText(), **self._option_values
            )
            self.refresh()

    def _stop(self) -> None:
        self.controller.export_service.stop()

    def _on_state(self, state: str) -> None:
        self.refresh()

    def _on_progress(self, fraction: float, message: str) -> None:
        self.progress_bar.setValue(round(1000 * fraction))
        self.status.setText(message)
        if not self.controller.export_service.is_running:
            if fraction >= 1:  # after a failure the user's path stays
                self.path.setText("")
            self.refresh()

    def _on_annotations_saved(self, message: str) -> None:
        self.annotation_status.setText(message)

    def _draw_shapes(self) -> None:
        self.controller.annotation_service.annotate("shapes", self.class_field.text())

    def _mark_points(self) -> None:
        self.controller.annotation_service.annotate("points", self.class_field.text())

    def _correct_predictions(self) -> None:
        service = self.controller.annotation_service
        service.annotate("points", self.class_field.text(), from_predictions=True)
