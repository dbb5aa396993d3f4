"""The benchmark of `hrviewer info`: what it lists, and what it measures of one file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.info import find_images


def test_a_zarr_counts_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.zarr" / "0").mkdir(parents=True)
    (tmp_path / "a.zarr" / "0" / "0.0").write_bytes(b"x")
    (tmp_path / "slide").mkdir()
    (tmp_path / "slide" / "1.dcm").write_bytes(b"x")
    names = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert names == ["a.zarr", "slide", os.path.join("slide", "1.dcm")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks a process for each file")
def test_a_picture_a_text_and_a_cut_file(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "b.txt").write_text("text\n")
    (tmp_path / "c.tif").write_bytes(b"II*\0\x08")
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.info", str(tmp_path), "--table"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    figures = json.loads(found.stdout)
    assert [entry["status"] for entry in figures["table"]] == [0, 1, 1]
    assert figures["opened"] == 1
    assert "is a text file" in figures["table"][1]["messages"][0]
    assert all(entry["bytes"] > 1e7 for entry in figures["table"])
    assert all(len(entry["messages"]) == entry["status"] for entry in figures["table"])
