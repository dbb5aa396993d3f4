"""TIFF's dialects, written here by tifffile and read back."""

from __future__ import annotations

import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.pyramid import ReadMeter, open_pyramid
from hrviewer.pyramid.zarr_store import as_zarr

Pixels = np.ndarray[Any, np.dtype[Any]]


def whole(path: Path, **options: Any) -> Pixels:
    with open_pyramid(path, **options) as pyramid:
        pyramid.check()
        pixels = pyramid.read(pyramid.rect)
        part = Rect(*(side // 3 for side in pyramid.plane_shape), 50, 40) & pyramid.rect
        np.testing.assert_array_equal(
            pyramid.read(part), pixels[part.y : part.y1, part.x : part.x1]
        )
        return pixels


def smooth(shape: tuple[int, ...], dtype: str = "u1") -> Pixels:
    y, x = np.mgrid[: shape[0], : shape[1]]
    bands = shape[2] if len(shape) == 3 else 1
    image = np.stack([(y * 2 + x * (band + 1)) % 200 for band in range(bands)], axis=2)
    return image.reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw", "zstd"])
@pytest.mark.parametrize("tile", [None, (64, 48)])
def test_lossless_round_trip(
    tmp_path: Path, dtype: str, compression: str | None, tile: tuple[int, int] | None
) -> None:
    image = smooth((211, 173, 3), dtype)
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, image, compression=compression, tile=tile, photometric="rgb", rowsperstrip=7
    )
    np.testing.assert_array_equal(whole(path), image)


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "compression": "zlib", "predictor": True},
        {"planarconfig": "separate"},
        {"planarconfig": "separate", "tile": (64, 64), "compression": "zlib"},
        {"compression": "jpeg2000", "tile": (64, 64)},
        {"compression": "jpeg2000", "compressionargs": {"reversible": True}, "tile": (64, 64)},
    ],
)
def test_layouts_round_trip(tmp_path: Path, options: dict[str, Any]) -> None:
    image = smooth((150, 130, 3), "u1" if "jpeg2000" in options.values() else "u2")
    stored = np.moveaxis(image, 2, 0) if options.get("planarconfig") == "separate" else image
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, stored, photometric="rgb", **options)
    np.testing.assert_array_equal(whole(path), image)


@pytest.mark.parametrize("tile", [(64, 64), None])
def test_jpeg_equals_tifffile(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, smooth((150, 130, 3)), photometric="rgb", compression="jpeg", tile=tile,
        rowsperstrip=16,
    )  # fmt: skip
    np.testing.assert_array_equal(whole(path), tifffile.imread(path))


def test_strips_are_grouped_and_decoded_once(tmp_path: Path) -> None:
    image = smooth((900, 3000))
    path = tmp_path / "strips.tif"
    tifffile.imwrite(path, image, compression="zlib", rowsperstrip=10)
    with open_pyramid(path) as pyramid:
        level = pyramid.levels[0]
        assert level.tile == (900, 3000)  # 2.7 MP, fewer than 4
        assert level.chunks == (512, 512, 1)
        meter = ReadMeter()
        for x in range(0, 3000, 500):
            pyramid.read(Rect(0, x, 900, 500), meter=meter)
        assert meter.total.pixels == image.size
        with tifffile.TiffFile(path) as tiff:
            assert meter.total.bytes == sum(tiff.pages[0].databytecounts)


def test_one_large_uncompressed_strip_is_read_by_rows(tmp_path: Path) -> None:
    image = smooth((5000, 2000))
    path = tmp_path / "bare.tif"
    tifffile.imwrite(path, image, rowsperstrip=5000)
    with open_pyramid(path) as pyramid:
        assert pyramid.levels[0].tile == (2000, 2000)
        meter = ReadMeter()
        np.testing.assert_array_equal(
            pyramid.read(Rect(3000, 5, 10, 10), meter=meter)[..., 0], image[3000:3010, 5:15]
        )
        assert meter.total.bytes == 4_000_000


def test_tiles_that_are_too_large_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib", tile=(16, 16))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        tags = tiff.pages[0].tags
        for name in ("ImageWidth", "ImageLength", "TileWidth", "TileLength"):
            tag = tags[name]
            code = {3: "<H", 4: "<I"}[int(tag.dtype)]
            value = 1 << 15 if code == "<H" else 1 << 17
            struct.pack_into(code, data, tag.valueoffset, value)
    path.write_bytes(data)
    with pytest.raises(HrviewerError, match=r"tiles|damaged"):
        open_pyramid(path)


