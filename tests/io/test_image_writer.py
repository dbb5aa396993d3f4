"""Images as OME-Zarr: equal pixels, valid metadata, complete or absent."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile
import zarr
from numpy.testing import assert_array_equal
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v05 import Image
from synthetic_squares import install
from yaozarrs import validate_zarr_store

from hrviewer.errors import HrviewerError
from hrviewer.io import image_writer
from hrviewer.io.ground_truth import read_ground_truth
from hrviewer.io.image_writer import ground_truth_path, write_image, write_synthetic_image
from hrviewer.pyramid import open_pyramid


@pytest.fixture
def small(monkeypatch):
    """Small shards, so that small images have many."""
    for name, value in {"CHUNK": 64, "SHARD": 128, "BAND": 48}.items():
        monkeypatch.setattr(image_writer, name, value)
    monkeypatch.setattr("hrviewer.io.image_plan.COARSEST", 64)


@pytest.fixture
def synthetic(monkeypatch):
    install(monkeypatch)
    with open_pyramid("sample:squares?size=1024&seed=3") as pyramid:
        yield pyramid


def valid(path):
    """Validate a folder with other packages."""
    assert isinstance(open_ome_zarr(zarr.open_group(path, mode="r")), Image)
    validate_zarr_store(str(path))


def slow_half(pixels):
    """The mean of every 2 × 2 pixels, fewer at the ends, halves rounded up."""
    h, w, k = pixels.shape
    out = np.empty((-(-h // 2), -(-w // 2), k), pixels.dtype)
    for y, x in np.ndindex(out.shape[:2]):
        four = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, k).astype(float)
        mean = four.mean(axis=0)
        out[y, x] = np.floor(mean + 0.5) if pixels.dtype.kind == "u" else mean
    return out


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("k", [1, 3])
def test_pixels_are_copied_and_levels_are_means(tmp_path, small, dtype, k):
    rng = np.random.default_rng(0)
    pixels = (rng.random((301, 203, k)) * 250).astype(dtype)
    path = tmp_path / "a.tif"
    photometric = "rgb" if k == 3 and dtype == np.uint8 else "minisblack"
    tifffile.imwrite(
        path, pixels if k > 1 else pixels[..., 0], photometric=photometric, tile=(64, 64),
        planarconfig="contig" if k > 1 else None,
        resolution=(20000, 40000), resolutionunit="CENTIMETER",
    )  # fmt: skip
    progress = []
    with open_pyramid(path) as source:
        assert source.channels == k
        out = write_image(source, tmp_path / "a.ome.zarr", lambda *at: progress.append(at))
        size = source.pixel_size
    assert progress[-1][0] == progress[-1][1]
    valid(out)
    with open_pyramid(out) as again:
        assert_array_equal(again.read(again.rect), pixels)
        assert again.pixel_size == pytest.approx(size)
        assert [level.shape[:2] for level in again.levels] == [
            (301, 203),
            (151, 102),
            (76, 51),
            (38, 26),
        ]
        level = pixels
        for made in again.levels[1:]:
            level = slow_half(level)
            assert_array_equal(made.read(0, made.shape[0], 0, made.shape[1]), level)
    array = zarr.open_array(out / "0", mode="r")
    assert array.shards == (k, 128, 128)
    assert array.chunks == (k, 64, 64)


def test_version_04_has_the_same_pixels(tmp_path, small):
    import ome_zarr_models.v04

    pixels = np.random.default_rng(0).integers(0, 255, (150, 203, 3), np.uint8)
    with open_pyramid(pixels) as source:
        out = write_image(source, tmp_path / "a.ome.zarr", version="0.4")
    group = zarr.open_group(out, mode="r", zarr_format=2)
    assert isinstance(open_ome_zarr(group), ome_zarr_models.v04.Image)
    validate_zarr_store(str(out))
    with open_pyramid(out) as again:
        assert_array_equal(again.read(again.rect), pixels)
        assert [level.shape[0] for level in again.levels] == [150, 75, 38]


def test_interrupted_conversion_is_resumed(tmp_path, small, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    out = tmp_path / "a.ome.zarr"
    read = []
    with open_pyramid(pixels) as source:
        level = source.levels[0]
        whole = level.read_as_tile

        def watched(*window, **settings):
            read.append(window)
            if len(read) == 8:
                raise OSError(28, "No space left on device")
            return whole(*window, **settings)

        monkeypatch.setattr(level, "read_as_tile", watched)
        with pytest.raises(HrviewerError, match="same command again"):
            write_image(source, out)
        assert not out.exists()
        write_image(source, out)
        # Two bands and a bit to a shard; only the one in which it broke off is read again.
        assert read[8:10] == read[6:8]
    with open_pyramid(out) as again:
        assert_array_equal(again.read(again.rect), pixels)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ome.zarr"]


def test_conversion_of_another_image_is_not_resumed(tmp_path, small):
    part = tmp_path / ".a.ome.zarr.part"
    part.mkdir()
    (part / "state.json").write_text(json.dumps({"source": "other", "done": {"0": 99}}))
    pixels = np.full((100, 100, 3), 7, np.uint8)
    with open_pyramid(pixels) as source:
        out = write_image(source, tmp_path / "a.ome.zarr")
    with open_pyramid(out) as again:
        assert_array_equal(again.read(again.rect), pixels)


@pytest.mark.parametrize("options", [{"plane": {"z": 1}}, {"channels": [1, 0, 2]}])
def test_conversion_of_another_plane_is_not_resumed(tmp_path, small, monkeypatch, options):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 300, 300, 3), np.uint8)
    out = tmp_path / "a.ome.zarr"
    with open_pyramid(pixels) as first:
        level, reads = first.levels[0], iter(range(8))
        whole = level.read_as_tile

        def full_disk(*window, **settings):
            if next(reads, None) is None:
                raise OSError(28, "No space left on device")
            return whole(*window, **settings)

        monkeypatch.setattr(level, "read_as_tile", full_disk)
        with pytest.raises(HrviewerError, match="same command again"):
            write_image(first, out)
    with open_pyramid(pixels, **options) as second:
        write_image(second, out)
        with open_pyramid(out) as again:
            assert_array_equal(again[...], second[...])


@pytest.mark.parametrize("name", ["a.tif", "taken.zarr", "no/where.zarr"])
def test_invalid_paths_are_rejected(tmp_path, name):
    (tmp_path / "taken.zarr").mkdir()
    with open_pyramid(np.zeros((9, 9), np.uint8)) as source, pytest.raises(HrviewerError):
        write_image(source, tmp_path / name)


def test_synthetic_image_is_written_with_its_ground_truth(tmp_path, small, synthetic):
    out, table = write_synthetic_image(synthetic, tmp_path / "s.ome.zarr", labels=True)
    assert table == ground_truth_path(out) == tmp_path / "s.truth.csv"
    valid(out)
    image = synthetic.synthetic_image
    with open_pyramid(out) as again:
        assert_array_equal(again.read(again.rect), image.render(synthetic.rect, 1))
    ground_truth = read_ground_truth(table, out.name, synthetic.plane_shape)
    assert_array_equal(ground_truth.points, image.ground_truth(synthetic.rect).points)
    assert_array_equal(ground_truth.boxes, image.ground_truth(synthetic.rect).boxes)
    # Every object has one number, across shards, and its centroid is its point.
    with open_pyramid(out / "labels" / "objects") as numbers:
        assert_array_equal(numbers.read(numbers.rect)[..., 0], image.labels(synthetic.rect))
    by_labels = read_ground_truth(out, "s", synthetic.plane_shape)
    assert_array_equal(by_labels.points, ground_truth.points)
    assert_array_equal(by_labels.boxes, ground_truth.boxes)


def test_other_images_have_no_ground_truth(tmp_path):
    with (
        open_pyramid(np.zeros((9, 9), np.uint8)) as source,
        pytest.raises(HrviewerError, match="not a synthetic image"),
    ):
        write_synthetic_image(source, tmp_path / "s.ome.zarr")
