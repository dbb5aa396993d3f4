"""The panel in a real window: a run from its buttons, and nothing left when it closes."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from cut_texts import cut_texts, outside, overlapping
from napari.layers import Layer
from napari.settings import get_settings
from napari.utils._proxies import PublicOnlyProxy
from qtpy.QtCore import QCoreApplication, QEvent, QPoint
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QComboBox,
    QFileDialog,
    QLabel,
    QLineEdit,
    QMessageBox,
    QWidget,
)
from toys import threads

sys.path.insert(0, str(Path(__file__).parents[2] / "models"))
import tiny_models

from hrviewer.app.maps.raster import MAPS
from hrviewer.engine import ResultCache
from hrviewer.formatting import EstimateText, describe_estimate
from hrviewer.pyramid import open_pyramid
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.contributions.commands import panel_of
from hrviewer.viewer.image.image_layer import image_layer_data
from hrviewer.viewer.widgets.window import image_share


@pytest.fixture
def docked(make_napari_viewer, photo, toys, tmp_path):
    """A panel in a window, with a photo and the toy network."""
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(photo))))
    panel = panel_of(viewer)
    assert isinstance(panel.controller.viewer, PublicOnlyProxy)
    controller = panel.controller
    controller.resources.cache, controller.resources.run_folder = ResultCache(), tmp_path / "runs"
    controller.resources.low_priority = False
    controller.state.set_model(toys)
    controller.state.set_strategy("patches")
    yield panel
    if panel.parent() is not None:
        viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    settle()


def settle():
    """Let Qt process deferred deletions."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def idle(panel):
    return lambda: panel.controller.state.run_state == "idle"


def test_a_whole_run_from_the_buttons(docked, qtbot, count):
    assert docked.run_settings.image_summary.text().startswith("300 × 420 px")
    assert docked.run_settings.model.currentText() == "toys"
    docked.run_settings.params.fields["tile"].value = 32
    docked.run_controls.run_button.click()
    assert not docked.run_controls.run_button.isEnabled()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    assert docked.run_controls.estimate.text() == f"{count:,.0f} things"
    assert "FLOP" in docked.run_controls.cost.text()
    assert docked.run_controls.progress_bar.value() == 1000
    assert docked.controller.state.run.header["params"] == {"tile": 32}
    assert docked.controller.state.run.header["patches"]["done"] == 10 * 14
    for layer in docked.controller.overlays.layers.values():
        assert np.isfinite(layer.data).any()
    assert docked.overlay_legend.rows["output"].unit.text() == "things per megapixel"
    assert docked.overlay_legend.rows["cost"].high.text() == "100"
    assert docked.export_tab.export_button.isEnabled()
    assert sum(part for part, _ in docked.time_breakdown.bar._parts) > 0


@pytest.mark.parametrize("tab", [0, 1, 2])
def test_every_control_is_inside_the_window(docked, qtbot, tab):
    docked.setCurrentIndex(tab)
    qtbot.wait(50)
    kinds = (QComboBox, QLineEdit, QAbstractButton, QAbstractSpinBox)
    found = [w for w in docked.findChildren(QWidget) if isinstance(w, kinds) and w.isVisible()]
    assert len(found) > 3
    assert {w: w.width() for w in found if w.width() < 14 or w.height() < 14} == {}
    for box in (docked.run_settings.device, docked.run_settings.precision):
        assert tab or box.width() > 80


def test_pause_and_stop_from_the_buttons(docked, qtbot, network):
    gate = threading.Event()
    network.before = lambda batch: gate.wait(20)
    docked.run_controls.run_button.click()
    qtbot.waitUntil(lambda: docked.controller.state.run_state == "running", timeout=20_000)
    docked.run_controls.pause_button.click()
    assert docked.run_controls.pause_button.text() == "Resume"
    docked.run_controls.pause_button.click()
    assert docked.run_controls.pause_button.text() == "Pause"
    docked.run_controls.stop_button.click()
    assert "stopping" in docked.run_controls.progress_text.text()
    gate.set()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    assert "stopped" in docked.run_controls.notes.text()
    stopped = docked.controller.state.run
    assert not stopped.complete
    assert docked.run_controls.pause_button.isEnabled()
    assert docked.run_controls.pause_button.text() == "Resume"
    docked.run_controls.pause_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    assert docked.controller.state.run.path == stopped.path
    assert docked.controller.state.run.complete
    assert docked.run_controls.pause_button.text() == "Pause"
    assert not docked.run_controls.pause_button.isEnabled()


