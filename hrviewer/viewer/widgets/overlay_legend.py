"""The overlays: what their colours mean, whether they are shown, how see-through they are."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QSlider, QWidget

from hrviewer.app.maps.result_maps import COSTS, MAPS, MapName
from hrviewer.units import si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.styles import STYLES
from hrviewer.viewer.widgets.common import LABELS, Bar, label, row

__all__ = ["Legend"]


class Entry:
    """One overlay's widgets."""

    def __init__(self, name: MapName) -> None:
        style = STYLES[name]
        self.name = name
        self.shown = QCheckBox(style.title)
        self.shown.setToolTip(style.meaning)
        self.shown.setChecked(style.shown)
        self.shown.setMinimumWidth(LABELS)
        self.bar = Bar(10)
        self.bar.set_gradient([(*colour[:3], 1.0) for colour in style.gradient()])
        self.bar.setToolTip(style.meaning)
        self.low, self.unit, self.high = (label("", "muted") for _ in range(3))
        self.unit.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.high.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(round(100 * style.opacity))
        self.opacity.setFixedWidth(56)
        self.opacity.setToolTip("Opacity")


class Legend(QWidget):
    """A colour scale with its unit for every overlay.

    Parameters
    ----------
    controller : Controller
        Has the overlays.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self._overlays: Overlays | None = None
        self.entries = {name: Entry(name) for name in MAPS}
        self.plane = QComboBox()
        self.plane.setToolTip("Which class the output shows")
        self.quantity = QComboBox()
        self.quantity.addItems(list(COSTS))
        self.quantity.setToolTip("Which cost is shown")
        for chooser in (self.plane, self.quantity):
            chooser.setFixedWidth(LABELS + 12)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(1, 1)
        for i, entry in enumerate(self.entries.values()):
            top = 3 * i
            grid.addWidget(entry.shown, top, 0)
            grid.addWidget(entry.bar, top, 1)
            grid.addWidget(entry.opacity, top, 2)
            grid.addLayout(row(entry.low, entry.unit, entry.high, stretch=1), top + 1, 1)
            grid.setRowMinimumHeight(top + 2, 4)
            entry.shown.toggled.connect(self._toggle)
            entry.opacity.valueChanged.connect(self._fade)
            if entry.name == "cost":
                grid.addWidget(self.quantity, top + 1, 0)
            if entry.name == "output":
                grid.addWidget(self.plane, top + 1, 0)
        self.plane.activated.connect(self._choose)
        self.quantity.activated.connect(self._measure)
        controller.overlays_changed.connect(self._adopt)
        self._adopt()

    def sizeHint(self) -> QSize:
        """As the layout asks."""
        return self.layout().sizeHint()

    def _adopt(self) -> None:
        overlays = self.controller.overlays
        if overlays is not None and overlays is not self._overlays:
            overlays.limits_changed.connect(self._show_limits)
            classes = overlays.picture.classes
            self.plane.clear()
            if overlays.picture.plane is None:
                self.plane.addItem("all classes", None)
            for i, name in enumerate(classes):
                self.plane.addItem(name, i)
            self.plane.setCurrentIndex(self.plane.findData(overlays.picture.plane))
        self._overlays = overlays
        if overlays is not None and overlays.picture.quantity != self.quantity.currentText():
            overlays.picture.measure(self.quantity.currentText())
        self.plane.setVisible(overlays is not None and len(overlays.picture.classes) > 1)
        for name in MAPS:
            self._show_limits(name)

    def _show_limits(self, name: MapName) -> None:
        entry = self.entries[name]
        if self._overlays is None:
            entry.low.setText("")
            entry.high.setText("")
            entry.unit.setText("")
            return
        drawn = self._overlays.picture.maps[name]
        low, high = drawn.limits
        entry.low.setText("first" if name == "patches" else f"{low:g}")
        entry.high.setText("last" if name == "patches" else si(high))
        entry.unit.setText(drawn.unit)

    def _toggle(self) -> None:
        if self._overlays is not None:
            for name, entry in self.entries.items():
                if self._overlays.shown(name) != entry.shown.isChecked():
                    self._overlays.show(name, entry.shown.isChecked())

    def _fade(self) -> None:
        if self._overlays is not None:
            for name, entry in self.entries.items():
                self._overlays.set_opacity(name, entry.opacity.value() / 100)

    def _choose(self) -> None:
        if self._overlays is not None:
            self._overlays.picture.choose(self.plane.currentData())

    def _measure(self) -> None:
        if self._overlays is not None:
            self._overlays.picture.measure(self.quantity.currentText())
        self._show_limits("cost")
