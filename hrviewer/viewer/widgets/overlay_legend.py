"""The overlays: what their colours mean, whether they are shown, how see-through they are."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QGridLayout, QSlider, QWidget

from hrviewer.app.maps.result_maps import COST_QUANTITIES, MAPS, MapName
from hrviewer.units import format_si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.styles import OVERLAY_STYLES
from hrviewer.viewer.widgets.common import LABEL_WIDTH, Bar, label, row

__all__ = ["OverlayLegend"]


class OverlayRow:
    """One overlay's widgets."""

    def __init__(self, name: MapName) -> None:
        style = OVERLAY_STYLES[name]
        self.name = name
        self.checkbox = QCheckBox(style.title)
        self.checkbox.setToolTip(style.tooltip)
        self.checkbox.setChecked(style.visible)
        self.checkbox.setMinimumWidth(LABEL_WIDTH)
        self.colour_bar = Bar(10)
        self.colour_bar.set_gradient([(*colour[:3], 1.0) for colour in style.gradient()])
        self.colour_bar.setToolTip(style.tooltip)
        self.low, self.unit, self.high = (label("", "muted") for _ in range(3))
        self.unit.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.high.setAlignment(Qt.AlignmentFlag.AlignRight)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(round(100 * style.opacity))
        self.opacity.setFixedWidth(56)
        self.opacity.setToolTip("Opacity")


class OverlayLegend(QWidget):
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
        self.rows = {name: OverlayRow(name) for name in MAPS}
        self.class_box = QComboBox()
        self.class_box.setToolTip("Which class the output shows")
        self.cost_box = QComboBox()
        self.cost_box.addItems(list(COST_QUANTITIES))
        self.cost_box.setToolTip("Which cost is shown")
        for chooser in (self.class_box, self.cost_box):
            chooser.setFixedWidth(LABEL_WIDTH + 12)
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(6)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(1, 1)
        for i, entry in enumerate(self.rows.values()):
            top = 3 * i
            grid.addWidget(entry.checkbox, top, 0)
            grid.addWidget(entry.colour_bar, top, 1)
            grid.addWidget(entry.opacity, top, 2)
            grid.addLayout(row(entry.low, entry.unit, entry.high, stretch=1), top + 1, 1)
            grid.setRowMinimumHeight(top + 2, 4)
            entry.checkbox.toggled.connect(self._toggle)
            entry.opacity.valueChanged.connect(self._set_opacity)
            if entry.name == "cost":
                grid.addWidget(self.cost_box, top + 1, 0)
            if entry.name == "output":
                grid.addWidget(self.class_box, top + 1, 0)
        self.class_box.activated.connect(self._set_class)
        self.cost_box.activated.connect(self._set_cost_quantity)
        controller.overlays_changed.connect(self._sync)
        self._sync()

    def sizeHint(self) -> QSize:
        """As the layout asks."""
        return self.layout().sizeHint()

    def _sync(self) -> None:
        overlays = self.controller.overlays
        if overlays is not None and overlays is not self._overlays:
            overlays.limits_changed.connect(self._show_limits)
            classes = overlays.maps.classes
            self.class_box.clear()
            if overlays.maps.class_index is None:
                self.class_box.addItem("all classes", None)
            for i, name in enumerate(classes):
                self.class_box.addItem(name, i)
            self.class_box.setCurrentIndex(self.class_box.findData(overlays.maps.class_index))
        self._overlays = overlays
        if overlays is not None and overlays.maps.cost_quantity != self.cost_box.currentText():
            overlays.maps.set_cost_quantity(self.cost_box.currentText())
        self.class_box.setVisible(overlays is not None and len(overlays.maps.classes) > 1)
        for name in MAPS:
            self._show_limits(name)

    def _show_limits(self, name: MapName) -> None:
        entry = self.rows[name]
        if self._overlays is None:
            entry.low.setText("")
            entry.high.setText("")
            entry.unit.setText("")
            return
        drawn = self._overlays.maps.rasters[name]
        low, high = drawn.limits
        entry.low.setText("first" if name == "patches" else f"{low:g}")
        entry.high.setText("last" if name == "patches" else format_si(high))
        entry.unit.setText(drawn.unit)

    def _toggle(self) -> None:
        if self._overlays is not None:
            for name, entry in self.rows.items():
                if self._overlays.is_visible(name) != entry.checkbox.isChecked():
                    self._overlays.set_visible(name, entry.checkbox.isChecked())

    def _set_opacity(self) -> None:
        if self._overlays is not None:
            for name, entry in self.rows.items():
                self._overlays.set_opacity(name, entry.opacity.value() / 100)

    def _set_class(self) -> None:
        if self._overlays is not None:
            self._overlays.maps.set_class(self.class_box.currentData())

    def _set_cost_quantity(self) -> None:
        if self._overlays is not None:
            self._overlays.maps.set_cost_quantity(self.cost_box.currentText())
        self._show_limits("cost")
