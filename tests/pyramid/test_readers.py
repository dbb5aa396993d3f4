"""OME-Zarr, slides, pictures and arrays."""

from __future__ import annotations

import json
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.pyramid import Pyramid, ReadMeter, open_pyramid, tile_cache
from hrviewer.pyramid.readers.base import Reader
from hrviewer.pyramid.tile_cache import DecodedTile
from hrviewer.pyramid.zarr_store import as_zarr

Pixels = np.ndarray[Any, np.dtype[Any]]


def whole(pyramid: Pyramid) -> Pixels:
    return pyramid.read(pyramid.rect)


# OME-Zarr


def write_ome(
    path: Path,
    levels: list[Pixels],
    axes: str,
    version: str = "0.5",
    unit: str | None = None,
    **more: Any,
) -> Path:
    new = version == "0.5"
    group = zarr.open_group(path, mode="w", zarr_format=3 if new else 2)
    datasets = []
    for index, level in enumerate(levels):
        chunks = tuple(min(64, side) for side in level.shape)
        group.create_array(str(index), data=level, chunks=chunks, **more)
        scale = [0.25 * 2**index if axis in "yx" else 1.0 for axis in axes]
        change = [{"type": "scale", "scale": scale}]
        datasets.append({"path": str(index), "coordinateTransformations": change})
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": axis, "type": kinds.get(axis, "space")}
        | ({"unit": unit} if unit and axis in "zyx" else {})
        for axis in axes
    ]
    multiscales = [{"axes": named, "datasets": datasets, "version": version}]
    group.attrs.update(
        {"ome": {"version": version, "multiscales": multiscales}}
        if new
        else {"multiscales": multiscales}
    )
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "czyx", "tczyx", "yxc"])
def test_omezarr_of_any_axes(
    tmp_path: Path, rng: np.random.Generator, version: str, axes: str
) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 150, "x": 130}
    image = rng.integers(0, 60000, [sizes[axis] for axis in axes], np.uint16)
    plane = {axis: 1 for axis in axes if axis in "tz"}
    path = write_ome(tmp_path / "i.zarr", [image], axes, version, "micrometer")
    shown = image[tuple(1 if axis in "tz" else slice(None) for axis in axes)]
    left = [axis for axis in axes if axis in "cyx"]
    if "c" not in left:
        shown, left = shown[..., None], [*left, "c"]
    shown = shown.transpose([left.index(axis) for axis in "yxc"])
    with open_pyramid(path, plane=plane) as pyramid:
        pyramid.check()
        assert pyramid.pixel_size == (0.25, 0.25)
        np.testing.assert_array_equal(whole(pyramid), shown)
        np.testing.assert_array_equal(np.asarray(as_zarr(pyramid.levels[0])), shown)
    if "c" in axes:
        with open_pyramid(path, plane=plane, channels=[2, 1]) as pyramid:
            np.testing.assert_array_equal(whole(pyramid), shown[..., [2, 1]])


def test_omezarr_levels_and_stored_bytes(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (3, 300, 200), np.uint8)
    path = write_ome(tmp_path / "i.zarr", [image, image[:, ::2, ::2]], "cyx", unit="nanometer")
    with open_pyramid(path) as pyramid:
        assert pyramid.pixel_size == pytest.approx((0.00025, 0.00025))
        assert [level.shape for level in pyramid.levels] == [(300, 200, 3), (150, 100, 3)]
        meter = ReadMeter()
        pyramid.read(pyramid.rect, meter=meter)
        stored = sum(
            file.stat().st_size for file in (path / "0" / "c").rglob("*") if file.is_file()
        )
        assert meter.total.bytes == stored
        np.testing.assert_array_equal(pyramid.read(pyramid.rect, 2)[..., 1], image[1, ::2, ::2])


def test_sharded_omezarr(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (300, 200), np.uint8)
    path = write_ome(tmp_path / "i.zarr", [image], "yx", shards=(128, 128))
    with open_pyramid(path) as pyramid:
        np.testing.assert_array_equal(whole(pyramid)[..., 0], image)


