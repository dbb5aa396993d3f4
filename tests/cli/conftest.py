"""An image and a run to call commands with."""

from __future__ import annotations

from pathlib import Path

import pytest
import tifffile
from toys import toy_bundle

from .calling import IMAGE, RUN, call


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, IMAGE, tile=(64, 64), photometric="rgb")
    return path


@pytest.fixture
def toys(monkeypatch):
    """Make every model bundle the toy one, whose predictions are known."""
    monkeypatch.setattr("hrviewer.runs.model.open_bundle", lambda *_: toy_bundle())


@pytest.fixture
def run(image, toys, tmp_path) -> Path:
    """Return the folder of a finished run."""
    out = tmp_path / "done.run.zarr"
    call("run", image, *RUN, "--out", out)
    return out
