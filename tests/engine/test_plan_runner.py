"""Policies of each family through engine, costs, budget, cancellation, replay and live cells."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from toys import (
    FLOPS,
    POLICIES,
    Bright,
    RecordingSink,
    Toy,
    Workbench,
    collect_cells,
    empty_record,
    features_then_head,
    many_patches,
    overview_then_chosen,
    paint_cell,
    picture,
    scan_then_heavy,
    threads,
    tokens,
    toy_bundle,
    warped,
)

from hrviewer.engine import (
    InferenceResult,
    LiveSession,
    Progress,
    ResultCache,
    RunClock,
    RunControl,
)
from hrviewer.geometry import Rect
from hrviewer.strategies import Params, PlanContext

IMAGE = picture()
RED = IMAGE[..., 0].astype(float) / 255

each = pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)


@pytest.fixture
def bench():
    with Workbench(IMAGE) as bench:
        yield bench


@each
def test_cost_map_and_unattributed_cost_equal_the_totals(bench, policy):
    _, record, _ = bench.run(policy)
    cost_map = record.cost_map
    placed = cost_map.values.sum(axis=(1, 2)) + np.array(astuple(cost_map.unattributed))
    np.testing.assert_allclose(placed, astuple(cost_map.total), rtol=1e-9)
    assert cost_map.total.flops > 0
    assert cost_map.total.pixels > 0
    assert sum(row.flops for row in record.patches) == pytest.approx(cost_map.total.flops, rel=1e-9)


@each
def test_every_policy_fills_the_output(bench, policy):
    estimate, record, _ = bench.run(policy)
    assert estimate is not None
    assert np.isfinite(record.output.values).any()
    assert estimate.values is not None
    assert np.isfinite(estimate.values).all()


@each
def test_budget_is_never_exceeded(bench, policy):
    _, full, _ = bench.run(policy)
    budget = 0.4 * full.cost_map.total.flops
    estimate, record, _ = bench.run(policy, budget=budget)
    assert estimate is not None
    assert record.cost_map.total.flops <= budget * (1 + 1e-9)


@each
def test_stopping_leaves_no_estimate_and_no_threads(policy):
    with Workbench(IMAGE) as bench:
        control = RunControl()
        results: list[InferenceResult] = []

        def on_event(update: object) -> None:
            if isinstance(update, InferenceResult):
                results.append(update)
                control.stop()

        before = threads()
        estimate, record, _ = bench.run(policy, control=control, on_event=on_event)
        assert threads() == before
        if policy is warped:
            assert len(results) == 1  # its only patch: there was nothing left to stop
        else:
            assert estimate is None
            assert len(record.patches) <= len(results)


@each
def test_an_interrupted_run_replays_to_the_same_bits(bench, policy):
    estimate, whole, _ = bench.run(policy)
    requests = max(1, RecordingSink(whole).commits)
    sink = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0))
    bench.run(policy, sink=sink)
    requests = sink.commits
    for cut in range(requests):
        journal: dict = {}
        first = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0), journal)
        first.die_after = cut
        with pytest.raises(KeyboardInterrupt):
            bench.run(policy, sink=first)
        second = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0), journal)
        again, record, _ = bench.run(policy, sink=second)
        assert second.commits == requests - cut  # finished requests are not run again
        np.testing.assert_array_equal(again.values, estimate.values)
        np.testing.assert_array_equal(record.output.values, whole.output.values)
        np.testing.assert_array_equal(record.saliency.values, whole.saliency.values)
        for name in ("flops", "bytes", "pixels"):
            assert getattr(record.cost_map.total, name) == pytest.approx(
                getattr(whole.cost_map.total, name), rel=1e-9
            )
        if cut:
            assert record.cost_map.spent.flops < record.cost_map.total.flops


class Ticks:
    """A clock that advances by a second whenever it is asked for the time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 1
        return self.seconds


@each
@pytest.mark.parametrize("limit", [0.5, 9, 30])
def test_where_the_clock_ended_a_run_is_replayed_without_the_clock(bench, policy, limit):
    sink = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0))
    clock = RunClock(limit, now=Ticks())
    estimate, record, _ = bench.run(policy, sink=sink, clock=clock)
    assert estimate is not None
    # Results come one by one: none is started after the limit.
    assert len(record.patches) <= limit
    for other in (RunClock(1e9), RunClock(limit, now=lambda: 0.0)):  # much faster
        second = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0), dict(sink.journal))
        again, replayed, _ = bench.run(policy, sink=second, clock=other)
        assert second.commits == 0
        np.testing.assert_array_equal(again.values, estimate.values)
        np.testing.assert_array_equal(replayed.output.values, record.output.values)


