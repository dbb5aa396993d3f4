from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import tifffile
import xarray
from napari.components import ViewerModel
from napari.layers import Image, Layer

from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.channels import ChannelInfo, name_channels
from hrviewer.viewer.image.geometry import is_image_layer, placement, pyramid_of
from hrviewer.viewer.image.image_layer import (
    contrast_limits,
    image_layer_data,
    image_layers_data,
)
from hrviewer.viewer.image.lazy_level import CoarsestLevel, LazyLevel
from hrviewer.viewer.image.tile_loader import TileLoader


@pytest.fixture
def small(monkeypatch):
    """Make small images count as large ones."""
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_COARSEST_PIXELS", 10_000)


@pytest.mark.parametrize("axes", ["yx", "yxc"])
def test_a_lazy_level_reads_like_an_array(axes):
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    lazy = LazyLevel(TileLoader(open_pyramid(image), 2), 0, axes)
    whole = {"yx": image[..., 0], "yxc": image}[axes]
    assert (lazy.shape, lazy.ndim, lazy.size) == (whole.shape, whole.ndim, whole.size)
    assert lazy.dtype == whole.dtype
    assert len(lazy.chunks) == lazy.ndim
    np.testing.assert_array_equal(np.asarray(lazy), whole)
    np.testing.assert_array_equal(lazy[..., 3:9], whole[..., 3:9])
    keys = [(slice(3, 17), slice(0, 60, 2)), (5,), (slice(None), slice(4, 4)), (np.int64(2), -1)]
    for key in keys:
        np.testing.assert_array_equal(lazy[key], whole[key])
    with pytest.raises(IndexError):
        lazy[..., ::-1, :] if axes == "yxc" else lazy[..., ::-1]


@pytest.mark.parametrize(("bands", "channels"), [(3, (0, 1, 2)), (4, (0, 1, 2)), (4, (2,))])
def test_loaded_tiles_lie_in_one_piece(bands, channels):
    """Copies of tiles whose channels lie apart take the window's thread twenty times as long."""
    image = np.random.default_rng(3).integers(0, 256, (512, 512, bands), np.uint8)
    with open_pyramid([image, image[::2, ::2]]) as pyramid:
        loader, level = TileLoader(pyramid, 2, channels), pyramid.levels[0]
        key = next(level.tiles(0, 1, 0, 1))
        tile = level.load_tile(key)
        shown = loader._displayed(level, tile)
    assert shown.flags.c_contiguous
    np.testing.assert_array_equal(shown, tile.pixels[..., list(channels)])


def test_a_small_image_is_one_array():
    data, settings, kind = image_layer_data(open_pyramid(np.zeros((30, 40, 3), np.uint8)))
    assert isinstance(data, np.ndarray)
    assert kind == "image"
    assert settings["rgb"]
    assert not settings["multiscale"]


def test_a_large_image_is_lazy_down_to_a_real_array(small):
    image = np.random.default_rng(2).integers(0, 255, (300, 500, 3)).astype(np.uint8)
    unread, _, _ = image_layer_data(open_pyramid(image), load_coarsest=False)
    assert isinstance(unread[-1], CoarsestLevel)
    data, settings, _ = image_layer_data(open_pyramid(image))
    assert settings["multiscale"]
    assert isinstance(data[0], LazyLevel)
    assert isinstance(data[-1], np.ndarray)
    np.testing.assert_array_equal(unread[-1], data[-1])
    assert data[-1].shape == (75, 125, 3)
    layer = Layer.create(data, settings, "image")
    ViewerModel().add_layer(layer)
    assert layer.rgb


def test_channels_are_layers_with_a_contrast_each_and_grey_stays_flat(small):
    ramp = np.linspace(0, 4000, 300 * 500).reshape(300, 500)
    pixels = np.stack([ramp, ramp / 10, ramp / 100, ramp * 10], axis=2).astype(np.uint16)
    pyramid = open_pyramid(pixels)
    pyramid.pixel_size = (0.5, 0.5)
    pyramid.channel_info = (
        ChannelInfo("DAPI", "0000FF", (10, 900)),
        *[ChannelInfo()] * 2,
        ChannelInfo("Cy5", "FF0000"),
    )
    layers = [Layer.create(*data) for data in image_layers_data(pyramid)]
    assert [layer.name for layer in layers] == [
        "array: DAPI", "array: channel 1", "array: channel 2", "array: Cy5",
    ]  # fmt: skip
    viewer = ViewerModel()
    for i, layer in enumerate(layers):
        viewer.add_layer(layer)
        assert layer.ndim == 2
        assert not layer.rgb
        assert layer.visible
        assert layer.scale.tolist() == [0.5, 0.5]
        np.testing.assert_array_equal(layer.data[0][:, :], pixels[..., i])
    assert layers[0].contrast_limits == [10, 900]
    np.testing.assert_allclose([layer.contrast_limits[1] for layer in layers[1:]],
                               [398, 39.8, 39800], rtol=0.03)  # fmt: skip
    np.testing.assert_allclose(layers[3].colormap.map(np.array([1.0]))[0, :3], [1, 0, 0], atol=0.01)
    assert [layer.blending for layer in layers[1:]] == ["additive"] * 3
    assert [is_image_layer(layer) for layer in layers] == [True, False, False, False]
    assert pyramid_of(layers[0]) is pyramid
    grey = Layer.create(*image_layer_data(open_pyramid(pixels[..., 0])))
    assert grey.ndim == 2
    low, high = grey.contrast_limits
    assert 0 <= low < 100
    assert 3900 < high < 4000


