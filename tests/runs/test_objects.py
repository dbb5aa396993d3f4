"""Detected objects of runs: whole, once each, in the table, and at other thresholds."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image
from pycocotools import coco as pycoco
from toy_detectors import CLASSES, Finder, rectangles
from toys import ToyBundle, toy_bundle

import hrviewer
from hrviewer.app.maps.result_maps import ResultMaps
from hrviewer.engine import InferenceResult, RunControl, deserialize, serialize
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.figures.object_picture import make_object_picture
from hrviewer.io.geojson import class_color
from hrviewer.runs import Run, compare, format_evaluation, object_layer, run

IMAGE, RECTANGLES = rectangles(200, 260, 90)
SCORES = RECTANGLES[:, 4] / 255


def finder(**settings: object) -> ToyBundle:
    return ToyBundle(main=Finder(**settings))  # type: ignore[arg-type]


def rows(objects: pd.DataFrame) -> list[tuple[float, ...]]:
    """Return boxes and classes, sorted."""
    numbers = objects["label"].map(CLASSES.index)
    return sorted(zip(objects["y"], objects["x"], objects["h"], objects["w"], numbers, strict=True))


def expected(mask: np.ndarray) -> list[tuple[float, ...]]:
    """Return the boxes and classes of the image's rectangles, sorted."""
    return sorted(tuple(map(float, (*r[:4], r[5]))) for r in RECTANGLES[mask])


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "x.run.zarr"
    return run(IMAGE, finder(fixed=True), "patches", out=out, cache="off")


@pytest.mark.parametrize("fixed", [False, True])
def test_every_object_is_found_whole_and_once(fixed: bool, tmp_path: Path) -> None:
    tile = {} if fixed else {"tile": 64}
    out = tmp_path / "x.run.zarr"
    found = run(IMAGE, finder(fixed=fixed), "patches", out=out, cache="off", **tile)
    seen = SCORES >= 0.3
    assert len(found.patches) > 9
    assert found.header["patches"]["failed"] == 0
    assert rows(found.objects()) == expected(seen)
    counts = [int((seen & (RECTANGLES[:, 5] == k)).sum()) for k in (0, 1)]
    assert found.estimate is not None
    assert found.estimate["value"] == seen.sum()
    assert found.estimate["per_class"] == dict(zip(CLASSES, counts, strict=True))
    # The map counts the same objects, in the cells of their centers.
    cells = np.nan_to_num(found.output)
    centers = found.objects()[["center_y", "center_x"]].to_numpy() // 4
    for k, name in enumerate(CLASSES):
        at = centers[(found.objects()["label"] == name).to_numpy()].astype(int)
        counted = np.zeros(cells.shape[1:])
        np.add.at(counted, tuple(at.T), 1)
        np.testing.assert_array_equal(cells[k], counted)
    assert any("share" in note for note in found.header["notes"])


def test_without_overlap_objects_are_cut(tmp_path: Path) -> None:
    found = run(IMAGE, finder(fixed=True), "patches", halo=0, out=tmp_path / "x.run.zarr")
    assert rows(found.objects()) != expected(SCORES >= 0.3)
    assert any("do not overlap" in note for note in found.header["notes"])


def test_the_card_gives_the_default_thresholds(tmp_path: Path) -> None:
    network = Finder(fixed=True)
    output = network.card.output.model_copy(update={"score": 0.7})
    network.card = network.card.model_copy(update={"output": output})
    found = run(IMAGE, ToyBundle(main=network), out=tmp_path / "x.run.zarr", cache="off")
    seen = SCORES >= 0.7
    assert rows(found.objects()) == expected(seen)
    assert found.estimate is not None
    assert found.estimate["value"] == seen.sum() == np.nansum(found.output)
    assert rows(found.objects(score=0.3)) == expected(SCORES >= 0.3)
    maps = ResultMaps.from_run(found)
    assert maps.objects is not None
    assert maps.objects.score == 0.7


