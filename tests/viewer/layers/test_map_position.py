"""Position under the cursor on the map of a georeferenced image."""

import numpy as np
import pytest
from napari.layers import Layer

from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.image_layer import image_layer_data


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
