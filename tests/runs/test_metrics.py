"""Metrics against closed forms, slow references and published programs."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.objects import DetectedObjects
from hrviewer.runs import metrics, object_metrics
from hrviewer.runs.metrics import (
    average_precision,
    bias,
    ci95,
    grid_counts,
    grid_errors,
    mae,
    match_points,
    peaks,
    point_counts,
    rmse,
)


def game(cells, cell, points, region, levels=(0, 2, 4)):
    n = 2 ** max(levels)
    return grid_errors(grid_counts(cells, cell, region, n), point_counts(points, region, n), levels)


def slow_game(cells, cell, points, region, level):
    """Every part, every cell and every point, one after the other."""
    n = 2**level
    total = 0.0
    for i in range(n):
        for j in range(n):
            y0, y1 = (region.y + region.h * k / n for k in (i, i + 1))
            x0, x1 = (region.x + region.w * k / n for k in (j, j + 1))
            predicted = 0.0
            for r, c in np.ndindex(cells.shape[1:]):
                top, bottom = max(r * cell, region.y), min((r + 1) * cell, region.y1)
                left, right = max(c * cell, region.x), min((c + 1) * cell, region.x1)
                h, w = min(bottom, y1) - max(top, y0), min(right, x1) - max(left, x0)
                if h > 0 and w > 0:
                    share = h * w / (bottom - top) / (right - left)
                    predicted += share * np.nansum(cells[:, r, c])
            expected = sum(y0 <= y < y1 and x0 <= x < x1 for y, x in points)
            total += abs(predicted - expected)
    return total


@pytest.mark.parametrize("region", [Rect(0, 0, 64, 96), Rect(5, 7, 41, 50), Rect(8, 16, 32, 64)])
@pytest.mark.parametrize("cell", [4, 6.5])
def test_game(region, cell):
    rng = np.random.default_rng(1)
    cells = rng.random((2, int(64 // cell), int(96 // cell)))
    cells[:, 3] = np.nan
    points = rng.random((40, 2)) * (region.h, region.w) + (region.y, region.x)
    found = game(cells, cell, points, region)
    for level in (0, 2, 4):
        assert_allclose(found[level], slow_game(cells, cell, points, region, level))


def test_game_in_closed_form():
    """All predictions in one corner, all objects in the other."""
    cells = np.zeros((1, 16, 16))
    cells[0, 0, 0] = 3
    points = np.array([[63.0, 63.0]] * 3)
    assert game(cells, 4, points, Rect(0, 0, 64, 64)) == {0: 0, 2: 6, 4: 6}


def test_game_does_not_depend_on_the_band(monkeypatch):
    rng = np.random.default_rng(0)
    cells, points = rng.random((1, 1200, 3)), rng.random((5, 2)) * (1200, 3)
    region = Rect(0, 0, 1200, 3)
    off = np.abs(np.add.reduceat(cells[0].sum(1), np.arange(0, 1200, 75)).sum() - 5)
    assert_allclose(game(cells, 1, points, region)[0], off)


def test_errors_over_images():
    errors = np.array([3.0, -1.0, 0.0, 2.0])
    assert mae(errors) == 1.5
    assert rmse(errors) == pytest.approx(np.sqrt(14 / 4))
    assert bias(errors) == 1.0


def test_intervals():
    # The mean's bootstrap interval is that of a normal distribution where there are many.
    errors = np.random.default_rng(5).normal(2, 3, 400)
    low, high = ci95(errors, bias)
    half = 1.96 * errors.std() / 20
    assert (low, high) == pytest.approx((errors.mean() - half, errors.mean() + half), abs=0.03)
    assert ci95(errors, bias) == (low, high)
    assert ci95([2.0, 2.0], mae) == (2, 2)
    assert ci95([2.0], mae) is None


def test_dice():
    predicted = np.array([[0, 0, 1, -1], [1, 1, 2, 2]])
    expected = np.array([[0, 1, 1, 0], [1, 1, 9, 2]])
    whole = metrics.DiceAccumulator(4)
    whole.add(predicted, expected)
    assert_allclose(whole.dice(), [2 / 4, 6 / 7, 2 / 3, 1])
    parts = metrics.DiceAccumulator(4)
    for row in range(2):
        parts.add(predicted[row], expected[row])
    assert_allclose(parts.dice(), whole.dice())


def coco_precision(boxes, scores, truth):
    """The published program's average precision at an overlap of one half."""
    area = {"area": 1, "iscrowd": 0, "category_id": 1, "image_id": 1}
    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": 1}],
            "annotations": [
                {**area, "id": i + 1, "bbox": [x, y, w, h]} for i, (y, x, h, w) in enumerate(truth)
            ],
        }
        expected.createIndex()
        predicted = expected.loadRes(
            [
                {"image_id": 1, "category_id": 1, "bbox": [x, y, w, h], "score": score}
                for (y, x, h, w), score in zip(boxes.tolist(), scores.tolist(), strict=True)
            ]
        )
        found = COCOeval(expected, predicted, "bbox")
        found.params.iouThrs = np.array([0.5])
        found.params.maxDets = [1000]
        found.params.areaRng, found.params.areaRngLbl = [[0, 1e10]], ["all"]
        found.evaluate()
        found.accumulate()
    return found.eval["precision"].mean()


