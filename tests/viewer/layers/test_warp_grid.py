"""Warps on the screen: their grid, the resampled patch, and the prior maps that guide them."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels, Shapes
from toys import picture

from hrviewer.app.image_session import Viewport
from hrviewer.app.maps.patch_preview import warp_preview
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.strategies import WarpRequest
from hrviewer.strategies.nonuniform.grid_sampler import forward, grid_from_saliency
from hrviewer.viewer.contributions.commands import panel_of
from hrviewer.viewer.layers.prior_map import LayerPrior, can_be_prior, rasterize_layer
from hrviewer.viewer.layers.warp_grid import MAX_LINES, WarpGrid, grid_lines
from viewer.conftest import errors, until_quiet


def bent():
    saliency = np.full((31, 31), 0.02)
    saliency[5:10, 20:25] = 1
    return grid_from_saliency(saliency)


def warp(rect, core=None, shape=(64, 80)):
    return WarpRequest("main", rect, bent(), shape, "output", core)


def test_lines_join_the_grids_nodes():
    drawn = grid_lines(warp(Rect(100, 200, 310, 620)), Rect(100, 200, 310, 620), 1.0)
    assert len(drawn) == 2 * 30 * 31 - 60  # the far border belongs to the cell beyond it
    nodes = bent() * (310, 620) + (99.5, 199.5)
    starts = {tuple(start) for start in drawn[:, 0].round(6)}
    assert starts <= {tuple(node) for node in nodes.reshape(-1, 2).round(6)}
    # Few lines at low zoom, and only in the core.
    core = Rect(200, 400, 100, 100)
    some = grid_lines(warp(Rect(100, 200, 310, 620), core), core, 60.0)
    assert 0 < len(some) < len(drawn) / 10
    middle = some[:, 0] + some[:, 1] / 2 + 0.5
    assert ((middle >= (200, 400)) & (middle < (300, 500))).all()


def test_the_grid_follows_the_view(model, add, photo):
    base = add(model, photo)
    grids = WarpGrid(base)
    rects = [Rect(0, 0, 300, 200), Rect(0, 200, 300, 220)]
    warps = {rect: warp(rect) for rect in rects}
    grids.draw(warps, Viewport(Rect(0, 0, 100, 100), (0.5, 0.5)))
    near = len(grids.layer.data)
    assert 0 < near < MAX_LINES
    assert grids.layer.edge_width == pytest.approx(0.5)
    grids.draw(warps, Viewport(Rect(0, 0, 300, 420), (8.0, 8.0)))
    assert 0 < len(grids.layer.data) < near
    grids.draw({}, Viewport(Rect(0, 0, 300, 420), (8.0, 8.0)))
    assert not grids.layer.data.any()


def test_what_the_network_saw_is_beside_an_even_picture():
    image = np.zeros((310, 310, 3), np.uint8)
    image[60:90, 210:240] = 255
    warped, even = warp_preview(open_pyramid(image), warp(Rect(0, 0, 310, 310), shape=(62, 62)))
    assert warped.shape == even.shape == (62, 62, 3)
    share = 30 * 30 / 310**2
    assert even.mean() / 255 == pytest.approx(share, rel=0.02)
    assert warped.mean() / 255 > 3 * share
    # The bright square lies where the grid says.
    where = np.argwhere(warped[..., 0] > 200).mean(axis=0) + 0.5
    np.testing.assert_allclose(forward(bent(), where / 62) * 310, [75, 225], atol=4)


@pytest.fixture
def spotted():
    image = picture(600, 800)
    image[100:160, 500:580] = np.random.default_rng(0).integers(0, 255, (60, 80, 3))
    return image


def test_a_run_shows_its_grid_and_a_click_both_pictures(controller, model, add, finish, spotted):
    add(model, spotted)
    controller.state.set_strategy("nonuniform")
    looks = []
    controller.state.patch_inspected.connect(looks.append)
    controller.run_service.start()
    finish(controller)
    assert errors(controller) == []
    grids = controller.overlays.warp_grid
    assert grids is not None
    assert grids.layer in model.layers
    assert len(grids.layer.data)
    controller.inspect_patch((130, 540))
    until_quiet(controller)
    assert looks[-1].pixels.shape == looks[-1].uniform_pixels.shape
    controller.overlays.set_visible("patches", False)
    assert not grids.layer.visible
    # Another run brings another grid, or none.
    controller.state.set_strategy("patches")
    controller.run_service.start()
    finish(controller)
    assert grids.layer not in model.layers
    controller.inspect_patch((130, 540))
    until_quiet(controller)
    assert looks[-1].uniform_pixels is None


def test_drawn_layers_become_maps(model, add):
    base = add(model, picture(200, 400))
    base.scale = (2, 2)
    square = [[50, 300], [50, 340], [100, 340], [100, 300]]
    shapes = Shapes([np.array(square) * 2.0], shape_type="polygon")
    found = rasterize_layer(shapes, base)
    assert found.shape == (200, 400)
    want = np.zeros((200, 400))
    want[50:100, 300:340] = 1
    assert abs(found - want).sum() < 200
    labels = Labels(want[::2, ::2].astype(int), scale=(4, 4), translate=(1, 1))
    np.testing.assert_array_equal(rasterize_layer(labels, base), want)
    bright = Image(want * 7, scale=(2, 2))
    np.testing.assert_array_equal(rasterize_layer(bright, base), want * 7)
    far = Shapes([np.array(square) + 5000.0], shape_type="polygon")
    with pytest.raises(HrviewerError, match="on the image"):
        rasterize_layer(far, base)
    round_ = Shapes([np.array(square) * 2.0], shape_type="ellipse")
    assert rasterize_layer(round_, base).sum() == pytest.approx(np.pi / 4 * 50 * 40, rel=0.05)
    assert not can_be_prior(base, base)
    assert can_be_prior(labels, base)


def test_what_was_drawn_leads_the_run(controller, model, add, finish, spotted):
    add(model, spotted)
    controller.state.set_strategy("nonuniform")
    labels = model.add_labels(np.zeros((600, 800), int))
    labels.data[400:460, 100:180] = 3
    controller.state.settings.prior = LayerPrior(model, labels)
    controller.run_service.start()
    finish(controller)
    assert errors(controller) == []
    assert controller.state.run.header["priors"].keys() == {"saliency"}
    cost = controller.state.run.cost_map()
    assert cost[26:28, 7:10].mean() > 2 * cost[:10].mean()
    # The estimate of that run guides the next.
    controller.state.settings.prior = "run"
    controller.run_service.start()
    finish(controller)
    assert controller.state.run.header["priors"].keys() == {"density"}
    # Strategies without prior maps get none.
    controller.state.set_strategy("uniform")
    controller.run_service.start()
    finish(controller)
    assert errors(controller) == []
    assert controller.state.run.header["priors"] == {}


def test_the_panel_offers_prior_maps(make_napari_viewer, toys, qtbot, spotted):
    from napari.layers import Layer

    from hrviewer.viewer.image.image_layer import image_layer_data

    viewer = make_napari_viewer()
    viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(spotted))))
    panel = panel_of(viewer)
    form = panel.run_settings.prior_form
    panel.controller.state.set_strategy("uniform")
    assert form.isHidden()
    panel.controller.state.set_strategy("nonuniform")
    assert not form.isHidden()
    assert [form.box.itemText(i) for i in range(form.box.count())] == ["none"]
    labels = viewer.add_labels(np.ones((600, 800), int), name="mine")
    assert [form.box.itemText(i) for i in range(form.box.count())] == ["none", "mine"]
    form.box.setCurrentIndex(1)
    form.box.activated.emit(1)
    assert panel.controller.state.settings.prior.layer == labels
    panel.shut_down()
