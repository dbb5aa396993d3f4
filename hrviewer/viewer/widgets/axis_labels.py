"""Labels of napari's colour bars as the panel writes numbers: ``100,000``, not ``100000``."""

from __future__ import annotations

from typing import Any

from vispy.visuals.axis import Ticker

from hrviewer.units import format_amount

__all__ = ["format_axis_labels"]

_original_update: Any = getattr(Ticker, "get_update", None)  # private: versions may lack it


def format_axis_labels() -> None:
    """Format the labels of vispy's axes, which have no setting for it, in the whole process."""
    if _original_update is not None:
        Ticker.get_update = _update_with_amounts


def _update_with_amounts(ticker: Any) -> tuple[Any, ...]:
    position, labels, *others = _original_update(ticker)
    return position, [format_amount(float(text)) for text in labels], *others
