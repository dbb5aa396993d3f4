"""The widened model: the same outputs at several times the cost."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import widened
from hrviewer.models.architectures import DensityUNet

PARAMS = {"widths": [4, 6, 8, 10], "blocks": [1, 1, 1]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    network = DensityUNet(**PARAMS).eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    made = tmp_path / "narrow"
    made.mkdir()
    save_file(network.state_dict(), made / "main.safetensors")
    digest = hashlib.sha256((made / "main.safetensors").read_bytes()).hexdigest()
    card = {
        "name": "density",
        "task": "density",
        "input": {"channels": "rgb", "scale": 1 / 255, "tile": 64, "multiple_of": 16},
        "output": {"stride": 4, "halo": 64, "classes": ["thing"]},
        "architecture": {"name": "density-unet", "params": PARAMS},
        "sha256": digest,
    }
    roles = {"main": {"weights": "main.safetensors", "card": card}}
    (made / "bundle.json").write_text(json.dumps({"name": "narrow", "roles": roles}))
    return made


def test_it_predicts_the_same_at_nine_times_the_cost(folder: Path, tmp_path: Path) -> None:
    widened.write_widened(folder, tmp_path / "wide", 3)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    found = widened.compare_outputs(folder, tmp_path / "wide", pixels)
    assert 0 <= found["largest_difference"] < 1e-5
    assert 6 < found["kflop_per_pixel_widened"] / found["kflop_per_pixel"] < 9


def test_other_architectures_are_refused(folder: Path, tmp_path: Path) -> None:
    index = folder / "bundle.json"
    index.write_text(index.read_text().replace("density-unet", "density-scanner"))
    with pytest.raises(SystemExit, match="not a density-unet"):
        widened.write_widened(folder, tmp_path / "wide", 3)
