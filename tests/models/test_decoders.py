"""Decoders against raw outputs written by hand, in the formats that their sources describe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from model_cards import make_card

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.models.decoders import DECODERS
from hrviewer.models.detection import Detections, decode

SIDE = 64
BOX_DECODERS = [name for name in DECODERS if name not in ("stardist", "cellpose", "hovernet")]
"""Those of test_instances.py aside."""


def detector(decode: str, classes: int = 2) -> ModelCard:
    return make_card(
        task="detection",
        input={"tile": SIDE, "fixed": True},
        output={
            "stride": [8, 16, 32] if decode == "yolox" else 32,
            "classes": [f"class {i}" for i in range(classes)],
            "decode": decode,
        },
    )


def found(name: str, *outputs: Any) -> Detections:
    (one,) = decode(
        [np.asarray(o, np.float32)[None] for o in outputs], detector(name), (SIDE, SIDE)
    )
    return one


def anchors(*columns: list[float], n: int = 84) -> np.ndarray:
    out = np.zeros((len(columns[0]), n))
    out[:, : len(columns)] = np.transpose(columns)
    return out


def test_yolov8() -> None:
    """The best class of an anchor counts; its duplicates are suppressed by class."""
    one = found(
        "yolov8",
        anchors(
            [20, 10, 8, 4, 0.9, 0.5],
            [21, 10, 8, 4, 0.8, 0.1],  # the same object
            [21, 10, 8, 4, 0.2, 0.7],  # another class there
            [40, 40, 8, 8, 0.1, 0.2],  # too low a score
        ),
    )
    np.testing.assert_allclose(one.boxes, [[8, 16, 12, 24], [8, 17, 12, 25]])
    np.testing.assert_allclose(one.scores, [0.9, 0.7])
    assert one.classes.tolist() == [0, 1]
    assert one.outlines == ()


def test_oriented_boxes_have_corners() -> None:
    one = found("yolov8-obb", anchors([32, 32, 20, 10, 0.9, 0.1, np.pi / 2]))
    np.testing.assert_allclose(one.boxes, [[22, 27, 42, 37]], atol=1e-4)
    corners = {tuple(np.round(corner, 3)) for corner in one.outlines[0]}
    assert corners == {(22, 27), (22, 37), (42, 27), (42, 37)}
    same = found("end2end-obb", [[32, 32, 20, 10, 0.9, 0, np.pi / 2], [0] * 7])
    np.testing.assert_allclose(same.outlines[0], one.outlines[0])
    assert len(same) == 1


def test_masks_have_outlines() -> None:
    """The first prototype is a disc of radius 3 cells about (8, 8), 4 pixels each."""
    y, x = np.mgrid[:16, :16] + 0.5
    prototypes = np.zeros((32, 16, 16))
    prototypes[0] = 3 - np.hypot(y - 8, x - 8)
    weights = [4.0] + [0.0] * 31
    box = [32, 32, 30, 30]
    masked = found("yolov8-seg", anchors([*box, 0.9, 0.1, *weights]), prototypes)
    (outline,) = masked.outlines
    assert np.hypot(*(outline - 32).T) == pytest.approx(12, abs=0.3)
    corners = [17, 17, 47, 47]
    same = found("end2end-seg", [[*corners, 0.9, 0, *weights]], prototypes)
    np.testing.assert_allclose(same.outlines[0], outline)
    # Cut at the box, and the box itself where the mask is empty.
    half = found("yolov8-seg", anchors([26, 32, 12, 30, 0.9, 0.1, *weights]), prototypes)
    assert half.outlines[0][:, 1].max() == 32
    empty = found("yolov8-seg", anchors([8, 8, 8, 8, 0.9, 0.1, *weights]), prototypes)
    np.testing.assert_allclose(empty.outlines[0], [(4, 4), (4, 12), (12, 12), (12, 4)])


def test_end_to_end_rows_are_objects() -> None:
    rows = [[16, 8, 24, 12, 0.9, 1], [17, 8, 25, 12, 0.8, 1], [0, 0, 0, 0, 0, 0]]
    one = found("end2end", rows)
    np.testing.assert_allclose(one.boxes, [[8, 16, 12, 24], [8, 17, 12, 25]])  # nothing suppressed
    assert one.classes.tolist() == [1, 1]
    with pytest.raises(HrviewerError, match=r"predicts the class 5, .* has 2 classes"):
        found("end2end", [[16, 8, 24, 12, 0.9, 5]])


def test_queries() -> None:
    """Boxes are fractions of the input; the last class of DETR is none."""
    boxes = [[0.25, 0.5, 0.125, 0.25], [0.5, 0.5, 0.5, 0.5]]
    one = found("detr", [[5, 0, 0], [0, 0, 5]], boxes)
    np.testing.assert_allclose(one.boxes, [[24, 12, 40, 20]])
    assert one.scores[0] == pytest.approx(np.exp(5) / (np.exp(5) + 2))
    for name, outputs in (
        ("rtdetr", ([[2, -9], [-9, -9]], boxes)),
        ("rtdetr", (boxes, [[2, -9], [-9, -9]])),
        ("rtdetr", (np.hstack([boxes, [[1 / (1 + np.exp(-2)), 0], [0, 0]]]),)),
    ):
        same = found(name, *outputs)
        np.testing.assert_allclose(same.boxes, one.boxes)
        assert same.scores[0] == pytest.approx(1 / (1 + np.exp(-2)))


@pytest.mark.parametrize("name", BOX_DECODERS)
def test_outputs_of_another_format(name: str) -> None:
    assert DECODERS[name].name == name
    with pytest.raises(HrviewerError, match=rf"'{name}' with 2 classes reads .* gives \(9, 9\)"):
        found(name, np.zeros((9, 9)))


@pytest.mark.parametrize("name", BOX_DECODERS)
def test_nothing_is_found(name: str) -> None:
    shapes = {
        "yolov5": [(84, 7)],
        "yolox": [(84, 7)],
        "yolov8": [(6, 84)],
        "yolov8-seg": [(38, 84), (32, 16, 16)],
        "yolov8-obb": [(7, 84)],
        "end2end": [(300, 6)],
        "end2end-seg": [(300, 38), (32, 16, 16)],
        "end2end-obb": [(300, 7)],
        "detr": [(100, 3), (100, 4)],
        "rtdetr": [(300, 6)],
    }
    outputs = [np.zeros(shape) for shape in shapes[name]]
    if name == "detr":
        outputs[0][:, 2] = 9
    assert len(found(name, *outputs)) == 0