def test_pictures_show_the_objects(result: Run, tmp_path: Path) -> None:
    """A picture of the region's size has every box's border in its class's color."""
    photo = np.zeros((*IMAGE.shape[:2], 3), np.uint8)
    picture = make_object_picture(result, photo, Rect(0, 0, *IMAGE.shape[:2]))
    objects = result.objects()
    for one in objects.itertuples():
        color = class_color(one.label)
        if max(one.h, one.w) >= 6:
            assert picture.pixels[int(one.y), int(one.x + one.w / 2)].tolist() == [*color]
            assert not picture.pixels[int(one.center_y), int(one.center_x)].any()
    counts = objects["label"].value_counts()
    assert {name: count for name, count, _ in picture.classes} == counts.to_dict()
    few = make_object_picture(result, photo, Rect(0, 0, *IMAGE.shape[:2]), score=0.9)
    assert few.pixels.any(axis=2).sum() < picture.pixels.any(axis=2).sum()
    path = hrviewer.export(result, tmp_path / "a.png", dpi=100, inches=4)
    with Image.open(path) as figure:
        drawn = {tuple(color) for color in np.asarray(figure.convert("RGB")).reshape(-1, 3)}
    assert {class_color(name) for name in CLASSES} <= drawn
    with pytest.raises(HrviewerError, match="score has no effect on a figure of cost"):
        hrviewer.export(result, tmp_path / "b.png", map="cost", score=0.5)
    page = hrviewer.export(result, tmp_path / "a.html").read_text("utf-8")
    assert page.index("<figcaption>Objects<") < page.index("<figcaption>Model output<")


def test_thresholds_change_without_inference(result: Run) -> None:
    for score in (0.15, 0.5, 0.9):
        assert rows(result.objects(score=score)) == expected(score <= SCORES)
    # Each object has a second box, a pixel farther.
    doubled = result.objects(overlap=0.95, score=0.5)
    assert len(doubled) == (SCORES >= 0.5).sum() + (0.9 * SCORES >= 0.5).sum()
    ids = result.objects(score=0.5).set_index("id")
    pd.testing.assert_frame_equal(ids, result.objects(score=0.15).set_index("id").loc[ids.index])
    for wrong in ({"score": 2}, {"merging": "some"}, {"overlap": -1}):
        with pytest.raises(HrviewerError, match=next(iter(wrong))):
            result.objects(**wrong)


def test_the_table_has_all_candidates_and_says_which_are_objects(result: Run) -> None:
    table = pd.read_parquet(result.path / "objects.parquet")
    assert len(table) > 2 * len(RECTANGLES)
    assert set(table.loc[table["is_object"], "id"]) == set(result.objects()["id"])
    assert table["patch"].isin(result.patches["id"]).all()


def test_merging_all_equals_a_direct_loop(result: Run) -> None:
    """Tiles with their overlap, all boxes, the greedy loop: object for object."""
    network, boxes = Finder(), []
    padded = np.pad(IMAGE, ((64, 64), (64, 64), (0, 0)))
    halo = 8
    for patch in result.patches.itertuples():
        y, x = int(patch.y) - halo, int(patch.x) - halo
        tile = padded[64 + y : 128 + y, 64 + x : 128 + x].transpose(2, 0, 1) / np.float32(255)
        found = network.find(tile.astype(np.float32), 0.3, 0.45)
        for (y0, x0, y1, x1), score, kind in zip(
            found.boxes, found.scores, found.classes, strict=True
        ):
            box = max(0, y0 + y), max(0, x0 + x), min(200, y1 + y), min(260, x1 + x)
            boxes.append((*map(float, box), float(score), int(kind)))
    kept: list[tuple[float, ...]] = []
    for box in sorted(boxes, key=lambda box: -box[4]):
        mine = shapely.box(*box[:4])
        if not any(
            other[5] == box[5]
            and mine.intersection(shapely.box(*other[:4])).area
            > 0.45 * mine.union(shapely.box(*other[:4])).area
            for other in kept
        ):
            kept.append(box)
    want = sorted((b[0], b[1], b[2] - b[0], b[3] - b[1], b[5]) for b in kept)
    assert rows(result.objects(merging="all")) == want


def test_the_objects_of_a_region_are_those_whose_center_is_inside(tmp_path: Path) -> None:
    region = Rect(33, 41, 101, 150)
    found = run(IMAGE, finder(fixed=True), region=region, out=tmp_path / "x.run.zarr")
    y, x = (RECTANGLES[:, :2] + RECTANGLES[:, 2:4] / 2).T
    inside = (y >= 33) & (y < 134) & (x >= 41) & (x < 191) & (SCORES >= 0.3)
    assert rows(found.objects()) == expected(inside)
    assert found.estimate is not None
    assert found.estimate["value"] == inside.sum() == pytest.approx(np.nansum(found.output))


def test_an_object_at_the_border_counts_as_one(tmp_path: Path) -> None:
    image = np.zeros((96, 90, 3), np.uint8)
    image[80:96, 78:90] = 255, 0, 0
    found = run(image, finder(stride=32, tile=96), out=tmp_path / "x.run.zarr")
    assert found.estimate is not None
    assert found.estimate["value"] == 1
    assert np.nansum(found.output) == 1


