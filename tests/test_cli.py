"""The command line: what it prints, where, and how it ends."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import tifffile
from toys import ToyPack, picture, toy_pack
from typer.testing import CliRunner

from hrviewer.cli import app, looking, plumbing
from hrviewer.errors import UserError
from hrviewer.geometry import Rect
from hrviewer.models import Network
from hrviewer.pyramid import Pyramid, open_pyramid
from hrviewer.runs import Run

IMAGE = picture(300, 400)
HEAVY = {"torch", "napari", "qtpy", "PyQt6", "pandas", "zarr", "dask", "numpy", "onnxruntime"}
RUN = ("--model", "toy", "--strategy", "patches", "--set", "tile=64", "--cache", "off")


def call(*args: object, status: int = 0):
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
    return result


def refused(*args: object) -> str:
    """Return the one line that a command ends with."""
    result = call(*args, status=1)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("hrviewer: ")
    return line


def started(*code: str, **environment: str) -> subprocess.Popen[str]:
    """Start Python with the command line imported."""
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
        env={**os.environ, **environment},
    )


@pytest.fixture
def image(tmp_path) -> Path:
    path = tmp_path / "scene.tif"
    tifffile.imwrite(path, IMAGE, tile=(64, 64), photometric="rgb")
    return path


@pytest.fixture
def toys(monkeypatch):
    """Make every pack the toy one, whose answer is known."""
    monkeypatch.setattr("hrviewer.runs.execute.open_pack", lambda spec: toy_pack())


@pytest.fixture
def run(image, toys, tmp_path) -> Path:
    """Return the folder of a finished run."""
    out = tmp_path / "done.run.zarr"
    call("run", image, *RUN, "--out", out)
    return out


# Help.


def test_help_lists_what_works_and_no_more():
    text = call("--help").stdout
    listed = {line.split()[1] for line in text.splitlines() if line.startswith("│ ")}
    commands = {
        "info", "run", "view", "compare", "convert", "cost", "experiment", "export", "fit",
        "import", "sample",
        "models", "strategies",
    }  # fmt: skip
    assert listed == commands | {"--version", "--debug", "--help"} | (listed & {"resumed."})
    for name in [*commands, "models list", "models show", "models check"]:
        text = call(*name.split(), "--help").stdout
        assert "--debug" in text
        assert ("--live" in text) is (name == "view")
        assert ("--truth" in text) is (name in ("run", "compare", "fit"))


def test_help_and_import_are_light_and_quick():
    check = f"assert not {HEAVY!r} & sys.modules.keys(), {HEAVY!r} & sys.modules.keys()"
    bare = started("import sys, hrviewer", check)
    assert bare.communicate() == ("", "")
    helped = started(
        "import sys",
        "from hrviewer.cli import app",
        "try: app(['--help'])",
        "except SystemExit: pass",
        check,
    )
    assert helped.communicate()[1] == ""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "Usage" in started("from hrviewer.cli import app; app(['--help'])").communicate()[0]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time: other work on the machine does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_version():
    assert call("--version").stdout.strip()[0].isdigit()


def test_the_installed_command_is_this_one():
    done = subprocess.run(
        [Path(sys.executable).with_name("hrviewer"), "info", "nowhere.png"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1


# Wrong input.


@pytest.mark.parametrize(
    "args",
    [
        ["fly"],
        ["info"],
        ["info", "a.tif", "--wings"],
        ["run", "a.tif", "--strategy", "patches"],
        ["run", "a.tif", "--model", "m"],
        ["run", "a.tif", *RUN, "--region", "1,2,3"],
        ["run", "a.tif", *RUN, "--region", "1,2,3,x"],
        ["run", "a.tif", *RUN, "--region", "1,2,0,4"],
        ["run", "a.tif", *RUN, "--region", "1,2,-3,4"],
        ["run", "a.tif", *RUN, "--budget", "5bananas"],
        ["run", "a.tif", *RUN, "--set", "tile"],
        ["run", "a.tif", *RUN, "--set", "=5"],
        ["run", "a.tif", *RUN, "--seed", "many"],
        ["run", "a.tif", *RUN, "--cache", "maybe"],
        ["export", "a.run.zarr"],
        ["models", "show"],
        ["models", "fly"],
        ["view"],
    ],
)
def test_wrong_usage_is_status_2(args):
    result = call(*args, status=2)
    assert result.stdout == ""
    assert "Usage:" in result.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "wings=2"], "no parameter 'wings'"),
        (["--set", "tile=big"], "tile"),
        (["--set", "tile=-4"], "tile"),
        (["--set", "seed=4"], "no parameter 'seed'"),
        (["--strategy", "luck"], "no strategy 'luck'"),
        (["--region", "900,900,10,10"], "outside the image"),
        (["--out", "x.zarr"], "NAME.run.zarr"),
        (["--out", "none.run.zarr", "--resume"], "no run to resume"),
        (["--resume"], "needs --out"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(image, toys, more, said):
    assert said in refused("run", image, *RUN, *more)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("unheard-of", "unheard-of"),
        ("weights.pth", "run any code"),
        ("missing.onnx", "does not exist"),
        ("lonely.onnx", "lonely.json"),
        ("torn.onnx", "torn"),
        (".", "pack.json"),
    ],
)
def test_a_wrong_model_is_said_in_one_line(image, tmp_path, monkeypatch, model, said):
    monkeypatch.chdir(tmp_path)
    card = toy_pack().roles["main"].model_dump_json()
    for name in ("weights.pth", "lonely.onnx", "torn.onnx"):
        (tmp_path / name).write_bytes(b"torn")
    (tmp_path / "torn.json").write_text(card)
    args = ("run", image, "--model", model, "--strategy", "patches")
    assert said in refused(*args)
    assert said in refused("models", "check", model)


def test_an_unknown_device_is_said_in_one_line(image, shared):
    model = shared / "models" / "mcnn_shtechB_110.onnx"
    assert "abacus" in refused("run", image, "--model", model, *RUN[2:], "--device", "abacus")


def test_what_is_no_image_is_said_in_one_line(tmp_path):
    (tmp_path / "torn.tif").write_bytes(b"II*\0torn")
    assert "nothing.tif" in refused("info", tmp_path / "nothing.tif")
    assert "torn.tif" in refused("info", tmp_path / "torn.tif")
    assert "torn.tif" in refused("run", tmp_path / "torn.tif", *RUN)


def test_what_is_not_foreseen_is_named(image, monkeypatch):
    def broken(image: object) -> None:
        raise ZeroDivisionError("a\nsurprise")

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", broken)
    line = refused("info", image)
    assert "ZeroDivisionError: a surprise" in line
    assert "--debug" in line
    for args in (["--debug", "info", image], ["info", image, "--debug"]):
        assert isinstance(call(*args, status=1).exception, ZeroDivisionError)


def test_debug_shows_the_traceback_of_any_error(tmp_path):
    result = call("info", tmp_path / "no.tif", "--debug", status=1)
    assert isinstance(result.exception, UserError)


def test_libraries_are_quiet(image, monkeypatch):
    def noisy(image: object) -> None:
        import logging
        import warnings

        warnings.warn("careful", stacklevel=1)
        logging.getLogger("tifffile").warning("corrupt")
        raise UserError("enough")

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", noisy)
    assert refused("info", image) == "hrviewer: enough"


# Images.


def test_info(image):
    text = call("info", image).stdout
    assert "300 × 400 pixels" in text
    assert "3 × uint8" in text
    found = json.loads(call("info", image, "--json").stdout)
    assert found["shape"] == [300, 400]
    assert found["channels"] == 3
    assert found["dtype"] == "uint8"
    assert found["pixel_size"] is None
    assert found["levels"][0] == {"shape": [300, 400], "downsample": [1, 1], "tile": [64, 64]}
    assert found["fingerprint"] in text


def test_info_gives_strict_json_where_nodata_is_nan(monkeypatch):
    level = SimpleNamespace(shape=(2, 3, 1), downsample=(1.0, 1.0), tile=(2, 3))
    pyramid = SimpleNamespace(
        path=None,
        name="a",
        shape=(2, 3),
        channels=1,
        dtype=np.dtype("f4"),
        pixel_size=(1, 2),
        nodata=float("nan"),
        levels=[level],
        fingerprint="f",
        notes=[],
    )
    found = looking.about(pyramid)
    assert found["nodata"] == "nan"
    json.dumps(found, allow_nan=False)


GOOD = ("wsi/*", "aerial/*.tif", "aerial/*.png", "aerial/*.jp*", "nuclei/0*.png",
        "orientation/*.tif*", "omezarr/valid/image-*", "omezarr/warning/image-*")  # fmt: skip


@pytest.mark.parametrize("pattern", GOOD)
def test_every_good_file_answers(shared, pattern):
    for path in sorted((shared / "data").glob(pattern)):
        found = json.loads(call("info", path, "--json").stdout)
        assert min(found["shape"]) > 0, path


@pytest.mark.parametrize("pattern", ["bad/*", "omezarr/invalid/*"])
def test_every_bad_file_is_refused_in_one_line(shared, pattern):
    for path in sorted((shared / "data").glob(pattern)):
        process = started(f"from hrviewer.cli import app; app(['info', {str(path)!r}])")
        out, err = process.communicate()
        assert (process.returncode, out, len(err.splitlines())) == (1, "", 1), (path, err)


# Running.


def test_run_prints_a_summary(image, toys, tmp_path):
    out = tmp_path / "a.run.zarr"
    result = call("run", image, *RUN, "--out", out)
    assert result.stderr == ""
    lines = dict(line.split("  ", 1) for line in result.stdout.splitlines())
    count = IMAGE[..., 0].sum() / 255
    assert f"{count:,.1f} × " in lines["answer"]
    assert "35 of 35" in lines["patches"]
    assert lines["run"].strip() == str(out)


def test_run_prints_one_json_object(image, toys, tmp_path):
    out = tmp_path / "a.run.zarr"
    result = call("run", image, *RUN, "--json", "--out", out, "--region", "64,0,128,400")
    said = json.loads(result.stdout)
    assert result.stderr == ""
    assert said.keys() >= {
        "image", "region", "model", "strategy", "params", "seed", "device", "run", "complete",
        "estimate", "truth", "cost", "spent", "setup_s", "patches",
    }  # fmt: skip
    assert said["image"].keys() >= {"path", "shape", "levels", "fingerprint"}
    assert said["estimate"].keys() >= {"kind", "value", "ci95", "per_class"}
    assert said["cost"].keys() == {
        "flops", "wall_s", "read_s", "prepare_s", "infer_s", "post_s", "bytes_read", "pixels_read",
        "peak_rss_bytes", "peak_device_bytes",
    }  # fmt: skip
    assert said["spent"].keys() == {"flops", "wall_s"}
    assert said["patches"].keys() == {"planned", "done", "cached", "failed"}
    assert said["complete"] is True
    assert said["truth"] is None
    assert said["region"] == [64, 0, 128, 400]
    assert said["params"] == {"tile": 64}
    assert said["estimate"]["value"] == pytest.approx(IMAGE[64:192, :, 0].sum() / 255, rel=1e-5)
    assert said == Run(out).header


def test_run_says_how_far_it_is_from_the_truth(image, toys, tmp_path):
    table = tmp_path / "truth.csv"
    table.write_text("y,x\n10,20\n30,40\n")
    out = tmp_path / "a.run.zarr"
    said = json.loads(call("run", image, *RUN, "--json", "--truth", table, "--out", out).stdout)
    count = IMAGE[..., 0].sum() / 255
    assert said["truth"]["value"] == 2
    assert said["truth"]["error"] == pytest.approx(count - 2, rel=1e-5)
    assert said["truth"]["game"].keys() == {"0", "2", "4"}
    assert said["truth"]["game"]["0"] == pytest.approx(count - 2, rel=1e-5)
    lines = call("run", image, *RUN, "--truth", table, "--out", tmp_path / "b.run.zarr").stdout
    assert "\ntruth" in lines
    assert "no such file" in refused("run", image, *RUN, "--truth", tmp_path / "none.csv")
    assert "does not know its truth" in refused("run", image, *RUN, "--truth", "auto")


def test_convert(image, tmp_path):
    out = tmp_path / "a.ome.zarr"
    result = call("convert", image, out)
    assert result.stdout == f"{out}\n"
    assert result.stderr == ""
    with open_pyramid(out) as pyramid:
        assert (pyramid.read(pyramid.rect) == IMAGE).all()
    assert "exists" in refused("convert", image, out)


def test_sample_of_an_unknown_scene(tmp_path):
    assert "nowhere" in refused("sample", "nowhere", tmp_path / "a.ome.zarr")


def test_runs_go_to_the_data_folder(image, toys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    said = json.loads(call("run", image, *RUN, "--json").stdout)
    assert Path(said["run"]).is_relative_to(tmp_path / "data")
    assert Path(said["run"]).is_dir()


def test_a_run_is_not_overwritten_but_resumed(image, run):
    assert "--resume" in refused("run", image, *RUN, "--out", run)
    before = (run / "run.json").read_bytes()
    call("run", image, *RUN, "--out", run, "--resume")
    assert (run / "run.json").read_bytes() == before
    assert "seed" in refused("run", image, *RUN, "--out", run, "--resume", "--seed", "1")


def test_the_cache_serves_what_was_seen(image, toys):
    args = ("run", image, *RUN[:-2], "--json")
    first, second = (json.loads(call(*args).stdout) for _ in range(2))
    assert first["patches"]["done"] == second["patches"]["cached"] == 35
    assert "35 of them by earlier runs" in call(*args[:-1]).stdout


def test_failed_looks_are_told(image, monkeypatch):
    class Failing(type(toy_pack().load("main"))):
        def see(self, batch):
            raise RuntimeError("out of ink")

    pack = ToyPack(main=Failing())
    monkeypatch.setattr("hrviewer.runs.execute.open_pack", lambda spec: pack)
    result = call("run", image, *RUN, status=1)
    assert "every look failed" in result.stderr
    assert "out of ink" in result.stderr
    assert "35 failed" in result.stdout


SLOW = (
    "import sys, time",
    "from toys import Bright, ToyPack",
    "import hrviewer.runs.execute as execute",
    "class Slow(Bright):",
    "    def see(self, batch):",
    "        time.sleep(0.2)",
    "        return super().see(batch)",
    "execute.open_pack = lambda spec: ToyPack(main=Slow())",
    "from hrviewer.cli import app",
    "app(sys.argv[1:])",
)


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is no signal there")
def test_ctrl_c_stops_in_good_order_and_the_run_goes_on(image, toys, tmp_path):
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
    asked = time.monotonic()
    stdout, stderr = process.communicate(timeout=30)
    assert time.monotonic() - asked < 3  # of seven seconds
    assert process.returncode == 130, stderr
    (line,) = stderr.splitlines()
    assert f"--out {out} --resume" in line
    assert "run " in stdout
    assert Run(out).complete is False
    call(*args, "--resume")
    assert Run(out).complete
    assert Run(out).estimate == Run(whole).estimate
    np.testing.assert_array_equal(Run(out).output, Run(whole).output)


def test_a_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)
    with plumbing.stoppable() as control:
        signal.raise_signal(signal.SIGINT)
        assert control.stopped
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_is_status_130_anywhere(image, monkeypatch):
    def interrupted(image: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", interrupted)
    assert call("info", image, status=130).stderr == ""


def test_progress_is_for_terminals_only(monkeypatch):
    from hrviewer.engine import Progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with plumbing.progress() as watch:
        watch(Progress(3, 12, 5e12))
    assert "3/12" in sys.stderr.getvalue()
    assert "5 TFLOP" in sys.stderr.getvalue()
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with plumbing.progress() as watch:
        assert watch is None


def test_a_published_network_counts_as_by_itself(shared, tmp_path):
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
    said = json.loads(call(*args, "--json", "--out", tmp_path / "p.run.zarr").stdout)
    assert said["patches"]["done"] == 12
    assert said["estimate"]["value"] == pytest.approx(whole, rel=1e-3)


# Exports.


def test_export(run, tmp_path):
    for name, form in (
        ("a.geojson", "geojson"), ("a.ome.zarr", "ome-zarr"), ("a.ome.tif", "ome-tiff"),
        ("a.csv", "csv"), ("a.parquet", "parquet"), ("a.coco.json", "coco"),
        ("a.dsa.json", "dsa"), ("a.png", "png"), ("a.html", "html"),
    ):  # fmt: skip
        result = call("export", run, "-o", tmp_path / name)
        assert result.stdout.strip() == str(tmp_path / name)
        call("export", run, "--to", form, "--out", tmp_path / f"b-{form}")
        assert (tmp_path / f"b-{form}").exists()


def test_export_takes_a_formats_options(run, tmp_path):
    few, many = tmp_path / "few.geojson", tmp_path / "many.geojson"
    call("export", run, "-o", few, "--set", "patches=false")
    call("export", run, "-o", many)
    assert json.loads(few.read_text())["features"] == []
    assert len(json.loads(many.read_text())["features"]) > 0
    assert "dpi" in refused("export", run, "-o", tmp_path / "a.png", "--set", "dpi=1")
    assert "place on Earth" in refused("export", run, "-o", tmp_path / "a.tif")


def test_convert_writes_either_version(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((40, 50, 3), np.uint8))
    for version, file in (("0.5", "zarr.json"), ("0.4", ".zattrs")):
        out = tmp_path / f"{version}.ome.zarr"
        call("convert", tmp_path / "a.tif", out, "--version", version)
        assert (out / file).is_file()
    assert call("convert", "a.png", "b.zarr", "--version", "1", status=2).exit_code == 2


def test_export_refuses_in_one_line(run, tmp_path):
    taken = tmp_path / "taken.geojson"
    taken.write_text("mine")
    assert "not a run folder" in refused("export", tmp_path, "-o", tmp_path / "a.geojson")
    assert "exists" in refused("export", run, "-o", taken)
    assert "no folder" in refused("export", run, "-o", tmp_path / "no" / "a.geojson")
    assert "no format 'docx'" in refused("export", run, "--to", "docx", "-o", tmp_path / "a.png")
    assert "geojson" in refused("export", run, "-o", tmp_path / "a.docx")
    assert taken.read_text() == "mine"


# What there is.


def test_a_head_is_fitted_to_the_codes_of_a_run(image, toys, tmp_path):
    pytest.importorskip("sklearn")
    run, table = tmp_path / "a.run.zarr", tmp_path / "truth.csv"
    call("run", image, "--model", "toy", "--strategy", "compression", "--out", run)
    # As many as it is bright, more or less.
    red = IMAGE[..., 0].reshape(75, 4, 100, 4).sum((1, 3)).astype(int) // 1000
    points = 4 * np.argwhere(red).repeat(red[red > 0], axis=0)
    np.savetxt(table, points, "%d", ",", header="y,x", comments="")
    said = call("fit", run, "--truth", table, "--out", tmp_path / "head").stdout
    assert f"{len(points):,} objects in 7,500 cells" in said
    assert f"--model {tmp_path / 'head'}+MODEL" in said
    told = json.loads(call("fit", run, "--truth", table, "-o", tmp_path / "b", "--json").stdout)
    assert told["correlation"] > 0.9
    assert "exists" in refused("fit", run, "--truth", table, "--out", tmp_path / "head")
    table.write_text("y,x,class\n30,30,a\n200,40,b\n30,200,a\n220,220,b\n")
    kinds = tmp_path / "kinds"
    said = call("fit", run, "--truth", table, "--task", "segmentation", "-o", kinds).stdout
    assert "4 cells: 2 a, 2 b" in said
    assert "told wrongly" in said


def test_strategies():
    text = call("strategies").stdout
    listed = json.loads(call("strategies", "--json").stdout)
    assert {entry["id"] for entry in listed} >= {"uniform", "patches"}
    for entry in listed:
        assert entry["id"] in text
        assert entry["when"] in text
        assert entry.keys() >= {"title", "family", "roles", "default_budget"}
        assert entry["params"]["type"] == "object"
        assert all(f"--set {name}=" in text for name in entry["params"]["properties"])


class Installed:
    """What `installed_packs` gives."""

    def __init__(self, pack: ToyPack | None) -> None:
        self.pack = pack

    def load(self) -> ToyPack:
        if self.pack is None:
            raise UserError("the pack torn does not import: install its plug-in again")
        return self.pack


def test_models_list(monkeypatch):
    packs = {"toy": Installed(toy_pack()), "torn": Installed(None)}
    monkeypatch.setattr("hrviewer.models.installed_packs", lambda: packs)
    for args in (["models"], ["models", "list"]):
        result = call(*args)
        (line,) = result.stdout.splitlines()
        assert line.startswith("toy ")
        assert "main" in line
        assert "torn does not import" in result.stderr
    monkeypatch.setattr("hrviewer.models.installed_packs", dict)
    assert "no pack is installed" in call("models").stderr


def test_models_show_and_check(monkeypatch):
    pack = toy_pack()
    monkeypatch.setattr("hrviewer.models.open_pack", lambda spec: pack)
    text = call("models", "show", "toy").stdout
    for role, card in pack.roles.items():
        assert f"role      {role}" in text
        assert card.name in text
    result = call("models", "check", "toy")
    assert len(result.stdout.splitlines()) == len(pack.roles)
    assert "main: bright, stride 4, halo 0, " in result.stdout

    def lying(role: str) -> Network:
        raise UserError("the card's output.stride is not what the network does: correct the card")

    monkeypatch.setattr(pack, "load", lying)
    result = call("models", "check", "toy", status=1)
    assert len(result.stderr.splitlines()) == len(pack.roles)
    assert "output.stride" in result.stderr


def test_models_check_catches_a_card_that_lies(shared, tmp_path):
    source = shared / "models" / "mcnn_shtechB_110.onnx"
    assert "stride 4, halo 40, 42.1 kFLOP per pixel" in call("models", "check", source).stdout
    card = json.loads(source.with_suffix(".json").read_text())
    card["output"]["stride"] = 8
    (tmp_path / "liar.onnx").write_bytes(source.read_bytes())
    (tmp_path / "liar.json").write_text(json.dumps(card))
    assert "output.stride" in refused("models", "check", tmp_path / "liar.onnx")


# The window.


@pytest.fixture
def window(monkeypatch):
    """Put something in the window's place that says what was asked of it."""
    asked: list[object] = []
    layers: list[object] = []

    def view(image, *, model, strategy, live):
        asked.append((image, model, strategy, live))
        return SimpleNamespace(viewer=SimpleNamespace(add_layer=layers.append))

    def image_layer(pyramid: Pyramid) -> list[str]:
        with pyramid:
            return [pyramid.name]

    def module(name: str, **members: object) -> None:
        made = ModuleType(name)
        made.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, made)

    create = SimpleNamespace(create=lambda *layer: layer)
    module("napari", run=lambda: asked.append("waited"))
    module("napari.layers", Layer=create)
    module("hrviewer.viewer.view", view=view)
    module("hrviewer.viewer.levels", image_layer=image_layer)
    module("qtpy")
    module("qtpy.QtWidgets")
    monkeypatch.setenv("DISPLAY", ":7")
    return asked, layers


