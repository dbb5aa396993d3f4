"""Tokens tile the region once, are small where there is detail, and add up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import astuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from toys import FLOPS, Bright, Joint, ToyBundle, Workbench, card, empty_record, paint_cell

from hrviewer.engine import LiveSession
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.models.accuracy import ASSUMED_ERROR, ModelAccuracy
from hrviewer.models.loaders.torch import TorchNetwork
from hrviewer.models.transformer import TokenTransformer
from hrviewer.strategies import Estimate, PatchRequest, Plan, PlanContext
from hrviewer.strategies.estimation.two_phase import (
    CoarsePrediction,
    TwoPhaseSampler,
    regression_estimate,
)
from hrviewer.strategies.transformer import Transformer, TransformerParams
from hrviewer.strategies.transformer.tokens import Forest, TokenGrid


class Counter(Joint):
    """Predicts exactly the amount of red in its tokens."""

    def __init__(self) -> None:
        super().__init__("transformer", tile=16)
        self.lengths: list[int] = []

    def run_tokens(self, tokens: Any, boxes: Any, lengths: Any = None, merge: float = 0.0) -> Any:
        self.inferred += len(tokens)
        self.lengths += list(lengths or [len(tokens)])
        cells = tokens[:, 0].reshape(-1, 4, 4, 4, 4).sum((2, 4))
        return (cells * (boxes[:, 2] * boxes[:, 3] / 256)[:, None, None])[:, None]


class Glance(Bright):
    """A scout that counts as `main` does, on images downsampled by 8."""

    def __init__(self) -> None:
        super().__init__("scout")
        small = self.card.input.model_copy(update={"downsample": 8.0})
        self.card = self.card.model_copy(update={"input": small})

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().predict(batch) * 64


def tiles(h: int, w: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return an image that is uniform on squares of 128 pixels, hence exact for all token sizes."""
    values = np.random.default_rng(seed).integers(0, 256, (-(-h // 128), -(-w // 128), 3))
    return values.repeat(128, 0).repeat(128, 1)[:h, :w].astype(np.uint8)


def red(image: NDArray[np.uint8], rect: Rect | None = None) -> float:
    part = image if rect is None else image[rect.y : rect.y1, rect.x : rect.x1]
    return float(part[..., 0].astype(np.float64).sum() / 255)


def policy(**params: Any) -> Callable[[PlanContext], Plan]:
    def request(context: PlanContext) -> Plan:
        return Transformer().plan(context, TransformerParams(**params))

    return request


def make_bundle(**roles: Any) -> ToyBundle:
    return ToyBundle(**{"main": Bright(), "scout": Glance(), "transformer": Counter()} | roles)


def run(
    image: NDArray[Any], toys: ToyBundle | None = None, region: Rect | None = None,
    budget: float = float("inf"), **params: Any,
) -> tuple[Estimate, list[PatchRequest], Any]:  # fmt: skip
    requests: list[PatchRequest] = []
    with Workbench(image, toys or make_bundle()) as bench:
        estimate, record, _ = bench.run(
            policy(**params),
            budget=budget,
            region=region,
            on_event=lambda update: (
                requests.append(update) if isinstance(update, PatchRequest) else None
            ),
        )
    assert estimate is not None
    return estimate, requests, record


def tokens(requests: list[PatchRequest]) -> list[Any]:
    looks = [request for request in requests if request.role == "transformer"]
    return [patch for request in looks for patch in request.patches if not patch.core.empty]


def leaves(requests: list[PatchRequest]) -> list[Rect]:
    """Return the requested tokens, except those that were split afterwards."""
    cores = {patch.core for patch in tokens(requests)}

    def split(core: Rect) -> bool:
        half = core.h // 2
        return any(Rect(core.y + y, core.x + x, half, half) in cores
                   for y in (0, half) for x in (0, half))  # fmt: skip

    return [core for core in cores if not split(core)]


# The estimate.


def test_a_measured_error_corrects_the_count_and_gives_its_interval() -> None:
    image, counter = tiles(512, 512), Counter()
    measured = ASSUMED_ERROR.model_copy(update={"ratio": 0.8, "ratio_deviation": 0.1, "spread": 0})
    accuracy = ModelAccuracy(prediction_error=measured)
    counter.card = counter.card.model_copy(update={"accuracy": accuracy})
    estimate, _, _ = run(image, make_bundle(transformer=counter), check=0)
    total = 0.8 * red(image)
    assert estimate.values == pytest.approx([total], rel=1e-5)
    assert estimate.interval == pytest.approx((total * 0.804, total * 1.196), rel=1e-5)
    # On images of another kind it does not hold.
    other = measured.model_copy(update={"synthetic": "crowd"})
    accuracy = ModelAccuracy(prediction_error=other)
    counter.card = counter.card.model_copy(update={"accuracy": accuracy})
    estimate, _, _ = run(image, make_bundle(transformer=counter), check=0)
    assert estimate.values == pytest.approx([red(image)], rel=1e-5)
    assert estimate.interval is None


@pytest.mark.parametrize(("part", "corrected"), [(1.0, False), (0.97, False), (0.5, True)])
def test_a_check_by_main_gives_the_interval_and_corrects_biased_tokens(part, corrected) -> None:
    class Part(Counter):
        def run_tokens(self, *args: Any, **options: Any) -> Any:
            return super().run_tokens(*args, **options) * part

    image = tiles(1024, 1024)
    estimate, requests, record = run(image, make_bundle(transformer=Part()))
    low, high = estimate.interval or (0, 0)
    assert low < red(image) < high
    assert (high - low) / 2 < 0.2 * red(image)
    assert estimate.values is not None
    total = float(estimate.values.sum())
    assert low < total < high
    tokens_alone = red(image) * part
    if corrected:
        assert abs(total - red(image)) < abs(tokens_alone - red(image)) / 4
        assert f"correct the tokens' total of {tokens_alone:,.0f}" in estimate.note
    else:
        assert total == pytest.approx(tokens_alone, rel=1e-5)
        assert "indicate a total of" in estimate.note
    measured = [request for request in requests if request.role == "main"]
    assert sum(len(request.patches) for request in measured) == 16
    assert {request.target for request in measured} == {None}
    assert "16 cells drawn at random and measured by main" in estimate.note
    assert np.nansum(record.output.values) == pytest.approx(tokens_alone, rel=1e-5)
    unchecked, _, _ = run(image, make_bundle(transformer=Part()), check=0)
    assert unchecked.values == pytest.approx([tokens_alone], rel=1e-5)
    # A part of a region has none: there are too many parts.
    whole: Any = None
    assert Transformer().as_part(whole, whole, TransformerParams())[1].check == 0


class KnownCells(TwoPhaseSampler):
    """Cells with tokens' predictions, and the values that `main` measures."""

    def __init__(self, predicted: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        context: Any = SimpleNamespace(main=SimpleNamespace(halo=0))
        grid: Any = SimpleNamespace(patches=[SimpleNamespace(halo=0)] * len(values))
        prediction = CoarsePrediction(predicted[:, None], np.sqrt(predicted))
        super().__init__(context, grid, prediction)
        self.values = values

    def measure(self, cells: Any, *args: Any, **options: Any) -> Any:
        self.measured |= {int(cell): self.values[[cell]] for cell in cells}
        yield from ()


def simulate_checks(bias: float, n: int, draws: int) -> tuple[float, float]:
    """Return how often a check corrects the tokens' total, and how often its interval holds."""
    corrected, held = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        density = rng.gamma(0.7, 30, n)  # crowds in few places
        values = rng.poisson(density).astype(float)
        predicted = bias * density * rng.lognormal(-0.045, 0.3, n)
        check = regression_estimate(
            KnownCells(predicted, values), predicted, draws, rng, 0.1, publish=False, refutable=True
        )
        with pytest.raises(StopIteration) as end:
            next(check)
        checked = end.value.value
        total = predicted.sum()
        corrected.append(checked.biased)
        shown = checked.values.sum() if corrected[-1] else total
        low, high = checked.interval
        held.append(min(low, shown) <= values.sum() <= max(high, shown))
    return float(np.mean(corrected)), float(np.mean(held))


@pytest.mark.parametrize(("n", "draws"), [(9, 4), (16, 4), (64, 4), (256, 16)])
def test_few_measurements_do_not_correct_an_unbiased_total(n, draws) -> None:
    corrected, held = simulate_checks(1.0, n, draws)
    assert corrected <= 0.01
    assert held >= 0.9


@pytest.mark.parametrize("bias", [0.4, 1.8])
def test_measurements_correct_a_biased_total(bias) -> None:
    corrected, held = simulate_checks(bias, 256, 16)
    assert corrected > 0.8
    assert held >= 0.88  # also where the total is not corrected


# The trees.


@pytest.mark.parametrize("unit", [1.0, 1.25])
@pytest.mark.parametrize("threshold", [0.02, 0.3, 1e9])
def test_tokens_tile_the_region_once(unit: float, threshold: float) -> None:
    requests = Rect(37, 301, 900, 1207)
    mosaic = TokenGrid(requests, unit)
    rng = np.random.default_rng(0)
    shape = tuple(len(edges) - 1 for edges in mosaic.edges(32))
    scores = rng.exponential(0.1, shape) ** 2 * (mosaic.areas(32) > 0)
    forest = Forest(mosaic, scores, "sum", 16)
    covered = np.zeros((1400, 2100), int)
    sides, n = set(), 0
    for rect, squares in forest.regions(threshold):
        assert rect.y % (512 * unit) == rect.x % (512 * unit) == 0
        assert len(squares) <= forest.counts(threshold).max()
        for square in squares:
            assert square.rect in rect
            assert square.rect.y % square.rect.h == square.rect.x % square.rect.w == 0
            part = square.rect & requests
            covered[part.y : part.y1, part.x : part.x1] += 1
            sides.add(square.rect.h / unit)
            n += 1
    assert covered.sum() == requests.area
    assert covered.max() == 1
    assert sides == {128} if threshold > 1e6 else len(sides) > 2
    assert n <= forest.counts(threshold).sum()


def test_the_highest_scores_are_split_up_to_the_limit() -> None:
    mosaic = TokenGrid(Rect(0, 0, 1024, 1024), 1.0)
    scores = np.random.default_rng(1).random((32, 32))
    forest = Forest(mosaic, scores, "max", 16)
    for most in (64, 65, 67, 500, 4096):
        threshold = forest.threshold(0.0, most)
        n = int(forest.counts(threshold).sum())
        assert most - 9 < n <= most  # a square and its highest part score the same
        assert n == sum(len(squares) for _, squares in forest.regions(threshold))
    split = [s for _, squares in forest.regions(forest.threshold(0, 500)) for s in squares]
    kept = max(s.score for s in split if not np.isnan(s.score))
    assert sum((level > kept).sum() for level in forest.scores.values()) == (len(split) - 64) / 3
    assert forest.threshold(0.7, 4096) == 0.7


# The strategy.


@pytest.mark.parametrize(
    "params",
    [
        {"detail": "uniform"},
        {"detail": "uniform", "finest": 64, "context": 0},
        {"detail": "entropy"},
        {"detail": "scout", "tokens": 0.1},
        {"detail": "scout", "threshold": 1e5},
        {"merge": 0.2, "context": 3},
    ],
)
@pytest.mark.parametrize("region", [None, Rect(100, 52, 700, 613)])
def test_predictions_of_tokens_add_up(params: dict[str, Any], region: Rect | None) -> None:
    image = tiles(960, 1088)
    # Without a check, whose few cells may indicate another total.
    estimate, requests, record = run(image, region=region, check=0, **params)
    whole = region or Rect(0, 0, 960, 1088)
    # A cell cut by the region counts by its part, so it is exact there, too.
    assert estimate.values == pytest.approx([red(image, region)], rel=1e-5)
    assert np.nansum(record.output.values) == pytest.approx(estimate.values[0], rel=1e-4)
    covered = np.zeros((1200, 1200), int)
    assert len(tokens(requests)) == len({patch.core for patch in tokens(requests)})
    for core in leaves(requests):
        part = core & whole
        covered[part.y : part.y1, part.x : part.x1] += 1
    assert covered.sum() == whole.area
    assert covered.max() == 1
    # Saliency is defined in the whole region, also if the lattice extends beyond it.
    cell = record.saliency.cell
    ys, xs = (
        slice(-(-a // cell), b // cell) for a, b in ((whole.y, whole.y1), (whole.x, whole.x1))
    )
    assert np.isfinite(
        record.saliency.values[0][int(ys.start) : int(ys.stop), int(xs.start) : int(xs.stop)]
    ).all()
    assert len(record.patches) >= len(tokens(requests))
    assert all(row.h and row.w for row in record.patches)
    placed = record.cost_map.values.sum(axis=(1, 2)) + np.array(
        astuple(record.cost_map.unattributed)
    )
    np.testing.assert_allclose(placed, astuple(record.cost_map.total), rtol=1e-9)
    assert record.cost_map.total.flops >= sum(
        10.0 * n + n * n for n in _sizes(requests)
    ) * (1 - 1e-9)  # fmt: skip


def _sizes(requests: list[PatchRequest]) -> list[int]:
    return [
        request.group.count(number)
        for request in requests
        if request.group is not None
        for number in set(request.group)
    ]


def test_tokens_are_small_where_there_are_objects() -> None:
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[600:700, 100:200] = 255
    _, requests, record = run(image, threshold=50)
    for patch in tokens(requests):
        side = 2 * patch.core.h
        whole = Rect(patch.core.y // side * side, patch.core.x // side * side, side, side)
        assert side > 128 or not (whole & Rect(576, 96, 128, 128)).empty
    assert {p.core.h for p in tokens(requests)} == {16, 32, 64, 128}
    fine = [p.core for p in tokens(requests) if p.core.h == 16]
    assert sum((core & Rect(600, 100, 100, 100)).area for core in fine) == 100 * 100
    # The saliency is the scout's density.
    seen = record.saliency.values[0]
    assert np.nansum(seen) * record.saliency.cell**2 == pytest.approx(1e4, rel=1e-3)


def test_higher_predictions_than_expected_split_tokens_afterwards() -> None:
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[600:700, 100:200] = 255
    image[40, 40] = image[900, 900] = 255

    class Blind(Glance):
        """Misses single objects."""

        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().predict(batch) * (super().predict(batch) > 10)

    estimate, requests, record = run(image, make_bundle(scout=Blind()))
    _, *later = [request for request in requests if request.role == "transformer"]
    # All tokens with objects are of the finest size at the end.
    for y, x in ((40, 40), (900, 900), (600, 100), (699, 199)):
        (leaf,) = [c for c in leaves(requests) if not (c & Rect(y, x, 1, 1)).empty]
        assert leaf.h == 16
    assert estimate.values == pytest.approx([100 * 100 + 2], rel=1e-5)
    assert np.nansum(record.output.values) == pytest.approx(100 * 100 + 2, rel=1e-5)
    # This took three requests, in which the earlier tokens are context.
    sides = [[p.core.h for p in request.patches if not p.core.empty] for request in later]
    assert [set(of_one) for of_one in sides] == [{64}, {32}, {16}]
    for request in later:
        for number in set(request.group or ()):
            rects = [p.rect for g, p in zip(request.group or (), request.patches, strict=True)
                     if g == number and p.rect.h <= 128]  # fmt: skip
            assert sum(rect.area for rect in rects) == 512 * 512
    scores = [s for s in later[0].scores or () if not np.isnan(s)]
    assert scores == pytest.approx(np.ones(8), abs=0.01)  # bytes are averaged to bytes
    # The user's threshold applies to the refinement, too.
    _, requests, _ = run(image, make_bundle(scout=Blind()), threshold=2)
    assert {p.core.h for p in tokens(requests) if not (p.core & Rect(40, 40, 1, 1)).empty} == {128}


def test_a_failed_refinement_keeps_the_earlier_prediction() -> None:
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[40, 40] = image[600:700, 100:200] = 255

    class Blind(Glance):
        """Misses single objects."""

        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().predict(batch) * (super().predict(batch) > 10)

    class Brittle(Counter):
        """Fails on the second request for a corner."""

        def run_tokens(
            self, tokens: Any, boxes: Any, lengths: Any = None, merge: float = 0.0
        ) -> Any:
            if (boxes[:, 0] + boxes[:, 2] <= 64).any() and (boxes[:, 2] == 64).any():
                raise RuntimeError("out of luck")
            return super().run_tokens(tokens, boxes, lengths, merge)

    estimate, _, record = run(image, make_bundle(scout=Blind(), transformer=Brittle()))
    assert estimate.values == pytest.approx([100 * 100 + 1], abs=0.05)
    assert np.nansum(record.output.values) == pytest.approx(estimate.values[0], abs=0.01)
    assert "4 tokens failed: their earlier prediction is kept" in estimate.note


def test_the_number_of_tokens_is_limited() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    for share in (0.1, 0.4):
        estimate, requests, _ = run(image, detail="entropy", tokens=share)
        assert 0.9 * share * 4096 < len(tokens(requests)) <= share * 4096
        assert "a uniform grid has 4,096" in estimate.note


def test_a_budget_gives_coarser_tokens_for_the_whole_region() -> None:
    image = tiles(1024, 1024)
    scout = FLOPS * 128 * 128
    _, free, record = run(image, tokens=1.0)
    assert len(tokens(free)) == 4096
    whole = record.cost_map.total.flops
    budget = scout + 0.1 * (whole - scout)
    estimate, requests, record = run(image, tokens=1.0, budget=budget)
    assert 0.7 * budget < record.cost_map.total.flops <= budget
    assert estimate.values == pytest.approx([red(image)], rel=1e-5)
    assert 64 < len(tokens(requests)) < 4096
    # If it does not pay for the coarsest ones, a part of the region is processed.
    estimate, requests, _ = run(image, budget=scout + 700)
    assert "the rest of the region was not processed" in estimate.note
    assert len(tokens(requests)) == 16
    estimate, _, _ = run(image, budget=scout / 2)
    assert estimate.values is None


def test_context_is_within_the_image_and_not_listed() -> None:
    image = tiles(1536, 1536)
    _, requests, record = run(image, detail="uniform", finest=128, context=2, check=0)
    (request,) = requests
    assert request.group is not None
    context = [(g, p) for g, p in zip(request.group, request.patches, strict=True) if p.core.empty]
    # Each of 3 × 3 regions has its neighbours; wider rings are inside only for the middle one.
    assert [sum(g == i for g, _ in context) for i in range(9)] == [3, 5, 3, 5, 8, 5, 3, 5, 3]
    assert {p.rect.astuple() for g, p in context if g == 0} == {
        (0, 512, 512, 512), (512, 0, 512, 512), (512, 512, 512, 512)
    }  # fmt: skip
    assert len(record.patches) == 9 * 16
    (corner, *_) = record.patches
    assert corner.flops == pytest.approx((10 * 19 + 19**2) / 16)


def test_a_transformer_of_other_classes_is_refused() -> None:
    other = Counter()
    other.card = card("other", classes=["else"], tile=16)
    with pytest.raises(HrviewerError, match="choose another model bundle"):
        run(tiles(64, 64), make_bundle(transformer=other))
    with pytest.raises(HrviewerError, match="choose another model bundle"):
        run(tiles(64, 64), make_bundle(transformer=Bright("plain")))


class Classes(Bright):
    """Dark and bright, by the mean of red."""

    def __init__(self, task: str = "segmentation", name: str = "main", **output: Any) -> None:
        super().__init__(name, task=task, classes=["dark", "bright"], **output)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        bright = super().predict(batch) / 16
        return np.concatenate([1 - bright, bright], axis=1)


class TokenClasses(Classes):
    """The same for tokens."""

    accepts_tokens = True

    def __init__(self, task: str = "segmentation") -> None:
        super().__init__(task, "transformer", tile=16)

    def run_tokens(self, tokens: Any, boxes: Any, lengths: Any = None, merge: float = 0.0) -> Any:
        return self.predict(tokens)

    def token_flops(self, n: int, merge: float = 0.0) -> float:
        return 10.0 * n


@pytest.mark.parametrize("region", [None, Rect(16, 48, 200, 331)])
def test_areas_of_classes_sum_to_the_region(region: Rect | None) -> None:
    """And are those of the image, whose squares are uniform."""
    image = tiles(300, 410)
    whole = region or Rect(0, 0, 300, 410)
    found, *_ = run(image, make_bundle(main=Classes(), transformer=TokenClasses()), region)
    assert found.values is not None
    assert found.values.sum() == pytest.approx(whole.area, rel=1e-6)
    bright = image[whole.y : whole.y1, whole.x : whole.x1, 0] > 127
    assert found.values[1] == pytest.approx(np.count_nonzero(bright))


def test_means_of_tokens_are_refused() -> None:
    both = {"main": Classes("classification"), "transformer": TokenClasses("classification")}
    with pytest.raises(HrviewerError, match=r"has the task classification, of which there are"):
        run(tiles(64, 64), make_bundle(**both))


def test_a_size_may_be_a_string_of_the_command_line() -> None:
    assert TransformerParams(finest="32").finest == 32  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="16, 32, 64 or 128"):
        TransformerParams(finest="33")  # type: ignore[arg-type]


# With the real network.


@pytest.fixture(scope="module")
def network() -> TorchNetwork:
    torch.manual_seed(0)
    module = TokenTransformer(dim=24, depth=2, heads=2).eval().requires_grad_(False)
    kind = card("transformer", tile=16)
    return TorchNetwork(kind, "random", module, torch.device("cpu"))


@pytest.mark.slow
def test_batched_regions_equal_single_ones(network: TorchNetwork) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    params: dict[str, Any] = {"detail": "entropy", "tokens": 0.1, "context": 1, "merge": 0.1}
    whole, requests, record = run(image, make_bundle(transformer=network), **params)
    assert len([request for request in requests if request.role == "transformer"]) == 1
    threshold = min(
        score
        for request in requests
        if request.role == "transformer" and request.scores is not None
        for patch, score in zip(request.patches, request.scores, strict=True)
        if patch.core.h == 16 or not np.isnan(score)
    )
    assert threshold > 0
    # At a fixed threshold the tokens of a region do not depend on others.
    params |= {"tokens": 1.0, "threshold": 7.05, "check": 0}
    whole, _, record = run(image, make_bundle(transformer=network), **params)
    parts = []
    for y in (0, 512):
        for x in (0, 512):
            part, _, alone = run(
                image, make_bundle(transformer=network), Rect(y, x, 512, 512), **params
            )
            parts.append(part.values)
            block = np.s_[:, y // 4 : y // 4 + 128, x // 4 : x // 4 + 128]
            np.testing.assert_allclose(
                record.output.values[block], alone.output.values[block], rtol=1e-3, atol=1e-5
            )
    assert np.sum(parts) == pytest.approx(float(whole.values.sum()), rel=1e-5)


def test_live_cells_equal_the_whole_image(network: TorchNetwork) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    params: dict[str, Any] = {"detail": "entropy", "tokens": 1.0, "threshold": 7.05}
    # Cells have no check by main.
    _, _, record = run(image, make_bundle(transformer=network), check=0, **params)
    with Workbench(image, make_bundle(transformer=network)) as bench:
        session = LiveSession(
            bench.pyramid, bench.models, Transformer(), TransformerParams(**params)
        )
        try:
            view = Rect(0, 0, 1024, 1024)
            session.follow_view(view, 1.0)
            end = time.monotonic() + 60
            while not session.is_idle():
                assert time.monotonic() < end
                time.sleep(0.01)
            assert session.error is None
            computed = session.computed
            cells = session.follow_view(view, 1.0)
            assert len(cells) == 4
            assert session.computed == computed
            live = empty_record(bench.pyramid, bench.models, 1.0)
            for cell in cells:
                paint_cell(cell, live)
        finally:
            session.close()
    assert len(live.patches) == len(record.patches)
    np.testing.assert_allclose(live.output.values, record.output.values, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(live.cost_map.values[0], record.cost_map.values[0], rtol=1e-6)
