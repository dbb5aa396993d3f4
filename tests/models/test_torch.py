from __future__ import annotations

import importlib.metadata
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cards import card_fields
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hrviewer.errors import HrviewerError
from hrviewer.models import ModelCard, Network, open_bundle
from hrviewer.models.loaders.torch import TorchNetwork, fold_batch_norm
from hrviewer.models.registry import get_architecture, register_architecture


class Small(nn.Module):
    """Reach 3 + 2 · 2 at stride 2, with batch normalisation to fold."""

    def __init__(self, classes: int = 1, swap: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 7, padding=3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 2, stride=2),
            nn.Conv2d(8, classes, 3, padding=1),
        )
        self.swap = swap

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Attention(nn.Module):
    """Attention between all patches."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3 * 64, 3 * 16)
        self.out = nn.Linear(16, 2)

    def run_tokens(self, tokens: Tensor, boxes: Tensor, lengths: Any, merge: float) -> Tensor:
        q, k, v = self.qkv(tokens.flatten(1)).chunk(3, dim=-1)
        attended = nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return self.out(attended + boxes[:, :1])


class Uncounted(nn.Module):
    """Uses the values of its input, which do not exist on the meta device."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] * self.scale * float(x.mean() > -1)


class Broken(nn.Module):
    def __init__(self, how: str = "raise") -> None:
        super().__init__()
        self.how = how
        self.weight = nn.Parameter(torch.zeros(1))

    def run_tokens(self, tokens: Tensor, boxes: Tensor, lengths: Any, merge: float) -> Tensor:
        if self.how == "raise":
            raise ValueError("cannot")
        return torch.full((2, 1 if self.how == "short" else 2), float("nan"))


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    register_architecture("small", Small)
    register_architecture("attention", Attention)
    register_architecture("broken", Broken)
    register_architecture("uncounted", Uncounted)


@pytest.fixture
def keep(tmp_path: Path) -> Callable[..., Path]:
    def write(
        name: str, params: dict[str, Any], half: bool = False, norm: bool = True, **changes: Any
    ) -> Path:
        torch.manual_seed(0)
        module = get_architecture(name)(**params)
        for part in module.modules():
            if norm and isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_mean)
                nn.init.uniform_(part.running_var, 0.5, 2)
        weights = {
            k: v.half() if half and v.is_floating_point() else v
            for k, v in module.state_dict().items()
        }
        save_file(weights, tmp_path / "net.safetensors")
        changes = {"architecture": {"name": name, "params": params}} | changes
        (tmp_path / "net.json").write_text(json.dumps(card_fields(**changes)))
        return tmp_path / "net.safetensors"

    return write


def load(path: Path, **how: Any) -> Network:
    return open_bundle(path).load("main", **({"device": "cpu"} | how))


def small(**more: Any) -> dict[str, Any]:
    return {"input": {"multiple_of": 2}, "output": {"stride": 2} | more}


def test_outputs_equal_those_of_the_module(keep: Callable[..., Path]) -> None:
    net = load(keep("small", {}, **small()), threads=1)
    assert torch.get_num_threads() == 1
    assert net.backend == f"torch {torch.__version__}"
    assert (net.halo, net.accepts_any_size, net.max_batch) == (6, True, None)
    torch.manual_seed(0)
    module = Small().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    x = torch.rand(2, 3, 32, 40)
    with torch.inference_mode():
        want = module(x).numpy()
    np.testing.assert_allclose(net(x.numpy()), want, rtol=1e-4, atol=1e-5)
    macs = 32 * 40 * 8 * 3 * 49 + 16 * 20 * (8 * 8 * 4 + 8 * 9)
    assert net.flops(32, 40) == 2 * macs
    # The input, and twice the normalisation: from 8 channels to 8, in float32.
    assert net.bytes_per_pixel == pytest.approx(4 * 3 + 2 * 4 * (8 + 8), rel=0.02)


def test_batch_normalisation_is_folded_and_its_source_left_alone() -> None:
    module = Small().eval()
    kinds = [type(part).__name__ for part in fold_batch_norm(module).modules()]
    assert "BatchNorm2d" not in kinds
    assert isinstance(module.body[1], nn.BatchNorm2d)


def test_half_precision_is_converted(keep: Callable[..., Path]) -> None:
    net = load(keep("small", {}, half=True, **small(halo=8)))
    assert net.precision == "float32"
    assert all(p.dtype == torch.float32 for p in net._module.parameters())  # type: ignore[attr-defined]


def test_flops_of_token_networks_include_attention(keep: Callable[..., Path]) -> None:
    net = load(
        keep("attention", {}, input={"tile": 8}, output={"stride": 8, "classes": ["a", "b"]})
    )
    assert net.accepts_tokens
    tokens = np.random.default_rng(0).random((5, 3, 8, 8)).astype(np.float32)
    boxes = np.zeros((5, 4))
    assert net.run_tokens(tokens, boxes).shape == (5, 2, 1, 1)
    linear = 2 * 5 * (192 * 48 + 16 * 2)
    attention = 2 * 2 * 5 * 5 * 16
    assert net.token_flops(5) == net.token_flops(5) == linear + attention
    assert net.token_flops(1234) == 1234 * linear / 5 + attention * 1234**2 / 25
    plain = load(keep("small", {}, **small(halo=8)))
    for call in (lambda: plain.run_tokens(tokens, boxes), lambda: plain.token_flops(2)):
        with pytest.raises(HrviewerError, match="cannot take many patches"):
            call()