def test_bands_named_after_colours_have_them():
    pyramid = open_pyramid(np.zeros((60, 60, 4), np.uint16))
    names = ("Coastal", "Blue", "Green", "Red")
    pyramid.channel_info = tuple(ChannelInfo(name) for name in names)
    layers = [Layer.create(*data) for data in image_layers_data(pyramid)]
    assert [layer.visible for layer in layers] == [False, True, True, True]
    assert [layer.colormap.name for layer in layers[1:]] == ["#0000FF", "#00FF00", "#FF0000"]
    opaque = "translucent_no_depth"
    assert [layer.blending for layer in layers[1:]] == [opaque, "additive", "additive"]


def test_where_there_are_no_data_colours_are_transparent_and_floats_nan(small, tmp_path):
    colours = np.full((300, 500, 4), 200, np.uint8)
    colours[:100, :, 3] = 0
    path = tmp_path / "hole.png"
    PIL.Image.fromarray(colours).save(path)
    data, settings, _ = image_layer_data(open_pyramid(path))
    assert settings["rgb"]
    assert data[0].shape == (300, 500, 4)
    np.testing.assert_array_equal(data[0][:, :, 3], np.where(colours[..., 3] > 0, 255, 0))
    assert set(np.unique(data[-1][..., 3])) == {0, 255}
    heights = np.linspace(350, 650, 300 * 500, dtype=np.float32).reshape(300, 500)
    heights[:100] = -9999
    tifffile.imwrite(tmp_path / "dem.tif", heights, extratags=[(42113, 2, 0, "-9999", True)])
    data, settings, _ = image_layer_data(open_pyramid(tmp_path / "dem.tif"))
    assert np.isnan(data[0][:100]).all()
    assert settings["contrast_limits"][0] > 449


def test_sixteen_bit_colours_and_few_bits_are_visible():
    pixels = np.zeros((30, 40, 4), np.uint16)
    pyramid = open_pyramid(pixels)
    pyramid.levels[0].is_rgb = True
    pyramid.channel_info = name_channels((), 4, is_rgb=True)
    layers = image_layers_data(pyramid)
    assert [settings["visible"] for _, settings, _ in layers] == [True, True, True, False]
    assert [settings["colormap"].name for _, settings, _ in layers[:3]] == [
        "#FF0000", "#00FF00", "#0000FF",
    ]  # fmt: skip
    assert contrast_limits(np.arange(16, dtype=np.uint8).reshape(4, 4)) == (0, 15)
    bands = [settings for _, settings, _ in image_layers_data(open_pyramid(
        xarray.DataArray(np.zeros((9, 30, 40), np.float32), dims=("band", "y", "x"))))]  # fmt: skip
    assert [band["visible"] for band in bands] == [True, *[False] * 8]
    assert {band["colormap"] for band in bands} == {"gray"}


def test_limits_of_odd_images():
    assert contrast_limits(np.array([[7.0, 9], [1, 2]]), np.array([[1, 1], [0, 0]], bool)) == (
        pytest.approx((7, 9), abs=0.02)
    )
    assert contrast_limits(np.full((3, 3), np.nan, np.float32)) == (0, 1)
    assert contrast_limits(np.full((3, 3), 5.0, np.float32)) == (5, 6)


def test_the_pyramid_behind_a_layer(photo):
    ours = open_pyramid(photo)
    assert pyramid_of(Layer.create(*image_layer_data(ours))) is ours
    theirs = pyramid_of(Image(photo, rgb=True))
    assert theirs.plane_shape == photo.shape[:2]


@pytest.mark.parametrize("cell", [1, 4, 9.6, 64])
@pytest.mark.parametrize(
    "place",
    [
        {},
        {"scale": (0.5, 0.25), "translate": (10, -20), "units": ("um", "um")},
        {"scale": (2, 2), "rotate": 30, "translate": (3, 4)},
        {"scale": (1, 3), "shear": [0.2]},
        {"scale": (2, 2), "affine": [[0, 1, 5], [-1, 0, 6], [0, 0, 1]]},
    ],
)
def test_a_map_begins_at_the_corner_of_its_image(cell, place):
    base = Image(np.zeros((80, 120)), **place)
    over = Image(np.zeros((5, 7)), **placement(base, cell))
    for cells in ((0, 0), (2, 0), (5, 7)):
        corner = over.data_to_world(np.array(cells) - 0.5)
        pixel = base.data_to_world(np.array(cells) * cell - 0.5)
        np.testing.assert_allclose(corner, pixel, atol=1e-9)
    assert over.units == base.units


def test_a_map_lies_on_the_last_two_axes():
    base = Image(np.zeros((3, 80, 120)), scale=(1, 0.5, 0.5), translate=(0, 2, 3))
    over = Image(np.zeros((5, 7)), **placement(base, 16))
    np.testing.assert_allclose(over.data_to_world((-0.5, -0.5)), (1.75, 2.75))
