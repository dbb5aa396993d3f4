"""Drawing of a live session."""

from __future__ import annotations

import numpy as np
import pytest

from hrviewer.engine import InferenceResult
from hrviewer.geometry import Rect


def test_cells_are_drawn_in_turns_and_share_what_they_share():
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.app.services.live_renderer import LiveRenderer
    from hrviewer.engine import Cost, ViewportCell
    from hrviewer.geometry import Patch
    from hrviewer.strategies import Estimate, PatchRequest

    image = Rect(0, 0, 128, 256)
    cells = [Rect(0, 0, 128, 128), Rect(0, 128, 128, 128)]

    def seen(core, role, flops):
        value = np.full((1, core.h // 4, core.w // 4), core.x + 1.0, np.float32)
        box = tuple(map(float, core.astuple()))
        return InferenceResult(
            Patch(core, 1.0), role, value.sum((1, 2)).astype(float), value, box, Cost(flops)
        )

    painter = LiveRenderer(ResultMaps(image, 4.0, "mass", ["thing"]))
    painter.select(7)
    scout = PatchRequest("scout", (Patch(image, 1.0),)), seen(image, "scout", 80.0)
    halves = {
        cell: [
            seen(Rect(0, cell.x, 128, 64), "main", 10.0),
            seen(Rect(0, cell.x + 64, 128, 64), "main", 10.0),
        ]
        for cell in cells
    }
    asked = {
        cell: PatchRequest("main", tuple(look.patch for look in halves[cell]), target="output")
        for cell in cells
    }
    for cell in cells:
        for update in (None, scout[0], scout[1], asked[cell]):
            painter.enqueue(7, cell, update)
    for i in (0, 1):
        for cell in cells:
            painter.enqueue(7, cell, halves[cell][i])
    for cell in cells:
        requests = (scout[0], (scout[1],)), (asked[cell], tuple(halves[cell]))
        painter.enqueue(7, cell, ViewportCell(cell, requests, (), Estimate(None)))
    painter._executor.shutdown()
    record = painter.maps.record
    assert record.cost_map.values[0].sum() == pytest.approx(80 + 40)
    assert record.cost_map.values[0][:, :8].sum() == pytest.approx(60)
    assert np.isfinite(record.output.values).all()
    assert record.output.values[0, 0].reshape(4, 16)[:, 0].tolist() == [1, 65, 129, 193]
    assert len(record.patches) == 6


@pytest.mark.parametrize("cells", [1, 3])
def test_another_choice_begins_on_an_empty_picture(cells):
    # One cell of ten is wiped by itself, three of them with all the rest.
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.app.services.live_renderer import LiveRenderer
    from hrviewer.engine import Cost
    from hrviewer.geometry import Patch
    from hrviewer.strategies import PatchRequest

    picture = ResultMaps(Rect(0, 0, 128, 1280), 4.0, "mass", ["thing"])
    painter = LiveRenderer(picture)
    painter.select(1)
    value = np.ones((1, 32, 32), np.float32)
    for i in range(cells):
        rect = Rect(0, 128 * i, 128, 128)
        asked = PatchRequest("main", (Patch(rect, 1.0),), target="output")
        box = tuple(map(float, rect.astuple()))
        seen = InferenceResult(
            asked.patches[0], "main", np.array([32.0**2]), value, box, Cost(10.0)
        )
        for update in (None, asked, seen):
            painter.enqueue(1, rect, update)
    painter._executor.submit(lambda: None).result()
    record = picture.record
    assert np.isfinite(record.output.values).sum() == cells * 32**2
    assert record.cost_map.values[0].sum() == pytest.approx(10 * cells)
    painter.select(2)
    painter._executor.shutdown()
    assert not np.isfinite(record.output.values).any()
    assert not record.cost_map.values.any()
    assert not np.isfinite(picture.rasters["output"].values).any()
    assert record.patches == []


def test_estimates_of_single_cells_are_not_those_of_the_maps():
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.app.services.live_renderer import LiveRenderer
    from hrviewer.engine import ViewportCell
    from hrviewer.strategies import Estimate, Publish

    cells = [Rect(0, 0, 128, 128), Rect(0, 128, 128, 128)]
    renderer = LiveRenderer(ResultMaps(Rect(0, 0, 128, 256), 4.0, "mass", ["thing"]))
    renderer.select(1)
    estimate = Publish("estimate", np.array([3.0]), cells[0], (2.0, 4.0))
    saliency = Publish("saliency", np.ones((2, 2)), cells[1])
    for update in (None, estimate):
        renderer.enqueue(1, cells[0], update)
    published = (estimate, saliency)
    renderer.enqueue(1, cells[1], ViewportCell(cells[1], (), published, Estimate(None)))
    renderer._executor.shutdown()
    record = renderer.maps.record
    assert record.published == []
    assert np.isfinite(record.saliency.values).any()
