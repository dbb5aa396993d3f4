"""GeoJSON export: geometry and measurements as in the patch table, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from uuid import UUID

import pandas as pd
import pytest
from made_runs import table
from shapely.geometry import shape

from hrviewer.io import export, run_features


def strict(text: str) -> dict:
    """Parse JSON, which knows no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)


def test_geometry_and_measurements_match_the_patch_table(made, tmp_path):
    run = made()
    rows = pd.read_parquet(run.path / "patches.parquet")
    found = strict(export(run, tmp_path / "a.geojson").read_text("utf-8"))
    assert found["type"] == "FeatureCollection"
    assert len(found["features"]) == len(rows)
    for feature, row in zip(found["features"], rows.itertuples(), strict=True):
        polygon = shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.exterior.is_ccw
        assert polygon.bounds == (row.x, row.y, row.x + row.w, row.y + row.h)
        assert polygon.area == row.h * row.w
        ring = feature["geometry"]["coordinates"][0]
        assert ring[0] == ring[-1]
        measured = feature["properties"]["measurements"]
        assert measured["FLOPs"] == row.flops
        assert measured["ms"] == 4
        assert measured["order"] == row.order
        assert measured["scale"] == row.scale
        assert "score" not in measured
        assert measured.get("value") == (None if row.status == "failed" else row.value)
        assert feature["properties"]["metadata"] == {"status": row.status}


def test_qupath_format(made, tmp_path):
    found = strict(export(made(), tmp_path / "a.geojson").read_text("utf-8"))
    classes = set()
    for feature in found["features"]:
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        properties = feature["properties"]
        assert properties["objectType"] == "tile"
        assert isinstance(properties["name"], str)
        color = properties["classification"]["color"]
        assert all(isinstance(part, int) and 0 <= part < 256 for part in color)
        assert len(color) == 3
        classes.add((properties["classification"]["name"], *color))
    assert len(classes) == 2
    assert {name for name, *_ in classes} == {"main", "scout"}


def test_ids_are_unique_and_reproducible(made, tmp_path):
    run = made()
    first, second = (
        [f["id"] for f in strict(export(run, tmp_path / name).read_text("utf-8"))["features"]]
        for name in ("a.geojson", "b.geojson")
    )
    assert first == second
    assert len(set(first)) == len(first)
    assert {UUID(name).version for name in first} == {5}
    run.header["started"] = "2026-01-02T00:00:00+00:00"
    other = strict(export(run, tmp_path / "c.geojson").read_text("utf-8"))["features"]
    assert not {f["id"] for f in other} & set(first)


def test_a_run_without_patches(made, tmp_path):
    found = strict(export(made(table(0)), tmp_path / "a.geojson").read_text("utf-8"))
    assert found["features"] == []
    assert found["hrviewer"]["estimate"]["value"] == 3.5


@pytest.mark.slow
def test_memory_is_bounded(made, tmp_path, monkeypatch):
    monkeypatch.setattr(run_features, "BATCH_ROWS", 512)
    run = made(table(4000))
    export(run, tmp_path / "warm.geojson")
    tracemalloc.start()
    try:
        path = export(run, tmp_path / "a.geojson")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One batch of rows at a time; all of them, as features, would be several times the file.
    assert peak < 1e6 < path.stat().st_size
    with path.open(encoding="utf-8") as lines:
        assert sum('"type": "Feature"' in line for line in lines) == 4000