def test_a_stopped_run_is_resumed_with_the_same_objects(result: Run, tmp_path: Path) -> None:
    control, out = RunControl(), tmp_path / "x.run.zarr"

    def stop(update: object) -> None:
        if isinstance(update, InferenceResult):
            control.stop()

    stopped = run(IMAGE, finder(), "zoom", budget="100%", out=out, control=control,
                  on_event=stop, cache="off")  # fmt: skip
    assert not stopped.complete
    assert len(stopped.objects(score=0.05)) < len(result.objects(score=0.05))
    resumed = run(IMAGE, finder(), "zoom", budget="100%", out=out, resume=True, cache="off")
    whole = run(IMAGE, finder(), "zoom", budget="100%", out=tmp_path / "y.run.zarr")
    pd.testing.assert_frame_equal(resumed.objects(), whole.objects())


def test_results_are_stored_with_their_candidates() -> None:
    from hrviewer.engine.object_inference import object_result, shift_and_scale
    from hrviewer.geometry import Patch

    network, rect = Finder(), Rect(64, 32, 64, 64)
    (found,) = network.detect(IMAGE[None, 64:128, 32:96].transpose(0, 3, 1, 2) / np.float32(255))
    result = object_result(
        found, shift_and_scale(rect, 1.0), (64.0, 32.0, 64.0, 64.0), 4.0, Patch(rect, 1.0), "main",
        network.card, Rect(0, 0, 200, 260),
    )  # fmt: skip
    (again,) = deserialize(serialize([result]))
    assert again.objects is not None
    assert result.objects is not None
    for one, other in zip(again.objects.columns, result.objects.columns, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("strategy", ["uniform", "nonuniform", "zoom"])
def test_other_strategies_find_boxes_in_place(strategy: str, tmp_path: Path) -> None:
    image, truth = rectangles(400, 400, 60, side=(24, 40), seed=3)
    networks = {**toy_bundle().networks, "main": Finder(tile=128)}
    found = run(image, ToyBundle(**networks), strategy, budget="60%",
                out=tmp_path / "x.run.zarr")  # fmt: skip
    objects = found.objects(score=0.1)
    assert len(objects) > 3
    y, x, h, w = truth[:, :4].T
    real = shapely.box(x, y, x + w, y + h)
    y, x, h, w = objects[["y", "x", "h", "w"]].to_numpy().T
    own = shapely.box(x, y, x + w, y + h)
    common = shapely.area(shapely.intersection(own[:, None], real[None]))
    union = shapely.area(own)[:, None] + shapely.area(real)[None] - common
    assert np.median((common / union).max(axis=1)) > 0.7


def test_where_the_estimate_is_of_more_than_was_found_a_note_says_so(tmp_path: Path) -> None:
    found = run(IMAGE, finder(), "zoom", budget="40%", seed=1, out=tmp_path / "x.run.zarr")
    assert found.estimate is not None
    assert abs(found.estimate["value"] - len(found.objects())) >= 0.5
    assert any("are listed" in note for note in found.header["notes"])


def test_runs_of_other_models_have_no_objects(tmp_path: Path) -> None:
    counted = run(IMAGE, toy_bundle(), out=tmp_path / "x.run.zarr")
    with pytest.raises(HrviewerError, match="detects none"):
        counted.objects()


def test_boxes_are_evaluated_and_compared(tmp_path: Path) -> None:
    """Against the image's rectangles the run is perfect; against it a coarse run is worse."""
    boxes = RECTANGLES[:, :4].astype(float)
    seen = SCORES >= 0.3
    truth = GroundTruth(
        boxes[:, :2] + boxes[:, 2:] / 2, CLASSES, RECTANGLES[:, 5], boxes=boxes, source="made"
    ).select(seen)
    found = run(IMAGE, finder(fixed=True), out=tmp_path / "x.run.zarr", truth=truth)
    assert found.evaluation is not None
    assert found.evaluation["average_precision"] == {"ap": 1.0, "ap50": 1.0, "ap75": 1.0}
    assert found.evaluation["error"] == found.evaluation["game"]["4"] == 0  # type: ignore[index]
    assert "AP50 1.000" in format_evaluation(found.evaluation)
    for reference in (truth, None):
        table = compare(IMAGE, finder(fixed=True), ["patches", "uniform:scale=4"],
                        budgets="1000%", truth=reference,
                        out=tmp_path / f"c{reference is None}")  # fmt: skip
        patches, uniform = table["ap50"].tolist()
        assert patches == 1
        assert 0 <= uniform < 0.9


EVERYTHING_ELSE = {"patches": False, "annotations": False}


def test_objects_are_exported_to_every_format(result: Run, tmp_path: Path) -> None:
    objects = result.objects(score=0.5)
    options = EVERYTHING_ELSE | {"score": 0.5}
    path = hrviewer.export(result, tmp_path / "a.geojson", **options)
    features = json.loads(path.read_text("utf-8"))["features"]
    assert [feature["properties"]["objectType"] for feature in features] == ["detection"] * len(
        objects
    )
    for feature, row in zip(features, objects.itertuples(), strict=True):
        expected = (row.x, row.y, row.x + row.w, row.y + row.h)
        assert shapely.geometry.shape(feature["geometry"]).bounds == expected
        assert feature["properties"]["classification"]["name"] == row.label
        assert feature["properties"]["measurements"]["score"] == pytest.approx(row.score)
    path = hrviewer.export(result, tmp_path / "a.coco.json", **options)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = pycoco.COCO(path)
    found = [coco.anns[i] for i in sorted(coco.anns)]
    assert [one["bbox"] for one in found] == objects[["x", "y", "w", "h"]].to_numpy().tolist()
    assert [one["area"] for one in found] == objects["area"].tolist()
    assert [one["score"] for one in found] == pytest.approx(objects["score"].tolist())
    assert [coco.cats[one["category_id"]]["name"] for one in found] == objects["label"].tolist()
    path = hrviewer.export(result, tmp_path / "a.dsa.json", **options)
    elements = json.loads(path.read_text("utf-8"))["elements"]
    assert [one["user"]["score"] for one in elements] == pytest.approx(objects["score"].tolist())
    path = hrviewer.export(result, tmp_path / "a.csv", rows="objects", score=0.5)
    table = pd.read_csv(path)
    assert table["y_px"].tolist() == objects["center_y"].tolist()
    assert table[["h_px", "w_px"]].to_numpy().tolist() == objects[["h", "w"]].to_numpy().tolist()
    assert table["label"].tolist() == objects["label"].tolist()
    path = hrviewer.export(result, tmp_path / "b.csv", rows="points")
    assert len(pd.read_csv(path)) == len(result.objects())


def test_the_layers_of_a_run_have_its_objects(result: Run, monkeypatch: Any) -> None:
    *maps, (lines, settings, kind) = result.layers()
    assert [one[2] for one in maps] == ["image"] * 4
    assert kind == "vectors"
    n = len(result.objects())
    assert lines.shape == (4 * n, 2, 2)
    assert settings["name"] == "objects"
    assert len(settings["edge_color"]) == 4 * n
    first = result.objects().iloc[0]
    assert lines[0].tolist() == [[first["y"] - 0.5, first["x"] - 0.5], [0, first["w"]]]
    monkeypatch.setattr(object_layer, "MAX_OBJECTS", 3)
    assert result.layers()[-1][1]["name"] == f"objects (3 of {n})"


def test_thresholds_of_objects_are_refused_without_objects(tmp_path: Path) -> None:
    counted = run(IMAGE, toy_bundle(), out=tmp_path / "x.run.zarr")
    with pytest.raises(HrviewerError, match="score has no effect"):
        hrviewer.export(counted, tmp_path / "a.geojson", score=0.5)
    with pytest.raises(HrviewerError, match="no objects"):
        hrviewer.export(counted, tmp_path / "a.csv", rows="objects")


@pytest.mark.slow
def test_boats(shared: Path, tmp_path: Path) -> None:
    """As in shared/cases/models: 16 boats, and two cars where a letterbox fills the border."""
    image, model = shared / "data/aerial/boats.jpg", shared / "models/yolox_nano.onnx"
    found = hrviewer.run(image, model, out=tmp_path / "x.run.zarr", progress=False)
    assert found.estimate is not None
    assert found.estimate["per_class"]["boat"] == 16
    assert (found.objects()["label"] == "boat").sum() == 16
    cut = hrviewer.run(image, model, halo=0, out=tmp_path / "y.run.zarr", progress=False)
    assert (cut.objects()["label"] == "car").sum() == 2


def test_nothing_found_on_a_part_is_no_count(tmp_path: Path) -> None:
    """Zero objects count only where all pixels were seen, or with an interval."""
    black, settings = np.zeros((200, 260, 3), np.uint8), {"cache": "off", "progress": False}
    coarse = run(black, finder(), "uniform", scale=4, out=tmp_path / "u.run.zarr", **settings)
    assert coarse.estimate is None
    assert any("that is no count of the region" in note for note in coarse.header["notes"])
    assert any("smaller than the model expects" in note for note in coarse.header["notes"])
    whole = run(black, finder(), "patches", out=tmp_path / "p.run.zarr", **settings)
    assert whole.estimate is not None
    assert whole.estimate["value"] == 0
    assert not any("no count" in note for note in whole.header["notes"])
