"""A plot in the window: error of runs against their cost, with tooltips and selection.

matplotlib draws it, where it is installed; it was loaded beside the window's thread before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QSizePolicy, QToolTip, QVBoxLayout, QWidget

from hrviewer.escaping import plain_text
from hrviewer.io.figures.plots import (
    AxisLabel,
    PlotTheme,
    canvas_positions,
    draw_agreement,
    plot_points,
    style_axes,
)
from hrviewer.viewer.widgets.common import label

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from hrviewer.runs.agreement import Agreement
    from hrviewer.runs.run_index import RunEntry

__all__ = ["ComparePlot", "MplWidget", "plot_theme", "run_tooltip"]

MAX_CLASSES = 8
"""Classes that a tooltip lists, at most."""

PICK_RADIUS_PX = 12
"""Screen pixels within which a point is meant."""


class MplWidget(QWidget):
    """A figure of one panel that fills a widget, or a line that names what is missing for it."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.canvas: Any = None
        self.axes: Any = None
        self.message = label(
            "plots need matplotlib: pip install 'hrviewer[plots]'", "secondary", wrap=True
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.message)
        self.message.hide()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        """Large enough to read."""
        return QSize(340, 250)

    def minimumSizeHint(self) -> QSize:
        """As small as it can still be read."""
        return QSize(220, 170)

    def prepare_axes(self) -> PlotTheme | None:
        """Empty the panel; return its colours, None if nothing can be drawn."""
        if self.canvas is None and not self._create_canvas():
            self.message.show()
            return None
        ink = plot_theme(self.viewer)
        self.axes.figure.set_facecolor(ink.background)
        self.axes.clear()
        style_axes(self.axes, ink)
        return ink

    def _create_canvas(self) -> bool:
        try:
            from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
            from matplotlib.figure import Figure
        except ImportError:
            return False
        figure = Figure(layout="constrained")
        self.canvas = FigureCanvasQTAgg(figure)  # type: ignore[no-untyped-call]
        self.canvas.setMinimumSize(10, 10)
        self.axes = figure.subplots()
        self.layout().addWidget(self.canvas)
        self.canvas.mpl_connect("motion_notify_event", self.on_mouse_move)
        self.canvas.mpl_connect("button_press_event", self.on_mouse_press)
        return True

    def on_mouse_move(self, event: Any) -> None:
        """The mouse moves over the figure."""

    def on_mouse_press(self, event: Any) -> None:
        """A button is pressed over the figure."""


