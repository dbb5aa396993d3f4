"""Overlays in a real window: aligned to the pixel, transparent outside processed patches."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer

from hrviewer.app.image_session import Viewport
from hrviewer.app.maps.colour_scale import ColourScales
from hrviewer.app.maps.heat_map import HeatMap, smooth_raster
from hrviewer.app.maps.raster import MAPS
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.image_layer import image_layer_data
from hrviewer.viewer.layers.overlays import Overlays
from hrviewer.viewer.layers.styles import OVERLAY_STYLES

CELL = 16
SQUARE = slice(64, 128), slice(96, 160)
"""Where the image is white, and where the map will be seen."""


def drawn(image):
    """Return a picture that saw the square only."""
    picture = ResultMaps(Rect(0, 0, *image.shape[:2]), CELL, "mass", ["thing"])
    for name in MAPS:
        cell = picture.rasters[name].cell
        rows, columns = (slice(int(s.start / cell), int(s.stop / cell)) for s in SQUARE)
        picture.rasters[name].values[rows, columns] = 1.0
        picture.rasters[name].update_coarser(picture.image)
    return picture


@pytest.fixture
def image():
    made = np.zeros((256, 320, 3), np.uint8)
    made[SQUARE] = 255
    return made


@pytest.mark.parametrize(
    ("scale", "translate", "units"),
    [(None, None, None), ((0.25, 0.25), (30, -70), ("um", "um")), ((2, 2), (0.5, 0.5), None)],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_an_overlay_covers_the_pixels_that_it_describes(
    make_napari_viewer_proxy, image, scale, translate, units, lazy, monkeypatch
):
    if lazy:
        monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
        monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_COARSEST_PIXELS", 256 * 320 / 60)
    viewer = make_napari_viewer_proxy(show=True)
    data, settings, kind = image_layer_data(open_pyramid(image))
    settings |= {"interpolation2d": "nearest"}
    if scale is not None:
        settings |= {"scale": scale, "translate": translate}
    if units is not None:
        settings |= {"units": units}
    base = viewer.add_layer(Layer.create(data, settings, kind))
    overlays = Overlays(viewer, base, drawn(image))
    overlays.set_visible("patches", False)
    overlays.set_colour_bar("output", False)
    size = 1.0 if scale is None else scale[0]
    viewer.scene.camera.center = tuple(base.data_to_world((95.5, 127.5)))
    for zoom in (0.5, 1.0, 2.0, 5.0):
        viewer.scene.camera.zoom = zoom / size
        overlays.set_visible("output", True)
        alone = viewer.screenshot(flash=False)[..., :3].astype(int)
        overlays.set_visible("output", False)
        bare = viewer.screenshot(flash=False)[..., :3].astype(int)
        covered = np.abs(alone - bare).sum(axis=2) > 30
        white = bare.min(axis=2) > 250
        assert white.sum() == pytest.approx((64 * zoom) ** 2, rel=0.08)
        # All of the white square, and nothing else, but for the line between two pixels.
        wrong = covered ^ white
        edge = 64 * zoom * 4
        assert wrong.sum() <= edge + 8


def test_levels_lie_on_each_other(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    picture = ResultMaps(Rect(0, 0, 256, 320), 2, "mass", ["thing"])
    overlays = Overlays(viewer, base, picture)
    layer = overlays.layers["output"]
    extents = []
    for pixel in (0.5, 1.0, 2.0, 3.0):
        overlays.follow_view(Viewport(Rect(0, 0, 256, 320), (pixel, pixel)))
        extents.append(
            (layer.extent.world + np.array([-layer.scale / 2, layer.scale / 2])).tolist()
        )
    assert layer.data.shape == (16, 20)
    assert extents == [[[-0.5, -0.5], [255.5, 319.5]]] * 4


def test_what_is_drawn_later_is_seen(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy(show=True)
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image * 0))))
    picture = ResultMaps(Rect(0, 0, 256, 320), CELL, "mass", ["thing"])
    overlays = Overlays(viewer, base, picture)
    heard = []
    overlays.limits_changed.connect(heard.append)
    before = viewer.screenshot(flash=False)
    picture.rasters["output"].values[4:8, 4:8] = 3e5
    picture.rasters["output"].changed = True
    overlays.refresh()
    assert heard == ["output"]
    assert overlays.layers["output"].contrast_limits == [0, 5e5]
    assert not np.array_equal(viewer.screenshot(flash=False), before)


def test_limits_that_the_user_sets_are_held(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    scales = ColourScales()
    maps, other = drawn(image), drawn(image)
    maps.share_scales(scales)
    overlays = Overlays(viewer, base, maps)
    overlays.refresh()
    overlays.layers["output"].contrast_limits = (0.0, 7.0)
    overlays.refresh()
    assert maps.rasters["output"].limits == (0.0, 7.0)
    other.share_scales(scales)
    following = Overlays(viewer, base, other, previous=overlays)
    assert tuple(following.layers["output"].contrast_limits) == (0.0, 7.0)
    other.rasters["output"].values[:] = 4e5
    other.rasters["output"].changed = True
    following.refresh()
    assert tuple(following.layers["output"].contrast_limits) == (0.0, 7.0)
    following.fit_scale("output")
    assert tuple(following.layers["output"].contrast_limits) == (0.0, 5e5)


def test_limits_of_another_run_or_quantity_are_no_edit(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    first = drawn(image)
    first.rasters["saliency"].values[:] = 7.0
    first.rasters["saliency"].changed = True
    before = Overlays(viewer, base, first)
    before.refresh()
    maps = ResultMaps(
        Rect(0, 0, 256, 320), CELL, "intensity", ["a", "b"], units=["m", "s"], limits=None,
        task="mean",
    )  # fmt: skip
    overlays = Overlays(viewer, base, maps, previous=before)
    for name in ("output", "saliency"):
        raster = maps.rasters[name]
        assert not raster.scale.held
        raster.values[:] = 40.0
        raster.changed = True
    overlays.refresh()
    assert maps.rasters["output"].limits == maps.rasters["saliency"].limits == (0.0, 50.0)
    overlays.show_class(0)
    overlays.refresh()
    assert not maps.rasters["output"].scale.held


def test_values_above_a_held_scale_are_announced(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    maps = drawn(image)
    overlays = Overlays(viewer, base, maps)
    overlays.refresh()
    maps.rasters["output"].scale.hold()
    heard = []
    overlays.limits_changed.connect(lambda name: heard.append(maps.rasters[name].is_clipped))
    for value, expected in ((4e5, [True]), (5e5, [True]), (0.5, [True, False])):
        maps.rasters["output"].values[:] = value
        maps.rasters["output"].changed = True
        overlays.refresh()
        assert heard == expected


def test_the_legend_is_on_the_image_while_its_overlay_is_visible(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    overlays = Overlays(viewer, base, drawn(image))
    output, cost = overlays.layers["output"], overlays.layers["cost"]
    assert (output.colorbar.visible, cost.colorbar.visible) == (True, False)
    assert output.name == f"output: {overlays.maps.rasters['output'].unit}"
    overlays.set_visible("output", False)
    assert not output.colorbar.visible
    overlays.set_colour_bar("cost", True)
    overlays.set_visible("cost", True)
    assert cost.colorbar.visible
    assert cost.name_overlay.visible
    for height, bar in ((1400, 150), (700, 77), (100, 60)):
        viewer.canvas.size = (height, 900)
        overlays.follow_view(Viewport(Rect(0, 0, 100, 100), (1.0, 1.0)))
        assert cost.colorbar.size[1] == bar
    overlays.maps.set_cost_quantity("bytes")
    overlays.refresh()
    assert cost.name == "cost: bytes per pixel"


def test_layers_that_the_user_hides_or_removes_come_back(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    overlays = Overlays(viewer, base, drawn(image))
    heard = []
    overlays.visibility_changed.connect(lambda: heard.append(overlays.is_visible("output")))
    output = overlays.layers["output"]
    output.visible = False
    overlays.refresh()
    assert heard == [False]
    output.visible = True
    overlays.refresh()
    assert heard == [False, True]
    viewer.layers.remove(output)
    viewer.layers.remove(overlays.outlines.layer)
    overlays.refresh()
    assert heard[-1] is False
    assert not overlays.is_visible("patches")
    overlays.set_visible("output", True)
    overlays.set_visible("patches", True)
    assert output in viewer.layers
    assert overlays.outlines.layer in viewer.layers
    assert overlays.is_intact
    overlays.set_hidden(True)
    overlays.refresh()
    overlays.set_hidden(False)
    assert output.visible


def test_patches_are_outlined_or_coloured(make_napari_viewer_proxy, image):
    from .test_patch_outlines import patches

    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    overlays = Overlays(viewer, base, drawn(image))
    maps = overlays.maps
    maps.record.patches.extend(patches(256, 16))
    overlays.follow_view(Viewport(Rect(0, 0, 256, 320), (1.0, 1.0)))
    raster, outlines = overlays.layers["patches"], overlays.outlines.layer
    assert (raster.visible, outlines.visible) == (False, True)
    overlays.set_patch_quantity("order")
    assert (raster.visible, outlines.visible) == (True, True)
    cell = maps.rasters["patches"].cell
    orders = maps.rasters["patches"].values[:: int(16 / cell), :: int(16 / cell)]
    assert orders[:16, :16].ravel().tolist() == list(range(1, 257))
    overlays.refresh()
    assert raster.name == "patches: order of patches"
    overlays.set_patch_quantity("score")
    assert np.nanmax(maps.rasters["patches"].values) == 0
    overlays.set_visible("patches", False)
    assert (raster.visible, outlines.visible) == (False, False)
    overlays.remove()
    assert list(viewer.layers) == [base]
    overlays.remove()


def test_another_picture_is_shown_in_the_layers_that_are_there(make_napari_viewer_proxy, image):
    viewer = make_napari_viewer_proxy()
    base = viewer.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    first = Overlays(viewer, base, drawn(image))
    first.set_visible("output", False)
    first.set_opacity("cost", 0.3)
    there = list(viewer.layers)
    other = ResultMaps(Rect(0, 0, 256, 320), 2 * CELL, "intensity", ["thing"])
    other.rasters["output"].values[2:4] = 0.5
    second = Overlays(viewer, base, other, previous=first)
    assert list(viewer.layers) == there
    assert list(second) == list(first)
    for name, layer in second.layers.items():
        shown = other.rasters[name]
        assert layer.data is shown.values
        assert tuple(layer.scale) == (shown.cell, shown.cell)
        assert tuple(layer.contrast_limits) == shown.limits
        assert layer.metadata["hrviewer"]["unit"] == shown.unit
    assert not second.layers["output"].visible
    assert second.layers["cost"].opacity == 0.3
    # A layer that the user removed is created again; the rest is removed in one batch.
    viewer.layers.remove(second.layers["cost"])
    batches = []
    viewer.layers.events.begin_batch.connect(batches.append)
    third = Overlays(viewer, base, drawn(image), previous=second)
    assert len(batches) == 1
    assert list(viewer.layers) == [base, *sorted(third, key=viewer.layers.index)]
    assert not {*third} & {*second}
    assert third.layers["cost"].opacity == 0.3
    # So are all, where the image has another place by now.
    assert third.is_intact
    base.scale = (2, 2)
    assert not third.is_intact
    fourth = Overlays(viewer, base, drawn(image), previous=third)
    assert not {*fourth} & {*third}
    assert fourth.is_intact


@pytest.mark.parametrize("name", MAPS)
def test_lightness_rises_with_the_value(name):
    colours = OVERLAY_STYLES[name].gradient(32)
    lightness = colours[:, :3] ** 2.2 @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()
    assert (np.diff(colours[:, 3]) >= 0).all()


def test_a_heat_map_is_smooth_and_hides_what_is_low(model, image):
    base = model.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    maps = drawn(image)
    overlays = Overlays(model, base, maps)
    overlays.refresh()
    layer, raster = overlays.layers["output"], maps.rasters["output"]
    raster.values[:] = 0
    raster.values[3, 4] = 8e5
    raster.changed = True
    overlays.refresh()
    overlays.set_heat_map(HeatMap(sigma=3.0 * CELL, threshold=raster.limits[1] / 2))
    expected, cell = smooth_raster(raster, 3.0 * CELL)
    np.testing.assert_array_equal(layer.data, expected)
    assert layer.scale[0] == cell * base.scale[0]
    assert layer.interpolation2d == "linear"
    alpha = layer.colormap.map(np.array([0.0, 0.4, 0.6]))[:, 3]
    assert alpha.tolist() == [0, 0, 1]
    # New values are smoothed, too; other runs are displayed in the same way.
    raster.values[10, 10] = 8e5
    raster.changed = True
    overlays.refresh()
    np.testing.assert_array_equal(layer.data, smooth_raster(raster, 3.0 * CELL)[0])
    assert Overlays(model, base, drawn(image), previous=overlays).heat == overlays.heat
    overlays.set_heat_map(HeatMap())
    np.testing.assert_array_equal(layer.data, raster.levels[0])
    assert layer.interpolation2d == "nearest"
    assert (layer.colormap.map(np.array([0.0, 0.4]))[:, 3] > 0).all()


def test_the_image_is_dimmed_and_gets_its_own_opacity_back(model, image):
    base = model.add_layer(Layer.create(*image_layer_data(open_pyramid(image))))
    base.opacity = 0.8
    overlays = Overlays(model, base, drawn(image))
    overlays.set_dimmed(True)
    overlays.set_dimmed(True)
    assert base.opacity == pytest.approx(0.35 * 0.8)
    following = Overlays(model, base, drawn(image), previous=overlays)
    assert following.is_dimmed
    assert base.opacity == pytest.approx(0.35 * 0.8)
    following.remove()
    assert base.opacity == 0.8
