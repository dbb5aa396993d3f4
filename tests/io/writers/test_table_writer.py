"""Table export: all rows, equal values, correct units."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from made_runs import blobs, table

from hrviewer.errors import HrviewerError
from hrviewer.io import export
from hrviewer.io.annotations import write_annotations
from hrviewer.io.features import Feature
from hrviewer.io.ground_truth import read_ground_truth

COLUMNS = ["role", "order", "scale", "score", "value", "flops", "read_s", "bytes", "status"]


@pytest.fixture(params=["csv", "parquet"])
def written(request, tmp_path):
    def write(run, **options) -> pd.DataFrame:
        path = export(run, tmp_path / f"a.{request.param}", **options)
        if request.param == "csv":
            return pd.read_csv(path, keep_default_na=True)
        return pd.read_parquet(path)

    return write


@pytest.mark.parametrize("size", [None, (0.25, 0.5)])
def test_patch_rows_match_the_run(made, written, size):
    run = made(table(5000), pixel_size=size)
    found, rows = written(run), pd.read_parquet(run.path / "patches.parquet")
    assert len(found) == 5000
    for name in ("y", "x", "h", "w"):
        np.testing.assert_array_equal(found[f"{name}_px"], rows[name])
        if size is not None:
            micrometres = rows[name] * size[name in "xw"]
            np.testing.assert_allclose(found[f"{name}_um"], micrometres)
    assert ("y_um" in found) == (size is not None)
    for name in COLUMNS:
        mine, theirs = found[name].to_numpy(object), rows[name].to_numpy(object)
        assert ((mine == theirs) | (pd.isna(mine) & pd.isna(theirs))).all()


def test_a_run_without_patches_has_a_header(made, written):
    found = written(made(table(0)))
    assert len(found) == 0
    assert "y_px" in found


def test_parquet_has_units_and_provenance(made, tmp_path):
    schema = pyarrow.parquet.read_schema(export(made(), tmp_path / "a.parquet"))
    units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in schema}
    assert units["y_px"] == "level-0 px"
    assert units["w_um"] == "µm"
    assert units["flops"] == "FLOP"
    assert units["infer_s"] == "s"
    assert json.loads(schema.metadata[b"hrviewer"])["model"] == "toy"


def test_points_contours_and_annotations(made, written, tmp_path):
    run = made(output=blobs((60, 60), (20, 20, 8))[None], answer="area")
    write_annotations(run.path, [Feature("annotation", "odd", point=(1.5, 2.5),
                                        metadata={"author": "Ada", "time": "now"})])  # fmt: skip
    found = written(run, rows="contours")
    assert len(found) == 1
    assert found["area_px2"][0] == pytest.approx(np.pi * 64 * 16, rel=0.05)
    assert (found["y_px"][0], found["x_px"][0]) == pytest.approx((82, 82), abs=0.5)
    for old in tmp_path.glob("a.*"):
        if old.is_file():
            old.unlink()
    found = written(run, rows="annotations")
    assert found.loc[0, ["label", "author", "y_px"]].tolist() == ["odd", "Ada", 1.5]


def test_exported_points_can_be_used_as_ground_truth(made, tmp_path):
    plane = np.zeros((1, 30, 40), np.float32)
    plane[0, 3, 4], plane[0, 20, 30] = 1, 1
    path = export(made(output=plane), tmp_path / "a.csv", rows="points")
    ground_truth = read_ground_truth(path, "a.svs", (120, 160))
    np.testing.assert_array_equal(ground_truth.points, [[14, 18], [82, 122]])
    assert ground_truth.classes == ("cell",)


def test_unknown_rows_are_rejected(made, tmp_path):
    with pytest.raises(HrviewerError, match=r"^csv: rows: .*'patches'"):
        export(made(), tmp_path / "a.csv", rows="pixels")
