"""Layers of objects: boxes lie on their pixels, as lines and as a raster."""

from __future__ import annotations

import numpy as np
import pytest
from toy_detectors import Finder, rectangles
from toys import ToyBundle

from hrviewer.app.maps import object_map
from hrviewer.viewer.layers.object_layers import ObjectLayers
from viewer.conftest import SHAPE, until_quiet

IMAGE, RECTANGLES = rectangles(*SHAPE, 60, side=(8, 30))
UNEQUAL = (2.0, 0.5)


@pytest.fixture
def photo() -> np.ndarray:
    return IMAGE


@pytest.fixture
def ran(controller, model, add, photo, finish):
    """A controller that has run a detector."""
    controller.state.set_model(ToyBundle(main=Finder(tile=128)))
    layer = add(model, photo, UNEQUAL)
    model.canvas.size = (600, 800)
    model.scene.camera.center = tuple(np.array(UNEQUAL) * (np.array(SHAPE) - 1) / 2)
    model.scene.camera.zoom = 1.0
    until_quiet(controller)
    controller.run_service.start()
    finish(controller)
    until_quiet(controller)
    controller.tick()
    return controller, layer


def layers_of(controller) -> ObjectLayers:
    overlays = controller.overlays
    assert overlays is not None
    assert overlays.object_layers is not None
    return overlays.object_layers


def shown() -> np.ndarray:
    return RECTANGLES[RECTANGLES[:, 4] / 255 >= 0.3]


def test_lines_run_along_the_borders_of_boxes(ran) -> None:
    controller, layer = ran
    lines = layers_of(controller).lines
    assert lines.visible
    assert not layers_of(controller).raster.visible
    assert len(lines.data) == 4 * len(shown())
    ends = [lines.data_to_world(point) for point in lines.data[:, 0]]
    corners = [
        np.asarray(layer.data_to_world((y + dy - 0.5, x + dx - 0.5)))
        for y, x, h, w in shown()[:, :4]
        for dy in (0, h)
        for dx in (0, w)
    ]
    assert sorted(map(tuple, np.round(ends, 6).tolist())) == sorted(
        map(tuple, np.round(corners, 6).tolist())
    )


def test_a_raster_lies_on_the_boxes(ran, monkeypatch) -> None:
    controller, layer = ran
    monkeypatch.setattr(object_map, "MAX_LINES", 0)
    controller.object_service.set_score(0.31)  # drawn again
    until_quiet(controller)
    controller.tick()
    layers = layers_of(controller)
    assert layers.raster.visible
    assert not layers.lines.visible
    painted = np.argwhere(layers.raster.data[..., 3])
    at = np.array([layer.world_to_data(layers.raster.data_to_world(p)) for p in painted]) + 0.5
    y, x, h, w = shown()[:, :4].T
    # Every painted pixel is on the edge of a box, within the side of a screen pixel.
    dy = np.minimum(np.abs(at[:, :1] - y), np.abs(at[:, :1] - y - h))
    dx = np.minimum(np.abs(at[:, 1:] - x), np.abs(at[:, 1:] - x - w))
    inside = (at[:, :1] > y - 1) & (at[:, :1] < y + h + 1) & (at[:, 1:] > x - 4) & (
        at[:, 1:] < x + w + 4
    )  # fmt: skip
    assert (inside & ((dy <= 1) | (dx <= 4))).any(axis=1).all()


def test_switches_and_clicks(ran) -> None:
    controller, layer = ran
    layers, service = layers_of(controller), controller.object_service
    layers.set_visible(False)
    assert not layers.lines.visible
    layers.set_visible(True)
    assert layers.lines.visible
    service.set_class_hidden(0, True)
    until_quiet(controller)
    controller.tick()
    assert len(layers.lines.data) == 4 * (shown()[:, 5] == 1).sum()
    service.set_class_hidden(0, False)
    y, x, h, w, red, kind = shown()[0]
    controller.inspect_patch(layer.data_to_world((y + h / 2, x + w / 2)))
    until_quiet(controller)
    assert controller.state.image.inspection.found == (
        f"{('cat', 'dog')[kind]} {red / 255:.2f} · {h} × {w} px"
    )


def test_another_model_has_no_objects(ran, toys, finish) -> None:
    controller, _ = ran
    layers = layers_of(controller)
    controller.state.set_model(toys)
    controller.run_service.start()
    finish(controller)
    controller.tick()
    assert controller.object_service.objects is None
    assert not layers.lines.visible
