"""A head fitted to codes: exact where counts follow from them, honest where they do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from toys import Bright, Encoder, ToyPack

import hrviewer
from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.models import open_pack
from hrviewer.runs import Run, fit_head
from hrviewer.truth import Truth

pytest.importorskip("sklearn")

SIDE = 256


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, Truth]:
    """Cells of 4 pixels: as many objects in each as it is red, in steps of 50; blue is noise."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.6, (SIDE // 4, SIDE // 4)).clip(max=5)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[..., 0] = 50 * counts.repeat(4, 0).repeat(4, 1)
    image[..., 2] = rng.integers(0, 255, (SIDE, SIDE))
    points = np.argwhere(counts).repeat(counts[counts > 0], axis=0) * 4 + 2.0
    return image, Truth(points, ("bead",), source="beads")


@pytest.fixture(scope="module")
def encoded(scene, tmp_path_factory) -> Run:
    pack = ToyPack(main=Bright(), encoder=Encoder())
    out = tmp_path_factory.mktemp("runs") / "a.run.zarr"
    return hrviewer.run(scene[0], pack, "compression", cache="off", out=out)


def test_counts_that_follow_from_the_codes_are_learned_exactly(
    scene, encoded: Run, tmp_path: Path
) -> None:
    image, truth = scene
    fitted = fit_head(encoded, truth, tmp_path / "beads")
    assert (fitted.cells, fitted.objects) == (64 * 64, len(truth))
    assert fitted.error < 0.01
    assert abs(fitted.bias) < 0.01
    assert fitted.correlation > 0.999
    head = open_pack(tmp_path / "beads").load("head", "cpu")
    assert head.card.metrics["error"] == round(fitted.error, 4)
    pack = ToyPack(main=Bright(), encoder=Encoder(), head=head)
    run = hrviewer.run(image, pack, "compression", cache="off", out=tmp_path / "b.run.zarr")
    assert run.estimate["value"] == pytest.approx(len(truth), rel=2e-3)


def test_where_codes_say_nothing_the_error_says_so(scene, encoded: Run, tmp_path: Path) -> None:
    truth = scene[1]
    rng = np.random.default_rng(1)
    elsewhere = truth.at(rng.uniform(0, SIDE, truth.points.shape), "chance")
    fitted = fit_head(encoded, elsewhere, tmp_path / "chance")
    assert abs(fitted.correlation) < 0.4
    assert fitted.error > 0.08  # of some forty in a block, by chance alone
    assert abs(fitted.bias) < 0.05


def test_truth_may_be_known_in_a_part_and_of_one_class(scene, encoded: Run, tmp_path: Path) -> None:
    truth = scene[1]
    kinds = np.arange(len(truth)) % 2
    both = Truth(truth.points, ("bead", "pearl"), kinds)
    region = Rect(3, 0, 161, 200)  # the first and the last row of cells are not whole
    fitted = fit_head(encoded, both, tmp_path / "part", region=region, kind="pearl")
    inside = both.clip(Rect(4, 0, 160, 200))
    assert (fitted.cells, fitted.objects) == (40 * 50, inside.counts[1])
    assert open_pack(tmp_path / "part").roles["head"].classes == ("pearl",)


def test_what_cannot_be_fitted_is_told(scene, encoded: Run, tmp_path: Path) -> None:
    image, truth = scene
    with pytest.raises(UserError, match="too few"):
        fit_head(encoded, truth, tmp_path / "a", region=Rect(0, 0, 40, 40))
    with pytest.raises(UserError, match="no 'stone'"):
        fit_head(encoded, truth, tmp_path / "a", kind="stone")
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="exists"):
        fit_head(encoded, truth, tmp_path / "there")
    run = hrviewer.run(image, ToyPack(main=Bright()), "patches", out=tmp_path / "c.run.zarr")
    with pytest.raises(UserError, match="holds no codes"):
        fit_head(run, truth, tmp_path / "a")
