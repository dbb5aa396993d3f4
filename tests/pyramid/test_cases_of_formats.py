"""The cases of the formats' review, with their right values: channels, no data, archives, pixels.

The others are in `test_cases.py` and in the files that `ELSEWHERE` names.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrviewer.pyramid import Pyramid, open_pyramid

Right = Any


def channel_names(pyramid: Pyramid, right: Right) -> None:
    assert [info.name for info in pyramid.channel_info] == right["names"]
    for index, top in enumerate(right.get("max_per_channel", ())):
        assert pyramid[..., index].max() == top
    for info, end in zip(pyramid.channel_info, right.get("windows_end", ()), strict=False):
        assert info.window is not None
        assert info.window[1] == end
    if "pixel_size" in right:
        assert pyramid.pixel_size == pytest.approx(right["pixel_size"])
    if "levels" in right:
        assert len(pyramid.levels) == right["levels"]
    assert pyramid.plane.get("z") == right.get("defaultZ")


def colours_with_more(pyramid: Pyramid, right: Right) -> None:
    assert pyramid.is_rgb
    assert pyramid.channels == right["bands"]


def colours(pyramid: Pyramid, right: Right) -> None:
    assert pyramid.is_rgb == right["rgb"]
    assert pyramid.dtype == np.uint16


def terrain(pyramid: Pyramid, right: Right) -> None:
    for scale in (1, 3, 8):
        pixels, coverage = pyramid.read_with_coverage(pyramid.rect, scale)
        assert coverage is not None
        low, high = right["range"]
        assert low - 0.01 <= pixels[coverage > 0].min() <= pixels[coverage > 0].max() <= high


def left_out_tiles(pyramid: Pyramid, right: Right) -> None:
    pixels, coverage = pyramid.read_with_coverage(pyramid.rect)
    assert coverage is not None
    assert 1 - coverage.mean() == pytest.approx(right["left_out_part_of_level0"], abs=1e-6)
    for row, column in right["left_out_tiles_256"]:
        at = np.s_[256 * row : 256 * (row + 1), 256 * column : 256 * (column + 1)]
        assert (pixels[at] == 255).all()
        assert (coverage[at] == 0).all()


def mask_is_no_level(pyramid: Pyramid, right: Right) -> None:
    assert len(pyramid.levels) == right["levels"]
    assert pyramid.data_area(pyramid.rect) == pytest.approx(0.75 * pyramid.rect.area, rel=0.01)


def shape(pyramid: Pyramid, right: Right) -> None:
    assert list(pyramid.plane_shape) == right["shape"]


def pixels_of_tifffile(pyramid: Pyramid, right: Right) -> None:
    expected = tifffile.imread(str(pyramid.path))
    np.testing.assert_array_equal(pyramid[...], expected.reshape(pyramid.shape))


def pixels_of_pillow(pyramid: Pyramid, right: Right) -> None:
    with Image.open(str(pyramid.path)) as file:
        np.testing.assert_array_equal(pyramid[...], np.asarray(file.convert("RGB")))


def empty_tiles(pyramid: Pyramid, right: Right) -> None:
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(pyramid.path) as file:
        expected = np.moveaxis(file.read(), 0, 2)
    np.testing.assert_array_equal(pyramid[...], expected)
    assert (expected == 255).mean() > 0.5
    assert pyramid.data_area(pyramid.rect) == (expected != 255).any(2).sum()


def three_levels(pyramid: Pyramid, right: Right) -> None:
    assert len(pyramid.levels) == right["levels"]


def sixteen_bits(pyramid: Pyramid, right: Right) -> None:
    import imagecodecs

    assert pyramid.dtype == right["dtype"]
    expected = imagecodecs.png_decode(Path(str(pyramid.path)).read_bytes())
    np.testing.assert_array_equal(pyramid[...], expected[..., : pyramid.channels])


CASES: dict[str, Callable[[Pyramid, Right], None]] = {
    "fluo_16bit_4ch.ome.tif": channel_names,
    "vectra_5ch.qptiff": channel_names,
    "fluo_5d.ome.zarr.unzip-first.zip": channel_names,
    "naip_4band.tif": colours_with_more,
    "s2_rgb_uint16.tif": colours,
    "dem_nodata.tif": terrain,
    "philips_sparse.tiff": left_out_tiles,
    "rgb_internal_mask.tif": mask_is_no_level,
    "packed.ozx": shape,
    "landcover_8bit_palette.tif": pixels_of_pillow,
    "s2_13band.tif": pixels_of_tifffile,
    "external_ovr.tif": pixels_of_tifffile,
    "sparse_ok_nodata255.tif": empty_tiles,
    "pyramid_unflagged.tif": three_levels,
    "large_image_test_RGB_16.png": sixteen_bits,
}

ELSEWHERE = {
    "pyramid/test_cases.py": (
        "leica_macro_first.scn", "ome_label_first.ome.tif", "thumb_page_first.tif",
        "ventana_overlap.bif", "ome_decimal_comma.ome.tif", "he_f32_0to1.tif",
        "landcover_1bit_palette.tif", "bf2raw.zarr.unzip-first.zip", "image.h5", "mosaic.vrt",
        "pillow_palette_1bit.tiff", "viv_multifile",
    ),
    "pyramid/test_slideio.py": ("vsi-ets-test-jpg2k.vsi",),
    "pyramid/test_cases_of_formats.py": ("spatial.zarr.unzip-first.zip",),
    "runs/test_stored_forms.py": ("he_u8.tif",),
    "engine/test_missing_data.py": ("he_rgba_hole.tif",),
}  # fmt: skip
"""Cases with a test in another file, by the file, or in a test of their own below."""


def test_every_case_has_a_test(shared: Path) -> None:
    folder = shared / "cases" / "formats"
    names = {case["name"] for case in json.loads((folder / "cases.json").read_text())}
    elsewhere = {name for named in ELSEWHERE.values() for name in named}
    assert names == CASES.keys() | elsewhere
    for file, named in ELSEWHERE.items():
        text = (Path(__file__).parents[1] / file).read_text("utf-8").partition("ELSEWHERE = ")
        used = text[0] + text[2].partition("# fmt: skip")[2]
        assert [name for name in named if name not in used] == []


@pytest.mark.parametrize("name", CASES)
def test_case(shared: Path, name: str) -> None:
    if name == "philips_sparse.tiff":
        pytest.importorskip("openslide")
    folder = shared / "cases" / "formats"
    cases = {case["name"]: case for case in json.loads((folder / "cases.json").read_text())}
    with open_pyramid(folder / name) as pyramid:
        pyramid.check()
        CASES[name](pyramid, cases[name]["right"])


def test_a_zipped_zarr_equals_the_folder(shared: Path, tmp_path: Path) -> None:
    archive = shared / "cases" / "formats" / "fluo_5d.ome.zarr.unzip-first.zip"
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path)
    with open_pyramid(archive) as zipped, open_pyramid(tmp_path / "fluo_5d.ome.zarr") as unpacked:
        assert zipped.channel_info == unpacked.channel_info
        np.testing.assert_array_equal(zipped[...], unpacked[...])


def test_a_store_of_spatialdata_opens_at_its_image(shared: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(shared / "cases/formats/spatial.zarr.unzip-first.zip") as file:
        file.extractall(tmp_path)
    with open_pyramid(tmp_path / "spatial.zarr") as pyramid:
        assert "images/he" in [entry.id for entry in pyramid.series]
        assert pyramid.is_rgb
