"""Plots of error by cost and of cost by input size, as PNG or on a figure in the window.

Pyplot is not used, so no global state changes.
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
    "draw_agreement",
    "draw_histogram",
    "matplotlib_missing_reason",
    "pareto_front",
    "plot_agreement",
    "plot_cost_by_side",
    "plot_curves",
    "plot_error_by_cost",
    "plot_histogram",
    "plot_points",
    "require_matplotlib",
    "style_axes",
]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7a7a7a", "#a3a300")
"""Okabe and Ito's colors, which color-blind people can distinguish on white and on black."""
MARKERS = "os^Dv<>P"
SHORT_DECADES = 0.5
"""Decades of a logarithmic axis that has round numbers of one step as ticks."""
LABEL_OFFSETS = (
    (8, 5), (8, -12), (-8, 5), (-8, -12), (0, 11), (0, -19),
    (8, 17), (8, -24), (-8, 17), (-8, -24), (8, 29), (8, -36),
)  # fmt: skip
"""Offsets of a label from its point, in points, in order of preference."""


@dataclass(frozen=True)
class AxisLabel:
    """Name and unit of the quantity on an axis."""

    name: str
    unit: str


@dataclass(frozen=True)
class PlotTheme:
    """Colors of a plot."""

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
    """Return the indices of the Pareto-optimal points, cheapest first."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], error[i]))
    front: list[int] = []
    for i in order:
        if not front or error[i] < error[front[-1]]:
            front.append(i)
    return front


def color_and_marker(name: str, names: Sequence[str]) -> tuple[str, str]:
    """Return the color and marker of a name by its position among names."""
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
    """Plot error by cost with the Pareto front, one panel per cost.

    Parameters
    ----------
    points : DataFrame
        One row per point, with the columns below, ``error`` and ``label``.
    costs : mapping
        Cost columns and their axis labels.
    error : str
        Label of the error axis.
    name : str
        Column whose value, up to a slash, determines color and marker.
    interval : str, optional
        Column of ``(low, high)`` around the error.
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
    """Plot points of error by cost, and their Pareto front, on a panel.

    Parameters
    ----------
    panel : Axes
        Empty.
    cost, error : array-like of float
        Coordinates of the points.
    kinds : sequence of str
        Kind of each point, which determines color and marker.
    label : Quantity
        Label of the cost axis.
    theme : Ink
        Colours.
    intervals : sequence, optional
        ``(low, high)`` around each error; None if unknown.
    names : sequence of str, optional
        All kinds in the order of the palette; in order of appearance by default.
    front : bool
        Whether the Pareto front is drawn.
    """
    from matplotlib.ticker import EngFormatter

    x, y = np.asarray(cost, float), np.asarray(error, float)
    names = names or list(dict.fromkeys(kinds))
    for i, kind in enumerate(kinds):
        color, mark = color_and_marker(kind, names)
        span = intervals[i] if intervals is not None else None
        if span is not None:
            panel.vlines(x[i], *span, color=color, alpha=0.35, lw=2)
        panel.plot(x[i], y[i], mark, color=color, ms=8, mec=theme.background, zorder=3)
    if front:
        best = pareto_front(x.tolist(), y.tolist())
        panel.step(x[best], y[best], where="post", color=theme.muted, lw=1, ls="--", zorder=1)
    if len(x) and (x > 0).all():
        panel.set_xscale("log")
    if len(y) and y.min() > 0 and y.max() > 10 * y.min():
        panel.set_yscale("log")
    panel.margins(x=0.16, y=0.12)  # before the limits, which are no longer automatic then
    if panel.get_yscale() == "linear" and len(y) and 0 <= y.min() < y.max():
        # Half a mark of room for points on the axis.
        panel.set_ylim(bottom=0.0 if y.min() > 0.12 * y.max() else -0.06 * y.max())
    panel.xaxis.set_major_formatter(EngFormatter())
    panel.set_xlabel(f"{label.name} ({label.unit})" if label.unit else label.name)
    limit_ticks(panel)


def limit_ticks(panel: Any) -> None:
    """Space tick labels, and put more than one on a short logarithmic axis."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis, scale, limits in (
        (panel.xaxis, panel.get_xscale(), panel.get_xlim()),
        (panel.yaxis, panel.get_yscale(), panel.get_ylim()),
    ):
        if scale == "log":
            decades = np.log10(limits[1] / limits[0])
            subs = (1.0,) if decades > 2.5 else (1.0, 3.0) if decades > 1.2 else (1.0, 2.0, 5.0)
            short = decades < SHORT_DECADES  # of which a logarithmic locator fills every step
            locator = MaxNLocator(3) if short else LogLocator(subs=subs, numticks=9)
            axis.set_major_locator(locator)
            axis.set_minor_formatter(NullFormatter())
            if axis is panel.yaxis:
                axis.set_major_formatter(EngFormatter())


def canvas_positions(panel: Any, x: Any, y: Any) -> Any:
    """Return the canvas positions of points of a drawn panel, pixels, ``(n, 2)``."""
    return panel.transData.transform(np.column_stack([np.asarray(x, float), np.asarray(y, float)]))


def annotate_points(panel: Any, at: Any, labels: Sequence[str], theme: PlotTheme) -> None:
    """Label points of a drawn panel, without overlaps where possible."""
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
    """Cost of a model by the side of a square input.

    Parameters
    ----------
    label : Quantity
        Name and unit of the cost.
    sides, values : sequence of float
        Measurements.
    constant, per_pixel : float
        The fit, ``constant + per_pixel · side² + per_pair · side⁴``.
    max_relative_error : float
        Maximum relative error of the fit.
    limit : float, optional
        Budget, drawn as a line.
    per_pair : float
        See `constant`.
    lines : mapping of str to (sides, values)
        Further curves by name.
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
    """Plot the costs of a model by input size, one panel per cost; see `plot_curves`."""
    with new_figure(len(cost_curves)) as (canvas, panels):
        plot_curves(panels, cost_curves, largest, PlotTheme())
        return to_png(canvas)


