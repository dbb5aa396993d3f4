"""The command as a whole: its help, and how it ends when something is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hrviewer.errors import HrviewerError

from .calling import RUN, call, refused, started

HEAVY = {"torch", "napari", "qtpy", "PyQt6", "pandas", "zarr", "dask", "numpy", "onnxruntime"}


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


def test_strategies_are_listed_without_what_only_runs_need():
    slow = HEAVY - {"numpy"} | {"scipy", "skimage"}
    listed = started(
        "import sys",
        "from hrviewer.cli import app",
        "try: app(['strategies'])",
        "except SystemExit: pass",
        f"assert not {slow!r} & sys.modules.keys(), {slow!r} & sys.modules.keys()",
    )
    told, error = listed.communicate()
    assert "zoom" in told
    assert error == ""


def test_help_and_import_are_light():
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
    told, error = helped.communicate()
    assert "Usage" in told
    assert error == ""


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
    assert isinstance(result.exception, HrviewerError)


def test_libraries_are_quiet(image, monkeypatch):
    def noisy(image: object) -> None:
        import logging
        import warnings

        warnings.warn("careful", stacklevel=1)
        logging.getLogger("tifffile").warning("corrupt")
        raise HrviewerError("enough")

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", noisy)
    assert refused("info", image) == "hrviewer: enough"


def test_ctrl_c_is_status_130_anywhere(image, monkeypatch):
    def interrupted(image: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", interrupted)
    assert call("info", image, status=130).stderr == ""
