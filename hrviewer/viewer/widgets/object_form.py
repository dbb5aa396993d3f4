"""Which detected objects are displayed: a switch, the least score, and the classes."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QCheckBox, QMenu, QSlider, QToolButton, QVBoxLayout

from hrviewer.formatting import pluralize
from hrviewer.objects import CANDIDATE_SCORE, MergeSettings
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import (
    SWITCH_SPACING,
    ElidedLabel,
    TextSizedWidget,
    row,
    switch_width,
)

__all__ = ["ObjectForm"]

SWATCH_PX = 12


class ObjectForm(TextSizedWidget):
    """A part of the panel that is shown where the model detects objects.

    Parameters
    ----------
    controller : Controller
        Has the objects.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller, self.service = controller, controller.object_service
        self.checkbox = QCheckBox("Objects")
        self.checkbox.setChecked(True)
        self.checkbox.setToolTip("Detected objects in the colours of their classes")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(round(100 * CANDIDATE_SCORE), 100)
        self.slider.setValue(round(100 * MergeSettings().score))
        self._chosen = False  # then the model's own
        self.slider.setToolTip("Least score of displayed objects")
        self.slider.setAccessibleName("Least score of displayed objects")
        self.class_button = QToolButton()
        self.class_button.setText("Classes")
        self.class_button.setProperty("role", "menu")
        self.class_button.setToolTip("Classes that are displayed")
        self.class_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self.class_button)
        self.class_button.setMenu(self.menu)
        self.count = ElidedLabel()
        self.fit_text()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        line = row(self.checkbox, self.slider, self.class_button, stretch=1)
        line.setSpacing(SWITCH_SPACING)
        layout.addLayout(line)
        layout.addWidget(self.count)
        self.checkbox.toggled.connect(self._apply_visibility)
        self.slider.valueChanged.connect(self._set_score)
        self.menu.aboutToShow.connect(self._list_classes)
        controller.state.overlays_replaced.connect(self._sync)
        controller.state.objects_drawn.connect(self._show_count)
        self._sync()

    def fit_text(self) -> None:
        """Align the slider with the overlays' colour scales."""
        self.checkbox.setMinimumWidth(switch_width())

    def _sync(self) -> None:
        """Apply the settings to other results."""
        objects = self.service.objects
        self.setVisible(objects is not None)
        if objects is not None:
            if not self._chosen:
                self.slider.blockSignals(True)
                self.slider.setValue(round(100 * objects.score))
                self.slider.blockSignals(False)
            self.service.set_score(self.slider.value() / 100)
        self._show_count()

    def _set_score(self) -> None:
        self._chosen = True
        self.service.set_score(self.slider.value() / 100)

    def _apply_visibility(self) -> None:
        overlays = self.controller.overlays
        if overlays is not None and overlays.object_layers is not None:
            overlays.object_layers.set_visible(self.checkbox.isChecked())

    def _show_count(self) -> None:
        self._apply_visibility()
        objects = self.service.objects
        if objects is None or objects.drawing is None:
            self.count.setText("")
            return
        found = objects.drawing.count
        self.count.setText(
            f"{found:,} {pluralize('object', found)} with a score of {objects.score:.2f} or more"
        )

    def _list_classes(self) -> None:
        """List the classes that were found, with their colours and numbers."""
        self.menu.clear()
        objects = self.service.objects
        if objects is None:
            return
        for class_id, found in enumerate(objects.class_counts().tolist()):
            if found or class_id in objects.hidden_classes:
                swatch = QPixmap(SWATCH_PX, SWATCH_PX)
                swatch.fill(QColor(*objects.colors[class_id].tolist()))
                text = f"{objects.classes[class_id]} ({found:,})"
                action = self.menu.addAction(QIcon(swatch), text)
                action.setCheckable(True)
                action.setChecked(class_id not in objects.hidden_classes)
                action.toggled.connect(partial(self._set_class_shown, class_id))

    def _set_class_shown(self, class_id: int, shown: bool) -> None:
        self.service.set_class_hidden(class_id, not shown)
