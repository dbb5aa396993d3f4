"""Runs that are measured against the truth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from toys import Bright, ToyBundle, blocks, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.models import Network
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, format_evaluation, run


def dots(points: NDArray[np.intp], shape: tuple[int, int] = (256, 320)) -> NDArray[np.uint8]:
    """Return black with one red pixel per point: `Bright` counts exactly these."""
    image = np.zeros((*shape, 3), np.uint8)
    image[points[:, 0], points[:, 1], 0] = 255
    return image


POINTS = np.array([[10, 20], [13, 300], [200, 100], [255, 319]])


def judged(image, truth, tmp_path, network: Network | None = None, **settings) -> Run:
    return run(
        image, toy_bundle(network), "patches", tile=64, truth=truth, cache="off",
        out=tmp_path / "a.run.zarr", **settings,
    )  # fmt: skip


def test_a_perfect_count(tmp_path):
    done = judged(dots(POINTS), GroundTruth(POINTS + 0.5, source="known"), tmp_path)
    assert done.evaluation == {
        "value": 4,
        "error": pytest.approx(0, abs=1e-5),
        "game": dict.fromkeys("024", pytest.approx(0, abs=1e-5)),
        "source": "known",
    }
    assert json.loads((done.path / "run.json").read_text())["truth"] == done.evaluation
    assert "error" in format_evaluation(done.evaluation)
    assert "truth" in done._repr_html_()


def test_peaks_are_judged_where_the_truth_has_boxes(tmp_path):
    boxes = np.hstack([POINTS - 3, np.full_like(POINTS, 7)]).astype(float)
    known = GroundTruth(POINTS + 0.5, boxes=boxes)
    assert judged(dots(POINTS), known, tmp_path / "a").evaluation["precision"] == 1
    # Three of four are found, and one peak is wrong: as sure as the others, and first in line.
    moved = POINTS.copy()
    moved[0] = 5, 250
    found = judged(dots(moved), known, tmp_path / "b").evaluation["precision"]
    assert found == pytest.approx(0.75 * 76 / 101, abs=1e-9)


def test_one_too_few_and_one_in_the_wrong_place(tmp_path):
    moved = POINTS[:3].copy()
    moved[0] = 130, 20  # in the other half
    done = judged(dots(POINTS), GroundTruth(moved + 0.5), tmp_path)
    assert done.evaluation["error"] == pytest.approx(1)
    assert done.evaluation["game"] == {
        "0": pytest.approx(1), "2": pytest.approx(3), "4": pytest.approx(3),
    }  # fmt: skip


def test_truth_is_clipped_to_the_region(tmp_path):
    done = judged(dots(POINTS), GroundTruth(POINTS + 0.5), tmp_path, region=Rect(0, 0, 64, 320))
    assert done.evaluation["value"] == 2
    assert done.evaluation["error"] == pytest.approx(0, abs=1e-5)


def test_only_objects_that_the_network_knows_are_counted(tmp_path):
    kinds = np.array([0, 1, 1, 1])
    known = GroundTruth(POINTS + 0.5, ("dirt", "thing"), kinds)
    assert judged(dots(POINTS), known, tmp_path).evaluation["value"] == 3


def test_truth_from_a_file_is_kept_when_resumed(tmp_path):
    image, table = tmp_path / "photo.tif", tmp_path / "t.csv"
    tifffile.imwrite(image, dots(POINTS), photometric="rgb", tile=(64, 64))
    table.write_text("y,x\n" + "\n".join(f"{y + 0.5},{x + 0.5}" for y, x in POINTS[:2]))
    assert judged(image, table, tmp_path).evaluation["error"] == pytest.approx(2)
    table.write_text("y,x\n10,20\n")
    assert judged(image, table, tmp_path, resume=True).evaluation["error"] == pytest.approx(3)


def test_of_a_folder_each_image_takes_its_own_truth(tmp_path):
    from PIL import Image

    truths = tmp_path / "ground-truth"
    truths.mkdir()
    for name, points in ("one", POINTS), ("two", POINTS[:3]):
        Image.fromarray(dots(points)).save(tmp_path / f"{name}.png")
        lines = [f"{y + 0.5},{x + 0.5}" for y, x in points]
        (truths / f"{name}.csv").write_text("\n".join(["y,x", *lines]))
    found = [
        judged(tmp_path / f"{name}.png", folder, tmp_path / f"{name}-{folder.name}").evaluation
        for name in ("one", "two")
        for folder in (truths, tmp_path)  # the folder itself, or that of the images
    ]
    assert [truth["value"] for truth in found] == [4, 4, 3, 3]
    assert [truth["error"] for truth in found] == pytest.approx([0] * 4, abs=1e-5)
    (truths / "two.csv").unlink()
    with pytest.raises(HrviewerError, match=r"no truth of two.png: neither GT_two.mat nor two.csv"):
        judged(tmp_path / "two.png", truths, tmp_path / "three")


def test_nothing_is_spent_where_the_truth_is_wrong(tmp_path):
    image = dots(POINTS)
    for truth in ("auto", tmp_path / "none.csv", tmp_path):
        with pytest.raises(HrviewerError):
            judged(image, truth, tmp_path)
    labels = Bright(task="classification", classes=["a", "b"])
    with pytest.raises(HrviewerError, match="neither counts nor segments"):
        judged(image, GroundTruth(POINTS), tmp_path, labels)
    assert not any(tmp_path.iterdir())


class Halves(Bright):
    """Segments: class 1 where red is more than half, class 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__("halves", task="segmentation", classes=["dark", "bright"])

    def see(self, batch):
        share = blocks(batch) / 16
        return np.concatenate([1 - share, share], axis=1)


