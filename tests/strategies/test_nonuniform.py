"""Non-uniform downsampling: the allocation of pixels, its cost, and its benefit."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, maximum_filter
from toys import (
    FLOPS,
    Bright,
    RecordingSink,
    ToyBundle,
    Workbench,
    blocks,
    card,
    empty_record,
    picture,
)

from hrviewer.engine import Budget, InferencePipeline, build_context, run_plan
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Patch, Rect
from hrviewer.models.accuracy import ScaleCurve, ScalePoint
from hrviewer.strategies import (
    ModelInfo,
    PatchRequest,
    PlanContext,
    Publish,
    Response,
    WarpRequest,
    get_strategy,
)
from hrviewer.strategies.nonuniform.allocation import PixelDensity, partition
from hrviewer.strategies.nonuniform.importance import (
    kernel_density,
    prior_importance,
    scout_importance,
)
from hrviewer.strategies.nonuniform.leaf_requests import warp_factor
from hrviewer.strategies.nonuniform.overview import choose_overview, sample_regions


class Blobs(Bright):
    """Counts bright dots, as long as there are pixels between them."""

    def __init__(self):
        super().__init__("blobs", halo=8)

    def predict(self, batch):
        gray = batch.mean(1)
        smooth, around = (gaussian_filter(gray, (0, s, s)) for s in (0.7, 3))
        dots = (smooth == maximum_filter(smooth, (0, 3, 3))) & (smooth - around > 0.08)
        return blocks(np.repeat(dots[:, None].astype(float), 3, axis=1))


class Scout(Bright):
    """A density of brightness with variances, for images downsampled by 8."""

    def __init__(self, variance):
        super().__init__("scout")
        inputs = self.card.input.model_copy(update={"downsample": 8.0})
        output = self.card.output.model_copy(update={"variance": variance})
        self.card = self.card.model_copy(update={"input": inputs, "output": output})

    def predict(self, batch):
        density = np.maximum(blocks(batch) - 5, 0)
        return np.concatenate([density, density], 1) if self.card.output.variance else density


def dots(n=1024, many=700, few=20, seed=0):
    """Small bright dots, most of them in a corner, and their positions."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(4, 300, (many, 2)), rng.uniform(4, n - 4, (few, 2))])
    mask = np.zeros((n, n))
    for y, x in points.astype(int):
        mask[y - 1 : y + 2, x - 1 : x + 2] = 1
    image = 60 + rng.normal(0, 2, (n, n)) + 150 * gaussian_filter(mask, 0.7)
    return np.repeat(image.clip(0, 255)[..., None], 3, axis=2).astype(np.uint8), points


def run(
    image,
    bundle=None,
    name="nonuniform",
    *,
    share=0.1,
    region=None,
    priors=None,
    scale_curve=None,
    **params,
):
    """Run a strategy; return its estimate, record and requests."""
    events = []
    strategy = get_strategy(name)
    with Workbench(image, bundle) as bench:
        area = (region or bench.pyramid.rect).area
        context, _, _ = build_context(
            bench.pyramid,
            bench.models,
            strategy,
            region=region,
            budget=Budget(share * area * FLOPS, "flops"),
            priors=priors,
        )
        context = replace(context, scale_curve=scale_curve)
        sink = RecordingSink(empty_record(bench.pyramid, bench.models, context.native_scale))
        pipeline = InferencePipeline(bench.pyramid, bench.models, bench.device, context.region)
        plan = strategy.plan(context, strategy.Params(**params))
        estimate = run_plan(plan, pipeline, sink, budget=context.budget, on_event=events.append)
    requests = [
        update for update in events if isinstance(update, PatchRequest | WarpRequest | Publish)
    ]
    return estimate, sink.record, requests


def pixels(request):
    """Model pixels of a request to main, by core."""
    if isinstance(request, WarpRequest):
        return [(request.core, math.prod(request.shape))]
    return [(patch.core, patch.core.area / patch.scale**2) for patch in request.patches]


def cores(requests):
    return [pair for r in requests if getattr(r, "role", "") == "main" for pair in pixels(r)]


# Its benefit.


def test_it_counts_what_uniform_downsampling_loses():
    image, points = dots()
    errors = {}
    for name in ("uniform", "nonuniform"):
        estimate, record, _ = run(image, ToyBundle(main=Blobs()), name)
        assert record.cost_map.total.flops <= 0.1 * image[..., 0].size * FLOPS * (1 + 1e-9)
        map_ = np.nan_to_num(record.output.values[0]).reshape(8, 32, 8, 32).sum((1, 3))
        truth = np.histogramdd(points, [np.linspace(0, 1024, 9)] * 2)[0]
        errors[name] = abs(estimate.values[0] - len(points)), abs(map_ - truth).sum()
        assert np.nansum(record.output.values) == pytest.approx(estimate.values[0], rel=1e-3)
    assert errors["nonuniform"][0] < 0.5 * errors["uniform"][0]
    assert errors["nonuniform"][1] < 0.5 * errors["uniform"][1]