def overlapping(boxes, scores, truth):
    """Match boxes, the most confident first, with free objects that they overlap by half."""
    low = np.maximum(boxes[:, None, :2], truth[None, :, :2])
    ends = (both[:, :2] + both[:, 2:] for both in (boxes, truth))
    high = np.minimum(next(ends)[:, None], next(ends)[None])
    common = np.clip(high - low, 0, None).prod(2)
    shares = common / (boxes[:, 2:].prod(1)[:, None] + truth[:, 2:].prod(1) - common)
    hit = np.zeros(len(boxes), bool)
    for i in np.argsort(-scores, kind="stable"):
        best = shares.shape[1] - 1 - shares[i, ::-1].argmax()  # COCO's choice of equal ones
        if shares[i, best] >= 0.5:
            hit[i], shares[:, best] = True, -1
    return hit


@given(st.integers(0, 2**32 - 1))
def test_average_precision_is_that_of_coco(seed):
    rng = np.random.default_rng(seed)
    truth = np.hstack([rng.integers(0, 60, (12, 2)), rng.integers(8, 20, (12, 2))]).astype(float)
    near = truth[rng.integers(0, 12, 20)] + rng.integers(-3, 4, (20, 4))
    scores = rng.permutation(20) / 20
    hit = overlapping(near, scores, truth)
    assert_allclose(average_precision(hit, scores, 12), coco_precision(near, scores, truth))


def test_average_precision_at_its_ends():
    scores = np.array([0.5, 0.9])
    assert average_precision(np.array([True, True]), scores, 2) == 1
    assert average_precision(np.array([False, False]), scores, 2) == 0
    assert average_precision(np.zeros(0, bool), np.zeros(0), 2) == 0
    assert np.isnan(average_precision(np.zeros(0, bool), np.zeros(0), 0))


def test_peaks_are_the_highest_of_their_neighbours(monkeypatch):
    monkeypatch.setattr("hrviewer.runs.metrics.BAND", 2)  # peaks on and across the bands' borders
    density = np.full((2, 7, 9), np.nan)
    for y, x, height in [(0, 0, 1.0), (1, 4, 3.0), (2, 4, 2.0), (4, 8, 0.5), (5, 2, 4.0)]:
        density[:, y, x] = height / 2
    density[0, 3, 7] = 0
    points, heights = peaks(density, 4.0, Rect(0, 0, 28, 36), 10)
    assert heights.tolist() == [4, 3, 1, 0.5]
    assert points.tolist() == [[22, 10], [6, 18], [2, 2], [18, 34]]
    points, heights = peaks(density, 4.0, Rect(0, 0, 20, 34), 2)
    assert heights.tolist() == [3, 1]
    assert len(peaks(density * 0, 4.0, Rect(0, 0, 28, 36), 2)[0]) == 0


def test_each_object_is_matched_once():
    boxes = np.array([[0, 0, 10, 10], [6, 6, 10, 10], [40, 40, 2, 2]], float)
    points = np.array([[8, 8], [9, 9], [7, 7], [41, 43], [40, 40]], float)
    # The first is nearer to the second box's centre; then only the first is free.
    assert match_points(points, boxes).tolist() == [True, True, False, False, True]
    assert not match_points(points, np.empty((0, 4))).any()
    assert not len(match_points(np.empty((0, 2)), boxes))