def test_many_chunks_of_an_omezarr_at_once(tmp_path: Path, rng: np.random.Generator) -> None:
    # A level of zarr arrays that is itself read as one: neither may wait for the other's threads.
    image = rng.integers(0, 255, (2048, 4096), np.uint8)
    path = write_ome(tmp_path / "i.zarr", [image], "yx", shards=(512, 512))
    with open_pyramid(path) as pyramid, ThreadPoolExecutor(1) as pool:
        level = as_zarr(pyramid.levels[0])
        asked = pool.submit(lambda: level[:])
        np.testing.assert_array_equal(asked.result(timeout=60)[..., 0], image)


def test_omezarr_through_a_url(rng: np.random.Generator) -> None:
    import fsspec

    image = rng.integers(0, 255, (100, 90), np.uint8)
    url = "memory://there/i.zarr"
    # fsspec's memory is one for the whole process.
    store = zarr.storage.FsspecStore.from_url(url)
    group = zarr.open_group(store, mode="w")
    group.create_array("0", data=image)
    multiscales = [{"axes": [{"name": "y"}, {"name": "x"}], "datasets": [{"path": "0"}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": multiscales}
    with open_pyramid(url) as pyramid:
        assert pyramid.path == url
        assert pyramid.pixel_size is None
        np.testing.assert_array_equal(whole(pyramid)[..., 0], image)
    fsspec.filesystem("memory").rm("/there", recursive=True)


def test_valid_conformance_stores_open(shared: Path) -> None:
    for path in sorted((shared / "data" / "omezarr").glob("[vw]a*/*.zarr")):
        with open_pyramid(path) as pyramid:
            pyramid.check()
            assert pyramid.pixel_size == (1, 1)


def test_plate_and_collection(shared: Path, tmp_path: Path) -> None:
    with open_pyramid(shared / "data" / "omezarr" / "valid" / "plate-01.zarr") as pyramid:
        assert any(note.startswith("plate: field A/1/0") for note in pyramid.notes)
        assert pyramid.selected_series == "A/1/0" in [entry.id for entry in pyramid.series]
    folder = tmp_path / "c.zarr"
    zarr.open_group(folder, mode="w").attrs["ome"] = {"bioformats2raw.layout": 3}
    zarr.open_group(folder / "OME", mode="w").attrs["ome"] = {"series": ["macro", "1", "2"]}
    for name, side in ("macro", 20), ("1", 40), ("2", 30):
        write_ome(folder / name, [np.full((side, side), side, np.uint8)], "yx")
    image = open_pyramid(folder)
    assert (image.selected_series, image.plane_shape) == ("1", (40, 40))
    assert any(note.startswith("series 1 (40 × 40) of 3 is opened") for note in image.notes)
    other = open_pyramid(folder, series="2")  # an id goes before an index
    assert other.plane_shape == (30, 30)
    assert other.fingerprint != image.fingerprint
    plate = zarr.open_group(tmp_path / "p.zarr", mode="w")
    plate.attrs["ome"] = {"plate": {"wells": [{"path": "A/9"}, {"path": "A/1"}]}}
    plate.create_group("A/1")
    with pytest.raises(HrviewerError, match="without a field"):
        open_pyramid(tmp_path / "p.zarr")
    write_ome(tmp_path / "p.zarr" / "A" / "1" / "0", [np.ones((20, 20), np.uint8)], "yx")
    assert open_pyramid(tmp_path / "p.zarr").selected_series == "A/1/0"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (1, "lacks 'multiscales'"),
        (2, "'multiscales' is empty"),
        (3, r"lacks the array of level 0 \('0'\)"),
        (4, "level 1 has 2 axes, the metadata names 3"),
    ],
)
def test_invalid_conformance_stores_are_refused(shared: Path, number: int, reason: str) -> None:
    with pytest.raises(HrviewerError, match=reason) as caught:
        open_pyramid(shared / "data" / "omezarr" / "invalid" / f"image-0{number}.zarr")
    assert "\n" not in str(caught.value)


def test_other_stores_are_refused(tmp_path: Path) -> None:
    run = zarr.open_group(tmp_path / "x.run.zarr", mode="w")
    bare = zarr.open_array(tmp_path / "a.zarr", mode="w", shape=(5, 5), dtype="u1")
    del run, bare
    torn = write_ome(tmp_path / "t.zarr", [np.ones((5, 5), np.uint8)], "yx")
    (torn / "zarr.json").write_text("{")
    odd = write_ome(tmp_path / "o.zarr", [np.ones((5, 5), np.uint8)], "yy")
    nothing = write_ome(tmp_path / "n.zarr", [], "yx")
    for path, reason in (
        (tmp_path / "x.run.zarr", "is a run"),
        (tmp_path / "a.zarr", "without OME metadata"),
        (torn, "not a readable OME-Zarr"),
        (odd, "has the axes y, y"),
        (nothing, "'datasets' is empty"),
        ("memory://nowhere/x.zarr", "there is no such file"),
        ("nosuch://nowhere/x.zarr", r"x\.zarr"),
        ("http://127.0.0.1:9/x.svs", "check the network and try again"),
    ):
        with pytest.raises(HrviewerError, match=reason) as caught:
            open_pyramid(path)
        assert "\n" not in str(caught.value)


def test_a_changed_omezarr_has_another_fingerprint(tmp_path: Path) -> None:
    path = write_ome(tmp_path / "i.zarr", [np.ones((20, 20), np.uint8)], "yx")
    before = open_pyramid(path).fingerprint
    assert open_pyramid(path).fingerprint == before
    os.utime(path / "0" / "zarr.json", ns=(1, 1))
    assert open_pyramid(path).fingerprint != before


def test_a_torn_chunk_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    path = write_ome(tmp_path / "i.zarr", [rng.integers(0, 9, (99, 99), np.uint8)], "yx")
    for chunk in (path / "0" / "c").rglob("0"):
        if chunk.is_file():
            chunk.write_bytes(b"torn")
    with (
        open_pyramid(path) as pyramid,
        pytest.raises(HrviewerError, match=r"tile \(0, 0\) of level 0"),
    ):
        pyramid.check()


# Slides


def test_dicom_twin_is_the_slide_within_jpegs_error(shared: Path, svs: Path) -> None:
    pytest.importorskip("openslide")
    folder = shared / "data" / "wsi" / "CMU-1-Small-Region-dicom"
    with open_pyramid(folder) as twin, open_pyramid(svs) as slide:
        twin.check()
        assert twin.shape == slide.shape
        assert twin.pixel_size == pytest.approx(slide.pixel_size)
        # The twin was compressed to JPEG a second time, with coarser colours: its values are off
        # by 2.9 in the mean, its brightness by 1.1. One pixel out of register would be 6.2.
        difference = whole(twin).astype(int) - whole(slide)
        assert np.abs(difference).mean() < 3.0
        assert np.abs(difference.mean(axis=2)).mean() < 1.2
        assert np.abs(difference.mean(axis=(0, 1))).max() < 0.5
        meter = ReadMeter()
        twin.read(twin.rect, meter=meter)
        size = sum(file.stat().st_size for file in folder.iterdir())
        assert meter.total.bytes == pytest.approx(size, rel=1e-4)
        files = sorted(folder.iterdir())
        assert open_pyramid(files[0]).fingerprint == twin.fingerprint
        red = open_pyramid(folder, channels=[0])
        np.testing.assert_array_equal(red.read(Rect(0, 0, 50, 50)), whole(twin)[:50, :50, :1])


def test_openslide_missing_names_the_extra(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "x.mrxs").write_bytes(b"JPEG")
    for path in (tmp_path / "x.mrxs", shared / "data" / "wsi" / "CMU-1-Small-Region-dicom"):
        with pytest.raises(HrviewerError, match=r'pip install "hrviewer\[slides\]"'):
            open_pyramid(path)


def test_transparent_parts_show_the_background() -> None:
    from hrviewer.pyramid.readers.openslide import OpenSlideReader, _pixel_size, _slide_files

    clear = Image.new("RGBA", (600, 30), (10, 20, 30, 0))
    clear.paste((10, 20, 30, 255), (0, 0, 600, 15))
    source = OpenSlideReader.__new__(OpenSlideReader)
    source._background = (200, 210, 220)
    source._shapes = [(30, 600, 3)]
    source._bytes_per_pixel = 0.5
    source.selected_channels = None
    source._slide = SimpleNamespace(
        level_downsamples=[1.0],
        read_region=lambda at, level, size: clear.crop((*at, at[0] + size[0], at[1] + size[1])),
    )
    pixels, stored, *_ = source.decode(0, 0, 1)
    assert pixels.shape == (30, 88, 3)
    assert stored == 30 * 88 // 2
    assert (pixels[:15] == (10, 20, 30)).all()
    assert (pixels[15:] == (200, 210, 220)).all()
    assert _pixel_size({"openslide.mpp-y": "x"}) is None
    assert _slide_files(Path("nowhere.mrxs")) == [Path("nowhere.mrxs")]


# Pictures


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("L", "png"), ("LA", "png"), ("1", "png"),
     ("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGB", "bmp"), ("RGB", "webp")],
)  # fmt: skip
def test_pixels_equal_pillows_rgb(
    tmp_path: Path, rng: np.random.Generator, mode: str, suffix: str
) -> None:
    path = tmp_path / f"p.{suffix}"
    noise = Image.fromarray(rng.integers(0, 255, (700, 900, 4), np.uint8), "RGBA")
    noise.convert("RGB").convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB"))
    with open_pyramid(path) as pyramid:
        pixels = whole(pyramid)
        assert pyramid.channels == (1 if mode in ("L", "LA", "1") else 3)
        np.testing.assert_array_equal(np.broadcast_to(pixels, expected.shape), expected)
        np.testing.assert_array_equal(
            pyramid.read(Rect(500, 500, 30, 20)), pixels[500:530, 500:520]
        )


