"""The choice of the back end: the fastest that agrees, cached."""

from __future__ import annotations

import builtins
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_cards import card_fields
from safetensors.torch import save_file
from torch import Tensor, nn

from hrviewer.errors import HrviewerError
from hrviewer.models import Network, open_bundle
from hrviewer.models.card import ModelCard
from hrviewer.models.loaders import backend
from hrviewer.models.network import Floats
from hrviewer.models.registry import register_architecture
from hrviewer.paths import cache_folder


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Fake(Network):
    """Predicts `factor` times the reference, after `seconds`."""

    def __init__(self, seconds: float, factor: float = 1.0, fails: bool = False) -> None:
        super().__init__(ModelCard.from_dict(card_fields(), "a test"), "weights", "fake", "cpu")
        self.seconds, self.factor, self.fails = seconds, factor, fails
        self.runs, self.folded = 0, True

    def _run(self, batch: Floats) -> Sequence[Floats]:
        self.runs += 1
        if self.fails:
            raise RuntimeError("cannot")
        time.sleep(self.seconds)
        return [self.factor * batch[:, :1]]

    def _count(self, h: int, w: int) -> float:
        return 1.0

    def reference(self, batch: Floats) -> Sequence[Floats]:
        return [batch[:, :1]]

    def select_module(self, *, folded: bool = True) -> None:
        self.folded = folded


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_choices", {})
    monkeypatch.delenv("HRVIEWER_BACKEND", raising=False)
    register_architecture("doubling", Doubling)


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network | None], list[int]]:
    """Replace the export's result; returns a list that grows with each export."""

    def give(other: Network | None) -> list[int]:
        asked: list[int] = []

        def exported(_: Network, name: str, __: int | None) -> Network | None:
            if name != "onnxruntime":
                return None
            asked.append(1)
            return other

        monkeypatch.setattr(backend, "_try_export", exported)
        return asked

    return give


def select(loaded: Fake) -> Network:
    return backend.select_backend(loaded)  # type: ignore[arg-type]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(Doubling().state_dict(), tmp_path / "net.safetensors")
    fields = card_fields(architecture={"name": "doubling", "params": {}})
    (tmp_path / "net.json").write_text(json.dumps(fields))
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize(
    ("seconds", "factor", "fails", "taken"),
    [
        (0.0, 1.0, False, True),
        (0.0, 1.0 + 2e-5, False, True),
        (0.0, 1.0 + 1e-3, False, False),  # faster, but its predictions differ
        (0.0, float("nan"), False, False),
        (0.0, 1.0, True, False),
        (0.05, 1.0, False, False),  # agrees, but is slower
    ],
)
def test_the_fastest_that_agrees_runs(
    offer: Callable[[Network | None], list[int]],
    seconds: float,
    factor: float,
    fails: bool,
    taken: bool,
) -> None:
    loaded, other = Fake(0.02), Fake(seconds, factor, fails)
    offer(other)
    assert select(loaded) is (other if taken else loaded)


def test_a_folding_that_changes_outputs_is_undone_each_time(
    offer: Callable[[Network | None], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(None)
    for again in range(2):
        loaded = Fake(0.0, factor=1.01)
        assert select(loaded) is loaded
        assert not loaded.folded
        assert (loaded.runs == 0) == bool(again)
        monkeypatch.setattr(backend, "_choices", {})


@pytest.mark.parametrize("quick", [True, False])
def test_a_choice_is_cached_on_disk(
    offer: Callable[[Network | None], list[int]], monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    offer(Fake(0.0 if quick else 0.05))
    first = select(Fake(0.02))
    monkeypatch.setattr(backend, "_choices", {})
    monkeypatch.setattr(backend, "fastest_backend", lambda *_: pytest.fail("measured again"))
    other = Fake(1.0 if quick else 0.0)
    asked = offer(other)
    loaded = Fake(0.0)
    assert (select(loaded) is other) == quick == (first.seconds == 0.0)
    assert len(asked) == quick
    # Another number of threads is another question.
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        backend.select_backend(Fake(0.0), threads=1)  # type: ignore[arg-type]


def test_a_cached_choice_that_no_longer_agrees_does_not_run(
    offer: Callable[[Network | None], list[int]],
) -> None:
    offer(Fake(0.0))
    assert select(Fake(0.02)).seconds == 0.0
    offer(Fake(0.0, factor=2.0))
    loaded = Fake(0.02)
    assert select(loaded) is loaded


@pytest.mark.parametrize("text", ["", "[]", "{", '{"KEY": "magic"}', '{"KEY": ["torch"]}'])
def test_a_damaged_cache_is_ignored(text: str, tmp_path: Path) -> None:
    path = cache_folder() / "backends.json"
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("KEY", "k"))
    assert backend.load_choice("k") is None
    backend.store_choice("k", "onnxruntime")
    assert json.loads(path.read_text())["values"] == {"k": "onnxruntime"}
    assert backend.load_choice("k") == "onnxruntime"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "file"))
    backend.store_choice("k", "onnxruntime")
    assert backend.load_choice("k") == "onnxruntime"