def test_a_uniform_image_gets_a_uniform_scale():
    image = np.full((1024, 1024, 3), 80, np.uint8)
    _, _, requests = run(image, ToyBundle(main=Bright()))
    assert not any(isinstance(request, WarpRequest) for request in requests)
    scales = {
        patch.scale
        for r in requests
        if isinstance(r, PatchRequest) and r.role == "main"
        for patch in r.patches
    }
    assert max(scales) / min(scales) < 1.2
    assert 3 < min(scales) < 4


# The allocation.


@pytest.mark.parametrize("variance", [False, True])
def test_a_scout_runs_at_its_scale_and_decides(variance):
    image = np.full((1024, 1536, 3), 20, np.uint8)
    image[600:700, 1000:1150] = 250
    _, record, requests = run(image, ToyBundle(main=Bright(), scout=Scout(variance)))
    scout_requests = [r for r in requests if getattr(r, "role", "") == "scout"]
    assert {patch.scale for r in scout_requests for patch in r.patches} == {8.0}
    cost = record.cost_map.values[0] / record.cost_map.cell**2
    assert cost[38:43, 64:70].mean() > 0.5 * FLOPS
    assert np.median(cost) < 0.1 * FLOPS
    # Nothing is magnified beyond full resolution.
    for request in requests:
        if isinstance(request, WarpRequest):
            steps = (
                np.diff(request.grid[..., 0], axis=0).min(),
                np.diff(request.grid[..., 1], axis=1).min(),
            )
            g = len(request.grid) - 1
            assert steps[0] * g * request.rect.h / request.shape[0] > 0.98
            assert steps[1] * g * request.rect.w / request.shape[1] > 0.98


@pytest.mark.parametrize("name", ["gradient", "entropy", "foreground"])
def test_built_in_importance(name):
    rng = np.random.default_rng(0)
    image = np.full((1024, 1024, 3), 250, np.uint8)
    image[512:768, :256] = rng.integers(0, 255, (256, 256, 3))
    _, record, requests = run(image, ToyBundle(main=Bright()), importance=name)
    assert any(getattr(r, "role", "") == f"@{name}" for r in requests)
    cost = record.cost_map.values[0]
    assert cost[34:46, 2:14].mean() > 4 * cost[:, 32:].mean()


def test_prior_maps_have_priority():
    image = picture(1024, 1024)
    prior = np.zeros((64, 64))
    prior[8:16, 40:48] = 2.0
    for name in ("saliency", "density"):
        _, record, requests = run(image, ToyBundle(main=Bright()), priors={name: prior})
        assert all(getattr(r, "role", "main") == "main" for r in requests)
        cost = record.cost_map.values[0]
        assert cost[9:15, 41:47].mean() > 5 * cost[32:].mean()
        with pytest.raises(HrviewerError, match="choose another importance"):
            run(image, ToyBundle(main=Bright()), importance=name)


@pytest.mark.parametrize("region", [None, Rect(37, 50, 611, 500), Rect(3, 5, 40, 30)])
@pytest.mark.parametrize("share", [0.1, 0.4, 2.0])
def test_the_region_is_covered_once_within_the_budget(region, share):
    image = picture(800, 700)
    estimate, record, requests = run(image, share=share, region=region)
    area = region or Rect(0, 0, 800, 700)
    found = [core for core, _ in cores(requests)]
    assert sum((core & area).area for core in found) == area.area
    assert len(set(found)) == len(found)
    assert all(core in area for core in found)
    assert record.cost_map.total.flops <= share * area.area * FLOPS * (1 + 1e-9)
    want = image[area.y : area.y1, area.x : area.x1, 0].sum() / 255
    if share == 2.0 and area.h > 40:  # at full resolution
        assert estimate.values[0] == pytest.approx(want, rel=0.03)
    shown = [r for r in requests if isinstance(r, Publish) and r.kind == "saliency"]
    assert len(shown) == 1
    assert shown[0].map.max() == pytest.approx(1)


def test_a_small_image_is_one_warp():
    image = picture(600, 600)
    image[200:320, 300:420] = np.random.default_rng(0).integers(0, 255, (120, 120, 3))
    _, _, requests = run(image, ToyBundle(main=Bright()))
    assert [rect.astuple() for rect, _ in cores(requests)] == [(0, 0, 600, 600)]


def test_separable_grids_are_separable():
    image, _ = dots()
    _, _, requests = run(image, ToyBundle(main=Bright()), separable=True)
    grids = [r.grid for r in requests if isinstance(r, WarpRequest)]
    assert grids
    for grid in grids:
        assert np.ptp(grid[..., 0], axis=1).max() < 1e-12
        assert np.ptp(grid[..., 1], axis=0).max() < 1e-12


