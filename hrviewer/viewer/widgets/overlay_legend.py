"""Legend of the overlays: colour scales with units, visibility and opacity."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QMenu,
    QPushButton,
    QSizePolicy,
    QSlider,
)

from hrviewer.app.maps.raster import COST_QUANTITIES, MAPS, OUTLINES, PATCH_QUANTITIES, MapName
from hrviewer.app.maps.result_maps import MOST_LIKELY
from hrviewer.escaping import plain_text
from hrviewer.io.geojson import class_colors
from hrviewer.units import format_amount
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.styles import OUTLINE_COLOUR, OVERLAY_STYLES
from hrviewer.viewer.widgets.common import (
    SWITCH_SPACING,
    Bar,
    ElidedLabel,
    TextSizedWidget,
    label,
    switch_width,
    text_metrics,
)
from hrviewer.viewer.widgets.scale_editor import ScaleEditor

__all__ = ["OverlayLegend"]

EDITABLE_SCALES: tuple[MapName, ...] = ("output", "saliency", "cost")
GRADIENT_STEPS = 64
SWATCH_PX = 12


class OverlayRow:
    """One overlay's widgets."""

    def __init__(self, name: MapName) -> None:
        style = OVERLAY_STYLES[name]
        self.name = name
        self.checkbox = QCheckBox(style.title)
        self.checkbox.setToolTip(plain_text(style.tooltip))
        self.checkbox.setChecked(style.visible)
        self.colour_bar = Bar(18)
        self.gradient = [(*colour[:3], 1.0) for colour in style.gradient(GRADIENT_STEPS)]
        self.colour_bar.set_gradient(self.gradient)
        if name in EDITABLE_SCALES:
            self.colour_bar.setCursor(Qt.CursorShape.PointingHandCursor)
            self.colour_bar.setToolTip(plain_text(f"{style.tooltip}\nClick to edit the scale"))
        else:
            self.colour_bar.setToolTip(plain_text(style.tooltip))
        self.unit = ElidedLabel()
        self.unit.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.low, self.high = label("", "low"), label("", "high")
        ends = QHBoxLayout(self.colour_bar)
        ends.setContentsMargins(1, 1, 1, 1)
        for end in (self.low, self.high):
            end.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        ends.addWidget(self.low)
        ends.addStretch(1)
        ends.addWidget(self.high)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(round(100 * style.opacity))
        self.opacity.setFixedWidth(56)
        self.opacity.setToolTip("Opacity")
        self.opacity.setAccessibleName(f"Opacity of {style.title}")

    def set_scale(self, low: str = "", unit: str = "", high: str = "") -> None:
        """Show the ends of the scale and its unit."""
        self.unit.setText(unit)
        for end, text in ((self.low, low), (self.high, high)):
            end.setText(text)
            end.setVisible(bool(text))


