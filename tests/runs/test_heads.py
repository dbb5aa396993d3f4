"""Heads on embeddings: exact where targets follow from them, with honest errors elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from toys import Bright, Encoder, ToyBundle

import hrviewer
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.io.features import Feature, rectangle
from hrviewer.io.geojson import as_geojson
from hrviewer.models import open_bundle
from hrviewer.runs import Run, fit_head, fit_image_classifier
from hrviewer.runs.heads import fit_place_classifier, read_embeddings

pytest.importorskip("sklearn")

SIDE = 256


@pytest.fixture(scope="module")
def beads_image() -> tuple[np.ndarray, GroundTruth]:
    """Cells of 4 pixels: as many objects in each as it is red, in steps of 50; blue is noise."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.6, (SIDE // 4, SIDE // 4)).clip(max=5)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., 0] = 50 * counts.repeat(4, 0).repeat(4, 1)
    image[..., 2] = rng.integers(0, 255, (SIDE, SIDE))
    points = np.argwhere(counts).repeat(counts[counts > 0], axis=0) * 4 + 2.0
    return image, GroundTruth(points, ("bead",), source="beads")


@pytest.fixture(scope="module")
def encoded(beads_image, tmp_path_factory) -> Run:
    bundle = ToyBundle(main=Bright(), encoder=Encoder())
    out = tmp_path_factory.mktemp("runs") / "a.run.zarr"
    return hrviewer.run(beads_image[0], bundle, "compression", cache="off", out=out)


def test_counts_that_follow_from_the_embeddings_are_fitted_exactly(
    beads_image, encoded: Run, tmp_path: Path
) -> None:
    image, truth = beads_image
    fitted = fit_head(encoded, truth, tmp_path / "beads")
    assert (fitted.cells, fitted.objects) == (64 * 64, len(truth))
    assert fitted.error < 0.01
    assert abs(fitted.bias) < 0.01
    assert fitted.correlation > 0.999
    head = open_bundle(tmp_path / "beads").load("head", "cpu")
    assert head.card.metrics["error"] == round(fitted.error, 4)
    bundle = ToyBundle(main=Bright(), encoder=Encoder(), head=head)
    run = hrviewer.run(image, bundle, "compression", cache="off", out=tmp_path / "b.run.zarr")
    assert run.estimate["value"] == pytest.approx(len(truth), rel=2e-3)


def test_the_error_is_large_where_embeddings_are_uninformative(
    beads_image, encoded: Run, tmp_path: Path
) -> None:
    truth = beads_image[1]
    rng = np.random.default_rng(1)
    elsewhere = truth.with_points(rng.uniform(0, SIDE, truth.points.shape), "chance")
    fitted = fit_head(encoded, elsewhere, tmp_path / "chance")
    assert abs(fitted.correlation) < 0.4
    assert fitted.error > 0.08  # of some forty in a block, by chance alone
    assert abs(fitted.bias) < 0.05


def test_ground_truth_of_a_region_and_of_one_class(
    beads_image, encoded: Run, tmp_path: Path
) -> None:
    truth = beads_image[1]
    class_ids = np.arange(len(truth)) % 2
    both = GroundTruth(truth.points, ("bead", "pearl"), class_ids)
    region = Rect(3, 0, 161, 200)  # the first and the last row of cells are not whole
    fitted = fit_head(encoded, both, tmp_path / "part", region=region, class_name="pearl")
    inside = both.clip(Rect(4, 0, 160, 200))
    assert (fitted.cells, fitted.objects) == (40 * 50, inside.counts[1])
    assert open_bundle(tmp_path / "part").roles["head"].classes == ("pearl",)


def test_what_cannot_be_fitted_is_reported(beads_image, encoded: Run, tmp_path: Path) -> None:
    image, truth = beads_image
    with pytest.raises(HrviewerError, match="too few"):
        fit_head(encoded, truth, tmp_path / "a", region=Rect(0, 0, 40, 40))
    with pytest.raises(HrviewerError, match="no class 'stone'"):
        fit_head(encoded, truth, tmp_path / "a", class_name="stone")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("")
    with pytest.raises(HrviewerError, match="exists"):
        fit_head(encoded, truth, tmp_path / "there")
    run = hrviewer.run(image, ToyBundle(main=Bright()), "patches", out=tmp_path / "c.run.zarr")
    with pytest.raises(HrviewerError, match="has no embeddings"):
        fit_head(run, truth, tmp_path / "a")


# Classes of places.


def beads(beads_image, count: int) -> list[Feature]:
    """Label some cells by how many beads are in them."""
    red = beads_image[0][::4, ::4, 0] // 50
    cells = np.random.default_rng(2).permutation(np.argwhere(red < 3))[:count]
    names = ("none", "one", "two")
    return [
        Feature("point", names[red[row, column]], point=(4 * row + 1.5, 4 * column + 2.0))
        for row, column in cells
    ]


