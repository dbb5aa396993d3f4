"""Networks are loaded once per process, for every bundle, run and window."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import card_fields

from hrviewer.errors import ModelError
from hrviewer.models import Network, loaders, network_cache, open_bundle
from hrviewer.models.registry import register_architecture

torch = pytest.importorskip("torch")


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x: Any) -> Any:
        return self.weight * x[:, :1]


def write(folder: Path, weight: float = 1.0, name: str = "net") -> Path:
    from safetensors.torch import save_file

    fields = card_fields(architecture={"name": "scaled"}, output={"stride": 1, "halo": 0})
    save_file({"weight": torch.tensor([weight])}, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(fields))
    return folder / f"{name}.safetensors"


@pytest.fixture(autouse=True)
def in_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HRVIEWER_BACKEND", "torch")
    register_architecture("scaled", Scaled)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions of all loads."""
    done: list[str] = []
    real = loaders.load

    def load(*args: Any) -> Network:
        done.append(args[4])
        return real(*args)

    monkeypatch.setattr(loaders, "load", load)
    return done


def load(path: Path, **settings: Any) -> Network:
    return open_bundle(path).load("main", "cpu", **settings)


def test_a_network_is_loaded_once_for_each_precision(tmp_path: Path, loads: list[str]) -> None:
    path = write(tmp_path)
    first = load(path)
    assert load(path) is first
    assert load(path, precision="bfloat16") is not first
    assert load(path, precision="bfloat16").precision == "bfloat16"
    assert loads == ["float32", "bfloat16"]


def test_a_file_or_card_that_has_changed_is_loaded_again(tmp_path: Path, loads: list[str]) -> None:
    first = load(write(tmp_path))
    x = np.ones((1, 3, 8, 8), np.float32)
    time.sleep(0.02)  # the clock of the file system
    changed = load(write(tmp_path, weight=2.0))
    np.testing.assert_array_equal(changed(x), 2 * first(x))
    assert changed.digest != first.digest
    card = json.loads((tmp_path / "net.json").read_text())
    (tmp_path / "net.json").write_text(json.dumps(card | {"title": "another"}))
    assert load(tmp_path / "net.safetensors").card.title == "another"
    assert len(loads) == 3


def test_an_architecture_registered_again_is_built_again(tmp_path: Path, loads: list[str]) -> None:
    path = write(tmp_path)
    first = load(path)
    register_architecture("scaled", lambda: Scaled())
    assert load(path) is not first


def test_threads_wait_for_one_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, started, found = write(tmp_path), [], []
    real = loaders.load

    def slow(*args: Any) -> Network:
        started.append(args)
        time.sleep(0.1)
        return real(*args)

    monkeypatch.setattr(loaders, "load", slow)
    threads = [threading.Thread(target=lambda: found.append(load(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 1
    assert len(found) == 4
    assert len({id(network) for network in found}) == 1


def test_a_failed_load_is_not_cached(tmp_path: Path, loads: list[str]) -> None:
    path = write(tmp_path)
    path.write_bytes(b"nonsense")
    for _ in range(2):
        with pytest.raises(ModelError, match="not a safetensors file"):
            load(path)
    assert len(loads) == 2
    assert not network_cache._entries


def test_released_networks_are_loaded_again(tmp_path: Path, loads: list[str]) -> None:
    path = write(tmp_path)
    bundle = open_bundle(path)
    first, other = bundle.load("main", "cpu"), load(path)
    assert first is other
    bundle.release()
    assert bundle.load("main", "cpu") is not first
    assert len(loads) == 2


@pytest.mark.parametrize(("limit", "value"), [("MAX_NETWORKS", 2), ("MAX_BYTES", 1)])
def test_the_least_recently_used_are_dropped(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    a, b, c = (write(tmp_path, name=name) for name in "abc")
    size = a.stat().st_size
    monkeypatch.setattr(network_cache, limit, value if limit == "MAX_NETWORKS" else 2 * size)
    networks = [load(path) for path in (a, b, a, c)]
    assert networks[0] is networks[2]
    assert load(a) is networks[0]
    assert load(c) is networks[3]
    assert load(b) is not networks[1]  # it was dropped
    assert len(loads) == 4


def test_another_back_end_is_another_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: Callable[[], int]
) -> None:
    path = write(tmp_path)
    first = load(path)
    monkeypatch.setenv("HRVIEWER_BACKEND", "auto")
    assert load(path) is not first


def test_a_relative_path_finds_the_same_network(
    tmp_path: Path, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    monkeypatch.chdir(tmp_path)
    first = load(path)
    assert load(Path(path.name)) is first
    assert load(path) is first
    assert len(loads) == 1


def test_a_calibrated_network_is_released_with_its_bundle(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    samples = [np.full((3, 8, 8), value, np.float32) for value in (0, 100, 255)]
    bundle = open_bundle(write(tmp_path))
    first = bundle.load("main", "cpu", precision="int8", samples=samples)
    assert load(tmp_path / "net.safetensors", precision="int8", samples=samples) is first
    bundle.release()
    assert not network_cache._entries