def test_the_environment_chooses(
    offer: Callable[[Network | None], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, other = Fake(0.0), Fake(0.05)
    offer(other)
    monkeypatch.setenv("HRVIEWER_BACKEND", "onnxruntime")
    assert select(loaded) is other
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    assert select(loaded) is loaded
    monkeypatch.setenv("HRVIEWER_BACKEND", "magic")
    with pytest.raises(HrviewerError, match="choose one of auto, torch, onnxruntime"):
        select(loaded)
    assert not (cache_folder() / "backends.json").exists()


def test_without_anything_else_torch_runs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith(("onnxruntime", "openvino")):
            raise ImportError(name)
        return real(name, *rest)

    for name in ("onnxruntime", "openvino"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    assert open_bundle(file).load("main", "cpu").backend == f"torch {torch.__version__}"


def test_networks_that_cannot_be_exported_run_in_torch(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("unsupported")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    assert open_bundle(file).load("main", "cpu").backend.startswith("torch ")


@pytest.mark.parametrize("runs", ["onnxruntime", "openvino"])
def test_exported_networks_have_equal_outputs_and_flops(
    runs: str, file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(runs)
    monkeypatch.setenv("HRVIEWER_BACKEND", runs)
    other = open_bundle(file).load("main", "cpu")
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    loaded = open_bundle(file).load("main", "cpu")
    assert other.backend.startswith(f"{runs} ")
    assert other.backend.endswith(f"exported by torch {torch.__version__}")
    for name in (
        "digest",
        "device",
        "precision",
        "stride",
        "halo",
        "period",
        "accepts_any_size",
        "max_batch",
    ):
        assert getattr(other, name) == getattr(loaded, name)
    assert other.flops(33, 40) == loaded.flops(33, 40) > 0
    assert other.bytes_per_pixel == loaded.bytes_per_pixel > 0
    x = np.random.default_rng(0).random((3, 3, 33, 40), np.float32)
    assert backend.outputs_agree([loaded(x)], [other(x)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_the_nuclei_model_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    histology = pytest.importorskip("hrviewer_histology")
    runtimes = [name for name in ("onnxruntime", "openvino") if find_spec(name)]
    if not runtimes:
        pytest.skip("neither onnxruntime nor openvino is installed")
    outputs = []
    x = np.random.default_rng(0).standard_normal((1, 3, 304, 256)).astype(np.float32)
    for name in ("torch", *runtimes):
        monkeypatch.setenv("HRVIEWER_BACKEND", name)
        network = open_bundle(histology.nuclei()).load("main", "cpu")
        assert network.backend.startswith(name)
        outputs.append([network(x)])
    assert all(backend.outputs_agree(outputs[0], other) for other in outputs[1:])


def test_bfloat16_is_close_and_another_precision(file: Path) -> None:
    bundle = open_bundle(file)
    exact, rough = bundle.load(device="cpu"), bundle.load(device="cpu", precision="bfloat16")
    assert (exact.precision, rough.precision) == ("float32", "bfloat16")
    assert exact.digest == rough.digest
    batch = np.random.default_rng(0).random((1, 3, 64, 64), np.float32)
    one, other = exact(batch), rough(batch)
    assert one.dtype == other.dtype == np.float32
    # Eight bits of a number: each product is off by up to 2⁻⁸, and so is what is stored.
    np.testing.assert_allclose(one, other, atol=2**-6 * float(np.abs(one).max()))
    assert np.abs(one - other).max() > 0


def test_too_large_errors_of_bfloat16_are_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "BFLOAT16_TOLERANCE", 1e-6)
    with pytest.raises(HrviewerError, match="float32"):
        open_bundle(file).load(device="cpu", precision="bfloat16")


def test_precisions_are_known(file: Path) -> None:
    with pytest.raises(HrviewerError, match="one of float32, bfloat16, int8"):
        open_bundle(file).load(precision="int4")
