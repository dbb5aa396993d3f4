"""Inspector of a clicked patch: its cost, and the network's input there."""

from __future__ import annotations

import math

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QWidget

from hrviewer.app.maps.patch_preview import PatchInspection
from hrviewer.units import format_si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label, show_pixels

__all__ = ["PatchInspectorWidget"]

PREVIEW_PX = 116
HELP = "Click on the image for the cost of a patch."


class PatchInspectorWidget(QWidget):
    """A preview with details beside it.

    Parameters
    ----------
    controller : Controller
        Emits inspections.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.preview = label()
        self.preview.setFixedSize(PREVIEW_PX, PREVIEW_PX)
        self.preview.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.preview.setToolTip("The network's input, with the context around the patch")
        self.details = label(HELP, "secondary", wrap=True)
        self.details.setAlignment(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(10)
        layout.addWidget(self.preview)
        layout.addWidget(self.details, 1)
        self.preview.hide()
        controller.state.patch_inspected.connect(self._show)

    def _show(self, inspection: PatchInspection | None) -> None:
        if inspection is None:
            self.details.setText(HELP)
            self.preview.hide()
            return
        row = inspection.row
        numbers = [] if row.role == "encoder" else [f"prediction {row.value:.4g}"]
        if inspection.predictions:
            numbers = [*inspection.predictions]
        numbers += [] if math.isnan(row.score) else [f"score {row.score:.3g}"]
        lines = [
            *([inspection.found] if inspection.found else []),
            f"{row.role} · patch {row.order + 1:,} · {row.status}",
            f"y {row.y:,}  x {row.x:,}",
            f"{row.h:,} × {row.w:,} px" + (f" at 1/{row.scale:g}" if row.scale != 1 else ""),
            *([" · ".join(numbers)] if numbers else []),
            f"{format_si(row.flops, 'FLOP')} · {format_si(row.bytes, 'B')}",
            f"read {1000 * row.read_s:.1f} · infer {1000 * row.infer_s:.1f} ms",
        ]
        if row.error:
            lines.append(row.error)
        self.details.setText("\n".join(lines))
        self.preview.show()
        if inspection.pixels is None:
            self.preview.clear()
        else:
            show_pixels(self.preview, inspection.pixels, PREVIEW_PX)
