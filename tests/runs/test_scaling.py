"""Cost by input size: closed forms, and a bisection whose result is known."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from toys import FLOPS, Bright, write_thin_model
from typer.testing import CliRunner

from hrviewer.cli import app
from hrviewer.engine import RunControl
from hrviewer.errors import HrviewerError
from hrviewer.models.size_trial import measure_size
from hrviewer.runs import cost
from hrviewer.runs.scaling import BISECTION_TOLERANCE, find_largest, fit, parse_bytes
from hrviewer.runs.size_trials import SquareCost

MB = 1_000_000


def test_a_fit_of_a_line_is_that_line():
    areas = np.array([64, 128, 256, 512, 1024]) ** 2
    found = fit(areas, 3e6 + 40.0 * areas)
    assert found.constant == pytest.approx(3e6)
    assert found.per_pixel == pytest.approx(40)
    assert found.max_deviation < 1e-9
    assert found.predict(2048) == pytest.approx(3e6 + 40 * 2048**2)
    # Neither coefficient is negative, and the deviation is known.
    bent = fit(areas, areas.astype(float) ** 2)
    assert bent.constant == 0
    assert bent.max_deviation > 0.5


def test_flops_grow_with_the_area():
    points = [measure_size(Bright(), side) for side in (64, 128, 256)]
    assert [point["flops"] for point in points] == [FLOPS * side**2 for side in (64, 128, 256)]
    found = fit([p["side"] ** 2 for p in points], [p["flops"] for p in points])
    assert (found.constant, found.per_pixel) == (pytest.approx(0, abs=1), pytest.approx(FLOPS))
    assert all(point["fits"] and point["seconds"] > 0 for point in points)


def test_an_input_that_does_not_fit_is_reported():
    network = Bright()

    def refuse(batch):
        raise MemoryError

    network.before = refuse
    assert measure_size(network, 64) == {"side": 64, "fits": False}


@pytest.mark.parametrize("step", [1, 16])
@pytest.mark.parametrize("limit", [200, 1000, 3333])
@pytest.mark.parametrize("begun", [False, True])
def test_the_largest_is_found_by_bisection(step, limit, begun):
    sides = []

    def ask(side):
        sides.append(side)
        assert side % step == 0
        return SquareCost(side, 0, 0, 0) if side <= limit else None

    points, side, fails = find_largest(ask, 160, 160 * 40 if begun else None, step)
    assert side <= limit < fails
    assert fails - side <= max(step, BISECTION_TOLERANCE * side) + step
    assert len(sides) == len(set(sides)) <= 20
    assert side == max((160, *(point.side for point in points)))


def test_it_ends_when_all_fits():
    points, side, fails = find_largest(lambda side: SquareCost(side, 0, 0, 0), 1000, None, 1)
    assert fails is None
    assert side == points[-1].side > 90_000


@pytest.fixture
def network(tmp_path):
    pytest.importorskip("onnxruntime")
    return write_thin_model(tmp_path / "net.onnx")


def test_the_largest_input_within_a_memory_limit(network, monkeypatch):
    idle = cost(network, device="cpu", sides=[64], search=False).points[0].peak_bytes
    limit = int(idle) + 250 * MB
    messages = []
    found = cost(network, device="cpu", memory=limit, sides=[256, 512], on_progress=messages.append)
    assert found.limit_bytes == limit
    assert (
        found.largest
        < found.failed
        <= found.largest * (1 + BISECTION_TOLERANCE) + found.fits["flops"].max_deviation + 4
    )
    # 32 maps of float32 must be held at least once; the process is restarted after each failure.
    assert 64 * found.largest**2 < 250 * MB < 1000 * found.failed**2
    assert max(point.peak_bytes for point in found.points) <= limit
    # Two convolutions of 32 weights, 2 FLOPs each, and nothing that does not grow.
    assert found.fits["flops"].per_pixel == pytest.approx(2 * 64, rel=0.02)
    assert found.fits["flops"].constant == pytest.approx(0, abs=1e3)
    assert messages[0] == "256 × 256 pixels"
    output = json.loads(json.dumps(found.to_dict()))
    assert output["largest"] == found.largest
    assert output["extrapolated"][0]["flops"] == pytest.approx(128 * 4096**2, rel=0.02)


def test_too_little_memory_and_other_mistakes(network):
    with pytest.raises(HrviewerError, match="the model alone does not fit"):
        cost(network, device="cpu", memory="1MB")
    with pytest.raises(HrviewerError, match="not an amount of memory"):
        cost(network, memory="lots")
    with pytest.raises(HrviewerError, match="does not exist"):
        cost(network.with_name("nowhere.onnx"))
    with pytest.raises(HrviewerError, match="has no role 'scout'"):
        cost(network, role="scout")
    for sides in ([], [-1], [0, 64], ["64"]):
        with pytest.raises(HrviewerError, match="sides are positive whole numbers"):
            cost(network, sides=sides)
    stopped = RunControl()
    stopped.stop()
    with pytest.raises(HrviewerError, match="stopped"):
        cost(network, control=stopped)


def test_amounts_of_memory():
    assert parse_bytes("4GB") == 4 * 10**9
    assert parse_bytes("1.5 GiB") == 3 << 29
    assert parse_bytes("500MB") == parse_bytes(500 * MB) == 500 * MB


def test_the_command(network, tmp_path):
    arguments = ["cost", "--model", str(network), "--sides", "64,128,256", "--no-search"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    output = json.loads(result.stdout)
    assert [point["side"] for point in output["points"]] == [64, 128, 256]
    assert output["largest"] is None
    assert output["fits"].keys() == {"flops", "seconds", "peak_bytes"}
    with Image.open(output["files"]["plot"]) as plot:
        assert plot.width > 1000
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
    assert "extrapolated" in result.stdout
    assert CliRunner().invoke(app, ["cost", "--model", "x", "--sides", "a"]).exit_code == 2
