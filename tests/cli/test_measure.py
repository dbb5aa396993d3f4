"""`measure`: regions on the maps of a run."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from .calling import IMAGE, RUN, call, error_of


@pytest.fixture
def regions(tmp_path):
    """Return a file of two regions: a rectangle, and one beyond the image."""
    path = tmp_path / "regions.geojson"
    corners = {
        "tumour": [[40, 20], [140, 20], [140, 80], [40, 80], [40, 20]],
        "beyond": [[500, 0], [600, 0], [600, 10], [500, 0]],
    }
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
         "properties": {"name": name}}
        for name, ring in corners.items()
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_measure(run, regions, tmp_path):
    expected = pytest.approx(IMAGE[20:80, 40:140, 0].sum() / 255, rel=1e-5)
    listed = call("measure", run, regions).stdout.splitlines()
    assert listed[0].startswith("tumour  ")
    assert "things (exhaustive" in listed[0]
    assert listed[0].endswith("in 6 kpx")
    assert "no estimate" in listed[1]
    found = json.loads(call("measure", run, regions, "--json").stdout)["regions"]
    assert [row["name"] for row in found] == ["tumour", "beyond"]
    assert found[0]["estimate"]["value"] == expected
    assert found[1]["estimate"] is None
    out = tmp_path / "table.csv"
    assert call("measure", run, regions, "-o", out).stdout.strip() == str(out)
    assert pd.read_csv(out)["count"][0] == expected


def test_measure_errors_are_one_line(run, regions, tmp_path):
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    assert "not a run folder" in error_of("measure", tmp_path, regions)
    assert "no annotations" in error_of("measure", run, tmp_path / "none.geojson")
    assert "exists" in error_of("measure", run, regions, "-o", taken)
    assert "no table" in error_of("measure", run, regions, "-o", tmp_path / "t.xls")
    assert taken.read_text() == "mine"


def test_run_of_a_file_of_regions(image, toys, regions, tmp_path):
    out = tmp_path / "x.run.zarr"
    command = "run", image, *RUN, "--region", regions, "--out", out
    listed = call(*command).stdout
    assert "tumour" in listed
    header = json.loads((out / "run.json").read_text())
    tumour, beyond = header["regions"]
    assert tumour["estimate"]["value"] == pytest.approx(
        IMAGE[20:80, 40:140, 0].sum() / 255, rel=1e-5
    )
    assert header["estimate"]["value"] == pytest.approx(tumour["estimate"]["value"], rel=1e-6)
    assert header["region"] == [20, 40, 60, 100]
    assert beyond["area"] == 0
