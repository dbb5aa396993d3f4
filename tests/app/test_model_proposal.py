"""Tests of the model that is proposed for an image."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
import xarray

from hrviewer.app.application import Application
from hrviewer.app.image_session import PyramidImage
from hrviewer.app.services.loading import ImageDisplay
from hrviewer.app.services.model_proposal import best_model
from hrviewer.models import ModelCard, installed_bundles
from hrviewer.pyramid import open_pyramid


def card(classes, pixel_size=None, channels="rgb"):
    return ModelCard.model_validate(
        {
            "name": "m",
            "task": "density",
            "input": {"channels": channels, "tile": 64, "pixel_size": pixel_size},
            "output": {"stride": 8, "classes": classes},
        }
    )


MODELS = {
    "people": card(["person"]),
    "nuclei": card(["nucleus"], 0.5),
    "cells": card(["cell"], 2.0),
    "bands": card(["tree"], 0.5, 8),
}


def image(pixel_size=None, channels=3):
    if channels == 3:
        return open_pyramid(np.full((64, 64, 3), 128, np.uint8), pixel_size=pixel_size)
    bands = xarray.DataArray(np.zeros((channels, 64, 64), np.uint8), dims=("c", "y", "x"))
    return open_pyramid(bands, pixel_size=pixel_size)


@pytest.mark.parametrize(
    ("pixel_size", "channels", "proposed"),
    [
        (None, 3, "people"),
        (0.25, 3, "nuclei"),
        (1.5, 3, "cells"),
        (1.0, 3, None),  # as far from one as from the other
        (50.0, 3, None),
        (0.5, 8, "bands"),
        (None, 8, None),
    ],
)
def test_pixel_size_and_channels_select_the_model(pixel_size, channels, proposed):
    assert best_model(MODELS, image(pixel_size, channels)) == proposed


def test_what_is_no_photograph_is_proposed_no_model_of_photographs(tmp_path):
    section = np.full((64, 64, 3), 240, np.uint8)
    section[:40] = 200, 120, 180  # glass, and eosin
    assert best_model(MODELS, open_pyramid(section)) is None
    assert best_model(MODELS, open_pyramid(section, pixel_size=0.5)) == "nuclei"
    green = np.zeros((64, 64, 3), np.uint8)
    green[::8, ::8] = 0, 200, 0  # fluorescence
    assert best_model(MODELS, open_pyramid(green, pixel_size=0.5)) is None
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(np.full((64, 64, 3), 90, np.uint8), photometric="rgb", metadata={"Name": "s"})
        writer.write(
            np.full((32, 32, 3), 90, np.uint8), photometric="rgb", metadata={"Name": "macro"}
        )
    for series in (0, 1):
        assert best_model(MODELS, open_pyramid(path, series=series)) is None


def test_no_model_of_colours_is_proposed_for_three_stains():
    stains = xarray.DataArray(np.zeros((3, 64, 64), np.uint16), dims=("c", "y", "x"))
    assert best_model(MODELS, open_pyramid(stains, pixel_size=0.5)) is None
    assert (
        best_model({"dots": card(["dot"], 0.5, 3)}, open_pyramid(stains, pixel_size=0.5)) == "dots"
    )


def test_of_several_that_fit_alike_none_is_proposed():
    assert best_model({**MODELS, "heads": card(["head"])}, image()) is None
    assert best_model({}, image()) is None


@pytest.mark.parametrize(("sample", "proposed"), [("tissue", "nuclei"), ("crowd", "crowd")])
def test_the_models_of_synthetic_images_are_proposed(sample, proposed):
    cards = {name: bundle.load().roles["main"] for name, bundle in installed_bundles().items()}
    assert best_model(cards, open_pyramid(f"sample:{sample}?size=1024&seed=10000")) == proposed


class NoDisplay(ImageDisplay):
    def prepare(self, pyramid, *, load_coarsest):
        raise NotImplementedError

    def show(self, prepared, *, replaced=None, fit=True):
        raise NotImplementedError


def test_a_chosen_model_stays():
    app = Application(NoDisplay())
    state = app.state
    tissue = open_pyramid("sample:tissue?size=1024&seed=10000")
    state.select_image(state.add_image(PyramidImage(tissue)))
    while app.model_proposer.is_running:
        app.tick()
    assert state.settings.model.name == "nuclei"
    assert not state.model_is_chosen
    # No model is for an image of pixels of 50 µm.
    state.select_image(state.add_image(PyramidImage(image(50.0))))
    while app.model_proposer.is_running:
        app.tick()
    assert state.settings.model is None
    state.set_model("nuclei")
    crowd = open_pyramid("sample:crowd?size=1024&seed=10000")
    state.select_image(state.add_image(PyramidImage(crowd)))
    assert not app.model_proposer.is_running
    assert state.settings.model.name == "nuclei"
    app.close()