def test_a_model_of_fixed_size_always_has_it():
    main = Bright()
    main.card = main.card.model_copy(
        update={"input": main.card.input.model_copy(update={"fixed": True})}
    )
    image, _ = dots()
    estimate, _, requests = run(image, ToyBundle(main=main), context=4)
    shapes = {r.shape for r in requests if isinstance(r, WarpRequest)}
    assert shapes == {(64, 64)}
    assert sum(core.area for core, _ in cores(requests)) == 1024 * 1024
    assert np.isfinite(estimate.values).all()


# A scout that counts.


class Half(Scout):
    """A scout that predicts half of what ``main`` counts."""

    def predict(self, batch):
        density = 32 * blocks(batch)
        return np.concatenate([density, density + 1e-3], 1)


def test_random_squares_correct_a_scout_that_counts_too_little():
    rng = np.random.default_rng(0)
    image = np.zeros((1024, 1024, 3), np.uint8)
    for y, x in rng.integers(0, 127, (90, 2)) * 8:
        image[y : y + 8, x : x + 8] = 200
    bundle = ToyBundle(main=Bright(), scout=Half(variance=True))
    estimate, record, requests = run(image, bundle, share=0.3, coarsest=1.0)
    expected = image[..., 0].sum() / 255
    assert estimate.interval[0] < expected < estimate.interval[1]
    assert estimate.values.sum() == pytest.approx(expected, rel=0.15)
    assert "squares drawn at random correct the scout by" in estimate.note
    assert record.cost_map.total.flops <= 0.3 * 1024**2 * FLOPS * (1 + 1e-9)
    # The scout's prediction is kept where nothing is: main reads a part of the image.
    area = sum(core.area for core, _ in cores(requests))
    assert area < 0.7 * 1024**2
    scouts = [r for r in requests if isinstance(r, PatchRequest) and r.role == "scout"]
    assert {r.target for r in scouts} == {"output"}
    assert np.isfinite(record.output.values).all()


# Failures.


def test_too_small_a_budget_is_refused():
    with pytest.raises(HrviewerError, match="raise the budget"):
        run(picture(64, 64), ToyBundle(main=Bright()), share=1e-4, priors={"saliency": np.eye(8)})


def test_the_end_of_the_budget_is_noted():
    strategy = get_strategy("nonuniform")
    role = ModelInfo(card("net"), 4, 0, lambda h, w: FLOPS * h * w)
    context = PlanContext(
        (900, 900), (1.0,), None, Rect(0, 0, 900, 900), 1.0, {"main": role}, 5e6,
        priors={"saliency": np.eye(30)},
    )  # fmt: skip
    plan = strategy.plan(context, strategy.Params())
    assert isinstance(next(plan), Publish)
    request = plan.send(Response())
    assert isinstance(request, PatchRequest | WarpRequest)
    with pytest.raises(StopIteration) as end:
        plan.send(Response(stop=True))
    assert end.value.value.values is None
    assert "budget" in end.value.value.note


