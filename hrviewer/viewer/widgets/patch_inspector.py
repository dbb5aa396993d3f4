"""A patch that was clicked on: what it cost, and what the network saw there."""

from __future__ import annotations

import math

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QWidget

from hrviewer.app.maps.patch_preview import Look
from hrviewer.units import si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["Clicked"]

SIDE = 116


class Clicked(QWidget):
    """A small picture, and words beside it.

    Parameters
    ----------
    controller : Controller
        Is asked by clicks on the image.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.picture = label()
        self.picture.setFixedSize(SIDE, SIDE)
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setToolTip("What the network saw, with the context around the patch")
        self.words = label("Click on the image to see what a patch cost.", "muted", wrap=True)
        self.words.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addWidget(self.picture)
        layout.addWidget(self.words, 1)
        self.picture.hide()
        controller.looked.connect(self._show)

    def _show(self, look: Look) -> None:
        row = look.row
        said = [] if row.role == "encoder" else [f"said {row.value:.4g}"]  # codes say no number
        said += [] if math.isnan(row.score) else [f"score {row.score:.3g}"]
        lines = [
            f"{row.role} · look {row.order + 1:,} · {row.status}",
            f"y {row.y:,}  x {row.x:,}",
            f"{row.h:,} × {row.w:,} px" + (f" at 1/{row.scale:g}" if row.scale != 1 else ""),
            *([" · ".join(said)] if said else []),
            f"{si(row.flops, 'FLOP')} · {si(row.bytes, 'B')}",
            f"read {1000 * row.read_s:.1f} · infer {1000 * row.infer_s:.1f} ms",
        ]
        if row.error:
            lines.append(row.error)
        self.words.setText("\n".join(lines))
        self.picture.show()
        if look.pixels is None:
            self.picture.clear()
            return
        height, width, _ = look.pixels.shape
        image = QImage(look.pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        self.picture.setPixmap(
            QPixmap.fromImage(image).scaled(
                SIDE,
                SIDE,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        )
