"""The table of regions: a row for each, with its measurements."""

from __future__ import annotations

import math
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from hrviewer.app.services.region_service import RegionRow
from hrviewer.formatting import format_number, format_part
from hrviewer.regions import Region
from hrviewer.runs.region_table import describe_region
from hrviewer.units import AREA_UNITS, area_unit, format_area
from hrviewer.viewer.controller import Controller

__all__ = ["RegionTable"]

INTERVAL = "95 % of exhaustive"
COLUMNS = (
    "name",
    "class",
    "count",
    "corrected",
    INTERVAL,
    "of tissue",
    "density",
    "area",
    "tissue",
)
EDITABLE = ("name", "class")
TIPS = {
    "corrected": "Points inside, of the predicted points that were corrected by hand",
    INTERVAL: "Interval of what inference on every pixel would give; none where it was exhaustive",
    "density": "Per area of the region",
    "of tissue": "Per area of its tissue",
}


OVERLAP = 1e-6
"""Part of the area of regions by which they may overlap, from rounding."""


class RegionTable(QTableWidget):
    """Measured regions; a click shows one on the image, a double click renames it.

    Parameters
    ----------
    controller : Controller
        Has the regions.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__(0, len(COLUMNS))
        self.controller = controller
        self.service = controller.region_service
        self._filling = False
        self.setHorizontalHeaderLabels(COLUMNS)
        for name, tip in TIPS.items():
            item = self.horizontalHeaderItem(COLUMNS.index(name))
            if item is not None:
                item.setToolTip(tip)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(24)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(30)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setHighlightSections(False)
        self.setMinimumHeight(120)
        self.cellChanged.connect(self._on_edited)
        self.cellClicked.connect(self._on_clicked)
        self.service.rows_changed.connect(self.fill)
        self.fill()

    def selected_rows(self) -> list[int]:
        """Return the numbers of the selected rows."""
        return sorted({index.row() for index in self.selectedIndexes()})

    def fill(self) -> None:
        """Show the measured regions."""
        self._filling = True
        rows, size = self.service.rows, self.service.pixel_size
        kept = self.selected_rows()
        self.setRowCount(len(rows))
        for number, row in enumerate(rows):
            texts = row_texts(row, size)
            for column, name in enumerate(COLUMNS):
                item = QTableWidgetItem(texts[name])
                if name in EDITABLE:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
                else:
                    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                item.setToolTip(region_tooltip(row, size))
                self.setItem(number, column, item)
        for column, name in enumerate(COLUMNS):
            always = name in ("name", "area", "count")
            filled = any(self.item(i, column).text() for i in range(len(rows)))
            plain = name == "class" and all(row.region.label == "region" for row in rows)
            self.setColumnHidden(column, not always and (not filled or plain))
        for number in kept:
            if number < len(rows):
                for column in range(len(COLUMNS)):
                    self.item(number, column).setSelected(True)
        self._filling = False

    def sum_text(self) -> str:
        """Return the sums of the selected regions, or of all."""
        rows = self.service.rows
        chosen = [rows[i] for i in self.selected_rows() if i < len(rows)] or rows
        if not chosen:
            return "Draw a region: its count, area and density are shown here"
        area = Region.union([row.region for row in chosen]).area
        count = [estimate_of(row) for row in chosen]
        plural = "s" * (len(chosen) != 1)
        text = f"{len(chosen)} region{plural}, {format_area(area, self.service.pixel_size)}"
        if area < (1 - OVERLAP) * math.fsum(row.region.area for row in chosen):
            return f"{text} together: they overlap, so their counts have no sum"
        found = [each for each in count if each is not None and each["kind"] == "count"]
        if not found:
            return text
        total = math.fsum(each["value"] for each in found)
        text += f": {format_number(total)} predicted"
        corrected = [row.corrected for row in chosen if row.corrected is not None]
        if corrected:
            text += f", {sum(corrected):,} corrected"
        return text

    def _on_edited(self, row: int, column: int) -> None:
        if not self._filling and COLUMNS[column] in EDITABLE:
            text = self.item(row, column).text().strip()
            self.controller.regions.rename(row, text or "region", COLUMNS[column])

    def _on_clicked(self, row: int, column: int) -> None:
        self.controller.regions.show_region(row)


def estimate_of(row: RegionRow) -> Any:
    """Return the estimate of a region; None without one."""
    return None if row.measured is None else row.measured["estimate"]


def row_texts(row: RegionRow, pixel_size: tuple[float, float] | None) -> dict[str, str]:
    """Return the text of each column."""
    measured, estimate = row.measured, estimate_of(row)
    area = row.region.area if measured is None else measured["area"]
    texts = dict.fromkeys(COLUMNS, "")
    texts |= {"name": row.region.name, "class": row.region.label}
    texts["area"] = format_area(area, pixel_size)
    if measured is not None and "tissue_area" in measured:
        texts["tissue"] = format_area(measured["tissue_area"], pixel_size)
    if row.corrected is not None:
        texts["corrected"] = f"{row.corrected:,}"
    if estimate is None:
        return texts
    kind = estimate["kind"]
    if kind == "count":
        texts["count"] = format_number(estimate["value"])
        if pixel_size is not None:
            unit = area_unit(pixel_size)
            density, title = estimate.get(f"per_{unit}", 0.0), AREA_UNITS[unit][0]
            assert measured is not None
            part = measured["data_area"] / area if area and "density_of" in estimate else 1.0
            texts["density"] = f"{format_number(density * part)} / {title}"
            if "density_of" in estimate:
                texts["of tissue"] = f"{format_number(density)} / {title}"
    elif kind == "area":
        texts["count"] = ", ".join(f"{k} {format_part(v)}" for k, v in estimate["fraction"].items())
    else:
        texts["count"] = ", ".join(f"{k} {v:.3g}" for k, v in estimate["per_class"].items())
    if estimate["ci95"] is not None and not estimate["exhaustive"] and kind == "count":
        texts[INTERVAL] = "–".join(format_number(end) for end in estimate["ci95"])
    return texts


def region_tooltip(row: RegionRow, pixel_size: tuple[float, float] | None) -> str:
    """Return all that is known of a region."""
    if row.measured is None:
        return f"{row.region.name}: {format_area(row.region.area, pixel_size)}, not measured"
    return f"{row.region.name} ({row.region.label}): {describe_region(row.measured, pixel_size)}"