def test_the_legend_rules_the_layers(docked, qtbot):
    docked.run_controls.run_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    overlays = docked.controller.overlays
    for name in MAPS:
        entry = docked.overlay_legend.rows[name]
        entry.checkbox.setChecked(not entry.checkbox.isChecked())
        assert overlays.is_visible(name) is entry.checkbox.isChecked()
        entry.opacity.setValue(33)
        assert overlays.layers[name].opacity == 0.33
    assert docked.overlay_legend.class_box.isHidden()
    docked.overlay_legend.cost_box.setCurrentText("time")
    docked.overlay_legend.cost_box.activated.emit(1)
    assert docked.overlay_legend.rows["cost"].unit.text() == "ms per megapixel"
    qtbot.waitUntil(
        lambda: (
            overlays.layers["cost"].contrast_limits[1] == overlays.maps.rasters["cost"].limits[1]
        )
    )
    # Another run shows the same.
    docked.run_controls.run_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    assert docked.controller.overlays is not overlays
    assert docked.controller.overlays.maps.rasters["cost"].unit == "ms per megapixel"


def test_labels_are_given_while_there_are_embeddings(docked, qtbot):
    pytest.importorskip("sklearn")
    form, controller = docked.head_form, docked.controller
    assert form.isHidden()
    controller.state.set_strategy("compression")
    docked.run_controls.run_button.click()
    qtbot.waitUntil(lambda: idle(docked)() and not form.isHidden(), timeout=20_000)
    assert not form.use_button.isEnabled()
    form.label_button.setChecked(True)
    for name, y in (("sky", 20), ("sea", 200)):
        form.class_box.setEditText(name)
        for x in (30, 330):
            controller.inspect_patch((y, x))
    assert form.message.text() == "2 sky, 2 sea"
    assert [form.class_box.itemText(i) for i in range(form.class_box.count())] == ["sky", "sea"]
    form.label_button.setChecked(False)
    assert controller.head_trainer.label == ""
    form.fit_button.click()
    assert not form.fit_button.isEnabled()
    qtbot.waitUntil(form.use_button.isEnabled, timeout=60_000)
    assert "error rate" in form.message.text()
    form.use_button.click()
    assert controller.state.settings.model.name.startswith("toys-labels+toys")
    assert docked.run_settings.model.currentText() == controller.state.settings.model.name
    qtbot.waitUntil(idle(docked), timeout=60_000)
    assert controller.state.run.estimate["per_class"].keys() == {"sea", "sky"}


@pytest.mark.parametrize("seconds", [0.04, 9.94, 9.96, 99.6, 3599.0, 123_456.0])
def test_long_times_fit_their_column(seconds):
    from hrviewer.viewer.widgets.cost_breakdown import format_seconds

    assert len(format_seconds(seconds)) <= 5
    unit = 1e3 if "k" in format_seconds(seconds) else 1
    assert float(format_seconds(seconds).removesuffix("k")) * unit == pytest.approx(
        seconds, abs=0.05, rel=0.01
    )


def test_classes_to_choose_from(docked):
    from hrviewer.app.maps.result_maps import ResultMaps
    from hrviewer.geometry import Rect

    picture = ResultMaps(Rect(0, 0, 300, 420), 4, "mass", ["cat", "dog"])
    state = docked.controller.state
    state.show_results(state.image, picture)
    plane = docked.overlay_legend.class_box
    assert not plane.isHidden()
    assert [plane.itemText(i) for i in range(plane.count())] == ["all classes", "cat", "dog"]
    plane.setCurrentIndex(2)
    plane.activated.emit(2)
    assert picture.class_index == 1


