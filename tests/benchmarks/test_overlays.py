"""The benchmark of overlays, on few patches."""

from __future__ import annotations

import json

import pytest

from benchmarks import overlays


def test_few_patches(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("napari")
    overlays.main(["--patches", "64"])
    found = json.loads(capsys.readouterr().out)
    assert found["patches"] == 64
    assert found["outlined"] > 0
    assert all(found[name] > 0 for name in ("draw_s", "create_s", "update_s", "outlines_s"))
