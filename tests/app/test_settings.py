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
    threads, read = [], settings.predicted_density

    def predicted_density(run):
        threads.append(threading.current_thread())
        return read(run)

    monkeypatch.setattr(settings, "predicted_density", predicted_density)
    return threads


def test_the_density_of_a_run_is_read_on_another_thread(app, photo, readers):
    image = open_image(app, photo)
    run(app)
    first = image.run
    app.state.set_strategy("nonuniform")
    app.state.settings.prior = "run"
    resolved = app.state.resolve()
    assert (resolved.priors, resolved.prior_run) == ({}, first)
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
    released, done, read = threading.Event(), threading.Event(), settings.predicted_density

    def predicted_density(run):
        assert released.wait(20)
        density = read(run)
        done.set()
        return density

    image = open_image(app, photo)
    run(app)
    monkeypatch.setattr(settings, "predicted_density", predicted_density)
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
