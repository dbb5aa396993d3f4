"""Warps and tokens that are read while others are inferred: the same bits and costs, in order."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from toys import Bright, Workbench, picture, threads, tokens, toy_bundle

from hrviewer.engine import RunControl, joint_inference, token_inference
from hrviewer.engine.plan_runner import Progress
from hrviewer.geometry import Grid, Rect
from hrviewer.strategies import Estimate, WarpRequest

IMAGE = picture(256, 256)
T = np.linspace(0, 1, 9)
BENT = np.stack(np.meshgrid(T + 0.1 * np.sin(2 * np.pi * T), T, indexing="ij"), axis=-1)


def warps(*, ahead=True):
    """A policy of one warp per quarter, each with the next one named or not."""

    def policy(context):
        found = [
            WarpRequest("main", rect, BENT, (64, 64), "output")
            for rect in Grid(context.region, 128)
        ]
        total = 0.0
        for i, warp in enumerate(found):
            following = found[i + 1] if ahead and i + 1 < len(found) else None
            response = yield replace(warp, following=following)
            if response.stop:
                break
            total += float(response.results[0].value[0])
        return Estimate(np.array([total]))

    return policy


class Waiting(Bright):
    """A network whose first inference ends only once something else has happened."""

    def __init__(self, event):
        super().__init__()
        self.event, self.runs = event, 0

    def _run(self, batch):
        self.runs += 1
        if self.runs == 1 and not self.event.wait(20):
            raise RuntimeError("nothing was read meanwhile")
        return super()._run(batch)


def run(policy, **how):
    with Workbench(IMAGE) as bench:
        estimate, record, pipeline = bench.run(policy, **how)
        costs = [(p.y, p.x, p.flops, p.bytes, p.pixels) for p in record.patches]
        return estimate.values, record.output.values, costs, pipeline.meter.total.pixels


@pytest.mark.parametrize("policy", [warps(), tokens])
def test_reading_ahead_changes_neither_bits_nor_costs(policy, monkeypatch):
    monkeypatch.setattr(token_inference, "MAX_BATCH_TOKENS", 8)
    both = []
    for batches in (1, 2):
        monkeypatch.setattr(joint_inference, "STARTED_BATCHES", batches)
        both.append(run(policy))
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_the_next_warp_is_read_while_one_is_inferred():
    second = list(Grid(Rect(0, 0, 256, 256), 128))[1]
    read = threading.Event()
    with Workbench(IMAGE, toy_bundle(Waiting(read))) as bench:
        original = bench.pyramid.read_with_coverage

        def reading(rect, *args, **kwargs):
            if not (Rect(*rect.astuple()) & second).empty and rect.x >= 100:
                read.set()
            return original(rect, *args, **kwargs)

        bench.pyramid.read_with_coverage = reading
        _, record, _ = bench.run(warps())
        assert [patch.status for patch in record.patches] == ["done"] * 4
    assert not threads()


def test_a_warp_beyond_the_budget_is_not_inferred():
    event = threading.Event()
    event.set()
    network = Waiting(event)
    with Workbench(IMAGE, toy_bundle(network)) as bench:
        price = bench.models["main"].flops(64, 64)
        before = network.runs
        _, record, _ = bench.run(warps(), budget=2.5 * price)
        assert len(record.patches) == network.runs - before == 2


def test_a_stopped_run_drops_what_it_started():
    control = RunControl()
    with Workbench(IMAGE) as bench:
        estimate, record, _ = bench.run(
            warps(),
            control=control,
            on_event=lambda update: control.stop() if isinstance(update, Progress) else None,
        )
        assert estimate is None
        assert len(record.patches) == 1
    assert not threads()
