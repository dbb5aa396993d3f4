"""Plots as PNG: error against cost, cost against resolution."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hrviewer.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

__all__ = ["error_against_cost", "need_plots", "pareto"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8a8a00")
"""Okabe's and Ito's, which colour-blind people can tell apart."""
MARKS = "os^Dv<>P"
INK, FAINT = "#222222", "#9a9a9a"


def need_plots() -> None:
    """Say at once that plots cannot be drawn.

    Raises
    ------
    UserError
        If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError("plots need matplotlib: pip install 'hrviewer[plots]'") from None


def pareto(cost: Sequence[float], error: Sequence[float]) -> list[int]:
    """Return which points no other beats in both, cheapest first."""
    order = sorted(range(len(cost)), key=lambda i: (cost[i], error[i]))
    front: list[int] = []
    for i in order:
        if not front or error[i] < error[front[-1]]:
            front.append(i)
    return front


def error_against_cost(
    points: pd.DataFrame,
    costs: Mapping[str, str],
    error: str,
    *,
    name: str = "strategy",
    interval: str | None = None,
) -> bytes:
    """Plot what is lost against what is spent, one panel per cost, with the Pareto front.

    Parameters
    ----------
    points : DataFrame
        One row per point, with the columns below.
    costs : mapping
        Columns of costs, and what to call them.
    error : str
        What the column ``error`` is.
    name : str
        The column that says what a point is: its colour.
    interval : str, optional
        The column of ``(low, high)`` around the error.
    """
    kinds = list(dict.fromkeys(points[name].str.split("/").str[0]))
    with figure(len(costs)) as (canvas, panels):
        for panel, (column, what) in zip(panels, costs.items(), strict=True):
            x, y = points[column].to_numpy(float), points["error"].to_numpy(float)
            for i, label in enumerate(points["label"]):
                kind = kinds.index(points[name].iloc[i].split("/")[0])
                colour, mark = COLOURS[kind % len(COLOURS)], MARKS[kind % len(MARKS)]
                if interval is not None and points[interval].iloc[i] is not None:
                    low, high = points[interval].iloc[i]
                    panel.vlines(x[i], low, high, color=colour, alpha=0.35, lw=2)
                panel.plot(x[i], y[i], mark, color=colour, ms=8, mec="white", zorder=3)
                panel.annotate(label, (x[i], y[i]), xytext=(7, 5), textcoords="offset points",
                               fontsize=8, color=INK)  # fmt: skip
            front = pareto(x.tolist(), y.tolist())
            panel.step(x[front], y[front], where="post", color=FAINT, lw=1, ls="--", zorder=1)
            if (x > 0).all():
                panel.set_xscale("log")
            if y.min() > 0 and y.max() > 10 * y.min():
                panel.set_yscale("log")
            else:
                panel.set_ylim(bottom=min(0, y.min()))
            panel.margins(x=0.2)
            panel.set_xlabel(what)
        panels[0].set_ylabel(error)
        return png(canvas)


@contextmanager
def figure(n: int) -> Iterator[tuple[Any, Any]]:
    """Return a figure of panels side by side; without pyplot, so nothing global is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made = Figure(figsize=(5.2 * n, 4.2), dpi=130, layout="constrained")
    panels = made.subplots(1, n, squeeze=False)[0]
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#e8e8e8", lw=0.6)
        panel.set_axisbelow(True)
    yield FigureCanvasAgg(made), panels


def png(canvas: Any) -> bytes:
    """Return a figure's picture."""
    out = io.BytesIO()
    canvas.print_png(out)
    return out.getvalue()
