"""`export`: a run in other formats."""

from __future__ import annotations

import json

from .calling import call, error_of


def test_export(run, tmp_path):
    for name, form in (
        ("a.geojson", "geojson"), ("a.ome.zarr", "ome-zarr"), ("a.ome.tif", "ome-tiff"),
        ("a.csv", "csv"), ("a.parquet", "parquet"), ("a.coco.json", "coco"),
        ("a.dsa.json", "dsa"), ("a.png", "png"), ("a.html", "html"),
    ):  # fmt: skip
        result = call("export", run, "-o", tmp_path / name)
        assert result.stdout.strip() == str(tmp_path / name)
        call("export", run, "--to", form, "--out", tmp_path / f"b-{form}")
        assert (tmp_path / f"b-{form}").exists()


def test_options_of_a_format(run, tmp_path):
    few, many = tmp_path / "few.geojson", tmp_path / "many.geojson"
    call("export", run, "-o", few, "--set", "patches=false")
    call("export", run, "-o", many)
    assert json.loads(few.read_text())["features"] == []
    assert len(json.loads(many.read_text())["features"]) > 0
    assert "dpi" in error_of("export", run, "-o", tmp_path / "a.png", "--set", "dpi=1")
    assert "not georeferenced" in error_of("export", run, "-o", tmp_path / "a.tif")


def test_export_errors_are_one_line(run, tmp_path):
    taken = tmp_path / "taken.geojson"
    taken.write_text("mine")
    assert "not a run folder" in error_of("export", tmp_path, "-o", tmp_path / "a.geojson")
    assert "exists" in error_of("export", run, "-o", taken)
    assert "no folder" in error_of("export", run, "-o", tmp_path / "no" / "a.geojson")
    assert "no format 'docx'" in error_of("export", run, "--to", "docx", "-o", tmp_path / "a.png")
    assert "geojson" in error_of("export", run, "-o", tmp_path / "a.docx")
    assert taken.read_text() == "mine"
