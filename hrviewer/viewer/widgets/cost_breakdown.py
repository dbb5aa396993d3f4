"""Breakdown of a run's time: reading, preparation, inference, post-processing."""

from __future__ import annotations

from qtpy.QtWidgets import QGridLayout, QVBoxLayout, QWidget

from hrviewer.units import format_duration, format_si
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import Bar, label

__all__ = ["TimeBreakdown"]

STAGE_COLOURS = {"read": "#0072b2", "prepare": "#56b4e9", "infer": "#e69f00", "post": "#009e73"}
"""Okabe and Ito's colours, distinct for colour-blind users."""


class TimeBreakdown(QWidget):
    """A stacked bar and its legend.

    Parameters
    ----------
    controller : Controller
        Has the result maps.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.bar = Bar(12)
        self.stage_labels = {stage: label("", "secondary") for stage in STAGE_COLOURS}
        grid = QGridLayout()
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(3)
        for i, (stage, colour) in enumerate(STAGE_COLOURS.items()):
            swatch = label()
            swatch.setFixedSize(9, 9)
            swatch.setStyleSheet(f"background: {colour}; border-radius: 2px;")
            grid.addWidget(swatch, 0, 2 * i)
            grid.addWidget(self.stage_labels[stage], 0, 2 * i + 1)
            grid.setColumnStretch(2 * i + 1, len(stage))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.bar)
        layout.addLayout(grid)
        controller.state.progress_changed.connect(self.refresh)
        controller.state.overlays_replaced.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show the time so far."""
        maps = self.controller.state.maps
        seconds = dict.fromkeys(STAGE_COLOURS, 0.0)
        if maps is not None:
            total = maps.record.cost_map.total
            seconds = {stage: getattr(total, f"{stage}_s") for stage in STAGE_COLOURS}
        self.bar.set_parts([(seconds[stage], colour) for stage, colour in STAGE_COLOURS.items()])
        for stage, word in self.stage_labels.items():
            word.setText(f"{stage} {format_seconds(seconds[stage])}")
            word.setToolTip(f"{stage}: {format_duration(seconds[stage])}")


def format_seconds(seconds: float) -> str:
    """Return seconds in at most five characters, for a narrow column."""
    return f"{seconds:.1f}" if seconds < 9.95 else format_si(seconds).replace(" ", "")
