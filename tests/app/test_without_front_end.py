"""The application in a process in which napari and Qt cannot be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toys import picture

SCRIPT = Path(__file__).with_name("without_front_end.py")


def test_a_run_and_live_need_no_front_end(tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    count = float(picture(600, 700)[..., 0].sum(dtype=float) / 255)
    assert found["count"] == pytest.approx(count, rel=1e-5)
    assert f"{count:,.0f} things" in found["estimate"]
    assert f"{count:,.0f} things" in found["live"]
    assert found["finite"]
    assert found["preview"] == [64, 64, 3]
    assert found["runs"] == 1
    assert found["exported"]
    assert found["errors"] == []
    assert found["imported"] == []
