"""The review's walk through the window, with mouse and keyboard; `make walk`.

Every test is a fault that a user once met, done again with real events on widgets and canvas. Each
leaves a picture of the screen in build/walk, which is to be checked by eye.
"""

from __future__ import annotations

import json
import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari._app_model import get_app_model
from napari.layers import Shapes
from PIL import Image
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QAbstractButton, QFileDialog, QLabel, QScrollArea, QWidget
from toys import Bright, Encoder, ToyBundle

from hrviewer.engine import ResultCache
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.contributions import commands
from hrviewer.viewer.contributions.commands import panel_of
from hrviewer.viewer.demo.window_driver import grab, process_events_for, wait_until
from hrviewer.viewer.view import view

pytestmark = pytest.mark.walk

PICTURES = Path(__file__).parents[3] / "build" / "walk"
LEFT = Qt.MouseButton.LeftButton

WORDS = ("cell to go", "cells to go", " looks", "look 1", "topk", " × thing", "the card's", "--out")
"""Words of the program's own that once were on the screen."""


def spots(seed: int) -> np.ndarray:
    """Return an image of bright pixels on black; the toy network counts them."""
    image, rng = np.zeros((300, 420, 3), np.uint8), np.random.default_rng(seed)
    image[rng.integers(0, 300, 240), rng.integers(0, 420, 240)] = 255
    return image


