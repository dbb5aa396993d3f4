"""A network's warped input, beside a uniformly sampled picture of the same size."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QWidget

from hrviewer.app.maps.patch_preview import PatchInspection
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label, show_pixels

__all__ = ["WarpPreview"]

PREVIEW_PX = 168


class WarpPreview(QWidget):
    """Two previews, shown while a warp is inspected.

    Parameters
    ----------
    controller : Controller
        Emits inspections.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(8)
        layout.setVerticalSpacing(2)
        self.previews = label(), label()
        captions = "the network's input", "uniform, as many pixels"
        for column, (picture, caption) in enumerate(zip(self.previews, captions, strict=True)):
            layout.addWidget(picture, 0, column, Qt.AlignmentFlag.AlignCenter)
            layout.addWidget(label(caption, "secondary"), 1, column, Qt.AlignmentFlag.AlignCenter)
        self.hide()
        controller.state.patch_inspected.connect(self._show)

    def _show(self, inspection: PatchInspection | None) -> None:
        pair: tuple[Any, Any] = (None, None)
        if inspection is not None:
            pair = inspection.pixels, inspection.uniform_pixels
        for preview, pixels in zip(self.previews, pair, strict=True):
            if pixels is not None:
                show_pixels(preview, pixels, PREVIEW_PX)
        self.setVisible(all(pixels is not None for pixels in pair))
