"""OME-TIFF and GeoTIFF, read by GDAL, tifffile and ome-types: sums, positions, levels, units."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import ome_types
import pytest
import rasterio
import tifffile
import zarr
from made_runs import PLACE

from hrviewer.errors import HrviewerError
from hrviewer.io import export, get_writer
from hrviewer.pyramid import open_pyramid
from hrviewer.runs.provenance import image_info


def cells(run, name="output"):
    return zarr.open_array(run.path / name / "0")[:]


@pytest.mark.parametrize("name", ["output", "saliency", "cost"])
def test_ometiff_contains_the_map(made, tmp_path, name):
    run = made()
    path = export(run, tmp_path / "a.ome.tif", map=name)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        (series,) = tiff.series
        np.testing.assert_array_equal(series.asarray().reshape(cells(run, name).shape),
                                      cells(run, name).astype(np.float32))  # fmt: skip
        page = series.keyframe
        assert page.is_tiled
        assert page.tile == (256, 256)
        sides = [max(level.shape) for level in series.levels]
        assert sides[-1] <= 512
        assert all(-(-a // 2) == b for a, b in pairwise(sides))


def test_gdal_reads_the_same_counts_from_ometiff(made, tmp_path):
    run = made()
    path = export(run, tmp_path / "a.ome.tif")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has not georeferenced
        sums = []
        for i in (1, 2):
            with rasterio.open(f"GTIFF_DIR:{i}:{path}") as plane:
                sums.append(np.nansum(plane.read(1), dtype=float))
    np.testing.assert_allclose(sums, np.nansum(cells(run), axis=(1, 2), dtype=float), rtol=1e-6)


@pytest.mark.parametrize("size", [None, (0.25, 0.5)])
def test_ometiff_metadata(made, tmp_path, size):
    path = export(made(pixel_size=size), tmp_path / "a.ome.tif")
    pixels = ome_types.from_tiff(path).images[0].pixels
    step = size or (1, 1)
    assert (pixels.physical_size_y, pixels.physical_size_x) == (4 * step[0], 4 * step[1])
    assert pixels.physical_size_x_unit.value == ("pixel" if size is None else "µm")
    assert [channel.name for channel in pixels.channels] == ["cell", "stroma"]
    # The first cell's centre lies one and a half pixels from the first pixel's.
    assert {plane.position_y for plane in pixels.planes} == {1.5 * step[0]}
    assert {plane.position_x for plane in pixels.planes} == {1.5 * step[1]}


def test_hrviewer_opens_the_ometiff(made, tmp_path):
    with open_pyramid(export(made(), tmp_path / "a.ome.tif")) as pyramid:
        assert pyramid.plane_shape == (700, 1100)
        assert pyramid.pixel_size == pytest.approx((1.0, 2.0))
        pyramid.check()


def test_geotiff_is_aligned_with_the_image(made, tmp_path):
    run = made(geo=True)
    path = export(run, tmp_path / "a.tif")
    with rasterio.open(path) as found, rasterio.open(run.header["image"]["path"]) as image:
        assert found.crs == image.crs == rasterio.CRS.from_epsg(32618)
        assert found.bounds == image.bounds
        assert found.transform[:6] == (4 * 300, 0, PLACE[2], 0, -4 * 300, PLACE[5])
        np.testing.assert_array_equal(found.read(), cells(run))
        assert np.isnan(found.nodata)
        assert found.descriptions == ("cell", "stroma")
        assert found.units == ("count", "count")
        assert found.overviews(1) == [2, 4]
        assert found.profile["tiled"]


def test_geotiff_needs_a_georeference(made, tmp_path):
    run = made()
    assert "not georeferenced: choose ome-tiff" in get_writer("geotiff").unsupported_reason(run)
    with pytest.raises(HrviewerError, match="not georeferenced"):
        export(run, tmp_path / "a.tif")


@pytest.mark.parametrize("file", ["cog.tif", "OSBS_029.tif", "RGB.byte.tif"])
def test_real_images_keep_their_georeference(shared, made, tmp_path, file):
    path = shared / "data" / "aerial" / file
    with rasterio.open(path) as image, open_pyramid(path) as opened:
        run = made(output=np.ones((1, -(-image.height // 4), -(-image.width // 4)), np.float32))
        run.header["image"] |= image_info(opened)
        with rasterio.open(export(run, tmp_path / "a.tif")) as found:
            assert found.crs == image.crs
            for row, column in ((0, 0), (100, 200)):
                assert found.xy(row, column, offset="ul") == pytest.approx(
                    image.xy(4 * row, 4 * column, offset="ul")
                )
