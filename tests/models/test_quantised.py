"""Networks in int8: error bounds, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cards import card_fields
from safetensors.torch import save_file
from torch import Tensor, nn

from hrviewer.errors import HrviewerError
from hrviewer.models import open_bundle
from hrviewer.models.loaders import quantised as loader
from hrviewer.models.loaders.onnx_export import export_onnx
from hrviewer.models.registry import register_architecture

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
SAMPLES = [RNG.random((3, 64, 64), np.float32) for _ in range(3)]


class Layers(nn.Module):
    """Two products of single pixels; the first stays in float32."""

    def __init__(self, last: int = 1) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, last, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def written(folder: Path, **changes: Any) -> Path:
    register_architecture("layers", Layers)
    torch.manual_seed(0)
    save_file(Layers().state_dict(), folder / "net.safetensors")
    fields = card_fields(architecture={"name": "layers", "params": {}}, **changes)
    (folder / "net.json").write_text(json.dumps(fields))
    return folder / "net.safetensors"


@pytest.fixture(params=["safetensors", "onnx"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = written(tmp_path)
    if request.param == "safetensors":
        return path
    graph = export_onnx(open_bundle(path).load(device="cpu", precision="bfloat16"))  # type: ignore[arg-type]
    (tmp_path / "graph.onnx").write_bytes(graph)
    (tmp_path / "graph.json").write_text(json.dumps(card_fields()))
    return tmp_path / "graph.onnx"


def test_the_error_of_int8_is_bounded_by_rounding(file: Path) -> None:
    bundle = open_bundle(file)
    exact, rough = (
        bundle.load(device="cpu"),
        bundle.load(device="cpu", precision="int8", samples=SAMPLES),
    )
    assert (rough.precision, rough.device) == ("int8", "cpu")
    assert rough.flops(64, 64) == exact.flops(64, 64) == 2 * 64 * 64 * (3 * 8 + 8)
    torch.manual_seed(0)
    net = Layers()
    batch = np.stack(SAMPLES)
    with torch.inference_mode():
        between = torch.relu(net.first(torch.from_numpy(batch))).numpy()
    weights = net.second.weight.detach().numpy().ravel()
    one, other = exact(batch), rough(batch)
    # Half a step of what goes in, of each weight and of what comes out.
    into, of = between.max() / 255 / 2, np.abs(weights).max() / 127 / 2
    out = (max(one.max(), 0) - min(one.min(), 0)) / 255 / 2
    worst = np.abs(weights).sum() * into + (between.sum(1).max() + 8 * into) * of + out
    assert 0 < np.abs(one - other).max() <= 1.05 * worst


def test_another_calibration_is_another_network(file: Path) -> None:
    bundle = open_bundle(file)
    one, same, other = (
        bundle.load(device="cpu", precision="int8", samples=samples)
        for samples in (SAMPLES, SAMPLES, [2 * x for x in SAMPLES])
    )
    assert one.digest == same.digest
    assert len({one.digest, other.digest, bundle.load(device="cpu").digest}) == 3


def test_inputs_that_must_be_padded_calibrate_too(tmp_path: Path) -> None:
    path = written(tmp_path, input={"multiple_of": 32})
    uneven = [RNG.random((3, 40, 64), np.float32)]
    network = open_bundle(path).load(device="cpu", precision="int8", samples=uneven)
    assert network(uneven[0][None]).shape == (1, 1, 40, 64)


def test_too_large_errors_are_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "INT8_TOLERANCE", 1e-6)
    with pytest.raises(HrviewerError, match="of its output's standard deviation"):
        open_bundle(file).load(device="cpu", precision="int8", samples=SAMPLES)


def test_a_missing_image_or_onnxruntime_is_reported(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HrviewerError, match="calibrated on an image"):
        open_bundle(file).load(device="cpu", precision="int8")
    monkeypatch.setitem(sys.modules, "onnxruntime.quantization", None)
    with pytest.raises(HrviewerError, match=r"hrviewer\[onnx\]"):
        open_bundle(file).load(device="cpu", precision="int8", samples=SAMPLES)


def test_embeddings_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, task="embedding", output={"stride": 1, "classes": []})
    with pytest.raises(HrviewerError, match="embeddings"):
        open_bundle(path).load(device="cpu", precision="int8", samples=SAMPLES)


@pytest.mark.parametrize("device", ["cuda:0", "mps"])
def test_another_device_is_refused(device: str, tmp_path: Path) -> None:
    network = open_bundle(written(tmp_path)).load(device="cpu")
    network.device = device
    with pytest.raises(HrviewerError, match=f"not on {device}"):
        loader._check_supported(network)
