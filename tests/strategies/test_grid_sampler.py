"""Warps: they neither fold nor crop, and have an exact inverse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hrviewer.strategies.nonuniform.grid_sampler import (
    forward,
    forward_boxes,
    grid_from_saliency,
    inverse,
    limit_magnification,
    max_magnification,
)

EVEN = np.stack(np.meshgrid(*[np.linspace(0, 1, 31)] * 2, indexing="ij"), axis=-1)

saliencies = arrays(float, (31, 31), elements=st.floats(1e-3, 1.0))
blocky = st.builds(
    lambda small, factor: np.kron(small, np.ones((4, 4)))[:31, :31] ** factor,
    arrays(float, (8, 8), elements=st.floats(0.01, 1.0)),
    st.floats(1, 3),
)


def spot(y=6, x=24, size=4, low=0.01):
    """A saliency with one bright spot."""
    saliency = np.full((31, 31), low)
    saliency[y : y + size, x : x + size] = 1
    return saliency


def folds(grid):
    """Twice the smallest signed area of the triangles at the corners of every cell."""
    p, q, r, s = grid[:-1, :-1], grid[:-1, 1:], grid[1:, :-1], grid[1:, 1:]

    def area(o, a, b):
        u, v = a - o, b - o
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    return min(part.min() for part in (area(p, r, q), area(q, p, s), area(s, q, r), area(r, s, p)))


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("padding", ["reflect", "edge"])
def test_a_uniform_saliency_gives_the_identity(separable, padding):
    grid = grid_from_saliency(np.full((31, 31), 0.3), separable=separable, padding=padding)
    np.testing.assert_allclose(grid, EVEN, atol=1e-6)


@given(st.one_of(saliencies, blocky), st.sampled_from([4.0, 13.0, 20.0]), st.booleans())
def test_no_saliency_folds_the_image(saliency, fwhm, separable):
    grid = grid_from_saliency(saliency, fwhm, separable=separable)
    assert (np.diff(grid[..., 0], axis=0) > 0).all()
    assert (np.diff(grid[..., 1], axis=1) > 0).all()
    assert folds(grid) > 0
    # The border stays on the border: nothing is cropped.
    np.testing.assert_allclose(grid[0, :, 0], 0, atol=1e-12)
    np.testing.assert_allclose(grid[-1, :, 0], 1, atol=1e-12)
    np.testing.assert_allclose(grid[:, 0, 1], 0, atol=1e-12)
    np.testing.assert_allclose(grid[:, -1, 1], 1, atol=1e-12)


def test_replication_loses_the_border_that_reflection_keeps():
    saliency = spot(12, 12, 6, low=1e-3)
    cropped = grid_from_saliency(saliency, padding="edge")
    kept = grid_from_saliency(saliency)
    assert np.ptp(cropped[..., 0]) < 0.9
    assert np.ptp(kept[..., 0]) == pytest.approx(1)


def test_the_grid_equals_the_sum_of_the_paper():
    rng = np.random.default_rng(0)
    saliency = rng.uniform(0.1, 1, (9, 9))
    padded = np.pad(saliency, 8, mode="reflect")
    at = np.arange(-8, 17)
    slow = np.zeros((9, 9, 2))
    for i in range(9):
        for j in range(9):
            dy, dx = np.meshgrid(at - i, at - j, indexing="ij")
            kernel = np.exp(-4 * np.log(2) * (dy**2 + dx**2) / 5.0**2)
            kernel[(abs(dy) > 8) | (abs(dx) > 8)] = 0
            weight = padded * kernel
            slow[i, j] = (
                (weight * at[:, None]).sum() / weight.sum() / 8,
                (weight * at[None, :]).sum() / weight.sum() / 8,
            )
    np.testing.assert_allclose(grid_from_saliency(saliency, 5.0), slow, atol=1e-12)


def test_salient_places_are_magnified():
    grid = grid_from_saliency(spot())
    _, areas = inverse(grid, np.array([8.0 / 30]), np.array([26.0 / 30]))
    assert areas[0, 0] > 4
    assert max_magnification(grid) > 2


def test_magnification_is_limited():
    grid = grid_from_saliency(spot())
    assert max_magnification(limit_magnification(grid, 1.5)) == pytest.approx(1.5)
    np.testing.assert_allclose(limit_magnification(grid, 1.0), EVEN, atol=1e-12)
    assert limit_magnification(grid, 100) is grid


@given(blocky, st.integers(0, 1000))
def test_inverse_of_forward_is_the_identity(saliency, seed):
    grid = grid_from_saliency(saliency)
    rng = np.random.default_rng(seed)
    ys, xs = np.sort(rng.uniform(0, 1, 17)), np.sort(rng.uniform(0, 1, 23))
    places, areas = inverse(grid, ys, xs)
    want = np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1)
    np.testing.assert_allclose(forward(grid, places), want, atol=1e-9)
    assert (areas > 0).all()


def test_the_jacobian_equals_finite_differences():
    grid = grid_from_saliency(spot())
    y, x, e = 0.31, 0.77, 1e-6
    _, areas = inverse(grid, np.array([y]), np.array([x]))
    near = [
        inverse(grid, np.array([y + dy]), np.array([x + dx]))[0][0, 0]
        for dy, dx in ((-e, 0), (e, 0), (0, -e), (0, e))
    ]
    (a, b), (c, d) = (near[1] - near[0]) / (2 * e), (near[3] - near[2]) / (2 * e)
    assert areas[0, 0] == pytest.approx(a * d - b * c, rel=1e-4)
    ys = xs = (np.arange(400) + 0.5) / 400
    assert inverse(grid, ys, xs)[1].mean() == pytest.approx(1, abs=1e-3)


def test_points_outside_the_grid_are_nan():
    grid = 0.25 + 0.5 * EVEN
    places, areas = inverse(grid, np.array([0.1, 0.5]), np.array([0.5, 0.9]))
    assert np.isnan(places[0]).all()
    assert np.isnan(places[1, 1]).all()
    np.testing.assert_allclose(places[1, 0], [0.5, 0.5])
    np.testing.assert_allclose(areas, [[0, 0], [4, 0]])


def test_boxes_map_with_their_corners():
    grid = grid_from_saliency(spot(), separable=True)
    boxes = np.array([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 1.0]])
    back = forward_boxes(grid, boxes)
    low = forward(grid, boxes[:, :2])
    high = forward(grid, boxes[:, :2] + boxes[:, 2:])
    np.testing.assert_allclose(back, np.concatenate([low, high - low], axis=1))
    np.testing.assert_allclose(back[1], boxes[1], atol=1e-12)
    # And back on the canvas, by the inverse.
    place, _ = inverse(grid, back[:1, 0], back[:1, 1])
    np.testing.assert_allclose(place[0, 0], boxes[0, :2], atol=1e-9)


def test_saliencies_must_be_positive_squares():
    with pytest.raises(ValueError, match="positive"):
        grid_from_saliency(np.zeros((5, 5)))
    with pytest.raises(ValueError, match="rows"):
        grid_from_saliency(np.ones((5, 6)))
