"""Calling a command, in this process or another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from toys import picture
from typer.testing import CliRunner

from hrviewer.cli import app

IMAGE = picture(300, 400)

RUN = ("--model", "toy", "--strategy", "patches", "--set", "tile=64", "--cache", "off")


def call(*args: object, status: int = 0):
    """Run a command in this process."""
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == status, (result.stdout, result.stderr, result.exception)
    return result


def error_of(*args: object) -> str:
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
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
    )