class OverlayLegend(TextSizedWidget):
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
        self._detects = False
        self.rows = {name: OverlayRow(name) for name in MAPS}
        self.class_box = QComboBox()
        self.class_box.setToolTip("Class that the output shows")
        self.classes_button = QPushButton("Classes")
        self.classes_button.setToolTip("Classes that the map of the most likely ones shows")
        self.classes_button.setMenu(QMenu(self.classes_button))
        self.cost_box = QComboBox()
        self.cost_box.addItems(list(COST_QUANTITIES))
        self.cost_box.setToolTip("Cost that is shown")
        self.patch_box = QComboBox()
        self.patch_box.addItems(list(PATCH_QUANTITIES))
        self.patch_box.setToolTip("Outline patches, or colour them by their order or their score")
        choosers = {"output": self.class_box, "patches": self.patch_box, "cost": self.cost_box}
        for chooser in (*choosers.values(), self.classes_button):
            chooser.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            chooser.setAccessibleName(chooser.toolTip())
        self._grid = grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(SWITCH_SPACING)
        grid.setVerticalSpacing(1)
        grid.setColumnStretch(1, 1)
        for i, overlay_row in enumerate(self.rows.values()):
            top = 4 * i
            grid.addWidget(overlay_row.checkbox, top, 0)
            grid.addWidget(overlay_row.unit, top, 1, 1, 2)
            grid.addWidget(overlay_row.colour_bar, top + 1, 1)
            grid.addWidget(overlay_row.opacity, top + 1, 2)
            grid.setRowMinimumHeight(top + 3, 3)
            overlay_row.checkbox.toggled.connect(partial(self._toggle_row, overlay_row.name))
            overlay_row.opacity.valueChanged.connect(self._set_opacity)
            if overlay_row.name in EDITABLE_SCALES:
                overlay_row.colour_bar.clicked.connect(partial(self.edit_scale, overlay_row.name))
            if overlay_row.name in choosers:
                grid.addWidget(choosers[overlay_row.name], top + 1, 0)
            if overlay_row.name == "output":
                grid.addWidget(self.classes_button, top + 2, 0)
        self.dim_box = QCheckBox("Dim the image")
        self.dim_box.setToolTip("Darken the image, so that the overlays are read more easily")
        grid.addWidget(self.dim_box, 4 * len(self.rows), 0, 1, 3)
        self.dim_box.toggled.connect(self._set_dimmed)
        self.fit_text()
        self.class_box.activated.connect(self._set_class)
        self.cost_box.activated.connect(self._set_cost_quantity)
        self.patch_box.activated.connect(self._set_patch_quantity)
        controller.state.overlays_replaced.connect(self._sync)
        self._show_patch_colours()
        self._sync()

    def fit_text(self) -> None:
        """Set the width of the column of switches."""
        self._grid.setColumnMinimumWidth(0, switch_width())
        for overlay_row in self.rows.values():
            overlay_row.colour_bar.set_height(text_metrics().height() + 2)

    def sizeHint(self) -> QSize:
        """As the layout asks."""
        return self.layout().sizeHint()

    def _sync(self) -> None:
        overlays = None if self.controller.state.maps is None else self.controller.overlays
        if overlays is not None and overlays is not self._overlays:
            # Squares of counts would hide the objects; they are displayed on demand.
            detects = overlays.maps.objects is not None
            if detects != self._detects:
                self._detects = detects
                self.rows["output"].checkbox.setChecked(not detects)
            overlays.limits_changed.connect(self._show_limits, unique=True)
            overlays.visibility_changed.connect(self._show_visibility, unique=True)
            classes = overlays.maps.classes
            self.class_box.clear()
            if overlays.maps.class_index is None:
                self.class_box.addItem("all classes", None)
            if overlays.maps.exclusive:
                self.class_box.addItem("most likely", MOST_LIKELY)
            for i, name in enumerate(classes):
                self.class_box.addItem(name, i)
            self._list_classes(overlays)
            self.class_box.setCurrentIndex(self.class_box.findData(overlays.maps.class_index))
        self._overlays = overlays
        if overlays is not None:
            overlays.set_dimmed(self.dim_box.isChecked())
        if overlays is not None and overlays.maps.cost_quantity != self.cost_box.currentText():
            overlays.maps.set_cost_quantity(self.cost_box.currentText())
        if overlays is not None and overlays.maps.patch_quantity != self.patch_box.currentText():
            overlays.set_patch_quantity(self.patch_box.currentText())
        self.class_box.setVisible(overlays is not None and len(overlays.maps.classes) > 1)
        self._toggle()
        for name in MAPS:
            self._show_limits(name)

    def edit_scale(self, name: MapName) -> ScaleEditor | None:
        """Open the menu of a colour scale below its bar; None without overlays, or of classes."""
        if self._overlays is None or self._overlays.maps.rasters[name].categories:
            return None
        bar = self.rows[name].colour_bar
        editor = ScaleEditor(bar, name, self._overlays)
        editor.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        editor.popup(bar.mapToGlobal(bar.rect().bottomLeft()))
        return editor

    def _show_limits(self, name: MapName) -> None:
        overlay_row = self.rows[name]
        if self._overlays is None:
            overlay_row.set_scale()
            self.classes_button.hide()
            return
        drawn = self._overlays.maps.rasters[name]
        if name == "output":
            self.classes_button.setVisible(bool(drawn.categories))
            overlay_row.colour_bar.set_gradient(
                category_gradient(drawn.categories) if drawn.categories else overlay_row.gradient
            )
            if drawn.categories:
                overlay_row.set_scale(drawn.categories[0], "", drawn.categories[-1])
                return
        low, high = map(format_amount, drawn.limits)
        if name == "patches" and self._overlays.maps.patch_quantity != "score":
            low, high = ("first", "last") if self._overlays.maps.colours_patches else ("", "")
        overlay_row.set_scale(low, drawn.unit, "≥ " * drawn.is_clipped + high)

    def _toggle(self) -> None:
        for name, overlay_row in self.rows.items():
            self._toggle_row(name, overlay_row.checkbox.isChecked())

    def _toggle_row(self, name: MapName, shown: bool) -> None:
        if self._overlays is not None and self._overlays.is_visible(name) != shown:
            self._overlays.set_visible(name, shown)

    def _show_visibility(self) -> None:
        """Check what is visible, after the user used napari's controls."""
        if self._overlays is not None:
            for name, overlay_row in self.rows.items():
                overlay_row.checkbox.setChecked(self._overlays.is_visible(name))

    def _set_dimmed(self, dimmed: bool) -> None:
        if self._overlays is not None:
            self._overlays.set_dimmed(dimmed)

    def _set_opacity(self) -> None:
        if self._overlays is not None:
            for name, overlay_row in self.rows.items():
                self._overlays.set_opacity(name, overlay_row.opacity.value() / 100)

    def _set_class(self) -> None:
        if self._overlays is not None:
            self._overlays.show_class(self.class_box.currentData())

    def _list_classes(self, overlays: Overlays) -> None:
        """List the classes with their colours."""
        maps, menu = overlays.maps, self.classes_button.menu()
        menu.clear()
        if not maps.exclusive:
            return
        for i, (name, colour) in enumerate(
            zip(maps.classes, class_colors(maps.classes), strict=True)
        ):
            swatch = QPixmap(SWATCH_PX, SWATCH_PX)
            swatch.fill(QColor(*colour))
            action = menu.addAction(QIcon(swatch), name)
            action.setCheckable(True)
            action.setChecked(i not in maps.hidden_classes)
            action.toggled.connect(partial(self._set_class_shown, i))

    def _set_class_shown(self, class_index: int, shown: bool) -> None:
        if self._overlays is not None:
            others = self._overlays.maps.hidden_classes - {class_index}
            self._overlays.hide_classes(others if shown else others | {class_index})

    def _set_patch_quantity(self) -> None:
        if self._overlays is not None:
            self._overlays.set_patch_quantity(self.patch_box.currentText())
        self._show_patch_colours()
        self._show_limits("patches")

    def _show_patch_colours(self) -> None:
        coloured = self.patch_box.currentText() != OUTLINES
        colours = OVERLAY_STYLES["patches"].gradient() if coloured else [OUTLINE_COLOUR] * 2
        self.rows["patches"].colour_bar.set_gradient([(*colour[:3], 1.0) for colour in colours])

    def _set_cost_quantity(self) -> None:
        if self._overlays is not None:
            self._overlays.maps.set_cost_quantity(self.cost_box.currentText())
        self._show_limits("cost")


def category_gradient(classes: tuple[str, ...]) -> list[tuple[float, ...]]:
    """Return the colours of classes side by side."""
    each = GRADIENT_STEPS // len(classes) + 1
    colours = [(*(part / 255 for part in colour), 1.0) for colour in class_colors(classes)]
    return [colour for colour in colours for _ in range(each)]
