"""Backbones of timm, with random weights of a local file."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cards import card_fields
from safetensors.torch import save_file

import hrviewer
from hrviewer.errors import HrviewerError
from hrviewer.models import open_bundle
from hrviewer.models.backbones import import_timm

if find_spec("timm") is None:
    pytest.skip("needs timm", allow_module_level=True)
timm = import_timm()


@pytest.fixture(autouse=True)
def one_backend(monkeypatch):
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return made.eval()


@pytest.fixture
def write(model, tmp_path):
    def save(**changes: Any) -> Path:
        params = changes.pop("params", {})
        path = tmp_path / "net.safetensors"
        save_file(model.state_dict(), path)
        about = {"name": "timm", "params": {"model": "test_resnet", **params}}
        output = {"stride": 64, "halo": 0, "classes": [], "width": model.num_features}
        fields = card_fields(
            **{
                "task": "embedding",
                "architecture": about,
                "input": {"tile": 64, "fixed": True},
                "output": output,
            }
            | changes
        )
        path.with_suffix(".json").write_text(json.dumps(fields))
        return path

    return save


def test_an_embedding_of_tiles_encodes(model, write, tmp_path):
    bundle = open_bundle(write())
    assert set(bundle.roles) == {"main", "encoder"}
    image = np.random.default_rng(0).integers(0, 255, (128, 192, 3)).astype(np.uint8)
    run = hrviewer.run(image, bundle, "compression", cache="off", out=tmp_path / "a.run.zarr")
    embeddings, cell = run.map("embeddings")
    assert (embeddings.shape, cell) == ((model.num_features, 2, 3), 64.0)
    tile = torch.from_numpy(image[64:, 64:128]).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        wanted = model.forward_head(model.forward_features(tile), pre_logits=True)[0]
    np.testing.assert_allclose(embeddings[:, 1, 1], wanted, rtol=2e-3, atol=2e-3)


def test_a_stage_gives_a_map(model, write):
    with torch.inference_mode():
        x = torch.rand(1, 3, 96, 64)
        wanted = model.forward_intermediates(x, indices=[1], intermediates_only=True)[0]
    stride = 96 // wanted.shape[2]
    net = open_bundle(
        write(
            params={"stage": 1},
            input={"tile": 64, "multiple_of": 32},
            output={"stride": stride, "classes": [], "width": wanted.shape[1]},
        )
    ).load("encoder", "cpu")
    np.testing.assert_allclose(net(x.numpy()), wanted, rtol=1e-4, atol=1e-5)
    assert net.flops(64, 64) > 0


def test_a_classifier_keeps_its_last_layer(model, write):
    names = [f"class {i}" for i in range(7)]
    net = open_bundle(
        write(
            task="classification",
            params={"num_classes": 7},
            output={"stride": 64, "halo": 0, "classes": names, "activation": "softmax"},
        )
    ).load("main", "cpu")
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        shares = model(x).softmax(1)
    np.testing.assert_allclose(net(x.numpy())[..., 0, 0], shares, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"model": "nobody"}, "has no model 'nobody'"),
        ({"model": "hf-hub:timm/resnet18"}, "has no model"),
        ({"pretrained": True}, "download weights"),
        ({"checkpoint_path": "x.pth"}, "download weights"),
        ({"colour": 3}, "do not fit timm"),
        ({"model": "test_vit"}, "does not fit the architecture timm"),
    ],
)
def test_nothing_is_downloaded_and_errors_are_reported(write, params, message):
    with pytest.raises(HrviewerError, match=message):
        open_bundle(write(params=params)).load("encoder", "cpu")
