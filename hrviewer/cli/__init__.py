"""The command `hrviewer`: answers on standard output, all else on standard error.

One module per group of commands, each registering its own; `plumbing` is what they share. Nothing
heavy is imported before a command needs it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import typer

# Imported for what they register, in the order of the help.
# isort: off
from hrviewer.cli import view, run, compare, fit, export, listing  # noqa: F401

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
