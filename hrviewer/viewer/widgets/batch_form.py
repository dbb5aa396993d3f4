"""A batch of the listed images: start, stop, progress, totals, a histogram, export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from hrviewer.app.services.batch_service import BatchService
from hrviewer.formatting import format_range, pluralize
from hrviewer.io.figures.plots import draw_histogram
from hrviewer.models.threads import available_cores
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import ElidedLabel, label, row
from hrviewer.viewer.widgets.compare_plot import MplWidget

__all__ = ["BatchForm"]

KINDS = "Table (*.parquet);;Table (*.csv);;Report (*.html)"
RANGES = "in brackets: 95 % intervals for exhaustive inference"
MAX_FOLDERS = 4
"""Folders whose totals are listed."""


class Histogram(MplWidget):
    """How many images have which value."""

    def draw(self, values: list[float], name: str) -> None:
        """Draw one value per image."""
        ink = self.prepare_axes()
        if ink is not None:
            draw_histogram(self.axes, values, name, ink)
            self.canvas.draw_idle()

    def sizeHint(self) -> QSize:
        """Lower than wide."""
        return QSize(340, 180)

    def minimumSizeHint(self) -> QSize:
        """As low as it can be read."""
        return QSize(220, 140)


class BatchForm(QWidget):
    """Runs the strategy of the Run tab on all listed images.

    Parameters
    ----------
    controller : Controller
        Has the list, the settings and the batch.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.service: BatchService = controller.batch_service
        self.settings = ElidedLabel("secondary")
        self.workers = QSpinBox()
        self.workers.setRange(1, available_cores())
        self.workers.setPrefix("workers ")
        self.workers.setAccessibleName("Workers")
        self.workers.setToolTip("Processes, each with one image at a time and its share of cores")
        self.run_button = QPushButton("Run on all")
        self.run_button.setProperty("role", "primary")
        self.run_button.setToolTip(
            "The model, strategy, parameters and budget of the Run tab on every listed image; goes "
            "on where an earlier batch with the same settings stopped"
        )
        self.open_button = QPushButton("Open batch…")
        self.open_button.setToolTip("The folder of an earlier batch")
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip("All results as one table or report")
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.summary = label("", "secondary", wrap=True)
        self.quantity = QComboBox()
        self.quantity.setAccessibleName("Quantity of the histogram")
        self.histogram = Histogram(controller.viewer)
        self.results = QWidget()
        results = QVBoxLayout(self.results)
        results.setContentsMargins(0, 0, 0, 0)
        results.setSpacing(5)
        results.addWidget(self.progress)
        results.addWidget(self.summary)
        results.addLayout(row(self.quantity, self.export_button, stretch=0))
        results.addWidget(self.histogram)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(7)
        layout.addWidget(self.settings)
        layout.addLayout(row(self.run_button, self.workers, self.open_button, stretch=0))
        layout.addWidget(self.results)
        self.run_button.clicked.connect(self._run_or_stop)
        self.open_button.clicked.connect(self.choose_batch)
        self.export_button.clicked.connect(self.choose_export)
        self.quantity.activated.connect(self._draw)
        self.service.changed.connect(self._show)
        controller.slide_list.changed.connect(self._show)
        controller.state.model_changed.connect(self._show_settings)
        controller.state.strategy_changed.connect(self._show_settings)
        controller.state.settings.events.connect(self._show_settings)
        controller.viewer.events.theme.connect(self._draw)
        self._show_settings()
        self._show()

    def choose_batch(self) -> None:
        """Let the user choose the folder of a batch, and list its images."""
        path = QFileDialog.getExistingDirectory(self, "The folder of a batch")
        if path:
            self.open_batch(Path(path))

    def open_batch(self, folder: Path) -> None:
        """List the images of a batch with their results."""
        self.service.open(folder)
        self.controller.slide_list.open(folder / "table.csv")

    def choose_export(self) -> None:
        """Let the user choose a file for all results."""
        results = self.service.results
        start = Path.cwd() if results is None else results.folder
        path, kind = QFileDialog.getSaveFileName(
            self, "Export the batch", str(start / "batch.parquet"), KINDS,
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if path:
            suffix = kind.partition("*")[2].rstrip(")")
            self.service.export(Path(path if Path(path).suffix else path + suffix))

    def _run_or_stop(self) -> None:
        source = self.controller.slide_list.source
        if self.service.is_running:
            self.service.stop()
        elif source is not None:
            self.service.places["workers"] = self.workers.value()
            self.service.start(source)

    def _show_settings(self, *_: object) -> None:
        settings = self.controller.state.settings
        model = "no model" if settings.model is None else settings.model.name
        budget = f" · budget {settings.budget}" if settings.budget.strip() else ""
        self.settings.setText(
            f"{settings.strategy.title} · {model}{budget} · whole images (tab Run)"
        )

    def _show(self) -> None:
        service = self.service
        self.run_button.setText("Stop" if service.is_running else "Run on all")
        self.run_button.setEnabled(
            not service.is_stopping
            and (service.is_running or bool(self.controller.slide_list.slides))
        )
        self.workers.setEnabled(not service.is_running)
        self.open_button.setEnabled(not service.is_running)
        results = service.results
        self.results.setVisible(service.is_running or results is not None)
        self.export_button.setEnabled(results is not None and not service.is_running)
        self.summary.setText("\n".join([service.summary, *self._totals()]))
        self.progress.setRange(0, 0 if results is None else len(results.table))
        if results is not None:
            self.progress.setValue(results.finished)
            self._fill_quantities(results.quantities)
        self._draw()

    def _totals(self) -> list[str]:
        """Return a line for each folder, where counts add up."""
        results = self.service.results
        if results is None:
            return []
        lines = [
            total_line(folder)
            for folder in results.folders[-MAX_FOLDERS:]
            if folder["total"] is not None
        ]
        return [*lines, RANGES] if lines and results.has_intervals else lines

    def _fill_quantities(self, known: dict[str, str]) -> None:
        shown = {self.quantity.itemData(i): self.quantity.itemText(i)
                 for i in range(self.quantity.count())}  # fmt: skip
        if known != shown:
            chosen = self.quantity.currentData()
            self.quantity.clear()
            for name, title in known.items():
                self.quantity.addItem(title, name)
            self.quantity.setCurrentIndex(max(self.quantity.findData(chosen), 0))

    def _draw(self, *_: object) -> None:
        results = self.service.results
        values = {} if results is None else results.values
        name = self.quantity.currentData()
        self.histogram.setVisible(name in values)
        self.quantity.setVisible(name in values)
        if name in values and self.isVisible():
            self.histogram.draw(values[name], self.quantity.currentText())


def total_line(folder: dict[str, Any]) -> str:
    """Return the total of a folder's counts with its interval and its images."""
    interval = ""
    ends = folder["total_low"], folder["total_high"]
    if None not in ends and ends[0] < ends[1]:
        interval = f" ({format_range(ends, folder['total'])})"
    part = "" if folder["done"] == folder["images"] else f"{folder['done']:,} of "
    images = f"{part}{folder['images']:,} {pluralize('image', folder['images'])}"
    return f"{folder_name(folder['folder'])}: {folder['total']:,.0f}{interval} in {images}"


def folder_name(folder: str) -> str:
    """Return the short name of a folder of images."""
    return "synthetic images" if folder == "sample:" else folder.rstrip("/").rpartition("/")[2]
