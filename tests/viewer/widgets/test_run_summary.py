"""The plot of an estimate and its interval."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QRectF

from hrviewer.engine import PublishedEstimate
from hrviewer.viewer.widgets.run_summary import MARGIN, IntervalPlot, IntervalWidget


def test_the_band_narrows_around_the_estimate(qtbot):
    plot = IntervalPlot()
    qtbot.addWidget(plot)
    estimates = [
        PublishedEstimate(10.0, 60.0, (0.0, 160.0)),
        PublishedEstimate(20.0, 95.0, (80.0, 120.0)),
        PublishedEstimate(30.0, 100.0, (90.0, 110.0)),
    ]
    plot.set_estimates(estimates)
    upper, lower, middle = plot.polylines(QRectF(0, 0, 100, 40 + 2 * MARGIN))
    assert [point.x() for point in middle] == pytest.approx([MARGIN, 50, 100 - MARGIN])
    # The last interval takes a quarter of the height on either side of the middle.
    bottom = 40 + MARGIN
    assert (lower[-1].y(), upper[-1].y()) == pytest.approx((bottom - 10, bottom - 30))
    assert middle[-1].y() == pytest.approx(bottom - 20)
    heights = [low.y() - high.y() for low, high in zip(lower, upper, strict=True)]
    assert heights == sorted(heights, reverse=True)
    # What does not fit ends at the frame.
    assert (lower[0].y(), upper[0].y()) == pytest.approx((bottom, MARGIN))
    # An estimate beyond what is still possible is drawn at its end.
    plot.set_estimates([*estimates, PublishedEstimate(40.0, 150.0, (90.0, 110.0))])
    upper, _, middle = plot.polylines(QRectF(0, 0, 100, 40 + 2 * MARGIN))
    assert middle[-1].y() == pytest.approx(upper[-1].y())
    plot.resize(100, 46)
    assert not plot.grab().isNull()
    # One that is known at the end only is seen, too.
    plot.set_estimates(estimates[-1:])
    upper, lower, middle = plot.polylines(QRectF(0, 0, 100, 40 + 2 * MARGIN))
    assert [point.x() for point in upper] == pytest.approx([MARGIN, 100 - MARGIN])
    assert [point.y() for point in lower] == pytest.approx([bottom - 10] * 2)
    assert len(middle) == 2


def test_it_shows_a_run_with_an_interval_and_hides_otherwise(
    controller, model, add, finish, qtbot, photo
):
    widget = IntervalWidget(controller)
    qtbot.addWidget(widget)
    assert widget.isHidden()
    add(model, photo)
    controller.state.set_strategy("zoom")
    controller.state.settings.params = {"method": "sampling"}
    controller.state.settings.budget = "8MFLOP"
    controller.run_service.start()
    finish(controller)
    published = controller.overlays.maps.record.published
    with_interval = [one for one in published if one.interval]
    assert len(with_interval) > 2
    assert [one.flops for one in with_interval] == sorted(one.flops for one in with_interval)
    assert not widget.isHidden()
    assert widget.plot.count == len(with_interval)
    controller.state.set_strategy("patches")
    controller.state.settings.budget = ""
    controller.run_service.start()
    finish(controller)
    assert widget.isHidden()
