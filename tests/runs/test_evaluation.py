"""Runs that are evaluated against ground truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from toys import Bright, ToyBundle, blocks, toy_bundle

from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.ground_truth.slide_tables import read_slide_table
from hrviewer.models import Network
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, format_evaluation, run
from hrviewer.runs.estimates import EvaluationDict


def dots(points: NDArray[np.intp], shape: tuple[int, int] = (256, 320)) -> NDArray[np.uint8]:
    """Return black with one red pixel per point: `Bright` counts exactly these."""
    image = np.zeros((*shape, 3), np.uint8)
    image[points[:, 0], points[:, 1], 0] = 255
    return image


POINTS = np.array([[10, 20], [13, 300], [200, 100], [255, 319]])


def run_with_truth(image, truth, tmp_path, network: Network | None = None, **settings) -> Run:
    return run(
        image, toy_bundle(network), "patches", tile=64, truth=truth, cache="off",
        out=tmp_path / "a.run.zarr", **settings,
    )  # fmt: skip


def test_a_perfect_count(tmp_path):
    done = run_with_truth(dots(POINTS), GroundTruth(POINTS + 0.5, source="known"), tmp_path)
    assert done.evaluation == {
        "value": 4,
        "error": pytest.approx(0, abs=1e-5),
        "game": dict.fromkeys("024", pytest.approx(0, abs=1e-5)),
        "source": "known",
    }
    assert json.loads((done.path / "run.json").read_text())["truth"] == done.evaluation
    assert "error" in format_evaluation(done.evaluation)
    assert "truth" in done._repr_html_()


def test_peaks_are_evaluated_where_the_ground_truth_has_boxes(tmp_path):
    boxes = np.hstack([POINTS - 3, np.full_like(POINTS, 7)]).astype(float)
    known = GroundTruth(POINTS + 0.5, boxes=boxes)
    assert run_with_truth(dots(POINTS), known, tmp_path / "a").evaluation["precision"] == 1
    # Three of four are found, and one peak is wrong: as confident as the others, and the first.
    moved = POINTS.copy()
    moved[0] = 5, 250
    found = run_with_truth(dots(moved), known, tmp_path / "b").evaluation["precision"]
    assert found == pytest.approx(0.75 * 76 / 101, abs=1e-9)


def test_one_object_too_few_and_one_in_the_wrong_place(tmp_path):
    moved = POINTS[:3].copy()
    moved[0] = 130, 20  # in the other half
    done = run_with_truth(dots(POINTS), GroundTruth(moved + 0.5), tmp_path)
    assert done.evaluation["error"] == pytest.approx(1)
    assert done.evaluation["game"] == {
        "0": pytest.approx(1), "2": pytest.approx(3), "4": pytest.approx(3),
    }  # fmt: skip


def test_ground_truth_is_clipped_to_the_region(tmp_path):
    done = run_with_truth(
        dots(POINTS), GroundTruth(POINTS + 0.5), tmp_path, region=Rect(0, 0, 64, 320)
    )
    assert done.evaluation["value"] == 2
    assert done.evaluation["error"] == pytest.approx(0, abs=1e-5)


def test_only_objects_of_the_models_classes_are_counted(tmp_path):
    class_ids = np.array([0, 1, 1, 1])
    known = GroundTruth(POINTS + 0.5, ("dirt", "thing"), class_ids)
    assert run_with_truth(dots(POINTS), known, tmp_path).evaluation["value"] == 3


def test_a_resumed_run_is_evaluated_again(tmp_path):
    image, table = tmp_path / "photo.tif", tmp_path / "t.csv"
    tifffile.imwrite(image, dots(POINTS), photometric="rgb", tile=(64, 64))
    table.write_text("y,x\n" + "\n".join(f"{y + 0.5},{x + 0.5}" for y, x in POINTS[:2]))
    assert run_with_truth(image, table, tmp_path).evaluation["error"] == pytest.approx(2)
    table.write_text("y,x\n10,20\n")
    assert run_with_truth(image, table, tmp_path, resume=True).evaluation["error"] == pytest.approx(
        3
    )


def test_each_image_has_its_file_in_a_folder_of_ground_truth(tmp_path):
    from PIL import Image

    truths = tmp_path / "ground-truth"
    truths.mkdir()
    for name, points in ("one", POINTS), ("two", POINTS[:3]):
        Image.fromarray(dots(points)).save(tmp_path / f"{name}.png")
        lines = [f"{y + 0.5},{x + 0.5}" for y, x in points]
        (truths / f"{name}.csv").write_text("\n".join(["y,x", *lines]))
    found = [
        run_with_truth(
            tmp_path / f"{name}.png", folder, tmp_path / f"{name}-{folder.name}"
        ).evaluation
        for name in ("one", "two")
        for folder in (truths, tmp_path)  # the folder itself, or that of the images
    ]
    assert [evaluation["value"] for evaluation in found] == [4, 4, 3, 3]
    assert [evaluation["error"] for evaluation in found] == pytest.approx([0] * 4, abs=1e-5)
    (truths / "two.csv").unlink()
    with pytest.raises(HrviewerError, match=r"no ground truth of two.png: add GT_two.mat, two.csv"):
        run_with_truth(tmp_path / "two.png", truths, tmp_path / "three")


def test_invalid_ground_truth_is_refused_before_inference(tmp_path):
    image = dots(POINTS)
    for truth in ("auto", tmp_path / "none.csv", tmp_path):
        with pytest.raises(HrviewerError):
            run_with_truth(image, truth, tmp_path)
    labels = Bright(task="classification", classes=["a", "b"])
    with pytest.raises(HrviewerError, match="the ground truth of a classification is a label map"):
        run_with_truth(image, GroundTruth(POINTS), tmp_path, labels)
    assert not any(tmp_path.iterdir())


class Halves(Bright):
    """Segments: class 1 where red is more than half, class 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__("halves", task="segmentation", classes=["dark", "bright"])

    def predict(self, batch):
        share = blocks(batch) / 16
        return np.concatenate([1 - share, share], axis=1)


