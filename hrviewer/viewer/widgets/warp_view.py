"""What a network saw through a warp, beside an even picture of the same size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from hrviewer.app.maps.patch_preview import PatchInspection
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["WarpPreview"]

PREVIEW_PX = 168


class WarpPreview(QWidget):
    """Two pictures, shown while a warp is asked about.

    Parameters
    ----------
    controller : Controller
        Is asked by clicks on the image.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setHorizontalSpacing(8)
        layout.setVerticalSpacing(2)
        self.previews = label(), label()
        captions = "what the network saw", "evenly, as many pixels"
        for column, (picture, caption) in enumerate(zip(self.previews, captions, strict=True)):
            layout.addWidget(picture, 0, column, Qt.AlignmentFlag.AlignCenter)
            layout.addWidget(label(caption, "muted"), 1, column, Qt.AlignmentFlag.AlignCenter)
        self.hide()
        controller.patch_inspected.connect(self._show)

    def _show(self, inspection: PatchInspection) -> None:
        pair = inspection.pixels, inspection.uniform_pixels
        for label_, pixels in zip(self.previews, pair, strict=True):
            if pixels is not None:
                show_pixels(label_, pixels)
        self.setVisible(all(pixels is not None for pixels in pair))


def show_pixels(target: QLabel, pixels: NDArray[np.uint8]) -> None:
    """Show a picture, ``(h, w, 3)``, as large as there is room."""
    height, width, _ = pixels.shape
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    target.setPixmap(
        QPixmap.fromImage(image).scaled(
            PREVIEW_PX,
            PREVIEW_PX,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )
