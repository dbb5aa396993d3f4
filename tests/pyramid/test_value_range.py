"""Value ranges: what a model gets as 0 and as 255."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from hrviewer.errors import ParameterError
from hrviewer.pyramid import open_pyramid, reopen_pyramid
from hrviewer.runs.provenance import image_info


@pytest.mark.parametrize(
    ("dtype", "values", "wanted", "source"),
    [
        ("u1", (3, 9), (0, 255), "type"),
        ("u2", (0, 0), (0, 65535), "type"),
        ("u2", (0, 1), (0, 1), "measured"),
        ("u2", (120, 3871), (0, 4095), "measured"),
        ("u2", (120, 4120), (0, 4095), "measured"),  # interpolation exceeds 12 bits a little
        ("u2", (0, 9000), (0, 10000), "measured"),
        ("u2", (0, 13000), (0, 16383), "measured"),
        ("u2", (0, 60000), (0, 65535), "measured"),
        ("u4", (0, 9e6), (0, 2**24 - 1), "measured"),
        ("i4", (0, 255_000), (0, 2**18 - 1), "measured"),
        ("f4", (0, 0.9), (0, 1), "measured"),
        ("f4", (0, 1.4), (0, 1), "measured"),  # reflectance of snow
        ("f4", (0, 243.5), (0, 255), "measured"),
        ("f4", (-1, 1), (-1, 1), "measured"),
        ("f4", (-30, 5), (0, 255), "unscaled"),
        ("i2", (-1000, 3000), (0, 255), "unscaled"),
        ("i2", (0, 3000), (0, 4095), "measured"),
    ],
)
def test_measured_ranges_have_round_ends(
    dtype: str, values: tuple[float, float], wanted: tuple[float, float], source: str
) -> None:
    pixels = np.full((40, 50), values[0], dtype)
    pixels[:20] = values[1]
    with open_pyramid(pixels) as image:
        assert image.value_range.ends == wanted
        assert image.value_range.source == source
        assert (image.value_range.note is None) == (source == "type")


def test_what_has_no_data_is_not_measured(tmp_path: Path) -> None:
    pixels = np.full((40, 50), 0.5, np.float32)
    pixels[:10], pixels[10:20] = np.nan, 3e38
    path = tmp_path / "holes.tif"
    tifffile.imwrite(path, pixels, extratags=[(42113, 2, 0, "3e38", True)])
    with open_pyramid(path) as image:
        assert image.value_range.ends == (0, 1)


def test_the_sample_is_bounded_and_always_the_same() -> None:
    class Counted:
        shape, dtype, ndim, read = (4096, 4096), np.dtype("u2"), 2, 0

        def __getitem__(self, window: Any) -> Any:
            pixels = np.broadcast_to(np.arange(4096, dtype="u2"), self.shape)[window]
            Counted.read += pixels.size
            return pixels

    with open_pyramid(Counted()) as image:
        assert image.value_range.ends == (0, 4095)
        assert Counted.read <= 16 * 512**2
        count = Counted.read
        assert image.value_range is image.value_range
        assert Counted.read == count


def test_the_metadata_go_before_the_pixels(tmp_path: Path) -> None:
    pixels = np.full((32, 48), 900, np.uint16)
    path = tmp_path / "significant.ome.tif"
    tifffile.imwrite(path, pixels, metadata={"axes": "YX", "SignificantBits": 12})
    with open_pyramid(path) as image:
        assert (image.value_range.ends, image.value_range.source) == ((0, 4095), "file")
    path = tmp_path / "largest.tif"
    tifffile.imwrite(path, pixels, extratags=[(280, 3, 1, 0, True), (281, 3, 1, 9000, True)])
    with open_pyramid(path) as image:
        assert (image.value_range.ends, image.value_range.source) == ((0, 10000), "file")
    path = tmp_path / "four-bits.tif"
    tifffile.imwrite(path, (pixels > 0).astype("u1") * 15, bitspersample=4)
    with open_pyramid(path) as image:
        assert image.value_range.ends == (0, 15)
    group = zarr.open_group(tmp_path / "window.zarr", mode="w")
    group.create_array("0", data=pixels)
    window = {"min": 0, "max": 3100, "start": 10, "end": 500}
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}],
        "omero": {"channels": [{"window": window}]},
    }
    with open_pyramid(tmp_path / "window.zarr") as image:
        assert image.value_range.ends == (0, 4095)


def test_a_given_range_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((30, 40), 700, np.uint16))
    with open_pyramid(path) as image:
        assert image_info(image)["value_range"] is None
    with open_pyramid(path, value_range=(100, 900)) as image:
        assert image.value_range.ends == image.given_range == (100, 900)
        assert image.value_range.note is None
        assert reopen_pyramid(image_info(image)).given_range == (100, 900)
        with pytest.raises(ParameterError, match="open with value_range"):
            open_pyramid(image, value_range=(0, 900))
    for wrong in ((5, 5), (1,), "0,1", (0, float("nan"))):
        with pytest.raises(ParameterError, match="value_range is two numbers"):
            open_pyramid(path, value_range=wrong)


def test_many_channels_are_measured_window_by_window() -> None:
    pixels = np.zeros((40, 50, 4), np.uint16)
    pixels[3, 4, 2] = 3000
    with open_pyramid(pixels) as image:
        assert image.value_range.ends == (0, 4095)
        assert image.value_range.extremes == (0, 3000)
    with open_pyramid(np.zeros((40, 50, 4), np.uint16)) as image:
        assert image.value_range.ends == (0, 65535)
