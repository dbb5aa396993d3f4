"""The ledger: its map and what could not be placed are the totals, to 1e-9."""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hrviewer.engine import Cost, CostMap
from hrviewer.geometry import Rect

IMAGE = Rect(0, 0, 333, 517)

amounts = st.just(0.0) | st.floats(1e-9, 1e15)
seconds = st.just(0.0) | st.floats(1e-9, 1e4)
charges = st.builds(Cost, amounts, amounts, amounts, *[seconds] * 4)
rects = st.builds(
    Rect, st.integers(-300, 400), st.integers(-300, 600), st.integers(1, 300), st.integers(1, 300)
)


@given(st.lists(st.tuples(charges, rects, st.booleans()), max_size=12))
def test_map_and_unplaced_are_the_totals(booked):
    ledger = CostMap(IMAGE, 16)
    for charge, where, paid in booked:
        ledger.add(charge, where, spent=paid)
    placed = ledger.values.sum((1, 2)) + np.array(astuple(ledger.unattributed))
    np.testing.assert_allclose(placed, astuple(ledger.total), rtol=1e-9)
    spent = [sum(c.flops for c, _, paid in booked if paid)]
    np.testing.assert_allclose(ledger.spent.flops, spent[0], rtol=1e-9)


def test_a_charge_falls_evenly_on_its_core_clipped_to_the_image():
    ledger = CostMap(IMAGE, 16)
    ledger.add(Cost(flops=100), Rect(-10, 8, 26, 16), spent=True)  # 16 rows inside
    flops = ledger.values[0]
    assert flops[0, 0] == pytest.approx(50)
    assert flops[0, 1] == pytest.approx(50)
    assert np.count_nonzero(flops) == 2


def test_what_falls_on_no_pixel_is_unplaced():
    ledger = CostMap(IMAGE, 16)
    ledger.add(Cost(flops=7), Rect(1000, 0, 5, 5), spent=True)
    ledger.add(Cost(flops=3), Rect(0, 0, 0, 0), spent=False)
    assert ledger.unattributed.flops == 10
    assert not ledger.values.any()
    assert (ledger.total.flops, ledger.spent.flops) == (10, 7)


def test_spread_charges_follow_their_weights():
    ledger = CostMap(IMAGE, 16)
    weights = np.array([[0.75, 0.25]])
    ledger.add(Cost(flops=8), Rect(0, 0, 16, 32), spent=True, weights=weights)
    np.testing.assert_allclose(ledger.values[0, 0, :2], [6, 2])


def test_charges_add_and_scale():
    charge = Cost(2, 4, 6, 1, 2, 3, 4) + Cost(1) * 2
    assert charge == Cost(4, 4, 6, 1, 2, 3, 4)
    assert charge.seconds == 10
