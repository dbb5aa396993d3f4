"""`convert` and `sample`: images that are written."""

from __future__ import annotations

import numpy as np
import tifffile

from hrviewer.pyramid import open_pyramid

from .calling import IMAGE, call, error_of


def test_convert(image, tmp_path):
    out = tmp_path / "a.ome.zarr"
    result = call("convert", image, out)
    assert result.stdout == f"{out}\n"
    assert result.stderr == ""
    with open_pyramid(out) as pyramid:
        assert (pyramid.read(pyramid.rect) == IMAGE).all()
    assert "exists" in error_of("convert", image, out)


def test_convert_writes_either_version(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 50, 3), np.uint8))
    for version, file in (("0.5", "zarr.json"), ("0.4", ".zattrs")):
        out = tmp_path / f"{version}.ome.zarr"
        call("convert", tmp_path / "a.tif", out, "--version", version)
        assert (out / file).is_file()
    assert call("convert", "a.png", "b.zarr", "--version", "1", status=2).exit_code == 2


def test_a_given_range_is_kept(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((30, 40), 700, np.uint16))
    call("convert", tmp_path / "a.tif", tmp_path / "a.ome.zarr", "--range", "100,900")
    with open_pyramid(tmp_path / "a.ome.zarr") as copy:
        assert copy.value_range.ends == (100, 900)
        assert copy.value_range.source == "file"


def test_unknown_synthetic_image(tmp_path):
    assert "nowhere" in error_of("sample", "nowhere", tmp_path / "a.ome.zarr")


def test_transparency_is_a_mask_and_named_bands_have_their_colours(tmp_path):
    pixels = np.full((64, 64, 4), 255, np.uint8)
    pixels[:32, :, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"])
    assert "where a mask, transparency" in call("info", tmp_path / "a.tif").stdout
    done = call("convert", tmp_path / "a.tif", tmp_path / "a.ome.zarr")
    assert "transparency is written as a mask" in done.stderr
    with open_pyramid(tmp_path / "a.ome.zarr") as copy:
        assert copy.data_area(copy.rect) == 32 * 64
    bands = "".join(
        f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
        for i, name in enumerate(("Blue", "Green", "Red", "NIR"))
    )
    metadata = [(42112, 2, 0, f"<GDALMetadata>{bands}</GDALMetadata>", True)]
    pixels = np.zeros((64, 64, 4), np.uint16)
    tifffile.imwrite(
        tmp_path / "b.tif", pixels, photometric="minisblack", planarconfig="contig",
        extratags=metadata,
    )  # fmt: skip
    call("convert", tmp_path / "b.tif", tmp_path / "b.ome.zarr")
    with open_pyramid(tmp_path / "b.ome.zarr") as copy:
        colors = [info.color for info in copy.channel_info]
    assert colors[:3] == ["0000FF", "00FF00", "FF0000"]
