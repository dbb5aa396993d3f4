"""Large pictures, streamed by libvips strip by strip into the cache."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrviewer.errors import HrviewerError, WriteError
from hrviewer.paths import cache_folder
from hrviewer.pyramid import folder_cache, open_pyramid, tile_cache
from hrviewer.pyramid.readers import vips
from hrviewer.pyramid.readers.pillow import PillowReader
from hrviewer.pyramid.readers.vips import VipsReader

pytest.importorskip("pyvips")

NOISE = np.random.default_rng(0).integers(0, 256, (1300, 700, 4), np.uint8)


@pytest.fixture(autouse=True)
def _small_pictures_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vips, "IN_MEMORY_LIMIT", 100_000)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("RGB", "jpg"), ("L", "jpg")],
)
def test_pixels_are_those_of_pillow(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(NOISE, "RGBA").convert("RGB").convert(mode).save(path)
    if mode == "RGBA":
        Image.fromarray(NOISE, "RGBA").save(path)
    with open_pyramid(path) as pyramid:
        assert isinstance(pyramid._reader, VipsReader)
        pyramid.check()
        pixels, coverage = pyramid.read_with_coverage(pyramid.rect)
        assert pyramid.is_rgb == (mode != "L")
    reference = PillowReader.open(str(path), plane={}, channels=None, series=None)
    expected, _ = reference.levels[0].read_masked(0, 1300, 0, 700)
    # Decoders of JPEG differ by rounding.
    assert np.abs(pixels.astype(int) - expected).max() <= (2 if suffix == "jpg" else 0)
    if mode == "RGBA":
        np.testing.assert_array_equal(coverage, NOISE[..., 3] > 0)


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    import pyvips

    deep = (NOISE[..., :3].astype(np.uint16) * 257) ^ 5
    pyvips.Image.new_from_array(deep, interpretation="rgb16").write_to_file(tmp_path / "deep.png")
    with open_pyramid(tmp_path / "deep.png") as pyramid:
        np.testing.assert_array_equal(pyramid[...], deep)


def test_strips_come_one_after_another_and_the_tiles_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(NOISE[..., :3]).save(path)
    with open_pyramid(path) as pyramid:
        first = pyramid.levels[0].read(0, 10, 0, 10)
        pyramid.levels[0].read(1290, 1300, 0, 10)
        stream = pyramid._reader._stream  # type: ignore[attr-defined]
        stream._thread.join()
    np.testing.assert_array_equal(first, NOISE[:10, :10, :3])
    assert len(list((cache_folder() / "pictures").iterdir())) == 1
    tile_cache().clear()
    with open_pyramid(path) as again:
        np.testing.assert_array_equal(again[...], NOISE[..., :3])
        assert again._reader._stream._thread is None  # type: ignore[attr-defined]


def test_a_picture_that_is_cut_short_is_damaged_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(NOISE[..., :3]).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_pyramid(path) as pyramid:
        np.testing.assert_array_equal(pyramid.levels[0].read(0, 9, 0, 9), NOISE[:9, :9, :3])
        with pytest.raises(HrviewerError, match="damaged"):
            pyramid.levels[0].read(1290, 1300, 0, 10)
    assert not list((cache_folder() / "pictures").iterdir())


def test_a_full_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> str:
        raise OSError(errno.ENOSPC, "no space left")

    path = tmp_path / "p.png"
    Image.fromarray(NOISE[..., :3]).save(path)
    monkeypatch.setattr(folder_cache.tempfile, "mkdtemp", fail)
    with open_pyramid(path) as pyramid, pytest.raises(WriteError, match="the disk is full"):
        pyramid.levels[0].read(0, 9, 0, 9)


def test_a_turned_picture_is_upright(tmp_path: Path) -> None:
    path = tmp_path / "p.jpg"
    image = Image.fromarray(NOISE[..., :3])
    exif = image.getexif()
    exif[274] = 6
    image.save(path, exif=exif)
    with open_pyramid(path) as pyramid:
        assert pyramid.plane_shape == (700, 1300)
        expected = np.rot90(np.asarray(Image.open(path)), -1)
        assert np.abs(pyramid[...].astype(int) - expected).max() <= 2


def test_without_the_library_a_large_picture_is_refused_with_a_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(NOISE[..., :3]).save(path)
    monkeypatch.setattr(vips, "import_vips", lambda: None)
    monkeypatch.setattr("hrviewer.pyramid.readers.pillow.MAX_PIXELS", 1000)
    with pytest.raises(HrviewerError, match=r'pip install "hrviewer\[pictures\]"'):
        open_pyramid(path)


def test_the_oldest_pictures_go_but_none_that_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_cache, "MAX_FOLDER_BYTES", 1)
    opened = []
    for i in range(3):
        path = tmp_path / f"{i}.png"
        Image.fromarray(NOISE[..., :3] ^ i).save(path)
        opened.append(open_pyramid(path))
        opened[i].levels[0].read(1290, 1300, 0, 10)
        opened[i]._reader._stream._thread.join()  # type: ignore[attr-defined]
        if i == 0:
            opened[0].close()
    kept = {folder.name for folder in (cache_folder() / "pictures").iterdir()}
    assert kept == {image.fingerprint for image in opened[1:]}
    # Another process may have removed it: missing chunks must not read as zeros.
    tile_cache().clear()
    for folder in (cache_folder() / "pictures").iterdir():
        shutil.rmtree(folder)
    with pytest.raises(HrviewerError, match=r"was removed from .*; open it again"):
        opened[2].levels[0].read(0, 10, 0, 10)
    for image in opened[1:]:
        image.close()
