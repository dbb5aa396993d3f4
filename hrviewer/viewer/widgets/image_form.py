"""Series, plane, channels and stains of the current image, where its file has several."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from qtpy.QtWidgets import (
    QComboBox,
    QMenu,
    QSizePolicy,
    QSpinBox,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from hrviewer.pyramid import Pyramid
from hrviewer.pyramid.channels import ChannelInfo
from hrviewer.pyramid.series import Series
from hrviewer.pyramid.stains import STAINS
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.layers.stain_layers import has_stains, show_stain, shown_stain
from hrviewer.viewer.widgets.common import Form

__all__ = ["ImageForm"]

AXIS_TITLES = {"z": "Depth (z)", "t": "Time (t)"}
MAX_NAMED = 3


class ImageForm(QWidget):
    """Rows for each further axis, and for the channels; another choice opens the file again.

    Parameters
    ----------
    controller : Controller
        Opens the image.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.series: QComboBox | None = None
        self.planes: dict[str, QSpinBox] = {}
        self.channels: QToolButton | None = None
        self.stain: QComboBox | None = None
        self._pyramid: Pyramid | None = None
        self._form: Form | None = None
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        controller.state.image_changed.connect(self._show_image)
        self._show_image()

    def _show_image(self) -> None:
        layer = self.controller.image_layer
        pyramid = None if layer is None else layer.metadata.get(METADATA_KEY, {}).get("pyramid")
        if pyramid is self._pyramid:
            return
        self._pyramid = pyramid
        if self._form is not None:
            self._layout.removeWidget(self._form)
            self._form.hide()
            self._form.deleteLater()
            self._form = None
        self.planes.clear()
        self.series = self.channels = self.stain = None
        # An array has no file that could be opened again.
        if pyramid is not None and pyramid.path is not None:
            self._form = self._make_form(pyramid)
            self._layout.addWidget(self._form)
        rows = self.channels or self.series or self.stain
        self.setVisible(bool(self.planes) or rows is not None)

    def _make_form(self, pyramid: Pyramid) -> Form:
        form = Form()
        if pyramid.selected_series is not None:
            self.series = self._make_series(pyramid)
            form.add("Series", self.series, "The image of the file that is shown and inferred")
        for axis, size in pyramid.plane_sizes.items():
            if size > 1:
                field = QSpinBox()
                field.setRange(0, size - 1)
                field.setValue(pyramid.plane[axis])
                field.setSuffix(f" of 0 to {size - 1}")
                field.setKeyboardTracking(False)
                field.valueChanged.connect(partial(self._set_plane, axis))
                form.add(AXIS_TITLES.get(axis, axis), field, "The plane that is shown and inferred")
                self.planes[axis] = field
        default = len(pyramid.available_channels) == pyramid.channels and pyramid.is_rgb
        if len(pyramid.available_channels) > 1 and not default:
            self.channels = self._make_menu(pyramid)
            form.add("Channels", self.channels, "The channels that the model gets, in this order")
        if has_stains(pyramid):
            self.stain = self._make_stains()
            tip = "Colours, or the density of one stain by colour deconvolution; models get colours"
            form.add("Stain", self.stain, tip)
        return form

    def _make_stains(self) -> QComboBox:
        field = QComboBox()
        field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        field.addItem("all, in colours", None)
        for stain in STAINS:
            field.addItem(stain, stain)
        layer, viewer = self.controller.image_layer, self.controller.viewer
        shown = None if layer is None else shown_stain(viewer, layer)
        field.setCurrentIndex(field.findData(shown) if shown else 0)
        field.activated.connect(self._show_stain)
        return field

    def _show_stain(self) -> None:
        layer = self.controller.image_layer
        if layer is not None and self.stain is not None:
            show_stain(self.controller.viewer, layer, self.stain.currentData())

    def _make_series(self, pyramid: Pyramid) -> QComboBox:
        field = QComboBox()
        field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        field.activated.connect(self._set_series)
        if "://" not in str(pyramid.path):
            fill_series(field, pyramid, pyramid.series)
            return field
        # Of a remote plate, listing the fields takes a request for each well.
        fill_series(field, pyramid, [Series(str(pyramid.selected_series))])
        self.controller.background.submit(
            "read",
            lambda task: pyramid.series,
            partial(self._list_series, pyramid),
            failed=lambda error: None,  # the series that is open remains
            owner=self.controller.state.image,
            clear_errors=False,
        )
        return field

    def _list_series(self, pyramid: Pyramid, series: Sequence[Series]) -> None:
        if pyramid is self._pyramid and self.series is not None:
            fill_series(self.series, pyramid, series)

    def _make_menu(self, pyramid: Pyramid) -> QToolButton:
        button = QToolButton()
        button.setProperty("role", "menu")
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        infos = pyramid.available_channels
        selected = pyramid.selected_channels or tuple(range(pyramid.channels))
        names = [channel_title(infos, i) for i in selected]
        more = len(names) - MAX_NAMED
        all_of_all = selected == tuple(range(len(infos)))
        text = ", ".join([*names[:MAX_NAMED], *([f"{more} more"] if more > 0 else [])])
        button.setText(f"all {len(infos)}: {text}" if all_of_all else text)
        menu = QMenu(button)
        for i in range(len(infos)):
            action = menu.addAction(channel_title(infos, i))
            action.setCheckable(True)
            action.setChecked(i in selected)
        menu.aboutToHide.connect(partial(self._set_channels, menu, selected))
        button.setMenu(menu)
        return button

    def _set_series(self) -> None:
        if self.series is not None and self._pyramid is not None:
            series = self.series.currentData()
            if series != self._pyramid.selected_series:
                # The others' axes, channels, pixels and values may differ.
                others = dict.fromkeys(("plane", "channels", "pixel_size", "value_range"))
                self._open_again(series=series, **others)

    def _set_plane(self, axis: str, index: int) -> None:
        if self._pyramid is not None:
            self._open_again(plane={**self._pyramid.plane, axis: index})

    def _set_channels(self, menu: QMenu, before: tuple[int, ...]) -> None:
        checked = [i for i, action in enumerate(menu.actions()) if action.isChecked()]
        if checked and tuple(checked) != tuple(sorted(before)):
            self._open_again(channels=checked)

    def _open_again(self, **changed: Any) -> None:
        """Open the same file with other options, in place of the image."""
        pyramid = self._pyramid
        if pyramid is None or pyramid.path is None:
            return
        options: dict[str, Any] = {
            "series": pyramid.selected_series,
            "plane": pyramid.plane,
            "channels": pyramid.selected_channels,
            "pixel_size": pyramid.pixel_size,
            "value_range": pyramid.given_range,
        }
        self.controller.image_loader.open(
            pyramid.path, replaced=self.controller.state.image, **{**options, **changed}
        )


def fill_series(field: QComboBox, pyramid: Pyramid, series: Sequence[Series]) -> None:
    """List series in a field, and select the one that is open."""
    field.clear()
    for entry in series:
        field.addItem(str(entry), entry.id)
    field.setCurrentIndex(field.findData(pyramid.selected_series))


def channel_title(infos: tuple[ChannelInfo, ...], index: int) -> str:
    """Return a channel's name, or its number."""
    return infos[index].name or f"channel {index}"
