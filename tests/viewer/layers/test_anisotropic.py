"""Everything that follows the view, on an image with pixels of unequal sides."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Shapes

from hrviewer.app.image_session import Viewport
from hrviewer.app.maps.raster import MAPS
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import visible_cells
from hrviewer.geometry import Rect
from hrviewer.strategies import WarpRequest
from hrviewer.viewer.image.geometry import (
    drawn_regions,
    isotropic_placement,
    pixel_at,
    screen_pixel,
    viewport_of,
)
from hrviewer.viewer.layers.comparison_grid import ComparisonGrid
from hrviewer.viewer.layers.overlays import MIN_CELL_PX, Overlays
from hrviewer.viewer.layers.patch_outlines import LINE_WIDTH, PatchOutlines
from hrviewer.viewer.layers.warp_grid import MIN_SPACING_PX, WarpGrid
from viewer.conftest import SHAPE, UNEQUAL, errors, until_quiet
from viewer.test_live import rest

from .test_patch_outlines import patches

IMAGE = Rect(0, 0, *SHAPE)


def world(layer, line):
    """Ends of a line ``(start, direction)`` of a layer, in world coordinates."""
    return np.array([layer.data_to_world(line[0]), layer.data_to_world(line[0] + line[1])])


def corner(image_layer, y, x):
    """World position of a corner of a pixel."""
    return np.asarray(image_layer.data_to_world((y - 0.5, x - 0.5)))


def test_a_screen_pixel_spans_different_numbers_of_pixels(model, anisotropic):
    model.scene.camera.zoom = 4.0
    assert screen_pixel(model, anisotropic) == pytest.approx((1 / 8, 1 / 2))
    view = viewport_of(model, anisotropic)
    # 600 × 800 screen pixels are 150 × 200 µm, which are 75 × 400 pixels.
    assert view.rect == Rect(112, 10, 76, 400)
    assert view.side == pytest.approx(1 / 4)
    assert view.coarsest == pytest.approx(1 / 2)


@pytest.mark.parametrize("turn", [30, 90])
def test_a_turned_layer_has_the_same_pixels(model, anisotropic, turn):
    anisotropic.rotate = turn
    assert screen_pixel(model, anisotropic) == pytest.approx((1 / 2, 2))


def test_positions_and_shapes(model, anisotropic):
    assert pixel_at(anisotropic, corner(anisotropic, 10, 20)) == pytest.approx((10, 20))
    place, units = isotropic_placement(anisotropic)
    shapes = Shapes(scale=place["scale"], translate=place["translate"])
    model.add_layer(shapes)
    ends = (np.array([[20, 40], [100, 120]]) - 0.5) * units
    shapes.add_rectangles(ends)
    (region,) = drawn_regions(anisotropic, shapes, IMAGE)
    assert region.bounds == Rect(20, 40, 80, 80)


def test_a_drawn_region_is_where_it_was_drawn(model, controller, anisotropic):
    controller.draw_region()
    shapes = controller.region_layer()
    ends = [shapes.world_to_data(corner(anisotropic, *point)) for point in ((20, 40), (100, 120))]
    shapes.add_rectangles(np.array(ends))
    controller.state.settings.region = "drawn"
    assert controller.state.selected_rect() == Rect(20, 40, 80, 80)
    assert shapes.scale[0] == shapes.scale[1]  # its outline has one width


def test_cells_of_live_cover_as_much_of_the_screen_as_with_square_pixels():
    image = Rect(0, 0, 8192, 8192)
    view = Viewport(Rect(0, 0, 2048, 512), (4.0, 1.0))
    for cell in visible_cells(view.rect, view.side, image):
        on_screen = cell.h / view.pixel[0] * (cell.w / view.pixel[1])
        assert on_screen == pytest.approx(512**2)


def test_live_sees_the_view(model, controller, anisotropic, photo):
    controller.live.set_enabled(True)
    rest(controller)
    assert errors(controller) == []
    count = photo[..., 0].sum(dtype=np.float64) / 255
    assert f"{count:,.0f} things" in controller.state.image.estimate.amount
    assert np.isfinite(controller.overlays.maps.rasters["output"].values).all()


def test_outlines_lie_on_the_patches_and_have_one_width(model, anisotropic):
    outlines = PatchOutlines(anisotropic)
    rows = patches(256, 64)
    view = viewport_of(model, anisotropic)
    outlines.draw(rows, view)
    layer = outlines.layer
    lines = np.array([world(layer, line) for line in layer.data])
    ends = [((64 * i, 0), (64 * i, 256)) for i in range(5)]
    ends += [((0, 64 * i), (256, 64 * i)) for i in range(5)]
    edges = {
        tuple(np.round(np.concatenate([corner(anisotropic, *point) for point in pair]), 6))
        for pair in ends
    }
    assert {tuple(np.round(line.ravel(), 6)) for line in lines} == edges
    assert layer.scale[0] == layer.scale[1]
    zoom = model.scene.camera.zoom
    assert layer.edge_width * layer.scale[0] * zoom == pytest.approx(LINE_WIDTH)


def test_warp_grids_lie_on_the_warps_and_are_not_too_dense(model, anisotropic):
    grid = WarpGrid(anisotropic)
    n = 33
    nodes = np.stack(np.meshgrid(*[np.linspace(0, 1, n)] * 2, indexing="ij"), axis=-1)
    rect = Rect(0, 0, 256, 256)
    warp = WarpRequest("main", rect, nodes.astype(np.float32), (64, 64), "output")
    grid.draw({rect: warp}, viewport_of(model, anisotropic))
    lines = np.array([world(grid.layer, line) for line in grid.layer.data])
    low, high = corner(anisotropic, 0, 0), corner(anisotropic, 256, 256)
    assert lines.reshape(-1, 2).min(axis=0) == pytest.approx(low)
    assert lines.reshape(-1, 2).max(axis=0) == pytest.approx(high)
    lengths = np.abs(lines[:, 1] - lines[:, 0]).max(axis=1) * model.scene.camera.zoom
    assert lengths.min() >= MIN_SPACING_PX * 0.99


def test_overlays_lie_on_the_image_and_their_cells_are_large_enough(model, anisotropic):
    maps = ResultMaps(IMAGE, 1, "mass", ["thing"])
    overlays = Overlays(model, anisotropic, maps)
    for zoom in (0.5, 1.0, 4.0):
        model.scene.camera.zoom = zoom
        overlays.follow_view(viewport_of(model, anisotropic))
        layer = overlays.layers["output"]
        np.testing.assert_allclose(
            layer.data_to_world((-0.5, -0.5)), corner(anisotropic, 0, 0), atol=1e-9
        )
        sides = np.asarray(layer.scale) * zoom
        assert sides[0] / sides[1] == pytest.approx(UNEQUAL[0] / UNEQUAL[1])
        assert sides.min() >= MIN_CELL_PX
        assert sides.min() < 2 * MIN_CELL_PX


def test_the_comparison_grid_lies_on_the_image(model, anisotropic):
    runs = [(f"run {i}", ResultMaps(IMAGE, 1, "mass", ["thing"])) for i in range(2)]
    grid = ComparisonGrid(model, anisotropic, runs)
    while not grid.tick():
        pass
    model.scene.camera.zoom = 1.0
    grid.tick()
    for group in grid.runs:
        np.testing.assert_allclose(group.image_layer.scale, anisotropic.scale)
        np.testing.assert_allclose(
            group.map_layer.data_to_world((-0.5, -0.5)), corner(anisotropic, 0, 0), atol=1e-9
        )
        sides = np.asarray(group.map_layer.scale)
        assert MIN_CELL_PX <= sides.min() < 2 * MIN_CELL_PX
    grid.close()


def test_ground_truth_lies_on_its_objects_and_has_its_size(
    model, controller, anisotropic, tmp_path
):
    path = tmp_path / "truth.csv"
    path.write_text("y,x\n10.5,20.5\n100.5,200.5\n")
    controller.ground_truth_service.show(path)
    until_quiet(controller)
    layer = controller.ground_truth.layer
    found = [layer.data_to_world(point) for point in layer.data]
    expected = [anisotropic.data_to_world(point) for point in ((10, 20), (100, 200))]
    np.testing.assert_allclose(found, expected)
    # napari scales points by the last axis: 9 screen pixels at zoom 1.
    assert layer.current_size * layer.scale[-1] * model.scene.camera.zoom == pytest.approx(9)


def test_a_run_is_drawn_and_inspected_where_it_was_clicked(
    model, controller, anisotropic, finish, photo
):
    controller.run_service.start()
    finish(controller)
    assert set(controller.overlays.layers) == set(MAPS)
    controller.inspect_patch(corner(anisotropic, 100.25, 200.25))
    until_quiet(controller)
    row = controller.state.image.inspection.row
    assert row.y <= 100 < row.y + row.h
    assert row.x <= 200 < row.x + row.w
    np.testing.assert_array_equal(
        controller.state.image.inspection.pixels,
        photo[row.y : row.y + row.h, row.x : row.x + row.w, :3],
    )
