"""Live: inference follows the view, and no patch is processed twice."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from napari.layers import Layer
from qtpy.QtCore import QCoreApplication, QEvent
from toys import Bright, ToyBundle, picture, threads

from hrviewer.engine import ResultCache
from hrviewer.pyramid import open_pyramid
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.contributions.commands import panel_of
from hrviewer.viewer.image.image_layer import image_layer_data

from .conftest import errors, until_quiet

PHOTO = picture(1500, 1900)
COUNT = PHOTO[..., 0].sum(dtype=np.float64) / 255


@pytest.fixture
def shown(model, controller, add):
    """A controller with an image of several cells, all of it in view."""
    add(model, PHOTO)
    look(model, (750, 950), 0.42)
    controller.emitted["live_status_changed"] = statuses = []
    controller.state.live_status_changed.connect(statuses.append)
    return controller


def look(model, centre, zoom):
    """Move the camera."""
    model.scene.camera.center = centre
    model.scene.camera.zoom = zoom


def live(controller):
    """Switch Live on and wait until the view is done."""
    controller.live.set_enabled(True)
    rest(controller)


def rest(controller, seconds=30):
    """Tick until Live has nothing to do."""
    end = time.monotonic() + seconds
    calm = 0
    while calm < 30:
        assert time.monotonic() < end, "Live does not come to rest"
        controller.tick()
        time.sleep(0.005)
        session = controller.live.session
        calm = calm + 1 if session is not None and session.is_idle() else 0
    drawn = controller.live._renderer._executor.submit(int)
    drawn.result(10)
    time.sleep(0.11)
    controller.tick()


def test_the_answer_in_view_and_the_overlays(shown, model):
    live(shown)
    assert errors(shown) == []
    answers = [answer for answer, _ in shown.emitted["estimate_changed"] if answer.amount]
    assert answers[-1].amount == f"{COUNT:,.0f} things"
    assert answers[-1].extent == "in view"
    assert "up to date" in shown.emitted["live_status_changed"][-1]
    assert model.canvas.overlays.text.visible
    assert np.isfinite(shown.overlays.layers["output"].data).all()
    assert np.nansum(shown.overlays.maps.record.output.values) == pytest.approx(COUNT, rel=1e-5)
    shown.live.set_enabled(False)
    assert not model.canvas.overlays.text.visible


@pytest.mark.parametrize(
    ("turn", "scale", "translate"), [(30, (1, 1), (0, 0)), (30, (0.5, 0.5), (70, -40))]
)
def test_inference_covers_the_visible_part_of_a_rotated_layer(
    controller, model, add, turn, scale, translate
):
    base = add(model, PHOTO)
    base.rotate, base.scale, base.translate = turn, scale, translate
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    matrix = np.array([[cos, -sin], [sin, cos]]) * scale
    centre, zoom = matrix @ (500, 700) + translate, 2 / scale[0]
    look(model, centre, zoom)
    live(controller)
    assert errors(controller) == []
    # Every tenth pixel of the screen, in pixels of the image.
    h, w = model.canvas.size
    screen = np.stack(np.mgrid[5:h:10, 5:w:10], axis=-1).reshape(-1, 2) - (h / 2, w / 2)
    pixels = (screen / zoom + centre - translate) @ np.linalg.inv(matrix).T + 0.5
    inside = pixels[((pixels >= 0) & (pixels < PHOTO.shape[:2])).all(axis=1)]
    assert len(inside) > 100
    drawn = controller.overlays.maps.rasters["output"]
    ys, xs = (inside / drawn.cell).astype(int).T
    assert np.isfinite(drawn.values[ys, xs]).all()
    shown = controller.live._cells_in_view
    assert all(any(r.y <= y < r.y1 and r.x <= x < r.x1 for r in shown) for y, x in inside)
    assert sum(rect.area for rect in shown) < PHOTO[..., 0].size  # and not just everything


QUICK = "patches", "zoom", "compression"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in strategy_ids()
    ],
)
def test_a_view_already_processed_computes_nothing(shown, model, name):
    shown.resources.cache = ResultCache(memory_bytes=0)
    shown.state.set_strategy(name)
    look(model, (300, 300), 1.0)
    live(shown)
    session = shown.live.session
    computed = session.computed
    assert computed > 0
    look(model, (1200, 1500), 1.0)
    rest(shown)
    there = session.computed
    assert there > computed
    look(model, (300, 300), 1.0)
    rest(shown)
    look(model, (310, 320), 1.01)
    rest(shown)
    assert session.computed == there
    # Another strategy and back again.
    other = next(i for i in [*strategy_ids(), name] if i != name)
    shown.state.set_strategy(other)
    rest(shown)
    between = session.computed
    shown.state.set_strategy(name)
    rest(shown)
    assert session.computed == between
    assert np.isfinite(shown.overlays.maps.record.output.values).any()


def test_embeddings_come_live_and_keep_their_colours(shown, model):
    shown.state.set_strategy("compression")
    look(model, (300, 300), 1.0)
    live(shown)
    embeddings = shown.overlays.embedding_layers.embeddings
    before = embeddings.colours.copy()
    assert (before[..., 3] > 0).any()
    look(model, (310, 320), 1.0)
    rest(shown)
    assert shown.overlays.embedding_layers.embeddings is embeddings
    known = before[..., 3] > 0
    np.testing.assert_array_equal(embeddings.colours[known], before[known])
    assert shown.overlays.embedding_layers.colours in model.layers
    shown.state.set_strategy("patches")
    rest(shown)
    assert shown.overlays.embedding_layers is None


def test_another_network_and_back(shown, toys):
    live(shown)
    session = shown.live.session
    first = np.nansum(shown.overlays.maps.record.output.values)
    other = Bright("other")
    other.predict = lambda batch: 2 * Bright.predict(other, batch)
    shown.state.set_model(ToyBundle(main=other))
    rest(shown)
    assert shown.live.session is session
    assert np.nansum(shown.overlays.maps.record.output.values) == pytest.approx(2 * first)
    computed, looked = session.computed, toys.networks["main"].inferred
    shown.state.set_model(toys)
    rest(shown)
    assert session.computed == computed
    assert toys.networks["main"].inferred == looked
    assert np.nansum(shown.overlays.maps.record.output.values) == pytest.approx(first)


def test_zooming_leaves_no_cost_and_no_patch_twice(shown, model):
    live(shown)
    look(model, (300, 300), 2.0)
    rest(shown)
    look(model, (750, 950), 0.42)
    rest(shown)
    record = shown.overlays.maps.record
    flops = record.cost_map.values[0].sum()
    assert flops == pytest.approx(100.0 * PHOTO.shape[0] * PHOTO.shape[1], rel=0.01)
    cores = [(row.y, row.x, row.h, row.w) for row in record.patches]
    assert len(cores) == len(set(cores))
    assert sum(h * w for *_, h, w in cores) == PHOTO.shape[0] * PHOTO.shape[1]
    assert np.nansum(record.output.values) == pytest.approx(COUNT, rel=1e-5)


def test_tiles_appear_before_their_cell_is_done(shown, network):
    gate = threading.Semaphore(20)
    network.before = lambda batch: gate.acquire(timeout=20)
    shown.live.set_enabled(True)
    end = time.monotonic() + 20
    while shown.overlays is None or not np.isfinite(shown.overlays.layers["output"].data).any():
        assert time.monotonic() < end
        shown.tick()
        time.sleep(0.005)
    assert not shown.live._cells_done
    gate.release(100_000)
    rest(shown)


def test_a_newer_view_drops_the_older(shown, model, network):
    look(model, (300, 300), 1.0)
    gate = threading.Event()
    network.before = lambda batch: gate.wait(20)
    shown.live.set_enabled(True)
    end = time.monotonic() + 20
    while not network.calls:
        assert time.monotonic() < end
        shown.tick()
        time.sleep(0.005)
    look(model, (1400, 1800), 4.0)
    for _ in range(40):
        shown.tick()
        time.sleep(0.005)
    gate.set()
    rest(shown)
    # The patches in flight, and the cell in view: not the four that were in view before.
    assert shown.live.session.computed <= 2 * 8 * 8 + 8


def test_a_run_takes_over(shown, finish):
    live(shown)
    shown.run_service.start()
    assert not shown.live.enabled
    shown.live.set_enabled(True)
    assert "a run is in progress" in errors(shown)[-1]
    finish(shown)
    assert shown.state.run.complete
    assert shown.state.run.header["patches"]["done"] == 0  # all of it was seen live
    answered = shown.overlays.maps
    live(shown)
    assert shown.overlays.maps is not answered
    shown.run_loader.open(shown.state.run.path)
    until_quiet(shown)
    assert not shown.live.enabled


def test_an_invalid_budget_is_reported_until_corrected(shown):
    shown.state.settings.budget = "lots"
    shown.live.set_enabled(True)
    end = time.monotonic() + 20
    while not errors(shown):
        assert time.monotonic() < end
        shown.tick()
        time.sleep(0.005)
    assert "budget" in errors(shown)[-1]
    shown.state.settings.budget = "1GFLOP"
    rest(shown)
    assert 0 < shown.overlays.maps.record.cost_map.total.flops <= 1e9


def test_live_needs_an_image_and_a_model(controller, model, add):
    controller.live.set_enabled(True)
    assert not controller.live.enabled
    assert "image" in errors(controller)[-1]
    add(model, PHOTO)
    controller.state.settings.model = None
    controller.live.set_enabled(True)
    assert "model" in errors(controller)[-1]


def test_removing_the_image_ends_it(shown, model):
    live(shown)
    model.layers.remove(shown.image_layer)
    shown.tick()
    assert not shown.live.enabled


def test_a_network_that_does_not_load_is_reported(shown, toys):
    toys.load = lambda *args, **kwargs: 1 / 0
    shown.live.set_enabled(True)
    end = time.monotonic() + 20
    while shown.live.enabled:
        assert time.monotonic() < end
        shown.tick()
        time.sleep(0.005)
    assert "ZeroDivisionError" in errors(shown)[-1]


# In a window.


@pytest.fixture
def docked(make_napari_viewer, toys):
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(PHOTO))))
    panel = panel_of(viewer)
    panel.controller.resources.cache, panel.controller.resources.low_priority = ResultCache(), False
    panel.controller.state.set_model(toys)
    panel.controller.state.set_strategy("patches")
    panel.controller.state.settings.params = {"tile": 256}
    yield panel
    if panel.parent() is not None:
        viewer.window.remove_dock_widget(panel)
    panel.deleteLater()
    settle()


def settle():
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def test_the_switch_in_the_panel(docked, qtbot):
    docked.live_toggle.checkbox.click()
    assert docked.controller.live.enabled
    qtbot.waitUntil(lambda: "up to date" in docked.live_toggle.status.text(), timeout=20_000)
    assert "in view" in docked.run_controls.estimate_details.text()
    docked.run_controls.run_button.click()
    assert not docked.live_toggle.checkbox.isChecked()
    assert not docked.live_toggle.checkbox.isEnabled()
    qtbot.waitUntil(lambda: docked.controller.state.run_state == "idle", timeout=20_000)
    assert docked.live_toggle.checkbox.isEnabled()


@pytest.mark.parametrize("hide", ["hide", "showMinimized"])
def test_nothing_runs_while_it_is_hidden(docked, qtbot, network, hide):
    docked.live_toggle.checkbox.click()
    qtbot.waitUntil(lambda: network.calls > 0, timeout=20_000)
    network.before = lambda batch: time.sleep(0.01)
    getattr(docked.window(), hide)()
    qtbot.wait(300)
    assert docked.controller.live.session.is_idle()  # nothing ahead, either
    calls = network.calls
    qtbot.wait(300)
    assert network.calls == calls
    docked.window().showNormal()
    qtbot.waitUntil(lambda: "up to date" in docked.live_toggle.status.text(), timeout=20_000)


def test_nothing_survives_the_window(make_napari_viewer, toys, network, qtbot):
    viewer = make_napari_viewer(show=True)
    viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(PHOTO))))
    panel = panel_of(viewer)
    controller = panel.controller
    controller.resources.cache, controller.resources.low_priority = ResultCache(), False
    controller.state.set_model(toys)
    network.before = lambda batch: time.sleep(0.02)
    controller.live.set_enabled(True)
    qtbot.waitUntil(lambda: network.calls > 3, timeout=20_000)
    gone = [weakref.ref(it) for it in (panel, controller, controller.live, controller.live.session)]
    del panel, controller
    viewer.close()
    qtbot.wait(50)
    settle()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 4
    assert not threads()


def test_inference_runs_on_the_plane_on_the_screen(controller, model):
    first, second = PHOTO[:600, :700, 0], PHOTO[900:, 1200:, 0]
    model.add_image(np.stack([first, second]), name="stack", axis_labels=("z", "y", "x"))
    look(model, (300, 350), 1.0)
    counts = [plane.sum(dtype=np.float64) / 255 for plane in (first, second)]
    assert counts[0] != pytest.approx(counts[1], rel=0.05)
    for z in (0, 1, 0):
        model.dims.set_current_step(0, z)
        if not controller.live.enabled:
            controller.live.set_enabled(True)
        rest(controller)
        assert controller.live._loaded.pyramid.plane == {"z": z}
        drawn = np.nansum(controller.overlays.maps.record.output.values)
        assert drawn == pytest.approx(counts[z], rel=1e-5)
    assert errors(controller) == []
    # A whole-image run processes it, too.
    model.dims.set_current_step(0, 1)
    controller.run_service.start()
    end = time.monotonic() + 20
    while controller.state.run_state != "idle":
        assert time.monotonic() < end
        controller.tick()
        time.sleep(0.005)
    assert controller.state.run.estimate["value"] == pytest.approx(counts[1], rel=1e-5)
