"""Annotated fields of a real slide: their positions, and the loss on annotated areas only."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from hrviewer.errors import HrviewerError  # noqa: E402
from hrviewer.geometry import Rect  # noqa: E402
from hrviewer.ground_truth import GroundTruth  # noqa: E402

from hrviewer_histology.figures import random_fields  # noqa: E402
from hrviewer_histology.marked import (  # noqa: E402
    ANNOTATIONS_FILE,
    BORDER,
    AnnotatedField,
    AnnotatedFields,
    read_annotated_fields,
)
from hrviewer_histology.photos import read_photos  # noqa: E402

SHARED = Path(os.environ.get("HRVIEWER_SHARED", Path(__file__).parents[3].parent / "shared"))
DATA = SHARED / "data" / "nuclei"


def marks() -> dict:
    return json.loads(
        files("hrviewer_histology").joinpath(ANNOTATIONS_FILE).read_text(encoding="utf-8")
    )


@pytest.fixture(scope="module")
def fields() -> list[AnnotatedField]:
    if not DATA.is_dir():
        pytest.skip(f"the slide that was marked is not beside {DATA}")
    return read_annotated_fields(DATA)


def test_every_mark_lies_in_its_field() -> None:
    side = marks()["side"]
    for field in marks()["fields"]:
        for y, x in field["nuclei"]:
            assert 0 <= y - field["y"] <= side
            assert 0 <= x - field["x"] <= side


def test_no_marked_field_touches_one_that_is_counted(fields: list[AnnotatedField]) -> None:
    import tifffile

    path = DATA.parent / "wsi" / marks()["slide"]
    slide = torch.from_numpy(tifffile.imread(path, key=0)).permute(2, 0, 1).float() / 255
    side = marks()["side"]
    for y, x in random_fields(slide, 10, 256, 0):
        for field in marks()["fields"]:
            assert (Rect(y, x, 256, 256) & Rect(field["y"], field["x"], side, side)).empty


def test_a_field_is_as_dark_where_nuclei_were_marked_as_nuclei_are(
    fields: list[AnnotatedField],
) -> None:
    darker = total = 0
    for field in fields:
        grey = field.rgb.mean(0)
        for y, x in field.truth.points.astype(int):
            total += 1
            darker += bool(grey[y - 3 : y + 4, x - 3 : x + 4].mean() < grey.mean())
    assert total == sum(len(field["nuclei"]) for field in marks()["fields"])
    assert darker / total > 0.9


def test_a_batch_counts_what_was_marked_and_knows_nothing_else(
    fields: list[AnnotatedField],
) -> None:
    images, densities = AnnotatedFields(fields, 4, seed=3, batch=8)[2]
    again, same = AnnotatedFields(fields, 4, seed=3, batch=8)[2]
    assert images.shape == (8, 3, 160, 160)
    assert densities.shape == (8, 1, 40, 40)
    torch.testing.assert_close(images, again, atol=0, rtol=0)
    torch.testing.assert_close(densities, same, atol=0, rtol=0, equal_nan=True)
    assert densities.isnan().any()
    assert float(densities.nansum()) > 10


def test_the_density_of_a_field_is_its_marks() -> None:
    # One in the middle, far from the border: all of it is there, wherever the piece is cut.
    points = torch.tensor([[96.0, 96.0]]).numpy()
    boxes = torch.tensor([[86.0, 86.0, 20.0, 20.0]]).numpy()
    truth = GroundTruth(points, ("nucleus",), boxes=boxes)
    field = AnnotatedField(torch.rand(3, 192, 192), Rect(32, 32, 128, 128).pad(-BORDER), truth)
    for step in range(4):
        _, densities = AnnotatedFields([field], 4, batch=4)[step]
        torch.testing.assert_close(densities.nansum((1, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
        known = (~densities.isnan()).sum((1, 2, 3))
        assert (known <= 30 * 30).all()
        assert (known >= 24 * 24).all()


def test_a_missing_slide_is_reported(tmp_path: Path) -> None:
    with pytest.raises(HrviewerError, match=r"CMU-1.*put it there"):
        read_annotated_fields(tmp_path)
    with pytest.raises(HrviewerError, match=r"no index\.csv"):
        read_photos(tmp_path, "train")
