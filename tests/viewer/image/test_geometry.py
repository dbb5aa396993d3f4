from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Shapes

from hrviewer.geometry import Rect
from hrviewer.viewer.image.geometry import drawn_regions, pixel_at, screen_pixel, visible_rect

IMAGE = Rect(0, 0, 1000, 2000)


@pytest.fixture
def base(model):
    layer = Image(np.zeros((1000, 2000)), scale=(0.5, 0.5), translate=(100, 200))
    return model.add_layer(layer)


def test_what_is_visible(model, base):
    model.canvas.size = (200, 400)
    model.scene.camera.zoom = 4.0
    model.scene.camera.center = (100 + 0.5 * 499.5, 200 + 0.5 * 999.5)
    # 200 screen pixels are 50 µm, which are 100 pixels.
    assert visible_rect(model, base, IMAGE) == Rect(450, 900, 100, 200)
    assert screen_pixel(model, base) == (0.5, 0.5)
    model.scene.camera.center = (-1e5, -1e5)
    assert visible_rect(model, base, IMAGE).empty


def test_what_is_visible_of_a_turned_layer(model):
    turned = Image(np.zeros((1000, 2000)), rotate=30, scale=(0.5, 0.5), translate=(100, 200))
    model.add_layer(turned)
    model.canvas.size = (200, 400)
    model.scene.camera.zoom = 4.0
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    middle = 0.5 * np.array([499.5, 999.5])
    model.scene.camera.center = np.array([[cos, -sin], [sin, cos]]) @ middle + (100, 200)
    # 100 × 200 pixels, turned, lie in a rectangle of these sides about the same middle.
    h, w = 100 * cos + 200 * sin, 100 * sin + 200 * cos
    found = visible_rect(model, turned, IMAGE)
    assert (found.y, found.y1) == (np.floor(500 - h / 2), np.ceil(500 + h / 2))
    assert (found.x, found.x1) == (np.floor(1000 - w / 2), np.ceil(1000 + w / 2))
    assert screen_pixel(model, turned) == pytest.approx((0.5, 0.5))


def test_what_is_drawn(base):
    names = {"features": {"name": np.empty(0, object)}, "feature_defaults": {"name": "region"}}
    shapes = Shapes(scale=(0.5, 0.5), translate=(100, 200), **names)
    assert drawn_regions(base, shapes, IMAGE) == []
    shapes.add_rectangles(np.array([[-0.5, -0.5], [99.5, 199.5]]))
    shapes.add_polygons(np.array([[199.5, 199.5], [299.5, 199.5], [199.5, 299.5]]))
    shapes.add_ellipses(np.array([[149.5, 199.5], [50, 100]]))  # center and radii
    shapes.add_lines(np.array([[0, 0], [50, 50]]))
    shapes.add_rectangles(np.array([[-99.5, -99.5], [-9.5, -9.5]]))  # not on the image
    shapes.features.loc[1, "name"] = "tumour"
    rectangle, triangle, ellipse = drawn_regions(base, shapes, IMAGE)
    assert (rectangle.name, rectangle.bounds) == ("region", Rect(0, 0, 100, 200))
    assert (triangle.name, triangle.area) == ("tumour", pytest.approx(5000))
    assert ellipse.area == pytest.approx(np.pi * 50 * 100, rel=1e-3)


def test_a_point(base):
    assert pixel_at(base, (100 - 0.25, 200 - 0.25)) == (0, 0)
    assert pixel_at(base, (105, 210)) == (10.5, 20.5)
