"""The controller without a window: a `ViewerModel`, and ticks by hand."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels, Shapes

from hrviewer.app.maps.patch_preview import patch_preview
from hrviewer.app.maps.raster import MAPS
from hrviewer.geometry import Rect
from hrviewer.runs import Run
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.geometry import is_image_layer, shape_of
from hrviewer.viewer.layers.overlays import Overlays

from .conftest import errors, until_quiet


@pytest.fixture
def held(network):
    """Hold inference until the gate opens."""
    gate = threading.Event()
    network.before = lambda batch: gate.wait(20)
    yield gate
    gate.set()


def test_an_image_is_opened_beside_the_event_loop(model, controller, tmp_path):
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, np.arange(5000 * 4000, dtype=np.uint16).reshape(5000, 4000))
    statuses = []
    controller.state.progress_changed.connect(statuses.append)
    controller.image_loader.open(path)
    assert controller.has_pending_work
    assert controller.image_layer is None
    until_quiet(controller)
    assert shape_of(controller.image_layer) == (5000, 4000)
    assert [level.shape for level in controller.image_layer.data] == [
        (5000 // 2**i, 4000 // 2**i) for i in range(len(controller.image_layer.data))
    ]
    assert len(controller.image_layer.data) > 2
    assert "opening strips.tif" in {status.message for status in statuses}


def test_an_image_given_up_is_not_shown(model, controller, tmp_path, photo):
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, photo)
    controller.image_loader.open("/nowhere/at-all.svs")
    controller.image_loader.open(path)
    until_quiet(controller)
    assert [layer.name for layer in model.layers] == ["photo.tif"]
    assert not errors(controller)


def test_the_base_is_an_image_that_is_no_overlay(model, controller, photo, add):
    assert controller.image_layer is None
    model.add_layer(Labels(np.zeros((5, 5), int)))
    assert controller.image_layer is None
    first = add(model, photo)
    assert controller.image_layer is first
    second = add(model, photo)
    assert controller.image_layer is second
    model.layers.selection.active = first
    assert controller.image_layer is first
    model.layers.selection.active = model.layers[0]
    assert controller.image_layer is first
    model.layers.remove(first)
    assert controller.image_layer is second
    model.layers.remove(second)
    assert controller.image_layer is None


def test_layers_that_are_there_already_are_found(model, photo, add):
    layer = add(model, photo)
    model.layers.selection.clear()
    made = Controller(model)
    assert made.image_layer is layer
    made.close()


def test_a_run_fills_four_overlays(model, controller, photo, add, finish, count):
    base = add(model, photo)
    controller.run_service.start()
    assert controller.state.run_state == "starting"
    finish(controller)
    assert errors(controller) == []
    assert controller.state.run.complete
    assert controller.state.run.estimate["value"] == pytest.approx(count, rel=1e-5)
    assert set(controller.overlays.layers) == set(MAPS)
    for layer in controller.overlays.layers.values():
        assert np.isfinite(layer.data).all()
        assert not is_image_layer(layer)
    assert controller.overlays.outlines.count == len(controller.state.run.patches)
    assert model.layers.selection.active is base
    states = [state for (state,) in controller.emitted["run_state_changed"]]
    assert states[0] == "starting"
    assert states[-1] == "idle"
    fractions = [status.fraction for (status,) in controller.emitted["progress_changed"]]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert f"{count:,.0f} things" in controller.emitted["estimate_changed"][-1][0].amount
    assert "FLOP" in controller.emitted["estimate_changed"][-1][1]


def test_a_second_run_takes_the_place_of_the_first(model, controller, photo, add, finish):
    add(model, photo)
    controller.run_service.start()
    finish(controller)
    controller.overlays.set_visible("cost", True)
    controller.overlays.set_opacity("cost", 0.3)
    first = controller.state.run.path
    controller.state.settings.params = {"tile": 32}
    controller.run_service.start()
    finish(controller)
    assert controller.state.run.path != first
    assert len(model.layers) == 1 + len(MAPS) + 1
    assert controller.overlays.is_visible("cost")
    assert controller.overlays.layers["cost"].opacity == 0.3


def test_pause_resume_and_stop(model, controller, photo, add, finish, held):
    add(model, photo)
    controller.run_service.start()
    controller.run_service.start()  # a second one is not begun
    finish(controller, "running")
    controller.run_service.pause()
    assert controller.state.run_state == "paused"
    controller.run_service.pause()
    controller.tick()
    controller.run_service.resume()
    assert controller.state.run_state == "running"
    controller.run_service.resume()
    controller.run_service.stop()
    assert controller.state.run_state == "stopping"
    held.set()
    finish(controller)
    assert not controller.state.run.complete
    assert any("stopped" in note for note in controller.emitted["notes_changed"][-1][0])
    controller.run_service.stop()
    controller.run_service.pause()


def test_a_run_can_be_stopped_before_it_begins(model, controller, photo, add, finish, toys):
    gate = threading.Event()
    network = toys.networks["main"]
    toys.load = lambda *args, **kwargs: (gate.wait(20), network)[1]
    add(model, photo)
    controller.run_service.start()
    controller.run_service.stop()
    gate.set()
    finish(controller)
    assert controller.state.run is None
    assert controller.overlays is None


def test_removing_the_image_ends_its_run(model, controller, photo, add, finish, held):
    base = add(model, photo)
    controller.run_service.start()
    finish(controller, "running")
    model.layers.remove(base)
    held.set()
    finish(controller)
    assert not list(model.layers)
    assert controller.overlays is None
    assert controller.image_layer is None


def test_closing_ends_threads_and_connections(model, controller, photo, add, finish, held, qtbot):
    add(model, photo)
    controller.run_service.start()
    finish(controller, "running")
    held.set()
    controller.close()
    controller.close()
    ending = {"hrviewer-run", "hrviewer-device", "hrviewer-reader", "hrviewer-close"}
    # Closing waits for five seconds only; on a busy machine threads may take longer.
    qtbot.waitUntil(
        lambda: not ending & {thread.name for thread in threading.enumerate()}, timeout=60_000
    )
    assert controller.clicks.on_mouse not in model.mouse_drag_callbacks
    add(model, photo)
    assert controller.image_layer is None


def test_regions(model, controller, photo, add, finish):
    controller.state.settings.region = "visible"
    controller.run_service.start()
    assert errors(controller) == ["open an image first"]
    add(model, photo, (0.5, 0.5))
    model.canvas.size = (100, 120)
    model.scene.camera.zoom = 2.0
    model.scene.camera.center = (0, 0)
    # 50 × 60 µm around the corner.
    assert controller.state.selected_rect() == Rect(0, 0, 51, 61)
    model.scene.camera.center = (1e5, 0)
    controller.run_service.start()
    assert "out of view" in errors(controller)[-1]
    controller.state.settings.region = "drawn"
    controller.run_service.start()
    assert "no shape" in errors(controller)[-1]
    model.scene.camera.center = (0, 0)
    controller.draw_region()
    shapes = controller.region_layer()
    assert shapes.mode == "add_rectangle"
    shapes.add_rectangles(np.array([[19.5, 39.5], [99.5, 119.5]]))
    assert controller.state.selected_rect() == Rect(20, 40, 80, 80)
    controller.draw_region()
    assert sum(isinstance(layer, Shapes) for layer in model.layers) == 1
    controller.run_service.start()
    finish(controller)
    assert controller.state.run.region == Rect(20, 40, 80, 80)
    assert np.isnan(controller.overlays.maps.rasters["output"].values[0, 0])


def test_what_is_drawn_is_counted_on_its_own_layer(model, controller, photo, add, finish):
    add(model, photo, (0.5, 0.5))
    model.add_layer(Shapes(np.array([[0, 0], [9, 9]]), shape_type="rectangle", name="annotations"))
    controller.draw_region()
    shapes = controller.region_layer()
    assert shapes.name == "region"
    shapes.add_polygons(np.array([[19.5, 39.5], [99.5, 39.5], [19.5, 119.5]]))
    shapes.add_rectangles(np.array([[119.5, 39.5], [139.5, 59.5]]))
    controller.state.settings.region = "drawn"
    controller.run_service.start()
    finish(controller)
    triangle, rectangle = controller.state.run.header["regions"]
    assert (triangle["area"], rectangle["area"]) == (pytest.approx(3200), 400)
    count = photo[120:140, 40:60, 0].sum(dtype=np.float64) / 255
    assert rectangle["estimate"]["value"] == pytest.approx(count, rel=1e-4)
    assert any(note.startswith("region 2: ") for note in controller.state.image.notes)


def test_what_cannot_be_done_is_one_line(model, controller, photo, add, finish, network):
    controller.image_loader.open("/nowhere/at-all.svs")
    until_quiet(controller)
    controller.state.set_model("no such model")
    controller.state.set_strategy("telepathy")
    add(model, photo)
    controller.state.settings.budget = "much"
    controller.run_service.start()
    controller.state.settings.budget = ""
    controller.state.settings.params = {"tile": -5}
    controller.run_service.start()
    controller.state.settings.params = {}
    controller.run_loader.open("/nowhere/x.run.zarr")
    until_quiet(controller)
    controller.export_service.export("/nowhere/x.geojson", "geojson")
    messages = errors(controller)
    assert len(messages) == 7
    assert all("\n" not in line for line in messages)
    assert controller.state.run_state == "idle"
    controller.state.settings.model = None
    controller.run_service.start()
    assert errors(controller)[-1] == "choose a model first"


def test_a_network_that_cannot_be_loaded(model, controller, photo, add, finish, toys):
    def fail(*args, **kwargs):
        raise RuntimeError("no such\nthing")

    toys.load = fail
    add(model, photo)
    controller.run_service.start()
    finish(controller)
    assert "RuntimeError" in errors(controller)[-1]
    assert controller.state.run_state == "idle"


@pytest.mark.parametrize("budget", ["1MFLOP", "3patches", "5s"])
def test_budgets(model, controller, photo, add, finish, budget):
    add(model, photo)
    controller.state.settings.budget = budget
    controller.run_service.start()
    finish(controller)
    assert controller.state.run.header["budget"] is not None
    if budget == "3patches":
        assert len(controller.state.run.patches) == 3


def test_a_layer_that_is_not_ours(model, controller, photo, finish, count):
    model.add_layer(Image(photo, rgb=True, scale=(2, 2)))
    controller.run_service.start()
    finish(controller)
    assert controller.state.run.estimate["value"] == pytest.approx(count, rel=1e-5)
    assert controller.overlays.layers["output"].scale.tolist() == [8, 8]


def test_a_click_says_what_a_patch_cost(model, controller, photo, add, finish):
    base = add(model, photo)
    looks = []
    controller.inspect_patch((5, 5))
    controller.run_service.start()
    finish(controller)
    controller.state.patch_inspected.connect(looks.append)
    controller.inspect_patch((-50, -50))
    assert looks == []
    controller.inspect_patch(base.data_to_world((100, 100)))
    assert looks[0].pixels is None
    assert looks[0].row.flops == 100 * 64 * 64
    until_quiet(controller)
    core = Rect(looks[1].row.y, looks[1].row.x, looks[1].row.h, looks[1].row.w)
    np.testing.assert_array_equal(looks[1].pixels, photo[core.y : core.y1, core.x : core.x1, :3])


def test_a_drag_is_no_click(model, controller, photo, add, finish):
    add(model, photo)
    controller.run_service.start()
    finish(controller)
    looks = []
    controller.state.patch_inspected.connect(looks.append)

    class Event:
        type = "mouse_press"
        pos = (10, 10)
        position = (50.0, 50.0)

    for end, heard in (((40, 40), 0), ((11, 10), 1)):
        event = Event()
        moves = controller.clicks.on_mouse(model, event)
        next(moves)
        event.type, event.pos = "mouse_move", end
        next(moves)
        event.type = "mouse_release"
        assert next(moves, "over") == "over"
        assert len(looks) == heard


def test_what_a_grey_network_saw(photo, toys):
    from toys import Bright, ToyBundle

    from hrviewer.engine import DeviceScheduler, LoadedModels, PatchRow
    from hrviewer.pyramid import open_pyramid

    row = PatchRow(0, 0, 0, 64, 64, 1.0, "main", 0, *[0.0] * 9, "done", "")
    device = DeviceScheduler()
    grey = LoadedModels(ToyBundle(main=Bright("grey", channels="gray")), device)
    shown = patch_preview(open_pyramid(photo), row, grey)
    assert (shown[..., 0] == shown[..., 2]).all()
    assert shown.shape == (64, 64, 3)
    assert patch_preview(open_pyramid(photo), row, grey, halo=8).shape == (72, 72, 3)
    device.close()
    deep = open_pyramid(photo[..., 0].astype(np.uint16) * 100)
    low, high = deep.value_range.ends
    expected = (deep.read(Rect(0, 0, 64, 64), 1)[..., 0] - low) * (255 / (high - low))
    np.testing.assert_allclose(patch_preview(deep, row, None)[..., 0], expected, atol=1)


def test_a_run_comes_back_on_its_image(model, controller, photo, add, finish):
    base = add(model, photo)
    controller.run_service.start()
    finish(controller)
    path, drawn = controller.state.run.path, controller.overlays.maps.rasters
    controller.overlays.remove()
    controller.run_loader.open(path)
    until_quiet(controller)
    assert controller.overlays.image_layer is base
    for name, layer in controller.overlays.maps.rasters.items():
        np.testing.assert_allclose(layer.values, drawn[name].values, rtol=1e-5)


def test_a_run_finds_its_image_or_says_so(model, controller, photo, finish, tmp_path, toys):
    from skimage.io import imsave

    from hrviewer.runs import run

    file = tmp_path / "photo.png"
    imsave(file, photo, check_contrast=False)
    made = run(file, toys, out=tmp_path / "x.run.zarr", cache="off")
    controller.run_loader.open(made.path)
    until_quiet(controller)
    assert errors(controller) == []
    assert controller.overlays.image_layer.name == "photo.png"

    imsave(file, 255 - photo, check_contrast=False)
    model.layers.clear()
    controller.run_loader.open(made.path)
    until_quiet(controller)
    assert any("has changed" in note for note in controller.emitted["notes_changed"][-1][0])

    file.unlink()
    model.layers.clear()
    controller.run_loader.open(made.path)
    until_quiet(controller)
    assert "open the image" in errors(controller)[-1]
    model.add_layer(Image(photo, rgb=True))
    controller.run_loader.open(made.path)
    until_quiet(controller)
    assert any("shown on" in note for note in controller.emitted["notes_changed"][-1][0])


def test_no_run_is_opened_over_one_at_work(model, controller, photo, add, finish, held, tmp_path):
    add(model, photo)
    controller.run_service.start()
    finish(controller, "running")
    controller.run_loader.open(tmp_path)
    assert "stop it" in errors(controller)[-1]
    controller.run_service.stop()
    held.set()
    finish(controller)


def test_export(model, controller, photo, add, finish, tmp_path):
    add(model, photo)
    controller.run_service.start()
    finish(controller)
    for name, suffix in (("geojson", ".geojson"), ("ome-zarr", ".ome.zarr")):
        controller.export_service.export(tmp_path / f"x{suffix}", name)
        until_quiet(controller)
        assert (tmp_path / f"x{suffix}").exists()
    assert "exported" in controller.emitted["notes_changed"][-1][0][0]
    controller.export_service.export(tmp_path / "x.geojson", "geojson")
    until_quiet(controller)
    assert "exists" in errors(controller)[-1]


def test_shapes_of_layers():
    assert shape_of(Image(np.zeros((4, 30, 20)))) == (30, 20)
    assert shape_of(Image(np.zeros((30, 20, 3)), rgb=True)) == (30, 20)


def test_a_stopped_run_is_still_a_run(model, controller, photo, add, finish, held):
    add(model, photo)
    controller.run_service.start()
    finish(controller, "running")
    controller.run_service.stop()
    held.set()
    finish(controller)
    assert not Run(controller.state.run.path).complete
    assert isinstance(controller.overlays, Overlays)
