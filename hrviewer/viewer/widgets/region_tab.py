"""The Regions tab: draw, name and measure regions; tissue and hot spots."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from hrviewer.app.settings import TissueKind
from hrviewer.units import format_area
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import Form, heading, label, row
from hrviewer.viewer.widgets.region_table import RegionTable

__all__ = ["RegionTab"]

TOOLS = {
    "Polygon": "add_polygon",
    "Freehand": "add_polygon_lasso",
    "Rectangle": "add_rectangle",
    "Ellipse": "add_ellipse",
}
"""napari's tools for shapes."""

TISSUE: dict[str, TissueKind] = {"off": "off", "found in the image": "auto", "from a file…": "file"}

FILES = "Outlines (*.geojson *.json *.csv *.xml *.gpkg *.shp)"


class RegionTab(QWidget):
    """The Regions tab.

    Parameters
    ----------
    controller : Controller
        Has the regions and their measurements.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.service = controller.region_service
        self.tool_buttons = {name: QPushButton(name) for name in TOOLS}
        self.import_button = QPushButton("From a file…")
        self.table = RegionTable(controller)
        self.sum_label = label("", "plain", wrap=True)
        self.tissue = QComboBox()
        for title, kind in TISSUE.items():
            self.tissue.addItem(title, kind)
        self.tissue_area = label("", "secondary", wrap=True)
        self.size_field = QLineEdit("1mm2")
        self.number_box = QSpinBox()
        self.number_box.setRange(1, 1000)
        self.number_box.setValue(5)
        self.find_button = QPushButton("Find")
        self.remove_button = QPushButton("Remove")
        self.export_button = QPushButton("Export table…")
        self.correct_button = QPushButton("Correct the predicted points")
        self.correct_button.setToolTip("Add, move and delete points on the annotation layer")
        self.undo_button = QPushButton("Undo")
        self.undo_button.setToolTip("Take back the last correction (Ctrl+Z)")
        self.corrections = label("", "plain", wrap=True)
        self.message = label("", "secondary", wrap=True)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(heading("Draw regions"))
        layout.addLayout(row(*self.tool_buttons.values(), stretch=None))
        layout.addWidget(self.table, 1)
        layout.addWidget(self.sum_label)
        layout.addLayout(
            row(self.import_button, self.remove_button, self.export_button, stretch=None)
        )
        form = Form()
        form.add(
            "Hot spots",
            row(self.size_field, self.number_box, self.find_button),
            "The fields of this area (0.2mm2, 1ha, 250000px) with most objects, and how many",
        )
        form.add(
            "Tissue",
            self.tissue,
            "Only tissue counts in the next runs; paint or erase it on its layer",
        )
        form.add("", self.tissue_area)
        layout.addWidget(form)
        layout.addLayout(row(self.correct_button, self.undo_button, stretch=0))
        layout.addWidget(self.corrections)
        layout.addWidget(self.message)

        for name, tool in TOOLS.items():
            self.tool_buttons[name].clicked.connect(lambda _=False, tool=tool: self.draw(tool))
        self.import_button.clicked.connect(self.choose_regions)
        self.remove_button.clicked.connect(self._remove)
        self.export_button.clicked.connect(self.choose_target)
        self.find_button.clicked.connect(self.find_hot_spots)
        self.size_field.returnPressed.connect(self.find_hot_spots)
        self.correct_button.clicked.connect(self._correct)
        self.undo_button.clicked.connect(controller.annotations.undo)
        self.tissue.activated.connect(self._set_tissue)
        self.table.itemSelectionChanged.connect(self._show_sum)
        self.service.rows_changed.connect(self._refresh)
        self.service.message_changed.connect(self._show_message)
        self.service.tissue_changed.connect(self._show_tissue)
        self._refresh()
        self._show_tissue()

    def draw(self, tool: str) -> None:
        """Let the user draw a region."""
        self.controller.draw_region(tool)

    def find_hot_spots(self) -> None:
        """Find the fullest fields of the displayed run."""
        self.service.find_hot_spots(self.size_field.text(), self.number_box.value())

    def choose_regions(self) -> None:
        """Let the user choose a file of regions."""
        path, _ = QFileDialog.getOpenFileName(self, "Regions of this image", "", FILES)
        if path:
            self.service.import_regions(Path(path))

    def choose_target(self) -> None:
        """Let the user choose the file of the table."""
        path, _ = QFileDialog.getSaveFileName(
            self, "Export the table of regions", "regions.csv",
            "Tables (*.csv *.parquet *.geojson)",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if path:
            self.service.export_table(Path(path))

    def _remove(self) -> None:
        self.controller.regions.remove(self.table.selected_rows())

    def _correct(self) -> None:
        run = self.controller.state.run
        label = next(iter(run.estimate["per_class"])) if run and run.estimate else "object"
        self.controller.annotation_service.annotate(
            "points", label, from_predictions=not self.service.corrections
        )

    def _set_tissue(self) -> None:
        kind: TissueKind = self.tissue.currentData()
        path = None
        if kind == "file":
            name, _ = QFileDialog.getOpenFileName(self, "Outline of the tissue", "", FILES)
            if not name:
                self._show_tissue()
                return
            path = Path(name)
        self.service.set_tissue(kind, path)

    def _show_message(self, message: str) -> None:
        self.message.setText(message)

    def _show_tissue(self) -> None:
        kind, image = self.controller.state.settings.tissue, self.controller.state.image
        self.tissue.setCurrentIndex(self.tissue.findData(kind))
        if kind == "off" or image is None:
            self.tissue_area.setText("all of the image counts")
        elif image.tissue is None:
            self.tissue_area.setText("looking for tissue…" if kind == "auto" else "reading…")
        else:
            area = format_area(image.tissue.area, self.service.pixel_size)
            part = image.tissue.area / image.source.rect.area
            self.tissue_area.setText(f"{area}, {part:.0%} of the image; runs count only this")

    def _refresh(self) -> None:
        has_run = self.controller.state.run is not None
        self.export_button.setEnabled(any(row.measured for row in self.service.rows))
        self.remove_button.setEnabled(bool(self.service.rows))
        self.find_button.setEnabled(has_run)
        self.correct_button.setEnabled(has_run)
        self.undo_button.setEnabled(self.controller.annotations.can_undo)
        self.corrections.setText(self.service.corrections)
        self._show_sum()

    def _show_sum(self) -> None:
        self.sum_label.setText(self.table.sum_text())
