"""Nothing is lost by writing an image without a report of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from hrviewer.io.image_plan import describe_losses
from hrviewer.io.image_writer import write_image
from hrviewer.io.ome_metadata import Version
from hrviewer.pyramid import open_pyramid

STACK = np.random.default_rng(0).integers(0, 4000, (2, 3, 4, 70, 90), np.uint16)
"""t, c, z, y, x."""


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(
        path,
        STACK,
        metadata={
            "axes": "TCZYX",
            "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0,
            "TimeIncrement": 30.0,
            "SignificantBits": 12,
            "Channel": {"Name": ["DAPI", "FITC", "Cy5"], "Color": [65535, 16711935, -16776961]},
        },
    )  # fmt: skip
    return path


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_all_planes_and_their_metadata(stack: Path, tmp_path: Path, version: str) -> None:
    out = tmp_path / "out.ome.zarr"
    with open_pyramid(stack, plane={"z": 2}) as pyramid:
        assert describe_losses(pyramid, all_planes=True) == []
        write_image(pyramid, out, version=version, all_planes=True)  # type: ignore[arg-type]
        wanted_range = pyramid.value_range.ends
    group = zarr.open_group(out, mode="r")
    array = group["0"]
    assert isinstance(array, zarr.Array)
    np.testing.assert_array_equal(array[:], STACK)
    with open_pyramid(out) as copy:
        assert copy.plane == {"t": 0, "z": 2}  # the plane that was open comes first
        assert copy.plane_sizes == {"t": 2, "z": 4}
        assert copy.plane_steps == {"t": 30, "z": 2}
        assert copy.pixel_size == (0.25, 0.5)
        assert copy.value_range.ends == wanted_range == (0, 4095)
        assert [info.name for info in copy.channel_info] == ["DAPI", "FITC", "Cy5"]
        assert [info.color for info in copy.channel_info] == ["0000FF", "00FF00", "FF0000"]
        np.testing.assert_array_equal(copy[...], np.moveaxis(STACK[0, :, 2], 0, 2))


def test_others_read_the_planes(stack: Path, tmp_path: Path) -> None:
    yaozarrs = pytest.importorskip("yaozarrs")
    out = tmp_path / "out.ome.zarr"
    with open_pyramid(stack) as pyramid:
        write_image(pyramid, out, all_planes=True)
    yaozarrs.validate_zarr_store(str(out))
    attributes = zarr.open_group(out, mode="r").attrs["ome"]
    assert isinstance(attributes, dict)
    axes = attributes["multiscales"][0]["axes"]  # type: ignore[call-overload, index]
    assert [axis["name"] for axis in axes] == ["t", "c", "z", "y", "x"]  # type: ignore[index, union-attr, call-overload]


def test_what_is_left_is_reported(stack: Path, tmp_path: Path) -> None:
    with open_pyramid(stack, plane={"z": 1}, channels=["FITC"]) as pyramid:
        assert describe_losses(pyramid) == [
            "only the plane t=0 of 2 is written",
            "only the plane z=1 of 4 is written",
            "1 of 3 channels are written, without DAPI, Cy5",
        ]
        write_image(pyramid, tmp_path / "one.ome.zarr")
    with open_pyramid(tmp_path / "one.ome.zarr") as copy:
        np.testing.assert_array_equal(copy[..., 0], STACK[0, 1, 1])
        assert copy.channel_info[0].name == "FITC"


def test_no_false_names_are_written_for_channels(tmp_path: Path) -> None:
    triple = np.zeros((3, 40, 50), np.uint16)
    tifffile.imwrite(tmp_path / "a.ome.tif", triple, metadata={"axes": "CYX"})
    with open_pyramid(tmp_path / "a.ome.tif") as pyramid:
        write_image(pyramid, tmp_path / "a.ome.zarr")
    with open_pyramid(tmp_path / "a.ome.zarr") as copy:
        assert not copy.is_rgb
        assert [info.name for info in copy.channel_info] == [f"channel {i}" for i in range(3)]


def test_places_without_data_and_on_earth_are_kept(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    heights = np.random.default_rng(1).uniform(100, 200, (1100, 600)).astype(np.float32)
    heights[:300] = -9999
    with rasterio.open(
        tmp_path / "dem.tif", "w", driver="GTiff", width=600, height=1100, count=1,
        dtype="float32", nodata=-9999, crs="EPSG:32633",
        transform=rasterio.Affine(2, 0, 500000, 0, -2, 5000000),
    ) as file:  # fmt: skip
        file.write(heights, 1)
    out = tmp_path / "dem.ome.zarr"
    with open_pyramid(tmp_path / "dem.tif") as pyramid:
        write_image(pyramid, out)
        place = pyramid.georeference
    with open_pyramid(out) as copy:
        assert copy.nodata == -9999
        assert copy.georeference == place
        assert place is not None
        for level in copy.levels:
            pixels = level[..., 0]
            assert ((pixels == -9999) | (pixels >= 100)).all()
        assert copy.data_area(copy.rect) == 800 * 600


def test_a_case_with_depth(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared / "cases/formats/fluo_5d.ome.zarr.unzip-first.zip") as file:
        file.extractall(tmp_path)
    with open_pyramid(tmp_path / "fluo_5d.ome.zarr") as pyramid:
        write_image(pyramid, tmp_path / "out.ome.zarr", all_planes=True)
        source = pyramid.channel_info, pyramid.pixel_size, pyramid.plane_steps
    with open_pyramid(tmp_path / "out.ome.zarr") as copy:
        assert copy.plane == {"z": 2}
        assert (copy.channel_info, copy.pixel_size, copy.plane_steps) == source
        assert [info.window and info.window[1] for info in copy.channel_info] == [12000, 900, 300]
    before, after = (
        zarr.open_array(tmp_path / name / "0", mode="r")[:]
        for name in ("fluo_5d.ome.zarr", "out.ome.zarr")
    )
    np.testing.assert_array_equal(np.squeeze(before), np.squeeze(after))


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_a_mask_is_kept_on_all_levels(tmp_path: Path, version: Version) -> None:
    pixels = np.random.default_rng(2).integers(0, 200, (701, 1100, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[101:404, 200:601, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "hole.png")
    out = tmp_path / "hole.ome.zarr"
    with open_pyramid(tmp_path / "hole.png") as pyramid:
        write_image(pyramid, out, version=version)
        assert describe_losses(pyramid) == [
            "transparency is written as a mask: no data where it is complete"
        ]
    alpha = pixels[..., 3] > 0
    with open_pyramid(out) as copy:
        assert copy.is_rgb
        for level in copy.levels:
            step = round(level.downsample[0])
            h, w, _ = level.shape
            padded = np.pad(alpha, ((0, h * step - 701), (0, w * step - 1100)))
            blocks = padded.reshape(h, step, w, step)
            known = level.read_masked(0, h, 0, w)[1]
            assert known is not None
            np.testing.assert_array_equal(known[..., 0], blocks.any((1, 3)))
        # Colours of transparent pixels are in no mean: rows 100 and 101 lie in one pixel.
        expected = pixels[100:101, 300:302, :3].mean((0, 1))
        np.testing.assert_allclose(copy.levels[1][50, 150], expected, atol=0.5)
    with open_pyramid(out / "labels" / "no_data") as labels:  # as other programs read it
        np.testing.assert_array_equal(labels[..., 0], ~alpha)
