"""Devices on which a network does not run: the CPU, with a note, or one line about the device."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from model_cards import card_fields
from onnx import helper
from safetensors.torch import save_file
from torch import nn

from hrviewer.errors import DeviceMemoryError, ModelError
from hrviewer.models import open_bundle
from hrviewer.models.loaders import torch as torch_loader
from hrviewer.models.registry import register_architecture


class Doubling(nn.Module):
    """Twice the first channel."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :1] * self.factor


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of torch, on a machine whose GPU stores tensors but runs nothing."""
    register_architecture("doubling", Doubling)
    save_file({"factor": torch.tensor(2.0)}, tmp_path / "net.safetensors")
    card = card_fields(architecture={"name": "doubling"}, output={"halo": 0})
    (tmp_path / "net.json").write_text(json.dumps(card))
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    monkeypatch.setattr(
        torch_loader,
        "resolve_device",
        lambda name: torch.device("cpu" if name == "cpu" else "meta"),
    )
    return tmp_path / "net.safetensors"


def test_a_network_that_the_gpu_cannot_run_runs_on_the_cpu_with_a_note(weights: Path) -> None:
    network = open_bundle(weights).load()
    assert network.device == "cpu"
    (note,) = network.notes
    assert note.startswith("net runs on the CPU, since it does not on the GPU: ")
    np.testing.assert_array_equal(network(np.ones((1, 3, 64, 64), np.float32)), 2)


def test_errors_of_cuda_do_not_blame_the_card(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_loader, "resolve_device", lambda name: torch.device("cpu"))

    def fail(self: Any, batch: Any) -> Any:
        self.device = "cuda:0"
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch_loader.TorchNetwork, "_run", fail)
    with pytest.raises(ModelError, match=r"does not run on cuda:0 .*choose --device cpu") as caught:
        open_bundle(weights).load("main", "cpu")
    assert "card" not in str(caught.value)


def test_memory_that_does_not_suffice_for_loading(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(self: Any, batch: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(torch_loader, "resolve_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(Doubling, "forward", fill)
    with pytest.raises(DeviceMemoryError, match="net does not fit into the memory"):
        open_bundle(weights).load("main", "cpu")


@pytest.fixture
def without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime with CUDA, whose libraries are missing: sessions open with the CPU only."""
    session = onnxruntime.InferenceSession
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None, raising=False)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: session(
            model, options, providers=["CPUExecutionProvider"]
        ),
    )


def test_an_onnx_model_reports_the_provider_that_runs_it(
    save: Callable[..., Path], without_cuda: None
) -> None:
    sum_node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1], keepdims=1)
    bundle = open_bundle(save([sum_node], output={"halo": 0}))
    network = bundle.load()
    assert network.device == "cpu"
    assert network.notes == ("net runs on the CPU: onnxruntime cannot load CUDA or cuDNN here",)
    with pytest.raises(ModelError, match="cannot load CUDA or cuDNN here: install them, or choose"):
        bundle.load("main", "cuda")
