"""Plots: error against cost, cost against resolution; as PNG, or on a window's own figure.

Nothing here touches pyplot, so nothing global is changed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hrviewer.errors import HrviewerError

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PALETTE",
    "AxisLabel",
    "CostCurve",
    "PlotTheme",
    "canvas_positions",
    "color_and_marker",
    "matplotlib_missing_reason",
    "pareto_front",
    "plot_cost_by_side",
    "plot_curves",
    "plot_error_by_cost",
    "plot_points",
    "require_matplotlib",
    "style_axes",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7a7a7a", "#a3a300")
"""Okabe's and Ito's, which colour-blind people can tell apart, on white and on black."""
MARKERS = "os^Dv<>P"
LABEL_OFFSETS = (
    (8, 5), (8, -12), (-8, 5), (-8, -12), (0, 11), (0, -19),
    (8, 17), (8, -24), (-8, 17), (-8, -24), (8, 29), (8, -36),
)  # fmt: skip
"""Where a label may stand beside its point, in points, the best first."""


@dataclass(frozen=True)
class AxisLabel:
    """What an axis shows."""

    name: str
    unit: str


@dataclass(frozen=True)
class PlotTheme:
    """Colours of what is written, of what is in the background, and of the paper."""

    text: str = "#222222"
    muted: str = "#9a9a9a"
    grid: str = "#e8e8e8"
    background: str = "#ffffff"


def matplotlib_missing_reason() -> str | None:
    """Return why no plot can be drawn; None if matplotlib is installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "plots need matplotlib: pip install 'hrviewer[plots]'"
    return None


def require_matplotlib() -> None:
    """Check for matplotlib before a long computation.

    Raises
    ------
    HrviewerError
        If it is not installed.
    """
    reason = matplotlib_missing_reason()
    if reason is not None:
        raise HrviewerError(reason)


def pareto_front(cost: Sequence[float], error: Sequence[float]) -> list[int]:
    """Return which points no other beats in both, cheapest first."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], error[i]))
    front: list[int] = []
    for i in order:
        if not front or error[i] < error[front[-1]]:
            front.append(i)
    return front


def color_and_marker(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the colour and the mark of one of several."""
    i = names.index(name)
    return PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]


def plot_error_by_cost(
    points: pd.DataFrame,
    costs: Mapping[str, AxisLabel],
    error: str,
    *,
    name: str = "strategy",
    interval: str | None = None,
) -> bytes:
    """Plot what is lost against what is spent, one panel per cost, with the Pareto front.

    Parameters
    ----------
    points : DataFrame
        One row per point, with the columns below, ``error`` and ``label``.
    costs : mapping
        Columns of costs, and what they are.
    error : str
        What the column ``error`` is.
    name : str
        The column that says what a point is, up to a slash: its colour.
    interval : str, optional
        The column of ``(low, high)`` around the error.
    """
    ink = PlotTheme()
    with new_figure(len(costs)) as (canvas, panels):
        for panel, (column, cost) in zip(panels, costs.items(), strict=True):
            kinds = [str(kind).split("/")[0] for kind in points[name]]
            bars = None if interval is None else list(points[interval])
            plot_points(panel, points[column], points["error"], kinds, cost, ink, intervals=bars)
        panels[0].set_ylabel(error)
        canvas.draw()
        for panel, column in zip(panels, costs, strict=True):
            annotate_points(
                panel,
                canvas_positions(panel, points[column], points["error"]),
                list(points["label"]),
                ink,
            )
        return to_png(canvas)


