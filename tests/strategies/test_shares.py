"""Shares of classes and means: they sum to what is known, under every strategy and any budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import FLOPS, Bright, Encoder, Head, ToyBundle, Workbench, card, empty_record

from hrviewer.engine import InferencePipeline, build_context, run_plan
from hrviewer.engine.budget import Budget
from hrviewer.geometry import Rect
from hrviewer.strategies import Estimate, get_strategy
from hrviewer.strategies.estimation.intervals import proportion_interval
from hrviewer.strategies.estimation.regression import inclusion_probabilities
from hrviewer.strategies.estimation.sampling import draw, probabilities
from hrviewer.strategies.estimation.shares import estimate_shares

SHAPE = 470, 651
"""Neither a multiple of cells nor of tiles, so that the image's border cuts both."""

Floats = NDArray[np.float64]


def blobs() -> NDArray[np.uint8]:
    """Return an image of which about 1 % is bright, in two places."""
    y, x = np.indices(SHAPE)
    near = np.minimum(np.hypot(y - 130, x - 420), np.hypot(y - 400, x - 90))
    red = np.where(near < 24, 230, 20)
    return np.repeat(red[..., None], 3, axis=2).astype(np.uint8)


IMAGE = blobs()


class Classes(Bright):
    """Dark, bright and a class that never is."""

    def __init__(self, task: str = "segmentation", name: str = "classes") -> None:
        activation = {"classification": "softmax", "regression": "none"}.get(task, "none")
        super().__init__(name, task=task, classes=["dark", "bright", "none"], activation=activation)
        self.task = task

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = Bright.predict(self, batch) / 16
        both = np.concatenate([1 - bright, bright, 0 * bright], axis=1)
        return both if self.task == "segmentation" else both.mean((2, 3), keepdims=True)