class Walk:
    """A window with an image and a network, and the hands of a user."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.network = folder, Bright()
        self.first, self.second = (folder / f"{name}.png" for name in ("first", "second"))
        for path, seed in ((self.first, 0), (self.second, 1)):
            Image.fromarray(spots(seed)).save(path)
        self.window = view(str(self.first), ToyBundle(main=self.network, encoder=Encoder()))
        self.panel, self.controller = self.window.panel, self.window.controller
        resources = self.controller.resources
        resources.cache, resources.run_folder = ResultCache(), folder / "runs"
        self.controller.state.set_strategy("patches")
        self.qt = self.panel.window()
        self.window.viewer.window.resize(1600, 1000)
        self.settle(0.5)

    @property
    def state(self):
        return self.controller.state

    def settle(self, seconds: float = 0.2) -> None:
        """Give the window time."""
        process_events_for(seconds)
        wait_until(lambda: not self.controller.has_pending_work, 60)
        process_events_for(0.1)

    def click(self, widget: QWidget) -> None:
        """Click on the middle of a widget, which has to be visible and enabled."""
        assert widget.isVisible()
        assert widget.isEnabled()
        area = self.panel.currentWidget()
        if isinstance(area, QScrollArea):
            area.ensureWidgetVisible(widget)
        at = QPoint(8, widget.height() // 2) if hasattr(widget, "isCheckable") else None
        QTest.mouseClick(widget, LEFT, pos=at or widget.rect().center())
        process_events_for(0.05)

    def press(self, key: Qt.Key, shift: bool = False) -> None:
        """Press a key in the window."""
        self.qt.activateWindow()
        wait_until(self.qt.isActiveWindow, 10)
        modifiers = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        QTest.keyClick(self.panel, key, modifiers)
        process_events_for(0.05)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Drag on the canvas between two pixels of the image, ``(y, x)``."""
        canvas = next(
            w for w in self.qt.findChildren(QWidget) if "CanvasBackend" in type(w).__name__
        )
        camera, layer = self.window.viewer.scene.camera, self.controller.image_layer
        points = []
        for pixel in (start, end):
            world = np.asarray(layer.data_to_world(pixel))[-2:]
            y, x = (world - np.asarray(camera.center[-2:])) * camera.zoom
            y, x = y + canvas.height() / 2, x + canvas.width() / 2
            points.append(QPoint(round(x), round(y)))
        QTest.mousePress(canvas, LEFT, pos=points[0])
        for part in np.linspace(0.2, 1, 5):
            QTest.mouseMove(canvas, points[0] + (points[1] - points[0]) * float(part))
            process_events_for(0.05)
        QTest.mouseRelease(canvas, LEFT, pos=points[1])
        process_events_for(0.1)

    def run(self) -> None:
        """Press F5 and wait for the end of the run."""
        before = self.state.run
        self.press(Qt.Key.Key_F5)
        wait_until(lambda: self.state.run_state != "idle" or self.state.run is not before, 60)
        wait_until(lambda: self.state.run_state == "idle", 120)
        self.settle()

    def open(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Open an image by the panel's button."""
        monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(path), ""))
        self.panel.run_settings.open_button.choose_file()
        wait_until(lambda: self.state.image is not None and self.state.image.name == path.name, 60)
        self.settle()

    def texts(self) -> str:
        """Return everything that the panel shows."""
        found = [w.text() for w in self.panel.findChildren(QLabel) if w.isVisible()]
        found += [w.text() for w in self.panel.findChildren(QAbstractButton) if w.isVisible()]
        return "\n".join(found)

    def photograph(self, name: str) -> None:
        """Leave a picture of the window."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        process_events_for(0.2)
        Image.fromarray(grab(self.window)[..., :3]).save(PICTURES / f"{name}.png")


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    made = Walk(tmp_path_factory.mktemp("walk"))
    yield made
    made.window.close()


def test_15_without_an_image_nothing_can_be_run(walk, monkeypatch):
    walk.window.viewer.layers.clear()
    walk.settle()
    assert not walk.panel.run_controls.run_button.isEnabled()
    assert "drop one on the window" in walk.panel.run_settings.image_summary.text()
    walk.photograph("15-without-an-image")
    walk.open(walk.first, monkeypatch)
    assert walk.panel.run_controls.run_button.isEnabled()


def test_01_a_number_goes_with_its_image(walk, monkeypatch):
    walk.run()
    estimate = walk.panel.run_controls.estimate.text()
    assert "thing" in estimate
    walk.photograph("01-first-image")
    walk.open(walk.second, monkeypatch)
    shown = walk.panel.run_controls
    assert [label.text() for label in (shown.estimate, shown.estimate_details, shown.cost)] == [
        ""
    ] * 3
    assert not shown.pause_button.isEnabled()
    assert "Click on the image" in walk.panel.patch_inspector.details.text()
    walk.photograph("01-second-image")
    first = next(layer for layer in walk.window.viewer.layers if layer.name == "first.png")
    walk.window.viewer.layers.selection.active = first
    walk.settle()
    assert shown.estimate.text() == estimate


def test_02_a_region_has_its_own_layer_and_stays(walk):
    service = walk.controller.annotation_service
    walk.panel.user_actions("export")
    walk.click(walk.panel.export_tab.shapes_button)
    walk.settle()
    walk.panel.setCurrentIndex(0)
    walk.window.viewer.reset_view()
    walk.click(walk.panel.run_settings.draw_button)
    walk.drag((60, 80), (180, 260))
    region = walk.controller.region_layer()
    assert region is not None
    assert region.name == "region"
    assert len(region.data) == 1
    annotations = [layer for layer in walk.window.viewer.layers if layer.name == "annotations"]
    assert not any(len(layer.data) for layer in annotations if isinstance(layer, Shapes))
    walk.photograph("02-region")
    walk.run()
    walk.run()
    assert walk.controller.region_layer() == region
    assert walk.panel.run_controls.error.isHidden()
    assert not list((walk.state.run.path).glob("annotations.geojson"))
    service.save_and_close()


def test_03_a_drawn_shape_counts_what_is_inside(walk):
    shapes = walk.controller.region_layer()
    shapes.selected_data = set(range(len(shapes.data)))
    shapes.remove_selected()
    triangle = np.array([(0, 0), (0, 200), (200, 0)], float) - 0.5
    shapes.add(triangle, shape_type="polygon")
    walk.run()
    header = walk.state.run.header
    assert header["regions"][0]["area"] == pytest.approx(200 * 200 / 2, rel=1e-6)
    whole = walk.state.run.estimate["value"]
    red = spots(0)[:200, :200, 0].astype(float) / 255
    inside = np.add.outer(np.arange(200), np.arange(200)) < 199
    # Pixels in cells on the border count in part.
    assert whole == pytest.approx(red[inside].sum(), abs=2)
    walk.photograph("03-triangle")
    walk.window.viewer.layers.remove(shapes)
    box = walk.panel.run_settings.region
    box.setCurrentIndex(box.findData("whole"))
    box.activated.emit(box.currentIndex())


def test_04_as_many_points_as_the_count_says(walk, tmp_path):
    walk.run()
    tab = walk.panel.export_tab
    walk.panel.user_actions("export")
    tab.format.setCurrentText("geojson")
    tab.options.fields["points"].value = True
    tab.options.fields["patches"].value = False
    target = tmp_path / "points.geojson"
    tab.path.setText(str(target))
    tab.path.setModified(True)
    walk.click(tab.export_button)
    walk.settle()
    walk.photograph("04-export")
    features = json.loads(target.read_text())["features"]
    points = [f for f in features if f["geometry"]["type"] == "Point"]
    assert len(points) == round(walk.state.run.estimate["value"])
    walk.panel.setCurrentIndex(0)


def test_05_to_07_every_strategy_says_what_it_knows_in_colours_that_stay(walk):
    limits = set()
    for name in ("patches", "uniform", "zoom"):
        while walk.state.settings.strategy.id != name:
            walk.press(Qt.Key.Key_F9)
        walk.run()
        shown = walk.panel.run_controls
        assert "thing" in shown.estimate.text()
        estimate = walk.state.run.estimate
        if estimate["ci95"] is None and not estimate.get("exhaustive"):
            assert "rough" in shown.estimate.text() + shown.estimate_details.text()
        layer = walk.controller.overlays.layers["output"]
        limits.add(tuple(layer.contrast_limits))
        assert layer.colorbar.visible
        assert [word for word in WORDS if word in walk.texts()] == []
        walk.photograph(f"05-{name}")
    assert len(limits) == 1


def test_08_metres_of_a_map_are_read(walk, monkeypatch, tmp_path):
    path = tmp_path / "map.tif"
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32617)
    tifffile.imwrite(
        path, spots(2), tile=(64, 64), photometric="rgb",
        extratags=[
            (33550, "d", 3, (0.5, 0.5, 0.0)),
            (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 4_000_000.0, 0.0)),
            (34735, "H", len(keys), keys),
        ],
    )  # fmt: skip
    walk.open(path, monkeypatch)
    assert "50 cm/px" in walk.panel.run_settings.image_summary.text()
    walk.photograph("08-map")
    walk.window.viewer.layers.remove(walk.controller.image_layer)
    walk.settle()


def test_09_a_run_stops_by_its_key(walk):
    gate, before = threading.Event(), walk.network.before
    walk.network.before = lambda batch: gate.wait(60)
    walk.press(Qt.Key.Key_F5)
    wait_until(lambda: walk.state.run_state == "running", 60)
    walk.press(Qt.Key.Key_F5, shift=True)
    walk.photograph("09-stopping")
    gate.set()
    wait_until(lambda: walk.state.run_state == "idle", 60)
    walk.network.before = before
    walk.settle()
    assert "stopped" in walk.panel.run_controls.notes.text()
    assert walk.panel.run_controls.pause_button.text() == "Resume"


def test_10_napari_s_own_states(walk):
    """Three dimensions and back, the grid, other orders of axes: no error, and the same places."""
    viewer = walk.window.viewer
    for change in (
        lambda: setattr(viewer.dims, "ndisplay", 3),
        lambda: setattr(viewer.dims, "ndisplay", 2),
        lambda: setattr(viewer.canvas.grid, "enabled", True),
        lambda: setattr(viewer.canvas.grid, "enabled", False),
        lambda: setattr(viewer.dims, "order", (1, 0)),
        lambda: setattr(viewer.dims, "order", (0, 1)),
    ):
        change()
        walk.settle()
    walk.photograph("10-states")
    assert walk.panel.run_controls.error.isHidden()


def test_11_runs_have_a_home(walk, monkeypatch):
    first = next(layer for layer in walk.window.viewer.layers if layer.name == "first.png")
    walk.window.viewer.layers.selection.active = first  # the image that most runs are of
    walk.settle()
    walk.run()  # on another image, the last run has taken this one's results away
    asked = []
    monkeypatch.setattr(
        QFileDialog, "getExistingDirectory", lambda *a, **k: asked.append(a[2]) or ""
    )
    walk.click(walk.panel.open_run_button.button)
    assert asked == [str(walk.controller.resources.runs())]
    walk.panel.user_actions("compare")
    wait_until(lambda: walk.panel.compare_tab.table.rowCount() >= 3, 60)
    walk.photograph("11-compare")
    walk.panel.setCurrentIndex(0)


def test_12_a_failed_export_keeps_its_target_and_drawing_is_undone(walk, tmp_path):
    tab = walk.panel.export_tab
    walk.panel.user_actions("export")
    target = str(tmp_path / "missing" / "a.geojson")
    tab.path.setText(target)
    tab.path.setModified(True)
    walk.click(tab.export_button)
    walk.settle()
    assert tab.path.text() == target
    assert "no folder" in tab.status.text()
    walk.click(tab.points_button)
    walk.settle()
    _, points = walk.controller.annotations.layers
    points.add((20.0, 30.0))
    walk.photograph("12-annotation")
    walk.panel.user_actions("undo_drawing")
    assert not len(points.data)
    walk.panel.user_actions("redo_drawing")
    assert len(points.data) == 1
    walk.panel.setCurrentIndex(0)


def test_14_every_verb_is_a_command(walk):
    assert {name for name in walk.panel.user_actions.names if not hasattr(commands, name)} == set()


def test_15_a_deleted_overlay_comes_back(walk):
    overlays = walk.controller.overlays
    viewer, checkbox = walk.window.viewer, walk.panel.overlay_legend.rows["output"].checkbox
    viewer.layers.remove(overlays.layers["output"])
    walk.settle()
    assert not checkbox.isChecked()
    walk.click(checkbox)
    assert overlays.layers["output"] in viewer.layers
    assert overlays.layers["output"].visible
    walk.photograph("15-overlay-again")


def test_all_strategies_can_be_reached_by_keys(walk):
    seen = []
    for _ in strategy_ids():
        walk.press(Qt.Key.Key_F9)
        seen.append(walk.state.settings.strategy.id)
    assert sorted(seen) == sorted(strategy_ids())


def test_17_the_keyboard_s_focus_is_visible_and_goes_down_the_panel(walk):
    walk.panel.setCurrentIndex(0)
    walk.qt.activateWindow()
    wait_until(walk.qt.isActiveWindow, 10)
    settings, controls = walk.panel.run_settings, walk.panel.run_controls
    for widget in (settings.model, settings.budget, settings.draw_button, controls.run_button):
        settings.strategy.setFocus()
        walk.settle(0.1)
        before = widget.grab().toImage()
        widget.setFocus()
        walk.settle(0.1)
        assert widget.grab().toImage() != before
        assert widget.accessibleName() or widget.text()
    walk.photograph("17-focus")
    body = walk.panel.widget(0).widget()
    at, tops = settings.open_button, []
    while at is not walk.panel.overlay_legend.rows["cost"].opacity:
        at = at.nextInFocusChain()
        tab = at.focusPolicy() & Qt.FocusPolicy.TabFocus
        if at.isVisible() and at.isEnabled() and tab and body.isAncestorOf(at):
            tops.append(at.mapTo(body, QPoint(0, at.height() // 2)).y())
    assert len(tops) > 10
    # Down the panel; a row's controls may differ in height by a few pixels.
    assert all(below > above - 30 for above, below in pairwise(tops))


def layer_action(walk, layer, name):
    """Do what napari's menu of a layer does."""
    walk.window.viewer.layers.selection.active = layer
    get_app_model().commands.execute_command(f"napari.layer.{name}").result()
    walk.settle()


