"""Agreement of runs, and of a run with ground truth, by region: Bland and Altman's numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from toys import picture, toy_bundle
from typer.testing import CliRunner

from hrviewer.cli import app
from hrviewer.errors import HrviewerError
from hrviewer.geometry import Rect
from hrviewer.ground_truth import GroundTruth
from hrviewer.runs import run
from hrviewer.runs.agreement import grid_regions, region_agreement

IMAGE = picture(256, 320)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return an exhaustive run and a coarse one."""
    folder = tmp_path_factory.mktemp("agreement")
    return [
        run(IMAGE, toy_bundle(), strategy, out=folder / f"{strategy}.run.zarr", cache="off",
            progress=False)
        for strategy in ("patches", "uniform")
    ]  # fmt: skip


def test_the_parts_of_an_image_make_it_up():
    parts = grid_regions(Rect(3, 5, 101, 67), 4)
    assert len(parts) == 16
    assert sum(part.area for part in parts) == 101 * 67


def test_differences_are_those_of_the_pixels(runs):
    exhaustive, coarse = runs
    regions = grid_regions(Rect(0, 0, 256, 320), 4)
    found = region_agreement(coarse, exhaustive, regions)
    red = IMAGE[..., 0].reshape(4, 64, 4, 80).sum((1, 3)).ravel() / 255
    assert_allclose(found.table["reference"], red, rtol=1e-5)
    difference = found.table["difference"].to_numpy()
    assert found.bias == pytest.approx(difference.mean())
    assert found.limits[1] - found.bias == pytest.approx(1.96 * np.std(difference, ddof=1))
    assert found.bias * 16 == pytest.approx(
        coarse.estimate["value"] - exhaustive.estimate["value"], abs=0.5
    )
    same = region_agreement(exhaustive, exhaustive, regions)
    assert (same.bias, same.limits) == (0, (0, 0))


def test_against_ground_truth(runs):
    points = np.array([[10.0, 10.0], [10, 200], [200, 200], [201, 201]])
    truth = GroundTruth(points, ("thing",), np.zeros(4, int))
    found = region_agreement(runs[0], truth, grid_regions(Rect(0, 0, 256, 320), 2))
    assert found.table["reference"].tolist() == [1, 1, 0, 2]
    with pytest.raises(HrviewerError, match="less than two regions"):
        region_agreement(runs[0], truth, grid_regions(Rect(0, 0, 256, 320), 1))


def test_the_command(runs, tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("x,y,w,h\n0,0,100,100\n100,100,80,60\n")
    exhaustive, coarse = runs
    plot = tmp_path / "p.png"
    command = ["measure", str(coarse.path), str(path), "--against", str(exhaustive.path)]
    shown = CliRunner().invoke(app, [*command, "--plot", str(plot), "--json"])
    assert shown.exit_code == 0
    rows = json.loads(shown.stdout)["agreement"]["table"]
    red = IMAGE[:100, :100, 0].sum() / 255
    assert rows[0]["reference"] == pytest.approx(red, rel=1e-5)
    assert plot.read_bytes().startswith(b"\x89PNG")
    listed = CliRunner().invoke(app, command).stdout
    assert "limits of agreement" in listed
    refused = CliRunner().invoke(app, [*command[:3], "--plot", str(tmp_path / "q.png")])
    assert refused.exit_code != 0
