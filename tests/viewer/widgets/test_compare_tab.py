"""Runs of one image beside each other: the shelf, the grid, the difference; the tab in a window."""

from __future__ import annotations

import json
import shutil
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Image, Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QInputDialog, QMessageBox
from toys import Bright, Encoder, ToyBundle, picture

from hrviewer.app.maps.difference import subtract_maps
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import ResultCache
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import run
from hrviewer.runs.run_index import list_runs
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.contributions.commands import panel_of
from hrviewer.viewer.image.image_layer import image_layer_data
from hrviewer.viewer.widgets.compare_tab import COLUMNS, estimate_text
from hrviewer.viewer.widgets.run_menu import RunMenu
from viewer.conftest import SHAPE

ASKED = (("patches", {}), ("patches", {"tile": 32}), ("uniform", {}), ("zoom", {}))
"""The runs on the shelf."""


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory):
    """Four runs of the photo, and one of another image."""
    folder, photo = tmp_path_factory.mktemp("finished"), picture(*SHAPE)
    toys = ToyBundle(main=Bright(), scanner=Bright("scanner"))
    for i, (name, params) in enumerate(ASKED):
        run(photo, toys, name, out=folder / f"{i}.run.zarr", cache="off", **params)
    other = picture(*SHAPE, seed=9)
    run(other, toys, "patches", out=folder / "other.run.zarr", cache="off")
    (folder / "broken.run.zarr").mkdir()
    return folder


@pytest.fixture
def runs(finished_runs, tmp_path):
    """A copy of the finished runs."""
    return Path(shutil.copytree(finished_runs, tmp_path / "runs"))


def wait(controller):
    end = time.monotonic() + 60
    while (
        controller.has_pending_work
        or controller.compare_service.is_running
        or controller.comparison.is_building
    ):
        assert time.monotonic() < end
        controller.tick()
        time.sleep(0.005)


@pytest.fixture
def compared(controller, model, photo, add, runs):
    """A controller whose comparison has listed the runs."""
    add(model, photo)
    controller.compare_service.refresh()
    wait(controller)
    return controller


def test_the_index_holds_this_images_runs(runs, photo, count):
    key = open_pyramid(photo).image_key
    entries = list_runs(key, [runs, runs / "nowhere"])
    assert [(entry.strategy, entry.run.header["params"]) for entry in entries] == [*ASKED]
    assert [entry.title for entry in entries] == ["patches", "patches tile=32", "uniform", "zoom"]
    assert {entry.reference_source for entry in entries} == {"patches"}
    for entry in entries:
        off = entry.row["estimate"] - entries[0].row["estimate"]
        assert entry.row["error"] == pytest.approx(off)
        assert entry.row["flops"] == entry.run.cost["flops"]
    against_count = list_runs(key, [runs], GroundTruth(np.full((7, 2), 5.0)).clip)
    assert against_count[0].row["error"] == pytest.approx(count - 7)
    assert against_count[0].reference_source == "truth"
    # What it was measured against here is not written down.
    assert json.loads((runs / "0.run.zarr" / "run.json").read_text("utf-8"))["truth"] is None


