"""Plot of the estimate and its 95 % interval against cost, as it narrows during a run."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from hrviewer.engine import PublishedEstimate
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.widgets.common import label

__all__ = ["IntervalPlot", "IntervalWidget", "interval_of"]

BAND_COLOUR, ESTIMATE_COLOUR = QColor(86, 180, 233, 110), QColor("#e69f00")
"""Okabe and Ito's colours, distinct for colour-blind users."""

HEIGHT = 64
MARGIN = 3.0


class IntervalWidget(QWidget):
    """A small plot, hidden where an estimate has no interval.

    Parameters
    ----------
    controller : Controller
        Has the result maps.
    """

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self.controller = controller
        self.plot = IntervalPlot()
        caption = label(
            "95 % interval for exhaustive inference, against FLOPs", "secondary", wrap=True
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.plot)
        layout.addWidget(caption)
        controller.state.progress_changed.connect(self.refresh)
        controller.state.overlays_replaced.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Draw the estimates that were published so far."""
        maps = self.controller.state.maps
        published = [] if maps is None else maps.record.published
        known = [estimate for estimate in published if estimate.interval is not None]
        self.setVisible(bool(known))
        if known:
            self.plot.set_estimates(known)


class IntervalPlot(QWidget):
    """A band that narrows, and the estimate in it."""

    def __init__(self) -> None:
        super().__init__()
        self._estimates: Sequence[PublishedEstimate] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def count(self) -> int:
        """Number of estimates drawn."""
        return len(self._estimates)

    def set_estimates(self, estimates: Sequence[PublishedEstimate]) -> None:
        """Draw these estimates, each with an interval."""
        self._estimates = tuple(estimates)
        self.update()

    def sizeHint(self) -> QSize:
        """As wide as there is room."""
        return QSize(60, HEIGHT)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), QColor(128, 128, 128, 40))
        if self._estimates:
            upper, lower, middle = self.polylines(QRectF(self.rect()))
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(BAND_COLOUR)
            painter.drawPolygon(QPolygonF([*upper, *reversed(lower)]))
            painter.setPen(QPen(ESTIMATE_COLOUR, 1.5))
            painter.drawPolyline(QPolygonF(middle))
        painter.end()

    def polylines(self, frame: QRectF) -> tuple[list[QPointF], list[QPointF], list[QPointF]]:
        """Return the interval's ends and the estimate as points inside `frame`.

        The last interval takes half of the height, at least: an early one may be so wide that
        beside it the last would be a line. One that came at the end only goes all the way.
        """
        estimates, first, last = (
            self._estimates,
            self._estimates[0].flops,
            self._estimates[-1].flops,
        )
        if last > first:
            across = [(one.flops - first) / (last - first) for one in estimates]
        else:
            estimates, across = [estimates[-1]] * 2, [0.0, 1.0]
        ends = [interval_of(one) for one in estimates]
        value, (low, high) = estimates[-1].value, ends[-1]
        room = max(high - low for low, high in ends) / 2 if last > first else high - low
        half = max(min(room, high - low), abs(value) * 0.01, 1e-9)
        bottom, top = (low + high) / 2 - half, (low + high) / 2 + half
        inner = frame.adjusted(MARGIN, MARGIN, -MARGIN, -MARGIN)

        def at(x: float, value: float) -> QPointF:
            y = (min(max(value, bottom), top) - bottom) / (top - bottom)
            return QPointF(inner.left() + x * inner.width(), inner.bottom() - y * inner.height())

        upper = [at(x, high) for x, (_, high) in zip(across, ends, strict=True)]
        lower = [at(x, low) for x, (low, _) in zip(across, ends, strict=True)]
        # An interval that holds at all moments narrows to what all of them leave possible: the
        # draws may point beyond it.
        inside = [
            at(x, min(max(one.value, low), high))
            for x, one, (low, high) in zip(across, estimates, ends, strict=True)
        ]
        return upper, lower, inside


def interval_of(estimate: PublishedEstimate) -> tuple[float, float]:
    """Return an estimate's interval; the estimate itself where there is none."""
    low, high = estimate.interval or (estimate.value, estimate.value)
    return (low, high) if math.isfinite(high - low) else (estimate.value, estimate.value)