def plot_points(
    panel: Any,
    cost: Any,
    error: Any,
    kinds: Sequence[str],
    label: AxisLabel,
    theme: PlotTheme,
    *,
    intervals: Sequence[tuple[float, float] | None] | None = None,
    names: Sequence[str] | None = None,
    front: bool = True,
) -> None:
    """Draw points of error against cost, and what no other beats, on a panel.

    Parameters
    ----------
    panel : Axes
        Empty.
    cost, error : array-like of float
        Of each point.
    kinds : sequence of str
        What each point is: its colour and mark.
    label : Quantity
        What the cost is.
    theme : Ink
        Colours.
    intervals : sequence, optional
        ``(low, high)`` around each error, None where it is not known.
    names : sequence of str, optional
        All kinds in the order of their colours; as they come if not given.
    front : bool
        Whether less is better, and the Pareto front is drawn.
    """
    from matplotlib.ticker import EngFormatter

    x, y = np.asarray(cost, float), np.asarray(error, float)
    names = names or list(dict.fromkeys(kinds))
    for i, kind in enumerate(kinds):
        colour, mark = color_and_marker(kind, names)
        span = intervals[i] if intervals is not None else None
        if span is not None:
            panel.vlines(x[i], *span, color=colour, alpha=0.35, lw=2)
        panel.plot(x[i], y[i], mark, color=colour, ms=8, mec=theme.background, zorder=3)
    if front:
        best = pareto_front(x.tolist(), y.tolist())
        panel.step(x[best], y[best], where="post", color=theme.muted, lw=1, ls="--", zorder=1)
    if len(x) and (x > 0).all():
        panel.set_xscale("log")
    if len(y) and y.min() > 0 and y.max() > 10 * y.min():
        panel.set_yscale("log")
    elif len(y):
        panel.set_ylim(bottom=min(0.0, y.min()))
    panel.margins(x=0.16, y=0.12)
    panel.xaxis.set_major_formatter(EngFormatter())
    panel.set_xlabel(f"{label.name} ({label.unit})" if label.unit else label.name)
    limit_ticks(panel)


