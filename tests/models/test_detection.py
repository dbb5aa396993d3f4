from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_cards import make_card
from PIL import Image

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard, Network, open_bundle
from hrviewer.models.detection import count_map, decode, letterbox, non_max_suppression


@pytest.fixture(scope="module")
def yolox(shared: Path) -> Network:
    return open_bundle(shared / "models/yolox_nano.onnx").load("main", "cpu")


def small() -> ModelCard:
    """Two heads over 32 pixels: 16 cells of 8 and 4 of 16."""
    return make_card(
        task="detection",
        input={"tile": 32, "fixed": True, "letterbox": 114},
        output={"stride": [8, 16], "classes": ["a", "b"], "decode": "yolox"},
    )


def raw(*things: tuple[int, float, float, float, float, float, float]) -> np.ndarray:
    """Nothing, but for (anchor, x, y in strides, width, height in strides, scores of a and b)."""
    out = np.zeros((1, 20, 7), np.float32)
    for anchor, x, y, w, h, a, b in things:
        out[0, anchor] = [x, y, np.log(w), np.log(h), 1, a, b]
    return out


def test_decode_puts_boxes_where_they_are() -> None:
    # Anchor 6 is row 1, column 2 of the first head; 17 is row 0, column 1 of the second.
    first, second = (6, 0.5, 0.25, 1, 0.5, 0, 0.9), (17, 0.5, 0.5, 1, 1, 0.5, 0.1)
    (found,) = decode([raw(first, second)], small(), (32, 32))
    np.testing.assert_allclose(found.boxes, [[8, 16, 12, 24], [0, 16, 16, 32]])
    np.testing.assert_allclose(found.scores, [0.9, 0.5])
    assert found.classes.tolist() == [1, 0]
    # Only what has its centre in the picture, clipped to it.
    (found,) = decode([raw(first, second)], small(), (32, 22))
    np.testing.assert_allclose(found.boxes, [[8, 16, 12, 22]])
    counts = count_map([found], small(), (32, 32))
    assert counts.shape == (1, 2, 2, 2)
    assert counts[0, 1, 0, 1] == counts.sum() == 1
    assert len(decode([raw()], small(), (32, 32))[0]) == 0


def test_an_output_of_another_length() -> None:
    with pytest.raises(HrviewerError, match=r"\(20, 7\).*\(21, 7\)"):
        decode([np.zeros((1, 21, 7), np.float32)], small(), (32, 32))


def test_of_boxes_that_overlap_the_best_of_each_class_stays() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    scores = np.array([0.8, 0.9, 0.7, 0.6], np.float32)
    same = np.zeros(4, np.int64)
    assert non_max_suppression(boxes, scores, same).tolist() == [1, 3]
    assert non_max_suppression(boxes, scores, np.array([0, 0, 1, 0])).tolist() == [1, 2, 3]
    assert non_max_suppression(boxes, scores, same, iou_threshold=0.95).tolist() == [1, 0, 3]


def test_letterbox_keeps_the_shape() -> None:
    out, ratio = letterbox(np.zeros((50, 100, 3), np.uint8), small())
    assert ratio == 0.32
    assert out.shape == (32, 32, 3)
    assert (out[:16] == 0).all()
    assert (out[16:] == 114).all()


def test_cars(shared: Path, yolox: Network) -> None:
    picture = Image.open(shared / "data/aerial/small-vehicles1.jpeg").convert("RGB")
    tile, ratio = letterbox(np.asarray(picture), yolox.card)
    batch = yolox.card.prepare(tile)[None]
    (found,) = yolox.detect(batch)
    assert {yolox.card.classes[c] for c in found.classes} == {"car"}
    assert (found.scores >= 0.4).sum() == 5
    assert len(found) == 6  # and one more at the usual 0.3
    assert (found.boxes[:, 2:] / ratio <= [picture.height + 1, picture.width + 1]).all()
    # As a map it answers what a density answers.
    assert (yolox.stride, yolox.halo) == (32, 64)
    counts = yolox(batch)
    assert counts.shape == (1, 80, 13, 13)
    assert counts[0, 2].sum() == counts.sum() == 6
    # Filled by itself where the picture is smaller than the tile.
    cut = batch[:, :, : int(picture.height * ratio)]
    assert yolox(cut).shape == (1, 80, -(-cut.shape[2] // 32), 13)
    assert yolox(cut).sum() == 6
