"""The Slides tab: images of a folder or table with thumbnails; a double click opens one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QAbstractListModel, QModelIndex, QSize, QSortFilterProxyModel, Qt
from qtpy.QtGui import QColor, QImage, QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QLineEdit,
    QListView,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from hrviewer.app.services.batch_service import BatchService
from hrviewer.app.services.slide_list import THUMBNAIL_SIDE, Slide, SlideList
from hrviewer.escaping import plain_text, printable
from hrviewer.formatting import format_range, pluralize
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.batch_form import BatchForm
from hrviewer.viewer.widgets.common import label, row

__all__ = ["SlideModel", "SlideTab"]

ICON_SIDE = 64


class SlideModel(QAbstractListModel):
    """The list for Qt: a row asks for its thumbnail when it is painted.

    Parameters
    ----------
    slides : SlideList
        The images.
    batch : BatchService
        Their results.
    """

    def __init__(self, slides: SlideList, batch: BatchService) -> None:
        super().__init__()
        self._slides, self._batch = slides, batch
        self._rows: dict[str, int] = {}
        self._icons: dict[str, QPixmap] = {}
        self._blank = QPixmap(ICON_SIDE, ICON_SIDE)
        self._blank.fill(QColor(128, 128, 128, 60))
        slides.changed.connect(self._reset)
        batch.changed.connect(self._show_results)
        slides.thumbnail_ready.connect(self._show_thumbnail)
        self._reset()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of images."""
        return 0 if parent is not None and parent.isValid() else len(self._slides.slides)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a row's text, thumbnail, tooltip or path."""
        if not index.isValid() or index.row() >= len(self._slides.slides):
            return None
        slide = self._slides.slides[index.row()]
        if role == Qt.ItemDataRole.UserRole:
            return slide.path
        if role == Qt.ItemDataRole.DecorationRole:
            return self._icon(slide.path)
        if role == Qt.ItemDataRole.ToolTipRole:
            row = self._batch.rows.get(slide.path, {})
            more = row.get("answer") or row.get("error")
            return plain_text(f"{slide.path}\n{more}" if more else slide.path)
        if role == Qt.ItemDataRole.SizeHintRole:
            return QSize(ICON_SIDE, ICON_SIDE + 6)  # no wider than the list: longer text is elided
        if role == Qt.ItemDataRole.DisplayRole:
            thumbnail = self._slides.thumbnail(slide.path)
            size = "" if thumbnail is None else f"{thumbnail.summary} · "
            return f"{printable(slide.name)}\n{size}{self._state_of(slide)}"
        return None

    def _state_of(self, slide: Slide) -> str:
        """Return the result of an image in the batch, or the number of its runs."""
        row = self._batch.rows.get(slide.path)
        if row is None:
            return f"{slide.runs:,} {pluralize('run', slide.runs)}" if slide.runs else "no run yet"
        if row["status"] == "failed":
            return f"failed\n{printable(str(row['error']))}"
        return f"done\n{short_answer(row)}" if row["status"] == "done" else str(row["status"])

    def _icon(self, path: str) -> QPixmap:
        if path not in self._icons:
            thumbnail = self._slides.thumbnail(path)
            if thumbnail is None or thumbnail.pixels is None:
                return self._blank
            self._icons[path] = as_icon(thumbnail.pixels)
        return self._icons[path]

    def _reset(self) -> None:
        self.beginResetModel()
        self._rows = {slide.path: i for i, slide in enumerate(self._slides.slides)}
        self._icons = {path: icon for path, icon in self._icons.items() if path in self._rows}
        self.endResetModel()

    def _show_results(self) -> None:
        if self.rowCount():
            self.dataChanged.emit(self.index(0), self.index(self.rowCount() - 1))

    def _show_thumbnail(self, path: str) -> None:
        at = self._rows.get(path)
        if at is not None:
            self.dataChanged.emit(self.index(at), self.index(at))