class ComparePlot(MplWidget):
    """Error, or the estimate where the error is unknown, against cost.

    Parameters
    ----------
    viewer : ViewerModel
        Whose colours are taken.
    on_select : callable
        Called with a clicked run, and whether to add it to the selection.
    """

    def __init__(self, viewer: ViewerModel, on_select: Callable[[RunEntry, bool], None]) -> None:
        super().__init__(viewer)
        self._on_select = on_select
        self.entries: list[RunEntry] = []
        self._points = np.zeros((0, 2))

    def draw(
        self, entries: Sequence[RunEntry], selected: Sequence[RunEntry], names: list[str]
    ) -> None:
        """Draw runs.

        Parameters
        ----------
        entries, selected : sequence of RunEntry
            All, and those that are marked.
        names : list of str
            Strategies, in the order of their colours.
        """
        ink = self.prepare_axes()
        if ink is None:
            return
        has_errors = any(entry.row["error"] is not None for entry in entries)
        column = "error" if has_errors else "estimate"
        shown = [entry for entry in entries if entry.row[column] is not None]
        self.entries = shown
        values = [float(entry.row[column]) for entry in shown]
        heights = np.abs(values) if has_errors else np.array(values)
        costs = np.array([float(entry.row["flops"]) for entry in shown])
        self._points = np.column_stack([costs, heights])
        kinds = [entry.strategy for entry in shown]
        plot_points(self.axes, costs, heights, kinds, AxisLabel("cost", "FLOP"), ink, names=names,
                front=has_errors)  # fmt: skip
        for entry, (x, y) in zip(shown, self._points, strict=True):
            if entry in selected:
                ring = {"ms": 14, "mfc": "none", "mew": 1.6, "mec": ink.text}
                self.axes.plot(x, y, "o", **ring, zorder=4)
        self.axes.set_ylabel("absolute error" if has_errors else "estimate")
        if not shown:
            self.axes.set(xticks=[], yticks=[])
        self.canvas.draw_idle()

    def draw_agreement(self, title: str, agreement: Agreement) -> None:
        """Draw the differences of two runs by region against the means of both."""
        ink = self.prepare_axes()
        if ink is None:
            return
        self.entries, self._points = [], np.zeros((0, 2))
        draw_agreement(self.axes, agreement, title, ink)
        self.canvas.draw_idle()

    def entry_under(self, event: Any) -> RunEntry | None:
        """Return the run whose point is under the mouse."""
        if not len(self._points):
            return None
        at = canvas_positions(self.axes, *self._points.T)
        away = np.hypot(*(at - (event.x, event.y)).T)
        nearest = int(away.argmin())
        reach = PICK_RADIUS_PX * self.canvas.device_pixel_ratio
        return self.entries[nearest] if away[nearest] <= reach else None

    def on_mouse_move(self, event: Any) -> None:
        """Show the tooltip of the run under the mouse."""
        entry = self.entry_under(event)
        tooltip = "" if entry is None else plain_text(run_tooltip(entry))
        self.canvas.setToolTip(tooltip)
        if tooltip and event.guiEvent is not None:
            QToolTip.showText(event.guiEvent.globalPosition().toPoint(), tooltip, self.canvas)
        elif not tooltip:
            QToolTip.hideText()

    def on_mouse_press(self, event: Any) -> None:
        """Select the run under the mouse."""
        entry = self.entry_under(event)
        if entry is not None:
            self._on_select(entry, event.key in ("control", "shift"))


def run_tooltip(entry: RunEntry) -> str:
    """Return the tooltip of a run: parameters, estimate, error, cost."""
    from hrviewer.runs import format_estimate
    from hrviewer.units import format_duration, format_si, format_signed

    header, row = entry.run.header, entry.row
    params = "\n".join(f"{name} = {value}" for name, value in header["params"].items())
    error = row["error"]
    against = {"truth": "the ground truth", "patches": "the exhaustive run", "": ""}[
        entry.reference_source
    ]
    lines = [
        entry.label.title,
        entry.strategy,
        params or "default parameters",
        f"budget {header['budget']}" if header["budget"] else "",
        format_estimate(entry.run.estimate),
        "" if error is None else f"error {format_signed(error)} against {against}",
        *(
            f"{title} " + ", ".join(f"{name} {value:.3g}" for name, value in row[key].items())
            for title, key in (("error", "class_error"), ("Dice", "dice"))
            if row[key] and len(row[key]) <= MAX_CLASSES
        ),
        "" if row["ap50"] is None else f"average precision {row['ap50']:.3f} at an overlap of 0.5",
        ""
        if row["of_once_per_pixel"] is None
        else f"{row['of_once_per_pixel']:.3g} of the model once per pixel",
        f"{format_si(row['flops'], 'FLOP')} · {format_duration(row['wall_s'])} · {header['model']}",
        str(header["started"])[:16].replace("T", " "),
        entry.label.note,
    ]
    return "\n".join(filter(None, lines))


def plot_theme(viewer: ViewerModel) -> PlotTheme:
    """Return the colours of a window's theme."""
    theme = get_theme(viewer.theme)
    return PlotTheme(
        text=theme.text.as_hex(),
        muted=theme.secondary.as_hex(),
        grid=theme.foreground.as_hex(),
        background=theme.background.as_hex(),
    )