def test_without_a_command_the_window_opens(window):
    asked, _ = window
    call()
    assert asked == [(None, None, None, False), "waited"]


def test_view(window, image):
    asked, layers = window
    call("view", image, image, "--model", "toy", "--strategy", "uniform")
    assert asked == [(str(image), "toy", "uniform", False), "waited"]
    assert layers == [("scene.tif",)]
    call("view", image, "--live")
    assert asked[2] == (str(image), None, None, True)


def test_no_display_is_said_in_one_line(window, image, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert "no display" in refused()
    assert "no display" in refused("view", image)


def test_no_qt_is_said_in_one_line(window, image, monkeypatch):
    monkeypatch.setitem(sys.modules, "qtpy.QtWidgets", None)
    assert "hrviewer[qt]" in refused()
    assert "hrviewer[qt]" in refused("view", image)


# Small things.


def test_quantities():
    assert plumbing.quantity(0, "B") == "0 B"
    assert plumbing.quantity(999, "B") == "999 B"
    assert plumbing.quantity(1.2e12, "FLOP") == "1.2 TFLOP"
    assert plumbing.quantity(3e18, "FLOP") == "3e+03 PFLOP"


def test_regions():
    assert plumbing.region_of("1,2,3,4") == Rect(1, 2, 3, 4)
    assert plumbing.region_of("-5, 0, 10, 10") == Rect(-5, 0, 10, 10)