def filled(cell, values, width=320, seen=True):
    """A picture whose density is known."""
    made = ResultMaps(Rect(0, 0, width, width), cell, "mass", ["thing"])
    array = made.record.output.values
    array[:] = values * cell**2
    if not seen:
        array[:, :, : array.shape[2] // 2] = np.nan
    made._redraw(made.image)
    return made


@pytest.mark.parametrize("cell", [4, 8])
def test_a_difference_is_that_of_the_densities(cell):
    a, b = filled(4, 3e-4), filled(cell, 1e-4, seen=False)
    drawn = subtract_maps(a, b)
    assert drawn.unit == "things per megapixel"
    left, right = np.array_split(drawn.values, 2, axis=1)
    assert np.isnan(left).all()
    np.testing.assert_allclose(right, 200, rtol=1e-5)
    assert drawn.limits == (-200.0, 200.0)
    np.testing.assert_allclose(subtract_maps(b, a).values, -drawn.values)


def test_the_difference_of_two_runs_is_a_layer(compared, model):
    comparison, messages = compared.compare_service, []
    comparison.message_changed.connect(messages.append)
    comparison.show_run(comparison.entries[0])
    wait(compared)
    single = compared.overlays.layers["output"]
    comparison.show_difference(comparison.entries[2], comparison.entries[0])
    wait(compared)
    layer = compared.comparison.difference
    assert layer in model.layers
    a, b = (ResultMaps.from_run(comparison.entries[i].run) for i in (2, 0))
    np.testing.assert_allclose(layer.data, subtract_maps(a, b).values)
    assert "orange: uniform" in messages[-1]
    assert not single.visible
    comparison.clear_difference()
    assert comparison.difference is None
    assert layer not in model.layers
    assert single.visible


def test_runs_stand_side_by_side_and_go_again(compared, model):
    comparison, grid = compared.compare_service, model.canvas.grid
    comparison.show_run(comparison.entries[0])
    wait(compared)
    before = [(layer.name, layer.visible) for layer in model.layers]
    view = model.scene.camera.zoom
    comparison.show_grid(comparison.entries[:3])
    wait(compared)
    assert grid.enabled
    boxes = [
        [model.layers[i].name for i in indices if model.layers[i].visible]
        for _, indices in grid.iter_viewboxes(model.layers)
        if indices
    ]
    names = [comparison.entries[i].title for i in range(3)]
    assert len(boxes) == 3
    for (image, drawn), name in zip(boxes, names, strict=True):
        assert image.startswith(name)
        assert drawn.startswith(name)
        assert "output: things per megapixel" in drawn
    assert [g.map_layer.colorbar.visible for g in compared.comparison.grid.runs] == [False] * 2 + [
        True
    ]
    # Colours mean the same in all pictures.
    limits = {tuple(group.map_layer.contrast_limits) for group in compared.comparison.grid.runs}
    assert len(limits) == 1
    comparison.set_map("cost")
    for group in compared.comparison.grid.runs:
        values = group.maps.rasters["cost"].levels[max(group.level, 0)]
        np.testing.assert_array_equal(group.map_layer.data, values)
    comparison.close_grid()
    assert not grid.enabled
    assert [(layer.name, layer.visible) for layer in model.layers] == before
    assert model.scene.camera.zoom == view


def test_what_comes_meanwhile_waits_below(compared, model):
    comparison = compared.compare_service
    comparison.show_grid(comparison.entries[:2])
    wait(compared)
    late = model.add_layer(
        Image(np.zeros((30, 30)), name="late", metadata={"hrviewer": {"overlay": "x"}})
    )
    assert not late.visible
    assert model.layers.index(late) < model.layers.index(
        compared.comparison.grid.runs[1].image_layer
    )
    # A run that is shown ends it.
    comparison.show_run(comparison.entries[2])
    wait(compared)
    assert compared.comparison.grid is None
    assert late.visible


def test_the_truth_stands_in_every_picture(compared, model, tmp_path):
    comparison = compared.compare_service
    comparison.show_grid(comparison.entries[:2])
    wait(compared)
    path = tmp_path / "points.csv"
    path.write_text("y,x\n10.5,20.5\n100.5,200.5\n")
    compared.ground_truth_service.show(path)
    wait(compared)
    end = time.monotonic() + 30
    # The truth follows the view first, its mirrors what it shows.
    while any(len(group.ground_truth.data) != 2 for group in compared.comparison.grid.runs):
        assert time.monotonic() < end
        compared.tick()
        time.sleep(0.005)
    for group in compared.comparison.grid.runs:
        assert group.ground_truth.visible
        np.testing.assert_allclose(group.ground_truth.data, [[10, 20], [100, 200]])
    assert not compared.ground_truth.layer.visible
    comparison.refresh()
    wait(compared)
    assert comparison.entries[0].reference_source == "truth"
    compared.ground_truth_service.hide()
    compared.tick()
    assert not any(group.ground_truth.visible for group in compared.comparison.grid.runs)


def test_another_image_resets_the_comparison(compared, model, add):
    comparison = compared.compare_service
    comparison.show_grid(comparison.entries[:2])
    wait(compared)
    add(model, picture(200, 200, seed=4))
    model.layers.selection.active = next(
        la for la in model.layers if la.data.shape[:2] == (200, 200)
    )
    assert compared.image_layer.data.shape[:2] == (200, 200)
    assert compared.comparison.grid is None
    assert comparison.entries == []
    assert not model.canvas.grid.enabled


# In a window.


@pytest.fixture
def tab(make_napari_viewer, photo, toys, runs, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(photo))))
    panel = panel_of(viewer)
    controller = panel.controller
    (
        controller.resources.cache,
        controller.resources.run_folder,
        controller.resources.low_priority,
    ) = ResultCache(), runs, False
    controller.state.set_model(toys)
    panel.setCurrentWidget(panel.compare_tab)
    qtbot.waitUntil(lambda: panel.compare_tab.table.rowCount() == 4, timeout=20_000)
    yield panel.compare_tab
    panel.shut_down()


