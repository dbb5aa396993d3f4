"""The panel that napari docks: the tabs Run, Regions, Compare and Export.

Invariant: the panel owns its controller and ticks it by the clock; it ends both when it is
destroyed, closed with its window, or shut down.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari.settings import get_settings
from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QFrame,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.layer_refresh import auto_refresh, clock
from hrviewer.viewer.preferences import apply_preferences, read_preferences
from hrviewer.viewer.widgets.actions import Actions
from hrviewer.viewer.widgets.axis_labels import format_axis_labels
from hrviewer.viewer.widgets.common import TextSizedWidget, heading, style_sheet
from hrviewer.viewer.widgets.compare_tab import CompareTab
from hrviewer.viewer.widgets.cost_breakdown import TimeBreakdown
from hrviewer.viewer.widgets.export_tab import ExportTab
from hrviewer.viewer.widgets.gl_workaround import avoid_llvmpipe_crash
from hrviewer.viewer.widgets.ground_truth_toggle import GroundTruthToggle
from hrviewer.viewer.widgets.head_form import HeadForm
from hrviewer.viewer.widgets.live_toggle import LiveToggle
from hrviewer.viewer.widgets.object_form import ObjectForm
from hrviewer.viewer.widgets.open_run_button import OpenRunButton
from hrviewer.viewer.widgets.overlay_legend import OverlayLegend
from hrviewer.viewer.widgets.overview import ImageOverview
from hrviewer.viewer.widgets.patch_inspector import PatchInspectorWidget
from hrviewer.viewer.widgets.region_tab import RegionTab
from hrviewer.viewer.widgets.run_controls import RunControls
from hrviewer.viewer.widgets.run_settings import RunSettingsForm
from hrviewer.viewer.widgets.run_summary import IntervalWidget
from hrviewer.viewer.widgets.slide_tab import SlideTab
from hrviewer.viewer.widgets.warp_view import WarpPreview
from hrviewer.viewer.widgets.window import arrange_docks, fit_title

if TYPE_CHECKING:
    import napari

__all__ = ["Panel"]

TICK_MS, FAST_TICK_MS = 60, 8
"""Milliseconds between ticks; and right after other settings were selected in Live."""

WIDTH_PER_POINT = 44.2
"""Width of the panel at first, in pixels per point of its text."""


class Panel(QTabWidget):
    """hrviewer's panel, with tabs to run, to measure regions, to compare and to export.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        The viewer.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        avoid_llvmpipe_crash()
        format_axis_labels()
        auto_refresh(napari_viewer)
        self.controller = controller = Controller(napari_viewer)
        apply_preferences(controller, read_preferences())
        self.run_settings = RunSettingsForm(controller)
        self.live_toggle = LiveToggle(controller)
        self.run_controls = RunControls(controller)
        self.interval_widget = IntervalWidget(controller)
        self.overlay_legend = OverlayLegend(controller)
        self.object_form = ObjectForm(controller)
        self.head_form = HeadForm(controller)
        self.ground_truth = GroundTruthToggle(controller)
        self.overview = ImageOverview(controller)
        self.time_breakdown = TimeBreakdown(controller)
        self.patch_inspector = PatchInspectorWidget(controller)
        self.warp_preview = WarpPreview(controller)
        self.open_run_button = OpenRunButton(controller)

        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(10, 8, 10, 10)
        layout.setSpacing(7)
        layout.addWidget(self.run_settings)
        layout.addWidget(separator())
        layout.addWidget(self.live_toggle)
        layout.addWidget(self.run_controls)
        layout.addWidget(separator())
        layout.addWidget(heading("Overlays"))
        layout.addWidget(self.overlay_legend)
        layout.addWidget(self.object_form)
        layout.addWidget(self.ground_truth)
        layout.addWidget(self.head_form)
        layout.addWidget(separator())
        layout.addWidget(heading("Overview"))
        layout.addWidget(self.overview)
        layout.addWidget(separator())
        # From here on the height depends on the strategy and its results.
        layout.addWidget(heading("Parameters"))
        layout.addWidget(self.run_settings.details)
        layout.addWidget(self.interval_widget)
        layout.addWidget(self.run_controls.notes)
        layout.addWidget(separator())
        layout.addWidget(heading("Time in seconds"))
        layout.addWidget(self.time_breakdown)
        layout.addWidget(separator())
        layout.addWidget(heading("Patch"))
        layout.addWidget(self.patch_inspector)
        layout.addWidget(self.warp_preview)
        layout.addStretch(1)
        layout.addWidget(self.open_run_button)
        self.compare_tab = CompareTab(controller)
        self.addTab(scroll_area(body), "Run")
        self.region_tab = RegionTab(controller)
        self.addTab(scroll_area(self.region_tab), "Regions")
        self.export_tab = ExportTab(controller)
        self.addTab(self.compare_tab, "Compare")
        self.addTab(scroll_area(self.export_tab), "Export")
        self.slide_tab = SlideTab(controller)
        self.addTab(self.slide_tab, "Slides")
        self.setDocumentMode(True)
        self.setMinimumWidth(300)

        napari_viewer.events.theme.connect(self._restyle)
        get_settings().appearance.events.font_size.connect(self._restyle)
        self._restyle()
        clock().start(self._tick, TICK_MS)
        controller.state.strategy_changed.connect(self._tick_now)
        settings, runs = self.run_settings, self.open_run_button
        self.user_actions = Actions(
            self,
            controller,
            {
                "open_image": lambda: settings.open_button.choose_file(),
                "open_folder": lambda: settings.open_button.choose_folder(),
                "open_model": lambda: settings.choose_model(),
                "open_run": lambda: runs.choose_run(),
                "draw_region": lambda: settings.draw_region(),
                "undo_drawing": lambda: controller.drawing.undo(),
                "redo_drawing": lambda: controller.drawing.redo(),
                "reset_layout": self.arrange,
                "export_figure": self.export_tab.choose_figure,
            },
        )
        # The last resort, when only Qt's side of the panel goes.
        self.destroyed.connect(partial(clock().stop, self._tick))
        self.destroyed.connect(controller.close)

    def shut_down(self) -> None:
        """End the run and the ticks; may be called twice."""
        clock().stop(self._tick)
        get_settings().appearance.events.font_size.disconnect(self._restyle)
        if self.compare_tab.scaling_window is not None:
            self.compare_tab.scaling_window.stop()
        self.controller.close()

    def sizeHint(self) -> QSize:
        """Wide enough for every row, at any height of the window."""
        return QSize(self.preferred_width, 800)

    @property
    def preferred_width(self) -> int:
        """Width of the panel at first, in pixels; it follows the size of the text."""
        return round(WIDTH_PER_POINT * float(get_settings().appearance.font_size))

    def arrange(self) -> None:
        """Put the panel and napari's docks where they are at first."""
        arrange_docks(self, self.preferred_width)
        self.setCurrentIndex(0)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Fit the title of the dock, which the panel has by now."""
        super().showEvent(event)
        fit_title(self)

    def event(self, event: QEvent | None) -> bool:
        """End when napari takes the panel out of its dock, for good: that sends no close event."""
        if event is not None:
            orphan = event.type() == QEvent.Type.ParentChange and self.parent() is None
            if orphan or event.type() == QEvent.Type.DeferredDelete:
                self.shut_down()
        return bool(super().event(event))

    def _tick(self) -> None:
        window = self.window()
        live = self.controller.live
        live.set_suspended(window is None or not window.isVisible() or window.isMinimized())
        self.controller.tick()
        self.overview.tick()
        clock().set_interval(self._tick, FAST_TICK_MS if live.switching else TICK_MS)

    def _tick_now(self) -> None:
        clock().start(self._tick, TICK_MS, at_once=True)

    def _restyle(self) -> None:
        theme = get_theme(self.controller.viewer.theme)
        text, back = (c.as_rgb_tuple(alpha=False) for c in (theme.text, theme.background))
        muted, box = mix_colours(text, back, 0.72), str(theme.primary.as_rgb())
        self.setStyleSheet(
            style_sheet(
                mix_colours(text, back, 1),
                muted,
                mix_colours(text, back, 0.22),
                box,
                get_settings().appearance.font_size,
            )
        )
        for part in self.findChildren(TextSizedWidget):
            part.fit_text()
        fit_title(self)


def mix_colours(a: tuple[float, ...], b: tuple[float, ...], fraction: float) -> str:
    """Return a colour between two, for a style sheet."""
    channels = (round(fraction * x + (1 - fraction) * y) for x, y in zip(a, b, strict=False))
    return f"rgb({', '.join(map(str, channels))})"


def scroll_area(body: QWidget) -> QScrollArea:
    """Return a column that scrolls up and down."""
    made = QScrollArea()
    made.setWidget(body)
    made.setWidgetResizable(True)
    made.setFrameShape(QFrame.Shape.NoFrame)
    made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    return made


def separator() -> QFrame:
    """Return a thin line between parts."""
    made = QFrame()
    made.setProperty("role", "line")
    made.setFixedHeight(1)
    return made
