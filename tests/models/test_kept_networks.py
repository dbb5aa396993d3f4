"""Networks that a second process finds in the cache: the same, without torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hrviewer.models import ModelCard
from hrviewer.models.architectures import DensityScanner
from hrviewer.models.loaders import kept_networks, load, safetensors
from hrviewer.models.network import Network
from hrviewer.models.registry import register_architecture
from hrviewer.paths import cache_folder

MEASURED = "digest", "backend", "halo", "halo_note", "period", "accepts_any_size", "max_batch"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HRVIEWER_BACKEND", "onnxruntime")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_file(DensityScanner().state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def card(**fields: object) -> ModelCard:
    return ModelCard.from_dict(
        {
            "name": "scanner",
            "task": "density",
            "architecture": {"name": "density-scanner"},
            "input": {"channels": "rgb", "scale": 1 / 255, "tile": 128, "multiple_of": 8},
            "output": {"stride": 8, "halo": 24, "margin": 24, "classes": ["thing"]},
        }
        | fields,
        "a card",
    )


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Call ``.undo()`` to have it again."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("torch", "onnx_export", "backend"):
            patched.setitem(sys.modules, f"hrviewer.models.loaders.{name}", None)
        patched.setattr(safetensors, "validate_network", lambda network: pytest.fail("probed"))
        yield patched


def same(one: Network, other: Network) -> bool:
    x = np.random.default_rng(0).random((1, 3, 120, 96), np.float32)
    assert [getattr(one, name) for name in MEASURED] == [getattr(other, name) for name in MEASURED]
    return np.array_equal(one(x), other(x)) and one.flops(120, 96) == other.flops(120, 96)


def test_the_second_process_needs_no_torch(weights: Path, request) -> None:
    first = load(weights, card(), "cpu")
    assert first.flops(120, 96) == first.flops(120, 96) > 0
    assert first.bytes_per_pixel > 0
    request.getfixturevalue("no_torch")
    second = load(weights, card(), "cpu")
    assert same(first, second)
    assert second.bytes_per_pixel == first.bytes_per_pixel


def test_what_was_not_counted_is_counted_by_torch(weights: Path) -> None:
    load(weights, card(), "cpu")
    second = load(weights, card(), "cpu")
    assert "_torch_network" not in vars(second)
    assert second.flops(2080, 96) > second.flops(1040, 96) > 0
    assert "_torch_network" in vars(second)


@pytest.mark.parametrize("change", ["weights", "card", "source"])
def test_another_network_is_measured(
    weights: Path, change: str, monkeypatch: pytest.MonkeyPatch, request
) -> None:
    load(weights, card(), "cpu")
    fields = {"name": "another"} if change == "card" else {}
    if change == "weights":
        save_file(DensityScanner().state_dict(), weights)
    if change == "source":
        monkeypatch.setattr(kept_networks, "_sources", lambda name: iter([("file", 1, 2)]))
    request.getfixturevalue("no_torch")
    with pytest.raises(ImportError):
        load(weights, card(**fields), "cpu")


def test_a_damaged_graph_is_exported_again(weights: Path) -> None:
    first = load(weights, card(), "cpu")
    (graph,) = (cache_folder() / "networks").glob("*.data")
    whole = graph.read_bytes()
    graph.write_bytes(whole[:-1] + b"?")
    assert same(load(weights, card(), "cpu"), first)
    assert graph.read_bytes() == whole


def test_an_architecture_without_a_file_is_not_kept(weights: Path) -> None:
    register_architecture("of-a-notebook", DensityScanner)
    load(weights, card(architecture={"name": "of-a-notebook"}), "cpu")
    assert not (cache_folder() / "networks").exists()


def test_the_oldest_graphs_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    from hrviewer.models import measurement_cache

    monkeypatch.setattr(measurement_cache, "MAX_FILES", 2)
    for key in "abc":
        measurement_cache.store_data("networks", key, key.encode())
    found = [measurement_cache.load_data("networks", key) for key in "abc"]
    assert found == [None, b"b", b"c"]
