from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import FLOPS, Blurred, Bright, ToyBundle, Workbench, blocks, picture

from hrviewer.engine.plan_setup import build_context
from hrviewer.models import builtin
from hrviewer.models.probe import validate_network
from hrviewer.strategies import Estimate, PatchRequest, Plan, PlanContext, get_strategy
from hrviewer.strategies.scanner import Scanner, ScannerParams


class Dim(Bright):
    """Predicts half the count."""

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocks(batch) / 2


class Unsure(Bright):
    """Is right, and uncertain where the image is dark."""

    def __init__(self) -> None:
        super().__init__("scanner", variance=True)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        found = blocks(batch)
        return np.concatenate([found, 16 - found], axis=1)


def policy(**params: Any) -> Callable[[PlanContext], Plan]:
    def scan(context: PlanContext) -> Plan:
        return Scanner().plan(context, ScannerParams(**params))

    return scan


def scan(
    image: NDArray[Any], scanner: Bright, budget: float = float("inf"), **params: Any
) -> tuple[Estimate, list[PatchRequest], Any, Bright]:
    main = Bright()
    requests: list[PatchRequest] = []
    with Workbench(image, ToyBundle(main=main, scanner=scanner)) as bench:
        estimate, record, _ = bench.run(
            policy(**params),
            budget=budget,
            on_event=lambda update: (
                requests.append(update) if isinstance(update, PatchRequest) else None
            ),
        )
    assert estimate is not None
    return estimate, requests, record, main


def total(image: NDArray[Any]) -> float:
    return float(image[..., 0].astype(np.float64).sum() / 255)


def test_a_scanner_that_is_right_gives_the_exhaustive_count() -> None:
    image = picture(192, 256)
    estimate, requests, record, main = scan(image, Bright("scanner"), share=0.25, sample=4)
    assert estimate.values == pytest.approx([total(image)], rel=1e-6)
    # It predicts no variances: counts are assumed to be Poisson.
    seen = [row.value for row in record.patches if row.role == "main"]
    rest, seeded_context = total(image) - sum(seen), sum(seen[3:])
    low, high = estimate.interval
    assert high - low == pytest.approx(
        2 * 1.96 * np.sqrt(rest * (1 + rest / seeded_context)), rel=0.05
    )
    assert [request.role for request in requests] == ["scanner", "main", "main"]
    assert main.inferred == 3 + 4  # a quarter of twelve tiles, and the random ones


def test_the_highest_predictions_are_flagged() -> None:
    image = picture(192, 256)
    image[64:128, 128:192] = 255
    _, requests, record, _ = scan(image, Dim("scanner"), share=1 / 12, sample=0)
    [flagged] = requests[1].patches
    assert flagged.core.astuple() == (64, 128, 64, 64)
    assert requests[1].scores == (pytest.approx(np.sqrt(64 * 64 / 2), rel=1e-6),)
    # There the map is that of main, elsewhere that of the scanner.
    assert record.output.values[0, 16:32, 32:48].sum() == pytest.approx(4096, rel=1e-6)


def test_the_most_uncertain_cells_are_flagged() -> None:
    image = picture(192, 256)
    image[0:64, 64:128] = 0
    dark = (0, 64, 64, 64)
    _, requests, _, _ = scan(image, Unsure(), share=1 / 12, sample=0)
    assert [patch.core.astuple() for patch in requests[1].patches] == [dark]
    _, requests, _, _ = scan(image, Unsure(), share=1 / 12, sample=0, flag="score")
    assert dark not in [patch.core.astuple() for patch in requests[1].patches]


def test_measuring_all_cells_equals_patches() -> None:
    image = picture(200, 260)
    estimate, _, _, _ = scan(image, Dim("scanner"), share=1, sample=0)
    assert estimate.values == pytest.approx([total(image)], rel=1e-6)


@pytest.mark.slow
def test_random_samples_correct_a_wrong_scanner_without_bias() -> None:
    image = picture(256, 256)
    image[:64] = image[:64] // 8
    with Workbench(image, ToyBundle(main=Bright(), scanner=Dim("scanner"))) as bench:
        found, covered = [], 0
        context, _, _ = build_context(bench.pyramid, bench.models, get_strategy("scanner"))
        for seed in range(120):

            def seeded(context: PlanContext, seed: int = seed) -> Plan:
                seeded_context = type(context)(
                    context.shape, context.downsamples, context.pixel_size, context.region,
                    context.native_scale, context.models, context.budget, seed,
                )  # fmt: skip
                return Scanner().plan(seeded_context, ScannerParams(share=0.1, sample=6))

            estimate, _, _ = bench.run(seeded)
            assert estimate is not None
            assert estimate.values is not None
            assert estimate.interval is not None
            found.append(float(estimate.values[0]))
            covered += estimate.interval[0] <= total(image) <= estimate.interval[1]
    # It predicts half the count; the prior factor of 1 has little influence.
    assert np.mean(found) == pytest.approx(total(image), rel=2e-3)
    assert np.std(found) < 0.01 * total(image)
    assert covered >= 0.88 * len(found)
    assert context.seed == 0


