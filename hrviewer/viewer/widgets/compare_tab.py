"""The Compare tab: this image's runs in a table and a plot, side by side, and what they differ in.

Invariant: it asks `Comparison` and draws what that says; a row's colour is its point's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import QItemSelectionModel, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap, QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHeaderView,
    QPushButton,
    QSplitter,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from hrviewer.app.maps.result_maps import MAPS
from hrviewer.io.figures.plots import colour_of
from hrviewer.runs.run_index import Entry
from hrviewer.units import si, signed
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.comparison_grid import MOST
from hrviewer.viewer.layers.styles import STYLES
from hrviewer.viewer.widgets.common import label, row
from hrviewer.viewer.widgets.compare_plot import Plot, told
from hrviewer.viewer.widgets.ground_truth_toggle import TruthSwitch
from hrviewer.viewer.widgets.scaling_window import Costing

__all__ = ["Comparing"]

COLUMNS = ("strategy", "answer", "error", "FLOP", "time")
OTHERS = "Run the others"
HINT = "choose two to four runs for side by side, two for their difference"


class Cell(QTableWidgetItem):
    """A cell that is sorted by its number, whatever it says."""

    def __init__(self, text: str, number: float | None) -> None:
        super().__init__(text)
        self.number = float("inf") if number is None else number
        self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: Any) -> bool:
        return bool(self.number < other.number)


class Comparing(QWidget):
    """The Compare tab.

    Parameters
    ----------
    controller : Controller
        Has the image and its comparison.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.comparison = controller.comparison
        self.words = label("", "muted", wrap=True)
        self.table = QTableWidget(0, len(COLUMNS))
        self.plot = Plot(controller.viewer, self.pick)
        self.beside = QPushButton("Side by side")
        self.beside.setCheckable(True)
        self.beside.setToolTip("Two to four runs in a grid that moves together")
        self.differ = QPushButton("Difference")
        self.differ.setCheckable(True)
        self.differ.setToolTip("Where the first of two runs says more, and where the second does")
        self.map = QComboBox()
        for name in MAPS:
            self.map.addItem(STYLES[name].title, name)
        self.map.setToolTip("What is shown side by side")
        self.truth = TruthSwitch(controller)
        self.others = QPushButton(OTHERS)
        self.others.setToolTip(
            "Every strategy that has no run here, one after another, with the model, region and "
            "budget of the Look tab"
        )
        self.folder = QPushButton("Add runs…")
        self.folder.setToolTip("A folder of runs, or one that hrviewer compare has written")
        self.sizes = QPushButton("Cost…")
        self.sizes.setToolTip("What the network takes at every size, and the largest that fits")
        self.costing: Costing | None = None
        self.hint = label(HINT, "muted", wrap=True)
        self._names: list[str] = []
        self._filling = False
        self._set_up_table()

        self.halves = QSplitter(Qt.Orientation.Vertical)
        self.halves.addWidget(self.table)
        self.halves.addWidget(self.plot)
        self.halves.setChildrenCollapsible(False)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(self.words)
        layout.addWidget(self.halves, 1)
        layout.addLayout(row(self.beside, self.differ, self.map, stretch=None))
        layout.addWidget(self.hint)
        layout.addLayout(row(self.others, self.sizes, self.folder, stretch=None))
        layout.addWidget(self.truth)

        self.table.itemSelectionChanged.connect(self._choose)
        self.beside.clicked.connect(self._stand)
        self.differ.clicked.connect(self._subtract)
        self.map.activated.connect(self._map)
        self.others.clicked.connect(self._run_others)
        self.folder.clicked.connect(self.ask_folder)
        self.sizes.clicked.connect(self.show_cost)
        self.comparison.listed.connect(self._fill)
        self.comparison.side_changed.connect(self._offer)
        self.comparison.told.connect(self._say)
        controller.series.told.connect(self._say)
        controller.state_changed.connect(self._on_state)
        controller.base_changed.connect(self._renew)
        controller.truth_told.connect(self._renew)
        controller.viewer.events.theme.connect(self._draw)
        self._fill()

    def chosen(self) -> list[Entry]:
        """Return the chosen runs, in the table's order."""
        rows = sorted({index.row() for index in self.table.selectedIndexes()})
        return [self._entry(row) for row in rows]

    def pick(self, entry: Entry, more: bool) -> None:
        """Choose a run, as a click on its point does; `more` adds it to those chosen."""
        for index in range(self.table.rowCount()):
            if self._entry(index).path == entry.path:
                kind = QItemSelectionModel.SelectionFlag
                how = kind.Toggle if more else kind.ClearAndSelect
                at = self.table.model().index(index, 0)
                self.table.selectionModel().select(at, how | kind.Rows)
                self.table.scrollTo(at)

    def ask_folder(self) -> None:
        """Let the person choose where else runs lie."""
        path = QFileDialog.getExistingDirectory(self, "A folder of runs, or a comparison's")
        if path:
            self.comparison.add(Path(path))

    def show_cost(self) -> None:
        """Open cost against resolution."""
        if self.costing is None:
            self.costing = Costing(self.controller, self)
        self.costing.show()
        self.costing.raise_()

    def showEvent(self, event: QShowEvent | None) -> None:
        """Look which runs there are, whenever the tab comes up."""
        super().showEvent(event)
        self.comparison.refresh()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Put the plot beside the table where there is room, below it in a narrow column."""
        super().resizeEvent(event)
        wide = self.width() > 1.2 * self.height()
        self.halves.setOrientation(Qt.Orientation.Horizontal if wide else Qt.Orientation.Vertical)

    def sizeHint(self) -> QSize:
        """As the panel's other tab."""
        return QSize(384, 800)

    def _set_up_table(self) -> None:
        table = self.table
        table.setHorizontalHeaderLabels(COLUMNS)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setShowGrid(False)
        table.setWordWrap(False)
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(24)
        header = table.horizontalHeader()
        header.setMinimumSectionSize(30)
        # What was asked may be long, and is told in full where the pointer rests.
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setHighlightSections(False)
        table.setMinimumHeight(110)
        table.setStyleSheet("QTableWidget, QHeaderView::section { font-size: 8.5pt; } "
                            "QHeaderView::section { padding: 2px 4px; }")  # fmt: skip

    def _renew(self, *_: object) -> None:
        if self.isVisible():
            self.comparison.refresh()

    def _on_state(self, state: str) -> None:
        if state == "idle":
            self._renew()
        self._offer()

    def _entry(self, index: int) -> Entry:
        entry: Entry = self.table.item(index, 0).data(Qt.ItemDataRole.UserRole)
        return entry

    def _fill(self) -> None:
        """Draw what `Comparison` lists; what was chosen stays so."""
        kept = {entry.path for entry in self.chosen()}
        entries = self.comparison.entries
        self._names = list(dict.fromkeys(entry.strategy for entry in entries))
        self._filling = True
        self.table.setSortingEnabled(False)
        self.table.clearSelection()
        self.table.setRowCount(len(entries))
        for index, entry in enumerate(entries):
            for column, item in enumerate(self._cells(entry)):
                item.setToolTip(told(entry))
                self.table.setItem(index, column, item)
        self.table.setSortingEnabled(True)
        for entry in entries:
            if entry.path in kept:
                self.pick(entry, more=True)
        self._filling = False
        against = {entry.against for entry in entries}
        known = "the truth" if "truth" in against else "patches" if "patches" in against else ""
        what = f"{len(entries)} run{'s'[: len(entries) != 1]} of this image"
        none = "no finished run of this image yet: run strategies, or add a folder of runs"
        more = f" · errors against {known}" if known else ""
        self.words.setText(what + more if entries else none)
        self._draw()
        self._offer()

    def _cells(self, entry: Entry) -> list[QTableWidgetItem]:
        row = entry.row
        name = QTableWidgetItem(self._swatch(entry.strategy), entry.title)
        name.setData(Qt.ItemDataRole.UserRole, entry)
        answer, error = row["estimate"], row["error"]
        return [
            name,
            Cell("–" if answer is None else si(answer), answer),
            Cell("–" if error is None else signed(error), None if error is None else abs(error)),
            Cell(si(row["flops"]), row["flops"]),
            Cell(f"{row['wall_s']:,.3g} s", row["wall_s"]),
        ]

    def _swatch(self, strategy: str) -> QIcon:
        dot = QPixmap(10, 10)
        dot.fill(QColor(colour_of(strategy, self._names)[0]))
        return QIcon(dot)

    def _draw(self, *_: object) -> None:
        if self.comparison.ready:
            self.plot.draw(self.comparison.entries, self.chosen(), self._names)

    def _choose(self) -> None:
        if self._filling:
            return
        chosen = self.chosen()
        self._draw()
        self._offer()
        if len(chosen) == 1 and self.controller.state == "idle":
            self.comparison.show(chosen[0])

    def _offer(self) -> None:
        n, side = len(self.chosen()), self.comparison.side is not None
        idle = self.controller.state == "idle"
        apart = self.comparison.difference is not None
        self.others.setText(OTHERS if idle else "Stop")
        self.beside.setEnabled(side or (idle and 2 <= n <= MOST))
        self.beside.setChecked(side)
        self.differ.setEnabled(apart or (idle and n == 2))
        self.differ.setChecked(apart)

    def _stand(self) -> None:
        if self.comparison.side is not None:
            self.comparison.end()
        else:
            self.comparison.beside(self.chosen())
        self._offer()

    def _subtract(self) -> None:
        if self.comparison.difference is not None:
            self.comparison.clear()
        else:
            self.comparison.differ(*self.chosen())
        self._offer()

    def _run_others(self) -> None:
        if self.controller.state != "idle":
            self.controller.stop()
        else:
            self.controller.series.start([entry.strategy for entry in self.comparison.entries])

    def _map(self) -> None:
        self.comparison.choose(self.map.currentData())

    def _say(self, words: str) -> None:
        self.hint.setText(words or self.controller.series.words or HINT)
        self._offer()
