"""Position under the cursor, on the map or in micrometres, and the scale bar."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.image_layer import image_layer_data
from hrviewer.viewer.layers.cursor_position import describe_position


def test_the_status_has_the_map_coordinates_under_the_cursor(controller, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    place = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 5_000_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=60, height=40, count=1, dtype="uint8", crs="EPSG:32633",
        transform=place,
    ) as out:  # fmt: skip
        out.write(np.zeros((1, 40, 60), np.uint8))
    layer = Layer.create(*image_layer_data(open_pyramid(path)))
    controller.viewer.add_layer(layer)
    # The centre of the pixel in row 10 and column 20.
    status = layer.get_status(layer.data_to_world((10, 20)), world=True)
    assert status["coordinates"].endswith(" · 500010.25 E, 4999994.75 N EPSG:32633")
    other = controller.viewer.add_image(np.zeros((20, 30)))
    assert "E," not in other.get_status((1, 1), world=True)["coordinates"]


@pytest.mark.parametrize(
    ("size", "pixel", "expected"),
    [
        ((0.5, 0.25), (1, 1), ["y 5.0 µm, x 5.0 µm", "28.3×"]),
        ((0.25, 0.25), (4, 4), ["y 2.5 µm, x 5.0 µm", "10×"]),
        ((10.0, 10.0), (1e4, 1e4), ["y 100.0 µm, x 200.0 µm"]),
        (None, (1, 1), ["pixel 10, 20"]),
    ],
)
def test_a_position_in_micrometres_and_the_magnification(size, pixel, expected):
    with open_pyramid(np.zeros((30, 40), np.uint8), pixel_size=size) as pyramid:
        assert describe_position(pyramid, 10, 20, pixel) == expected


def test_the_scale_bar_comes_with_the_first_known_pixel_size(tmp_path):
    viewer = ViewerModel()
    controller = Controller(viewer, run_folder=tmp_path / "runs")
    scale_bar = viewer.canvas.overlays.scale_bar
    pixels = np.zeros((30, 40), np.uint8)
    viewer.add_image(pixels)
    assert not scale_bar.visible
    viewer.add_image(pixels, scale=(0.5, 0.5), units="um")
    assert scale_bar.visible
    scale_bar.visible = False  # by the user
    viewer.add_image(pixels, scale=(0.5, 0.5), units="um")
    assert not scale_bar.visible
    controller.close()
