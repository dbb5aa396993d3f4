"""The live session: caching, cancelling, prefetching and updates of viewport cells."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from toy_detectors import Finder, rectangles
from toys import (
    FLOPS,
    Blurred,
    Bright,
    Toy,
    ToyBundle,
    Workbench,
    blocks,
    collect_cells,
    many_patches,
    overview_then_chosen,
    picture,
    toy_bundle,
)

from hrviewer.app.maps.live_summary import combine_cells
from hrviewer.engine import (
    Budget,
    InferencePipeline,
    InferenceResult,
    LiveSession,
    LoadedModels,
    ResultCache,
    ViewportCell,
    build_context,
    neighbours,
    run_plan,
    visible_cells,
)
from hrviewer.engine.viewport_cells import CellCollector
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Patch, Rect
from hrviewer.strategies import Estimate, Params, PatchRequest, get_strategy

IMAGE = picture(1024, 1024)
VIEW = Rect(0, 0, 1024, 1024)


@pytest.fixture
def bench():
    with Workbench(IMAGE) as bench:
        yield bench


@pytest.fixture
def follow(bench):
    """Start sessions that are closed at the end."""
    begun = []

    def begin(**settings):
        session = LiveSession(bench.pyramid, bench.models, Toy(many_patches), Params(), **settings)
        begun.append(session)
        return session

    yield begin
    for session in begun:
        session.close()


def wait(session, seconds=30):
    end = time.monotonic() + seconds
    while not session.is_idle():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_cells_in_the_middle_come_first():
    found = visible_cells(Rect(0, 0, 2000, 2000), 1.0, Rect(0, 0, 5000, 5000))
    assert len(found) == 16
    middle = [np.hypot(cell.center[0] - 1000, cell.center[1] - 1000) for cell in found]
    assert middle == sorted(middle)
    assert visible_cells(Rect(9000, 0, 10, 10), 1.0, Rect(0, 0, 5000, 5000)) == []
    (border,) = visible_cells(Rect(4990, 4990, 100, 100), 4.0, Rect(0, 0, 5000, 5000))
    assert border == Rect(4096, 4096, 904, 904)


def test_updates_of_a_cell(follow):
    updates_by_cell: dict[Rect, list[object]] = {}
    session = follow(
        on_update=lambda number, rect, update: updates_by_cell.setdefault(rect, []).append(update)
    )
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert len(updates_by_cell) == 4
    for rect, updates in updates_by_cell.items():
        assert updates[0] is None
        assert isinstance(updates[-1], ViewportCell)
        assert updates[-1].rect == rect
        results = [update for update in updates if isinstance(update, InferenceResult)]
        assert len(results) == 16 * 16
        assert all(result.patch.core in rect for result in results)


def test_an_unfinished_cell_continues_from_the_cache(bench, follow):
    network = bench.bundle.networks["main"]
    reached = threading.Event()

    def count(batch):
        if network.inferred == 100:
            reached.set()

    network.before = count
    session = follow(cache=ResultCache())
    session.follow_view(Rect(0, 0, 500, 500), 1.0)
    assert reached.wait(20)
    session.idle_now()
    wait(session)
    assert session.pending == 0
    network.before = lambda batch: None
    session.follow_view(Rect(0, 0, 500, 500), 1.0)
    wait(session)
    # Only the patches in flight when it stopped may have been run twice.
    assert 256 <= network.inferred <= 256 + 4


def test_a_moving_view_does_not_restart_its_cells(bench, follow):
    network = bench.bundle.networks["main"]
    network.before = lambda batch: time.sleep(0.001)
    session = follow()
    for i in range(20):
        session.follow_view(Rect(i, i, 400, 400), 1.0)
        time.sleep(0.01)
    wait(session)
    assert network.inferred == session.computed == 256


def test_selecting_another_strategy_and_back(bench, follow):
    session = follow()
    session.follow_view(VIEW, 1.0)
    wait(session)
    computed = session.computed
    assert session.select(Toy(overview_then_chosen), Params()) == 1
    assert session.follow_view(VIEW, 1.0) == []
    wait(session)
    other = session.computed
    assert other > computed
    session.select(Toy(many_patches), Params())
    assert len(session.follow_view(VIEW, 1.0)) == 4
    wait(session)
    assert session.computed == other
    # Another network under the same names; then the first one, loaded again.
    twin = ToyBundle(**{**bench.bundle.networks, "main": Bright("another")})
    session.select(Toy(many_patches), Params(), None, LoadedModels(twin, bench.device))
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert session.computed == other + computed
    session.select(Toy(many_patches), Params(), None, LoadedModels(bench.bundle, bench.device))
    ready = []
    session._on_update = collect_cells(ready)
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert session.computed == other + computed
    assert len(ready) == 4


class Dimmer(Bright):
    """Predicts half the count, and is uncertain where that is high."""

    def __init__(self):
        super().__init__("scanner", variance=True)

    def predict(self, batch):
        found = blocks(batch)
        return np.concatenate([found / 2, found], axis=1)


@pytest.mark.parametrize("name", ["patches", "uniform", "scanner"])
@pytest.mark.parametrize("zoom", [1.0, 2.0])
def test_the_cells_of_a_view_add_up_to_a_run(name, zoom):
    strategy = get_strategy(name)
    main = Bright() if name == "scanner" else Blurred()
    image = (IMAGE * np.linspace(0, 1, 1024)[:, None, None] ** 3).astype(np.uint8)
    with Workbench(image, ToyBundle(main=main, scanner=Dimmer())) as bench:
        context, _, _ = build_context(bench.pyramid, bench.models, strategy)
        pipeline = InferencePipeline(bench.pyramid, bench.models, bench.device, context.region)
        plan = strategy.plan(context, strategy.Params())
        estimate = run_plan(plan, pipeline, CellCollector(), budget=context.budget)
        found: list[ViewportCell] = []
        session = LiveSession(
            bench.pyramid, bench.models, strategy, strategy.Params(), on_update=collect_cells(found)
        )
        session.follow_view(VIEW, zoom)
        wait(session)
        session.close()
    together = combine_cells(found, additive=True)
    assert together.values[0] == pytest.approx(estimate.values[0], rel=1e-6)
    if name == "scanner":  # what cells have in common adds up
        assert together.interval == pytest.approx(estimate.interval, rel=0.02)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("name", ["patches", "uniform"])
def test_the_cells_of_a_detector_have_the_tiles_of_a_run(name, fixed):
    # Objects of the size of the overlap are found differently by tiles that lie elsewhere.
    image, rows = rectangles(700, 700, 150, side=(10, 60))
    strategy = get_strategy(name)
    params, budget = strategy.Params(), Budget(4, "share")
    with Workbench(image, toy_bundle(Finder(fixed=fixed, tile=96))) as bench:
        context, _, _ = build_context(bench.pyramid, bench.models, strategy, budget=budget)
        pipeline = InferencePipeline(bench.pyramid, bench.models, bench.device, context.region)
        collected = CellCollector()
        run_plan(strategy.plan(context, params), pipeline, collected)
        found: list[ViewportCell] = []
        update = collect_cells(found)
        session = LiveSession(
            bench.pyramid, bench.models, strategy, params, budget=budget, on_update=update
        )
        session.follow_view(Rect(0, 0, 700, 700), 1.0)
        wait(session)
        session.close()
    assert session.error is None
    assert len(found) == 4

    def boxes(results):
        parts = [result.objects for _, several in results for result in several]
        kept = [part.take(part.in_core) for part in parts]
        rows = (zip(part.boxes.tolist(), part.scores, strict=True) for part in kept)
        return sorted({(*box, score) for row in rows for box, score in row})

    expected = boxes(collected.results)
    assert len(expected) > len(rows)
    assert boxes([result for cell in found for result in cell.results]) == expected


def test_a_budget_is_divided_by_area(follow):
    whole = FLOPS * 1024 * 1024
    found = []
    session = follow(budget=Budget(0.5 * whole, "flops"), on_update=collect_cells(found))
    session.follow_view(VIEW, 1.0)
    wait(session)
    spent = [
        sum(result.cost.flops for _, results in cell.results for result in results)
        for cell in found
    ]
    assert spent == pytest.approx([whole / 8] * 4, rel=0.02)
    session.select(Toy(many_patches), Params(), Budget(1e-9, "seconds"))
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert session.error is None
    assert len(session._rates) == 1


def test_finished_cells_are_bounded(follow):
    session = follow(max_bytes=1_000_000)
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert 1 <= len(session._cells) < 4
    assert session._cells.nbytes <= 1_000_000


def test_errors_are_reported_and_do_not_end_the_session(bench, follow):
    errors = []
    session = follow(on_error=errors.append)

    def refuses(context):
        raise HrviewerError("not here")
        yield

    session.select(Toy(refuses), Params())
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert [str(error) for error in errors] == ["not here"]
    session.select(Toy(many_patches), Params())
    session.follow_view(VIEW, 1.0)
    wait(session)
    assert session.computed > 0


def test_no_call_waits_for_inference(bench, follow):
    gate, done = threading.Event(), []
    network = bench.bundle.networks["main"]
    network.before = lambda batch: done.append(gate.wait(60))
    session = follow()
    session.follow_view(VIEW, 1.0)
    while not network.calls:
        time.sleep(0.002)
    for i in range(100):
        session.follow_view(Rect(i, i, 900, 900), 1.0)
    session.select(Toy(overview_then_chosen), Params())
    session.idle_now()
    assert not done
    gate.set()


# Several cells at once.


def until(true, seconds=20):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


HALVES = np.zeros((512, 1024, 3), np.uint8)
HALVES[:, :512], HALVES[:, 512:] = 10, 200
"""Two cells that differ in their pixels."""


def halves(batch):
    """Return which cells a batch contains, ignoring its padding."""
    return {round(float(one.max()) * 255) for one in batch} - {0}


def test_cells_run_together_and_share_batches():
    with Workbench(HALVES, batch=16) as bench:
        network, gate, begun, mixed = bench.bundle.networks["main"], threading.Event(), [], []
        network.before = lambda batch: (gate.wait(20), mixed.append(halves(batch)))
        session = LiveSession(
            bench.pyramid,
            bench.models,
            Toy(many_patches),
            Params(),
            on_update=lambda number, rect, update: begun.append(rect) if update is None else None,
        )
        session.follow_view(Rect(0, 0, 512, 1024), 1.0)
        until(lambda: len(begun) == 2)
        # Until both have queued as much as they may at once.
        sizes = [-1, 0]
        while sizes[-1] != sizes[-2]:
            time.sleep(0.3)
            sizes.append(sum(map(len, bench.device._queues.values())))
        gate.set()
        wait(session)
        session.close()
        assert {10, 200} in mixed
        assert network.inferred >= 2 * 256
        assert session.computed == 2 * 256


def test_cells_outside_the_view_are_not_read(bench, follow):
    network, gate = bench.bundle.networks["main"], threading.Event()
    network.before = lambda batch: gate.wait(20)
    begun = []
    session = follow(
        on_update=lambda n, rect, update: begun.append(rect) if update is None else None
    )
    session.follow_view(VIEW, 1.0)
    until(lambda: len(begun) == 2)
    session.follow_view(Rect(600, 600, 300, 300), 1.0)
    gate.set()
    wait(session)
    assert set(begun[2:]) <= {Rect(512, 512, 512, 512)}
    assert len(session._cells) == 1


# Prefetching.


def test_the_ring_around_a_view():
    image = Rect(0, 0, 4096, 4096)
    view = Rect(1100, 1100, 800, 800)
    ring = neighbours(view, 1.0, image)
    assert len(ring) == 12
    assert all((cell & other).empty for cell in ring for other in visible_cells(view, 1.0, image))
    # The nearest to the center of the view first, here off the middle of the covered cells.
    distances = [np.hypot(*np.subtract(cell.center, view.center)) for cell in ring]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1]
    assert neighbours(Rect(0, 0, 100, 100), 1.0, Rect(0, 0, 512, 512)) == []
    assert neighbours(Rect(9000, 0, 10, 10), 1.0, image) == []


def test_cells_around_the_view_are_prefetched(bench, follow):
    updated = []
    session = follow(prefetch=True, on_update=lambda number, rect, update: updated.append(rect))
    session.follow_view(Rect(0, 0, 500, 500), 1.0)
    wait(session)
    assert len(session._cells) == 4
    assert set(updated) == {Rect(0, 0, 512, 512)}
    assert session.computed == 256
    assert bench.bundle.networks["main"].inferred == 4 * 256
    # Finished at once, though it was not in view before.
    assert len(session.follow_view(VIEW, 1.0)) == 4
    assert session.is_idle()
    assert session.computed == 256


def test_the_view_has_priority_over_prefetching():
    with Workbench(HALVES) as bench:
        network, order = bench.bundle.networks["main"], []
        step = threading.Semaphore(256 + 20)  # the cell in view, and some of the other

        def before(batch):
            assert step.acquire(timeout=20)
            order.extend(halves(batch))

        network.before = before
        updated = []
        session = LiveSession(
            bench.pyramid,
            bench.models,
            Toy(many_patches),
            Params(),
            prefetch=True,
            on_update=lambda number, rect, update: updated.append(rect),
        )
        session.follow_view(Rect(0, 0, 512, 500), 1.0)
        until(lambda: len(order) == 256 + 20)
        assert order[-1] == 200
        # Another strategy: prefetching is cancelled after the current batch.
        session.select(Toy(in_view_only), Params())
        session.follow_view(Rect(0, 0, 512, 500), 1.0)
        until(lambda: len(bench.device._queues[0]) > 0)
        step.release(10_000)
        until(lambda: order.count(10) > 256)
        assert order[256 + 20 :].index(10) <= 1
        session.idle_now()
        wait(session)
        count = network.inferred
        time.sleep(0.05)
        assert network.inferred == count
        session.close()


def test_a_prefetched_cell_continues_when_it_comes_into_view(bench, follow):
    network, gate = bench.bundle.networks["main"], threading.Event()
    inside = threading.Event()

    def before(batch):
        if network.inferred > 300:
            inside.set()
            gate.wait(20)

    network.before = before
    session = follow(prefetch=True)
    session.follow_view(Rect(0, 0, 500, 500), 1.0)
    assert inside.wait(20)
    session.follow_view(VIEW, 1.0)
    assert session.pending == 3
    gate.set()
    wait(session)
    assert network.inferred == 4 * 256


def in_view_only(context):
    """Run inference on the cell in patches of another size."""
    patches = tuple(Patch(core, 1.0) for core in grid(context.region, 64))
    yield PatchRequest("main", patches, target="output")
    return Estimate(None)


def grid(rect, side):
    return [
        Rect(y, x, side, side) & rect
        for y in range(rect.y, rect.y1, side)
        for x in range(rect.x, rect.x1, side)
    ]


# What cells share.


def scouted(context):
    """Selective zooming with one saliency for the whole image."""
    whole = Rect(0, 0, *context.shape)
    scout = yield PatchRequest("scout", (Patch(whole, 16.0),))
    (overview,) = scout.results
    assert overview.patch.core == whole
    result = yield PatchRequest("main", (Patch(context.region, 1.0),), target="output")
    share = float(result.results[0].value[0])
    return Estimate(np.array([share, float(overview.value[0])]))


@pytest.mark.parametrize("given", [True, False])
def test_cells_share_inference_on_the_whole_image(bench, follow, given):
    scout = bench.bundle.networks["scout"]
    gate = threading.Event()
    scout.before = lambda batch: gate.wait(20)
    found, begun = [], []

    def on_update(number, rect, update):
        collect_cells(found)(number, rect, update)
        if update is None:
            begun.append(rect)

    session = follow(
        cache=ResultCache() if given else None,
        on_update=on_update,
    )
    session.select(Toy(scouted), Params())
    session.follow_view(VIEW, 1.0)
    until(lambda: len(begun) == 2 and scout.calls == 1)
    gate.set()
    wait(session)
    assert session.error is None
    assert scout.calls == 1
    overviews = [cell.results[0][1][0] for cell in found]
    assert sorted(result.status for result in overviews) == ["cached"] * 3 + ["done"]
    assert {result.cost.flops for result in overviews} == {FLOPS * 64 * 64}
    assert len({cell.estimate.values[1] for cell in found}) == 1
    counted = sum(cell.estimate.values[0] for cell in found)
    assert counted == pytest.approx(IMAGE[..., 0].sum(dtype=float) / 255, rel=1e-5)