def test_sixteen_bit_gray_is_not_converted(tmp_path: Path, rng: np.random.Generator) -> None:
    image = rng.integers(0, 65535, (60, 70), np.uint16)
    Image.fromarray(image).save(tmp_path / "g.png")
    pyramid = open_pyramid(tmp_path / "g.png")
    assert pyramid.dtype == np.uint16
    np.testing.assert_array_equal(whole(pyramid)[..., 0], image)


@pytest.mark.parametrize("bands", [2, 3, 4])
def test_sixteen_bit_colours_are_kept(tmp_path: Path, rng: np.random.Generator, bands: int) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    image = rng.integers(0, 4096, (60, 70, bands), np.uint16)
    if bands != 3:
        image[..., -1] = 65535
        image[:20, :, -1] = 0
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(image))
    with open_pyramid(tmp_path / "c.png") as pyramid:
        assert pyramid.is_rgb == (bands > 2)
        assert pyramid.value_range.ends == (0, 4095)
        pixels, coverage = pyramid.read_with_coverage(pyramid.rect)
        colours = 3 if bands > 2 else 1
        np.testing.assert_array_equal(pixels[20:], image[20:, :, :colours])
        assert (coverage is None) == (bands == 3)


def test_colours_that_are_reduced_to_eight_bits_are_noted(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 65536, (20, 30, 3), np.uint16)
    (tmp_path / "c.ppm").write_bytes(b"P6 30 20 65535\n" + image.astype(">u2").tobytes())
    with open_pyramid(tmp_path / "c.ppm") as pyramid:
        assert pyramid.dtype == np.uint8
        assert "16 bits per channel are read as 8" in pyramid.notes


