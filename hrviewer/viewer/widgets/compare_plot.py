"""A plot in the window: what runs lost against what they cost; points answer to the mouse.

matplotlib draws it, where it is installed; it was loaded beside the window's thread before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.theme import get_theme
from qtpy.QtCore import QSize
from qtpy.QtWidgets import QSizePolicy, QToolTip, QVBoxLayout, QWidget

from hrviewer.io.figures.plots import Ink, Quantity, dress, points_of, scatter
from hrviewer.viewer.widgets.common import label

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from hrviewer.runs.run_index import Entry

__all__ = ["Drawn", "Plot", "ink_of", "told"]

NEAR = 12
"""Screen pixels within which a point is meant."""


class Drawn(QWidget):
    """A figure of one panel that fills a widget, or a line that says what is missing for it."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self.viewer = viewer
        self.canvas: Any = None
        self.panel: Any = None
        self.words = label(
            "plots need matplotlib: pip install 'hrviewer[plots]'", "muted", wrap=True
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.words)
        self.words.hide()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)

    def sizeHint(self) -> QSize:
        """Large enough to read."""
        return QSize(340, 250)

    def minimumSizeHint(self) -> QSize:
        """As small as it can still be read."""
        return QSize(220, 170)

    def begin(self) -> Ink | None:
        """Empty the panel; return its colours, None if nothing can be drawn."""
        if self.canvas is None and not self._make():
            self.words.show()
            return None
        ink = ink_of(self.viewer)
        self.panel.figure.set_facecolor(ink.paper)
        self.panel.clear()
        dress(self.panel, ink)
        return ink

    def _make(self) -> bool:
        try:
            from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
            from matplotlib.figure import Figure
        except ImportError:
            return False
        figure = Figure(layout="constrained")
        self.canvas = FigureCanvasQTAgg(figure)  # type: ignore[no-untyped-call]
        self.canvas.setMinimumSize(10, 10)
        self.panel = figure.subplots()
        self.layout().addWidget(self.canvas)
        self.canvas.mpl_connect("motion_notify_event", self.moved)
        self.canvas.mpl_connect("button_press_event", self.pressed)
        return True

    def moved(self, event: Any) -> None:
        """The mouse moves over the figure."""

    def pressed(self, event: Any) -> None:
        """A button is pressed over the figure."""


class Plot(Drawn):
    """Error, or the answer where no error is known, against cost.

    Parameters
    ----------
    viewer : ViewerModel
        Whose colours are taken.
    chosen : callable
        Told which entry was clicked, and whether it is to be added to those chosen.
    """

    def __init__(self, viewer: ViewerModel, chosen: Callable[[Entry, bool], None]) -> None:
        super().__init__(viewer)
        self._chosen = chosen
        self.entries: list[Entry] = []
        self._xy = np.zeros((0, 2))

    def draw(self, entries: Sequence[Entry], chosen: Sequence[Entry], names: list[str]) -> None:
        """Draw runs.

        Parameters
        ----------
        entries, chosen : sequence of Entry
            All, and those that are marked.
        names : list of str
            Strategies, in the order of their colours.
        """
        ink = self.begin()
        if ink is None:
            return
        judged = any(entry.row["error"] is not None for entry in entries)
        column = "error" if judged else "estimate"
        shown = [entry for entry in entries if entry.row[column] is not None]
        self.entries = shown
        values = [float(entry.row[column]) for entry in shown]
        heights = np.abs(values) if judged else np.array(values)
        costs = np.array([float(entry.row["flops"]) for entry in shown])
        self._xy = np.column_stack([costs, heights])
        kinds = [entry.strategy for entry in shown]
        scatter(self.panel, costs, heights, kinds, Quantity("cost", "FLOP"), ink, names=names,
                front=judged)  # fmt: skip
        for entry, (x, y) in zip(shown, self._xy, strict=True):
            if entry in chosen:
                ring = {"ms": 14, "mfc": "none", "mew": 1.6, "mec": ink.text}
                self.panel.plot(x, y, "o", **ring, zorder=4)
        self.panel.set_ylabel("absolute error" if judged else "answer")
        if not shown:
            self.panel.set(xticks=[], yticks=[])
        self.canvas.draw_idle()

    def near(self, event: Any) -> Entry | None:
        """Return the run whose point is under the mouse."""
        if not len(self._xy):
            return None
        at = points_of(self.panel, *self._xy.T)
        away = np.hypot(*(at - (event.x, event.y)).T)
        nearest = int(away.argmin())
        reach = NEAR * self.canvas.device_pixel_ratio
        return self.entries[nearest] if away[nearest] <= reach else None

    def moved(self, event: Any) -> None:
        """Say which run lies under the mouse, with its parameters."""
        entry = self.near(event)
        said = "" if entry is None else told(entry)
        self.canvas.setToolTip(said)
        if said and event.guiEvent is not None:
            QToolTip.showText(event.guiEvent.globalPosition().toPoint(), said, self.canvas)
        elif not said:
            QToolTip.hideText()

    def pressed(self, event: Any) -> None:
        """Choose the run under the mouse."""
        entry = self.near(event)
        if entry is not None:
            self._chosen(entry, event.key in ("control", "shift"))


def told(entry: Entry) -> str:
    """Return what is to be known of a run, in lines."""
    from hrviewer.runs import sentence
    from hrviewer.units import duration, si, signed

    header, row = entry.run.header, entry.row
    params = "\n".join(f"{name} = {value}" for name, value in header["params"].items())
    error = row["error"]
    against = {"truth": "the truth", "patches": "the exhaustive run", "": ""}[entry.against]
    lines = [
        entry.strategy,
        params or "default parameters",
        f"budget {header['budget']}" if header["budget"] else "",
        sentence(entry.run.estimate),
        "" if error is None else f"error {signed(error)} against {against}",
        f"{si(row['flops'], 'FLOP')} · {duration(row['wall_s'])} · {header['model']}",
        str(header["started"])[:16].replace("T", " "),
    ]
    return "\n".join(filter(None, lines))


def ink_of(viewer: ViewerModel) -> Ink:
    """Return the colours of a window's theme."""
    theme = get_theme(viewer.theme)
    return Ink(
        text=theme.text.as_hex(),
        faint=theme.secondary.as_hex(),
        grid=theme.foreground.as_hex(),
        paper=theme.background.as_hex(),
    )
