"""The command line as a whole: help, errors and logging."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from hrviewer.errors import HrviewerError

from .calling import RUN, call, error_of, started

HEAVY = {"torch", "napari", "qtpy", "PyQt6", "pandas", "zarr", "dask", "numpy", "onnxruntime"}


def test_help_lists_the_commands():
    text = call("--help").stdout
    listed = {line.split()[1] for line in text.splitlines() if line.startswith("│ ")}
    commands = {
        "info", "run", "measure", "hot-spots", "view", "compare", "convert", "cost", "experiment",
        "export",
        "fit", "import", "sample", "doctor",
        "models", "strategies",
    }  # fmt: skip
    options = {"--version", "--debug", "--verbose", "--log", "--help"}
    assert commands | options <= listed
    for name in [*commands, "models list", "models show", "models check"]:
        text = call(*name.split(), "--help").stdout
        assert "--debug" in text
        assert "--log" in text
        assert ("--live" in text) is (name == "view")
        assert ("--truth" in text) is (name in ("run", "compare", "fit"))


def test_listing_strategies_imports_no_heavy_package():
    slow = HEAVY - {"numpy"} | {"scipy", "skimage"}
    listed = started(
        "import sys",
        "from hrviewer.cli import app",
        "try: app(['strategies'])",
        "except SystemExit: pass",
        f"assert not {slow!r} & sys.modules.keys(), {slow!r} & sys.modules.keys()",
    )
    output, error = listed.communicate()
    assert "zoom" in output
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
    output, error = helped.communicate()
    assert "Usage" in output
    assert error == ""


def test_version():
    assert call("--version").stdout.strip()[0].isdigit()


def test_installed_command():
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


def test_unexpected_errors_are_named(image, monkeypatch):
    def broken(image: object) -> None:
        raise ZeroDivisionError("a\nsurprise")

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", broken)
    line = error_of("info", image)
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
    assert error_of("info", image) == "hrviewer: enough"


def test_verbose_and_log_record_messages(image, tmp_path, monkeypatch):
    logger = logging.getLogger("hrviewer.test")

    def logged(image: object) -> None:
        logger.debug("detail")
        logger.info("opening")
        raise HrviewerError("enough")

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", logged)
    assert call("info", image, status=1).stderr == "hrviewer: enough\n"
    for args in (("--verbose", "info", image), ("info", image, "--verbose")):
        lines = call(*args, status=1).stderr
        assert "INFO hrviewer.test: opening" in lines
        assert "detail" not in lines
        assert lines.endswith("hrviewer: enough\n")
    log = tmp_path / "a.log"
    for _ in range(2):
        assert call("info", image, "--log", log, status=1).stderr == "hrviewer: enough\n"
    text = log.read_text("utf-8")
    assert text.count("DEBUG hrviewer.test: detail") == text.count("Traceback") == 2
    assert logging.getLogger("hrviewer").level == logging.NOTSET
    assert "cannot be written" in error_of("info", image, "--log", tmp_path / "no" / "a.log")


def test_ctrl_c_is_status_130_anywhere(image, monkeypatch):
    def interrupted(image: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hrviewer.pyramid.open_pyramid", interrupted)
    assert call("info", image, status=130).stderr == ""
