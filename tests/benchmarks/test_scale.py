"""The simulation of many workers, where its answer is known."""

from __future__ import annotations

import pytest

from benchmarks.scale import Farm, simulate

CALM = Farm(100.0, 0.1, open_s=0.0, start_s=0.0, spread=0.0, failures_per_hour=0.0)


@pytest.mark.parametrize(("workers", "rounds"), [(1, 10), (2, 5), (4, 3), (16, 1)])
def test_equal_slides_are_done_in_rounds(workers, rounds):
    assert simulate(CALM, workers, 10, 2.0)["hours"] == pytest.approx(rounds * 200 / 3600)


def test_a_store_that_all_share_limits_the_number_of_workers():
    slow = Farm(100.0, 10.0, store_gigabytes_per_s=0.2, open_s=0.0, start_s=0.0, spread=0.0,
                failures_per_hour=0.0)  # fmt: skip
    few, many = simulate(slow, 2, 64, 1.0), simulate(slow, 64, 64, 1.0)
    assert few["store_slowdown"] == 1.0
    # 64 slides of 10 GB at 0.2 GB/s, for any number of workers from two on.
    assert many["hours"] == pytest.approx(64 * 10 / 0.2 / 3600)


def test_failures_cost_the_request_in_flight_and_the_restart():
    shaky = Farm(3600.0, 0.0, open_s=0.0, start_s=0.0, spread=0.0, failures_per_hour=1.0)
    done = simulate(shaky, 1, 1000, 1.0)
    # A failure per hour of work, of which each adds a restart and at most a request.
    expected = 1000 * (1 + (120 + 30) / 3600)
    assert done["hours"] == pytest.approx(expected, rel=0.02)