class SlideTab(QWidget):
    """The Slides tab.

    Parameters
    ----------
    controller : Controller
        Opens images.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller, self.slides = controller, controller.slide_list
        self.open_button = QPushButton("Folder…")
        self.open_button.setToolTip("List the images of a folder")
        self.table_button = QPushButton("Table…")
        self.table_button.setToolTip(
            "List the images of a CSV file with a column `image`, as hrviewer batch reads it"
        )
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("part of a name")
        self.filter.setAccessibleName("Filter of the list")
        self.filter.setClearButtonEnabled(True)
        self.summary = label("", "secondary", wrap=True)
        self.model = SlideModel(self.slides, controller.batch_service)
        self.shown = QSortFilterProxyModel(self)
        self.shown.setSourceModel(self.model)
        self.shown.setFilterCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.list = QListView()
        self.list.setModel(self.shown)
        self.list.setUniformItemSizes(True)  # else Qt asks for every row
        self.list.setIconSize(QSize(ICON_SIDE, ICON_SIDE))
        self.list.setSpacing(2)
        self.list.setAccessibleName("Images")
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addLayout(row(self.open_button, self.table_button, self.filter, stretch=2))
        layout.addWidget(self.summary)
        layout.addWidget(self.list, 1)
        self.batch_form = BatchForm(controller)
        layout.addWidget(self.batch_form)
        self.open_button.clicked.connect(self.choose_folder)
        self.table_button.clicked.connect(self.choose_table)
        self.filter.textChanged.connect(self.shown.setFilterFixedString)
        self.list.activated.connect(self._open)
        self.slides.changed.connect(self._show_summary)
        controller.batch_service.changed.connect(self._show_summary)
        self._show_summary()

    def choose_folder(self) -> None:
        """Let the user choose a folder of images."""
        start = "" if self.slides.source is None else str(self.slides.source)
        path = QFileDialog.getExistingDirectory(self, "A folder of images", start)
        if path:
            self.slides.open(Path(path))

    def choose_table(self) -> None:
        """Let the user choose a table of images."""
        path, _ = QFileDialog.getOpenFileName(self, "A table of images", "", "Tables (*.csv)")
        if path:
            self.slides.open(Path(path))

    def _open(self, index: QModelIndex) -> None:
        """Open an image, with the overlays of its run in the batch if there is one."""
        if self.controller.state.run_state != "idle":
            return
        path = index.data(Qt.ItemDataRole.UserRole)
        row = self.controller.batch_service.rows.get(path)
        if row is not None and row["status"] == "done":
            opener = self.controller.image_loader
            self.controller.run_loader.open(Path(row["run"]), otherwise=lambda: opener.open(path))
        else:
            self.controller.image_loader.open(path)

    def _show_summary(self) -> None:
        slides = self.slides.slides
        results = self.controller.batch_service.rows
        done = sum(
            slide.runs > 0 or results.get(slide.path, {}).get("status") == "done"
            for slide in slides
        )
        self.summary.setText(
            f"{len(slides):,} {pluralize('image', len(slides))}, {done:,} with runs · double-click "
            "to open"
            if slides
            else "open a folder, or a table of images"
        )


def short_answer(row: Mapping[str, Any]) -> str:
    """Return an image's answer with the interval of exhaustive inference; tooltips have more."""
    answer, _, _ = str(row["answer"] or "no estimate").partition(";")
    has_one_class = not any(name.startswith("count_") for name in row)
    if row.get("count") is None or row["ci95_low"] is None or not has_one_class:
        return answer
    amount, comma, density = answer.partition(", ")
    ends = format_range((row["ci95_low"], row["ci95_high"]), row["count"])
    return f"{amount} ({ends}){comma}{density}"


def as_icon(pixels: np.ndarray) -> QPixmap:
    """Return a thumbnail as an icon, centred on a square so that all rows are alike."""
    side = max(THUMBNAIL_SIDE, *pixels.shape[:2])
    square = np.full((side, side, 4), 0, np.uint8)
    height, width = pixels.shape[:2]
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width, :3] = pixels[..., :3]
    square[top : top + height, left : left + width, 3] = 255
    image = QImage(square.tobytes(), side, side, 4 * side, QImage.Format.Format_RGBA8888)
    return QPixmap.fromImage(image).scaled(
        ICON_SIDE,
        ICON_SIDE,
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