def quiet(tab):
    return lambda: not (tab.controller.has_pending_work or tab.service.is_running)


def test_a_click_on_a_point_shows_its_run(tab, qtbot):
    pytest.importorskip("matplotlib")
    tab.plot.canvas.draw()
    entry = tab.plot.entries[2]
    x, y = tab.plot.axes.transData.transform(tab.plot._points[2])
    at = SimpleNamespace(x=x, y=y, key=None, guiEvent=None)
    tab.plot.on_mouse_move(at)
    assert entry.strategy in tab.plot.canvas.toolTip()
    tab.plot.on_mouse_press(at)
    assert [chosen.path for chosen in tab.selected_runs()] == [entry.path]
    qtbot.waitUntil(lambda: tab.controller.overlays is not None, timeout=20_000)
    assert tab.controller.state.run.path == entry.path
    tab.plot.on_mouse_move(SimpleNamespace(x=x + 500, y=y, key=None, guiEvent=None))
    assert tab.plot.canvas.toolTip() == ""


def test_the_tab_stands_runs_side_by_side(tab, qtbot):
    assert not tab.grid_button.isEnabled()
    tab.select_run(tab.service.entries[0], False)
    for entry in tab.service.entries[1:]:
        tab.select_run(entry, True)
    qtbot.waitUntil(quiet(tab), timeout=20_000)
    assert len(tab.selected_runs()) == 4
    assert not tab.difference_button.isEnabled()
    tab.grid_button.click()
    qtbot.waitUntil(
        lambda: (
            tab.controller.comparison.grid is not None and tab.controller.comparison.grid.is_ready
        ),
        timeout=60_000,
    )
    viewer = tab.controller.viewer
    assert viewer.canvas.grid.actual_shape(viewer.layers) == (2, 2)
    assert tab.grid_button.isChecked()
    tab.map_box.setCurrentIndex(tab.map_box.findData("saliency"))
    tab.map_box.activated.emit(tab.map_box.currentIndex())
    assert tab.controller.comparison.grid.map_name == "saliency"
    tab.grid_button.click()
    assert not viewer.canvas.grid.enabled
    assert not tab.grid_button.isChecked()


def test_two_runs_differ(tab, qtbot):
    tab.select_run(tab.service.entries[0], False)
    tab.select_run(tab.service.entries[2], True)
    qtbot.waitUntil(quiet(tab), timeout=20_000)
    tab.difference_button.click()
    qtbot.waitUntil(lambda: tab.service.difference is not None, timeout=20_000)
    assert tab.difference_button.isChecked()
    assert "higher" in tab.message.text()
    tab.difference_button.click()
    assert tab.service.difference is None


def test_the_plot_stands_beside_the_table_where_there_is_room(tab):
    tab.resize(400, 800)
    assert tab.splitter.orientation() == Qt.Orientation.Vertical
    tab.resize(900, 300)
    assert tab.splitter.orientation() == Qt.Orientation.Horizontal


@pytest.mark.parametrize(("width", "hidden"), [(360, True), (900, False)])
def test_names_of_runs_are_whole_in_a_narrow_table(tab, qtbot, width, hidden):
    table = tab.table
    table.setFixedWidth(width)
    qtbot.waitUntil(lambda: table.width() == width, timeout=20_000)
    assert table.isColumnHidden(COLUMNS.index("of\npatches")) == hidden
    assert table.columnWidth(0) >= table.sizeHintForColumn(0)


def test_runs_are_not_denied_while_they_are_listed(tab, qtbot):
    tab.controller.state.image.runs = []
    tab.service.refresh()
    tab._fill()
    assert tab.summary.text().startswith("listing")
    qtbot.waitUntil(lambda: tab.table.rowCount() == 4, timeout=20_000)
    assert tab.summary.text().startswith("4 runs of this image")


