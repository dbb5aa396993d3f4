"""The demonstration and the screenshot of the README, in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

from hrviewer.errors import HrviewerError
from hrviewer.strategies import strategy_ids
from hrviewer.viewer.demo import window_driver
from hrviewer.viewer.demo.demo import is_demo_folder


def run_module(module, *arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", f"hrviewer.viewer.demo.{module}", *arguments],
        cwd=cwd,
        env={**os.environ, "HRVIEWER_HEADLESS": "1"},
        timeout=550,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ERROR" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_demo_leaves_pictures_a_film_runs_and_exports(tmp_path):
    image = "sample:tissue?size=1024&seed=10003"
    printed = run_module("demo", image, "--side", "512", cwd=tmp_path)
    lines = {line.split()[0]: line for line in printed.splitlines() if line.strip()}
    out = tmp_path / "demo"
    for name in strategy_ids():
        assert name in lines
        assert (out / f"{name}.run.zarr" / "run.json").is_file()
        assert (out / f"3-{name}.png").stat().st_size > 10_000
    assert "ground" in lines
    for name in ("1-overview", "2-live", "4-compare", "5-side-by-side"):
        assert (out / f"{name}.png").stat().st_size > 10_000
    assert (out / "zoom.geojson").is_file()
    assert (out / "film.webp").stat().st_size <= 4_000_000
    with Image.open(out / "film.webp") as film:
        assert film.n_frames > 10


@pytest.mark.slow
def test_the_screenshot(tmp_path):
    run_module("screenshot", "window.png", cwd=tmp_path)
    assert (tmp_path / "window.png").stat().st_size > 10_000


def test_only_a_demo_folder_is_replaced(tmp_path):
    assert not is_demo_folder(tmp_path)
    (tmp_path / ".hrviewer-demo").touch()
    assert is_demo_folder(tmp_path)


def test_a_virtual_screen_is_known_by_its_variable(monkeypatch):
    monkeypatch.delenv("HRVIEWER_HEADLESS", raising=False)
    assert not window_driver.is_headless()
    monkeypatch.setenv("HRVIEWER_HEADLESS", "1")
    assert window_driver.is_headless()


def test_waiting_has_a_limit(qapp):
    calls = []
    with pytest.raises(HrviewerError, match="was not ready within"):
        window_driver.wait_until(lambda: False, 0.05, lambda: calls.append(1))
    assert calls
