"""Suppression and merging against a slow obvious loop."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from hrviewer.geometry import Rect
from hrviewer.objects import (
    DetectedObjects,
    MergeSettings,
    drop_refined,
    merge_objects,
    suppress,
    unite_objects,
)


def crowd(n: int, seed: int = 0, *, oriented: bool = False) -> DetectedObjects:
    """Return objects that overlap much, many with equal scores."""
    rng = np.random.default_rng(seed)
    boxes = np.c_[rng.integers(0, 40, (n, 2)), rng.integers(3, 20, (n, 2))].astype(float)
    scores = rng.integers(1, 11, n).astype(np.float32) / 10
    classes, patches = rng.integers(0, 2, n), rng.integers(0, 3, n)
    core = rng.random(n) < 0.6
    if not oriented:
        return DetectedObjects(boxes, scores, classes, patches, core)
    y, x, h, w = boxes.T
    diamonds = np.stack([y, x + w / 2, y + h / 2, x + w, y + h, x + w / 2, y + h / 2, x], axis=1)
    lengths = np.where(np.arange(n) % 3, 4, 0)
    corners = diamonds.reshape(-1, 4, 2)[lengths > 0].reshape(-1, 2)
    return DetectedObjects(boxes, scores, classes, patches, core, lengths, corners)


def share(a: shapely.Polygon, b: shapely.Polygon, measure: str) -> float:
    """Return the overlap of two polygons."""
    common = a.intersection(b).area
    return common / (a.union(b).area if measure == "union" else min(a.area, b.area))


def slowly(objects: DetectedObjects, keys: np.ndarray, overlap: float, measure: str) -> list[int]:
    """Return what each is represented by: the greedy loop."""
    polygons, owner, kept = objects.polygons(), [-1] * len(objects), []
    for i in sorted(range(len(objects)), key=lambda i: -objects.scores[i]):
        for j in kept:
            if keys[i] == keys[j] and share(polygons[i], polygons[j], measure) > overlap:
                owner[i] = j
                break
        else:
            owner[i] = i
            kept.append(i)
    return owner


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("measure", ["union", "smaller"])
def test_suppression_equals_the_greedy_loop(measure: str, oriented: bool) -> None:
    for seed in range(4):
        objects = crowd(60, seed, oriented=oriented)
        for overlap in (0.0, 0.3, 0.45, 0.8):
            found = suppress(objects, objects.class_ids, overlap, measure)
            assert found.tolist() == slowly(objects, objects.class_ids, overlap, measure)


@given(st.integers(0, 12), st.integers(0, 99), st.sampled_from([0.05, 0.3, 0.5]))
def test_merging_equals_two_greedy_loops(n: int, seed: int, score: float) -> None:
    everything = crowd(n, seed)
    for merging in ("core", "all"):
        settings = MergeSettings(score=score, overlap=0.4, merging=merging)
        some = np.flatnonzero(everything.scores >= np.float32(score))
        objects = everything.take(some)
        keys = objects.patch_ids * 2 + objects.class_ids
        alone = np.array(slowly(objects, keys, 0.4, "union"), int) == np.arange(len(some))
        if merging == "core":
            alone &= objects.in_core
        some, objects = some[alone], objects.take(alone)
        of = np.array(slowly(objects, objects.class_ids, 0.4, "union"), int)
        expected = some[of == np.arange(len(some))]
        chosen = merge_objects(everything, settings)
        assert sorted(chosen.tolist()) == expected.tolist()
        assert (np.diff(everything.scores[chosen]) <= 0).all()


def test_thousands_of_oriented_boxes_are_few_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate is compared with objects near it, not with all candidates."""
    rng = np.random.default_rng(0)
    objects, copies = 40, 50
    corner = 100.0 * np.stack([np.arange(objects) // 8, np.arange(objects) % 8], axis=1)
    diamond = np.array([[0, 30], [30, 60], [60, 30], [30, 0]], float)
    rings = np.repeat(corner, copies, axis=0)[:, None] + diamond
    rings += rng.normal(0, 1, (len(rings), 1, 2))
    low, high = rings.min(axis=1), rings.max(axis=1)
    candidates = DetectedObjects(
        np.concatenate([low, high - low], axis=1),
        rng.random(len(rings)).astype(np.float32),
        np.zeros(len(rings), np.int64),
        lengths=np.full(len(rings), 4),
        corners=rings.reshape(-1, 2),
    )
    compared = []
    intersection = shapely.intersection

    def counting(one: np.ndarray, other: np.ndarray) -> object:
        compared.append(len(one))
        return intersection(one, other)

    monkeypatch.setattr(shapely, "intersection", counting)
    kept = suppress(candidates, candidates.class_ids, 0.45) == np.arange(len(candidates))
    assert kept.sum() == objects
    assert sum(compared) == objects * (copies - 1)


def test_only_objects_whose_center_is_in_the_region_count() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 20, 4, 4], [3, 40, 4, 4]], float)
    objects = DetectedObjects(boxes, np.ones(3, np.float32), np.zeros(3, np.int64))
    assert merge_objects(objects, region=Rect(0, 0, 6, 60)).tolist() == [0, 2]


def test_a_finer_patch_replaces_the_objects_of_a_coarser_one() -> None:
    boxes = np.array([[1, 1, 2, 2], [9, 1, 2, 2], [1, 1, 2, 2]], float)
    objects = DetectedObjects(
        boxes, np.ones(3, np.float32), np.zeros(3, np.int64), np.array([0, 0, 1])
    )
    cores = np.array([[0, 0, 16, 16], [0, 0, 8, 8]], float)
    left = drop_refined(objects, cores, np.array([2.0, 1.0]))
    assert left.boxes.tolist() == boxes[1:].tolist()


def test_parts_that_tiles_see_of_a_large_object_are_united() -> None:
    # Three tiles see a bar of 100 pixels; an object of another class lies on it.
    boxes = np.array([[0, 0, 10, 40], [0, 30, 10, 40], [1, 60, 9, 40], [0, 35, 8, 8]], float)
    objects = DetectedObjects(
        boxes, np.array([0.8, 0.9, 0.7, 0.95], np.float32), np.array([0, 0, 0, 1]), np.arange(4)
    )
    settings = MergeSettings(merging="union", overlap=0.2)
    ids, united = unite_objects(objects, settings)
    assert ids.tolist() == [3, 1]
    assert united.boxes.tolist() == [[0, 35, 8, 8], [0, 0, 10, 100]]
    # As outlines.
    outlined = DetectedObjects(
        *objects.columns[:5],
        np.full(4, 4),
        np.concatenate(objects.rings()),
    )
    _, united = unite_objects(outlined, settings)
    assert united.boxes.tolist() == [[0, 35, 8, 8], [0, 0, 10, 100]]
    assert united.areas[1] == 40 * 10 + 30 * 10 + 30 * 9


def test_objects_are_taken_with_their_outlines() -> None:
    objects = crowd(9, oriented=True)
    some = objects.take(np.array([7, 0, 4]))
    for ring, i in zip(some.rings(), (7, 0, 4), strict=True):
        assert ring.tolist() == objects.rings()[i].tolist()
    assert len(DetectedObjects.concatenate([some, objects])) == 12
    assert len(DetectedObjects.concatenate([])) == len(objects.take(np.zeros(0, int))) == 0
