"""Command line `hrviewer`: results on standard output, messages on standard error.

Each module registers its commands; `common` is shared. Heavy packages are imported only by the
commands that need them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

# These modules register commands, in the order of the help.
# isort: off
from hrviewer.cli import view, run, batch, measure, hot_spots, compare  # noqa: F401
from hrviewer.cli import distill, fit, export, listing, model_init, doctor  # noqa: F401

# isort: on
from hrviewer.cli.common import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command; ``hrviewer IMAGE`` is ``hrviewer view IMAGE``."""
    first = sys.argv[1] if len(sys.argv) > 1 else ""
    commands = typer.main.get_group(app).commands
    if first not in commands and (first.startswith("sample:") or (first and Path(first).exists())):
        sys.argv.insert(1, "view")
    app()