@pytest.mark.parametrize("region", [None, Rect(30, 50, 100, 91)])
def test_dice_of_a_segmentation(tmp_path, region):
    rng = np.random.default_rng(2)
    bright = np.kron(rng.integers(0, 2, (64, 80)), np.ones((4, 4), int))  # whole cells
    image = np.zeros((256, 320, 3), np.uint8)
    image[..., 0] = bright * 255
    expected = bright.copy()
    expected[:100, :100] = rng.integers(0, 3, (100, 100))
    path = tmp_path / "classes.tif"
    tifffile.imwrite(path, expected.astype(np.uint8))
    found = run_with_truth(image, path, tmp_path, Halves(), region=region).evaluation
    part = region or Rect(0, 0, 256, 320)
    predicted, expected = (a[part.y : part.y1, part.x : part.x1] for a in (bright, expected))
    for k, name in enumerate(("dark", "bright")):
        both = ((predicted == k) & (expected == k)).sum()
        assert found["dice"][name] == pytest.approx(
            2 * both / ((predicted == k).sum() + (expected == k).sum())
        )
    assert "Dice" in format_evaluation(found)


def test_dice_of_a_model_with_one_class(tmp_path):
    """The rest is background, in predictions (below one half) and in ground truth (not 1)."""

    class SingleClass(Halves):
        def __init__(self) -> None:
            super().__init__()
            output = self.card.output.model_copy(update={"classes": ("bright",)})
            self.card = self.card.model_copy(update={"output": output})

        def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().predict(batch)[:, 1:]

    bright = np.kron(np.random.default_rng(3).integers(0, 2, (64, 80)), np.ones((4, 4), int))
    image = np.zeros((256, 320, 3), np.uint8)
    image[..., 0] = bright * 255
    expected = np.where(np.arange(320) < 160, 2 * bright, bright)  # 2 is of no class of the model
    path = tmp_path / "classes.tif"
    tifffile.imwrite(path, expected.astype(np.uint8))
    found = run_with_truth(image, path, tmp_path, SingleClass()).evaluation
    both, predicted, total = (bright[:, 160:].sum(), bright.sum(), (expected == 1).sum())
    assert found["dice"] == {"bright": pytest.approx(2 * both / (predicted + total))}


