"""Exports in the coordinates of a georeferenced image's map."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from made_runs import PLACE, table

from hrviewer.errors import HrviewerError
from hrviewer.io import export
from hrviewer.io.writers import geopackage

geopandas = pytest.importorskip("geopandas")


@pytest.fixture
def placed(made):
    """Return a run on Earth."""
    return made(patches=table(600), geo=True, shape=(2, 64, 96))


def as_seen_on_the_map(run, frame) -> None:
    """Check the bounds of patches against the affine of the image."""
    rows = pd.read_parquet(run.path / "patches.parquet")
    a, _, c, _, e, f = PLACE
    x0, y1 = a * rows.x + c, e * rows.y + f
    expected = np.stack([x0, y1 + e * rows.h, x0 + a * rows.w, y1], axis=1)
    np.testing.assert_allclose(frame.bounds.to_numpy(), expected)
    assert frame.crs.to_epsg() == 32618
    assert frame.is_valid.all()


def test_geopackage(placed, tmp_path, monkeypatch):
    monkeypatch.setattr(geopackage, "BATCH", 250)  # in three parts
    path = export(placed, tmp_path / "a.gpkg", points=True)
    patches = geopandas.read_file(path, layer="patches")
    as_seen_on_the_map(placed, patches)
    assert patches["FLOPs"].tolist() == [1e9 + i for i in range(600)]
    assert patches["class"][0] == "scout"
    points = geopandas.read_file(path, layer="points")
    assert (points.geom_type == "Point").all()
    assert list(tmp_path.glob("*.part*")) == []


def test_geojson_on_the_map(placed, tmp_path):
    as_seen_on_the_map(
        placed, geopandas.read_file(export(placed, tmp_path / "a.geojson", coordinates="map"))
    )
    in_pixels = json.loads(export(placed, tmp_path / "b.geojson").read_text())
    assert "crs" not in in_pixels
    assert in_pixels["features"][0]["geometry"]["coordinates"][0][0] == [0, 0]


def test_an_image_without_a_place(made, tmp_path):
    run = made()
    for name, options in ("a.gpkg", {}), ("a.geojson", {"coordinates": "map"}):
        with pytest.raises(HrviewerError, match="is not georeferenced"):
            export(run, tmp_path / name, **options)
