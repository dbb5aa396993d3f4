"""Reading rectangles at scales, against the arithmetic written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid, tile_cache

H, W = 37, 53
SMALL = np.random.default_rng(7).integers(0, 256, (H, W, 3), np.uint8)


def box(image: np.ndarray, rect: Rect, scale: float, down: tuple[float, float]) -> np.ndarray:
    """Average the areas one by one, in float64; `image` is a level of that downsample."""
    out = np.empty((math.ceil(rect.h / scale), math.ceil(rect.w / scale), image.shape[2]))
    cover = []
    for start, stop, d, size, count in (
        (rect.y, rect.y1, down[0], image.shape[0], out.shape[0]),
        (rect.x, rect.x1, down[1], image.shape[1], out.shape[1]),
    ):
        low = (start + np.arange(count) * scale) / d
        high = np.minimum(start + (np.arange(count) + 1) * scale, stop) / d
        at = np.arange(size)
        cover.append(
            np.clip(np.minimum(high[:, None], at + 1) - np.maximum(low[:, None], at), 0, None)
        )
    total = np.einsum("iy,yxc,jx->ijc", cover[0], image.astype(float), cover[1], optimize=True)
    area = cover[0].sum(1)[:, None] * cover[1].sum(1)[None]
    return total / area[..., None]


def assert_rounded(got: np.ndarray, means: np.ndarray) -> None:
    """`got` is `means` rounded half up; a half that floats miss by a hair may go either way."""
    wanted = np.floor(means + 0.5)
    tie = np.abs(means + 0.5 - np.round(means + 0.5)) < 1e-6
    assert got.shape == means.shape
    assert (np.abs(got - wanted)[~tie] == 0).all()
    assert (np.abs(got - wanted)[tie] <= 1).all()


@pytest.mark.parametrize("which", ["svs", pytest.param("tcga", marks=pytest.mark.slow)])
def test_full_resolution_equals_tifffile_and_openslide(
    which: str, request: pytest.FixtureRequest
) -> None:
    openslide = pytest.importorskip("openslide")
    path: Path = request.getfixturevalue(which)
    expected = tifffile.imread(path, series=0, level=0)
    with open_pyramid(path) as pyramid, openslide.OpenSlide(path) as slide:
        assert pyramid.plane_shape == expected.shape[:2]
        np.testing.assert_array_equal(pyramid.read(pyramid.rect), expected)
        for rect in (Rect(0, 0, 300, 301), Rect(1234, 777, 513, 258), Rect(2900, 2100, 67, 120)):
            region = slide.read_region((rect.x, rect.y), 0, (rect.w, rect.h)).convert("RGB")
            np.testing.assert_array_equal(pyramid.read(rect), np.asarray(region))


@pytest.mark.parametrize("scale", [1, 2, 3, 8, 2.5, 1.3, 7.77, 64, 0.5, 0.4])
def test_box_filter_is_the_mean_of_the_area(scale: float) -> None:
    pyramid = open_pyramid(SMALL)
    for rect in (pyramid.rect, Rect(3, 5, 20, 31), Rect(30, 40, 7, 13)):
        assert_rounded(pyramid.read(rect, scale), box(SMALL, rect, scale, (1, 1)))


def test_ties_are_rounded_up_and_whole_blocks_are_exact() -> None:
    pyramid = open_pyramid(np.array([[0, 1], [1, 0], [3, 4], [4, 3]], np.uint8))
    assert pyramid.read(pyramid.rect, 2)[..., 0].tolist() == [[1], [4]]  # 0.5 and 3.5
    signed = open_pyramid(np.array([[-1, 0], [0, -1]], np.int16))
    assert signed.read(signed.rect, 2)[..., 0].tolist() == [[0]]  # −0.5
    large = open_pyramid(np.full((64, 64), 65535, np.uint16))
    assert large.read(large.rect, 64).item() == 65535


@pytest.mark.parametrize("scale", [2.0, 2.0005, 3.0, 4.0, 5.3])
def test_level_of_odd_downsample_is_read_in_register(tcga: Path, scale: float) -> None:
    level = tifffile.imread(tcga, series=0, level=1)
    with open_pyramid(tcga) as pyramid:
        down = pyramid.levels[1].downsample
        assert down == pytest.approx((2.0005609, 2.0004502), abs=1e-6)
        for rect in (Rect(1001, 2003, 201, 303), Rect(3400, 4300, 167, 143)):
            assert_rounded(pyramid.read(rect, scale), box(level, rect, scale, down))


def test_scale_below_the_next_level_uses_the_finer_one(tcga: Path) -> None:
    with open_pyramid(tcga) as pyramid:
        assert pyramid.level_for(1.9).index == 0
        assert pyramid.level_for(2.0).index == 1
        assert pyramid.level_for(0.25).index == 0


@settings(max_examples=60, deadline=None)
@given(
    y=st.integers(-90, 80),
    x=st.integers(-90, 80),
    h=st.integers(1, 60),
    w=st.integers(1, 60),
    scale=st.sampled_from([1, 1, 2, 3, 2.5]),
    fill=st.sampled_from(["reflect", "edge", 7]),
)
def test_beyond_the_border_is_numpys_pad(
    y: int, x: int, h: int, w: int, scale: float, fill: str | float
) -> None:
    pad = 200
    around = [(pad, pad), (pad, pad), (0, 0)]
    if isinstance(fill, str):
        whole = np.pad(SMALL, around, mode=fill)  # type: ignore[call-overload]
    else:
        whole = np.pad(SMALL, around, constant_values=fill)
    rect = Rect(y, x, h, w)
    got = open_pyramid(SMALL).read(rect, scale, fill=fill)  # type: ignore[arg-type]
    assert_rounded(got, box(whole, rect.shift(pad, pad), scale, (1, 1)))


def test_without_fill_the_rectangle_is_clipped() -> None:
    pyramid = open_pyramid(SMALL)
    np.testing.assert_array_equal(pyramid.read(Rect(-5, 50, 10, 10)), SMALL[:5, 50:])
    with pytest.raises(ValueError, match="no pixel inside"):
        pyramid.read(Rect(0, W, 5, 5))


@pytest.mark.parametrize(
    ("scale", "fill"), [(0, None), (-1, None), (math.inf, None), (1, 300), (1, 0.5), (1, "wrap")]
)
def test_invalid_scales_and_fills_are_refused(scale: float, fill: object) -> None:
    with pytest.raises(ValueError, match=r"scale|fit|fill"):
        open_pyramid(SMALL).read(Rect(-1, 0, 5, 5), scale, fill=fill)  # type: ignore[arg-type]


def test_an_empty_rectangle_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        open_pyramid(SMALL).read(Rect(0, 0, 0, 5), fill="edge")


@pytest.mark.parametrize("scale", [2, 2.5])
def test_nan_is_left_out_of_means(scale: float) -> None:
    image = np.arange(30, dtype=np.float32).reshape(5, 6)
    image[:3, :3] = np.nan
    image[4, 5] = np.nan
    pyramid = open_pyramid(image)
    got = pyramid.read(pyramid.rect, scale)[..., 0]
    valid = box(~np.isnan(image)[..., None], pyramid.rect, scale, (1, 1))[..., 0]
    sums = box(np.nan_to_num(image)[..., None], pyramid.rect, scale, (1, 1))[..., 0]
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(got, np.where(valid > 0, sums / valid, np.nan), rtol=1e-6)
    assert np.isnan(got[0, 0])


def test_a_constant_beyond_the_border_may_be_nan() -> None:
    got = open_pyramid(np.ones((4, 4), np.float32)).read(Rect(-2, 0, 4, 2), 2, fill=math.nan)
    assert np.isnan(got[0]).all()
    assert got[1].item() == 1


def test_large_reads_are_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(3).integers(0, 4096, (611, 703), np.uint16)
    pyramid = open_pyramid(image)
    rect = Rect(11, 13, 590, 680)
    wanted = {scale: pyramid.read(rect, scale) for scale in (2, 2.5, 100, 600.5)}
    read: list[int] = []
    level = pyramid.levels[0]
    original = level.read_as_tile

    def watched(*window: int, **options: object) -> np.ndarray:
        read.append((window[1] - window[0]) * (window[3] - window[2]))
        return original(*window, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(level, "read_as_tile", watched)
    monkeypatch.setattr("hrviewer.pyramid.area_read.BLOCK_PIXELS", 5000)
    for scale, whole in wanted.items():
        np.testing.assert_array_equal(pyramid.read(rect, scale), whole)
    assert max(read) <= 10_000
    np.testing.assert_array_equal(pyramid.read(rect)[..., 0], image[11:601, 13:693])
    assert tile_cache().nbytes == 0  # arrays are not copied into the cache