class Filled(nn.Module):
    """Pads its tokens to whole windows of 50, so that its FLOPs grow in steps."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12, 1))

    def run_tokens(
        self, tokens: Tensor, boxes: Tensor, lengths: Any = None, merge: float = 0
    ) -> Tensor:
        n = len(tokens)
        filled = nn.functional.pad(tokens.flatten(1), (0, 0, 0, -n % 50))
        return (filled @ self.weight)[:n]


def test_other_flops_than_a_parabola_are_counted_for_every_number_of_tokens() -> None:
    card = ModelCard.model_validate(
        {"name": "filled", "task": "density", "input": {"channels": "rgb", "tile": 2},
         "output": {"stride": 2, "classes": ["a"]}}
    )  # fmt: skip
    net = TorchNetwork(card, "none", Filled(), torch.device("cpu"))
    assert [net.token_flops(n) for n in (1, 50, 51)] == [1200, 1200, 2400]


@pytest.mark.parametrize(
    ("how", "message"), [("raise", "cannot"), ("short", r"\(2, 1, 1, 1\)"), ("nan", "not finite")]
)
def test_card_mismatches_of_token_networks_are_reported(
    keep: Callable[..., Path], how: str, message: str
) -> None:
    path = keep("broken", {"how": how}, output={"stride": 64, "classes": ["a", "b"]})
    with pytest.raises(HrviewerError, match=message):
        load(path)


def test_our_own_architecture_in_both_forms(keep: Callable[..., Path]) -> None:
    """One network, its halo measured as it was derived; and the same from its ONNX export."""
    shape = {"classes": 2, "widths": [24, 48, 80, 112], "blocks": [1, 2, 1]}
    path = keep(
        "density-unet",
        shape,
        norm=False,
        input={"tile": 128, "multiple_of": 16, "scale": 1 / 255},
        output={"stride": 4, "classes": ["a", "b"]},
    )
    net = load(path)
    module = get_architecture("density-unet")(**shape).eval()
    module.load_state_dict(load_file(path))
    assert net.halo == module.halo
    assert not net.accepts_any_size
    assert net(np.zeros((1, 3, 40, 64), np.float32)).shape == (1, 2, 10, 16)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, 64, 64),),
            path.with_suffix(".onnx"),
            input_names=["image"],
            output_names=["density"],
            dynamic_axes={k: {0: "n", 2: "h", 3: "w"} for k in ("image", "density")},
            dynamo=False,
        )
    other = load(path.with_suffix(".onnx"))
    assert (other.halo, other.accepts_any_size) == (net.halo, net.accepts_any_size)
    assert other.flops(128, 256) == net.flops(128, 256)
    x = np.random.default_rng(0).random((2, 3, 48, 64)).astype(np.float32)
    np.testing.assert_allclose(other(x), net(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": None}, "need the card's architecture"),
        ({"architecture": {"name": "smaller"}}, "no architecture is named 'smaller'.*density-unet"),
        ({"architecture": {"name": "small", "params": {"size": 3}}}, "params do not fit small"),
        ({"architecture": {"name": "small", "params": {"classes": 2}}}, "does not fit"),
        ({"output": {"stride": 4}}, "output.stride"),
        ({"input": {"channels": "gray"}}, "inference on an input of 1 × 1 × 64 × 64 fails"),
        ({"sha256": "1" * 64}, "is not the file"),
    ],
)
def test_card_mismatches_are_reported(
    keep: Callable[..., Path], changes: dict[str, Any], message: str
) -> None:
    path = keep("small", {}, **(small() | changes))
    with pytest.raises(HrviewerError, match=message) as raised:
        load(path)
    assert "\n" not in str(raised.value)


def test_a_cost_that_cannot_be_counted(keep: Callable[..., Path]) -> None:
    with pytest.raises(HrviewerError, match="the FLOPs of Uncounted cannot be counted"):
        load(keep("uncounted", {}))


def test_a_truncated_file(keep: Callable[..., Path]) -> None:
    path = keep("small", {}, **small())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HrviewerError, match="not a safetensors file, or is truncated"):
        load(path)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cpu:7", "cuda:x"])
def test_a_device_that_is_not_there(keep: Callable[..., Path], device: str) -> None:
    with pytest.raises(HrviewerError, match=f"no device '{device}' here: choose auto or cpu"):
        load(keep("small", {}, **small()), device=device)


def test_memory_that_runs_out(keep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    net = load(keep("small", {}, **small(halo=8)))
    one = np.zeros((1, 3, 8, 8), np.float32)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    ):

        def full(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(net, "_module", full)
        with pytest.raises(MemoryError):
            net(one)
    monkeypatch.setattr(net, "_module", lambda x: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        net(one)


class Entry(importlib.metadata.EntryPoint):
    """A plug-in's architecture, installed for a test."""

    def load(self) -> Any:
        if self.value == "broken":
            raise ImportError("no module")
        return Small


def test_a_plug_in_s_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "hrviewer.architectures"
    entries = importlib.metadata.EntryPoints(
        [Entry("plugged", "fine", group), Entry("torn", "broken", group)]
    )
    monkeypatch.setattr("hrviewer.models.registry.entry_points", lambda group: entries)
    assert get_architecture("plugged") is Small
    with pytest.raises(HrviewerError, match=r"torn \(broken\) cannot be imported"):
        get_architecture("torn")
