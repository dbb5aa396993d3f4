"""Any order of views, selections, failures and pauses: cells are whole, right and all there."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from toys import Toy, Workbench, many_patches, overview_then_chosen, picture

from hrviewer.engine import LiveSession, ViewportCell, visible_cells
from hrviewer.geometry import Rect
from hrviewer.strategies import Params

pytestmark = pytest.mark.slow

IMAGE = picture(600, 800)
VIEWS = [Rect(0, 0, 512, 512), Rect(256, 300, 300, 500), Rect(0, 0, 600, 800), Rect(590, 790, 9, 9)]
POLICIES = [many_patches, overview_then_chosen]

expected: dict[tuple[int, Rect], list[np.ndarray[Any, Any]]] = {}
"""Maps of each cell by policy, from a session that did nothing else."""


def maps_of(cell: ViewportCell) -> list[np.ndarray[Any, Any]]:
    return [result.map for _, results in cell.results for result in results]


def wait(session: LiveSession) -> None:
    end = time.monotonic() + 60
    while not session.is_idle():
        assert time.monotonic() < end
        time.sleep(0.002)


def reference(bench: Workbench, policy: int, view: Rect, rect: Rect) -> list[np.ndarray[Any, Any]]:
    if (policy, rect) not in expected:
        session = LiveSession(bench.pyramid, bench.models, Toy(POLICIES[policy]), Params())
        session.follow_view(view, 1.0)
        wait(session)
        for cell in session.follow_view(view, 1.0):
            expected[policy, cell.rect] = maps_of(cell)
        session.close()
    return expected[policy, rect]


class LiveStates(RuleBasedStateMachine):
    """A session, the selected policy and the numbers of selections that were reported."""

    @initialize(prefetch=st.booleans())
    def begin(self, prefetch: bool) -> None:
        self.bench = Workbench(IMAGE)
        self.policy, self.number, self.failing = 0, 0, False
        self.numbers: set[int] = set()
        self.errors: list[Exception] = []
        self.session = LiveSession(
            self.bench.pyramid, self.bench.models, Toy(POLICIES[0]), Params(), prefetch=prefetch,
            on_update=lambda number, rect, update: self.numbers.add(number),
            on_error=self.errors.append,
        )  # fmt: skip

    @rule(view=st.sampled_from(VIEWS))
    def look_at(self, view: Rect) -> None:
        self.session.follow_view(view, 1.0)

    @rule(policy=st.sampled_from([0, 1]))
    def select(self, policy: int) -> None:
        self.policy = policy
        self.number = self.session.select(Toy(POLICIES[policy]), Params())

    @rule()
    def pause(self) -> None:
        self.session.idle_now()
        assert self.session.pending == 0

    @rule(failing=st.booleans())
    def fail(self, failing: bool) -> None:
        def refuse(batch: object) -> None:
            if failing:
                raise ValueError("no inference")

        self.bench.bundle.networks["main"].before = refuse
        self.failing = failing

    @rule(view=st.sampled_from(VIEWS))
    def settle(self, view: Rect) -> None:
        """After any history a view ends complete, with the cells of the selection."""
        self.fail(False)
        self.session.idle_now()
        wait(self.session)
        for _ in range(2):  # an error of before ends the view once
            self.session.follow_view(view, 1.0)
            wait(self.session)
        cells = self.session.follow_view(view, 1.0)
        assert self.session.pending == 0
        assert {cell.rect for cell in cells} == set(
            visible_cells(view, 1.0, self.bench.pyramid.rect)
        )
        for cell in cells:
            wanted = reference(self.bench, self.policy, view, cell.rect)
            found = maps_of(cell)
            assert len(found) == len(wanted)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one, other)

    @invariant()
    def numbers_are_of_selections(self) -> None:
        if hasattr(self, "session"):
            assert all(number <= self.number for number in self.numbers.copy())

    def teardown(self) -> None:
        if hasattr(self, "session"):
            self.session.close()
            self.bench.device.close()
            assert not [t for t in threading.enumerate() if t.name == "hrviewer-live"]


LiveStates.TestCase.settings = settings(
    max_examples=6, stateful_step_count=8, deadline=None, derandomize=True, database=None
)
TestLiveStates = LiveStates.TestCase
