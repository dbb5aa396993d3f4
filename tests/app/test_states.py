"""Any order of images, strategies, runs and stops: every number stands beside its own image."""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from toys import Bright, Encoder, ToyBundle, picture

from app.headless import is_idle, make_app, open_image, wait
from hrviewer.formatting import NO_ESTIMATE

PICTURES = [picture(64, 96, seed=seed) for seed in (0, 1)]


class AppStates(RuleBasedStateMachine):
    """An application with images, and the values that it last announced."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.app = make_app(self.folder)
        self.bundles = [
            ToyBundle(main=Bright(name), encoder=Encoder()) for name in ("one", "other")
        ]
        self.errors: list[str] = []
        self.shown: dict[str, object] = {}
        state = self.app.state
        state.error_raised.connect(self.errors.append)
        state.estimate_changed.connect(lambda *found: self.shown.update(estimate=found[0]))
        state.notes_changed.connect(lambda notes: self.shown.update(notes=list(notes)))
        state.set_model(self.bundles[0])
        state.set_strategy("patches")
        open_image(self.app, PICTURES[0])

    @rule(which=st.integers(0, 1))
    def open(self, which: int) -> None:
        if len(self.app.state.images) < 3:
            open_image(self.app, PICTURES[which])

    @rule(which=st.integers(0, 2))
    def select(self, which: int) -> None:
        if self.app.state.images:
            images = self.app.state.images
            self.app.state.select_image(images[which % len(images)])

    @rule(which=st.integers(0, 2))
    def close(self, which: int) -> None:
        if self.app.state.images:
            images = self.app.state.images
            self.app.state.close_image(images[which % len(images)])

    @rule(which=st.integers(0, 1), strategy=st.sampled_from(["patches", "uniform"]))
    def choose(self, which: int, strategy: str) -> None:
        self.app.state.set_model(self.bundles[which])
        self.app.state.set_strategy(strategy)

    @rule()
    def start(self) -> None:
        if is_idle(self.app):
            self.app.run_service.start()

    @rule()
    def stop(self) -> None:
        self.app.run_service.stop()

    @rule()
    def let_time_pass(self) -> None:
        for _ in range(3):
            self.app.tick()
            time.sleep(0.005)

    @rule()
    def finish(self) -> None:
        wait(self.app, lambda: is_idle(self.app))

    @invariant()
    def results_are_of_their_image(self) -> None:
        if not hasattr(self, "app"):
            return
        state = self.app.state
        image = state.image
        assert image is None or image in state.images
        for session in state.images:
            if session.run is not None:
                assert session.run.image_key == session.source.pyramid().image_key
        if image is None:
            assert state.run is None
            assert self.shown.get("estimate", NO_ESTIMATE) == NO_ESTIMATE
        else:
            assert state.run is image.run
            assert self.shown.get("estimate", NO_ESTIMATE) == image.estimate
            assert self.shown.get("notes", []) == list(image.notes)
        if state.resumable_run is not None:
            assert image is not None
            assert state.resumable_run.image_key == image.source.pyramid().image_key

    def teardown(self) -> None:
        if hasattr(self, "app"):
            self.app.run_service.stop()
            wait(self.app, lambda: is_idle(self.app))
            self.app.close()
            shutil.rmtree(self.folder, ignore_errors=True)


AppStates.TestCase.settings = settings(
    max_examples=8, stateful_step_count=12, deadline=None, derandomize=True, database=None
)
TestAppStates = AppStates.TestCase