@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_exif_orientation(tmp_path: Path, tag: int) -> None:
    image = Image.fromarray(np.arange(60 * 80, dtype=np.uint16).reshape(60, 80).astype(np.uint8))
    exif = Image.Exif()
    exif[274] = tag
    image.save(tmp_path / "e.png", exif=exif)
    turns = {1: 0, 3: 2, 6: -1, 8: 1}[tag]
    pyramid = open_pyramid(tmp_path / "e.png", channels=[0])
    np.testing.assert_array_equal(whole(pyramid)[..., 0], np.rot90(np.asarray(image), turns))


def test_tiles_share_the_cost_of_the_file(shared: Path) -> None:
    path = shared / "data" / "aerial" / "terrain1.jpg"
    with open_pyramid(path) as pyramid:
        meter = ReadMeter()
        whole_read = pyramid.read(pyramid.rect, meter=meter)
        assert meter.total.bytes == path.stat().st_size
        assert meter.total.pixels == whole_read.shape[0] * whole_read.shape[1]
        assert meter.total.seconds > 0


def test_images_in_memory_have_coarse_levels_at_once(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    image = rng.integers(0, 255, (2100, 1500, 3), np.uint8)
    path = tmp_path / "p.png"
    Image.fromarray(image).save(path, compress_level=0)
    with open_pyramid(path) as pyramid:
        assert [level.shape for level in pyramid.levels] == [
            (2100, 1500, 3), (1050, 750, 3), (525, 375, 3)]  # fmt: skip
        assert pyramid.missing_levels() == 0
        meter = ReadMeter()
        half = pyramid.read(pyramid.rect, 2, meter=meter)
        blocks = image.reshape(1050, 2, 750, 2, 3).astype(float).mean((1, 3))
        np.testing.assert_array_equal(half, np.floor(blocks + 0.5))
        # Looking at a coarse level is looking at the whole picture.
        assert meter.total.bytes == pytest.approx(path.stat().st_size, rel=1e-3)
        assert meter.total.seconds > 0


def test_large_images_use_a_temporary_file_and_huge_ones_are_refused(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rng.integers(0, 255, (90, 80), np.uint8)
    path = tmp_path / "p.png"
    Image.fromarray(image).save(path)
    module = "hrviewer.pyramid.readers.pillow"
    monkeypatch.setattr(f"{module}.IN_MEMORY_LIMIT", 1000)
    with open_pyramid(path) as pyramid:
        np.testing.assert_array_equal(whole(pyramid)[..., 0], image)
    monkeypatch.setattr(f"{module}.MAX_PIXELS", 5000)
    with pytest.raises(HrviewerError, match="megapixels, too many"):
        open_pyramid(path)


def test_pillows_limit_does_not_stop_large_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (300, 300)).save(tmp_path / "p.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_pyramid(tmp_path / "p.png").plane_shape == (300, 300)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_truncated_image(tmp_path: Path, shared: Path) -> None:
    path = tmp_path / "t.png"
    source = shared / "data" / "aerial" / "2019_YELL_2_541000_4977000_image_crop.png"
    path.write_bytes(source.read_bytes()[:50_000])
    with open_pyramid(path) as pyramid, pytest.raises(HrviewerError, match="cannot be decoded"):
        pyramid.check()


# Arrays


@pytest.mark.parametrize(
    ("suffix", "options"), [("gif", {}), ("png", {}), ("webp", {"lossless": True})]
)
def test_frames_of_an_animation_are_planes(
    tmp_path: Path, suffix: str, options: dict[str, Any]
) -> None:
    frames = [np.full((30, 40, 3), value, np.uint8) for value in (200, 100, 0)]
    first, *others = map(Image.fromarray, frames)
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=others, **options)
    with open_pyramid(path) as image:
        assert "plane t=0 of 3" in image.notes
        np.testing.assert_array_equal(whole(image), frames[0])
    with open_pyramid(path, plane={"t": 2}) as image:
        np.testing.assert_array_equal(whole(image), frames[2])


def test_array_shapes(rng: np.random.Generator) -> None:
    gray = rng.integers(0, 255, (40, 50), np.uint8)
    colour = rng.integers(0, 255, (40, 50, 3), np.uint8)
    stack = rng.integers(0, 255, (2, 5, 40, 50), np.uint8)
    np.testing.assert_array_equal(whole(open_pyramid(gray))[..., 0], gray)
    np.testing.assert_array_equal(whole(open_pyramid(colour)), colour)
    np.testing.assert_array_equal(whole(open_pyramid(colour, channels=[1])), colour[..., 1:2])
    np.testing.assert_array_equal(
        whole(open_pyramid(stack, plane={"t": 1, "z": 3}))[..., 0], stack[1, 3]
    )
    np.testing.assert_array_equal(whole(open_pyramid(gray > 9))[..., 0], (gray > 9) * 255)
    assert open_pyramid(gray.astype(">u2")).dtype == np.dtype("=u2")
    for wrong, reason in (
        (np.zeros(5), "at least y and x"),
        (np.zeros((1,) * 8 + (9, 9)), "at most 8"),
        (np.zeros((5, 5), complex), "complex"),
        (np.zeros((0, 5)), "no pixels"),
        ([gray, colour], "same number of axes"),
    ):
        with pytest.raises(HrviewerError, match=reason):
            open_pyramid(wrong)


def test_lists_are_levels_and_other_shapes_are_left_out(rng: np.random.Generator) -> None:
    image = rng.integers(0, 255, (64, 96, 3), np.uint8)
    pyramid = open_pyramid([image, image[::2, ::2], image[:5, :40], image[::4, ::4]])
    assert [level.shape[0] for level in pyramid.levels] == [64, 32, 16]
    assert any("left out" in note for note in pyramid.notes)
    np.testing.assert_array_equal(pyramid.read(pyramid.rect, 4), image[::4, ::4])


@pytest.mark.parametrize("kind", ["numpy", "dask", "zarr"])
def test_kinds_of_arrays(kind: str, rng: np.random.Generator) -> None:
    image = rng.integers(0, 60000, (700, 600, 3), np.uint16)
    array: Any = image
    if kind == "dask":
        array = da.from_array(image, chunks=(100, 150, 3))
    elif kind == "zarr":
        array = zarr.create_array({}, data=image, chunks=(100, 150, 3))
    pyramid = open_pyramid(array, channels=[0, 2])
    np.testing.assert_array_equal(whole(pyramid), image[..., [0, 2]])
    assert pyramid.path is None
    assert (tile_cache().nbytes == 0) == (kind == "numpy")
    kept = not any("not kept" in note for note in pyramid.notes)
    assert kept == (kind == "numpy")
    assert (open_pyramid(array).fingerprint == pyramid.fingerprint) == kept


def test_content_makes_the_fingerprint(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = rng.integers(0, 255, (64, 96), np.uint8)
    first = open_pyramid(image).fingerprint
    assert open_pyramid(image.copy()).fingerprint == first
    assert open_pyramid(image.reshape(96, 64)).fingerprint != first
    monkeypatch.setattr("hrviewer.pyramid.fingerprint.MAX_HASHED_BYTES", 10)
    assert open_pyramid(image).fingerprint != open_pyramid(image).fingerprint


class Layer:
    """What a napari image layer looks like from outside."""

    def __init__(self, data: Any, **more: Any) -> None:
        self.data = data
        self.multiscale, self.rgb = False, False
        self.name = "tissue"
        self.scale = np.ones(2)
        self.units: tuple[str, ...] = ("pixel", "pixel")
        self.__dict__.update(more)


def test_layers(rng: np.random.Generator) -> None:
    stack = rng.integers(0, 255, (5, 40, 50), np.uint8)
    layer = Layer(stack, scale=(2, 0.25, 0.5), units=("second", "nm", "micrometer"))
    pyramid = open_pyramid(layer, plane={"z": 2})
    assert pyramid.name == "tissue"
    assert pyramid.pixel_size == (0.00025, 0.5)
    np.testing.assert_array_equal(whole(pyramid)[..., 0], stack[2])
    labelled = Layer(stack, axis_labels=("T", "y", "x"), scale=(1, 1, 1), units=("pixel",) * 3)
    assert open_pyramid(labelled, plane={"t": 4}).pixel_size is None
    colour = rng.integers(0, 255, (40, 50, 3), np.uint8)
    several = Layer([colour, colour[::2, ::2]], rgb=True, multiscale=True)
    pyramid = open_pyramid(several)
    assert (pyramid.channels, len(pyramid.levels)) == (3, 2)
    narrow = rng.integers(0, 255, (40, 50, 3), np.uint8)
    assert open_pyramid(Layer(narrow)).plane_shape == (50, 3)  # not RGB: z, y, x


def test_a_view_leads_back_to_its_pyramid(tcga: Path) -> None:
    with open_pyramid(tcga) as pyramid:
        assert open_pyramid(pyramid) is pyramid
        views = [as_zarr(level) for level in pyramid.levels]
        assert open_pyramid(views) is pyramid
        assert open_pyramid(Layer(views, rgb=True, multiscale=True)) is pyramid


# Everything


def test_all_good_files_open_and_check(shared: Path) -> None:
    data = shared / "data"
    files = [*data.glob("wsi/*.*if*"), *data.glob("wsi/*.svs"), *data.glob("aerial/*.*")]
    files = [file for file in files if file.suffix not in (".csv", ".json", ".xml")]
    assert len(files) > 12
    for path in files:
        with open_pyramid(path) as pyramid:
            pyramid.check()
            assert pyramid.name == path.name
            assert pyramid.path == str(path)
            assert f"{pyramid.plane_shape[0]:,} × {pyramid.plane_shape[1]:,}" in repr(pyramid)


@pytest.mark.parametrize(
    "name", ["broken.svs", "zero_gi.tif", "notanimage.txt", "corrupt-overviews.tif"]
)
def test_bad_files_end_in_one_line_and_little_memory(shared: Path, name: str) -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        with (
            pytest.raises(HrviewerError) as caught,
            open_pyramid(shared / "data" / "bad" / name) as p,
        ):
            p.check()
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headers_cut_anywhere_never_end_in_another_error(tmp_path: Path, svs: Path) -> None:
    data = svs.read_bytes()
    path = tmp_path / "cut.svs"
    for length in (0, 3, 4, 8, 100, 1001, len(data) // 2):
        path.write_bytes(data[:length])
        with pytest.raises(HrviewerError) as caught, open_pyramid(path) as pyramid:
            pyramid.check()
        assert "\n" not in str(caught.value)


def test_other_objects_are_refused(tmp_path: Path) -> None:
    for thing, reason in (
        (tmp_path / "none.tif", "no such file"),
        (tmp_path, "a folder that is not an image"),
        (3, "int as an image"),
        ({"a": 1}, "dict as an image"),
        (["a"], "list as an image"),
    ):
        with pytest.raises(HrviewerError, match=reason):
            open_pyramid(thing)


def test_a_moved_file_is_the_same_image(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((20, 20), np.uint8))
    first = open_pyramid(tmp_path / "a.tif").fingerprint
    shutil.move(tmp_path / "a.tif", tmp_path / "b.tif")
    assert open_pyramid(tmp_path / "b.tif").fingerprint == first
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((20, 20), np.uint8))
    assert open_pyramid(tmp_path / "b.tif").fingerprint != first


class Sketch(Reader):
    """A source as a plug-in would bring it."""

    priority = 99

    @classmethod
    def supports(cls, obj: object) -> bool:
        return isinstance(obj, str) and obj.startswith("sketch:")

    @classmethod
    def open(cls, obj: object, **_: Any) -> Sketch:
        self = cls()
        self.name, self.fingerprint, self.notes, self.plane = str(obj), "f00", [], {}
        self.dtype = np.dtype(np.uint8)
        self.set_levels([((600, 600, 1), (256, 256))])
        return self

    def decode(self, level: int, row: int, column: int) -> DecodedTile:
        top, bottom, left, right = self.levels[level].tile_bounds(row, column)
        return DecodedTile(np.full((bottom - top, right - left, 1), row * 3 + column, np.uint8), 1)


def test_plugins_add_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(load=lambda: Sketch)
    monkeypatch.setattr("hrviewer.pyramid.opening.entry_points", lambda group: [entry])
    with open_pyramid("sketch:1") as pyramid:
        assert pyramid.read(Rect(500, 300, 50, 1))[-1, 0, 0] == 7
        assert json.dumps(pyramid.notes) == "[]"
