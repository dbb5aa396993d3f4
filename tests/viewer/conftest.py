"""A network with a known prediction, viewers and controllers, without the user's own folders."""

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
    """The toy network's count on the whole photo."""
    return photo[..., 0].sum(dtype=np.float64) / 255


@pytest.fixture
def add():
    """Show an image as a pyramid; ``pixel_size`` gives it one."""

    def show(viewer, image, pixel_size=None):
        pyramid = open_pyramid(image)
        pyramid.pixel_size = pixel_size
        return viewer.add_layer(Layer.create(*image_layer_data(pyramid)))

    return show


UNEQUAL = (2.0, 0.5)
"""µm per pixel of the anisotropic image, ``(y, x)``."""


@pytest.fixture
def anisotropic(model, photo, add):
    """A layer of the photo with pixels of unequal sides, all of it in view."""
    layer = add(model, photo, UNEQUAL)
    model.canvas.size = (600, 800)
    model.scene.camera.center = tuple(np.array(UNEQUAL) * (np.array(SHAPE) - 1) / 2)
    model.scene.camera.zoom = 1.0
    return layer


@pytest.fixture
def finish():
    """Tick until a run has come to a state."""

    def until(controller, state="idle", seconds=30):
        end = time.monotonic() + seconds
        while controller.state.run_state != state:
            assert time.monotonic() < end, controller.state.run_state
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


SIGNALS = (
    "error_raised",
    "estimate_changed",
    "notes_changed",
    "progress_changed",
    "run_state_changed",
    "annotations_saved",
)


@pytest.fixture
def controller(model, toys, tmp_path):
    """A controller without a window, and what its state emitted."""
    made = Controller(model, cache=ResultCache(), run_folder=tmp_path / "runs", low_priority=False)
    made.emitted = {name: [] for name in SIGNALS}
    for name, values in made.emitted.items():
        getattr(made.state, name).connect(lambda *args, values=values: values.append(args))
    made.state.set_model(toys)
    made.state.set_strategy("patches")
    yield made
    made.close()


def until_quiet(controller, seconds=60):
    """Tick until nothing is opened, written, read or inspected."""
    end = time.monotonic() + seconds
    controller.tick()
    while controller.has_pending_work:
        assert time.monotonic() < end
        time.sleep(0.005)  # other threads need their time
        controller.tick()
    controller.tick()


def errors(controller):
    """The reported errors."""
    return [message for (message,) in controller.emitted["error_raised"] if message]