def limit_ticks(panel: Any) -> None:
    """Keep numbers on an axis apart, and give a short logarithmic one more than one of them."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    for axis, scale, limits in (
        (panel.xaxis, panel.get_xscale(), panel.get_xlim()),
        (panel.yaxis, panel.get_yscale(), panel.get_ylim()),
    ):
        if scale == "log":
            decades = np.log10(limits[1] / limits[0])
            subs = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
            axis.set_major_locator(LogLocator(subs=subs, numticks=9))
            axis.set_minor_formatter(NullFormatter())
            if axis is panel.yaxis:
                axis.set_major_formatter(EngFormatter())


def canvas_positions(panel: Any, x: Any, y: Any) -> Any:
    """Return where points of a drawn panel are on its canvas, pixels, ``(n, 2)``."""
    return panel.transData.transform(np.column_stack([np.asarray(x, float), np.asarray(y, float)]))


def annotate_points(panel: Any, at: Any, labels: Sequence[str], theme: PlotTheme) -> None:
    """Write labels beside points of a drawn panel, each where it covers nothing, if it can."""
    from matplotlib.transforms import Bbox

    renderer = panel.figure.canvas.get_renderer()
    frame = panel.get_window_extent(renderer)
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in at]
    back = panel.transData.inverted().transform(at)
    for (x, y), text in zip(back, labels, strict=True):
        if not text:
            continue
        label = panel.annotate(text, (x, y), xytext=LABEL_OFFSETS[0], textcoords="offset points",
                               fontsize=8, color=theme.text)  # fmt: skip
        label.set_in_layout(False)
        for dx, dy in LABEL_OFFSETS:
            label.xyann = dx, dy
            label.set_horizontalalignment({8: "left", 0: "center", -8: "right"}[dx])
            box = label.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 + 12 and frame.y0 <= box.y0
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(label.get_window_extent(renderer))


@dataclass(frozen=True)
class CostCurve:
    """One cost against the side of a square input.

    Parameters
    ----------
    label : Quantity
        What it is.
    sides, values : sequence of float
        What was measured.
    constant, per_pixel : float
        The fit, ``constant + per_pixel · side² + per_pair · side⁴``.
    max_relative_error : float
        The largest part by which the fit misses a value.
    limit : float, optional
        What may be spent.
    per_pair : float
        See `constant`.
    lines : mapping of str to (sides, values)
        What is drawn beside it, by name.
    """

    label: AxisLabel
    sides: Sequence[float]
    values: Sequence[float]
    constant: float
    per_pixel: float
    max_relative_error: float
    limit: float | None = None
    per_pair: float = 0.0
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)


def plot_cost_by_side(cost_curves: Sequence[CostCurve], largest: float | None) -> bytes:
    """Plot what a network takes against the side of its input, one panel per cost; see `curves`."""
    with new_figure(len(cost_curves)) as (canvas, panels):
        plot_curves(panels, cost_curves, largest, PlotTheme())
        return to_png(canvas)


def plot_curves(
    panels: Sequence[Any], cost_curves: Sequence[CostCurve], largest: float | None, theme: PlotTheme
) -> None:
    """Draw costs against a side: what was measured, the fit, and how far it is extrapolated.

    Parameters
    ----------
    panels : sequence of Axes
        One for each curve, empty.
    cost_curves : sequence of Curve
        What to draw.
    largest : float, optional
        Side of the largest input that fits.
    theme : Ink
        Colours.
    """
    from matplotlib.ticker import EngFormatter

    for panel, curve, colour in zip(panels, cost_curves, PALETTE, strict=False):
        sides = np.asarray(curve.sides, float)
        far = np.geomspace(sides.min(), max(8 * sides.max(), 65536), 80)
        eng = EngFormatter(unit=curve.label.unit, places=1)
        fitted = f"{eng(curve.constant)} + {eng(curve.per_pixel)} · side²"
        if curve.per_pair:
            fitted += f" + {eng(curve.per_pair)} · side⁴"
        line = curve.constant + curve.per_pixel * far**2 + curve.per_pair * far**4
        panel.plot(
            far,
            line,
            "--",
            color=theme.muted,
            lw=1.2,
            label=f"{fitted}\nwithin {curve.max_relative_error:.0%}",
        )
        panel.plot(
            sides, curve.values, "o", color=colour, ms=6, mec=theme.background, label="measured"
        )
        for i, (name, style) in enumerate(zip(curve.lines, PALETTE[1:], strict=False)):
            # The later the thinner: lines may lie on each other.
            width = 1.2 * (len(curve.lines) - i)
            panel.plot(*curve.lines[name], "-", color=style, lw=width, label=name)
        if largest is not None:
            panel.axvline(largest, color=theme.text, lw=1, alpha=0.7)
            panel.annotate(f"largest: {largest:,.0f}", (largest, 0.03), xytext=(4, 0), fontsize=8,
                           xycoords=panel.get_xaxis_transform(), textcoords="offset points",
                           color=theme.text)  # fmt: skip
        if curve.limit is not None:
            panel.axhline(curve.limit, color=PALETTE[1], lw=1, alpha=0.7)
        panel.set_xscale("log")
        panel.set_yscale("log")
        limit_ticks(panel)
        panel.yaxis.set_major_formatter(EngFormatter(unit=curve.label.unit))
        panel.xaxis.set_major_formatter(EngFormatter(unit="px"))
        panel.set_xlabel("side of a square input")
        panel.set_title(curve.label.name, fontsize=9, color=theme.text, loc="left")
        legend = panel.legend(fontsize=7.5, frameon=False, loc="upper left")
        for text in legend.get_texts():
            text.set_color(theme.text)


@contextmanager
def new_figure(n: int) -> Iterator[tuple[Any, Any]]:
    """Return a figure of panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(5.2 * n, 4.0), dpi=130, layout="constrained")
    canvas = FigureCanvasAgg(made)
    panels = made.subplots(1, n, squeeze=False)[0]
    for panel in panels:
        style_axes(panel, PlotTheme())
    yield canvas, panels


def style_axes(panel: Any, theme: PlotTheme) -> None:
    """Give a panel its frame, grid and colours."""
    panel.set_facecolor(theme.background)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["bottom", "left"]].set_color(theme.muted)
    panel.tick_params(which="both", color=theme.muted, labelcolor=theme.text, labelsize=8)
    panel.xaxis.label.set(color=theme.text, size=9)
    panel.yaxis.label.set(color=theme.text, size=9)
    panel.grid(color=theme.grid, lw=0.6)
    panel.set_axisbelow(True)


def to_png(canvas: Any) -> bytes:
    """Return a figure's picture."""
    out = io.BytesIO()
    canvas.print_png(out)
    return out.getvalue()