def test_18_layers_renamed_moved_duplicated_and_deleted_by_the_user(walk):
    viewer, layers = walk.window.viewer, walk.window.viewer.layers
    base, overlays = walk.controller.image_layer, walk.controller.overlays
    estimate = walk.panel.run_controls.estimate.text()
    assert estimate
    base.name = "liver"
    walk.settle()
    assert walk.panel.run_settings.image.text() == "liver"
    output, checkbox = overlays.layers["output"], walk.panel.overlay_legend.rows["output"].checkbox
    output.name = "mine"
    for shown in (not checkbox.isChecked(), checkbox.isChecked()):
        walk.click(checkbox)
        assert output.visible == shown
    layers.move(layers.index(output), 0)  # below its image
    walk.settle()
    layers.move(layers.index(output), len(layers))
    layer_action(walk, output, "duplicate")
    copy = next(layer for layer in layers if layer.name == "mine copy")
    assert walk.controller.image_layer == base
    layer_action(walk, base, "duplicate")
    twin = next(layer for layer in layers if layer.name == "liver copy")
    # The copy is another image, without results: nothing of the first one is on the screen.
    assert walk.controller.image_layer == twin
    assert walk.panel.run_controls.estimate.text() == ""
    assert not base.visible
    assert not copy.visible
    assert not any(layer.visible for layer in overlays)
    walk.photograph("18-copy")
    layers.remove(twin)
    walk.settle()
    layers.selection.active = base
    walk.settle()
    assert walk.panel.run_controls.estimate.text() == estimate
    layers.remove(copy)
    for layer in list(overlays):
        layers.remove(layer)
    walk.run()
    assert len([layer for layer in walk.controller.overlays if layer in layers]) >= 5
    assert walk.panel.run_controls.estimate.text() == estimate
    base.name = "first.png"
    walk.photograph("18-again")
    assert viewer.layers is layers