def test_the_others_are_run(tab, qtbot):
    """Each strategy that the model bundle has roles for, once; the chosen one as it is chosen."""
    controller = tab.controller
    there = {entry.strategy for entry in tab.service.entries}
    controller.state.set_strategy("nonuniform")
    controller.state.settings.params = {"contrast": 2.0}
    controller.state.settings.budget = "1TFLOP"
    tab.run_missing_button.click()
    assert tab.run_missing_button.text() == "Stop"
    assert "1 of" in tab.message.text()
    qtbot.waitUntil(lambda: not controller.run_queue.is_running, timeout=60_000)
    names = set(strategy_ids()) - there
    qtbot.waitUntil(lambda: tab.table.rowCount() == 4 + len(names), timeout=20_000)
    fresh = [entry for entry in tab.service.entries if entry.strategy not in there]
    assert {entry.strategy for entry in fresh} == names
    for entry in fresh:
        header = entry.run.header
        assert header["params"] == ({"contrast": 2.0} if entry.strategy == "nonuniform" else {})
        assert header["budget"] == "1e+12FLOP"
    assert (tab.run_missing_button.text(), tab.controller.run_queue.message) == (
        "Run missing strategies",
        "",
    )
    messages = []
    controller.state.error_raised.connect(messages.append)
    tab.run_missing_button.click()
    assert "every strategy" in messages[-1]
    assert not controller.run_queue.is_running


def test_others_are_stopped(tab, qtbot):
    tab.run_missing_button.click()
    tab.run_missing_button.click()
    qtbot.waitUntil(lambda: not tab.controller.run_queue.is_running, timeout=60_000)
    qtbot.waitUntil(quiet(tab), timeout=20_000)
    assert tab.controller.state.run_state == "idle"
    assert tab.table.rowCount() <= 5


def test_runs_are_added_from_a_folder(tab, qtbot, monkeypatch, tmp_path, photo, toys):
    more = tmp_path / "comparison"
    run(photo, toys, "patches", tile=48, out=more / "runs" / "x.run.zarr", cache="off")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(more))
    tab.add_runs_button.click()
    qtbot.waitUntil(lambda: tab.table.rowCount() == 5, timeout=20_000)
    assert "5 runs of this image · errors against patches" in tab.summary.text()


def test_cost_against_resolution_in_the_window(tab, qtbot, monkeypatch):
    pytest.importorskip("matplotlib")
    from hrviewer.runs.scaling import Scaling, fit
    from hrviewer.runs.size_trials import SquareCost
    from hrviewer.viewer.widgets import scaling_window

    sides = [128, 256, 512]
    points = tuple(
        SquareCost(side, 9.0 * side**2, 1e-6 * side**2, 1e8 + 50 * side**2) for side in sides
    )
    fits = {
        name: fit([side**2 for side in sides], [getattr(point, name) for point in points])
        for name in ("flops", "seconds", "peak_bytes")
    }
    asked = []

    def measure(bundle, *, role, device, memory, on_progress, control):
        asked.append((bundle, role, device, memory))
        on_progress("128 × 128 pixels")
        return Scaling("toys", "main", "cpu", "toy", 10**9, points, fits, 4000, 4064)

    monkeypatch.setattr(scaling_window, "cost", measure)
    tab.show_scaling()
    window = tab.scaling_window
    window.memory.setText("1GB")
    window.measure_button.click()
    qtbot.waitUntil(lambda: window.scaling is not None, timeout=20_000)
    roles = [window.role.itemText(i) for i in range(window.role.count())]
    assert roles == list(tab.controller.state.settings.model.roles)
    assert asked == [(tab.controller.state.settings.model, "main", "auto", "1GB")]
    assert "4,000 × 4,000" in window.message.text()
    panels = window.plot.axes.figure.axes
    assert len(panels) == 3
    np.testing.assert_allclose(panels[0].lines[1].get_xdata(), sides)
    np.testing.assert_allclose(panels[0].lines[1].get_ydata(), [9.0 * side**2 for side in sides])
    # A failed measurement is reported; the toys have no files.
    monkeypatch.undo()
    window.measure_button.click()
    assert window.measure_button.text() == "Stop"
    qtbot.waitUntil(lambda: not window.is_running, timeout=60_000)
    assert "main" in window.message.text()
    # The roles are those of the selected model.
    state = tab.controller.state
    state.set_model(ToyBundle(encoder=Encoder(), main=Bright()))
    roles = [window.role.itemText(i) for i in range(window.role.count())]
    assert roles == list(state.settings.model.roles)
    assert window.role.currentText() == "main"
    window.close()