def plot_curves(
    panels: Sequence[Any], cost_curves: Sequence[CostCurve], largest: float | None, theme: PlotTheme
) -> None:
    """Plot measured costs by input size, with the fit and its extrapolation.

    Parameters
    ----------
    panels : sequence of Axes
        One for each curve, empty.
    cost_curves : sequence of Curve
        The costs.
    largest : float, optional
        Side of the largest input that fits.
    theme : Ink
        Colours.
    """
    from matplotlib.ticker import EngFormatter

    for panel, curve, color in zip(panels, cost_curves, PALETTE, strict=False):
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
            sides, curve.values, "o", color=color, ms=6, mec=theme.background, label="measured"
        )
        for i, (name, style) in enumerate(zip(curve.lines, PALETTE[1:], strict=False)):
            # Later curves are thinner, since curves may coincide.
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


def plot_agreement(agreements: Mapping[str, Any], value: str = "count") -> bytes:
    """Plot differences by region against the means, one panel per pair; see `draw_agreement`."""
    with new_figure(len(agreements)) as (canvas, panels):
        for panel, (title, agreement) in zip(panels, agreements.items(), strict=True):
            draw_agreement(panel, agreement, title, PlotTheme(), value)
        return to_png(canvas)


def draw_agreement(
    panel: Any, agreement: Any, title: str, theme: PlotTheme, value: str = "count"
) -> None:
    """Draw a plot of Bland and Altman: the difference of each region against the mean of both.

    Parameters
    ----------
    panel : Axes
        Empty.
    agreement : Agreement
        See `runs.agreement`.
    title : str
        Names of both.
    theme : PlotTheme
        Colours.
    value : str
        What is compared.
    """
    table, (low, high) = agreement.table, agreement.limits
    panel.plot(table["mean"], table["difference"], "o", color=PALETTE[0], ms=5,
               mec=theme.background, zorder=3)  # fmt: skip
    panel.axhline(0, color=theme.muted, lw=0.8)
    for at, style, name in (
        (agreement.bias, "-", "mean"), (low, "--", "− 1.96 SD"), (high, "--", "+ 1.96 SD"),
    ):  # fmt: skip
        panel.axhline(at, color=PALETTE[1], lw=1, ls=style)
        panel.annotate(f"{name} {at:+,.3g}", (1, at), xytext=(-2, 2), fontsize=7.5, ha="right",
                       xycoords=panel.get_yaxis_transform(), textcoords="offset points",
                       color=theme.text)  # fmt: skip
    panel.margins(x=0.1, y=0.18)
    panel.set_xlabel(f"mean {value} of a region")
    panel.set_ylabel("difference")
    panel.set_title(title, fontsize=9, color=theme.text, loc="left")


def plot_histogram(values: Sequence[float], name: str) -> bytes:
    """Plot how often values are met; see `draw_histogram`."""
    with new_figure(1) as (canvas, panels):
        draw_histogram(panels[0], values, name, PlotTheme())
        return to_png(canvas)


def draw_histogram(panel: Any, values: Sequence[float], name: str, theme: PlotTheme) -> None:
    """Draw how many images have a value, with the value of each below.

    Parameters
    ----------
    panel : Axes
        Empty.
    values : sequence of float
        One per image.
    name : str
        Of the quantity, with its unit.
    theme : PlotTheme
        Colours.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    # The width of "auto" follows the quartiles: one outlier would make millions of bins.
    panel.hist(values, bins="rice", color=PALETTE[0], edgecolor=theme.background, lw=1.0)
    # A mark for each image: bars of few values hide where they are.
    panel.plot(values, [-0.035] * len(values), "|", ms=7, mew=1.4, color=PALETTE[1],
               transform=panel.get_xaxis_transform(), clip_on=False)  # fmt: skip
    panel.set_xlabel(name, labelpad=7)
    panel.set_ylabel("images")
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel.xaxis.set_major_locator(MaxNLocator(5))
    if max(values, default=0.0) >= 1000:
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.tick_params(axis="x", pad=7)


@contextmanager
def new_figure(n: int) -> Iterator[tuple[Any, Any]]:
    """Create a figure of panels in a row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * n, 4.0), dpi=130, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(1, n, squeeze=False)[0]
    for panel in panels:
        style_axes(panel, PlotTheme())
    yield canvas, panels


def style_axes(panel: Any, theme: PlotTheme) -> None:
    """Set the frame, grid and colors of a panel."""
    panel.set_facecolor(theme.background)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["bottom", "left"]].set_color(theme.muted)
    panel.tick_params(which="both", color=theme.muted, labelcolor=theme.text, labelsize=8)
    panel.xaxis.label.set(color=theme.text, size=9)
    panel.yaxis.label.set(color=theme.text, size=9)
    panel.grid(color=theme.grid, lw=0.6)
    panel.set_axisbelow(True)


def to_png(canvas: Any) -> bytes:
    """Render a figure as PNG."""
    out = io.BytesIO()
    canvas.print_png(out)
    return out.getvalue()