def test_the_most_likely_class_and_its_classes(docked):
    from hrviewer.app.maps.result_maps import MOST_LIKELY, ResultMaps
    from hrviewer.geometry import Rect

    maps = ResultMaps(
        Rect(0, 0, 300, 420), 4, "intensity", ["glass", "tissue", "ink"], exclusive=True
    )
    state, legend = docked.controller.state, docked.overlay_legend
    state.show_results(state.image, maps)
    assert legend.class_box.currentData() == MOST_LIKELY
    assert not legend.classes_button.isHidden()
    layer = docked.controller.overlays.layers["output"]
    colours = layer.colormap.map(np.array([0.5, 1.5, 2.5]) / 3)
    assert len(np.unique(colours, axis=0)) == 3
    assert tuple(layer.contrast_limits) == (0, 3)
    lines = docked.controller.overlays._class_legend
    assert lines.lines == ["■ glass", "■ tissue", "■ ink"]
    assert not layer.colorbar.visible
    legend.classes_button.menu().actions()[2].setChecked(False)
    assert maps.hidden_classes == {2}
    assert lines.lines == ["■ glass", "■ tissue"]
    legend.class_box.setCurrentIndex(1)
    legend.class_box.activated.emit(1)
    assert maps.class_index == 0
    assert tuple(layer.contrast_limits) == (0, 1)
    assert legend.classes_button.isHidden()
    assert layer.colormap.name == "hrviewer-viridis"
    assert layer.colorbar.visible
    assert lines.lines == []


def test_removing_the_image_ends_the_run(docked, qtbot, network):
    network.before = lambda batch: threading.Event().wait(0.05)
    docked.run_controls.run_button.click()
    qtbot.waitUntil(lambda: docked.controller.overlays is not None, timeout=20_000)
    viewer = docked.controller.viewer
    viewer.layers.selection.active = viewer.layers[-1]
    viewer.layers.remove(viewer.layers[0])
    assert docked.controller.image_layer is None
    qtbot.waitUntil(idle(docked), timeout=20_000)
    assert not len(viewer.layers)


def test_closing_the_dock_ends_the_run(docked, qtbot, network):
    network.before = lambda batch: threading.Event().wait(0.05)
    docked.run_controls.run_button.click()
    qtbot.waitUntil(lambda: docked.controller.state.run_state == "running", timeout=20_000)
    docked.parent().destroyOnClose()
    settle()
    assert not threads()


def test_an_error_is_a_line_in_the_panel(docked):
    docked.run_settings.budget.setText("lots")
    docked.run_settings.budget.textEdited.emit("lots")
    docked.run_controls.run_button.click()
    assert "budget" in docked.run_controls.error.text()
    assert not docked.run_controls.error.isHidden()
    docked.run_settings.budget.setText("")
    docked.run_settings.budget.textEdited.emit("")
    docked.controller.state.set_strategy("uniform")
    assert docked.run_controls.error.isHidden()


def test_choices_reach_the_controller(docked):
    choice, controller = docked.run_settings, docked.controller
    choice.strategy.setCurrentIndex(choice.strategy.findData("uniform"))
    choice._set_strategy()
    assert controller.state.settings.strategy.id == "uniform"
    assert choice.strategy_summary.text() == controller.state.settings.strategy.when
    choice.budget.setText("30")
    choice.unit.setCurrentText("seconds")
    choice._set_budget()
    assert controller.state.settings.budget == "30s"
    choice.draw_button.click()
    assert controller.state.settings.region == "drawn"
    assert controller.region_layer() is not None
    controller.viewer.layers.clear()
    assert choice.image.text() == "none is open"
    choice.draw_button.click()


def test_a_click_fills_the_patch(docked, qtbot):
    docked.run_controls.run_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    docked.controller.inspect_patch((100.0, 100.0))
    assert "main · patch" in docked.patch_inspector.details.text()
    qtbot.waitUntil(lambda: not docked.controller.has_pending_work, timeout=5_000)
    assert not docked.patch_inspector.preview.pixmap().isNull()


def test_files_are_asked_for(docked, qtbot, monkeypatch, tmp_path, photo):
    from skimage.io import imsave

    docked.run_controls.run_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    run = docked.controller.state.run.path
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: str(run))
    docked.open_run_button.button.click()
    qtbot.waitUntil(lambda: not docked.controller.has_pending_work, timeout=10_000)
    assert docked.run_controls.error.isHidden()
    image = tmp_path / "other.png"
    imsave(image, photo, check_contrast=False)
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(image), ""))
    docked.run_settings.open_button.choose_file()
    qtbot.waitUntil(lambda: docked.run_settings.image.text() == "other.png", timeout=10_000)
    button = docked.run_settings.open_button
    button.fill_menu()
    tips = [action.toolTip() for action in button.open_menu.actions()]
    assert str(image) in tips
    assert str(run.absolute()) in tips
    docked.run_settings.choose_model()
    qtbot.waitUntil(lambda: "other" in docked.run_controls.error.text(), timeout=10_000)
    nothing = lambda *a: ("", "")  # noqa: E731
    monkeypatch.setattr(QFileDialog, "getOpenFileName", nothing)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a: "")
    docked.run_settings.open_button.choose_file()
    docked.run_settings.choose_model()
    docked.open_run_button.choose_run()


