"""Stitching maps: mass and means are kept, aligned maps are copied, finer scales win."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrviewer.engine import Canvas
from hrviewer.engine.canvas import resample
from hrviewer.geometry import Rect

IMAGE = Rect(0, 0, 100, 130)


def fine(values, box, image):
    """Spread a map over level-0 pixels, evenly within each cell: a slow, obvious reference."""
    k, rows, columns = values.shape
    out = np.zeros((k, image.h, image.w))
    y, x, h, w = box
    ys, xs = y + np.arange(rows + 1) * h / rows, x + np.arange(columns + 1) * w / columns
    ys, xs = np.clip(ys, 0, image.h), np.clip(xs, 0, image.w)
    for i in range(rows):
        for j in range(columns):
            cover = np.outer(
                np.clip(
                    np.minimum(np.arange(image.h) + 1, ys[i + 1])
                    - np.maximum(np.arange(image.h), ys[i]),
                    0,
                    None,
                ),
                np.clip(
                    np.minimum(np.arange(image.w) + 1, xs[j + 1])
                    - np.maximum(np.arange(image.w), xs[j]),
                    0,
                    None,
                ),
            )
            if cover.sum():
                out += values[:, i, j, None, None] * cover / cover.sum()
    return out


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 90),
    st.integers(0, 120),
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from([1.0, 2.5, 4.0, 6.375]),
    st.sampled_from([4.0, 5.0, 8.75]),
)
def test_mass_is_resampled_exactly(y, x, rows, columns, step, cell):
    rng = np.random.default_rng(0)
    values = rng.random((2, rows, columns))
    box = (float(y), float(x), rows * step, columns * step)
    core = Rect(y, x, int(rows * step) + 1, int(columns * step) + 1) & IMAGE
    block, row, column = resample(values, box, core, IMAGE, cell, "mass")
    pixels = fine(values, box, IMAGE)
    inside = np.zeros_like(pixels)
    inside[:, core.y : core.y1, core.x : core.x1] = pixels[:, core.y : core.y1, core.x : core.x1]
    for i in range(block.shape[1]):
        for j in range(block.shape[2]):
            # Cells of fractional size: compare sums over the pixels' shares.
            top, left = (row + i) * cell, (column + j) * cell
            wy = np.clip(
                np.minimum(np.arange(IMAGE.h) + 1, top + cell)
                - np.maximum(np.arange(IMAGE.h), top),
                0,
                1,
            )
            wx = np.clip(
                np.minimum(np.arange(IMAGE.w) + 1, left + cell)
                - np.maximum(np.arange(IMAGE.w), left),
                0,
                1,
            )
            expected = (inside * np.outer(wy, wx)).sum((1, 2))
            if float(step).is_integer() and float(cell).is_integer():
                np.testing.assert_allclose(block[:, i, j], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(block.sum((1, 2)), inside.sum((1, 2)), rtol=0.02, atol=0.35)


def test_aligned_maps_are_copied_bit_for_bit():
    values = np.random.default_rng(1).random((3, 8, 8)).astype(np.float32)
    box, core = (16.0, 32.0, 32.0, 32.0), Rect(24, 40, 16, 16)
    block, row, column = resample(values, box, core, IMAGE, 4.0, "mass")
    assert (row, column) == (6, 10)
    np.testing.assert_array_equal(block, values[:, 2:6, 2:6])


def test_means_stay_means():
    block, _, _ = resample(
        np.full((1, 3, 3), 0.7), (0.0, 0.0, 30.0, 30.0), Rect(0, 0, 30, 30), IMAGE, 4.0, "intensity"
    )
    np.testing.assert_allclose(block, 0.7, rtol=1e-6)


@pytest.mark.parametrize("kind", ["mass", "intensity"])
def test_nan_does_not_spread(kind):
    """A map that extends beyond the image and has a hole, on cells of another size."""
    values = np.full((1, 6, 8), 2.0, np.float32)
    values[0, :, 7] = values[0, 5] = values[0, 1, 2] = np.nan
    whole = Rect(0, 0, 100, 130)
    block, *_ = resample(values, (0, 0, 120, 160), whole, whole, 10, kind)
    assert block.shape == (1, 10, 13)
    hole = np.zeros((10, 13), bool)
    hole[2:4, 4:6] = True
    assert np.isnan(block[0][hole]).all()
    expected = np.full((10, 13), 2.0 if kind == "intensity" else 0.5)
    if kind == "mass":
        expected[:, 12] = 1.0  # of a cell that the border halves all lies inside
    np.testing.assert_allclose(block[0][~hole], expected[~hole])


def test_mass_is_kept_at_the_images_border():
    """The last cell of a coarse map extends over the border; its mass belongs to the image."""
    values = np.ones((1, 4, 6))
    box = (0.0, 0.0, 4 * 25.5, 6 * 25.5)
    block, _, _ = resample(values, box, IMAGE, IMAGE, 4.0, "mass")
    assert block.sum() == pytest.approx(24, rel=1e-6)


def test_finer_maps_replace_coarser_ones_in_any_order():
    coarse = (np.full((1, 2, 2), 1.0), (0.0, 0.0, 64.0, 64.0), Rect(0, 0, 64, 64), 8.0)
    sharp = (np.full((1, 8, 8), 5.0), (0.0, 0.0, 32.0, 32.0), Rect(0, 0, 32, 32), 1.0)
    results = []
    for order in ((coarse, sharp), (sharp, coarse)):
        canvas = Canvas.in_memory(IMAGE, 4, 1, "intensity")
        for patch_map in order:
            canvas.paint(*patch_map)
        results.append(canvas.values)
    np.testing.assert_array_equal(results[0], results[1])
    assert results[0][0, 0, 0] == 5
    assert results[0][0, 12, 12] == 1
    assert np.isnan(results[0][0, 20, 20])


def test_painting_outside_changes_nothing():
    canvas = Canvas.in_memory(IMAGE, 4, 1, "mass")
    assert canvas.paint(np.ones((1, 1, 1)), (200.0, 0.0, 4.0, 4.0), Rect(200, 0, 4, 4), 1) is None
    assert np.isnan(canvas.values).all()


class Counted:
    """An array that counts how often it is written."""

    def __init__(self, array):
        self.array, self.shape, self.written = array, array.shape, 0

    def __getitem__(self, index):
        return self.array[index].copy()

    def __setitem__(self, index, values):
        self.written += 1
        self.array[index] = values


@pytest.mark.parametrize("window", [1 << 22, 40, 1])
def test_painting_together_is_painting_one_by_one(monkeypatch, window):
    monkeypatch.setattr("hrviewer.engine.canvas.MAX_WINDOW", window)
    rng = np.random.default_rng(0)
    patch_maps = [(np.ones((2, 1, 1)), (200.0, 0.0, 4.0, 4.0), Rect(200, 0, 4, 4), 1.0)]
    for _ in range(60):
        scale = float(rng.choice([1.0, 1.25, 2.0, 8.0]))
        y, x = (float(at) for at in rng.integers(0, 100, 2))
        values = rng.random((2, *rng.integers(1, 5, 2)))
        box = (y, x, values.shape[1] * 4 * scale, values.shape[2] * 4 * scale)
        patch_maps.append((values, box, Rect(int(y), int(x), int(box[2]), int(box[3])), scale))
    one = Canvas.in_memory(IMAGE, 5, 2, "mass")
    for patch_map in patch_maps:
        one.paint(*patch_map)
    both = Canvas.in_memory(IMAGE, 5, 2, "mass")
    values, detail = Counted(both.values), Counted(both.scales)
    Canvas(IMAGE, 5, values, detail, "mass").paint_all(iter(patch_maps))
    np.testing.assert_array_equal(both.values, one.values)
    np.testing.assert_array_equal(both.scales, one.scales)
    assert values.written == detail.written
    assert values.written == 1 if window == 1 << 22 else 10 < values.written <= 60
