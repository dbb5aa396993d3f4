"""The overview: its picture, the view's rectangle, and the way to another place."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import QPoint, Qt

from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.image_layer import image_layers_data
from hrviewer.viewer.image.layer_refresh import tile_loader_of
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.overview_picture import overview_picture, overview_size
from hrviewer.viewer.widgets.overview import MIN_SIDE, ImageOverview


@pytest.fixture
def opened(qtbot, tmp_path):
    """A controller with an image, bright below, and its overview."""
    viewer = ViewerModel()
    controller = Controller(viewer, run_folder=tmp_path / "runs")
    pixels = np.zeros((400, 800), np.uint8)
    pixels[200:] = 255
    viewer.add_image(pixels, scale=(0.5, 0.5), units="um", contrast_limits=(0, 255))
    overview = ImageOverview(controller)
    qtbot.addWidget(overview)
    overview.resize(200, 150)
    overview.show()
    overview.tick()
    yield controller, overview
    controller.close()


def test_the_rectangle_is_the_view_and_a_click_moves_it(qtbot, opened):
    controller, overview = opened
    camera = controller.viewer.scene.camera
    camera.center, camera.zoom = (0, 50, 100), 10.0  # micrometres, screen pixels per micrometre
    overview.tick()
    view = overview.view_rect
    # The picture is 200 x 100, in the middle of 150.
    assert (view.center().x(), view.center().y()) == pytest.approx((50, 50), abs=1)
    h, w = np.asarray(controller.viewer.canvas.size) / 10 / 0.5 / 4  # a quarter of the pixels
    assert (view.height(), view.width()) == pytest.approx((h, w), abs=1)
    qtbot.mousePress(overview, Qt.MouseButton.LeftButton, pos=QPoint(150, 100))
    assert camera.center[-2:] == pytest.approx((150, 300), abs=2)
    camera.zoom = 1e4
    overview.tick()
    assert overview.view_rect.width() == MIN_SIDE  # still visible


def test_a_moved_view_repaints_its_rectangle_only(qtbot, opened, monkeypatch):
    controller, overview = opened
    camera = controller.viewer.scene.camera
    camera.center, camera.zoom = (0, 50, 50), 50.0
    overview.tick()
    repainted = []
    monkeypatch.setattr(overview, "update", lambda *part: repainted.append(part))
    before = overview.view_rect
    camera.center = (0, 60, 80)
    overview.tick()
    (old,), (new,) = repainted
    assert old.contains(before.toAlignedRect())
    assert new.contains(overview.view_rect.toAlignedRect())
    assert max(old.width(), new.width()) < overview.width() / 2


def test_the_picture_shows_the_image_and_its_maps(opened):
    controller, _ = opened
    layer = controller.image_layer
    size = overview_size(layer, 150, 200)
    assert size == (100, 200)
    picture = overview_picture(controller.viewer, layer, None, size)
    assert picture.shape == (100, 200, 3)
    assert (picture[:50] == 0).all()
    assert (picture[50:] == 255).all()
    maps = ResultMaps(Rect(0, 0, 400, 800), 16, "mass", ["thing"])
    raster = maps.rasters["output"]
    raster.values[:12, :25] = 1.0  # 192 x 400 pixels
    raster.update_coarser(maps.image)
    overlays = Overlays(controller.viewer, layer, maps)
    overlays.set_visible("output", True)
    overlays.refresh()
    with_map = overview_picture(controller.viewer, layer, overlays, size)
    assert (with_map[:47, :99] != 0).any(axis=2).all()
    assert (with_map[:50, 101:] == 0).all()
    overlays.set_hidden(True)
    assert (overview_picture(controller.viewer, layer, overlays, size) == picture).all()
    layer.visible = False
    assert len(np.unique(overview_picture(controller.viewer, layer, None, size))) == 1


def test_an_image_is_shown_as_it_comes(monkeypatch):
    viewer = ViewerModel()
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    pyramid = open_pyramid(np.full((400, 800), 255, np.uint8))
    layer = Layer.create(*image_layers_data(pyramid, load_coarsest=False)[0])
    viewer.add_layer(layer)
    loader = tile_loader_of(layer)
    loader.coarsest_loaded, loader.coarsest[...] = False, 0
    assert (overview_picture(viewer, layer, None, (100, 200)) == 64).all()
    loader.build_fraction, loader.coarsest[:200] = 0.5, 255
    picture = overview_picture(viewer, layer, None, (100, 200))
    assert (picture[:50] == 255).all()
    assert (picture[50:] == 0).all()