def test_models_of_other_tools_are_opened(docked, qtbot, monkeypatch, tmp_path):
    """A file by itself, a folder by its description; code runs only with the user's trust."""
    path = tiny_models.ultralytics(tmp_path / "yolo.onnx", "detect")
    folder = tiny_models.wsinfer(tmp_path / "zoo")
    opened = lambda: docked.controller.state.settings.model.name  # noqa: E731
    answers = []

    def answer(*_):
        return answers.pop()

    def choose(chosen):
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(chosen), ""))
        docked.run_settings.choose_model()
        qtbot.waitUntil(lambda: not docked.controller.has_pending_work, timeout=10_000)

    monkeypatch.setattr(QMessageBox, "question", answer)
    choose(path)
    assert opened() == "yolo"
    assert "detection" in docked.run_settings.model_summary.text()
    for button, name in (
        (QMessageBox.StandardButton.No, "yolo"),
        (QMessageBox.StandardButton.Yes, "zoo"),
    ):
        answers.append(button)
        choose(folder / "config.json")
        qtbot.waitUntil(lambda: not answers, timeout=10_000)
        qtbot.waitUntil(lambda name=name: opened() == name, timeout=10_000)


def test_text_follows_naparis_size(docked):
    size = get_settings().appearance.font_size
    small = docked.run_settings.image_summary.font().pointSizeF()
    try:
        get_settings().appearance.font_size = 2 * size
        docked.ensurePolished()
        assert docked.run_settings.image_summary.font().pointSizeF() == pytest.approx(
            2 * small, abs=0.6
        )
    finally:
        get_settings().appearance.font_size = size


@pytest.mark.slow
def test_nothing_is_cut_off_in_a_small_window_with_large_text(docked, qtbot):
    viewer, appearance = docked.controller.viewer, get_settings().appearance
    docked.run_controls.run_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    docked.controller.inspect_patch((100.0, 100.0))
    before = appearance.font_size
    try:
        appearance.font_size = 13
        viewer.window.resize(1280, 800)
        docked.arrange()
        dock = docked.parentWidget()
        assert dock.windowTitle() == "hrviewer"  # there is no room for more
        assert [label.text() for label in dock.titleBarWidget().findChildren(QLabel)] == [
            "hrviewer"
        ]
        qtbot.wait(50)
        assert cut_texts(dock.titleBarWidget()) == []
        for theme in ("dark", "light"):
            viewer.theme = theme
            for tab in range(docked.count()):
                docked.setCurrentIndex(tab)
                qtbot.wait(100)
                assert cut_texts(docked) + overlapping(docked) + outside(docked) == []
        assert image_share(docked) >= 0.55
    finally:
        appearance.font_size = before


def test_nothing_jumps_when_the_strategy_changes(docked, qtbot):
    controls, body = docked.run_controls, docked.widget(0).widget()
    fixed = controls.run_button, controls.estimate, docked.overlay_legend
    places = set()
    for name in strategy_ids():
        docked.controller.state.set_strategy(name)
        qtbot.wait(20)
        places.add(tuple(part.mapTo(body, QPoint(0, 0)).y() for part in fixed))
    assert len(places) == 1


def is_running(controller):
    return controller.state.run_state == "running"


@pytest.mark.parametrize("running", [False, True])
def test_nothing_survives_the_window(
    make_napari_viewer, photo, toys, network, tmp_path, qtbot, running
):
    viewer = make_napari_viewer()
    viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(photo))))
    panel = panel_of(viewer)
    controller = panel.controller
    controller.resources.cache, controller.resources.run_folder = ResultCache(), tmp_path
    controller.resources.low_priority = False
    controller.state.set_model(toys)
    if running:
        network.before = lambda batch: threading.Event().wait(0.05)
        controller.run_service.start()
        qtbot.waitUntil(partial(is_running, controller), timeout=20_000)
    gone = [weakref.ref(it) for it in (panel, controller, panel.run_settings, panel.overlay_legend)]
    del panel, controller
    viewer.close()
    qtbot.wait(50)
    settle()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4
    assert not threads()