class Tiles(Halves):
    """Classes, labels or quantities of tiles."""

    def __init__(self, task: str) -> None:
        activation = "softmax" if task == "classification" else "none"
        names = ["dark", "bright"]
        Bright.__init__(self, "tiles", task=task, classes=names, activation=activation, stride=64)

    def predict(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return super().predict(batch).mean((2, 3), keepdims=True)


@pytest.mark.parametrize("task", ["classification", "multi-label"])
def test_dice_of_a_classification(tmp_path, task):
    """Pixel by pixel, each with the class of its tile."""
    tiles = np.random.default_rng(4).integers(0, 2, (4, 5))
    image = np.zeros((256, 320, 3), np.uint8)
    image[..., 0] = np.kron(tiles * 255, np.ones((64, 64), int))
    expected = np.kron(tiles, np.ones((64, 64), int))
    expected[:, :100] = 1
    path = tmp_path / "classes.tif"
    tifffile.imwrite(path, expected.astype(np.uint8))
    found = run_with_truth(image, path, tmp_path, Tiles(task)).evaluation
    predicted = np.kron(tiles, np.ones((64, 64), int))
    for k, name in enumerate(("dark", "bright")):
        both = ((predicted == k) & (expected == k)).sum()
        assert found["dice"][name] == pytest.approx(
            2 * both / ((predicted == k).sum() + (expected == k).sum())
        )


def test_answers_for_the_image_as_a_whole(tmp_path):
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, :32, 0] = 255  # a quarter
    photo, path = tmp_path / "a.tif", tmp_path / "slides.csv"
    tifffile.imwrite(photo, image)

    def evaluate(task: str, text: str) -> EvaluationDict:
        path.write_text(text)
        out = tmp_path / task
        shutil.rmtree(out, ignore_errors=True)
        return run_with_truth(photo, path, out, Tiles(task)).evaluation

    found = evaluate("classification", "slide_id,label\na,dark\nb,bright\n")
    assert (found["label"], found["error"]) == ("dark", 0)
    assert format_evaluation(found) == "dark: right"
    assert evaluate("classification", "image,label\na.tif,bright\n")["error"] == 1
    found = evaluate("multi-label", "image,dark,bright\na,1,1\n")
    assert found["class_error"] == pytest.approx({"dark": -0.25, "bright": -0.75})
    assert found["error"] == pytest.approx(0.5)
    found = evaluate("regression", "image,bright\na,0.5\n")
    assert (found["value"], found["error"]) == (0.5, pytest.approx(-0.25))
    assert format_evaluation(found) == "error bright -0.25"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n1,2\n", "no table of slides"),
        ("image,label\nb,dark\n", "no row of a"),
        ("image,label\na,dark\na,dark\n", "2 rows of a"),
        ("image,label\na,red\n", "'red', which the model does not have"),
        ("image,other\na,1\n", "neither a column label nor"),
        ("image,dark\na,many\n", "'many' for dark, not a number"),
    ],
)
def test_invalid_tables_of_slides_are_refused(tmp_path, text, message):
    path = tmp_path / "slides.csv"
    path.write_text(text)
    with pytest.raises(HrviewerError, match=message):
        read_slide_table(path, "folder/a.svs", ["dark", "bright"])


@pytest.mark.parametrize("name", ["case.1", "case.1.svs", r"C:\slides\case.1.svs", "case.1.tif"])
def test_slides_are_found_by_names_with_dots(tmp_path, name):
    """As those of TCGA: a table without suffixes had no row of them."""
    path = tmp_path / "slides.csv"
    path.write_text(f"slide_id,label\ncase,bright\n{name},dark\ncase.2,bright\n")
    assert read_slide_table(path, "folder/case.1.svs", ["dark", "bright"]).label == "dark"


def test_invalid_label_maps_are_refused(tmp_path):
    path = tmp_path / "classes.tif"
    for truth in (GroundTruth(POINTS), tmp_path / "t.csv", path):
        with pytest.raises(HrviewerError):
            run_with_truth(dots(POINTS), truth, tmp_path, Halves())
    tifffile.imwrite(path, np.ones((100, 100), np.uint8))
    with pytest.raises(HrviewerError, match="100 × 100"):
        run_with_truth(dots(POINTS), path, tmp_path, Halves())


def test_evaluation_needs_no_inference(tmp_path):
    network = Bright()
    bundle = ToyBundle(main=network)
    with open_pyramid(dots(POINTS)) as pyramid:
        run(pyramid, bundle, truth=GroundTruth(POINTS), cache="off", out=tmp_path / "a.run.zarr")
    inferred = network.inferred
    run(dots(POINTS), bundle, cache="off", out=tmp_path / "b.run.zarr")
    assert network.inferred == 2 * inferred


def test_a_real_photo_against_its_boxes(shared, tmp_path):
    folder = Path(shared) / "data" / "aerial"
    done = run_with_truth(folder / "terrain1.jpg", folder / "terrain1_coco.json", tmp_path)
    assert done.evaluation["value"] == 7
    assert done.evaluation["error"] == pytest.approx(done.estimate["value"] - 7)
