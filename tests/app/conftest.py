"""Applications without a front end."""

from __future__ import annotations

import threading

import pytest
from toys import Bright, Encoder, ToyBundle, picture

from app.headless import make_app, open_image


@pytest.fixture
def photo():
    return picture(300, 420)


@pytest.fixture
def network():
    return Bright()


@pytest.fixture
def toys(network):
    return ToyBundle(main=network, encoder=Encoder())


@pytest.fixture
def app(tmp_path, toys):
    made = make_app(tmp_path / "runs")
    made.state.set_model(toys)
    made.state.set_strategy("patches")
    made.errors = []
    made.state.error_raised.connect(lambda message: made.errors.append(message))
    yield made
    made.close()


@pytest.fixture
def two(app):
    """Two open images; the first is current."""
    sessions = [open_image(app, picture(300, 420, seed=seed)) for seed in (0, 1)]
    app.state.select_image(sessions[0])
    return sessions


@pytest.fixture
def gate(network):
    """Holds inference until it is set."""
    event = threading.Event()
    network.before = lambda batch: event.wait(20)
    yield event
    event.set()
