"""One answer from the predictions of tiles: mean, majority or maximum, over the foreground."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import FLOPS, Bright, ToyBundle, Workbench, card

from hrviewer.errors import ParameterError
from hrviewer.geometry import Rect
from hrviewer.runs import estimate_to_dict
from hrviewer.runs.estimates import format_estimate
from hrviewer.strategies import Estimate, get_strategy
from hrviewer.strategies.estimation.aggregation import tile_answers

SHAPE = 512, 1024
TILE = 64


def slide() -> NDArray[np.uint8]:
    """Return an image of glass, white, and of tissue whose tiles differ in their red."""
    rng = np.random.default_rng(0)
    image = np.full((*SHAPE, 3), 255, np.uint8)
    red = np.kron(rng.choice([30, 90, 140, 220], (8, 7)), np.ones((TILE, TILE)))
    image[:, : 7 * TILE] = np.stack([red, 0 * red + 20, 0 * red + 120], axis=2)
    return image


IMAGE = slide()


class Tiles(Bright):
    """Dark or bright, one prediction per tile."""

    def __init__(self, task: str = "classification", name: str = "tiles", **output: Any) -> None:
        activation = "softmax" if task == "classification" else "none"
        names = ["dark", "bright"]
        super().__init__(
            name, task=task, classes=names, activation=activation, stride=TILE, **output
        )

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = batch[:, :1].mean((2, 3), keepdims=True)
        return np.concatenate([1 - bright, bright], axis=1)


def run(
    strategy: str, budget: float | None = None, task: str = "classification", **params: Any
) -> tuple[Estimate, NDArray[np.float64]]:
    """Return the estimate, and the predictions of the tiles that ``main`` was run on."""
    bundle = ToyBundle(main=Tiles(task), scanner=Tiles(task, "scanner"))
    chosen = get_strategy(strategy)
    limit = math.inf if budget is None else budget * FLOPS * SHAPE[0] * SHAPE[1]
    with Workbench(IMAGE, bundle) as bench:
        estimate, record, _ = bench.run(
            lambda context: chosen.plan(context, chosen.Params(**params)), budget=limit
        )
    assert estimate is not None
    rows = [row.values for row in record.patches if row.role == "main" and row.values]
    return estimate, np.array(rows)


def expected(tiles: NDArray[np.float64], aggregation: str) -> NDArray[np.float64]:
    if aggregation == "maximum":
        return tiles.max(axis=0)
    return (tiles > 0.5).mean(axis=0) if aggregation == "majority" else tiles.mean(axis=0)


@pytest.mark.parametrize("aggregation", ["mean", "majority", "maximum"])
@pytest.mark.parametrize("task", ["classification", "multi-label"])
def test_all_tiles_of_the_foreground(task: str, aggregation: str) -> None:
    estimate, tiles = run("patches", task=task, skip="always", aggregation=aggregation)
    assert 8 * 7 <= len(tiles) <= 8 * 8  # of 8 × 16; the overview blurs the border of the tissue
    np.testing.assert_allclose(estimate.values, expected(tiles, aggregation), atol=1e-6)
    assert estimate.area == len(tiles) * TILE**2
    assert estimate.coverage == 1
    assert estimate.exhaustive
    whole, tiles = run("patches", task=task, skip="never", aggregation=aggregation)
    assert len(tiles) == 8 * 16
    assert whole.area is None
    assert whole.values is not None
    assert whole.values[1] >= estimate.values[1]  # glass is bright
    assert aggregation == "maximum" or whole.values[1] > estimate.values[1] + 0.1


CASES = [
    ("patches", 0.3, {}),
    ("zoom", 0.3, {"tile": TILE}),
    ("zoom", 0.3, {"tile": TILE, "method": "sampling"}),
    ("zoom", 0.3, {"tile": TILE, "method": "quadtree"}),
    ("scanner", None, {"tile": TILE}),
]


@pytest.mark.parametrize("aggregation", ["mean", "majority", "maximum"])
@pytest.mark.parametrize(("strategy", "budget", "params"), CASES)
def test_some_tiles_of_the_foreground(
    strategy: str, budget: float | None, params: Any, aggregation: str
) -> None:
    every = run("patches", skip="always")[1]
    estimate, tiles = run(strategy, budget, skip="always", aggregation=aggregation, **params)
    assert estimate.values is not None
    assert len(tiles) < len(every)
    assert estimate.area is not None
    assert estimate.class_intervals is not None
    low, high = estimate.class_intervals.T
    # One interval in twenty misses; none by more than its own width. Coverage: test_shares.
    exact, slack = expected(every, aggregation), (high - low) / 2 + 1e-6
    assert (low - slack <= exact).all()
    assert (exact <= high + slack).all()
    if aggregation == "maximum":
        np.testing.assert_allclose(estimate.values, low)
        assert (high == 1).all()
        assert estimate.certain
    else:
        assert estimate.values.sum() == pytest.approx(1)


def test_a_tile_that_failed_has_no_class() -> None:
    values = np.array([[0.2, 0.8], [np.nan, np.nan], [0.6, 0.4]])
    np.testing.assert_array_equal(
        tile_answers(Tiles().card, values, "majority"), [[0, 1], [np.nan] * 2, [1, 0]]
    )
    labels = np.array([[0.6, 0.8], [0.5, 0.1]])
    found = tile_answers(Tiles("multi-label").card, labels, "majority")
    np.testing.assert_array_equal(found, [[1, 1], [0, 0]])


@pytest.mark.parametrize("strategy", ["patches", "uniform", "zoom"])
def test_options_without_effect_are_refused(strategy: str) -> None:
    chosen, bundle = get_strategy(strategy), ToyBundle(main=Bright())
    with Workbench(IMAGE, bundle) as bench:
        for params in ({"aggregation": "majority"}, {"skip": "always"}):
            with pytest.raises(ParameterError, match="leave it out"):
                bench.run(lambda c, p=params: chosen.plan(c, chosen.Params(**p)))


def test_the_answer_reads_as_what_it_is() -> None:
    region, values = Rect(0, 0, 10, 10), np.array([0.25, 0.75])
    found = estimate_to_dict(
        Tiles().card, values, None, region, None, aggregation="majority", area=50.0
    )
    assert found is not None
    assert (found["vote"], found["aggregation"]) == ("bright", "majority")
    assert format_estimate(found) == "bright 75.0% of tiles (rough); of the foreground"
    found = estimate_to_dict(
        Tiles().card, values, None, region, None, aggregation="maximum", data_area=50.0
    )
    assert found is not None
    assert found["per_class"] == {"dark": 0.25, "bright": 0.75}
    assert format_estimate(found) == "maximum dark 25.0%, bright 75.0% (rough)"
    assert "aggregation" not in estimate_to_dict(card("x"), np.ones(1), None, region, None)
