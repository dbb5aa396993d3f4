"""The panel as napari docks it: parts below each other in a column that scrolls, and a second tab.

Invariant: the panel owns its controller and the timer that wakes it, and ends both when it is
destroyed, closed with its window, or told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtWidgets import (
    QFrame,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import heading, style
from hrviewer.viewer.widgets.compare_tab import Comparing
from hrviewer.viewer.widgets.cost_breakdown import Breakdown
from hrviewer.viewer.widgets.export_tab import ExportTab
from hrviewer.viewer.widgets.gl_workaround import keep_programs
from hrviewer.viewer.widgets.ground_truth_toggle import TruthSwitch
from hrviewer.viewer.widgets.head_form import LabelForm
from hrviewer.viewer.widgets.live_toggle import Following
from hrviewer.viewer.widgets.open_run_button import Files
from hrviewer.viewer.widgets.overlay_legend import Legend
from hrviewer.viewer.widgets.patch_inspector import Clicked
from hrviewer.viewer.widgets.run_controls import Running
from hrviewer.viewer.widgets.run_settings import Choice
from hrviewer.viewer.widgets.run_summary import Interval
from hrviewer.viewer.widgets.shortcuts import Shortcuts
from hrviewer.viewer.widgets.warp_view import Warped

if TYPE_CHECKING:
    import napari

__all__ = ["Panel"]

TICK, SOON = 60, 8
"""Milliseconds between looks at what other threads did; and right after another choice."""

WIDTH = 384


class Panel(QTabWidget):
    """hrviewer's panel: one tab to look, one to compare, one to export.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The window's.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        keep_programs()
        self.controller = controller = Controller(napari_viewer)
        self.choice = Choice(controller)
        self.following = Following(controller)
        self.running = Running(controller)
        self.interval = Interval(controller)
        self.legend = Legend(controller)
        self.labels = LabelForm(controller)
        self.truth = TruthSwitch(controller)
        self.breakdown = Breakdown(controller)
        self.clicked = Clicked(controller)
        self.warped = Warped(controller)
        self.files = Files(controller)

        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(self.choice)
        layout.addWidget(line())
        layout.addWidget(self.following)
        layout.addWidget(self.running)
        layout.addWidget(self.interval)
        layout.addWidget(line())
        layout.addWidget(heading("Overlays"))
        layout.addWidget(self.legend)
        layout.addWidget(self.truth)
        layout.addWidget(self.labels)
        layout.addWidget(line())
        layout.addWidget(heading("Where the time went, in seconds"))
        layout.addWidget(self.breakdown)
        layout.addWidget(line())
        layout.addWidget(heading("Patch"))
        layout.addWidget(self.clicked)
        layout.addWidget(self.warped)
        layout.addStretch(1)
        layout.addWidget(self.files)
        self.comparing = Comparing(controller)
        self.addTab(column(body), "Look")
        self.exporting = ExportTab(controller)
        self.addTab(self.comparing, "Compare")
        self.addTab(column(self.exporting), "Export")
        self.setDocumentMode(True)
        self.setMinimumWidth(300)

        napari_viewer.events.theme.connect(self._restyle)
        self._restyle()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK)
        controller.strategy_changed.connect(self._hurry)
        self.shortcuts = Shortcuts(self, controller)
        # The last resort, when only Qt's side of the panel goes.
        self.destroyed.connect(controller.close)

    def close_all(self) -> None:
        """End the run and the timer; may be called twice."""
        self._timer.stop()
        if self.comparing.costing is not None:
            self.comparing.costing.end()
        self.controller.close()

    def sizeHint(self) -> QSize:
        """Wide enough for every row, whatever the window's height."""
        return QSize(WIDTH, 800)

    def event(self, event: QEvent | None) -> bool:
        """End when napari takes the panel out of its dock, for good: that sends no close event."""
        if event is not None:
            orphan = event.type() == QEvent.Type.ParentChange and self.parent() is None
            if orphan or event.type() == QEvent.Type.DeferredDelete:
                self.close_all()
        return bool(super().event(event))

    def _tick(self) -> None:
        window = self.window()
        self.controller.live.sleep(window is None or not window.isVisible() or window.isMinimized())
        self.controller.tick()
        pause = SOON if self.controller.live.turning else TICK
        if self._timer.interval() != pause:  # setting it begins it anew
            self._timer.setInterval(pause)

    def _hurry(self) -> None:
        self._timer.start(0)

    def _restyle(self) -> None:
        theme = get_theme(self.controller.viewer.theme)
        text, back = (c.as_rgb_tuple(alpha=False) for c in (theme.text, theme.background))
        muted, box = mix(text, back, 0.72), str(theme.primary.as_rgb())
        self.setStyleSheet(style(mix(text, back, 1), muted, mix(text, back, 0.22), box))


def mix(a: tuple[float, ...], b: tuple[float, ...], part: float) -> str:
    """Return a colour between two, for a style sheet."""
    channels = (round(part * x + (1 - part) * y) for x, y in zip(a, b, strict=False))
    return f"rgb({', '.join(map(str, channels))})"


def column(body: QWidget) -> QScrollArea:
    """Return a column that scrolls up and down."""
    made = QScrollArea()
    made.setWidget(body)
    made.setWidgetResizable(True)
    made.setFrameShape(QFrame.Shape.NoFrame)
    made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return made


def line() -> QFrame:
    """Return a thin line between parts."""
    made = QFrame()
    made.setProperty("voice", "line")
    made.setFixedHeight(1)
    return made
