"""Menu of a colour scale: its ends, whether they stay, and its legend on the image."""

from __future__ import annotations

import math

from qtpy.QtCore import QLocale
from qtpy.QtGui import QDoubleValidator
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QLineEdit,
    QMenu,
    QPushButton,
    QWidget,
    QWidgetAction,
)

from hrviewer.app.maps.heat_map import HeatMap
from hrviewer.app.maps.raster import MapName
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.widgets.common import Form, row

__all__ = ["ScaleEditor"]


class ScaleEditor(QMenu):
    """Edits the colour scale of an overlay.

    Parameters
    ----------
    parent : QWidget
        The colour bar below which it opens.
    name : str
        The overlay.
    overlays : Overlays
        Has its scale.
    """

    def __init__(self, parent: QWidget, name: MapName, overlays: Overlays) -> None:
        super().__init__(parent)
        self.name, self.overlays = name, overlays
        self.low, self.high = QLineEdit(), QLineEdit()
        for field in (self.low, self.high):
            field.setValidator(number_validator(field))
            field.setFixedWidth(84)
            field.editingFinished.connect(self._set_limits)
        self.fit_button = QPushButton("Fit to the view")
        self.fit_button.setToolTip("Set the ends by the values that are displayed now")
        self.held = QCheckBox("Keep for every strategy and zoom")
        self.held.setToolTip("Otherwise the ends follow the displayed values")
        self.on_image = QCheckBox("Show on the image")
        self.on_image.setChecked(overlays.has_colour_bar(name))
        form = Form()
        form.add("From, to", row(self.low, self.high))
        form.add("", self.fit_button)
        form.add("", self.held)
        form.add("", self.on_image)
        self.sigma, self.threshold = QDoubleSpinBox(), QLineEdit()
        self.by_value = QCheckBox("Low values more transparent")
        if name == "output":
            self._add_heat_map(form)
        form.setContentsMargins(8, 6, 8, 6)
        action = QWidgetAction(self)
        action.setDefaultWidget(form)
        self.addAction(action)
        self.fit_button.clicked.connect(self._fit)
        self.held.toggled.connect(self._set_held)
        self.on_image.toggled.connect(self._show_on_image)
        self.refresh()

    def _add_heat_map(self, form: Form) -> None:
        """Add the fields of the heat map, which only the output has."""
        heat, layer = self.overlays.heat, self.overlays.image_layer
        known = str(layer.units[-1]) in ("micrometer", "um", "µm")
        self._pixel = math.sqrt(abs(layer.scale[-1] * layer.scale[-2])) if known else 1.0
        self.sigma.setRange(0, 1e6)
        self.sigma.setDecimals(1)
        self.sigma.setSpecialValueText("no: raw cells")
        self.sigma.setSuffix(" µm" if known else " px")
        self.sigma.setValue(heat.sigma * self._pixel)
        self.sigma.setKeyboardTracking(False)
        self.threshold.setValidator(number_validator(self.threshold))
        self.threshold.setPlaceholderText("nothing")
        self.threshold.setText("" if heat.threshold is None else f"{heat.threshold:g}")
        self.by_value.setChecked(heat.by_value)
        form.add("Smooth", self.sigma, "Standard deviation of a Gaussian: a heat map")
        form.add("Hide below", self.threshold, "Values below are not displayed")
        form.add("", self.by_value)
        self.sigma.valueChanged.connect(self._set_heat_map)
        self.threshold.editingFinished.connect(self._set_heat_map)
        self.by_value.toggled.connect(self._set_heat_map)

    def _set_heat_map(self) -> None:
        text = self.threshold.text()
        self.overlays.set_heat_map(
            HeatMap(
                self.sigma.value() / self._pixel,
                float(text) if text else None,
                self.by_value.isChecked(),
            )
        )

    def refresh(self) -> None:
        """Show the scale as it is."""
        scale = self.overlays.maps.rasters[self.name].scale
        for field, value in zip((self.low, self.high), scale.limits, strict=True):
            field.setText(f"{value:g}")
        self.held.blockSignals(True)
        self.held.setChecked(scale.held)
        self.held.blockSignals(False)

    def _set_limits(self) -> None:
        scale = self.overlays.maps.rasters[self.name].scale
        low, high = (field.text() for field in (self.low, self.high))
        if low and high and float(low) < float(high):
            limits = float(low), float(high)
            # The fields show rounded numbers: what was not edited stays.
            if (low, high) != tuple(f"{value:g}" for value in scale.limits):
                scale.hold(limits)
                self.overlays.refresh()
        self.refresh()

    def _fit(self) -> None:
        self.overlays.fit_scale(self.name)
        self.refresh()

    def _set_held(self, held: bool) -> None:
        scale = self.overlays.maps.rasters[self.name].scale
        if held:
            scale.hold()
        else:
            scale.release()
            self.overlays.refresh()

    def _show_on_image(self, shown: bool) -> None:
        self.overlays.set_colour_bar(self.name, shown)


def number_validator(field: QLineEdit) -> QDoubleValidator:
    """Return a validator that accepts what `float` does, in every locale."""
    locale = QLocale(QLocale.Language.C)
    locale.setNumberOptions(QLocale.NumberOption.RejectGroupSeparator)
    validator = QDoubleValidator(field)
    validator.setLocale(locale)
    return validator
