"""Figures of counts by scale, by hand."""

from __future__ import annotations

import numpy as np

from benchmarks.scale_curve import check_scale
from hrviewer.models.accuracy import ScaleCurve, ScalePoint

CURVE = ScaleCurve(
    domain="a test",
    images=9,
    data="made",
    command="none",
    points=(ScalePoint(scale=1, gain=1), ScalePoint(scale=2, gain=0.8, relative=0.1)),
    quantiles=(-2, 2),
)


def test_figures() -> None:
    native = np.array([100.0, 100.0, 200.0])
    found = check_scale(CURVE, 2.0, np.array([80.0, 40.0, np.nan]), native)
    # 100 and 50 after the correction: the second is far outside of its interval.
    assert found == {"counted": 0.6, "corrected": 0.75, "error": 0.25, "holds": 0.5, "counts": 2}
