"""Selective zooming on images of known counts, with good, bad and missing scouts."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import (
    FLOPS,
    Blurred,
    Bright,
    RecordingSink,
    ToyBundle,
    Workbench,
    card,
    empty_record,
)

from hrviewer.engine import ResultCache
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models import ModelCard
from hrviewer.strategies import ModelInfo, PlanContext, get_strategy
from hrviewer.strategies.estimation.coarse_pass import scout_predicts_counts
from hrviewer.strategies.zoom import Zoom, ZoomParams

METHODS = ["sampling", "topk", "threshold", "quadtree"]


class Scout(Bright):
    """Predicts the sum of each block and its variance, on an image downsampled by 8.

    The sum of a shrunk picture times 64 is the sum of the picture, so this scout is never wrong;
    `error` makes it so, by a factor that changes from block to block.
    """

    def __init__(self, *, variance: bool = True, error: float = 0.0, tile: int = 64) -> None:
        super().__init__("scout", variance=variance)
        fields = self.card.model_dump()
        fields["input"] |= {"downsample": 8.0, "tile": tile}
        self.card = ModelCard.model_validate(fields)
        self.error = error

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        count = 64 * super().predict(batch)
        wave = np.sin(count * 12.9898 + 0.5)
        finite = count * (1 + self.error * wave)
        if not self.card.output.variance:
            return finite.astype(np.float32)
        return np.concatenate([finite, (self.error * count) ** 2 + 0.01], axis=1).astype(np.float32)

    def _count(self, h: int, w: int) -> float:
        return FLOPS / 4 * h * w


class Wants(Bright):
    """Selects tiles of 128 pixels with a probability that grows with their brightness.

    `shy` wants nothing.
    """

    def __init__(self, *, shy: bool = False) -> None:
        super().__init__("policy", task="saliency", stride=16)
        fields = self.card.model_dump()
        fields["input"] |= {"downsample": 8.0, "multiple_of": 16}
        self.card = ModelCard.model_validate(fields)
        self.stride, self.period, self.shy = 16, 16, shy

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        n, _, h, w = batch.shape
        h, w = h // 16 * 16, w // 16 * 16
        tiles = batch[:, :1, :h, :w].reshape(n, 1, h // 16, 16, w // 16, 16).mean((3, 5))
        return (0.0 if self.shy else 1.0) * (tiles > 0.05)

    def _count(self, h: int, w: int) -> float:
        return h * w


def with_policy(scout: Scout | None = None, *, shy: bool = False) -> ToyBundle:
    return ToyBundle(main=Bright(), scout=scout or Scout(error=0.5), policy=Wants(shy=shy))


def clusters(h: int = 1024, w: int = 1536, n: int = 20, seed: int = 0) -> NDArray[np.uint8]:
    """Return blobs on black."""
    rng = np.random.default_rng(seed)
    image = np.zeros((h, w, 3), np.uint8)
    for _ in range(n):
        y, x = rng.integers(0, h - 80), rng.integers(0, w - 80)
        image[y : y + 64, x : x + 72] = rng.integers(40, 255, (64, 72, 1))
    return image


IMAGE = clusters()
COUNT = IMAGE[..., 0].sum(dtype=float) / 255
WHOLE = FLOPS * IMAGE.shape[0] * IMAGE.shape[1]


def run(
    image: NDArray[Any] = IMAGE,
    bundle: ToyBundle | None = None,
    *,
    seed: int = 0,
    region: Rect | None = None,
    budget: float | None = None,
    sink: RecordingSink | None = None,
    cache: ResultCache | None = None,
    **params: Any,
):
    """Run `zoom` and return its estimate, the record and the published maps and estimates."""
    from hrviewer.engine import InferencePipeline, build_context, run_plan
    from hrviewer.engine.budget import Budget

    bundle = bundle or ToyBundle(main=Bright(), scout=Scout(error=0.5))
    strategy, published = Zoom(), []
    with Workbench(image, bundle) as bench:
        context, _, _ = build_context(
            bench.pyramid,
            bench.models,
            strategy,
            region=region,
            budget=Budget(budget, "flops") if budget else None,
            seed=seed,
        )
        sink = sink or RecordingSink(
            empty_record(bench.pyramid, bench.models, context.native_scale)
        )
        pipeline = InferencePipeline(
            bench.pyramid, bench.models, bench.device, context.region, cache=cache
        )
        estimate = run_plan(
            strategy.plan(context, ZoomParams(**params)),
            pipeline,
            sink,
            budget=context.budget,
            on_event=published.append,
        )
    return (
        estimate,
        sink.record,
        [publication for publication in published if getattr(publication, "kind", "")],
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "scout",
    [Scout(error=0.5), Scout(variance=False, error=0.5), None],
    ids=["sure", "count", "none"],
)
def test_accurate_at_a_tenth_of_the_cost(method, scout):
    bundle = ToyBundle(main=Bright()) if scout is None else ToyBundle(main=Bright(), scout=scout)
    estimate, record, _ = run(bundle=bundle, method=method)
    assert record.cost_map.total.flops <= 0.1 * WHOLE * (1 + 1e-9)
    # A threshold may select fewer cells than the budget pays for.
    assert record.cost_map.total.flops > (0.05 if method == "threshold" else 0.08) * WHOLE
    assert estimate.values[0] == pytest.approx(COUNT, rel=0.25)
    low, high = estimate.interval
    assert low <= estimate.values[0] <= high
    # A quadtree's pilot samples calibrate scores to counts.
    trusts = method != "sampling" and (scout or method == "quadtree")
    assert ("at random" if trusts else "asymptotic") in estimate.note
    assert "cells" in estimate.note
    chosen = [row for row in record.patches if row.role == "main" and row.scale == 1]
    assert len({(row.y, row.x) for row in chosen}) == len(chosen)
    # Scores are recorded, except for the quadtree's pilot samples and coarser nodes.
    assert sum(math.isfinite(row.score) for row in chosen) >= len(chosen) / 3
    assert np.isfinite(record.saliency.values).any()
    assert np.isfinite(record.output.values).any()


@pytest.mark.parametrize("method", METHODS)
def test_a_perfect_scout_gives_the_right_estimate(method):
    estimate, _, _ = run(bundle=ToyBundle(main=Bright(), scout=Scout()), method=method)
    # Except for the rounding of downsampled pixels.
    assert estimate.values[0] == pytest.approx(COUNT, rel=1e-3)
    low, high = estimate.interval
    # The scout's predicted variances count, too, if cells were selected.
    assert high - low < (1e-2 if method == "sampling" else 0.05) * COUNT


@pytest.mark.slow
def test_sampling_is_unbiased_and_covers():
    answers = [run(seed=seed, method="sampling")[0] for seed in range(60)]
    found = np.array([estimate.values[0] for estimate in answers])
    assert abs(found.mean() - COUNT) < 3.5 * found.std() / math.sqrt(60)
    covered = sum(estimate.interval[0] <= COUNT <= estimate.interval[1] for estimate in answers)
    assert covered >= 53
    assert len(set(found)) > 50


def test_measuring_all_cells_equals_patches():
    estimate, record, _ = run(budget=3 * WHOLE, method="sampling")
    assert estimate.values[0] == pytest.approx(COUNT, rel=1e-6)
    assert estimate.interval == pytest.approx((COUNT, COUNT), rel=1e-6)
    np.testing.assert_allclose(np.nansum(record.output.values), COUNT, rtol=1e-6)
    assert "asymptotic" not in estimate.note


def test_the_interval_shrinks_during_the_run():
    _, _, published = run(budget=0.5 * WHOLE, method="sampling")
    widths = [
        publication.interval[1] - publication.interval[0]
        for publication in published
        if publication.interval
    ]
    assert len(widths) > 4
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0] / 2


def test_with_a_bound_the_interval_is_not_asymptotic():
    most = 64.0 * 64
    bundle = ToyBundle(main=Bright(bound=most), scout=Scout(error=0.5))
    estimate, _, published = run(bundle=bundle, budget=0.5 * WHOLE, method="sampling")
    assert "asymptotic" not in estimate.note
    intervals = [publication.interval for publication in published if publication.interval]
    assert len(intervals) > 4
    for low, high in intervals:
        assert 0 <= low <= COUNT * (1 + 1e-6) <= high * (1 + 2e-6)


def test_it_stops_at_the_wanted_width():
    estimate, record, published = run(budget=0.8 * WHOLE, width=10, method="sampling")
    assert "wanted width" in estimate.note
    assert record.cost_map.total.flops < 0.8 * WHOLE
    assert (
        estimate.interval
        == [publication.interval for publication in published if publication.kind == "estimate"][-1]
    )
    low, high = estimate.interval
    assert (high - low) / 2 <= 0.1 * estimate.values[0]


def test_measurements_replace_the_scouts_density():
    _, record, _ = run(method="topk")
    output = record.output
    assert output.values.shape[0] == 1
    assert np.isfinite(output.values).all()
    sharp = output.scales[:] == 1
    assert 0.05 < sharp.mean() < 0.15
    assert (output.scales[:][~sharp] == 8).all()
    exact = IMAGE[..., 0].reshape(256, 4, 384, 4).sum((1, 3)) / 255
    np.testing.assert_allclose(output.values[0][sharp], exact[sharp], rtol=1e-5)
    # The values in the table are counts, without the variances.
    scout_values = [row.value for row in record.patches if row.role == "scout"]
    assert sum(scout_values) == pytest.approx(COUNT, rel=0.4)


def test_scores_are_not_painted_as_output():
    _, record, _ = run(bundle=ToyBundle(main=Bright()), method="topk")
    finite = np.isfinite(record.output.values[0])
    calls = sum(row.h * row.w for row in record.patches if row.role == "main")
    assert finite.sum() * 16 == calls
    assert np.isfinite(record.saliency.values).all()


def test_a_scout_predicts_counts_if_trained_on_them_at_low_resolution():
    def counts(scout, main=None):
        context = SimpleNamespace(main=main or Bright(), models={"scout": scout})
        return scout_predicts_counts(context)

    assert counts(Scout())
    near, other, scores = Scout(), Scout(), Scout(variance=False)
    fields = near.card.model_dump()
    near.card = ModelCard.model_validate({**fields, "input": fields["input"] | {"downsample": 1.0}})
    other.card = ModelCard.model_validate(
        {**fields, "output": fields["output"] | {"classes": ("else",)}}
    )
    scores.card = ModelCard.model_validate({**scores.card.model_dump(), "task": "saliency"})
    assert not any(map(counts, (near, other, scores)))
    assert not counts(scores, scores)


def test_topk_measures_the_best_cells():
    _, record, _ = run(
        bundle=ToyBundle(main=Bright(), scout=Scout(error=0.5)), method="topk", share=0
    )
    rows = [row for row in record.patches if row.role == "main"]
    counts = (IMAGE[..., 0].reshape(16, 64, 24, 64).sum((1, 3)) / 255).ravel()
    best = np.sort(counts)[::-1][: len(rows)].sum()
    assert sum(row.value for row in rows) > 0.9 * best
    assert [row.score for row in rows] == sorted((row.score for row in rows), reverse=True)


def test_k_and_threshold_select():
    _, record, _ = run(method="topk", k=6, share=0)
    assert sum(row.role == "main" for row in record.patches) == 6
    _, record, _ = run(method="threshold", threshold=0.8, share=0)
    few = sum(row.role == "main" for row in record.patches)
    _, record, _ = run(method="threshold", threshold=0.3, share=0)
    assert 0 < few < sum(row.role == "main" for row in record.patches)


@pytest.mark.parametrize(
    ("region", "cells"), [(Rect(0, 0, 136, 200), 12), (Rect(50, 30, 100, 200), 8)]
)
def test_a_threshold_applies_to_the_density_of_cells_cut_by_the_border(region, cells):
    # Full cells have 64 pixels per side; the region's border cuts some to slivers with an eighth
    # of the count of a full cell, but all cells have the same density.
    image = np.full((256, 384, 3), 100, np.uint8)
    bundle = ToyBundle(main=Bright(), scout=Scout())
    options: dict[str, Any] = {"method": "threshold", "tile": 64, "share": 0, "region": region}
    estimate, record, _ = run(image, bundle, threshold=0.7, budget=5 * WHOLE, **options)
    rows = [row for row in record.patches if row.role == "main"]
    assert min(row.h * row.w for row in rows) < 0.3 * 64**2
    assert len(rows) == cells
    assert sum(row.h * row.w for row in rows) == region.area
    assert estimate.values == pytest.approx([region.area * 100 / 255])
    # The slivers become the densest cells: they alone exceed a high threshold.
    sliver = max(row.x for row in rows)
    image[:, sliver:] = 255
    _, record, _ = run(image, bundle, threshold=0.9, budget=5 * WHOLE, **options)
    assert {row.x for row in record.patches if row.role == "main"} == {sliver}


def test_a_policy_selects():
    estimate, record, published = run(bundle=with_policy(), method="policy", budget=0.5 * WHOLE)
    rows = [row for row in record.patches if row.role == "main"]
    chosen = [row for row in rows if row.score == 1]
    # All tiles that the policy selects, in cells of 64 pixels, and random others.
    tiles = IMAGE[..., 0].reshape(8, 128, 12, 128).mean((1, 3)) / 255
    wanted = {(r, c) for r, c in zip(*np.nonzero(tiles > 0.05), strict=True)}
    assert {(row.y // 128, row.x // 128) for row in chosen} == wanted
    assert len(chosen) == 4 * len(wanted)
    assert 0 < len(rows) - len(chosen) <= math.ceil(len(chosen) / 3)
    low, high = estimate.interval
    assert low <= COUNT * (1 + 1e-6) <= high * (1 + 2e-6)
    assert any(
        publication.kind == "saliency" and set(np.unique(publication.map)) <= {0, 1}
        for publication in published
    )


def test_a_policy_that_selects_nothing_gets_random_draws():
    estimate, record, _ = run(bundle=with_policy(shy=True), method="policy")
    assert sum(row.role == "main" for row in record.patches) == 4
    assert estimate.interval is not None


def test_a_policy_keeps_its_budget():
    _, record, _ = run(bundle=with_policy(), method="policy")
    assert 0.08 * WHOLE < record.cost_map.total.flops <= 0.1 * WHOLE * (1 + 1e-9)
    for fraction in (1e-6, 0.003, 0.0033, 0.012):
        estimate, record, _ = run(bundle=with_policy(), method="policy", budget=fraction * WHOLE)
        assert record.cost_map.total.flops <= fraction * WHOLE * (1 + 1e-9)
        assert estimate.note


def test_a_bundle_without_a_policy_is_refused():
    with pytest.raises(HrviewerError, match="needs a model of the role 'policy'"):
        run(method="policy")


def test_without_random_draws_the_prediction_is_not_corrected():
    estimate, record, _ = run(method="topk", share=0)
    assert estimate.interval is None
    assert "not corrected" in estimate.note
    assert estimate.values[0] == pytest.approx(float(np.nansum(record.output.values)), rel=1e-5)


def test_with_replacement_no_cell_is_measured_twice():
    estimate, record, _ = run(replace=True, budget=0.4 * WHOLE, method="sampling")
    rows = [(row.y, row.x) for row in record.patches if row.role == "main"]
    assert len(set(rows)) == len(rows)
    assert estimate.values[0] == pytest.approx(COUNT, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_runs_are_reproducible(method):
    first, record, _ = run(method=method, seed=5)
    again, other, _ = run(method=method, seed=5)
    assert first.values == again.values
    assert first.interval == again.interval
    same = [[(r.y, r.x, r.scale) for r in made.patches] for made in (record, other)]
    assert same[0] == same[1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("region", [Rect(100, 60, 30, 20), Rect(3, 5, 517, 333), Rect(0, 0, 1, 1)])
@pytest.mark.parametrize("scout", [True, False])
def test_any_region(method, region, scout):
    networks = {"scout": Scout(error=0.3)} if scout else {}
    bundle = ToyBundle(main=Blurred(), **networks)
    estimate, record, _ = run(bundle=bundle, method=method, region=region, budget=5 * WHOLE)
    with Workbench(IMAGE, bundle) as bench:
        main = bench.models["main"]
        assert main.halo == 16
    y, x = slice(region.y, region.y1), slice(region.x, region.x1)
    exact = np.nansum(record.output.values)
    if estimate.interval is not None and method == "sampling":
        assert estimate.values[0] == pytest.approx(exact, rel=1e-5, abs=1e-6)
    finite = np.isfinite(record.output.values[0])
    assert finite.any() or estimate.values is None
    assert IMAGE[y, x].size > 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fraction", [1e-6, 0.003, 0.012, 0.03])
def test_any_budget(method, fraction):
    for bundle in (None, ToyBundle(main=Bright())):
        estimate, record, _ = run(bundle=bundle, method=method, budget=fraction * WHOLE)
        assert record.cost_map.total.flops <= fraction * WHOLE * (1 + 1e-9)
        assert estimate.note


def test_failed_measurements_count_as_predicted():
    main = Bright()
    calls = []

    def break_down(batch):
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("broken")

    main.before = break_down
    estimate, record, _ = run(bundle=ToyBundle(main=main, scout=Scout(error=0.2)))
    assert sum(row.status == "failed" for row in record.patches) == 1
    assert "1 measurements failed" in estimate.note
    assert np.isfinite(estimate.values).all()


@pytest.mark.parametrize("method", ["topk", "sampling", "quadtree"])
def test_nothing_is_estimated_where_the_scout_failed_or_most_measurements(method):
    def broken(batch):
        raise ValueError("broken")

    scout = Scout(error=0.2)
    scout.before = broken
    estimate, _, _ = run(bundle=ToyBundle(main=Bright(), scout=scout), method=method)
    assert (estimate.values, estimate.interval) == (None, None)
    assert "the scout failed on" in estimate.note
    # Where all measurements fail, the scout's prediction is left.
    main, scout = Bright(), Scout(error=0.2)
    main.before = broken
    estimate, record, _ = run(bundle=ToyBundle(main=main, scout=scout), method=method)
    predicted = sum(row.value for row in record.patches if row.role == "scout")
    assert estimate.values.sum() == pytest.approx(predicted, rel=1e-6)
    assert estimate.interval is None


def test_failed_measurements_widen_the_interval():
    widths = []
    for share in (0.0, 0.3):
        main, draws = Bright(), iter(np.random.default_rng(0).random(1000))

        def fail(batch, draws=draws, share=share):
            if next(draws) < share:
                raise ValueError("broken")

        main.before = fail
        estimate, record, _ = run(bundle=ToyBundle(main=main, scout=Scout(error=0.5)), seed=3)
        assert (record.counts()["failed"] > 0) == (share > 0)
        low, high = estimate.interval
        assert low <= estimate.values.sum() <= high
        widths.append(high - low)
    assert widths[1] > widths[0]


def test_a_killed_run_resumes_to_the_same_result():

    whole, record, _ = run(method="sampling")
    with Workbench(IMAGE, ToyBundle(main=Bright(), scout=Scout(error=0.5))) as bench:
        first, second = (empty_record(bench.pyramid, bench.models, 1.0) for _ in range(2))
    killed = RecordingSink(first)
    killed.die_after = 4
    with pytest.raises(KeyboardInterrupt):
        run(sink=killed, method="sampling")
    resumed, again, _ = run(sink=RecordingSink(second, killed.journal), method="sampling")
    assert resumed.values == whole.values
    np.testing.assert_array_equal(again.output.values, record.output.values)


def test_embeddings_are_refused():
    from toys import Encoder

    with pytest.raises(HrviewerError, match="choose another strategy"):
        run(bundle=ToyBundle(main=Encoder()))


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize("method", METHODS)
def test_areas_and_probabilities(task, method):
    main = Bright(task=task, classes=["a", "b"])

    def predict(batch):
        a = Bright.predict(main, batch) / 16
        both = np.concatenate([a, 1 - a], axis=1)
        return both if task == "segmentation" else both.mean((2, 3), keepdims=True)

    main.predict = predict
    estimate, _, _ = run(bundle=ToyBundle(main=main), method=method, budget=WHOLE / 2)
    shares = IMAGE[..., 0].reshape(256, 4, 384, 4).mean((1, 3)) / 255
    exact = 16 * (shares > 0.5 - 1e-6).sum() if task == "segmentation" else shares.mean()
    whole = IMAGE[..., 0].size if task == "segmentation" else 1.0
    assert estimate.values.sum() == pytest.approx(whole)
    assert estimate.values[0] == pytest.approx(exact, rel=0.4)
    assert estimate.interval is None
    low, high = estimate.class_intervals.T
    assert (low <= [exact + 1e-6, whole - exact + 1e-6]).all()
    assert (high >= [exact - 1e-6, whole - exact - 1e-6]).all()


def test_zoom_is_registered():
    assert isinstance(get_strategy("zoom"), Zoom)
    assert Zoom.default_budget == 0.1


def test_the_default_budget_pays_for_a_few_cells_of_a_small_region():
    from hrviewer.engine import build_context

    with Workbench(IMAGE, ToyBundle(main=Bright(), scout=Scout(error=0.5))) as bench:

        def default(side):
            context, _, _ = build_context(
                bench.pyramid, bench.models, Zoom(), region=Rect(0, 0, side, side)
            )
            return context.budget

        tile = bench.models["main"].card.input.tile
        looks = 0.5 * FLOPS * tile**2
        assert default(16) == FLOPS * 16**2 < looks
        assert default(2 * tile) == pytest.approx(max(looks, 0.1 * FLOPS * (2 * tile) ** 2))
        assert default(IMAGE.shape[0]) == pytest.approx(0.1 * FLOPS * IMAGE.shape[0] ** 2)


def test_where_patches_is_better_it_says_so_before_running():
    strategy = get_strategy("zoom")
    role = ModelInfo(card("net"), 4, 0, lambda h, w: FLOPS * h * w)

    def advice(side, pixels):
        models = {"main": role, "scout": role}
        whole = Rect(0, 0, side, side)
        context = PlanContext((side, side), (1.0,), None, whole, 1.0, models, budget=FLOPS * pixels)
        return strategy.advice(context, strategy.Params())

    few = "the budget pays for 8 patches at most, too few for a count within 20 %"
    assert few in advice(512, 8 * 64**2)
    assert advice(512, 8 * 64**2).endswith("patches measures everything for 8.0 times as much")
    assert advice(512, 512**2) == ""
    assert advice(4096, 0.1 * 4096**2) == ""
