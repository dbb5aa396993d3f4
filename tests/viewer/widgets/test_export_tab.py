"""The Export tab, and annotations over a run: kept with their author and time."""

from __future__ import annotations

import json
import threading

import geopandas
import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from hrviewer.app.services import annotation_service
from hrviewer.io import export, get_writer, writer_names
from hrviewer.io.annotations import ANNOTATIONS_FILE, read_annotations, write_annotations
from hrviewer.io.features import Feature, rectangle
from hrviewer.runs import Run
from hrviewer.viewer.layers import annotation_layers
from hrviewer.viewer.widgets.export_tab import ExportTab
from viewer.conftest import errors, until_quiet


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Edits are written at once."""
    monkeypatch.setattr(annotation_service, "SAVE_DELAY_SECONDS", 0.0)


@pytest.fixture
def done(model, controller, photo, add, finish):
    """A controller with a finished run."""
    add(model, photo)
    controller.run_service.start()
    finish(controller)
    return controller


@pytest.fixture
def tab(done, qtbot):
    made = ExportTab(done)
    qtbot.addWidget(made)
    return made


def test_every_format_has_its_options(tab):
    for name in writer_names():
        tab.format.setCurrentText(name)
        assert set(tab.options.fields) == set(get_writer(name).Settings.model_fields)
        assert tab.path.text().endswith(get_writer(name).suffixes[0])
        assert tab.export_button.isEnabled()


def test_export_from_the_tab(tab, done):
    tab.format.setCurrentText("geojson")
    tab.options.fields["patches"].value = False
    path = tab.path.text()
    tab.export_button.click()
    assert not tab.export_button.isEnabled()
    assert tab.stop_button.isEnabled()
    until_quiet(done)
    assert tab.status.text() == f"written: {path}"
    assert tab.progress_bar.value() == 1000
    with open(path, encoding="utf-8") as file:
        assert json.load(file)["features"] == []
    # The next one is given a name of its own.
    assert tab.path.text() != path
    assert tab.export_button.isEnabled()


def test_an_export_error_is_shown_in_the_tab_and_the_target_stays(tab, done, tmp_path, monkeypatch):
    target = str(tmp_path / "a.tif")
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_, **__: (target, ""))
    tab.format.setCurrentText("geotiff")
    tab.browse_button.click()
    tab.export_button.click()
    until_quiet(done)
    assert tab.path.text() == target
    assert "georeference" in tab.status.text()
    assert "georeference" in errors(done)[-1]


def test_the_view_is_exported_as_a_figure(tab, done, tmp_path, monkeypatch):
    asked = []

    def choose(parent, title, start, kinds, **_):
        asked.append((start, kinds))
        return str(tmp_path / "view"), "SVG (*.svg)"

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    done.tick()  # overlays are displayed
    tab.figure_dpi.setValue(60)
    tab.figure_button.click()
    assert not tab.figure_button.isEnabled()
    until_quiet(done)
    assert asked[0][0] == str(done.state.run.path.parent / "figure.png")
    text = (tmp_path / "view.svg").read_text()
    for words in ("output: things per megapixel", done.state.image.estimate.amount):
        assert words in text
    assert tab.status.text() == f"written: {tmp_path / 'view.svg'}"
    tab.figure_button.click()
    until_quiet(done)
    assert "exists" in errors(done)[-1]


def test_an_export_can_be_stopped(tab, done, monkeypatch):
    gate = threading.Event()

    def slow(self, run, target, settings, progress):
        target.write_text("half")
        gate.wait(20)
        progress(1, 2)

    monkeypatch.setattr("hrviewer.io.writers.table.TableWriter.write", slow)
    tab.format.setCurrentText("csv")
    folder = done.state.run.path.parent
    before = sorted(folder.iterdir())
    tab.export_button.click()
    tab.stop_button.click()
    gate.set()
    until_quiet(done)
    assert "stopped" in tab.status.text()
    assert sorted(folder.iterdir()) == before


def drawn(controller):
    assert controller.annotations.layers is not None
    shapes, points = controller.annotations.layers
    return shapes, points


def test_what_is_drawn_is_kept_with_who_and_when(done, monkeypatch):
    monkeypatch.setattr(annotation_layers, "current_user", lambda: "Ada")
    monkeypatch.setattr(annotation_layers, "timestamp", lambda: "2026-01-01T00:00:00+00:00")
    done.annotation_service.annotate("shapes", "tumour")
    until_quiet(done)
    shapes, points = drawn(done)
    assert done.viewer.layers.selection.active == shapes
    assert shapes.mode == "add_polygon"
    shapes.add_polygons(np.array([[9.5, 19.5], [9.5, 29.5], [29.5, 29.5]]))
    points.add([[4.5, 5.5]])
    until_quiet(done)
    first, second = read_annotations(done.state.run.path)
    assert (first.label, first.metadata) == (
        "tumour", {"author": "Ada", "time": "2026-01-01T00:00:00+00:00"}
    )  # fmt: skip
    assert sorted(map(tuple, first.polygons[0][0].tolist())) == [(10, 20), (10, 30), (30, 30)]
    assert (second.label, second.point) == ("tumour", (5, 6))
    assert "2 annotations saved" in done.emitted["annotations_saved"][-1][0]


def test_a_change_bears_who_made_it(done, monkeypatch):
    old = {"author": "Bob", "time": "then"}
    write_annotations(done.state.run.path, [
        Feature("annotation", "a", point=(10, 10), metadata=old),
        Feature("annotation", "b", point=(20, 20), metadata=old, number=1),
    ])  # fmt: skip
    monkeypatch.setattr(annotation_layers, "current_user", lambda: "Ada")
    done.annotation_service.annotate("points", "c")
    until_quiet(done)
    _, points = drawn(done)
    points.selected_data = {1}
    points._move([1], [40.0, 40.0])
    points.events.data(value=points.data, action="changed", data_indices=(1,), vertex_indices=((),))
    until_quiet(done)
    first, second = read_annotations(done.state.run.path)
    assert (first.metadata["author"], second.metadata["author"]) == ("Bob", "Ada")
    assert (first.label, second.label) == ("a", "b")


def test_what_a_layer_cannot_hold_is_kept(done):
    outer, hole = rectangle(10, 10, 50, 50)[0], rectangle(20, 20, 5, 5)[0]
    write_annotations(done.state.run.path, [Feature("annotation", "ring", ((outer, hole),))])
    done.annotation_service.annotate("points", "c")
    until_quiet(done)
    drawn(done)[1].add([[1.0, 2.0]])
    until_quiet(done)
    ring, _ = read_annotations(done.state.run.path)
    assert ring.label == "ring"
    assert len(ring.polygons[0]) == 2


def test_a_reopened_run_brings_them_back(done, finish):
    write_annotations(done.state.run.path, [Feature("annotation", "a", point=(10, 10))])
    done.run_loader.open(done.state.run.path)
    until_quiet(done)
    assert len(drawn(done)[1].data) == 1
    done.run_service.start()
    finish(done)
    assert done.annotations.layers is None
    assert not any("annotations" in layer.name for layer in done.viewer.layers)


def test_closing_the_window_keeps_the_last_edit(done, monkeypatch):
    monkeypatch.setattr(annotation_service, "SAVE_DELAY_SECONDS", 100.0)
    done.annotation_service.annotate("points", "c")
    while done.annotations.layers is None:
        done.tick()
    drawn(done)[1].add([[1.0, 2.0]])
    path = done.state.run.path
    done.close()
    assert len(read_annotations(path)) == 1


@pytest.mark.slow
def test_the_networks_points_can_be_corrected(done):
    done.annotation_service.annotate("points", "c", from_predictions=True)
    until_quiet(done)
    kept = read_annotations(done.state.run.path)
    assert kept
    assert {feature.metadata["author"] for feature in kept} == {done.state.run.header["model"]}


def test_annotations_are_exported_beside_the_networks(done, tmp_path):
    write_annotations(done.state.run.path, [Feature("annotation", "mine", point=(10, 10))])
    run = Run(done.state.run.path)
    table = geopandas.read_file(export(run, tmp_path / "a.geojson"))
    assert len(table) == len(run.patches) + 1
    assert (run.path / ANNOTATIONS_FILE).is_file()


def test_a_file_is_brought_in_as_layers(done, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("ymin,xmin,ymax,xmax,label\n10,20,30,40,tumour\n")
    done.annotation_service.import_file(path)
    until_quiet(done)
    (layer,) = [layer for layer in done.viewer.layers if layer.name == "mine"]
    assert layer.features["label"].tolist() == ["tumour"]
    np.testing.assert_array_equal(layer.data[0].min(axis=0), [9.5, 19.5])
    done.state.settings.region = "drawn"
    done.viewer.layers.selection.active = layer
    assert done.state.selected_rect().astuple() == (10, 20, 20, 20)
    done.annotation_service.import_file(tmp_path / "none.csv")
    until_quiet(done)
    assert "no such file" in errors(done)[-1]


def test_without_a_run_nothing_can_be_annotated(model, controller, photo, add):
    add(model, photo)
    controller.annotation_service.annotate("points")
    assert "saved in a run" in errors(controller)[-1]
