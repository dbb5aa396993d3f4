"""Where the time went: read, prepare, infer, post."""

from __future__ import annotations

from qtpy.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from hrviewer.units import duration, si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import Bar, label

__all__ = ["Breakdown"]

STAGES = {"read": "#0072b2", "prepare": "#56b4e9", "infer": "#e69f00", "post": "#009e73"}
"""Okabe and Ito's colours, told apart by everybody."""


class Breakdown(QWidget):
    """A stacked bar and its legend.

    Parameters
    ----------
    controller : Controller
        Has the ledger.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.bar = Bar(12)
        self.words = {stage: label("", "muted") for stage in STAGES}
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(3)
        for i, (stage, colour) in enumerate(STAGES.items()):
            swatch = label()
            swatch.setFixedSize(9, 9)
            swatch.setStyleSheet(f"background: {colour}; border-radius: 2px;")
            grid.addWidget(swatch, 0, 2 * i)
            grid.addWidget(self.words[stage], 0, 2 * i + 1)
            grid.setColumnStretch(2 * i + 1, len(stage))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.bar)
        layout.addLayout(grid)
        controller.progressed.connect(self.refresh)
        controller.overlays_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the ledger as it stands."""
        overlays = self.controller.overlays
        seconds = dict.fromkeys(STAGES, 0.0)
        if overlays is not None:
            total = overlays.picture.record.ledger.total
            seconds = {stage: getattr(total, f"{stage}_s") for stage in STAGES}
        self.bar.set_parts([(seconds[stage], colour) for stage, colour in STAGES.items()])
        for stage, word in self.words.items():
            word.setText(f"{stage} {amount(seconds[stage])}")
            word.setToolTip(f"{stage}: {duration(seconds[stage])}")


def amount(seconds: float) -> str:
    """Return seconds in at most five characters, for a narrow column."""
    return f"{seconds:.1f}" if seconds < 9.95 else si(seconds).replace(" ", "")
