"""A patch that was clicked on: what it cost, and what the network saw there."""

from __future__ import annotations

import math

from qtpy.QtCore import Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QHBoxLayout, QWidget

from hrviewer.app.maps.patch_preview import PatchInspection
from hrviewer.units import format_si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["PatchInspectorWidget"]

PREVIEW_PX = 116


class PatchInspectorWidget(QWidget):
    """A small picture, and words beside it.

    Parameters
    ----------
    controller : Controller
        Is asked by clicks on the image.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.preview = label()
        self.preview.setFixedSize(PREVIEW_PX, PREVIEW_PX)
        self.preview.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.preview.setToolTip("What the network saw, with the context around the patch")
        self.details = label("Click on the image to see what a patch cost.", "muted", wrap=True)
        self.details.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addWidget(self.preview)
        layout.addWidget(self.details, 1)
        self.preview.hide()
        controller.patch_inspected.connect(self._show)

    def _show(self, inspection: PatchInspection) -> None:
        row = inspection.row
        said = [] if row.role == "encoder" else [f"said {row.value:.4g}"]  # codes say no number
        said += [] if math.isnan(row.score) else [f"score {row.score:.3g}"]
        lines = [
            f"{row.role} · look {row.order + 1:,} · {row.status}",
            f"y {row.y:,}  x {row.x:,}",
            f"{row.h:,} × {row.w:,} px" + (f" at 1/{row.scale:g}" if row.scale != 1 else ""),
            *([" · ".join(said)] if said else []),
            f"{format_si(row.flops, 'FLOP')} · {format_si(row.bytes, 'B')}",
            f"read {1000 * row.read_s:.1f} · infer {1000 * row.infer_s:.1f} ms",
        ]
        if row.error:
            lines.append(row.error)
        self.details.setText("\n".join(lines))
        self.preview.show()
        if inspection.pixels is None:
            self.preview.clear()
            return
        height, width, _ = inspection.pixels.shape
        image = QImage(
            inspection.pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888
        )
        self.preview.setPixmap(
            QPixmap.fromImage(image).scaled(
                PREVIEW_PX,
                PREVIEW_PX,
                Qt.AspectRatioMode.KeepAspectRatio,
                Qt.TransformationMode.SmoothTransformation,
            )
        )
