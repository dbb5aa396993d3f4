"""Comparison of strategies: nominal costs, and errors that are known."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from toys import Bright, Encoder, ToyBundle, blocks, picture, toy_bundle
from typer.testing import CliRunner

from hrviewer.cli import app
from hrviewer.errors import HrviewerError
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.figures.plots import pareto_front
from hrviewer.pyramid import open_pyramid
from hrviewer.runs import Run, compare, experiment, run
from hrviewer.runs.batch_runner import StrategySpec, parse_specs
from hrviewer.runs.class_agreement import total_variation
from hrviewer.runs.comparison_report import run_sections, write_comparison_report
from hrviewer.strategies import strategy_ids
from hrviewer.strategies.uniform import Uniform

from .reference_loop import CELLS, counts

IMAGE = picture(256, 320)
COUNT = IMAGE[..., 0].sum() / 255


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(IMAGE).save(path)
    return path


def test_costs_depend_neither_on_the_order_nor_on_the_cache(photo, tmp_path):
    own = {
        name: run(photo, toy_bundle(), name, cache="off", out=tmp_path / f"{name}.run.zarr")
        for name in strategy_ids()
    }
    for cache in ("use", "off"):
        for order in (strategy_ids(), strategy_ids()[::-1]):
            out = tmp_path / f"{cache}-{order[0]}"
            table = compare(photo, toy_bundle(), order, cache=cache, out=out).set_index("strategy")
            for name in order:
                assert table.loc[name, "flops"] == own[name].cost["flops"]
                assert table.loc[name, "estimate"] == own[name].estimate["value"]


def test_runs_with_other_chosen_parameters_are_not_reused(photo, tmp_path, monkeypatch):
    first, again = (compare(photo, toy_bundle(), "uniform", out=tmp_path / "a") for _ in range(2))
    assert first["run"].item() == again["run"].item()

    def coarser(self, context, params):
        return params.model_copy(update={"scale": 8.0})

    monkeypatch.setattr(Uniform, "choose", coarser)
    other = compare(photo, toy_bundle(), "uniform", out=tmp_path / "a")
    assert other["run"].item() != first["run"].item()
    assert other["chosen"].item() == {"scale": 8.0}


def test_models_of_one_name_are_distinguished(photo, tmp_path):
    one, other = toy_bundle(), toy_bundle()
    other.roles = {
        **other.roles,
        "main": other.roles["main"].model_copy(update={"sha256": "0" * 64}),
    }
    table = compare(photo, [one, other], "patches", out=tmp_path / "a")
    assert table["model"].tolist() == [f"{one.name} (1)", f"{one.name} (2)"]
    assert table["run"].nunique() == 2
    assert table["estimate"].nunique() == 1
    alone = compare(photo, one, "patches", out=tmp_path / "a")
    assert alone["model"].tolist() == [one.name]
    assert alone["run"].item() == table["run"][0]


def test_errors_against_an_exhaustive_run_and_against_ground_truth(photo, tmp_path):
    table = compare(photo, toy_bundle(), "all", out=tmp_path / "a").set_index("strategy")
    assert set(table.index) == set(strategy_ids())
    assert table.attrs["reference"] == "patches"
    assert table.loc["patches", "error"] == table.loc["patches", "game4"] == 0
    off = table.loc["uniform", "estimate"] - table.loc["patches", "estimate"]
    assert table.loc["uniform", "error"] == pytest.approx(off)
    assert table.loc["patches", ["of_once_per_pixel", "of_patches"]].tolist() == [1, 1]  # no halo
    ratios = table["flops"] / table.loc["patches", "flops"]
    assert table["of_patches"].tolist() == pytest.approx(ratios.tolist())
    assert table.loc["uniform", "of_once_per_pixel"] <= 0.1
    assert table.loc["uniform", "chosen"]["scale"] > 3
    count = table.loc["patches", "estimate"]
    assert table.loc["patches", "ci95"] == (count, count)
    assert table[["ci95", "ci95_truth"]].loc["uniform"].tolist() == [None, None]
    truth = GroundTruth(np.array([[10.0, 10.0]] * 7), source="seven")
    table = compare(photo, toy_bundle(), "patches", truth=truth, out=tmp_path / "a")
    assert table["error"].item() == pytest.approx(COUNT - 7, rel=1e-5)
    assert table["of_patches"].item() == 1
    assert table.attrs["reference"] == "seven"
    # The reference of an earlier comparison does not stay.
    again = compare(photo, toy_bundle(), "patches", out=tmp_path / "a")
    assert again["error"].item() == 0


class Halves(Bright):
    """Segments: class 1 where red is more than half, class 0 elsewhere."""

    def __init__(self) -> None:
        super().__init__("halves", task="segmentation", classes=["dark", "bright"])

    def predict(self, batch):
        share = blocks(batch) / 16
        return np.concatenate([1 - share, share], axis=1)


class Tiles(Halves):
    """The same, one prediction per tile."""

    def __init__(self, task: str = "classification") -> None:
        activation = "softmax" if task == "classification" else "none"
        names = ["dark", "bright"]
        Bright.__init__(self, "tiles", task=task, classes=names, activation=activation, stride=64)

    def predict(self, batch):
        return super().predict(batch).mean((2, 3), keepdims=True)


def test_the_maps_of_segmentations_are_compared(tmp_path):
    """Against a loop over all cells of both maps."""
    rng = np.random.default_rng(0)
    image = np.zeros((256, 320, 3), np.uint8)
    image[..., 0] = np.kron(rng.integers(0, 2, (32, 40)), np.full((8, 8), 255))
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path)
    table = compare(
        path, ToyBundle(main=Halves()), ["patches", "uniform"], out=tmp_path / "a", cache="off"
    ).set_index("strategy")
    assert table.loc["patches", "dice"] == {"dark": 1.0, "bright": 1.0}
    assert table.loc["patches", "class_error"] == {"dark": 0.0, "bright": 0.0}
    runs = [Run(table.loc[name, "run"]) for name in ("uniform", "patches")]
    found, expected = (run.output.argmax(axis=0) for run in runs)
    for k, name in enumerate(("dark", "bright")):
        both = sum(a == b == k for a, b in zip(found.ravel(), expected.ravel(), strict=True))
        dice = 2 * both / ((found == k).sum() + (expected == k).sum())
        assert table.loc["uniform", "dice"][name] == pytest.approx(dice)
        shares = [run.estimate["fraction"][name] for run in runs]
        assert table.loc["uniform", "class_error"][name] == pytest.approx(shares[0] - shares[1])
    assert 0 < table.loc["uniform", "dice"]["bright"] < 1
    files = write_comparison_report(table.reset_index())
    assert "mean_dice" not in pd.read_csv(files["csv"])
    assert "error by class" in Path(files["report"]).read_text("utf-8")


@pytest.mark.parametrize("task", ["classification", "multi-label"])
def test_classifications_are_compared(tmp_path, task):
    image = np.zeros((256, 320, 3), np.uint8)
    image[:, 128:, 0] = 255
    specs = ["patches", "uniform", "patches:aggregation=majority"]
    table = compare(image, ToyBundle(main=Tiles(task)), specs, out=tmp_path / "a", cache="off")
    first, second, third = table.to_dict("records")
    assert first["dice"] == {"dark": 1.0, "bright": 1.0}
    assert first["error"] == 0
    errors = second["class_error"]
    assert second["error"] == pytest.approx(sum(map(abs, errors.values())) / 2)
    assert all(0 <= value <= 1 for value in second["dice"].values())
    # Another question has no error.
    assert third["error"] is None or np.isnan(third["error"])
    assert "the majority of the whole region, the reference the mean" in third["note"]


def test_embeddings_are_compared_by_their_direction(tmp_path):
    table = compare(
        IMAGE, ToyBundle(main=Encoder()), ["patches", "patches:tile=32"], out=tmp_path / "a",
        cache="off",
    )  # fmt: skip
    assert table["error"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert table["estimate"].isna().all()


def test_segmentations_differ_by_half_the_sum_of_their_class_shares(tmp_path):
    image = np.zeros((256, 320, 3), np.uint8)
    image[:, :80, 0] = 255
    image[:, 80:160, 0] = np.where(np.arange(80) // 4 % 2, 255, 0)  # stripes that shrinking blurs
    bundle = ToyBundle(main=Halves())
    table = compare(
        image, bundle, ["patches", "uniform"], out=tmp_path / "a", cache="off"
    ).set_index("strategy")
    first, second = (Run(table.loc[name, "run"]).estimate for name in ("uniform", "patches"))
    assert second["fraction"] == {"dark": pytest.approx(0.625), "bright": pytest.approx(0.375)}
    differences = [abs(first["fraction"][k] - second["fraction"][k]) for k in ("dark", "bright")]
    assert 0.01 < sum(differences) < 1
    assert table.loc["uniform", "error"] == pytest.approx(sum(differences) / 2)
    assert table.loc["patches", "error"] == 0
    assert table["game4"].isna().all()


def test_total_variation_of_class_shares():
    a = {"kind": "area", "per_class": {"a": 300.0, "b": 100.0}, "fraction": {"a": 0.6, "b": 0.2}}
    b = {"kind": "area", "per_class": {"a": 100.0, "b": 200.0}, "fraction": {"a": 0.2, "b": 0.4}}
    assert total_variation(a, b) == total_variation(b, a) == pytest.approx(0.3)
    votes = [{"kind": "probabilities", "per_class": {"a": p, "b": 1 - p}} for p in (0.9, 0.2)]
    assert total_variation(*votes) == pytest.approx(0.7)
    assert total_variation(a, a) == 0


def test_existing_runs_are_reused(photo, tmp_path):
    bundle = toy_bundle()
    compare(photo, bundle, "patches", cache="off", out=tmp_path / "a")
    inferred = bundle.networks["main"].inferred
    compare(photo, bundle, ["patches", "patches:tile=128"], cache="off", out=tmp_path / "a")
    again = bundle.networks["main"].inferred - inferred
    assert 0 < again < inferred  # the new run alone


def test_a_sweep_spends_within_its_budgets(photo, tmp_path):
    whole = 100 * 256 * 320
    table = compare(photo, toy_bundle(), "uniform", budgets="5%,20%", out=tmp_path / "a")
    assert list(table["budget"]) == ["5%", "20%"]
    assert (table["flops"] <= [0.05 * whole, 0.2 * whole]).all()
    assert table["flops"].is_monotonic_increasing


def test_uniform_is_run_at_the_cost_of_every_other(photo, tmp_path):
    table = compare(
        photo, toy_bundle(), ["zoom", "uniform"], budgets="20%", matched=True, out=tmp_path / "a"
    )
    rows = table.set_index("budget")
    assert [*rows.index] == ["20%", "FLOPs of zoom at 20%", "seconds of zoom at 20%", "20%"]
    assert [*rows["strategy"]] == ["zoom", "uniform", "uniform", "uniform"]
    spent = rows.loc["FLOPs of zoom at 20%", "flops"]
    assert 0.5 * table["flops"][0] < spent <= table["flops"][0]
    assert rows["error"].notna().all()
    nothing = compare(
        photo, toy_bundle(), "patches", budgets="1FLOP", matched=True, out=tmp_path / "b"
    )
    assert [*nothing["budget"]] == ["1FLOP"]


def test_a_folder_of_images_and_invalid_strategies(photo, tmp_path):
    Image.fromarray(IMAGE[:128]).save(tmp_path / "b.png")
    table = compare(str(tmp_path), toy_bundle(), "patches", out=tmp_path / "a")
    assert [name.rsplit("/")[-1] for name in table["image"]] == ["b.png", "photo.png"]
    for asked in ("nothing", "patches:tile", "patches:colour=red", []):
        with pytest.raises(HrviewerError):
            compare(photo, toy_bundle(), asked, out=tmp_path / "a")
    nothing = GroundTruth(np.zeros((1, 2)))
    table = compare(
        photo, toy_bundle(), ["uniform"], budgets="1FLOP", truth=nothing, out=tmp_path / "a"
    )
    assert "raise the budget" in table["note"].item()
    assert np.isnan(table["flops"].item())


def test_a_folder_that_cannot_be_made_leaves_no_threads(tmp_path):
    (tmp_path / "taken").write_text("a file")
    before = threading.enumerate()
    with pytest.raises(HrviewerError, match="cannot be created"):
        compare(picture(64, 64), toy_bundle(), "patches", out=tmp_path / "taken", progress=False)
    assert set(threading.enumerate()) <= set(before)


def test_specs_are_parsed():
    assert parse_specs("patches:tile=64,patches:tile=64") == [StrategySpec("patches", {"tile": 64})]
    assert [spec.strategy for spec in parse_specs("all")] == strategy_ids()
    assert str(StrategySpec.parse("patches:tile=64")) == "patches:tile=64"


def test_every_value_of_every_enumerated_parameter_can_be_written():
    from typing import Literal, get_args, get_origin

    from hrviewer.strategies import get_strategy, strategy_ids

    values = 0
    for name in strategy_ids():
        for field, about in get_strategy(name).Params.model_fields.items():
            if get_origin(about.annotation) is Literal:
                for choice in get_args(about.annotation):
                    values += 1
                    asked = StrategySpec.parse(f"{name}:{field}={choice}")
                    assert asked.params == ({} if choice == about.default else {field: choice})
    assert values > 10


def test_pareto():
    assert pareto_front([1, 2, 3, 4, 2], [5, 3, 4, 1, 9]) == [0, 1, 3]


def test_a_report_shows_the_compared_plane(tmp_path):
    stack = np.stack([np.zeros_like(IMAGE), IMAGE])
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="rgb", metadata={"axes": "ZYXS"})
    table = compare(path, toy_bundle(), "patches", plane={"z": 1}, out=tmp_path / "a")
    (_, _, ((_, data),)), *_ = run_sections(table)
    shown = np.asarray(Image.open(io.BytesIO(data)))
    assert shown.mean() == pytest.approx(IMAGE.mean(), rel=0.1)


def test_the_command_writes_a_table_a_plot_and_a_report(photo, tmp_path, monkeypatch):
    monkeypatch.setattr("hrviewer.runs.model.open_bundle", lambda *_: toy_bundle())
    out = tmp_path / "out"
    result = CliRunner().invoke(
        app, ["compare", str(photo), "--model", "toy", "--out", str(out), "--json"]
    )
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert output.keys() == {"image", "reference", "rows", "files"}
    for row in output["rows"]:
        assert row.keys() >= {
            "image", "strategy", "model", "params", "seed", "estimate", "error", "game4", "cost",
        }  # fmt: skip
        assert row["cost"]["flops"] > 0
    assert len(pd.read_parquet(output["files"]["parquet"])) == len(strategy_ids())
    page = (out / "report.html").read_text("utf-8")
    # The plots of error and agreement, the image, and output and cost of each run, and saliency
    # where it varies.
    assert page.count("data:image/png;base64,") == 2
    pictures = page.count("data:image/jpeg;base64,") - 1
    assert 2 * len(strategy_ids()) <= pictures <= 3 * len(strategy_ids())
    assert "http" not in page
    assert "of once per pixel" in page
    assert "95 %, exhaustive inference" in page
    with Image.open(output["files"]["plot"]) as plot:
        assert plot.width > 500


def test_a_report_can_leave_out_the_names_of_files(photo, tmp_path):
    named = photo.rename(photo.with_name("SMITH_JOHN.png"))
    table = compare(named, toy_bundle(), ["patches", "uniform"], out=tmp_path / "c")
    for anonymous in (False, True):
        files = write_comparison_report(table, anonymous=anonymous)
        found = [b"SMITH" in Path(files[kind]).read_bytes() for kind in ("csv", "report")]
        assert found == [not anonymous] * 2
    assert pd.read_csv(files["csv"])["image"].unique().tolist() == ["image 1"]


# The survey's experiment.


@pytest.mark.parametrize("shape", [(96, 128), (97, 131)])
@pytest.mark.parametrize("scale", [2, 4])
def test_downsampling_is_pillows_box_filter(shape, scale):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    picture = Image.fromarray(pixels)
    with open_pyramid(pixels) as pyramid:
        ours = pyramid.read(pyramid.rect, scale).astype(int)
    # At odd sides `reduce` is the same filter, its last boxes cut short.
    boxes = [np.asarray(picture.reduce(scale), int)]
    if shape == (96, 128):
        size = shape[1] // scale, shape[0] // scale
        boxes.append(np.asarray(picture.resize(size, Image.Resampling.BOX), int))
    for box in boxes:
        assert np.abs(ours - box).max() <= 1


def onnx(path):
    """Return a model of onnxruntime as a function."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def test_the_baselines_are_those_of_the_reference_loop(shared, tmp_path):
    model = shared / "models" / "mcnn_shtechB_110.onnx"
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    (tmp_path / "ground-truth").mkdir()
    network, errors = onnx(model), []
    with Image.open(shared / "data" / "aerial" / "terrain1.jpg") as whole:
        for i, corner in enumerate([(0, 0), (900, 600)]):
            cut = whole.crop((*corner, corner[0] + 256, corner[1] + 192))
            cut.save(tmp_path / "images" / f"IMG_{i}.png")
            points = rng.random((30, 2)) * (192, 256)
            (tmp_path / "ground-truth" / f"GT_IMG_{i}.csv").write_text(
                "y,x\n" + "\n".join(f"{y},{x}" for y, x in points)
            )
            errors.append([count - 30 for count in counts(network, cut.convert("RGB")).values()])
    table = experiment(tmp_path, model, out=tmp_path / "out", cache="off").set_index("name")
    by_condition = np.array(errors)
    for name, column in zip(CELLS, by_condition.T, strict=True):
        assert table.loc[name, "mae"] == pytest.approx(np.abs(column).mean(), rel=0.01)
        assert table.loc[name, "rmse"] == pytest.approx(np.sqrt((column**2).mean()), rel=0.01)
        assert table.loc[name, "images"] == 2
    assert table.attrs == {
        "images": 2, "failed": {}, "complete": True, "folder": str(tmp_path / "out"),
    }  # fmt: skip


def test_an_image_without_ground_truth_is_named(photo, tmp_path):
    with pytest.raises(HrviewerError, match=r"photo\.png has no ground truth"):
        experiment(tmp_path, toy_bundle(), out=tmp_path / "out")


def test_an_image_that_cannot_be_used_is_a_row(photo, tmp_path):
    (tmp_path / "empty.tif").touch()
    strategies = ["patches", "uniform"]
    table = compare([photo, tmp_path / "empty.tif"], toy_bundle(), strategies, out=tmp_path / "a")
    assert table["estimate"].notna().tolist() == [True, True, False, False]
    assert table["note"].str.contains("empty").tolist() == [False, False, True, True]
    assert [*table.attrs["failed"]] == [str(tmp_path / "empty.tif")]
    with pytest.raises(HrviewerError, match="empty"):
        compare(tmp_path / "empty.tif", toy_bundle(), "patches", out=tmp_path / "b")
