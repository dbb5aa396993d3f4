"""The cache of measurements: robust to damage, and FLOPs are counted once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hrviewer.models.loaders import torch as loader
from hrviewer.models.loaders.torch import count_flops
from hrviewer.models.measurement_cache import load_measurement, store_measurement
from hrviewer.paths import cache_folder


def test_values_are_cached() -> None:
    assert load_measurement("things", "a") is None
    store_measurement("things", "a", [1, 2])
    store_measurement("things", "b", "x")
    assert (load_measurement("things", "a"), load_measurement("things", "b")) == ([1, 2], "x")
    assert load_measurement("others", "a") is None
    assert [file.name for file in cache_folder().iterdir()] == ["things.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"a": 1}',
        "[" * 99_999,
        '{"writer": "", "checksum": "", "values": 1}',
    ],
)
def test_a_damaged_file_is_ignored(text: str) -> None:
    store_measurement("things", "a", 1)
    (cache_folder() / "things.json").write_text(text)
    assert load_measurement("things", "a") is None
    store_measurement("things", "b", 2)
    assert load_measurement("things", "b") == 2
    assert json.loads((cache_folder() / "things.json").read_text())["values"] == {"b": 2}


@pytest.mark.parametrize(("field", "value"), [("values", {"a": 2}), ("writer", "hrviewer-0.0.1")])
def test_a_measurement_that_is_not_what_was_written_is_repeated(field: str, value: object) -> None:
    store_measurement("things", "a", 1)
    path = cache_folder() / "things.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    assert load_measurement("things", "a") is None


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HRVIEWER_CACHE", str(tmp_path / "file"))
    store_measurement("things", "a", 1)
    assert load_measurement("things", "a") is None


class Layers(nn.Module):
    """Costs 2 · 9 · 3 · 4 a pixel, `times` over."""

    def __init__(self, times: int = 1) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(x) for _ in range(self.times)], 1)


def test_a_cost_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def cost(times: int, side: int) -> float:
        return count_flops(Layers(times).to("meta"), "forward", (1, 3, side, side))

    assert (cost(1, 8), cost(2, 8), cost(1, 16)) == (13824, 27648, 55296)
    monkeypatch.setattr(loader, "_count_on_meta", lambda *_: pytest.fail("counted again"))
    # What differs in a plain attribute only is another network.
    assert (cost(1, 8), cost(2, 8), cost(1, 16)) == (13824, 27648, 55296)
    with pytest.raises(pytest.fail.Exception, match="counted again"):
        cost(1, 24)
    path = cache_folder() / "costs.json"
    keys = json.loads(path.read_text())["values"]
    path.unlink()
    for key in keys:
        store_measurement("costs", key, "many")
    with pytest.raises(pytest.fail.Exception, match="counted again"):
        cost(1, 8)


def test_a_cost_is_counted_again_if_the_code_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module = Layers().to("meta")
    assert count_flops(module, "forward", (1, 3, 8, 8)) == 13824
    monkeypatch.setattr(loader, "_count_on_meta", lambda *_: 7.0)
    for other in (tmp_path / "edited.py", None):  # or one that lies in no file
        if other is not None:
            other.write_text("# edited")
        monkeypatch.setattr(sys.modules[__name__], "__file__", other and str(other))
        assert count_flops(module, "forward", (1, 3, 8, 8)) == 7.0