class ClassHead(Head):
    """The same classes from embeddings, which are the means of red, green and blue."""

    def __init__(self, task: str) -> None:
        super().__init__()
        self.card = card(
            "head", task=task, stride=1, classes=["dark", "bright", "none"], activation="softmax"
            if task == "classification" else "none",
        )  # fmt: skip

    def run_features(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = features[:1]
        return np.concatenate([1 - bright, bright, 0 * bright])


def run(strategy: str, task: str, budget: float | None, seed: int = 0, **params: Any) -> Estimate:
    """Return the estimate of a strategy; the budget is in parts of one pass."""
    roles = {"main": Classes(task), "scanner": Classes(task, "scanner")}
    bundle = ToyBundle(**roles, encoder=Encoder(), head=ClassHead(task))
    chosen = get_strategy(strategy)
    limit = None if budget is None else Budget(budget * FLOPS * SHAPE[0] * SHAPE[1], "flops")
    with Workbench(IMAGE, bundle) as bench:
        context, _, _ = build_context(
            bench.pyramid, bench.models, chosen, region=Rect(0, 0, *SHAPE), budget=limit, seed=seed
        )
        record = empty_record(bench.pyramid, bench.models, context.native_scale)
        from toys import RecordingSink

        pipeline = InferencePipeline(bench.pyramid, bench.models, bench.device, context.region)
        plan = chosen.plan(context, chosen.Params(**params))
        return run_plan(plan, pipeline, RecordingSink(record), budget=context.budget)


CASES = [
    ("patches", None, {}),
    ("patches", 0.4, {}),
    ("uniform", 0.1, {}),
    ("nonuniform", 0.3, {}),
    ("zoom", 0.3, {}),
    ("zoom", 0.3, {"share": 0}),
    ("zoom", 0.3, {"method": "threshold"}),
    ("zoom", 0.4, {"method": "quadtree"}),
    ("zoom", 0.4, {"method": "quadtree", "share": 0}),
    ("zoom", 0.3, {"method": "sampling"}),
    ("scanner", None, {"skip": "never"}),
    ("scanner", 0.7, {"skip": "never"}),
    ("scanner", None, {"skip": "never", "sample": 0}),
    ("compression", None, {}),
    ("compression", 0.6, {}),
]


@pytest.mark.parametrize("task", ["segmentation", "classification"])
@pytest.mark.parametrize(("strategy", "budget", "params"), CASES)
def test_shares_sum_to_the_region(strategy: str, budget: float, params: Any, task: str) -> None:
    """And the interval of each class, where there is one, holds what all pixels give."""
    whole = SHAPE[0] * SHAPE[1] if task == "segmentation" else 1.0
    estimate = run(strategy, task, budget, **params)
    assert estimate.values is not None
    assert estimate.values.sum() == pytest.approx(whole, rel=1e-6)
    assert (estimate.values >= 0).all()
    if estimate.class_intervals is None:
        return
    low, high = estimate.class_intervals.T
    exact = run("patches", task, None).values
    assert exact is not None
    assert (low <= exact + 1e-6 * whole).all()
    assert (exact - 1e-6 * whole <= high).all()
    assert (low <= estimate.values + 1e-6 * whole).all()
    assert (estimate.values <= high + 1e-6 * whole).all()
    assert (high <= whole * (1 + 1e-6)).all()


def test_means_are_those_of_the_region() -> None:
    """A mean is no total: half the tiles give about the whole mean, not half of it."""
    exact = run("patches", "regression", None).values
    found = run("zoom", "regression", 0.5, method="sampling")
    assert exact is not None
    np.testing.assert_allclose(found.values, exact, atol=0.05)
    assert found.class_intervals is not None


def draw_shares(
    amounts: Floats, sizes: Floats, score: Floats, draws: int, rng: np.random.Generator
) -> Any:
    p = probabilities(score, 0.5)
    drawn = draw(p, draws, rng)
    values = np.full(amounts.shape, np.nan)
    values[drawn] = amounts[drawn]
    nothing = np.full(amounts.shape, np.nan)
    inclusion = inclusion_probabilities(p, draws)[drawn]
    return estimate_shares(sizes, values, nothing, drawn, inclusion)


@pytest.mark.parametrize(("rate", "draws"), [(0.3, 6), (0.3, 30), (0.02, 12), (0.02, 60)])
def test_intervals_hold_the_share_of_each_class(rate: float, draws: int) -> None:
    """Of 150 samples at least 88 %: of 95 % intervals that is less only once in 3,000 times."""
    rng, held = np.random.default_rng(0), 0
    sizes = rng.choice([60.0, 100.0], 160)
    for _ in range(150):
        share = (rng.random(160) < rate).astype(float)
        amounts = np.stack([sizes * share, sizes * (1 - share)], axis=1)
        found = draw_shares(amounts, sizes, share + rng.random(160), draws, rng)
        assert found.values.sum() == pytest.approx(sizes.sum())
        held += int(found.intervals[0, 0] - 1e-9 <= amounts[:, 0].sum() <= found.intervals[0, 1])
    assert held >= 0.88 * 150


def test_good_predictions_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    sizes, share = np.full(100, 10.0), rng.random(100)
    amounts = sizes[:, None] * np.stack([share, 1 - share], axis=1)
    drawn = np.arange(0, 100, 4)
    values = np.full(amounts.shape, np.nan)
    values[drawn] = amounts[drawn]
    predicted = sizes[:, None] * np.stack([share * 0.9, 1 - share * 0.9], axis=1)
    inclusion = np.full(25, 0.25)
    without = estimate_shares(sizes, values, predicted * np.nan, drawn, inclusion)
    with_them = estimate_shares(sizes, values, predicted, drawn, inclusion)
    assert without is not None
    assert without.intervals is not None
    assert with_them is not None
    assert with_them.intervals is not None
    assert np.diff(with_them.intervals).max() < np.diff(without.intervals).max() / 4
    assert with_them.values.sum() == pytest.approx(sizes.sum())
    assert with_them.values[0] == pytest.approx(amounts[:, 0].sum(), rel=0.02)


def test_what_was_measured_is_known() -> None:
    sizes, values = np.full(4, 10.0), np.array([[4.0, 6.0], [np.nan] * 2, [2.0, 8.0], [np.nan] * 2])
    none, nothing = np.zeros(0, np.intp), np.full((4, 2), np.nan)
    found = estimate_shares(sizes, values, nothing, none, np.zeros(0))
    assert found is not None
    assert found.intervals is not None
    # Selected cells alone: the others are taken to be alike, and may be anything.
    np.testing.assert_allclose(found.values, [12, 28])
    np.testing.assert_allclose(found.intervals, [[6, 26], [14, 34]])
    complete = np.where(np.isnan(values), 5.0, values)
    found = estimate_shares(sizes, complete, nothing, none, np.zeros(0))
    assert found is not None
    assert found.intervals is not None
    np.testing.assert_allclose(found.intervals, [[16, 16], [24, 24]])
    assert estimate_shares(sizes, nothing, nothing, none, np.zeros(0)) is None


def test_a_class_that_no_place_has_may_still_be_somewhere() -> None:
    low, high = proportion_interval(0.0, 0.0, 19, np.zeros(20), np.ones(20))
    assert (low, high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    low, high = proportion_interval(1.0, 0.0, 19, np.ones(20), np.ones(20))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
