"""Benchmark of a GPU: the part that a CPU can run, and its output without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu

IMAGE = "sample:tissue?size=1024&seed=10000"


@pytest.fixture
def model() -> str:
    pytest.importorskip("hrviewer_histology")
    return "nuclei"


def test_without_a_gpu_it_reports_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert json.loads(capsys.readouterr().out)["device"] is None


MEASURE = """
import sys
import pytest
from benchmarks import gpu
from hrviewer.models import open_bundle
from hrviewer.pyramid import open_pyramid

gpu.MEASURE_SECONDS = 0.1
image, model = sys.argv[1:]
network = open_bundle(model).load("main", "cpu")
with open_pyramid(image) as pyramid:
    tile = gpu.center_tile(pyramid, network)
    outputs = network(tile)
    off = gpu.output_difference(outputs, 1.5 * outputs)
    assert off == pytest.approx({"largest": 0.5, "sum": 0.5})
    found = gpu.measure_rate(network, tile, 1, 1e12, "cpu")
    assert found["of_limit"] == pytest.approx(found["tflop_s"], rel=0.05, abs=1e-3)
    assert found["mp_s"] > 0
    whole = gpu.measure_run(pyramid, model, "cpu")
    assert (whole["batch"], whole["failed"]) == (1, 0)
with open_pyramid(image.replace("1024", "4096")) as pyramid:
    took = gpu.measure_first_overlay(pyramid, model, "cpu")
    assert len(took) == 5
"""


@pytest.mark.slow
def test_its_measurements_work_on_a_cpu(model: str) -> None:
    """In a process of its own, as a benchmark is: in one that others have used it may end it."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, IMAGE, model],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
