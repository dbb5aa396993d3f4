"""JPEG 2000 by region and resolution, with all its bits and its place on Earth."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.readers.jpeg2000 import Jpeg2000Reader

imagecodecs = pytest.importorskip("imagecodecs")
pytest.importorskip("rasterio")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("form", ["jp2", "j2k"])
@pytest.mark.parametrize(("dtype", "bands"), [("u1", 3), ("u2", 3), ("u2", 1), ("u1", 1)])
def test_pixels_equal_openjpegs(tmp_path: Path, form: str, dtype: str, bands: int) -> None:
    shape = (500, 700, bands) if bands > 1 else (500, 700)
    pixels = RNG.integers(0, 256 if dtype == "u1" else 4096, shape, dtype)
    options = {"bitspersample": 12} if dtype == "u2" else {}
    path = tmp_path / f"a.{form}"
    path.write_bytes(
        imagecodecs.jpeg2k_encode(pixels, codecformat=form, reversible=True, level=0, **options)
    )
    with open_pyramid(path) as image:
        image.check()
        assert isinstance(image._reader, Jpeg2000Reader)
        assert image.is_rgb == (bands == 3)
        assert image.value_range.ends == (0, 255 if dtype == "u1" else 4095)
        np.testing.assert_array_equal(image[...].squeeze(), pixels)
        decoded = imagecodecs.jpeg2k_decode(path.read_bytes())
        np.testing.assert_array_equal(image[...].squeeze(), decoded)


def test_resolutions_and_place(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.jp2"
    pixels = RNG.integers(0, 10_000, (1, 1100, 1500), np.uint16)
    with rasterio.open(
        path, "w", driver="JP2OpenJPEG", width=1500, height=1100, count=1, dtype="uint16",
        crs="EPSG:32633", transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), quality="100",
        reversible="YES", resolutions="4", blockxsize=512, blockysize=512,
    ) as out:  # fmt: skip
        out.write(pixels)
    with open_pyramid(path) as image:
        assert [level.shape[0] for level in image.levels] == [1100, 550, 275, 138]
        assert image.georeference is not None
        assert image.georeference.crs == "EPSG:32633"
        assert image.pixel_size == pytest.approx((1e7, 1e7))
        np.testing.assert_array_equal(image[700:900, 600:1400, 0], pixels[0, 700:900, 600:1400])
        with rasterio.open(path, OVERVIEW_LEVEL=1) as coarse:
            np.testing.assert_array_equal(image.levels[2][..., 0], coarse.read(1))


def test_without_rasterio_fewer_bits_are_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = RNG.integers(0, 65536, (40, 50, 3), np.uint16)
    (tmp_path / "a.jp2").write_bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", level=0))
    monkeypatch.setitem(sys.modules, "rasterio.env", None)
    with open_pyramid(tmp_path / "a.jp2") as image:
        assert image.dtype == np.uint8
        assert "16 bits per channel are read as 8" in image.notes
