"""Heat maps: a Gaussian of the chosen width that neither invents nor spreads what is unknown."""

import numpy as np
import pytest

from hrviewer.app.maps.heat_map import MAX_SIDE, smooth_raster
from hrviewer.app.maps.raster import PyramidRaster, empty_levels
from hrviewer.geometry import Rect


def raster(values, cell=4.0):
    made = PyramidRaster(empty_levels(values.shape), cell, "nuclei per mm²")
    made.values[:] = values
    height, width = values.shape
    made.update_coarser(Rect(0, 0, int(height * cell), int(width * cell)))
    return made


def test_a_point_becomes_a_gaussian():
    values = np.zeros((101, 101), np.float32)
    values[50, 50] = 100
    smooth, cell = smooth_raster(raster(values), 12.0)
    assert cell == 4.0
    rows, columns = np.mgrid[:101, :101] - 50
    expected = np.exp(-(rows**2 + columns**2) / 2 / 3**2)
    np.testing.assert_allclose(smooth, 100 * expected / expected.sum(), atol=1e-3)


def test_a_constant_stays_constant_beside_what_is_unknown():
    values = np.full((60, 80), 7.0, np.float32)
    values[:, 30:40] = np.nan
    smooth, _ = smooth_raster(raster(values), 20.0)
    known = np.isfinite(smooth)
    np.testing.assert_allclose(smooth[known], 7.0, rtol=1e-5)
    np.testing.assert_array_equal(known, np.isfinite(raster(values).levels[1]))


@pytest.mark.parametrize(("sigma", "cell"), [(4.0, 8.0), (64.0, 32.0)])
def test_a_large_map_or_a_wide_gaussian_takes_coarser_cells(sigma, cell):
    values = np.ones((800, 900), np.float32)
    smooth, found = smooth_raster(raster(values), sigma)
    assert found == cell
    assert max(smooth.shape) <= MAX_SIDE