def test_keys_do_what_the_buttons_do(docked, qtbot, count):
    keys, controller = docked.user_actions.keys, docked.controller
    chosen = controller.state.settings.strategy.id
    keys["next_strategy"].activated.emit()
    assert controller.state.settings.strategy.id != chosen
    keys["previous_strategy"].activated.emit()
    assert controller.state.settings.strategy.id == chosen
    keys["toggle_live"].activated.emit()
    assert docked.live_toggle.checkbox.isChecked()
    keys["toggle_live"].activated.emit()
    assert not controller.live.enabled
    keys["stop"].activated.emit()  # nothing runs: nothing happens
    keys["pause_or_resume"].activated.emit()
    assert controller.state.run_state == "idle"
    keys["run"].activated.emit()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    assert docked.run_controls.estimate.text() == f"{count:,.0f} things"
    assert docked.run_controls.run_button.toolTip().endswith(f"({keys['run'].key().toString()})")


def test_ground_truth_without_an_image_is_refused(docked, tmp_path, monkeypatch):
    docked.controller.viewer.layers.clear()
    path = tmp_path / "points.csv"
    path.write_text("y,x\n10.5,20.5\n")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a: (str(path), ""))
    docked.ground_truth.checkbox.click()
    assert "open an image" in docked.run_controls.error.text()
    assert not docked.ground_truth.checkbox.isChecked()


def test_no_number_of_one_image_stands_beside_another(docked, qtbot, photo):
    docked.run_controls.run_button.click()
    qtbot.waitUntil(idle(docked), timeout=20_000)
    docked.controller.inspect_patch((100.0, 100.0))
    qtbot.waitUntil(lambda: not docked.controller.has_pending_work, timeout=5_000)
    estimate = docked.run_controls.estimate.text()
    viewer = docked.controller.viewer
    first = docked.controller.image_layer
    other = viewer.add_layer(
        Layer.create(*image_layer_data(open_pyramid(np.ascontiguousarray(photo[::-1]))))
    )
    assert docked.controller.image_layer == other
    controls = docked.run_controls
    shown = (controls.estimate, controls.estimate_details, controls.cost, controls.notes)
    assert [label.text() for label in shown] == [""] * 4
    assert controls.progress_bar.value() == 0
    assert not controls.pause_button.isEnabled()
    assert docked.patch_inspector.preview.isHidden()
    assert "Click on the image" in docked.patch_inspector.details.text()
    assert {row.high.text() for row in docked.overlay_legend.rows.values()} == {""}
    assert docked.interval_widget.isHidden()
    assert sum(part for part, _ in docked.time_breakdown.bar._parts) == 0
    assert not docked.export_tab.export_button.isEnabled()
    viewer.layers.selection.active = first
    assert controls.estimate.text() == estimate
    assert not docked.patch_inspector.preview.isHidden()
    assert docked.overlay_legend.rows["cost"].high.text() == "100"


def test_the_answer_has_its_intervals_or_is_rough(docked):
    controls, state = docked.run_controls, docked.controller.state
    count = {"kind": "count", "value": 41.2, "per_class": {"person": 41.2}, "coverage": 0.4}
    for known, details in (
        (
            {"ci95": [35.1, 47.9], "ci95_truth": [28.0, 56.2]},
            "95 % intervals: 35 – 48 for exhaustive inference, 28 – 57 for the true count",
        ),
        ({"ci95": None, "ci95_truth": None}, "rough"),
    ):
        state.set_estimate(state.image, describe_estimate(count | known), "")
        assert controls.estimate.text() == "41 people"
        assert controls.estimate_details.text() == f"{details}; 40 % of the region"


def test_text_that_grows_is_never_cut_off(docked):
    controls, state = docked.run_controls, docked.controller.state
    for lines in (1, 3, 2, 6):
        long = EstimateText("9 people", extent="so far " * 12 * lines)
        state.set_estimate(state.image, long, "12 GFLOP · 12 patches in view " * 2 * lines)
        # Before any further event, so that nothing is painted cut off.
        for label in (controls.estimate_details, controls.cost):
            assert label.height() >= label.heightForWidth(label.width()) > 12 * lines


def test_the_actions_of_tabs_show_them(docked):
    for action, title in (("export", "Export"), ("compare", "Compare"), ("show_run_tab", "Run")):
        docked.user_actions(action)
        assert docked.tabText(docked.currentIndex()) == title
