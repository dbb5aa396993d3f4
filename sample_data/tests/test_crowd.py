from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from hrviewer.geometry import Rect
from hrviewer.pyramid import open_pyramid
from hrviewer.pyramid.resample import block_mean
from hypothesis import given, settings
from hypothesis import strategies as st

from hrviewer_samples.crowd import Crowd

SIZE = 8192
IMAGE = Crowd(SIZE, 8)
WHOLE = Rect(0, 0, SIZE, SIZE)


def crowded(side: int, city: Crowd = IMAGE) -> Rect:
    """Return the square that holds most people."""
    cells = (city.ground_truth(WHOLE).points // side).astype(int)
    places, counts = np.unique(cells, axis=0, return_counts=True)
    y, x = places[counts.argmax()] * side
    return Rect(int(y), int(x), side, side)


def test_it_opens_by_its_url() -> None:
    pyramid = open_pyramid(f"sample:crowd?size={SIZE}&seed=8")
    rect = Rect(4000, 4000, 300, 200)
    np.testing.assert_array_equal(pyramid.read(rect), IMAGE.render(rect, 1))
    truth = pyramid.ground_truth(pyramid.rect)
    assert truth is not None
    assert len(truth) == len(IMAGE.ground_truth(WHOLE)) > 0


@settings(max_examples=25, deadline=None)
@given(
    y=st.integers(0, 112), x=st.integers(0, 112), dy=st.integers(0, 8), dx=st.integers(0, 8),
    h=st.integers(1, 8), w=st.integers(1, 8), power=st.integers(0, 6), seed=st.integers(0, 9),
)  # fmt: skip
def test_rectangles_that_overlap_agree_bit_for_bit(
    y: int, x: int, dy: int, dx: int, h: int, w: int, power: int, seed: int
) -> None:
    scale = 2**power
    city = Crowd(SIZE, seed)
    large = city.render(Rect(y * 64, x * 64, 1024, 1024), scale)
    small = city.render(Rect((y + dy) * 64, (x + dx) * 64, h * 64, w * 64), scale)
    top, left = dy * 64 // scale, dx * 64 // scale
    part = large[top : top + small.shape[0], left : left + small.shape[1]]
    np.testing.assert_array_equal(part, small)


def test_earlier_requests_change_nothing() -> None:
    rect = Rect(6016, 2048, 256, 256)
    first = Crowd(SIZE, 5).render(rect, 2)
    other = Crowd(SIZE, 5)
    other.render(Rect(0, 0, 512, 512), 1)
    other.ground_truth(WHOLE)
    np.testing.assert_array_equal(other.render(rect, 2), first)
    assert (Crowd(SIZE, 6).render(rect, 2) != first).any()


@pytest.mark.parametrize("seed", [0, 3, 8, 13])
@pytest.mark.parametrize("scale", [2, 4, 8, 16, 32, 64])
def test_a_level_is_the_mean_of_the_finer_one(seed: int, scale: int) -> None:
    city = Crowd(SIZE, seed)
    side = max(512, 32 * scale)
    off = []
    for y, x in ((0, 0), (2048, 4096), (4096, 1024), (SIZE - side, SIZE - side)):
        rect = Rect(y, x, side, side)
        coarse = city.render(rect, scale).astype(float)
        off.append(np.abs(coarse - block_mean(city.render(rect, scale // 2), 2)).mean())
    assert np.mean(off) < 2


@pytest.mark.parametrize("scale", [4, 16])
def test_an_overview_is_the_mean_of_full_resolution(scale: int) -> None:
    rect = Rect(4096, 3072, 1024, 1024)
    direct = IMAGE.render(rect, scale).astype(float)
    assert np.abs(direct - block_mean(IMAGE.render(rect, 1), scale)).mean() < 2


def test_a_huge_image_has_the_same_kind_of_overview() -> None:
    huge = Crowd(131_072, 3)
    got = huge.render(Rect(32_768, 0, 32_768, 32_768), 128).astype(float)
    finer = block_mean(huge.render(Rect(32_768, 0, 32_768, 32_768), 64), 2)
    assert np.abs(got - finer).mean() < 2


def test_ground_truth_of_parts_adds_up() -> None:
    whole = IMAGE.ground_truth(WHOLE)
    parts = [
        IMAGE.ground_truth(Rect(y, x, 1000, 700) & WHOLE)
        for y in range(0, SIZE, 1000)
        for x in range(0, SIZE, 700)
    ]
    assert sum(len(part) for part in parts) == len(whole)
    joined = np.concatenate([part.points for part in parts])
    np.testing.assert_array_equal(joined[np.lexsort(joined.T)], _sorted(whole.points))


def _sorted(points: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> object:
    return points[np.lexsort(points.T)]


def test_people_grow_from_6_to_60_pixels() -> None:
    boxes = np.concatenate([Crowd(SIZE, seed).ground_truth(WHOLE).boxes for seed in range(8)])
    feet, tall = boxes[:, 0] + boxes[:, 2], boxes[:, 2]
    np.testing.assert_allclose(tall, 6 + 54 * feet / SIZE, rtol=1e-9)
    assert tall.min() < 9
    assert tall.max() > 55


class Empty(Crowd):
    """The same city without its people."""

    populated: ClassVar[bool] = False


def test_only_the_counted_people_are_drawn() -> None:
    """Without people, pixels differ inside every person's box, and nowhere but near people."""
    empty = Empty(SIZE, 4)
    full = Crowd(SIZE, 4)  # overcast: shadows lie at the feet
    rect = crowded(1024, full)
    with_people = full.render(rect, 1).astype(int)
    changed = np.abs(with_people - empty.render(rect, 1)).sum(axis=2) > 0
    near = np.zeros_like(changed)
    truth = full.ground_truth(rect.pad(150) & WHOLE)
    assert len(truth) > 30
    assert truth.boxes is not None
    for (y, x), (top, left, h, w) in zip(truth.points, truth.boxes, strict=True):
        a, b = int(top - rect.y - 0.2 * h), int(top - rect.y + 1.15 * h)
        c, d = int(left - rect.x - 0.5 * w), int(left - rect.x + 1.5 * w)
        near[max(0, a) : max(0, b), max(0, c) : max(0, d)] = True
        i, j = int(y) - rect.y, int(x) - rect.x
        if 2 <= i < 1022 and 2 <= j < 1022:
            assert changed[i - 1 : i + 2, j - 1 : j + 2].any()
    assert not (changed & ~near).any()


def test_labels_match_the_ground_truth() -> None:
    rect = crowded(512)
    truth, labels = IMAGE.ground_truth(rect), IMAGE.labels(rect)
    assert labels.shape == (512, 512)
    assert labels.dtype == np.int32
    assert truth.boxes is not None
    seen = 0
    for k, (top, left, h, w) in enumerate(truth.boxes, 1):
        ys, xs = np.nonzero(labels == k)
        seen += len(ys) > 0
        if len(ys):
            assert ys.min() + rect.y >= top - 0.1 * h - 1
            assert ys.max() + rect.y <= top + 1.05 * h + 1
            assert xs.min() + rect.x >= left - 0.4 * w - 1
            assert xs.max() + rect.x <= left + 1.4 * w + 1
    assert seen >= 0.97 * len(truth) > 20


def test_labels_cover_what_people_change() -> None:
    """Where people stand, the image differs from the empty city (save for dark edges)."""
    rect = crowded(512)
    labels = IMAGE.labels(rect)
    bare = Empty(SIZE, 8).render(rect, 1).astype(int)
    changed = np.abs(IMAGE.render(rect, 1) - bare).sum(axis=2) > 0
    assert changed[labels > 0].mean() > 0.98


def test_heads_are_visible() -> None:
    """At most one head in thirty is mostly hidden by another person or a thing."""
    hidden = total = 0
    for seed in (2, 5, 8):
        city = Crowd(SIZE, seed)
        rect = crowded(512, city)
        truth, labels = city.ground_truth(rect), city.labels(rect)
        for k, (y, x) in enumerate(truth.points, 1):
            i, j = int(y) - rect.y, int(x) - rect.x
            if 3 <= i < 509 and 3 <= j < 509:
                total += 1
                hidden += not (labels[i - 2 : i + 3, j - 2 : j + 3] == k).any()
    assert total > 60
    assert hidden <= total / 30


def test_counts_vary_and_most_tiles_are_empty() -> None:
    counts, empty = [], []
    for seed in range(60):
        points = Crowd(SIZE, seed).ground_truth(WHOLE).points
        counts.append(len(points))
        tiles = {(int(y) // 256, int(x) // 256) for y, x in points}
        empty.append(1 - len(tiles) / (SIZE // 256) ** 2)
    assert np.std(counts) / np.mean(counts) >= 0.5
    assert min(counts) > 50
    assert min(empty) >= 0.8
    assert max(empty) <= 0.95


def test_a_larger_image_is_a_larger_place() -> None:
    small, large = (len(Crowd(n, 0).ground_truth(Rect(0, 0, n, n))) for n in (4096, 16_384))
    assert large > 6 * small