def test_19_two_viewers_have_results_of_their_own(walk):
    estimate = walk.panel.run_controls.estimate.text()
    other = view(str(walk.second), ToyBundle(main=Bright()), "patches")
    other.controller.resources.cache = ResultCache()
    other.controller.resources.run_folder = walk.folder / "others"
    other.controller.run_service.start()
    wait_until(lambda: other.controller.state.run is not None, 60)
    wait_until(lambda: other.controller.state.run_state == "idle", 60)
    process_events_for(0.3)
    assert walk.panel.run_controls.estimate.text() == estimate
    assert "thing" in other.panel.run_controls.estimate.text()
    assert other.controller.state.run.header["image"]["path"] == str(walk.second)
    assert walk.state.run.header["image"]["path"] == str(walk.first)
    other.close()
    walk.settle()
    walk.run()
    assert walk.panel.run_controls.estimate.text() == estimate


def test_20_the_panel_is_closed_and_opened_again(walk):
    viewer, estimate = walk.window.viewer, walk.panel.run_controls.estimate.text()
    dock, strategy = walk.panel.parentWidget(), walk.state.settings.strategy.id
    viewer.window.remove_dock_widget(dock)
    process_events_for(0.3)
    names = [layer.name for layer in viewer.layers]
    panel = panel_of(viewer)
    assert panel is not walk.panel
    walk.window.panel = walk.panel = panel
    walk.controller = panel.controller
    walk.controller.resources.cache = ResultCache()
    walk.controller.resources.run_folder = walk.folder / "runs"
    walk.state.set_model(ToyBundle(main=walk.network, encoder=Encoder()))
    walk.state.set_strategy(strategy)
    walk.settle()
    assert walk.state.image.name == "first.png"
    assert panel.run_controls.estimate.text() == ""
    assert not any(layer.visible for layer in viewer.layers if "output" in layer.name)
    walk.run()
    assert panel.run_controls.estimate.text() == estimate
    assert [layer.name for layer in viewer.layers if "output" in layer.name] == [
        name for name in names if "output" in name
    ]
    walk.photograph("20-opened-again")