def titles(tab):
    return [tab.table.item(row, 0).text() for row in range(tab.table.rowCount())]


def test_runs_are_renamed_noted_and_deleted(tab, qtbot, runs, monkeypatch):
    def menu(*rows):
        tab.table.clearSelection()
        for entry in [tab.service.entries[row] for row in rows]:
            tab.select_run(entry, add=True)
        qtbot.waitUntil(quiet(tab), timeout=10_000)
        return RunMenu(tab, tab.controller.run_library, tab.selected_runs())

    monkeypatch.setattr(QInputDialog, "getText", lambda *a, **k: ("the first", True))
    monkeypatch.setattr(QInputDialog, "getMultiLineText", lambda *a: ("with a remark", True))
    menu(0).rename()
    qtbot.waitUntil(lambda: "the first" in titles(tab), timeout=10_000)
    menu(0).annotate()
    first = lambda: next(entry for entry in tab.service.entries if entry.title == "the first")  # noqa: E731
    qtbot.waitUntil(lambda: first().label.note == "with a remark", timeout=10_000)
    tip = tab.table.item(titles(tab).index("the first"), 0).toolTip()
    assert tip.startswith("the first\npatches")
    assert tip.endswith("with a remark")
    both = menu(0, 1)
    assert [action.isEnabled() for action in both.actions() if action.text()] == [False] * 3 + [
        True
    ]
    monkeypatch.setattr(QMessageBox, "question", lambda *a: QMessageBox.StandardButton.No)
    both.delete()
    # The displayed run: its overlays go with it.
    single = menu(0)
    qtbot.waitUntil(lambda: tab.controller.state.run is not None, timeout=10_000)
    monkeypatch.setattr(QMessageBox, "question", lambda *a: QMessageBox.StandardButton.Yes)
    single.delete()
    qtbot.waitUntil(lambda: tab.table.rowCount() == 3, timeout=10_000)
    assert tab.controller.state.run is None
    assert tab.controller.overlays is None
    assert not (runs / "0.run.zarr").exists()
    assert (runs / "1.run.zarr").is_dir()


def test_dates_are_shown_on_demand(tab, qtbot, runs):
    column = tab.table.columnCount() - 1
    assert tab.table.isColumnHidden(column)
    tab.show_dates(True)
    assert not tab.table.isColumnHidden(column)
    dates = [tab.table.item(row, column) for row in range(tab.table.rowCount())]
    assert dates
    for row, date in enumerate(dates):
        started = tab._entry_at(row).run.header["started"]
        assert date.number == datetime.fromisoformat(started).timestamp()
        assert date.text() == f"{datetime.fromisoformat(started).astimezone():%Y-%m-%d %H:%M}"
    # A run from elsewhere may have no date.
    entry = tab._entry_at(0)
    entry.run.header["started"] = "yesterday"
    assert tab._row_items(entry)[column].text() == "–"


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (None, "–"),
        ({"value": 21.0, "per_class": {"boat": 16.0, "car": 5.0}}, "21"),
        (
            {"value": 0.9, "per_class": {"glass": 0.1, "nuclei": 0.9}, "vote": "nuclei"},
            "nuclei 90.0%",
        ),
        (
            {
                "value": 100.0,
                "per_class": {"squamous epithelium": 75.0, "other": 25.0},
                "fraction": {"squamous epithelium": 0.75, "other": 0.25},
            },
            "squamous … 75.0%",
        ),
        ({"value": 0.9, "per_class": {"a": 0.9, "b": 0.8}}, "0.9"),  # several labels
        ({"value": 5.0, "per_class": {"gull": 5.0}, "fraction": {"gull": 0.2}}, "5"),
    ],
)
def test_the_estimate_of_classes_names_the_largest(estimate, text):
    assert estimate_text(estimate) == text