# Its parts.


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(0, 99), st.sampled_from([4, 16, 12]))
def test_leaves_cover_a_region_once(h, w, seed, step):
    rng = np.random.default_rng(seed)
    region = Rect(seed * 7, seed * 3, h, w)
    values = np.clip(rng.uniform(0, 1, (-(-h // 64), -(-w // 64))) ** 6, 1 / 64, 1)
    leaves = list(partition(PixelDensity(region, 64, values), 2048, 256, 1024, step))
    assert sum(leaf.rect.area for leaf in leaves) == region.area
    assert all(leaf.rect in region and not leaf.rect.empty for leaf in leaves)
    assert len({leaf.rect for leaf in leaves}) == len(leaves)
    sides = [max(leaf.rect.h, leaf.rect.w) * math.sqrt(leaf.density) for leaf in leaves]
    assert max(sides) < 1024 + 2 * step + 64


class Given:
    """A result with a map."""

    def __init__(self, box, map_):
        self.box, self.map = box, map_
        self.patch, self.value = Patch(Rect(*map(int, box))), map_.sum((1, 2))


def scouted(shape, budget):
    models = {
        name: ModelInfo(card(name), 4, 0, lambda h, w: FLOPS * h * w) for name in ("main", "scout")
    }
    return PlanContext(shape, (1.0,), None, Rect(0, 0, *shape), 1.0, models, budget)


def test_the_parts_are_corrected_by_their_scales():
    at_scales = {"domain": "images", "images": 1, "data": "none", "command": "none"}
    points = [ScalePoint(scale=2.0**i, gain=1 + 0.25 * i) for i in range(4)]
    there = replace(scouted((64, 64), math.inf), scale_curve=ScaleCurve(**at_scales, points=points))
    # A quarter of the objects at full resolution, the others at a half and at a quarter.
    density = np.array([[1.0, 1 / 4], [1 / 16, 1 / 16]])
    weights = density / density.sum()
    expected = weights[0, 0] + weights[0, 1] / 1.25 + weights[1].sum() / 1.5
    assert warp_factor(there, density) == pytest.approx(expected)
    image = dots()[0]
    curve = ScaleCurve(**at_scales, points=[*points[:1], ScalePoint(scale=64.0, gain=1.0)])
    assert curve.at(8.0).gain == 1.0
    plain, _, _ = run(image)
    same, _, _ = run(image, scale_curve=curve)
    assert same.values == plain.values
    doubled = ScaleCurve(
        **at_scales,
        points=[ScalePoint(scale=1.0, gain=2.0), ScalePoint(scale=64.0, gain=2.0)],
    )
    half, _, _ = run(image, scale_curve=doubled)
    assert half.values == pytest.approx(plain.values / 2)
    assert "; corrected by 0.50 for the scales of its parts" in half.note


def test_squares_stand_for_a_large_region():
    small, large = scouted((4096, 4096), math.inf), scouted((10_000, 20_000), math.inf)
    overview = choose_overview(large, "auto")
    assert (overview.role, overview.scale, overview.note) == ("scout", 1.0, "")
    assert sample_regions(small, overview) == [small.region]
    squares = sample_regions(large, overview)
    assert len({*squares}) == len(squares) == 32
    assert all(square in large.region for square in squares)
    halves = [square.x >= 10_000 for square in squares]
    assert 12 <= sum(halves) <= 20  # from all parts


def test_a_scout_that_does_not_run_at_the_size_of_its_training_is_noted():
    full = FLOPS * 1024 * 1024
    notes = [choose_overview(scouted((1024, 1024), n * full), "scout").note for n in (4.1, 2, 1e-9)]
    assert notes == [
        "",
        "the scout ran at 1/2 of the size of its training, as the budget allows",
        "the budget does not pay for the scout: importance is the same everywhere",
    ]


def test_the_importance_of_a_density_is_its_deviation():
    role = ModelInfo(card("net", variance=True), 4, 0, lambda h, w: 1.0)
    both = np.stack([np.full((4, 4), 9.0), np.arange(16.0).reshape(4, 4)]).astype(np.float32)
    found = scout_importance(
        role, [Given((0.0, 0.0, 128.0, 128.0), both)], Rect(0, 0, 128, 128), 32
    )
    expected = np.sqrt(np.arange(16.0) / 15).reshape(4, 4)
    np.testing.assert_allclose(found.values / found.values.max(), expected)
    # Without variances, that of a Poisson distribution.
    role = ModelInfo(card("net"), 4, 0, lambda h, w: 1.0)
    found = scout_importance(
        role, [Given((0.0, 0.0, 128.0, 128.0), both[1:])], Rect(0, 0, 128, 128), 64
    )
    sums = both[1].reshape(2, 2, 2, 2).sum((1, 3))
    np.testing.assert_allclose(found.values / found.values.max(), np.sqrt(sums / sums.max()))


def test_failed_patches_leave_a_gap():
    role = ModelInfo(card("net"), 4, 0, lambda h, w: 1.0)
    blank = Given((0.0, 0.0, 64.0, 64.0), np.full((1, 1, 1), np.nan, np.float32))
    seen = Given((0.0, 64.0, 64.0, 64.0), np.ones((1, 2, 2), np.float32))
    found = scout_importance(role, [blank, seen], Rect(0, 0, 64, 128), 32)
    np.testing.assert_array_equal(found.values > 0, [[0, 0, 1, 1], [0, 0, 1, 1]])


def test_a_kernel_density_is_a_sum_of_gaussians():
    image = Rect(0, 0, 640, 640)
    prior = np.zeros((40, 40))
    prior[20, 12] = prior[20, 28] = 1
    found = kernel_density(prior_importance(prior, image, image, 16), 48.0).values
    at = np.arange(40)
    bump = sum(
        np.exp(-((at[:, None] - 20) ** 2 + (at[None, :] - x) ** 2) / (2 * 3.0**2)) for x in (12, 28)
    )
    np.testing.assert_allclose(found, bump / bump.max(), atol=2e-3)


def test_prior_maps_cover_the_whole_image():
    prior = np.arange(16.0).reshape(4, 4)
    part = prior_importance(prior, Rect(0, 0, 400, 400), Rect(200, 100, 200, 200), 100)
    np.testing.assert_allclose(part.values, prior[2:, 1:3] / prior[2:, 1:3].max())
