"""Ground truth over the image: the objects in view, within the limit of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from synthetic_squares import install

from hrviewer.app.maps import ground_truth_points as module
from hrviewer.viewer.image.geometry import METADATA_KEY
from viewer.conftest import errors, until_quiet


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "ground_truth.csv"
    rng = np.random.default_rng(0)
    points = rng.random((500, 2)) * (300, 420)
    path.write_text("y,x\n" + "\n".join(f"{y:.6f},{x:.6f}" for y, x in points))
    return path


@pytest.fixture
def status_messages(controller):
    messages = []
    controller.state.ground_truth_status_changed.connect(messages.append)
    return messages


def test_a_file_is_shown_at_its_place_and_hidden(
    model, controller, add, photo, table, status_messages
):
    base = add(model, photo)
    assert not controller.ground_truth_service.is_available
    controller.ground_truth_service.show(table)
    until_quiet(controller)
    layer = controller.ground_truth.layer
    points = np.loadtxt(table, delimiter=",", skiprows=1)
    assert_allclose(layer.data, points - 0.5)
    assert "500 objects" in status_messages[-1]
    assert model.layers.selection.active == base == controller.image_layer
    controller.ground_truth_service.hide()
    assert layer not in model.layers
    assert status_messages[-1] == ""


def test_more_than_can_be_drawn(model, controller, add, photo, table, status_messages, monkeypatch):
    monkeypatch.setattr(module, "MAX_POINTS", 100)
    add(model, photo)
    controller.ground_truth_service.show(table)
    until_quiet(controller)
    assert len(controller.ground_truth.layer.data) == 100
    assert "1 in 5" in status_messages[-1]


def test_a_synthetic_image_gives_the_ground_truth_in_view(
    model, controller, status_messages, monkeypatch
):
    install(monkeypatch)
    controller.image_loader.open("sample:squares?size=2048&seed=0")
    until_quiet(controller)
    assert controller.ground_truth_service.is_available
    controller.ground_truth_service.show()
    model.scene.camera.center = (1000, 1000)
    model.scene.camera.zoom = 4.0
    until_quiet(controller)
    synthetic = controller.image_layer.metadata[METADATA_KEY]["pyramid"].synthetic_image
    covered = controller.state.image.ground_truth.covered
    assert covered.area < 2048**2 / 4
    assert len(controller.ground_truth.layer.data) == len(synthetic.ground_truth(covered))
    assert f"{len(synthetic.ground_truth(covered)):,} objects" in status_messages[-1]


def test_invalid_ground_truth_is_reported_and_removed(
    model, controller, add, photo, tmp_path, status_messages
):
    path = tmp_path / "ground_truth.csv"
    path.write_text("y,x\n9999,1\n")
    add(model, photo)
    controller.ground_truth_service.show(path)
    until_quiet(controller)
    assert controller.ground_truth.layer is None
    assert [layer.name for layer in model.layers] == [controller.image_layer.name]
    assert "another image" in errors(controller)[-1]


def test_ground_truth_is_removed_with_its_image(model, controller, add, photo, table):
    base = add(model, photo)
    controller.ground_truth_service.show(table)
    until_quiet(controller)
    model.layers.remove(base)
    assert controller.ground_truth.layer is None
    assert len(model.layers) == 0


def test_ground_truth_can_be_removed_by_hand(model, controller, add, photo, table):
    add(model, photo)
    controller.ground_truth_service.show(table)
    until_quiet(controller)
    model.layers.remove(controller.ground_truth.layer)
    assert controller.ground_truth.layer is None
