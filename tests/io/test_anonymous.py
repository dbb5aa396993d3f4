"""Exports that name no file."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from hrviewer.io import export, get_writer, writer_names
from hrviewer.io.anonymous import AnonymousRun, open_image
from hrviewer.pyramid import open_pyramid


@pytest.fixture
def named(made):
    """Return a run that has a private name in all that it records of files."""
    run = made(geo=True)
    path = run.header["image"]["path"]
    run.header["image"]["path"] = path.replace("a.tif", "SMITH_JOHN.tif")
    run.header["run"] = "/home/doctor/SMITH_JOHN-patches.run.zarr"
    run.header["notes"] = ["SMITH_JOHN.tif has levels that do not fit", f"{path} again"]
    run.header["complete"] = False
    run.header["incomplete"] = "1 of 230 patches failed, the first: SMITH_JOHN.tif: tile (0, 0)"
    run.header["prior_sources"] = {"saliency": "/home/doctor/SMITH_JOHN-saliency.png"}
    patches = pd.read_parquet(run.path / "patches.parquet")
    patches["error"] = "SMITH_JOHN.tif: tile (0, 0) of level 0 cannot be decoded"
    patches.to_parquet(run.path / "patches.parquet", index=False)
    run.header["truth"] = {"value": 3, "error": 0.5, "game": None, "source": "/x/SMITH_JOHN.csv"}
    return run


@pytest.mark.parametrize("name", writer_names())
def test_no_format_names_a_file(named, tmp_path, name):
    path = tmp_path / f"out{get_writer(name).suffixes[0]}"
    export(named, path, name, anonymous=True)
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        assert b"SMITH" not in content
        assert b"doctor" not in content


def test_an_export_names_its_image_by_default(named, tmp_path):
    found = json.loads(export(named, tmp_path / "a.geojson").read_text())
    assert "SMITH_JOHN.tif" in found["hrviewer"]["image"]["path"]
    found = json.loads(export(named, tmp_path / "b.geojson", anonymous=True).read_text())
    assert found["hrviewer"]["image"]["path"] == "image-f00d"


def test_the_image_of_an_anonymous_run_can_be_read_and_written(made, tmp_path):
    run = made(geo=True)
    with open_pyramid(run.header["image"]["path"]) as image:
        run.header["image"]["fingerprint"] = image.fingerprint
    anonymous = AnonymousRun(run)
    assert anonymous.header["image"]["path"] == f"image-{image.fingerprint[:8]}"
    with open_image(anonymous) as again:
        assert again.plane_shape == image.plane_shape
    export(run, tmp_path / "out.ome.zarr", anonymous=True, image=True)
    (written,) = (tmp_path / "out.ome.zarr" / "image").glob("zarr.json")
    assert f"image-{image.fingerprint[:8]}" in written.read_text()
    assert "a.tif" not in written.read_text()
