"""Axes label numbers as people write them."""

from __future__ import annotations

import pytest
from vispy.visuals.axis import AxisVisual, Ticker

from hrviewer.viewer.widgets import axis_labels


@pytest.mark.parametrize(
    ("domain", "labels"),
    [((0, 100_000), {"0", "50,000", "100,000"}), ((0, 1), {"0", "0.5", "1"}),
     ((0, 2e6), {"0", "1 M", "2 M"})],
)  # fmt: skip
def test_labels_have_separators(monkeypatch, domain, labels):
    monkeypatch.setattr(Ticker, "get_update", None)
    axis_labels.format_axis_labels()
    axis = AxisVisual(pos=[[0, 0], [0, 200]], domain=domain)
    axis.transforms.dpi = 96
    assert labels <= set(axis.ticker.get_update()[1])