@pytest.mark.parametrize("region", [None, Rect(30, 50, 100, 91)])
def test_dice_of_a_segmentation(tmp_path, region):
    rng = np.random.default_rng(2)
    bright = np.kron(rng.integers(0, 2, (64, 80)), np.ones((4, 4), int))  # whole cells
    image = np.zeros((256, 320, 3), np.uint8)
    image[..., 0] = bright * 255
    told = bright.copy()
    told[:100, :100] = rng.integers(0, 3, (100, 100))
    path = tmp_path / "classes.tif"
    tifffile.imwrite(path, told.astype(np.uint8))
    found = judged(image, path, tmp_path, Halves(), region=region).evaluation
    part = region or Rect(0, 0, 256, 320)
    said, told = (a[part.y : part.y1, part.x : part.x1] for a in (bright, told))
    for k, name in enumerate(("dark", "bright")):
        both = ((said == k) & (told == k)).sum()
        assert found["dice"][name] == pytest.approx(
            2 * both / ((said == k).sum() + (told == k).sum())
        )
    assert "Dice" in format_evaluation(found)


def test_dice_of_a_network_that_knows_one_class(tmp_path):
    """The rest is background, in what it says (below one half) and in the truth (not 1)."""

    class Lone(Halves):
        def __init__(self) -> None:
            super().__init__()
            output = self.card.output.model_copy(update={"classes": ("bright",)})
            self.card = self.card.model_copy(update={"output": output})

        def see(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().see(batch)[:, 1:]

    bright = np.kron(np.random.default_rng(3).integers(0, 2, (64, 80)), np.ones((4, 4), int))
    image = np.zeros((256, 320, 3), np.uint8)
    image[..., 0] = bright * 255
    told = np.where(np.arange(320) < 160, 2 * bright, bright)  # 2 is of no class that it knows
    path = tmp_path / "classes.tif"
    tifffile.imwrite(path, told.astype(np.uint8))
    found = judged(image, path, tmp_path, Lone()).evaluation
    both, said, there = (bright[:, 160:].sum(), bright.sum(), (told == 1).sum())
    assert found["dice"] == {"bright": pytest.approx(2 * both / (said + there))}


def test_class_maps_that_are_refused(tmp_path):
    path = tmp_path / "classes.tif"
    for truth in (GroundTruth(POINTS), tmp_path / "t.csv", path):
        with pytest.raises(HrviewerError):
            judged(dots(POINTS), truth, tmp_path, Halves())
    tifffile.imwrite(path, np.ones((100, 100), np.uint8))
    with pytest.raises(HrviewerError, match="100 × 100"):
        judged(dots(POINTS), path, tmp_path, Halves())


def test_a_network_is_asked_once(tmp_path):
    """The truth costs no look."""
    network = Bright()
    pack = ToyBundle(main=network)
    with open_pyramid(dots(POINTS)) as pyramid:
        run(pyramid, pack, truth=GroundTruth(POINTS), cache="off", out=tmp_path / "a.run.zarr")
    looked = network.looked
    run(dots(POINTS), pack, cache="off", out=tmp_path / "b.run.zarr")
    assert network.looked == 2 * looked


def test_a_real_photo_against_its_boxes(shared, tmp_path):
    folder = Path(shared) / "data" / "aerial"
    done = judged(folder / "terrain1.jpg", folder / "terrain1_coco.json", tmp_path)
    assert done.evaluation["value"] == 7
    assert done.evaluation["error"] == pytest.approx(done.estimate["value"] - 7)
