"""`fit`: a head for what was encoded."""

from __future__ import annotations

import json

import numpy as np
import pytest
from skimage.io import imsave

from .calling import IMAGE, call, error_of


def test_head_is_fitted_to_the_embeddings_of_a_run(image, toys, tmp_path):
    pytest.importorskip("sklearn")
    run, table = tmp_path / "a.run.zarr", tmp_path / "truth.csv"
    call("run", image, "--model", "toy", "--strategy", "compression", "--out", run)
    # As many as it is bright, more or less.
    red = IMAGE[..., 0].reshape(75, 4, 100, 4).sum((1, 3)).astype(int) // 1000
    points = 4 * np.argwhere(red).repeat(red[red > 0], axis=0)
    np.savetxt(table, points, "%d", ",", header="y,x", comments="")
    output = call("fit", run, "--truth", table, "--out", tmp_path / "head").stdout
    assert f"{len(points):,} objects in 7,500 cells" in output
    assert f"--model {tmp_path / 'head'}+MODEL" in output
    result = json.loads(call("fit", run, "--truth", table, "-o", tmp_path / "b", "--json").stdout)
    assert result["correlation"] > 0.9
    assert "exists" in error_of("fit", run, "--truth", table, "--out", tmp_path / "head")
    table.write_text("y,x,class\n30,30,a\n200,40,b\n30,200,a\n220,220,b\n")
    kinds = tmp_path / "kinds"
    output = call("fit", run, "--truth", table, "--task", "segmentation", "-o", kinds).stdout
    assert "4 cells: 2 a, 2 b" in output
    assert "error rate" in output


def test_head_is_fitted_to_one_label_per_image(image, toys, tmp_path):
    pytest.importorskip("sklearn")
    runs = []
    for i in range(6):
        file = tmp_path / f"{'day' if i % 2 else 'night'} {i}.png"
        imsave(file, (IMAGE[: 96 + i, :128] // (1 if i % 2 else 8)), check_contrast=False)
        runs.append(tmp_path / f"{i}.run.zarr")
        call("run", file, "--model", "toy", "--strategy", "compression", "--out", runs[-1])
    table, head = tmp_path / "labels.csv", tmp_path / "head"
    rows = [
        f"{'day' if i % 2 else 'night'} {i}.png,{'day' if i % 2 else 'night'}" for i in range(6)
    ]
    table.write_text("\n".join(["image,label", *rows]))
    command = ("fit", *runs, "--truth", table, "--task", "classification", "-o", head)
    assert "6 images, " in call(*command).stdout
    card = json.loads((head / "bundle.json").read_text())["roles"]["head"]["card"]
    assert card["output"]["classes"] == ["day", "night"]
    assert card["metrics"]["error"] <= 0.5
    table.write_text("image,label\nday 1.png,day\n")
    assert "night 0.png has no label" in error_of(*command[:-1], tmp_path / "b")
    assert "region" in error_of(*command[:-1], tmp_path / "b", "--region", "0,0,64,64")
    assert "name one run" in error_of("fit", *runs, "--truth", table, "-o", tmp_path / "b")
