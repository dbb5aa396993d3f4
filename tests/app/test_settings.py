"""Settings resolved into runs: what is large is read on worker threads."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from app.headless import is_live_done, look_at, open_image, run, wait
from hrviewer.app import settings
from hrviewer.geometry import Rect


@pytest.fixture
def readers(monkeypatch):
    """Threads that read the density of a run."""
    threads, read = [], settings.as_priors

    def as_priors(sources):
        if sources:
            threads.append(threading.current_thread())
        return read(sources)

    monkeypatch.setattr(settings, "as_priors", as_priors)
    return threads


def test_the_density_of_a_run_is_read_on_another_thread(app, photo, readers):
    image = open_image(app, photo)
    run(app)
    first = image.run
    app.state.set_strategy("nonuniform")
    app.state.settings.prior = "run"
    resolved = app.state.resolve()
    assert (resolved.priors, resolved.prior_sources) == ({}, {"density": str(first.path)})
    assert readers == []
    run(app)
    assert app.errors[-1:] in ([], [""])
    assert image.run.header["priors"].keys() == {"density"}
    look_at(image, Rect(0, 0, 300, 420))
    app.live.set_enabled(True)
    wait(app, lambda: is_live_done(app))
    assert len(readers) == 2
    assert threading.main_thread() not in readers
    (cell,) = app.live._cells_done.values()
    assert np.isfinite(cell.estimate.values).all()


def test_live_switched_off_while_a_density_is_read_starts_nothing(app, photo, monkeypatch):
    released, done, read = threading.Event(), threading.Event(), settings.as_priors

    def as_priors(sources):
        assert released.wait(20)
        density = read(sources)
        done.set()
        return density

    image = open_image(app, photo)
    run(app)
    monkeypatch.setattr(settings, "as_priors", as_priors)
    app.state.set_strategy("nonuniform")
    app.state.settings.prior = "run"
    look_at(image, Rect(0, 0, 300, 420))
    app.live.set_enabled(True)
    wait(app, lambda: app.live._prior_task is not None)
    app.live.set_enabled(False)
    released.set()
    wait(app, done.is_set)
    assert app.live.session is None
    assert [message for message in app.errors if message] == []


def test_a_stopped_run_with_a_run_as_its_prior_map_is_resumed(app, photo, gate):
    image = open_image(app, photo)
    gate.set()
    run(app)
    prior = image.run
    app.state.set_strategy("nonuniform")
    app.state.settings.prior = "run"
    gate.clear()
    app.run_service.start()
    wait(app, lambda: app.state.run_state == "running")
    app.run_service.stop()
    gate.set()
    wait(app, lambda: app.state.run_state == "idle")
    stopped = app.state.resumable_run
    assert stopped.header["prior_sources"] == {"density": str(prior.path)}
    # The stopped run is the last one now, and something else is selected.
    app.state.settings.prior = None
    app.run_service.resume()
    wait(app, lambda: app.state.run_state == "idle")
    assert app.errors[-1] == ""
    assert image.run.path == stopped.path
    assert image.run.complete
    assert image.run.header["priors"].keys() == {"density"}
