"""Predictions of each class in the table of patches, and in its exports."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from toys import Bright, ToyBundle

import hrviewer
from hrviewer.engine import PatchRow
from hrviewer.runs import Run
from hrviewer.runs.patch_table import patch_frame, patch_row

CLASSES = ["dark", "bright"]


class Classes(Bright):
    """Share of dark and bright pixels, per tile or per pixel."""

    def __init__(self, task: str) -> None:
        activation = "softmax" if task == "classification" else "none"
        super().__init__("classes", task=task, classes=CLASSES, activation=activation)

    def predict(self, batch):
        bright = Bright.predict(self, batch) / 16
        both = np.concatenate([1 - bright, bright], axis=1)
        one = self.card.task == "classification"
        return both.mean((2, 3), keepdims=True) if one else both


@pytest.fixture(scope="module", params=["classification", "segmentation"])
def run(request, tmp_path_factory) -> Run:
    image = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    image[:, :64] //= 2
    out = tmp_path_factory.mktemp("table") / "x.run.zarr"
    bundle = ToyBundle(main=Classes(request.param))
    return hrviewer.run(image, bundle, "patches", tile=64, out=out, progress=False, cache="off")


def columns(run: Run) -> list[str]:
    prefix = "share" if run.estimate["kind"] == "area" else "prob"
    return [f"{prefix}_{name}" for name in CLASSES]


def test_a_patch_has_the_prediction_of_each_class(run):
    table = run.patches
    found = table[columns(run)].to_numpy()
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert found.std(axis=0).min() > 0.01
    # Together they are the estimate.
    areas = (table.h * table.w).to_numpy()
    shares = run.estimate.get("fraction", run.estimate["per_class"])
    np.testing.assert_allclose(areas @ found / areas.sum(), [*shares.values()], rtol=1e-6)
    if run.estimate["kind"] == "probabilities":
        np.testing.assert_allclose(table["value"], found.max(axis=1))


def test_exports_have_them(run, tmp_path):
    table = run.patches
    hrviewer.export(run, tmp_path / "x.csv")
    hrviewer.export(run, tmp_path / "x.geojson")
    rows = pd.read_csv(tmp_path / "x.csv")
    features = json.loads((tmp_path / "x.geojson").read_text())["features"]
    assert len(features) == len(table)
    for name in columns(run):
        np.testing.assert_allclose(rows[name], table[name])
        measured = [feature["properties"]["measurements"][name] for feature in features]
        np.testing.assert_allclose(measured, table[name])
    likely = [feature["properties"]["metadata"]["class"] for feature in features]
    assert likely == [CLASSES[i] for i in table[columns(run)].to_numpy().argmax(axis=1)]


def test_rows_are_read_as_they_were_written():
    row = PatchRow(0, 0, 0, 8, 8, 1.0, "main", 0, 0.5, 1.0, *[0.0] * 7, "done", "", (16.0, 48.0))
    failed = replace(row, id=1, value=math.nan, values=(math.nan, math.nan), status="failed")
    scout = replace(row, id=2, role="scout", values=())
    table = patch_frame([row, failed, scout], Classes("segmentation").card)
    assert table.loc[0, ["share_dark", "share_bright"]].tolist() == [0.25, 0.75]
    assert table.loc[1:, ["share_dark", "share_bright"]].isna().all(axis=None)
    first, *_ = table.to_dict("records")
    assert patch_row({str(name): value for name, value in first.items()}) == row
