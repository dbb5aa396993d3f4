"""A count by region with mouse and keyboard: drawn, named, run, read, corrected and exported."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from napari.layers import Points
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit

from hrviewer.viewer.demo.window_driver import process_events_for, wait_until
from hrviewer.viewer.widgets.region_table import COLUMNS
from viewer.walk.test_walk import LEFT, Walk

pytestmark = pytest.mark.walk

FIELDS = {"left": ((40, 30), (260, 190)), "right": ((40, 220), (260, 400))}
"""Corners of the regions, in pixels ``(y, x)``."""


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    made = Walk(tmp_path_factory.mktemp("walk"))
    yield made
    made.window.close()


def cell(walk: Walk, row: int, name: str) -> str:
    return walk.panel.region_tab.table.item(row, COLUMNS.index(name)).text()


def number(walk: Walk, row: int, name: str) -> float:
    return float(cell(walk, row, name).replace(",", ""))


def open_tab(walk: Walk, title: str) -> None:
    bar = walk.panel.tabBar()
    at = next(i for i in range(bar.count()) if bar.tabText(i) == title)
    QTest.mouseClick(bar, LEFT, pos=bar.tabRect(at).center())
    walk.settle(0.3)


def cell_center(walk: Walk, row: int, name: str) -> QPoint:
    table = walk.panel.region_tab.table
    return table.visualItemRect(table.item(row, COLUMNS.index(name))).center()


def rename(walk: Walk, row: int, name: str) -> None:
    table = walk.panel.region_tab.table
    at = cell_center(walk, row, "name")
    QTest.mouseClick(table.viewport(), LEFT, pos=at)
    QTest.mouseDClick(table.viewport(), LEFT, pos=at)
    process_events_for(0.2)
    editor = table.findChild(QLineEdit)
    editor.selectAll()
    QTest.keyClicks(editor, name)
    QTest.keyClick(editor, Qt.Key.Key_Return)
    walk.settle(0.5)


def test_a_count_by_region_from_the_drawing_to_the_table(walk, monkeypatch):
    tab, viewer = walk.panel.region_tab, walk.window.viewer
    open_tab(walk, "Regions")
    for corners in FIELDS.values():
        walk.click(tab.tool_buttons["Rectangle"])
        walk.drag(*corners)
        walk.settle(0.5)
    assert [cell(walk, row, "name") for row in range(2)] == ["region", "region 2"]
    walk.photograph("regions-drawn")
    for row, name in enumerate(FIELDS):
        rename(walk, row, name)
    assert walk.controller.region_layer().text.values.tolist() == list(FIELDS)
    viewer.reset_view()
    walk.run()
    walk.settle(0.6)
    pixels = np.asarray(Image.open(walk.first))[..., 0] / 255
    for row, drawn in enumerate(walk.controller.region_service.rows):
        box = drawn.region.bounds  # to a pixel of the screen; its last pixels are cut
        inside = pixels[box.y : box.y1, box.x : box.x1].sum()
        border = inside - pixels[box.y + 1 : box.y1 - 1, box.x + 1 : box.x1 - 1].sum()
        assert number(walk, row, "count") == pytest.approx(inside, abs=border + 4)
    walk.photograph("regions-measured")

    tab.size_field.selectAll()
    QTest.keyClicks(tab.size_field, "2500px")
    walk.click(tab.find_button)
    walk.settle(0.8)
    names = [cell(walk, row, "name") for row in range(tab.table.rowCount())]
    assert names == [*FIELDS, *(f"hot spot {rank}" for rank in range(1, 6))]
    row = names.index("hot spot 2")
    QTest.mouseClick(tab.table.viewport(), LEFT, pos=cell_center(walk, row, "name"))
    walk.settle(0.4)
    box = walk.controller.region_service.rows[row].region.bounds
    middle = walk.controller.image_layer.data_to_world(np.array(box.center) - 0.5)[-2:]
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], middle, atol=1)
    walk.photograph("regions-hot-spot")

    viewer.reset_view()
    walk.click(tab.correct_button)
    walk.settle(0.5)
    points = viewer.layers.selection.active
    assert isinstance(points, Points)
    predicted, counted = len(points.data), number(walk, 0, "corrected")
    assert predicted == round(walk.state.run.estimate["value"])
    assert points.mode == "add"
    for i in range(10):
        click_on_image(walk, (60 + 18 * i, 45 + 9 * (i % 3)))
    walk.settle(0.5)
    assert len(points.data) == predicted + 10
    assert number(walk, 0, "corrected") == counted + 10
    assert f"predicted {predicted:,} · corrected {predicted + 10:,}" in tab.corrections.text()
    walk.photograph("regions-corrected")
    for _ in range(5):
        walk.click(tab.undo_button)
    walk.settle(0.5)
    assert number(walk, 0, "corrected") == counted + 5
    walk.photograph("regions-undone")

    path = walk.folder / "regions.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), ""))
    walk.click(tab.export_button)
    walk.settle(0.5)
    table = pd.read_csv(path)
    assert table["name"].tolist() == names
    assert table["corrected_count"][0] == counted + 5
    assert str(path) in tab.message.text()
    walk.photograph("regions-exported")


def click_on_image(walk: Walk, pixel: tuple[float, float]) -> None:
    """Click on the canvas at a pixel of the image."""
    before = len(walk.window.viewer.layers.selection.active.data)
    walk.drag(pixel, pixel)
    # A second press so soon were a double click.
    process_events_for(QApplication.doubleClickInterval() / 1000 + 0.05)
    wait_until(lambda: len(walk.window.viewer.layers.selection.active.data) > before, 5)
