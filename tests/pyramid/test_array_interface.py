"""A pyramid behaves as an array; plane, channels and pixel size of open."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from hrviewer.errors import HrviewerError, ImageReadError, ParameterError
from hrviewer.geometry import Rect, as_rect
from hrviewer.pyramid import (
    Pyramid,
    ReadMeter,
    open_pyramid,
    reopen_pyramid,
    tile_cache,
    using_pyramid,
)
from hrviewer.pyramid.indexing import index_window
from hrviewer.pyramid.zarr_store import as_zarr

SHAPE = (40, 30, 3)
ARRAY = np.arange(np.prod(SHAPE), dtype=np.uint16).reshape(SHAPE)

bounds = st.one_of(st.none(), st.integers(-50, 50))
steps = st.one_of(st.none(), st.integers(-7, 7).filter(bool))
slices = st.builds(slice, bounds, bounds, steps)


def axis(size: int) -> st.SearchStrategy[Any]:
    return st.one_of(slices, st.integers(-size, size - 1))


@given(y=axis(SHAPE[0]), x=axis(SHAPE[1]), c=axis(SHAPE[2]), length=st.integers(1, 3))
def test_indexing_is_numpys(y: Any, x: Any, c: Any, length: int) -> None:
    key = (y, x, c)[:length]
    (y0, y1, x0, x1), inner = index_window(key, SHAPE)
    np.testing.assert_array_equal(ARRAY[y0:y1, x0:x1][inner], ARRAY[key])


@pytest.mark.parametrize(
    "key", [..., (..., 0), (slice(3), ...), (..., slice(2, 9), 1), np.int64(4), (5, ..., 2)]
)
def test_ellipsis_and_numpy_integers(key: Any) -> None:
    pyramid = open_pyramid(ARRAY)
    np.testing.assert_array_equal(pyramid[key], ARRAY[key])


@pytest.mark.parametrize("key", [40, (0, -31), (0, 0, 3), (0, 0, 0, 0), None, [1, 2], "y", 1.5])
def test_other_indices_are_index_errors(key: Any) -> None:
    with pytest.raises(IndexError):
        open_pyramid(ARRAY)[key]


def test_a_pyramid_has_the_attributes_of_its_array() -> None:
    pyramid = open_pyramid(ARRAY)
    assert (pyramid.shape, pyramid.ndim, pyramid.dtype) == (SHAPE, 3, ARRAY.dtype)
    assert (pyramid.plane_shape, pyramid.channels, len(pyramid)) == ((40, 30), 3, 40)
    np.testing.assert_array_equal(np.asarray(pyramid), ARRAY)
    np.testing.assert_array_equal(np.asarray(pyramid.levels[0], np.float32), ARRAY)
    assert np.asarray(pyramid).shape == pyramid.shape


def test_indexing_reads_only_the_tiles_of_the_window(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((1024, 1024), np.uint8), tile=(256, 256))
    tile_cache().clear()
    with open_pyramid(tmp_path / "a.tif") as pyramid:
        assert pyramid[300:400, 10:20, 0].shape == (100, 10)
        assert tile_cache().nbytes == 256 * 256
        meter = ReadMeter()
        pyramid.read((300, 10, 100, 10), meter=meter)
        assert meter.total.pixels == 256 * 256


def test_large_images_are_not_converted_to_arrays() -> None:
    pyramid = open_pyramid(da.zeros((9000, 9000), chunks=1000, dtype=np.uint8))
    with pytest.raises(HrviewerError, match=r"9,000 × 9,000 pixels are too many"):
        np.asarray(pyramid)
    assert pyramid[8000:, 8990:].shape == (1000, 10, 1)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((600, 300, 3), np.uint8), (256, 128, 3)),
        (np.full((300, 600), np.nan, np.float32), (128, 256)),
        (np.arange(20_000, dtype=np.uint16).reshape(100, 200), (100, 200)),
        (np.zeros((100, 200, 2), np.uint8), (100, 200)),
    ],
)
def test_thumbnails_fit_and_are_bytes(array: np.ndarray, shape: tuple[int, ...]) -> None:
    small = open_pyramid(array).thumbnail()
    assert (small.dtype, small.shape) == (np.uint8, shape)


def test_a_notebook_shows_a_thumbnail_and_the_facts() -> None:
    html = open_pyramid(np.zeros((600, 300, 3), np.uint8), pixel_size=0.5)._repr_html_()
    assert 'src="data:image/png;base64,iVBOR' in html
    assert "600 × 300 × 3, uint8" in html
    assert "0.5 × 0.5 µm per pixel" in html


def test_a_notebook_does_not_read_a_large_image_without_overviews() -> None:
    def never(*_: Any) -> np.ndarray:
        raise AssertionError("a tile was read")

    array = da.map_blocks(never, chunks=((5000,), (5000,)), dtype=np.uint8, meta=np.empty((0, 0)))
    assert "<img" not in open_pyramid(array)._repr_html_()


def test_tuples_are_rectangles() -> None:
    pyramid = open_pyramid(ARRAY)
    rect = Rect(3, 4, 10, 12)
    np.testing.assert_array_equal(pyramid.read((3, 4, 10, 12)), pyramid.read(rect))
    assert pyramid.tiles([3, 4, 10, 12]) == pyramid.tiles(rect)
    assert pyramid.ground_truth((0, 0, 5, 5)) is None
    assert as_rect(np.array([3, 4, 10, 12])) == rect


@pytest.mark.parametrize("wrong", [(1, 2, 3), (0, 0, 1.5, 2), "abcd", 5, (0, 0, -1, 4), None])
def test_invalid_rectangles_are_refused(wrong: Any) -> None:
    with pytest.raises(ParameterError, match=r"pass \(y, x, height, width\)"):
        as_rect(wrong)


# Options of open


@pytest.mark.parametrize(("given", "size"), [(0.25, (0.25, 0.25)), ((0.5, 0.25), (0.5, 0.25))])
def test_the_pixel_size_may_be_given(given: Any, size: tuple[float, float]) -> None:
    pyramid = open_pyramid(ARRAY, pixel_size=given)
    assert pyramid.pixel_size == size
    assert "pixel size unknown" not in pyramid.notes


@pytest.mark.parametrize("given", [0, -1.0, (1, 2, 3), "big", "12", np.nan, (1, np.inf)])
def test_a_pixel_size_is_positive(given: Any) -> None:
    with pytest.raises(ParameterError, match="micrometres per pixel"):
        open_pyramid(ARRAY, pixel_size=given)


@pytest.mark.parametrize("given", [1, "0", [0.5], [None]])
def test_channels_are_names_and_numbers(given: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[..., 0])
    for source in (ARRAY, open_pyramid(ARRAY), tmp_path / "a.tif"):
        with pytest.raises(ParameterError, match=r"channels is a sequence of names and numbers"):
            open_pyramid(source, channels=given)


@pytest.mark.parametrize("given", ["", "nowhere.svs"])
def test_an_image_that_is_not_there(given: str) -> None:
    with pytest.raises(ImageReadError, match="there is no such file or folder"):
        open_pyramid(given)


@pytest.mark.parametrize("given", [3, "z", {"z": "1"}, {"z": 1.0}, [("z", 1)]])
def test_a_plane_is_an_index_on_each_axis(given: Any, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[..., 0])
    for source in (ARRAY, open_pyramid(ARRAY), tmp_path / "a.tif"):
        with pytest.raises(ParameterError, match="plane is the index on each further axis"):
            open_pyramid(source, plane=given)


def test_options_of_an_open_pyramid_cannot_change() -> None:
    pyramid = open_pyramid(ARRAY, channels=[2, 0], pixel_size=0.5)
    assert open_pyramid(pyramid) is pyramid
    assert open_pyramid(pyramid, channels=[2, 0], pixel_size=0.5) is pyramid
    with pytest.raises(ParameterError, match="open with channels"):
        open_pyramid(pyramid, channels=[0])
    with pytest.raises(ParameterError, match="open with pixel_size"):
        open_pyramid(pyramid, pixel_size=1)
    with pytest.raises(ParameterError, match="open with plane"):
        open_pyramid(pyramid, plane={"z": 1})


def test_an_image_is_reopened_as_it_was_recorded(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 9, (4, 2, 50, 60), np.uint8)
    tifffile.imwrite(tmp_path / "s.ome.tif", stack, metadata={"axes": "ZCYX"})
    record = {"path": str(tmp_path / "s.ome.tif"), "plane": {"z": 2}, "channels": [1]}
    with reopen_pyramid({**record, "pixel_size": [0.5, 0.25]}) as pyramid:
        np.testing.assert_array_equal(np.asarray(pyramid)[..., 0], stack[2, 1])
        assert pyramid.pixel_size == (0.5, 0.25)
        key = pyramid.levels[0].image_key
    with reopen_pyramid({"path": record["path"], "plane": {}, "channels": None}) as pyramid:
        assert pyramid.levels[0].image_key != key
        assert pyramid.plane == {"z": 0}


def test_a_pyramid_of_the_callers_stays_open(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[..., 0])
    tile_cache().clear()
    with open_pyramid(tmp_path / "a.tif") as pyramid:
        with using_pyramid(pyramid) as same:
            assert same is pyramid
        assert pyramid[0, 0, 0] == ARRAY[0, 0, 0]
    tile_cache().clear()
    with using_pyramid(tmp_path / "a.tif") as other:
        pass
    with pytest.raises(HrviewerError, match="was closed"):
        other[...]


def test_a_view_belongs_to_the_pyramid_that_it_was_made_of(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ARRAY[..., 0])
    with open_pyramid(tmp_path / "a.tif", pixel_size=0.5) as first:
        view = as_zarr(first.levels[0])
        with open_pyramid(tmp_path / "a.tif", pixel_size=2):
            assert open_pyramid(view) is first
        with using_pyramid(view, pixel_size=0.5) as same:
            assert same is first
        assert first[0, 0, 0] == ARRAY[0, 0, 0]


# Axes


def test_channels_first_is_ambiguous() -> None:
    with pytest.warns(UserWarning, match=r"\(3, 50, 60\) is read as 3 planes along 'z'") as caught:
        pyramid = open_pyramid(np.zeros((3, 50, 60), np.uint8))
    assert caught[0].filename == __file__
    assert pyramid.shape == (50, 60, 1)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((5, 50, 60), {}),
        ((3, 50, 60), {"plane": {"z": 1}}),
        ((50, 60, 3), {}),
        ((3, 50, 60, 3), {}),
        ((1, 50, 60), {}),
    ],
)
def test_other_arrays_do_not_warn(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_pyramid(np.zeros(shape, np.uint8), **options)


class Labelled:
    """What this package uses of an xarray.DataArray."""

    variable = None
    encoding: dict[str, str] = {}  # noqa: RUF012 - as xarray has it
    chunks = None
    name = "labelled"

    def __init__(self, data: Any, dims: tuple[str, ...]) -> None:
        self.data, self.dims = data, dims
        self.shape, self.dtype, self.ndim = data.shape, data.dtype, data.ndim

    def __getitem__(self, key: Any) -> Any:
        return self.data[key]


def data_array(data: Any, dims: tuple[str, ...]) -> Any:
    try:
        from xarray import DataArray
    except ImportError:
        return Labelled(data, dims)
    return DataArray(data, dims=dims, name="labelled")


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    ("dims", "options", "expected"),
    [
        (("c", "y", "x"), {}, lambda a: a.transpose(1, 2, 0)),
        (("band", "x", "y"), {"channels": [2, 0]}, lambda a: a.transpose(2, 1, 0)[..., [2, 0]]),
        (("x", "channel", "y"), {}, lambda a: a.transpose(2, 0, 1)),
        (("y", "time", "x"), {"plane": {"time": 4}}, lambda a: a[:, 4, :, None]),
        (("time", "latitude", "longitude"), {}, lambda a: a[0, :, :, None]),
    ],
)
def test_dims_name_the_axes(
    lazy: bool, dims: tuple[str, ...], options: dict[str, Any], expected: Any
) -> None:
    data = np.random.default_rng(0).integers(0, 99, (3, 50, 60), np.uint8)
    array = data_array(da.from_array(data, chunks=20) if lazy else data, dims)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyramid: Pyramid = open_pyramid(array, **options)
    np.testing.assert_array_equal(np.asarray(pyramid), expected(data))
    assert pyramid.name == "labelled"


def test_the_order_of_dims_is_part_of_the_fingerprint() -> None:
    data = np.zeros((3, 50, 50), np.uint8)
    one, two = (data_array(data, dims) for dims in (("c", "y", "x"), ("c", "x", "y")))
    assert open_pyramid(one).fingerprint != open_pyramid(two).fingerprint
    assert open_pyramid(one).fingerprint == open_pyramid(one).fingerprint


@pytest.mark.parametrize("dims", [("a", "b", "x"), ("y", "x", "row"), ("c", "band", "y")])
def test_dims_without_y_and_x_are_refused(dims: tuple[str, ...]) -> None:
    with pytest.raises(ParameterError, match=re.escape(f"has the dimensions {', '.join(dims)}")):
        open_pyramid(data_array(np.zeros((3, 4, 5), np.uint8), dims))


def test_its_line_counts_its_levels(tmp_path):
    with open_pyramid(np.zeros((40, 50, 3), np.uint8)) as one:
        assert repr(one).endswith(": 40 × 50 × 3, uint8, 1 level>")
    path = tmp_path / "two.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(np.zeros((64, 64), np.uint8), tile=(32, 32), subifds=1)
        tiff.write(np.zeros((32, 32), np.uint8), tile=(32, 32), subfiletype=1)
    with open_pyramid(path) as two:
        assert repr(two).endswith(": 64 × 64 × 1, uint8, 2 levels>")
