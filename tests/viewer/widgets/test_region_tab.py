"""The Regions tab: what is drawn is measured, named, found, corrected and exported."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from qtpy.QtWidgets import QFileDialog
from toys import picture

from hrviewer.app.services import annotation_service, region_service
from hrviewer.viewer.widgets.region_tab import RegionTab
from hrviewer.viewer.widgets.region_table import COLUMNS
from viewer.conftest import errors, until_quiet


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(annotation_service, "SAVE_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(region_service, "DELAY_SECONDS", 0.0)


@pytest.fixture
def photo():
    """A dark picture: the toy counts some thousand."""
    return picture(300, 420) // 16


@pytest.fixture
def tab(model, controller, photo, add, qtbot):
    """A tab over an image without a run."""
    add(model, photo, (0.5, 0.5))
    made = RegionTab(controller)
    qtbot.addWidget(made)
    return made


def cell(tab, row, name):
    return tab.table.item(row, COLUMNS.index(name)).text()


def draw(tab, *corners):
    tab.tool_buttons["Polygon"].click()
    shapes = tab.controller.region_layer()
    assert shapes.mode == "add_polygon"
    shapes.add(np.array(corners) - 0.5, shape_type="polygon")
    until_quiet(tab.controller)


def finish_run(tab, finish):
    tab.controller.run_service.start()
    finish(tab.controller)
    until_quiet(tab.controller)


def test_draw_name_run_measure_export(tab, photo, finish, tmp_path, monkeypatch, model):
    draw(tab, (40, 20), (40, 140), (80, 140), (80, 20))
    assert tab.table.rowCount() == 1
    assert cell(tab, 0, "count") == ""
    assert "1 region" in tab.sum_label.text()
    finish_run(tab, finish)
    count = photo[40:80, 20:140, 0].sum() / 255
    assert cell(tab, 0, "count") == f"{count:,.0f}"
    assert "/ mm²" in cell(tab, 0, "density")
    draw(tab, (100, 20), (100, 60), (160, 60))
    tab.table.item(1, 0).setText("edge")
    until_quiet(tab.controller)
    assert [cell(tab, i, "name") for i in range(2)] == ["region", "edge"]
    tab.table.cellClicked.emit(1, 0)
    shapes = tab.controller.region_layer()
    assert shapes.selected_data == {1}
    np.testing.assert_allclose(model.scene.camera.center[-2:], (64.75, 19.75))
    path = tmp_path / "t.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), ""))
    tab.export_button.click()
    until_quiet(tab.controller)
    assert pd.read_csv(path)["name"].tolist() == ["region", "edge"]
    assert str(path) in tab.message.text()
    tab.table.selectRow(0)
    assert "1 region" in tab.sum_label.text()
    tab.remove_button.click()
    until_quiet(tab.controller)
    assert [cell(tab, 0, "name"), tab.table.rowCount()] == ["edge", 1]


def test_the_canvas_has_the_names_of_the_table(tab):
    for y in (40, 90, 140):
        draw(tab, (y, 20), (y, 140), (y + 30, 140), (y + 30, 20))
    names = [cell(tab, i, "name") for i in range(3)]
    assert names == ["region", "region 2", "region 3"]
    assert tab.controller.region_layer().features["name"].tolist() == names
    assert tab.controller.region_layer().text.values.tolist() == names


def test_hot_spots_are_regions(tab, finish):
    draw(tab, (40, 20), (40, 140), (80, 140), (80, 20))
    finish_run(tab, finish)
    tab.size_field.setText("0.001mm2")
    tab.number_box.setValue(3)
    for _ in range(2):  # found again, they replace the earlier ones
        tab.find_button.click()
        until_quiet(tab.controller)
        names = [cell(tab, i, "name") for i in range(tab.table.rowCount())]
        assert names == ["region", "hot spot 1", "hot spot 2", "hot spot 3"]
    counts = [float(cell(tab, i, "count").replace(",", "")) for i in (1, 2, 3)]
    assert counts == sorted(counts, reverse=True)
    assert "3 hot spots" in tab.message.text()
    tab.size_field.setText("1 acre")
    tab.find_button.click()
    assert "not the area of a field" in errors(tab.controller)[-1]


def test_tissue_is_shown_edited_and_counted(tab, model, finish, controller, add):
    image = np.full((300, 420, 3), 244, np.uint8)
    image[40:200, 60:260] = (150, 40, 120)
    model.layers.clear()
    add(model, image, (2.0, 2.0))
    tab.tissue.setCurrentIndex(1)
    tab.tissue.activated.emit(1)
    assert "looking" in tab.tissue_area.text()
    until_quiet(controller)
    assert controller.state.image.tissue.area == pytest.approx(160 * 200, rel=0.05)
    assert "mm²" in tab.tissue_area.text()
    layer = model.layers["tissue"]
    layer.paint((20, 90), 1)
    until_quiet(controller)
    painted = controller.state.image.tissue
    side = layer.metadata["hrviewer"]["side"]
    assert painted.area == pytest.approx(np.count_nonzero(layer.data) * side**2, rel=0.01)
    finish_run(tab, finish)
    run = controller.state.run
    assert run.estimate["density_of"] == "tissue"
    assert run.header["counting_area"] == pytest.approx(painted.area)
    tab.tissue.setCurrentIndex(0)
    tab.tissue.activated.emit(0)
    assert "tissue" not in model.layers
    assert controller.state.resolve().tissue is None


def test_corrections_stand_beside_the_predicted_count_and_can_be_taken_back(tab, photo, finish):
    draw(tab, (0, 0), (0, 40), (40, 40), (40, 0))
    finish_run(tab, finish)
    tab.correct_button.click()
    until_quiet(tab.controller)
    predicted = int(cell(tab, 0, "corrected"))
    _, points = tab.controller.annotations.layers
    number = len(points.data)
    for y in (5, 10, 15):
        points.add((y, 10.0))
    points.selected_data = {number}
    points.remove_selected()
    until_quiet(tab.controller)
    assert int(cell(tab, 0, "corrected")) == predicted + 2
    assert "2 by" in tab.corrections.text()
    assert f"corrected {number + 2:,}" in tab.corrections.text()
    for expected in (3, 2, 1, 0):
        tab.undo_button.click()
        assert len(points.data) == number + expected
    until_quiet(tab.controller)
    assert int(cell(tab, 0, "corrected")) == predicted
    assert not tab.undo_button.isEnabled()
    authors = points.features["author"].unique().tolist()
    assert authors == [tab.controller.state.run.header["model"]]


def test_regions_of_a_file(tab, tmp_path, monkeypatch):
    path = tmp_path / "r.geojson"
    path.write_text(
        '{"type":"Feature","geometry":{"type":"Polygon","coordinates":[[[10,10],[90,10],[90,90],'
        "[10,90],[10,10]],[[30,30],[60,30],[60,60],[30,60],[30,30]]]},"
        '"properties":{"name":"ring","classification":{"name":"tumour"}}}'
    )
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(path), ""))
    tab.import_button.click()
    until_quiet(tab.controller)
    assert (cell(tab, 0, "name"), cell(tab, 0, "class")) == ("ring", "tumour")
    assert tab.service.rows[0].region.area == pytest.approx(80 * 80 - 30 * 30)


def test_numbers_end_with_the_run_that_they_are_of(tab, finish, monkeypatch):
    draw(tab, (40, 20), (40, 140), (80, 140), (80, 20))
    finish_run(tab, finish)
    assert cell(tab, 0, "count")
    monkeypatch.setattr(region_service, "DELAY_SECONDS", 60.0)
    tab.controller.state.overlays_replaced.emit()
    assert cell(tab, 0, "name") == "region"
    assert cell(tab, 0, "count") == ""


def test_counts_of_regions_that_overlap_are_not_summed(tab, finish):
    draw(tab, (40, 20), (40, 140), (80, 140), (80, 20))
    draw(tab, (60, 20), (60, 140), (100, 140), (100, 20))
    finish_run(tab, finish)
    assert "they overlap" in tab.sum_label.text()
    assert "predicted" not in tab.sum_label.text()
    tab.table.selectRow(1)
    assert "predicted" in tab.sum_label.text()
