"""The live session: what is kept, what is dropped, what is said."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from toys import FLOPS, Bench, Bright, Toy, ToyPack, many_patches, overview_then_chosen, picture

from hrviewer.engine import Budget, Cell, ResultCache, Seen, Session, cells
from hrviewer.engine.scene import Networks
from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.strategies import Params

IMAGE = picture(1024, 1024)
VIEW = Rect(0, 0, 1024, 1024)


@pytest.fixture
def bench():
    with Bench(IMAGE) as bench:
        yield bench


@pytest.fixture
def follow(bench):
    """Begin sessions that are closed at the end."""
    begun = []

    def begin(**settings):
        session = Session(bench.pyramid, bench.networks, Toy(many_patches), Params(), **settings)
        begun.append(session)
        return session

    yield begin
    for session in begun:
        session.close()


def wait(session, seconds=30):
    end = time.monotonic() + seconds
    while not session.idle():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_cells_in_the_middle_come_first():
    found = cells(Rect(0, 0, 2000, 2000), 1.0, Rect(0, 0, 5000, 5000))
    assert len(found) == 16
    middle = [np.hypot(cell.center[0] - 1000, cell.center[1] - 1000) for cell in found]
    assert middle == sorted(middle)
    assert cells(Rect(9000, 0, 10, 10), 1.0, Rect(0, 0, 5000, 5000)) == []
    (border,) = cells(Rect(4990, 4990, 100, 100), 4.0, Rect(0, 0, 5000, 5000))
    assert border == Rect(4096, 4096, 904, 904)


def test_what_is_heard_of_a_cell(follow):
    said: dict[Rect, list[object]] = {}
    session = follow(heard=lambda number, rect, update: said.setdefault(rect, []).append(update))
    session.look_at(VIEW, 1.0)
    wait(session)
    assert len(said) == 4
    for rect, updates in said.items():
        assert updates[0] is None
        assert isinstance(updates[-1], Cell)
        assert updates[-1].rect == rect
        looks = [update for update in updates if isinstance(update, Seen)]
        assert len(looks) == 16 * 16
        assert all(look.patch.core in rect for look in looks)


def test_a_cell_left_half_done_goes_on_where_it_stopped(bench, follow):
    network = bench.pack.networks["main"]
    reached = threading.Event()

    def count(batch):
        if network.looked == 100:
            reached.set()

    network.before = count
    session = follow(cache=ResultCache())
    session.look_at(Rect(0, 0, 500, 500), 1.0)
    assert reached.wait(20)
    session.rest()
    wait(session)
    assert session.waiting == 0
    network.before = lambda batch: None
    session.look_at(Rect(0, 0, 500, 500), 1.0)
    wait(session)
    # Only what was in flight when it stopped may have been seen twice.
    assert 256 <= network.looked <= 256 + 4


def test_the_same_view_again_does_not_begin_a_cell_again(bench, follow):
    network = bench.pack.networks["main"]
    network.before = lambda batch: time.sleep(0.001)
    session = follow()
    for i in range(20):
        session.look_at(Rect(i, i, 400, 400), 1.0)
        time.sleep(0.01)
    wait(session)
    assert network.looked == session.computed == 256


def test_choices_and_back(bench, follow):
    session = follow()
    session.look_at(VIEW, 1.0)
    wait(session)
    computed = session.computed
    assert session.switch(Toy(overview_then_chosen), Params()) == 1
    assert session.look_at(VIEW, 1.0) == []
    wait(session)
    other = session.computed
    assert other > computed
    session.switch(Toy(many_patches), Params())
    assert len(session.look_at(VIEW, 1.0)) == 4
    wait(session)
    assert session.computed == other
    # Another network, under the same names; then the first one, loaded anew.
    twin = ToyPack(**{**bench.pack.networks, "main": Bright("another")})
    session.switch(Toy(many_patches), Params(), None, Networks(twin, bench.device))
    session.look_at(VIEW, 1.0)
    wait(session)
    assert session.computed == other + computed
    session.switch(Toy(many_patches), Params(), None, Networks(bench.pack, bench.device))
    ready = []
    session._ready = ready.append
    session.look_at(VIEW, 1.0)
    wait(session)
    assert session.computed == other + computed
    assert len(ready) == 4


def test_a_budget_is_shared_out_by_area(follow):
    whole = FLOPS * 1024 * 1024
    found = []
    session = follow(budget=Budget(0.5 * whole, "flops"), ready=found.append)
    session.look_at(VIEW, 1.0)
    wait(session)
    spent = [sum(look.charge.flops for _, looks in cell.seen for look in looks) for cell in found]
    assert spent == pytest.approx([whole / 8] * 4, rel=0.02)
    session.switch(Toy(many_patches), Params(), Budget(1e-9, "seconds"))
    session.look_at(VIEW, 1.0)
    wait(session)
    assert session.error is None
    assert len(session._rates) == 1


def test_what_is_kept_is_bounded(follow):
    session = follow(keep=1_000_000)
    session.look_at(VIEW, 1.0)
    wait(session)
    assert 1 <= len(session._kept) < 4
    assert session._size <= 1_000_000


def test_errors_are_told_and_do_not_end_it(bench, follow):
    told = []
    session = follow(failed=told.append)

    def refuses(scene):
        raise UserError("not here")
        yield

    session.switch(Toy(refuses), Params())
    session.look_at(VIEW, 1.0)
    wait(session)
    assert [str(error) for error in told] == ["not here"]
    session.switch(Toy(many_patches), Params())
    session.look_at(VIEW, 1.0)
    wait(session)
    assert session.computed > 0


def test_nothing_waits_for_what_is_computed(bench, follow):
    gate = threading.Event()
    network = bench.pack.networks["main"]
    network.before = lambda batch: gate.wait(20)
    session = follow()
    session.look_at(VIEW, 1.0)
    while not network.calls:
        time.sleep(0.002)
    start = time.perf_counter()
    for i in range(100):
        session.look_at(Rect(i, i, 900, 900), 1.0)
    session.switch(Toy(overview_then_chosen), Params())
    session.rest()
    assert (time.perf_counter() - start) / 100 < 0.005
    gate.set()
