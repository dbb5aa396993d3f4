"""`run`: output, run folders and errors."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from toys import ToyBundle, toy_bundle

from hrviewer.runs import Run

from .calling import IMAGE, RUN, call, error_of, started


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--set", "wings=2"], "no parameter 'wings'"),
        (["--set", "tile=big"], "tile"),
        (["--set", "tile=-4"], "tile"),
        (["--set", "seed=4"], "no parameter 'seed'"),
        (["--strategy", "luck"], "strategy 'luck'"),
        (["--region", "900,900,10,10"], "outside the image"),
        (["--out", "x.zarr"], "NAME.run.zarr"),
        (["--out", "none.run.zarr", "--resume"], "no run to resume"),
        (["--resume"], "needs --out"),
    ],
)
def test_invalid_arguments_are_one_line(image, toys, more, message):
    assert message in error_of("run", image, *RUN, *more)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("unheard-of", "unheard-of"),
        ("weights.pth", "run arbitrary code"),
        ("missing.onnx", "does not exist"),
        ("lonely.onnx", "lonely.json"),
        ("torn.onnx", "torn"),
        (".", "bundle.json"),
    ],
)
def test_invalid_model_is_one_line(image, tmp_path, monkeypatch, model, message):
    monkeypatch.chdir(tmp_path)
    card = toy_bundle().roles["main"].model_dump_json()
    for name in ("weights.pth", "lonely.onnx", "torn.onnx"):
        (tmp_path / name).write_bytes(b"torn")
    (tmp_path / "torn.json").write_text(card)
    args = ("run", image, "--model", model, "--strategy", "patches")
    assert message in error_of(*args)
    assert message in error_of("models", "check", model)


def test_unknown_device_is_one_line(image, shared):
    model = shared / "models" / "mcnn_shtechB_110.onnx"
    assert "abacus" in error_of("run", image, "--model", model, *RUN[2:], "--device", "abacus")


def test_run_prints_a_summary(image, toys, tmp_path):
    out = tmp_path / "a.run.zarr"
    result = call("run", image, *RUN, "--out", out)
    assert result.stderr == ""
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    count = IMAGE[..., 0].sum() / 255
    assert lines["estimate"].strip() == (f"{count:,.0f} things (exhaustive; rough as a true count)")
    assert "35 of 35" in lines["patches"]
    assert lines["run"].strip() == str(out)


def test_run_prints_one_json_object(image, toys, tmp_path):
    out = tmp_path / "a.run.zarr"
    result = call("run", image, *RUN, "--json", "--out", out, "--region", "64,0,128,400")
    header = json.loads(result.stdout)
    assert result.stderr == ""
    assert header.keys() >= {
        "image", "region", "model", "strategy", "params", "seed", "device", "run", "complete",
        "estimate", "truth", "cost", "spent", "setup_s", "patches",
    }  # fmt: skip
    assert header["image"].keys() >= {"path", "shape", "levels", "fingerprint"}
    assert header["estimate"].keys() >= {"kind", "value", "ci95", "ci95_truth", "exhaustive"}
    assert header["cost"].keys() == {
        "flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s", "bytes_read", "pixels_read",
        "peak_rss_bytes", "peak_device_bytes",
    }  # fmt: skip
    assert header["spent"].keys() == {"flops", "wall_s"}
    assert header["patches"].keys() == {"planned", "done", "cached", "failed", "skipped"}
    assert header["complete"] is True
    assert header["truth"] is None
    assert header["region"] == [64, 0, 128, 400]
    assert header["params"] == {"tile": 64}
    assert header["estimate"]["value"] == pytest.approx(IMAGE[64:192, :, 0].sum() / 255, rel=1e-5)
    assert header == Run(out).header


def test_run_is_evaluated_against_ground_truth(image, toys, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("y,x\n10,20\n30,40\n")
    out = tmp_path / "a.run.zarr"
    header = json.loads(call("run", image, *RUN, "--json", "--truth", table, "--out", out).stdout)
    count = IMAGE[..., 0].sum() / 255
    assert header["truth"]["value"] == 2
    assert header["truth"]["error"] == pytest.approx(count - 2, rel=1e-5)
    assert header["truth"]["game"].keys() == {"0", "2", "4"}
    assert header["truth"]["game"]["0"] == pytest.approx(count - 2, rel=1e-5)
    lines = call("run", image, *RUN, "--truth", table, "--out", tmp_path / "b.run.zarr").stdout
    assert "\nground truth" in lines
    assert "no such file" in error_of("run", image, *RUN, "--truth", tmp_path / "none.csv")
    assert "has no ground truth of its own" in error_of("run", image, *RUN, "--truth", "auto")


def test_channels_and_pixel_size_are_recorded(image, toys, tmp_path):
    out = tmp_path / "a.run.zarr"
    options = ("--channels", "2,1,0", "--pixel-size", "0.5")
    header = json.loads(call("run", image, *RUN, *options, "--json", "--out", out).stdout)
    assert header["image"]["channels"] == [2, 1, 0]
    assert header["image"]["pixel_size"] == [0.5, 0.5]
    assert "pixel" in error_of("run", image, *RUN, "--out", out, "--resume", "--pixel-size", "1")


def test_runs_go_to_the_data_folder(image, toys, monkeypatch, tmp_path):
    monkeypatch.setenv("HRVIEWER_DATA", str(tmp_path / "data"))
    header = json.loads(call("run", image, *RUN, "--json").stdout)
    assert Path(header["run"]).is_relative_to(tmp_path / "data")
    assert Path(header["run"]).is_dir()


def test_a_run_is_not_overwritten_but_resumed(image, run):
    assert "--resume" in error_of("run", image, *RUN, "--out", run)
    before = (run / "run.json").read_bytes()
    call("run", image, *RUN, "--out", run, "--resume")
    assert (run / "run.json").read_bytes() == before
    assert "seed" in error_of("run", image, *RUN, "--out", run, "--resume", "--seed", "1")


def test_cached_predictions_are_reused(image, toys):
    args = ("run", image, *RUN[:-2], "--json")
    first, second = (json.loads(call(*args).stdout) for _ in range(2))
    assert first["patches"]["done"] == second["patches"]["cached"] == 35
    assert "35 of them cached" in call(*args[:-1]).stdout


def test_failed_patches_are_reported(image, monkeypatch):
    class Failing(type(toy_bundle().load("main"))):
        def predict(self, batch):
            raise RuntimeError("out of ink")

    bundle = ToyBundle(main=Failing())
    monkeypatch.setattr("hrviewer.runs.model.open_bundle", lambda *_: bundle)
    result = call("run", image, *RUN, status=1)
    assert "inference failed on every patch" in result.stderr
    assert "out of ink" in result.stderr
    assert "35 failed" in result.stdout


def test_a_run_that_lost_patches_is_incomplete(image, monkeypatch, tmp_path):
    class Failing(type(toy_bundle().load("main"))):
        def predict(self, batch):
            if self.inferred % 5 == 0:
                raise RuntimeError("out of ink")
            return super().predict(batch)

    bundle = ToyBundle(main=Failing())
    monkeypatch.setattr("hrviewer.runs.model.open_bundle", lambda *_: bundle)
    result = call("run", image, *RUN, "--out", tmp_path / "a.run.zarr", status=3)
    line = "incomplete: 7 of 35 patches failed, the first: RuntimeError: out of ink"
    assert result.stderr.splitlines() == [f"hrviewer: {line}"]
    assert "incomplete  7 of 35 patches failed" in result.stdout
    header = json.loads(call("run", image, *RUN, "--json", status=3).stdout)
    assert header["complete"] is False
    assert 75 < header["coverage"] < 85


SLOW = (
    "import sys, time",
    "from toys import Bright, ToyBundle",
    "import hrviewer.runs.model as model",
    "class Slow(Bright):",
    "    def predict(self, batch):",
    "        time.sleep(0.2)",
    "        return super().predict(batch)",
    "model.open_bundle = lambda *_: ToyBundle(main=Slow())",
    "from hrviewer.cli import app",
    "app(sys.argv[1:])",
)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
def test_ctrl_c_stops_a_run_that_can_be_resumed(image, toys, tmp_path):
    whole = tmp_path / "whole.run.zarr"
    call("run", image, *RUN, "--out", whole)
    out = tmp_path / "cut.run.zarr"
    args = ["run", image, *RUN, "--out", out]
    process = started(f"import sys; sys.argv[1:] = {list(map(str, args))!r}", *SLOW)
    limit = time.monotonic() + 30
    while not (out / "run.json").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - interrupted < 3  # of seven seconds
    assert process.returncode == 130, stderr
    (line,) = stderr.splitlines()
    assert f"--out {out} --resume" in line
    assert "run " in stdout
    assert Run(out).complete is False
    call(*args, "--resume")
    assert Run(out).complete
    assert Run(out).estimate == Run(whole).estimate
    np.testing.assert_array_equal(Run(out).output, Run(whole).output)


def test_published_model_counts_as_without_hrviewer(shared, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from PIL import Image

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (90, 120, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path / "people.png"
    Image.fromarray(pixels).save(path)
    model = shared / "models" / "mcnn_shtechB_110.onnx"
    gray = np.asarray(Image.open(path).convert("L"), np.float32)[None, None]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    whole = float(session.run(None, {session.get_inputs()[0].name: gray})[0].sum())
    args = ("run", path, "--model", model, "--strategy", "patches", "--set", "tile=256")
    header = json.loads(call(*args, "--json", "--out", tmp_path / "p.run.zarr").stdout)
    assert header["patches"]["done"] == 12
    assert header["estimate"]["value"] == pytest.approx(whole, rel=1e-3)


@pytest.mark.parametrize(
    "words", [("run", "a.png", "--strategy", "patches"), ("compare", "a.png"), ("cost",)]
)
def test_a_missing_model_lists_the_installed_ones_and_packages(words, monkeypatch):
    monkeypatch.setattr("hrviewer.models.bundle.installed_bundles", lambda: {"nuclei": None})
    message = " ".join(call(*words, status=2).stderr.replace("│", " ").split())
    assert "no model is given: give one of the installed models (nuclei)" in message
    assert 'pip install "hrviewer[crowd]" for crowd' in message
