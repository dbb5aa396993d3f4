"""Decoders of instances on discs whose maps are known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from instance_maps import discs, maps, masks, overlaps
from skimage.draw import polygon2mask

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard
from hrviewer.models.decoders import DECODERS
from hrviewer.models.decoders.label_outlines import candidates_from_labels
from hrviewer.models.decoders.stardist import suppress_in_order
from hrviewer.models.detection import Detections, decode

SIZE = 160, 200


def card(name: str, **output: object) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": name,
            "task": "instances",
            "input": {"channels": "rgb", "tile": 256},
            "output": {"stride": 1, "classes": ["cell"], "decode": name} | output,
        }
    )


def found_in(name: str, outputs: list[np.ndarray], **output: object) -> Detections:
    (found,) = decode(outputs, card(name, **output), (4096, 4096))
    return found


@pytest.mark.parametrize("name", ["stardist", "cellpose", "hovernet"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_disc_is_found_once_in_its_place(name: str, seed: int) -> None:
    real = discs(*SIZE, 200, seed=seed)
    found = found_in(name, [maps(name, *SIZE, real)[None]])
    assert len(real) > 15
    assert len(found) == len(real)
    assert overlaps(found.outlines, real).min() > 0.85
    assert overlaps(found.outlines, real).mean() > 0.93
    for box, ring in zip(found.boxes, found.outlines, strict=True):
        assert box.tolist() == pytest.approx([*ring.min(axis=0), *ring.max(axis=0)], abs=0.51)


@pytest.mark.parametrize("name", ["cellpose", "hovernet", "stardist"])
def test_discs_that_touch_are_separated(name: str) -> None:
    real = np.array([[40, 40, 12], [40, 63, 11.5], [61, 51, 11]])
    found = found_in(name, [maps(name, 100, 100, real)[None]])
    assert len(found) == 3
    assert overlaps(found.outlines, real).min() > 0.85


@pytest.mark.parametrize("name", ["stardist", "cellpose", "hovernet"])
def test_nothing_is_found_in_nothing(name: str) -> None:
    found = found_in(name, [maps(name, 40, 50, np.zeros((0, 3)))[None]])
    assert len(found) == 0


@pytest.mark.parametrize("name", ["stardist", "cellpose", "hovernet"])
def test_the_score_is_a_threshold(name: str) -> None:
    outputs = [maps(name, *SIZE, discs(*SIZE, 60))[None]]
    (all_of_them,) = decode(outputs, card(name), (4096, 4096))
    scores = np.unique(all_of_them.scores)
    threshold = float(scores[len(scores) // 2])
    (found,) = decode(outputs, card(name), (4096, 4096), threshold)
    assert len(found) == (all_of_them.scores >= threshold).sum() > 0
    assert len(decode(outputs, card(name), (4096, 4096), 1.01)[0]) == 0


def test_outputs_of_several_arrays() -> None:
    real = discs(*SIZE, 60)
    together = maps("stardist", *SIZE, real)[None]
    one = found_in("stardist", [together])
    for outputs in (
        [together[:, :1], together[:, 1:]],
        [together[:, 1:], together[:, :1]],
        [np.moveaxis(together[:, :1], 1, 3), np.moveaxis(together[:, 1:], 1, 3)],
    ):
        assert found_in("stardist", outputs).boxes.tolist() == one.boxes.tolist()
    # HoVer-Net's types, as logits, in any place; nuclei as logits.
    hover, labels = maps("hovernet", *SIZE, real)[None], masks(*SIZE, real)
    kind = np.arange(len(real)) % 2
    types = np.zeros((1, 3, *SIZE), np.float32)
    types[0, 0][labels == 0] = types[0, 1][(labels > 0) & (kind[labels - 1] == 0)] = 9
    types[0, 2][(labels > 0) & (kind[labels - 1] == 1)] = 9
    nuclei = 20 * hover[:, :2] - 10
    for outputs in ([types, nuclei, hover[:, 2:]], [np.concatenate([hover, types], axis=1)]):
        found = found_in("hovernet", outputs, classes=["a", "b"])
        assert np.bincount(found.classes).tolist() == np.bincount(kind).tolist()
    # StarDist's classes.
    found = found_in("stardist", [together[:, :1], together[:, 1:], types], classes=["a", "b"])
    assert np.bincount(found.classes).tolist() == np.bincount(kind).tolist()
    # Cellpose's style vector is left out.
    style = np.zeros((1, 256), np.float32)
    flows = maps("cellpose", *SIZE, real)[None]
    assert len(found_in("cellpose", [flows, style])) == len(real)


def test_strides_and_margins() -> None:
    real = discs(*SIZE, 60)
    fine = maps("stardist", *SIZE, real)
    coarse = fine[:, ::2, ::2][None]  # every second pixel, distances in input pixels
    found = found_in("stardist", [coarse], stride=2)
    assert len(found) == len(real)
    assert overlaps(found.outlines, real).min() > 0.9
    inner = maps("hovernet", *SIZE, real)[None, :, 20:-20, 20:-20]
    found = found_in("hovernet", [inner], margin=20)
    whole = real[(real[:, :2] - real[:, 2:] > 22).all(axis=1)
                 & (real[:, :2] + real[:, 2:] < np.array(SIZE) - 22).all(axis=1)]  # fmt: skip
    assert overlaps(found.outlines, whole).min() > 0.85


def test_an_outline_contains_exactly_the_pixels_of_its_mask() -> None:
    labels = masks(*SIZE, discs(*SIZE, 60))
    m = int(labels.max())
    found = candidates_from_labels(labels, np.ones(m), np.zeros(m, np.int64), 1.0, 0.0)
    for i in range(m):
        outline = found.outline(i)  # type: ignore[misc]
        np.testing.assert_array_equal(polygon2mask(SIZE, outline - 0.5), labels == i + 1)


def test_suppression_of_polygons_equals_the_loop_over_all_pairs() -> None:
    import shapely

    rng = np.random.default_rng(0)
    polygons = np.array(
        [shapely.Point(*rng.uniform(0, 60, 2)).buffer(rng.uniform(3, 9), 4) for _ in range(80)]
    )
    kept: list[int] = []
    for i, one in enumerate(polygons):
        if all(
            one.intersection(polygons[j]).area <= 0.4 * min(one.area, polygons[j].area)
            for j in kept
        ):
            kept.append(i)
    assert suppress_in_order(polygons).tolist() == kept


@pytest.mark.parametrize("name", ["stardist", "cellpose", "hovernet"])
def test_other_outputs_are_refused(name: str) -> None:
    with pytest.raises(HrviewerError, match=rf"{name}.*reads"):
        found_in(name, [np.zeros((1, 2, 8, 8), np.float32)])
    with pytest.raises(ValueError, match="needs the task instances"):
        ModelCard.model_validate(card(name).model_dump() | {"task": "detection"})
    assert DECODERS[name].duplicates is False
