"""The cases of the formats' review, with their right values: channels, no data, archives."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrviewer.pyramid import Pyramid, open_pyramid

Right = Any


def channel_names(pyramid: Pyramid, right: Right) -> None:
    assert [info.name for info in pyramid.channel_info] == right["names"]
    for index, top in enumerate(right.get("max_per_channel", ())):
        assert pyramid[..., index].max() == top
    for info, end in zip(pyramid.channel_info, right.get("windows_end", ()), strict=False):
        assert info.window is not None
        assert info.window[1] == end


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
}


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
