"""The throughput benchmark on a small generated image."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks import throughput
from hrviewer.models.registry import register_architecture

KEYS = {"bare_mp_s", "end_to_end_mp_s", "useful_mp_s", "ratio", "ratio_plain_torch", "backend"}


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (200, 270, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.fixture
def card() -> dict[str, object]:
    return {
        "name": "mean",
        "task": "density",
        "input": {"channels": "rgb", "scale": 1 / 255, "mean": [0.0], "std": [1.0], "tile": 64},
        "output": {"stride": 1, "halo": 1, "classes": ["thing"]},
    }


def test_a_torch_network(
    image: Path, card: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register_architecture("mean", Mean)
    threads = torch.get_num_threads()
    save_file(Mean().state_dict(), tmp_path / "net.safetensors")
    card["architecture"] = {"name": "mean", "params": {}}
    (tmp_path / "net.json").write_text(json.dumps(card))
    command = [str(image), "--model", str(tmp_path / "net.safetensors")]
    region = ["--region", "0,0,128,192", "--rounds", "1"]
    others = ["bfloat16", *(["int8"] if find_spec("onnxruntime") else [])]
    throughput.main([*command, *region, "--precisions", *others])
    found = json.loads(capsys.readouterr().out)
    assert set(found) >= KEYS
    assert all(found[key] > 0 for key in KEYS - {"backend"})
    assert set(found["stages"]) == {"read", "prepare", "infer", "post"}
    assert found["bare"]["backend"].startswith("torch ")
    assert found["patches"] == 6
    assert list(found["precisions"]) == others
    for name, beside in found["precisions"].items():
        assert beside["precision"] == name
        assert beside["over_float32"] > 0
        assert 0 < beside["rms"] < 0.1
    assert found["useful_mp_s"] < found["end_to_end_mp_s"]
    torch.set_num_threads(threads)


def test_a_network_in_onnx(image: Path, card: dict[str, object], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper, save_model

    shapes = [("x", ["n", 3, "h", "w"]), ("y", ["n", 1, "h", "w"])]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, s) for name, s in shapes)
    weight = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])], "g", [x], [y], [weight]
    )
    opset = helper.make_opsetid("", 17)
    save_model(helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "net.onnx")
    (tmp_path / "net.json").write_text(json.dumps(card))
    found = throughput.measure(image, tmp_path / "net.onnx", rounds=1, batches=(1, 2))
    assert found["bare"]["backend"].startswith("onnxruntime ")
    assert found["ratio_plain_torch"] is None
    assert found["ratio"] > 0
