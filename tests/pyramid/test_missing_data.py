"""Pixels without data: no-data values, NaN, alpha, masks, tiles that are not in the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
import zarr

from hrviewer.geometry import Rect
from hrviewer.io.image_writer import write_image
from hrviewer.pyramid import open_pyramid, tile_cache
from hrviewer.pyramid.zarr_tiles import ZarrTiles

Pixels = np.ndarray[Any, np.dtype[Any]]


def masked_means(values: Pixels, valid: Pixels, size: int) -> tuple[Pixels, Pixels]:
    """Means over the valid pixels of blocks, by loops, and the part of each that is valid."""
    h, w = (-(-side // size) for side in values.shape)
    means, parts = np.full((h, w), np.nan), np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            at = np.s_[i * size : (i + 1) * size, j * size : (j + 1) * size]
            parts[i, j] = valid[at].mean()
            if valid[at].any():
                means[i, j] = values[at][valid[at]].mean()
    return means, parts


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("f4", -9999), ("i2", -9999), ("u2", 0), ("u1", 255)]
)
@pytest.mark.parametrize("scale", [2, 3, 8])
def test_nodata_is_never_averaged(tmp_path: Path, dtype: str, nodata: int, scale: int) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(1, 250, (61, 53)).astype(dtype)
    valid = rng.random((61, 53)) > 0.4
    valid[:24, :24] = False
    image = np.where(valid, values, nodata).astype(dtype)
    path = tmp_path / "dem.tif"
    tifffile.imwrite(path, image, extratags=[(42113, 2, 0, str(nodata), True)])
    with open_pyramid(path) as pyramid:
        assert pyramid.nodata == nodata
        assert pyramid.has_gaps
        means, parts = masked_means(values.astype(float), valid, scale)
        got, coverage = pyramid.read_with_coverage(pyramid.rect, scale)
        assert coverage is not None
        np.testing.assert_allclose(coverage, parts, atol=1e-6)
        known = parts > 0
        assert (got[~known, 0] == nodata).all()
        assert (got[known, 0] != nodata).all()
        rounded = means if dtype == "f4" else np.floor(means + 0.5)
        # A mean that happens to be the no-data value is moved by one.
        off = np.abs(got[..., 0].astype(float) - rounded)[known]
        assert off.max() <= (1e-3 if dtype == "f4" else 1)
        assert (off > 1e-3).sum() == (rounded[known] == nodata).sum()
        # A scale that is no whole number takes the general way.
        odd, part = pyramid.read_with_coverage(Rect(1, 1, 60, 52), scale + 0.5)
        assert part is not None
        data = odd[part > 0].astype(float)
        assert values.min() <= data.min() <= data.max() <= values.max()
        assert pyramid.data_area(pyramid.rect) == pytest.approx(valid.sum(), rel=1e-6)
        assert pyramid.data_area(Rect(0, 0, 24, 24)) == 0


def test_overviews_leave_out_nodata(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(100, 200, (2300, 40)).astype("u2")
    valid = rng.random(values.shape) > 0.7
    path = tmp_path / "flat.tif"
    tifffile.imwrite(
        path, np.where(valid, values, 0).astype("u2"), extratags=[(42113, 2, 0, "0", True)]
    )
    with open_pyramid(path) as pyramid:
        pyramid.build_overviews()
        built = pyramid.levels[-1].read(0, 575, 0, 10)[..., 0]
        halves, _ = masked_means(values.astype(float), valid, 2)
        halves = np.floor(halves + 0.5)
        quarters, _ = masked_means(halves, ~np.isnan(halves), 2)
        np.testing.assert_array_equal(built, np.nan_to_num(np.floor(quarters + 0.5)))


def test_a_colour_has_no_data_where_all_its_channels_lack_them(tmp_path: Path) -> None:
    image = np.full((20, 20, 3), (0, 90, 120), np.uint8)
    image[:10] = 0
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, image, photometric="rgb", extratags=[(42113, 2, 0, "0", True)])
    with open_pyramid(path) as pyramid:
        got, coverage = pyramid.read_with_coverage(pyramid.rect, 20)
        assert got.tolist() == [[[1, 90, 120]]] or got.tolist() == [[[0, 90, 120]]]
        assert coverage is not None
        assert coverage.item() == 0.5


def test_cases_of_a_terrain_model(shared: Path) -> None:
    with open_pyramid(shared / "cases" / "formats" / "dem_nodata.tif") as pyramid:
        for scale in (1, 2, 3, 4, 8, 1.5, 100):
            pixels, coverage = pyramid.read_with_coverage(pyramid.rect, scale)
            assert coverage is not None
            data = pixels[coverage > 0]
            assert data.min() >= 349.99
            assert data.max() <= 650
            assert (pixels[coverage == 0] == -9999).all()


def write_masked(folder: Path, *, internal: bool, overviews: bool = False) -> tuple[Path, Any]:
    """Write colours with a mask of GDAL, in the file or beside it."""
    rasterio = pytest.importorskip("rasterio")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 512, 640), np.uint8)
    mask = np.full((512, 640), 255, np.uint8)
    mask[100:300, 200:400] = 0
    path = folder / "a.tif"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal), rasterio.open(
        path, "w", driver="GTiff", width=640, height=512, count=3, dtype="uint8",
        tiled=True, blockxsize=128, blockysize=128, crs="EPSG:32633",
        transform=rasterio.Affine(2, 0, 0, 0, -2, 0),
    ) as out:  # fmt: skip
        out.write(pixels)
        out.write_mask(mask)
    if overviews:
        coarse = pixels[:, ::2, ::2].transpose(1, 2, 0)
        tifffile.imwrite(
            f"{path}.ovr", coarse, photometric="rgb", subfiletype=1, tile=(128, 128), metadata=None
        )
    return path, mask


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(("dtype", "fill"), [("u1", 0), ("u1", 200), ("f4", 0.0), ("f4", np.nan)])
def test_chunks_that_are_not_stored(
    tmp_path: Path, zarr_format: Literal[2, 3], dtype: str, fill: float
) -> None:
    values = np.random.default_rng(0).integers(0, 250, (2, 300, 300)).astype(dtype)
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("0", data=values, chunks=(1, 128, 128), fill_value=fill)
    axes = [{"name": axis} for axis in "cyx"]
    multiscales = [{"axes": axes, "datasets": [{"path": "0"}], "version": "0.4"}]
    if zarr_format == 2:
        group.attrs["multiscales"] = multiscales
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        assert not pyramid.has_mask
    for channel, expected in ((0, 300 * 300), (1, 300 * 300 - 128 * 128)):
        name = f"0/{channel}.1.1" if zarr_format == 2 else f"0/c/{channel}/1/1"
        (tmp_path / "a.zarr" / name).unlink()
        tile_cache().clear()
        with open_pyramid(tmp_path / "a.zarr") as pyramid:
            assert pyramid.has_mask
            # There are data where one channel has some.
            assert pyramid.data_area(pyramid.rect) == expected
    with open_pyramid(tmp_path / "a.zarr") as pyramid:
        _, coverage = pyramid.read_with_coverage(pyramid.rect)
        assert coverage is not None
        assert (coverage[128:256, 128:256] == 0).all()


def test_a_black_part_of_a_copy_is_data(tmp_path: Path) -> None:
    image = np.zeros((700, 700), np.uint16)
    image[:100, :100] = 9
    with open_pyramid(image) as pyramid:
        write_image(pyramid, tmp_path / "a.ome.zarr")
    with open_pyramid(tmp_path / "a.ome.zarr") as copy:
        assert copy.missing_share == 0
        assert not copy.has_gaps
        np.testing.assert_array_equal(copy[..., 0], image)


def test_a_mask_beside_the_file(tmp_path: Path) -> None:
    path, mask = write_masked(tmp_path, internal=False)
    assert (tmp_path / "a.tif.msk").is_file()
    with open_pyramid(path) as pyramid:
        _, coverage = pyramid.read_with_coverage(pyramid.rect)
        assert coverage is not None
        np.testing.assert_array_equal(coverage > 0, mask > 0)
        masked = pyramid.fingerprint
    (tmp_path / "a.tif.msk").unlink()
    with open_pyramid(path) as pyramid:
        assert not pyramid.has_mask
        assert pyramid.fingerprint != masked


def test_overviews_beside_the_file(tmp_path: Path) -> None:
    path, _ = write_masked(tmp_path, internal=True, overviews=True)
    with open_pyramid(path) as pyramid:  # the overview has no mask: it would show the hole
        assert [level.shape[0] for level in pyramid.levels] == [512]
        assert any("without the mask" in note for note in pyramid.notes)
    plain = np.random.default_rng(0).integers(0, 256, (512, 640, 3), np.uint8)
    tifffile.imwrite(tmp_path / "b.tif", plain, photometric="rgb")
    (tmp_path / "b.tif.ovr").write_bytes((tmp_path / "a.tif.ovr").read_bytes())
    with open_pyramid(tmp_path / "b.tif") as pyramid:
        assert [level.shape[:2] for level in pyramid.levels] == [(512, 640), (256, 320)]
        np.testing.assert_array_equal(
            pyramid.levels[1][...], tifffile.imread(tmp_path / "b.tif.ovr")
        )
    (tmp_path / "b.tif.ovr").write_bytes(b"II*\0cut short")
    with open_pyramid(tmp_path / "b.tif") as pyramid:
        assert len(pyramid.levels) == 1


INDICES = (np.arange(64 * 64, dtype=np.uint8).reshape(64, 64) // 64) % 4
COLOURS = np.array([(255, 255, 255), (0, 0, 0), (10, 200, 30), (200, 30, 10)])
GDAL_NODATA = 42113


def write_nodata(folder: Path, value: str, pixels: Pixels, **options: Any) -> Path:
    path = folder / "a.tif"
    tag = (GDAL_NODATA, 2, 0, value, True)
    tifffile.imwrite(path, pixels, extratags=[tag], metadata=None, **options)
    return path


def test_the_nodata_value_of_a_palette_is_an_index(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, :4] = COLOURS.T * 257
    path = write_nodata(tmp_path, "0", INDICES, photometric="palette", colormap=table)
    with open_pyramid(path) as image:
        pixels, coverage = image.read_with_coverage(image.rect)
        assert coverage is not None
        np.testing.assert_array_equal(coverage > 0, INDICES != 0)  # black, index 1, has data
        np.testing.assert_array_equal(pixels, COLOURS[INDICES])


def test_a_palette_of_bytes(tmp_path: Path) -> None:
    table = np.zeros((3, 256), np.uint16)
    table[:, :4] = COLOURS.T
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, INDICES, photometric="palette", colormap=table)
    with open_pyramid(path) as image:
        np.testing.assert_array_equal(image[...], COLOURS[INDICES])


def test_the_nodata_value_where_white_is_zero(tmp_path: Path) -> None:
    path = write_nodata(tmp_path, "0", INDICES * 10, photometric="miniswhite")
    with open_pyramid(path) as image:
        assert image.nodata == 255
        assert image.data_area(image.rect) == (INDICES != 0).sum()


def test_the_nodata_value_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, INDICES.astype(np.float32) * 5)
    with open_pyramid(path) as image:
        assert image.nodata is None
        plain = image.fingerprint
    band = '<PAMRasterBand band="1"><NoDataValue>5.0</NoDataValue></PAMRasterBand>'
    beside = tmp_path / "a.tif.aux.xml"
    beside.write_text(f"<PAMDataset>{band}</PAMDataset>")
    with open_pyramid(path) as image:
        assert image.nodata == 5
        assert image.fingerprint != plain
        assert image.data_area(image.rect) == (INDICES != 1).sum()
    beside.write_text("<PAMDataset>")
    with open_pyramid(path) as image:
        assert image.nodata is None


@pytest.mark.parametrize(("name", "bands"), [("near infrared", 4), ("alpha mask", 3), ("", 3)])
def test_a_band_that_is_marked_as_alpha_but_named_otherwise_is_a_band(
    tmp_path: Path, name: str, bands: int
) -> None:
    item = f'<Item name="DESCRIPTION" sample="3" role="description">{name}</Item>'
    tags = [(42112, 2, 0, f"<GDALMetadata>{item}</GDALMetadata>", True)]
    pixels = np.full((20, 30, 4), 9, np.uint8)
    pixels[:5, :, 3] = 0  # water
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", extrasamples=["unassalpha"], extratags=tags, metadata=None
    )
    with open_pyramid(path) as image:
        assert image.channels == bands
        assert image.is_rgb
        assert image.has_mask == (bands == 3)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_tile_with_a_missing_chunk_is_read_once(
    version: Literal["0.4", "0.5"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.zarr"
    values = np.arange(2 * 40 * 60, dtype="u2").reshape(2, 40, 60)
    form = 2 if version == "0.4" else 3
    array = zarr.create_array(
        path, shape=values.shape, chunks=(1, 16, 16), dtype="u2", zarr_format=form
    )
    array[:] = values + 1
    channel, row, column = 1, 1, 2
    gone = [array.metadata.encode_chunk_key((c, 0, 3)) for c in (0, 1)]
    gone.append(array.metadata.encode_chunk_key((channel, row, column)))
    for key in gone:
        (path / key).unlink()
    read: list[str] = []
    plain = zarr.storage.LocalStore.get

    async def count(store: Any, key: str, *args: Any, **more: Any) -> Any:
        read.append(key)
        return await plain(store, key, *args, **more)

    tiles = ZarrTiles(zarr.open_array(path, mode="r"), "cyx", {}, marks_missing=True)
    monkeypatch.setattr(zarr.storage.LocalStore, "get", count)
    tile = tiles.read(3, 40, 5, 60)
    assert len(read) == len(set(read)) == 2 * 3 * 4
    valid = np.ones((40, 60), bool)
    valid[:16, 48:] = False  # in both channels; elsewhere one of them is there
    assert tile.valid is not None
    np.testing.assert_array_equal(tile.valid, valid[3:, 5:])
    np.testing.assert_array_equal(
        tile.pixels[..., 0][tile.valid], values[0, 3:, 5:][tile.valid] + 1
    )
    second = ZarrTiles(zarr.open_array(path, mode="r"), "cyx", {}, (1,), marks_missing=True)
    alone = second.read(16, 32, 32, 48).valid
    assert alone is not None
    assert not alone.any()
