"""The memory benchmark: its image, its pan, and one measurement."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import memory
from hrviewer.geometry import Rect


def test_the_image_repeats_its_tile_wherever_it_is_read() -> None:
    image = memory.TiledArray(10_000_000)
    window = image[5_000_000:5_000_700, 9_999_000:10_000_000]
    assert window.shape == (700, 1000, 3)
    np.testing.assert_array_equal(window[:100, :100], window[512:612, 512:612])


def test_levels_halve_down_to_a_tile() -> None:
    sides = [level.shape[0] for level in memory.make_levels(16)]
    assert 15.5e9 < sides[0] ** 2 <= 16e9
    assert sides[-1] <= memory.TILE < sides[-2]


def test_the_pan_stays_inside_and_asks_for_as_much_of_any_size() -> None:
    for gigapixels in 1, 16:
        side = memory.make_levels(gigapixels)[0].shape[0]
        for rect, scale in memory.iter_views((side, side)):
            assert rect in Rect(0, 0, side, side)
            assert not rect.empty
            assert rect.h / scale <= 1025


@pytest.mark.slow
def test_memory_does_not_follow_the_images_size() -> None:
    # Both hold more than the cache of tiles, which either would fill.
    found = memory.measure([0.2, 0.8], patches=200)
    assert set(found["bytes"]) == {"0.2", "0.8"}
    assert found["ratio"] < 1.3