@pytest.mark.parametrize("names", [("a", "b"), ("b", "c"), ("x", "y")])
def test_precision_of_boxes_in_groups_is_that_of_one_image(names, monkeypatch):
    """The image is cut into groups of boxes that do not overlap; COCO's numbers stay."""
    monkeypatch.setattr(object_metrics, "GROUP_BOXES", 7)
    rng = np.random.default_rng(2)
    real = np.c_[rng.integers(0, 300, (60, 2)), rng.integers(8, 30, (60, 2))].astype(float)
    near = real[rng.permutation(60)[:50]] + rng.normal(0, 1.5, (50, 4))
    boxes = np.concatenate([near, real[:9] + 60])
    kinds = rng.integers(0, 2, 60)
    found = DetectedObjects(
        boxes, rng.random(len(boxes)).astype(np.float32), rng.integers(0, 2, len(boxes))
    )
    truth = GroundTruth(real[:, :2], ("a", "b"), kinds, boxes=real)
    result = object_metrics.object_precision(found, names, truth)
    # The same as one image, by the whole program.
    known = {"a": 1, "b": 2, "c": 3}
    shared = bool({"a", "b"} & set(names))
    expected, predicted = COCO(), COCO()
    for coco, rows, labels in (
        (expected, real, kinds + 1 if shared else np.ones(60, int)),
        (predicted, boxes, np.array([known.get(n, 9) for n in names])[found.class_ids]
         if shared else np.ones(len(boxes), int)),
    ):  # fmt: skip
        coco.dataset = {
            "images": [{"id": 1}],
            "categories": [{"id": i} for i in ((1, 2) if shared else (1,))],
            "annotations": [
                {"id": i + 1, "image_id": 1, "category_id": int(labels[i]), "iscrowd": 0,
                 "bbox": row[[1, 0, 3, 2]].tolist(), "area": row[2] * row[3],
                 "score": float(found.scores[i]) if coco is predicted else 1}
                for i, row in enumerate(rows)
            ],
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    evaluation = COCOeval(expected, predicted, "bbox")
    evaluation.params.maxDets = [1, 10, 1000]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    assert_allclose(result["ap"], precision[precision >= 0].mean())
    at50 = precision[0][precision[0] >= 0]
    assert_allclose(result["ap50"], at50.mean())
    assert 0 < result["ap"] < result["ap50"]


def test_precision_of_outlines_is_that_of_masks():
    """Outlines on pixels' edges are masks exactly: COCO's numbers for those."""
    from pycocotools import mask

    rng = np.random.default_rng(4)
    side, n = 160, 40
    corner = rng.integers(0, side - 24, (n, 2))
    size, notch = rng.integers(8, 20, (n, 2)), rng.integers(2, 7, (n, 2))
    moved = corner + rng.integers(-2, 3, (n, 2)).clip(-corner)

    def shapes(at):
        """Return the outlines of L-shaped objects, and their masks."""
        (y, x), (h, w), (a, b) = at.T, size.T, notch.T
        rings = [y, x, y, x + w - b, y + a, x + w - b, y + a, x + w, y + h, x + w, y + h, x]
        masks = np.zeros((n, side, side), np.uint8)
        for i in range(n):
            masks[i, y[i] : y[i] + h[i], x[i] : x[i] + w[i]] = 1
            masks[i, y[i] : y[i] + a[i], x[i] + w[i] - b[i] : x[i] + w[i]] = 0
        return np.stack(rings, 1).reshape(n, 6, 2).astype(float), masks

    (real, real_masks), (near, near_masks) = shapes(corner), shapes(moved)
    found = DetectedObjects(
        np.c_[moved, size].astype(float),
        rng.random(n).astype(np.float32),
        np.zeros(n, np.int64),
        lengths=np.full(n, 6),
        corners=near.reshape(-1, 2),
    )
    polygons = np.array([shapely.Polygon(ring[:, ::-1]) for ring in real])
    truth = GroundTruth(
        corner, boxes=np.c_[corner, size].astype(float), outlines=polygons.__getitem__
    )
    result = object_metrics.object_precision(found, ("object",), truth)
    expected, predicted = COCO(), COCO()
    for coco, masks in ((expected, real_masks), (predicted, near_masks)):
        coco.dataset = {
            "images": [{"id": 1, "height": side, "width": side}],
            "categories": [{"id": 1}],
            "annotations": [
                {"id": i + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": int(one.sum()),
                 "segmentation": mask.encode(np.asfortranarray(one)),
                 "score": float(found.scores[i])}
                for i, one in enumerate(masks)
            ],
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
    evaluation = COCOeval(expected, predicted, "segm")
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, 0, 0, 2]
    assert_allclose(result["ap"], precision.mean())
    boxes = object_metrics.object_precision(found, ("object",), replace(truth, outlines=None))
    assert result["ap"] != boxes["ap"]