def test_background_is_not_scanned_and_no_count_is_lost() -> None:
    image = np.full((16384, 1024, 3), 255, np.uint8)
    image[:1024] = (150, 60, 120)
    estimate, requests, _, _ = scan(image, Bright("scanner"), skip="always", share=0, sample=0)
    scanned = [
        patch.core for request in requests if request.role == "scanner" for patch in request.patches
    ]
    # The thumbnail is downsampled by 32: the tile below the border may have some foreground.
    assert {core.y for core in scanned} >= {*range(0, 1024, 64)}
    assert max(core.y for core in scanned) <= 1024
    skipped = 16 * 256 - len(scanned)
    assert skipped >= 239 * 16
    assert f"{skipped} tiles of background skipped" in estimate.note
    assert estimate.values == pytest.approx([1024 * 1024 * 150 / 255], rel=1e-5)
    assert requests[0].role == "@foreground"


def test_the_background_of_a_photo_is_scanned() -> None:
    image = np.full((128, 128, 3), 255, np.uint8)
    _, requests, _, _ = scan(image, Bright("scanner"), share=0, sample=0)
    assert [request.role for request in requests] == ["scanner"]


def test_a_budget_pays_for_random_samples_first() -> None:
    image = picture(192, 256)
    tile = 100.0 * 64 * 64
    estimate, requests, _, main = scan(image, Bright("scanner"), (12 + 6) * tile, share=1, sample=3)
    assert main.inferred == 6
    assert [len(request.patches) for request in requests] == [12, 3, 3]
    assert estimate.interval is not None
    estimate, requests, _, main = scan(image, Bright("scanner"), 7 * tile)
    assert (main.inferred, [len(request.patches) for request in requests]) == (2, [5, 2])
    assert "5 of 12 tiles were processed, drawn at random" in estimate.note
    assert estimate.values is None
    estimate, requests, _, _ = scan(image, Bright("scanner"), 1.0)
    assert (requests, estimate.values, estimate.coverage) == ([], None, 0)
    assert "0 of 12 tiles were processed" in estimate.note


@pytest.mark.parametrize("tile", [64, 32, 48])
def test_a_budget_below_the_scan_is_spent_on_a_random_sample_of_tiles(tile: int) -> None:
    image = picture(768, 1024)
    image[:400, :500] = 0
    budget = 0.3 * FLOPS * 768 * 1024
    held = 0
    with Workbench(image, ToyBundle(main=Bright(), scanner=Dim("scanner"))) as bench:
        for seed in range(12):

            def seeded(context: PlanContext, seed: int = seed) -> Plan:
                return Scanner().plan(replace(context, seed=seed), ScannerParams(tile=tile))

            estimate, record, _ = bench.run(seeded, budget=budget)
            assert estimate is not None
            assert 0.7 * budget < record.cost_map.total.flops <= budget
            assert estimate.coverage == pytest.approx(0.24, abs=0.03)
            assert estimate.values is not None
            low, high = estimate.interval or (0, 0)
            assert low < float(estimate.values[0]) < high
            held += low <= total(image) <= high
    assert held >= 10


def test_tiles_on_which_the_scanner_failed_are_estimated_by_the_others() -> None:
    image, scanner = picture(512, 512), Bright("scanner")

    def fail(batch: NDArray[Any]) -> None:
        if scanner.inferred % 3 == 0:
            raise ValueError("no")

    scanner.before = fail
    estimate, _, record, _ = scan(image, scanner, sample=0, share=0.1)
    assert record.counts()["failed"] > 15
    assert estimate.values == pytest.approx([total(image)], rel=0.1)
    assert estimate.coverage is not None
    assert 0.5 < estimate.coverage < 0.8


class SamePadding(Blurred):
    """Pads with zeros, and has a receptive field of 16 pixels that its card does not declare."""

    def __init__(self) -> None:
        super().__init__("scanner")
        output = self.card.output.model_copy(update={"halo": None})
        self.card = self.card.model_copy(update={"output": output})
        self.halo = 0


def test_a_zero_padding_scanner_is_cropped_at_the_border() -> None:
    image, scanner = picture(200, 260), SamePadding()
    whole = scanner(scanner.card.prepare(image)[None])[0]
    params = {"share": 0, "sample": 0, "tile": 32}
    _, _, record, _ = scan(image, scanner, **params)
    assert np.abs(record.output.values - whole).max() > 0.1
    validate_network(scanner)  # as every network is, when it is loaded
    assert scanner.halo == 16
    estimate, _, record, _ = scan(image, scanner, **params)
    np.testing.assert_allclose(record.output.values, whole, atol=1e-5)
    assert estimate.values == pytest.approx([whole.sum()], rel=1e-6)


def test_denser_is_the_mean_of_the_shifts() -> None:
    image = picture(200, 260)
    estimate, requests, record, _ = scan(image, Bright("scanner"), denser=2, share=0, sample=0)
    assert [request.role for request in requests] == ["scanner/2"]
    around = np.pad(image[..., 0].astype(float) / 255, 1, mode="reflect")
    wide = np.lib.stride_tricks.sliding_window_view(around, (4, 4))[::2, ::2].sum((2, 3)) / 4
    expected = wide.reshape(50, 2, 65, 2).sum((1, 3))  # main's cells are twice as wide
    np.testing.assert_allclose(record.output.values[0], expected, rtol=1e-5)
    assert estimate.values == pytest.approx([wide.sum()], rel=1e-5)


def test_a_failed_thumbnail_is_not_background(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        raise ValueError("no light")

    monkeypatch.setattr(builtin("@foreground"), "saliency", fail)
    image = np.full((192, 256, 3), 255, np.uint8)
    estimate, requests, _, _ = scan(image, Bright("scanner"), skip="always", share=0, sample=0)
    assert [len(request.patches) for request in requests if request.role == "scanner"] == [12]
    assert estimate.values == pytest.approx([192 * 256], rel=1e-6)