def test_a_resumed_run_has_the_seconds_left_that_it_had(bench):
    journal: dict = {}
    first = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0), journal)
    first.die_after = 2
    with pytest.raises(KeyboardInterrupt):
        bench.run(many_patches, sink=first, clock=RunClock(40, now=Ticks()))
    used = journal[1][1].seconds
    assert 14 <= used < 40
    second = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0), journal)
    _, record, _ = bench.run(many_patches, sink=second, clock=RunClock(40, now=Ticks()))
    assert 14 < len(record.patches) <= 14 + 40 - used


def test_pauses_do_not_count(monkeypatch):
    times = iter([100.0, 107.0])
    monkeypatch.setattr("hrviewer.engine.run_control.time.perf_counter", lambda: next(times))
    now = [0.0]
    control = RunControl()
    clock = RunClock(3.0, control, lambda: now[0])
    clock.start()
    control.pause()
    now[0] = 9.0
    control.resume()
    assert (clock.elapsed, clock.expired) == (2.0, False)


def test_patches_that_failed_are_run_again_when_a_run_is_resumed():
    main = Bright()

    def fail(batch):
        if main.inferred in (3, 5, 20):
            raise OSError("gone")

    main.before = fail
    with Workbench(IMAGE, toy_bundle(main=main)) as bench:
        sink = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0))
        _, part, _ = bench.run(many_patches, sink=sink)
        assert part.counts()["failed"] == 3
        assert 0.9 < part.coverage < 1
        main.before = lambda batch: None
        inferred = main.inferred
        second = RecordingSink(empty_record(bench.pyramid, bench.models, 1.0), sink.journal)
        estimate, whole, _ = bench.run(many_patches, sink=second)
        assert main.inferred == inferred + 3
        plain, record, _ = bench.run(many_patches)
    assert (whole.counts()["failed"], whole.coverage) == (0, 1)
    np.testing.assert_array_equal(estimate.values, plain.values)
    np.testing.assert_array_equal(whole.output.values, record.output.values)
    spent = whole.cost_map.spent.flops / whole.cost_map.total.flops
    assert spent == pytest.approx(3 / len(whole.patches), rel=0.5)


@each
def test_the_cache_changes_the_spent_cost_only(bench, policy, tmp_path):
    cache = ResultCache(tmp_path / "results.sqlite")
    cold_estimate, cold, _ = bench.run(policy, cache=cache)
    inferred = sum(net.inferred for net in bench.bundle.networks.values())
    warm_estimate, warm, _ = bench.run(policy, cache=ResultCache(tmp_path / "results.sqlite"))
    assert sum(net.inferred for net in bench.bundle.networks.values()) == inferred
    np.testing.assert_array_equal(warm_estimate.values, cold_estimate.values)
    np.testing.assert_array_equal(warm.output.values, cold.output.values)
    np.testing.assert_allclose(
        astuple(warm.cost_map.total), astuple(cold.cost_map.total), rtol=1e-12
    )
    assert warm.cost_map.spent.flops == 0
    assert {row.status for row in warm.patches} == {"cached"}
    cache.close()


@each
def test_live_cells_are_computed_once(policy):
    with Workbench(picture(900, 1100)) as bench:
        ready: list[object] = []
        session = LiveSession(
            bench.pyramid, bench.models, Toy(policy), Params(), on_update=collect_cells(ready)
        )
        try:
            view = Rect(300, 300, 500, 600)
            assert session.follow_view(view, 1.0) == []
            wait(session)
            assert len(ready) == 4
            computed = session.computed
            assert computed > 0
            session.follow_view(Rect(0, 0, 200, 200), 1.0)
            wait(session)
            there = session.follow_view(view, 1.0)
            wait(session)
            assert len(there) == 4
            assert session.computed == computed  # the corner belongs to a finished cell
            record = empty_record(bench.pyramid, bench.models, 1.0)
            for cell in there:
                paint_cell(cell, record)
            assert np.isfinite(record.output.values).any()
            assert record.cost_map.total.flops > 0
        finally:
            session.close()
    assert not threads()


