"""The truth over the image: what is in view, never more than can be drawn, nobody waits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from synthetic_squares import install

from hrviewer.app.services import ground_truth_service as module

from .conftest import errors, until_quiet


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "truth.csv"
    rng = np.random.default_rng(0)
    points = rng.random((500, 2)) * (300, 420)
    path.write_text("y,x\n" + "\n".join(f"{y:.6f},{x:.6f}" for y, x in points))
    return path


@pytest.fixture
def told(controller):
    heard = []
    controller.ground_truth_status_changed.connect(heard.append)
    return heard


def test_a_file_is_shown_at_its_place_and_hidden(model, controller, add, photo, table, told):
    base = add(model, photo)
    assert not controller.has_ground_truth
    controller.show_ground_truth(table)
    until_quiet(controller)
    layer = controller.ground_truth_points.layer
    points = np.loadtxt(table, delimiter=",", skiprows=1)
    assert_allclose(layer.data, points - 0.5)
    assert "500 objects" in told[-1]
    assert model.layers.selection.active == base == controller.image_layer
    controller.hide_ground_truth()
    assert layer not in model.layers
    assert told[-1] == ""


def test_more_than_can_be_drawn(model, controller, add, photo, table, told, monkeypatch):
    monkeypatch.setattr(module, "MAX_POINTS", 100)
    add(model, photo)
    controller.show_ground_truth(table)
    until_quiet(controller)
    assert len(controller.ground_truth_points.layer.data) == 100
    assert "every 5th" in told[-1]


def test_a_scene_is_asked_for_what_is_in_view(model, controller, told, monkeypatch):
    install(monkeypatch)
    controller.open_image("sample:squares?size=2048&seed=0")
    until_quiet(controller)
    assert controller.has_ground_truth
    controller.show_ground_truth()
    model.context.camera.center = (1000, 1000)
    model.context.camera.zoom = 4.0
    until_quiet(controller)
    recipe = controller.image_layer.metadata[module.METADATA_KEY]["pyramid"].synthetic_image
    covered = controller.ground_truth_points._covered
    assert covered.area < 2048**2 / 4
    assert len(controller.ground_truth_points.layer.data) == len(recipe.ground_truth(covered))
    assert f"{len(recipe.ground_truth(covered)):,} objects" in told[-1]


def test_wrong_truth_is_said_and_taken_away(model, controller, add, photo, tmp_path, told):
    path = tmp_path / "truth.csv"
    path.write_text("y,x\n9999,1\n")
    add(model, photo)
    controller.show_ground_truth(path)
    until_quiet(controller)
    assert controller.ground_truth_points is None
    assert [layer.name for layer in model.layers] == [controller.image_layer.name]
    assert "another image" in errors(controller)[-1]


def test_truth_goes_with_its_image(model, controller, add, photo, table):
    base = add(model, photo)
    controller.show_ground_truth(table)
    until_quiet(controller)
    model.layers.remove(base)
    assert controller.ground_truth_points is None
    assert len(model.layers) == 0


def test_truth_can_be_removed_by_hand(model, controller, add, photo, table):
    add(model, photo)
    controller.show_ground_truth(table)
    until_quiet(controller)
    model.layers.remove(controller.ground_truth_points.layer)
    assert controller.ground_truth_points is None
