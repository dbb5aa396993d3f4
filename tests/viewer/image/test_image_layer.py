from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Layer

from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.geometry import placement, pyramid_of
from hrviewer.viewer.image.image_layer import contrast_limits, image_layer_data
from hrviewer.viewer.image.lazy_level import CoarsestLevel, LazyLevel
from hrviewer.viewer.image.tile_loader import TileLoader


@pytest.fixture
def small(monkeypatch):
    """Make small images count as large ones."""
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_SINGLE_ARRAY_VALUES", 0)
    monkeypatch.setattr("hrviewer.viewer.image.image_layer.MAX_COARSEST_PIXELS", 10_000)


@pytest.mark.parametrize("axes", ["yx", "yxc", "cyx"])
def test_a_lazy_level_reads_like_an_array(axes):
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    lazy = LazyLevel(TileLoader(open_pyramid(image), 2), 0, axes)
    whole = {"yx": image[..., 0], "yxc": image, "cyx": np.moveaxis(image, -1, 0)}[axes]
    assert (lazy.shape, lazy.ndim, lazy.size) == (whole.shape, whole.ndim, whole.size)
    assert lazy.dtype == whole.dtype
    assert len(lazy.chunks) == lazy.ndim
    np.testing.assert_array_equal(np.asarray(lazy), whole)
    np.testing.assert_array_equal(lazy[..., 3:9], whole[..., 3:9])
    keys = [(slice(3, 17), slice(0, 60, 2)), (5,), (slice(None), slice(4, 4)), (np.int64(2), -1)]
    for key in keys:
        if axes == "cyx":
            key = (1, *key)
        np.testing.assert_array_equal(lazy[key], whole[key])
    with pytest.raises(IndexError):
        lazy[..., ::-1, :] if axes == "yxc" else lazy[..., ::-1]


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


def test_bands_are_stepped_through_and_grey_stays_flat(small):
    ramp = np.linspace(0, 4000, 300 * 500).reshape(300, 500)
    pixels = np.repeat(ramp[..., None], 4, axis=2).astype(np.uint16)
    pyramid = open_pyramid(pixels)
    pyramid.pixel_size = (0.5, 0.5)
    layer = Layer.create(*image_layer_data(pyramid))
    assert layer.ndim == 3
    assert not layer.rgb
    assert layer.scale.tolist() == [1, 0.5, 0.5]
    ViewerModel().add_layer(layer)
    grey = Layer.create(*image_layer_data(open_pyramid(pixels[..., 0])))
    assert grey.ndim == 2
    low, high = grey.contrast_limits
    assert 0 <= low < 100
    assert 3900 < high < 4000


def test_limits_of_odd_images():
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
