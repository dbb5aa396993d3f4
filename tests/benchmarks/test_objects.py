"""The benchmark of objects, on few of them."""

from __future__ import annotations

import json

import pytest

from benchmarks import objects


def test_few_objects(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("napari")
    objects.main(["--objects", "3000"])
    found = json.loads(capsys.readouterr().out)
    assert found["candidates"] == 12_000
    assert found["lines"] > 0
    assert all(found[f"{name}_s"] > 0 for name in ("merge", "draw", "show", "score"))
