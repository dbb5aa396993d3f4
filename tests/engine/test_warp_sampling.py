"""Warps: no aliasing, no lost mass, and costs where the samples are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import RecordingSink, Workbench, empty_record, picture

from hrviewer.engine.warp_inference import round_to_dtype
from hrviewer.engine.warp_sampling import finest_scale, sample, sample_density, unwarp
from hrviewer.geometry import Rect
from hrviewer.pyramid import ReadMeter, open_pyramid
from hrviewer.strategies import Estimate, WarpRequest
from hrviewer.strategies.nonuniform.grid_sampler import forward, grid_from_saliency

EVEN = np.stack(np.meshgrid(*[np.linspace(0, 1, 31)] * 2, indexing="ij"), axis=-1)


def bent(y=5, x=22):
    saliency = np.full((31, 31), 0.02)
    saliency[y : y + 5, x : x + 5] = 1
    return grid_from_saliency(saliency)


@given(st.integers(0, 25), st.integers(0, 25), st.sampled_from([(40, 60), (100, 90), (16, 12)]))
def test_mass_is_kept(y, x, shape):
    rng = np.random.default_rng(y * 31 + x)
    values = rng.uniform(0, 1, (2, 24, 28)).astype(np.float32)
    back = unwarp(values, bent(y, x), shape, "mass")
    np.testing.assert_allclose(back.sum((1, 2)), values.sum((1, 2)), rtol=1e-5)


def test_mass_is_unwarped_to_where_it_was_sampled():
    grid = bent()
    values = np.zeros((1, 64, 64), np.float32)
    values[0, 40, 21] = 3.0
    back = unwarp(values, grid, (200, 200), "mass")[0]
    ys, xs = np.nonzero(back)
    centre = np.array([(back.sum(1) @ np.arange(200)), (back.sum(0) @ np.arange(200))]) / 3.0 + 0.5
    want = forward(grid, np.array([40.5, 21.5]) / 64) * 200
    np.testing.assert_allclose(centre, want, atol=0.5)
    assert np.ptp(ys) < 10
    assert np.ptp(xs) < 10


def test_mass_magnified_beyond_the_map_stays_in_its_place():
    grid, alone = bent(), 0
    for row, column in [(12, 45), (15, 50), (18, 47), (20, 52), (16, 44)]:
        values = np.zeros((1, 64, 64), np.float32)
        values[0, row, column] = 3.0
        back = unwarp(values, grid, (12, 12), "mass")[0]
        want = forward(grid, np.array([row + 0.5, column + 0.5]) / 64) * 12
        assert back.sum() == pytest.approx(3)
        found = np.argwhere(back)
        alone += len(found) == 1
        assert np.abs(found.mean(0) - np.floor(want)).max() <= (0 if len(found) == 1 else 0.5)
    assert alone > 2


def test_an_even_density_is_unwarped_to_the_jacobian():
    grid = bent()
    back = unwarp(np.ones((1, 128, 128), np.float32), grid, (128, 128), "mass")[0]
    share = sample_density(grid, Rect(0, 0, 128, 128), Rect(0, 0, 128, 128), 128)
    coarse = [m.reshape(16, 8, 16, 8).sum((1, 3)) for m in (back / back.sum(), share)]
    np.testing.assert_allclose(coarse[0], coarse[1], rtol=0.15)
    assert share.sum() == pytest.approx(1)


def test_intensities_are_interpolated_by_the_exact_inverse():
    grid = bent()
    # On the canvas a picture of where each cell was sampled: back in the image it is a plane.
    at = (np.arange(90) + 0.5) / 90
    there = forward(grid, np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1))
    back = unwarp(np.moveaxis(there, -1, 0), grid, (60, 60), "intensity")
    want = (np.arange(60) + 0.5) / 60
    np.testing.assert_allclose(back[0, 5:-5, 5:-5], np.tile(want[5:-5, None], 50), atol=0.01)
    np.testing.assert_allclose(back[1, 5:-5, 5:-5], np.tile(want[None, 5:-5], (50, 1)), atol=0.01)


def test_an_identity_warp_is_plain_downsampling():
    image = picture(256, 320)
    pyramid = open_pyramid(image)
    sampled = sample(pyramid, pyramid.rect, EVEN, (64, 80))[0]
    np.testing.assert_allclose(sampled, pyramid.read(pyramid.rect, 4.0), atol=0.51)
    whole = sample(pyramid, pyramid.rect, EVEN, (256, 320))[0]
    np.testing.assert_allclose(whole, image, atol=1e-6)


def chirp(n=1024):
    """Stripes of 3 pixels: downsampled by more than 1.5 they must turn grey."""
    stripes = 127.5 + 127.5 * np.cos(2 * np.pi * np.arange(n) / 3)
    return np.repeat(np.tile(stripes, (n, 1))[..., None], 3, axis=2).astype(np.uint8)


def test_downsampling_does_not_alias():
    pyramid = open_pyramid(chirp())
    grid = bent(13, 13)
    shape = (256, 256)
    sampled = sample(pyramid, pyramid.rect, grid, shape)[0][..., 0]
    columns = forward(grid, np.stack([np.full(257, 0.5), np.arange(257) / 256], axis=-1))[:, 1]
    shrunk = np.diff(columns) * 1024
    middle = sampled[128]
    far = shrunk > 4
    assert far.sum() > 50
    naive = chirp()[512, (np.cumsum(shrunk) - shrunk / 2).astype(int).clip(0, 1023), 0]
    assert np.std(naive[far].astype(float)) > 60  # what reading single pixels would show
    # A mean over pixels leaves a little of what is finer than it.
    assert np.std(middle[far]) < 0.2 * np.std(naive[far])
    # Where it is not shrunk the stripes are there.
    near = shrunk < 1.3
    assert near.sum() > 10
    assert np.std(middle[near]) > 40


def test_warped_pixels_have_the_images_data_type():
    sampled = np.array([-0.4, 0.4, 0.5, 1.6, 254.6, 300.0])
    assert round_to_dtype(sampled, np.dtype(np.uint8)).tolist() == [0, 0, 1, 2, 255, 255]
    assert round_to_dtype(sampled, np.dtype(np.uint8)).dtype == np.uint8
    assert round_to_dtype(sampled, np.dtype(np.int16)).tolist() == [0, 0, 1, 2, 255, 300]
    floats = round_to_dtype(sampled, np.dtype(np.float32))
    assert floats.dtype == np.float32
    np.testing.assert_allclose(floats, sampled, rtol=1e-6)


def test_only_the_needed_pixels_are_read():
    image = picture(1024, 1024)
    pyramid = open_pyramid(image)
    part = Rect(256, 512, 200, 160)
    meter = ReadMeter()
    with meter.measure() as reading:
        sample(pyramid, part, EVEN, (50, 40), meter)
    tile = 512
    assert reading.pixels <= 4 * tile * tile
    np.testing.assert_allclose(
        sample(pyramid, part, EVEN, (50, 40))[0], pyramid.read(part, 4.0), atol=0.51
    )


def test_the_finest_scale_of_a_warp():
    assert finest_scale(Rect(0, 0, 600, 300), EVEN, (100, 100)) == pytest.approx(3)
    assert finest_scale(Rect(0, 0, 300, 300), bent(), (100, 100)) < 1.5


def run(policy, image, region=None):
    with Workbench(image) as bench:
        sink = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0))
        estimate, record, _ = bench.run(policy, sink=sink, region=region)
        return estimate, record


def test_a_warp_predicts_its_core_alone():
    image = np.full((256, 256, 3), 51, np.uint8)
    core = Rect(64, 96, 100, 80)

    def policy(context):
        rect = Rect(40, 60, 160, 160)
        done = yield WarpRequest("main", rect, EVEN, (80, 160), target="output", core=core)
        return Estimate(done.results[0].value)

    estimate, record = run(policy, image)
    assert estimate.values[0] == pytest.approx(0.2 * core.area / 2, rel=1e-5)
    (row,) = record.patches
    assert row.scale == pytest.approx(2**0.5)  # 160 × 160 pixels on 80 × 160
    painted = np.argwhere(np.isfinite(record.output.values[0])) * 4
    assert painted.min(0).tolist() == [64, 96]
    assert painted.max(0).tolist() == [160, 172]
    cells = np.argwhere(record.cost_map.values[0]) * record.cost_map.cell
    assert cells.min(0).tolist() == [64, 96]
    assert cells.max(0).tolist() == [160, 160]


def test_a_warp_beyond_the_region_keeps_its_shape():
    image = picture(256, 256)
    region = Rect(0, 0, 128, 256)

    def policy(context):
        rect = Rect(0, 0, 256, 256)
        done = yield WarpRequest("main", rect, EVEN, (256, 256), target="output", core=region)
        return Estimate(done.results[0].value)

    estimate, record = run(policy, image, region)
    want = image[:128, :, 0].sum() / 255
    assert estimate.values[0] == pytest.approx(want, rel=1e-5)
    assert np.nansum(record.output.values) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(("side", "cells"), [(256, 128), (128, 64), (64, 32), (100, 64)])
def test_an_unwarped_map_is_an_octave_finer_than_the_samples(side, cells):
    """For 256 pixels, by a network with stride 4."""

    def policy(context):
        done = yield WarpRequest("main", Rect(0, 0, 256, 256), EVEN, (side, side), target="output")
        assert done.results[0].map.shape == (1, cells, cells)
        return Estimate(done.results[0].value)

    estimate, _ = run(policy, np.full((256, 256, 3), 51, np.uint8))
    assert estimate.values[0] == pytest.approx(0.2 * side**2, rel=1e-5)
