"""Average precision of detected objects, by pycocotools.

COCO's evaluation compares every prediction with every object of an image and keeps a hundred
predictions; on a large image both are too many and too few. Only boxes that overlap can match, so
the image is given to it in groups of boxes that touch no box of another group, as if each were an
image of its own: the result is the same.
"""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrviewer.ground_truth import GroundTruth
from hrviewer.objects import DetectedObjects

__all__ = ["as_ground_truth", "compares_outlines", "has_boxes", "object_precision"]

GROUP_BOXES = 400
"""Boxes of a group, about."""


def object_precision(
    objects: DetectedObjects, classes: tuple[str, ...], truth: GroundTruth
) -> dict[str, float]:
    """Return COCO's average precision, over the classes of the ground truth.

    Of outlines (COCO's ``segm``, oriented boxes) where both have them, else of boxes.

    Parameters
    ----------
    objects : DetectedObjects
        Predictions at all scores.
    classes : tuple of str
        Names of their classes.
    truth : GroundTruth
        The objects, with boxes. Where it shares no class name with the predictions, classes are
        disregarded.

    Returns
    -------
    dict
        ``ap`` is the mean over intersections over union of .50 to .95, ``ap50`` and ``ap75`` those
        at .50 and .75.
    """
    import shapely
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if truth.boxes is None:
        raise ValueError("ground truth without boxes")
    predicted, expected = shared_classes(objects, classes, truth)
    boxes = np.concatenate([truth.boxes, objects.boxes])
    groups = separate_groups(boxes)
    boxes = boxes[:, [1, 0, 3, 2]]  # COCO's order
    n = len(truth)
    kinds = np.concatenate([expected, predicted])
    annotations = [
        {
            "id": i + 1,
            "image_id": int(groups[i]),
            "category_id": int(kinds[i]),
            "bbox": boxes[i].tolist(),
            "area": float(boxes[i, 2] * boxes[i, 3]),
            "iscrowd": 0,
        }
        for i in range(len(boxes))
    ]
    for found, score in zip(annotations[n:], objects.scores.tolist(), strict=True):
        found["score"] = score
    reference, results = COCO(), COCO()
    common: dict[str, Any] = {
        "images": [{"id": int(g)} for g in np.unique(groups)],
        "categories": [{"id": int(k), "name": str(k)} for k in np.unique(expected)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        for coco, part in (reference, annotations[:n]), (results, annotations[n:]):
            coco.dataset = {**common, "annotations": part}
            coco.createIndex()
        evaluation = COCOeval(reference, results, "bbox")
        evaluation.params.maxDets = [max(1, len(objects))]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e15]], ["all"]
        if compares_outlines(objects, truth) and truth.outlines is not None:
            shapes = np.concatenate([truth.outlines(np.arange(n)), objects.polygons()])
            evaluation.computeIoU = partial(overlap_matrix, evaluation, shapely.make_valid(shapes))
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, 0]  # IoU, recall, class
    by_overlap = np.where(precision >= 0, precision, np.nan)
    mean = np.nanmean(by_overlap, axis=(1, 2))
    at = evaluation.params.iouThrs
    return {
        "ap": float(mean.mean()),
        "ap50": float(mean[np.argmin(np.abs(at - 0.5))]),
        "ap75": float(mean[np.argmin(np.abs(at - 0.75))]),
    }


def overlap_matrix(
    evaluation: Any, shapes: NDArray[np.object_], image: int, category: int
) -> NDArray[np.float64] | list[float]:
    """Return the intersections over union of one class's outlines in an image.

    In place of ``COCOeval.computeIoU``, which compares boxes, or masks at the image's resolution.

    Parameters
    ----------
    evaluation : COCOeval
        Its annotations' ids are indices into `shapes`, from 1.
    shapes : ndarray of shapely geometries
        Of ground truth and predictions.
    image, category : int
        Ids.

    Returns
    -------
    ndarray, shape (predictions, objects)
        Predictions are sorted, the most confident first; an empty list if there are none of either.
    """
    import shapely

    found, expected = evaluation._dts[image, category], evaluation._gts[image, category]
    if not found or not expected:
        return []
    order = np.argsort([-one["score"] for one in found], kind="stable")
    rows = shapes[[found[i]["id"] - 1 for i in order]]
    columns = shapes[[one["id"] - 1 for one in expected]]
    overlaps = np.zeros((len(rows), len(columns)))
    i, j = shapely.STRtree(columns).query(rows)
    common = shapely.area(shapely.intersection(rows[i], columns[j]))
    together = shapely.area(rows[i]) + shapely.area(columns[j]) - common
    overlaps[i, j] = common / np.maximum(together, np.finfo(float).tiny)
    return overlaps


def compares_outlines(objects: DetectedObjects, truth: GroundTruth) -> bool:
    """Return whether `object_precision` is of outlines; else it is of boxes."""
    return truth.outlines is not None and objects.has_outlines


def has_boxes(truth: GroundTruth) -> bool:
    """Return whether there are objects, and all have boxes of a size."""
    return truth.boxes is not None and len(truth) > 0 and bool((truth.boxes[:, 2:] > 0).all())


def as_ground_truth(objects: DetectedObjects, classes: tuple[str, ...], source: str) -> GroundTruth:
    """Return predicted objects as the ground truth for other predictions."""
    return GroundTruth(
        objects.centers,
        classes,
        objects.class_ids,
        boxes=objects.boxes,
        source=source,
        outlines=objects.polygons().__getitem__ if objects.has_outlines else None,
    )


def shared_classes(
    objects: DetectedObjects, classes: tuple[str, ...], truth: GroundTruth
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the class numbers, from 1, of predictions and ground truth.

    Predictions of classes that the ground truth lacks have numbers of their own, and none counts.
    """
    if not set(classes) & set(truth.classes):
        return np.ones(len(objects), np.int64), np.ones(len(truth), np.int64)
    numbers = {name: i + 1 for i, name in enumerate(dict.fromkeys([*truth.classes, *classes]))}
    own = np.array([numbers[name] for name in classes], np.int64)
    known = np.array([numbers[name] for name in truth.classes], np.int64)
    return own[objects.class_ids], known[truth.class_ids]


def separate_groups(boxes: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return a group number of each box ``(y, x, h, w)``: boxes of two groups do not overlap."""
    import shapely
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    y, x, h, w = boxes.T
    frames = shapely.box(x, y, x + w, y + h)
    one, other = shapely.STRtree(frames).query(frames)
    n = len(boxes)
    _, part = connected_components(coo_array((np.ones(len(one)), (one, other)), (n, n)))
    # Parts are filled into groups one after the other.
    sizes = np.bincount(part)
    group = (np.cumsum(sizes) - sizes) // GROUP_BOXES
    return np.asarray(group[part] + 1, np.int64)
