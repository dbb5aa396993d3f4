"""Deep Zoom images: tiles with overlap, missing tiles, and descriptions that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrviewer.errors import HrviewerError
from hrviewer.pyramid import open_pyramid

NOISE = np.random.default_rng(0).integers(0, 256, (300, 430, 3), np.uint8)
XML = (
    '<?xml version="1.0"?><Image xmlns="http://schemas.microsoft.com/deepzoom/2008" '
    'Format="png" Overlap="{overlap}" TileSize="{tile}"><Size Height="300" Width="430"/></Image>'
)


def write_dzi(folder: Path, tile: int = 100, overlap: int = 1) -> Path:
    """Write a Deep Zoom image of all levels, each the mean of the finer one."""
    pixels = NOISE
    for level in range(9, -1, -1):
        (folder / "a_files" / str(level)).mkdir(parents=True)
        h, w, _ = pixels.shape
        for row in range(-(-h // tile)):
            for column in range(-(-w // tile)):
                y, x = row * tile, column * tile
                part = pixels[max(0, y - overlap) : y + tile + overlap,
                              max(0, x - overlap) : x + tile + overlap]  # fmt: skip
                Image.fromarray(part).save(folder / f"a_files/{level}/{column}_{row}.png")
        pixels = np.pad(pixels, ((0, h % 2), (0, w % 2), (0, 0)), "edge")
        pixels = pixels.reshape(-(-h // 2), 2, -(-w // 2), 2, 3).mean((1, 3)).astype(np.uint8)
    (folder / "a.dzi").write_text(XML.format(tile=tile, overlap=overlap))
    return folder / "a.dzi"


@pytest.mark.parametrize("overlap", [0, 1, 7])
def test_tiles_meet_without_their_overlap(tmp_path: Path, overlap: int) -> None:
    path = write_dzi(tmp_path, overlap=overlap)
    for name in (path, tmp_path / "a_files"):
        with open_pyramid(name) as image:
            image.check()
            shapes = [level.shape[:2] for level in image.levels]
            assert shapes == [(300, 430), (150, 215), (75, 108), (38, 54)]
            assert image.is_rgb
            assert not image.has_mask
            np.testing.assert_array_equal(image[...], NOISE)
            coarse = np.asarray(Image.open(tmp_path / "a_files/7/0_0.png"))
            np.testing.assert_array_equal(image.levels[2][:75, :100], coarse[:75, :100])


def test_a_deep_zoom_image_of_libvips(tmp_path: Path) -> None:
    pyvips = pytest.importorskip("pyvips")
    try:
        pyvips.Image.new_from_array(NOISE).dzsave(str(tmp_path / "v"), suffix=".png")
    except pyvips.Error:
        pytest.skip("libvips was built without dzsave")
    with open_pyramid(tmp_path / "v.dzi") as image:
        np.testing.assert_array_equal(image[...], NOISE)


def test_missing_tiles_have_no_data(tmp_path: Path) -> None:
    path = write_dzi(tmp_path)
    (tmp_path / "a_files/9/1_1.png").unlink()
    with open_pyramid(path) as image:
        _, coverage = image.read_with_coverage(image.rect)
        assert coverage is not None
        assert (coverage[100:200, 100:200] == 0).all()
        assert coverage.sum() == 300 * 430 - 100 * 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("TileSize=", "Tile="), "not a readable Deep Zoom image"),
        (('Height="300"', 'Height="-3"'), "states a size that is no image's"),
        (('TileSize="100"', 'TileSize="100000"'), "states a size that is no image's"),
        (('Format="png"', 'Format="../png"'), "states tiles that cannot be read"),
        (('Width="430"', 'Width="4300"'), "the folder 13 of full resolution is missing"),
    ],
)
def test_a_wrong_description_is_one_line(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    path = write_dzi(tmp_path)
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(HrviewerError, match=message):
        open_pyramid(path)


def test_a_tile_of_another_size_is_damaged(tmp_path: Path) -> None:
    path = write_dzi(tmp_path)
    Image.fromarray(NOISE[:5, :5]).save(tmp_path / "a_files/9/0_0.png")
    with open_pyramid(path) as image, pytest.raises(HrviewerError, match=r"tile \(0, 0\)"):
        image[:10, :10]


def test_the_folder_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "a.dzi").write_text(XML.format(tile=100, overlap=0))
    with pytest.raises(HrviewerError, match="the folder a_files is missing"):
        open_pyramid(tmp_path / "a.dzi")
