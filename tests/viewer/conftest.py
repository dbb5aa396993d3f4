"""A network whose answer is known, windows and controllers, without the user's own folders."""

from __future__ import annotations

import time

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer
from toys import Bright, Encoder, Head, Joint, ToyBundle, picture

from hrviewer.engine import ResultCache
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.controller import Controller
from hrviewer.viewer.image.image_layer import image_layer_data

SHAPE = 300, 420


@pytest.fixture
def photo():
    return picture(*SHAPE)


@pytest.fixture
def count(photo):
    """What the toy network counts on the whole photo."""
    return photo[..., 0].sum(dtype=np.float64) / 255


@pytest.fixture
def add():
    """Show an image as a pyramid; ``pixel_size`` gives it one."""

    def show(viewer, image, pixel_size=None):
        pyramid = open_pyramid(image)
        pyramid.pixel_size = pixel_size
        return viewer.add_layer(Layer.create(*image_layer_data(pyramid)))

    return show


@pytest.fixture
def finish():
    """Tick until a run has come to a state."""

    def until(controller, state="idle", seconds=30):
        end = time.monotonic() + seconds
        while controller.state != state:
            assert time.monotonic() < end, controller.state
            controller.tick()
            time.sleep(0.005)
        controller.tick()

    return until


@pytest.fixture
def network():
    return Bright()


@pytest.fixture
def toys(network):
    return ToyBundle(
        main=network,
        scanner=Bright("scanner"),
        encoder=Encoder(),
        head=Head("head"),
        transformer=Joint("transformer", tile=16),
    )


@pytest.fixture
def model():
    """A viewer without a window."""
    return ViewerModel()


@pytest.fixture
def controller(model, toys, tmp_path):
    """A controller without a window, that remembers what it told the person."""
    made = Controller(model, cache=ResultCache(), run_folder=tmp_path / "runs", low_priority=False)
    made.told = {"failed": [], "answered": [], "noted": [], "progressed": [], "state_changed": [],
                 "annotated": []}  # fmt: skip
    for name, heard in made.told.items():
        getattr(made, name).connect(lambda *words, heard=heard: heard.append(words))
    made.set_model(toys)
    made.set_strategy("patches")
    yield made
    made.close()


def until_quiet(controller, seconds=60):
    """Tick until nothing is opened, written, read or asked."""
    end = time.monotonic() + seconds
    controller.tick()
    while controller.has_pending_work:
        assert time.monotonic() < end
        time.sleep(0.005)  # who only ticks lets the other threads wait
        controller.tick()
    controller.tick()


def errors(controller):
    """What the person was told went wrong."""
    return [message for (message,) in controller.told["failed"] if message]