@pytest.mark.parametrize("extra", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("colours", [1, 3])
def test_where_alpha_is_0_there_are_no_data(tmp_path: Path, extra: str, colours: int) -> None:
    image = smooth((60, 70, colours + 1)) | 1
    image[:20, :30, -1] = 0
    path = tmp_path / "alpha.tif"
    photometric = "rgb" if colours == 3 else "minisblack"
    tifffile.imwrite(
        path, image, photometric=photometric, extrasamples=[extra], planarconfig="contig"
    )
    expected = image[..., :colours].copy()
    expected[:20, :30] = 255 if colours == 3 else 0
    np.testing.assert_array_equal(whole(path), expected)
    with open_pyramid(path) as pyramid:
        assert pyramid.channels == colours
        _, coverage = pyramid.read_with_coverage(pyramid.rect)
        np.testing.assert_array_equal(coverage, image[..., -1] > 0)
    # The band can be had as any other; then it is no mask.
    with open_pyramid(path, channels=[0, colours]) as pyramid:
        np.testing.assert_array_equal(pyramid[...], image[..., [0, colours]])
        assert not pyramid.has_gaps


def test_palette_white_is_zero_and_bilevel_become_plain(tmp_path: Path) -> None:
    index = smooth((40, 50)) % 4
    table = np.random.default_rng(1).integers(0, 65536, (3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=table)
    palette = (table >> 8).astype(np.uint8)[:, index].transpose(1, 2, 0)
    np.testing.assert_array_equal(whole(tmp_path / "p.tif"), palette)
    np.testing.assert_array_equal(whole(tmp_path / "p.tif", channels=[2]), palette[..., 2:])
    tifffile.imwrite(tmp_path / "w.tif", index, photometric="miniswhite")
    np.testing.assert_array_equal(whole(tmp_path / "w.tif")[..., 0], 255 - index)
    tifffile.imwrite(tmp_path / "b.tif", index > 1, photometric="minisblack")
    np.testing.assert_array_equal(whole(tmp_path / "b.tif")[..., 0], (index > 1) * 255)


def test_ycbcr_without_jpeg_is_converted(tmp_path: Path) -> None:
    ycbcr = np.full((20, 20, 3), (76, 85, 255), np.uint8)  # JPEG's pure red
    path = tmp_path / "y.tif"
    tifffile.imwrite(path, ycbcr, photometric="ycbcr", compression="zlib", subsampling=(1, 1))
    assert np.abs(whole(path).astype(int) - (254, 0, 0)).max() <= 1


@pytest.mark.parametrize("compression", [33003, 33005])
def test_aperios_jpeg_2000_colours_are_openslides(tmp_path: Path, compression: int) -> None:
    openslide = pytest.importorskip("openslide")
    path = tmp_path / "j.svs"
    tifffile.imwrite(
        path, smooth((300, 300, 3)), tile=(256, 256), compression=compression, photometric="ycbcr",
        subsampling=(1, 1), metadata=None, description="Aperio Image Library v11.0.37\r\n300x300",
    )  # fmt: skip
    with openslide.OpenSlide(path) as slide:
        expected = np.asarray(slide.read_region((0, 0), 0, (300, 300)).convert("RGB"))
    # The conversion from YCbCr is rounded, in OpenSlide through tables.
    assert np.abs(whole(path).astype(int) - expected).max() <= (1 if compression == 33003 else 0)


def test_other_colours_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.tif"
    tifffile.imwrite(path, smooth((20, 20, 4)), photometric="separated")
    with pytest.raises(HrviewerError, match="SEPARATED colours; convert it to RGB"):
        open_pyramid(path)


def test_nodata_and_nan(tmp_path: Path) -> None:
    image = np.full((20, 20), -1.5, np.float32)
    image[3, 4] = np.nan
    path = tmp_path / "n.tif"
    tifffile.imwrite(path, image, extratags=[(42113, "s", 0, "-1.5", True)])
    with open_pyramid(path) as pyramid:
        assert pyramid.nodata == -1.5
        assert np.isnan(pyramid.read(pyramid.rect)[3, 4, 0])
    tifffile.imwrite(path, image, extratags=[(42113, "s", 0, "none", True)])
    assert open_pyramid(path).nodata is None


def write_pyramid(path: Path, levels: list[Pixels], **options: Any) -> None:
    with tifffile.TiffWriter(path, ome=path.name.endswith(".ome.tif")) as writer:
        writer.write(levels[0], subifds=len(levels) - 1, tile=(64, 64), **options)
        for level in levels[1:]:
            writer.write(level, subfiletype=1, tile=(64, 64), photometric=options["photometric"])


def test_ome_tiff_with_sub_ifds(tmp_path: Path) -> None:
    image = smooth((256, 320, 3))
    levels = [image, image[::2, ::2], image[::4, ::4]]
    path = tmp_path / "p.ome.tif"
    size = {
        "PhysicalSizeX": 250, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.0005,
        "PhysicalSizeYUnit": "mm",
    }  # fmt: skip
    write_pyramid(path, levels, photometric="rgb", metadata={"axes": "YXS", **size})
    with open_pyramid(path) as pyramid:
        assert [level.shape[:2] for level in pyramid.levels] == [(256, 320), (128, 160), (64, 80)]
        assert pyramid.pixel_size == pytest.approx((0.5, 0.25))
        for level, stored in zip(pyramid.levels, levels, strict=True):
            np.testing.assert_array_equal(level.read(0, level.shape[0], 0, level.shape[1]), stored)
        np.testing.assert_array_equal(pyramid.read(pyramid.rect, 4), levels[2])


@pytest.mark.parametrize("ome", [True, False])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_and_channels(tmp_path: Path, ome: bool, compression: str | None) -> None:
    stack = np.random.default_rng(2).integers(0, 255, (2, 3, 4, 30, 40), np.uint8)  # t c z y x
    path = tmp_path / ("s.ome.tif" if ome else "s.tif")
    if ome:
        options: dict[str, Any] = {"metadata": {"axes": "TCZYX"}}
    else:
        stack = stack.transpose(0, 2, 1, 3, 4)
        options = {"imagej": True, "metadata": {"axes": "TZCYX"}}
    tifffile.imwrite(path, stack, compression=compression, **options)
    if not ome:
        stack = stack.transpose(0, 2, 1, 3, 4)
    shown = stack[1, :, 2].transpose(1, 2, 0)
    np.testing.assert_array_equal(whole(path, plane={"t": 1, "z": 2}), shown)
    np.testing.assert_array_equal(
        whole(path, plane={"t": 1, "z": 2}, channels=[2, 0]), shown[..., [2, 0]]
    )
    with open_pyramid(path) as pyramid:
        assert pyramid.channels == 3
        assert {"plane t=0 of 2", "plane z=0 of 4"} <= set(pyramid.notes)
    for wrong in ({"plane": {"q": 0}}, {"plane": {"z": 4}}, {"channels": [3]}, {"channels": []}):
        with pytest.raises(HrviewerError, match=r"has (no|channels)"):
            open_pyramid(path, **wrong)  # type: ignore[arg-type]


def test_a_stack_behind_one_page(tmp_path: Path) -> None:
    stack = np.random.default_rng(2).integers(0, 60000, (5, 30, 40), np.uint16)
    path = tmp_path / "s.tif"
    tifffile.imwrite(path, stack, truncate=True, metadata={"axes": "ZYX"}, byteorder=">")
    np.testing.assert_array_equal(whole(path, plane={"z": 3})[..., 0], stack[3])


def test_planes_and_channels_have_different_keys(tmp_path: Path) -> None:
    path = tmp_path / "s.ome.tif"
    tifffile.imwrite(path, np.zeros((2, 3, 30, 40), np.uint8), metadata={"axes": "ZCYX"})
    keys = {
        open_pyramid(path, **options).levels[0].image_key  # type: ignore[arg-type]
        for options in ({}, {"plane": {"z": 1}}, {"channels": [0]}, {"channels": [0, 1, 2]})
    }
    assert len(keys) == 3  # naming all channels is naming none
    assert len({open_pyramid(path).fingerprint, open_pyramid(path, channels=[1]).fingerprint}) == 1


def test_imagej_pixel_size(tmp_path: Path) -> None:
    path = tmp_path / "ij.tif"
    tifffile.imwrite(
        path, np.zeros((20, 20), np.uint8), imagej=True, resolution=(4, 2),
        metadata={"unit": "um"},
    )  # fmt: skip
    assert open_pyramid(path).pixel_size == pytest.approx((0.5, 0.25))


@pytest.mark.parametrize(
    ("per_cm", "unit", "wanted"),
    [(20000, "centimeter", 0.5), (28.35, "centimeter", None), (50800, "inch", 0.5)],
)
def test_resolution_tags_are_used_if_plausible(
    tmp_path: Path, per_cm: float, unit: str, wanted: float | None
) -> None:
    path = tmp_path / "r.tif"
    tifffile.imwrite(
        path, np.zeros((20, 20), np.uint8), resolution=(per_cm, per_cm), resolutionunit=unit
    )
    size = open_pyramid(path).pixel_size
    assert size == (None if wanted is None else pytest.approx((wanted, wanted)))


def test_svs_has_a_pixel_size(svs: Path) -> None:
    with open_pyramid(svs) as pyramid:
        assert pyramid.pixel_size == (0.499, 0.499)


TURNS = {
    # What a viewer does to the stored rows and columns (TIFF 6.0, Orientation).
    0: lambda a: a,
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a), 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("tag", range(9))
def test_orientation(shared: Path, tag: int) -> None:
    path = shared / "data" / "orientation" / f"test_orient{tag}.tif"
    raw = tifffile.imread(path, series=0, level=0)
    upright = TURNS[tag](raw)  # type: ignore[no-untyped-call]
    with open_pyramid(path) as pyramid:
        np.testing.assert_array_equal(pyramid.read(pyramid.rect)[..., 0], upright)
        rect = Rect(40, 30, 50, 60)
        np.testing.assert_array_equal(pyramid.read(rect)[..., 0], upright[40:90, 30:90])
        np.testing.assert_array_equal(np.asarray(as_zarr(pyramid.levels[0]))[..., 0], upright)
        meter = ReadMeter()
        pyramid.read(pyramid.rect, meter=meter)
        assert meter.total.pixels == raw.size
        assert len(pyramid.tiles(pyramid.rect)) == pyramid.levels[0].grid[0] * 2 or tag in {
            5,
            6,
            7,
            8,
        }


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_of_strips(tmp_path: Path, tag: int) -> None:
    image = smooth((90, 2500))
    path = tmp_path / "o.tif"
    tifffile.imwrite(
        path, image, rowsperstrip=7, compression="zlib", extratags=[(274, "H", 1, tag, True)]
    )
    np.testing.assert_array_equal(whole(path)[..., 0], TURNS[tag](image))  # type: ignore[no-untyped-call]


def test_sparse_tiles_are_the_nodata_value(shared: Path, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    image = smooth((128, 128))
    tifffile.imwrite(path, image, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite((0, *counts.value[1:]))
    wanted = image.copy()
    wanted[:64, :64] = 0
    np.testing.assert_array_equal(whole(path)[..., 0], wanted)


def test_a_damaged_tile_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, smooth((128, 128)), tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[3]
    data = bytearray(path.read_bytes())
    data[offset : offset + 20] = b"\xff" * 20
    path.write_bytes(data)
    with open_pyramid(path) as pyramid:
        pyramid.read(Rect(0, 0, 60, 60))
        for _ in range(2):  # a failure is not remembered as anything else
            with pytest.raises(
                HrviewerError, match=r"damaged.tif: tile \(1, 1\) of level 0 cannot"
            ):
                pyramid.read(pyramid.rect)
        with pytest.raises(HrviewerError, match="the file is damaged"):
            pyramid.check()


def test_masks_thumbnails_and_labels_are_not_the_image(shared: Path, svs: Path) -> None:
    with open_pyramid(shared / "data" / "aerial" / "cogeo.tif") as pyramid:
        assert (pyramid.channels, len(pyramid.levels)) == (3, 7)
    with open_pyramid(svs) as pyramid:
        assert [level.shape for level in pyramid.levels][:1] == [(2967, 2220, 3)]


def test_tifffiles_warnings_stay_off_the_terminal(
    shared: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(HrviewerError):
        open_pyramid(shared / "data" / "bad" / "zero_gi.tif")
    logging.getLogger("tifffile").warning("odd tag")
    assert capfd.readouterr().err == ""


def test_closed_files_raise_an_error(svs: Path) -> None:
    pyramid = open_pyramid(svs)
    pyramid.close()
    with pytest.raises(HrviewerError, match="closed; open it again"):
        pyramid.read(Rect(0, 0, 10, 10))


def test_windows_has_no_pread(svs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.pread")
    with open_pyramid(svs) as pyramid:
        assert pyramid.read(Rect(0, 0, 10, 10)).shape == (10, 10, 3)
