"""Objects as they are displayed: which, and where their lines and pixels lie."""

from __future__ import annotations

import numpy as np
import pytest
from toy_detectors import CLASSES, Finder, rectangles
from toys import ToyBundle

from hrviewer.app.maps import object_map
from hrviewer.app.maps.object_map import ObjectMap
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import InferenceResult
from hrviewer.geometry import Rect
from hrviewer.objects import DetectedObjects, outlines_as_lines
from hrviewer.runs import run

IMAGE = Rect(0, 0, 100, 200)
BOXES = np.array([[10, 20, 30, 40], [15, 25, 4, 4], [80, 150, 10, 20]], float)


@pytest.fixture
def objects() -> ObjectMap:
    made = ObjectMap(IMAGE, CLASSES)
    scores, classes = np.array([0.9, 0.6, 0.2], np.float32), np.array([0, 1, 1])
    made.replace(DetectedObjects(BOXES, scores, classes))
    return made


def test_least_score_and_classes_choose_what_is_displayed(objects: ObjectMap) -> None:
    assert objects.displayed.boxes.tolist() == BOXES[:2].tolist()
    assert objects.class_counts().tolist() == [1, 1]
    objects.score = 0.1
    assert len(objects.displayed) == 3
    objects.hidden_classes = frozenset({1})
    assert objects.displayed.boxes.tolist() == BOXES[:1].tolist()
    assert objects.class_counts().tolist() == [1, 2]


def test_a_point_has_the_smallest_object(objects: ObjectMap) -> None:
    assert objects.describe(17, 27) == "dog 0.60 · 4 × 4 px"
    assert objects.describe(12, 27) == "cat 0.90 · 30 × 40 px"
    assert objects.describe(85, 160) == objects.describe(99, 0) == ""


def test_few_objects_are_lines_in_the_colours_of_their_classes(objects: ObjectMap) -> None:
    drawing = objects.draw(Rect(0, 0, 40, 40), (1.0, 1.0))
    assert drawing.raster is None
    assert drawing.count == 2
    ends = np.stack([drawing.lines[:, 0], drawing.lines.sum(axis=1)], axis=1)
    assert sorted(map(tuple, np.unique(ends.reshape(-1, 2), axis=0).tolist())) == sorted(
        (float(y + dy), float(x + dx)) for y, x, h, w in BOXES[:2] for dy in (0, h) for dx in (0, w)
    )
    assert np.allclose(drawing.colors[0, :3] * 255, objects.colors[0])
    # What is not in or near the view is not drawn.
    assert not len(objects.draw(Rect(60, 100, 4, 4), (1.0, 1.0)).lines)


def test_a_drawing_serves_views_inside_it_until_something_changes(objects: ObjectMap) -> None:
    objects.drawing = objects.draw(Rect(0, 0, 40, 40), (1.0, 1.0))
    assert objects.covers(Rect(5, 5, 40, 40), (1.0, 1.0))
    assert not objects.covers(Rect(50, 5, 40, 40), (1.0, 1.0))
    objects.score = 0.5
    assert not objects.covers(Rect(5, 5, 40, 40), (1.0, 1.0))


def test_many_objects_are_pixels_of_the_screen(
    objects: ObjectMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_map, "MAX_LINES", 0)
    raster = objects.draw(IMAGE, (2.0, 4.0)).raster
    assert raster is not None
    assert raster.shape == (50, 50, 4)
    assert raster.dtype == np.uint8
    expected = np.zeros((50, 50), bool)
    # The first box covers rows 5 to 20 and columns 5 to 15; the second is a point.
    expected[[5, 20], 5:16] = expected[5:21, [5, 15]] = True
    expected[8, 6] = True
    np.testing.assert_array_equal(raster[..., 3] > 0, expected)
    assert (raster[8, 6, :3] == objects.colors[1]).all()
    assert (raster[5, 5, :3] == objects.colors[0]).all()


def test_outlines_are_closed() -> None:
    triangle = np.array([[0, 0], [0, 9], [6, 3]], float)
    outlined = DetectedObjects(
        np.array([[0, 0, 6, 9], [1, 1, 2, 2], [0, 0, 6, 9]], float),
        np.ones(3, np.float32),
        np.zeros(3, np.int64),
        lengths=np.array([3, 0, 3]),
        corners=np.concatenate([triangle, triangle + 1]),
    )
    lines, owner = outlines_as_lines(outlined)
    assert sorted(owner.tolist()) == [0] * 3 + [1] * 4 + [2] * 3
    for i in range(3):
        assert np.allclose(lines[owner == i, 1].sum(axis=0), 0)
    assert lines[owner == 2, 0].tolist() == (triangle + 1).tolist()


def test_patches_add_the_objects_of_their_cores_and_a_run_merges_them(tmp_path) -> None:
    image, rows = rectangles(100, 200, 30)
    seen: list[object] = []
    made = run(image, ToyBundle(main=Finder(fixed=True)), out=tmp_path / "x.run.zarr",
               on_event=seen.append)  # fmt: skip
    objects = ObjectMap(IMAGE, CLASSES)
    for update in seen:
        if isinstance(update, InferenceResult):
            objects.update(update)
    objects.score = 0.3
    expected = sorted(map(tuple, rows[rows[:, 4] / 255 >= 0.3, :4].tolist()))
    assert sorted(map(tuple, objects.displayed.boxes.tolist())) == expected
    maps = ResultMaps.from_run(made)
    assert maps.objects is not None
    maps.objects.score = 0.3
    assert sorted(map(tuple, maps.objects.displayed.boxes.tolist())) == expected
    objects.clear(Rect(0, 0, 100, 100))
    assert (objects.displayed.centers[:, 1] >= 100).all()
    assert len(objects.displayed) == sum(x + w / 2 >= 100 for _, x, _, w in expected)
