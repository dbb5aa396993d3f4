"""Undo and redo of drawn shapes and points: every state comes back, with its features."""

import numpy as np
import pytest
from napari.components import ViewerModel

from hrviewer.viewer.image.geometry import METADATA_KEY
from hrviewer.viewer.layers import drawing_history
from hrviewer.viewer.layers.drawing_history import DrawingHistories

SQUARE = np.array([(0, 0), (0, 4), (4, 4), (4, 0)], float)


@pytest.fixture
def viewer():
    return ViewerModel()


def test_points_come_back_with_their_classes(viewer):
    histories = DrawingHistories(viewer)
    layer = viewer.add_points([(1, 1)], features={"class": ["a"]})
    history = histories.of(layer)
    layer.feature_defaults = {"class": "b"}
    layer.add((2, 3))
    layer.selected_data = {0}
    layer.remove_selected()
    np.testing.assert_array_equal(layer.data, [(2, 3)])
    history.undo()
    np.testing.assert_array_equal(layer.data, [(1, 1), (2, 3)])
    assert [*layer.features["class"]] == ["a", "b"]
    history.undo()
    np.testing.assert_array_equal(layer.data, [(1, 1)])
    assert not history.can_undo
    history.redo()
    history.redo()
    np.testing.assert_array_equal(layer.data, [(2, 3)])
    assert [*layer.features["class"]] == ["b"]
    assert not history.can_redo


def test_shapes_come_back_with_their_types_and_colours(viewer):
    layer = viewer.add_shapes([SQUARE], shape_type="rectangle", edge_color="red")
    histories = DrawingHistories(viewer)
    layer.add(SQUARE + 10, shape_type="ellipse", edge_color="lime")
    layer.selected_data = {0, 1}
    layer.remove_selected()
    assert not layer.data
    viewer.layers.selection.active = layer
    histories.undo()
    assert layer.shape_type == ["rectangle", "ellipse"]
    np.testing.assert_array_equal(layer.data[1], SQUARE + 10)
    np.testing.assert_array_equal(layer.edge_color, [(1, 0, 0, 1), (0, 1, 0, 1)])
    histories.undo()
    assert layer.shape_type == ["rectangle"]
    histories.redo()
    assert len(layer.data) == 2


def test_a_new_change_ends_what_could_be_made_again(viewer):
    layer = viewer.add_points(ndim=2)
    history = DrawingHistories(viewer).of(layer)
    layer.add((1, 1))
    history.undo()
    layer.add((2, 2))
    assert not history.can_redo
    history.undo()
    assert not len(layer.data)


def test_only_what_the_user_draws_has_a_history_and_it_is_bounded(viewer, monkeypatch):
    monkeypatch.setattr(drawing_history, "MAX_STATES", 4)
    histories = DrawingHistories(viewer)
    own = viewer.add_points([(1, 1)], metadata={METADATA_KEY: {"overlay": "ground truth"}})
    assert histories.of(own) is None
    assert histories.of(viewer.add_image(np.zeros((4, 4)))) is None
    layer = viewer.add_points(ndim=2)
    history = histories.of(layer)
    for i in range(10):
        layer.add((i, i))
    for _ in range(10):
        history.undo()
    assert len(layer.data) == 7
    viewer.layers.remove(layer)
    assert histories.of(layer) is None
    histories.close()
    assert histories.of(viewer.add_points(ndim=2)) is None