def test_classes_that_follow_from_the_embeddings_are_predicted(
    beads_image, encoded: Run, tmp_path: Path
) -> None:
    fitted = fit_place_classifier(
        read_embeddings(encoded), beads(beads_image, 400), tmp_path / "class_ids"
    )
    assert (fitted.classes, sum(fitted.cells_per_class)) == (("none", "one", "two"), 400)
    assert fitted.error is not None
    assert fitted.error < 0.02
    head = open_bundle(tmp_path / "class_ids").load("head", "cpu")
    assert head.card.metrics["error"] == round(fitted.error, 4)
    # The head's task is another one than main's: its classes are the run's, in areas.
    bundle = ToyBundle(main=Bright(), encoder=Encoder(), head=head)
    run = hrviewer.run(
        beads_image[0], bundle, "compression", cache="off", out=tmp_path / "b.run.zarr"
    )
    red = beads_image[0][::4, ::4, 0] // 50
    assert run.estimate["kind"] == "area"
    assert run.estimate["per_class"]["none"] == pytest.approx(16 * (red == 0).sum(), rel=0.02)
    output = run.map("output")[0][:]
    assert output.shape[0] == 3
    np.testing.assert_allclose(output.sum(axis=0), 1, atol=1e-5)
    assert ((output.argmax(axis=0) == red) | (red > 2)).mean() > 0.99


def test_uninformative_embeddings_give_the_error_of_chance(
    beads_image, encoded: Run, tmp_path: Path
) -> None:
    labels = [replace(b, label="ab"[i % 2]) for i, b in enumerate(beads(beads_image, 400))]
    fitted = fit_place_classifier(read_embeddings(encoded), labels, tmp_path / "chance")
    assert fitted.error == pytest.approx(0.5, abs=0.08)


def test_outlines_label_the_cells_inside(beads_image, encoded: Run, tmp_path: Path) -> None:
    image = beads_image[0].copy()
    image[:, 100:] = 255 - image[:, 100:]
    whole = rectangle(0, 104, 256, 152)
    hole = np.array([[40.0, 140], [40, 180], [80, 180], [80, 140]])
    bundle = ToyBundle(main=Bright(), encoder=Encoder())
    run = hrviewer.run(image, bundle, "compression", cache="off", out=tmp_path / "a.run.zarr")
    labels = [
        Feature("annotation", "dark", (rectangle(0, 0, 256, 80),)),
        Feature("annotation", "bright", ((*whole, hole),)),
        Feature("annotation", "dark", point=(10.0, 120.0)),  # the last label of a cell counts
        Feature("annotation", "bright", point=(10.0, 120.0)),
    ]
    path = tmp_path / "drawn.geojson"
    features = [as_geojson(label, UUID(int=0)) for label in labels]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    fitted = fit_head(run, path, tmp_path / "halves", task="segmentation")
    assert dict(zip(fitted.classes, fitted.cells_per_class, strict=True)) == {
        "bright": 64 * 38 - 100,
        "dark": 64 * 20,
    }
    assert fitted.error < 0.01
    part = fit_head(run, path, tmp_path / "part", task="segmentation", region=Rect(0, 40, 64, 100))
    assert (part.classes, part.cells_per_class) == (("bright", "dark"), (16 * 9, 16 * 10))


def test_too_few_labels_make_a_head_of_unknown_error(
    beads_image, encoded: Run, tmp_path: Path
) -> None:
    few = [
        Feature("point", "a", point=(2.0, 2.0)),
        Feature("point", "b", point=(9.0, 9.0)),
    ]
    fitted = fit_place_classifier(read_embeddings(encoded), few, tmp_path / "few")
    assert fitted.error is None
    assert "unknown" in fitted.validation_summary
    with pytest.raises(
        HrviewerError, match="at least two classes where there are embeddings, not b"
    ):
        fit_place_classifier(
            read_embeddings(encoded), few, tmp_path / "one", region=Rect(4, 4, 100, 100)
        )
    with pytest.raises(HrviewerError, match="a segmentation head predicts all"):
        fit_head(encoded, beads_image[1], tmp_path / "c", task="segmentation", class_name="bead")


# Classes of images.


@pytest.mark.slow
def test_images_are_classified_by_a_few_informative_places(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    bundle = ToyBundle(main=Bright(), encoder=Encoder())
    images, labels, runs = [], [], []
    for i in range(16):
        cells = rng.integers(0, 256, (16, 16, 3))
        cells[..., 0] = rng.integers(0, 160, (16, 16))
        if i % 2:  # two places of 256 are red
            cells.reshape(-1, 3)[rng.choice(256, 2, replace=False)] = 255, 0, 0
        images.append(cells.repeat(4, 0).repeat(4, 1).astype(np.uint8))
        labels.append("ill" if i % 2 else "well")
        out = tmp_path / f"{i}.run.zarr"
        runs.append(hrviewer.run(images[-1], bundle, "compression", cache="off", out=out))
    fitted = fit_image_classifier(runs, labels, tmp_path / "class_ids")
    assert (fitted.classes, fitted.images_per_class, fitted.cells) == (
        ("ill", "well"),
        (8, 8),
        16 * 256,
    )
    assert fitted.error is not None
    assert fitted.error < 0.2
    head = open_bundle(tmp_path / "class_ids").load("head", "cpu")
    fitted_bundle = ToyBundle(main=Bright(), encoder=Encoder(), head=head)
    run = hrviewer.run(
        images[1], fitted_bundle, "compression", cache="off", out=tmp_path / "x.run.zarr"
    )
    assert run.estimate["vote"] == "ill"
    with pytest.raises(HrviewerError, match="two classes"):
        fit_image_classifier(runs, ["well"] * 16, tmp_path / "one")
    assert fit_image_classifier(runs[:2], labels[:2], tmp_path / "two").error is None