def wait(session: LiveSession, seconds: float = 30) -> None:
    import time

    end = time.monotonic() + seconds
    while not session.is_idle():
        assert time.monotonic() < end, "the live session does not come to rest"
        time.sleep(0.005)
    assert session.error is None


# Known predictions.


def test_patches_count_every_whole_block(bench):
    estimate, record, _ = bench.run(many_patches)
    assert estimate.values[0] == pytest.approx(RED.sum(), rel=1e-6)
    assert np.nansum(record.output.values) == pytest.approx(RED.sum(), rel=1e-6)
    assert record.cost_map.total.flops == FLOPS * IMAGE.shape[0] * IMAGE.shape[1]
    assert record.cost_map.total.pixels == IMAGE.shape[0] * IMAGE.shape[1]


def test_embeddings_suffice_for_the_head(bench):
    estimate, record, _ = bench.run(features_then_head)
    assert estimate.values[0] == pytest.approx(
        RED.sum(), rel=1e-5
    )  # embeddings are rounded to float16
    thoughts = [row for row in record.patches if row.role == "head"]
    assert [row.flops for row in thoughts] == [2.0 * 3 * 50 * 65] * 2


def test_tokens_share_their_groups_cost_evenly(bench):
    _, record, _ = bench.run(tokens)
    assert {row.flops for row in record.patches} == {(10.0 * 4 + 16) / 4}


def test_finer_predictions_replace_coarser_ones_on_their_core(bench):
    _, record, _ = bench.run(scan_then_heavy)
    heavy = [row for row in record.patches if row.role == "main"]
    assert heavy
    for row in heavy:
        block = record.output.values[
            0, row.y // 4 : (row.y + row.h) // 4, row.x // 4 : (row.x + row.w) // 4
        ]
        assert block.sum() == pytest.approx(
            RED[row.y : row.y + row.h, row.x : row.x + row.w].sum(), rel=1e-5
        )


def test_unwarping_keeps_the_mass(bench):
    estimate, record, _ = bench.run(warped)
    assert np.nansum(record.output.values) == pytest.approx(estimate.values[0], rel=1e-5)
    # The middle is magnified, so it holds more than its share of the samples, and of the cost.
    cost = record.cost_map.values[0]
    middle = cost[4:9, 5:12].sum() / cost.sum()
    assert middle > 1.3 * (5 * 7) / cost.size


def test_scores_are_listed_with_their_patches(bench):
    _, record, _ = bench.run(overview_then_chosen)
    scores = [row.score for row in record.patches if row.role == "main"]
    assert scores == sorted(scores, reverse=True)
    assert np.isfinite(scores).all()


def test_progress_ends_at_all_requested_patches(bench):
    updates: list[Progress] = []

    def on_event(update: object) -> None:
        if isinstance(update, Progress):
            updates.append(update)

    _, record, _ = bench.run(many_patches, on_event=on_event)
    assert updates[-1] == Progress(63, 63, record.cost_map.total.flops)
    assert [u.done for u in updates] == sorted(u.done for u in updates)


def test_the_region_bounds_the_estimate(bench):
    region = Rect(37, 50, 90, 101)
    estimate, record, _ = bench.run(many_patches, region=region)
    inside = RED[37:127, 50:151].sum()
    # Blocks that the region cuts count by the part that lies inside.
    assert estimate.values[0] == pytest.approx(inside, rel=0.02)
    assert np.nansum(record.output.values) == pytest.approx(estimate.values[0], rel=1e-5)
    cell = record.cost_map.cell
    rows, columns = np.nonzero(record.cost_map.values[0])
    assert rows.min() == 37 // cell
    assert columns.max() == 150 // cell


def test_unknown_roles_are_refused_by_name():
    from toys import Bright, ToyBundle

    from hrviewer.errors import HrviewerError

    def needs_scanner(context: PlanContext):
        yield scan_then_heavy(context).send(None)

    with (
        Workbench(IMAGE, ToyBundle(main=Bright())) as bench,
        pytest.raises(HrviewerError, match="scanner"),
    ):
        bench.run(scan_then_heavy)
    assert toy_bundle().roles.keys() >= {"scanner"}
