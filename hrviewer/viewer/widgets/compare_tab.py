"""The Compare tab: this image's runs in a table and a plot, side by side, and their difference.

Invariant: it displays what `CompareService` has; a row's colour is its point's.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from qtpy.QtCore import QItemSelectionModel, QPoint, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap, QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHeaderView,
    QMenu,
    QPushButton,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from hrviewer.app.maps.raster import MAPS
from hrviewer.app.services.compare_service import MAX_RUNS
from hrviewer.escaping import plain_text
from hrviewer.formatting import pluralize
from hrviewer.io.figures.plots import color_and_marker
from hrviewer.runs.estimates import EstimateDict
from hrviewer.runs.run_index import RunEntry, entries_of_one_place
from hrviewer.units import format_amount, format_si, format_signed
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.styles import OVERLAY_STYLES
from hrviewer.viewer.widgets.common import label, row
from hrviewer.viewer.widgets.compare_plot import ComparePlot, run_tooltip
from hrviewer.viewer.widgets.ground_truth_toggle import GroundTruthToggle
from hrviewer.viewer.widgets.run_menu import RunMenu
from hrviewer.viewer.widgets.scaling_window import ScalingWindow

__all__ = ["CompareTab"]

COLUMNS = (
    "strategy",
    "estimate",
    "error",
    "AP50",
    "FLOP",
    "of\nonce",
    "of\npatches",
    "time",
    "date",
)
PRECISION, ONCE, OF_PATCHES, DATE = (
    COLUMNS.index(name) for name in ("AP50", "of\nonce", "of\npatches", "date")
)
COLUMN_TIPS = {
    "AP50": "Average precision of detected objects at an intersection over union of 0.5",
    "of\nonce": "FLOPs over those of the model once on every pixel",
    "time": "Seconds of the run; cached results count those of their inference",
    "of\npatches": "FLOPs over those of patches at its defaults",
}
MAX_CLASS_NAME = 10
"""Characters of a class in the table; the tooltip has it all."""

HEADER_PADDING = 14
"""Pixels around the title of a column."""

RUN_MISSING = "Run missing strategies"
HELP = "choose two to four runs for side by side, two for their difference; right-click to rename"


class NumberItem(QTableWidgetItem):
    """A table cell that is sorted by its number."""

    def __init__(self, text: str, number: float | None) -> None:
        super().__init__(text)
        self.number = float("inf") if number is None else number
        self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: Any) -> bool:
        return bool(self.number < other.number)


class CompareTab(QWidget):
    """The Compare tab.

    Parameters
    ----------
    controller : Controller
        Has the runs and their comparison.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.service = controller.compare_service
        self.summary = label("", "secondary", wrap=True)
        self.table = QTableWidget(0, len(COLUMNS))
        self.plot = ComparePlot(controller.viewer, self.select_run)
        self.grid_button = QPushButton("Side by side")
        self.grid_button.setCheckable(True)
        self.grid_button.setToolTip("Two to four runs in a grid that moves together")
        self.difference_button = QPushButton("Difference")
        self.difference_button.setCheckable(True)
        self.difference_button.setToolTip(
            "Where the first of two runs predicts more, and where the second does"
        )
        self.map_box = QComboBox()
        for name in MAPS:
            self.map_box.addItem(OVERLAY_STYLES[name].title, name)
        self.map_box.setToolTip("Map that is shown side by side")
        self.ground_truth = GroundTruthToggle(controller)
        self.run_missing_button = QPushButton(RUN_MISSING)
        self.run_missing_button.setToolTip(
            "Every strategy that has no run here, one after another, with the model, region and "
            "budget of the Run tab"
        )
        self.add_runs_button = QPushButton("Add runs…")
        self.add_runs_button.setToolTip(
            "A folder of runs, or one that hrviewer compare has written"
        )
        self.scaling_button = QPushButton("Cost…")
        self.scaling_button.setToolTip(
            "Cost of inference at every image size, and the largest that fits"
        )
        self.scaling_window: ScalingWindow | None = None
        self.message = label(HELP, "secondary", wrap=True)
        self._strategy_names: list[str] = []
        self._filling = self._detects = False
        self._widths: dict[int, int] = {}
        self._set_up_table()

        self.splitter = QSplitter(Qt.Orientation.Vertical)
        self.splitter.addWidget(self.table)
        self.splitter.addWidget(self.plot)
        self.splitter.setChildrenCollapsible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(self.summary)
        layout.addWidget(self.splitter, 1)
        layout.addLayout(row(self.grid_button, self.difference_button, self.map_box, stretch=None))
        layout.addWidget(self.message)
        layout.addLayout(
            row(self.run_missing_button, self.scaling_button, self.add_runs_button, stretch=None)
        )
        layout.addWidget(self.ground_truth)

        self.table.itemSelectionChanged.connect(self._on_selection)
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.table.customContextMenuRequested.connect(self._show_menu)
        self.grid_button.clicked.connect(self._toggle_grid)
        self.difference_button.clicked.connect(self._toggle_difference)
        self.map_box.activated.connect(self._set_map)
        self.run_missing_button.clicked.connect(self._run_missing)
        self.add_runs_button.clicked.connect(self.choose_folder)
        self.scaling_button.clicked.connect(self.show_scaling)
        self.service.runs_listed.connect(self._fill)
        self.service.preload = preload_plots
        self.service.grid_changed.connect(self._update_buttons)
        self.service.difference_changed.connect(self._on_difference)
        controller.comparison.grid_ready.connect(self._update_buttons)
        self.service.message_changed.connect(self._show_message)
        controller.run_queue.message_changed.connect(self._show_message)
        controller.state.run_state_changed.connect(self._on_state)
        controller.state.image_changed.connect(self._refresh)
        controller.state.ground_truth_changed.connect(self._on_ground_truth)
        controller.viewer.events.theme.connect(self._draw_plot)
        self._fill()

    def selected_runs(self) -> list[RunEntry]:
        """Return the selected runs, in the table's order."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        return [self._entry_at(row) for row in rows]

    def select_run(self, entry: RunEntry, add: bool) -> None:
        """Select a run, as a click on its point does; with `add`, together with those selected."""
        for index in range(self.table.rowCount()):
            if self._entry_at(index).path == entry.path:
                kind = QItemSelectionModel.SelectionFlag
                how = kind.Toggle if add else kind.ClearAndSelect
                at = self.table.model().index(index, 0)
                self.table.selectionModel().select(at, how | kind.Rows)
                self.table.scrollTo(at)

    def choose_folder(self) -> None:
        """Let the user choose another folder of runs."""
        path = QFileDialog.getExistingDirectory(self, "A folder of runs, or a comparison's")
        if path:
            self.service.add_folder(Path(path))

    def show_scaling(self) -> None:
        """Open cost against resolution."""
        if self.scaling_window is None:
            self.scaling_window = ScalingWindow(self.controller, self)
        self.scaling_window.show()
        self.scaling_window.raise_()

    def showEvent(self, event: QShowEvent | None) -> None:
        """List the runs whenever the tab is shown."""
        super().showEvent(event)
        self._refresh()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Put the plot beside the table where there is room, below it in a narrow column."""
        super().resizeEvent(event)
        wide = self.width() > 1.2 * self.height()
        self.splitter.setOrientation(Qt.Orientation.Horizontal if wide else Qt.Orientation.Vertical)

    def sizeHint(self) -> QSize:
        """As the panel's other tab."""
        return QSize(384, 800)

    def _set_up_table(self) -> None:
        table = self.table
        table.setHorizontalHeaderLabels(COLUMNS)
        for name, tip in COLUMN_TIPS.items():
            item = table.horizontalHeaderItem(COLUMNS.index(name))
            if item is not None:
                item.setToolTip(tip)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(24)
        header = table.horizontalHeader()
        header.setMinimumSectionSize(30)
        # Parameters may be long; the tooltip has them in full.
        header.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        header.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        header.customContextMenuRequested.connect(self._show_header_menu)
        table.setColumnHidden(DATE, True)  # there is little room
        header.sectionResized.connect(self._select_columns)
        table.setMinimumHeight(110)

    def _refresh(self, *_: object) -> None:
        if self.isVisible():
            self.service.refresh()
            self._show_summary()

    def _on_ground_truth(self) -> None:
        if self.service.is_outdated:  # not when only the view has moved
            self._refresh()

    def _on_state(self, state: str) -> None:
        if state == "idle":
            self._refresh()
        self._update_buttons()

    def _entry_at(self, index: int) -> RunEntry:
        entry: RunEntry = self.table.item(index, 0).data(Qt.ItemDataRole.UserRole)
        return entry

    def _fill(self) -> None:
        """List the runs; those that were selected stay so."""
        kept = {entry.path for entry in self.selected_runs()}
        entries = self.service.entries
        self._strategy_names = list(dict.fromkeys(entry.strategy for entry in entries))
        self._filling = True
        self.table.setSortingEnabled(False)
        self.table.clearSelection()
        self.table.setRowCount(len(entries))
        for index, entry in enumerate(entries):
            for column, item in enumerate(self._row_items(entry)):
                item.setToolTip(plain_text(run_tooltip(entry)))
                self.table.setItem(index, column, item)
        self.table.setSortingEnabled(True)
        self._detects = any(entry.row["ap50"] is not None for entry in entries)
        self._fit_columns()
        for entry in entries:
            if entry.path in kept:
                self.select_run(entry, add=True)
        self._filling = False
        self._show_summary()
        self._draw_plot()
        self._update_buttons()

    def _show_summary(self) -> None:
        """Show how many runs there are, and what their errors are against."""
        entries = self.service.entries
        if not entries:
            self.summary.setText(
                "open an image first"
                if self.controller.state.image is None
                else "listing the runs of this image…"
                if self.service.is_listing
                else "no finished run of this image yet: run strategies, or add a folder of runs"
            )
            return
        against = {entry.reference_source for entry in entries}
        known = (
            "the ground truth" if "truth" in against else "patches" if "patches" in against else ""
        )
        more = f" · errors against {known}" if known else ""
        in_plot, others = entries_of_one_place(entries, self.selected_runs(), self._shown_path())
        if others:
            more += f" · the plot has the {len(in_plot)} of one region, select another for its own"
        self.summary.setText(f"{len(entries)} {pluralize('run', len(entries))} of this image{more}")

    def _shown_path(self) -> Path | None:
        """Return the folder of the displayed run."""
        run = self.controller.state.run
        return None if run is None else run.path

    def _fit_columns(self) -> None:
        """Give the names what the numbers leave; Qt would keep room for an arrow in each header."""
        metrics = self.table.horizontalHeader().fontMetrics()
        for column, title in enumerate(COLUMNS[1:], start=1):
            needed = max(metrics.horizontalAdvance(line) for line in title.split("\n"))
            needed = max(needed + HEADER_PADDING, self.table.sizeHintForColumn(column))
            self._widths[column] = needed
            self.table.setColumnWidth(column, needed)
        self._select_columns()

    def _select_columns(self, *_: int) -> None:
        """Show the columns that leave names whole; the tooltip has all of them."""
        hidden = {ONCE if self._detects else PRECISION}
        if self.table.isColumnHidden(DATE):
            hidden.add(DATE)
        room = self.table.viewport().width() - self.table.sizeHintForColumn(0)
        for column in (OF_PATCHES, ONCE):
            if sum(width for each, width in self._widths.items() if each not in hidden) > room:
                hidden.add(column)
        for column in (PRECISION, ONCE, OF_PATCHES):
            self.table.setColumnHidden(column, column in hidden)

    def _row_items(self, entry: RunEntry) -> list[QTableWidgetItem]:
        row = entry.row
        name = QTableWidgetItem(self._colour_icon(entry.strategy), entry.title)
        name.setData(Qt.ItemDataRole.UserRole, entry)
        estimate, error = row["estimate"], row["error"]
        started = start_time(entry)
        return [
            name,
            NumberItem(estimate_text(entry.run.estimate), estimate),
            NumberItem(
                "–" if error is None else format_signed(error),
                None if error is None else abs(error),
            ),
            NumberItem("–" if row["ap50"] is None else f"{row['ap50']:.3f}", row["ap50"]),
            NumberItem(format_si(row["flops"]), row["flops"]),
            *(
                NumberItem("–" if part is None else f"{part:.2g}", part)
                for part in (row["of_once_per_pixel"], row["of_patches"])
            ),
            NumberItem(f"{row['wall_s']:,.3g} s", row["wall_s"]),
            NumberItem(
                "–" if started is None else f"{started:%Y-%m-%d %H:%M}",
                None if started is None else started.timestamp(),
            ),
        ]

    def _colour_icon(self, strategy: str) -> QIcon:
        dot = QPixmap(10, 10)
        dot.fill(QColor(color_and_marker(strategy, self._strategy_names)[0]))
        return QIcon(dot)

    def _draw_plot(self, *_: object) -> None:
        difference = self.service.difference
        if difference is not None and difference.agreement is not None:
            self.plot.draw_agreement(difference.title, difference.agreement)
        elif self.service.is_ready:
            chosen = self.selected_runs()
            entries = entries_of_one_place(self.service.entries, chosen, self._shown_path())[0]
            self.plot.draw(entries, chosen, self._strategy_names)

    def _on_selection(self) -> None:
        if self._filling:
            return
        chosen = self.selected_runs()
        self._draw_plot()
        self._show_summary()
        self._update_buttons()
        if len(chosen) == 1 and self.controller.state.run_state == "idle":
            self.service.show_run(chosen[0])

    def _show_menu(self, position: QPoint) -> None:
        """Open the menu of the selected runs."""
        chosen = self.selected_runs()
        if chosen and self.controller.state.run_state == "idle":
            menu = RunMenu(self, self.controller.run_library, chosen)
            menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
            menu.popup(self.table.viewport().mapToGlobal(position))

    def _show_header_menu(self, position: QPoint) -> None:
        """Open the menu of the columns that are hidden at first."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        action = menu.addAction("Date")
        action.setCheckable(True)
        action.setChecked(not self.table.isColumnHidden(DATE))
        action.toggled.connect(self.show_dates)
        menu.popup(self.table.horizontalHeader().mapToGlobal(position))

    def show_dates(self, shown: bool) -> None:
        """Show or hide when each run was started."""
        self.table.setColumnHidden(DATE, not shown)
        self._fit_columns()

    def _update_buttons(self) -> None:
        n, side = len(self.selected_runs()), self.service.grid is not None
        idle = self.controller.state.run_state == "idle"
        apart = self.service.difference is not None
        self.run_missing_button.setText(RUN_MISSING if idle else "Stop")
        self.grid_button.setEnabled(side or (idle and 2 <= n <= MAX_RUNS))
        self.grid_button.setChecked(side)
        self.difference_button.setEnabled(apart or (idle and n == 2))
        self.difference_button.setChecked(apart)

    def _toggle_grid(self) -> None:
        if self.service.grid is not None:
            self.service.close_grid()
        else:
            self.service.show_grid(self.selected_runs())
        self._update_buttons()

    def _on_difference(self) -> None:
        self._update_buttons()
        self._draw_plot()

    def _toggle_difference(self) -> None:
        if self.service.difference is not None:
            self.service.clear_difference()
        else:
            self.service.show_difference(*self.selected_runs())
        self._update_buttons()

    def _run_missing(self) -> None:
        if self.controller.state.run_state != "idle":
            self.controller.run_service.stop()
        else:
            self.controller.run_queue.start([entry.strategy for entry in self.service.entries])

    def _set_map(self) -> None:
        self.service.set_map(self.map_box.currentData())

    def _show_message(self, message: str) -> None:
        self.message.setText(message or self.controller.run_queue.message or HELP)
        self._update_buttons()


def start_time(entry: RunEntry) -> datetime | None:
    """Return when a run was started, in the local time zone; None if its file has no date."""
    try:
        return datetime.fromisoformat(str(entry.run.header["started"])).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def preload_plots() -> None:
    """Import matplotlib with its Qt back end, if it is installed; on a worker thread."""
    with suppress(ImportError):
        import matplotlib.backends.backend_qtagg
        import matplotlib.figure  # noqa: F401


def estimate_text(estimate: EstimateDict | None) -> str:
    """Return an estimate in few characters: of classes, the largest one and its share."""
    if estimate is None:
        return "–"
    shares = estimate.get("fraction") or estimate["per_class"]
    if len(shares) < 2 or not ("fraction" in estimate or "vote" in estimate):
        return format_amount(estimate["value"])
    name = max(shares, key=lambda each: shares[each])
    short = name if len(name) <= MAX_CLASS_NAME else f"{name[: MAX_CLASS_NAME - 1]}…"
    return f"{short} {shares[name]:.1%}"
