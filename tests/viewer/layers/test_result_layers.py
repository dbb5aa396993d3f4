"""Overlays of one image never lie over another one."""

from __future__ import annotations

import numpy as np
import xarray
from napari.layers import Layer
from toys import picture

from hrviewer.app.maps.raster import MAPS
from hrviewer.pyramid import open_pyramid
from hrviewer.viewer.image.image_layer import image_layers_data
from viewer.conftest import until_quiet


def visible(controller):
    return {layer.name for layer in controller.overlays if layer.visible}


def test_overlays_hide_while_another_image_is_current(model, controller, photo, add, finish):
    first = add(model, photo)
    controller.run_service.start()
    finish(controller)
    before = visible(controller)
    assert "output: things per megapixel" in before
    second = add(model, picture(200, 200, seed=3))
    assert controller.image_layer is second
    assert visible(controller) == set()
    controller.tick()
    model.layers.selection.active = first
    assert visible(controller) == before
    # Results of the other image replace them.
    model.layers.selection.active = second
    controller.run_service.start()
    finish(controller)
    assert controller.overlays.image_layer is second
    assert visible(controller)
    assert len(model.layers) == 2 + len(MAPS) + 1
    model.layers.selection.active = first
    assert visible(controller) == set()


def test_overlays_go_with_their_image_also_behind_another_one(
    model, controller, photo, add, finish
):
    first = add(model, photo)
    controller.run_service.start()
    finish(controller)
    second = add(model, picture(200, 200, seed=3))
    model.layers.remove(first)
    assert controller.overlays is None
    assert list(model.layers) == [second]
    assert controller.image_layer is second


def test_results_stand_over_the_pixels_of_their_image(model, controller, photo, add, finish):
    first, second = add(model, photo), add(model, picture(200, 200, seed=3))
    beside = add(model, picture(50, 50, seed=4))
    beside.translate = (1000, 1000)
    mixed = add(model, photo)
    mixed.opacity = 0.5
    model.layers.selection.active = first  # below all others
    controller.run_service.start()
    finish(controller)
    answer = controller.state.image.estimate
    assert [layer.visible for layer in (first, second, beside, mixed)] == [True, False, True, True]
    second.visible = True  # by napari's eye: what is on top is current
    controller.tick()
    assert controller.image_layer is second is model.layers.selection.active
    assert controller.state.image.estimate != answer
    assert not first.visible
    assert visible(controller) == set()
    second.visible = False
    mixed.visible = beside.visible = False
    first.visible = True
    controller.tick()
    assert controller.image_layer is first
    assert controller.state.image.estimate == answer
    assert visible(controller)
    second.visible = True
    model.layers.move(model.layers.index(second), 0)  # below: the first one covers it
    controller.tick()
    assert controller.image_layer is first
    first.visible = False
    controller.tick()
    assert controller.image_layer is second
    model.layers.remove(second)
    assert controller.image_layer.visible


def test_a_hidden_image_comes_back_with_the_channels_that_were_shown(model, controller, photo, add):
    channels = np.stack([photo[..., 0], photo[..., 1], photo[..., 2], photo[..., 0]])
    pyramid = open_pyramid(xarray.DataArray(channels, dims=("c", "y", "x")))
    layers = [model.add_layer(Layer.create(*data)) for data in image_layers_data(pyramid)]
    layers[1].visible = False
    shown = [layer.visible for layer in layers]
    model.layers.selection.active = layers[0]
    add(model, photo)
    assert not any(layer.visible for layer in layers)
    model.layers.selection.active = layers[0]
    assert [layer.visible for layer in layers] == shown


def test_annotations_and_ground_truth_are_those_of_the_current_image(
    model, controller, photo, add, finish, tmp_path
):
    first = add(model, photo)
    controller.run_service.start()
    finish(controller)
    controller.annotation_service.annotate("points", "c")
    path = tmp_path / "truth.csv"
    path.write_text("y,x\n10.5,20.5\n")
    controller.ground_truth_service.show(path)
    until_quiet(controller)
    controller.annotations.layers[1].add([[1.0, 2.0]])
    assert controller.ground_truth.layer in model.layers
    second = add(model, picture(300, 420, seed=3))
    assert controller.annotations.layers is None
    assert controller.ground_truth.layer is None
    assert not {"annotations", "annotations: points", "ground truth"} & {
        layer.name for layer in model.layers
    }
    model.layers.selection.active = first
    until_quiet(controller)
    assert len(controller.annotations.layers[1].data) == 1
    assert len(controller.ground_truth.layer.data) == 1
    model.layers.remove(first)
    assert list(model.layers) == [second]


def test_a_removed_layer_switches_its_display_off(model, controller, photo, add, tmp_path):
    add(model, photo)
    path = tmp_path / "truth.csv"
    path.write_text("y,x\n10.5,20.5\n")
    controller.ground_truth_service.show(path)
    until_quiet(controller)
    model.layers.remove(controller.ground_truth.layer)
    assert controller.state.image.ground_truth is None
