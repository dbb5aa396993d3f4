"""The baselines and shared functions of strategies, without torch, files or a screen."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import FLOPS, card

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Patch, Rect, snap_scale
from hrviewer.models.accuracy import ScaleCurve, ScalePoint
from hrviewer.runs import parse_params
from hrviewer.strategies import (
    ModelInfo,
    PatchRequest,
    PlanContext,
    Publish,
    Response,
    activation_map,
    aggregate,
    alignment_step,
    batches,
    exhaustive_tile,
    get_strategy,
    input_rect,
    input_shape,
    strategy_ids,
    tiles,
    total_flops,
)
from hrviewer.strategies.estimation.sampling_grid import build_grid
from hrviewer.strategies.tiling import PatchTotal


@dataclass
class Fake:
    """A result whose value is the area of its core in level-0 pixels."""

    patch: Patch
    objects = None

    @property
    def value(self):
        return np.array([float(self.patch.core.area)])

    @property
    def map(self):
        return self.value[:, None, None].astype(np.float32)


def model_info(**changes) -> ModelInfo:
    made = card("net")
    inputs = made.input.model_copy(update=changes)
    return ModelInfo(
        made.model_copy(update={"input": inputs}),
        4,
        changes.pop("halo", 0),
        lambda h, w: FLOPS * h * w,
    )


def context(h=1000, w=1300, region=None, budget=math.inf, native=1.0, **changes) -> PlanContext:
    return PlanContext(
        (h, w),
        (1.0,),
        None,
        region or Rect(0, 0, h, w),
        native,
        {"main": model_info(**changes)},
        budget,
    )


def follow(strategy_id: str, context: PlanContext, **params):
    """Respond to a policy with fakes; return its requests, publications and estimate."""
    strategy = get_strategy(strategy_id)
    plan = strategy.plan(context, strategy.Params(**params))
    requests, published, response = [], [], None
    spent = 0.0
    while True:
        try:
            request = next(plan) if response is None else plan.send(response)
        except StopIteration as end:
            return requests, published, end.value
        if isinstance(request, Publish):
            published.append(request)
            response = Response()
            continue
        assert isinstance(request, PatchRequest)
        requests.append(request)
        results = []
        for patch in request.patches:
            cost = context.main.flops(*input_shape(context.main, patch, context.rect))
            if spent + cost > context.budget:
                break
            spent += cost
            results.append(Fake(patch))
        response = Response(
            tuple(results), spent, context.budget - spent, len(results) < len(request.patches)
        )


regions = st.builds(
    Rect, st.integers(0, 700), st.integers(0, 700), st.integers(1, 600), st.integers(1, 600)
)


@given(regions, st.sampled_from([1.0, 2.0, 2.1875, 3.1875, 7.5]), st.integers(0, 100))
def test_tiles_cover_a_region_once_on_the_lattice(region, scale, tile):
    main = model_info()
    image = Rect(0, 0, 1300, 1300)
    patches = tiles(main, region, scale, tile=tile or None)
    assert sum(patch.core.area for patch in patches) == region.area
    assert all(patch.core in region for patch in patches)
    assert len({patch.core for patch in patches}) == len(patches)
    step = alignment_step(main, scale)
    assert step % 1 == 0
    assert (step / scale) % 4 == 0
    for patch in patches:
        rect = input_rect(main, patch, image)
        assert patch.core in rect
        assert rect.y % step == rect.x % step == 0


@pytest.mark.parametrize("params", [{}, {"tile": 100}, {"grid": "3x4"}, {"halo": 8, "tile": 64}])
def test_patches_process_every_pixel_once(params):
    requests, published, estimate = follow("patches", context(), **params)
    assert sum(p.core.area for request in requests for p in request.patches) == 1000 * 1300
    assert estimate.values[0] == 1000 * 1300
    assert all(len(request.patches) <= 256 for request in requests)
    assert all(request.target == "output" for request in requests)
    assert any(publication.kind == "estimate" for publication in published)
    np.testing.assert_allclose(published[-2].map[np.isfinite(published[-2].map)], 1.0)


def crowd_like(**changes) -> ModelInfo:
    """A model of tiles of 512 with a halo of 96 that takes 108 bytes a pixel."""
    made = card("net", tile=512, **changes)
    return ModelInfo(made, 4, 96, lambda h, w: FLOPS * h * w, 16, bytes_per_pixel=lambda: 108.0)


def test_the_exhaustive_tile_follows_from_halo_and_memory():
    image = Rect(0, 0, 8192, 8192)
    side = exhaustive_tile(crowd_like(), image, 1.0)
    # Inputs of 288 MiB have 1672 pixels a side, so six tiles are needed along a side.
    assert side == 1376
    cost = total_flops(crowd_like(), tiles(crowd_like(), image, 1.0, tile=side), image)
    assert cost / FLOPS / image.area == (8192 + 5 * 192) ** 2 / 8192**2 < 1.25
    assert exhaustive_tile(crowd_like(), Rect(0, 0, 1000, 400), 1.0) == 1008
    assert exhaustive_tile(crowd_like(), Rect(0, 0, 2000, 400), 2.0) == 1008
    assert exhaustive_tile(crowd_like(), image, 1.0, halo=16) == 512  # within 20 % already
    large = replace(crowd_like(), bytes_per_pixel=lambda: 1024.0)
    assert exhaustive_tile(large, image, 1.0) == 512


def test_a_tile_remains_the_cards_where_a_larger_one_saves_nothing():
    image = Rect(0, 0, 8192, 8192)
    assert exhaustive_tile(replace(crowd_like(), halo=0), image, 1.0) == 512
    assert exhaustive_tile(replace(crowd_like(), flops=lambda h, w: h * h * w * w), image, 1) == 512
    fixed = crowd_like().card
    fixed = fixed.model_copy(update={"input": fixed.input.model_copy(update={"fixed": True})})
    assert exhaustive_tile(replace(crowd_like(), card=fixed), image, 1.0) == 512


def test_patches_records_its_tile_and_takes_small_ones_for_a_part_of_a_view():
    whole = replace(context(8192, 8192), models={"main": crowd_like()})
    strategy, params = get_strategy("patches"), get_strategy("patches").Params()
    assert strategy.choose(whole, params).tile == 1376
    assert strategy.choose(whole, strategy.Params(tile=64)).tile == 64
    cell = replace(whole, region=Rect(0, 0, 2048, 2048))
    assert strategy.as_part(cell, whole, params)[1].tile == 512
    poor = replace(whole, budget=0.01 * FLOPS * whole.rect.area)
    assert strategy.choose(poor, params).tile < 512  # many small places


def test_patches_within_a_budget_are_a_random_sample_that_estimates_the_whole():
    tile = FLOPS * 64 * 64
    requests, published, estimate = follow("patches", context(budget=tile * 40.5))
    done = [p.core for r in requests for p in r.patches][: round(40.5)]
    # All parts of the region, in another order for another seed, the same for the same one.
    assert len({(core.y // 500, core.x // 433) for core in done}) == 6
    again, *_ = follow("patches", context(budget=tile * 40.5))
    assert again[0].patches == requests[0].patches
    other, *_ = follow("patches", replace(context(budget=tile * 40.5), seed=1))
    assert other[0].patches != requests[0].patches
    # The fake counts areas, so there is no sampling error.
    assert estimate.values == pytest.approx([1000 * 1300])
    assert estimate.interval == pytest.approx((1000 * 1300,) * 2)
    assert "of 336 tiles were processed, drawn at random" in estimate.note
    assert {p.kind for p in published} == {"saliency"}


def test_patches_within_a_small_budget_give_no_estimate():
    for tiles_paid in (0.5, 3.5):
        *_, estimate = follow("patches", context(budget=FLOPS * 64 * 64 * tiles_paid))
        assert estimate.values is None
        assert "too few for an estimate" in estimate.note


def test_a_budget_for_all_tiles_changes_nothing():
    requests, published, estimate = follow("patches", context(budget=FLOPS * 1000 * 1300))
    plain, published_plain, whole = follow("patches", context())
    assert [r.patches for r in requests] == [r.patches for r in plain]
    assert (estimate.values, estimate.interval, estimate.note) == (whole.values, None, "")
    assert len(published) == len(published_plain)


def test_patches_have_native_scale():
    requests, _, _ = follow("patches", context(native=2.0))
    assert {patch.scale for patch in requests[0].patches} == {2.0}


def measured(*points: tuple[float, float, float]) -> ScaleCurve:
    """A curve of scales, gains and relative errors."""
    return ScaleCurve(
        domain="images",
        images=1,
        data="none",
        command="none",
        points=(
            ScalePoint(scale=1, gain=1),
            *(ScalePoint(scale=s, gain=g, relative=r) for s, g, r in points),
        ),
    )


def test_counts_at_a_scale_are_corrected_by_the_measured_curve():
    curve = measured((2.0, 1.25, 0.1), (8.0, 1.5, 0.1))
    there = replace(context(1024, 1024), scale_curve=curve)
    _, _, estimate = follow("uniform", there, scale=4.0)
    gain = 1.375  # half way between, by the logarithm
    expected = 1024**2 / gain
    assert estimate.values[0] == pytest.approx(expected)
    assert estimate.interval == pytest.approx((expected * (1 - 0.196), expected * (1 + 0.196)))
    assert estimate.note == "downsampled by 4 per side; corrected by 0.73 for the scale 1/4"
    _, _, estimate = follow("uniform", there, scale=16.0)
    assert (estimate.values[0], estimate.interval) == (1024**2, None)
    assert "not corrected: counts at 1/16 were not measured" in estimate.note
    _, _, estimate = follow("uniform", there, scale=1.0)
    assert (estimate.values[0], estimate.note) == (1024**2, "not downsampled")
    # At half its size an image has half the shrinking.
    _, _, estimate = follow("uniform", replace(there, native_scale=2.0), scale=4.0)
    assert estimate.values[0] == pytest.approx(1024**2 / 1.25)


def test_a_sample_at_a_scale_of_unknown_error_has_no_interval():
    def sample(native: float):
        there = context(98304, 98304, budget=0.7 * FLOPS * 49152**2, native=native)
        _, published, estimate = follow("uniform", there, scale=2.0)
        assert estimate.values[0] == pytest.approx(98304**2)
        assert "drawn at random" in estimate.note
        return [each.interval for each in published if each.kind == "estimate"], estimate.interval

    assert sample(native=1.0) == ([None], None)
    (earlier,), last = sample(native=2.0)
    assert earlier == pytest.approx((98304**2,) * 2) == last


def test_a_budget_buys_the_scale_of_the_least_error():
    strategy = get_strategy("uniform")
    jagged = measured((1.5, 0.8, 0.3), (2.0, 1.0, 0.05), (4.0, 1.3, 0.2))
    there = replace(context(1024, 1024, budget=FLOPS * 1024**2 / 1.5**2 * 1.02), scale_curve=jagged)
    assert strategy.choose(there, strategy.Params()).scale == 2.0
    there = replace(there, budget=FLOPS * 1024**2 / 3.0**2 * 1.02)
    assert strategy.choose(there, strategy.Params()).scale == 3.0
    plain = replace(there, budget=FLOPS * 1024**2 / 1.5**2 * 1.02, scale_curve=None)
    assert strategy.choose(plain, strategy.Params()).scale == 1.5


@pytest.mark.parametrize("budget", [0.1, 0.5])
def test_a_part_of_a_view_has_the_scale_of_the_whole_at_any_cost_of_its_halo(budget):
    model = {"main": replace(model_info(), halo=32)}
    whole = replace(context(1024, 1024), models=model, budget=budget * FLOPS * 1024**2)
    strategy = get_strategy("uniform")
    params = strategy.Params()
    scale = strategy.choose(whole, params).scale
    cell = Rect(256, 512, 256, 256)
    part = replace(whole, region=cell, budget=whole.budget / 16)
    assert strategy.choose(part, params).scale > scale  # as a run of the cell alone
    context_, chosen = strategy.as_part(part, whole, params)
    assert (chosen.scale, context_.budget) == (scale, math.inf)
    # A scale that the user gave and that the budget does not pay for is cut short in both.
    given = strategy.Params(scale=1.0)
    assert strategy.as_part(part, whole, given) == (part, given)


@pytest.mark.parametrize("fraction", [0.5, 0.1, 0.01, 0.001])
def test_uniform_takes_the_smallest_scale_within_the_budget(fraction):
    full = 1000 * 1300 * FLOPS
    requests, published, estimate = follow("uniform", context(budget=fraction * full))
    patches = [patch for request in requests for patch in request.patches]
    (scale,) = {patch.scale for patch in patches}
    main = context().main
    cost = total_flops(main, patches, Rect(0, 0, 1000, 1300))
    assert cost <= fraction * full
    assert len(patches) == 1
    sharper = tiles(main, Rect(0, 0, 1000, 1300), snap_scale(scale / 1.1), tile=2048)
    assert total_flops(main, sharper, Rect(0, 0, 1000, 1300)) > fraction * full
    assert estimate.values[0] == 1000 * 1300
    assert published[0].kind == "saliency"
    assert f"by {scale:g}" in estimate.note
    # A budget of exactly that cost is enough.
    (request,), *_ = follow("uniform", context(budget=cost))
    assert request.patches == tuple(patches)


def test_uniform_at_a_scale_beyond_its_budget_notes_it():
    requests, _, estimate = follow("uniform", context(budget=FLOPS * 5000), scale=4)
    assert {patch.scale for patch in requests[0].patches} == {4.0}
    assert estimate.values is None
    assert "too few for an estimate, raise the budget" in estimate.note


def test_a_budget_below_one_input_is_refused():
    with pytest.raises(HrviewerError, match="raise the budget"):
        follow("uniform", context(budget=3.0))


def test_models_of_fixed_size_have_the_halo_inside_their_tile():
    main = model_info(fixed=True)
    patch = tiles(main, Rect(0, 0, 200, 200), 2.0, halo=8)[0]
    assert (patch.core.h, patch.core.w) == (96, 96)
    assert input_rect(main, patch, Rect(0, 0, 200, 200)) == Rect(-16, -16, 128, 128)
    assert input_shape(main, patch, Rect(0, 0, 200, 200)) == (64, 64)


@given(
    tile=st.integers(16, 450),
    stride=st.sampled_from([1, 4, 32, 1000]),
    multiple=st.sampled_from([1, 32]),
    halo=st.integers(0, 100),
    scale=st.floats(0.5, 3),
    region=st.tuples(*[st.integers(0, 900)] * 2, *[st.integers(1, 700)] * 2),
)
def test_models_of_fixed_size_miss_no_pixel(tile, stride, multiple, halo, scale, region):
    """Cores divide the region, and every input covers its core with the halo, or all is refused."""
    scale, region = snap_scale(scale), Rect(*region)
    main = replace(
        model_info(fixed=True, tile=tile * multiple, multiple_of=multiple),
        stride=min(stride, tile * multiple),
    )
    if 2 * math.ceil(halo * scale) >= round(tile * multiple * scale):
        with pytest.raises(HrviewerError, match="choose a halo below"):
            tiles(main, region, scale, halo=halo)
        return
    patches = tiles(main, region, scale, halo=halo)
    assert sum(patch.core.area for patch in patches) == region.area
    assert all(patch.core in region for patch in patches)
    for patch in patches:
        assert patch.rect in input_rect(main, patch, Rect(0, 0, 1600, 1600))


def test_parameters_without_effect_on_a_fixed_size_are_refused():
    small, tile = context(h=60, w=64, fixed=True), {"fixed": True}
    with pytest.raises(
        HrviewerError, match="64 pixels a side only: for cores of 32, choose halo=16"
    ):
        follow("patches", context(**tile), tile=32)
    with pytest.raises(HrviewerError, match=r"grid=2x2 makes parts of 500 × 652: leave grid out"):
        follow("patches", context(**tile), grid="2x2")
    with pytest.raises(HrviewerError, match="give one of them"):
        follow("patches", context(), grid="2x2", tile=32)
    with pytest.raises(HrviewerError, match="leave tile out"):
        follow("zoom", context(**tile), tile=512)
    requests, *_ = follow("patches", small, grid="1x1")
    assert [patch.core for patch in requests[0].patches] == [Rect(0, 0, 60, 64)]


def test_aggregate_by_task():
    results = [Fake(Patch(Rect(0, 0, 2, 2))), Fake(Patch(Rect(0, 2, 4, 2)))]
    main = model_info()
    assert aggregate(main, results)[0] == 12
    assert aggregate(main, []) is None
    voting = ModelInfo(card("c", task="classification"), 4, 0, main.flops)
    assert aggregate(voting, results)[0] == pytest.approx((4 * 4 + 8 * 8) / 12)
    coding = ModelInfo(card("e", task="embedding", classes=[], width=1), 4, 0, main.flops)
    assert aggregate(coding, results) is None


def test_activation_map_is_aligned_with_its_patches():
    main = model_info()
    region = Rect(100, 30, 300, 200)
    patches = tiles(main, region, 1.0)
    publication = activation_map([Fake(p) for p in patches[1:]], patches)
    rows, columns = publication.map.shape
    cell = publication.rect.h // rows
    assert cell == publication.rect.w // columns == 64
    assert np.isnan(publication.map[0, 0])
    assert np.isfinite(publication.map).sum() == len(patches) - 1
    # The grid continues the whole tiles' edges, also above and left of a cut one.
    assert (patches[-1].core.y - publication.rect.y) % cell == 0
    assert (patches[-1].core.x - publication.rect.x) % cell == 0


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        ("classification", [0.5, 0.3, 0.2], 0.5),  # of the others
        ("segmentation", [1024, 2048, 1024], 0.5),
        ("multi-label", [0.5, 0.9, 0.2], 0.9),
        ("regression", [63.0, 2.0, 1.0], 63.0),
    ],
)
def test_activation_of_classes_is_not_their_known_sum(task, value, expected):
    activation = "softmax" if task == "classification" else "none"
    one = card("c", task=task, classes=["a", "b", "c"], activation=activation)
    patch = Patch(Rect(0, 0, 64, 64))
    found = activation_map([PatchTotal(patch, np.array(value, float))], [patch], one)
    assert found.map.tolist() == [[pytest.approx(expected)]]


@pytest.mark.parametrize(
    ("strategy", "params", "message"),
    [
        ("zoom", {"k": 3, "method": "sampling"}, "k has no effect with method=sampling"),
        ("zoom", {"width": 5}, "width has no effect with method=topk, only with sampling"),
        ("patches", {"verify": 3}, "verify has no effect with mode=tiles"),
        ("transformer", {"detail": "uniform", "tokens": 0.5}, "tokens has no effect"),
    ],
)
def test_options_without_effect_are_refused(strategy, params, message):
    with pytest.raises(HrviewerError, match=message):
        parse_params(get_strategy(strategy), params)


def test_batches_keep_the_order():
    assert [len(r) for r in batches(tuple(range(10)), 4)] == [4, 4, 2]


def test_strategies_are_found_by_name():
    assert strategy_ids()[:2] == ["uniform", "patches"]
    for name in strategy_ids():
        strategy = get_strategy(name)
        assert strategy.id == name
        assert strategy.title
        assert strategy.when
        strategy.Params()
    with pytest.raises(HrviewerError, match="choose one of: uniform, patches"):
        get_strategy("best")


def test_strategies_import_neither_torch_nor_readers():
    code = (
        "import sys; from hrviewer.strategies import get_strategy; get_strategy('patches');"
        "print([m for m in ('torch','tifffile','zarr','dask','napari','onnxruntime') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("enough", "taken"), [(None, 64), (16, 16), (96, 64), (0, 0)])
def test_cells_are_measured_with_sufficient_context(enough, taken):
    main = replace(model_info(), halo=64)
    output = main.card.output.model_copy(update={"context": enough})
    main = replace(main, card=main.card.model_copy(update={"output": output}))
    there = replace(context(), models={"main": main})
    assert {patch.halo for patch in build_grid(there, 128, math.inf).patches} == {taken}
    assert {patch.halo for patch in build_grid(there, 128, math.inf, 8).patches} == {8}


@given(regions, st.sampled_from([0, 64, 100]))
def test_maps_of_cells_are_aligned_with_the_cells(region, side):
    grid = build_grid(context(1300, 1300, region), side, 1e9)
    values, rect = grid.as_map(np.arange(len(grid.patches), dtype=float))
    assert values.shape == grid.shape
    for number, patch in enumerate(grid.patches):
        y, x = patch.core.center
        row, column = int((y - rect.y) // grid.cell), int((x - rect.x) // grid.cell)
        assert values[row, column] == number
        cell = Rect(rect.y + row * grid.cell, rect.x + column * grid.cell, grid.cell, grid.cell)
        assert patch.core.area - (patch.core & cell).area <= 4 * (patch.core.h + patch.core.w)
